"""What --plan shows: time, memory and disk of a training, estimated from a few of its steps."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.cli import main
from bfrbctl.errors import UsageError
from bfrbctl.execution.cache import Cache
from bfrbctl.execution.executor import SEQUENTIAL, Executor
from bfrbctl.models.interface import model_kind
from bfrbctl.models.keras.learning.rehearsal import BATCHES, EPOCHS
from bfrbctl.models.lightgbm.rehearsal import ROUNDS
from bfrbctl.training import estimate as rehearsal
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from bfrbctl.training.estimate import Measured, estimate
from tests import toy_model
from tests.keras_batches import task as keras_task

TAKEN = Measured(
    read_s=3.0,
    start_s=5.0,
    prepare_s=2.0,
    step_s=0.5,
    finish_s=1.0,
    fold_bytes=100,
    kept_bytes=10,
    mapped_bytes=1000,
    memory_bytes=7,
)


def job(features: Folder, **settings: Any) -> CrossValidation:
    module = model_kind("lgbm")
    return CrossValidation(features, module, module.config_class(min_data_in_leaf=2, **settings))


@pytest.mark.parametrize(
    ("members", "at_once", "expected"),
    [
        (1, 0, 3 + 5 + 4 * (2 + 10 + 1)),  # read once, networks traced once
        (2, 0, 3 + 5 + 4 * (2 + 20 + 1)),
        (1, 2, 5 + 2 * (3 + 2 + 10 + 1)),  # two rounds of two folds, each of which reads for itself
        (1, 3, 5 + 2 * (3 + 2 + 10 + 1)),
        (2, 3, 5 + 3 * (3 + 2 + 10) + 2 * (3 + 2 + 1)),  # eight models in three rounds, then folds are put together
    ],
)
def test_seconds_are_scaled_up_by_what_runs_at_once(members: int, at_once: int, expected: float) -> None:
    assert rehearsal._seconds(TAKEN, 20, n_folds=4, members=members, at_once=at_once) == expected


def test_time_memory_and_disk_follow_from_what_was_measured(
    feature_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measure(*task: Any) -> tuple[Measured, float]:
        asked.append(task)
        return TAKEN, 0.0

    monkeypatch.setattr(rehearsal, "_measure", measure)
    found = estimate(job(feature_folder, n_rounds=20), SEQUENTIAL)
    assert [task[-1] for task in asked] == [0]
    assert found.seconds == pytest.approx(3 + 5 + 3 * (2 + 10 + 1), abs=0.5)
    assert (found.folder_bytes, found.disk_bytes, found.memory_bytes) == (300, 1330, 7)
    assert (found.n_folds, found.n_members, found.at_once, found.n_steps) == (3, 1, 1, 20)
    last = estimate(job(feature_folder, n_rounds=20, select="last"), SEQUENTIAL)
    assert last.disk_bytes == 1310, "of other folds, one at a time is kept"


def test_a_training_that_is_as_short_as_the_trial_has_the_size_of_the_estimate(
    feature_folder: Folder, tmp_path: Path
) -> None:
    run = job(feature_folder, n_rounds=ROUNDS - 2, seeds=2, modality_dropout=0.0, select="last")
    found = estimate(run, SEQUENTIAL)
    with open_output(tmp_path / "model", Job("model", run.settings)) as output:
        assert len(list(cross_validate(run, output))) == 3
    size = sum(path.stat().st_size for path in (tmp_path / "model").iterdir())
    # Manifest, metrics and history are not counted.
    assert 0.5 * size < found.folder_bytes < 2 * size
    assert found.disk_bytes > found.folder_bytes  # two seeds are kept apart until their fold is done
    choosing = estimate(replace(run, config=run.config.model_copy(update={"select": "other-folds"})), SEQUENTIAL)
    assert choosing.disk_bytes > 1.3 * found.disk_bytes  # all folds are kept whole until the rounds are chosen
    assert found.memory_bytes > 2**20
    assert 0 < found.seconds < 60


def test_several_processes_try_at_the_same_time(feature_folder: Folder) -> None:
    found = estimate(job(feature_folder, n_rounds=4), Executor(2))
    assert found.at_once == 2
    assert found.measured.step_s > 0
    assert found.memory_bytes > 2 * found.measured.memory_bytes


def test_what_cannot_be_tried_is_refused(feature_folder: Folder) -> None:
    with pytest.raises(UsageError, match="tries out this machine, not a cluster"):
        estimate(job(feature_folder), Executor(cluster=SimpleNamespace()))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a training of toy cannot be tried out"):
        estimate(CrossValidation(feature_folder, toy_model.KIND, toy_model.Config()), SEQUENTIAL)
    with pytest.raises(UsageError, match="no fold 9"):
        estimate(replace(job(feature_folder), folds=(9,)), SEQUENTIAL)


def test_a_network_is_tried_on_a_sample_and_its_epochs_are_those_of_all(tmp_path: Path) -> None:
    kind = model_kind("keras")
    assert kind.rehearse is not None
    config = kind.config_class(width=0.1, batch_size=4, seeds=2)
    rows: list[Any] = []
    job = keras_task(tmp_path, on_progress=rows.append)
    found = kind.rehearse(job, config)
    assert rows == []
    assert found.step_s > 0 and found.prepare_s > 0 and found.start_s > 0
    assert found.kept_bytes == (tmp_path / "keras-0.npz").stat().st_size
    assert np.isfinite(found.model.predict_proba(job.valid)).all()
    assert sum(name.endswith(".npz") for name in found.model.encode()) == 2
    assert found.model.summary["epochs"] == [EPOCHS]
    assert BATCHES * config.batch_size < job.train.n_sequences  # else nothing was left out


def test_of_a_network_whose_epochs_are_kept_the_disk_holds_all_of_them(tmp_path: Path) -> None:
    kind: Any = model_kind("keras")
    config = kind.config_class(width=0.1, batch_size=4, network="two-branch", select="other-folds")
    found = kind.rehearse(keras_task(tmp_path), config)
    checkpoint, epoch = ((tmp_path / name).stat().st_size for name in ("keras-0.npz", "keras-epoch-0001.npz"))
    assert found.kept_bytes == checkpoint + config.epochs * epoch
    assert set(found.model.encode()) == {"keras.json", "keras.npz"}


def test_mapped_bytes_are_counted_while_they_are_used(tmp_path: Path) -> None:
    cache = Cache(0, tmp_path)
    first = cache.zeros((10, 10), np.float32)
    second = cache.zeros((5, 10), np.float32)
    assert (cache.mapped, cache.most_mapped) == (600, 600)
    del first
    assert (cache.mapped, cache.most_mapped) == (200, 600)
    assert second.shape == (5, 10)


@pytest.mark.parametrize("options", [[], ["--workers", "2", "--seeds", "2"]])
def test_plan_prints_a_table_and_writes_nothing(
    feature_folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    words = ["bfrbctl", "train", "lgbm", str(feature_folder.path), str(tmp_path / "m"), "--set", "n_rounds=5", "--plan"]
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*words, *options, *more])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert (stop.value.code, err) == (0, "")
        assert not (tmp_path / "m").exists()
        if more:
            figures = json.loads(out)
            assert figures["n_tasks"] == (6 if options else 3)
            assert figures["seconds"] > 0 and figures["memory_bytes"] > 0 and figures["disk_free_bytes"] > 0
        else:
            assert [line.split()[0] for line in out.splitlines()[1:3]] == ["models", "time"]
            assert "which is not written" in out and "s a round, 5 a model" in out and "patience" not in out
