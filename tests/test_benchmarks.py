"""The benchmarks use what the package offers today, and report what a training would."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bfrbctl.fold_results import METRICS
from bfrbctl.folders import Folder, open_folder
from bfrbctl.models import kind_module
from bfrbctl.outputs import Job, open_output
from bfrbctl.training import CrossValidation, cross_validate

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
WAY = "n_rounds=6,min_data_in_leaf=2,threads=1,seeds=2"


def trained(features: Folder, path: Path) -> dict[str, Any]:
    module = kind_module("lgbm")
    settings = {name: int(value) for name, value in (word.split("=") for word in WAY.split(","))}
    run = CrossValidation(features, "lgbm", module, module.Config(**settings))
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    metrics: dict[str, Any] = open_folder(path, "model").read_json(METRICS)
    return metrics


def test_measured_scores_are_those_of_a_training_and_are_kept(
    feature_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("train_lgbm")
    arguments = [str(feature_folder.path), str(tmp_path / "kept"), "--ways", WAY, f"{WAY},boosting=dart"]
    monkeypatch.setattr(sys, "argv", ["train_lgbm.py", *arguments])
    module.main()
    first = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in first.splitlines() if "|" in line]
    found = {(row[0], row[1]): row[2:] for row in rows[2:8]}
    metrics = trained(feature_folder, tmp_path / "model")
    others = found[WAY, "other folds, score"]
    assert others[:2] == [f"{metrics['scenarios'][name]['score']:.4f}" for name in ("all", "imu")]
    assert others[-1] == ", ".join(str(step) for step in metrics["selection"]["folds"].values())
    assert {name for way, name in found if way == WAY} == {
        "other folds, score",
        "other folds, logloss",
        "last",
        "own rows, score (flattered)",
        "own rows, logloss (flattered)",
    }
    assert [name for way, name in found if way != WAY] == ["last"]

    def again(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", again)
    module.main()
    assert capsys.readouterr().out == first
