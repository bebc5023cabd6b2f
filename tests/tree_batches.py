"""Small batches, tasks and settings that trees learn from in a moment."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bfrbctl.models.interface import FoldTask, HistoryRow
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.recordings.dataset import Column, FeatureBatch

CLASSES = ("Cheek - pinch skin", "Eyebrow - pull hair", "Wave hello", "Text on phone")
TARGETS = (True, True, False, False)
N_FEATURES = 12
QUICK = {"n_rounds": 12, "feature_fraction": 0.3, "num_leaves": 5, "min_data_in_leaf": 5, "threads": 1}


def batch(n_sequences: int, seed: int, *, modalities: tuple[str, ...] = ("imu", "imu+tof", "thm")) -> FeatureBatch:
    rng = np.random.default_rng(seed)
    table = (rng.normal(size=(n_sequences, N_FEATURES)) + labels(n_sequences)[:, None] * 0.4).astype(np.float32)
    table[rng.random(table.shape) < 0.05] = np.nan
    columns = tuple(
        Column(f"feature [{i}] = µ", "motion", modalities[i % len(modalities)], "1", "none") for i in range(N_FEATURES)
    )
    return FeatureBatch(
        sequence_ids=tuple(f"SEQ_{seed}_{i}" for i in range(n_sequences)),
        offsets=np.zeros(n_sequences + 1, dtype=np.int64),
        table=table,
        features=columns,
        frames=np.zeros((0, 0), dtype=np.float32),
        channels=(),
        tof=np.zeros((0, 0, 64), dtype=np.uint8),
        phase=np.zeros(0, dtype=np.uint8),
    )


def labels(n_sequences: int) -> np.ndarray:
    return (np.arange(n_sequences, dtype=np.int64) * 7) % len(CLASSES)


def task(**changes: Any) -> FoldTask:
    rows: list[HistoryRow] = []
    plain = FoldTask(
        fold=0,
        classes=CLASSES,
        targets=TARGETS,
        train=batch(160, 1),
        train_labels=labels(160),
        valid=batch(70, 2),
        valid_labels=labels(70),
        seed=5,
        rate_hz=10.0,
        scratch=Path("unused"),
        on_progress=rows.append,
    )
    return replace(plain, **changes)


def quick(**settings_: Any) -> Config:
    return Config(**{**QUICK, **settings_})


def without_seconds(rows: list[HistoryRow]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
