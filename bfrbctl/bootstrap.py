"""Drawing whole subjects with replacement: how far a score would move if other people had taken part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bfrbctl.metrics import merged_labels
from bfrbctl.oof import OofScenario
from bfrbctl.reprs import short_repr
from bfrbctl.segments import Float64, Int64

N_DRAWS = 1000
MEAN = "mean"

_BLOCK = 1 << 20
"""Subjects drawn at a time: recordings without a subject count as one each, and there may be 100,000 of them."""


@dataclass(frozen=True)
class Tally:
    """What the competition score counts, by subject, so that a drawing of subjects is a product of matrices.

    Parameters
    ----------
    hits, totals
        float64, (n_subjects, n_merged): right ones, and truth + predicted, of each target and the merged non-target.
    binary
        float64, (n_subjects, 2): the same two of target or not.
    """

    hits: Float64
    totals: Float64
    binary: Float64

    __repr__ = short_repr

    @classmethod
    def of(cls, part: OofScenario, targets: Sequence[bool]) -> "Tally":
        """Count the answers of one scenario."""
        predicted = part.predicted
        group = part.groups
        n_groups = int(group.max()) + 1
        n_merged = sum(targets) + 1
        truth_m, predicted_m = merged_labels(part.truth, targets), merged_labels(predicted, targets)
        flags = np.asarray(targets, dtype=np.bool_)
        hits, totals = np.zeros((2, n_groups, n_merged))
        np.add.at(hits, (group, truth_m), truth_m == predicted_m)
        np.add.at(totals, (group, truth_m), 1.0)
        np.add.at(totals, (group, predicted_m), 1.0)
        binary = np.zeros((n_groups, 2))
        np.add.at(binary[:, 0], group, flags[part.truth] & flags[predicted])
        np.add.at(binary[:, 1], group, flags[part.truth].astype(float) + flags[predicted])
        return cls(hits, totals, binary)

    def scores(self, times: Int64) -> Float64:
        """Score drawings: times is (n_draws, n_subjects), how often each subject counts; float64 (n_draws,)."""
        hits, totals, binary = times @ self.hits, times @ self.totals, times @ self.binary
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(totals > 0, 2 * hits / totals, np.nan)
            target_f1 = np.where(binary[:, 1] > 0, 2 * binary[:, 0] / binary[:, 1], 0.0)
        return np.asarray(0.5 * (target_f1 + np.nanmean(f1, axis=1)))


def drawn_scores(tallies: Sequence[Tally], seed: int) -> list[Float64]:
    """Draw subjects with replacement, 1000 times, and score each of the tallies, which are of the same subjects.

    Returns
    -------
    float64, (1000,), for each tally; the same drawing stands at the same place in all.
    """
    n_subjects, rng = len(tallies[0].binary), np.random.default_rng(seed)
    n_rows = max(_BLOCK // n_subjects, 1)
    blocks = []
    for begin in range(0, N_DRAWS, n_rows):
        drawn = rng.integers(0, n_subjects, (min(n_rows, N_DRAWS - begin), n_subjects))
        times = np.array([np.bincount(row, minlength=n_subjects) for row in drawn])
        blocks.append([tally.scores(times) for tally in tallies])
    return [np.concatenate(each) for each in zip(*blocks, strict=True)]


def interval(values: Float64) -> tuple[float, float]:
    """Give the middle 95 % of values."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def score_intervals(
    scenarios: Mapping[str, OofScenario], targets: Sequence[bool], *, seed: int
) -> dict[str, tuple[float, float]]:
    """Give the 95 % interval of the competition score of each scenario and, as `mean`, of their mean.

    All of them come from the same drawings of subjects, so that the interval of the mean is that of one figure and not
    of two independent ones.
    """
    tallies = {scenario: Tally.of(part, targets) for scenario, part in scenarios.items()}
    scores = dict(zip(tallies, drawn_scores(list(tallies.values()), seed), strict=True))
    scores[MEAN] = np.mean(list(scores.values()), axis=0)
    return {name: interval(values) for name, values in scores.items()}
