"""A model trained here, packed, and used as in Kaggle's notebooks: older libraries, no internet, the wheel alone."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.evaluation.oof import proba_columns
from tests.packages import needed_by_the_wheel

ROOT = Path(__file__).parent.parent.parent
CONSTRAINTS = ROOT / "constraints-kaggle.txt"
PINNED = ("tensorflow", "keras", "numpy", "lightgbm", "polars", "pyarrow", "scikit-learn", "scipy", "typer")

# What the competition's package does, without its transport: one sequence a call, in an order of its own.
GATEWAY = """
import random

import polars as pl


class CMIInferenceServer:
    def __init__(self, *listeners):
        self.listeners = {listener.__name__: listener for listener in listeners}

    def run_local_gateway(self, data_paths):
        frames, subjects = (pl.read_csv(path) for path in data_paths)
        names = sorted(frames["sequence_id"].unique())
        random.Random(3).shuffle(names)
        rows = []
        for name in names:
            sequence = frames.filter(pl.col("sequence_id") == name)
            subject = subjects.filter(pl.col("subject") == sequence["subject"][0])
            gesture = self.listeners["predict"](sequence, subject)
            assert type(gesture) is str
            rows.append((name, gesture))
        pl.DataFrame(rows, schema=["sequence_id", "gesture"], orient="row").write_parquet("submission.parquet")
"""


def call(python: Path | str, *words: object, folder: Path) -> str:
    """Run Python far from the checkout: our own with the checkout on its path, Kaggle's without."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "KERAS_BACKEND")}
    if python == sys.executable:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [str(python), *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def bfrbctl(python: Path | str, folder: Path, *words: object) -> None:
    call(python, "-m", "bfrbctl", *words, "--quiet", folder=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated recordings, a small model of each kind, their blend and the packed blend, all made by the commands."""
    base = tmp_path_factory.mktemp("trained")
    few = ("--set", "test_subjects=1", "--split", "both", "--format", "csv")
    bfrbctl(sys.executable, base, "simulate", "raw", "--subjects", 4, *few)
    thin(base / "raw", 17)
    families = [word for name in ("presence", "moments", "motion", "distance") for word in ("--families", name)]
    bfrbctl(sys.executable, base, "prepare", "raw", "data", "--folds", 2)
    bfrbctl(sys.executable, base, "featurize", "data", "features", *families, "--workers", 1)
    trees = ("--set", "n_rounds=12", "--set", "min_data_in_leaf=2")
    bfrbctl(sys.executable, base, "train", "lgbm", "features", "lgbm", *trees)
    bfrbctl(sys.executable, base, "train", "keras", "features", "keras", "--epochs", 2, "--set", "width=0.1")
    bfrbctl(sys.executable, base, "oof-blend", "lgbm", "keras", "blend")
    names = ("--owner", "jane", "--slug", "my-bfrb-blend", "--title", "My BFRB blend")
    bfrbctl(sys.executable, base, "pack", "blend", "upload", *names)
    return base


def thin(raw: Path, kept: int) -> None:
    """Keep the sequences of each subject whose number is a multiple of what leaves about `kept` gestures' worth."""
    (raw / "manifest.json").unlink()  # it is a raw folder of files now, as one from elsewhere
    for split in ("train", "test"):
        frames = pl.read_csv(raw / f"{split}.csv", infer_schema_length=None)
        names = frames["sequence_id"].unique().sort()
        step = 3 if split == "train" else 102 // kept
        frames.filter(pl.col("sequence_id").is_in(names.gather_every(step).to_list())).write_csv(raw / f"{split}.csv")


@pytest.fixture(scope="module")
def kaggle_python(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an environment of the versions that Kaggle has, with all that bfrbctl needs but without bfrbctl itself."""
    folder = tmp_path_factory.mktemp("kaggle")
    needed = needed_by_the_wheel(next((trained / "upload").glob("*.whl")).read_bytes())
    call(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    quiet = ("--quiet", "--disable-pip-version-check")
    call(python, "-m", "pip", "install", *quiet, "--constraint", CONSTRAINTS, *needed, folder=folder)
    return python


@pytest.fixture(scope="module")
def installed(kaggle_python: Path, trained: Path) -> Path:
    """Install the packed wheel alone, offline."""
    wheel = next((trained / "upload").glob("*.whl"))
    call(kaggle_python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, folder=trained)
    return kaggle_python


@pytest.mark.slow
def test_the_environment_is_that_of_kaggle(installed: Path, trained: Path) -> None:
    script = (
        f"import importlib.metadata as m, json; print(json.dumps({{name: m.version(name) for name in {PINNED!r}}}))"
    )
    versions = json.loads(call(installed, "-c", script, folder=trained))
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines())
    assert versions == {name: pinned[name] for name in PINNED}
    where = call(installed, "-c", "import bfrbctl; print(bfrbctl.__file__)", folder=trained).strip()
    assert Path(where).is_relative_to(installed.parent.parent)


@pytest.mark.slow
def test_submission_answers_the_gateway_with_the_packed_wheel_alone(
    kaggle_python: Path, trained: Path, tmp_path: Path
) -> None:
    competition = tmp_path / "competition"
    (competition / "kaggle_evaluation").mkdir(parents=True)
    (competition / "kaggle_evaluation" / "__init__.py").touch()
    (competition / "kaggle_evaluation" / "cmi_inference_server.py").write_text(GATEWAY)
    for name in ("test.csv", "test_demographics.csv"):
        (competition / name).write_bytes((trained / "raw" / name).read_bytes())
    call(kaggle_python, trained / "upload" / "submission.py", competition, folder=tmp_path)
    predictions = pl.read_parquet(tmp_path / "submission.parquet").sort("sequence_id")
    bfrbctl(sys.executable, tmp_path, "predict", trained / "raw", trained / "blend", "here")
    assert predictions.equals(pl.read_parquet(tmp_path / "here" / "submission.parquet").sort("sequence_id"))
    gestures = json.loads((trained / "upload" / "manifest.json").read_text())["content"]["classes"]
    assert set(predictions["gesture"]) <= set(gestures)
    frames = pl.read_csv(competition / "test.csv", infer_schema_length=None)
    assert predictions["sequence_id"].to_list() == frames["sequence_id"].unique().sort().to_list()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lgbm", "keras", "upload"])
def test_probabilities_are_the_same_under_kaggles_versions(
    model: str, installed: Path, trained: Path, tmp_path: Path
) -> None:
    for name, python in (("here", sys.executable), ("there", installed)):
        bfrbctl(python, tmp_path, "predict", trained / "raw", trained / model, name)
    here, there = (read_probabilities(tmp_path / name) for name in ("here", "there"))
    assert here[0] == there[0]
    assert np.isfinite(here[1]).all()
    np.testing.assert_allclose(there[1], here[1], rtol=0, atol=1e-5)


def read_probabilities(folder: Path) -> tuple[Sequence[str], np.ndarray]:
    table = pl.read_parquet(folder / "predictions.parquet").sort("sequence_id")
    columns = proba_columns(sum(name.startswith("p_") for name in table.columns))
    return table["sequence_id"].to_list(), table.select(columns).to_numpy()


@pytest.mark.slow
def test_the_wheel_made_by_an_installed_package_is_the_one_made_by_the_checkout(installed: Path, trained: Path) -> None:
    script = (
        "import hashlib; from bfrbctl.prediction.wheel import build_wheel; "
        "print(hashlib.sha256(build_wheel()[1]).hexdigest())"
    )
    (wheel,) = (trained / "upload").glob("*.whl")
    assert call(installed, "-c", script, folder=trained).strip() == hashlib.sha256(wheel.read_bytes()).hexdigest()
