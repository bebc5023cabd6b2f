"""Folders that bfrbctl 0.1.0 wrote still open, predict what they predicted, and come out the same when made again.

Only the command line and the public names are used here, so that modules can move. The folders come from
tests/golden/make.py.
"""

import io
import json
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.golden import make
from tests.golden.make import COMMANDS, GOLDEN, MODELS

Run = Callable[..., dict[str, Any]]

KINDS = {
    "data": "dataset",
    "features": "features",
    "blend": "blend",
    "assigned": "blend",
    "predictions": "predictions",
    "scored": "predictions",
}
"""What each folder is, where it is not a model."""

TOLERANCES = {"lgbm": 1e-12, "joint": 1e-12, "assigned": 1e-6, "blend": 1e-6, "helios": 1e-6, "two-branch": 1e-6}
"""How far probabilities may be from the stored ones, by model: of trees not at all."""

VIEWS = (
    *(
        "dataset data",
        "folds data",
        "features features",
        "predictions predictions",
        "predictions scored",
        "compare lgbm blend",
    ),
    *(f"training {name}" for name in MODELS[:4]),
    *(f"{view} {name}" for view in ("oof", "confusion", "calibration") for name in MODELS),
    *(f"feature-importance {name}" for name in ("lgbm", "joint", "blend", "assigned")),
    *("blend blend", "blend assigned"),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run `python -m bfrbctl` inside a folder, in this process; gives what --json prints."""

    def call(command: str, folder: Path = GOLDEN) -> dict[str, Any]:
        printed = io.StringIO()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["bfrbctl", *command.split(), "--json"])
        with redirect_stdout(printed), pytest.raises(SystemExit) as stop:
            runpy.run_module("bfrbctl", run_name="__main__")
        assert stop.value.code == 0, command
        return dict(json.loads(printed.getvalue()))

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def again(run: Run, tmp_path: Path) -> Callable[[str], Path]:
    """Make a golden folder again, out of the golden folders that it was made of; gives the new one."""

    def make_again(name: str) -> Path:
        shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / name)
        run(COMMANDS[name], tmp_path)
        return tmp_path / name

    return make_again


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def numbers(value: Any, path: str = "") -> dict[str, float]:
    """Give all numbers of a JSON object by their place in it."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: n for key, inner in items for place, n in numbers(inner, f"{path}/{key}").items()}
    return {path: value} if isinstance(value, int | float) else {}


def assert_numbers_stay(found: Path, stored: Path) -> None:
    """Find every number of a stored JSON file in a new one, which may have more of them."""
    new, old = numbers(read_json(found)), numbers(read_json(stored))
    assert old and {place: new.get(place) for place in old} == pytest.approx(old, rel=1e-6, abs=1e-6)


def assert_manifest_stays(folder: Path) -> None:
    """Find the inputs, settings and content of a golden folder in the manifest of a new one, which may have more."""
    new, old = (read_json(path / "manifest.json") for path in (folder, GOLDEN / folder.name))
    assert new["inputs"] == old["inputs"]
    for key in ("config", "content"):
        assert {name: new[key].get(name) for name in old[key]} == old[key]


def read(folder: Path, files: str) -> pl.DataFrame:
    return pl.concat(map(pl.read_parquet, sorted(folder.glob(files))))


def assert_close(found: pl.DataFrame, stored: pl.DataFrame, tolerance: float) -> None:
    """Compare tables; floats may differ by a share of the stored value, or by as much where that is below 1."""
    assert_frame_equal(found, stored, check_exact=False, rel_tol=tolerance, abs_tol=tolerance)


@pytest.mark.parametrize("folder", COMMANDS)
def test_a_folder_opens_and_its_digests_hold(run: Run, folder: str) -> None:
    facts = run(f"inspect artefact {folder}")["facts"]
    stored = read_json(GOLDEN / folder / "manifest.json")
    assert facts["kind"] == stored["kind"] == KINDS.get(folder, "model")
    assert facts["digest"] == read_json(GOLDEN / "digests.json")[folder]
    assert facts["files_verified"] == len(stored["files"]) == len(list((GOLDEN / folder).iterdir())) - 1
    assert facts["command"] == f"bfrbctl {COMMANDS[folder]} --quiet"
    assert [facts[name] for name in ("bfrbctl", "schema_version", "seed")] == ["0.1.0", 1, stored["seed"]]


def test_the_lineage_of_a_blend_reaches_back_to_the_raw_files(run: Run) -> None:
    lineage = run("inspect artefact blend")["tables"]["lineage"]
    folders = {row["input"]: row["sha256"] for row in lineage if row["kind"] != "file"}
    digests = read_json(GOLDEN / "digests.json")
    assert folders == {name: digests[name] for name in ("lgbm", "helios", "features", "data")}
    files = {row["input"] for row in lineage if row["kind"] == "file"}
    assert files == {path.name for path in (GOLDEN / "raw").iterdir()}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_a_folder_shows_tables(run: Run, view: str) -> None:
    shown = run(f"inspect {view}")
    assert shown["tables"] and all(shown["tables"].values())


@pytest.mark.parametrize("model", MODELS)
def test_the_score_that_is_shown_is_the_stored_one(run: Run, model: str) -> None:
    stored = read_json(GOLDEN / model / "metrics.json")
    assert run(f"inspect oof {model}")["facts"]["score"] == pytest.approx(stored["score"], abs=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_gives_the_stored_probabilities(model: str) -> None:
    stored = pl.read_parquet(GOLDEN / "probabilities.parquet").filter(pl.col("model") == model)
    assert stored.height == 14
    assert_close(make.probabilities(model), stored, TOLERANCES[model])


@pytest.mark.parametrize("name", ["predictions", "scored"])
def test_predictions_come_out_the_same(again: Callable[[str], Path], name: str) -> None:
    folder = again(name)
    for file in ("predictions.parquet", "submission.parquet", "problems.parquet"):
        assert_close(read(folder, file), read(GOLDEN / name, file), TOLERANCES["blend"])
    assert (folder / "submission.csv").read_bytes() == (GOLDEN / name / "submission.csv").read_bytes()
    if name == "scored":
        assert_numbers_stay(folder / "metrics.json", GOLDEN / name / "metrics.json")


def test_a_dataset_comes_out_the_same(again: Callable[[str], Path]) -> None:
    folder = again("data")
    for file in ("sequences.parquet", "quality.parquet", "frames-*.parquet"):
        assert_close(read(folder, file), read(GOLDEN / "data", file), 1e-6)
    assert_manifest_stays(folder)


def test_features_come_out_the_same(again: Callable[[str], Path]) -> None:
    folder = again("features")
    assert_frame_equal(read(folder, "index.parquet"), read(GOLDEN / "features", "index.parquet"))
    catalogues = [read(path, "catalogue.parquet") for path in (folder, GOLDEN / "features")]
    assert_frame_equal(*(table.select("table", "name", "family", "modality") for table in catalogues))
    for file in ("sequences.parquet", "frames-*.parquet"):
        assert_close(read(folder, file), read(GOLDEN / "features", file), 1e-4)
    assert_manifest_stays(folder)


def test_every_family_of_features_comes_out_the_same(run: Run, tmp_path: Path) -> None:
    run(f"featurize data {tmp_path / 'features'} --workers 1")
    found = make.column_statistics(tmp_path / "features").with_columns(pl.col(pl.Float64).cast(pl.Float32))
    assert_close(found, pl.read_parquet(GOLDEN / "all_features.parquet"), 1e-4)


@pytest.mark.parametrize("model", ["lgbm", "joint"])
def test_trees_come_out_the_same(again: Callable[[str], Path], model: str) -> None:
    folder = again(model)
    for file in ("oof.parquet", "importance.parquet"):
        assert_close(read(folder, file), read(GOLDEN / model, file), 1e-6)
    assert_numbers_stay(folder / "metrics.json", GOLDEN / model / "metrics.json")
    assert_manifest_stays(folder)
    assert {path.name for path in (GOLDEN / model).iterdir()} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("blend", ["blend", "assigned"])
def test_a_blend_comes_out_the_same(again: Callable[[str], Path], blend: str) -> None:
    folder = again(blend)
    assert_close(read(folder, "oof.parquet"), read(GOLDEN / blend, "oof.parquet"), 1e-6)
    for file in ("weights.json", "metrics.json"):
        assert_numbers_stay(folder / file, GOLDEN / blend / file)
    assert_manifest_stays(folder)


def test_the_simulator_gives_the_recordings_of_this_seed(run: Run, tmp_path: Path) -> None:
    run(f"{make.SIMULATE} --split test", tmp_path)
    found = make.thinned(pl.read_parquet(tmp_path / "raw" / "test.parquet"))
    assert_close(found, pl.read_parquet(GOLDEN / "raw" / "test.parquet"), 1.001e-3)  # three decimals are stored
