import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble import members
from bfrbctl.ensemble.members import Member
from bfrbctl.ensemble.mixing import Mixture
from bfrbctl.errors import ArtefactError, DataError, UsageError, missing_library
from bfrbctl.models.interface import Kind, model_kind
from bfrbctl.prediction.predictor import Features, Predictor
from bfrbctl.prediction.submission import open_input, predict
from bfrbctl.recordings.dataset import FeatureBatch, RecordingBatch, read_recordings
from bfrbctl.recordings.serving import clean_frames
from bfrbctl.schema import TOF_MISSING
from tests.noise import partly_imu_only
from tests.raw_recordings import SMALL_LAYOUT, raw_frames, write_raw


def predicted(
    source: Path, predictor: Predictor, out: Path, *, strict: bool = False, split: str | None = None
) -> Folder:
    with open_output(out, Job("predictions", {})) as output:
        return predict(open_input(source, predictor, split=split), predictor, output, strict=strict)


@pytest.fixture(scope="module")
def predictor(blend_folder: Folder) -> Predictor:
    return Predictor.open(blend_folder.path)


def test_raw_and_prepared_input_give_the_same_predictions(
    predictor: Predictor, raw_folder: Path, dataset_folder: Folder, tmp_path: Path
) -> None:
    raw = predicted(raw_folder, predictor, tmp_path / "raw")
    prepared = predicted(dataset_folder.path, predictor, tmp_path / "prepared")
    assert raw.files == prepared.files
    table = raw.read_parquet("predictions.parquet")
    assert table.height == 16
    assert np.allclose(table.select("^p_.*$").to_numpy().sum(axis=1), 1, atol=1e-5)
    assert raw.read("submission.csv").decode().splitlines()[0] == "sequence_id,gesture"


def test_one_sequence_at_a_time_gives_the_same_as_all_at_once(predictor: Predictor, dataset_folder: Folder) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    recordings = partly_imu_only(recordings, np.arange(recordings.n_sequences) % 2 == 1)
    together = predictor.predict_batch(recordings).proba
    for position in range(0, recordings.n_sequences, 3):
        alone = predictor.predict_batch(recordings.take(np.array([position]))).proba
        assert np.array_equal(alone[0], together[position])


@pytest.mark.parametrize("cores", [1, 2])
def test_recordings_in_chunks_get_the_predictions_of_all_at_once(
    predictor: Predictor, dataset_folder: Folder, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    recordings = partly_imu_only(recordings, np.arange(recordings.n_sequences) % 3 == 1)
    together = predictor.predict_batch(recordings)
    monkeypatch.setattr("bfrbctl.prediction.predictor.joblib.cpu_count", lambda: cores)
    for size in (1, 5, recordings.n_sequences - 1):
        monkeypatch.setattr("bfrbctl.prediction.predictor._CHUNK", size)
        found = predictor.predict_batch(recordings)
        assert np.array_equal(found.proba, together.proba)
        assert np.array_equal(found.positions, together.positions)


@pytest.mark.parametrize("cores", [1, 2])
def test_a_piece_that_fails_ends_the_answer(
    predictor: Predictor, dataset_folder: Folder, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    monkeypatch.setattr("bfrbctl.prediction.predictor.joblib.cpu_count", lambda: cores)
    monkeypatch.setattr("bfrbctl.prediction.predictor._CHUNK", 2)
    assert recordings.n_sequences > 8
    compute, begun = Predictor._features, []

    def failing(self: Predictor, batch: RecordingBatch) -> Features:
        begun.append(batch.n_sequences)
        if len(begun) == 2:
            raise DataError("no more")
        return compute(self, batch)

    monkeypatch.setattr(Predictor, "_features", failing)
    with pytest.raises(DataError, match="no more"):
        predictor.predict_batch(recordings)
    assert len(begun) <= 3


def test_imu_only_recordings_get_the_imu_only_weights(predictor: Predictor, dataset_folder: Folder) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    bare = replace(recordings, thm=np.full_like(recordings.thm, np.nan), tof=np.full_like(recordings.tof, TOF_MISSING))
    assert predictor.mixtures is not None
    swapped = replace(predictor, mixtures={"all": predictor.mixtures["imu"], "imu": predictor.mixtures["all"]})
    all_as_imu = replace(predictor, mixtures=dict.fromkeys(("all", "imu"), predictor.mixtures["imu"]))
    assert np.array_equal(predictor.predict_batch(bare).proba, all_as_imu.predict_batch(bare).proba)
    assert swapped.mixtures is not None
    assert np.array_equal(
        predictor.predict_batch(recordings).proba,
        replace(all_as_imu, mixtures=dict.fromkeys(("all", "imu"), predictor.mixtures["all"]))
        .predict_batch(recordings)
        .proba,
    )


def test_sensors_that_the_model_does_not_know_or_lacks_do_not_matter(
    predictor: Predictor, dataset_folder: Folder
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    bare = replace(recordings, thm=np.full_like(recordings.thm, np.nan), tof=np.full_like(recordings.tof, TOF_MISSING))
    without = replace(recordings.conform(replace(recordings.layout, thm=(), tof=())))
    assert np.array_equal(predictor.predict_batch(bare).proba, predictor.predict_batch(without).proba)
    more = recordings.conform(replace(recordings.layout, thm=(1, 2, 4), tof=(1, 5)))
    assert np.array_equal(predictor.predict_batch(recordings).proba, predictor.predict_batch(more).proba)


def test_labelled_input_is_scored(predictor: Predictor, raw_folder: Path, tmp_path: Path) -> None:
    folder = predicted(raw_folder, predictor, tmp_path / "p", split="train")
    assert folder.content["score"]["score"] > 0.8
    assert folder.read_json("metrics.json")["n_labelled"] == 48


def test_an_unusable_sequence_gets_the_prior_and_a_row_in_problems(predictor: Predictor, tmp_path: Path) -> None:
    table = raw_frames(subjects=1, labelled=False)
    here = pl.col("sequence_id") == "SEQ_000002"
    broken = table.with_columns(acc_x=pl.when(here).then(None).otherwise("acc_x"))
    raw = write_raw(tmp_path / "raw", broken, split="test")
    folder = predicted(raw, predictor, tmp_path / "p")
    rows = folder.read_parquet("predictions.parquet")
    assert rows.height == 8
    proba = rows.filter(here).select("^p_.*$").to_numpy()[0]
    assert np.allclose(proba, predictor.prior)
    assert folder.read_parquet("problems.parquet").rows() == [
        ("SEQ_000002", "has an acc_ column without any valid value")
    ]
    with pytest.raises(DataError, match="SEQ_000002 has an acc_ column"):
        predicted(raw, predictor, tmp_path / "q", strict=True)


@pytest.mark.parametrize("suffix", [".CSV", ".Csv"])
def test_a_raw_file_in_capital_letters_is_predicted(
    predictor: Predictor, raw_folder: Path, tmp_path: Path, suffix: str
) -> None:
    (tmp_path / f"night{suffix}").write_bytes((raw_folder / "train.csv").read_bytes())
    source = open_input(tmp_path / f"night{suffix}", predictor)
    with open_output(tmp_path / "out", Job("predictions", {})) as output:
        assert predict(source, predictor, output).content["n_sequences"] == 48


def test_scattered_rows_are_predicted_alike(predictor: Predictor, tmp_path: Path) -> None:
    table = raw_frames(subjects=2, labelled=False)
    tidy = write_raw(tmp_path / "tidy", table, split="test")
    mixed = write_raw(tmp_path / "mixed", table.sample(fraction=1.0, shuffle=True, seed=4), split="test")
    a, b = predicted(tidy, predictor, tmp_path / "a"), predicted(mixed, predictor, tmp_path / "b")
    assert a.files["predictions.parquet"] == b.files["predictions.parquet"]


def test_recordings_of_another_rate_are_refused(predictor: Predictor, dataset_folder: Folder) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    with pytest.raises(DataError, match="have 50 frames a second"):
        predictor.predict_batch(replace(recordings, rate_hz=50.0))


def test_a_split_that_is_not_there_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=1))
    with pytest.raises(UsageError, match="--split test"):
        open_input(raw, predictor, split="test")


def test_a_model_by_itself_predicts_too(model_folders: tuple[Folder, Folder], raw_folder: Path, tmp_path: Path) -> None:
    single = Predictor.open(model_folders[0].path)
    assert single.mixtures is None
    assert predicted(raw_folder, single, tmp_path / "p").content["n_sequences"] == 16


@pytest.mark.parametrize(
    "change", [{"prior": [1.0]}, {"targets": [True]}, {"classes": None}, {"folds": [5]}, {"model": 3}]
)
def test_a_model_whose_parts_do_not_fit_is_refused(
    model_folders: tuple[Folder, Folder], tmp_path: Path, change: dict[str, object]
) -> None:
    source = model_folders[0]
    with pytest.raises((ArtefactError, UsageError)):
        with open_output(tmp_path / "m", Job("model", {})) as output:
            output.publish("all", {name: source.read(name) for name in source.files})
            output.finish({**source.content, **change})
        Predictor.open(tmp_path / "m")


def test_a_blend_whose_member_has_other_classes_is_refused(blend_folder: Folder, tmp_path: Path) -> None:
    member = blend_folder.read_json("member-0.json")
    member["content"]["classes"] = member["content"]["classes"][::-1]
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        files = {name: blend_folder.read(name) for name in blend_folder.files}
        output.publish("all", {**files, "member-0.json": encode_json(member)})
        output.finish(blend_folder.content)
    with pytest.raises(ArtefactError, match="other classes than the blend"):
        Predictor.open(tmp_path / "b")


# ------------------------------------------------------------------------------------------- one sequence in memory


def test_a_sequence_in_memory_gets_the_answer_of_the_file(
    predictor: Predictor, raw_folder: Path, tmp_path: Path
) -> None:
    folder = predicted(raw_folder, predictor, tmp_path / "p")
    submitted = dict(folder.read_parquet("submission.parquet").rows())
    table, demographics = pl.read_csv(raw_folder / "test.csv"), pl.read_csv(raw_folder / "test_demographics.csv")
    assert predictor.predict_many(table, demographics) == submitted
    for name, part in table.group_by("sequence_id"):
        shuffled = part.select(reversed(part.columns)).sample(fraction=1.0, shuffle=True, seed=1)
        assert predictor.predict(shuffled, demographics) == submitted[str(name[0])]


def test_pandas_tables_are_taken_too(predictor: Predictor) -> None:
    class Pandas:
        """As much of a pandas table as is needed."""

        def __init__(self, table: pl.DataFrame) -> None:
            self.columns = table.columns
            self.iloc = None
            self.table = table

        def __getitem__(self, name: str) -> pl.Series:
            return self.table[name]

    table = raw_frames(subjects=1, repeats=1, labelled=False)
    assert predictor.predict_many(Pandas(table)) == predictor.predict_many(table)
    with pytest.raises(DataError, match="expected a polars or pandas table, got list"):
        predictor.predict_many([1, 2])


@pytest.mark.parametrize(
    "change",
    [
        pl.DataFrame.clear,
        lambda t: t.head(1),
        lambda t: t.drop("^tof_.*$", "^thm_.*$"),
        lambda t: t.drop("^rot_.*$"),
        lambda t: t.drop("acc_x"),
        lambda t: t.with_columns(pl.col("^rot_.*$") * 0),
        lambda t: t.select("sequence_id", *(pl.lit(None).alias(name) for name in t.columns if name != "sequence_id")),
        lambda t: t.with_columns(acc_x=pl.lit("no number")),
        lambda t: t.with_columns(sequence_counter=1),
        lambda t: t.drop("subject", "sequence_counter", "sequence_id"),
        lambda t: pl.concat([t] * 30),
    ],
)
def test_any_single_sequence_is_answered(predictor: Predictor, change: object) -> None:
    table = raw_frames(subjects=1, repeats=1, labelled=False).filter(pl.col("sequence_id") == "SEQ_000000")
    numbers = table.drop("row_id").with_columns(pl.col("subject").str.len_chars().cast(pl.String))
    assert predictor.predict(change(numbers)) in predictor.classes  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.with_columns(pl.col("^(acc|rot|thm|tof)_.*$").cast(pl.Float64)),
        lambda t: t.with_columns(pl.col("^tof_.*$").cast(pl.Int64)),
        lambda t: t.with_columns(pl.col("^tof_.*$").cast(pl.Int8, strict=False).cast(pl.Int16)),
        lambda t: t.with_columns(pl.col("^(acc|rot|thm|tof)_.*$").cast(pl.String)),
        lambda t: t.with_columns(sequence_counter=pl.lit(None)),
        lambda t: t.with_columns(sequence_counter=pl.lit("none")),
        lambda t: t.with_columns(pl.col("sequence_counter").cast(pl.Float64), pl.col("subject").cast(pl.Categorical)),
        lambda t: t.with_columns(moon=pl.struct("acc_x"), tof_9_v0=pl.lit("far")).select(
            reversed(["moon", *t.columns])
        ),
        lambda t: t.reverse(),
    ],
)
def test_types_and_order_of_columns_change_no_recording(change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    table = raw_frames(subjects=1, repeats=1, labelled=False).drop("row_id")
    few = table.with_columns(pl.col("^tof_.*$").clip(-1, 127))
    kinds = {"layout": SMALL_LAYOUT, "rate_hz": 10.0}
    expected, found = (clean_frames(given, None, **kinds) for given in (few, change(few)))  # type: ignore[arg-type]
    assert found.faults == []
    for name in ("offsets", "acc", "rot", "thm", "tof"):
        assert np.array_equal(getattr(found.batch, name), getattr(expected.batch, name), equal_nan=name != "tof"), name
    assert found.batch.sequence_ids == expected.batch.sequence_ids


def test_a_pixel_that_is_no_number_is_missing_whatever_the_column_is(predictor: Predictor) -> None:
    table = raw_frames(subjects=1, repeats=1, labelled=False)
    for value in (pl.struct(pl.lit(1)), pl.lit([1.0]), pl.date(2020, 1, 1), pl.lit("x"), pl.lit(1e300), pl.lit(0.5)):
        found = clean_frames(table.with_columns(tof_1_v0=value), None, layout=SMALL_LAYOUT, rate_hz=10.0)
        assert (found.batch.tof[:, 0, 0] == TOF_MISSING).all()
        assert (found.batch.tof[:, 0, 1] != TOF_MISSING).all()


def test_several_sequences_are_not_one(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="8 sequences, expected one"):
        predictor.predict(raw_frames(subjects=1, labelled=False))


# -------------------------------------------------------------------------------------- members that are left out


def test_a_member_left_out_leaves_its_weight_to_the_others(
    blend_folder: Folder, dataset_folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    first, second = blend_folder.content["members"]
    with caplog.at_level(logging.WARNING):
        without = Predictor.open(blend_folder.path, without=[first])
    assert f"member {first} is left out (as asked)" in caplog.text
    assert f"weights are now {second} 1.000 (scenario imu)" in caplog.text
    assert without.left_out == (first,)
    assert [member.name for member in without.members] == [second]
    assert without.mixtures is not None
    assert {mixture.weights for mixture in without.mixtures.values()} == {(1.0,)}
    everything = Predictor.open(blend_folder.path)
    assert everything.left_out == ()
    assert everything.mixtures is not None
    given = [members.predict_proba(features) for features, members in _asked(everything, recordings)]
    mixture = everything.mixtures["all"]
    alone = replace(mixture, temperatures=mixture.temperatures[1:], weights=(1.0,)).mix(given[1:])
    assert np.array_equal(without.predict_batch(recordings).proba, alone)


def _asked(predictor: Predictor, recordings: RecordingBatch) -> list[tuple[FeatureBatch, Member]]:
    computed = predictor._features(recordings)
    return [(computed[member.config, member.layout], member) for member in predictor.members]


def test_weights_that_are_left_without_any_become_equal() -> None:
    mixture = Mixture((1.0, 2.0, 3.0), (1.0, 0.0, 0.0), "arithmetic", 1e-4)
    assert mixture.only([1, 2]) == replace(mixture, temperatures=(2.0, 3.0), weights=(0.5, 0.5))
    assert replace(mixture, weights=(0.5, 0.2, 0.3)).only([0, 2]).weights == pytest.approx((0.625, 0.375))


def test_a_member_whose_library_is_not_installed_is_left_out_loudly_or_refused(
    blend_folder: Folder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(kind: str) -> Kind:
        asked.append(kind)
        if len(asked) == 1:
            error = ModuleNotFoundError("No module named 'toys'", name="toys")
            raise missing_library("a toy model", error) from error
        return model_kind(kind)

    asked: list[str] = []
    why = "which cannot be imported here (No module named 'toys')"
    monkeypatch.setattr(members, "model_kind", absent)
    with caplog.at_level(logging.WARNING):
        assert len(Predictor.open(blend_folder.path).members) == 1
    assert f"is left out (a toy model needs toys, {why}; {sys.executable} -m pip install toys)" in caplog.text
    asked.clear()
    with pytest.raises(UsageError, match="cannot be used: a toy model needs toys"):
        Predictor.open(blend_folder.path, strict=True)


def test_a_damaged_member_is_never_left_out_quietly(blend_folder: Folder, tmp_path: Path) -> None:
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        files = {name: blend_folder.read(name) for name in blend_folder.files}
        output.publish("all", files)
        output.finish(blend_folder.content)
    victim = next((tmp_path / "b").glob("member-0.fold-0.*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    for strict in (False, True):
        with pytest.raises(ArtefactError, match=r"member-0\.fold-0"):
            Predictor.open(tmp_path / "b", strict=strict)


def test_members_that_are_not_there_or_all_of_them_cannot_be_left_out(
    blend_folder: Folder, model_folders: tuple[Folder, Folder]
) -> None:
    with pytest.raises(UsageError, match=r"--without moon: .* has no such member"):
        Predictor.open(blend_folder.path, without=["moon"])
    with pytest.raises(UsageError, match="no member is left"):
        Predictor.open(blend_folder.path, without=blend_folder.content["members"])
    with pytest.raises(UsageError, match="--without soft"):
        Predictor.open(model_folders[0].path, without=["soft"])


def test_probabilities_of_frames_in_memory_come_as_a_table_with_the_names_of_the_gestures(
    predictor: Predictor, dataset_folder: Folder
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_parquet("sequences.parquet"), 0)
    frames = raw_frames(subjects=2, seed=4)
    demographics = pl.DataFrame({"subject": frames["subject"].unique().sort(), "handedness": [1, 0]})
    table = predictor.predict_proba(frames, demographics)
    assert table.columns == ["sequence_id", *predictor.classes]
    assert table["sequence_id"].to_list() == frames["sequence_id"].unique().sort().to_list()
    assert np.allclose(table.drop("sequence_id").sum_horizontal(), 1, atol=1e-5)
    one = frames.filter(pl.col("sequence_id") == table["sequence_id"][1])
    assert predictor.predict_proba(one, demographics).equals(table[1:2])
    batch = predictor.predict_proba(recordings)
    assert batch["sequence_id"].to_list() == list(recordings.sequence_ids)
    assert np.array_equal(batch.drop("sequence_id").to_numpy(), predictor.predict_batch(recordings).proba)


def test_a_sequence_that_cannot_be_used_gets_the_shares_of_training(predictor: Predictor) -> None:
    frames = raw_frames(subjects=2, seed=4)
    broken = frames["sequence_id"][0]
    kept = pl.when(pl.col("sequence_id") != broken)
    table = predictor.predict_proba(frames.with_columns(kept.then(pl.col("acc_x", "acc_y", "acc_z")).name.keep()))
    assert table.height == frames["sequence_id"].n_unique()
    row = table.filter(pl.col("sequence_id") == broken).drop("sequence_id").row(0)
    assert row == tuple(predictor.prior.tolist())
    assert predictor.predict_proba(frames.clear()).height == 0
