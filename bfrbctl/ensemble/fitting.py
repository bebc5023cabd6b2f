"""Fitting a mixture on out-of-fold predictions: temperatures, weights, and the threshold of the decoding rule.

Each member gets the temperature that minimises its log-loss. The weights start from those of the best log-loss and are
then searched, without derivatives, for the competition metric. Weights that make no difference stay equal.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64, Int64
from bfrbctl.ensemble.decoding import fit_threshold
from bfrbctl.ensemble.mixing import BlendConfig, Mixture, pool, temper
from bfrbctl.evaluation.metrics import hierarchical_f1, log_loss

_TEMPERATURES = (0.2, 5.0)
_STEPS = (0.2, 0.1, 0.05, 0.02)
_EQUALITY_PULL = 1e-3


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
