"""Feature folders: the tables that hold a FeatureBatch, written a batch and read a file at a time."""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32, offsets_of
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.errors import ArtefactError
from bfrbctl.execution.cache import IN_MEMORY, Cache, settle
from bfrbctl.recordings.dataset import Column, FeatureBatch, check_same_sequences, frames_file, repeat_ids
from bfrbctl.schema import PHASE, SEQUENCE_ID, TOF_PIXELS

INDEX = "index.parquet"
CATALOGUE = "catalogue.parquet"
ALL_PARTS = frozenset({"table", "frames", "tof"})

_FRAMES, _FRAMES_A_BYTE = 65_536, 64
"""More frames than so many, and so many a byte of their files, cannot be; no memory is taken for them."""


def feature_frames(batch: FeatureBatch, tof: Sequence[int]) -> pl.DataFrame:
    """Lay a batch out as the frames table of a feature folder.

    sequence_id, one float32 column a channel (null where missing), one array column of 64 uint8 a ToF sensor (254 no
    return, 255 missing), phase.
    """
    columns = {SEQUENCE_ID: repeat_ids(batch.sequence_ids, batch.offsets)}
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
        check_same_sequences(table, ids, offsets_of(rows["n_frames"].to_numpy()), f"{folder.path / name}")
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
