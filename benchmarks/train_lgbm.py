"""Measure the LightGBM member on a feature folder: the figures of docs/lightgbm.md.

    python benchmarks/train_lgbm.py features/ kept/
    python benchmarks/train_lgbm.py features/ kept/ --ways defaults num_leaves=15,learning_rate=0.05
    python benchmarks/train_lgbm.py features/ kept/ --folds 0 1 --ways defaults plain
    python benchmarks/train_lgbm.py features/ kept/ --ways defaults first,feature_fraction=0.3

A way to train is `defaults`, settings of the member that differ from them, joined by commas, or `plain`: what one would
write without this package, LGBMClassifier with its own defaults on the same rows. `first` before the settings leaves
a first table of features: mean, std, min and max over whole recordings, and the wearer.
Every fold of every way is trained for all its rounds and kept in a file with the model and its curve, and read from
there the next time, so that a long list can be measured in parts. Then the rounds are chosen: by the other folds, by
score and by log-loss, where there are two folds or more; not at all (`last`); and by the fold's own held-out rows,
which shows how much such a choice flatters.
Prints Markdown: the out-of-fold scores of both scenarios, a row a way and choice of rounds; the same by fold; what a
fold cost; and the F1 of every class of the first row.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from fold_tasks import fold_task, in_first_table, read
from measuring import header, parser, row, timed

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.config import build
from bfrbctl.evaluation.metrics import f1_by_class, has_two_sides, log_loss, merged_labels, score_name, score_proba
from bfrbctl.evaluation.selection import By, Curve, Rule, best_step, select_steps
from bfrbctl.models.interface import FoldTask
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import lgb, silence
from bfrbctl.models.lightgbm.model import fit, load_step
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY, NON_TARGET, SCENARIOS
from bfrbctl.training.fold_results import predict_scenarios

DEFAULTS, PLAIN, FIRST_TABLE = "defaults", "plain", "first"

Probas = Mapping[str, AnyArray]
"""Scenario -> probabilities of held-out rows, (n_sequences, n_classes)."""


@dataclass(frozen=True)
class Trained:
    """One way to train, on one fold, after all its rounds.

    Parameters
    ----------
    settings
        All settings, to know whether what was kept is still of this way.
    truth
        int64, (n_sequences,): labels of the held-out rows.
    last
        Predictions of the model of all rounds.
    n_rounds
        How many these are.
    curve, files
        Figures of the held-out rows after every round, and the model as files; None and empty where no round but the
        last can be kept.
    seconds, processor_seconds
        What training took.
    """

    settings: str
    truth: AnyArray
    last: Probas
    n_rounds: int
    curve: Curve | None
    files: Mapping[str, bytes]
    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class Held:
    """Held-out rows of a fold (or more, put together), predicted with so many rounds."""

    truth: AnyArray
    probas: Probas
    rounds: tuple[int, ...]

    @classmethod
    def together(cls, parts: Sequence["Held"]) -> "Held":
        """Put folds one behind the other."""
        probas = {name: np.concatenate([part.probas[name] for part in parts]) for name in SCENARIOS}
        rounds = tuple(number for part in parts for number in part.rounds)
        return cls(np.concatenate([part.truth for part in parts]), probas, rounds)


def config_of(way: str) -> Config:
    """Give the settings of a way that is not `plain`."""
    return build(Config, overrides=[word for word in way.split(",") if word not in (DEFAULTS, FIRST_TABLE)])


def settings_of(way: str) -> str:
    """Tell all settings of a way, as it is kept with them."""
    return f"{lgb.LGBMClassifier()!r}" if way == PLAIN else f"{way.split(',')[0] == FIRST_TABLE} {config_of(way)!r}"


def first_table(batch: FeatureBatch) -> FeatureBatch:
    """Leave the features that anybody would begin with."""
    kept = [i for i, column in enumerate(batch.features) if in_first_table(column)]
    return replace(batch, table=batch.table[:, kept], features=tuple(batch.features[i] for i in kept))


def columns_of(batch: FeatureBatch, way: str) -> FeatureBatch:
    """Leave the features that a way sees."""
    return first_table(batch) if way.split(",")[0] == FIRST_TABLE else batch


def train(task: FoldTask, way: str) -> Trained:
    """Train one fold one way for all rounds; the reading of the features is not timed."""
    task = replace(task, train=columns_of(task.train, way), valid=columns_of(task.valid, way))
    if way == PLAIN:
        return train_plain(task)
    config = config_of(way)
    with TemporaryDirectory() as scratch:
        model, *seconds = timed(fit, replace(task, scratch=Path(scratch)), config)
    can_choose = not config.why_last
    return Trained(
        settings_of(way),
        task.valid_labels,
        predict_scenarios(model, task.valid),
        config.n_rounds,
        model.curve if can_choose else None,
        model.encode() if can_choose else {},
        *seconds,
    )


def train_plain(task: FoldTask) -> Trained:
    """Train LGBMClassifier as it comes."""
    fresh: Any = lgb.LGBMClassifier(verbosity=-1)
    model, *seconds = timed(fresh.fit, task.train.table, task.train_labels)
    both = {ALL_SENSORS: task.valid, IMU_ONLY: task.valid.imu_only()}
    last = {name: np.asarray(model.booster_.predict(batch.table)) for name, batch in both.items()}
    return Trained(settings_of(PLAIN), task.valid_labels, last, model.n_estimators, None, {}, *seconds)


def keep(path: Path, found: Trained) -> None:
    """Write what was trained."""
    arrays: dict[str, Any] = {name: getattr(found, name) for name in ("settings", "truth", "n_rounds")}
    arrays |= {name: getattr(found, name) for name in ("seconds", "processor_seconds")}
    arrays |= {f"last {name}": proba for name, proba in found.last.items()}
    if found.curve:
        arrays |= {f"score {name}": values for name, values in found.curve.score.items()}
        arrays |= {f"logloss {name}": values for name, values in found.curve.logloss.items()}
    arrays |= {f"file {name}": np.frombuffer(content, np.uint8) for name, content in found.files.items()}
    np.savez_compressed(path, **arrays)


def kept(path: Path) -> Trained:
    """Read what `keep` wrote."""
    with np.load(path) as stored:
        arrays = dict(stored)

    def named(kind: str) -> dict[str, AnyArray]:
        return {name.removeprefix(kind): values for name, values in arrays.items() if name.startswith(kind)}

    return Trained(
        settings=str(arrays["settings"]),
        truth=arrays["truth"],
        last=named("last "),
        n_rounds=int(arrays["n_rounds"]),
        curve=Curve(named("score "), named("logloss ")) if named("score ") else None,
        files={name: values.tobytes() for name, values in named("file ").items()},
        seconds=float(arrays["seconds"]),
        processor_seconds=float(arrays["processor_seconds"]),
    )


def task_of(options: argparse.Namespace, fold: int) -> FoldTask:
    """Give the task of a fold, all of whose rounds are kept."""
    return fold_task(options.features, "lgbm", fold, seed=options.seed, keep_steps=True)


def trained(options: argparse.Namespace, way: str, fold: int) -> Trained:
    """Read what was kept of a way and fold, or train it and keep it."""
    path = options.kept / f"{way}_seed{options.seed}_fold{fold}.npz"
    if path.exists() and (found := kept(path)).settings == settings_of(way):
        return found
    keep(path, train(task_of(options, fold), way))
    return kept(path)


def choices(folds: Mapping[int, Trained], way: str) -> dict[str, Mapping[int, int]]:
    """Give, by who chooses, the rounds that each fold is scored with."""
    last: dict[str, Mapping[int, int]] = {"last": {fold: found.n_rounds for fold, found in folds.items()}}
    curves = {fold: found.curve for fold, found in folds.items() if found.curve}
    if len(curves) < len(folds):
        return last
    rules = {by: Rule(by, config_of(way).scenario) for by in get_args(By)}
    others = {f"other folds, {by}": select_steps(curves, rule).folds for by, rule in rules.items() if len(curves) > 1}
    own = {
        f"own rows, {by} (flattered)": {fold: best_step(curve, rule) for fold, curve in curves.items()}
        for by, rule in rules.items()
    }
    return {**others, **last, **own}


def predicted(options: argparse.Namespace, way: str, folds: Mapping[int, Trained]) -> dict[str, dict[int, Held]]:
    """Predict every fold's held-out rows with the rounds that each choice gives it."""
    chosen = choices(folds, way)
    out: dict[str, dict[int, Held]] = {name: {} for name in chosen}
    classes = tuple(read(options.features)[0].content["classes"])
    for fold, found in folds.items():
        valid = columns_of(task_of(options, fold).valid, way)
        probas = {found.n_rounds: found.last}
        for name, steps in chosen.items():
            if (step := steps[fold]) not in probas:
                probas[step] = predict_scenarios(load_step(found.files, step, classes=classes), valid)
            out[name][fold] = Held(found.truth, probas[step], (step,))
    return out


def table_row(names: Sequence[str], held: Held, targets: Sequence[bool]) -> str:
    """Give the scores of a row."""
    scores = [score_proba(held.probas[name], held.truth, targets) for name in SCENARIOS]
    losses = [log_loss(held.probas[name], held.truth) for name in SCENARIOS]
    figures = [*(score.score for score in scores), float(np.mean([score.score for score in scores]))]
    figures += [score.gesture_macro_f1 for score in scores]
    cells = [f"{value:.4f}" for value in figures] + [f"{value:.3f}" for value in losses]
    return row(*names, *cells, ", ".join(map(str, held.rounds)))


def class_rows(held: Held, classes: Sequence[str], targets: Sequence[bool]) -> list[str]:
    """Give the F1 of every target, and of the others as one; of every gesture where all are of one side."""
    answers = {name: held.probas[name].argmax(axis=1) for name in SCENARIOS}
    names, truth = list(classes), held.truth
    if has_two_sides(targets):
        names = [name for name, target in zip(classes, targets, strict=True) if target] + [NON_TARGET]
        truth = merged_labels(truth, targets)
        answers = {name: merged_labels(answer, targets) for name, answer in answers.items()}
    columns = [f1_by_class(truth, answers[name], len(names)) for name in SCENARIOS]
    return [row(name, f"{columns[0][i]:.3f}", f"{columns[1][i]:.3f}") for i, name in enumerate(names)]


def report(
    results: Mapping[str, Mapping[str, Mapping[int, Held]]],
    cost: Mapping[str, Mapping[int, Trained]],
    content: Mapping[str, Any],
) -> None:
    """Print what was measured."""
    targets = content["targets"]
    figures = (f"{score_name(targets)}, all", "imu", "mean", "gesture F1, all", "imu", "log-loss, all", "imu", "rounds")
    print(header("settings", "rounds chosen by", *figures))
    for way, chosen in results.items():
        for name, folds in chosen.items():
            print(table_row([way, name], Held.together(list(folds.values())), targets))
    print("\n" + header("settings", "rounds chosen by", "fold", *figures))
    for way, chosen in results.items():
        for name, folds in chosen.items():
            for fold, held in folds.items():
                print(table_row([way, name, str(fold)], held, targets))
    print("\n" + header("settings", "s a fold", "cpu s a fold", "rounds trained"))
    for way, trainings in cost.items():
        took = np.mean([(found.seconds, found.processor_seconds) for found in trainings.values()], axis=0)
        print(row(way, f"{took[0]:.1f}", f"{took[1]:.1f}", next(iter(trainings.values())).n_rounds))
    way, chosen = next(iter(results.items()))
    name, folds = next(iter(chosen.items()))
    print("\n" + header(f"F1, {way}, {name}", "all", "imu"))
    print("\n".join(class_rows(Held.together(list(folds.values())), content["classes"], targets)))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("features", type=Path, help="feature folder")
    arguments.add_argument("kept", type=Path, help="folder that keeps what was trained")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--folds", type=int, nargs="+", help="these folds only")
    arguments.add_argument(
        "--ways", nargs="+", default=[DEFAULTS, "modality_dropout=0"], help="ways to train, see above"
    )
    options = arguments.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    silence()
    content = read(options.features)[0].content
    folds = range(content["n_folds"]) if options.folds is None else sorted(set(options.folds))
    cost = {way: {fold: trained(options, way, fold) for fold in folds} for way in options.ways}
    report({way: predicted(options, way, cost[way]) for way in options.ways}, cost, content)


if __name__ == "__main__":
    main()
