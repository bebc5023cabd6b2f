"""Training of one LightGBM booster: weights and copies of the rows, and the metric after each round."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import joblib
import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64, Int64
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation.selection import Curve
from bfrbctl.models.interface import FoldTask, HistoryRow
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.models.lightgbm.text import trimmed
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY

_SILENCE_S = 2.0
"""No longer than this, and a round, goes by without a row of progress."""

SCREENING_ROUNDS = 30
"""Rounds of the model that only ranks features for `top_features`."""


@dataclass(frozen=True)
class Rows:
    """What LightGBM is fitted on: sequences, and the IMU-only copies of some of them behind."""

    table: Float32
    labels: Int64
    weights: Float64

    __repr__ = short_repr


@dataclass(frozen=True)
class Run:
    """One booster.

    Parameters
    ----------
    text
        The model, of all rounds.
    curve
        Figures of the held-out sequences after every round.
    quantized
        Whether its gradients were.
    selected
        int64: the columns of the table that it sees.
    n_rows
        Rows that it was fitted on, IMU-only copies included.
    rounds
        How many rounds of trees there are after every round: one that finds no split leaves no trees.
    history
        What was reported on the way.
    """

    text: bytes
    curve: Curve
    quantized: bool
    selected: Int64
    n_rows: int
    rounds: tuple[int, ...]
    history: list[HistoryRow] = field(default_factory=list)

    __repr__ = short_repr


class Fold:
    """The data of one fold, shared by all seeds: binned the same way, whichever of them is trained first."""

    def __init__(self, task: FoldTask, config: Config, rows: Rows, selected: Int64) -> None:
        self.task = task
        self.config = config
        self.selected = selected
        self.n_rows = rows.labels.size
        n_threads = config.threads or joblib.cpu_count()
        self.params = {**config.lightgbm(), "num_class": len(task.classes), "num_threads": n_threads}
        # Of more rows than bin_construct_sample_cnt those that bounds are found on are drawn by the seed.
        params = {**self.params, "seed": seed_of(task, 0)}
        self.train = lgb.Dataset(
            rows.table[:, selected], rows.labels, weight=rows.weights, params=params, free_raw_data=True
        )
        self.valid = {ALL_SENSORS: self._held_out(task.valid.table, selected)}
        if _has_droppable(task.train):
            self.valid[IMU_ONLY] = self._held_out(task.valid.imu_only().table, selected)

    def _held_out(self, table: Float32, selected: Int64) -> Any:
        return lgb.Dataset(table[:, selected], self.task.valid_labels, reference=self.train, params=self.params)


class Watch:
    """Called by LightGBM after every round: keeps the figures of the held-out sequences, and reports them."""

    def __init__(self, fold: Fold, run: int) -> None:
        self.task = fold.task
        self.config = fold.config
        self.scenarios = tuple(fold.valid)
        self.run = run
        self.history: list[HistoryRow] = []
        self.rounds: list[int] = []
        self.started = self.reported = time.perf_counter()
        self.figures: dict[str, dict[str, list[float]]] = {
            metric: {scenario: [] for scenario in self.scenarios} for metric in ("score", "logloss")
        }

    def __call__(self, env: Any) -> None:
        """Take in the figures of one round."""
        values = {(name, metric): float(value) for name, metric, value, *_ in env.evaluation_result_list}
        for (scenario, metric), value in values.items():
            self.figures[metric][scenario].append(value)
        self.rounds.append(env.model.current_iteration())
        step = env.iteration + 1
        if step % self.config.log_every == 0 or step == env.end_iteration:
            self._report(step, values)
        elif time.perf_counter() - self.reported >= _SILENCE_S:
            self._tell(self._where(step))

    @property
    def curve(self) -> Curve:
        """The figures of all rounds so far."""
        parts = (self.figures["score"], self.figures["logloss"])
        return Curve(*({scenario: np.array(each) for scenario, each in part.items()} for part in parts))

    def _report(self, step: int, values: Mapping[tuple[str, str], float]) -> None:
        row: dict[str, float | int | str] = {"fold": self.task.fold, "seed": self.run, "step": step}
        for key, metric in (("valid_logloss", "logloss"), ("score", "score")):
            for scenario in (ALL_SENSORS, IMU_ONLY):
                row[f"{key}_{scenario}"] = values[scenario if scenario in self.scenarios else ALL_SENSORS, metric]
        row["score"] = 0.5 * (float(row[f"score_{ALL_SENSORS}"]) + float(row[f"score_{IMU_ONLY}"]))
        row |= self._where(step)
        self.history.append(row)
        self._tell(row)

    def _where(self, step: int) -> dict[str, float | int | str]:
        """Say where training stands, without its scores."""
        seconds = round(time.perf_counter() - self.started, 3)
        return {"fold": self.task.fold, "seed": self.run, "step": step, "seconds": seconds}

    def _tell(self, row: HistoryRow) -> None:
        self.reported = time.perf_counter()
        self.task.on_progress(row)


def seed_of(task: FoldTask, run: int) -> int:
    """Give the seed of a fold's booster: 31 bits."""
    return int(np.random.SeedSequence([task.seed, task.fold, run]).generate_state(1)[0] >> 1)


def boost(fold: Fold, run: int) -> Run:
    """Train one booster, without quantized gradients if LightGBM cannot finish with them."""
    params = {**fold.params, "seed": seed_of(fold.task, run)}
    try:
        fold.train.construct()  # else its seed would be that of this booster
        return _train(fold, params, Watch(fold, run))
    except lgb.basic.LightGBMError as error:
        if not fold.config.quantized:
            raise UsageError(f"fold {fold.task.fold}: LightGBM stopped: {error}") from error
    return _train(fold, {**params, "use_quantized_grad": False}, Watch(fold, run))


def _train(fold: Fold, params: dict[str, Any], watch: Watch) -> Run:
    booster = lgb.train(
        params,
        fold.train,
        num_boost_round=fold.config.n_rounds,
        valid_sets=list(fold.valid.values()),
        valid_names=list(fold.valid),
        feval=_evaluation(fold.task),
        keep_training_booster=True,
        callbacks=[watch],
    )
    text = trimmed(booster.model_to_string(num_iteration=-1)).encode("ascii")
    quantized = bool(params["use_quantized_grad"])
    return Run(text, watch.curve, quantized, fold.selected, fold.n_rows, tuple(watch.rounds), watch.history)


def _evaluation(task: FoldTask) -> Callable[[AnyArray, Any], list[tuple[str, float, bool]]]:
    """Give LightGBM the headline score and the log-loss of held-out sequences; they decide nothing in this fold."""

    def evaluate(proba: AnyArray, _: Any) -> list[tuple[str, float, bool]]:
        return [("score", task.score(proba).score, True), ("logloss", task.loss(proba), False)]

    return evaluate


def strongest(fold: Fold, n_features: int) -> Int64:
    """Rank features by gain in a short model on all of them; gives the positions of the best, ascending."""
    seed = int(np.random.SeedSequence([fold.task.seed, fold.task.fold]).generate_state(1)[0] >> 1)
    params = {**fold.params, "seed": seed, "use_quantized_grad": False}
    booster = lgb.train(params, fold.train, num_boost_round=min(SCREENING_ROUNDS, fold.config.n_rounds))
    gain = np.asarray(booster.feature_importance("gain"))
    return np.sort(np.argsort(-gain, kind="stable")[:n_features]).astype(np.int64)


def augmented(task: FoldTask, config: Config) -> Rows:
    """Add the IMU-only copies, and weigh: a sequence that appears twice counts half each time."""
    n_sequences = task.train.n_sequences
    copied = np.zeros(0, dtype=np.int64)
    if _has_droppable(task.train):
        drawn = np.random.default_rng([task.seed, task.fold]).random(n_sequences) < config.modality_dropout
        copied = np.flatnonzero(drawn)
    table = np.concatenate([task.train.table, task.train.take(copied).imu_only().table])
    labels = np.concatenate([task.train_labels, task.train_labels[copied]])
    weights = _class_weights(task, config)[task.train_labels]
    weights[copied] /= 2
    return Rows(table, labels, np.concatenate([weights, weights[copied]]))


def _class_weights(task: FoldTask, config: Config) -> Float64:
    """Weight of each class: float64, (n_classes,); 1 on average over the training sequences where balanced.

    Weights are those of gestures, balanced ones and those of a file; every class has that of its gesture.
    """
    wanted = config.class_weight
    if wanted == "none":
        return np.ones(len(task.classes))
    if wanted == "balanced":
        return task.scorer.balanced_weights(task.train_labels)
    by_gesture = cast(Mapping[str, float], wanted)
    gestures = task.gestures or task.classes
    unknown = [gesture for gesture in by_gesture if gesture not in gestures]
    if unknown:
        raise UsageError(
            f"class_weight names gestures that are not in the data: {examples(unknown)}",
            hint=f"the gestures are {', '.join(gestures)}",
        )
    weights = np.array([float(by_gesture.get(gesture, 1.0)) for gesture in gestures])
    return weights[list(task.gesture_of)] if task.gesture_of else weights


def _has_droppable(batch: FeatureBatch) -> bool:
    return any(not column.survives_imu_only for column in batch.features)


def check_task(task: FoldTask) -> None:
    """Refuse a fold without features, with one gesture, or with an empty side.

    Raises
    ------
    DataError
        When that is so.
    """
    if not task.train.features:
        raise DataError("there are no sequence features to train on", hint="featurize without --for keras")
    if len(task.classes) < 2 or task.train.n_sequences == 0 or task.valid.n_sequences == 0:
        raise DataError(
            f"fold {task.fold}: {len(task.classes)} gestures, {task.train.n_sequences} training and "
            f"{task.valid.n_sequences} held-out sequences are too few to train on"
        )
