"""Blocks: sequences of like length side by side, padded to a rectangle, and the parts of them.

Sequences are grouped by `ragged.padded_length`, a function of their own length, so that every sum over the padded
last axis runs in the same order whatever the batch holds: one sequence alone gives the same bits as among thousands.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64, Int64

LAST_FRAMES = 32
"""Frames of the `last32` window: as long as a gesture phase usually is."""

WHOLE = "whole"
WINDOWS = {
    WHOLE: "all frames",
    "first": "the first third of the frames",
    "middle": "the middle third of the frames",
    "last": "the last third of the frames",
    "last32": f"the last {LAST_FRAMES} frames, or all where there are fewer",
}

FLAT = 1e-9
"""A standard deviation below this share of the largest magnitude is rounding, and counts as zero."""


CLOSE = 1e-6
"""In standard deviations: a value this close to a threshold does not exceed it."""


def window_bounds(lengths: Int64, name: str) -> tuple[Int64, Int64]:
    """Give the first frame of a window of each sequence, and the frame after its last.

    Parameters
    ----------
    lengths
        int64, (n_sequences,): frames of each sequence.
    name
        One of `WINDOWS`.

    Returns
    -------
    int64, (n_sequences,), twice.
    """
    if name == WHOLE:
        return np.zeros_like(lengths), lengths
    if name == "last32":
        return np.maximum(lengths - LAST_FRAMES, 0), lengths
    third = ("first", "middle", "last").index(name)
    return lengths * third // 3, lengths * (third + 1) // 3


class Block:
    """Some signals of some sequences, with what is often needed of them computed once, when first asked for.

    Parameters
    ----------
    values
        float64, (n_signals, n_sequences, n_steps), C-contiguous; NaN beyond the end and where missing.
    lengths
        int64, (n_sequences,): frames of each sequence.
    rate_hz
        Frames a second.
    """

    def __init__(self, values: Float64, lengths: Int64, *, rate_hz: float) -> None:
        self.values = values
        self.lengths = lengths
        self.rate_hz = rate_hz
        self._windows: dict[str, Block] = {}

    def window(self, name: str) -> "Block":
        """Give a part of every sequence as a block of its own: one of `WINDOWS`."""
        if name == WHOLE:  # not kept, as a block that holds itself waits for the garbage collector
            return self
        if name not in self._windows:
            self._windows[name] = self._cut(name)
        return self._windows[name]

    def _cut(self, name: str) -> "Block":
        n_steps = self.values.shape[2]
        width = min(LAST_FRAMES, n_steps) if name == "last32" else n_steps // 3 + 1
        begin, end = window_bounds(self.lengths, name)
        steps = begin[:, None] + np.arange(width)
        inside = steps < end[:, None]
        places = np.minimum(steps, n_steps - 1)
        if len(places) == 1:
            values = self.values.take(places[0], axis=2)  # the same, without a grid of indices
        else:
            values = np.take_along_axis(self.values, places[None], axis=2)
        values[:, ~inside] = np.nan
        return Block(values, end - begin, rate_hz=self.rate_hz)

    @cached_property
    def valid(self) -> Bool:
        """Where there is a value: bool, (n_signals, n_sequences, n_steps)."""
        return ~np.isnan(self.values)

    @cached_property
    def count(self) -> Float64:
        """How many values: float64, (n_signals, n_sequences)."""
        return np.asarray(np.sum(self.valid, axis=-1), dtype=np.float64)

    @cached_property
    def filled(self) -> Float64:
        """The values, 0 where there is none."""
        return np.where(self.valid, self.values, 0.0)

    @cached_property
    def mean(self) -> Float64:
        """float64, (n_signals, n_sequences); NaN without values."""
        return ratio(self.filled.sum(axis=-1), self.count)

    @cached_property
    def centred(self) -> Float64:
        """The values less their mean, 0 where there is none."""
        return np.where(self.valid, self.values - self.mean[..., None], 0.0)

    @cached_property
    def squares(self) -> Float64:
        """Squared distance from the mean, 0 where there is no value."""
        return self.centred * self.centred

    @cached_property
    def power(self) -> Float64:
        """The sum of the squares: float64, (n_signals, n_sequences)."""
        return dot(self.centred, self.centred)

    @cached_property
    def minimum(self) -> Float64:
        """float64, (n_signals, n_sequences); NaN without values."""
        return np.asarray(np.fmin.reduce(self.values, axis=-1))

    @cached_property
    def maximum(self) -> Float64:
        """float64, (n_signals, n_sequences); NaN without values."""
        return np.asarray(np.fmax.reduce(self.values, axis=-1))

    @cached_property
    def std(self) -> Float64:
        """Population standard deviation; exactly 0 where the signal is flat up to rounding, NaN without values."""
        std = np.sqrt(ratio(self.power, self.count))
        return np.where(std <= FLAT * self.largest, 0.0, std)

    @cached_property
    def largest(self) -> Float64:
        """The largest magnitude; NaN without values."""
        return np.where(self.count > 0, np.abs(self.filled).max(axis=-1), np.nan)

    @cached_property
    def tolerance(self) -> Float64:
        """How far above a threshold a value must be, lest rounding decides."""
        return np.asarray(np.maximum(CLOSE * self.std, FLAT * self.largest))

    @cached_property
    def scale(self) -> Float64:
        """The standard deviation as a divisor: NaN where it is 0."""
        return np.where(self.std > 0, self.std, np.nan)

    @cached_property
    def ordered(self) -> Float64:
        """The values in ascending order, NaN last."""
        return np.sort(self.values, axis=-1)

    @cached_property
    def steps(self) -> Float64:
        """Value less the one before: (n_signals, n_sequences, n_steps - 1), NaN where either is missing."""
        return self.values[..., 1:] - self.values[..., :-1]

    def quantile(self, share: float) -> Float64:
        """Interpolate the order statistics linearly, as `numpy.quantile` does: (n_signals, n_sequences)."""
        last = np.maximum(self.count - 1, 0)
        position = last * share
        below = np.floor(position).astype(np.int64)
        above = np.minimum(below + 1, last.astype(np.int64))
        flat = self.ordered.reshape(-1)
        starts = np.arange(0, flat.size, self.values.shape[-1]).reshape(below.shape)
        low, high = flat[starts + below], flat[starts + above]
        return np.asarray(low + (high - low) * (position - below), dtype=np.float64)


Computation = Callable[[Block], list[Float64]]
"""Gives one (n_signals, n_sequences) array for each statistic of a family, in the family's order."""


def dot(a: Float64, b: Float64) -> Float64:
    """Sum the products along the last axis, without an array of them."""
    return np.asarray(np.einsum("...i,...i->...", a, b))


def ratio(above: AnyArray, below: AnyArray) -> Float64:
    """Divide; NaN where the divisor is not positive. NumPy's warnings are to be off, as in `engine.compute`."""
    return np.where(below > 0, above / below, np.nan)
