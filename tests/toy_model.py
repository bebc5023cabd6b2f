"""A kind of model that trains in no time, for tests of what surrounds models: softmax of distance to class means.

It learns in steps: after step i of n its means are those of the first i/n of the training sequences of each class.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bfrbctl.config import Settings
from bfrbctl.evaluation.selection import Curve, Rule, Select
from bfrbctl.models.interface import FoldTask, HistoryRow, Kind
from bfrbctl.recordings.dataset import FeatureBatch


class Config(Settings):
    sharpness: float = 1.0
    stop_at_fold: int = -1
    n_steps: int = 1
    select: Select = "last"
    why_last: str = ""

    STEP: ClassVar[str] = "step"

    @property
    def rule(self) -> Rule:
        return Rule()


@dataclass(frozen=True)
class Toy:
    """Means after every step: (n_steps, n_classes, n_features); it predicts with the last ones."""

    means: np.ndarray
    scale: np.ndarray
    sharpness: float
    curve: Curve | None = None

    @property
    def summary(self) -> Mapping[str, Any]:
        return {"steps": len(self.means)}

    @property
    def history(self) -> list[HistoryRow]:
        return [{"fold": 0, "step": step + 1, "score": 0.5} for step in range(len(self.means))]

    def predict_proba(self, batch: FeatureBatch) -> np.ndarray:
        scaled = np.nan_to_num(batch.table / self.scale)
        distance = ((scaled[:, None] - self.means[-1][None]) ** 2).sum(axis=2)
        logits = -self.sharpness * np.sqrt(distance)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)

    def encode(self) -> dict[str, bytes]:
        buffer = io.BytesIO()
        np.savez(buffer, means=self.means, scale=self.scale, sharpness=np.array(self.sharpness))
        return {"toy.npz": buffer.getvalue()}

    def each_seed(self) -> "list[Toy]":
        return [self]

    def importance(self) -> None:
        return None

    def after(self, step: int) -> "Toy":
        return Toy(self.means[:step], self.scale, self.sharpness)


def fit(task: FoldTask, config: Config) -> Toy:
    if task.fold == config.stop_at_fold:
        raise KeyboardInterrupt
    scale = np.nan_to_num(np.nanstd(task.train.table, axis=0), nan=1.0) + 1e-6
    table = np.nan_to_num(task.train.table / scale)
    rows = [np.flatnonzero(task.train_labels == k) for k in range(len(task.classes))]
    parts = [[own[: -(-len(own) * step // config.n_steps)] for own in rows] for step in range(1, config.n_steps + 1)]
    means = np.stack([np.stack([table[own].mean(axis=0) for own in part]) for part in parts])
    for step in range(1, config.n_steps + 1):
        task.on_progress({"fold": task.fold, "step": step, "score": 0.5})
    model = Toy(means, scale, config.sharpness)
    batches = {"all": task.valid, "imu": task.valid.imu_only()}
    steps = [model.after(step) for step in range(1, config.n_steps + 1)]
    probas = {name: [each.predict_proba(batch) for each in steps] for name, batch in batches.items()}
    curve = Curve(
        {name: np.array([task.score(proba).score for proba in each]) for name, each in probas.items()},
        {name: np.array([task.loss(proba) for proba in each]) for name, each in probas.items()},
    )
    return Toy(means, scale, config.sharpness, curve)


def load(files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> Toy:
    with np.load(io.BytesIO(files["toy.npz"]), allow_pickle=False) as arrays:
        return Toy(arrays["means"], arrays["scale"], float(arrays["sharpness"]))


def load_step(files: Mapping[str, bytes], step: int, *, classes: tuple[str, ...]) -> Toy:
    return load(files, classes=classes).after(step)


KIND = Kind("toy", Config, frozenset({"table"}), fit, load, load_step=load_step)
