"""Inputs that change while a run uses them are refused, by this process and by the others that open them anew."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import Folder, current_digest, open_folder, pinned_file, sealed
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.execution.executor import Executor
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.models.lightgbm import model as lightgbm_model
from bfrbctl.prediction import submission
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.submission import open_input, predict
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests.raw_recordings import raw_frames, write_raw

CHANGED = r"{}: was changed while this run uses it \(digest [0-9a-f]{{64}}, [0-9a-f]{{64}} before\)"


def copied(folder: Folder, path: Path) -> Folder:
    shutil.copytree(folder.path, path)
    return open_folder(path)


def change(folder: Folder) -> None:
    """Let a folder be another one, sound and of the same files: all digests of files still fit."""
    manifest = json.loads((folder.path / "manifest.json").read_bytes())
    manifest["config"]["made"] = "anew"
    (folder.path / "manifest.json").write_bytes(encode_json(sealed(manifest)))
    assert open_folder(folder.path).sha256 != folder.sha256


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dataset_that_changes_while_features_are_computed_is_refused(
    dataset_folder: Folder, tmp_path: Path, workers: int
) -> None:
    dataset, done = copied(dataset_folder, tmp_path / "data"), []

    def after_the_first(n_frames: int) -> None:
        if not done:
            change(dataset)
        done.append(n_frames)

    config = FeatureConfig(families=("presence",))
    with (
        pytest.raises(ArtefactError, match=CHANGED.format(dataset.path)) as caught,
        open_output(tmp_path / "out", Job("features", {})) as output,
    ):
        if workers == 2:  # whose workers may open it before any file is done
            change(dataset)
        featurize(dataset, output, config, executor=Executor(workers), on_file=after_the_first)
    assert "run this again" in str(caught.value.hint)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert len(done) == (1 if workers == 1 else 0)


def test_features_that_change_before_a_worker_opens_them_are_refused(feature_folder: Folder, tmp_path: Path) -> None:
    features = copied(feature_folder, tmp_path / "features")
    config = lightgbm_model.Config(n_rounds=2, min_data_in_leaf=2)
    run = CrossValidation(features, "lgbm", lightgbm_model, config)
    change(features)
    with (
        pytest.raises(ArtefactError, match=CHANGED.format(features.path)),
        open_output(tmp_path / "m", Job("model", run.settings, (features.ref(),))) as output,
    ):
        list(cross_validate(run, output, executor=Executor(2)))


@pytest.mark.parametrize("which", ["data", "model"])
def test_what_changes_before_a_worker_predicts_is_refused(
    dataset_folder: Folder, model_folders: tuple[Folder, Folder], tmp_path: Path, which: str
) -> None:
    dataset, model = copied(dataset_folder, tmp_path / "data"), copied(model_folders[0], tmp_path / "model")
    predictor = Predictor.open(model.path)
    source = open_input(dataset.path, predictor, split="train")
    spec = model.pinned(), predictor.left_out
    change({"data": dataset, "model": model}[which])
    if which == "model":
        with pytest.raises(ArtefactError, match=CHANGED.format(model.path)):
            submission._predict_stored(0, source.stored[0], spec)
        return
    with (
        pytest.raises(ArtefactError, match=CHANGED.format(dataset.path)),
        open_output(tmp_path / "out", Job("predictions", {})) as output,
    ):
        predict(source, predictor, output, executor=Executor(2))


@pytest.mark.parametrize("workers", [1, 2])
def test_recordings_that_change_while_they_are_prepared_are_refused(tmp_path: Path, workers: int) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=3))
    splits, config = find_splits(raw), PrepareConfig(folds=2, rows_per_file=300)
    people = raw / "train_demographics.csv"

    def change_raw(_n_bytes: int) -> None:
        content = people.read_bytes()
        people.write_bytes(content[:-2] + (b"5" if content[-2:-1] != b"5" else b"6") + content[-1:])

    with (
        pytest.raises(DataError, match=r"train_demographics\.csv: changed while it was read"),
        open_output(tmp_path / "data", Job("dataset", as_mapping(config), split_refs(splits))) as output,
    ):
        prepare(splits, output, config, executor=Executor(workers), on_bytes=change_raw)
    assert not (tmp_path / "data").exists()


def test_a_raw_file_is_pinned_by_all_of_its_bytes_whenever_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "raw.csv"
    file.write_bytes(b"a" * 1000)
    first = pinned_file(file)
    assert current_digest(file) == first.sha256
    os.utime(file, ns=(1, 1))
    assert pinned_file(file) == first
    file.write_bytes(b"a" * 999 + b"b")
    assert pinned_file(file).sha256 == current_digest(file) != first.sha256
    file.unlink()
    assert current_digest(file) is None
    with pytest.raises(DataError, match=r"raw\.csv: cannot be read"):
        pinned_file(file)


def test_a_folder_that_is_not_sound_has_no_digest(dataset_folder: Folder, tmp_path: Path) -> None:
    folder = copied(dataset_folder, tmp_path / "data")
    assert current_digest(folder.path) == folder.sha256
    change(folder)
    assert current_digest(folder.path) == open_folder(folder.path).sha256
    (folder.path / "manifest.json").unlink()
    assert current_digest(folder.path) is None
