"""The networks computed by NumPy, several with the same layout at once: how the Keras member predicts.

Prediction needs no gradients, so it needs no Keras: a few dozen matrix products over packed sequences (`packing`) with
stacked weights (`stacked`). A recurrence goes through all sequences at once. Arrays are (n_networks, n_rows,
n_channels), and what is the same for all networks, such as the pixels, is held once.

Here every row of zeros costs as much as a recorded one, and for a single sequence a call of NumPy costs more than the
numbers in it: hence the packing and the stacking.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64
from bfrbctl.models.keras.inputs import CLIP
from bfrbctl.models.keras.network.layout import FAR, GATES, HALF, MIDDLE, SIDE, lay_out
from bfrbctl.models.keras.runtime.packing import Packed, Time
from bfrbctl.models.keras.runtime.stacked import StackedWeights
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING, TOF_IMAGE_NO_RETURN
from bfrbctl.reprs import short_repr

Rows = Any
"""float32 (n_networks or 1, n_rows, n_channels), a `Steady`, or a tuple of such where they differ in what they are."""


def predict_proba(weights: StackedWeights, packed: Packed) -> Float32:
    """Give each network's probabilities: float32, (n_networks, n_sequences, n_classes)."""
    logits = lay_out(_NumpyLayers(weights, packed))["gesture"]
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def _pixel_numbers() -> Float32:
    """Give the number that each uint8 reading stands for."""
    readings = np.arange(256, dtype=np.float32)
    numbers = (readings - np.float32(MIDDLE)) / np.float32(MIDDLE)
    numbers[TOF_IMAGE_NO_RETURN:] = FAR
    numbers[TOF_IMAGE_MISSING:] = 0.0
    return numbers


PIXELS = _pixel_numbers()


@dataclass(frozen=True)
class Steady:
    """Rows that are the same at all recorded steps: float32 (n_networks or 1, 1, n_channels)."""

    row: Float32

    __repr__ = short_repr

    def through(self, kernel: Float32) -> Float32:
        """Give a kernel (n, size, n_channels, filters) for one channel that says what is recorded: as of all."""
        taps = np.matmul(self.row[:, None], kernel)[:, :, 0]
        return np.ascontiguousarray(taps.transpose(1, 0, 2).reshape(kernel.shape[1], -1))


class _NumpyLayers:
    """Layers in NumPy; see `layout.Layers`. They may write into what they are given by the layer before."""

    learning = False

    def __init__(self, weights: StackedWeights, packed: Packed) -> None:
        self.spec, self.weights, self.packed = weights.spec, weights, packed
        self.mask = packed.time
        self.imu_only = packed.without is not None
        self._last_read: tuple[Float32, Float32] | None = None

    def columns(self, first: int, last: int | None) -> Float32 | Steady:
        n_imu, without = self.spec.n_imu, self.packed.without
        if without is None or first < n_imu:
            return self._scaled(self.packed.frames[:, first:last], first, last)
        found = without[None, first - n_imu : None if last is None else last - n_imu]
        return Steady(self._scaled(found, first, last))

    def _scaled(self, frames: Float32, first: int, last: int | None) -> Float32:
        known = np.isfinite(frames)
        scaled = np.where(known, frames, np.float32(0.0)) - self.weights.mean[:, :, first:last]
        scaled /= self.weights.scale[:, :, first:last]
        np.clip(scaled, np.float32(-CLIP), np.float32(CLIP), out=scaled)
        scaled *= known.astype(np.float32)
        return scaled

    def channels(self, values: Rows) -> int:
        return int(values.shape[-1])

    def joined(self, *parts: Rows) -> Rows:
        if any(isinstance(part, Steady) for part in parts) or len({len(part) for part in parts}) > 1:
            return parts
        return np.concatenate(parts, axis=-1)

    def halve(self, values: Rows | Time) -> Rows | Time:
        if isinstance(values, Time):
            return values.halved
        return np.maximum(values[:, 0::2], values[:, 1::2])

    def conv(self, values: Rows, mask: Time, name: str, filters: int, size: int, *, relu: bool = True) -> Float32:
        n, edge = self.weights.n_networks, size // 2
        out = np.empty((n, mask.n_rows, filters), dtype=np.float32)
        inner = out[:, edge : mask.n_rows - edge]
        empty = True
        for part, kernel, shared in self._inputs(values, mask, name):
            for begin in range(size):
                # every size-th window: side by side in memory as they are, so that nothing is copied
                steps = (mask.n_rows - begin) // size * size
                windows = part[:, begin : begin + steps].reshape(len(part), -1, size * part.shape[-1])
                to = inner[:, begin : begin + steps : size]
                if not empty:
                    to += _products(windows, kernel, n)
                elif shared:
                    to[...] = _products(windows, kernel, n)
                else:
                    np.matmul(windows, kernel, out=to)
            empty = False
        if empty:
            inner[...] = 0.0
        inner += self.weights.normalised(name)[1]
        if relu:
            np.maximum(inner, np.float32(0.0), out=inner)
        out[:, mask.padding] = 0.0  # the first and the last rows, too
        return out

    def _inputs(self, values: Rows, mask: Time, name: str) -> Iterator[tuple[Float32, Float32, bool]]:
        """Give each part of a convolution's input with its kernel, and whether it is one for all networks."""
        first = 0
        for part in values if isinstance(values, tuple) else (values,):
            if isinstance(part, Steady):
                last = first + part.row.shape[-1]
                if part.row.any():
                    yield mask.known, part.through(self.weights.normalised(name)[0][:, :, first:last]), True
            else:
                last, shared = first + part.shape[-1], len(part) < self.weights.n_networks
                yield part, self.weights.convolution(name, first, last, shared=shared), shared
            first = last

    def gated(self, values: Float32, mask: Time, name: str, reduction: int) -> Float32:
        squeeze, squeeze_bias, excite, excite_bias = self.weights.of_layer(
            name, "squeeze", "squeeze_bias", "excite", "excite_bias"
        )
        hidden = np.maximum(self.mean(values, mask, name) @ squeeze + squeeze_bias, np.float32(0.0))
        gate = _sigmoid(hidden @ excite + excite_bias)
        values *= gate[:, mask.sequence]
        return values

    def plus_relu(self, values: Float32, short: Float32) -> Float32:
        values += short
        return np.maximum(values, np.float32(0.0), out=values)

    def drop(self, values: Rows, rate: float, name: str) -> Rows:
        return values

    def noisy(self, values: Rows, deviation: float, name: str) -> Rows:
        return values

    @cached_property
    def _present(self) -> Float32:
        return np.asarray(self.packed.tof.min(axis=-1) < TOF_IMAGE_MISSING, dtype=np.float32)

    def pixels(self, name: str) -> Float32 | Steady:
        if self.imu_only:
            return Steady(np.zeros((1, 1, self.spec.n_tof * (SIDE * SIDE + 1)), dtype=np.float32))
        n_rows, n_tof, n_pixels = self.packed.tof.shape
        out = np.empty((1, n_rows, n_tof * (n_pixels + 1)), dtype=np.float32)
        out[0, :, : n_tof * n_pixels] = np.take(PIXELS, self.packed.tof.reshape(n_rows, -1))
        out[0, :, n_tof * n_pixels :] = self._present
        return out

    def images(self, name: str, filters: int, units: int) -> Float32:
        n_rows, n_tof, n_pixels = self.packed.tof.shape
        n = self.weights.n_networks
        pixels = np.take(PIXELS, self.packed.tof.reshape(-1, n_pixels))
        matrix = self.weights.images(name)
        bias, dense, place = (self.weights.arrays[f"{name}.{weight}"] for weight in ("bias", "dense", "place"))
        code = np.empty((n, n_rows * n_tof, units), dtype=np.float32)
        for network in range(n):
            found = pixels @ matrix[network]
            found += np.tile(bias[network], HALF * HALF)
            np.matmul(np.maximum(found, np.float32(0.0), out=found), dense[network], out=code[network])
        codes = code.reshape(n, n_rows, n_tof, units)
        codes += place[:, None]
        np.maximum(codes, np.float32(0.0), out=codes)
        codes *= self._present[:, :, None]
        return codes.reshape(n, n_rows, n_tof * units)

    def tof_flags(self, name: str) -> Float32:
        return self._present[None]

    def recurrent(self, values: Float32, mask: Time, name: str, units: int, cell: str) -> Float32:
        kernel, *weights = self.weights.cell(name, cell)
        mixed = self._read(values, mask) @ kernel
        by_gate = np.moveaxis(mixed.reshape(*mixed.shape[:-1], GATES[cell], units), -2, 0)
        outputs = (_lstm if cell == "lstm" else _gru)(by_gate, weights, mask.running)
        out = np.zeros((len(values), mask.n_rows, 2 * units), dtype=np.float32)
        for direction, order in enumerate(mask.reading_orders):
            out[:, order, direction * units : (direction + 1) * units] = outputs[direction]
        return out

    def _read(self, values: Float32, mask: Time) -> Float32:
        """Lay rows out as recurrences read them, with a column of ones: (2, n, n_read, c + 1)."""
        if self._last_read is None or self._last_read[0] is not values:
            laid = np.empty((2, len(values), len(mask.reading_orders[0]), values.shape[-1] + 1), dtype=np.float32)
            laid[..., -1] = 1.0
            for direction, order in enumerate(mask.reading_orders):
                laid[direction, :, :, :-1] = values[:, order]
            self._last_read = (values, laid)
        return self._last_read[1]

    def dense_elu(self, values: Float32, name: str, units: int) -> Float32:
        found = self.head(values, name, units)
        return np.where(found > 0, found, np.expm1(np.minimum(found, np.float32(0.0))))

    def attended(self, values: Float32, mask: Time, name: str, units: int) -> Float32:
        kernel, bias, vector = self.weights.of_layer(name, "kernel", "bias", "vector")
        score = (np.tanh(values @ kernel + bias) @ vector)[..., 0]
        score -= np.maximum.reduceat(score, mask.starts, axis=1)[:, mask.sequence]
        weight = np.exp(score)[:, None] * mask.belongs
        return np.asarray(weight / weight.sum(axis=-1, keepdims=True) @ values)

    def mean(self, values: Float32, mask: Time, name: str) -> Float32:
        return np.asarray(mask.belongs @ values / mask.counts[:, None].astype(np.float32))

    def present(self, parts: list[Float32]) -> Float32:
        highest = [np.maximum.reduceat(part.max(axis=-1), self.mask.starts, axis=1) for part in parts]
        return np.asarray(reduce(np.maximum, highest))[..., None]

    def dense_norm(self, vectors: Float32, name: str, units: int) -> Float32:
        kernel, shift = self.weights.normalised(name)
        return np.asarray(np.maximum(vectors @ kernel + shift, np.float32(0.0)))

    def head(self, values: Float32, name: str, classes: int) -> Float32:
        kernel, bias = self.weights.of_layer(name, "kernel", "bias")
        return values @ kernel + bias


def _products(rows: Float32, kernel: Float32, n: int) -> Float32:
    """Multiply rows by a kernel a network, or rows of all by kernels side by side: (n, n_rows, filters)."""
    found = rows @ kernel
    return found if len(rows) == n else found.reshape(rows.shape[1], n, -1).transpose(1, 0, 2)


def _sigmoid(values: Float32) -> Float32:
    return np.asarray(np.tanh(values * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5))


def _to_gates(values: Float32) -> None:
    """Turn halved sums into gates of 0..1, in place."""
    np.tanh(values, out=values)
    values *= np.float32(0.5)
    values += np.float32(0.5)


def _lstm(mixed: AnyArray, weights: list[Float32], running: Int64) -> Float32:
    """Run over time: products with the input (4, 2, n, n_read, units) -> outputs (2, n, n_read, units).

    Rows lie step by step, `running` of them each. Each gate is one contiguous array.
    """
    (state,) = weights
    _, n_directions, n_networks, n_read, units = mixed.shape
    out = np.empty((n_directions, n_networks, n_read, units), dtype=np.float32)
    before = np.zeros((n_directions, n_networks, int(running[0]), units), dtype=np.float32)
    memory, begin = before.copy(), 0
    for n in running.tolist():
        gates = before[:, :, :n] @ state
        gates += mixed[:, :, :, begin : begin + n]
        _to_gates(gates[:3])
        enter, stay, leave, candidate = gates
        np.tanh(candidate, out=candidate)
        candidate *= enter
        kept = memory[:, :, :n]
        kept *= stay
        kept += candidate
        before = out[:, :, begin : begin + n]
        np.multiply(np.tanh(kept, out=candidate), leave, out=before)
        begin += n
    return out


def _gru(mixed: AnyArray, weights: list[Float32], running: Int64) -> Float32:
    """Run over time: products with the input (3, 2, n, n_read, units) -> outputs (2, n, n_read, units); as `_lstm`."""
    state, bias = weights
    _, n_directions, n_networks, n_read, units = mixed.shape
    out = np.empty((n_directions, n_networks, n_read, units), dtype=np.float32)
    before = np.zeros((n_directions, n_networks, int(running[0]), units), dtype=np.float32)
    begin = 0
    for n in running.tolist():
        before = before[:, :, :n]
        gates = before @ state
        update, reset, candidate = gates
        now = mixed[:, :, :, begin : begin + n]
        gates[:2] += now[:2]
        _to_gates(gates[:2])
        candidate += bias
        candidate *= reset
        candidate += now[2]
        np.tanh(candidate, out=candidate)
        update *= before - candidate
        before = np.add(candidate, update, out=out[:, :, begin : begin + n])
        begin += n
    return out
