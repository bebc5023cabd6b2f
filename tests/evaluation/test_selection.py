"""Which step is chosen: the best one of the other folds, and never one that a fold's own curve had a say in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation.selection import Curve, Rule, best_step, mean_curve, select_steps

RULES = [Rule(by, scenario) for by in ("score", "logloss") for scenario in ("mean", "all", "imu")]


def curve(score: dict[str, Any], logloss: dict[str, Any]) -> Curve:
    return Curve(
        *({name: np.array(each, dtype=np.float64) for name, each in part.items()} for part in (score, logloss))
    )


@st.composite
def curves(draw: st.DrawFn, n_steps: int, scenarios: tuple[str, ...]) -> Curve:
    """Draw a curve with many ties; eighths, so that means are exact."""
    values = st.lists(st.integers(0, 8).map(lambda eighths: eighths / 8), min_size=n_steps, max_size=n_steps)
    return curve({name: draw(values) for name in scenarios}, {name: draw(values) for name in scenarios})


@st.composite
def folds_of_curves(draw: st.DrawFn) -> dict[int, Curve]:
    scenarios = draw(st.sampled_from([("all", "imu"), ("all",)]))
    numbers = draw(st.lists(st.integers(0, 9), min_size=2, max_size=5, unique=True))
    n_steps = draw(st.integers(1, 6))
    return {number: draw(curves(n_steps, scenarios)) for number in numbers}


def plainly(given_curves: list[Curve], rule: Rule) -> int:
    """Choose step by step: a loop that anybody can check."""
    names = list(given_curves[0].score)
    names = [rule.scenario] if rule.scenario in names else names
    best, found = None, 0
    for step in range(given_curves[0].n_steps):
        cells = [(each.score[name][step], each.logloss[name][step]) for each in given_curves for name in names]
        score, loss = (round(float(np.mean(column)), 9) for column in zip(*cells, strict=True))
        key = (-score, loss) if rule.by == "score" else (loss,)
        if best is None or key < best:
            best, found = key, step + 1
    return found


@given(folds_of_curves(), st.sampled_from(RULES))
def test_folds_and_models_get_what_a_plain_loop_finds(by_fold: dict[int, Curve], rule: Rule) -> None:
    # thirds of eighths are rounded, so that equal means may differ in their last bit: compare where they are exact
    chosen = select_steps(by_fold, rule)
    if len(by_fold) in (2, 4):
        assert chosen.kept == plainly(list(by_fold.values()), rule)
    if len(by_fold) in (2, 3, 5):
        for fold, step in chosen.folds.items():
            assert step == plainly([each for other, each in by_fold.items() if other != fold], rule)
    assert set(chosen.folds) == set(by_fold)
    assert all(1 <= step <= by_fold[fold].n_steps for fold, step in chosen.folds.items())


@given(folds_of_curves(), st.sampled_from(RULES), st.data())
def test_the_own_curve_of_a_fold_changes_nothing_of_its_number(
    by_fold: dict[int, Curve], rule: Rule, data: st.DataObject
) -> None:
    fold = data.draw(st.sampled_from(sorted(by_fold)))
    first = next(iter(by_fold.values()))
    other = data.draw(curves(first.n_steps, tuple(first.score)))
    changed = select_steps({**by_fold, fold: other}, rule)
    assert changed.folds[fold] == select_steps(by_fold, rule).folds[fold]


@given(folds_of_curves(), st.sampled_from(RULES))
def test_the_order_of_the_folds_does_not_matter(by_fold: dict[int, Curve], rule: Rule) -> None:
    ascending = dict(sorted(by_fold.items()))
    one, other = select_steps(ascending, rule), select_steps(dict(sorted(by_fold.items(), reverse=True)), rule)
    if len(by_fold) < 4:  # a sum of three eighths over and over is exact in any order
        assert one == other


def test_of_equal_scores_the_lowest_loss_and_of_these_the_fewest_steps() -> None:
    tied = curve({"all": [0.5, 0.7, 0.7, 0.7, 0.6]}, {"all": [0.9, 0.8, 0.6, 0.6, 0.1]})
    assert best_step(tied, Rule("score")) == 3
    assert best_step(tied, Rule("logloss")) == 5
    flat = curve({"all": [0.5] * 4}, {"all": [0.5] * 4})
    assert best_step(flat, Rule("score")) == best_step(flat, Rule("logloss")) == 1


def test_the_scenario_whose_figure_chooses_is_the_one_that_was_asked_for() -> None:
    both = curve({"all": [0.9, 0.1, 0.6], "imu": [0.1, 0.9, 0.6]}, {"all": [1, 1, 1], "imu": [1, 1, 1]})
    assert [best_step(both, Rule("score", scenario)) for scenario in ("all", "imu", "mean")] == [1, 2, 3]


def test_where_there_is_one_scenario_each_rule_means_it() -> None:
    one = curve({"all": [0.1, 0.9, 0.2]}, {"all": [0.9, 0.8, 0.1]})
    for scenario in ("all", "imu", "mean"):
        assert (best_step(one, Rule("score", scenario)), best_step(one, Rule("logloss", scenario))) == (2, 3)


def test_a_mean_curve_is_the_mean_of_every_figure() -> None:
    mean = mean_curve(
        [curve({"all": [0.0, 1.0]}, {"all": [2.0, 1.0]}), curve({"all": [1.0, 1.0]}, {"all": [0.0, 0.0]})]
    )
    assert mean.as_content() == {"score": {"all": [0.5, 1.0]}, "logloss": {"all": [1.0, 0.5]}}


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (curve({"all": [1.0]}, {"all": [0.0]}), r"of 1 steps \(all\), 2 steps \(all\)"),
        (curve({"imu": [1.0, 1.0]}, {"imu": [0.0, 0.0]}), r"of 2 steps \(all\), 2 steps \(imu\)"),
    ],
)
def test_curves_of_other_steps_or_scenarios_are_refused(other: Curve, found: str) -> None:
    one = curve({"all": [0.0, 1.0]}, {"all": [2.0, 1.0]})
    with pytest.raises(ArtefactError, match=found):
        select_steps({0: one, 1: one, 2: other}, Rule())


@pytest.mark.parametrize("n_folds", [0, 1])
def test_a_fold_never_chooses_for_itself(n_folds: int) -> None:
    one = curve({"all": [0.5]}, {"all": [0.5]})
    with pytest.raises(ValueError, match="must not choose for itself"):
        select_steps(dict.fromkeys(range(n_folds), one), Rule())


@given(curves(4, ("all", "imu")))
def test_a_curve_is_read_as_it_was_written(given_curve: Curve) -> None:
    content = given_curve.as_content()
    assert Curve.of_content(content, what="here").as_content() == content


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "score",
        {},
        {"score": {"all": [0.5]}},
        {"score": {"all": [0.5]}, "logloss": [0.5]},
        {"score": {"all": [0.5]}, "logloss": {"imu": [0.5]}},
        {"score": {"all": [0.5]}, "logloss": {"all": [0.5, 0.4]}},
        {"score": {"all": [0.5], "imu": [0.5, 0.6]}, "logloss": {"all": [0.5], "imu": [0.5, 0.6]}},
        {"score": {"all": []}, "logloss": {"all": []}},
        {"score": {"all": 0.5}, "logloss": {"all": 0.5}},
        {"score": {"all": [[0.5]]}, "logloss": {"all": [[0.5]]}},
        {"score": {"all": ["high"]}, "logloss": {"all": [0.5]}},
        {"score": {"all": [0.5, [0.5]]}, "logloss": {"all": [0.5, 0.5]}},
        {"score": {"all": [float("nan")]}, "logloss": {"all": [0.5]}},
        {"score": {"all": [0.5]}, "logloss": {"all": [float("inf")]}},
        {"score": {}, "logloss": {}},
    ],
)
def test_what_is_no_curve_is_refused(content: object) -> None:
    with pytest.raises(ArtefactError, match="fold 3: holds no curve of scores"):
        Curve.of_content(content, what="fold 3")
