"""AUC, average precision and operating points: what scikit-learn and plain counting give, and what is not defined."""

import doctest
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from bfrbctl.evaluation import discrimination
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.discrimination import (
    auc,
    auc_by_group,
    auc_within_subjects,
    average_precision,
    curve,
    operating_points,
    positive_side,
    ranking_figures,
)
from tests import reference

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]) | st.floats(0, 1), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


def arrays(rows: list[tuple[bool, float, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, values, groups = (np.array(column) for column in zip(*rows, strict=True))
    return truth, values, groups


@given(ROWS)
def test_the_auc_is_the_share_of_pairs_in_order_of_all_and_within_each_group(
    rows: list[tuple[bool, float, int]],
) -> None:
    truth, values, groups = arrays(rows)
    pooled = auc(truth, values)
    one_side = truth.all() or not truth.any()
    assert (pooled is None) if one_side else pooled == pytest.approx(reference.auc(truth.tolist(), values.tolist()))
    each = auc_by_group(truth, values, groups)
    for group in range(groups.max() + 1):
        held = groups == group
        slow = reference.auc(truth[held].tolist(), values[held].tolist())
        assert each[group] == pytest.approx(slow, nan_ok=True)


@given(ROWS)
def test_figures_are_those_of_scikit_learn(rows: list[tuple[bool, float, int]]) -> None:
    truth, values, _ = arrays(rows)
    found = curve(truth, values)
    if truth.all() or not truth.any():
        assert (found, auc(truth, values), average_precision(truth, values)) == (None, None, None)
        return
    assert found is not None
    assert auc(truth, values) == pytest.approx(roc_auc_score(truth, values))
    assert average_precision(truth, values) == pytest.approx(average_precision_score(truth, values))
    alarms, sensitivity, thresholds = roc_curve(truth, values, drop_intermediate=False)
    assert found.thresholds.tolist() == thresholds[1:].tolist()
    assert found.sensitivity == pytest.approx(sensitivity[1:])
    assert found.false_alarm_rate == pytest.approx(alarms[1:])


@given(ROWS)
def test_an_operating_point_is_what_counting_at_its_threshold_gives(rows: list[tuple[bool, float, int]]) -> None:
    truth, values, _ = arrays(rows)
    found = curve(truth, values)
    if found is None:
        return
    points = operating_points(found)
    assert [point["threshold"] for point in points] == sorted({p["threshold"] for p in points}, reverse=True)
    for point in points:
        said = values >= point["threshold"]
        hits, alarms = int((said & truth).sum()), int((said & ~truth).sum())
        assert point["sensitivity"] == pytest.approx(hits / truth.sum())
        assert point["specificity"] == pytest.approx(1 - alarms / (~truth).sum())
        assert point["false_alarms_per_100"] == pytest.approx(100 * alarms / (~truth).sum())
        assert point["precision"] == (pytest.approx(hits / said.sum()) if said.any() else None)
        assert point["f1"] == pytest.approx(2 * hits / (said.sum() + truth.sum()))
    best = next(point for point in points if "best F1" in point["rule"])
    assert best["f1"] == pytest.approx(max(found.f1))


@given(st.integers(0, 10_000))
def test_a_limit_of_false_alarms_is_kept_with_the_most_that_can_be_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, values = rng.random(300) < 0.4, rng.random(300).round(2)
    found = curve(truth, values)
    assert found is not None
    points = {rule: point for point in operating_points(found) for rule in point["rule"].split("; ")}
    for limit in discrimination.ALARM_LIMITS:
        point = points.get(f"false alarms {limit} in 100 at most")
        fitting = [t for t in np.unique(values) if 100 * np.mean(values[~truth] >= t) <= limit]
        assert (point is None) == (not fitting)
        if point:
            assert point["threshold"] == min(fitting)


def test_constant_scores_rank_nothing() -> None:
    truth = np.array([True, False, False, True, False])
    assert auc(truth, np.full(5, 0.3)) == 0.5
    assert average_precision(truth, np.full(5, 0.3)) == 0.4


def test_the_auc_within_subjects_is_not_moved_by_how_they_differ() -> None:
    truth = np.array([False, True, False, True, True, False])
    values, groups = np.array([0.1, 0.2, 0.8, 0.9, 0.5, 0.5]), np.array([0, 0, 1, 1, 2, 3])
    assert auc_within_subjects(truth, values, groups) == {"mean": 1.0, "sd": 0.0, "n_subjects": 2}
    assert auc(truth, values) == pytest.approx((1 + 3 + 1.5) / 9)
    assert auc_within_subjects(truth[:2], values[:2], groups[:2]) == {"mean": 1.0, "sd": None, "n_subjects": 1}
    assert auc_within_subjects(truth[4:], values[4:], groups[4:]) is None


def test_of_two_classes_of_one_side_the_second_is_detected() -> None:
    assert positive_side(ClassSpace.of("abc", [False] * 3)) is None
    assert positive_side(ClassSpace.of("a", [True])) is None
    name, side = positive_side(ClassSpace.of("ab", [True, True])) or ("", np.array([]))
    assert (name, side.tolist()) == ("b", [False, True])
    name, side = positive_side(ClassSpace.of("ab", [True, False])) or ("", np.array([]))
    assert (name, side.tolist()) == ("targets", [True, False])


def figures(truth: list[int], targets: list[bool]) -> dict[str, Any]:
    labels, rng = np.array(truth, dtype=np.int64), np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(len(targets)), len(truth)).astype(np.float32)
    groups = np.arange(len(truth)) % 2
    space = ClassSpace.of([f"gesture {place}" for place in range(len(targets))], targets)
    return ranking_figures(labels, np.argmax(proba, axis=1), proba, space, groups=groups)


@pytest.mark.parametrize("truth", [[0], [0, 0, 0], [0, 1, 2, 2, 1, 0]])
@pytest.mark.parametrize("targets", [[True] * 3, [False] * 3, [True, False, False]])
def test_figures_are_json_without_nan_whatever_is_absent(truth: list[int], targets: list[bool]) -> None:
    found = figures(truth, targets)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    both = any(targets) and not all(targets) and len(set(truth)) > 1
    assert (found["detection"] is not None) == both
    assert (found["macro_auc"] is None) == (len(set(truth)) == 1)


def test_each_gesture_is_ranked_against_the_rest_and_the_means_are_over_those_known() -> None:
    found = figures([0, 1, 0, 1, 1, 0, 0], [True, False, False])
    known = [each for each in found["gestures"].values() if each["auc"] is not None]
    assert found["gestures"]["gesture 2"]["auc"] is None and len(known) == 2
    assert found["macro_auc"] == pytest.approx(np.mean([each["auc"] for each in known]))
    assert found["macro_average_precision"] == pytest.approx(np.mean([each["average_precision"] for each in known]))
    assert set(known[0]) == {"precision", "recall", "f1", "support", "auc", "average_precision"}


def test_examples_are_as_documented() -> None:
    assert doctest.testmod(discrimination).failed == 0
