"""The networks computed by NumPy, several with the same layout at once: how the Keras member answers.

Answering needs no gradients, so it needs no Keras: a few dozen matrix products over sequences that lie packed one after
the other, without padding to a common length. Between two sequences lie rows of zeros, which are all that a convolution
sees beyond the ends; a recurrence goes through all sequences at once, longest first, so that those still running are
always the first ones. Arrays are (n_networks, n_rows, n_channels), and what is the same for all networks, such as the
pixels, is held once.

Here every row of zeros costs as much as a recorded one, and for a single sequence a call of NumPy costs more than the
numbers in it: hence the packing, and networks stacked into one array.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import Any, TypeVar

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64, offsets_of, segment_ids
from bfrbctl.models.keras.inputs import CLIP, Ready
from bfrbctl.models.keras.network.layout import EPSILON, FAR, GATES, HALF, MIDDLE, SIDE, TAPS, NetworkSpec, lay_out
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING, TOF_IMAGE_NO_RETURN
from bfrbctl.reprs import short_repr

POOLED = 4
"""Frames that become one step after the layouts' two poolings by 2."""

GAP = 4
"""Rows of zeros before, between and after sequences: two where time is halved, which kernels of five steps see."""

T = TypeVar("T")

Rows = Any
"""float32 (n_networks or 1, n_rows, n_channels), a `Steady`, or a tuple of such where they differ in what they are."""


@dataclass(frozen=True)
class Time:
    """Where the steps of packed sequences lie.

    Parameters
    ----------
    starts, steps
        int64, (n_sequences,): first row and number of rows of each sequence; longest first.
    first, counts
        int64, (n_sequences,): its first recorded step and how many are recorded; the others are padding.
    n_rows
        Rows of all sequences and the gaps.
    """

    starts: Int64
    steps: Int64
    first: Int64
    counts: Int64
    n_rows: int

    __repr__ = short_repr

    @classmethod
    def of(cls, lengths: Int64, *, pad: str) -> "Time":
        """Pack sequences of so many frames, int64 (n_sequences,), longest first."""
        steps = -(-lengths // POOLED) * POOLED
        starts = GAP + offsets_of(steps + GAP)
        first = steps - lengths if pad == "left" else np.zeros_like(lengths)
        return cls(starts[:-1], steps, first, lengths, int(starts[-1]))

    @cached_property
    def halved(self) -> "Time":
        """The same after pooling by 2: a step was recorded where either of two was."""
        first = self.first // 2
        counts = -(-(self.first + self.counts) // 2) - first
        return Time(self.starts // 2, self.steps // 2, first, counts, self.n_rows // 2)

    @cached_property
    def recorded(self) -> Int64:
        """Rows of the recorded steps, sequence by sequence: int64."""
        within = offsets_of(self.counts)
        return np.repeat(self.starts + self.first - within[:-1], self.counts) + np.arange(within[-1])

    @cached_property
    def known(self) -> Float32:
        """1 at recorded rows, 0 at the others: float32, (1, n_rows, 1)."""
        out = np.zeros((1, self.n_rows, 1), dtype=np.float32)
        out[:, self.recorded] = 1.0
        return out

    @cached_property
    def padding(self) -> Int64:
        """All other rows: int64."""
        blank = np.ones(self.n_rows, dtype=np.bool_)
        blank[self.recorded] = False
        return np.flatnonzero(blank)

    @cached_property
    def sequence(self) -> Int64:
        """Number of the sequence of each row; gaps belong to the one before: int64, (n_rows,)."""
        return segment_ids(np.concatenate([[0], self.starts[1:], [self.n_rows]]))

    @cached_property
    def running(self) -> Int64:
        """How many sequences are still running at each step of the longest: int64, (n_steps,)."""
        longest = int(self.steps[0])
        return np.asarray(np.searchsorted(-self.steps, -np.arange(longest), side="left"), dtype=np.int64)

    @cached_property
    def ways(self) -> tuple[Int64, Int64]:
        """Rows in the order that a recurrence reads them, step by step, forwards and backwards: int64."""
        step = np.repeat(np.arange(len(self.running)), self.running)
        sequence = np.arange(len(step)) - np.repeat(offsets_of(self.running)[:-1], self.running)
        start = self.starts[sequence]
        return start + step, start + self.steps[sequence] - 1 - step

    @cached_property
    def belongs(self) -> Float32:
        """Which recorded rows are a sequence's: float32 (n_sequences, n_rows) of 0 and 1; sums are products with it."""
        out = np.zeros((len(self.starts), self.n_rows), dtype=np.float32)
        out[self.sequence[self.recorded], self.recorded] = 1.0
        return out


@dataclass(frozen=True)
class Packed:
    """Some sequences, ready for the networks.

    Parameters
    ----------
    time
        Where they lie.
    frames
        float32, (n_rows, n_imu + n_other): channels as measured and flags; NaN where missing, and in padding.
    tof
        uint8, (n_rows, n_tof, 64); missing in padding.
    without
        float32, (n_other,): what `frames` would hold of the second branch at every recorded row, if they and `tof`
        are left out because nothing but the IMU measured; None where they are there.
    """

    time: Time
    frames: Float32
    tof: AnyArray
    without: Float32 | None = None

    __repr__ = short_repr

    @classmethod
    def of(cls, data: Ready, chosen: Int64, *, length: int, pad: str, n_imu: int | None = None) -> "Packed":
        """Pack sequences by number, longest first; of what is longer than `length` only the tail.

        Give `n_imu`, the number of columns of the first branch, for sequences of an IMU alone.
        """
        kept = np.minimum(data.lengths[chosen], length)
        time = Time.of(kept, pad=pad)
        within = offsets_of(kept)
        source = np.repeat(data.offsets[chosen + 1] - kept - within[:-1], kept) + np.arange(within[-1])
        of_imu = data.frames[:, :n_imu]
        frames = np.full((time.n_rows, of_imu.shape[1]), np.nan, dtype=np.float32)
        frames[time.recorded] = of_imu[source]
        if n_imu is not None:
            return cls(time, frames, np.zeros((time.n_rows, 0, SIDE * SIDE), dtype=np.uint8), data.without)
        tof = np.full((time.n_rows, *data.tof.shape[1:]), TOF_IMAGE_MISSING, dtype=np.uint8)
        if tof.size:
            tof[time.recorded] = data.tof[source]
        return cls(time, frames, tof)


@dataclass(frozen=True)
class Stack:
    """Networks with one layout, one above the other.

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

    def part(self, chosen: slice) -> "Stack":
        """Give some of them; the arrays are views."""
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, mean=self.mean[chosen], scale=self.scale[chosen], _ready={})

    def predict_proba(self, packed: Packed) -> Float32:
        """Give each network's probabilities: float32, (n_networks, n_sequences, n_classes)."""
        logits = lay_out(_NumpyLayers(self, packed))["gesture"]
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)

    def weights(self, layer: str, *names: str) -> tuple[Float32, ...]:
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
        """Give a recurrence's weights, both ways first; gates halved, as sigmoid(x) is tanh(x / 2) / 2 + 1 / 2.

        Returns
        -------
        kernel and, below it, bias (2, n, c + 1, gates * units); state (gates, 2, n, units, units); and, for a GRU, the
        candidate's bias of the state (2, n, 1, units).
        """
        return self._once(("cell", layer), lambda: self._cell(layer, cell))

    def _cell(self, layer: str, cell: str) -> tuple[Float32, ...]:
        kernel, bias = self.arrays[f"{layer}.kernel"], self.arrays[f"{layer}.bias"]
        state = np.stack([self.arrays[f"{layer}.{way}_state"] for way in ("forward", "backward")])
        units, width = state.shape[-2:]
        half = np.full(width, 0.5, dtype=np.float32)
        half[-units:] = 1.0  # the candidate
        kernel = np.concatenate([kernel, bias[:, None]], axis=1)
        kernel = np.stack([kernel[..., :width], kernel[..., width:]])
        by_gate = (state * half).reshape(*state.shape[:-1], GATES[cell], units)
        state = np.ascontiguousarray(np.moveaxis(by_gate, -2, 0))
        if cell == "lstm":
            return kernel * half, state
        inner = np.stack([self.arrays[f"{layer}.{way}_state_bias"] for way in ("forward", "backward")])
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

    def __init__(self, stack: Stack, packed: Packed) -> None:
        self.spec, self.stack, self.packed = stack.spec, stack, packed
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
        scaled = np.where(known, frames, np.float32(0.0)) - self.stack.mean[:, :, first:last]
        scaled /= self.stack.scale[:, :, first:last]
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
        n, edge = self.stack.n_networks, size // 2
        out = np.empty((n, mask.n_rows, filters), dtype=np.float32)
        inner = out[:, edge : mask.n_rows - edge]
        empty = True
        for part, kernel, shared in self._inputs(values, mask, name):
            for begin in range(size):
                # every size-th window: side by side in memory as they are, so that nothing is copied
                steps = (mask.n_rows - begin) // size * size
                seen = part[:, begin : begin + steps].reshape(len(part), -1, size * part.shape[-1])
                to = inner[:, begin : begin + steps : size]
                if not empty:
                    to += _products(seen, kernel, n)
                elif shared:
                    to[...] = _products(seen, kernel, n)
                else:
                    np.matmul(seen, kernel, out=to)
            empty = False
        if empty:
            inner[...] = 0.0
        inner += self.stack.normalised(name)[1]
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
                    yield mask.known, part.through(self.stack.normalised(name)[0][:, :, first:last]), True
            else:
                last, shared = first + part.shape[-1], len(part) < self.stack.n_networks
                yield part, self.stack.convolution(name, first, last, shared=shared), shared
            first = last

    def gated(self, values: Float32, mask: Time, name: str, reduction: int) -> Float32:
        squeeze, squeeze_bias, excite, excite_bias = self.stack.weights(
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
        n = self.stack.n_networks
        pixels = np.take(PIXELS, self.packed.tof.reshape(-1, n_pixels))
        matrix = self.stack.images(name)
        bias, dense, place = (self.stack.arrays[f"{name}.{weight}"] for weight in ("bias", "dense", "place"))
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
        kernel, *weights = self.stack.cell(name, cell)
        mixed = self._read(values, mask) @ kernel
        by_gate = np.moveaxis(mixed.reshape(*mixed.shape[:-1], GATES[cell], units), -2, 0)
        told = (_lstm if cell == "lstm" else _gru)(by_gate, weights, mask.running)
        out = np.zeros((len(values), mask.n_rows, 2 * units), dtype=np.float32)
        for way, order in enumerate(mask.ways):
            out[:, order, way * units : (way + 1) * units] = told[way]
        return out

    def _read(self, values: Float32, mask: Time) -> Float32:
        """Lay rows out as recurrences read them, with a column of ones: (2, n, n_read, c + 1)."""
        if self._last_read is None or self._last_read[0] is not values:
            laid = np.empty((2, len(values), len(mask.ways[0]), values.shape[-1] + 1), dtype=np.float32)
            laid[..., -1] = 1.0
            for way, order in enumerate(mask.ways):
                laid[way, :, :, :-1] = values[:, order]
            self._last_read = (values, laid)
        return self._last_read[1]

    def dense_elu(self, values: Float32, name: str, units: int) -> Float32:
        found = self.head(values, name, units)
        return np.where(found > 0, found, np.expm1(np.minimum(found, np.float32(0.0))))

    def attended(self, values: Float32, mask: Time, name: str, units: int) -> Float32:
        kernel, bias, vector = self.stack.weights(name, "kernel", "bias", "vector")
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
        kernel, shift = self.stack.normalised(name)
        return np.asarray(np.maximum(vectors @ kernel + shift, np.float32(0.0)))

    def head(self, values: Float32, name: str, classes: int) -> Float32:
        kernel, bias = self.stack.weights(name, "kernel", "bias")
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

    Rows lie step by step, `running` of them each. Gates lie apart, so that each is worked on as one run of numbers.
    """
    (state,) = weights
    _, ways, n_networks, n_read, units = mixed.shape
    out = np.empty((ways, n_networks, n_read, units), dtype=np.float32)
    before = np.zeros((ways, n_networks, int(running[0]), units), dtype=np.float32)
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
    _, ways, n_networks, n_read, units = mixed.shape
    out = np.empty((ways, n_networks, n_read, units), dtype=np.float32)
    before = np.zeros((ways, n_networks, int(running[0]), units), dtype=np.float32)
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
