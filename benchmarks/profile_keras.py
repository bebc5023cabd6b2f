"""Time the parts of a training step: where the milliseconds of `train_keras.py speed` go.

    TF_NUM_INTRAOP_THREADS=1 python benchmarks/profile_keras.py

Every layer of the networks runs alone at the size that it has there (64 sequences of 96 frames), forwards and with its
gradients, in processor time; the recurrences beside the stock layers and the bare products they are made of. TensorFlow
only, as the gradients are taken by its tape.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from measuring import header, parser, row, timed

from bfrbctl.models.keras.backend import keras
from bfrbctl.models.keras.network.images import FlatPixels, ImageEncoder, Mixup
from bfrbctl.models.keras.network.layers import ConvNorm, SqueezeExcite
from bfrbctl.models.keras.network.recurrent import Bidirectional

BATCH, TIME = 64, 96
rng = np.random.default_rng(0)


def frames(channels: int, halvings: int = 0) -> Any:
    """Make frames (batch, time / 2^halvings, channels)."""
    return tf.constant(rng.normal(size=(BATCH, TIME >> halvings, channels)).astype(np.float32))


def mask(halvings: int = 0) -> Any:
    """Make a mask of recorded frames."""
    return tf.ones((BATCH, TIME >> halvings, 1))


def pixels() -> Any:
    """Make the images of five sensors."""
    return tf.constant(rng.integers(0, 256, (BATCH, TIME, 5, 64)).astype(np.uint8))


def conv(width: int, filters: int, size: int, halvings: int = 0) -> tuple[Any, list[Any]]:
    """Make a convolution and what it reads."""
    return ConvNorm(filters, size, seed=0), [frames(width, halvings), mask(halvings)]


def stock(cell: Any) -> tuple[Any, list[Any]]:
    """Make the stock recurrence and what it reads."""
    return keras.layers.Bidirectional(cell(128, return_sequences=True)), [frames(256, 2)]


PARTS: dict[str, Callable[[], tuple[Any, list[Any]]]] = {
    "pixels as channels": lambda: (FlatPixels(), [pixels()]),
    "images by one network": lambda: (ImageEncoder(12, 24, seed=0), [pixels()]),
    "mixup of 325 channels": lambda: (Mixup(), [frames(325), tf.ones(BATCH), tf.range(BATCH)]),
    "conv 3, 350 -> 64": lambda: conv(350, 64, 3),
    "conv 3, 21 -> 64": lambda: conv(21, 64, 3),
    "conv 3, 64 -> 64": lambda: conv(64, 64, 3),
    "conv 5, 64 -> 128, half the time": lambda: conv(64, 128, 5, 1),
    "conv 5, 128 -> 128, half the time": lambda: conv(128, 128, 5, 1),
    "conv 3, 64 -> 128, half the time": lambda: conv(64, 128, 3, 1),
    "squeeze and excitation 128, half the time": lambda: (SqueezeExcite(8, seed=0), [frames(128, 1), mask(1)]),
    "LSTM 128 both ways, a quarter of the time": lambda: (Bidirectional(128, "lstm"), [frames(256, 2), mask(2)]),
    "the same, stock": lambda: stock(keras.layers.LSTM),
    "GRU 128 both ways, a quarter of the time": lambda: (Bidirectional(128, "gru"), [frames(256, 2), mask(2)]),
    "the same, stock ": lambda: stock(keras.layers.GRU),
}


def shortest(step: Callable[[], Any], rounds: int) -> float:
    """Give the shortest processor time, milliseconds, after two rounds that trace and warm up."""
    return min([timed(step)[2] for _ in range(rounds + 2)][2:]) * 1e3


def time_part(layer: Any, inputs: Sequence[Any], rounds: int) -> tuple[float, float | None]:
    """Time a layer forwards, and with the gradients of its weights and of what it reads first, if there are any."""
    layer(*inputs)
    weights = [weight.value for weight in layer.trainable_weights]
    sources = weights + [each for each in inputs[:1] if each.dtype == tf.float32]

    def forwards() -> Any:
        return tf.reduce_sum(layer(*inputs))

    def both() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(tf.square(layer(*inputs)))
        return tape.gradient(total, sources)

    return shortest(tf.function(forwards), rounds), shortest(tf.function(both), rounds) if sources else None


def product(rows: int, inner: int, columns: int, rounds: int) -> str:
    """Tell how fast a bare matrix product is."""
    left, right = tf.constant(rng.normal(size=(rows, inner))), tf.constant(rng.normal(size=(inner, columns)))
    left, right = tf.cast(left, tf.float32), tf.cast(right, tf.float32)
    run = tf.function(lambda: [tf.matmul(left + float(number), right) for number in range(20)])
    each = shortest(run, rounds) / 20
    return f"{rows} x {inner} by {inner} x {columns}: {2e-6 * rows * inner * columns / each:.0f} GFLOP/s"


def main() -> None:
    """Time all parts and print a Markdown table."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=10)
    rounds = arguments.parse_args().rounds
    print(header("part", "forwards", "with gradients"))
    for name, make in PARTS.items():
        layer, inputs = make()
        forwards, both = time_part(layer, inputs, rounds)
        print(row(name.strip(), f"{forwards:.1f} ms", "" if both is None else f"{both:.1f} ms"), flush=True)
    print(f"\nproduct with the state, {product(64, 128, 512, rounds)}")
    print(f"product with the inputs, {product(BATCH * TIME // 4, 256, 1024, rounds)}")


if __name__ == "__main__":
    main()
