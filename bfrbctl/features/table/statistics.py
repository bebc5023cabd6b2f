"""Statistics of one signal over one window: distribution, trend, crossings, gradient, autocorrelation, entropy.

A `Statistics` is a value: the names, units and formulas of what it gives and the function that computes all of them on
a block at once. `{u}` in a unit stands for the unit of the signal.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bfrbctl.arrays.ragged import Float64
from bfrbctl.features.table.blocks import Block, Computation, dot, ratio

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DELAYS_S = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
LONGEST_DELAY_S = 2.5
GRADIENT_EDGES = (-1.0, -0.25, 0.25, 1.0)
BANDT = "Bandt and Pompe, Permutation Entropy, Phys. Rev. Lett. 88, 2002"


@dataclass(frozen=True)
class Statistic:
    """The name, unit and formula of one number."""

    name: str
    unit: str
    formula: str
    source: str = ""


@dataclass(frozen=True)
class Statistics:
    """A family of statistics that are computed together.

    Parameters
    ----------
    family
        A name out of `settings.FAMILIES`.
    members
        What it gives, in order.
    compute
        From a block to as many (n_signals, n_sequences) arrays.
    """

    family: str
    members: tuple[Statistic, ...]
    compute: Computation


def _moments(block: Block) -> list[Float64]:
    m2, squares = block.std * block.std, block.squares
    third = ratio(dot(squares, block.centred), block.count)
    fourth = ratio(dot(squares, squares), block.count)
    return [
        *_level(block),
        block.maximum - block.minimum,
        ratio(third, m2 * block.std),
        ratio(fourth, m2 * m2) - 3.0,
        np.sqrt(ratio(dot(block.filled, block.filled), block.count)),
        ratio(np.abs(block.centred).sum(axis=-1), block.count),
    ]


def _level(block: Block) -> list[Float64]:
    return [block.mean, block.std, block.minimum, block.maximum]


def _average(block: Block) -> list[Float64]:
    return [block.mean, block.std]


def _quantiles(block: Block) -> list[Float64]:
    quantiles = [block.quantile(share) for share in QUANTILES]
    return [*quantiles, quantiles[3] - quantiles[1]]


def _trend(block: Block) -> list[Float64]:
    valid, count, centred = block.valid, block.count, block.centred
    if np.array_equal(valid, np.broadcast_to(valid[:1], valid.shape)):  # most often: one time for all signals
        valid, count = valid[:1], count[:1]
    time = np.where(valid, np.arange(valid.shape[-1]) / block.rate_hz, 0.0)
    time = np.where(valid, time - ratio(time.sum(axis=-1), count)[..., None], 0.0)
    squared, spread = time * time, dot(time, time)
    bend = squared - ratio(spread, count)[..., None]
    bend = np.where(valid, bend - ratio(dot(squared, time), spread)[..., None] * time, 0.0)
    slope = ratio(dot(np.broadcast_to(time, centred.shape), centred), spread)
    bent = np.where(count > 2, dot(bend, bend), 0.0)
    curvature = ratio(dot(np.broadcast_to(bend, centred.shape), centred), bent)
    place = np.arange(block.values.shape[-1])
    first = np.where(block.valid, place, place[-1]).min(axis=-1)[..., None]
    last = np.where(block.valid, place, 0).max(axis=-1)[..., None]
    ends = [np.take_along_axis(block.values, index, axis=-1)[..., 0] for index in (first, last)]
    return [slope, curvature, *ends]


_LEVELS = (
    Statistic("mean", "{u}", "mean"),
    Statistic("std", "{u}", "population standard deviation"),
    Statistic("min", "{u}", "smallest value"),
    Statistic("max", "{u}", "largest value"),
)
MOMENTS = Statistics(
    "moments",
    (
        *_LEVELS,
        Statistic("range", "{u}", "largest less smallest value"),
        Statistic("skew", "1", "mean((x - mean)^3) / std^3"),
        Statistic("kurtosis", "1", "mean((x - mean)^4) / std^4 - 3"),
        Statistic("rms", "{u}", "sqrt(mean(x^2))"),
        Statistic("mad", "{u}", "mean(|x - mean|)"),
    ),
    _moments,
)
LEVEL = Statistics("moments", _LEVELS, _level)
AVERAGE = Statistics("moments", _LEVELS[:2], _average)
ORDER = Statistics(
    "quantiles",
    (
        *(Statistic(f"q{round(100 * q):02d}", "{u}", f"quantile {q}, linearly interpolated") for q in QUANTILES),
        Statistic("iqr", "{u}", "quantile 0.75 less quantile 0.25"),
    ),
    _quantiles,
)
TREND = Statistics(
    "trend",
    (
        Statistic("slope", "{u}/s", "slope of the least-squares line over time"),
        Statistic("curvature", "{u}/s^2", "quadratic coefficient of the least-squares parabola over time"),
        Statistic("start", "{u}", "first value"),
        Statistic("end", "{u}", "last value"),
    ),
    _trend,
)


def _mean_crossings(block: Block) -> list[Float64]:
    return [_crossings(block, block.centred)]


def _zero_crossings(block: Block) -> list[Float64]:
    return [_crossings(block, block.filled)]


def _crossings(block: Block, values: Float64) -> Float64:
    pairs = block.valid[..., 1:] & block.valid[..., :-1]
    above = values > block.tolerance[..., None]
    changed = (above[..., 1:] != above[..., :-1]) & pairs
    return ratio(np.sum(changed, axis=-1) * block.rate_hz, np.sum(pairs, axis=-1))


CROSSINGS = Statistics(
    "crossings",
    (Statistic("mean_crossings", "Hz", "changes of sign of x - mean a second, over pairs of neighbours both valid"),),
    _mean_crossings,
)
ZERO_CROSSINGS = Statistics(
    "crossings",
    (Statistic("zero_crossings", "Hz", "changes of sign of x a second, over pairs of neighbours both valid"),),
    _zero_crossings,
)


def _gradient(block: Block) -> list[Float64]:
    steps = Block(block.steps, block.lengths - 1, rate_hz=block.rate_hz)
    relative = steps.values / block.scale[..., None]
    edges = (-np.inf, *GRADIENT_EDGES, np.inf)
    counted = np.where(block.std > 0, steps.count, 0.0)
    shares = [ratio(np.sum((relative >= low) & (relative < high), axis=-1), counted) for low, high in pairwise(edges)]
    size = ratio(np.abs(steps.filled).sum(axis=-1), steps.count)
    return [size, steps.std, np.maximum(np.abs(steps.minimum), np.abs(steps.maximum)), *shares]


def _gradient_members() -> tuple[Statistic, ...]:
    edges = ("-inf", *map(str, GRADIENT_EDGES), "inf")
    ranges = pairwise(edges)
    return (
        Statistic("step_mean", "{u}", "mean(|x[t+1] - x[t]|)"),
        Statistic("step_std", "{u}", "standard deviation of x[t+1] - x[t]"),
        Statistic("step_max", "{u}", "largest |x[t+1] - x[t]|"),
        *(
            Statistic(f"step_bin{i}", "1", f"share of (x[t+1] - x[t]) / std in [{low}, {high})")
            for i, (low, high) in enumerate(ranges, start=1)
        ),
    )


GRADIENT = Statistics("gradient", _gradient_members(), _gradient)


def _autocorrelation(block: Block) -> list[Float64]:
    n_delays = max(2, round(LONGEST_DELAY_S * block.rate_hz))
    power = np.where(block.std > 0, block.power, 0.0)
    n_steps = block.values.shape[-1]
    curve = np.full((n_delays + 2, *power.shape), np.nan)
    curve[0] = np.where(power > 0, 1.0, np.nan)
    for delay in range(1, min(n_delays + 2, n_steps)):
        product = dot(block.centred[..., delay:], block.centred[..., :-delay])
        curve[delay] = np.where(delay < block.lengths, ratio(product, power), np.nan)
    at_delays = [curve[min(max(1, round(delay * block.rate_hz)), n_delays)] for delay in DELAYS_S]
    peak = (curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:])
    found = peak.any(axis=0)
    first = np.argmax(peak, axis=0)
    height = np.take_along_axis(curve[1:-1], first[None], axis=0)[0]
    return [*at_delays, np.where(found, (first + 1) / block.rate_hz, np.nan), np.where(found, height, np.nan)]


AUTOCORRELATION = Statistics(
    "autocorrelation",
    (
        *(
            Statistic(
                f"acf_{round(1000 * delay)}ms",
                "1",
                f"autocorrelation at {delay} s (the nearest frame, one at least): "
                "sum((x[t] - mean)(x[t+k] - mean)) / sum((x - mean)^2)",
            )
            for delay in DELAYS_S
        ),
        Statistic(
            "acf_peak_delay", "s", f"delay of the first local maximum of the autocorrelation up to {LONGEST_DELAY_S} s"
        ),
        Statistic("acf_peak", "1", "autocorrelation at its first local maximum"),
    ),
    _autocorrelation,
)


def _entropy(block: Block) -> list[Float64]:
    return [_permutation_entropy(block, delay) for delay in (1, 2)]


def _permutation_entropy(block: Block, delay: int) -> Float64:
    """Order 3: the three comparisons of three values take six of the eight combinations, one for each order."""
    n_words = block.values.shape[-1] - 2 * delay
    if n_words < 1:
        return np.full(block.count.shape, np.nan)
    a, b, c = (block.values[..., i * delay : i * delay + n_words] for i in range(3))
    known = block.valid[..., :n_words] & block.valid[..., delay:][..., :n_words] & block.valid[..., 2 * delay :]
    words = (a <= b).view(np.uint8) * np.uint8(4) + (b <= c).view(np.uint8) * np.uint8(2) + (a <= c).view(np.uint8)
    words[~known] = 8
    total = np.sum(known, axis=-1).astype(np.float64)
    entropy = np.zeros(total.shape)
    for word in (0, 2, 3, 4, 5, 7):
        share = ratio(np.sum(words == word, axis=-1), total)
        entropy = entropy - share * np.log(np.where(share > 0, share, 1.0))
    return np.asarray(entropy / np.log(6.0))


ENTROPY = Statistics(
    "entropy",
    tuple(
        Statistic(
            f"permutation_entropy_{delay}", "1", f"entropy of order-3 patterns at delay {delay} frames / log 6", BANDT
        )
        for delay in (1, 2)
    ),
    _entropy,
)
