from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.ensemble.blending import decoding_note
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.ensemble.nesting import nested, nesting_groups
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.evaluation.oof import OofScenario
from tests.blend_members import TARGETS, members


def test_the_nested_blend_of_a_fold_does_not_use_that_fold() -> None:
    probas, part = members()
    honest = nested(probas, part, TARGETS, BlendConfig())
    lied = part.truth.copy()
    held = part.folds == 2
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(part.keys, lied, part.proba), TARGETS, BlendConfig())
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert not np.array_equal(honest.proba[~held], again.proba[~held])
    for rule, predicted in honest.predicted.items():
        assert np.array_equal(predicted[held], again.predicted[rule][held])


def biased(bias: float, *, n: int = 240, seed: int = 3) -> tuple[list[np.ndarray], OofScenario]:
    """A member that favours non-targets in one half of the folds, so that groups disagree on the decoding rule."""
    probas, part = members(n, seed=seed, noise=(2.5,))
    proba = probas[0] * np.where((part.folds < 2)[:, None], [1.0, 1.0, bias], 1.0).astype(np.float32)
    return [proba / proba.sum(axis=1, keepdims=True)], part


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=20)
def test_predictions_of_a_fold_do_not_depend_on_its_labels(seed: int, fold: int, bias: float) -> None:
    probas, part = biased(bias, n=96, seed=seed % 1000)
    held = part.folds == fold
    lied = part.truth.copy()
    lied[held] = np.random.default_rng(seed).integers(0, 3, held.sum())
    honest = nested(probas, part, TARGETS, BlendConfig())
    again = nested(probas, OofScenario(part.keys, lied, part.proba), TARGETS, BlendConfig())
    assert honest.rules[fold] == again.rules[fold]
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert np.array_equal(honest.decided[held], again.decided[held])


def gain_of_the_threshold(part: OofScenario, predicted: Mapping[str, np.ndarray]) -> tuple[float, list[float]]:
    """How much better the threshold predicts than argmax: on all folds, and without each."""

    def gain(rows: np.ndarray) -> float:
        scores = {
            rule: hierarchical_f1(part.truth[rows], each[rows], TARGETS).score for rule, each in predicted.items()
        }
        return scores["threshold"] - scores["argmax"]

    return gain(part.folds >= 0), [gain(part.folds != fold) for fold in np.unique(part.folds)]


def test_each_fold_is_decoded_by_the_rule_that_the_others_choose() -> None:
    disagreed = 0
    for seed in range(12):
        probas, part = biased(1.5, seed=seed)
        honest = nested(probas, part, TARGETS, BlendConfig())
        for fold in range(4):
            held, rest = part.folds == fold, part.folds != fold
            inside = OofScenario(part.keys.filter(rest), part.truth[rest], probas[0][rest])
            inner = nested([probas[0][rest]], inside, TARGETS, BlendConfig(decode="argmax"))
            gain, without = gain_of_the_threshold(inside, inner.predicted)
            error = (sum((each - sum(without) / 3) ** 2 for each in without) * 2 / 3) ** 0.5  # of the jackknife
            assert honest.rules[fold] == ("threshold" if gain > error else "argmax")
            assert np.array_equal(honest.decided[held], honest.predicted[honest.rules[fold]][held])
        disagreed += len(set(honest.rules.values())) == 2
    assert disagreed, "every fold chose alike: nothing was tried"


def test_many_groups_choose_by_a_few_inner_ones() -> None:
    probas, part = members(n=120, noise=(2.0,))
    alone = OofScenario(part.keys.with_columns(fold=pl.Series(range(120)) % 12), part.truth, part.proba)
    honest = nested(probas, alone, TARGETS, BlendConfig())
    assert sorted(honest.rules) == list(range(12))
    held = alone.folds == 7
    lied = alone.truth.copy()
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(alone.keys, lied, part.proba), TARGETS, BlendConfig())
    assert honest.rules[7] == again.rules[7]
    assert np.array_equal(honest.decided[held], again.decided[held])


@pytest.mark.parametrize("decode", ["argmax", "threshold"])
def test_a_rule_that_is_asked_for_is_that_of_every_fold(decode: str) -> None:
    probas, part = members()
    config = BlendConfig(decode=decode)
    honest = nested(probas, part, TARGETS, config)
    assert honest.rules == dict.fromkeys(range(4), decode)
    assert np.array_equal(honest.decided, honest.predicted[decode])
    assert honest.kept_rule(part.truth, TARGETS, config) == decode


def test_two_groups_leave_none_to_choose_a_rule_by() -> None:
    probas, part = biased(0.2)
    two = OofScenario(part.keys.with_columns(pl.col("fold") // 2), part.truth, part.proba)
    honest = nested(probas, two, TARGETS, BlendConfig())
    assert honest.rules == {0: "argmax", 1: "argmax"}
    assert honest.kept_rule(part.truth, TARGETS, BlendConfig()) == "argmax"
    rules = {"all": {"asked": "auto"}}
    assert "auto is argmax" in str(decoding_note({"rules": rules, "nesting": {"groups": 2}}))
    assert decoding_note({"rules": rules, "nesting": {"groups": 3}}) is None
    assert decoding_note({"rules": {"all": {"asked": "argmax"}}, "nesting": {"groups": 2}}) is None
    assert decoding_note({"rules": {"all": {"chosen": "argmax"}}}) is None


def test_the_blend_of_one_fold_does_not_score_subjects_that_it_was_fitted_on() -> None:
    probas, part = members()
    alone = OofScenario(part.keys.with_columns(fold=3), part.truth, part.proba)
    groups = nesting_groups(alone)
    assert len(np.unique(groups)) == 5
    honest = nested(probas, alone, TARGETS, BlendConfig())
    lied = part.truth.copy()
    held = groups == 2
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(alone.keys, lied, part.proba), TARGETS, BlendConfig())
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert not np.array_equal(honest.proba[~held], again.proba[~held])
    divided = alone.keys.with_columns(group=groups).group_by("subject").agg(pl.col("group").n_unique())
    assert divided["group"].to_list() == [1] * 12
