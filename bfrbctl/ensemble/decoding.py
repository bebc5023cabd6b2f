"""Decoding: the rules that turn probabilities into gestures.

`argmax` takes the most probable gesture. `threshold`, which follows the metric, takes the best target where the summed
probability of the targets reaches a threshold, and the best non-target elsewhere.
"""

from collections.abc import Sequence

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64, Int64
from bfrbctl.evaluation.metrics import hierarchical_f1

RULES = ("argmax", "threshold")
_THRESHOLDS = tuple(round(0.2 + 0.01 * step, 2) for step in range(61))
_MIDDLE_PULL = 1e-3


def decide(proba: AnyArray, targets: Sequence[bool], threshold: float | None) -> Int64:
    """Turn probabilities (n_sequences, n_classes) into positions of gestures: int64, (n_sequences,).

    Without a threshold the most probable gesture; with one, the best target where the targets' probabilities sum to
    the threshold or more, and the best non-target elsewhere.
    """
    flags = np.asarray(targets, dtype=np.bool_)
    if threshold is None or flags.all() or not flags.any():
        return np.asarray(np.argmax(proba, axis=1), dtype=np.int64)
    best_target, best_other, share = _halves(proba, flags)
    return np.asarray(np.where(share >= threshold, best_target, best_other), dtype=np.int64)


def _halves(proba: AnyArray, flags: Bool) -> tuple[Int64, Int64, Float64]:
    """Best target, best non-target, and the summed probability of the targets, of each row."""
    best_target = np.argmax(np.where(flags, proba, -1.0), axis=1).astype(np.int64)
    best_other = np.argmax(np.where(flags, -1.0, proba), axis=1).astype(np.int64)
    return best_target, best_other, np.asarray(proba, dtype=np.float64)[:, flags].sum(axis=1)


def fit_threshold(proba: AnyArray, truth: Int64, targets: Sequence[bool]) -> float | None:
    """Find the threshold (.2 to .8) of the metric-aware rule with the best score; of equals that nearest to .5.

    None where there are no two sides: only targets, or none.
    """
    flags = np.asarray(targets, dtype=np.bool_)
    if flags.all() or not flags.any():
        return None
    best_target, best_other, share = _halves(proba, flags)

    def value(threshold: float) -> float:
        predicted = np.where(share >= threshold, best_target, best_other)
        return hierarchical_f1(truth, predicted, targets).score - _MIDDLE_PULL * abs(threshold - 0.5)

    return max(_THRESHOLDS, key=value)
