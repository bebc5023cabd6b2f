"""Folders that many tests look at, made once a session: raw -> dataset -> features -> two toy models -> blend."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import settings

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.blending import blend
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.models import interface
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests import toy_model
from tests.faults.counting import pytest_terminal_summary  # noqa: F401  a hook: counts of faults at the end
from tests.raw_recordings import raw_frames, write_raw

# Shared machines are slow at times, so no example has a deadline. CI draws the same examples every time: what it finds
# is of the change under test; elsewhere every run looks for new ones.
settings.register_profile("search", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "search")


@pytest.fixture(scope="session", autouse=True)
def toy_kind() -> Iterator[None]:
    """Let the models' registry know the toy kind."""
    interface.KINDS["toy"] = "tests.toy_model"
    yield
    del interface.KINDS["toy"]


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_raw(tmp_path_factory.mktemp("raw"), raw_frames(subjects=6))
    test = raw_frames(subjects=2, seed=9, labelled=False).with_columns(pl.col("sequence_id").str.replace("_0", "_9"))
    return write_raw(folder, test, split="test")


@pytest.fixture(scope="session")
def dataset_folder(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    config = PrepareConfig(folds=3, rows_per_file=600)
    splits = find_splits(raw_folder)
    job = Job("dataset", as_mapping(config), split_refs(splits))
    with open_output(tmp_path_factory.mktemp("data") / "data", job) as output:
        return prepare(splits, output, config)


@pytest.fixture(scope="session")
def feature_folder(dataset_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    config = FeatureConfig(families=("presence", "motion", "temperature", "distance", "moments"))
    job = Job("features", {**as_mapping(config), "table": True}, (dataset_folder.ref(),))
    with open_output(tmp_path_factory.mktemp("features") / "features", job) as output:
        return featurize(dataset_folder, output, config)


def train_toy(features: Folder, path: Path, *, resume: bool = False, config: toy_model.Config | None = None) -> Folder:
    run = CrossValidation(features, "toy", toy_model, config or toy_model.Config())
    job = Job("model", {"model": "toy"}, (features.ref(),))
    with open_output(path, job, resume=resume) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path, "model")


@pytest.fixture(scope="session")
def model_folders(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder]:
    base = tmp_path_factory.mktemp("models")
    sharp = toy_model.Config(sharpness=4.0)
    return train_toy(feature_folder, base / "soft"), train_toy(feature_folder, base / "sharp", config=sharp)


@pytest.fixture(scope="session")
def blend_folder(model_folders: tuple[Folder, Folder], tmp_path_factory: pytest.TempPathFactory) -> Folder:
    job = Job("blend", {}, tuple(folder.ref() for folder in model_folders))
    with open_output(tmp_path_factory.mktemp("blends") / "blend", job) as output:
        return blend(model_folders, output, BlendConfig())
