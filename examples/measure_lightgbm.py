"""Measure the LightGBM member on a feature folder: the figures of docs/lightgbm.md.

    python examples/measure_lightgbm.py features/ --reference-folds 1

Trains every fold with the defaults, with each change named in VARIANTS, and, on the first folds, what one would write
without this package: LGBMClassifier with its own defaults on the same rows. Prints one table row a training, with the
out-of-fold scores of both scenarios, then the F1 of every class, in Markdown.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bfrbctl import oof
from bfrbctl.dataset import FeatureBatch, read_features
from bfrbctl.folders import open_folder
from bfrbctl.metrics import f1_by_class, log_loss, merged_labels, score_proba
from bfrbctl.models import FoldTask
from bfrbctl.models.lightgbm_library import lgb, silence
from bfrbctl.models.lightgbm_model import Config, fit
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY, NON_TARGET, SCENARIOS

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "stop_on=logloss": {"stop_on": "logloss"},
    "modality_dropout=0": {"modality_dropout": 0.0},
}


@dataclass
class Measured:
    """Out-of-fold predictions of one way to train, and what they cost."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    rounds: list[int] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    probas: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in SCENARIOS})

    def add(self, other: "Measured") -> None:
        """Add what was measured on another fold."""
        self.seconds += other.seconds
        self.processor_seconds += other.processor_seconds
        self.rounds += other.rounds
        self.truth += other.truth
        for scenario, probas in other.probas.items():
            self.probas[scenario] += probas


def fold_tasks(path: Path, seed: int) -> Iterator[FoldTask]:
    folder = open_folder(path, "features")
    index, batch = read_features(folder, parts=frozenset({"table"}))
    classes = tuple(folder.content["classes"])
    labels = oof.class_positions(index["gesture"].to_list(), classes)
    folds = index["fold"].to_numpy()
    for fold in np.unique(folds).tolist():
        fitted, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        yield FoldTask(
            fold=fold,
            classes=classes,
            targets=tuple(folder.content["targets"]),
            train=batch.take(fitted),
            train_labels=labels[fitted],
            valid=batch.take(held_out),
            valid_labels=labels[held_out],
            seed=seed,
            rate_hz=float(folder.content["rate_hz"]),
            scratch=path,
            on_progress=lambda row: None,
        )


def train_ours(task: FoldTask, settings: Mapping[str, Any], into: Measured) -> None:
    started, processor = time.perf_counter(), time.process_time()
    model = fit(task, Config(**settings))
    into.seconds += time.perf_counter() - started
    into.processor_seconds += time.process_time() - processor
    into.rounds += model.summary["best_round"]
    keep(
        into, task, {ALL_SENSORS: model.predict_proba(task.valid), IMU_ONLY: model.predict_proba(task.valid.imu_only())}
    )


def train_plain(task: FoldTask, settings: Mapping[str, Any], into: Measured) -> None:
    started, processor = time.perf_counter(), time.process_time()
    model = lgb.LGBMClassifier(verbosity=-1, **settings).fit(task.train.table, task.train_labels)
    into.seconds += time.perf_counter() - started
    into.processor_seconds += time.process_time() - processor
    into.rounds.append(model.n_estimators)
    keep(into, task, {ALL_SENSORS: plain_proba(model, task.valid), IMU_ONLY: plain_proba(model, task.valid.imu_only())})


def plain_proba(model: Any, batch: FeatureBatch) -> np.ndarray:
    return np.asarray(model.booster_.predict(batch.table))


def keep(into: Measured, task: FoldTask, probas: Mapping[str, np.ndarray]) -> None:
    into.truth.append(task.valid_labels)
    for scenario, proba in probas.items():
        into.probas[scenario].append(proba)


def table_row(name: str, measured: Measured, targets: tuple[bool, ...]) -> str:
    truth = np.concatenate(measured.truth)
    probas = {scenario: np.concatenate(each) for scenario, each in measured.probas.items()}
    scores = [score_proba(proba, truth, targets).score for proba in probas.values()]
    losses = [log_loss(proba, truth) for proba in probas.values()]
    n_folds = len(measured.truth)
    figures = [f"{value:.4f}" for value in (*scores, float(np.mean(scores)))] + [f"{value:.3f}" for value in losses]
    cost = [f"{measured.seconds / n_folds:.0f}", f"{measured.processor_seconds / n_folds:.0f}"]
    return " | ".join([f"| {name}", str(n_folds), *figures, *cost, f"{np.mean(measured.rounds):.0f} |"])


def class_rows(measured: Measured, classes: tuple[str, ...], targets: tuple[bool, ...]) -> list[str]:
    truth = merged_labels(np.concatenate(measured.truth), targets)
    names = [name for name, target in zip(classes, targets, strict=True) if target] + [NON_TARGET]
    columns = [
        f1_by_class(truth, merged_labels(np.concatenate(each).argmax(axis=1), targets), len(names))
        for each in measured.probas.values()
    ]
    return [f"| {name} | {columns[0][i]:.3f} | {columns[1][i]:.3f} |" for i, name in enumerate(names)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="feature folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, default=99, help="so many of the first folds")
    parser.add_argument("--reference-folds", type=int, default=0, help="plain LGBMClassifier on so many first folds")
    parser.add_argument("--reference-rounds", type=int, default=100, help="its n_estimators; 100 is its default")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    chosen = parser.parse_args()
    silence()
    results: dict[str, Measured] = {}
    print("| training | folds | all | imu | mean | logloss all | imu | s a fold | cpu s a fold | rounds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for place, task in enumerate(fold_tasks(chosen.features, chosen.seed)):
        if place >= chosen.folds:
            break
        for name in chosen.variants:
            one = Measured()
            train_ours(task, VARIANTS[name], one)
            print(table_row(f"{name}, fold {task.fold}", one, task.targets), flush=True)
            results.setdefault(name, Measured()).add(one)
        if place < chosen.reference_folds:
            plain = Measured()
            train_plain(task, {"n_estimators": chosen.reference_rounds}, plain)
            print(table_row(f"LGBMClassifier, fold {task.fold}", plain, task.targets), flush=True)
    for name, measured in results.items():
        print(table_row(f"{name}, all of these", measured, task.targets))
    print("\n| F1, defaults | all | imu |\n|---|---|---|")
    print("\n".join(class_rows(results[chosen.variants[0]], task.classes, task.targets)))


if __name__ == "__main__":
    main()
