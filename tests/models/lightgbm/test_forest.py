import gc
from dataclasses import replace

import numpy as np
import pytest

from bfrbctl.errors import DataError
from bfrbctl.models.interface import Average, ensemble_of
from bfrbctl.models.lightgbm.fast_row import FastRow
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.models.lightgbm.model import FEW, Forest, LightGBMModel, fit
from tests.models.lightgbm.test_model import N_FEATURES, batch, quick, task


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[LightGBMModel]:
    """Folds that differ in everything a fold may: trees, number of boosters, features seen."""
    return [
        fit(task(), quick()),
        fit(task(seed=6, scratch=tmp_path_factory.mktemp("scratch")), quick(seeds=2)),
        fit(task(seed=7), quick(top_features=5)),
    ]


@pytest.mark.parametrize("n_sequences", [1, 2, FEW, FEW + 1, 40, 100])
def test_the_answer_is_the_average_of_the_folds_bit_for_bit(folds: list[LightGBMModel], n_sequences: int) -> None:
    given = batch(n_sequences, 11)
    together = ensemble_of("lgbm", folds)
    proba = together.predict_proba(given)
    assert proba.dtype == np.float32
    assert np.array_equal(proba, Average(folds).predict_proba(given))
    assert np.array_equal(together.predict_proba(given.imu_only()), Average(folds).predict_proba(given.imu_only()))


def test_one_at_a_time_is_as_all_at_once_bit_for_bit(folds: list[LightGBMModel]) -> None:
    given, together = batch(30, 12), Forest(folds)
    alone = np.concatenate([together.predict_proba(given.take(np.array([i]))) for i in range(30)])
    assert np.array_equal(alone, together.predict_proba(given))


def test_a_row_of_nothing_but_missing_values_is_answered(folds: list[LightGBMModel]) -> None:
    given = batch(1, 3)
    empty = replace(given, table=np.full_like(given.table, np.nan))
    assert np.array_equal(Forest(folds).predict_proba(empty), Average(folds).predict_proba(empty))


def test_no_sequence_gets_no_answer(folds: list[LightGBMModel]) -> None:
    assert Forest(folds).predict_proba(batch(0, 1)).shape == (0, 4)


def test_other_features_are_refused_even_after_the_right_ones(folds: list[LightGBMModel]) -> None:
    given, together = batch(2, 4), Forest(folds)
    together.predict_proba(given)
    fewer = replace(given, features=given.features[1:], table=given.table[:, 1:])
    with pytest.raises(DataError, match="1 features of the model are missing"):
        together.predict_proba(fewer)


def test_a_prepared_row_outlives_the_name_of_its_booster(folds: list[LightGBMModel]) -> None:
    text = folds[0].texts[0].decode("ascii")
    row = FastRow(lgb.Booster(model_str=text), n_features=N_FEATURES, n_classes=4)
    gc.collect()
    values = np.ascontiguousarray(batch(1, 5).table[0])
    assert np.array_equal(row.predict(values), folds[0].boosters[0].predict(values[None], num_threads=1)[0])


@pytest.mark.parametrize(
    "row",
    [
        np.zeros(N_FEATURES),
        np.zeros(N_FEATURES - 1, dtype=np.float32),
        np.zeros((1, N_FEATURES), dtype=np.float32),
        np.zeros(2 * N_FEATURES, dtype=np.float32)[::2],
    ],
)
def test_memory_that_is_no_row_never_reaches_the_library(folds: list[LightGBMModel], row: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected contiguous float32"):
        FastRow(folds[0].boosters[0], n_features=N_FEATURES, n_classes=4).predict(row)


def test_a_library_that_refuses_says_why(folds: list[LightGBMModel]) -> None:
    with pytest.raises(lgb.basic.LightGBMError, match=r"number of features|feature"):
        FastRow(folds[0].boosters[0], n_features=N_FEATURES + 3, n_classes=4).predict(
            np.zeros(N_FEATURES + 3, dtype=np.float32)
        )
