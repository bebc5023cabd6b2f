"""Rows without a sequence_id, subject or counter: one rule whatever the format, the order and who reads."""

from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.errors import DataError
from bfrbctl.execution.executor import Executor
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits, read_schema
from bfrbctl.recordings.serving import clean_frames, cleaned_tables
from tests.raw_recordings import SMALL_LAYOUT, raw_frames, write_raw

TABLE = raw_frames(subjects=2)
FIRST = pl.col("sequence_id") == "SEQ_000000"
N_FIRST = TABLE.filter(FIRST).height


def prepared(raw: Path, out: Path, executor: Executor) -> Folder:
    config = PrepareConfig(folds=2, rows_per_file=150)
    splits = find_splits(raw)
    with open_output(out, Job("dataset", as_mapping(config), split_refs(splits), seed=0)) as output:
        return prepare(splits, output, config, executor=executor)


def without(column: str, value: object) -> pl.DataFrame:
    """Take a key away from the first sequence, which a sorted file would begin with in any case."""
    dtype = TABLE.schema[column]
    return TABLE.with_columns(pl.when(FIRST).then(pl.lit(value, dtype=dtype)).otherwise(column).alias(column))


def in_order(table: pl.DataFrame, order: str) -> pl.DataFrame:
    return table if order == "sorted" else table.sample(fraction=1.0, shuffle=True, seed=1)


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("order", ["sorted", "scattered"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_rows_without_a_sequence_id_are_refused_with_their_number(
    tmp_path: Path, value: str | None, order: str, suffix: str, n_workers: int
) -> None:
    raw = write_raw(tmp_path / "raw", in_order(without("sequence_id", value), order), suffix=suffix)
    with pytest.raises(DataError, match=rf"train\.{suffix}: {N_FIRST} rows have no sequence_id \(null or empty\)"):
        prepared(raw, tmp_path / "data", Executor(n_workers))


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("order", ["sorted", "scattered"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "what"),
    [("subject", "has no subject, which labelled"), ("sequence_counter", "has rows without a sequence_counter")],
)
def test_a_sequence_without_subject_or_counter_is_named(
    tmp_path: Path, column: str, what: str, suffix: str, order: str, value: str | None
) -> None:
    if column == "sequence_counter" and value == "":
        value = None  # a number is null or there
    raw = write_raw(tmp_path / "raw", in_order(without(column, value), order), suffix=suffix)
    with pytest.raises(DataError, match=f"sequence SEQ_000000 {what}"):
        prepared(raw, tmp_path / "data", Executor(1))


def test_no_frame_of_a_scattered_file_is_lost(tmp_path: Path) -> None:
    ids = TABLE["sequence_id"].unique().sort().to_list()
    strange = dict(zip(ids, [" ", "\t", "0", "ÿ", "a,b", '"', "é", "None", "null", "~"] * 2, strict=False))
    names = {name: f"{new}{'' if n < 10 else '.'}" for n, (name, new) in enumerate(strange.items())}
    table = in_order(TABLE.with_columns(pl.col("sequence_id").replace_strict(names)), "scattered")
    raw = write_raw(tmp_path / "raw", table, suffix="parquet")
    data = prepared(raw, tmp_path / "data", Executor(1))
    assert data.content["n_frames"] == TABLE.height
    assert set(data.read_together(SEQUENCES)["sequence_id"]) == set(names.values())


def test_an_empty_label_is_none(tmp_path: Path) -> None:
    """An empty field of CSV is null; a gesture called "" would be a class that no folder may have."""
    raw = write_raw(tmp_path / "raw", TABLE.with_columns(orientation=pl.lit(""), behavior=pl.lit("")), suffix="parquet")
    data = prepared(raw, tmp_path / "data", Executor(1)).read_together(SEQUENCES)
    assert data["orientation"].null_count() == data["behavior_first"].null_count() == data.height
    write_raw(tmp_path / "bare", without("gesture", ""), suffix="parquet")
    with pytest.raises(DataError, match="sequence SEQ_000000 has no gesture, while others have one"):
        prepared(tmp_path / "bare", tmp_path / "none", Executor(1))


@pytest.mark.parametrize("gathered", [False, True])
def test_what_predicts_a_file_refuses_the_same_rows(tmp_path: Path, gathered: bool) -> None:
    raw = write_raw(tmp_path / "raw", without("sequence_id", ""), split="test", suffix="parquet")
    split = find_splits(raw)[0]
    tables = cleaned_tables(split, read_schema(split.frames), config=PrepareConfig(), gathered=gathered)
    with pytest.raises(DataError, match=rf"{N_FIRST} rows have no sequence_id .* the first is row 1,"):
        list(tables)


@pytest.mark.parametrize("value", [None, ""])
def test_in_memory_all_rows_without_a_name_are_one_recording_and_some_are_refused(value: str | None) -> None:
    one = TABLE.filter(FIRST)
    kinds = {"layout": SMALL_LAYOUT, "rate_hz": 10.0}
    nameless = one.with_columns(sequence_id=pl.lit(value, dtype=pl.String), subject=pl.lit(value, dtype=pl.String))
    for table in (nameless, one.drop("sequence_id", "subject")):
        batch = clean_frames(table, None, **kinds).batch  # type: ignore[arg-type]
        assert (batch.sequence_ids, batch.subjects, batch.n_frames) == (("sequence",), (None,), N_FIRST)
    with pytest.raises(DataError, match=rf"{N_FIRST} of {TABLE.height} rows have no sequence_id"):
        clean_frames(without("sequence_id", value), None, **kinds)  # type: ignore[arg-type]
