"""The benchmarks use what the package offers today, and report what a training would."""

import ast
import importlib
import runpy
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.models.interface import model_kind
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from bfrbctl.training.fold_results import METRICS
from tests import keras_batches

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FILES = sorted(BENCHMARKS.glob("*.py"))
SCRIPTS = [path for path in FILES if "__main__" in path.read_text("utf-8")]
WAY = "n_rounds=6,min_data_in_leaf=2,threads=1,seeds=2"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of the folder import each other, as when Python runs one of them."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_says_what_it_measures_and_how_it_is_run(
    path: Path, modules: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    summary = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
    printed = capsys.readouterr().out
    assert summary in printed
    assert f"python benchmarks/{path.name}" in printed


def test_no_file_hides_a_module_that_the_benchmarks_import() -> None:
    # the folder of a script comes first on the path: keras.py in it would be what `import keras` finds
    hidden = [path.name for path in FILES if path.stem in sys.stdlib_module_names or PathFinder.find_spec(path.stem)]
    assert hidden == []


def test_the_page_of_benchmarks_names_each() -> None:
    page = (BENCHMARKS / "README.md").read_text("utf-8")
    timings = sorted((BENCHMARKS / "timings").glob("test_*.py"))
    assert [path.name for path in [*SCRIPTS, *timings] if f"{path.name}]" not in page] == []


def trained(features: Folder, path: Path) -> dict[str, Any]:
    module = model_kind("lgbm")
    settings = {name: int(value) for name, value in (word.split("=") for word in WAY.split(","))}
    run = CrossValidation(features, module, module.config_class(**settings))
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    metrics: dict[str, Any] = open_folder(path, "model").read_json(METRICS)
    return metrics


def test_measured_scores_are_those_of_a_training_and_are_kept(
    feature_folder: Folder,
    tmp_path: Path,
    modules: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
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


def test_people_who_are_turned_are_of_the_training_part(modules: None) -> None:
    module = importlib.import_module("flips")
    columns = {"subject": list("abcdef"), "split": ["test"] * 3 + ["train"] * 3, "fold": [None] * 3 + [0, 1, 1]}
    assert module.subjects_of(pl.DataFrame(columns), 0) == ({"e", "f"}, {"d"})


@pytest.mark.slow
def test_padding_that_counts_as_frames_reaches_what_is_scored(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("train_keras")
    task = keras_batches.task(tmp_path / "fold")
    model = module.fit(task, module.Config(network="two-branch", width=0.25, epochs=1, batch_size=16))
    monkeypatch.setattr(module, "fit", lambda task, config: model)
    scored: dict[str, Any] = {}
    for setting in ("mixup=0.0", module.UNMASKED):
        tally = module.Tally(task.targets)
        module.measure(task, [setting], tally)
        scored[setting] = tally.probas["all"][0]
    np.testing.assert_allclose(scored["mixup=0.0"], module.proba_of(model, task.valid), atol=1e-5)
    assert np.abs(scored[module.UNMASKED] - scored["mixup=0.0"]).max() > 1e-3
