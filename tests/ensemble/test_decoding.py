import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.ensemble.decoding import decide, fit_threshold
from bfrbctl.evaluation.metrics import hierarchical_f1, score_proba
from tests.blend_members import TARGETS, members


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_the_threshold_decides_between_targets_and_the_rest(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(3), size=50)
    for row, predicted in zip(proba, decide(proba, TARGETS, threshold), strict=True):
        if row[:2].sum() >= threshold:
            assert predicted == np.argmax(row[:2])
        else:
            assert predicted == 2


def test_without_a_threshold_or_without_two_sides_the_most_probable_gesture_is_predicted() -> None:
    proba = np.random.default_rng(0).dirichlet(np.ones(3), size=50)
    best = np.argmax(proba, axis=1)
    assert np.array_equal(decide(proba, TARGETS, None), best)
    assert np.array_equal(decide(proba, [True] * 3, 0.9), best)
    assert fit_threshold(proba, best, [False] * 3) is None


def test_a_threshold_mends_probabilities_that_favour_one_side() -> None:
    probas, part = members(n=600, noise=(1.0,))
    biased = probas[0] * np.array([0.3, 0.3, 1.0], dtype=np.float32)
    biased /= biased.sum(axis=1, keepdims=True)
    threshold = fit_threshold(biased, part.truth, TARGETS)
    assert threshold is not None and threshold < 0.5
    mended = hierarchical_f1(part.truth, decide(biased, TARGETS, threshold), TARGETS).score
    assert mended > score_proba(biased, part.truth, TARGETS).score
