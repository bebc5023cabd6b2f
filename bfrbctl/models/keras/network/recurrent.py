"""LSTM and GRU that run over time both ways and stop at the padding.

The products with the inputs of all frames are one matrix product a direction before the loop; only the product with the
state is left inside it. Time comes first from that product on, so that a step reads what lies together, and backwards
is the order of reading, not a copy. Padded frames need nothing inside the loop: their product with the inputs gets
numbers that hold the gates at keeping what is. As recorded frames are one run, the state is still 0 when the run
begins, and what comes after its end is padding that nobody reads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.network.layers import Tensor, glorot, registered
from bfrbctl.models.keras.network.layout import GATES

HOLD = {"lstm": (-1e4, 1e4, 0.0, 0.0), "gru": (1e4, 0.0, 0.0)}
"""What padding adds to each of them, so that the state stays: nothing enters, all is kept."""

States = list[Tensor]
"""What a cell carries from step to step, each (batch, units); its output first."""

Step = Callable[[States, Tensor], tuple[States, States]]
"""From the states and the product with the input (batch, gates * units) to the next states, twice as scans want."""


def lstm_step(weights: Sequence[Tensor]) -> Step:
    """Give one step of an LSTM, whose states are the output and the memory."""
    (state,) = weights

    def step(states: States, mixed: Tensor) -> tuple[States, States]:
        hidden, memory = states
        enter, stay, leave, candidate = ops.split(mixed + ops.matmul(hidden, state), 4, axis=-1)
        memory = ops.sigmoid(stay) * memory + ops.sigmoid(enter) * ops.tanh(candidate)
        states = [ops.sigmoid(leave) * ops.tanh(memory), memory]
        return states, states

    return step


def gru_step(weights: Sequence[Tensor]) -> Step:
    """Give one step of a GRU, whose state is the output."""
    state, bias = weights

    def step(states: States, mixed: Tensor) -> tuple[States, States]:
        (hidden,) = states
        inner = ops.split(ops.matmul(hidden, state) + bias, 3, axis=-1)
        outer = ops.split(mixed, 3, axis=-1)
        update, reset = ops.sigmoid(outer[0] + inner[0]), ops.sigmoid(outer[1] + inner[1])
        candidate = ops.tanh(outer[2] + reset * inner[2])
        states = [candidate + update * (hidden - candidate)]
        return states, states

    return step


CELLS = {"lstm": (lstm_step, 2), "gru": (gru_step, 1)}
"""What makes a cell's step from the weights of its state, and how many states it has."""


@registered
class Bidirectional(keras.layers.Layer):  # type: ignore[misc]
    """An LSTM or GRU forwards and one backwards: (batch, time, c) -> (batch, time, 2 units).

    Parameters
    ----------
    units
        Width of the state, each way.
    cell
        `lstm` (Hochreiter & Schmidhuber 1997, forget bias 1) or `gru` (Cho et al. 2014, with the reset gate applied
        after the product, as cuDNN does).
    seed
        Of the initial values.
    """

    def __init__(self, units: int, cell: str, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if cell not in GATES:
            raise ValueError(f"cell is {cell!r}, expected one of {', '.join(GATES)}")
        self.units, self.cell, self.seed = units, cell, seed

    def build(self, frames_shape: tuple[int | None, ...], keep_shape: tuple[int | None, ...]) -> None:
        """Create the weights of both directions."""
        width = GATES[self.cell] * self.units
        self.kernel = self.add_weight(
            shape=(frames_shape[-1], 2 * width),
            name="kernel",
            initializer=_side_by_side(width, self.seed + 2),
        )
        self.bias = self.add_weight(shape=(2 * width,), name="bias", initializer=self._first_bias)
        self.states: list[tuple[Any, ...]] = []
        for number, way in enumerate(("forward", "backward")):
            orthogonal = keras.initializers.Orthogonal(seed=self.seed + number)
            weights = [self.add_weight(shape=(self.units, width), name=f"{way}_state", initializer=orthogonal)]
            if self.cell == "gru":
                weights.append(self.add_weight(shape=(width,), name=f"{way}_state_bias", initializer="zeros"))
            self.states.append(tuple(weights))

    def _first_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        """Start at 0, except the forget gates at 1."""
        bias = np.zeros((2, GATES[self.cell], self.units), dtype=np.float32)
        if self.cell == "lstm":
            bias[:, 1] = 1.0
        return ops.convert_to_tensor(bias.reshape(shape), dtype=dtype)

    def call(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Run both ways; outputs at padded frames are of no meaning, behind a mask."""
        hold = np.tile(np.repeat(np.array(HOLD[self.cell], dtype=np.float32), self.units), 2)[None]
        kernel = ops.concatenate([self.kernel, ops.convert_to_tensor(hold, dtype=self.compute_dtype)], axis=0)
        rows = ops.transpose(ops.concatenate([frames, 1.0 - keep], axis=-1), (1, 0, 2))
        width = GATES[self.cell] * self.units
        outputs = []
        for first, weights in zip((0, width), self.states, strict=True):
            way = slice(first, first + width)
            mixed = ops.matmul(rows, kernel[:, way]) + self.bias[way]
            outputs.append(self._run(mixed, weights, backwards=first > 0))
        return ops.transpose(ops.concatenate(outputs, axis=-1), (1, 0, 2)) * keep

    def _run(self, mixed: Tensor, weights: Sequence[Any], *, backwards: bool) -> Tensor:
        """Run one way: (time, batch, gates * units) -> (time, batch, units)."""
        make, n_states = CELLS[self.cell]
        start = ops.zeros((ops.shape(mixed)[1], self.units), dtype=self.compute_dtype)
        step = make([ops.convert_to_tensor(weight) for weight in weights])
        return ops.scan(step, [start] * n_states, mixed, reverse=backwards)[1][0]

    def compute_output_shape(self, frames_shape: Any, keep_shape: Any) -> Any:
        """(batch, time, 2 units)."""
        return (*frames_shape[:-1], 2 * self.units)

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        own = {"units": self.units, "cell": self.cell, "seed": self.seed}
        return {**super().get_config(), **own}


def _side_by_side(width: int, seed: int) -> Any:
    """Give the initial values of two kernels side by side, each as if it stood alone."""

    def values(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        each = (shape[0], width)
        return ops.concatenate([glorot(seed)(each, dtype), glorot(seed + 1)(each, dtype)], axis=1)

    return values
