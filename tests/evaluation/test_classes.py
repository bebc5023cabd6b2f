import doctest

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.evaluation import classes
from bfrbctl.evaluation.classes import ClassSpace, gesture_space, read_class_space
from bfrbctl.evaluation.labels import joint_labels, postures

CONTENT = {"classes": ["a", "b"], "targets": [True, False]}
GESTURES = ClassSpace.of(("a", "b"), (True, False))
JOINT = GESTURES.refined(("a | sit | first", "a | lie | first", "b | sit | first"), (0, 0, 1))


def index(rows: list[tuple[str, str | None, str | None]]) -> pl.DataFrame:
    schema = {"gesture": pl.String, "orientation": pl.String, "behavior_first": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_joint_labels_follow_the_class_list_and_are_found_whatever_the_order_of_rows() -> None:
    rows = [("b", "sit", "x"), ("a", "sit", "x"), ("a", "lie", "x"), ("b", "sit", "x")]
    joint, positions = joint_labels(index(rows), GESTURES, what="here")
    assert joint.classes == ("a | lie | x", "a | sit | x", "b | sit | x")
    assert joint.gesture_of == (0, 0, 1)
    assert [joint.classes[p] for p in positions] == [" | ".join(map(str, row)) for row in rows]


def test_sequences_without_a_posture_have_no_joint_label() -> None:
    with pytest.raises(DataError, match="1 of 2 sequences have no orientation") as refused:
        joint_labels(index([("a", None, "x"), ("b", "sit", "x")]), GESTURES, what="here")
    assert "--labels gesture" in str(refused.value.hint)


def test_postures_are_listed_where_known() -> None:
    names, positions = postures(index([("a", "sit", None), ("b", None, None), ("a", "lie", None)]))
    assert names == ("lie", "sit")
    assert positions is not None and positions.tolist() == [1, -1, 0]
    assert postures(index([("a", None, None)])) == ((), None)


@pytest.mark.parametrize(
    "joint",
    [
        {"names": ["a", "b"], "gesture_of": [0]},
        {"names": ["a", "a"], "gesture_of": [0, 1]},
        {"names": ["a", "b"], "gesture_of": [0, 2]},
        {"names": ["a", "b"], "gesture_of": [0, 0]},
        {"names": ["a", "b"], "gesture_of": ["x", 1]},
        {"names": ["a", "b"]},
        [],
    ],
)
def test_joint_labels_that_cannot_be_are_refused(joint: object) -> None:
    with pytest.raises(ArtefactError):
        read_class_space({**CONTENT, "joint": joint}, what="here")


def test_joint_labels_survive_a_manifest() -> None:
    assert read_class_space({**CONTENT, **JOINT.joint_content()}, what="here") == JOINT
    assert JOINT.is_joint and JOINT.class_targets == (True, True, False)


def test_a_manifest_without_joint_labels_has_the_gestures_as_classes() -> None:
    assert read_class_space(CONTENT, what="here") == gesture_space(CONTENT) == GESTURES
    assert GESTURES.joint_content() == {} and GESTURES.class_targets == GESTURES.targets


@given(arrays(np.float64, (4, 3), elements=st.floats(0, 1)))
def test_classes_sum_to_their_gestures_and_share_one_inside_each(proba: np.ndarray) -> None:
    of_gestures = JOINT.gesture_proba(proba)
    assert of_gestures == pytest.approx(np.stack([proba[:, 0] + proba[:, 1], proba[:, 2]], axis=1), rel=1e-6)
    assert JOINT.gesture_proba(JOINT.conditional(proba)) == pytest.approx(np.ones((4, 2)), rel=1e-6)
    single = proba[:, :2].astype(np.float32)
    assert np.array_equal(GESTURES.gesture_proba(single), single)


@pytest.mark.parametrize(
    ("targets", "names", "labels"),
    [
        ([False, True, False], ("b", "non_target"), [1, 0, 1]),
        ([True, True, True], ("a", "b", "c"), [0, 1, 2]),
        ([False, False, False], ("a", "b", "c"), [0, 1, 2]),
    ],
)
def test_non_targets_are_scored_as_one_class_where_there_are_targets(
    targets: list[bool], names: tuple[str, ...], labels: list[int]
) -> None:
    space = ClassSpace.of("abc", targets)
    assert space.scored_names == names
    assert space.scored_labels(np.arange(3)).tolist() == labels


def test_examples_are_as_documented() -> None:
    assert doctest.testmod(classes).failed == 0
