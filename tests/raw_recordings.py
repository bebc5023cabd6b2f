"""Small raw recordings made in code: a few subjects, gestures that differ in rhythm, posture and distance."""

from pathlib import Path

import numpy as np
import polars as pl

from bfrbctl.schema import DEMOGRAPHICS, SensorLayout

GESTURES = (
    ("Cheek - pinch skin", "Target", 0.8),
    ("Neck - scratch", "Target", 2.0),
    ("Text on phone", "Non-Target", 1.3),
    ("Wave hello", "Non-Target", 3.0),
)
SMALL_LAYOUT = SensorLayout(thm=(1, 2), tof=(1,))


def raw_frames(
    *,
    subjects: int = 4,
    repeats: int = 2,
    layout: SensorLayout = SMALL_LAYOUT,
    seed: int = 0,
    labelled: bool = True,
    imu_only: bool = False,
) -> pl.DataFrame:
    """A raw table in the study's layout: subjects x gestures x repeats sequences of 20 to 40 frames at 10 Hz."""
    rng = np.random.default_rng(seed)
    parts = []
    number = 0
    for subject in range(subjects):
        for _ in range(repeats):
            for name, kind, hertz in GESTURES:
                part = _sequence(rng, hertz, layout, imu_only=imu_only)
                n = part.height
                labels = {
                    "row_id": [f"SEQ_{number:06d}_{i:06d}" for i in range(n)],
                    "sequence_type": [kind] * n,
                    "sequence_id": [f"SEQ_{number:06d}"] * n,
                    "sequence_counter": list(range(n)),
                    "subject": [f"SUBJ_{subject:06d}"] * n,
                    "orientation": ["Seated Straight"] * n,
                    "behavior": ["Relaxes and moves hand to target location"] * 8 + ["Performs gesture"] * (n - 8),
                    "phase": ["Transition"] * 8 + ["Gesture"] * (n - 8),
                    "gesture": [name] * n,
                }
                parts.append(pl.concat([pl.DataFrame(labels), part], how="horizontal"))
                number += 1
    table = pl.concat(parts)
    return table if labelled else table.drop("sequence_type", "orientation", "behavior", "phase", "gesture")


def _sequence(rng: np.random.Generator, hertz: float, layout: SensorLayout, *, imu_only: bool) -> pl.DataFrame:
    n = int(rng.integers(20, 41))
    time = np.arange(n) / 10
    wave = hertz * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6))
    acc = np.stack([wave, 0.5 * wave, np.full(n, 9.81)], axis=1) + rng.normal(0, 0.1, (n, 3))
    axis = np.stack([0.1 * wave, np.full(n, 0.2), np.full(n, 0.1 * hertz)], axis=1)
    rot = np.concatenate([np.ones((n, 1)), axis], axis=1)
    rot /= np.linalg.norm(rot, axis=1, keepdims=True)
    columns = {f"acc_{name}": acc[:, i] for i, name in enumerate("xyz")}
    columns |= {f"rot_{name}": rot[:, i] for i, name in enumerate("wxyz")}
    for name in layout.thm_columns:
        columns[name] = np.full(n, np.nan) if imu_only else 26 + hertz + rng.normal(0, 0.2, n)
    for name in layout.tof_columns:
        values = np.where(rng.random(n) < 0.4, -1.0, np.clip(np.rint(50 * hertz + rng.normal(0, 5, n)), 0, 249))
        columns[name] = np.full(n, np.nan) if imu_only else values
    return pl.DataFrame(columns).with_columns(pl.all().fill_nan(None).cast(pl.Float32))


def demographics(table: pl.DataFrame) -> pl.DataFrame:
    """Demographics of every subject in a raw table."""
    subjects = table["subject"].unique().sort()
    values = dict(zip(DEMOGRAPHICS, (1, 30, 0, 1, 170.0, 52, 25.0), strict=True))
    return pl.DataFrame({"subject": subjects}).with_columns(pl.lit(value).alias(name) for name, value in values.items())


def write_raw(folder: Path, table: pl.DataFrame, *, split: str = "train", suffix: str = "csv") -> Path:
    """Write a raw folder with one split and its demographics."""
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "csv":
        table.write_csv(folder / f"{split}.csv")
    else:
        table.write_parquet(folder / f"{split}.parquet")
    demographics(table).write_csv(folder / f"{split}_demographics.csv")
    return folder
