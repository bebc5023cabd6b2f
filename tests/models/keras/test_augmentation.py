from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.models.keras.inputs import fit_scaler, frame_index, plan_inputs, ready
from bfrbctl.models.keras.learning.augmentation import (
    Augmentation,
    TrainingData,
    epoch_batches,
    mixing,
    pooled_phase,
    stretched_index,
    training_batch,
)
from bfrbctl.models.keras.learning.turning import find_turned
from tests.keras_batches import made

NONE = Augmentation(
    mixup=0.0,
    modality_dropout=0.0,
    sensor_dropout=0.0,
    heading=0.0,
    strap=0.0,
    stretch=0.0,
    shift=0,
    noise=0.0,
    cut=0.0,
)
ALL = Augmentation(
    mixup=0.4,
    modality_dropout=0.5,
    sensor_dropout=0.5,
    heading=180.0,
    strap=10.0,
    stretch=0.2,
    shift=3,
    noise=0.1,
    cut=0.2,
)


def source(pad: str = "left") -> TrainingData:
    batch, labels = made(16)
    plan = plan_inputs(batch, length=64, pad=pad)
    turned = find_turned(plan.imu)
    data = ready(batch, plan, fit_scaler(batch, plan, turned))
    postures = np.eye(3, dtype=np.float32)[labels % 3]
    postures[:4] = 0.0  # unknown
    return TrainingData(data, np.eye(4, dtype=np.float32)[labels], postures, plan, turned)


def batch_of(augmentation: Augmentation, seed: int = 0) -> tuple[dict, dict]:
    return training_batch(source(), np.arange(16), augmentation, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**31))
def test_an_epoch_sees_every_sequence(n_sequences: int, batch_size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, n_sequences)
    batches = epoch_batches(lengths, batch_size, np.random.default_rng(seed))
    assert set(batches.ravel().tolist()) == set(range(n_sequences))
    assert batches.shape[1] == min(batch_size, n_sequences)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.sampled_from(["left", "right"]))
def test_without_stretch_and_shift_frames_stand_where_prediction_puts_them(lengths: list[int], pad: str) -> None:
    plan = source(pad).plan
    position, valid = stretched_index(np.array(lengths), plan, NONE, np.random.default_rng(0))
    expected, expected_valid = frame_index(np.array(lengths), plan.padded(max(lengths)), pad)
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_array_equal(position[valid], expected[expected_valid])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6), st.integers(0, 2**31))
def test_stretched_time_stays_inside_the_sequence_and_runs_forward(lengths: list[int], seed: int) -> None:
    position, valid = stretched_index(np.array(lengths), source().plan, ALL, np.random.default_rng(seed))
    for row, length in enumerate(lengths):
        steps = position[row][valid[row]]
        assert steps.size >= 1
        assert steps.min() >= 0
        assert steps.max() < length
        assert (np.diff(steps) >= 0).all()


def test_the_same_chance_gives_the_same_bytes() -> None:
    first, second = batch_of(ALL), batch_of(ALL)
    assert all(first[part][name].tobytes() == second[part][name].tobytes() for part in (0, 1) for name in first[part])
    other = batch_of(ALL, seed=1)
    assert first[0]["frames"].tobytes() != other[0]["frames"].tobytes()


def test_without_augmentation_labels_are_one_hot_and_nobody_is_mixed() -> None:
    inputs, targets = batch_of(NONE)
    np.testing.assert_array_equal(targets["gesture"], source().labels)
    assert (inputs["weight"] == 1).all()
    assert inputs["partner"].tolist() == list(range(16))


def test_each_switch_changes_what_it_says() -> None:
    plain, _ = batch_of(NONE)
    changed = {
        "modality_dropout": ("tof", 1.0),
        "sensor_dropout": ("tof", 1.0),
        "strap": ("frames", 20.0),
        "noise": ("frames", 0.2),
        "cut": ("frames", 0.5),
        "stretch": ("frames", 0.3),
        "mixup": ("weight", 1.0),
    }
    for name, (part, value) in changed.items():
        inputs, _ = batch_of(replace(NONE, **{name: value}))
        assert inputs[part].shape != plain[part].shape or (inputs[part] != plain[part]).any(), name


def test_padding_stays_zero_under_every_disturbance() -> None:
    inputs, _ = batch_of(ALL)
    assert (inputs["frames"][inputs["mask"][..., 0] == 0] == 0).all()


def test_mixup_keeps_the_sum_of_labels_and_the_larger_share() -> None:
    weight, partner = mixing(50, 0.4, np.random.default_rng(0))
    assert ((weight >= 0.5) & (weight <= 1.0)).all()
    assert sorted(partner.tolist()) == list(range(50))
    _, targets = batch_of(ALL)
    np.testing.assert_allclose(targets["gesture"].sum(axis=1), 1.0, rtol=1e-6)


def test_an_unknown_posture_takes_its_share_of_a_mixture_away() -> None:
    given_source = source()
    inputs, targets = batch_of(replace(NONE, mixup=1.0))
    weight, partner = inputs["weight"], inputs["partner"]
    known = given_source.orientation.sum(axis=1)
    np.testing.assert_allclose(
        targets["orientation"].sum(axis=1), weight * known + (1 - weight) * known[partner], atol=1e-6
    )
    assert set(known) == {0.0, 1.0}


def test_unknown_phase_is_minus_one_and_known_phase_is_pooled() -> None:
    data = source().data
    data.phase[data.offsets[0] : data.offsets[1]] = 255
    position, valid = frame_index(data.lengths[:2], 64, "left")
    pooled = pooled_phase(data, np.arange(2), position, valid)
    assert (pooled[0] == -1).all()
    frames = data.phase[data.offsets[1] : data.offsets[2]]
    assert pooled[1, -1, 0] == frames[-4:].max()
