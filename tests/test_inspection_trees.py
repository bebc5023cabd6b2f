from typing import Any

import numpy as np
import pytest

from bfrbctl.errors import DataError, UsageError
from bfrbctl.feature_folder import read_features
from bfrbctl.folders import Folder, open_folder
from bfrbctl.inspection import View, inspect, options_of
from bfrbctl.models import kind_module
from bfrbctl.outputs import Job, open_output
from bfrbctl.training import CrossValidation, cross_validate


@pytest.fixture(scope="module")
def trees(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    kind = kind_module("lgbm")
    config = kind.Config(n_rounds=6, min_data_in_leaf=2, seeds=2)
    run = CrossValidation(feature_folder, "lgbm", kind, config)
    path = tmp_path_factory.mktemp("trees") / "lgbm"
    with open_output(path, Job("model", {"model": "lgbm"}, (feature_folder.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path)


def shares(view: View, title: str) -> dict[str, float]:
    table = next(table for table in view.tables if table.title == title)
    place = next(i for i, name in enumerate(table.columns) if name.endswith(" share"))
    return {row[0]: row[place] for row in table.rows}


def test_importance_shares_sum_to_one_by_feature_family_and_modality(trees: Folder) -> None:
    view = inspect("feature-importance", trees.path)
    for group in ("features", "family", "modality"):
        assert sum(shares(view, f"{group} by gain").values()) == pytest.approx(1.0)
    for row in next(table for table in view.tables if table.title == "features by gain").rows:
        assert row[6] <= row[3] <= row[7]
    assert view.facts["tree models"] == 3


def test_shap_values_are_of_what_the_fold_held_out_and_sum_to_one(trees: Folder, feature_folder: Folder) -> None:
    options = options_of("feature-importance", features=feature_folder.path, shap=True, sample=10)
    view = inspect("feature-importance", trees.path, options)
    found = shares(view, "features by SHAP")
    assert sum(found.values()) == pytest.approx(1.0)
    gain = shares(view, "features by gain")
    assert all(gain[name] > 0 for name, share in found.items() if share > 0)
    assert view.as_json() == inspect("feature-importance", trees.path, options).as_json()


def test_shap_needs_the_feature_folder(trees: Folder, dataset_folder: Folder) -> None:
    for features in (None, dataset_folder.path):
        with pytest.raises(UsageError, match="needs the sequence table"):
            inspect("feature-importance", trees.path, options_of("feature-importance", features=features, shap=True))


def test_contributions_and_expectation_sum_to_the_raw_score(trees: Folder, feature_folder: Folder) -> None:
    classes = tuple(trees.content["classes"])
    files = {name.removeprefix("fold-0."): trees.read(name) for name in trees.names(r"fold-0\..*")}
    model: Any = kind_module("lgbm").load(files, classes=classes)
    _, batch = read_features(feature_folder, parts=frozenset({"table"}))
    told = model.contributions(batch)
    assert told.shape == (48, len(model.features), 4)
    raw = np.mean([booster.predict(batch.table, raw_score=True) for booster in model.boosters], axis=0)
    expectation = raw - told.sum(axis=1)
    assert np.ptp(expectation, axis=0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert model.contributions(batch.take(np.zeros(0, dtype=np.int64))).shape == (0, len(model.features), 4)
    with pytest.raises(DataError, match="features of the model are missing"):
        model.contributions(read_features(feature_folder, parts=frozenset({"frames"}))[1])


def test_a_model_of_trees_has_curves_and_seconds(trees: Folder) -> None:
    view = inspect("training", trees.path)
    assert len(view.tables[0].rows) == 6  # 3 folds, 2 seeds
    assert all(row[7] > 0 for row in view.tables[0].rows)
    assert len(view.figures[0].series) == 6  # type: ignore[union-attr]  # 3 folds, 2 scenarios, the first seed
