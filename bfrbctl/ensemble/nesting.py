"""Nested blends: every fold, or group of subjects, is predicted by what was fitted and chosen on the others alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float32, Int64
from bfrbctl.ensemble.decoding import RULES, decide
from bfrbctl.ensemble.fitting import fit_mixture
from bfrbctl.ensemble.mixing import BlendConfig, Mixture
from bfrbctl.errors import DataError
from bfrbctl.evaluation.metrics import has_two_sides, hierarchical_f1
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.reprs import short_repr

_SUBJECT_GROUPS = 5
_INNER_GROUPS = 5

MIN_AUTO_GROUPS = 3
"""Groups that `auto` needs: one to score, and two others, each to be scored by what was fitted without both."""


@dataclass(frozen=True)
class Nested:
    """A blend of each fold, or group of subjects, by what was fitted on the others alone.

    Parameters
    ----------
    proba
        float32, (n_sequences, n_classes), aligned with the predictions it was made of.
    predicted
        Rule -> int64, (n_sequences,): positions of gestures.
    groups
        int64, (n_sequences,), from `nesting_groups`.
    rules
        Group -> the rule that it is decoded by, which its own labels had no part in.
    """

    proba: Float32
    predicted: dict[str, Int64]
    groups: Int64
    rules: dict[int, str]

    __repr__ = short_repr

    @property
    def decided(self) -> Int64:
        """int64, (n_sequences,): positions of the predicted gestures, each group by its own rule."""
        out = np.empty_like(self.groups)
        for group, rule in self.rules.items():
            held = self.groups == group
            out[held] = self.predicted[rule][held]
        return out

    def kept_rule(self, truth: Int64, targets: Sequence[bool], config: BlendConfig) -> str:
        """Name the rule for new recordings: the one asked for, or for `auto` the one that is better on all groups."""
        if config.decode != "auto":
            return config.decode
        if len(self.rules) < MIN_AUTO_GROUPS:
            return RULES[0]
        return _better_rule(truth, self.predicted, targets, _blocks(self.groups))


def _better_rule(truth: Int64, predicted: Mapping[str, Int64], targets: Sequence[bool], blocks: Int64) -> str:
    """Name the threshold where it gains more than the standard error of its gain, else argmax.

    Where the rules are level, a choice by the other folds is worse than none: a fold that favours one rule leaves the
    other folds to favour the other. The error is that of the jackknife over blocks of groups, int64 (n_sequences,).
    """

    def gain(rows: Bool) -> float:
        argmax, threshold = (hierarchical_f1(truth[rows], predicted[rule][rows], targets).score for rule in RULES)
        return threshold - argmax

    without = np.array([gain(blocks != block) for block in np.unique(blocks)])
    error = float(np.sqrt((without.size - 1) * np.var(without)))
    return "threshold" if gain(np.ones(truth.size, dtype=np.bool_)) > error else "argmax"


def _blocks(groups: Int64) -> Int64:
    """Deal groups to a few blocks: int64, (n_sequences,)."""
    return np.asarray(np.unique(groups, return_inverse=True)[1] % _INNER_GROUPS, dtype=np.int64)


def nesting_groups(part: OofScenario) -> Int64:
    """Divide out-of-fold predictions into groups, each of which is scored by what was fitted on the other groups.

    The groups are the folds. Where one fold alone was trained, they are up to five groups of its subjects, by name: no
    subject is then in two groups, and what is scored still was not fitted on.

    Returns
    -------
    int64, (n_sequences,).

    Raises
    ------
    DataError
        When there are neither two folds nor two subjects.
    """
    folds, subjects = part.folds, part.groups
    if len(np.unique(folds)) > 1:
        return folds
    n_subjects = len(np.unique(subjects))
    if n_subjects < 2:
        raise DataError(
            f"fold {folds[0]} is the only one that was trained, and it holds out one subject: "
            "nothing is left to fit weights and temperatures on",
            hint="train two folds at least",
        )
    return np.asarray(subjects % min(n_subjects, _SUBJECT_GROUPS), dtype=np.int64)


@dataclass(frozen=True)
class _Fits:
    """Fits on all groups but some; two groups that leave each other out share one.

    Parameters
    ----------
    probas, truth, targets, config, fixed
        As of `fit_mixture`.
    groups
        int64, (n_sequences,).
    """

    probas: Sequence[Float32]
    truth: Int64
    groups: Int64
    targets: Sequence[bool]
    config: BlendConfig
    fixed: Sequence[float] | None
    made: dict[frozenset[int], Mixture] = field(default_factory=dict)

    __repr__ = short_repr

    def without(self, left_out: frozenset[int]) -> Mixture:
        """Give the mixture that is fitted without some groups."""
        if left_out not in self.made:
            rest = ~np.isin(self.groups, list(left_out))
            probas = [proba[rest] for proba in self.probas]
            self.made[left_out] = fit_mixture(probas, self.truth[rest], self.targets, self.config, fixed=self.fixed)
        return self.made[left_out]

    def predict(self, held: Bool, left_out: frozenset[int], predicted: Mapping[str, Int64]) -> Float32:
        """Mix and decode the held sequences by what was fitted without some groups; fills their rows of `predicted`."""
        fitted = self.without(left_out)
        proba = fitted.mix([each[held] for each in self.probas])
        for rule, threshold in zip(RULES, (None, fitted.threshold), strict=True):
            predicted[rule][held] = decide(proba, self.targets, threshold)
        return proba


def nested(
    probas: Sequence[Float32],
    part: OofScenario,
    targets: Sequence[bool],
    config: BlendConfig,
    *,
    fixed: Sequence[float] | None = None,
) -> Nested:
    """Blend and decode each of the `nesting_groups` by what was fitted and chosen on the other groups alone."""
    groups = nesting_groups(part)
    fits = _Fits(probas, part.truth, groups, targets, config, fixed)
    proba, predicted = np.empty_like(probas[0]), _no_predictions(groups)
    for group in np.unique(groups).tolist():
        held = groups == group
        proba[held] = fits.predict(held, frozenset([group]), predicted)
    return Nested(proba, predicted, groups, _rules(fits))


def _no_predictions(groups: Int64) -> dict[str, Int64]:
    return {rule: np.empty_like(groups) for rule in RULES}


def _rules(fits: _Fits) -> dict[int, str]:
    """Choose the decoding rule of each group by the score that it has, nested, inside the other groups.

    Nested again: to choose for a group, each inner group of the others (five at most) is blended and decoded by what
    was fitted without both: 10 fits for five groups, and some 4 a group beyond.
    """
    groups = fits.groups
    names = np.unique(groups).tolist()
    if fits.config.decode != "auto":
        return dict.fromkeys(names, fits.config.decode)
    if len(names) < MIN_AUTO_GROUPS or not has_two_sides(fits.targets):
        return dict.fromkeys(names, RULES[0])
    inner = [names[start::_INNER_GROUPS] for start in range(min(_INNER_GROUPS, len(names)))]
    chosen = {}
    for name in names:
        predicted, others = _no_predictions(groups), groups != name
        for block in inner:
            held = np.isin(groups, block) & others
            if held.any():
                fits.predict(held, frozenset([name, *block]), predicted)
        elsewhere = {rule: each[others] for rule, each in predicted.items()}
        chosen[name] = _better_rule(fits.truth[others], elsewhere, fits.targets, _blocks(groups)[others])
    return chosen
