"""How long LightGBM's parts take; run by `make bench`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfrbctl.models.interface import FoldTask
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.model import LightGBMModel, fit, load
from bfrbctl.models.lightgbm.text import checked
from bfrbctl.recordings.dataset import Column, FeatureBatch

N_CLASSES = 18
N_FEATURES = 300
CLASSES = tuple(f"gesture {i}" for i in range(N_CLASSES))


def batch(n_sequences: int, seed: int) -> tuple[FeatureBatch, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n_sequences)
    centres = np.random.default_rng(0).normal(size=(N_CLASSES, N_FEATURES)) * 0.3
    table = (centres[labels] + rng.normal(size=(n_sequences, N_FEATURES))).astype(np.float32)
    columns = tuple(Column(f"f{i}", "motion", ("imu", "tof")[i % 2], "1", "none") for i in range(N_FEATURES))
    empty = np.zeros((0, 0), dtype=np.float32)
    offsets = np.zeros(n_sequences + 1, dtype=np.int64)
    tof, phase = np.zeros((0, 0, 64), dtype=np.uint8), np.zeros(0, dtype=np.uint8)
    ids = tuple(f"SEQ_{i}" for i in range(n_sequences))
    return FeatureBatch(ids, offsets, table, columns, empty, (), tof, phase), labels


def task() -> FoldTask:
    (train, train_labels), (valid, valid_labels) = batch(2000, 1), batch(500, 2)
    targets = tuple(i < 8 for i in range(N_CLASSES))
    progress: Any = lambda row: None  # noqa: E731
    return FoldTask(0, CLASSES, targets, train, train_labels, valid, valid_labels, 0, 10.0, Path("unused"), progress)


@pytest.fixture(scope="module")
def model() -> LightGBMModel:
    return fit(task(), Config(n_rounds=100))


def test_training_of_ten_rounds(benchmark: Any) -> None:
    fold = task()
    benchmark.pedantic(fit, args=(fold, Config(n_rounds=10)), rounds=3)


def test_checking_a_text(benchmark: Any, model: LightGBMModel) -> None:
    trees = benchmark(checked, model.texts[0], n_features=N_FEATURES, n_classes=N_CLASSES)
    assert trees.n_rounds == model.summary["rounds"][0]


def test_loading(benchmark: Any, model: LightGBMModel) -> None:
    assert benchmark(load, model.encode(), classes=CLASSES).texts == model.texts


@pytest.mark.parametrize("n_sequences", [1, 500])
def test_prediction(benchmark: Any, model: LightGBMModel, n_sequences: int) -> None:
    rows, _ = batch(n_sequences, 3)
    assert benchmark(model.predict_proba, rows).shape == (n_sequences, N_CLASSES)
