"""Runs that were interrupted, as a user meets them: inspected, continued, used as an input, in the way of an output."""

import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import JOURNAL, LOCK, MANIFEST, Folder, open_folder, read_journal, sealed
from bfrbctl.artefacts.journals import differences
from bfrbctl.cli import main
from bfrbctl.models.interface import FoldTask
from bfrbctl.training import cross_validation
from tests.raw_recordings import raw_frames, write_raw

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--set", "n_rounds=4", "--set", "min_data_in_leaf=2", "--set", "log_every=1", "--workers", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the program in this process: words -> (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bfrbctl", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, printed.out, printed.err

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def stop_in_fold_1(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Interrupt every training after the first round of fold 1."""
    fit = cross_validation._train_fold

    def stopping(job: Any, task: FoldTask, index: Any) -> Any:
        if task.fold == 1:
            task.on_progress({"fold": 1, "seed": 0, "step": 1, "score": 0.25, "score_all": 0.3, "score_imu": 0.2})
            raise KeyboardInterrupt
        return fit(job, task, index)

    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "_train_fold", stopping)
        yield patch


@pytest.fixture
def half(run: Run, feature_folder: Folder, tmp_path: Path, stop_in_fold_1: pytest.MonkeyPatch) -> Path:
    """Make a training of three folds that was interrupted in its second one."""
    out = tmp_path / "half"
    options = (*QUICK, "--set", "learning_rate=0.2", "--seed", "5", "--labels", "gesture")
    code, _, err = run("train", "lgbm", feature_folder.path, out, *options)
    assert (code, "--resume continues it" in err) == (130, True)
    stop_in_fold_1.undo()
    return out


def test_inspect_training_shows_what_is_done_and_how_to_continue(run: Run, half: Path, feature_folder: Folder) -> None:
    code, out, err = run("inspect", "training", half, "--json")
    assert (code, err) == (0, "")
    view = json.loads(out)
    folds = {row["fold"]: (row["state"], row["step"]) for row in view["tables"]["folds"]}
    assert folds == {0: ("finished", 4), 1: ("begun", 1), 2: ("not begun", None)}
    steps = {row["fold"]: row["steps"] for row in view["tables"]["training of half"]}
    assert steps == {0: 4, 1: 1}
    assert view["title"].endswith("unfinished")
    command = view["facts"]["continue_with"]
    assert command.startswith(f"bfrbctl train lgbm {feature_folder.path} {half}")
    assert command.endswith(" --resume")
    code, _, err = run(*shlex.split(command)[1:], "--quiet")
    assert (code, err) == (0, "")
    assert open_folder(half).content["folds"] == [0, 1, 2]


def test_inspect_oof_shows_the_scores_of_finished_folds(run: Run, half: Path) -> None:
    code, out, err = run("inspect", "oof", half, "--json")
    assert (code, err) == (0, "")
    view = json.loads(out)
    assert "unfinished" in view["title"]
    assert any("only 1 of 3 folds" in note for note in view["notes"])
    assert any("the run is unfinished" in note for note in view["notes"])
    assert any("finished folds are scored after their last round" in note for note in view["notes"])
    code, out, err = run("inspect", "oof", half)
    assert (code, err) == (0, "")
    assert "--resume" in out


def test_inspect_artefact_shows_the_run_and_other_views_say_how_to_continue(run: Run, half: Path) -> None:
    code, out, err = run("inspect", "artefact", half, "--json")
    assert (code, err) == (0, "")
    view = json.loads(out)
    assert (view["facts"]["pieces_done"], view["facts"]["pieces_planned"]) == (1, 7)
    assert view["facts"]["state"] == "interrupted"
    assert {"setting": "settings.learning_rate", "value": "0.2"} in view["tables"]["settings"]
    assert "numpy" in {row["library"] for row in view["tables"]["versions"]}
    code, _, err = run("inspect", "confusion", half)
    assert (code, "is unfinished" in err, "--resume" in err, "do not trust" in err) == (4, True, True, False)


def test_a_run_without_a_finished_fold_is_shown_as_far_as_it_is(
    run: Run, feature_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "_train_fold", stopping)
    assert run("train", "lgbm", feature_folder.path, tmp_path / "m", *QUICK)[0] == 130
    for what, why in (("training", "no fold has trained a round or epoch yet"), ("oof", "no fold is finished yet")):
        code, out, err = run("inspect", what, tmp_path / "m", "--json")
        assert (code, err) == (0, "")
        assert any(why in note for note in json.loads(out)["notes"])
        states = [row["state"] for row in json.loads(out)["tables"]["folds"]]
        assert states == ["begun", "not begun", "not begun"]


def test_a_run_of_an_earlier_version_is_shown_as_far_as_it_can_be(run: Run, half: Path) -> None:
    journal = read_journal(half)
    kept = {key: value for key, value in journal.items() if key in ("kind", "config", "seed", "inputs", "pieces")}
    (half / JOURNAL).write_bytes(encode_json(sealed(kept)))
    for what in ("training", "oof", "artefact"):
        code, out, err = run("inspect", what, half, "--json")
        assert (code, err) == (0, "")
        view = json.loads(out)
        assert view["facts"]["continue_with"] == "the command that began it, with --resume"
        assert view["tables"]["folds"][0]["state"] == "finished"
        assert any("an earlier bfrbctl began it" in note for note in view["notes"])


def test_a_damaged_piece_is_not_shown(run: Run, half: Path) -> None:
    (half / "part-oof-0.parquet").write_bytes(b"PAR1 other")
    code, _, err = run("inspect", "oof", half)
    assert (code, "sha256 differs" in err) == (4, True)


def test_resume_alone_goes_on_with_the_settings_of_the_run(
    run: Run, half: Path, feature_folder: Folder, tmp_path: Path
) -> None:
    assert run("train", "lgbm", feature_folder.path, half, "--resume", "--quiet") == (0, "", "")
    folder = open_folder(half)
    assert (folder.config["settings"]["learning_rate"], folder.manifest["seed"]) == (0.2, 5)
    assert "learning_rate=0.2" in folder.manifest["command"]
    whole = tmp_path / "whole"
    options = (*QUICK, "--set", "learning_rate=0.2", "--seed", "5")
    assert run("train", "lgbm", feature_folder.path, whole, *options, "--quiet")[0] == 0
    assert open_folder(whole).files["oof.parquet"] == folder.files["oof.parquet"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "learning_rate=0.1"), " learning_rate (0.2 then, 0.1 now)"),
        (("--seed", "6"), "seed (5 then, 6 now)"),
        (("--labels", "joint"), " labels ('gesture' then, 'joint' now)"),
        (("--folds", "0"), " folds ([] then, [0] now)"),
    ],
)
def test_a_setting_that_differs_is_refused_with_both_values(
    run: Run, half: Path, feature_folder: Folder, given: tuple[str, ...], said: str
) -> None:
    before = {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()}
    code, _, err = run("train", "lgbm", feature_folder.path, half, "--resume", *given)
    assert (code, said in err, err.count(" then, ")) == (5, True, 1), err
    assert "leave these out" in err
    assert {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()} == before


def test_another_kind_of_model_is_not_a_run_to_continue(run: Run, half: Path, feature_folder: Folder) -> None:
    code, _, err = run("train", "keras", feature_folder.path, half, "--resume")
    message = "holds a lgbm model folder, and this command writes a keras model folder"
    assert (code, message in err, "--force" in err) == (5, True, False), err


def test_an_unfinished_folder_is_no_input(run: Run, half: Path, tmp_path: Path) -> None:
    for words in (
        ("predict", half, half, tmp_path / "p"),
        ("oof-blend", half, tmp_path / "b", "--single"),
        ("featurize", half, tmp_path / "f"),
        ("prepare", half, tmp_path / "d"),
        ("pack", half, tmp_path / "u", "--owner", "jane", "--slug", "tiny-blend", "--title", "Tiny blend"),
        ("inspect", "report", half, tmp_path / "x.html"),
    ):
        code, _, err = run(*words)
        assert (code, "is unfinished" in err, f"{half}" in err, "--resume" in err) == (4, True, True, True), (
            words,
            err,
        )


def stopped(run: Run, monkeypatch: pytest.MonkeyPatch, *words: object, at: str) -> None:
    """Run a command that is interrupted after it has published its piece `at`."""
    from bfrbctl.artefacts.outputs import Output

    publish = Output.publish

    def stopping(self: Output, piece: str, files: Any) -> None:
        publish(self, piece, files)
        if piece == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Output, "publish", stopping)
        assert run(*words)[0] == 130


def test_every_command_that_resumes_remembers_its_settings(
    run: Run, monkeypatch: pytest.MonkeyPatch, blend_folder: Folder, model_folders: tuple[Folder, ...], tmp_path: Path
) -> None:
    frames = raw_frames(subjects=4)
    raw = write_raw(tmp_path / "raw", frames)
    (raw / "train_demographics.csv").rename(tmp_path / "subjects.csv")
    data, features, out, blend = (tmp_path / name for name in ("data", "features", "out", "blend"))

    options = ("--folds", 3, "--seed", 4, "--rows-per-file", 300, "--demographics", tmp_path / "subjects.csv")
    stopped(run, monkeypatch, "prepare", raw / "train.csv", data, *options, at="frames-00000.parquet")
    assert run("prepare", raw / "train.csv", data, "--resume", "--quiet") == (0, "", "")
    assert {key: open_folder(data).config[key] for key in ("folds", "seed", "rows_per_file")} == {
        "folds": 3,
        "seed": 4,
        "rows_per_file": 300,
    }

    options = ("--families", "moments", "--for", "keras", "--no-tof-images", "--no-mirror-left", "--workers", 1)
    stopped(run, monkeypatch, "featurize", data, features, *options, at="frames-00000.parquet")
    code, _, err = run("featurize", data, features, "--resume", "--mirror-left")
    assert (code, " mirror_left (False then, True now)" in err) == (5, True), err
    assert run("featurize", data, features, "--resume", "--workers", 1, "--quiet") == (0, "", "")
    config = open_folder(features).config
    assert (config["families"], config["table"], config["tof_images"]) == (["moments"], False, False)

    stopped(run, monkeypatch, "oof-blend", model_folders[0].path, blend, "--single", "--decode", "argmax", at="blend")
    assert run("oof-blend", model_folders[0].path, blend, "--resume", "--quiet") == (0, "", "")
    assert open_folder(blend).config["decode"] == "argmax"

    ids = pl.read_parquet(open_folder(data).path / "sequences.parquet", columns=["sequence_id", "gesture"])
    ids.write_csv(tmp_path / "answers.csv")
    options = (
        "--without",
        blend_folder.content["members"][1],
        "--split",
        "train",
        "--workers",
        1,
        "--answers",
        tmp_path / "answers.csv",
    )
    stopped(run, monkeypatch, "predict", data, blend_folder.path, out, *options, at="part-predicted-00000.parquet")
    code, _, err = run("predict", data, blend_folder.path, out, "--resume", "--strict")
    assert (code, " strict (False then, True now)" in err) == (5, True), err
    code, _, err = run("predict", data, blend_folder.path, out, "--resume", "--quiet", "--workers", 1)
    assert code == 0, err
    assert open_folder(out).config["split"] == "train"
    assert open_folder(out).content["answers"]["name"] == "answers.csv"
    assert open_folder(out).config["without"] == [blend_folder.content["members"][1]]


def test_a_blend_without_its_output_destroys_no_model(
    run: Run, model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    first, second = model_folders
    copy = shutil.copytree(first.path, tmp_path / "copy")
    before = (second.path / MANIFEST).read_bytes()
    for more in ((), ("--force",)):
        code, _, err = run("oof-blend", first.path, second.path, *more)
        assert (code, "expected two models at least" in err, "name the folder to write last" in err) == (2, True, True)
    for more in ((), ("--force",), ("--single", "--force")):
        members = (first.path,) if "--single" in more else (first.path, copy)
        code, _, err = run("oof-blend", *members, second.path, *more)
        assert (code, "holds a toy model folder" in err, "--force" in err) == (5, True, False), err
    assert (second.path / MANIFEST).read_bytes() == before
    code, out, _ = run("oof-blend", first.path, tmp_path / "one", "--single")
    assert (code, "by its temperature and decoding" in out, "best member" in out) == (0, True, False)
    assert run("oof-blend", first.path, second.path, tmp_path / "two", "--single")[0] == 2


def test_a_forced_training_that_fails_keeps_the_model_that_was_there(
    run: Run, feature_folder: Folder, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    assert run("train", "lgbm", feature_folder.path, model, *QUICK, "--folds", 0, "--quiet")[0] == 0
    before = open_folder(model).sha256
    for wrong in (("--folds", 77), ("--set", "top_features=0.5"), ("--set", "monotone_constraints=1,2")):
        code, _, err = run("train", "lgbm", feature_folder.path, model, *QUICK, "--force", *wrong)
        assert code != 0, (wrong, err)
        assert open_folder(model).sha256 == before, wrong
        assert not (model / JOURNAL).exists()


def test_right_labels_score_what_a_run_with_wrong_ones_left(
    run: Run, dataset_folder: Folder, blend_folder: Folder, tmp_path: Path
) -> None:
    labels = dataset_folder.read_parquet("sequences.parquet").filter(pl.col("split") == "train")
    labels = labels.select("sequence_id", "gesture")
    labels.head(5).write_csv(tmp_path / "right.csv")
    labels.with_columns(pl.col("sequence_id") + "x").write_csv(tmp_path / "wrong.csv")
    words = ("predict", dataset_folder.path, blend_folder.path, tmp_path / "p", "--split", "train", "--workers", 1)
    code, _, err = run(*words, "--answers", tmp_path / "wrong.csv")
    assert (code, "--resume with --answers of this input" in err) == (3, True), err
    code, out, err = run(*words, "--resume", "--answers", tmp_path / "right.csv")
    assert (code, f"; 5 of {labels.height} sequences scored" in out) == (0, True), (out, err)


def test_a_blend_takes_a_model_once(run: Run, model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    path = model_folders[0].path
    code, _, err = run("oof-blend", path, path.parent / "." / path.name, tmp_path / "b")
    assert (code, "is given twice" in err) == (2, True), err
    assert not (tmp_path / "b").exists()


def test_a_run_in_progress_is_not_to_be_continued_now(run: Run, half: Path) -> None:
    (half / LOCK).write_text(f"{os.getpid()}\n")
    notes = json.loads(run("inspect", "artefact", half, "--json")[1])["notes"]
    assert "should it be interrupted, continue it with: bfrbctl train lgbm" in notes[0]


def test_another_input_is_not_said_to_have_changed() -> None:
    then, now = ({"inputs": [{"kind": "features", "sha256": digit * 64}]} for digit in "ab")
    assert differences(then, now) == ["the input (it is another one, or its content changed)"]


@pytest.mark.parametrize(
    ("words", "kept"),
    [(("train", "lgbm"), True), (("pack",), True), (("train", "lgbm", "--plan"), False), (("inspect", "oof"), False)],
)
def test_only_what_can_be_resumed_is_said_to_be_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], kept: bool
) -> None:
    def stopping(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bfrbctl.cli.app.app", stopping)
    code, _, err = run(*words)
    assert (code, "--resume continues it" in err) == (130, kept)
