"""Weights of several networks of one layout, stacked along a first axis, and what prediction derives from them once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from bfrbctl.arrays.ragged import Float32
from bfrbctl.models.keras.network.layout import EPSILON, GATES, HALF, SIDE, TAPS, NetworkSpec
from bfrbctl.reprs import short_repr

T = TypeVar("T")


@dataclass(frozen=True)
class StackedWeights:
    """Weights of networks with one layout.

    Parameters
    ----------
    spec
        Their layout.
    arrays
        layer.weight -> float32, (n_networks, ...).
    mean, scale
        float32, (n_networks, 1, n_imu + n_other): their scaling of the frames.
    """

    spec: NetworkSpec
    arrays: Mapping[str, Float32]
    mean: Float32
    scale: Float32
    _ready: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    __repr__ = short_repr

    @property
    def n_networks(self) -> int:
        """How many there are."""
        return len(self.mean)

    def part(self, chosen: slice) -> "StackedWeights":
        """Give some of them; the arrays are views."""
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, mean=self.mean[chosen], scale=self.scale[chosen], _ready={})

    def of_layer(self, layer: str, *names: str) -> tuple[Float32, ...]:
        """Give arrays of a layer; vectors as (n_networks, 1, width), so that they add to rows."""
        found = (self.arrays[f"{layer}.{name}"] for name in names)
        return tuple(array[:, None] if array.ndim == 2 else array for array in found)

    def normalised(self, layer: str) -> tuple[Float32, Float32]:
        """Give a kernel with the scale of its normalisation in it, (n, ..., width), and the shift (n, 1, width)."""
        return self._once(("normalised", layer), lambda: self._normalised(layer))

    def _normalised(self, layer: str) -> tuple[Float32, Float32]:
        kernel, gamma, beta, mean, variance = (
            self.arrays[f"{layer}.{name}"] for name in ("kernel", "gamma", "beta", "mean", "variance")
        )
        scale = gamma / np.sqrt(variance + np.float32(EPSILON))
        width = scale.shape[-1]
        return kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 2), width), (beta - mean * scale)[:, None]

    def convolution(self, layer: str, first: int, last: int, *, shared: bool) -> Float32:
        """Give the kernel over channels first..last as one matrix a network, or one of all for a shared input."""
        return self._once(("kernel", layer, first, last, shared), lambda: self._convolution(layer, first, last, shared))

    def _convolution(self, layer: str, first: int, last: int, shared: bool) -> Float32:
        kernel = self.normalised(layer)[0][:, :, first:last]
        n, size, channels, filters = kernel.shape
        kernel = kernel.reshape(n, size * channels, filters)
        return np.ascontiguousarray(kernel.transpose(1, 0, 2).reshape(-1, n * filters) if shared else kernel)

    def cell(self, layer: str, cell: str) -> tuple[Float32, ...]:
        """Give a recurrence's weights, both directions first; gates halved, as sigmoid(x) is tanh(x / 2) / 2 + 1 / 2.

        Returns
        -------
        kernel and, below it, bias (2, n, c + 1, gates * units); state (gates, 2, n, units, units); and, for a GRU, the
        candidate's bias of the state (2, n, 1, units).
        """
        return self._once(("cell", layer), lambda: self._cell(layer, cell))

    def _cell(self, layer: str, cell: str) -> tuple[Float32, ...]:
        kernel, bias = self.arrays[f"{layer}.kernel"], self.arrays[f"{layer}.bias"]
        state = np.stack([self.arrays[f"{layer}.{direction}_state"] for direction in ("forward", "backward")])
        units, width = state.shape[-2:]
        half = np.full(width, 0.5, dtype=np.float32)
        half[-units:] = 1.0  # the candidate
        kernel = np.concatenate([kernel, bias[:, None]], axis=1)
        kernel = np.stack([kernel[..., :width], kernel[..., width:]])
        by_gate = (state * half).reshape(*state.shape[:-1], GATES[cell], units)
        state = np.ascontiguousarray(np.moveaxis(by_gate, -2, 0))
        if cell == "lstm":
            return kernel * half, state
        inner = np.stack([self.arrays[f"{layer}.{direction}_state_bias"] for direction in ("forward", "backward")])
        kernel[..., -1, :-units] += inner[..., :-units]
        return kernel * half, state, np.ascontiguousarray(inner[:, :, None, -units:])

    def images(self, layer: str) -> Float32:
        """Give the images' convolution as what it does to an image: (n, 64 pixels, 16 places * filters)."""
        return self._once(("images", layer), lambda: self._images(layer))

    def _images(self, layer: str) -> Float32:
        kernel = self.arrays[f"{layer}.kernel"]
        n, filters = len(kernel), kernel.shape[-1]
        laid = np.matmul(TAPS, kernel.reshape(n, 9, filters))
        return np.asarray(laid.reshape(n, SIDE * SIDE, HALF * HALF * filters), dtype=np.float32)

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if key not in self._ready:
            self._ready[key] = make()
        found: T = self._ready[key]
        return found
