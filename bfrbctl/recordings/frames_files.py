"""One frames file of a prepared dataset: made of some raw sequences, here or in a worker.

A small file of notes beside it holds what `prepare` needs later - a row a sequence, the findings, the sensors that
measured - so that a resumed run need not read its recordings again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.files import decode_parquet, parquet_bytes, temporary_path, write_bytes
from bfrbctl.artefacts.folders import PART
from bfrbctl.recordings.cleaning import QUALITY_SCHEMA, CleanTable, Fault, Quality, clean
from bfrbctl.recordings.dataset import RecordingBatch, frames_file, recording_frames
from bfrbctl.recordings.raw import RawSchema, read_demographics
from bfrbctl.recordings.raw_sequences import Part
from bfrbctl.reprs import short_repr
from bfrbctl.schema import DEMOGRAPHICS, SUBJECT, TOF_MISSING, SensorLayout


@dataclass(frozen=True)
class FramesSpec:
    """How the raw sequences of a file become frames files, here and in workers.

    Parameters
    ----------
    schema
        What `raw.read_schema` found in the raw file.
    demographics
        The file of the subjects, where there is one.
    rate_hz
        Frames a second.
    drop
        Sequences to leave out.
    layout
        Sensors of the dataset.
    folder
        The dataset, absolute.
    """

    schema: RawSchema
    demographics: Path | None
    rate_hz: float
    drop: frozenset[str]
    layout: SensorLayout
    folder: Path

    def read_demographics(self) -> pl.DataFrame | None:
        """Read the file of the subjects, where there is one."""
        return None if self.demographics is None else read_demographics(self.demographics)


@dataclass(frozen=True)
class Made:
    """A frames file that is made and not yet published.

    Parameters
    ----------
    frames
        Its path; None when some of its sequences cannot be used.
    notes
        What `Notes.unpack` reads.
    faults
        Sequences that cannot be used, and why.
    """

    frames: Path | None
    notes: bytes
    faults: list[Fault]

    __repr__ = short_repr


@dataclass
class Notes:
    """What `prepare` needs to know of one or more frames files.

    Parameters
    ----------
    labels
        A table a file, one row a sequence: labels, demographics, flags and number of the file.
    quality
        What was repaired or noticed.
    live
        Sensors with any valid frame.
    faults
        Sequences that cannot be used, and why.
    """

    labels: list[pl.DataFrame] = field(default_factory=list)
    quality: Quality = field(default_factory=Quality)
    live: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)

    __repr__ = short_repr

    @classmethod
    def of(cls, cleaned: CleanTable, number: int) -> "Notes":
        """Collect what is needed of a file later."""
        batch = cleaned.batch
        subjects = pl.DataFrame(batch.demographics, schema=dict.fromkeys(DEMOGRAPHICS, pl.Float32), orient="row")
        subjects = subjects.with_columns(pl.all().fill_nan(None))
        file = pl.lit(number, dtype=pl.Int32).alias("file")
        labels = pl.concat([cleaned.labels, subjects, _flags(batch)], how="horizontal").with_columns(file)
        return cls([_by_itself(labels)], cleaned.quality, live_sensors(batch), cleaned.faults)

    def add(self, other: "Notes") -> None:
        """Append the notes of the files that follow."""
        self.labels += other.labels
        self.quality.rows += other.quality.rows
        self.live |= other.live
        self.faults += other.faults

    def pack(self) -> bytes:
        """Encode the notes of one file, as Parquet of one row; without faults, as files with any are not kept."""
        tables = {"labels": self.labels[0], "quality": self.quality.table()}
        packed = [pl.Series(name, [table.to_struct()]) for name, table in tables.items()]
        return parquet_bytes(pl.DataFrame([*packed, pl.Series("live", [sorted(self.live)], dtype=pl.List(pl.String))]))

    @classmethod
    def unpack(cls, content: bytes, name: str, faults: Sequence[Fault] = ()) -> "Notes":
        """Decode what `pack` gave, and add faults."""
        row = decode_parquet(content, name)
        labels, quality = (row[name].explode(empty_as_null=False).struct.unnest() for name in ("labels", "quality"))
        return cls([labels], Quality(quality.select(list(QUALITY_SCHEMA)).rows()), set(row["live"][0]), list(faults))


def notes_file(number: int) -> str:
    """Name of the file of notes beside a frames file of that number; it goes when the dataset is finished."""
    return f"{PART}notes-{number:05d}.parquet"


def make_file(part: Part, number: int, spec: FramesSpec) -> Made:
    """Make a frames file in a worker, under a temporary name; the caller publishes it."""
    cleaned = checked(part.read(spec.schema), spec, spec.read_demographics())
    path = None
    if not cleaned.faults:
        path = temporary_path(spec.folder / frames_file(number))
        write_bytes(path, parquet_bytes(frames_table(cleaned, spec.layout)))
    return Made(path, Notes.of(cleaned, number).pack(), cleaned.faults)


def checked(table: pl.DataFrame, spec: FramesSpec, demographics: pl.DataFrame | None) -> CleanTable:
    """Check and repair a table of whole raw sequences, and add the demographics of their subjects."""
    return with_demographics(clean(table, spec.schema, rate_hz=spec.rate_hz, drop=spec.drop), demographics)


def frames_table(cleaned: CleanTable, layout: SensorLayout) -> pl.DataFrame:
    """Lay recordings out as a frames file with the sensors of `layout`."""
    behavior = cleaned.behavior.rechunk()  # else the row groups of a file depend on how its raw rows were read
    return recording_frames(cleaned.batch.conform(layout), cleaned.counters, behavior, cleaned.phase)


def with_demographics(cleaned: CleanTable, demographics: pl.DataFrame | None) -> CleanTable:
    """Give the recordings the demographics of their subjects, NaN where unknown."""
    batch = cleaned.batch
    if demographics is None or not batch.n_sequences:
        return cleaned
    subjects = pl.DataFrame({SUBJECT: batch.subjects}, schema={SUBJECT: pl.String})
    rows = subjects.join(demographics, on=SUBJECT, how="left", maintain_order="left")
    values = np.stack([rows[name].to_numpy() for name in DEMOGRAPHICS], axis=1)
    return replace(cleaned, batch=replace(batch, demographics=np.asarray(values, dtype=np.float32)))


def _by_itself(rows: pl.DataFrame) -> pl.DataFrame:
    """Copy the texts of some rows: polars' own rows keep all texts alive of the tables that they were taken from."""
    texts = [name for name, dtype in rows.schema.items() if dtype == pl.String]
    return rows.with_columns(pl.Series(name, rows[name].to_list(), dtype=pl.String) for name in texts)


def _flags(batch: RecordingBatch) -> pl.DataFrame:
    """Whether a sequence has any valid frame of each modality."""
    starts = batch.offsets[:-1]

    def any_of(valid: Any) -> Any:
        return np.logical_or.reduceat(valid, starts) if batch.n_sequences else np.zeros(0, dtype=np.bool_)

    return pl.DataFrame(
        {
            "has_rot": any_of(~np.isnan(batch.rot[:, 0])),
            "has_thm": any_of((~np.isnan(batch.thm)).any(axis=1)),
            "has_tof": any_of((batch.tof != TOF_MISSING).any(axis=(1, 2))),
        }
    )


def live_sensors(batch: RecordingBatch) -> set[str]:
    """Sensors with any valid frame in a batch."""
    thm = {f"thm_{n}" for n, values in zip(batch.layout.thm, batch.thm.T, strict=True) if not np.isnan(values).all()}
    tof = {f"tof_{n}" for k, n in enumerate(batch.layout.tof) if (batch.tof[:, k] != TOF_MISSING).any()}
    return thm | tof
