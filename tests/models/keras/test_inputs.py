from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import DataError
from bfrbctl.features import FeatureConfig, compute
from bfrbctl.models.keras.inputs import (
    CLIP,
    Ready,
    drop_sensors,
    fit_scaler,
    frame_index,
    gather,
    imu_only,
    plan_inputs,
    prediction_batches,
    ready,
    unscaled,
)
from bfrbctl.models.keras.learning.turning import find_turned
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING, FeatureBatch
from tests.keras_batches import IMU_NAMES, made
from tests.noise import random_recordings


def prepared(**options: object) -> tuple[Ready, object, object]:
    batch, _ = made(12)
    plan = plan_inputs(batch, length=0, pad="left")
    scaler = fit_scaler(batch, plan, find_turned(plan.imu))
    return ready(batch, plan, scaler), plan, scaler


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=5),
    st.sampled_from([16, 32, 48]),
    st.sampled_from(["left", "right"]),
)
def test_padding_keeps_the_tail_of_every_sequence(lengths: list[int], n_steps: int, pad: str) -> None:
    position, valid = frame_index(np.array(lengths), n_steps, pad)
    for row, length in enumerate(lengths):
        expected = list(range(length))[-n_steps:]
        assert position[row][valid[row]].tolist() == expected
        recorded = np.flatnonzero(valid[row])
        assert (recorded[-1] == n_steps - 1) if pad == "left" else (recorded[0] == 0)


def test_channels_that_survive_go_first_and_missing_ones_have_flags() -> None:
    data, plan, _ = prepared()
    assert plan.imu == IMU_NAMES
    assert plan.other == ("thm_1", "tof_1_mean", "tof_present")
    assert data.frames.shape[1] == plan.n_imu + plan.n_other == 8 + 5
    assert set(np.unique(data.frames[:, plan.n_imu + 3])) == {0.0, 1.0}  # the flag of thm_1


def test_scaled_channels_are_centred_and_missing_values_are_zero() -> None:
    batch, _ = made(30)
    data, plan, _ = prepared()
    assert np.isfinite(data.frames).all()
    gyro_mean = data.frames[:, IMU_NAMES.index("acc_mag")].mean()
    assert abs(gyro_mean) < 0.05
    small, _ = made(12)
    missing = np.isnan(small.frames[:, 7])
    assert missing.any()
    assert (data.frames[missing, plan.n_imu] == 0.0).all()
    assert batch.n_sequences == 30


def test_components_of_a_vector_share_one_scale_and_stay_centred_on_zero() -> None:
    batch, _ = made(20)
    plan = plan_inputs(batch, length=0, pad="left")
    scaler = fit_scaler(batch, plan, find_turned(plan.imu))
    assert (scaler.mean[:3] == 0).all()
    assert np.unique(scaler.scale[:3]).size == 1


def test_a_broken_reading_is_cut() -> None:
    batch, _ = made(6)
    plan = plan_inputs(batch, length=0, pad="left")
    scaler = fit_scaler(batch, plan, find_turned(plan.imu))
    batch.frames[3, 0] = 1e9
    batch.frames[4, 0] = np.inf
    data = ready(batch, plan, scaler)
    assert data.frames[3, 0] == CLIP
    assert data.frames[4, 0] == 0.0


def of_the_engine(n_sequences: int) -> FeatureBatch:
    return compute(random_recordings(range(20, 20 + n_sequences), seed=n_sequences), FeatureConfig(), table=False)


@pytest.mark.parametrize("batch", [made(12)[0], of_the_engine(12)], ids=["made", "of the engine"])
def test_taking_sensors_away_in_a_batch_equals_the_imu_only_features(batch: FeatureBatch) -> None:
    plan = plan_inputs(batch, length=0, pad="left")
    scaler = fit_scaler(batch, plan, find_turned(plan.imu))
    data, blind = ready(batch, plan, scaler), ready(batch.imu_only(), plan, scaler)
    chosen = np.arange(12)
    position, valid = frame_index(data.lengths, 64, "left")
    inputs = gather(data, chosen, position, valid)
    drop_sensors(inputs, np.arange(0, 12, 2), plan, data.without)
    expected = gather(blind, chosen, position, valid)
    for name in ("frames", "tof", "mask"):
        np.testing.assert_array_equal(inputs[name][::2], expected[name][::2])
    assert (inputs["frames"][1::2] != expected["frames"][1::2]).any()


def test_the_flag_of_a_channel_that_tells_presence_is_0_where_nothing_measured() -> None:
    batch = of_the_engine(3)
    plan = plan_inputs(batch, length=0, pad="left")
    (position,) = [position for position in plan.single if plan.other[position] == "thm_present"]
    flag = plan.n_imu + len(plan.other) + plan.single.index(position)
    worn, blind = unscaled(batch, plan), unscaled(batch.imu_only(), plan)
    np.testing.assert_array_equal(worn.frames[:, flag], worn.frames[:, plan.n_imu + position])
    assert worn.frames[:, flag].any()
    np.testing.assert_array_equal(
        blind.frames[:, plan.n_imu :], np.broadcast_to(blind.without, (len(blind.frames), plan.n_other))
    )
    assert not blind.frames[:, flag].any()


@pytest.mark.parametrize("worn", ["all", "thm", "one image", "nothing else", "no other channels"])
def test_sequences_of_an_imu_alone_are_recognised(worn: str) -> None:
    batch = of_the_engine(4)
    second = slice(*batch.offsets[1:3])
    blind = batch.imu_only()
    frames, tof = blind.frames.copy(), blind.tof.copy()
    if worn == "all":
        frames[second], tof[second] = batch.frames[second], batch.tof[second]
    elif worn == "thm":
        frames[batch.offsets[2] - 1] = batch.frames[batch.offsets[2] - 1]
    elif worn == "one image":
        tof[second][-1, 0, 0] = 3
    elif worn == "no other channels":
        kept = [i for i, column in enumerate(batch.channels) if column.survives_imu_only]
        batch = replace(batch, channels=tuple(batch.channels[i] for i in kept), frames=batch.frames[:, kept])
        frames = frames[:, kept]
    plan = plan_inputs(batch, length=0, pad="left")
    found = imu_only(unscaled(replace(batch, frames=frames, tof=tof), plan), plan)
    assert found.tolist() == [True, worn in ("nothing else", "no other channels"), True, True]


def test_where_there_is_but_the_imu_no_sequence_is_told_apart() -> None:
    batch, _ = made(3, all_sensors=False)
    plan = plan_inputs(batch, length=0, pad="left")
    assert not imu_only(unscaled(batch, plan), plan).any()


def test_padding_is_zero_and_missing() -> None:
    data, _, _ = prepared()
    position, valid = frame_index(data.lengths, 64, "left")
    inputs = gather(data, np.arange(12), position, valid)
    assert (inputs["frames"][~valid] == 0).all()
    assert (inputs["tof"][~valid] == TOF_IMAGE_MISSING).all()
    np.testing.assert_array_equal(inputs["mask"][..., 0], valid)


def test_prediction_batches_hold_every_sequence_once() -> None:
    data, plan, _ = prepared()
    seen = np.concatenate([chosen for chosen, _ in prediction_batches(data, plan)])
    assert sorted(seen.tolist()) == list(range(12))


def test_a_missing_channel_is_named() -> None:
    batch, _ = made(4)
    _, plan, scaler = prepared()
    other, _ = made(4, all_sensors=False)
    with pytest.raises(DataError, match="thm_1"):
        ready(other, plan, scaler)
    with pytest.raises(DataError, match="ToF images of 1 sensors"):
        ready(made(4, n_tof=1)[0], plan, scaler)
    assert ready(batch, plan, scaler).frames.shape[0] == batch.frames.shape[0]


def test_features_without_an_imu_are_refused() -> None:
    batch, _ = made(4)
    with pytest.raises(DataError, match="no frame channel"):
        plan_inputs(batch, length=0, pad="left", without=IMU_NAMES)
