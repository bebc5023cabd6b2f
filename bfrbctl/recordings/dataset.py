"""Batches of whole sequences in memory, and the prepared folders that recordings come from.

`RecordingBatch` is what the device measured (after preparation); `FeatureBatch` is what models read. Both are plain
arrays over ragged offsets. This module reads the files of the first, `features.folder` those of the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import (
    Bool,
    Float32,
    Int16,
    Int64,
    UInt8,
    offsets_of,
    reduce_segments,
    segment_ids,
    take_segments,
)
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.errors import ArtefactError
from bfrbctl.execution.cache import IN_MEMORY, Cache
from bfrbctl.reprs import short_repr
from bfrbctl.schema import (
    ACC,
    BEHAVIOR,
    DEMOGRAPHICS,
    PHASE,
    ROT,
    SEQUENCE_COUNTER,
    SEQUENCE_ID,
    SUBJECT,
    TOF_MISSING,
    TOF_PIXELS,
    SensorLayout,
)

IMU = "imu"
THM = "thm"
TOF = "tof"

_BLOCK = 256
"""Side of the blocks in which matrices are transposed."""

TOF_IMAGE_NO_RETURN = 254
"""In uint8 ToF images: nothing in range."""

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
        One a sequence; None where it is unknown. Two recordings without a subject need not be of one person.
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
    subjects: tuple[str | None, ...]
    offsets: Int64
    acc: Float32
    rot: Float32
    thm: Float32
    tof: Int16
    demographics: Float32
    layout: SensorLayout
    rate_hz: float

    __repr__ = short_repr

    @property
    def n_sequences(self) -> int:
        """How many sequences."""
        return len(self.sequence_ids)

    @property
    def n_frames(self) -> int:
        """How many frames in all."""
        return int(self.offsets[-1])

    def take(self, chosen: Int64) -> "RecordingBatch":
        """Pick sequences by position, in the order given."""
        acc, offsets = take_segments(self.acc, self.offsets, chosen)
        return replace(
            self,
            sequence_ids=tuple(self.sequence_ids[i] for i in chosen),
            subjects=tuple(self.subjects[i] for i in chosen),
            offsets=offsets,
            acc=acc,
            rot=take_segments(self.rot, self.offsets, chosen)[0],
            thm=take_segments(self.thm, self.offsets, chosen)[0],
            tof=take_segments(self.tof, self.offsets, chosen)[0],
            demographics=self.demographics[chosen],
        )

    def conform(self, layout: SensorLayout) -> "RecordingBatch":
        """Give the same recordings with the sensors of another layout: those it lacks are missing, others go."""
        if layout == self.layout:
            return self
        thm = np.full((self.n_frames, len(layout.thm)), np.nan, dtype=np.float32)
        tof = np.full((self.n_frames, len(layout.tof), TOF_PIXELS), TOF_MISSING, dtype=np.int16)
        for position, sensor in enumerate(layout.thm):
            if sensor in self.layout.thm:
                thm[:, position] = self.thm[:, self.layout.thm.index(sensor)]
        for position, sensor in enumerate(layout.tof):
            if sensor in self.layout.tof:
                tof[:, position] = self.tof[:, self.layout.tof.index(sensor)]
        return replace(self, thm=thm, tof=tof, layout=layout)

    def is_imu_only(self) -> Bool:
        """Find the sequences that have no valid thermopile and no valid ToF frame: bool, (n_sequences,)."""
        warm = np.asarray(np.isfinite(self.thm).any(axis=1))
        alone = np.asarray(~reduce_segments(np.logical_or, warm, self.offsets, empty=False), dtype=np.bool_)
        for i in np.flatnonzero(alone) if self.tof.size else ():
            images = self.tof[self.offsets[i] : self.offsets[i + 1]]
            alone[i] = images.max(initial=TOF_MISSING) == TOF_MISSING
        return alone

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
    when_missing: float = field(default=float("nan"), compare=False)  # NaN equals nothing; the name identifies a column

    @property
    def survives_imu_only(self) -> bool:
        """Whether it can be computed without thermopiles and ToF sensors."""
        return not {THM, TOF} & set(self.modality.split("+"))


@dataclass(frozen=True)
class FeatureBatch:
    """Whole sequences as models read them.

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
        uint8, (n_frames,): 1 inside the gesture phase, 0 outside, 255 unknown. A label: models may learn it as
        a target, never read it as an input.
    cache
        Where copies of this batch lie.

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
    cache: Cache = field(default=IN_MEMORY, repr=False, compare=False)

    __repr__ = short_repr

    @property
    def n_sequences(self) -> int:
        """How many sequences."""
        return len(self.sequence_ids)

    def take(self, chosen: Int64) -> "FeatureBatch":
        """Pick sequences by position, in the order given."""
        phase, offsets = take_segments(self.phase, self.offsets, chosen)
        rows = np.arange(self.n_sequences + 1)
        return replace(
            self,
            sequence_ids=tuple(self.sequence_ids[i] for i in chosen),
            offsets=offsets,
            table=self.cache.take(self.table, rows, chosen),
            frames=self.cache.take(self.frames, self.offsets, chosen),
            tof=self.cache.take(self.tof, self.offsets, chosen),
            phase=phase,
        )

    def imu_only(self) -> "FeatureBatch":
        """Give the same sequences as if the device had no thermopile and no ToF sensor.

        Equal, bit for bit, to computing the features of recordings whose thm_ and tof_ columns are all null.
        """
        return replace(
            self,
            table=_without(self.table, self.features, self.cache),
            frames=_without(self.frames, self.channels, self.cache),
            tof=np.broadcast_to(np.uint8(TOF_IMAGE_MISSING), self.tof.shape),
        )


def _without(values: Float32, columns: tuple[Column, ...], cache: Cache) -> Float32:
    out = cache.empty(values.shape, np.float32)
    out[...] = values
    for position, column in enumerate(columns):
        if not column.survives_imu_only:
            out[:, position] = column.when_missing
    return out


# ------------------------------------------------------------------------------------------------- prepared datasets


def recording_frames(batch: RecordingBatch, counters: Int64, behavior: pl.Series, phase: UInt8) -> pl.DataFrame:
    """Lay recordings out as the frames table of a prepared dataset.

    acc, rot (xyzw) and thm are float32 with null where missing; a ToF pixel is int16, -1 no return, null missing.
    """
    columns: dict[str, pl.Series] = {
        SEQUENCE_ID: repeat_ids(batch.sequence_ids, batch.offsets),
        SEQUENCE_COUNTER: pl.Series(counters, dtype=pl.Int64),
        BEHAVIOR: behavior,
        PHASE: pl.Series(phase, dtype=pl.UInt8),
    }
    floats = np.concatenate([batch.acc, batch.rot, batch.thm], axis=1)
    for position, name in enumerate((*ACC, *ROT, *batch.layout.thm_columns)):
        columns[name] = pl.Series(floats[:, position], nan_to_null=True, dtype=pl.Float32)
    pixels = np.empty((batch.tof.shape[1] * TOF_PIXELS, batch.n_frames), dtype=np.int16)
    transpose_into(batch.tof.reshape(batch.n_frames, -1), pixels)
    for row, name in zip(pixels, batch.layout.tof_columns, strict=True):
        columns[name] = pl.Series(row)
    frame = pl.DataFrame(columns)
    holes = [
        name
        for row, name in zip(pixels, batch.layout.tof_columns, strict=True)
        if row.size and row.min() == TOF_MISSING
    ]
    return frame.with_columns(pl.when(pl.col(name) != TOF_MISSING).then(pl.col(name)) for name in holes)


def known_subject() -> pl.Expr:
    """Give the subject of a sequence, null where it is unknown; tables on disk have the empty string there."""
    return pl.when(pl.col(SUBJECT) != "").then(pl.col(SUBJECT)).alias(SUBJECT)


def n_subjects() -> pl.Expr:
    """Count the subjects that are known."""
    return known_subject().drop_nulls().n_unique()


def dataset_layout(folder: Folder) -> SensorLayout:
    """Which sensors a prepared dataset has."""
    return SensorLayout(thm=tuple(folder.content["thm"]), tof=tuple(folder.content["tof"]))


def frames_file(number: int) -> str:
    """Name of the frames file of that number, in datasets and feature folders alike."""
    return f"frames-{number:05d}.parquet"


def read_recordings(folder: Folder, sequences: pl.DataFrame, number: int) -> tuple[RecordingBatch, UInt8]:
    """Read one frames file of a prepared dataset.

    Parameters
    ----------
    folder
        The dataset.
    sequences
        Its sequences.parquet, or the rows of this file.
    number
        Number of the frames file.

    Returns
    -------
    The recordings, and the phase: uint8, (n_frames,), 1 in the gesture, 0 outside, 255 unknown.

    Raises
    ------
    ArtefactError
        When the frames are not those of the sequences table.
    """
    name = frames_file(number)
    rows = sequences.filter(pl.col("file") == number)
    frame = folder.read_parquet(name)
    offsets = offsets_of(rows["n_frames"].to_numpy())
    ids = tuple(rows[SEQUENCE_ID].to_list())
    check_same_sequences(frame, ids, offsets, f"{folder.path / name}")
    layout = dataset_layout(folder)
    there = set(frame.columns)
    missing = [column for column in (*layout.thm_columns, *layout.tof_columns) if column not in there]
    if missing:
        raise ArtefactError(f"{folder.path / name}: has no column {missing[0]}", hint="make the folder again")
    tof = np.empty((len(layout.tof) * TOF_PIXELS, frame.height), dtype=np.int16)
    for row, pixel in zip(tof, frame.select(pl.col(layout.tof_columns).fill_null(TOF_MISSING)), strict=True):
        row[:] = pixel.to_numpy()
    images = np.empty((frame.height, len(layout.tof_columns)), dtype=np.int16)
    transpose_into(tof, images)
    batch = RecordingBatch(
        sequence_ids=ids,
        subjects=tuple(rows.select(known_subject()).to_series().to_list()),
        offsets=offsets,
        acc=float_matrix(frame, ACC),
        rot=float_matrix(frame, ROT),
        thm=float_matrix(frame, layout.thm_columns),
        tof=images.reshape(frame.height, len(layout.tof), TOF_PIXELS),
        demographics=float_matrix(rows, DEMOGRAPHICS),
        layout=layout,
        rate_hz=float(folder.content["rate_hz"]),
    )
    return batch, np.array(frame[PHASE].to_numpy(), dtype=np.uint8)


def read_accelerations(folder: Folder) -> tuple[pl.DataFrame, Float32, Int64]:
    """Read the accelerations of a whole prepared dataset, and nothing else of its frames.

    Returns
    -------
    Its sequences.parquet by file; float32, (n_frames, 3), m/s^2, NaN where missing; int64, (n_sequences + 1,), the
    offsets of its rows.
    """
    sequences = folder.read_together(SEQUENCES).sort("file", maintain_order=True)
    offsets = offsets_of(sequences["n_frames"].to_numpy())
    files = sequences["file"].unique(maintain_order=True)
    acc = [float_matrix(folder.read_parquet(frames_file(number), ACC), ACC) for number in files]
    together = np.concatenate([np.empty((0, len(ACC)), dtype=np.float32), *acc])
    if len(together) != offsets[-1]:
        raise ArtefactError(f"{folder.path}: has {len(together)} frames, sequences.parquet says {offsets[-1]}")
    return sequences, together, offsets


def transpose_into(matrix: Int16, out: Int16) -> None:
    """Write the transpose of a matrix into `out`, in blocks that stay in the processor's cache."""
    rows, columns = matrix.shape
    for begin in range(0, columns, _BLOCK):
        for top in range(0, rows, _BLOCK):
            block = matrix[top : top + _BLOCK, begin : begin + _BLOCK]
            out[begin : begin + _BLOCK, top : top + _BLOCK] = block.T


def float_matrix(frame: pl.DataFrame, columns: Sequence[str]) -> Float32:
    """Stack columns as float32 (n_rows, n_columns), C order, null -> NaN."""
    out = np.empty((frame.height, len(columns)), dtype=np.float32)
    for position, name in enumerate(columns):
        out[:, position] = frame[name].to_numpy()
    return out


def check_same_sequences(frame: pl.DataFrame, ids: tuple[str, ...], offsets: Int64, what: str) -> None:
    """Raise ArtefactError unless the rows of a frames table are those of the sequences, in their order."""
    hint = "the folder does not hold together; make it again"
    if frame.height != offsets[-1]:
        raise ArtefactError(f"{what}: has {frame.height} frames, sequences.parquet says {offsets[-1]}", hint=hint)
    found = frame[SEQUENCE_ID].rle().struct.unnest()
    if found["value"].to_list() != list(ids) or not np.array_equal(found["len"].to_numpy(), np.diff(offsets)):
        raise ArtefactError(f"{what}: its sequences are not those of sequences.parquet", hint=hint)


def repeat_ids(ids: tuple[str, ...], offsets: Int64) -> pl.Series:
    """Give the sequence_id of every frame."""
    return pl.Series(ids, dtype=pl.String).gather(segment_ids(offsets))
