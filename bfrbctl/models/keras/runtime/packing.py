"""Sequences packed one after the other, without padding to a common length: where their rows lie.

Between two sequences lie rows of zeros: all that a convolution reads beyond the ends. Sequences lie longest first, so
that those which a recurrence still runs over are always the first ones.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64, offsets_of, segment_ids
from bfrbctl.models.keras.inputs import Ready
from bfrbctl.models.keras.network.layout import SIDE
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING
from bfrbctl.reprs import short_repr

POOLED = 4
"""Frames that become one step after the layouts' two poolings by 2."""

GAP = 4
"""Rows of zeros before, between and after sequences: two where time is halved, which kernels of five steps read."""


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
        own = offsets_of(self.counts)
        return np.repeat(self.starts + self.first - own[:-1], self.counts) + np.arange(own[-1])

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
    def reading_orders(self) -> tuple[Int64, Int64]:
        """Rows in the order that a recurrence reads them, step by step, forwards and backwards: int64."""
        step = np.repeat(np.arange(len(self.running)), self.running)
        sequence = np.arange(len(step)) - np.repeat(offsets_of(self.running)[:-1], self.running)
        start = self.starts[sequence]
        return start + step, start + self.steps[sequence] - 1 - step

    @cached_property
    def belongs(self) -> Float32:
        """Recorded rows of each sequence: float32 (n_sequences, n_rows) of 0 and 1; sums are products with it."""
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
        own = offsets_of(kept)
        source = np.repeat(data.offsets[chosen + 1] - kept - own[:-1], kept) + np.arange(own[-1])
        of_imu = data.frames[:, :n_imu]
        frames = np.full((time.n_rows, of_imu.shape[1]), np.nan, dtype=np.float32)
        frames[time.recorded] = of_imu[source]
        if n_imu is not None:
            return cls(time, frames, np.zeros((time.n_rows, 0, SIDE * SIDE), dtype=np.uint8), data.without)
        tof = np.full((time.n_rows, *data.tof.shape[1:]), TOF_IMAGE_MISSING, dtype=np.uint8)
        if tof.size:
            tof[time.recorded] = data.tof[source]
        return cls(time, frames, tof)
