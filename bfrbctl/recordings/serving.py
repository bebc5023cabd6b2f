"""Recordings for prediction: a raw file, or frames in memory, put through the same checks as in `prepare`.

The checks are the same, so that a model predicts from what it was trained on. Nothing is written.
"""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from bfrbctl.errors import DataError
from bfrbctl.recordings.cleaning import CleanTable, clean
from bfrbctl.recordings.frames_files import with_demographics
from bfrbctl.recordings.preparation import PrepareConfig
from bfrbctl.recordings.raw import OnBytes, RawSchema, RawSplit, read_demographics, without_empty
from bfrbctl.recordings.raw_sequences import whole_sequences
from bfrbctl.schema import DEMOGRAPHICS, SEQUENCE_COUNTER, SEQUENCE_ID, SUBJECT, SensorLayout

_NUMBERS = frozenset(
    {pl.Float64(), pl.Int64(), pl.Int32(), pl.Int16(), pl.Int8(), pl.UInt8(), pl.UInt16(), pl.UInt32()}
)
"""Types of pixel columns that need no conversion: `cleaning` reads any number."""


def cleaned_tables(
    split: RawSplit,
    schema: RawSchema,
    *,
    config: PrepareConfig,
    gathered: bool = False,
    on_bytes: OnBytes | None = None,
) -> Iterator[CleanTable]:
    """Stream a raw file through the checks, about `config.rows_per_file` frames at a time.

    Raises
    ------
    raw.Unsorted
        On the way, when the file is not sorted by sequence: start over with `gathered=True`.
    DataError
        When the file itself is broken.
    """
    demographics = None if split.demographics is None else read_demographics(split.demographics)
    drop = frozenset(config.drop)
    tables = whole_sequences(split.frames, schema, rows=config.rows_per_file, gathered=gathered, on_bytes=on_bytes)
    for table in tables:
        yield with_demographics(clean(table, schema, rate_hz=config.rate_hz, drop=drop), demographics)


def clean_frames(
    frames: pl.DataFrame, demographics: pl.DataFrame | None, *, layout: SensorLayout, rate_hz: float
) -> CleanTable:
    """Put recordings that are in memory through the same checks as a raw file.

    The columns that name a recording may be missing here as a whole: without any sequence_id all rows are one
    recording, without a subject the wearer is unknown, without any counter rows are numbered in their order.

    Parameters
    ----------
    frames
        Rows of one or more sequences in any order: acc_*, rot_*, and what there is of sequence_id, sequence_counter,
        subject, thm_*, tof_*. Other columns are ignored; sensors of `layout` that it lacks are missing.
    demographics
        One row a subject, as in the study's file; None or empty when unknown. A recording whose subject is missing or
        the empty string is of an unknown person.
    layout
        Sensors to give.
    rate_hz
        Frames a second.

    Returns
    -------
    The usable sequences, and the faults of the others.

    Raises
    ------
    DataError
        When some rows, but not all, have no sequence_id.
    """
    schema = RawSchema(layout, (), ())
    table = _typed(frames, schema)
    if not table[SEQUENCE_ID].is_sorted():
        table = table.sort(SEQUENCE_ID, maintain_order=True)
    cleaned = clean(table, schema, rate_hz=rate_hz)
    if demographics is None or SUBJECT not in demographics.columns:
        return cleaned
    return with_demographics(cleaned, _one_row_a_subject(demographics))


def _typed(frames: pl.DataFrame, schema: RawSchema) -> pl.DataFrame:
    """Give the columns of `schema.dtypes`: converted, filled where they are missing, or as they are."""
    n = frames.height
    dtypes = dict(zip(frames.columns, frames.dtypes, strict=True))
    stand_ins = {
        SEQUENCE_ID: lambda: pl.repeat("sequence", n, eager=True),
        SEQUENCE_COUNTER: lambda: pl.Series(np.arange(n)),
        SUBJECT: lambda: pl.repeat(None, n, dtype=pl.String, eager=True),
    }
    nothing = pl.repeat(None, n, dtype=pl.Float32, eager=True)
    pixels = frozenset(schema.layout.tof_columns)
    as_they_are: list[str] = []
    made: list[pl.Series] = []
    for name, dtype in schema.dtypes.items():
        found = dtypes.get(name)
        if found is None:
            made.append((stand_ins[name]() if name in stand_ins else nothing).alias(name))
        elif name in stand_ins:
            made.append(_key(_as_type(frames.get_column(name), dtype), stand_ins[name]))
        elif (name in pixels and found in _NUMBERS) or found == dtype:
            as_they_are.append(name)
        else:
            made.append(_as_type(frames.get_column(name), dtype))
    return frames[as_they_are].hstack(made) if as_they_are else pl.DataFrame(made)


def _key(values: pl.Series, stand_in: Callable[[], pl.Series]) -> pl.Series:
    """Fill what is missing of a key where that can only mean one thing; an empty text is as missing as null."""
    if values.dtype == pl.String:
        values = without_empty(values.to_frame()).to_series()
    n_missing = values.null_count()
    if values.name == SUBJECT:
        return values.fill_null(stand_in()) if n_missing else values
    if n_missing and n_missing == len(values):
        return stand_in().alias(values.name)
    if n_missing and values.name == SEQUENCE_ID:
        raise DataError(
            f"{n_missing} of {len(values)} rows have no sequence_id (null or empty), expected one in every row",
            hint="name the recording that they belong to, or leave the column out where all rows are of one",
        )
    return values


def _as_type(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Convert a column; null where a value is none of that type, or no value of the column can be."""
    if values.dtype == dtype:
        return values
    nothing = pl.repeat(None, len(values), dtype=dtype, eager=True).alias(values.name)
    try:
        cast = values.cast(dtype, strict=False)
    except pl.exceptions.PolarsError:
        return nothing
    return cast if cast.dtype == dtype else nothing  # a struct stays a struct of such values


def _one_row_a_subject(demographics: pl.DataFrame) -> pl.DataFrame:
    """Give subject and the demographics as float32, null where a column or a value is missing or no number."""
    return demographics.select(
        pl.col(SUBJECT).cast(pl.String),
        *(pl.col(name).cast(pl.Float32, strict=False) for name in DEMOGRAPHICS if name in demographics.columns),
        *(pl.lit(None, dtype=pl.Float32).alias(name) for name in DEMOGRAPHICS if name not in demographics.columns),
    ).unique(SUBJECT, keep="first", maintain_order=True)
