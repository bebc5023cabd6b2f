"""What a model of one fold is, and the two kinds there are.

A kind is a module with `Config` (a `config.Settings` of hyper-parameters), `NEEDS`, `fit` and `load`; `kind_module`
imports it when asked, so that nobody pays for a library that is not used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64, Int64
from bfrbctl.errors import UsageError, missing_library
from bfrbctl.evaluation.metrics import Score, log_loss, pooled, score_proba
from bfrbctl.evaluation.selection import Curve
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr

HistoryRow = Mapping[str, float | int | str]
"""One line of history.jsonl: fold, step (round or epoch), losses, scores of both scenarios, seconds."""


@dataclass(frozen=True)
class FoldTask:
    """All that training one fold may know.

    Parameters
    ----------
    fold
        Which fold is held out.
    classes
        Gesture names; the columns of every proba.
    targets
        One flag a class: is it a target (body-focused repetitive behaviour)?
    train, valid
        The sequences to learn from, and the held-out ones, which are scored after each step and decide nothing.
    train_labels, valid_labels
        int64, (n_sequences,): positions in `classes`.
    seed
        Seed of this run (a kind derives the fold's own from it and `fold`).
    rate_hz
        Frames a second.
    scratch
        Folder that outlives a crash and is deleted after the fold is published: checkpoints go here.
    on_progress
        Called with every history row as it is known, and, where these are far apart, with rows between that tell only
        where training stands (fold, step, seconds). Raising from it stops the training.
    gestures
        Gesture names, where classes are finer than gestures (joint labels); `classes` when empty.
    gesture_of
        The gesture of every class, as positions in `gestures`; empty where each class is a gesture.
    orientations
        Names of the postures of the wearer that `train_orientation` speaks of; empty where they are not known.
    train_orientation
        int64, (n_sequences,): positions in `orientations`, -1 unknown; None where none is known. A label.
    keep_steps
        Whether every step is to be kept, as other folds will choose one: the model is then an `OfSteps`.
    """

    fold: int
    classes: tuple[str, ...]
    targets: tuple[bool, ...]
    train: FeatureBatch
    train_labels: Int64
    valid: FeatureBatch
    valid_labels: Int64
    seed: int
    rate_hz: float
    scratch: Path
    on_progress: Callable[[HistoryRow], None]
    gestures: tuple[str, ...] = ()
    gesture_of: tuple[int, ...] = ()
    orientations: tuple[str, ...] = ()
    train_orientation: Int64 | None = None
    keep_steps: bool = False

    __repr__ = short_repr

    def score(self, proba: AnyArray) -> Score:
        """Score the held-out sequences, (n_sequences, n_classes), by their gestures."""
        return self.scorer.score(proba, self.valid_labels)

    def loss(self, proba: AnyArray) -> float:
        """Give the log-loss of the held-out sequences' gestures."""
        return self.scorer.loss(proba, self.valid_labels)

    @property
    def scorer(self) -> "Scorer":
        """What scores predictions of these classes."""
        return Scorer(self.targets, self.gesture_of)


@dataclass(frozen=True)
class Scorer:
    """Scores probabilities of classes by the gestures that they belong to.

    Parameters
    ----------
    targets
        One flag a class.
    gesture_of
        The gesture of every class, as positions from 0; empty where each class is a gesture.
    """

    targets: tuple[bool, ...]
    gesture_of: tuple[int, ...] = ()

    def score(self, proba: AnyArray, labels: Int64) -> Score:
        """Score probabilities (n, n_classes) against positions of classes, int64 (n,)."""
        return score_proba(*self._by_gesture(proba, labels), self.gesture_targets)

    def loss(self, proba: AnyArray, labels: Int64) -> float:
        """Give the log-loss of the gestures."""
        return log_loss(*self._by_gesture(proba, labels))

    @property
    def gesture_targets(self) -> tuple[bool, ...]:
        """One flag a gesture."""
        if not self.gesture_of:
            return self.targets
        return tuple(self.targets[self.gesture_of.index(gesture)] for gesture in range(max(self.gesture_of) + 1))

    def balanced_weights(self, labels: Int64) -> Float64:
        """Weigh each class by the rarity of its gesture, so that sequences weigh 1 on average.

        All gestures that occur weigh the same in sum. A class finer than a gesture (a joint label) weighs what its
        gesture does, so that a rare posture does not outweigh the rest.

        Parameters
        ----------
        labels
            int64, (n_sequences,): positions of classes.

        Returns
        -------
        float64, (n_classes,); of a gesture that does not occur 1.
        """
        gesture_of = np.asarray(self.gesture_of or range(len(self.targets)), dtype=np.int64)
        counts = np.bincount(gesture_of[labels], minlength=int(gesture_of.max()) + 1)
        present = counts > 0
        weights = np.where(present, labels.size / (np.maximum(counts, 1) * max(int(present.sum()), 1)), 1.0)
        return np.asarray(weights[gesture_of], dtype=np.float64)

    def _by_gesture(self, proba: AnyArray, labels: Int64) -> tuple[AnyArray, Int64]:
        if not self.gesture_of:
            return proba, labels
        return pooled(proba, self.gesture_of), np.asarray(self.gesture_of, dtype=np.int64)[labels]


class FoldModel(Protocol):
    """A trained model of one fold."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """What to tell of it: steps, scores after the last one, sizes; JSON values only."""

    @property
    def history(self) -> list[HistoryRow]:
        """All history rows, those before a resume included."""

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """float32, (n_sequences, n_classes); rows sum to 1. NaN / 255 in the batch mean missing."""

    def encode(self) -> dict[str, bytes]:
        """Give the model as files: suffix (such as `lgbm.txt`) -> content. Same model, same bytes."""


@runtime_checkable
class OfSteps(FoldModel, Protocol):
    """A fold's model of which every step is kept (`FoldTask.keep_steps`), so that other folds can choose one.

    It predicts with its last step; `encode` gives the files that `Selecting.load_step` reads.
    """

    @property
    def curve(self) -> Curve | None:
        """Figures of the held-out sequences after every step, the mean over seeds; None of a model that was loaded."""


@runtime_checkable
class OfSeeds(FoldModel, Protocol):
    """A fold's model that averages models which differ in nothing but their seed."""

    def each_seed(self) -> Sequence[FoldModel]:
        """Give them apart; one where there is one seed."""


class Ensemble(Protocol):
    """The models of all folds as one."""

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes); rows sum to 1."""

    def warm(self) -> None:
        """Do now what would make the first answer of one sequence slow."""


@dataclass(frozen=True)
class Average:
    """The plain ensemble: ask each fold, average."""

    models: Sequence[FoldModel]

    __repr__ = short_repr

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes)."""
        total = np.zeros((batch.n_sequences, 1), dtype=np.float64)
        for model in self.models:
            total = total + model.predict_proba(batch)
        return (total / len(self.models)).astype(np.float32)

    def warm(self) -> None:
        """Nothing is slow at first."""


class Kind(Protocol):
    """A module that knows one kind of model.

    It may have `ensemble(models) -> Ensemble` as well, where there is a faster way than to ask fold after fold, and
    `fit_member`, where a fold's members can be trained apart from each other: see `InMembers`.
    """

    Config: type[Any]
    NEEDS: frozenset[str]
    """Which parts of a FeatureBatch it reads: `table`, `frames`, `tof`."""

    def fit(self, task: FoldTask, config: Any) -> FoldModel:
        """Train one fold; continue from `task.scratch` where a checkpoint of the same task lies there."""

    def load(self, files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> FoldModel:
        """Rebuild a model from what `encode` gave; ArtefactError when the bytes are not a sound model."""


@runtime_checkable
class Selecting(Kind, Protocol):
    """A kind whose number of steps can be chosen: its `Config` has `select`, `rule` and `why_last`.

    `select` is `other-folds` or `last`, `rule` a `selection.Rule`. `why_last` says, for the user, why these settings
    allow nothing but the last step; it is empty where they allow a choice.
    """

    def load_step(self, files: Mapping[str, bytes], step: int, *, classes: tuple[str, ...]) -> FoldModel:
        """Rebuild a model as it was after so many steps, from what `encode` of an `OfSteps` gave.

        Its summary says of how many steps it is. ArtefactError when the bytes are not a sound model.
        """


@runtime_checkable
class InMembers(Kind, Protocol):
    """A kind whose `Config` has `seeds`: a fold's model is so many members that know nothing of each other."""

    def fit_member(self, task: FoldTask, config: Any, member: int) -> None:
        """Train one member, 0 <= member < seeds, and leave it in `task.scratch`.

        Several may be trained at once, in processes that share the folder. `fit` of the same task finds them there;
        its model has the same bytes as if it had trained them itself.
        """


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of training tell of the whole of it.

    Parameters
    ----------
    model
        What they made: of the size of the whole, but for `growth`.
    start_s
        Seconds once a process, such as for tracing a network.
    prepare_s
        Seconds once a fold, before its first step.
    step_s
        Seconds of a round or epoch of one model.
    growth
        How many times as large, and as slow to ask, the whole model is.
    kept_bytes
        What each model keeps while it trains, in the fold's scratch folder, and of all steps until one is chosen.
    """

    model: FoldModel
    start_s: float
    prepare_s: float
    step_s: float
    growth: float
    kept_bytes: int


@runtime_checkable
class Rehearsing(Kind, Protocol):
    """A kind that can be tried out: its `Config` has `n_steps` and `STEP`, what a step is called."""

    def rehearse(self, task: FoldTask, config: Any) -> Rehearsal:
        """Train a few steps of a fold, and measure."""


def n_members(kind: Kind, config: Any) -> int:
    """How many pieces a fold can be trained in at the same time."""
    return int(config.seeds) if isinstance(kind, InMembers) else 1


KINDS = {"lgbm": "bfrbctl.models.lightgbm.model", "keras": "bfrbctl.models.keras.model"}


def ensemble_of(kind: str, models: Sequence[FoldModel]) -> Ensemble:
    """Put the folds of a kind of model together; the answer is their average."""
    make: Callable[[Sequence[FoldModel]], Ensemble] = getattr(kind_module(kind), "ensemble", Average)
    return make(models)


def kind_module(kind: str) -> Kind:
    """Import the module of a kind of model.

    Raises
    ------
    UsageError
        When there is no such kind; the message lists those there are.
    MissingLibraryError
        When a library that it needs cannot be imported.
    """
    if kind not in KINDS:
        raise UsageError(f"no model of kind {kind!r}", hint=f"choose one of {', '.join(sorted(KINDS))}")
    try:
        module: Any = import_module(KINDS[kind])
    except ImportError as error:
        raise missing_library(f"a {kind} model", error) from error
    return module  # type: ignore[no-any-return]
