"""Read raw recordings - the study's CSV or Parquet - in bounded memory: which files, which columns, the rows.

A file is read in chunks of some megabytes, in its own row order; `raw_sequences` makes whole sequences of them.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bfrbctl.artefacts.files import absurd_totals
from bfrbctl.artefacts.folders import is_unfinished, refuse_unfinished
from bfrbctl.artefacts.journals import kind_there
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.schema import (
    ACC,
    DEMOGRAPHICS,
    GESTURE,
    LABELS,
    ROT,
    ROW_ID,
    SEQUENCE_COUNTER,
    SEQUENCE_ID,
    SUBJECT,
    SensorLayout,
    layout_of,
)

CHUNK_BYTES = 32 << 20
_PARQUET_BATCH_ROWS = 32_768
_MAX_LINE = 1 << 20
_KEYS = (SEQUENCE_ID, SEQUENCE_COUNTER, SUBJECT)
FORMATS = ("csv", "parquet")
"""Endings of the files that are read; a name may have them in capital letters."""

OnBytes = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class RawSplit:
    """One raw file and the demographics of its subjects.

    Parameters
    ----------
    name
        `train` or `test`.
    frames
        The CSV or Parquet file with the frames.
    demographics
        CSV or Parquet, one row a subject; None where there is none.
    """

    name: str
    frames: Path
    demographics: Path | None

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [path for path in (self.frames, self.demographics) if path is not None]


@dataclass(frozen=True)
class RawSchema:
    """What the columns of a raw file are.

    Parameters
    ----------
    layout
        Thermopiles and ToF sensors that there are.
    labels
        Label columns that there are, in the order of `schema.LABELS`.
    extra
        Unknown columns, which are left out.
    """

    layout: SensorLayout
    labels: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """The columns we read, in the order of prepared files, and how."""
        text = dict.fromkeys((SEQUENCE_ID, SUBJECT, *self.labels), pl.String())
        numbers = dict.fromkeys(self.layout.columns, pl.Float32())
        ordered: dict[str, pl.DataType] = {SEQUENCE_ID: pl.String(), SEQUENCE_COUNTER: pl.Int64()}
        return {**ordered, **text, **numbers}


class Unsorted(Exception):
    """The rows of a file are not sorted by sequence_id, so that it cannot be streamed."""


def find_splits(raw: Path, demographics: Path | None = None) -> list[RawSplit]:
    """Find what there is to read: the study's folder, or one file.

    Parameters
    ----------
    raw
        A folder with train.csv / train.parquet and/or test.*, or one such file of any name.
    demographics
        The demographics of a single file, where they cannot be found by name.

    Raises
    ------
    DataError
        When there is nothing to read.
    ArtefactError
        When the folder is one that a run has not finished.
    UsageError
        When `demographics` is given for a folder, or a split lies there as CSV and as Parquet.
    """
    if raw.is_file():
        name = "test" if GESTURE not in raw_columns(raw) else "train"
        beside = demographics or _one_of(raw.parent, f"{raw.stem}_demographics")
        return [RawSplit(name, raw, beside)]
    if not raw.is_dir():
        raise DataError(f"{raw}: there is no such file or folder", hint="give the folder that has train.csv in it")
    if demographics is not None:
        raise UsageError("--demographics goes with a single file", hint=f"{raw} is a folder; name its file instead")
    if is_unfinished(raw) and kind_there(raw):
        refuse_unfinished(raw)
    splits = []
    for name in ("train", "test"):
        frames = _one_of(raw, name)
        if frames is not None:
            splits.append(RawSplit(name, frames, _one_of(raw, f"{name}_demographics")))
    if not splits:
        raise DataError(
            f"{raw}: has none of train.csv, train.parquet, test.csv, test.parquet",
            hint="give the folder that you downloaded, or the file itself",
        )
    return splits


def file_format(path: Path) -> str:
    """Get the format of a file from its name: `csv` or `parquet`, in small or capital letters.

    Raises
    ------
    DataError
        When the name ends otherwise.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise DataError(
            f"{path}: its name ends in {path.suffix or 'nothing'!r}, expected .csv or .parquet",
            hint="name a comma-separated file .csv; convert anything else to CSV or Parquet",
        )
    return ending


def _one_of(folder: Path, stem: str) -> Path | None:
    try:
        there = sorted(path for path in folder.iterdir() if path.stem == stem)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error})", hint="check the path") from error
    found = [path for path in there if path.suffix.lower().removeprefix(".") in FORMATS and path.is_file()]
    if len(found) > 1:
        raise UsageError(
            f"{folder}: has both {found[0].name} and {found[1].name}", hint="give the file you mean instead"
        )
    return found[0] if found else None


# -------------------------------------------------------------------------------------------------------- columns


def raw_columns(path: Path) -> dict[str, pl.DataType | None]:
    """Names of a raw file's columns, with their type for Parquet and None for CSV.

    Raises
    ------
    DataError
        When the file is empty, not CSV / Parquet, or names a column twice.
    """
    try:
        names = _parquet_columns(path) if file_format(path) == "parquet" else _csv_columns(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})", hint="check the path") from error
    return names


def _csv_columns(path: Path) -> dict[str, pl.DataType | None]:
    with path.open("rb") as handle:
        header = handle.readline(1 << 20)
    if not header.strip():
        raise DataError(f"{path}: is empty, expected a header line", hint="download or write it again")
    try:
        names = next(csv.reader([header.decode("utf-8-sig").rstrip("\r\n")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: its first line is not a CSV header ({error})", hint="is it a CSV file?") from error
    _refuse_twice(names, path)
    return dict.fromkeys(names)


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"{path}: names a column twice ({examples(twice)})")


def _parquet_columns(path: Path) -> dict[str, pl.DataType | None]:
    schema = open_parquet(path).schema_arrow
    _refuse_twice(schema.names, path)
    try:
        return dict(pl.from_arrow(schema.empty_table()).schema)  # type: ignore[union-attr]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException) as error:
        raise DataError(f"{path}: has a column of a type we cannot read ({error})") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a raw Parquet file; DataError when it is none, or its footer promises absurd totals."""
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty", hint="download or write it again")
    try:
        # Buffering ahead would keep all that was read until the file is closed: as much memory as the file has bytes.
        file = pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowException as error:
        raise DataError(
            f"{path}: is not a Parquet file, or was cut short ({str(error).splitlines()[0][:120]})",
            hint="download or write it again; a CSV file must be called .csv",
        ) from error
    absurd = absurd_totals(file.metadata, path.stat().st_size)
    if absurd:
        raise DataError(f"{path}: {absurd}", hint="do not trust this file")
    return file


def read_schema(path: Path) -> RawSchema:
    """Read the columns of a raw file; refuse one that lacks a column or has a wrong type, naming all of them."""
    columns = raw_columns(path)
    layout = layout_of(columns)
    labels = tuple(name for name in LABELS if name in columns)
    needed = (*_KEYS, *ACC, *ROT, *layout.tof_columns)
    missing = [name for name in needed if name not in columns]
    mistyped = [
        f"{name} is {columns[name]}" for name in (*needed, *layout.thm_columns, *labels) if _wrong(columns, name)
    ]
    if missing or mistyped:
        parts = [f"lacks {_columns(missing)}"] if missing else []
        parts += [f"has columns of a wrong type ({examples(mistyped)})"] if mistyped else []
        raise DataError(f"{path}: {' and '.join(parts)}", hint="the columns are those of the study's train.csv")
    known = {*needed, *layout.thm_columns, *labels, ROW_ID}
    return RawSchema(layout, labels, tuple(name for name in columns if name not in known))


def _columns(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {', '.join(names[:12])}" + (
        f" and {len(names) - 12} more" if len(names) > 12 else ""
    )


def _wrong(columns: Mapping[str, pl.DataType | None], name: str) -> bool:
    dtype = columns.get(name)
    if dtype is None or isinstance(dtype, pl.Null):
        return False
    if name in (SEQUENCE_ID, SUBJECT, *LABELS):
        return not isinstance(dtype, pl.String | pl.Categorical | pl.Enum)
    if name == SEQUENCE_COUNTER:
        return not dtype.is_integer()
    return not dtype.is_numeric()


# --------------------------------------------------------------------------------------------------------- chunks


def without_empty(table: pl.DataFrame) -> pl.DataFrame:
    """Make empty texts null: an empty field of CSV is nothing, and the same recording as Parquet means the same."""
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String and (table[name] == "").any()]
    return table.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)) for name in texts) if texts else table


def read_chunks(path: Path, schema: RawSchema, on_bytes: OnBytes | None = None) -> Iterator[pl.DataFrame]:
    """Read a raw file in its own row order, some thousand rows at a time, with the columns of `schema.dtypes`.

    Empty texts are null; every row has a sequence_id.

    Raises
    ------
    DataError
        A line with too few or too many fields, a value that is no number, rows without a sequence_id, no rows at all.
    """
    n_rows = 0
    chunks = _one_ahead((_parquet_chunks if file_format(path) == "parquet" else csv_chunks)(path, schema))
    for chunk, n_bytes in chunks:
        nameless = chunk[SEQUENCE_ID].is_null()
        if nameless.any():
            first = n_rows + 1 + int(nameless.arg_true()[0])
            n_nameless = int(nameless.sum()) + sum(rest[SEQUENCE_ID].null_count() for rest, _ in chunks)
            raise DataError(
                f"{path}: {n_nameless} rows have no sequence_id (null or empty), the first is row {first}, "
                f"expected one in every row",
                hint="name the recording that they belong to, or remove the rows",
            )
        n_rows += chunk.height
        yield chunk
        if on_bytes:
            on_bytes(n_bytes)
    if n_rows == 0:
        raise DataError(f"{path}: has no rows", hint="download or write it again")


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Make the next item in a thread while the caller works on this one: parsing needs no lock of Python's."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _parquet_chunks(path: Path, schema: RawSchema) -> Iterator[tuple[pl.DataFrame, int]]:
    file = open_parquet(path)
    share = path.stat().st_size / max(file.metadata.num_rows, 1)
    dtypes = schema.dtypes
    try:
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=list(dtypes)):
            frame = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(frame, pl.DataFrame)
            typed = [pl.col(name).cast(dtype) for name, dtype in dtypes.items()]
            yield (
                without_empty(frame.select(typed)),
                int(share * batch.num_rows),
            )  # no reference stays here
    except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"{path}: is damaged ({str(error).splitlines()[0][:160]})", hint="download or write it again"
        ) from error


def csv_chunks(
    path: Path, schema: RawSchema, *, start: int = 0, stop: int | None = None, first_line: int = 2
) -> Iterator[tuple[pl.DataFrame, int]]:
    """Read a CSV file, or whole lines of it, some megabytes at a time.

    Parameters
    ----------
    path, schema
        The file and what `read_schema` said of it.
    start, stop
        The bytes to read; 0 is behind the header, None the end of the file.
    first_line
        Number of the line at `start`, for messages.

    Yields
    ------
    Rows with the columns of `schema.dtypes`, and how many bytes they were.
    """
    names = list(raw_columns(path))
    wanted = schema.dtypes
    parsed = {name: wanted.get(name, pl.String()) for name in names}
    for block in _csv_blocks(path, start, stop):
        n_lines = _check_fields(path, block, len(names), first_line)
        try:
            frame = pl.read_csv(io.BytesIO(block), has_header=False, schema=parsed)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise _bad_value(path, block, parsed, first_line, error) from error
        yield without_empty(frame.select(list(wanted))), len(block)
        first_line += n_lines


def _csv_blocks(path: Path, start: int, stop: int | None) -> Iterator[bytes]:
    """Cut the file after its header into blocks that end at a line end outside quotes."""
    with path.open("rb") as handle:
        if start:
            handle.seek(start)
        else:
            _rest_of_line(handle, path)  # the header
        end = path.stat().st_size if stop is None else stop
        while block := handle.read(min(CHUNK_BYTES, max(end - handle.tell(), 0))):
            if handle.tell() < end:
                block += _rest_of_line(handle, path)
            if b'"' in block and block.count(b'"') % 2:
                block += _rest_of_quotes(handle, path)
            if block.strip():
                yield block


def _rest_of_line(handle: BinaryIO, path: Path) -> bytes:
    rest = handle.readline(_MAX_LINE)
    if len(rest) == _MAX_LINE:
        raise DataError(f"{path}: has a line longer than {_MAX_LINE} bytes", hint="is it a CSV file?")
    return rest


def _rest_of_quotes(handle: BinaryIO, path: Path) -> bytes:
    """Read on to the end of the line that closes the quotes; a lost quote must not cost the rest of the file."""
    rest, n_quotes = bytearray(), 1
    while n_quotes % 2 and (line := _rest_of_line(handle, path)):
        rest += line
        n_quotes += line.count(b'"')
        if len(rest) > _MAX_LINE:
            raise DataError(f"{path}: has quotes that do not end", hint="a quote is missing there, or one too many")
    return bytes(rest)


def _check_fields(path: Path, block: bytes, n_fields: int, first_line: int) -> int:
    """Check that every line has as many fields as the header; give the number of lines."""
    data = np.frombuffer(block, dtype=np.uint8)
    n_lines = int(np.count_nonzero(data == 10)) + (not block.endswith(b"\n"))
    if b'"' not in block and np.count_nonzero(data == 44) == n_lines * (n_fields - 1):
        return n_lines
    number = first_line
    try:
        for row in csv.reader(io.StringIO(block.decode("utf-8", "replace"), newline="")):
            if len(row) != n_fields:
                raise DataError(
                    f"{path}: line {number} has {len(row)} fields, expected {n_fields}",
                    hint="the file was cut short or damaged there; download or write it again",
                )
            number += 1
    except csv.Error as error:
        raise DataError(f"{path}: line {number} is not CSV ({error})", hint="is it a CSV file?") from error
    return n_lines


def _bad_value(
    path: Path, block: bytes, parsed: Mapping[str, pl.DataType], first_line: int, error: BaseException
) -> DataError:
    """Find the value that could not be read, for the message."""
    found: list[str] = []
    try:
        text = pl.read_csv(io.BytesIO(block), has_header=False, schema=dict.fromkeys(parsed, pl.String()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return DataError(
            f"{path}: cannot be read behind line {first_line} ({str(error).splitlines()[0][:160]})",
            hint="it should be CSV in UTF-8; download or write it again",
        )
    for name, dtype in parsed.items():
        if not isinstance(dtype, pl.String):
            bad = text[name].cast(dtype, strict=False).is_null() & text[name].is_not_null()
            found += [
                f"{name} is {text[name][row]!r} in line {first_line + row}" for row in bad.arg_true().head(3).to_list()
            ]
    what = examples(found) if found else str(error).splitlines()[0][:160]
    return DataError(f"{path}: {what}, expected a number", hint="fix the file; leave a field empty where it is missing")


# --------------------------------------------------------------------------------------------------- demographics


def read_demographics(path: Path) -> pl.DataFrame:
    """Read the demographics: `subject` and the columns of `schema.DEMOGRAPHICS` that there are, the others null.

    Raises
    ------
    DataError
        Not readable, no `subject` column, a subject twice, a value that is no number.
    """
    try:
        table = pl.read_parquet(path) if file_format(path) == "parquet" else pl.read_csv(path, infer_schema=False)
        if SUBJECT not in table.columns:
            raise DataError(f"{path}: lacks column {SUBJECT}", hint="it needs one row a subject")
        subjects = table[SUBJECT].cast(pl.String)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({(str(error).splitlines() or [''])[0][:160]})") from error
    twice = subjects.filter(subjects.is_duplicated()).unique().sort().to_list()
    if twice:
        raise DataError(f"{path}: subject {examples(twice)} is in it twice, expected one row a subject")
    numbers = {}
    for name in DEMOGRAPHICS:
        column = table[name] if name in table.columns else pl.Series(name, [None] * table.height, dtype=pl.Float32)
        try:
            numbers[name] = column.cast(pl.Float32, strict=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise DataError(f"{path}: {name} is {column.dtype}, expected numbers") from error
        bad = (numbers[name].is_null() & column.is_not_null()).arg_true().to_list()
        if bad:
            raise DataError(f"{path}: {name} of {subjects[bad[0]]} is {column[bad[0]]!r}, expected a number")
    return pl.DataFrame({SUBJECT: subjects, **numbers})
