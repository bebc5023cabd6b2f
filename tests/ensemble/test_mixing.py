import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.ensemble.mixing import BlendConfig, Mixture, pool, temper
from bfrbctl.errors import UsageError
from tests.blend_members import members


@given(
    st.floats(0.2, 5.0),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.sampled_from(["arithmetic", "logarithmic"]),
)
def test_blends_are_probabilities(temperature: float, weights: list[float], pooling: str) -> None:
    probas, _ = members(20, noise=(1.0, 2.0, 0.5))
    share = np.array(weights) / sum(weights)
    mixed = pool([temper(p, temperature, 1e-4) for p in probas], share.tolist(), pooling)
    assert np.allclose(mixed.sum(axis=1), 1)
    assert (mixed > 0).all()


def test_a_mixture_of_some_members_keeps_their_proportions() -> None:
    mixture = Mixture((1.0, 2.0, 3.0), (0.5, 0.2, 0.3), "arithmetic", 1e-4, 0.4)
    some = mixture.only([1, 2])
    assert some.temperatures == (2.0, 3.0)
    assert some.weights == pytest.approx((0.4, 0.6))
    assert some.threshold == 0.4
    assert Mixture((1.0, 1.0), (1.0, 0.0), "arithmetic", 1e-4).only([1]).weights == (1.0,)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="pooling is 'median', expected arithmetic or logarithmic"):
        BlendConfig(pooling="median")
    with pytest.raises(UsageError, match=r"epsilon is 0\.5, expected a number, above 0 and below 0\.05"):
        BlendConfig(epsilon=0.5)
