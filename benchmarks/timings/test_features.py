"""Speed of the feature engine beside general time-series feature libraries, one core, the same recordings.

Peers are optional: `pip install tsfel tsfresh`; pycatch22 is GPL and installed by hand.
Every benchmark notes features a second (or frames a second) in `extra_info`.
"""

from typing import Any

import numpy as np
import pytest

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.features import FeatureConfig, compute
from bfrbctl.recordings.dataset import FeatureBatch, RecordingBatch
from tests import reference
from tests.noise import random_recordings, taken

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SIGNALS = ("lin_x", "lin_y", "lin_z", "lin_mag", "gyro_x", "gyro_y", "gyro_z", "gyro_mag", "jerk_mag", "up_x", "up_y")
CONFIG = FeatureConfig()


@pytest.fixture(scope="module")
def recordings() -> RecordingBatch:
    """1,000 recordings as long as the study's: median 59 frames, at least 29, at most 700."""
    lengths = np.clip(np.random.default_rng(0).gamma(4.0, 16.0, 1000).astype(int) + 8, 29, 700)
    return random_recordings(lengths.tolist(), seed=1)


@pytest.fixture(scope="module")
def signals(recordings: RecordingBatch) -> list[AnyArray]:
    """(n_signals, n_frames) of each of some recordings with a quaternion: what the peers get."""
    few = compute(taken(recordings, range(30)), CONFIG, table=False)
    places = [[column.name for column in few.channels].index(name) for name in SIGNALS]
    parts = [few.frames[begin:end, places].T for begin, end in zip(few.offsets, few.offsets[1:], strict=False)]
    return [np.ascontiguousarray(part, dtype=np.float64) for part in parts if not np.isnan(part).any()][:10]


def timed(benchmark: Any, function: Any, *, work: float, unit: str, rounds: int = 3) -> Any:
    result = benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)
    benchmark.extra_info[unit] = round(work / benchmark.stats.stats.min)
    return result


@pytest.mark.benchmark(group="sequence features")
def test_bfrbctl_sequence_features(benchmark: Any, recordings: RecordingBatch) -> None:
    n_features = compute(taken(recordings, [0]), CONFIG).table.size

    def run() -> FeatureBatch:
        return compute(recordings, CONFIG, frames=False)

    result = timed(benchmark, run, work=n_features * recordings.n_sequences, unit="features_per_second", rounds=5)
    assert result.table.shape == (recordings.n_sequences, n_features)


@pytest.mark.benchmark(group="sequence features")
def test_bfrbctl_imu_sequence_features(benchmark: Any, recordings: RecordingBatch) -> None:
    config = FeatureConfig(modalities=("imu",))
    n_features = compute(taken(recordings, [0]), config).table.size

    def run() -> FeatureBatch:
        return compute(recordings, config, frames=False)

    timed(benchmark, run, work=n_features * recordings.n_sequences, unit="features_per_second", rounds=5)


@pytest.mark.benchmark(group="sequence features")
def test_tsfresh_efficient_sequence_features(benchmark: Any, signals: list[AnyArray]) -> None:
    tsfresh = pytest.importorskip("tsfresh")
    settings = pytest.importorskip("tsfresh.feature_extraction").EfficientFCParameters()
    pandas = pytest.importorskip("pandas")
    parts = [
        pandas.DataFrame(dict(zip(SIGNALS, part, strict=True)) | {"id": i, "t": np.arange(part.shape[1])})
        for i, part in enumerate(signals)
    ]
    table = pandas.concat(parts)

    def run() -> Any:
        return tsfresh.extract_features(
            table,
            column_id="id",
            column_sort="t",
            default_fc_parameters=settings,
            n_jobs=0,
            disable_progressbar=True,
        )

    n_features = run().size
    timed(benchmark, run, work=n_features, unit="features_per_second", rounds=1)


@pytest.mark.benchmark(group="sequence features")
def test_tsfel_sequence_features(benchmark: Any, signals: list[AnyArray]) -> None:
    tsfel = pytest.importorskip("tsfel")
    pandas = pytest.importorskip("pandas")
    settings = tsfel.get_features_by_domain()
    tables = [pandas.DataFrame(dict(zip(SIGNALS, part, strict=True))) for part in signals]

    def run() -> list[Any]:
        return [tsfel.time_series_features_extractor(settings, table, fs=10, verbose=0) for table in tables]

    n_features = sum(result.size for result in run())
    timed(benchmark, run, work=n_features, unit="features_per_second", rounds=1)


@pytest.mark.benchmark(group="sequence features")
def test_catch22_sequence_features(benchmark: Any, signals: list[AnyArray]) -> None:
    catch22 = pytest.importorskip("pycatch22")
    rows = [row.tolist() for part in signals for row in part]

    def run() -> list[Any]:
        return [catch22.catch22_all(row) for row in rows]

    n_features = sum(len(result["values"]) for result in run())
    timed(benchmark, run, work=n_features, unit="features_per_second")


@pytest.mark.benchmark(group="frame channels")
def test_bfrbctl_frame_channels(benchmark: Any, recordings: RecordingBatch) -> None:
    def run() -> FeatureBatch:
        return compute(recordings, CONFIG, table=False)

    timed(benchmark, run, work=recordings.n_frames, unit="frames_per_second", rounds=5)


@pytest.mark.benchmark(group="frame channels")
def test_bfrbctl_imu_frame_channels(benchmark: Any, recordings: RecordingBatch) -> None:
    def run() -> FeatureBatch:
        return compute(recordings, FeatureConfig(modalities=("imu",)), table=False)

    timed(benchmark, run, work=recordings.n_frames, unit="frames_per_second", rounds=5)


@pytest.mark.benchmark(group="frame channels")
def test_scipy_rotation_a_frame_at_a_time(benchmark: Any, recordings: RecordingBatch) -> None:
    complete = [i for i in range(60) if not np.isnan(taken(recordings, [i]).rot).any()][:5]
    few = taken(recordings, complete or [0])
    rot = np.nan_to_num(few.rot.astype(np.float64), nan=0.5)

    def run() -> Any:
        return reference.motion(few.acc.astype(np.float64), rot, few.rate_hz)

    timed(benchmark, run, work=few.n_frames, unit="frames_per_second")


@pytest.mark.benchmark(group="one recording")
def test_bfrbctl_one_recording(benchmark: Any, recordings: RecordingBatch) -> None:
    one = taken(recordings, [0])
    timed(benchmark, lambda: compute(one, CONFIG), work=1, unit="recordings_per_second", rounds=10)
