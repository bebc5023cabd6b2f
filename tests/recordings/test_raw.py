from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import DataError, UsageError
from bfrbctl.recordings import raw as raw_module
from bfrbctl.recordings.raw import Unsorted, find_splits, raw_columns, read_demographics, read_schema
from bfrbctl.recordings.raw_sequences import whole_sequences
from tests.raw_recordings import SMALL_LAYOUT, raw_frames, write_raw

TABLE = raw_frames(subjects=2)


def read_all(path: Path, rows: int = 50, *, gathered: bool = False) -> list[pl.DataFrame]:
    return list(whole_sequences(path, read_schema(path), rows=rows, gathered=gathered))


def test_csv_and_parquet_give_the_same_tables(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "a.csv")
    TABLE.write_parquet(tmp_path / "a.parquet")
    csv, parquet = read_all(tmp_path / "a.csv"), read_all(tmp_path / "a.parquet")
    assert len(csv) == len(parquet) > 2
    assert all(a.equals(b) for a, b in zip(csv, parquet, strict=True))


@settings(deadline=None, max_examples=25)
@given(chunk=st.integers(3_000, 200_000), rows=st.integers(1, 400))
def test_tables_hold_whole_sequences_whatever_the_chunk(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, rows: int
) -> None:
    path = tmp_path_factory.mktemp("raw") / "a.csv"
    TABLE.write_csv(path)
    before, raw_module.CHUNK_BYTES = raw_module.CHUNK_BYTES, chunk
    try:
        tables = read_all(path, rows)
    finally:
        raw_module.CHUNK_BYTES = before
    assert all(table.height >= rows for table in tables[:-1])
    ids = [set(table["sequence_id"]) for table in tables]
    assert sum(map(len, ids)) == len(set().union(*ids)) == TABLE["sequence_id"].n_unique()
    assert pl.concat(tables)["acc_x"].equals(TABLE["acc_x"])


def test_scattered_rows_are_noticed_and_gathered(tmp_path: Path) -> None:
    shuffled = TABLE.sample(fraction=1.0, shuffle=True, seed=1)
    shuffled.write_csv(tmp_path / "a.csv")
    with pytest.raises(Unsorted):
        read_all(tmp_path / "a.csv")
    gathered = pl.concat(read_all(tmp_path / "a.csv", gathered=True)).sort("sequence_id", "sequence_counter")
    assert gathered["acc_x"].equals(TABLE["acc_x"])


def test_the_schema_names_all_that_is_missing_or_mistyped(tmp_path: Path) -> None:
    broken = TABLE.drop("acc_y", "tof_1_v7").with_columns(pl.col("acc_x").cast(pl.String), extra=1)
    broken.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"lacks columns acc_y, tof_1_v7 and has columns of a wrong type \(acc_x is String"
    ):
        read_schema(tmp_path / "a.parquet")


def test_unknown_columns_are_told_apart(tmp_path: Path) -> None:
    TABLE.with_columns(mood=1).write_parquet(tmp_path / "a.parquet")
    schema = read_schema(tmp_path / "a.parquet")
    assert schema.extra == ("mood",)
    assert schema.layout == SMALL_LAYOUT


def test_a_cut_line_is_named(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "a.csv")
    content = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "a.csv").write_bytes(content[: len(content) - 200])
    with pytest.raises(DataError, match=rf"line {TABLE.height + 1} has \d+ fields, expected {TABLE.width}"):
        read_all(tmp_path / "a.csv")


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    TABLE.with_columns(
        acc_y=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("oops")).otherwise(pl.col("acc_y").cast(pl.String))
    ).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="acc_y is 'oops' in line 7"):
        read_all(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,a\n1,2\n", "names a column twice"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", b"sequence_id,acc_x\nA,1\n", "not a Parquet file"),
        ("a.csv", b"\x93NUMPY\xff\xff\n", "not a CSV header"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        raw_columns(tmp_path / name)


def test_a_header_without_rows_is_refused(tmp_path: Path) -> None:
    TABLE[:0].write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="has no rows"):
        read_all(tmp_path / "a.csv")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[100:4000] = b"\xff" * 3900
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_all(tmp_path / "a.parquet")


def test_quoted_fields_are_read(tmp_path: Path) -> None:
    quoted = TABLE.with_columns(gesture=pl.lit('Say "hi", wave'))
    quoted.write_csv(tmp_path / "a.csv")
    assert pl.concat(read_all(tmp_path / "a.csv"))["gesture"].unique().to_list() == ['Say "hi", wave']


def test_both_splits_and_their_demographics_are_found(tmp_path: Path) -> None:
    write_raw(tmp_path, TABLE)
    write_raw(tmp_path, raw_frames(labelled=False), split="test", suffix="parquet")
    found = find_splits(tmp_path)
    assert [(split.name, split.frames.name) for split in found] == [("train", "train.csv"), ("test", "test.parquet")]
    assert all(split.demographics is not None for split in found)
    assert find_splits(tmp_path / "test.parquet")[0].name == "test"
    with pytest.raises(UsageError, match="goes with a single file"):
        find_splits(tmp_path, tmp_path / "train_demographics.csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_capital_letters_in_a_file_name_change_nothing(tmp_path: Path, suffix: str) -> None:
    write_raw(tmp_path / "small", TABLE, suffix=suffix)
    (tmp_path / "large").mkdir()
    for path in (tmp_path / "small").iterdir():
        (tmp_path / "large" / f"{path.stem}{path.suffix.upper()}").write_bytes(path.read_bytes())
    small, large = (find_splits(tmp_path / name)[0] for name in ("small", "large"))
    assert small.demographics is not None and large.demographics is not None
    assert read_demographics(large.demographics).equals(read_demographics(small.demographics))
    for one, other in zip(read_all(small.frames), read_all(large.frames), strict=True):
        assert one.equals(other)


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a", "a.csv.gz"])
def test_a_name_with_another_ending_is_refused_with_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLE.write_csv())
    for read in (raw_columns, read_demographics, find_splits):
        with pytest.raises(DataError, match=rf"{name}: its name ends in .*, expected \.csv or \.parquet"):
            read(tmp_path / name)


def test_nothing_to_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has none of train\.csv"):
        find_splits(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        find_splits(tmp_path / "nowhere")
    TABLE.write_csv(tmp_path / "train.csv")
    TABLE.write_parquet(tmp_path / "train.parquet")
    with pytest.raises(UsageError, match="has both"):
        find_splits(tmp_path)


def test_demographics_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("subject,age\nA,12\nA,13\n")
    with pytest.raises(DataError, match="subject A is in it twice"):
        read_demographics(file)
    file.write_text("subject,age\nA,old\n")
    with pytest.raises(DataError, match="age of A is 'old', expected a number"):
        read_demographics(file)
    file.write_text("name,age\nA,1\n")
    with pytest.raises(DataError, match="lacks column subject"):
        read_demographics(file)
    file.write_text("subject,age\nA,\n")
    table = read_demographics(file)
    assert table["age"].to_list() == [None]
    assert table["height_cm"].to_list() == [None]


def test_a_lost_quote_is_reported_without_reading_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(raw_module, "_MAX_LINE", 20_000)
    header, first, rest = TABLE.write_csv().split("\n", 2)
    (tmp_path / "a.csv").write_text(f'{header}\n"{first}\n{rest}')
    with pytest.raises(DataError, match="has quotes that do not end"):
        read_all(tmp_path / "a.csv")


def test_a_line_beyond_all_bounds_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(raw_module, "_MAX_LINE", 20_000)
    header, rest = TABLE.write_csv().split("\n", 1)
    (tmp_path / "a.csv").write_text(f"{header}\n{'1' * 50_000}{rest}")
    with pytest.raises(DataError, match="has a line longer than 20000 bytes"):
        read_all(tmp_path / "a.csv")


def test_text_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    content = TABLE.write_csv().encode().replace(b"Wave hello", b"Wave h\xe9llo", 1)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read behind line 2"):
        read_all(tmp_path / "a.csv")
