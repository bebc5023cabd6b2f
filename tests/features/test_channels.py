from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bfrbctl.arrays.ragged import AnyArray, Float64
from bfrbctl.features import FeatureConfig, columns, compute
from bfrbctl.features.channels.canonical import canonical, low_passed
from bfrbctl.features.channels.tof import image_statistics
from bfrbctl.recordings.dataset import FeatureBatch, RecordingBatch
from bfrbctl.schema import HELIOS_LAYOUT, SensorLayout
from tests import reference
from tests.noise import random_recordings, taken, without_sensors

UNMIRRORED = FeatureConfig(mirror_left=False)
STATISTICS = tuple(
    column.name.removeprefix("tof_1_")
    for column in columns(FeatureConfig(), HELIOS_LAYOUT)[1]
    if column.name.startswith("tof_1_")
)


def channel(batch: FeatureBatch, name: str) -> Float64:
    names = [column.name for column in batch.channels]
    return batch.frames[:, names.index(name)].astype(np.float64)


def vectors(batch: FeatureBatch, name: str, letters: str = "xyz") -> Float64:
    return np.stack([channel(batch, f"{name}_{letter}") for letter in letters], axis=1)


def whole_rotation(batch: RecordingBatch) -> RecordingBatch:
    rng = np.random.default_rng(9)
    rot = rng.normal(size=batch.rot.shape)
    return replace(batch, rot=(rot / np.linalg.norm(rot, axis=1, keepdims=True)).astype(np.float32))


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), rate_hz=st.sampled_from([10.0, 20.0]))
def test_motion_agrees_with_scipy_frame_by_frame(lengths: list[int], rate_hz: float) -> None:
    batch = whole_rotation(random_recordings(lengths, seed=2, rate_hz=rate_hz))
    computed = compute(batch, UNMIRRORED, table=False)
    for begin, end in zip(batch.offsets[:-1], batch.offsets[1:], strict=True):
        part = slice(begin, end)
        expected = reference.motion(batch.acc[part].astype(np.float64), batch.rot[part].astype(np.float64), rate_hz)
        for name, letters in (("up", "xyz"), ("lin", "xyz"), ("world", "xyz"), ("gyro", "xyz"), ("rot6d", "123456")):
            got = vectors(computed, name, letters)[part]
            np.testing.assert_allclose(got, np.array([frame[name] for frame in expected]), rtol=2e-5, atol=2e-5)


def test_magnitudes_and_differences_follow_from_their_vectors() -> None:
    batch = whole_rotation(random_recordings([30, 1, 12], seed=4))
    computed = compute(batch, UNMIRRORED, table=False)
    for name, magnitude in (("acc", "acc_mag"), ("lin", "lin_mag"), ("gyro", "gyro_mag"), ("jerk", "jerk_mag")):
        size = np.linalg.norm(vectors(computed, name), axis=1)
        np.testing.assert_allclose(channel(computed, magnitude), size, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(channel(computed, "turn") * 10.0, channel(computed, "gyro_mag"), rtol=1e-6)
    horizontal = np.linalg.norm(vectors(computed, "world")[:, :2], axis=1)
    np.testing.assert_allclose(channel(computed, "world_horizontal"), horizontal, rtol=1e-5)
    for name, derivative in (("lin", "jerk"), ("jerk", "snap"), ("gyro", "gyro_rate")):
        for begin, end in zip(computed.offsets[:-1], computed.offsets[1:], strict=True):
            expected = np.diff(vectors(computed, name)[begin:end], axis=0) * 10.0
            got = vectors(computed, derivative)[begin:end]
            np.testing.assert_allclose(got[1:], expected, rtol=1e-3, atol=1e-2)
            assert np.array_equal(got[0], got[1]) if end - begin > 1 else np.isnan(got).all()


def test_quaternion_channels_never_jump_and_fill_gaps() -> None:
    batch = random_recordings([80] * 5, seed=5)
    computed = compute(batch, UNMIRRORED, table=False)
    quat = vectors(computed, "quat", "xyzw").reshape(5, 80, 4)
    present = channel(computed, "rot_present").reshape(5, 80)
    for sequence, measured in zip(quat, present, strict=True):
        if measured.any():
            assert (np.sum(sequence[1:] * sequence[:-1], axis=1) > 0).all()
            np.testing.assert_allclose(np.linalg.norm(sequence, axis=1), 1.0, rtol=1e-6)
        else:
            assert np.isnan(sequence).all()


def test_without_any_quaternion_gravity_is_what_is_slow_in_the_acceleration() -> None:
    time = np.arange(120) / 10.0
    acc = np.stack([2.0 * np.sin(2 * np.pi * 3.0 * time), np.zeros(120), np.full(120, 9.81)], axis=1)
    batch = replace(without_sensors(random_recordings([120]), "rot"), acc=acc.astype(np.float32))
    computed = compute(batch, UNMIRRORED, table=False)
    assert np.allclose(vectors(computed, "up")[10:-10], [0.0, 0.0, 1.0], atol=0.02)
    assert np.allclose(vectors(computed, "lin")[10:-10, 0], acc[10:-10, 0], atol=0.15)
    for name in ("quat_w", "gyro_x", "world_z", "rot6d_1"):
        assert np.isnan(channel(computed, name)).all()


@pytest.mark.parametrize("length", [1, 2, 9])
def test_gravity_of_a_short_recording_is_its_median(length: int) -> None:
    acc = np.random.default_rng(0).normal(size=(length, 3))
    assert np.array_equal(low_passed(acc, rate_hz=10.0), np.tile(np.median(acc, axis=0), (length, 1)))


def test_acceleration_gaps_are_filled_along_lines() -> None:
    batch = random_recordings([6])
    acc = batch.acc.copy()
    acc[2:4] = np.nan
    computed = compute(replace(batch, acc=acc), UNMIRRORED, table=False)
    expected = batch.acc[1] + (batch.acc[4] - batch.acc[1]) / 3.0
    np.testing.assert_allclose(vectors(computed, "acc")[2], expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    images=arrays(
        np.uint8,
        (2, 3, 64),
        elements=st.one_of(st.integers(0, 249), st.just(254), st.just(255), st.integers(100, 104)),
        fill=st.sampled_from([254, 255, 7]),
    )
)
def test_image_statistics_agree_with_the_plain_loop(images: AnyArray) -> None:
    values, measured = image_statistics(images)
    for frame, sensor in np.ndindex(2, 3):
        expected = reference.image(images[frame, sensor])
        got = dict(zip(STATISTICS, [*values[:, sensor, frame], measured[sensor, frame]], strict=True))
        assert set(got) == set(expected)
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, rel=1e-6, abs=1e-4, nan_ok=True), name


def test_images_keep_readings_and_tell_no_return_from_missing() -> None:
    batch = random_recordings([50], seed=6)
    images = compute(batch, UNMIRRORED, table=False).tof
    assert np.array_equal(images == 254, batch.tof == -1)
    assert np.array_equal(images == 255, batch.tof == -2)
    assert np.array_equal(images[images < 254], batch.tof[batch.tof >= 0])


def test_thermopile_summaries_leave_missing_sensors_out() -> None:
    batch = random_recordings([4], seed=0)
    thm = np.array([[20, 24, np.nan, 22, np.nan], [np.nan] * 5, [30] * 5, [30] * 5], dtype=np.float32)
    computed = compute(replace(batch, thm=thm), UNMIRRORED, table=False)
    np.testing.assert_allclose(channel(computed, "thm_mean"), [22.0, np.nan, 30.0, 30.0])
    np.testing.assert_allclose(channel(computed, "thm_spread"), [4.0, np.nan, 0.0, 0.0])
    assert channel(computed, "thm_present").tolist() == [1.0, 0.0, 1.0, 1.0]


def mirror_image(batch: RecordingBatch) -> RecordingBatch:
    """Give what the other hand would have recorded: everything seen in a mirror across the device's x axis."""
    grids = batch.tof.reshape(-1, 5, 8, 8)[:, [0, 1, 4, 3, 2]].copy()
    for sensor, flipped in enumerate((grids[:, 0, :, ::-1], grids[:, 1, :, ::-1], None, grids[:, 3, :, ::-1])):
        if flipped is not None:
            grids[:, sensor] = flipped.copy()
    for sensor in (2, 4):
        grids[:, sensor] = grids[:, sensor, ::-1].copy()
    demographics = batch.demographics.copy()
    demographics[:, 3] = 1 - demographics[:, 3]
    return replace(
        batch,
        acc=batch.acc * np.array([-1, 1, 1], dtype=np.float32),
        rot=batch.rot * np.array([1, -1, -1, 1], dtype=np.float32),
        thm=batch.thm[:, [0, 1, 4, 3, 2]],
        tof=grids.reshape(-1, 5, 64),
        demographics=demographics,
    )


def test_a_left_hand_gives_what_its_mirror_image_gives() -> None:
    batch = random_recordings([20, 60], seed=7)
    batch = replace(batch, demographics=np.where(np.arange(7) == 3, 1.0, batch.demographics).astype(np.float32))
    right, left = compute(batch, FeatureConfig()), compute(mirror_image(batch), FeatureConfig())
    assert right.frames.tobytes() == left.frames.tobytes()
    assert right.tof.tobytes() == left.tof.tobytes()
    differing = [
        i for i, (a, b) in enumerate(zip(right.table.T, left.table.T, strict=True)) if a.tobytes() != b.tobytes()
    ]
    assert [right.features[i].name for i in differing] == ["handedness"]


def test_mirroring_can_be_left_off() -> None:
    batch = random_recordings([20], seed=7)
    batch = replace(batch, demographics=np.zeros_like(batch.demographics))
    assert np.array_equal(vectors(compute(batch, UNMIRRORED, table=False), "acc"), batch.acc)
    mirrored = compute(batch, FeatureConfig(), table=False)
    assert np.array_equal(vectors(mirrored, "acc"), batch.acc * np.array([-1, 1, 1]))


def upside_down(batch: RecordingBatch) -> RecordingBatch:
    x, y, z, w = batch.rot.T
    order = [0, 3, 4, 1, 2]
    return replace(
        batch,
        acc=batch.acc * np.array([-1, -1, 1], dtype=np.float32),
        rot=np.stack([-y, x, -w, z], axis=1),
        thm=batch.thm[:, order],
        tof=batch.tof[:, order, ::-1],
    )


def test_a_listed_subject_is_turned_round_again() -> None:
    batch = random_recordings([25, 40, 30], seed=8)
    turned = upside_down(batch)
    config = FeatureConfig(undo_flips="listed", flipped_subjects=batch.subjects)
    expected, got = compute(batch, FeatureConfig(), table=False), compute(turned, config, table=False)
    np.testing.assert_allclose(np.abs(got.frames), np.abs(expected.frames), rtol=1e-5, atol=1e-6)
    assert got.tof.tobytes() == expected.tof.tobytes()
    one = FeatureConfig(undo_flips="listed", flipped_subjects=(batch.subjects[1],))
    alone = compute(taken(batch, [0]), one, table=False)
    assert alone.frames.tobytes() == compute(taken(batch, [0]), FeatureConfig(), table=False).frames.tobytes()


def test_a_sensor_without_its_mirror_partner_keeps_its_place() -> None:
    layout = SensorLayout(thm=(1, 3), tof=())
    batch = random_recordings([10], layout=layout)
    batch = replace(batch, demographics=np.zeros_like(batch.demographics))
    assert np.array_equal(canonical(batch, FeatureConfig()).thm, batch.thm.astype(np.float64), equal_nan=True)


def test_presence_flags_say_what_was_measured() -> None:
    batch = random_recordings([30, 30], seed=9)
    computed: Mapping[str, Float64] = {
        name: channel(compute(without_sensors(batch, "thm"), UNMIRRORED, table=False), name)
        for name in ("thm_present", "tof_present", "rot_present")
    }
    assert not computed["thm_present"].any()
    assert np.array_equal(computed["tof_present"] == 1, (batch.tof != -2).any(axis=(1, 2)))
    assert np.array_equal(computed["rot_present"] == 1, ~np.isnan(batch.rot).any(axis=1))
