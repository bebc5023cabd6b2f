from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bfrbctl.arrays.ragged import AnyArray, padded_length
from bfrbctl.features.table.blocks import WINDOWS, Block
from bfrbctl.features.table.peaks import PEAKS, RUNS
from bfrbctl.features.table.spectral import SPECTRAL, power_density, segment_length
from bfrbctl.features.table.statistics import (
    AUTOCORRELATION,
    AVERAGE,
    CROSSINGS,
    ENTROPY,
    GRADIENT,
    LEVEL,
    MOMENTS,
    ORDER,
    TREND,
    ZERO_CROSSINGS,
    Statistics,
)
from tests import reference

Oracle = Callable[[AnyArray, float], dict[str, float]]

FAMILIES: dict[str, tuple[Statistics, Oracle]] = {
    "level": (LEVEL, reference.level),
    "average": (AVERAGE, reference.average),
    "moments": (MOMENTS, reference.moments),
    "quantiles": (ORDER, reference.quantiles),
    "trend": (TREND, reference.trend),
    "mean_crossings": (CROSSINGS, reference.mean_crossings),
    "zero_crossings": (ZERO_CROSSINGS, reference.zero_crossings),
    "gradient": (GRADIENT, reference.gradient),
    "autocorrelation": (AUTOCORRELATION, reference.autocorrelation),
    "entropy": (ENTROPY, reference.entropy),
    "peaks": (PEAKS, reference.peaks),
    "runs": (RUNS, reference.runs),
    "spectral": (SPECTRAL, reference.spectral),
}
TIES_DECIDE_BY_ROUNDING = {"autocorrelation", "spectral", "gradient", "peaks"}
"""Families where a tie (of two bins, of a step with an edge) goes one way or the other with the last bit."""


def make_signal(kind: str, length: int, gaps: float, rng: np.random.Generator) -> AnyArray:
    values = {
        "noise": rng.normal(3.0, 2.0, length),
        "walk": np.cumsum(rng.normal(size=length)),
        "steps": rng.integers(-3, 4, length) / 4,
        "ramp": np.arange(length) * 0.25,
        "flat": np.full(length, 0.1),
    }[kind]
    values[rng.random(length) < gaps] = np.nan
    return np.asarray(values, dtype=np.float64)


def block_of(signals: list[AnyArray], *, rate_hz: float = 10.0) -> Block:
    lengths = np.array([x.size for x in signals], dtype=np.int64)
    values = np.full((1, len(signals), int(padded_length(lengths).max())), np.nan)
    for i, x in enumerate(signals):
        values[0, i, : x.size] = x
    return Block(values, lengths, rate_hz=rate_hz)


def computed(statistics: Statistics, block: Block) -> list[dict[str, float]]:
    with np.errstate(all="ignore"):
        values = statistics.compute(block)
    names = [member.name for member in statistics.members]
    assert len(names) == len(values)
    return [{name: float(v[0, i]) for name, v in zip(names, values, strict=True)} for i in range(len(block.lengths))]


def assert_same(got: dict[str, float], expected: dict[str, float]) -> None:
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-7, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["noise", "walk", "steps", "ramp", "flat"]), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 90), min_size=4, max_size=4),
    gaps=st.sampled_from([0.0, 0.0, 0.2, 1.0]),
    rate_hz=st.sampled_from([10.0, 20.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_agree_with_the_plain_loops(
    family: str, kinds: list[str], lengths: list[int], gaps: float, rate_hz: float, seed: int
) -> None:
    statistics, oracle = FAMILIES[family]
    assume(family not in TIES_DECIDE_BY_ROUNDING or not {"steps", "ramp"} & set(kinds))
    rng = np.random.default_rng(seed)
    signals = [make_signal(kind, length, gaps, rng) for kind, length in zip(kinds, lengths, strict=False)]
    for got, x in zip(computed(statistics, block_of(signals, rate_hz=rate_hz)), signals, strict=True):
        assert_same(got, oracle(x, rate_hz))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 31, 32, 33, 59, 120])
def test_windows_hold_their_frames(window: str, length: int) -> None:
    x = np.arange(float(length))
    block = block_of([x, x[: length // 2 + 1]]).window(window)
    for i, signal in enumerate((x, x[: length // 2 + 1])):
        expected = reference.window(signal, window)
        row = block.values[0, i]
        assert np.array_equal(row[~np.isnan(row)], expected)
        assert block.lengths[i] == expected.size


def test_quantile_of_one_value_is_the_value() -> None:
    assert block_of([np.array([7.0])]).quantile(0.95)[0, 0] == 7.0


def test_rounding_noise_counts_as_flat() -> None:
    x = np.array([0.1 + 0.2, 0.3] * 20)
    got = computed(MOMENTS, block_of([x]))[0]
    assert got["std"] == 0.0
    assert np.isnan(got["skew"])


@pytest.mark.parametrize(("rate_hz", "frames"), [(2.0, 32), (10.0, 32), (10.1, 64), (20.0, 64), (50.0, 256)])
def test_welch_segments_never_have_fewer_than_32_frames(rate_hz: float, frames: int) -> None:
    assert segment_length(rate_hz) == frames == reference.segment_length(rate_hz)


def test_peak_frequency_of_a_sine_is_its_frequency() -> None:
    x = np.sin(2 * np.pi * 2.5 * np.arange(96) / 10.0)
    got = computed(SPECTRAL, block_of([x]))[0]
    assert got["peak_frequency"] == pytest.approx(2.5)
    assert got["band4"] > 0.6
    assert got["spectral_entropy"] < 0.4


@given(st.integers(0, 2**32 - 1))
def test_of_level_bins_the_lowest_is_the_peak(seed: int) -> None:
    two = np.random.default_rng(seed).normal(size=2)
    got = computed(SPECTRAL, block_of([two]))[0]
    assert got["peak_frequency"] == pytest.approx(10.0 / segment_length(10.0))


def test_power_density_integrates_to_the_variance() -> None:
    x = np.random.default_rng(0).normal(size=640)
    frequency, density = power_density(block_of([x]))
    assert density[0, 0].sum() * frequency[1] == pytest.approx(np.var(x), rel=0.1)


def test_bands_above_the_nyquist_frequency_are_not_measurable() -> None:
    got = computed(SPECTRAL, block_of([np.random.default_rng(0).normal(size=64)], rate_hz=4.0))[0]
    assert np.isnan(got["band5"])
    assert got["band1"] >= 0
