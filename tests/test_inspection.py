import json
from pathlib import Path

import pytest

from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.folders import Folder
from bfrbctl.inspection import VIEWS, View, inspect
from bfrbctl.outputs import Job, open_output
from bfrbctl.prediction import Predictor
from bfrbctl.submission import open_input, predict


def tables(view: View) -> set[str]:
    return {table.title for table in view.tables}


def test_a_dataset_shows_people_gestures_folds_and_findings(dataset_folder: Folder) -> None:
    view = inspect("dataset", dataset_folder.path)
    assert view.facts["sequences"] == 64
    assert {"splits", "gestures", "folds"} <= tables(view)
    assert json.loads(json.dumps(view.as_json()))["tables"]["folds"][0]["subjects"] == 2


def test_features_show_the_catalogue(feature_folder: Folder) -> None:
    view = inspect("features", feature_folder.path)
    assert view.facts["sequence_features"] > 50
    assert "columns" in tables(view)


def test_oof_shows_both_scenarios_classes_and_subjects(model_folders: tuple[Folder, Folder]) -> None:
    view = inspect("oof", model_folders[0].path)
    scores, classes, folds, subjects = view.tables
    assert [row[0] for row in scores.rows] == ["all", "imu"]
    assert [row[0] for row in classes.rows] == ["Cheek - pinch skin", "Neck - scratch", "non_target"]
    assert len(folds.rows) == 3
    assert len(subjects.rows) == 6
    worst_first = [sum(row[2:]) for row in subjects.rows]
    assert worst_first == sorted(worst_first)


def test_a_blend_shows_weights_and_both_scores(blend_folder: Folder) -> None:
    view = inspect("blend", blend_folder.path)
    assert [row[0] for row in view.tables[0].rows] == ["soft", "sharp"]
    assert "oof" in VIEWS
    assert inspect("oof", blend_folder.path).facts["score"] == pytest.approx(view.facts["score"])


def test_a_folder_without_trees_says_so(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    with pytest.raises(DataError, match="its members are soft, sharp"):
        inspect("feature-importance", blend_folder.path)
    with pytest.raises(DataError, match="it is a toy model"):
        inspect("feature-importance", model_folders[0].path)


def test_predictions_are_shown_with_and_without_labels(blend_folder: Folder, raw_folder: Path, tmp_path: Path) -> None:
    predictor = Predictor.open(blend_folder.path)
    for split, scored in (("test", False), ("train", True)):
        with open_output(tmp_path / split, Job("predictions", {})) as output:
            predict(open_input(raw_folder, predictor, split=split), predictor, output)
        view = inspect("predictions", tmp_path / split)
        assert ("score" in view.facts) is scored
        assert bool(view.notes) is not scored


def test_the_wrong_folder_is_refused(dataset_folder: Folder) -> None:
    with pytest.raises(ArtefactError, match="is a dataset folder, expected model or blend"):
        inspect("oof", dataset_folder.path)
