"""What a model of one fold is, and the kinds of model that there are.

A kind is a `Kind`: a name, a class of settings, and functions to train and load models, some of which a kind need not
have. `model_kind` imports a kind by name when it is asked for, so that its library is loaded only where it is used.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

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
    """All that the training of one fold may use.

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
        Called with every history row as it is known, and, where these are far apart, with rows between that say only
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
        Whether every step is to be kept, as other folds will choose one: the model then has a `curve`.
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


@dataclass(frozen=True)
class Importance:
    """How much each feature was used; one entry a feature, in the order of the table.

    Parameters
    ----------
    features
        Names.
    gain
        float64, (n_features,): loss saved by splits on it, averaged over seeds.
    split
        int64, (n_features,): splits on it, of all seeds.
    """

    features: tuple[str, ...]
    gain: Float64
    split: Int64

    __repr__ = short_repr


class FoldModel(Protocol):
    """A trained model of one fold: the average of its members, which differ in nothing but their seed.

    Where every step was kept (`FoldTask.keep_steps`) it predicts with the last one, and `encode` gives the files that
    `Kind.load_step` reads.
    """

    @property
    def summary(self) -> Mapping[str, Any]:
        """Figures of the model: steps, scores after the last one, sizes; JSON values only."""

    @property
    def history(self) -> list[HistoryRow]:
        """All history rows, those before a resume included."""

    @property
    def curve(self) -> Curve | None:
        """Figures of the held-out sequences after every step, the mean over seeds; None where they were not kept."""

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """float32, (n_sequences, n_classes); rows sum to 1. NaN / 255 in the batch mean missing."""

    def encode(self) -> dict[str, bytes]:
        """Give the model as files: suffix (such as `lgbm.txt`) -> content. Same model, same bytes."""

    def each_seed(self) -> "Sequence[FoldModel]":
        """Give a model of each seed by itself; one where there is one seed."""

    def importance(self) -> Importance | None:
        """Give how much each feature was used; None of a model that does not know."""


class Ensemble(Protocol):
    """The models of all folds as one."""

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes); rows sum to 1."""

    def warm(self) -> None:
        """Do now what would make the first prediction of one sequence slow."""


@dataclass(frozen=True)
class Average:
    """The plain ensemble: predict with each fold, and average."""

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


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of training say about the whole of it.

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
        How many times as large, and as slow at prediction, the whole model is.
    kept_bytes
        What each model keeps while it trains, in the fold's scratch folder, and of all steps until one is chosen.
    """

    model: FoldModel
    start_s: float
    prepare_s: float
    step_s: float
    growth: float
    kept_bytes: int


class Load(Protocol):
    """Rebuild a model from what `FoldModel.encode` gave; ArtefactError when the bytes are not a sound model."""

    def __call__(self, files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> FoldModel:
        """Rebuild the model of these classes."""


class LoadStep(Protocol):
    """Rebuild a model as it was after so many steps, from what `encode` gave of a model whose steps were kept.

    Its summary says of how many steps it is. ArtefactError when the bytes are not a sound model.
    """

    def __call__(self, files: Mapping[str, bytes], step: int, *, classes: tuple[str, ...]) -> FoldModel:
        """Rebuild the model after a step, from 1."""


@dataclass(frozen=True)
class Kind:
    """One kind of model, and what it is able to do.

    Parameters
    ----------
    name
        As in commands and manifests.
    config_class
        Its settings. They have `n_steps`, the number of steps of a model, and `STEP`, what a step is called.
    needs
        The parts of a FeatureBatch that it reads: `table`, `frames`, `tof`.
    fit
        Train one fold; continue from `task.scratch` where a checkpoint of the same task lies there.
    load
        Rebuild a model from its files.
    ensemble
        Join the models of all folds; it gives their average. A kind may have a faster one than `Average`.
    load_step
        Rebuild a model as it was after one of its steps; None where steps cannot be chosen. With it the settings have
        `select` (`other-folds` or `last`), `rule` (a `selection.Rule`) and `why_last`: for the user, why these
        settings allow nothing but the last step; empty where they allow a choice.
    fit_member
        Train one member of a fold, 0 <= member < seeds, and leave it in `task.scratch`; None where a fold is trained
        as a whole. With it the settings have `seeds`. Several members may be trained at once, in processes that share
        the folder. `fit` of the same task finds them there and gives the same bytes as if it had trained them itself.
    rehearse
        Train a few steps of a fold and measure; None where that is not possible.
    """

    name: str
    config_class: type[Any]
    needs: frozenset[str]
    fit: Callable[[FoldTask, Any], FoldModel]
    load: Load
    ensemble: Callable[[Sequence[Any]], Ensemble] = Average
    load_step: LoadStep | None = None
    fit_member: Callable[[FoldTask, Any, int], None] | None = None
    rehearse: Callable[[FoldTask, Any], Rehearsal] | None = None

    __repr__ = short_repr

    def n_members(self, config: Any) -> int:
        """Count the members of a fold that can be trained as tasks of their own; 1 where it is trained as a whole."""
        return int(config.seeds) if self.fit_member else 1


KINDS = {"lgbm": "bfrbctl.models.lightgbm.kind", "keras": "bfrbctl.models.keras.kind"}
"""Name -> the module that holds the kind, as `KIND`."""


def model_kind(name: str) -> Kind:
    """Import a kind of model.

    Raises
    ------
    UsageError
        When there is no such kind; the message lists those there are.
    MissingLibraryError
        When a library that it needs cannot be imported.
    """
    if name not in KINDS:
        raise UsageError(f"no model of kind {name!r}", hint=f"choose one of {', '.join(sorted(KINDS))}")
    try:
        kind: Kind = import_module(KINDS[name]).KIND
    except ImportError as error:
        raise missing_library(f"a {name} model", error) from error
    return kind
