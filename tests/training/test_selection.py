"""Trainings whose steps the other folds choose: the promises of every training, and that no fold chooses for itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import JOURNAL, MANIFEST, Folder, open_folder, read_journal
from bfrbctl.artefacts.outputs import Job, Output, open_output
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.selection import Curve
from bfrbctl.execution.executor import Executor
from bfrbctl.features.folder import read_features
from bfrbctl.inspection.views.unfinished import run_view
from bfrbctl.models.interface import FoldTask, kind_module
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from bfrbctl.training.fold_results import selection_line
from tests import toy_model
from tests.training.test_members import TREES, told

CHOOSING = toy_model.Config(n_steps=5, select="other-folds", sharpness=3.0)
PEAKS = {0: [0.1, 0.2, 0.5, 0.1, 0.1], 1: [0.1, 0.9, 0.2, 0.3, 0.1], 2: [0.1, 0.1, 0.2, 0.9, 0.1]}
"""Score of every step by fold. Best on 1 and 2 is step 4, on 0 and 2 it is 4, on 0 and 1 it is 2, on all it is 4."""
PIECES = ["fold-0", "fold-1", "fold-2", "selected-0", "selected-1", "selected-2", "tables"]


def curve_of(score: Sequence[float]) -> Curve:
    values = np.array(score)
    return Curve({"all": values, "imu": values}, {"all": 1 - values, "imu": 1 - values})


def set_curves(patch: pytest.MonkeyPatch, scores: Mapping[int, Sequence[float]]) -> None:
    """Let the toy tell these curves instead of its own."""
    fit = toy_model.fit

    def with_curve(task: FoldTask, config: toy_model.Config) -> toy_model.Toy:
        model = fit(task, config)
        return toy_model.Toy(model.means, model.scale, model.sharpness, curve_of(scores[task.fold]))

    patch.setattr(toy_model, "fit", with_curve)


def train(
    features: Folder, path: Path, *, config: Any = CHOOSING, folds: tuple[int, ...] = (), resume: bool = False
) -> Folder:
    run = CrossValidation(features, "toy", toy_model, config, folds)
    with open_output(path, Job("model", {"model": "toy"}, (features.ref(),)), resume=resume) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path, "model")


def selection_of(folder: Folder) -> dict[str, Any]:
    found: dict[str, Any] = folder.read_json("metrics.json")["selection"]
    return found


def n_steps(folder: Folder, fold: int) -> int:
    return len(toy_model.load({"toy.npz": folder.read(f"fold-{fold}.toy.npz")}, classes=()).means)


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> None:
    set_curves(monkeypatch, PEAKS)


# ------------------------------------------------------------------------------------------------- who chooses what


@pytest.mark.usefixtures("curves")
def test_a_fold_is_scored_with_the_step_of_the_others_and_models_keep_that_of_all(
    feature_folder: Folder, tmp_path: Path
) -> None:
    folder = train(feature_folder, tmp_path / "m")
    expected = {"select": "other-folds", "why": "", "step": "step", "by": "score", "scenario": "mean"}
    assert selection_of(folder) == {**expected, "kept": 4, "folds": {"0": 4, "1": 4, "2": 2}}
    assert [n_steps(folder, fold) for fold in range(3)] == [4, 4, 4]
    assert [model["steps"] for model in folder.read_json("metrics.json")["models"]] == [4, 4, 4]
    assert list((tmp_path / "m").glob("part-*")) == []
    _, batch = read_features(feature_folder, parts={"table"})
    index, _ = read_features(feature_folder, parts=())
    parts = oof.read_oof(folder)
    for fold, step in ((0, 4), (1, 4), (2, 2)):
        whole = train(feature_folder, tmp_path / f"last-{fold}", config=toy_model.Config(n_steps=5, sharpness=3.0))
        model = toy_model.load_step({"toy.npz": whole.read(f"fold-{fold}.toy.npz")}, step, classes=())
        held = batch.take(np.flatnonzero((index["fold"] == fold).to_numpy()))
        names = index.filter(fold=fold)["sequence_id"].to_list()
        for scenario, given in (("all", held), ("imu", held.imu_only())):
            rows = [parts[scenario].keys["sequence_id"].to_list().index(name) for name in names]
            assert np.array_equal(parts[scenario].proba[rows], model.predict_proba(given))


@pytest.mark.parametrize("fold", range(3))
def test_the_own_curve_of_a_fold_changes_nothing_of_its_predictions(
    feature_folder: Folder, tmp_path: Path, fold: int
) -> None:
    found = []
    for name, scores in (("one", PEAKS), ("other", {**PEAKS, fold: [3.0, 0.0, 0.0, 0.0, 0.0]})):
        with pytest.MonkeyPatch.context() as patch:
            set_curves(patch, scores)
            found.append(train(feature_folder, tmp_path / name))
    assert selection_of(found[0])["folds"][str(fold)] == selection_of(found[1])["folds"][str(fold)]
    assert (selection_of(found[0])["kept"], selection_of(found[1])["kept"]) == (4, 1), "the curve does count for all"
    one, other = (folder.read_parquet(oof.OOF).filter(pl.col("fold") == fold) for folder in found)
    assert one.equals(other)
    others = [folder.read_parquet(oof.OOF).filter(pl.col("fold") != fold) for folder in found]
    assert not others[0].equals(others[1]), "the curve does count for the others"


@pytest.mark.usefixtures("curves")
def test_two_folds_of_three_choose_from_each_other(feature_folder: Folder, tmp_path: Path) -> None:
    selection = selection_of(train(feature_folder, tmp_path / "m", folds=(0, 2)))
    assert (selection["select"], selection["folds"], selection["kept"]) == ("other-folds", {"0": 4, "2": 3}, 4)


@pytest.mark.usefixtures("curves")
@pytest.mark.parametrize(
    ("changes", "folds", "why"),
    [
        ({}, (1,), "one fold is trained alone, and it must not choose for itself"),
        ({"why_last": "steps cannot be taken back"}, (), "steps cannot be taken back"),
        ({"select": "last"}, (), ""),
    ],
)
def test_where_nothing_can_or_shall_choose_the_last_step_is_kept(
    feature_folder: Folder, tmp_path: Path, changes: dict[str, Any], folds: tuple[int, ...], why: str
) -> None:
    config = toy_model.Config(**{"n_steps": 5, "select": "other-folds", **changes})
    folder = train(feature_folder, tmp_path / "m", config=config, folds=folds)
    selection, trained = selection_of(folder), folds or (0, 1, 2)
    assert (selection["select"], selection["why"], selection["by"]) == ("last", why, "")
    assert (selection["kept"], selection["folds"]) == (5, {str(fold): 5 for fold in trained})
    assert [n_steps(folder, fold) for fold in trained] == [5] * len(trained)
    assert selection_line(selection) == (f"kept: all 5 steps, as {why}" if why else "kept: all 5 steps")


# -------------------------------------------------------------------------------------------- runs that are disturbed


@pytest.fixture
def whole(feature_folder: Folder, tmp_path: Path, curves: None) -> Folder:
    return train(feature_folder, tmp_path / "whole")


def stop(patch: pytest.MonkeyPatch, piece: str, *, before: bool) -> None:
    """Let a run end before or after it publishes a piece; after `tables` there is nothing left but the manifest."""
    publish = Output.publish

    def stopping(self: Output, name: str, files: Any) -> None:
        if name == piece and before:
            raise KeyboardInterrupt
        publish(self, name, files)
        if name == piece:
            raise KeyboardInterrupt

    patch.setattr(Output, "publish", stopping)


@pytest.mark.parametrize(("piece", "before"), [*((piece, False) for piece in PIECES), ("selected-0", True)])
def test_a_run_that_ends_anywhere_continues_to_the_same_files(
    feature_folder: Folder, tmp_path: Path, whole: Folder, piece: str, before: bool
) -> None:
    out = tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, piece, before=before)
        train(feature_folder, out)
    facts = run_view(out).facts
    done = PIECES.index(piece) + (not before)
    assert (facts["pieces_done"], facts["pieces_planned"]) == (done, len(PIECES))
    assert read_journal(out)["planned"] == PIECES
    assert not (out / MANIFEST).exists()
    resumed = train(feature_folder, out, resume=True)
    assert resumed.files == whole.files
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.path.iterdir()}
    assert not (out / JOURNAL).exists()


@pytest.mark.parametrize("damaged", ["part-steps-1.toy.npz", "part-summary-1.json"])
@pytest.mark.parametrize("piece", ["fold-2", "selected-1", "tables"])
def test_a_fold_whose_steps_are_damaged_is_trained_again(
    feature_folder: Folder, tmp_path: Path, whole: Folder, damaged: str, piece: str
) -> None:
    out = tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, piece, before=False)
        train(feature_folder, out)
    content = (out / damaged).read_bytes()
    (out / damaged).write_bytes(content.replace(b"0.9", b"0.0") if damaged.endswith("json") else content[:-9])
    trained, fit = [], toy_model.fit

    def noted(task: FoldTask, config: toy_model.Config) -> toy_model.Toy:
        trained.append(task.fold)
        return fit(task, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_model, "fit", noted)
        resumed = train(feature_folder, out, resume=True)
    assert trained == [1]
    assert resumed.files == whole.files


@pytest.mark.parametrize("name", ["fold-1.toy.npz", "part-selected-oof-1.parquet", "oof.parquet"])
def test_a_damaged_result_of_the_choice_is_made_again(
    feature_folder: Folder, tmp_path: Path, whole: Folder, name: str
) -> None:
    out = tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, "tables", before=False)
        train(feature_folder, out)
    (out / name).write_bytes(b"something else")
    assert train(feature_folder, out, resume=True).files == whole.files


def test_a_run_that_ended_within_the_choice_shows_its_folds_and_says_of_which_step(
    feature_folder: Folder, tmp_path: Path, whole: Folder
) -> None:
    out = tmp_path / "m"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, "selected-1", before=False)
        train(feature_folder, out)
    view = run_view(out)
    folds = next(table for table in view.tables if table.title == "folds")
    assert [(row[0], row[1]) for row in folds.rows] == [(0, "finished"), (1, "finished"), (2, "finished")]
    assert any("finished folds are scored after their last round or epoch" in note for note in view.notes)


# ---------------------------------------------------------------------------------------------------- trees, for real


def train_trees(features: Folder, path: Path, executor: Executor) -> Folder:
    run = CrossValidation(features, "lgbm", kind_module("lgbm"), TREES, (0, 2), 0, "joint")
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output, executor=executor):
            pass
    return open_folder(path)


def test_trees_of_joint_labels_are_the_same_of_two_workers(feature_folder: Folder, tmp_path: Path) -> None:
    here = train_trees(feature_folder, tmp_path / "here", Executor(1))
    there = train_trees(feature_folder, tmp_path / "there", Executor(2))
    assert told(here) == told(there)
    assert {"seeds.parquet", "oof.parquet", "joint.parquet"} <= set(here.files)
    selection = selection_of(here)
    assert (selection["select"], sorted(selection["folds"])) == ("other-folds", ["0", "2"])
    for model in here.read_json("metrics.json")["models"]:
        assert max(model["rounds"]) <= selection["kept"]
    rows = [json.loads(line) for line in here.read("history.jsonl").decode().splitlines()]
    assert max(row["step"] for row in rows) == TREES.n_rounds, "the history tells all rounds"
