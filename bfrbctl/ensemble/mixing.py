"""Mixtures: the members' probabilities, each with a temperature, averaged with weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64
from bfrbctl.ensemble.decoding import RULES
from bfrbctl.errors import UsageError


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
