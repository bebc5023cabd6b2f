"""Sheets: any frame channels of a few sequences as a block, and features that are no statistic of one signal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64, Int64
from bfrbctl.features.table.blocks import Block
from bfrbctl.recordings.dataset import Column
from bfrbctl.schema import SensorLayout


class SignalBlock:
    """The channels of some sequences of like length, and their wearers.

    Parameters
    ----------
    channels
        name -> float64, (n_frames + 1,): the last one NaN, where the padding points to.
    rows
        int64, (n_sequences, n_steps): row numbers, see `ragged.padded_rows`.
    lengths
        int64, (n_sequences,).
    demographics
        float64, (n_sequences, 7) in the order of `schema.DEMOGRAPHICS`.
    rate_hz
        Frames a second.
    """

    def __init__(
        self,
        channels: Mapping[str, Float64],
        rows: Int64,
        *,
        lengths: Int64,
        demographics: Float64,
        rate_hz: float,
    ) -> None:
        self._channels = channels
        self._rows = rows
        self._blocks: dict[tuple[str, ...], Block] = {}
        self.lengths = lengths
        self.demographics = demographics
        self.rate_hz = rate_hz

    def block(self, names: tuple[str, ...]) -> Block:
        """Give some channels as a block: (n_names, n_sequences, n_steps)."""
        if names not in self._blocks:
            values = np.empty((len(names), *self._rows.shape))
            for position, name in enumerate(names):
                np.take(self._channels[name], self._rows, out=values[position], mode="clip")  # else copied
            self._blocks[names] = Block(values, self.lengths, rate_hz=self.rate_hz)
        return self._blocks[names]


@dataclass(frozen=True)
class Extra:
    """Columns and the function that computes them: from a sheet and a layout to one (n_sequences,) array a column."""

    describe: Callable[[SensorLayout], tuple[Column, ...]]
    compute: Callable[[SignalBlock, SensorLayout], list[AnyArray]]
