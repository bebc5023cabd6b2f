"""Features that are no statistic of one signal, against plain computations on each sequence."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bfrbctl.arrays.ragged import Float64
from bfrbctl.features import FeatureConfig, compute
from bfrbctl.features.table.coupling import MIN_PAIRS
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import HELIOS_LAYOUT
from tests import reference
from tests.noise import random_recordings

Sequence = tuple[int, dict[str, Float64]]


@pytest.fixture(scope="module")
def computed() -> FeatureBatch:
    return compute(random_recordings([1, 2, 7, 9, 33, 47, 48, 60, 130], seed=11), FeatureConfig())


def sequences(computed: FeatureBatch) -> Iterator[Sequence]:
    """Give the frame channels of each sequence."""
    for i, (begin, end) in enumerate(zip(computed.offsets[:-1], computed.offsets[1:], strict=True)):
        frames = computed.frames[begin:end].astype(np.float64)
        yield i, {column.name: frames[:, k] for k, column in enumerate(computed.channels)}


def feature(computed: FeatureBatch, name: str) -> Float64:
    names = [column.name for column in computed.features]
    return computed.table[:, names.index(name)].astype(np.float64)


def names_of(computed: FeatureBatch, prefix: str) -> list[str]:
    return [column.name for column in computed.features if column.name.startswith(prefix)]


def test_correlations_agree_with_numpy(computed: FeatureBatch) -> None:
    names = names_of(computed, "corr__")
    assert len(names) > 50
    for name in names:
        _, a, b = name.split("__")
        expected = [reference.correlation(channels[a], channels[b]) for _, channels in sequences(computed)]
        np.testing.assert_allclose(feature(computed, name), expected, rtol=1e-3, atol=2e-5, err_msg=name)


def test_too_few_pairs_have_no_correlation(computed: FeatureBatch) -> None:
    short = np.flatnonzero(np.diff(computed.offsets) < MIN_PAIRS)
    assert np.isnan(feature(computed, "corr__acc_x__acc_y")[short]).all()


def test_coherence_and_phase_agree_with_scipy(computed: FeatureBatch) -> None:
    names = names_of(computed, "coherence1__")
    assert names
    for name in names:
        _, a, b = name.split("__")
        for i, channels in sequences(computed):
            for kind, value in reference.coherence(channels[a], channels[b], 10.0).items():
                got = feature(computed, f"{kind}__{a}__{b}")[i]
                assert got == pytest.approx(value, rel=1e-3, abs=1e-3, nan_ok=True), (kind, a, b, i)


def test_identical_signals_would_be_fully_coherent() -> None:
    x = np.random.default_rng(0).normal(size=200)
    assert reference.coherence(x, 2 * x, 10.0)["coherence2"] == pytest.approx(1.0)


def test_orientation_features_agree_with_scipy(computed: FeatureBatch) -> None:
    forearm = feature(computed, "elbow_to_wrist_cm")
    for i, channels in sequences(computed):
        up = np.stack([channels[f"up_{axis}"] for axis in "xyz"], axis=1)
        thirds = [up[len(up) * k // 3 : len(up) * (k + 1) // 3].mean(axis=0) for k in (0, 2) if len(up) > 2]
        if len(thirds) == 2:
            cosine = thirds[0] @ thirds[1] / np.linalg.norm(thirds[0]) / np.linalg.norm(thirds[1])
            assert feature(computed, "tilt_change")[i] == pytest.approx(np.arccos(cosine), rel=1e-3)
            reach = forearm[i] * (thirds[1] - thirds[0])
            got = [feature(computed, f"reach_{axis}")[i] for axis in "xyz"]
            np.testing.assert_allclose(got, reach, rtol=1e-3, atol=1e-4)
        assert feature(computed, "tilt_spread")[i] == pytest.approx(1 - np.linalg.norm(up.mean(axis=0)), abs=1e-6)
        height = forearm[i] * up[-32:].mean(axis=0)
        np.testing.assert_allclose([feature(computed, f"height_{axis}")[i] for axis in "xyz"], height, rtol=1e-4)
        quat = np.stack([channels[f"quat_{axis}"] for axis in "xyzw"], axis=1)
        if np.isnan(quat).any():
            assert np.isnan(feature(computed, "turn_net")[i])
            continue
        net = (Rotation.from_quat(quat[0]).inv() * Rotation.from_quat(quat[-1])).magnitude()
        assert feature(computed, "turn_net")[i] == pytest.approx(net, abs=1e-5)
        if len(quat) > 1:
            steps = Rotation.from_quat(quat[:-1]).inv() * Rotation.from_quat(quat[1:])
            assert feature(computed, "turn_total")[i] == pytest.approx(np.sum(steps.magnitude()), rel=1e-4)
            ratio = feature(computed, "turn_ratio")[i]
            assert ratio == pytest.approx(net / np.sum(steps.magnitude()), rel=1e-3)


def test_person_and_presence_are_told_as_they_are(computed: FeatureBatch) -> None:
    batch = random_recordings([1, 2, 7, 9, 33, 47, 48, 60, 130], seed=11)
    for name in ("age", "sex", "handedness", "height_cm", "shoulder_to_wrist_cm"):
        assert np.array_equal(feature(computed, name), batch.demographic(name))
    assert np.array_equal(feature(computed, "n_frames"), np.diff(batch.offsets))
    assert np.array_equal(feature(computed, "duration"), (np.diff(batch.offsets) / 10.0).astype(np.float32))
    for i, channels in sequences(computed):
        for name, flag in (("rot", "rot_present"), ("thm", "thm_present"), ("tof", "tof_present")):
            assert feature(computed, f"{name}_measured")[i] == pytest.approx(channels[flag].mean())


def test_thermopile_arrival_and_anomalies_agree_with_plain_loops(computed: FeatureBatch) -> None:
    for i, channels in sequences(computed):
        for name in HELIOS_LAYOUT.thm_columns:
            x, n = channels[name], len(channels[name])
            got = {
                kind: feature(computed, f"{name}__{kind}")[i]
                for kind in ("rise", "rise_max", "rise_time", "hot", "cold")
            }
            if np.isnan(x).any():
                assert np.isnan(list(got.values())).all()
                continue
            if n > 2:
                start = x[: n // 3].mean()
                assert got["rise"] == pytest.approx(x[2 * n // 3 :].mean() - start, abs=1e-5)
                assert got["rise_max"] == pytest.approx(x.max() - start, abs=1e-5)
                assert got["rise_time"] == pytest.approx(np.argmax(channels[f"{name}_rate"]) / n)
            mad = 1.4826 * np.median(np.abs(x - np.median(x)))
            assert got["hot"] == pytest.approx(np.mean(x > np.median(x) + 3 * mad))
            assert got["cold"] == pytest.approx(np.mean(x < np.median(x) - 3 * mad))


def test_tof_arrival_and_anomalies_agree_with_plain_loops(computed: FeatureBatch) -> None:
    for i, channels in sequences(computed):
        depths = np.stack([channels[f"tof_{sensor}_depth"] for sensor in HELIOS_LAYOUT.tof])
        seen = ~np.isnan(depths).all(axis=0)
        winners = [int(np.nanargmin(column)) for column in depths.T[seen]]
        for position, sensor in enumerate(HELIOS_LAYOUT.tof):
            depth, least = depths[position], channels[f"tof_{sensor}_min"]
            expected = {"nearest": np.mean(np.array(winners) == position) if winners else np.nan}
            if np.isnan(depth).all():
                expected |= dict.fromkeys(("approach", "arrival", "path", "near", "spot"), np.nan)
            else:
                middle = (np.nanmin(depth) + np.nanmax(depth)) / 2
                way = np.hypot(np.diff(channels[f"tof_{sensor}_cx"]), np.diff(channels[f"tof_{sensor}_cy"]))
                valid = least[~np.isnan(least)]
                expected |= {
                    "approach": _mean(reference.window(depth, "first")) - _mean(reference.window(depth, "last")),
                    "arrival": np.argmax(depth < middle) / len(depth) if (depth < middle).any() else np.nan,
                    "path": _mean(way),
                    "near": np.mean(valid < 0.5 * np.median(valid)),
                    "spot": np.sum(least < 0.5 * channels[f"tof_{sensor}_mean"]) / valid.size,
                }
            for kind, value in expected.items():
                got = feature(computed, f"tof_{sensor}__{kind}")[i]
                assert got == pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True), (sensor, kind, i)


def _mean(x: Float64) -> float:
    valid = x[~np.isnan(x)]
    return float(valid.mean()) if valid.size else float("nan")
