from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfrbctl.errors import DataError, UsageError
from bfrbctl.evaluation.metrics import score_proba
from bfrbctl.models.interface import model_kind
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.model import LightGBMModel, fit, load
from tests.tree_batches import CLASSES, N_FEATURES, TARGETS, batch, labels, quick, task, without_seconds


@pytest.fixture(scope="module")
def model() -> LightGBMModel:
    return fit(task(), quick())


def test_the_kind_is_found_by_name() -> None:
    kind = model_kind("lgbm")
    assert (kind.name, kind.config_class, kind.needs) == ("lgbm", Config, {"table"})


def test_rows_of_proba_sum_to_one(model: LightGBMModel) -> None:
    proba = model.predict_proba(task().valid)
    assert proba.dtype == np.float32
    assert proba.shape == (70, len(CLASSES))
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-6


def test_a_model_learns_what_can_be_learned(model: LightGBMModel) -> None:
    assert score_proba(model.predict_proba(task().valid), labels(70), TARGETS).score > 0.7


def test_one_sequence_alone_gets_the_same_bits(model: LightGBMModel) -> None:
    valid = batch(150, 3)
    together = model.predict_proba(valid)
    for place in range(0, 150, 7):
        assert np.array_equal(model.predict_proba(valid.take(np.array([place])))[0], together[place])


def test_no_sequences_give_no_rows(model: LightGBMModel) -> None:
    assert model.predict_proba(batch(0, 1)).shape == (0, len(CLASSES))


def test_the_same_task_gives_the_same_bytes(model: LightGBMModel) -> None:
    assert fit(task(), quick()).encode() == model.encode()


def test_the_number_of_threads_does_not_matter(model: LightGBMModel) -> None:
    again = fit(task(), quick(threads=2))
    assert again.encode() == model.encode()
    assert without_seconds(again.history) == without_seconds(model.history)


def test_seed_and_fold_change_the_model(model: LightGBMModel) -> None:
    assert fit(task(seed=6), quick()).encode() != model.encode()
    assert fit(task(fold=1), quick()).encode()["lgbm.txt"] != model.encode()["lgbm.txt"]


def test_a_loaded_model_predicts_the_same_and_encodes_the_same(model: LightGBMModel) -> None:
    loaded = load(model.encode(), classes=CLASSES)
    assert np.array_equal(loaded.predict_proba(task().valid), model.predict_proba(task().valid))
    assert loaded.encode() == model.encode()
    assert loaded.summary == model.summary


def test_training_leaves_its_input_alone() -> None:
    given_task = task()
    before = given_task.train.table.copy(), given_task.valid.table.copy()
    fit(given_task, quick())
    assert np.array_equal(given_task.train.table, before[0], equal_nan=True)
    assert np.array_equal(given_task.valid.table, before[1], equal_nan=True)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    fit(task(train=batch(12, 1), train_labels=labels(12)), quick())
    assert capfd.readouterr() == ("", "")


# seeds and features


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    trained = fit(task(scratch=tmp_path), quick(seeds=3))
    files = trained.encode()
    assert sorted(files) == ["lgbm-1.txt", "lgbm-2.txt", "lgbm-3.txt", "lgbm.json"]
    assert len(set(files.values())) == 4
    each = [booster.predict(task().valid.table) for booster in trained.boosters]
    assert np.allclose(trained.predict_proba(task().valid), np.mean(each, axis=0), atol=1e-7)
    assert load(files, classes=CLASSES).encode() == files


def test_only_the_strongest_features_are_used() -> None:
    trained = fit(task(), quick(top_features=4))
    importance = trained.importance()
    assert trained.summary["n_features"] == 4
    assert np.count_nonzero(importance.gain) <= 4
    assert importance.split.sum() > 0
    loaded = load(trained.encode(), classes=CLASSES)
    assert np.array_equal(loaded.predict_proba(task().valid), trained.predict_proba(task().valid))


def test_importance_counts_splits_and_gain(model: LightGBMModel) -> None:
    importance = model.importance()
    assert importance.features == tuple(column.name for column in task().train.features)
    assert importance.split.tolist() == model.boosters[0].feature_importance("split").tolist()
    assert np.allclose(importance.gain, model.boosters[0].feature_importance("gain"), rtol=1e-6)


def test_a_missing_column_is_named(model: LightGBMModel) -> None:
    valid = task().valid
    less = replace(valid, features=valid.features[1:], table=valid.table[:, 1:])
    with pytest.raises(DataError, match=r"1 features of the model are missing: feature \[0\]"):
        model.predict_proba(less)


def test_an_extra_column_is_named(model: LightGBMModel) -> None:
    valid = task().valid
    more = replace(
        valid,
        features=(*valid.features, replace(valid.features[0], name="new")),
        table=np.concatenate([valid.table, valid.table[:, :1]], axis=1),
    )
    with pytest.raises(DataError, match="does not know: new"):
        model.predict_proba(more)


def test_columns_in_another_order_are_refused(model: LightGBMModel) -> None:
    valid = task().valid
    with pytest.raises(DataError, match=r"feature 0 is 'feature \[11\] = µ', the model expects 'feature \[0\] = µ'"):
        model.predict_proba(replace(valid, features=valid.features[::-1]))


# settings


@pytest.mark.parametrize(
    ("settings_", "match"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"modality_dropout": 1.5}, "modality_dropout is 1.5, expected a number from 0 to 1"),
        ({"select": "others"}, "did you mean other-folds"),
        ({"select_by": "loss"}, "did you mean logloss"),
        ({"scenario": "both"}, "expected mean, all or imu"),
        ({"class_weight": "even"}, "expected balanced, none, or weights"),
        ({"class_weight": {"Wave hello": -1.0}}, "expected a number from 0 on"),
        ({"params": {"feature_fractoin": 0.3}}, "did you mean feature_fraction"),
        ({"params": {"selectby": 3}}, "did you mean select_by"),
        ({"params": {"eta": 0.3}}, "set learning_rate instead"),
        ({"params": {"early_stopping_rounds": 3}}, "trained for n_rounds, and `select` says how many are kept"),
        ({"params": {"objective": "binary"}}, "'objective' cannot be set"),
        ({"params": {"linear_tree": True}}, "constant leaves"),
        ({"params": {"cat_smooth": "3 num_class=5"}}, "without spaces"),
        ({"params": {"cegb_tradeoff": "much"}}, "LightGBM refuses"),
        ({"params": {"boosting": "best"}}, "LightGBM refuses"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings_: Mapping[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        quick(**settings_)


def test_settings_reach_lightgbm() -> None:
    assert Config(max_bin=17).lightgbm()["max_bin"] == 17
    assert Config(params={"top_rate": "0.3"}).lightgbm()["top_rate"] == "0.3"


def test_parameters_with_a_value_a_feature_meet_the_data() -> None:
    constraints = ",".join(["0"] * N_FEATURES)
    assert fit(task(), quick(params={"monotone_constraints": constraints})).trees[0].n_rounds > 0
    assert fit(task(), quick(params={"monotone_constraints": [0] * N_FEATURES})).trees[0].n_rounds > 0
    with pytest.raises(UsageError, match="LightGBM stopped"):
        fit(task(), quick(params={"monotone_constraints": "0,1"}))


@pytest.mark.parametrize("boosting", ["dart", "rf"])
def test_other_kinds_of_boosting_can_be_saved_and_loaded(boosting: str) -> None:
    config = quick(params={"boosting": boosting}, bagging_freq=1, bagging_fraction=0.6)
    trained = fit(task(), config)
    proba = trained.predict_proba(task().valid)
    assert np.array_equal(load(trained.encode(), classes=CLASSES).predict_proba(task().valid), proba)
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-5
    assert trained.summary["rounds"] == [12]
    assert trained.history[-1]["score_all"] == pytest.approx(trained.summary["score_all"], abs=0.2)


@pytest.mark.parametrize("name", ["boosting", "boosting_type", "boost"])
@pytest.mark.parametrize("value", ["dart", "DART"])
def test_no_round_of_dart_can_be_cut_off(name: str, value: str) -> None:
    assert "changes earlier trees" in quick(params={name: value}).why_last
    assert quick(params={name: "rf"}, bagging_freq=1, bagging_fraction=0.6).why_last == ""
