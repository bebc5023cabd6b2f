"""Batches of whole sequences in memory, and the folders they come from.

`RecordingBatch` is what the device measured (after preparation); `FeatureBatch` is what models see. Both are plain
arrays over ragged offsets; this module and `storage` are the only ones that know the files behind them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import polars as pl

from bfrbctl.cache import IN_MEMORY, Cache, settle
from bfrbctl.errors import ArtefactError
from bfrbctl.folders import SEQUENCES, Folder
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
from bfrbctl.segments import Float32, Int16, Int64, UInt8, offsets_of, segment_ids, take_segments

IMU = "imu"
THM = "thm"
TOF = "tof"

INDEX = "index.parquet"
CATALOGUE = "catalogue.parquet"
ALL_PARTS = frozenset({"table", "frames", "tof"})

_FRAMES, _FRAMES_A_BYTE = 65_536, 64
"""More frames than so many, and so many a byte of their files, cannot be; no memory is taken for them."""

_BLOCK = 256
"""Side of the blocks in which matrices are transposed."""

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
    when_missing: float = field(default=float("nan"), compare=False)  # NaN equals nothing; the name tells columns apart

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
        SEQUENCE_ID: _repeat_ids(batch.sequence_ids, batch.offsets),
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
    _see_same_sequences(frame, ids, offsets, f"{folder.path / name}")
    layout = dataset_layout(folder)
    missing = [column for column in (*layout.thm_columns, *layout.tof_columns) if column not in frame.columns]
    if missing:
        raise ArtefactError(f"{folder.path / name}: has no column {missing[0]}", hint="make the folder again")
    tof = np.empty((len(layout.tof) * TOF_PIXELS, frame.height), dtype=np.int16)
    for position, column in enumerate(layout.tof_columns):
        tof[position] = frame[column].fill_null(TOF_MISSING).to_numpy()
    images = np.empty((frame.height, len(layout.tof_columns)), dtype=np.int16)
    transpose_into(tof, images)
    batch = RecordingBatch(
        sequence_ids=ids,
        subjects=tuple(rows[SUBJECT].to_list()),
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
        raise ArtefactError(f"{folder.path}: has {len(together)} frames, its sequences tell {offsets[-1]}")
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


def _see_same_sequences(frame: pl.DataFrame, ids: tuple[str, ...], offsets: Int64, what: str) -> None:
    hint = "the folder does not hold together; make it again"
    if frame.height != offsets[-1]:
        raise ArtefactError(f"{what}: has {frame.height} frames, its sequences tell {offsets[-1]}", hint=hint)
    found = frame[SEQUENCE_ID].rle().struct.unnest()
    if found["value"].to_list() != list(ids) or not np.array_equal(found["len"].to_numpy(), np.diff(offsets)):
        raise ArtefactError(f"{what}: its sequences are not those of sequences.parquet", hint=hint)


# ---------------------------------------------------------------------------------------------------- feature folders


def feature_frames(batch: FeatureBatch, tof: Sequence[int]) -> pl.DataFrame:
    """Lay a batch out as the frames table of a feature folder.

    sequence_id, one float32 column a channel (null where missing), one array column of 64 uint8 a ToF sensor (254 no
    return, 255 missing), phase.
    """
    columns = {SEQUENCE_ID: _repeat_ids(batch.sequence_ids, batch.offsets)}
    for position, channel in enumerate(batch.channels):
        columns[channel.name] = pl.Series(batch.frames[:, position], nan_to_null=True, dtype=pl.Float32)
    for position, sensor in enumerate(tof):
        images = np.ascontiguousarray(batch.tof[:, position])
        columns[f"tof_{sensor}"] = pl.Series(images, dtype=pl.Array(pl.UInt8, TOF_PIXELS))
    columns[PHASE] = pl.Series(batch.phase, dtype=pl.UInt8)
    return pl.DataFrame(columns)


def feature_table(batch: FeatureBatch) -> pl.DataFrame:
    """Lay the sequence table of a batch out: sequence_id and one float32 column a feature, null where missing."""
    columns = {SEQUENCE_ID: pl.Series(batch.sequence_ids, dtype=pl.String)}
    for position, feature in enumerate(batch.features):
        columns[feature.name] = pl.Series(batch.table[:, position], nan_to_null=True, dtype=pl.Float32)
    return pl.DataFrame(columns)


def catalogue_table(features: Sequence[Column], channels: Sequence[Column]) -> pl.DataFrame:
    """Lay out what every column is: one row a feature (table = sequence) and channel (table = frame)."""
    rows = [("sequence", *vars(column).values()) for column in features]
    rows += [("frame", *vars(column).values()) for column in channels]
    names = ["table", *(item.name for item in fields(Column))]
    dtypes = {name: pl.Float64() if name == "when_missing" else pl.String() for name in names}
    return pl.DataFrame(rows, schema=dtypes, orient="row")


def read_catalogue(folder: Folder) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Read what the features and the channels of a feature folder are."""
    table = folder.read_parquet(CATALOGUE)

    def columns(kind: str) -> tuple[Column, ...]:
        return tuple(Column(**row) for row in table.filter(pl.col("table") == kind).drop("table").to_dicts())

    return columns("sequence"), columns("frame")


def read_features(
    folder: Folder, *, parts: Collection[str] = ALL_PARTS, labelled: bool = True, cache: Cache = IN_MEMORY
) -> tuple[pl.DataFrame, FeatureBatch]:
    """Read a feature folder, a file at a time, into memory or into mapped files.

    Parameters
    ----------
    folder
        The feature folder.
    parts
        Which of `table`, `frames` and `tof` to read; the others come without columns.
    labelled
        Only sequences with a gesture (what training uses), or all of them.
    cache
        Where the arrays of the batch lie, and copies that are made of it later; what is in them does not depend on it.

    Returns
    -------
    The index and the batch, row by row the same sequences.

    Raises
    ------
    ArtefactError
        When a part was left out when the folder was made, or the files do not fit each other.
    """
    features, channels = read_catalogue(folder)
    if "table" in parts and not features:
        raise ArtefactError(
            f"{folder.path}: has no sequence table", hint="featurize again without --for keras to train trees"
        )
    everything = folder.read_parquet(INDEX)
    keep = everything["gesture"].is_not_null() if labelled else pl.repeat(True, everything.height, eager=True)
    index = everything.filter(keep)
    ids = tuple(index[SEQUENCE_ID].to_list())
    table = np.zeros((len(ids), 0), dtype=np.float32)
    if "table" in parts:
        table = _read_table(folder, features, everything[SEQUENCE_ID], keep, cache=cache)
    batch = FeatureBatch(
        sequence_ids=ids,
        offsets=np.zeros(len(ids) + 1, dtype=np.int64),
        table=table,
        features=features if "table" in parts else (),
        frames=np.zeros((0, 0), dtype=np.float32),
        channels=(),
        tof=np.zeros((0, 0, TOF_PIXELS), dtype=np.uint8),
        phase=np.zeros(0, dtype=np.uint8),
        cache=cache,
    )
    if "frames" in parts or "tof" in parts:
        batch = _with_frames(folder, index, batch, channels if "frames" in parts else (), with_tof="tof" in parts)
    return index, batch


def _read_table(
    folder: Folder, features: tuple[Column, ...], ids: pl.Series, keep: pl.Series, *, cache: Cache
) -> Float32:
    """Read some rows of the sequence table, a file at a time: float32, (n_kept, n_features)."""
    names = [column.name for column in features]
    out = cache.empty((int(keep.sum()), len(names)), np.float32)
    row = end = 0
    for file in folder.parts(SEQUENCES):
        rows = folder.read_parquet(file, [SEQUENCE_ID, *names])
        if not rows[SEQUENCE_ID].equals(ids[row : row + rows.height]):
            raise ArtefactError(f"{folder.path}: {file} and {INDEX} tell different sequences")
        kept = rows.filter(keep[row : row + rows.height])
        row, begin, end = row + rows.height, end, end + kept.height
        for position, name in enumerate(names):
            out[begin:end, position] = kept[name].to_numpy()
    if row != len(ids):
        raise ArtefactError(f"{folder.path}: has features of {row} sequences, {INDEX} tells of {len(ids)}")
    return out


def _with_frames(
    folder: Folder, index: pl.DataFrame, batch: FeatureBatch, channels: tuple[Column, ...], *, with_tof: bool
) -> FeatureBatch:
    offsets = offsets_of(index["n_frames"].to_numpy())
    n_bytes = sum(entry.size for name, entry in folder.files.items() if name.startswith("frames-"))
    if offsets[-1] > _FRAMES + _FRAMES_A_BYTE * n_bytes:
        raise ArtefactError(f"{folder.path / INDEX}: tells of {offsets[-1]} frames in files of {n_bytes} bytes")
    names = [channel.name for channel in channels]
    tof_names = _tof_images(folder) if with_tof else []
    frames = batch.cache.empty((int(offsets[-1]), len(names)), np.float32)
    tof = batch.cache.empty((int(offsets[-1]), len(tof_names), TOF_PIXELS), np.uint8)
    phase = np.empty(offsets[-1], dtype=np.uint8)
    begin = 0
    for number in index["file"].unique(maintain_order=True):
        rows = index.filter(pl.col("file") == number)
        name = frames_file(number)
        table = folder.read_parquet(name, [SEQUENCE_ID, *names, *tof_names, PHASE])
        if rows["n_frames"].sum() != table.height:
            table = table.filter(pl.col(SEQUENCE_ID).is_in(rows[SEQUENCE_ID].to_list()))
        ids = tuple(rows[SEQUENCE_ID].to_list())
        _see_same_sequences(table, ids, offsets_of(rows["n_frames"].to_numpy()), f"{folder.path / name}")
        end = begin + table.height
        for position, column in enumerate(names):
            frames[begin:end, position] = table[column].to_numpy()
        for position, column in enumerate(tof_names):
            tof[begin:end, position] = table[column].to_numpy()
        phase[begin:end] = table[PHASE].to_numpy()
        begin = end
        settle(frames)
        settle(tof)
    return replace(batch, offsets=offsets, frames=frames, channels=channels, tof=tof, phase=phase)


def _tof_images(folder: Folder) -> list[str]:
    """Names of the ToF image columns of a feature folder; none where they were left out."""
    if not folder.config.get("tof_images", True):
        return []
    return [f"tof_{sensor}" for sensor in folder.content["tof"]]


def _repeat_ids(ids: tuple[str, ...], offsets: Int64) -> pl.Series:
    return pl.Series(ids, dtype=pl.String).gather(segment_ids(offsets))
