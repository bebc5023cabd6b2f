"""What a model of one fold is, and the two kinds there are.

A kind is a module with `Config` (a frozen dataclass of hyper-parameters), `NEEDS`, `fit` and `load`; `kind_module`
imports it when asked, so that nobody pays for a library that is not used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from bfrbctl.dataset import FeatureBatch
from bfrbctl.errors import UsageError
from bfrbctl.segments import Float32, Int64

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
        The sequences to learn from, and the held-out ones to stop on.
    train_labels, valid_labels
        int64, (n_sequences,): positions in `classes`.
    seed
        Seed of this run (a kind derives the fold's own from it and `fold`).
    rate_hz
        Frames a second.
    scratch
        Folder that outlives a crash and is deleted after the fold is published: checkpoints go here.
    on_progress
        Called with every history row as it is known. Raising from it stops the training.
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


class FoldModel(Protocol):
    """A trained model of one fold."""

    @property
    def summary(self) -> Mapping[str, Any]:
        """What to tell of it: best step, best score, sizes; JSON values only."""

    @property
    def history(self) -> list[HistoryRow]:
        """All history rows, those before a resume included."""

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """float32, (n_sequences, n_classes); rows sum to 1. NaN / 255 in the batch mean missing."""

    def encode(self) -> dict[str, bytes]:
        """Give the model as files: suffix (such as `lgbm.txt`) -> content. Same model, same bytes."""


class Kind(Protocol):
    """A module that knows one kind of model."""

    Config: type[Any]
    NEEDS: frozenset[str]
    """Which parts of a FeatureBatch it reads: `table`, `frames`, `tof`."""

    def fit(self, task: FoldTask, config: Any) -> FoldModel:
        """Train one fold; continue from `task.scratch` where a checkpoint of the same task lies there."""

    def load(self, files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> FoldModel:
        """Rebuild a model from what `encode` gave; ArtefactError when the bytes are not a sound model."""


KINDS = {"lgbm": "bfrbctl.models.lightgbm_model", "keras": "bfrbctl.models.keras_model"}


def kind_module(kind: str) -> Kind:
    """Import the module of a kind of model.

    Raises
    ------
    UsageError
        When there is no such kind; the message lists those there are.
    """
    if kind not in KINDS:
        raise UsageError(f"no model of kind {kind!r}", hint=f"choose one of {', '.join(sorted(KINDS))}")
    module: Any = import_module(KINDS[kind])
    return module  # type: ignore[no-any-return]
