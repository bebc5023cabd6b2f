"""A device without thermopile and ToF sensor has one scenario: every figure stands once, and nothing is IMU-only."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from rich.console import Console

from bfrbctl.artefacts.folders import open_folder
from bfrbctl.cli.app import app
from bfrbctl.cli.training_progress import FoldTable, Steps
from bfrbctl.inspection import inspect, options_of
from bfrbctl.inspection.report import write_report
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.schema import IMU_LAYOUT, scenarios_of
from bfrbctl.training.cross_validation import FoldResult
from tests.raw_recordings import SMALL_LAYOUT, raw_frames, write_raw

VIEWS = ("dataset", "folds", "training", "oof", "confusion", "calibration", "blend")
SETTINGS = ("--set", "n_rounds=6", "--set", "min_data_in_leaf=2", "--workers", "1")


def call(*args: str) -> str:
    result = typer.testing.CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All folders of a study with a plain watch, and what the commands said."""
    base = tmp_path_factory.mktemp("watch")
    write_raw(base / "raw", raw_frames(subjects=6, layout=IMU_LAYOUT))
    said = [
        call("prepare", base / "raw", base / "data", "--folds", "3"),
        call("featurize", base / "data", base / "features", "--workers", "1"),
        call("train", "lgbm", base / "features", base / "lgbm", *SETTINGS),
        call("train", "lgbm", base / "features", base / "other", "--seed", "1", *SETTINGS),
        call("oof-blend", base / "lgbm", base / "other", base / "blend"),
        call("inspect", "compare", base / "lgbm", base / "other"),
        *(call("inspect", what, base / _of(what)) for what in VIEWS),
    ]
    return {"base": base, "said": said}


def _of(what: str) -> str:
    return {"dataset": "data", "training": "lgbm", "blend": "blend"}.get(what, "lgbm")


def test_the_scenarios_follow_from_the_sensors() -> None:
    for layout, n in ((SMALL_LAYOUT, 2), (IMU_LAYOUT, 1)):
        assert len(scenarios_of({"thm": list(layout.thm), "tof": list(layout.tof)})) == n
    assert len(scenarios_of({})) == 2, "a manifest without layout has both"


def test_no_command_says_imu_only(watch: dict[str, Any]) -> None:
    for text in watch["said"]:
        words = text.lower().replace("imu_", "").replace("imu.", "")
        assert "imu only" not in words and "imu-only" not in words and " imu" not in words, text


def test_the_table_of_folds_has_one_final_score() -> None:
    table = FoldTable("lgbm", Steps(1, scenarios=tuple(scenarios_of({"thm": [], "tof": []}))))
    table.on_fold(FoldResult(0, {"all": 0.875}, {}, False))
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("0.8750") == 1 and "imu" not in text and "final" in text


def test_every_figure_is_drawn_and_listed_once(watch: dict[str, Any]) -> None:
    base = watch["base"]
    for what in VIEWS:
        view = inspect(what, base / _of(what))
        titles = [figure.title for figure in view.figures]
        assert len(titles) == len(set(titles))
        for figure in view.figures:
            assert len(getattr(figure, "groups", (1,))) == 1, figure.title
        assert not any("imu" in column for table in view.tables for column in table.columns)
    (confusion,) = inspect("confusion", base / "lgbm").figures
    assert confusion.title == "Confusion"
    scores = next(table for table in inspect("oof", base / "lgbm").tables if table.title == "scores")
    assert [row[0] for row in scores.rows] == ["all"]
    view = inspect("compare", base / "lgbm", options_of("compare", other=base / "other"))
    assert len(view.tables[0].rows) == 1 and "verdict" in view.facts


def test_the_page_has_each_confusion_once_and_not_the_word(watch: dict[str, Any], tmp_path: Path) -> None:
    for name in ("lgbm", "blend"):
        write_report(watch["base"] / name, tmp_path / f"{name}.html")
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert page.count("<title>Confusion</title>") == 1
        assert "IMU only" not in page and "IMU-only" not in page


def test_weights_left_to_fewer_members_are_logged_once(watch: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    Predictor.open(watch["base"] / "blend", without=["other"])
    (message,) = [record.getMessage() for record in caplog.records if "weights are now" in record.getMessage()]
    assert message.endswith("weights are now lgbm 1.000")


def test_json_and_files_keep_both_scenarios(watch: dict[str, Any]) -> None:
    folder = open_folder(watch["base"] / "lgbm", "model")
    metrics = folder.read_json("metrics.json")
    assert set(metrics["scenarios"]) == {"all", "imu"}
    assert json.loads(call("inspect", "oof", watch["base"] / "lgbm", "--json"))["facts"]["score"] == metrics["score"]
