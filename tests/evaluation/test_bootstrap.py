import tracemalloc
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from bfrbctl.evaluation import bootstrap
from bfrbctl.evaluation.bootstrap import Ranking, Tally, auc_intervals, drawn_scores, interval, score_intervals
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.metrics import hierarchical_f1, score_proba
from bfrbctl.evaluation.oof import OofScenario
from tests import reference


def space(targets: Sequence[bool]) -> ClassSpace:
    return ClassSpace.of("abcd", targets)


def scenario(rng: np.random.Generator, n: int = 60) -> OofScenario:
    proba = rng.dirichlet(np.ones(4), n).astype(np.float32)
    keys = pl.DataFrame({"subject": [f"S{i}" for i in rng.integers(0, 7, n)], "fold": [0] * n})
    return OofScenario(keys, rng.integers(0, 3, n).astype(np.int64), proba)  # class 3 is predicted and never true


def slow_scores(part: OofScenario, targets: Sequence[bool], seed: int) -> list[float]:
    """Draw subjects one draw after the other and score the sequences again each time."""
    subjects, group = np.unique(part.keys["subject"].to_numpy(), return_inverse=True)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(1000):
        times = np.bincount(rng.integers(0, len(subjects), len(subjects)), minlength=len(subjects))
        weights = times[group].astype(np.float64)
        scores.append(hierarchical_f1(part.truth, part.predicted, targets, weights=weights).score)
    return scores


@given(st.integers(0, 10_000))
def test_tallies_score_like_the_metric(seed: int) -> None:
    part, targets = scenario(np.random.default_rng(seed)), [True, False, True, False]
    tally = Tally.of(part, space(targets))
    once = np.ones((1, tally.n_subjects), dtype=np.int64)
    assert tally.scores(once)[0] == pytest.approx(score_proba(part.proba, part.truth, targets).score)


def test_the_intervals_are_those_of_the_slow_bootstrap() -> None:
    rng, targets = np.random.default_rng(3), [True, True, False, False]
    part = scenario(rng)
    other = OofScenario(part.keys, part.truth, scenario(rng).proba)
    found = score_intervals({"all": part, "imu": other}, space(targets), seed=5)
    slow = {"all": slow_scores(part, targets, 5), "imu": slow_scores(other, targets, 5)}
    slow["mean"] = np.mean([slow["all"], slow["imu"]], axis=0).tolist()
    for name, scores in slow.items():
        assert found[name] == pytest.approx(np.quantile(scores, [0.025, 0.975]).tolist(), abs=1e-12)


@given(st.integers(0, 10_000), st.booleans())
def test_gestures_are_counted_where_all_are_of_one_side(seed: int, side: bool) -> None:
    rng = np.random.default_rng(seed)
    part = scenario(rng, n=30)
    tally = Tally.of(part, space([side] * 4))
    times = rng.integers(0, 3, (2, tally.n_subjects)) + np.eye(1, tally.n_subjects, dtype=np.int64)
    slow = [
        reference.macro_f1(part.truth.tolist(), part.predicted.tolist(), row[part.groups].tolist()) for row in times
    ]
    assert tally.scores(times).tolist() == pytest.approx(slow)


def test_the_interval_of_one_sided_data_is_that_of_its_headline() -> None:
    part, targets = scenario(np.random.default_rng(4)), [False] * 4
    found = score_intervals({"all": part}, space(targets), seed=2)
    slow = slow_scores(part, targets, 2)
    assert found["mean"] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), abs=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 20]))
def test_the_auc_of_a_draw_is_that_of_counting_pairs(seed: int, n_values: int) -> None:
    rng = np.random.default_rng(seed)
    part = scenario(rng, n=25)
    coarse = (rng.integers(0, n_values, (25, 1)) * np.array([[1.0, 0.0, 0.0, 0.0]])).astype(np.float32)
    part, side = OofScenario(part.keys, part.truth, coarse), np.array([True, False, False, False])
    ranking = Ranking.of(part, side)
    times = rng.integers(0, 3, (2, ranking.n_subjects))
    slow = [reference.auc(side[part.truth], coarse[:, 0].tolist(), row[part.groups].tolist()) for row in times]
    assert ranking.scores(times).tolist() == pytest.approx(slow, nan_ok=True)


def test_the_interval_of_the_auc_is_of_the_draws_with_both_sides() -> None:
    part = scenario(np.random.default_rng(6))
    targets, n_subjects = [True, False, True, False], 7
    low, high = auc_intervals({"all": part}, space(targets), seed=5)["all"] or (0.0, 0.0)
    rng, slow = np.random.default_rng(5), []
    values = part.proba.astype(np.float64)[:, [0, 2]].sum(axis=1)
    for _ in range(1000):
        times = np.bincount(rng.integers(0, n_subjects, n_subjects), minlength=n_subjects)[part.groups]
        slow.append(roc_auc_score(part.truth != 1, values, sample_weight=times))
    assert (low, high) == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist())
    assert auc_intervals({"all": part}, space([True] * 4), seed=5) == {"all": None}
    alone = OofScenario(part.keys, np.zeros(60, dtype=np.int64), part.proba)  # one side is never there
    assert auc_intervals({"all": alone}, space(targets), seed=5) == {"all": None}


def test_sequences_without_a_subject_are_not_drawn_together() -> None:
    part = scenario(np.random.default_rng(1), n=12)
    keys = part.keys.with_columns(pl.Series("subject", ["A", "A", "B", "", "", None, None, "B", "A", "", "B", "A"]))
    anonymous = OofScenario(keys, part.truth, part.proba)
    assert anonymous.groups.tolist() == [0, 0, 1, 2, 3, 4, 5, 1, 0, 6, 1, 0]
    tally = Tally.of(anonymous, space([True, True, False, False]))
    assert tally.n_subjects == 7
    low, high = interval(drawn_scores([tally], seed=0)[0])
    assert low < high


def test_many_sequences_without_a_subject_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    part, targets = scenario(np.random.default_rng(2), n=5_000), [True, True, False, False]
    anonymous = OofScenario(part.keys.with_columns(subject=pl.lit("")), part.truth, part.proba)
    tracemalloc.start()
    found = score_intervals({"all": anonymous}, space(targets), seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # 1000 drawings of all of them take 40 MB, and were there three times
    monkeypatch.setattr(bootstrap, "_BLOCK", 1 << 14)
    assert score_intervals({"all": anonymous}, space(targets), seed=1) == found
