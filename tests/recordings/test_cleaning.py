from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.recordings.cleaning import CleanTable, clean
from bfrbctl.recordings.raw import RawSchema, read_schema
from bfrbctl.schema import TOF_MISSING, TOF_NO_RETURN
from tests.raw_recordings import raw_frames

TABLE = raw_frames(subjects=2, repeats=1)
FIRST = "SEQ_000000"
AT = (pl.col("sequence_id") == FIRST) & (pl.col("sequence_counter") == 3)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> RawSchema:
    path: Path = tmp_path_factory.mktemp("schema") / "a.parquet"
    TABLE.write_parquet(path)
    return read_schema(path)


def run(table: pl.DataFrame, schema: RawSchema, drop: frozenset[str] = frozenset()) -> CleanTable:
    typed = table.select(pl.col(name).cast(dtype) for name, dtype in schema.dtypes.items())
    return clean(typed, schema, rate_hz=10.0, drop=drop)


def put(column: str, value: float | None) -> pl.DataFrame:
    return TABLE.with_columns(pl.when(AT).then(pl.lit(value, dtype=pl.Float32)).otherwise(pl.col(column)).alias(column))


def findings(cleaned: CleanTable) -> list[tuple[str | None, str, str, int]]:
    return [(row[0], row[1], row[2], row[4]) for row in cleaned.quality.rows]


def test_good_recordings_pass_unchanged(schema: RawSchema) -> None:
    cleaned = run(TABLE, schema)
    assert cleaned.faults == []
    assert cleaned.quality.rows == []
    assert np.array_equal(cleaned.batch.acc[:, 0], TABLE["acc_x"].to_numpy())
    assert np.allclose(cleaned.batch.rot[:, 3], TABLE["rot_w"].to_numpy(), atol=1e-6)
    assert np.array_equal(cleaned.batch.tof[:, 0, 5], TABLE["tof_1_v5"].to_numpy())
    assert cleaned.labels["gesture_start"].to_list() == [8] * 8


def test_shuffled_frames_are_sorted_and_reported(schema: RawSchema) -> None:
    mixed = pl.concat(
        [
            part.sample(fraction=1.0, shuffle=True, seed=2)
            for _, part in TABLE.group_by("sequence_id", maintain_order=True)
        ]
    )
    cleaned = run(mixed, schema)
    assert np.array_equal(cleaned.batch.acc[:, 0], TABLE["acc_x"].to_numpy())
    assert {problem for _, _, problem, _ in findings(cleaned)} == {"out of order"}


def test_repeated_rows_are_removed_and_different_ones_refused(schema: RawSchema) -> None:
    twice = pl.concat([TABLE, TABLE.filter(AT)]).sort("sequence_id", "sequence_counter", maintain_order=True)
    cleaned = run(twice, schema)
    assert cleaned.batch.n_frames == TABLE.height
    assert findings(cleaned) == [(FIRST, "sequence_counter", "duplicate rows", 1)]
    clash = pl.concat([TABLE, TABLE.filter(AT).with_columns(acc_x=pl.lit(1.0, dtype=pl.Float32))])
    faults = run(clash.sort("sequence_id", "sequence_counter", maintain_order=True), schema).faults
    assert [(fault.sequence_id, fault.what) for fault in faults] == [
        (FIRST, "has two different rows with sequence_counter 3")
    ]


def test_gaps_in_the_counter_are_reported(schema: RawSchema) -> None:
    cleaned = run(TABLE.filter(~AT), schema)
    assert findings(cleaned) == [(FIRST, "sequence_counter", "frames missing in between", 1)]


@pytest.mark.parametrize("column", ["subject", "gesture", "orientation", "sequence_type"])
def test_two_values_where_one_is_expected_are_a_fault(schema: RawSchema, column: str) -> None:
    mixed = TABLE.with_columns(pl.when(AT).then(pl.lit("other")).otherwise(pl.col(column)).alias(column))
    cleaned = run(mixed, schema)
    assert len(cleaned.faults) == 1
    assert cleaned.faults[0].sequence_id == FIRST
    assert cleaned.faults[0].what.startswith(f"has 2 {column}s (")
    assert FIRST not in cleaned.batch.sequence_ids
    assert cleaned.batch.n_sequences == cleaned.labels.height == 7


@pytest.mark.parametrize(
    ("value", "problem"),
    [(None, "missing"), (float("nan"), "missing"), (float("inf"), "out of range"), (1e6, "out of range")],
)
def test_bad_acceleration_is_interpolated(schema: RawSchema, value: float | None, problem: str) -> None:
    cleaned = run(put("acc_y", value), schema)
    assert findings(cleaned) == [(FIRST, "acc_y", problem, 1)]
    around = TABLE.filter(pl.col("sequence_id") == FIRST)["acc_y"]
    assert cleaned.batch.acc[3, 1] == pytest.approx((around[2] + around[4]) / 2, rel=1e-5)


def test_a_sequence_without_acceleration_is_a_fault(schema: RawSchema) -> None:
    bare = TABLE.with_columns(acc_z=pl.when(pl.col("sequence_id") == FIRST).then(None).otherwise("acc_z"))
    cleaned = run(bare, schema)
    assert [fault.what for fault in cleaned.faults] == ["has an acc_ column without any valid value"]
    assert cleaned.batch.n_sequences == 7
    assert len(cleaned.phase) == len(cleaned.counters) == cleaned.batch.n_frames


def test_quaternions_are_normalised_or_treated_as_missing(schema: RawSchema) -> None:
    scaled = TABLE.with_columns(
        pl.when(AT).then(pl.col(f"rot_{a}") * 1.05).otherwise(f"rot_{a}").alias(f"rot_{a}") for a in "wxyz"
    )
    cleaned = run(scaled, schema)
    assert findings(cleaned) == [(FIRST, "rot", "norm differs from 1", 1)]
    assert np.allclose(np.linalg.norm(cleaned.batch.rot, axis=1), 1, atol=1e-6)
    zero = TABLE.with_columns(
        pl.when(AT).then(0.0).otherwise(f"rot_{a}").cast(pl.Float32).alias(f"rot_{a}") for a in "wxyz"
    )
    cleaned = run(zero, schema)
    assert ("rot", "not a unit quaternion", 1) in [row[1:] for row in findings(cleaned)]
    assert np.isnan(cleaned.batch.rot[3]).all()
    partly = run(put("rot_x", None), schema)
    assert ("rot", "partly missing quaternion", 1) in [row[1:] for row in findings(partly)]
    assert np.isnan(partly.batch.rot[3]).all()
    assert not np.isnan(partly.batch.rot[4]).any()


def test_a_wholly_missing_rotation_stays_missing(schema: RawSchema) -> None:
    none = TABLE.with_columns(
        pl.when(pl.col("sequence_id") == FIRST).then(None).otherwise(f"rot_{a}").alias(f"rot_{a}") for a in "wxyz"
    )
    cleaned = run(none, schema)
    assert [row[1:3] for row in findings(cleaned)] == [("rot", "sensor missing")]
    n = int(cleaned.batch.offsets[1])
    assert np.isnan(cleaned.batch.rot[:n]).all()
    assert not np.isnan(cleaned.batch.rot[n:]).any()


def test_cold_or_constant_thermopiles_are_broken(schema: RawSchema) -> None:
    inside = pl.col("sequence_id") == FIRST
    for value in (5.0, 30.0):
        cleaned = run(TABLE.with_columns(thm_2=pl.when(inside).then(value).otherwise("thm_2").cast(pl.Float32)), schema)
        assert [row[1:3] for row in findings(cleaned)] == [("thm_2", "broken sensor (cold or constant)")]
        assert np.isnan(cleaned.batch.thm[: cleaned.batch.offsets[1], 1]).all()
    assert findings(run(put("thm_1", 900.0), schema)) == [(FIRST, "thm_1", "out of range", 1)]


def test_no_return_and_missing_are_told_apart_in_tof(schema: RawSchema) -> None:
    far = run(put("tof_1_v9", -1.0), schema)
    assert far.batch.tof[3, 0, 9] == TOF_NO_RETURN
    assert findings(far) == []
    null = run(put("tof_1_v9", None), schema)
    assert null.batch.tof[3, 0, 9] == TOF_MISSING
    assert findings(null) == [(FIRST, "tof_1", "some pixels missing", 1)]


@pytest.mark.parametrize("value", [-2.0, 250.0, 1.5, float("inf"), 1e9])
def test_tof_values_that_cannot_be_are_missing(schema: RawSchema, value: float) -> None:
    cleaned = run(put("tof_1_v9", value), schema)
    assert cleaned.batch.tof[3, 0, 9] == TOF_MISSING
    assert findings(cleaned) == [(FIRST, "tof_1", "no whole number in -1..249", 1)]


def test_dropped_sequences_are_left_out_and_told(schema: RawSchema) -> None:
    cleaned = run(TABLE, schema, frozenset({FIRST}))
    assert FIRST not in cleaned.batch.sequence_ids
    assert [row[2] for row in findings(cleaned)] == ["left out by --drop"]


def test_nothing_left_is_no_crash(schema: RawSchema) -> None:
    cleaned = run(TABLE, schema, frozenset(TABLE["sequence_id"]))
    assert cleaned.batch.n_sequences == cleaned.batch.n_frames == 0
    assert cleaned.labels.height == 0
