"""What is said of every gesture, of every subject, and of the mean score."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import score_intervals
from bfrbctl.evaluation.classes import gesture_space
from bfrbctl.evaluation.metrics import class_figures
from bfrbctl.inspection import Table, View, inspect
from bfrbctl.inspection.figures import Bars
from bfrbctl.inspection.report import write_report
from bfrbctl.inspection.views.scores import MOST_SUBJECTS


def table(view: View, title: str) -> Table:
    return next(table for table in view.tables if table.title == title)


def bars(view: View, title: str) -> Bars:
    return next(figure for figure in view.figures if isinstance(figure, Bars) and figure.title.startswith(title))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_figures_of_a_class_are_those_of_counting_one_by_one(seed: int, n: int) -> None:
    truth, predicted = np.random.default_rng(seed).integers(0, 4, (2, n))
    found = class_figures(truth, predicted, 5)
    for k in range(5):
        hits = sum(t == p == k for t, p in zip(truth, predicted, strict=True))
        there, said = sum(t == k for t in truth), sum(p == k for p in predicted)
        assert found.support[k] == there
        assert found.precision[k] == pytest.approx(hits / said if said else np.nan, nan_ok=True)
        assert found.recall[k] == pytest.approx(hits / there if there else np.nan, nan_ok=True)
        assert found.f1[k] == pytest.approx(2 * hits / (there + said) if there + said else np.nan, nan_ok=True)


def test_every_gesture_is_shown_worst_first_beside_the_merged_classes(model_folders: tuple[Folder, Folder]) -> None:
    folder = model_folders[0]
    view = inspect("oof", folder.path)
    gestures = table(view, "gestures, worst first")
    assert {row[0] for row in gestures.rows} == set(folder.content["classes"])
    assert {row[1] for row in gestures.rows} == {"target", "non-target"}
    means = [row[5] + row[8] for row in gestures.rows]
    assert means == sorted(means)
    assert view.facts["worst_gesture"] == gestures.rows[0][0]
    assert [row[0] for row in table(view, "classes").rows][-1] == "non_target"
    chart = bars(view, "F1 by gesture, worst first")
    assert chart.labels == (*(row[0] for row in gestures.rows), "non_target (merged)")
    assert chart.groups[0][1][:-1] == tuple(row[5] for row in gestures.rows)


def test_metrics_tell_every_gesture_as_the_view_does(
    model_folders: tuple[Folder, Folder], blend_folder: Folder
) -> None:
    for folder in (*model_folders, blend_folder):
        metrics = folder.read_json("metrics.json")["scenarios"]
        for row in table(inspect("oof", folder.path), "gestures, worst first").rows:
            for scenario, figures in (("all", row[3:6]), ("imu", row[6:9])):
                found = metrics[scenario]["gestures"][row[0]]
                assert (found["precision"], found["recall"], found["f1"]) == figures
                assert found["support"] == row[2]


def test_the_mean_score_has_an_interval_everywhere(model_folders: tuple[Folder, Folder], blend_folder: Folder) -> None:
    for folder in (model_folders[0], blend_folder):
        view = inspect("oof", folder.path)
        expected = score_intervals(oof.read_oof(folder), gesture_space(folder.content), seed=0)["mean"]
        assert (view.facts["score_low_95"], view.facts["score_high_95"]) == expected
        assert table(view, "scores").rows[-1][:4] == ("mean", view.facts["score"], *expected)
        metrics = folder.read_json("metrics.json")
        assert tuple(metrics["interval"]["mean"]) == expected
        line = oof.score_line(metrics)
        assert f"score {metrics['score']:.4f} (95 % by subject {expected[0]:.4f} to {expected[1]:.4f}, all" in line


def rewritten(folder: Folder, path: Path, table: pl.DataFrame) -> Folder:
    """Copy a model without metrics, as if they had been of an older version, with other predictions."""
    files = {name: folder.read(name) for name in folder.files if name != "metrics.json"}
    with open_output(path, Job("model", dict(folder.config))) as output:
        output.publish("all", {**files, oof.OOF: table})
        return output.finish(folder.content)


def test_a_folder_of_an_older_version_shows_gestures_from_its_predictions(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    folder = model_folders[0]
    old = rewritten(folder, tmp_path / "old", folder.read_parquet(oof.OOF))
    new_view, old_view = inspect("oof", folder.path).as_json(), inspect("oof", old.path).as_json()
    assert new_view["tables"] == old_view["tables"]
    assert oof.score_line({"score": 0.5, "scenarios": folder.read_json("metrics.json")["scenarios"]})
    write_report(old.path, tmp_path / "old.html")
    page = (tmp_path / "old.html").read_text(encoding="utf-8")
    assert "gestures, worst first" in page and "Score by subject" in page


def test_a_gesture_that_no_fold_held_out_stands_last_without_a_recall(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    folder = model_folders[0]
    table_ = folder.read_parquet(oof.OOF).filter(pl.col("gesture") != "Wave hello")
    view = inspect("oof", rewritten(folder, tmp_path / "m", table_).path)
    last = table(view, "gestures, worst first").rows[-1]
    assert last[:3] == ("Wave hello", "non-target", 0) and last[4] is None
    assert any("class Wave hello" in note for note in view.notes)


def test_subjects_are_drawn_the_worst_where_they_are_many(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    view = inspect("oof", model_folders[0].path)
    rows = table(view, "subjects, worst first").rows
    assert bars(view, "Score by subject, worst first").labels == tuple(row[0] for row in rows)
    one = model_folders[0].read_parquet(oof.OOF)
    many = one.with_columns(subject="S" + pl.col("sequence_id"))
    view = inspect("oof", rewritten(model_folders[0], tmp_path / "m", many).path)
    chart = bars(view, "Score by subject")
    assert chart.title == f"Score by subject, the {MOST_SUBJECTS} worst of 48"
    assert len(chart.labels) == MOST_SUBJECTS
    assert json.dumps(view.as_json(), allow_nan=False)


def test_sequences_without_a_subject_are_no_subject_in_the_scores(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    first = pl.col("subject") == "SUBJ_000000"
    rows = (
        model_folders[0]
        .read_parquet(oof.OOF)
        .with_columns(subject=pl.when(first).then(pl.lit("")).otherwise("subject"))
    )
    view = inspect("oof", rewritten(model_folders[0], tmp_path / "m", rows).path)
    assert view.facts["subjects"] == 5
    assert "" not in {row[0] for row in table(view, "subjects, worst first").rows}
