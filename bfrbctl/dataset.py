"""Batches of whole sequences in memory, and the folders they come from.

`RecordingBatch` is what the device measured (after preparation); `FeatureBatch` is what models see. Both are plain
arrays over ragged offsets; this module and `storage` are the only ones that know the files behind them.
"""

from dataclasses import dataclass, replace

import numpy as np

from bfrbctl.schema import DEMOGRAPHICS, SensorLayout
from bfrbctl.segments import Float32, Int16, Int64, UInt8, take_segments

IMU = "imu"
THM = "thm"
TOF = "tof"

TOF_IMAGE_NO_RETURN = 254
"""In uint8 ToF images: the pixel saw nothing in range."""

TOF_IMAGE_MISSING = 255
"""In uint8 ToF images: no measurement."""


@dataclass(frozen=True)
class RecordingBatch:
    """Whole sequences as the device measured them.

    Parameters
    ----------
    sequence_ids
        One a sequence; n_sequences of them.
    subjects
        One a sequence.
    offsets
        int64, (n_sequences + 1,): frames offsets[i]:offsets[i+1] belong to sequence i.
    acc
        float32, (n_frames, 3), m/s^2, gravity included; NaN where missing.
    rot
        float32, (n_frames, 4), unit quaternion xyzw, device to world; NaN where missing.
    thm
        float32, (n_frames, n_thm), degC; NaN where missing.
    tof
        int16, (n_frames, n_tof, 64); -1 no return, -2 missing.
    demographics
        float32, (n_sequences, 7) in the order of `schema.DEMOGRAPHICS`; NaN where unknown.
    layout
        Which sensors the columns of `thm` and `tof` are.
    rate_hz
        Frames a second.
    """

    sequence_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    offsets: Int64
    acc: Float32
    rot: Float32
    thm: Float32
    tof: Int16
    demographics: Float32
    layout: SensorLayout
    rate_hz: float

    @property
    def n_sequences(self) -> int:
        """How many sequences."""
        return len(self.sequence_ids)

    @property
    def n_frames(self) -> int:
        """How many frames in all."""
        return int(self.offsets[-1])

    def demographic(self, name: str) -> Float32:
        """One demographic a sequence: float32, (n_sequences,), NaN where unknown."""
        return self.demographics[:, DEMOGRAPHICS.index(name)]


@dataclass(frozen=True)
class Column:
    """What one sequence feature or frame channel is: a row of the catalogue.

    Parameters
    ----------
    name
        Unique inside its table, stable whatever the length of a sequence.
    family
        The group it was computed with, such as `motion` or `spectral`.
    modality
        What it needs, joined by `+`: `imu`, `thm`, `tof`, `imu+tof` ..., or `person` for demographics alone.
    unit
        Such as `m/s^2`, `rad/s`, `1`.
    formula
        How it is computed, readable.
    source
        Where the formula is from; empty where it is our own or elementary.
    when_missing
        Its value where a modality that it needs is wholly missing: NaN, or 0 for presence flags.
    """

    name: str
    family: str
    modality: str
    unit: str
    formula: str
    source: str = ""
    when_missing: float = float("nan")

    @property
    def survives_imu_only(self) -> bool:
        """Whether it can be computed without thermopiles and ToF sensors."""
        return not {THM, TOF} & set(self.modality.split("+"))


@dataclass(frozen=True)
class FeatureBatch:
    """Whole sequences as models see them.

    Parameters
    ----------
    sequence_ids
        One a sequence.
    offsets
        int64, (n_sequences + 1,), into `frames` and `tof`.
    table
        float32, (n_sequences, n_features): one row a sequence; NaN means not measurable here.
    features
        What the columns of `table` are.
    frames
        float32, (n_frames, n_channels); NaN means missing.
    channels
        What the columns of `frames` are.
    tof
        uint8, (n_frames, n_tof, 64): ToF images; 0..249, 254 no return, 255 missing. n_tof is 0 where they were left
        out or the device has none.
    phase
        uint8, (n_frames,): 1 inside the gesture phase, 0 outside, 255 unknown. A label: models may learn from it as
        a target, never see it as an input.

    Notes
    -----
    A part that was not asked for has no columns: (n_sequences, 0) or (0, 0) with all offsets 0.
    """

    sequence_ids: tuple[str, ...]
    offsets: Int64
    table: Float32
    features: tuple[Column, ...]
    frames: Float32
    channels: tuple[Column, ...]
    tof: UInt8
    phase: UInt8

    @property
    def n_sequences(self) -> int:
        """How many sequences."""
        return len(self.sequence_ids)

    def take(self, chosen: Int64) -> "FeatureBatch":
        """Pick sequences by position, in the order given."""
        frames, offsets = take_segments(self.frames, self.offsets, chosen)
        tof, _ = take_segments(self.tof, self.offsets, chosen)
        phase, _ = take_segments(self.phase, self.offsets, chosen)
        ids = tuple(self.sequence_ids[i] for i in chosen)
        return replace(
            self, sequence_ids=ids, offsets=offsets, table=self.table[chosen], frames=frames, tof=tof, phase=phase
        )

    def imu_only(self) -> "FeatureBatch":
        """Give the same sequences as if the device had no thermopile and no ToF sensor.

        Equal, bit for bit, to computing the features of recordings whose thm_ and tof_ columns are all null.
        """
        return replace(
            self,
            table=_without(self.table, self.features),
            frames=_without(self.frames, self.channels),
            tof=np.full_like(self.tof, TOF_IMAGE_MISSING),
        )


def _without(values: Float32, columns: tuple[Column, ...]) -> Float32:
    out = values.copy()
    for position, column in enumerate(columns):
        if not column.survives_imu_only:
            out[:, position] = column.when_missing
    return out
