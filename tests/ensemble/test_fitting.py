import numpy as np
import pytest

from bfrbctl.ensemble.fitting import fit_mixture, fit_temperature
from bfrbctl.ensemble.mixing import BlendConfig, pool, temper
from bfrbctl.evaluation.metrics import log_loss, score_proba
from tests.blend_members import TARGETS, members


def test_temperature_one_leaves_probabilities_and_softening_is_found() -> None:
    probas, part = members()
    assert np.allclose(temper(probas[0], 1.0, 1e-9), probas[0], atol=1e-6)
    sharp = temper(probas[0], 0.25, 1e-9)
    found = fit_temperature(sharp, part.truth, 1e-9)
    direct = fit_temperature(probas[0], part.truth, 1e-9)
    assert found == pytest.approx(4 * direct, rel=0.01)
    assert log_loss(temper(sharp, found, 1e-9), part.truth) < log_loss(sharp, part.truth)


def test_the_better_member_decides_and_equal_members_weigh_the_same() -> None:
    probas, part = members(noise=(0.5, 4.0))
    mixed = fit_mixture(probas, part.truth, TARGETS, BlendConfig()).mix(probas)
    better = np.argmax(probas[0], axis=1)
    assert (np.argmax(mixed, axis=1) == better).mean() > 0.97 > (np.argmax(probas[1], axis=1) == better).mean()
    twins = [probas[0], probas[0]]
    assert fit_mixture(twins, part.truth, TARGETS, BlendConfig()).weights == (0.5, 0.5)


def test_in_sample_the_blend_is_no_worse_than_equal_weights() -> None:
    for seed in range(3):
        probas, part = members(seed=seed, noise=(1.0, 1.5, 2.0))
        mixture = fit_mixture(probas, part.truth, TARGETS, BlendConfig())
        scaled = [temper(p, t, 1e-4) for p, t in zip(probas, mixture.temperatures, strict=True)]
        equal = pool(scaled, [1 / 3] * 3, "arithmetic")
        got = score_proba(mixture.mix(probas), part.truth, TARGETS).score
        assert got >= score_proba(equal, part.truth, TARGETS).score - 1e-9
