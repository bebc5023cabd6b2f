"""The competition metric and what goes with it.

score = 0.5 x binary F1 (target or not, positive = target) + 0.5 x macro F1 over the targets and one merged
`non_target` class, both with zero_division=0; macro over the classes present in truth or prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64, Int64
from bfrbctl.errors import examples
from bfrbctl.reprs import short_repr
from bfrbctl.schema import NON_TARGET_TYPE, SEQUENCE_TYPE, TARGET_TYPE


@dataclass(frozen=True)
class Score:
    """How good predicted gestures are; every figure is in 0..1, larger is better.

    Parameters
    ----------
    binary_f1
        F1 of target or not.
    macro_f1
        Mean F1 over the targets and the merged non-target class.
    score
        The headline: mean of the two, the competition metric; where all classes are targets or none is, these two say
        nothing, and it is `gesture_macro_f1`. `score_name` names it.
    gesture_macro_f1
        Mean F1 over all gestures, each non-target a class of its own.
    """

    binary_f1: float
    macro_f1: float
    score: float
    gesture_macro_f1: float


COMPETITION_SCORE, GESTURE_SCORE = "score", "macro F1 over gestures"


def has_two_sides(targets: Sequence[bool]) -> bool:
    """Whether there are both targets and non-targets, so that target or not can be scored."""
    return 0 < sum(map(bool, targets)) < len(targets)


def score_name(targets: Sequence[bool]) -> str:
    """Name the headline figure: the competition score, or macro F1 over gestures where all are of one side."""
    return COMPETITION_SCORE if has_two_sides(targets) else GESTURE_SCORE


def score_column(targets: Sequence[bool]) -> str:
    """Name the headline figure where a table has little room."""
    return COMPETITION_SCORE if has_two_sides(targets) else "gesture F1"


def score_values(score: Score, targets: Sequence[bool]) -> dict[str, float | None]:
    """Give the figures of a score by name; None for those that mean nothing where all classes are of one side."""
    if has_two_sides(targets):
        return dict(vars(score))
    return {**vars(score), "binary_f1": None, "macro_f1": None}


def headline(values: Mapping[str, Any], targets: Sequence[bool]) -> float:
    """Read the headline figure from the figures of a score in metrics.json.

    Folders of earlier versions hold a competition score there where all classes are of one side.
    """
    return float(values["score" if has_two_sides(targets) else "gesture_macro_f1"])


def one_sided_note(content: Mapping[str, Any]) -> str | None:
    """Say that target or not cannot be scored, why, and what is scored instead.

    Parameters
    ----------
    content
        Of the manifest of a dataset or feature folder: `classes`, `targets`, and, unless an earlier version wrote it,
        `sequence_types`: the values of sequence_type of its labelled sequences.

    Returns
    -------
    None where there are targets and non-targets, or no labels.
    """
    targets = content.get("targets") or []
    if not targets or has_two_sides(targets):
        return None
    met = content.get("sequence_types")
    known = f"{SEQUENCE_TYPE} is {examples(met)}" if met else f"column {SEQUENCE_TYPE} is missing or empty"
    why = f" ({known})" if isinstance(met, list) else ""
    return (
        f"{'all gestures are targets' if targets[0] else 'no gesture is a target'}{why}: target or not cannot be "
        f"scored, and the headline figure is {GESTURE_SCORE}. To score it, prepare recordings with a column "
        f"{SEQUENCE_TYPE} that is {TARGET_TYPE} or {NON_TARGET_TYPE}"
    )


def merged_labels(labels: Int64, targets: Sequence[bool]) -> Int64:
    """Merge all non-target gestures into one class.

    Parameters
    ----------
    labels
        int64, (n_sequences,): positions in the class list.
    targets
        One flag a class.

    Returns
    -------
    int64, (n_sequences,): 0..n_targets-1 for targets in the order of the class list, n_targets for non-targets.
    """
    flags = np.asarray(targets, dtype=np.bool_)
    lookup = np.where(flags, np.cumsum(flags) - 1, int(flags.sum()))
    return np.asarray(lookup[labels], dtype=np.int64)


def scored_labels(labels: Int64, targets: Sequence[bool]) -> Int64:
    """Give int64, (n_sequences,): positions among what the headline score counts: merged where there are two sides."""
    return merged_labels(labels, targets) if has_two_sides(targets) else labels


def f1_by_class(truth: Int64, predicted: Int64, n_classes: int, weights: AnyArray | None = None) -> Float64:
    """Give the F1 of each class; NaN where a class is in neither truth nor prediction.

    Parameters
    ----------
    truth, predicted
        int64, (n_sequences,), 0..n_classes-1.
    n_classes
        How many classes.
    weights
        float, (n_sequences,): how often each sequence counts (for a bootstrap); once each when None.
    """
    hits = np.bincount(truth[truth == predicted], _chosen(weights, truth == predicted), minlength=n_classes)
    total = np.bincount(truth, weights, minlength=n_classes) + np.bincount(predicted, weights, minlength=n_classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(total > 0, 2.0 * hits / total, np.nan), dtype=np.float64)


@dataclass(frozen=True)
class ClassFigures:
    """How well each class is recognised; one entry a class.

    Parameters
    ----------
    precision
        float64, (n_classes,): share right of the predictions of it; NaN where it was never predicted.
    recall
        float64, (n_classes,): share found of the sequences of it; NaN where there is none.
    f1
        float64, (n_classes,): harmonic mean of the two; NaN where it is in neither truth nor prediction.
    support
        int64, (n_classes,): sequences of it.
    """

    precision: Float64
    recall: Float64
    f1: Float64
    support: Int64

    __repr__ = short_repr


def class_figures(truth: Int64, predicted: Int64, n_classes: int) -> ClassFigures:
    """Give precision, recall, F1 and support of each class; both are int64, (n_sequences,), 0..n_classes-1."""
    hits = np.bincount(truth[truth == predicted], minlength=n_classes)
    n_predicted, support = np.bincount(predicted, minlength=n_classes), np.bincount(truth, minlength=n_classes)
    with np.errstate(invalid="ignore"):
        precision, recall = hits / n_predicted, hits / support
    return ClassFigures(precision, recall, f1_by_class(truth, predicted, n_classes), support.astype(np.int64))


def gesture_figures(truth: Int64, predicted: Int64, classes: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Give precision, recall, F1 and support of every gesture, non-targets not merged; None where not defined."""
    found = class_figures(truth, predicted, len(classes))
    columns = {name: getattr(found, name).tolist() for name in ("precision", "recall", "f1", "support")}
    return {
        gesture: {name: None if np.isnan(values[place]) else values[place] for name, values in columns.items()}
        for place, gesture in enumerate(classes)
    }


def hierarchical_f1(
    truth: Int64, predicted: Int64, targets: Sequence[bool], *, weights: AnyArray | None = None
) -> Score:
    """Score predicted gestures by the competition metric.

    Parameters
    ----------
    truth, predicted
        int64, (n_sequences,): positions in the class list, aligned row by row.
    targets
        One flag a class: is it a target?
    weights
        float, (n_sequences,): how often each sequence counts; once each when None.

    Raises
    ------
    ValueError
        When the two differ in length or there is nothing to score.

    Examples
    --------
    >>> hierarchical_f1(np.array([0, 1, 2]), np.array([0, 1, 1]), [True, False, False]).score
    1.0
    """
    if truth.shape != predicted.shape or truth.size == 0:
        raise ValueError(f"cannot score {predicted.size} predictions against {truth.size} labels")
    flags = np.asarray(targets, dtype=np.bool_)
    binary = f1_by_class(flags[truth].astype(np.int64), flags[predicted].astype(np.int64), 2, weights)[1]
    binary_f1 = 0.0 if np.isnan(binary) else float(binary)
    merged = f1_by_class(
        merged_labels(truth, targets), merged_labels(predicted, targets), int(flags.sum()) + 1, weights
    )
    gestures = f1_by_class(truth, predicted, len(flags), weights)
    macro_f1, gesture_macro_f1 = float(np.nanmean(merged)), float(np.nanmean(gestures))
    score = 0.5 * (binary_f1 + macro_f1) if has_two_sides(targets) else gesture_macro_f1
    return Score(binary_f1, macro_f1, score, gesture_macro_f1)


def log_loss(proba: AnyArray, truth: Int64, *, epsilon: float = 1e-7) -> float:
    """Mean negative log-probability of the true class, nats; proba is (n_sequences, n_classes)."""
    chosen = np.asarray(proba, dtype=np.float64)[np.arange(truth.size), truth]
    return float(-np.mean(np.log(np.clip(chosen, epsilon, 1.0))))


def score_proba(proba: AnyArray, truth: Int64, targets: Sequence[bool]) -> Score:
    """Score the most probable gesture of each row; proba is float, (n_sequences, n_classes)."""
    return hierarchical_f1(truth, np.argmax(proba, axis=1).astype(np.int64), targets)


def pooled(proba: AnyArray, gesture_of: Sequence[int]) -> AnyArray:
    """Sum the probabilities of classes that belong to one gesture.

    Parameters
    ----------
    proba
        float, (n_sequences, n_classes).
    gesture_of
        The gesture of every class, as positions from 0.

    Returns
    -------
    Of the dtype of `proba`, (n_sequences, n_gestures).

    Examples
    --------
    >>> pooled(np.array([[0.5, 0.25, 0.25]]), [0, 1, 1]).tolist()
    [[0.5, 0.5]]
    """
    membership = np.zeros((len(gesture_of), max(gesture_of) + 1), dtype=proba.dtype)
    membership[np.arange(len(gesture_of)), list(gesture_of)] = 1
    return np.asarray(proba @ membership)


def _chosen(weights: AnyArray | None, rows: Bool) -> AnyArray | None:
    return None if weights is None else weights[rows]
