"""How the networks are laid out, whatever computes them: the published two-branch design, and helios.

A layout is written once, against `Layers`. Keras layers make of it a network that learns (`building`), NumPy
answers with it (`inference`), and `weight_shapes` reads from it which arrays a model must have.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bfrbctl.arrays.ragged import Float32
from bfrbctl.errors import ArtefactError

TWO_BRANCH, HELIOS = "two-branch", "helios"
NETWORKS = (TWO_BRANCH, HELIOS)
PRECISIONS = ("float32", "mixed_bfloat16")

EPSILON = 1e-3
"""Added to a variance before its root is taken, as batch normalisation commonly does."""

GATES = {"lstm": 4, "gru": 3}
"""Matrices a cell has: input, forget, output gate and candidate; update, reset gate and candidate."""

MIDDLE = 125.0
"""ToF readings are 0..249; (reading - 125) / 125 lies in -1..1."""

FAR = 1.25
"""Scaled value of a pixel without anything in range: farther than any reading."""

SIDE = 8
"""Pixels along each side of an image."""

HALF = SIDE // 2
"""Places along each side after a convolution of stride 2."""


def _taps() -> Float32:
    """Say which of the 9 numbers of a 3x3 kernel of stride 2 leads from each pixel to each place of the result.

    float32 (64 * 16, 9) of 0 and 1; rows of zeros where none does. The kernel looks right and down of its place.
    """
    taps = np.zeros((SIDE, SIDE, HALF, HALF, 3, 3), dtype=np.float32)
    for down, across in np.ndindex(3, 3):
        for row, column in np.ndindex(HALF, HALF):
            if 2 * row + down < SIDE and 2 * column + across < SIDE:
                taps[2 * row + down, 2 * column + across, row, column, down, across] = 1.0
    return taps.reshape(-1, 9)


TAPS = _taps()


LEAST_WIDTH, MOST_WIDTH = 4, 1024
"""Widths that a layer may be given; 1024 is what the widest layer of a design has with `width` 4."""

WIDTHS_TOLD = f"whole numbers from {LEAST_WIDTH} to {MOST_WIDTH}"


def could_be_widths(widths: tuple[int, ...]) -> bool:
    """Whether these can be a spec's `filters` or `units`: none, or two numbers within bounds."""
    return len(widths) in (0, 2) and all(LEAST_WIDTH <= width <= MOST_WIDTH for width in widths)


@dataclass(frozen=True)
class NetworkSpec:
    """All that a network's weights have their shapes from.

    Parameters
    ----------
    network
        `two-branch` or `helios`.
    n_imu, n_other, n_tof
        Columns of the first branch, of the second, and ToF sensors whose images are read.
    n_classes
        Gestures, or joint labels.
    width
        All layers' widths are multiplied by it, but for those that `filters` and `units` set; 1 is the published size.
    dropout
        All dropout rates are multiplied by it.
    precision
        What most of it is computed in while it learns: `float32` or `mixed_bfloat16`; weights are float32 always, and
        so is what answers.
    phase_head
        Whether `helios` tells the phase of every four frames, too.
    n_orientations
        Postures that `helios` tells, too; 0 where it does not.
    filters
        Filters of the convolutions over time, before and after time is first halved; empty for those of the design.
    units
        Units of the recurrent layers each way, and of the dense layers before the answer; empty for those of the
        design.
    """

    network: str
    n_imu: int
    n_other: int
    n_tof: int
    n_classes: int
    width: float = 1.0
    dropout: float = 1.0
    precision: str = "float32"
    phase_head: bool = False
    n_orientations: int = 0
    filters: tuple[int, ...] = ()
    units: tuple[int, ...] = ()

    def check(self) -> None:
        """Raise ArtefactError unless every number is one that training could have chosen."""
        bounds = {
            "n_imu": (2, 1024),
            "n_other": (0, 4096),
            "n_tof": (0, 64),
            "n_classes": (2, 4096),
            "n_orientations": (0, 64),
            "width": (0.01, 4.0),
            "dropout": (0.0, 1.5),
        }
        if self.network not in NETWORKS:
            raise ArtefactError(f"the model names the network {self.network!r}, known are {', '.join(NETWORKS)}")
        if self.precision not in PRECISIONS:
            raise ArtefactError(f"the model's precision is {self.precision!r}, known are {', '.join(PRECISIONS)}")
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ArtefactError(f"the model's {name} is {value}, expected {low} to {high}")
        for name in ("filters", "units"):
            if not could_be_widths(getattr(self, name)):
                raise ArtefactError(f"the model's {name} are {getattr(self, name)}, expected none or two {WIDTHS_TOLD}")

    def filters_of(self, stage: int, design: int) -> int:
        """Give the filters of a convolution over time: stage 0 before time is first halved, 1 after."""
        return self.filters[stage] if self.filters else self.wide(design)

    def units_of(self, place: int, design: int) -> int:
        """Give the units of a layer: place 0 of a recurrence, 1 of a dense layer before the answer."""
        return self.units[place] if self.units else self.wide(design)

    def wide(self, channels: int) -> int:
        """Scale a layer's width; at least 4."""
        return max(round(channels * self.width), 4)

    @property
    def has_second_branch(self) -> bool:
        """Whether there is anything beside the IMU."""
        return self.n_other > 0 or self.n_tof > 0


Values = Any
"""Numbers over time, (batch, time, channels), or one vector a sequence, (batch, channels); vectors can be added and
multiplied as they are."""

Mask = Any
"""Which steps of time were recorded."""


class Layers(Protocol):
    """What a layout is made of. Layers over time give zeros where nothing was recorded."""

    spec: NetworkSpec
    mask: Mask
    learning: bool
    """Whether heads that only serve training are wanted."""
    imu_only: bool
    """Whether it is known that nothing but the IMU measured anything."""

    def columns(self, first: int, last: int | None) -> Values:
        """Scaled frame channels first..last."""

    def channels(self, values: Values) -> int:
        """How many channels there are."""

    def joined(self, *parts: Values) -> Values:
        """Channels of all parts side by side."""

    def halve(self, values: Values) -> Values:
        """Keep the larger of each two neighbouring steps, of numbers that are never negative or of a mask."""

    def conv(self, values: Values, mask: Mask, name: str, filters: int, size: int, *, relu: bool = True) -> Values:
        """Convolve over time, normalise, cut at zero."""

    def gated(self, values: Values, mask: Mask, name: str, reduction: int) -> Values:
        """Squeeze and excitation: scale each channel by a gate that looks at the mean of all."""

    def plus_relu(self, values: Values, short: Values) -> Values:
        """Add a shortcut, cut at zero."""

    def drop(self, values: Values, rate: float, name: str) -> Values:
        """Blank a share of the numbers while learning."""

    def noisy(self, values: Values, deviation: float, name: str) -> Values:
        """Add noise while learning."""

    def pixels(self, name: str) -> Values:
        """All ToF pixels and a flag a sensor as channels."""

    def images(self, name: str, filters: int, units: int) -> Values:
        """Codes of the ToF images, `units` a sensor."""

    def tof_flags(self, name: str) -> Values:
        """Which ToF sensors measured anything: 0 or 1."""

    def recurrent(self, values: Values, mask: Mask, name: str, units: int, cell: str) -> Values:
        """Run an LSTM or GRU both ways: 2 * units channels."""

    def dense_elu(self, values: Values, name: str, units: int) -> Values:
        """Dense layer over each step, ELU."""

    def attended(self, values: Values, mask: Mask, name: str, units: int) -> Values:
        """Sum over time, weighted by a learnt score: a vector."""

    def mean(self, values: Values, mask: Mask, name: str) -> Values:
        """Average over the recorded steps: a vector."""

    def present(self, parts: list[Values]) -> Values:
        """1 where any number of any part is positive at any time, (batch, 1); parts are flags of 0..1."""

    def dense_norm(self, vectors: Values, name: str, units: int) -> Values:
        """Dense layer on vectors, normalisation, cut at zero."""

    def head(self, values: Values, name: str, classes: int) -> Values:
        """Logits."""


def lay_out(net: Layers) -> dict[str, Values]:
    """Compute the heads of the network that `net.spec` names; `gesture` is what predicts."""
    return (two_branch if net.spec.network == TWO_BRANCH else helios)(net)


def two_branch(net: Layers) -> dict[str, Values]:
    """Lay out the published network: residual IMU branch beside a plain thermopile and ToF branch, then recurrence.

    Source: the design of the published two-branch solutions for the study's competition.
    """
    spec, mask = net.spec, net.mask
    half = net.halve(mask)
    quarter = net.halve(half)
    merged = _imu_branch(net, mask, half)
    if spec.has_second_branch:
        parts = [net.columns(spec.n_imu, None)] if spec.n_other else []
        if spec.n_tof:
            parts.append(net.pixels("pixels"))
        other = net.conv(net.joined(*parts), mask, "other_a", spec.filters_of(0, 64), 3)
        other = net.drop(net.halve(other), 0.2, "other_a_drop")
        other = net.conv(other, half, "other_b", spec.filters_of(1, 128), 3)
        other = net.drop(net.halve(other), 0.2, "other_b_drop")
        merged = net.joined(merged, other)
    lstm = net.recurrent(merged, quarter, "lstm", spec.units_of(0, 128), "lstm")
    gru = net.recurrent(merged, quarter, "gru", spec.units_of(0, 128), "gru")
    dense = net.dense_elu(net.noisy(merged, 0.09, "noise"), "dense", spec.wide(16))
    joined = net.drop(net.joined(lstm, gru, dense), 0.4, "joined_drop")
    pooled = net.attended(joined, quarter, "attention", 1)
    for name, units, rate in (("dense_a", 256, 0.5), ("dense_b", 128, 0.3)):
        pooled = net.drop(net.dense_norm(pooled, name, spec.units_of(1, units)), rate, f"{name}_drop")
    return {"gesture": net.head(pooled, "gesture", spec.n_classes)}


def _imu_branch(net: Layers, mask: Mask, half: Mask) -> Values:
    """Look at the IMU by two residual blocks, each pooled by 2: a quarter of the time."""
    imu = _excited(net, net.columns(0, net.spec.n_imu), mask, "imu_a", filters=net.spec.filters_of(0, 64), size=3)
    imu = net.drop(net.halve(imu), 0.1, "imu_a_drop")
    imu = _excited(net, imu, half, "imu_b", filters=net.spec.filters_of(1, 128), size=5)
    return net.drop(net.halve(imu), 0.1, "imu_b_drop")


def _excited(net: Layers, values: Values, mask: Mask, name: str, *, filters: int, size: int) -> Values:
    """Residual block: two convolutions, squeeze and excitation, shortcut, ReLU."""
    out = net.conv(values, mask, f"{name}_1", filters, size)
    out = net.conv(out, mask, f"{name}_2", filters, size)
    out = net.gated(out, mask, f"{name}_gate", 8)
    short = values
    if net.channels(values) != filters:
        short = net.conv(values, mask, f"{name}_short", filters, 1, relu=False)
    return net.plus_relu(out, short)


def helios(net: Layers) -> dict[str, Values]:
    """Lay out our own network: an answer from the IMU alone, and what thermopiles and ToF sensors add to it.

    Where nothing but the IMU was recorded, nothing is added: such a sequence is answered by a network for IMUs, which
    learns from all sequences. Nothing is computed of the others then, where it is known before.
    """
    spec, mask = net.spec, net.mask
    half = net.halve(mask)
    quarter = net.halve(half)
    imu = _imu_branch(net, mask, half)
    moved = _vector(net, imu, quarter, "imu", units=128)
    heads = {"gesture": net.head(moved, "gesture", spec.n_classes)}
    joined = imu
    if spec.has_second_branch and not net.imu_only:
        others, present = _others(net, mask, half)
        joined = net.joined(imu, *others)
        added = net.head(_vector(net, joined, quarter, "all", units=96), "added", spec.n_classes)
        heads = {"gesture": heads["gesture"] + present * added, "imu": heads["gesture"]}
    if spec.phase_head and net.learning:
        heads["phase"] = net.head(joined, "phase", 1)
    if spec.n_orientations and net.learning:
        heads["orientation"] = net.head(moved, "orientation", spec.n_orientations)
    return heads


def _others(net: Layers, mask: Mask, half: Mask) -> tuple[list[Values], Values]:
    """Encode thermopiles and ToF sensors: codes over a quarter of the time, and whether there are any (batch, 1)."""
    spec = net.spec
    codes, flags = [], []
    if spec.n_other:
        other = net.conv(net.columns(spec.n_imu, None), mask, "other_a", spec.filters_of(0, 48), 3)
        other = net.drop(net.halve(other), 0.2, "other_a_drop")
        other = net.conv(other, half, "other_b", spec.filters_of(1, 64), 3)
        codes.append(net.drop(net.halve(other), 0.2, "other_b_drop"))
        flags.append(net.columns(spec.n_imu + spec.n_other - 1, None))  # the flag of all, see InputPlan.n_other
    if spec.n_tof:
        code = net.halve(net.images("image", spec.wide(12), spec.wide(24)))
        code = net.drop(net.conv(code, half, "tof_a", spec.filters_of(1, 96), 3), 0.2, "tof_a_drop")
        codes.append(net.halve(code))
        flags.append(net.tof_flags("tof_flags"))
    return codes, net.present(flags)


def _vector(net: Layers, values: Values, mask: Mask, name: str, *, units: int) -> Values:
    """Say in one vector what happens: recurrence beside what it reads, attention and mean over time, dense layer."""
    spec = net.spec
    gru = net.recurrent(values, mask, f"{name}_gru", spec.units_of(0, units), "gru")
    over = net.drop(net.joined(values, gru), 0.3, f"{name}_drop")
    attended = net.attended(over, mask, f"{name}_attention", spec.wide(32))
    pooled = net.joined(attended, net.mean(values, mask, f"{name}_mean"))
    vector = net.dense_norm(pooled, f"{name}_dense", spec.units_of(1, 192))
    return net.drop(vector, 0.4, f"{name}_dense_drop")


Shape = tuple[int, ...]


def weight_shapes(spec: NetworkSpec) -> dict[str, Shape]:
    """Name the arrays of the network that predicts, layer.weight, and give their shapes; float32 all of them."""
    counted = _Shapes(spec)
    lay_out(counted)
    return counted.found


class _Shapes:
    """Layers that only count channels: values are their number."""

    mask = 1
    learning = False
    imu_only = False

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec = spec
        self.found: dict[str, Shape] = {}

    def _add(self, layer: str, **shapes: Shape) -> None:
        self.found |= {f"{layer}.{weight}": shape for weight, shape in shapes.items()}

    def _add_norm(self, layer: str, kernel: Shape) -> int:
        width = kernel[-1]
        self._add(layer, kernel=kernel, **dict.fromkeys(("gamma", "beta", "mean", "variance"), (width,)))
        return width

    def columns(self, first: int, last: int | None) -> int:
        return (self.spec.n_imu + self.spec.n_other if last is None else last) - first

    def channels(self, values: int) -> int:
        return values

    def joined(self, *parts: int) -> int:
        return sum(parts)

    def halve(self, values: int) -> int:
        return values

    def conv(self, values: int, mask: Mask, name: str, filters: int, size: int, *, relu: bool = True) -> int:
        return self._add_norm(name, (size, values, filters))

    def gated(self, values: int, mask: Mask, name: str, reduction: int) -> int:
        inner = max(values // reduction, 1)
        self._add(name, squeeze=(values, inner), squeeze_bias=(inner,), excite=(inner, values), excite_bias=(values,))
        return values

    def plus_relu(self, values: int, short: int) -> int:
        return values

    def drop(self, values: int, rate: float, name: str) -> int:
        return values

    def noisy(self, values: int, deviation: float, name: str) -> int:
        return values

    def pixels(self, name: str) -> int:
        return self.spec.n_tof * (SIDE * SIDE + 1)

    def images(self, name: str, filters: int, units: int) -> int:
        places = HALF * HALF * filters
        shapes: dict[str, Shape] = {"kernel": (3, 3, 1, filters), "bias": (filters,), "dense": (places, units)}
        self._add(name, **shapes, place=(self.spec.n_tof, units))
        return self.spec.n_tof * units

    def tof_flags(self, name: str) -> int:
        return self.spec.n_tof

    def recurrent(self, values: int, mask: Mask, name: str, units: int, cell: str) -> int:
        width = GATES[cell] * units
        self._add(name, kernel=(values, 2 * width), bias=(2 * width,))
        for way in ("forward", "backward"):
            self._add(name, **{f"{way}_state": (units, width)})
            if cell == "gru":
                self._add(name, **{f"{way}_state_bias": (width,)})
        return 2 * units

    def dense_elu(self, values: int, name: str, units: int) -> int:
        return self.head(values, name, units)

    def attended(self, values: int, mask: Mask, name: str, units: int) -> int:
        self._add(name, kernel=(values, units), bias=(units,), vector=(units, 1))
        return values

    def mean(self, values: int, mask: Mask, name: str) -> int:
        return values

    def present(self, parts: list[int]) -> int:
        return 1

    def dense_norm(self, vectors: int, name: str, units: int) -> int:
        return self._add_norm(name, (vectors, units))

    def head(self, values: int, name: str, classes: int) -> int:
        self._add(name, kernel=(values, classes), bias=(classes,))
        return classes
