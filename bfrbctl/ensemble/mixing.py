"""The mathematics of blending: temperatures, weights on the simplex, the rule that turns probabilities into gestures.

For each scenario, each member gets the temperature that minimises its log-loss, and the members are averaged with
weights that start from the best log-loss and are then searched, without derivatives, for the competition metric.
Weights that make no difference stay equal. The gesture is the most probable one, or, by the metric-aware rule, the best
target where the summed probability of targets reaches a threshold and the best non-target elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from bfrbctl.arrays.ragged import AnyArray, Bool, Float32, Float64, Int64
from bfrbctl.errors import DataError, UsageError
from bfrbctl.evaluation.metrics import has_two_sides, hierarchical_f1, log_loss
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.reprs import short_repr

_TEMPERATURES = (0.2, 5.0)
_STEPS = (0.2, 0.1, 0.05, 0.02)
_EQUALITY_PULL = 1e-3
_THRESHOLDS = tuple(round(0.2 + 0.01 * step, 2) for step in range(61))
_MIDDLE_PULL = 1e-3
_SUBJECT_GROUPS = 5
_INNER_GROUPS = 5
RULES = ("argmax", "threshold")

MIN_AUTO_GROUPS = 3
"""Groups that `auto` needs: one to score, and two others, each to be scored by what was fitted without both."""


@dataclass(frozen=True)
class BlendConfig:
    """Settings of `oof-blend`.

    Parameters
    ----------
    pooling
        `arithmetic` (weighted mean of probabilities) or `logarithmic` (of their logarithms, normalised).
    epsilon
        Probabilities are floored at this and normalised before they are pooled.
    weights
        `name=value` for every member: fixed weights instead of fitted ones.
    decode
        How probabilities become a gesture: `argmax`, `threshold` (target or not by the summed probability of the
        targets first), or `auto`: the threshold where its nested score is better by more than the standard error of the
        gain, else argmax; for each scenario. What `auto` chooses for a
        group that is scored comes from the other groups alone; with two groups it is argmax.
    assign
        `causal`: never answer a joint label twice for one wearer (see `assignment`); needs a member with joint labels.
    seed
        Seed of the bootstrap and of the orders of arrival.
    """

    pooling: str = "arithmetic"
    epsilon: float = 1e-4
    weights: tuple[str, ...] = ()
    decode: Literal["auto", "argmax", "threshold"] = "auto"
    assign: Literal["off", "causal"] = "off"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decode not in ("auto", *RULES):
            raise UsageError(f"--decode {self.decode}: unknown", hint="choose auto, argmax or threshold")
        if self.assign not in ("off", "causal"):
            raise UsageError(f"--assign {self.assign}: unknown", hint="choose off or causal")
        if self.pooling not in ("arithmetic", "logarithmic"):
            raise UsageError(f"--pooling {self.pooling}: unknown", hint="choose arithmetic or logarithmic")
        if not 0 < self.epsilon < 0.05:
            raise UsageError(f"--epsilon {self.epsilon}: expected a small positive number below 0.05")


@dataclass(frozen=True)
class Mixture:
    """How the members of one scenario are put together.

    Parameters
    ----------
    temperatures, weights
        One a member; weights are at least 0 and sum to 1.
    pooling, epsilon
        As in `BlendConfig`.
    threshold
        Of the metric-aware rule; None for the most probable gesture.
    """

    temperatures: tuple[float, ...]
    weights: tuple[float, ...]
    pooling: str
    epsilon: float
    threshold: float | None = None

    def mix(self, probas: Sequence[AnyArray]) -> Float32:
        """Blend the members' probabilities, each (n_sequences, n_classes), into float32 of that shape."""
        scaled = [temper(p, t, self.epsilon) for p, t in zip(probas, self.temperatures, strict=True)]
        return pool(scaled, self.weights, self.pooling).astype(np.float32)

    def only(self, chosen: Sequence[int]) -> "Mixture":
        """Give the mixture of some of the members, their weights scaled up; equal ones where all weigh nothing."""
        weights = [self.weights[member] for member in chosen]
        total = sum(weights)
        scaled = tuple(weight / total for weight in weights) if total > 0 else (1 / len(weights),) * len(weights)
        return replace(self, temperatures=tuple(self.temperatures[member] for member in chosen), weights=scaled)


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


def temper(proba: AnyArray, temperature: float, epsilon: float) -> Float64:
    """Soften (temperature > 1) or sharpen probabilities, floored at epsilon first; rows sum to 1."""
    logs = np.log(np.maximum(np.asarray(proba, dtype=np.float64), epsilon)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def pool(probas: Sequence[Float64], weights: Sequence[float], pooling: str) -> Float64:
    """Average probabilities, or their logarithms, with weights; rows sum to 1."""
    terms = probas if pooling == "arithmetic" else [np.log(p) for p in probas]
    mixed = np.zeros_like(terms[0])
    for weight, term in zip(weights, terms, strict=True):
        mixed = mixed + weight * term
    if pooling == "logarithmic":
        mixed = np.exp(mixed - mixed.max(axis=1, keepdims=True))
    return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------------------------------- fitting


def fit_mixture(
    probas: Sequence[Float32],
    truth: Int64,
    targets: Sequence[bool],
    config: BlendConfig,
    *,
    fixed: Sequence[float] | None = None,
) -> Mixture:
    """Fit temperatures, weights and the threshold on out-of-fold predictions of one scenario.

    Parameters
    ----------
    probas
        One a member, float32 (n_sequences, n_classes), rows aligned.
    truth
        int64, (n_sequences,).
    targets
        One flag a class.
    config
        Pooling and floor.
    fixed
        Weights to take as they are.
    """
    temperatures = [fit_temperature(proba, truth, config.epsilon) for proba in probas]
    scaled = [temper(proba, t, config.epsilon) for proba, t in zip(probas, temperatures, strict=True)]
    if fixed is not None:
        weights = np.asarray(fixed, dtype=np.float64)
    elif len(probas) == 1:
        weights = np.ones(1)
    else:
        weights = _search(scaled, truth, targets, config.pooling, start=_by_log_loss(scaled, truth, config.pooling))
    mixture = Mixture(
        tuple(float(t) for t in temperatures), tuple(float(w) for w in weights), config.pooling, config.epsilon
    )
    return replace(mixture, threshold=fit_threshold(mixture.mix(probas), truth, targets))


def fit_temperature(proba: AnyArray, truth: Int64, epsilon: float) -> float:
    """Find the temperature (0.2 to 5) with the least log-loss, to four digits."""

    def loss(log_t: float) -> float:
        return log_loss(temper(proba, float(np.exp(log_t)), epsilon), truth)

    bounds = (float(np.log(_TEMPERATURES[0])), float(np.log(_TEMPERATURES[1])))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return round(float(np.exp(found.x)), 4)


def _by_log_loss(scaled: Sequence[Float64], truth: Int64, pooling: str) -> Float64:
    """Weights with the least log-loss, searched from equal ones through a softmax."""

    def weights(free: Float64) -> Float64:
        powers = np.exp(free - free.max())
        return np.asarray(powers / powers.sum())

    def loss(free: Float64) -> float:
        return log_loss(pool(scaled, weights(free).tolist(), pooling), truth) + 1e-4 * float(np.sum(free**2))

    found = minimize(loss, np.zeros(len(scaled)), method="L-BFGS-B", bounds=[(-6.0, 6.0)] * len(scaled))
    return weights(np.asarray(found.x))


def _search(
    scaled: Sequence[Float64], truth: Int64, targets: Sequence[bool], pooling: str, *, start: Float64
) -> Float64:
    """Move weight from one member to another as long as the competition metric gains; ties go to equal weights."""
    n = len(scaled)
    equal = np.full(n, 1.0 / n)

    def value(weights: Float64) -> float:
        predicted = np.argmax(pool(scaled, weights.tolist(), pooling), axis=1).astype(np.int64)
        return hierarchical_f1(truth, predicted, targets).score - _EQUALITY_PULL * float(np.sum((weights - equal) ** 2))

    best, best_value = max(((w, value(w)) for w in (equal, np.round(start, 3))), key=lambda pair: pair[1])
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for giver in range(n):
                for taker in range(n):
                    moved = min(step, float(best[giver]))
                    if giver == taker or moved <= 0:
                        continue
                    candidate = best.copy()
                    candidate[giver] -= moved
                    candidate[taker] += moved
                    candidate_value = value(candidate)
                    if candidate_value > best_value + 1e-9:
                        best, best_value, improved = candidate, candidate_value, True
    return np.asarray(np.round(best / best.sum(), 6))


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
    proba = np.empty_like(probas[0])
    predicted = {rule: np.empty(len(groups), dtype=np.int64) for rule in RULES}
    for group in np.unique(groups):
        held, rest = groups == group, groups != group
        fitted = fit_mixture([p[rest] for p in probas], part.truth[rest], targets, config, fixed=fixed)
        proba[held] = fitted.mix([p[held] for p in probas])
        predicted["argmax"][held] = decide(proba[held], targets, None)
        predicted["threshold"][held] = decide(proba[held], targets, fitted.threshold)
    return Nested(proba, predicted, groups, _rules(probas, part.truth, groups, targets, config, fixed=fixed))


def _rules(
    probas: Sequence[Float32],
    truth: Int64,
    groups: Int64,
    targets: Sequence[bool],
    config: BlendConfig,
    *,
    fixed: Sequence[float] | None,
) -> dict[int, str]:
    """Choose the decoding rule of each group by the score that it has, nested, inside the other groups.

    Nested again: to choose for a group, each inner group of the others (five at most) is blended and decoded by what
    was fitted without both. Two groups that leave each other out share a fit: 10 fits for five groups, and some 4 a
    group beyond.
    """
    names = np.unique(groups).tolist()
    if config.decode != "auto":
        return dict.fromkeys(names, config.decode)
    if len(names) < MIN_AUTO_GROUPS or not has_two_sides(targets):
        return dict.fromkeys(names, RULES[0])
    inner = [names[start::_INNER_GROUPS] for start in range(min(_INNER_GROUPS, len(names)))]
    fits: dict[frozenset[int], Mixture] = {}
    chosen = {}
    for name in names:
        predicted = {rule: np.empty(len(groups), dtype=np.int64) for rule in RULES}
        for block in inner:
            held = np.isin(groups, block) & (groups != name)
            left_out = frozenset([name, *block])
            if not held.any():
                continue
            if left_out not in fits:
                rest = ~np.isin(groups, list(left_out))
                fits[left_out] = fit_mixture([p[rest] for p in probas], truth[rest], targets, config, fixed=fixed)
            proba = fits[left_out].mix([p[held] for p in probas])
            predicted["argmax"][held] = decide(proba, targets, None)
            predicted["threshold"][held] = decide(proba, targets, fits[left_out].threshold)
        others = groups != name
        elsewhere = {rule: each[others] for rule, each in predicted.items()}
        chosen[name] = _better_rule(truth[others], elsewhere, targets, _blocks(groups)[others])
    return chosen
