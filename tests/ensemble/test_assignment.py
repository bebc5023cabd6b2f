import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.ensemble.assignment import Assigner, assigned, joint_proba, score_orders
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.oof import OofScenario

GESTURES = ClassSpace.of(("a", "b"), (True, False))
JOINT = GESTURES.refined(("a | sit | first", "a | lie | first", "b | sit | first"), (0, 0, 1))


def wearer(n_kinds: int, n_wearers: int, *, noise: float, seed: int) -> tuple[OofScenario, np.ndarray, ClassSpace]:
    """Wearers who do each of n_kinds joint labels, two a gesture, once; probabilities know them but for noise."""
    rng = np.random.default_rng(seed)
    gestures = ClassSpace.of([f"g{k}" for k in range(n_kinds // 2)], [4 * k < n_kinds for k in range(n_kinds // 2)])
    names = [f"g{k // 2} | p{k % 2} | f" for k in range(n_kinds)]
    joint = gestures.refined(names, [k // 2 for k in range(n_kinds)])
    kinds = np.concatenate([rng.permutation(n_kinds) for _ in range(n_wearers)])
    noisy = np.eye(n_kinds)[kinds] + noise * rng.normal(size=(kinds.size, n_kinds))
    joint_probas = np.exp(noisy / noise**2 - (noisy / noise**2).max(axis=1, keepdims=True))
    joint_probas /= joint_probas.sum(axis=1, keepdims=True)
    proba = joint.gesture_proba(joint_probas)
    truth = np.asarray(joint.gesture_of)[kinds].astype(np.int64)
    keys = pl.DataFrame(
        {
            "sequence_id": [f"q{i:04d}" for i in range(kinds.size)],
            "subject": [f"s{i // n_kinds}" for i in range(kinds.size)],
            "fold": [0] * kinds.size,
            "gesture": [f"g{k}" for k in truth],
        }
    )
    return OofScenario(keys, truth, proba), joint_probas.astype(np.float32), joint


def test_a_joint_label_is_not_assigned_twice_for_a_wearer() -> None:
    assigner = Assigner(JOINT)
    sure = np.array([0.6, 0.0, 0.4])
    less_sure = np.array([0.5, 0.0, 0.5])
    assert [assigner.assign("s", sure), assigner.assign("s", less_sure)] == [0, 1]
    assert assigner.assign("other", sure) == 0


def test_what_arrives_beyond_the_joint_labels_is_not_assigned() -> None:
    assigner = Assigner(JOINT)
    row = np.array([0.5, 0.3, 0.2])
    assert [assigner.assign("s", row) is None for _ in range(5)] == [False, False, False, True, True]
    assert assigner.assign(None, row) is None


def test_the_least_recent_wearer_is_forgotten() -> None:
    assigner = Assigner(JOINT, max_subjects=2)
    sure = np.array([0.6, 0.0, 0.4])
    for name in ("a", "b", "a", "c"):
        assigner.assign(name, sure)
    assert assigner.assign("a", sure) is not None
    assert assigner.assign("b", sure) == 0, "b was forgotten, so this is its first sequence"


def test_assignment_helps_where_each_label_is_done_once_and_depends_on_the_order() -> None:
    part, joint_probas, joint = wearer(12, 10, noise=0.5, seed=0)
    scores = [score.score for score in score_orders(part, joint_probas, joint, seed=0)]
    assert np.mean(scores) > part.score(joint.targets).score + 0.01
    assert not np.array_equal(assigned(part, joint_probas, joint, seed=0), assigned(part, joint_probas, joint, seed=1))


@given(st.integers(0, 2**32 - 1))
def test_sure_predictions_stay_as_they_are(seed: int) -> None:
    part, joint_probas, joint = wearer(6, 3, noise=0.1, seed=seed)
    assert np.array_equal(assigned(part, joint_probas, joint, seed=seed), part.truth)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_joint_probabilities_sum_to_those_of_the_gestures(values: list[float]) -> None:
    raw = np.array([values], dtype=np.float64) + 1e-9
    conditional = JOINT.conditional(raw)
    assert conditional[0, 0] + conditional[0, 1] == pytest.approx(1, abs=1e-5)
    assert conditional[0, 2] == pytest.approx(1)
    proba = np.array([[0.3, 0.7]], dtype=np.float32)
    assert np.allclose(JOINT.gesture_proba(joint_proba(proba, conditional, JOINT)), proba, atol=1e-5)
