"""What a notebook shows of an object is a few lines, whatever its size."""

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import bfrbctl
from bfrbctl import reprs
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.artefacts.outputs import Job
from bfrbctl.ensemble.blending import read_mixtures
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.ensemble.nesting import nested
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.features.folder import read_features
from bfrbctl.inspection import inspect
from bfrbctl.models.keras.model import KerasFoldModel
from bfrbctl.models.lightgbm.model import LightGBMModel
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.recordings.dataset import read_recordings
from bfrbctl.reprs import short_repr, written

LONGEST = 1200
HEAVY = re.compile(r"ndarray|DataFrame|bytes")


def classes() -> Iterator[type]:
    """Every public dataclass of the package."""
    for module in pkgutil.walk_packages(bfrbctl.__path__, "bfrbctl."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, type) and value.__module__ == module.name and is_dataclass(value):
                    yield from () if name.startswith("_") else (value,)


def test_no_dataclass_with_arrays_tables_or_bytes_writes_them_out() -> None:
    found = [
        f"{each.__module__}.{each.__name__}"
        for each in classes()
        if any(HEAVY.search(str(item.type)) and "Callable" not in str(item.type) for item in fields(each) if item.repr)
        if hasattr(each.__repr__, "__wrapped__")  # made by dataclass
        if not each.__module__.startswith("bfrbctl.simulation.")
    ]
    assert found == []  # those of the simulation live inside one call of it; what it returns is not exempt


def test_what_the_simulation_returns_is_written_in_short() -> None:
    from bfrbctl.simulation.recording import SimulatedSubject

    assert SimulatedSubject.__repr__ is short_repr


def reachable(value: Any, path: str, visited: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield an object and every object of ours that can be got at from it."""
    if id(value) in visited:
        return
    visited.add(id(value))
    if is_dataclass(value):
        if type(value).__module__.startswith("bfrbctl."):
            yield path, value
        for item in fields(value):
            yield from reachable(getattr(value, item.name), f"{path}.{item.name}", visited)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value[:20]):
            yield from reachable(each, f"{path}[{number}]", visited)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from reachable(each, f"{path}[{key}]", visited)


def test_whatever_a_notebook_can_hold_is_a_few_lines(
    dataset_folder: Folder, feature_folder: Folder, model_folders: tuple[Folder, Folder], blend_folder: Folder
) -> None:
    recordings, _ = read_recordings(dataset_folder, dataset_folder.read_together(SEQUENCES), 0)
    predictor = Predictor.open(blend_folder.path)
    scenarios = oof.read_oof(blend_folder)
    part = scenarios["all"]
    held = {
        "folders": [dataset_folder, feature_folder, *model_folders, blend_folder],
        "recordings": recordings,
        "features": read_features(feature_folder),
        "predictor": predictor,
        "predictions": predictor.predict_batch(recordings),
        "mixtures": read_mixtures(blend_folder),
        "oof": scenarios,
        "nested": nested([part.proba], part, predictor.targets, BlendConfig()),
        "views": [inspect(what, dataset_folder.path) for what in ("dataset", "folds", "sequence")],
        "classes": ClassSpace.of([f"gesture number {n}" for n in range(102)], [True] * 102),
        "job": Job("model", {f"setting_{n}": "x" * 500 for n in range(200)}, command=("word",) * 1000),
    }
    sizes = {path: len(repr(each)) for path, each in reachable(held, "", set())}
    assert len(sizes) > 40
    assert {path: size for path, size in sizes.items() if size > LONGEST} == {}


def test_a_predictor_tells_what_it_is(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    text = " ".join(repr(Predictor.open(blend_folder.path)).split())
    parts = (str(blend_folder.path), "kind='blend'", "'soft': 'toy'", "scenarios=('all', 'imu')", "rate_hz=10.0")
    assert [each for each in parts if each not in text] == []
    assert "and 15 more" in text or "classes=(" in text
    assert "kind='model'" in repr(Predictor.open(model_folders[0].path))


def test_models_of_trees_and_networks_are_written_in_short() -> None:
    assert LightGBMModel.__repr__ is KerasFoldModel.__repr__ is short_repr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((3, 4), np.float32), "float32 (3, 4)"),
        (np.float64(0.5), repr(np.float64(0.5))),
        (pl.DataFrame({"a": [1, 2]}), "table of 2 rows, 1 columns"),
        (b"1234", "4 bytes"),
        (tuple(range(20)), "(0, 1, 2, 3, 4, 5, 6, 7 and 12 more)"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': 1 items}}"),
        (Path("x") / "y", "'x/y'"),
        (set(), "{}"),
        ([], "[]"),
        (len, "<len>"),
    ],
    ids=str,
)
def test_a_value_is_cut_short(value: Any, text: str) -> None:
    assert written("X", {"a": value}) == f"X(a={text})"


def test_the_example_of_a_short_representation_is_true() -> None:
    assert doctest.testmod(reprs).failed == 0
