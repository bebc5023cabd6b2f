from dataclasses import replace

import numpy as np
import pytest

from bfrbctl.errors import DataError
from bfrbctl.models.interface import Average, model_kind
from bfrbctl.models.lightgbm.model import SMALL_BATCH, Forest, LightGBMModel, fit
from tests.tree_batches import batch, quick, task


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[LightGBMModel]:
    """Folds that differ in everything a fold may: trees, number of boosters, features used."""
    return [
        fit(task(), quick()),
        fit(task(seed=6, scratch=tmp_path_factory.mktemp("scratch")), quick(seeds=2)),
        fit(task(seed=7), quick(top_features=5)),
    ]


@pytest.mark.parametrize("n_sequences", [1, 2, 40, SMALL_BATCH, SMALL_BATCH + 1, 100])
def test_the_prediction_is_the_average_of_the_folds_bit_for_bit(folds: list[LightGBMModel], n_sequences: int) -> None:
    rows = batch(n_sequences, 11)
    together = model_kind("lgbm").ensemble(folds)
    proba = together.predict_proba(rows)
    assert proba.dtype == np.float32
    assert np.array_equal(proba, Average(folds).predict_proba(rows))
    assert np.array_equal(together.predict_proba(rows.imu_only()), Average(folds).predict_proba(rows.imu_only()))


def test_one_at_a_time_is_as_all_at_once_bit_for_bit(folds: list[LightGBMModel]) -> None:
    rows, together = batch(30, 12), Forest(folds)
    alone = np.concatenate([together.predict_proba(rows.take(np.array([i]))) for i in range(30)])
    assert np.array_equal(alone, together.predict_proba(rows))


def test_a_row_of_nothing_but_missing_values_gets_a_prediction(folds: list[LightGBMModel]) -> None:
    rows = batch(1, 3)
    empty = replace(rows, table=np.full_like(rows.table, np.nan))
    assert np.array_equal(Forest(folds).predict_proba(empty), Average(folds).predict_proba(empty))


def test_no_sequence_gets_no_prediction(folds: list[LightGBMModel]) -> None:
    assert Forest(folds).predict_proba(batch(0, 1)).shape == (0, 4)


def test_other_features_are_refused_even_after_the_right_ones(folds: list[LightGBMModel]) -> None:
    rows, together = batch(2, 4), Forest(folds)
    together.predict_proba(rows)
    fewer = replace(rows, features=rows.features[1:], table=rows.table[:, 1:])
    with pytest.raises(DataError, match="1 features of the model are missing"):
        together.predict_proba(fewer)
