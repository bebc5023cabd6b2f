"""Small feature batches with something to learn in them, for the tests of the Keras member."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bfrbctl.arrays.ragged import Float64, Int64, offsets_of
from bfrbctl.models.interface import FoldTask, HistoryRow
from bfrbctl.models.keras.inputs import ready
from bfrbctl.models.keras.model import KerasFoldModel
from bfrbctl.recordings.dataset import Column, FeatureBatch

CLASSES = ("hair", "neck", "text", "wave")
TARGETS = (True, True, False, False)
IMU_NAMES = ("acc_x", "acc_y", "acc_z", "acc_mag", "gyro_x", "gyro_y", "gyro_z")


def column(name: str, modality: str, when_missing: float = float("nan")) -> Column:
    return Column(name, "family", modality, "1", "made for a test", when_missing=when_missing)


def made(n_sequences: int, *, seed: int = 0, n_tof: int = 2, all_sensors: bool = True) -> tuple[FeatureBatch, Int64]:
    """Sequences of 20 to 60 frames whose class shifts acc_x (target or not) and thm_1 (which of the two)."""
    rng = np.random.default_rng(seed)
    offsets = offsets_of(rng.integers(20, 60, n_sequences))
    labels = rng.integers(0, len(CLASSES), n_sequences)
    by_frame = np.repeat(labels, np.diff(offsets))
    n_frames = int(offsets[-1])
    channels = [column(name, "imu") for name in IMU_NAMES]
    if all_sensors:
        channels += [column("thm_1", "thm"), column("tof_1_mean", "tof"), column("tof_present", "tof", 0.0)]
    frames = rng.normal(size=(n_frames, len(channels))).astype(np.float32)
    frames[:, 0] += 1.5 * (by_frame // 2)
    if all_sensors:
        frames[:, -3] += 30.0 + 2.0 * (by_frame % 2)
        frames[rng.random(frames.shape) < 0.02] = np.nan
        frames[:, -1] = 1.0
    tof = rng.integers(0, 250, (n_frames, n_tof if all_sensors else 0, 64)).astype(np.uint8)
    tof[rng.random(n_frames) < 0.1] = 254
    phase = rng.integers(0, 2, n_frames).astype(np.uint8)
    ids = tuple(f"SEQ_{number:06d}" for number in range(n_sequences))
    table = np.zeros((n_sequences, 0), dtype=np.float32)
    return FeatureBatch(ids, offsets, table, (), frames, tuple(channels), tof, phase), labels


def ignore(row: HistoryRow) -> None:
    """Progress that nobody looks at."""


def task(
    scratch: Path, *, on_progress: Callable[[HistoryRow], None] = ignore, seed: int = 3, all_sensors: bool = True
) -> FoldTask:
    train, train_labels = made(80, seed=0, all_sensors=all_sensors)
    valid, valid_labels = made(32, seed=1, all_sensors=all_sensors)
    scratch.mkdir(parents=True, exist_ok=True)
    return FoldTask(
        fold=1,
        classes=CLASSES,
        targets=TARGETS,
        train=train,
        train_labels=train_labels,
        valid=valid,
        valid_labels=valid_labels,
        seed=seed,
        rate_hz=10.0,
        scratch=scratch,
        on_progress=on_progress,
    )


def told_by_keras(model: KerasFoldModel, batch: FeatureBatch) -> Float64:
    """What the networks of a fold answer when Keras computes them, padded, one after the other."""
    from bfrbctl.models.keras.learning.epochs import predict, shared_network
    from bfrbctl.models.keras.network.building import weight_names

    network = shared_network(model.spec.network).network
    names, plan = weight_names(network), model.spec.inputs
    told = []
    for weights in model.members:
        for variable, name in zip(network.predict.weights, names, strict=True):
            variable.assign(weights[name])
        told.append(predict(network, ready(batch, plan, model.scaler), plan, model.spec.network.n_classes))
    return np.mean(told, axis=0, dtype=np.float64)
