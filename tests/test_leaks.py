"""What a fold's labels may not reach: each test changes the labels of what is held out, and nothing may move."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble.assignment import assigned, joint_proba
from bfrbctl.ensemble.blending import blend
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.features.folder import read_features
from bfrbctl.inspection.views.calibration import nested_temperature
from bfrbctl.models.interface import FoldTask, model_kind
from bfrbctl.training.cross_validation import CrossValidation, fold_task
from bfrbctl.training.labelled import labelled_sequences
from tests.shuffled import ShuffledStudy, features_of

FOUR = {"Cheek - pinch skin": True, "Neck - scratch": True, "Wave hello": False, "Text on phone": False}
HELD = 1


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    study = ShuffledStudy(FOUR, n_subjects=6, n_each=16, n_folds=3, thermopile=True)
    return features_of(study, tmp_path_factory.mktemp("leaks") / "features", 0)


def lied(labels: np.ndarray, held: np.ndarray, n_classes: int) -> np.ndarray:
    """Every label of what is held out is another one."""
    return np.where(held, (labels + 1) % n_classes, labels)


def tree_task(features: Folder, scratch: Path, config: Any, **changes: Any) -> FoldTask:
    module = model_kind("lgbm")
    scratch.mkdir()
    index, batch = read_features(features, parts=module.needs)
    job = CrossValidation(features, module, config)
    data = labelled_sequences(features, index, "gesture")
    task = fold_task(job, HELD, data=data, batch=batch, scratch=scratch, on_progress=lambda _: None)
    return replace(task, keep_steps=False, **changes)


def model_text(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that predictions are made by: all but the one that holds the scores."""
    return {name: content for name, content in files.items() if name != "lgbm.json"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"class_weight": "balanced"},
        {"top_features": 5},
        {"modality_dropout": 1.0},
        {"seeds": 2, "max_bin": 15},
        {"select_by": "logloss"},
    ],
)
def test_trees_do_not_depend_on_what_is_held_out(features: Folder, tmp_path: Path, settings: dict[str, Any]) -> None:
    module = model_kind("lgbm")
    config = module.config_class(n_rounds=12, min_data_in_leaf=5, feature_fraction=0.5, threads=1, **settings)
    task = tree_task(features, tmp_path / "a", config)
    held_out = task.valid
    strange = replace(held_out, table=np.full_like(held_out.table, 1e6))
    changes = {
        "labels": {"valid_labels": lied(task.valid_labels, np.ones(len(task.valid_labels), bool), 4)},
        "values": {"valid": strange},
    }
    model = module.fit(task, config)
    for name, change in changes.items():
        other = module.fit(tree_task(features, tmp_path / name, config, **change), config)
        assert model_text(other.encode()) == model_text(model.encode())
        assert np.array_equal(other.predict_proba(held_out), model.predict_proba(held_out))


def relabelled(folder: Folder, path: Path) -> Folder:
    """The same model, but for what its table says of the gestures of one fold."""
    classes, rows = folder.content["classes"], folder.read_parquet(oof.OOF)
    labels = oof.class_positions(rows["gesture"].to_list(), classes)
    held = (rows["fold"] == HELD).to_numpy()
    gestures = np.array(classes)[lied(labels, held, len(classes))]
    with open_output(path, Job("model", {})) as output:
        files = {name: folder.read(name) for name in folder.files}
        output.publish("all", {**files, oof.OOF: rows.with_columns(pl.Series("gesture", gestures))})
        return output.finish(folder.content)


@pytest.mark.parametrize("decode", ["argmax", "threshold", "auto"])
@pytest.mark.parametrize("pooling", ["arithmetic", "logarithmic"])
def test_a_blend_predicts_a_fold_without_its_labels(
    model_folders: tuple[Folder, Folder], tmp_path: Path, decode: Any, pooling: str
) -> None:
    others = tuple(relabelled(folder, tmp_path / folder.path.name) for folder in model_folders)
    predictions_of_fold = []
    for name, members in (("blend", model_folders), ("other", others)):
        with open_output(tmp_path / name, Job("blend", {})) as output:
            made = blend(members, output, BlendConfig(decode=decode, pooling=pooling))
        predictions_of_fold.append(made.read_parquet(oof.OOF).filter(pl.col("fold") == HELD).drop("gesture"))
    assert predictions_of_fold[0].equals(predictions_of_fold[1])


def test_an_assignment_does_not_use_labels() -> None:
    part, joint, conditional = predictions()
    other = OofScenario(part.keys, lied(part.truth, np.ones(len(part.truth), bool), 2), part.proba)
    joint_probas = joint_proba(part.proba, conditional, joint)
    assert np.array_equal(assigned(part, joint_probas, joint, seed=1), assigned(other, joint_probas, joint, seed=1))


def test_the_temperature_of_a_fold_does_not_depend_on_its_labels() -> None:
    part, _, _ = predictions()
    held = part.folds == HELD
    other = OofScenario(part.keys, lied(part.truth, held, 2), part.proba)
    (cooled, temperatures), (again, others) = (nested_temperature(each, 1e-4) for each in (part, other))
    assert np.array_equal(cooled[held], again[held])
    assert temperatures[HELD] == others[HELD] and temperatures != others


def predictions() -> tuple[OofScenario, ClassSpace, np.ndarray]:
    """Random predictions of two gestures in two postures each."""
    rng = np.random.default_rng(0)
    subjects = np.arange(48) % 6
    truth = rng.integers(0, 2, 48)
    logits = np.eye(2)[truth] + rng.normal(size=(48, 2))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    keys = pl.DataFrame(
        {
            "sequence_id": [f"q{number:02d}" for number in range(48)],
            "subject": [f"s{number}" for number in subjects],
            "fold": subjects % 3,
            "gesture": [f"g{label}" for label in truth],
        }
    )
    first = rng.random((48, 2))
    conditional = np.stack([first[:, 0], 1 - first[:, 0], first[:, 1], 1 - first[:, 1]], axis=1).astype(np.float32)
    joint = ClassSpace.of(("g0", "g1"), (True, False)).refined(("g0 | a", "g0 | b", "g1 | a", "g1 | b"), (0, 0, 1, 1))
    return OofScenario(keys, truth.astype(np.int64), proba.astype(np.float32)), joint, conditional
