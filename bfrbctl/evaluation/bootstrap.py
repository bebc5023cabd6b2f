"""Drawing whole subjects with replacement: how far a score would move with other subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float64, Int64
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.discrimination import positive_side, side_proba
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.reprs import short_repr

N_DRAWS = 1000
MEAN = "mean"

_BLOCK = 1 << 20
"""Subjects drawn at a time: recordings without a subject count as one each, and there may be 100,000 of them."""


class Scorer(Protocol):
    """A figure of the sequences of some subjects, for any bootstrap draw of these subjects."""

    @property
    def n_subjects(self) -> int:
        """How many subjects there are to draw from."""

    def scores(self, times: Int64) -> Float64:
        """Score draws: times is (n_draws, n_subjects), how often each subject counts; float64 (n_draws,)."""


@dataclass(frozen=True)
class Tally:
    """What the headline score counts, by subject, so that scoring a draw of subjects is a product of matrices.

    Parameters
    ----------
    hits, totals
        float64, (n_subjects, n_scored): correct ones, and truth + predicted, of each target and the merged non-target;
        of each gesture where all are of one side.
    binary
        float64, (n_subjects, 2): the same two of target or not; None where all are of one side.
    """

    hits: Float64
    totals: Float64
    binary: Float64 | None

    __repr__ = short_repr

    @property
    def n_subjects(self) -> int:
        """How many subjects there are to draw from."""
        return len(self.hits)

    @classmethod
    def of(cls, part: OofScenario, space: ClassSpace) -> "Tally":
        """Count the predictions of one scenario."""
        flags, group, predicted = np.asarray(space.targets, dtype=np.bool_), part.groups, part.predicted
        n_groups, binary = int(group.max()) + 1, None
        if space.has_two_sides:
            binary = np.zeros((n_groups, 2))
            np.add.at(binary[:, 0], group, flags[part.truth] & flags[predicted])
            np.add.at(binary[:, 1], group, flags[part.truth].astype(float) + flags[predicted])
        scored_truth, scored = space.scored_labels(part.truth), space.scored_labels(predicted)
        hits, totals = np.zeros((2, n_groups, len(space.scored_names)))
        np.add.at(hits, (group, scored_truth), scored_truth == scored)
        np.add.at(totals, (group, scored_truth), 1.0)
        np.add.at(totals, (group, scored), 1.0)
        return cls(hits, totals, binary)

    def scores(self, times: Int64) -> Float64:
        """Score draws: times is (n_draws, n_subjects), how often each subject counts; float64 (n_draws,)."""
        hits, totals = times @ self.hits, times @ self.totals
        with np.errstate(invalid="ignore", divide="ignore"):
            macro = np.nanmean(np.where(totals > 0, 2 * hits / totals, np.nan), axis=1)
            if self.binary is None:
                return np.asarray(macro)
            binary = times @ self.binary
            target_f1 = np.where(binary[:, 1] > 0, 2 * binary[:, 0] / binary[:, 1], 0.0)
        return np.asarray(0.5 * (target_f1 + macro))


@dataclass(frozen=True)
class Ranking:
    """Sequences sorted by the probability of the positive side, for the pooled AUC of draws of subjects.

    Parameters
    ----------
    groups
        int64, (n_sequences,): number of the subject; the smallest value first.
    positive
        bool, (n_sequences,): which are positive.
    starts
        int64, (n_values,): where each distinct value begins.
    """

    groups: Int64
    positive: Bool
    starts: Int64

    __repr__ = short_repr

    @property
    def n_subjects(self) -> int:
        """How many subjects there are to draw from."""
        return int(self.groups.max()) + 1

    @classmethod
    def of(cls, part: OofScenario, side: Bool) -> "Ranking":
        """Sort one scenario by the probability of a side: bool, (n_classes,), from `positive_side`."""
        values = side_proba(part.proba, side)
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
        return cls(part.groups[order], side[part.truth][order], starts)

    def scores(self, times: Int64) -> Float64:
        """Give the AUC of draws, (n_draws, n_subjects): float64 (n_draws,), NaN where one side is not drawn."""
        return np.array([self._auc(row) for row in times], dtype=np.float64)

    def _auc(self, times: Int64) -> float:
        counts = times[self.groups].astype(np.float64)
        every = np.add.reduceat(counts, self.starts)
        positive = np.add.reduceat(counts * self.positive, self.starts)
        negative = every - positive
        pairs = positive.sum() * negative.sum()
        below = np.cumsum(negative) - 0.5 * negative  # half of the ties
        return float(positive @ below / pairs) if pairs > 0 else float("nan")


def drawn_scores(scorers: Sequence[Scorer], seed: int) -> list[Float64]:
    """Draw subjects with replacement, 1000 times, and score each of the scorers, which are of the same subjects.

    Returns
    -------
    float64, (1000,), for each scorer; the same draw stands at the same place in all.
    """
    n_subjects, rng = scorers[0].n_subjects, np.random.default_rng(seed)
    n_rows = max(_BLOCK // n_subjects, 1)
    blocks = []
    for begin in range(0, N_DRAWS, n_rows):
        drawn = rng.integers(0, n_subjects, (min(n_rows, N_DRAWS - begin), n_subjects))
        times = np.array([np.bincount(row, minlength=n_subjects) for row in drawn])
        blocks.append([scorer.scores(times) for scorer in scorers])
    return [np.concatenate(each) for each in zip(*blocks, strict=True)]


def interval(values: Float64) -> tuple[float, float]:
    """Give the middle 95 % of values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def auc_interval(values: Float64) -> tuple[float, float] | None:
    """Give the middle 95 % of the AUC, or of differences, over draws; draws with one side only are left out.

    None where no draw has both sides.
    """
    known = values[~np.isnan(values)]
    return interval(known) if known.size else None


def score_intervals(
    scenarios: Mapping[str, OofScenario], space: ClassSpace, *, seed: int
) -> dict[str, tuple[float, float]]:
    """Give the 95 % interval of the headline score of each scenario and, as `mean`, of their mean.

    All of them come from the same draws of subjects, so that the interval of the mean is that of one figure and not of
    two independent ones.
    """
    tallies = {scenario: Tally.of(part, space) for scenario, part in scenarios.items()}
    scores = dict(zip(tallies, drawn_scores(list(tallies.values()), seed), strict=True))
    scores[MEAN] = np.mean(list(scores.values()), axis=0)
    return {name: interval(values) for name, values in scores.items()}


def auc_intervals(
    scenarios: Mapping[str, OofScenario], space: ClassSpace, *, seed: int
) -> dict[str, tuple[float, float] | None]:
    """Give the 95 % interval of the pooled AUC of `detection` of each scenario, from the same draws as the score.

    None where there are no two sides, see `positive_side`.
    """
    side = positive_side(space)
    if side is None:
        return dict.fromkeys(scenarios)
    rankings = [Ranking.of(part, side[1]) for part in scenarios.values()]
    return {name: auc_interval(each) for name, each in zip(scenarios, drawn_scores(rankings, seed), strict=True)}
