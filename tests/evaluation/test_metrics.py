import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from bfrbctl.evaluation.metrics import (
    f1_by_class,
    headline,
    hierarchical_f1,
    log_loss,
    merged_labels,
    one_sided_note,
    score_column,
    score_name,
    score_proba,
    score_values,
)

N_CLASSES = 5
FLAGS = st.lists(st.booleans(), min_size=N_CLASSES, max_size=N_CLASSES)
PAIRS = st.lists(st.tuples(st.integers(0, N_CLASSES - 1), st.integers(0, N_CLASSES - 1)), min_size=1, max_size=60)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.array(pairs, dtype=np.int64).T
    return truth, predicted


@given(PAIRS, FLAGS)
def test_the_score_is_the_one_scikit_learn_gives(pairs: list[tuple[int, int]], flags: list[bool]) -> None:
    truth, predicted = arrays(pairs)
    target = np.array(flags)
    binary = f1_score(target[truth], target[predicted], pos_label=True, zero_division=0)
    merged_truth = np.where(target[truth], truth, 99)
    merged_predicted = np.where(target[predicted], predicted, 99)
    macro = f1_score(merged_truth, merged_predicted, average="macro", zero_division=0)
    score = hierarchical_f1(truth, predicted, flags)
    assert score.binary_f1 == pytest.approx(binary)
    assert score.macro_f1 == pytest.approx(macro)
    gestures = f1_score(truth, predicted, average="macro", zero_division=0)
    assert score.gesture_macro_f1 == pytest.approx(gestures)
    two_sides = any(flags) and not all(flags)
    assert score.score == pytest.approx(0.5 * (binary + macro) if two_sides else gestures)


@given(PAIRS, FLAGS)
def test_whole_weights_count_like_repeated_rows(pairs: list[tuple[int, int]], flags: list[bool]) -> None:
    truth, predicted = arrays(pairs)
    times = (np.arange(truth.size) % 3).astype(np.float64)
    if times.sum() == 0:
        return
    repeated = np.repeat(np.arange(truth.size), times.astype(int))
    weighted = hierarchical_f1(truth, predicted, flags, weights=times)
    assert weighted == hierarchical_f1(truth[repeated], predicted[repeated], flags)


@pytest.mark.parametrize("side", [True, False])
def test_where_all_are_of_one_side_the_headline_is_named_and_the_rest_is_empty(side: bool) -> None:
    truth, predicted = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])
    one_sided, two_sided = [side] * 3, [side, side, not side]
    score = hierarchical_f1(truth, predicted, one_sided)
    assert score.score == score.gesture_macro_f1 == pytest.approx(0.5)  # competition score: 1.0 or 0.75
    values = score_values(score, one_sided)
    assert (values["binary_f1"], values["macro_f1"], values["score"]) == (None, None, score.score)
    assert None not in score_values(hierarchical_f1(truth, predicted, two_sided), two_sided).values()
    assert (score_name(one_sided), score_name(two_sided)) == ("macro F1 over gestures", "score")
    assert (score_column(one_sided), score_column(two_sided)) == ("gesture F1", "score")
    old = {"score": 0.25, "gesture_macro_f1": 0.75}
    assert (headline(old, one_sided), headline(old, two_sided)) == (0.75, 0.25)


def test_the_note_on_one_sided_data_names_what_was_met_and_the_mend() -> None:
    content = {"classes": ["a", "b"], "targets": [False, False], "sequence_types": []}
    assert "no gesture is a target (column sequence_type is missing or empty)" in str(one_sided_note(content))
    met = one_sided_note({**content, "sequence_types": ["Non-Target"]})
    assert "(sequence_type is Non-Target)" in str(met) and "headline figure is macro F1 over gestures" in str(met)
    assert "column sequence_type that is Target or Non-Target" in str(met)
    old = one_sided_note({"classes": ["a"], "targets": [True]})
    assert str(old).startswith("all gestures are targets: target or not cannot be scored")
    assert one_sided_note({"classes": ["a", "b"], "targets": [False, True]}) is None
    assert one_sided_note({"classes": [], "targets": []}) is None
    assert one_sided_note({}) is None


def test_non_targets_are_merged_behind_the_targets() -> None:
    assert merged_labels(np.array([0, 1, 2, 3]), [False, True, False, True]).tolist() == [2, 0, 2, 1]


def test_a_class_that_is_nowhere_has_no_f1() -> None:
    assert np.isnan(f1_by_class(np.array([0]), np.array([1]), 3)[2])


def test_confusing_non_targets_costs_nothing_and_rows_must_align() -> None:
    assert hierarchical_f1(np.array([0, 1, 2]), np.array([0, 2, 1]), [True, False, False]).score == 1.0
    with pytest.raises(ValueError, match="cannot score 1 predictions against 2 labels"):
        hierarchical_f1(np.array([0, 1]), np.array([0]), [True, False])
    with pytest.raises(ValueError, match="cannot score"):
        hierarchical_f1(np.array([], dtype=np.int64), np.array([], dtype=np.int64), [True])


def test_probabilities_are_scored_by_their_largest() -> None:
    proba = np.array([[0.6, 0.4], [0.1, 0.9]], dtype=np.float32)
    assert score_proba(proba, np.array([0, 1]), [True, False]).score == 1.0
    assert log_loss(proba, np.array([0, 1])) == pytest.approx(-(np.log(0.6) + np.log(0.9)) / 2, rel=1e-6)
