"""How well probabilities rank sequences, whatever threshold is set: AUC, average precision, operating points.

The definitions are those of scikit-learn's `roc_auc_score`, `average_precision_score` and `roc_curve`; here the AUC of
every subject comes from one sort, so that it costs no more than the pooled one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64, Int64
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.metrics import gesture_figures
from bfrbctl.reprs import short_repr

TARGETS = "targets"
"""Name of the positive side where target or not is asked for; else it is that of a class."""

ALARM_LIMITS = (1, 2, 5, 10, 20)
"""False alarms in 100 negative sequences that an operating point may have at most."""

Figures = dict[str, Any]


def positive_side(space: ClassSpace) -> tuple[str, Bool] | None:
    """Choose what is to be detected: the targets; of two gestures of one side, the second.

    Returns
    -------
    Its name, and bool (n_gestures,): which gestures belong to it. None where there are no two sides: more than two
    gestures, or one, all of them targets or none of them.

    Examples
    --------
    >>> positive_side(ClassSpace.of(["rest", "scratch"], [False, False]))
    ('scratch', array([False,  True]))
    """
    if space.has_two_sides:
        return TARGETS, np.asarray(space.targets, dtype=np.bool_)
    return (space.gestures[1], np.array([False, True])) if len(space.gestures) == 2 else None


def side_proba(proba: AnyArray, side: Bool) -> Float64:
    """Sum the probabilities of the classes of a side: float64, (n_sequences,)."""
    return np.asarray(np.asarray(proba, dtype=np.float64)[:, side].sum(axis=1))


# ------------------------------------------------------------------------------------------------------------- AUC


def auc_by_group(truth: Bool, values: AnyArray, groups: Int64) -> Float64:
    """Give the AUC within each group: how often a positive sequence ranks above a negative one; a tie is half a win.

    Parameters
    ----------
    truth
        bool, (n_sequences,): which are positive.
    values
        float, (n_sequences,): the larger, the more likely positive.
    groups
        int64, (n_sequences,), from 0.

    Returns
    -------
    float64, (n_groups,); NaN where a group lacks one of the sides.
    """
    n_groups = int(groups.max()) + 1
    order = np.lexsort((values, groups))
    group, value = groups[order], np.asarray(values)[order]
    starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (value[1:] != value[:-1])])
    n_positive = np.add.reduceat(truth[order].astype(np.float64), starts)
    n_negative = np.diff(np.r_[starts, len(order)]) - n_positive
    of_group = group[starts]
    negatives = np.bincount(of_group, n_negative, minlength=n_groups)
    first = np.cumsum(negatives) - negatives  # negatives of the groups before
    below = np.cumsum(n_negative) - n_negative - first[of_group]
    wins = np.bincount(of_group, n_positive * (below + 0.5 * n_negative), minlength=n_groups)
    pairs = np.bincount(of_group, n_positive, minlength=n_groups) * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, wins / pairs, np.nan), dtype=np.float64)


def auc(truth: Bool, values: AnyArray) -> float | None:
    """Give the area under the ROC curve; None where one side is absent.

    Examples
    --------
    >>> auc(np.array([False, True, True]), np.array([0.2, 0.9, 0.2]))
    0.75
    """
    found = float(auc_by_group(truth, values, np.zeros(len(truth), dtype=np.int64))[0])
    return None if np.isnan(found) else found


def auc_within_subjects(truth: Bool, values: AnyArray, groups: Int64) -> Figures | None:
    """Average the AUC within subjects, over the subjects that have both sides.

    Returns
    -------
    `mean`, `sd` (over subjects, n - 1; None for one subject) and `n_subjects`; None where no subject has both sides.
    """
    each = auc_by_group(truth, values, groups)
    each = each[~np.isnan(each)]
    if not each.size:
        return None
    deviation = float(np.std(each, ddof=1)) if each.size > 1 else None
    return {"mean": float(each.mean()), "sd": deviation, "n_subjects": int(each.size)}


# ----------------------------------------------------------------------------------------------------------- curve


@dataclass(frozen=True)
class Curve:
    """Detections and false alarms at every threshold: value >= threshold counts as positive.

    Parameters
    ----------
    thresholds
        float64, (n_thresholds,): the distinct values, the largest first.
    hits, alarms
        int64, (n_thresholds,): positive and negative sequences at or above the threshold; the last ones are all.
    """

    thresholds: Float64
    hits: Int64
    alarms: Int64

    __repr__ = short_repr

    @property
    def sensitivity(self) -> Float64:
        """float64, (n_thresholds,): share found of the positive sequences."""
        return np.asarray(self.hits / self.hits[-1])

    @property
    def false_alarm_rate(self) -> Float64:
        """float64, (n_thresholds,): share of the negative sequences that are at or above the threshold."""
        return np.asarray(self.alarms / self.alarms[-1])

    @property
    def f1(self) -> Float64:
        """float64, (n_thresholds,): F1 of the positive side."""
        return np.asarray(2 * self.hits / (self.hits + self.alarms + self.hits[-1]))


def curve(truth: Bool, values: AnyArray) -> Curve | None:
    """Count hits and false alarms at every threshold; None where one side is absent."""
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-np.asarray(values), kind="stable")
    value = np.asarray(values, dtype=np.float64)[order]
    ends = np.flatnonzero(np.r_[value[1:] != value[:-1], True])
    hits = np.cumsum(truth[order].astype(np.int64))[ends]
    return Curve(value[ends], hits, ends.astype(np.int64) + 1 - hits)


def average_precision(truth: Bool, values: AnyArray) -> float | None:
    """Average the precision over the steps of recall, without interpolation; None where one side is absent.

    Examples
    --------
    >>> average_precision(np.array([False, True, True]), np.array([0.2, 0.9, 0.1]))
    0.8333333333333333
    """
    found = curve(truth, values)
    if found is None:
        return None
    precision = found.hits / (found.hits + found.alarms)
    return float(np.sum(np.diff(found.hits, prepend=0) * precision) / found.hits[-1])


def operating_points(found: Curve) -> list[Figures]:
    """Choose the thresholds of a curve that a reader may want, the largest first.

    They are a probability of one half, the best F1, and for each of `ALARM_LIMITS` the lowest threshold that keeps to
    it.

    Returns
    -------
    One object a threshold: `rule` (how it was chosen), `threshold`, `sensitivity`, `specificity`, `precision` (None
    where nothing is at or above it), `f1`, `false_alarms_per_100` negative sequences.
    """
    chosen = {0.5: ["probability 0.5"]}
    places = {"best F1": int(np.argmax(found.f1))}
    for limit in ALARM_LIMITS:
        n_kept = int(np.count_nonzero(100 * found.alarms <= limit * found.alarms[-1]))
        if n_kept:
            places[f"false alarms {limit} in 100 at most"] = n_kept - 1
    for rule, place in places.items():
        chosen.setdefault(float(found.thresholds[place]), []).append(rule)
    return [_point(found, threshold, "; ".join(chosen[threshold])) for threshold in sorted(chosen, reverse=True)]


def _point(found: Curve, threshold: float, rule: str) -> Figures:
    """Count what is at or above a threshold."""
    place = int(np.count_nonzero(found.thresholds >= threshold)) - 1
    hits, alarms = (int(counts[place]) if place >= 0 else 0 for counts in (found.hits, found.alarms))
    n_positive, n_negative = int(found.hits[-1]), int(found.alarms[-1])
    return {
        "rule": rule,
        "threshold": threshold,
        "sensitivity": hits / n_positive,
        "specificity": 1 - alarms / n_negative,
        "precision": hits / (hits + alarms) if hits + alarms else None,
        "f1": 2 * hits / (hits + alarms + n_positive),
        "false_alarms_per_100": 100 * alarms / n_negative,
    }


# --------------------------------------------------------------------------------------------------------- figures


def ranking_figures(
    truth: Int64,
    predicted: Int64,
    proba: AnyArray,
    space: ClassSpace,
    *,
    groups: Int64 | None = None,
) -> Figures:
    """Measure how well probabilities rank sequences, and how every gesture is recognised; JSON values only.

    Parameters
    ----------
    truth, predicted
        int64, (n_sequences,): positions of gestures.
    proba
        float, (n_sequences, n_gestures).
    space
        The gestures.
    groups
        int64, (n_sequences,): the subject of each sequence; None where they are not known.

    Returns
    -------
    `detection`: of the `positive_side`, or None; `gestures`: precision, recall, F1, support, and AUC and average
    precision against the rest by the gesture's own probability, None where it or the rest is absent; `macro_auc`,
    `macro_average_precision` and `macro_auc_within_subjects`, their means over the gestures.
    """
    each = [_ranked(truth == place, proba[:, place], groups) for place in range(len(space.gestures))]
    pairs = zip(gesture_figures(truth, predicted, space.gestures).items(), each, strict=True)
    by_subject = [found["auc_within_subjects"] for found in each]
    return {
        "detection": _detection(truth, proba, positive_side(space), groups),
        "macro_auc": _mean([found["auc"] for found in each]),
        "macro_average_precision": _mean([found["average_precision"] for found in each]),
        "macro_auc_within_subjects": _mean([found and found["mean"] for found in by_subject]),
        "gestures": {
            name: {**found, "auc": ranked["auc"], "average_precision": ranked["average_precision"]}
            for (name, found), ranked in pairs
        },
    }


def _ranked(positive: Bool, values: AnyArray, groups: Int64 | None) -> Figures:
    return {
        "auc": auc(positive, values),
        "average_precision": average_precision(positive, values),
        "auc_within_subjects": None if groups is None else auc_within_subjects(positive, values, groups),
    }


def _detection(truth: Int64, proba: AnyArray, side: tuple[str, Bool] | None, groups: Int64 | None) -> Figures | None:
    """Measure how well one side is detected; None where there are no two sides, among classes or sequences."""
    if side is None:
        return None
    positive, values = side[1][truth], side_proba(proba, side[1])
    found = curve(positive, values)
    if found is None:
        return None
    ranked, points = _ranked(positive, values, groups), operating_points(found)
    return {"positive": side[0], "share": float(positive.mean()), **ranked, "operating_points": points}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
