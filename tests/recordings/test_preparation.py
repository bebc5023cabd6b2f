import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, Output, open_output
from bfrbctl.errors import DataError, UsageError
from bfrbctl.evaluation.folds import assign_folds
from bfrbctl.evaluation.metrics import one_sided_note
from bfrbctl.execution.executor import SEQUENTIAL, Executor
from bfrbctl.recordings.dataset import read_recordings
from bfrbctl.recordings.frames_files import FramesSpec, Made, make_file
from bfrbctl.recordings.preparation import PrepareConfig, fitting_workers, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.recordings.raw_sequences import Part, gather
from tests.raw_recordings import raw_frames, write_raw

TRAIN = raw_frames(subjects=4)
TEST = raw_frames(subjects=2, labelled=False, imu_only=True, seed=5).with_columns(
    pl.col("sequence_id").str.replace("SEQ_0", "SEQ_9")
)


def prepared(
    raw: Path, out: Path, *, resume: bool = False, force: bool = False, executor: Executor = SEQUENTIAL, **settings: Any
) -> Folder:
    config = PrepareConfig(**{"folds": 2, "rows_per_file": 300, **settings})
    splits = find_splits(raw)
    with open_output(out, Job("dataset", vars(config), split_refs(splits)), resume=resume, force=force) as output:
        return prepare(splits, output, config, executor=executor)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_raw(tmp_path_factory.mktemp("raw"), TRAIN)
    return write_raw(folder, TEST, split="test", suffix="parquet")


@pytest.fixture(scope="module")
def dataset(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return prepared(raw, tmp_path_factory.mktemp("data") / "data")


def test_both_splits_are_in_one_dataset(dataset: Folder) -> None:
    table = dataset.read_parquet("sequences.parquet")
    assert dataset.content["n_sequences"] == {"test": 16, "train": 32}
    assert table.filter(pl.col("split") == "test")["fold"].null_count() == 16
    assert table.filter(pl.col("split") == "train")["fold"].unique().sort().to_list() == [0, 1]
    assert dataset.content["classes"] == sorted(TRAIN["gesture"].unique())
    assert dataset.content["targets"] == [True, True, False, False]
    assert table["height_cm"].unique().to_list() == [170.0]


def test_recordings_come_back_as_they_were(dataset: Folder) -> None:
    sequences = dataset.read_parquet("sequences.parquet")
    parts = [read_recordings(dataset, sequences, number)[0] for number in range(dataset.content["n_files"])]
    ids = [name for part in parts for name in part.sequence_ids]
    assert ids == sequences["sequence_id"].to_list()
    acc = np.concatenate([part.acc for part in parts])
    assert np.array_equal(acc[: TRAIN.height, 2], TRAIN["acc_z"].to_numpy())
    tof = np.concatenate([part.tof for part in parts])
    assert np.array_equal(tof[: TRAIN.height, 0, 11], TRAIN["tof_1_v11"].to_numpy())
    assert (tof[TRAIN.height :] == -2).all()


def test_files_hold_whole_sequences(dataset: Folder) -> None:
    per_file = dataset.read_parquet("sequences.parquet").group_by("file", "split").agg(pl.col("n_frames").sum())
    train = per_file.filter(pl.col("split") == "train").sort("file")["n_frames"].to_list()
    assert all(300 <= n < 345 for n in train[:-1])


def test_imu_only_sequences_are_flagged(dataset: Folder) -> None:
    flags = (
        dataset.read_parquet("sequences.parquet").group_by("split").agg(pl.col("has_thm", "has_tof", "has_rot").all())
    )
    assert sorted(flags.rows()) == [("test", False, False, True), ("train", True, True, True)]


def test_csv_and_parquet_give_the_same_dataset(raw: Path, dataset: Folder, tmp_path: Path) -> None:
    other = write_raw(write_raw(tmp_path / "raw", TRAIN, suffix="parquet"), TEST, split="test")
    again = prepared(other, tmp_path / "data")
    assert again.files == dataset.files


def test_scattered_rows_give_the_same_frames(dataset: Folder, tmp_path: Path) -> None:
    folder = write_raw(tmp_path / "raw", TRAIN.sample(fraction=1.0, shuffle=True, seed=3))
    write_raw(folder, TEST, split="test")
    again = prepared(folder, tmp_path / "data")
    for name in dataset.names(r"frames-.*"):
        assert again.files[name] == dataset.files[name]


def test_a_killed_run_continues_to_the_same_dataset(
    raw: Path, dataset: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bfrbctl.recordings.preparation._sequence_table", killed)
        with pytest.raises(KeyboardInterrupt):
            prepared(raw, out)
    assert prepared(raw, out, resume=True).files == dataset.files


def test_sensors_that_never_measured_are_left_out(tmp_path: Path) -> None:
    folder = prepared(write_raw(tmp_path / "raw", raw_frames(imu_only=True)), tmp_path / "data")
    assert folder.content["thm"] == folder.content["tof"] == []
    quality = folder.read_parquet("quality.parquet")
    assert quality["problem"].unique().to_list() == ["no data in the whole dataset"]
    recordings, _ = read_recordings(folder, folder.read_parquet("sequences.parquet"), 0)
    assert recordings.thm.shape[1] == recordings.tof.shape[1] == 0


def test_faulty_sequences_are_named_with_what_to_do(tmp_path: Path) -> None:
    bad = TRAIN.with_columns(
        subject=pl.when((pl.col("sequence_counter") == 2) & pl.col("sequence_id").str.ends_with("1"))
        .then(pl.lit("SUBJ_X"))
        .otherwise("subject")
    )
    folder = write_raw(tmp_path / "raw", bad)
    with pytest.raises(DataError, match=r"SEQ_000001 has 2 subjects \(SUBJ_000000, SUBJ_X\), expected 1") as caught:
        prepared(folder, tmp_path / "data")
    assert caught.value.hint == (
        "fix the rows, or leave them out with --drop SEQ_000001 --drop SEQ_000011 --drop SEQ_000021 ... (4 in all)"
    )
    names = tuple(f"SEQ_0000{tens}1" for tens in range(4))
    kept = prepared(folder, tmp_path / "data", drop=names)
    assert kept.content["n_sequences"] == {"train": 28}
    assert kept.read_parquet("quality.parquet").filter(pl.col("action") == "left out").height == 4


def test_a_sequence_without_gesture_among_labelled_ones_is_refused(tmp_path: Path) -> None:
    bare = TRAIN.with_columns(gesture=pl.when(pl.col("sequence_id") != "SEQ_000004").then("gesture"))
    with pytest.raises(DataError, match="SEQ_000004 has no gesture, while others have one"):
        prepared(write_raw(tmp_path / "raw", bare), tmp_path / "data")


def test_the_same_sequence_in_both_splits_is_refused(tmp_path: Path) -> None:
    folder = write_raw(tmp_path / "raw", TRAIN)
    write_raw(folder, raw_frames(subjects=1, labelled=False), split="test")
    with pytest.raises(DataError, match="is in both files"):
        prepared(folder, tmp_path / "data")


def test_a_gesture_that_is_target_and_not_is_refused(tmp_path: Path) -> None:
    mixed = TRAIN.with_columns(
        sequence_type=pl.when(pl.col("sequence_id") == "SEQ_000000")
        .then(pl.lit("Non-Target"))
        .otherwise("sequence_type")
    )
    with pytest.raises(DataError, match="Cheek - pinch skin is a target in some sequences"):
        prepared(write_raw(tmp_path / "raw", mixed), tmp_path / "data")


@pytest.mark.parametrize("odd", ["target", "Targets", " Target", "non-target", "", "ADL"])
def test_a_sequence_type_that_is_neither_value_never_counts_as_non_target(tmp_path: Path, odd: str) -> None:
    types = pl.when(pl.col("gesture") == "Neck - scratch").then(pl.lit(odd)).otherwise("sequence_type")
    raw = write_raw(tmp_path / "raw", TRAIN.with_columns(sequence_type=types))
    some = "sequence SEQ_000001, SEQ_000005" if odd == "" else f"sequence_type is {odd} in 8 of 32 sequences"
    with pytest.raises(DataError, match=some) as caught:
        prepared(raw, tmp_path / "data")
    assert caught.value.hint == "write Target or Non-Target in every row, or leave the column out"


@pytest.mark.parametrize(
    ("kind", "types", "why"),
    [
        ("Target", ["Target"], "all gestures are targets (sequence_type is Target)"),
        ("Non-Target", ["Non-Target"], "no gesture is a target (sequence_type is Non-Target)"),
        (None, [], "no gesture is a target (column sequence_type is missing or empty)"),
    ],
)
def test_one_sided_labels_are_warned_of_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str | None, types: list[str], why: str
) -> None:
    table = TRAIN.drop("sequence_type") if kind is None else TRAIN.with_columns(sequence_type=pl.lit(kind))
    data = prepared(write_raw(tmp_path / "raw", table), tmp_path / "data")
    assert data.content["sequence_types"] == types
    assert why in caplog.text and "headline figure is macro F1 over gestures" in caplog.text
    assert why in str(one_sided_note(data.content))
    quality = data.read_parquet("quality.parquet")
    assert "target or not is not scored" in quality.filter(column="sequence_type")["action"].to_list()
    assert data.content["n_findings"] == quality.height


def test_two_sides_are_kept_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = prepared(write_raw(tmp_path / "raw", TRAIN), tmp_path / "data")
    assert data.content["sequence_types"] == ["Non-Target", "Target"]
    assert caplog.text == "" and one_sided_note(data.content) is None


def test_subjects_without_demographics_are_reported(tmp_path: Path) -> None:
    folder = write_raw(tmp_path / "raw", TRAIN)
    (folder / "train_demographics.csv").unlink()
    data = prepared(folder, tmp_path / "data")
    assert data.read_parquet("quality.parquet")["problem"].unique().to_list() == ["subject without demographics"]


def test_unknown_columns_are_reported(tmp_path: Path) -> None:
    data = prepared(write_raw(tmp_path / "raw", TRAIN.with_columns(mood=1)), tmp_path / "data")
    assert data.read_parquet("quality.parquet").row(0)[1:3] == ("mood", "column we do not know")


def test_a_drop_that_names_nothing_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sequence of that name"):
        prepared(raw, tmp_path / "data", drop=("SEQ_x",))


@pytest.mark.parametrize("settings", [{"rate_hz": 0.0}, {"folds": 1}, {"rows_per_file": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        PrepareConfig(**settings)


def test_subjects_are_never_split_and_gestures_are_spread() -> None:
    subjects = [f"S{i % 10}" for i in range(200)]
    gestures = [f"G{i // 10 % 4}" for i in range(200)]
    folds = assign_folds(gestures, subjects, n_folds=5, seed=0)
    pairs = {(subject, fold) for subject, fold in zip(subjects, folds, strict=True)}
    assert len(pairs) == 10
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    assert np.array_equal(folds, assign_folds(gestures, subjects, n_folds=5, seed=0))
    for fold in range(5):
        counts = np.unique(np.array(gestures)[folds == fold], return_counts=True)[1]
        assert counts.tolist() == [10, 10, 10, 10]


def test_more_folds_than_subjects_are_refused() -> None:
    with pytest.raises(DataError, match="2 subjects cannot be split into 3 folds"):
        assign_folds(["a", "b"], ["x", "y"], n_folds=3, seed=0)


def test_the_dataset_can_be_moved(dataset: Folder, tmp_path: Path) -> None:
    dataset.path.rename(tmp_path / "moved")
    try:
        assert open_folder(tmp_path / "moved", "dataset").sha256 == dataset.sha256
    finally:
        (tmp_path / "moved").rename(dataset.path)


def test_two_workers_make_the_same_dataset_of_csv_and_parquet(raw: Path, dataset: Folder, tmp_path: Path) -> None:
    together = prepared(raw, tmp_path / "data", executor=Executor(2))
    assert together.files == dataset.files
    assert together.content == dataset.content


def test_two_workers_make_the_same_dataset_of_scattered_rows(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", TRAIN.sample(fraction=1.0, shuffle=True, seed=3))
    alone, together = (prepared(raw, tmp_path / f"data-{n}", executor=Executor(n)) for n in (1, 2))
    assert together.files == alone.files
    assert sorted(entry.name for entry in together.path.iterdir()) == sorted([*together.files, "manifest.json"])


def test_a_resumed_run_reads_no_recordings_of_finished_files(
    raw: Path, dataset: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, made = Output.publish, []

    def killed_at_the_third(self: Output, name: str, files: Any) -> None:
        if name == "frames-00002.parquet":
            raise KeyboardInterrupt
        publish(self, name, files)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "publish", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            prepared(raw, tmp_path / "data", executor=Executor(2))

    def noted(part: Part, number: int, spec: FramesSpec) -> Made:
        made.append(number)
        return make_file(part, number, spec)

    monkeypatch.setattr("bfrbctl.recordings.writing.make_file", noted)
    again = prepared(raw, tmp_path / "data", resume=True)
    assert again.files == dataset.files
    assert made == list(range(2, dataset.content["n_files"]))


def test_what_a_stream_wrote_before_scattered_rows_is_made_again(tmp_path: Path) -> None:
    """The first file is whole and sorted as far as a stream sees when it publishes it, but lacks a row."""
    late = (pl.col("sequence_id") == "SEQ_000003") & (pl.col("sequence_counter") == 5)
    raw = write_raw(tmp_path / "raw", pl.concat([TRAIN.filter(~late), TRAIN.filter(late)]))
    splits, config = find_splits(raw), PrepareConfig(folds=2, rows_per_file=300)
    job = Job("dataset", vars(config), split_refs(splits))
    torn = prepared(write_raw(tmp_path / "torn", TRAIN.filter(~late)), tmp_path / "torn-data")
    with pytest.raises(KeyboardInterrupt), open_output(tmp_path / "data", job) as output:
        output.publish("frames-00000.parquet", {"frames-00000.parquet": torn.read("frames-00000.parquet")})
        raise KeyboardInterrupt
    again = prepared(raw, tmp_path / "data", resume=True)
    assert again.files == prepared(raw, tmp_path / "whole").files
    assert again.content["n_frames"] == TRAIN.height


def test_rows_gathered_for_another_split_do_not_come_into_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it gathers the second split, whose files are more and whose ids lie between those of the first."""
    monkeypatch.setattr("bfrbctl.recordings.raw._PARQUET_BATCH_ROWS", 200)
    train = raw_frames(subjects=2, repeats=1).sample(fraction=1.0, shuffle=True, seed=1)
    test = raw_frames(subjects=3, labelled=False).sample(fraction=1.0, shuffle=True, seed=1)
    raw = write_raw(tmp_path / "raw", train, suffix="parquet")
    write_raw(raw, test.with_columns(pl.col("sequence_id") + "t"), split="test", suffix="parquet")
    calls = []

    def gathered(path: Path, *args: Any, **options: Any) -> Any:
        parts = gather(path, *args, **options)
        calls.append(path.name)
        if calls == ["train.parquet", "test.parquet"]:
            raise KeyboardInterrupt
        return parts

    monkeypatch.setattr("bfrbctl.recordings.writing.gather", gathered)
    with pytest.raises(KeyboardInterrupt):
        prepared(raw, tmp_path / "data", executor=Executor(2))
    assert list((tmp_path / "data").glob("*/*.parquet"))
    resumed = prepared(raw, tmp_path / "data", executor=Executor(2), resume=True)
    assert resumed.content["n_sequences"] == {"test": 24, "train": 8}
    assert resumed.files == prepared(raw, tmp_path / "whole", executor=Executor(2)).files


def spoiled(case: str) -> pl.DataFrame:
    last = pl.col("sequence_id") >= "SEQ_000029"
    if case == "two subjects":
        odd = last & (pl.col("sequence_counter") == 2)
        return TRAIN.with_columns(subject=pl.when(odd).then(pl.lit("SUBJ_X")).otherwise("subject"))
    if case == "no number":
        return TRAIN.with_columns(acc_y=pl.when(last).then(pl.lit("oops")).otherwise(pl.col("acc_y").cast(pl.String)))
    return TRAIN.with_columns(sequence_id=pl.when(~last).then("sequence_id"))


@pytest.mark.parametrize("case", ["two subjects", "no number", "no sequence_id"])
def test_bad_rows_far_behind_are_reported_alike_by_one_and_two_workers(tmp_path: Path, case: str) -> None:
    raw, messages = write_raw(tmp_path / "raw", spoiled(case)), []
    for n in (1, 2):
        with pytest.raises(DataError) as caught:
            prepared(raw, tmp_path / "data", executor=Executor(n))
        messages.append((caught.value.what, caught.value.hint))
        assert not (tmp_path / "data").exists()
    assert messages[0] == messages[1]


def test_no_process_is_started_where_it_gains_nothing(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bfrbctl.execution.executor.joblib.cpu_count", lambda: 8)
    assert fitting_workers(find_splits(raw)) == 1
    monkeypatch.setattr("bfrbctl.recordings.preparation._WORTH_BYTES", {"csv": 1000, "parquet": 1000})
    assert fitting_workers(find_splits(raw)) > 1
    monkeypatch.setattr("bfrbctl.execution.executor.joblib.cpu_count", lambda: 2)
    assert fitting_workers(find_splits(raw)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "the command"])
def test_a_kill_costs_nothing_but_the_files_being_made(tmp_path: Path, victim: str) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=8, repeats=4))
    words = ["prepare", str(raw), str(tmp_path / "data"), "--rows-per-file", "150", "--workers", "2", "--quiet"]
    run = subprocess.Popen([sys.executable, "-m", "bfrbctl", *words], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "data" / "frames-00001.parquet").exists() and run.poll() is None:
        time.sleep(0.01)
    children = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    doomed = [one for one in children if "loky" in " ".join(one.cmdline())][:1] if victim == "a worker" else [run]
    for one in doomed:
        one.kill()
    _, err = run.communicate(timeout=120)
    assert run.returncode == (0 if victim == "a worker" else -9), err
    if victim == "the command":
        psutil.wait_procs(children, timeout=30)
        assert not any(one.is_running() for one in children)
        subprocess.run([sys.executable, "-m", "bfrbctl", *words, "--resume"], check=True)
    whole = prepared(raw, tmp_path / "whole", folds=5, rows_per_file=150)
    assert open_folder(tmp_path / "data").files == whole.files
