import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.arrays import quaternions
from bfrbctl.models.keras.learning.turning import QUATERNION, SIXD, find_turned, turn_heading, turn_strap

NAMES = ("lin_x", "lin_y", "lin_z", "world_x", "world_y", "world_z", *QUATERNION, *SIXD, "lin_mag")
ANGLES = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)


def computed(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    matrix = quaternions.matrix(q)
    parts = [
        v,
        quaternions.rotate(q, v),
        q,
        matrix[..., :, 0],
        matrix[..., :, 1],
        np.sqrt((v**2).sum(-1, keepdims=True)),
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def recordings() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    q = rng.normal(size=(3, 5, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True), rng.normal(size=(3, 5, 3))


@settings(max_examples=20, deadline=None)
@given(ANGLES)
def test_turning_the_channels_is_turning_the_person(angles: list[float]) -> None:
    q, v = recordings()
    frames = computed(q, v)
    turn_heading(frames, find_turned(NAMES), np.array(angles))
    turn = quaternions.from_rotvec(np.array([[0.0, 0.0, angle] for angle in angles]))[:, None]
    np.testing.assert_allclose(frames, computed(quaternions.multiply(turn, q), v), atol=2e-6)


@settings(max_examples=20, deadline=None)
@given(ANGLES)
def test_turning_the_channels_is_turning_the_strap(angles: list[float]) -> None:
    q, v = recordings()
    frames = computed(q, v)
    turn_strap(frames, find_turned(NAMES), np.array(angles))
    turn = quaternions.from_rotvec(np.array([[0.0, angle, 0.0] for angle in angles]))[:, None]
    worn = quaternions.multiply(q, quaternions.inverse(turn))
    np.testing.assert_allclose(frames, computed(worn, quaternions.rotate(turn, v)), atol=2e-6)


def test_a_vector_without_all_its_components_is_left_alone() -> None:
    found = find_turned(("lin_x", "lin_y", "acc_x", "acc_y", "acc_z"))
    assert found.device == ((2, 3, 4),)
    assert found.world == found.quaternion == found.sixd == ()
