"""LSTM and GRU that run over time both ways and stop at the padding.

The products with the inputs of all frames are one matrix product before the loop; only the product with the state is
left inside it. Gates are cut by `split`, whose gradient is one concatenation; that of a slice is a full array. Padded
frames need nothing inside the loop: their product with the inputs gets numbers that hold the gates at keeping what is.
As recorded frames are one run, the state is still 0 when the run begins, and what comes after its end is padding that
nobody reads.
"""

from typing import Any

import numpy as np

from bfrbctl.models.keras_backend import keras, ops
from bfrbctl.models.keras_layers import Tensor, glorot, registered

GATES = {"lstm": 4, "gru": 3}
"""Matrices a cell has: input, forget, output gate and candidate; update, reset gate and candidate."""

HOLD = {"lstm": (-1e4, 1e4, 0.0, 0.0), "gru": (1e4, 0.0, 0.0)}
"""What padding adds to each of them, so that the state stays: nothing enters, all is kept."""


@registered
class StateCell(keras.layers.Layer):  # type: ignore[misc]
    """One step of an LSTM or GRU whose product with the input is done already.

    Reads (batch, gates * units): the product with the input, bias included.
    """

    def __init__(self, units: int, cell: str, *, prefix: str = "", seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.cell, self.prefix, self.seed = units, cell, prefix, seed
        self.state_size = [units, units] if cell == "lstm" else [units]
        self.output_size = units

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights that multiply the state."""
        width = GATES[self.cell] * self.units
        orthogonal = keras.initializers.Orthogonal(seed=self.seed)
        self.state = self.add_weight(shape=(self.units, width), name=f"{self.prefix}state", initializer=orthogonal)
        if self.cell == "gru":
            self.bias = self.add_weight(shape=(width,), name=f"{self.prefix}state_bias", initializer="zeros")

    def call(self, inputs: Tensor, states: Any) -> tuple[Tensor, list[Tensor]]:
        """Give the output and the next states."""
        return self._lstm(inputs, *states) if self.cell == "lstm" else self._gru(inputs, states[0])

    def _lstm(self, mixed: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, list[Tensor]]:
        gates, candidate = ops.split(mixed + ops.matmul(hidden, self.state), [3 * self.units], axis=-1)
        enter, stay, leave = ops.split(ops.sigmoid(gates), 3, axis=-1)
        memory = stay * memory + enter * ops.tanh(candidate)
        hidden = leave * ops.tanh(memory)
        return hidden, [hidden, memory]

    def _gru(self, mixed: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        cut = [2 * self.units]
        outer_gates, outer = ops.split(mixed, cut, axis=-1)
        inner_gates, inner = ops.split(ops.matmul(hidden, self.state) + self.bias, cut, axis=-1)
        update, reset = ops.split(ops.sigmoid(outer_gates + inner_gates), 2, axis=-1)
        candidate = ops.tanh(outer + reset * inner)
        hidden = candidate + update * (hidden - candidate)
        return hidden, [hidden]

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        own = {"units": self.units, "cell": self.cell, "prefix": self.prefix, "seed": self.seed}
        return {**super().get_config(), **own}


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
        self.forwards = self._runner("forward_", backwards=False)
        self.backwards = self._runner("backward_", backwards=True)

    def _runner(self, prefix: str, *, backwards: bool) -> Any:
        cell = StateCell(self.units, self.cell, prefix=prefix, seed=self.seed + backwards, dtype=self.dtype_policy)
        return keras.layers.RNN(cell, return_sequences=True, go_backwards=backwards, dtype=self.dtype_policy)

    def build(self, frames_shape: tuple[int | None, ...], keep_shape: tuple[int | None, ...]) -> None:
        """Create the weights of both directions."""
        width = GATES[self.cell] * self.units
        self.kernel = self.add_weight(
            shape=(frames_shape[-1], 2 * width),
            name="kernel",
            initializer=_side_by_side(width, self.seed + 2),
        )
        self.bias = self.add_weight(shape=(2 * width,), name="bias", initializer=self._first_bias)
        self.forwards.build((*frames_shape[:-1], width))
        self.backwards.build((*frames_shape[:-1], width))

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
        mixed = ops.matmul(ops.concatenate([frames, 1.0 - keep], axis=-1), kernel) + self.bias
        one, other = ops.split(mixed, 2, axis=-1)
        forward, backward = self.forwards(one), self.backwards(other)
        return ops.concatenate([forward, ops.flip(backward, axis=1)], axis=-1) * keep

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
