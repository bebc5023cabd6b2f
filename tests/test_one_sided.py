"""Where no gesture is a target: every command names the macro F1 over gestures, also of folders of earlier versions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.cli.app import app
from bfrbctl.ensemble.blending import blend
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import auc_intervals, score_intervals
from bfrbctl.evaluation.classes import gesture_space
from bfrbctl.inspection import Table, View, inspect, options_of
from bfrbctl.inspection.figures import Bars, Lines
from bfrbctl.inspection.report import write_report
from tests.raw_recordings import raw_frames, write_raw

NAME = "macro F1 over gestures"


def rewritten(folder: Folder, path: Path, **content: Any) -> Folder:
    """A folder of the same files with another manifest content."""
    metrics = content.pop("metrics", None)
    with open_output(path, Job(folder.kind, dict(folder.config))) as output:
        files = {name: folder.read(name) for name in folder.files}
        output.publish("all", files | ({"metrics.json": encode_json(metrics)} if metrics else {}))
        output.finish({**folder.content, **content})
    return open_folder(path)


def table(view: View, title: str) -> Table:
    return next(table for table in view.tables if table.title == title)


@pytest.fixture(scope="module")
def blended(model_folders: tuple[Folder, Folder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folder]:
    """Two models that know no target, as no sequence_type was given, and their blend."""
    base = tmp_path_factory.mktemp("one")
    members = [rewritten(each, base / each.path.name, targets=[False] * 4) for each in model_folders]
    with open_output(base / "blend", Job("blend", {})) as output:
        blend(members, output, BlendConfig())
    return {"model": members[0], "other": members[1], "blend": open_folder(base / "blend")}


def test_metrics_name_the_headline_and_leave_empty_what_means_nothing(blended: dict[str, Folder]) -> None:
    metrics = blended["blend"].read_json("metrics.json")
    part = oof.read_oof(blended["blend"])["all"]
    assert metrics["headline"] == NAME
    assert metrics["score"] == blended["blend"].content["score"]
    assert metrics["interval"]["mean"] == list(
        score_intervals(oof.read_oof(blended["blend"]), gesture_space(blended["blend"].content), seed=0)["mean"]
    )
    for figures in (metrics["scenarios"]["all"], metrics["optimistic"]["all"], metrics["members"]["soft"]["all"]):
        assert (figures["binary_f1"], figures["macro_f1"]) == (None, None)
        assert figures["score"] == figures["gesture_macro_f1"] < 1
    assert set(metrics["scenarios"]["all"]["f1"]) == set(blended["blend"].content["classes"])
    assert metrics["scenarios"]["all"]["detection"] is None and metrics["auc_interval"] == {"all": None, "imu": None}
    assert metrics["rules"]["all"]["threshold"] is None
    assert metrics["scenarios"]["all"]["score"] == part.score([False] * 4).gesture_macro_f1


def test_no_view_shows_a_bare_score(blended: dict[str, Folder], tmp_path: Path) -> None:
    views = [inspect(what, blended["blend"].path) for what in ("oof", "confusion", "blend")]
    other = options_of("compare", other=blended["blend"].path)
    views.append(inspect("compare", blended["model"].path, other))
    for view in views:
        assert not {"score", "score all", "binary F1", "non_target"} & {
            text for each in view.tables for text in (*each.columns, *(str(row[0]) for row in each.rows))
        }
        assert "score" not in view.facts
        labels = [figure.x_label for figure in view.figures if isinstance(figure, Bars)]
        assert "score" not in labels and "difference of scores" not in labels
    assert views[0].facts[NAME] == views[2].facts[NAME]
    assert {row[4] for each in views[1].tables for row in each.rows} == {"among gestures"}
    line = oof.score_line(blended["blend"].read_json("metrics.json"))
    assert line.startswith(f"{NAME} 0.") and "score" not in line and "over all gestures" not in line
    write_report(blended["blend"].path, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert ">score<" not in page and NAME in page


def test_a_blend_of_an_earlier_version_is_shown_by_what_means_something(
    blended: dict[str, Folder], tmp_path: Path
) -> None:
    metrics = blended["blend"].read_json("metrics.json")
    del metrics["headline"], metrics["auc_interval"]
    groups = [*metrics["members"].values(), metrics["scenarios"], metrics["optimistic"]]
    for figures in (each for group in groups for each in group.values()):
        figures |= {"binary_f1": 0.0, "macro_f1": 1.0, "score": 0.5}
        for key in ("detection", "macro_auc", "macro_average_precision", "macro_auc_within_subjects"):
            figures.pop(key, None)
    metrics |= {
        "score": 0.5,
        "gain": 0.0,
        "best_member": "soft",
        "interval": {name: [0.5, 0.5] for name in metrics["interval"]},
    }
    old = rewritten(blended["blend"], tmp_path / "blend", metrics=metrics, score=0.5)
    now, then = (inspect("blend", folder.path) for folder in (blended["blend"], old))
    assert (then.facts, then.tables) == (now.facts, now.tables)
    assert inspect("oof", old.path).tables == inspect("oof", blended["blend"].path).tables


def test_the_commands_warn_and_name_the_headline(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", raw_frames(subjects=4).drop("sequence_type"))

    def call(*args: str | Path) -> typer.testing.Result:
        result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == 0, result.output
        return result

    shown = json.loads(call("prepare", tmp_path / "raw", tmp_path / "data", "--folds", "2", "--json").stdout)
    assert "column sequence_type is missing or empty" in shown["warnings"][0]
    call("featurize", tmp_path / "data", tmp_path / "features", "--workers", "1", "-q")
    assert open_folder(tmp_path / "features").content["sequence_types"] == []
    assert shown["warnings"][0] in inspect("dataset", tmp_path / "data").notes
    quick = ("--set", "n_rounds=2", "--set", "min_data_in_leaf=2", "--workers", "1")
    call("train", "lgbm", tmp_path / "features", tmp_path / "m", *quick)
    said = call("predict", tmp_path / "raw", tmp_path / "m", tmp_path / "p", "--split", "train").output
    assert f"in-sample {NAME} against the labels in the input: " in said and "binary F1" not in said
    facts = inspect("predictions", tmp_path / "p").facts
    assert NAME in facts and "score" not in facts and "binary_f1" not in facts


def test_two_sides_are_ranked_in_every_view(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    scenarios = oof.read_oof(blend_folder)
    metrics = blend_folder.read_json("metrics.json")
    assert metrics["headline"] == "score"
    bounds = auc_intervals(scenarios, gesture_space(blend_folder.content), seed=0)
    assert metrics["auc_interval"] == {name: list(pair or ()) for name, pair in bounds.items()}
    view = inspect("oof", blend_folder.path)
    found = metrics["scenarios"]["all"]["detection"]
    detection = dict(zip(table(view, "detection").columns, table(view, "detection").rows[0], strict=True))
    assert detection["AUC"] == found["auc"] and detection["average precision"] == found["average_precision"]
    assert (detection["low 95"], detection["high 95"]) == bounds["all"]
    by_subject = found["auc_within_subjects"]
    assert table(view, "AUC within subjects").rows[0][1:4] == (
        by_subject["mean"],
        by_subject["sd"],
        by_subject["n_subjects"],
    )
    assert [row[1] for row in table(view, "operating points imu").rows] == [
        point["threshold"] for point in metrics["scenarios"]["imu"]["detection"]["operating_points"]
    ]
    gestures = table(view, "each gesture against the rest")
    assert [row[0] for row in gestures.rows] == [*blend_folder.content["classes"], "mean"]
    assert gestures.rows[-1][1] == metrics["scenarios"]["all"]["macro_auc"]
    chart = next(figure for figure in view.figures if isinstance(figure, Lines))
    assert chart.diagonal and [series.name for series in chart.series][:2] == [
        "all sensors",
        "all sensors, operating points",
    ]
    assert (chart.series[0].x[0], chart.series[0].y[0], chart.series[0].x[-1], chart.series[0].y[-1]) == (0, 0, 1, 1)
    compared = inspect("compare", model_folders[0].path, options_of("compare", other=blend_folder.path))
    row = table(compared, "AUC, detection of targets").rows[0]
    assert row[2] == pytest.approx(found["auc"]) and row[3] == row[2] - row[1] and row[4] <= row[3] <= row[5]
    for_figure = {row[1]: row[3] for row in table(compared, "ranking").rows if row[0] == "all"}
    assert for_figure["AUC, mean over gestures"] == metrics["scenarios"]["all"]["macro_auc"]
    assert for_figure["average precision, detection"] == found["average_precision"]
    assert np.isfinite([row[3] for row in table(compared, "each gesture against the rest").rows]).all()
