"""Measure the LightGBM member on a feature folder: the figures of docs/lightgbm.md.

    python examples/measure_lightgbm.py features/ kept/
    python examples/measure_lightgbm.py features/ kept/ --folds 0 1 --ways defaults num_leaves=15,learning_rate=0.05
    python examples/measure_lightgbm.py features/ kept/ --folds 0 --ways defaults plain
    python examples/measure_lightgbm.py features/ kept/ --ways defaults first,feature_fraction=0.3

A way to train is `defaults`, settings of the member that differ from them, joined by commas, or `plain`: what one would
write without this package, LGBMClassifier with its own defaults on the same rows. `first` before the settings leaves
a first table of features: mean, std, min and max over whole recordings, and the wearer. Every fold of every way is
kept in a file as soon as it is trained, and read from there the next time, so that a long list can be measured in
parts.
Prints Markdown: a row a way, with the out-of-fold scores of both scenarios and what a fold cost, a row a fold, and the
F1 of every class of the first way.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from feature_ablation import FIRST

from bfrbctl import oof
from bfrbctl.config import build
from bfrbctl.dataset import FeatureBatch
from bfrbctl.feature_folder import read_features
from bfrbctl.folders import open_folder
from bfrbctl.metrics import f1_by_class, log_loss, merged_labels, score_proba
from bfrbctl.models import FoldTask
from bfrbctl.models.lightgbm_library import lgb, silence
from bfrbctl.models.lightgbm_model import Config, fit
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY, NON_TARGET

DEFAULTS, PLAIN, FIRST_TABLE = "defaults", "plain", "first"


@dataclass(frozen=True)
class Measured:
    """Held-out predictions of one way to train on one fold (or more, put together), and what a fold cost."""

    truth: np.ndarray
    proba_all: np.ndarray
    proba_imu: np.ndarray
    rounds: np.ndarray
    seconds: np.ndarray
    processor_seconds: np.ndarray

    @classmethod
    def together(cls, parts: Sequence["Measured"]) -> "Measured":
        """Put folds one behind the other."""
        return cls(*(np.concatenate([vars(part)[name] for part in parts]) for name in cls.__dataclass_fields__))


def fold_task(path: Path, fold: int, seed: int) -> FoldTask:
    """Give the task of one fold, as `bfrbctl train lgbm` makes it."""
    folder = open_folder(path, "features")
    index, batch = read_features(folder, parts=frozenset({"table"}))
    classes = tuple(folder.content["classes"])
    labels = oof.class_positions(index["gesture"].to_list(), classes)
    folds = index["fold"].to_numpy()
    fitted, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    return FoldTask(
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


def train(task: FoldTask, way: str) -> Measured:
    """Train one fold one way; the reading of the features is not timed."""
    words = way.split(",")
    if words[0] == FIRST_TABLE:
        task = replace(task, train=first_table(task.train), valid=first_table(task.valid))
    settings = [word for word in words if word not in (DEFAULTS, FIRST_TABLE)]
    started, processor = time.perf_counter(), time.process_time()
    if way == PLAIN:
        model: Any = lgb.LGBMClassifier(verbosity=-1).fit(task.train.table, task.train_labels)
        rounds = [model.n_estimators]
    else:
        model = fit(task, build(Config, overrides=settings))
        rounds = model.summary["best_round"]
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - processor

    def predicted(batch: FeatureBatch) -> np.ndarray:
        return np.asarray(model.booster_.predict(batch.table) if way == PLAIN else model.predict_proba(batch))

    return Measured(
        truth=task.valid_labels,
        proba_all=predicted(task.valid),
        proba_imu=predicted(task.valid.imu_only()),
        rounds=np.asarray(rounds),
        seconds=np.array([seconds]),
        processor_seconds=np.array([processor_seconds]),
    )


def first_table(batch: FeatureBatch) -> FeatureBatch:
    """Leave the features that anybody would begin with."""
    kept = [i for i, column in enumerate(batch.features) if column.name.endswith(FIRST) or column.family == "person"]
    return replace(batch, table=batch.table[:, kept], features=tuple(batch.features[i] for i in kept))


def measured(chosen: argparse.Namespace, way: str, fold: int) -> Measured:
    """Read what was kept of a way and fold, or train it and keep it."""
    file = chosen.kept / f"{way}_seed{chosen.seed}_fold{fold}.npz"
    if not file.exists():
        found = train(fold_task(chosen.features, fold, chosen.seed), way)
        np.savez_compressed(file, **vars(found))
    with np.load(file) as stored:
        return Measured(**stored)


def table_row(name: str, found: Measured, targets: Sequence[bool]) -> str:
    probas = {ALL_SENSORS: found.proba_all, IMU_ONLY: found.proba_imu}
    scores = [score_proba(proba, found.truth, targets).score for proba in probas.values()]
    losses = [log_loss(proba, found.truth) for proba in probas.values()]
    figures = [f"{value:.4f}" for value in (*scores, float(np.mean(scores)))] + [f"{value:.3f}" for value in losses]
    cost = [f"{np.mean(found.seconds):.0f}", f"{np.mean(found.processor_seconds):.0f}"]
    return " | ".join([f"| {name}", *figures, *cost, ", ".join(map(str, found.rounds.tolist())) + " |"])


def class_rows(found: Measured, classes: Sequence[str], targets: Sequence[bool]) -> list[str]:
    truth = merged_labels(found.truth, targets)
    names = [name for name, target in zip(classes, targets, strict=True) if target] + [NON_TARGET]
    columns = [
        f1_by_class(truth, merged_labels(proba.argmax(axis=1), targets), len(names))
        for proba in (found.proba_all, found.proba_imu)
    ]
    return [f"| {name} | {columns[0][i]:.3f} | {columns[1][i]:.3f} |" for i, name in enumerate(names)]


def report(results: Mapping[str, Mapping[int, Measured]], content: Mapping[str, Any]) -> None:
    """Print what was measured."""
    head = "all | imu | mean | logloss all | imu | s a fold | cpu s a fold | rounds |"
    line = "|---|---|---|---|---|---|---|---|---|"
    targets = content["targets"]
    print(f"| settings | {head}\n{line}")
    for way, folds in results.items():
        print(table_row(way, Measured.together(list(folds.values())), targets))
    print(f"\n| fold | {head}\n{line}")
    for way, folds in results.items():
        for fold, found in folds.items():
            print(table_row(f"{way}, fold {fold}", found, targets))
    first, folds = next(iter(results.items()))
    print(f"\n| F1, {first} | all | imu |\n|---|---|---|")
    print("\n".join(class_rows(Measured.together(list(folds.values())), content["classes"], targets)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="feature folder")
    parser.add_argument("kept", type=Path, help="folder that keeps what was measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folds", type=int, nargs="*", help="these folds only")
    parser.add_argument("--ways", nargs="*", default=[DEFAULTS, "stop_on=logloss", "modality_dropout=0"])
    chosen = parser.parse_args()
    chosen.kept.mkdir(parents=True, exist_ok=True)
    silence()
    content = open_folder(chosen.features, "features").content
    folds = range(content["n_folds"]) if chosen.folds is None else chosen.folds
    report({way: {fold: measured(chosen, way, fold) for fold in folds} for way in chosen.ways}, content)


if __name__ == "__main__":
    main()
