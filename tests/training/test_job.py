"""A cross-validation as other processes get it."""

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.errors import DataError
from bfrbctl.execution.executor import Executor
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import model_kind
from bfrbctl.training.job import CrossValidation, PortableJob
from bfrbctl.training.labelled import labelled_sequences
from tests import toy_model


def job_of(features: Folder, **options: Any) -> CrossValidation:
    kind = model_kind("lgbm")
    return CrossValidation(features, kind, kind.config_class(n_rounds=7, seeds=2), **options)


def test_another_process_opens_the_same_job(feature_folder: Folder) -> None:
    job = job_of(feature_folder, seed=3, labels="joint", cache_bytes=10**6, keep_steps=True)
    opened = pickle.loads(pickle.dumps(PortableJob.of(job))).open()
    assert (opened.features.path, opened.features.sha256) == (job.features.path.absolute(), job.features.sha256)
    assert opened.kind is job.kind
    assert (opened.config, opened.settings) == (job.config, job.settings)
    assert (opened.seed, opened.labels, opened.cache_bytes, opened.keep_steps) == (3, "joint", 10**6, True)


def test_tasks_at_once_share_threads_and_memory(feature_folder: Folder) -> None:
    whole = PortableJob.of(job_of(feature_folder, cache_bytes=1000))
    executor = Executor(2)
    shared = whole.shared_out(executor, 4)
    assert (shared.settings["threads"], shared.cache_bytes) == (executor.threads(4), 500)
    assert (whole.settings["threads"], whole.cache_bytes) == (0, 1000)
    unbounded = PortableJob.of(job_of(feature_folder)).shared_out(executor, 4)
    assert unbounded.cache_bytes is None


def test_the_memory_of_a_cluster_is_not_divided_and_a_number_of_threads_stays(feature_folder: Folder) -> None:
    kind = model_kind("lgbm")
    job = CrossValidation(feature_folder, kind, kind.config_class(threads=3), cache_bytes=1000)
    executor: Any = SimpleNamespace(cluster=object(), threads=lambda n_tasks: 1, at_once=lambda n_tasks: 4)
    shared = PortableJob.of(job).shared_out(executor, 4)
    assert (shared.settings["threads"], shared.cache_bytes) == (3, 1000)


@pytest.mark.parametrize("labels", ["gesture", "joint"])
def test_every_sequence_has_a_class_of_its_gesture(feature_folder: Folder, labels: Any) -> None:
    index, _ = read_features(feature_folder, parts=())
    data = labelled_sequences(feature_folder, index, labels)
    space = data.space
    assert space.is_joint == (labels == "joint")
    assert [space.gestures[space.gesture_of[label]] for label in data.labels] == index["gesture"].to_list()
    held = np.stack([data.held_out(fold) for fold in range(3)])
    assert (held.sum(axis=0) == 1).all()


def test_joint_labels_of_unknown_postures_are_refused_before_anything_is_trained(feature_folder: Folder) -> None:
    index, _ = read_features(feature_folder, parts=())
    unknown = index.with_columns(orientation=None)
    with pytest.raises(DataError, match="have no orientation, which joint labels need"):
        labelled_sequences(feature_folder, unknown, "joint")


def test_a_job_is_known_by_the_name_of_its_kind(feature_folder: Folder) -> None:
    job = CrossValidation(feature_folder, toy_model.KIND, toy_model.Config())
    assert PortableJob.of(job).kind == job.settings["model"] == "toy"
