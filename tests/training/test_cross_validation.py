import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.execution.executor import Executor
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import kind_module
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests import toy_model
from tests.conftest import train_toy


def test_oof_covers_each_sequence_once_a_scenario(feature_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    index, _ = read_features(feature_folder, parts=())
    table = model_folders[0].read_parquet(oof.OOF)
    for scenario in ("all", "imu"):
        rows = table.filter(pl.col("scenario") == scenario)
        assert rows["sequence_id"].sort().to_list() == index["sequence_id"].sort().to_list()
        joined = rows.join(index.select("sequence_id", pl.col("fold").alias("held")), on="sequence_id")
        assert (joined["fold"] == joined["held"]).all()


def test_oof_of_a_fold_comes_from_the_other_folds(feature_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    index, batch = read_features(feature_folder, parts={"table"})
    part = oof.read_oof(model_folders[0])["all"]
    position = {name: row for row, name in enumerate(index["sequence_id"])}
    for fold in range(3):
        files = {"toy.npz": model_folders[0].read(f"fold-{fold}.toy.npz")}
        model = toy_model.load(files, classes=())
        held = np.flatnonzero(part.folds == fold)
        rows = np.array([position[part.keys["sequence_id"][int(row)]] for row in held])
        assert np.array_equal(model.predict_proba(batch.take(rows)), part.proba[held])


def test_a_killed_training_continues_to_the_same_model(feature_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(feature_folder, tmp_path / "m", config=toy_model.Config(stop_at_fold=1))
    resumed = train_toy(feature_folder, tmp_path / "m", resume=True)
    whole = train_toy(feature_folder, tmp_path / "whole")
    assert resumed.files["oof.parquet"] == whole.files["oof.parquet"]
    assert resumed.files["fold-2.toy.npz"] == whole.files["fold-2.toy.npz"]


def test_one_fold_alone_can_be_trained(feature_folder: Folder, tmp_path: Path) -> None:
    run = CrossValidation(feature_folder, "toy", toy_model, toy_model.Config(), folds=(1,))
    with open_output(tmp_path / "m", Job("model", {})) as output:
        results = list(cross_validate(run, output))
    assert [result.fold for result in results] == [1]
    run = CrossValidation(feature_folder, "toy", toy_model, toy_model.Config(), folds=(7,))
    with pytest.raises(UsageError, match="no fold 7"), open_output(tmp_path / "n", Job("model", {})) as output:
        list(cross_validate(run, output))


def test_metrics_and_history_are_written(model_folders: tuple[Folder, Folder]) -> None:
    told = model_folders[0].read_json("metrics.json")
    assert 0.5 < told["score"] <= 1
    assert [fold["fold"] for fold in told["folds"]] == [0, 1, 2]
    assert set(told["scenarios"]["imu"]["f1"]) == {"Cheek - pinch skin", "Neck - scratch", "non_target"}
    lines = model_folders[0].read("history.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 1]
    table = list(csv.DictReader(model_folders[0].read("history.csv").decode().splitlines()))
    numbers = [{name: json.loads(value) for name, value in row.items()} for row in table]
    assert numbers == [json.loads(line) for line in lines]
    assert sum(model_folders[0].content["prior"]) == pytest.approx(1)


def test_an_unknown_kind_of_model_is_refused() -> None:
    with pytest.raises(UsageError, match="no model of kind 'forest'"):
        kind_module("forest")


def test_trees_need_the_sequence_table(dataset_folder: Folder, tmp_path: Path) -> None:
    with open_output(tmp_path / "f", Job("features", {})) as output:
        folder = featurize(dataset_folder, output, FeatureConfig(families=("presence", "motion")), table=False)
    with pytest.raises(ArtefactError, match="has no sequence table"):
        read_features(folder, parts={"table"})


def test_nothing_labelled_cannot_be_trained(
    feature_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, batch = read_features(feature_folder, parts={"table"})
    empty = (index[:0], batch.take(np.zeros(0, dtype=np.int64)))
    monkeypatch.setattr("bfrbctl.training.cross_validation.read_features", lambda *_, **__: empty)
    with pytest.raises(DataError, match="has no labelled sequence"):
        train_toy(feature_folder, tmp_path / "m")


def table_of(**columns: list[object]) -> pl.DataFrame:
    base: dict[str, list[object]] = {
        "sequence_id": ["a", "b", "a", "b"],
        "subject": ["s", "t", "s", "t"],
        "fold": [0, 1, 0, 1],
        "scenario": ["all", "all", "imu", "imu"],
        "gesture": ["x", "y", "x", "y"],
        "p_0": [1.0, 0.0, 0.5, 0.25],
        "p_1": [0.0, 1.0, 0.5, 0.75],
    }
    return pl.DataFrame({**base, **columns})


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"sequence_id": ["a", "a", "a", "b"]}, "there twice in scenario all"),
        ({"sequence_id": ["a", "b", "a", "c"]}, "do not have the same sequences"),
        ({"gesture": ["x", "z", "x", "y"]}, "gesture z is not among its classes"),
        ({"p_0": [float("nan"), 0.0, 0.5, 0.25]}, "not finite or do not sum to 1"),
        ({"p_0": [0.5, 0.0, 0.5, 0.25]}, "not finite or do not sum to 1"),
        ({"p_0": [2.0, 0.0, 0.5, 0.25], "p_1": [-1.0, 1.0, 0.5, 0.75]}, "not finite or do not sum to 1"),
        ({"scenario": ["all", "all", "all2", "all2"]}, "do not have the same sequences"),
    ],
)
def test_an_oof_table_that_cannot_be_is_refused(columns: dict[str, list[object]], match: str) -> None:
    assert set(oof.split_scenarios(table_of(), ["x", "y"])) == {"all", "imu"}
    with pytest.raises(ArtefactError, match=match):
        oof.split_scenarios(table_of(**columns), ["x", "y"])


def test_features_do_not_depend_on_workers_or_files(dataset_folder: Folder, tmp_path: Path) -> None:
    config = FeatureConfig(families=("presence", "motion", "moments"))
    made = []
    for workers in (1, 2):
        with open_output(tmp_path / f"f{workers}", Job("features", {})) as output:
            made.append(featurize(dataset_folder, output, config, executor=Executor(workers)))
    assert made[0].files == made[1].files
