"""Mixtures: the members' probabilities, each with a temperature, averaged with weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64
from bfrbctl.config import Settings


class BlendConfig(Settings):
    """Settings of `oof-blend`.

    What `decode = "auto"` chooses for a group that is scored comes from the other groups alone; with two groups it is
    argmax.
    """

    pooling: Literal["arithmetic", "logarithmic"] = Field(
        default="arithmetic",
        description="Weighted mean of the probabilities (arithmetic), or of their logarithms, normalised (logarithmic)",
    )
    epsilon: float = Field(
        default=1e-4,
        gt=0.0,
        lt=0.05,
        description="Probabilities are floored at this and normalised before they are pooled",
    )
    weights: tuple[str, ...] = Field(
        default=(), description="Fixed weights instead of fitted ones: MEMBER=VALUE for every member"
    )
    decode: Literal["auto", "argmax", "threshold"] = Field(
        default="auto",
        description="How probabilities become a gesture: argmax; threshold (first target or not, by the summed "
        "probability of the targets); auto, for each scenario: threshold where its nested score is "
        "better by more than the standard error of the gain, else argmax",
    )
    assign: Literal["off", "causal"] = Field(
        default="off",
        description="causal: never predict a joint label twice for one subject; needs a member with joint labels",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the bootstrap and of the orders of arrival")


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
