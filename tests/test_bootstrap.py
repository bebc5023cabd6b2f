import tracemalloc
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl import bootstrap
from bfrbctl.bootstrap import Tally, drawn_scores, interval, score_intervals
from bfrbctl.metrics import hierarchical_f1, score_proba
from bfrbctl.oof import OofScenario


def scenario(rng: np.random.Generator, n: int = 60) -> OofScenario:
    proba = rng.dirichlet(np.ones(4), n).astype(np.float32)
    keys = pl.DataFrame({"subject": [f"S{i}" for i in rng.integers(0, 7, n)], "fold": [0] * n})
    return OofScenario(keys, rng.integers(0, 3, n).astype(np.int64), proba)  # class 3 is predicted and never true


def slow_scores(part: OofScenario, targets: Sequence[bool], seed: int) -> list[float]:
    """Draw subjects one draw after the other and score the sequences anew each time."""
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
    tally = Tally.of(part, targets)
    once = np.ones((1, len(tally.binary)), dtype=np.int64)
    assert tally.scores(once)[0] == pytest.approx(score_proba(part.proba, part.truth, targets).score)


def test_the_intervals_are_those_of_the_slow_bootstrap() -> None:
    rng, targets = np.random.default_rng(3), [True, True, False, False]
    part = scenario(rng)
    other = OofScenario(part.keys, part.truth, scenario(rng).proba)
    found = score_intervals({"all": part, "imu": other}, targets, seed=5)
    slow = {"all": slow_scores(part, targets, 5), "imu": slow_scores(other, targets, 5)}
    slow["mean"] = np.mean([slow["all"], slow["imu"]], axis=0).tolist()
    for name, scores in slow.items():
        assert found[name] == pytest.approx(np.quantile(scores, [0.025, 0.975]).tolist(), abs=1e-12)


def test_sequences_without_a_subject_are_not_drawn_together() -> None:
    part = scenario(np.random.default_rng(1), n=12)
    keys = part.keys.with_columns(pl.Series("subject", ["A", "A", "B", "", "", None, None, "B", "A", "", "B", "A"]))
    anonymous = OofScenario(keys, part.truth, part.proba)
    assert anonymous.groups.tolist() == [0, 0, 1, 2, 3, 4, 5, 1, 0, 6, 1, 0]
    tally = Tally.of(anonymous, [True, True, False, False])
    assert len(tally.binary) == 7
    low, high = interval(drawn_scores([tally], seed=0)[0])
    assert low < high


def test_many_sequences_without_a_subject_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    part, targets = scenario(np.random.default_rng(2), n=5_000), [True, True, False, False]
    anonymous = OofScenario(part.keys.with_columns(subject=pl.lit("")), part.truth, part.proba)
    tracemalloc.start()
    found = score_intervals({"all": anonymous}, targets, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # 1000 drawings of all of them take 40 MB, and were there three times
    monkeypatch.setattr(bootstrap, "_BLOCK", 1 << 14)
    assert score_intervals({"all": anonymous}, targets, seed=1) == found
