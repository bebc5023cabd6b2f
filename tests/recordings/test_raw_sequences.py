"""Parts of raw files that other processes read: the tables that a stream would give, whatever the file looks like."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import DataError, OutputError
from bfrbctl.recordings import raw as raw_module
from bfrbctl.recordings.raw import Unsorted, read_schema
from bfrbctl.recordings.raw_sequences import gather, plan, whole_sequences
from tests.raw_recordings import raw_frames

TABLE = raw_frames(subjects=2)


def check_same(path: Path, rows: int) -> int:
    """Compare the parts of a file, planned and gathered, with its stream; how many there are."""
    schema = read_schema(path)
    streamed = list(whole_sequences(path, schema, rows=rows))
    parts = plan(path, rows)
    assert parts is not None
    assert len(parts) == len(streamed)
    assert all(part.read(schema).equals(table) for part, table in zip(parts, streamed, strict=True))
    gathered = whole_sequences(path, schema, rows=rows, gathered=True)
    assert all(one.equals(table) for one, table in zip(gathered, streamed, strict=True))
    assert abs(sum(part.n_bytes for part in parts) - path.stat().st_size) < 10_000
    return len(parts)


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    rows=st.integers(1, 90),
    chunk=st.integers(1_000, 60_000),
    group=st.integers(1, 100),
)
def test_parts_are_the_tables_of_a_stream(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], rows: int, chunk: int, group: int
) -> None:
    folder = tmp_path_factory.mktemp("raw")
    ids = [f"SEQ_{number:03d}" for number, length in enumerate(lengths) for _ in range(length)][: TABLE.height]
    table = TABLE[: len(ids)].with_columns(pl.Series("sequence_id", ids))
    table.write_csv(folder / "a.csv")
    table.write_parquet(folder / "a.parquet", row_group_size=group)
    before, raw_module.CHUNK_BYTES = raw_module.CHUNK_BYTES, chunk
    try:
        assert check_same(folder / "a.csv", rows) == check_same(folder / "a.parquet", rows)
    finally:
        raw_module.CHUNK_BYTES = before


def test_any_line_end_and_any_column_of_the_ids_is_read(tmp_path: Path) -> None:
    last = TABLE.select(pl.exclude("sequence_id"), "sequence_id")
    for number, (table, end) in enumerate((table, end) for table in (TABLE, last) for end in ("\n", "\r\n")):
        text = table.write_csv(line_terminator=end)
        for whole in (True, False):
            path = tmp_path / f"{number}-{whole}.csv"
            path.write_bytes((text if whole else text.removesuffix(end)).encode())
            assert check_same(path, 60) > 3


def test_an_error_in_a_part_names_the_line_of_the_file(tmp_path: Path) -> None:
    oops = pl.when(pl.int_range(pl.len()) == 200).then(pl.lit("oops")).otherwise(pl.col("acc_y").cast(pl.String))
    TABLE.with_columns(acc_y=oops).write_csv(tmp_path / "a.csv")
    parts, schema = plan(tmp_path / "a.csv", 50), read_schema(tmp_path / "a.csv")
    assert parts is not None
    with pytest.raises(DataError, match="acc_y is 'oops' in line 202"):
        for part in parts:
            part.read(schema)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_needs_reading_the_whole_file_has_no_plan(tmp_path: Path, suffix: str) -> None:
    def written(table: pl.DataFrame) -> Path:
        path = tmp_path / f"a.{suffix}"
        _ = table.write_csv(path) if suffix == "csv" else table.write_parquet(path)
        return path

    assert plan(written(TABLE[:0]), 50) is None
    nameless = pl.when(pl.int_range(pl.len()) != 100).then("sequence_id")
    assert plan(written(TABLE.with_columns(sequence_id=nameless)), 50) is None
    quoted = plan(written(TABLE.with_columns(gesture=pl.lit('Say "hi",\nwave'))), 50)
    assert (quoted is None) == (suffix == "csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scattered_rows_are_noticed_by_their_ids_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    shuffled = TABLE.sample(fraction=1.0, shuffle=True, seed=1)
    _ = shuffled.write_csv(path) if suffix == "csv" else shuffled.write_parquet(path)
    with pytest.raises(Unsorted):
        plan(path, 50)


def test_scattered_rows_without_a_sequence_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "CHUNK_BYTES", 20_000)
    nameless = pl.when(pl.int_range(pl.len()) < pl.len() - 3).then("sequence_id")
    TABLE.reverse().with_columns(sequence_id=nameless).write_csv(tmp_path / "a.csv")
    (tmp_path / "gathered").mkdir()
    with pytest.raises(DataError, match="3 rows have no sequence_id"):
        gather(tmp_path / "a.csv", read_schema(tmp_path / "a.csv"), rows=50, folder=tmp_path / "gathered")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "a.csv")
    with pytest.raises(OutputError, match=r"gone/000000\.parquet: cannot be written"):
        gather(tmp_path / "a.csv", read_schema(tmp_path / "a.csv"), rows=50, folder=tmp_path / "gone")
