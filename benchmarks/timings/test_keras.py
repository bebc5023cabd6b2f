"""How long the Keras member's parts take; run by `make bench`."""

from typing import Any

import numpy as np
import pytest

from bfrbctl.models.keras.inputs import fit_scaler, plan_inputs, ready
from bfrbctl.models.keras.learning.augmentation import TrainingData, training_batch
from bfrbctl.models.keras.learning.epochs import augmentation_of
from bfrbctl.models.keras.learning.optimizer import FlatAdamW
from bfrbctl.models.keras.learning.turning import find_turned
from bfrbctl.models.keras.model import KerasFoldModel, fit, load
from bfrbctl.models.keras.network.building import build_network
from bfrbctl.models.keras.network.layout import NETWORKS, NetworkSpec
from bfrbctl.models.keras.settings import Config
from tests.keras_batches import made, task

BATCH, TIME, CLASSES = 64, 96, 18


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> KerasFoldModel:
    fitted = fit(task(tmp_path_factory.mktemp("scratch") / "fold"), Config(epochs=1, batch_size=16))
    assert isinstance(fitted, KerasFoldModel)
    return fitted


@pytest.mark.parametrize("name", NETWORKS)
def test_training_step(benchmark: Any, name: str) -> None:
    network = build_network(NetworkSpec(name, n_imu=20, n_other=25, n_tof=5, n_classes=CLASSES), seed=0).train
    optimizer = FlatAdamW(1e-3, decay=3e-3, l2=1e-5, clip=2.0, memory=0.99)
    network.compile(optimizer, loss={"gesture": "mse"}, jit_compile=False)
    rng = np.random.default_rng(0)
    inputs = {
        "frames": rng.normal(size=(BATCH, TIME, 45)).astype(np.float32),
        "mask": np.ones((BATCH, TIME, 1), dtype=np.float32),
        "tof": rng.integers(0, 256, (BATCH, TIME, 5, 64)).astype(np.uint8),
        "weight": np.ones(BATCH, dtype=np.float32),
        "partner": np.arange(BATCH, dtype=np.int32),
    }
    truth = {"gesture": np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, BATCH)]}
    network.train_on_batch(inputs, truth)
    benchmark.pedantic(network.train_on_batch, args=(inputs, truth), rounds=10, warmup_rounds=2)


def test_making_a_batch(benchmark: Any) -> None:
    batch, labels = made(512, n_tof=5)
    plan = plan_inputs(batch, length=0, pad="left")
    turned = find_turned(plan.imu)
    data = ready(batch, plan, fit_scaler(batch, plan, turned))
    postures = np.zeros((512, 0), dtype=np.float32)
    source = TrainingData(data, np.eye(4, dtype=np.float32)[labels], postures, plan, turned)
    benchmark(lambda: training_batch(source, np.arange(BATCH), augmentation_of(Config()), np.random.default_rng(0)))


def test_predicting_one_sequence(benchmark: Any, model: KerasFoldModel) -> None:
    one = made(1)[0]
    proba = benchmark(model.predict_proba, one)
    assert proba.shape == (1, 4)


def test_predicting_a_thousand_sequences(benchmark: Any, model: KerasFoldModel) -> None:
    many = made(1000)[0]
    proba = benchmark.pedantic(model.predict_proba, args=(many,), rounds=3, warmup_rounds=1)
    assert proba.shape == (1000, 4)


def test_reading_a_model(benchmark: Any, model: KerasFoldModel) -> None:
    files = model.encode()
    loaded = benchmark(load, files, classes=model.spec.classes)
    assert loaded.spec == model.spec
