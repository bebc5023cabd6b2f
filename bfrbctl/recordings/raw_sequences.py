"""Whole sequences of raw files: streamed by one process, or as parts that workers read on their own.

Files sorted by sequence (the usual case) are streamed; rows of one sequence scattered over the file are gathered
through sorted temporary files. `plan` reads the sequence ids alone and finds where a stream would be cut, as rows of a
Parquet file or bytes of a CSV file. The tables depend on the data alone, however they are read.
"""

import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from bfrbctl.arrays.ragged import Int64, offsets_of
from bfrbctl.artefacts.files import writing
from bfrbctl.errors import DataError
from bfrbctl.recordings import raw
from bfrbctl.recordings.raw import OnBytes, RawSchema, Unsorted, read_chunks
from bfrbctl.schema import SEQUENCE_ID


def whole_sequences(
    path: Path, schema: RawSchema, *, rows: int, gathered: bool = False, on_bytes: OnBytes | None = None
) -> Iterator[pl.DataFrame]:
    """Read a raw file as tables of whole sequences, sorted by sequence_id.

    Parameters
    ----------
    path, schema
        The file and what `read_schema` found in it.
    rows
        A table is closed by the sequence that brings it to this many rows or more.
    gathered
        Bring the rows of each sequence together first, through temporary files.
    on_bytes
        Called with the number of bytes read since the last call.

    Yields
    ------
    Tables with the columns of `schema.dtypes`; rows of a sequence keep the order that they have in the file.

    Raises
    ------
    Unsorted
        On the way, when the file turns out not to be sorted by sequence_id: start over with `gathered`.
    """
    if not gathered:
        yield from _cut(read_chunks(path, schema, on_bytes), rows)
        return
    with tempfile.TemporaryDirectory(prefix="bfrbctl-") as folder:
        for part in gather(path, schema, rows=rows, folder=Path(folder)):
            yield part.read(schema)


def _cut(chunks: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Cut chunks of a sorted file into tables of whole sequences."""
    cuts, last, n_rows = _Cuts(rows), "", 0
    pending: list[pl.DataFrame] = []
    for chunk in chunks:
        ids = chunk[SEQUENCE_ID]
        starts = _sequence_starts(ids, last)
        begin = 0
        for position in cuts.find(starts + n_rows):
            end = int(starts[position])
            yield pl.concat([*pending, chunk[begin:end]])
            pending, begin = [], end
        pending.append(chunk[begin:])
        last, n_rows = ids[-1], n_rows + chunk.height
    if pending:
        yield pl.concat(pending)


# ------------------------------------------------------------------------------------------------------------ cuts


@dataclass
class _Cuts:
    """Where a file is cut into tables, the same for streams, plans and gathered files.

    A table is closed by the sequence that brings it to `rows` rows or more.
    """

    rows: int
    opened: int = 0
    """Number of the row that opened the present table."""

    def find(self, starts: Int64) -> list[int]:
        """Find the sequences that open the next tables: their positions in `starts`.

        Parameters
        ----------
        starts
            int64, (n_sequences,), ascending: numbers of the rows at which sequences begin, from where the last call
            ended.
        """
        found: list[int] = []
        while (position := int(np.searchsorted(starts, self.opened + self.rows))) < len(starts):
            found.append(position)
            self.opened = int(starts[position])
        return found


def _sequence_starts(ids: pl.Series, last: str) -> Int64:
    """Give the rows at which another sequence begins: int64, (n_sequences,).

    Parameters
    ----------
    ids
        sequence_id of some rows, none of them missing.
    last
        sequence_id of the row before; empty where there is none.

    Raises
    ------
    Unsorted
        When the sequences are not in the order of their ids.
    """
    begins = ids.ne_missing(ids.shift(1))
    sequences = ids.filter(begins)
    if not sequences.is_sorted() or sequences[0] < last:
        raise Unsorted
    return begins.arg_true().to_numpy().astype(np.int64)[int(sequences[0] == last) :]


# ----------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Rows:
    """Some rows of a Parquet file, from `start` up to `stop`; about `n_bytes` of it."""

    path: Path
    start: int
    stop: int
    n_bytes: int

    def read(self, schema: RawSchema) -> pl.DataFrame:
        """Read them; pages of other rows are not decoded, however large the file's row groups are."""
        casts = [pl.col(name).cast(dtype) for name, dtype in schema.dtypes.items()]
        try:
            found = pl.scan_parquet(self.path, glob=False).slice(self.start, self.stop - self.start)
            return raw.without_empty(found.select(casts).collect())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise DataError(f"{self.path}: is damaged ({(str(error).splitlines() or [''])[0][:160]})") from error


@dataclass(frozen=True)
class Lines:
    """Some lines of a CSV file: its bytes from `start` up to `stop`, and the number of their first line."""

    path: Path
    start: int
    stop: int
    first_line: int

    @property
    def n_bytes(self) -> int:
        """How much of the file it is."""
        return self.stop - self.start

    def read(self, schema: RawSchema) -> pl.DataFrame:
        """Read them."""
        chunks = raw.csv_chunks(self.path, schema, start=self.start, stop=self.stop, first_line=self.first_line)
        return pl.concat([chunk for chunk, _ in chunks])


@dataclass(frozen=True)
class Gathered:
    """The sequences from `first` to `last`, scattered over the `n_files` files that `gather` put into a folder."""

    folder: Path
    n_files: int
    first: str
    last: str
    n_bytes: int = 0

    def read(self, schema: RawSchema) -> pl.DataFrame:
        """Read them from all of the files."""
        inside = pl.col(SEQUENCE_ID).is_between(pl.lit(self.first), pl.lit(self.last))
        files = [_gathered_file(self.folder, number) for number in range(self.n_files)]
        parts = [pl.scan_parquet(file, glob=False).filter(inside).collect() for file in files]
        return pl.concat(parts).sort(SEQUENCE_ID, maintain_order=True)


Part = Rows | Lines | Gathered
"""What another process needs to read a table of whole sequences."""


def gather(
    path: Path, schema: RawSchema, *, rows: int, folder: Path, on_bytes: OnBytes | None = None
) -> list[Gathered]:
    """Copy a scattered file into temporary files, each sorted by sequence, in bounded memory.

    Parameters
    ----------
    path, schema, rows, on_bytes
        As for `whole_sequences`.
    folder
        Where there is space for as much as the file has; the parts can be read as long as it is there.
    """
    counts: dict[str, int] = {}
    n_files = 0
    for number, chunk in enumerate(read_chunks(path, schema, on_bytes)):
        file = _gathered_file(folder, number)
        n_files = number + 1
        with writing(file):
            chunk.sort(SEQUENCE_ID, maintain_order=True).write_parquet(file, compression="zstd")
        for sequence_id, n_rows in chunk[SEQUENCE_ID].value_counts().iter_rows():
            counts[sequence_id] = counts.get(sequence_id, 0) + n_rows
    ids = sorted(counts)
    starts = offsets_of(np.array([counts[sequence_id] for sequence_id in ids]))[:-1]
    edges = [0, *_Cuts(rows).find(starts), len(ids)]
    return [Gathered(folder, n_files, ids[first], ids[end - 1]) for first, end in pairwise(edges)]


def _gathered_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.parquet"


# ------------------------------------------------------------------------------------------------------------ plan


@dataclass
class _Starts:
    """Where sequences begin in a sorted file: numbers of rows and, of a CSV file, of bytes."""

    rows: "array[int]" = field(default_factory=lambda: array("q"))
    bytes: "array[int]" = field(default_factory=lambda: array("q"))
    n_rows: int = 0
    last: str = ""


def plan(path: Path, rows: int) -> Sequence[Part] | None:
    """Find the parts of a raw file that hold the tables of `whole_sequences`, by its sequence ids alone.

    Parameters
    ----------
    path
        A raw file that has the columns of one.
    rows
        As for `whole_sequences`.

    Returns
    -------
    The parts in order; None where only reading the whole file can find them: quotes in a CSV file, which may hold line
    ends, rows without a sequence_id, damage.

    Raises
    ------
    Unsorted
        When the file is not sorted by sequence_id.
    """
    look: Callable[[Path], _Starts | None] = _parquet_starts if raw.file_format(path) == "parquet" else _csv_starts
    found = look(path)
    if found is None or not found.n_rows:
        return None
    cuts = [0, *_Cuts(rows).find(np.array(found.rows))]
    size = path.stat().st_size
    if found.bytes:
        edges = [*(found.bytes[position] for position in cuts), size]
        lines = [found.rows[position] + 2 for position in cuts]
        return [Lines(path, *span) for span in zip(edges[:-1], edges[1:], lines, strict=True)]
    edges = [*(found.rows[position] for position in cuts), found.n_rows]
    share = size / found.n_rows
    return [Rows(path, start, stop, int(share * (stop - start))) for start, stop in pairwise(edges)]


def _parquet_starts(path: Path) -> _Starts | None:
    found = _Starts()
    try:
        for batch in raw.open_parquet(path).iter_batches(columns=[SEQUENCE_ID]):
            ids = pl.Series(pl.from_arrow(batch.column(0))).cast(pl.String)
            if ids.null_count() or (ids == "").any():
                return None  # reading the whole file finds how many rows have no sequence_id
            found.rows.extend((_sequence_starts(ids, found.last) + found.n_rows).tolist())
            found.n_rows, found.last = found.n_rows + len(ids), ids[-1]
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError):
        return None
    return found


def _csv_starts(path: Path) -> _Starts | None:
    found, last = _Starts(), b""
    for position, sequence_id in _csv_ids(path):
        if not sequence_id:
            return None
        if sequence_id != last:
            if sequence_id < last:
                raise Unsorted
            found.rows.append(found.n_rows)
            found.bytes.append(position)
            last = sequence_id
        found.n_rows += 1
    return found


def _csv_ids(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the position and the sequence_id of every line, some 600 MB a second; no id where it cannot be found."""
    names = list(raw.raw_columns(path))
    column = names.index(SEQUENCE_ID)
    line_end = b"\r\n" if column == len(names) - 1 else b""
    with path.open("rb") as handle:
        handle.readline()
        position = handle.tell()
        while block := handle.read(raw.CHUNK_BYTES):
            block += handle.readline(raw.CHUNK_BYTES)
            if b'"' in block:
                yield position, b""
            ends = (np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == ord("\n")) + 1).tolist()
            begin = 0
            for end in ends if block.endswith(b"\n") else (*ends, len(block)):
                fields = block[begin:end].split(b",", column + 1)
                yield position + begin, fields[column].rstrip(line_end) if len(fields) > column else b""
                begin = end
            position += len(block)
