from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from bfrbctl.arrays import quaternions as rotation
from bfrbctl.arrays.ragged import Float64, offsets_of

SEEDS = st.integers(0, 2**32 - 1)


def quaternions(seed: int, n: int = 12) -> Float64:
    return Rotation.random(n, rng=np.random.default_rng(seed)).as_quat()


def same_rotation(p: Float64, q: Float64, *, atol: float = 1e-9) -> bool:
    return bool(np.allclose(np.abs(np.sum(p * q, axis=-1)), 1.0, atol=atol))


@given(SEEDS)
def test_products_inverses_and_rotated_vectors_agree_with_scipy(seed: int) -> None:
    p, q = quaternions(seed), quaternions(seed + 1)
    v = np.random.default_rng(seed).normal(size=(12, 3))
    one, other = Rotation.from_quat(p), Rotation.from_quat(q)
    assert same_rotation(rotation.multiply(p, q), (one * other).as_quat())
    assert same_rotation(rotation.inverse(q), other.inv().as_quat())
    np.testing.assert_allclose(rotation.rotate(q, v), other.apply(v), atol=1e-12)
    np.testing.assert_allclose(rotation.matrix(q), other.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotation.up_vector(q), other.inv().apply([0, 0, 1]), atol=1e-12)


@given(SEEDS)
def test_rotation_vectors_agree_with_scipy_whatever_the_sign(seed: int) -> None:
    q = quaternions(seed)
    expected = Rotation.from_quat(q).as_rotvec()
    np.testing.assert_allclose(rotation.rotvec(q), expected, atol=1e-9)
    np.testing.assert_allclose(rotation.rotvec(-q), expected, atol=1e-9)
    assert same_rotation(rotation.from_rotvec(expected), q)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-7, 1e-3])
def test_small_rotations_keep_their_angle(angle: float) -> None:
    v = np.array([[0.0, angle, 0.0]])
    np.testing.assert_allclose(rotation.rotvec(rotation.from_rotvec(v)), v, rtol=1e-7, atol=1e-20)


@given(SEEDS, st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_continuous_signs_change_no_rotation_and_never_jump(seed: int, lengths: list[int]) -> None:
    offsets = offsets_of(lengths)
    q = quaternions(seed, int(offsets[-1]))
    q[np.random.default_rng(seed).random(len(q)) < 0.3] = np.nan
    out = rotation.continuous(q, offsets)
    assert np.array_equal(np.abs(out), np.abs(q), equal_nan=True)
    for begin, end in pairwise(offsets):
        valid = out[begin:end][~np.isnan(out[begin:end, 0])]
        assert (np.sum(valid[1:] * valid[:-1], axis=1) >= 0).all()
        first = q[begin:end][~np.isnan(q[begin:end, 0])]
        assert len(first) == 0 or np.array_equal(valid[0], first[0])


@given(SEEDS, st.floats(0, 1))
def test_slerp_agrees_with_scipy(seed: int, share: float) -> None:
    q = quaternions(seed, 2)
    expected = Slerp([0, 1], Rotation.from_quat(q))(share).as_quat()
    assert same_rotation(rotation.slerp(q[:1], q[1:], np.array([share])), expected[None])


@given(SEEDS)
def test_gaps_are_filled_by_slerp_inside_a_segment(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = offsets_of([7, 1, 9])
    complete = quaternions(seed, 17)
    q = np.where((rng.random(17) < 0.5)[:, None], np.nan, complete)
    filled = rotation.interpolated(q, offsets)
    for begin, end in pairwise(offsets):
        valid = np.flatnonzero(~np.isnan(q[begin:end, 0]))
        got = filled[begin:end]
        if valid.size == 0:
            assert np.isnan(got).all()
            continue
        assert np.array_equal(got[valid], q[begin:end][valid])
        times = np.clip(np.arange(end - begin), valid[0], valid[-1])
        if valid.size > 1:
            expected = Slerp(valid, Rotation.from_quat(q[begin:end][valid]))(times).as_quat()
        else:
            expected = np.repeat(q[begin:end][valid], end - begin, axis=0)
        assert same_rotation(got, expected)


def test_angular_velocity_of_a_steady_turn_is_its_rate() -> None:
    angles = np.arange(10)[:, None] * np.array([[0.0, 0.0, 0.2]])
    q = rotation.from_rotvec(angles)
    w = rotation.angular_velocity(np.concatenate([q, q[:1]]), np.array([0, 10, 11]), rate_hz=20.0)
    np.testing.assert_allclose(w[:10], np.tile([0.0, 0.0, 4.0], (10, 1)), atol=1e-12)
    assert np.isnan(w[10]).all()


def test_normalised_quaternions_have_length_one_or_are_missing() -> None:
    q = np.array([[0.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0], [np.nan, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    out = rotation.normalised(q)
    assert np.array_equal(out[[0, 3]], [[0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5]])
    assert np.isnan(out[[1, 2]]).all()


@given(SEEDS)
def test_mirroring_conjugates_the_matrix(seed: int) -> None:
    q = quaternions(seed)
    mirror = np.diag([-1.0, 1.0, 1.0])
    expected = mirror @ rotation.matrix(q) @ mirror
    np.testing.assert_allclose(rotation.matrix(rotation.mirrored(q)), expected, atol=1e-12)


@given(SEEDS)
def test_turning_is_a_half_turn_about_the_device_z_axis(seed: int) -> None:
    q = quaternions(seed)
    expected = rotation.matrix(q) @ np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(rotation.matrix(rotation.turned(q)), expected, atol=1e-12)
    assert same_rotation(rotation.turned(rotation.turned(q)), q)


def test_missing_stays_missing() -> None:
    q = np.full((2, 4), np.nan)
    assert np.isnan(rotation.rotate(q, np.ones((2, 3)))).all()
    assert np.isnan(rotation.rotvec(q)).all()
    assert np.isnan(rotation.matrix(q)).all()
