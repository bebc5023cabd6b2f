"""Members of folds as tasks of their own: the same model as alone, no matter which process trains them or dies."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.evaluation.oof import read_oof
from bfrbctl.execution.executor import Executor
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.models.interface import HistoryRow, model_kind
from bfrbctl.models.keras import model as keras_model
from bfrbctl.models.lightgbm import model as lightgbm_model
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from bfrbctl.training.tasks import Rows, TaskQueue
from tests import toy_model
from tests.keras_batches import task as keras_task
from tests.tree_batches import quick, task, without_seconds

# Bounds of bins are drawn, so that a member that binned by its own seed would be another one.
TREES = lightgbm_model.Config(
    n_rounds=8,
    min_data_in_leaf=2,
    log_every=2,
    seeds=2,
    top_features=12,
    params={"bin_construct_sample_cnt": 40},
)
FOLDS = (0, 2)


def train(
    features: Folder,
    path: Path,
    executor: Executor,
    *,
    config: Any = TREES,
    resume: bool = False,
    on_row: Callable[[HistoryRow], None] = lambda _: None,
) -> tuple[Folder, list[HistoryRow]]:
    """Train two folds, and give the model and the rows of progress."""
    kind = model_kind("keras" if isinstance(config, keras_model.Config) else "lgbm")
    run = CrossValidation(features, kind, config, FOLDS)
    rows: list[HistoryRow] = []

    def note(row: HistoryRow) -> None:
        rows.append(row)
        on_row(row)

    with open_output(path, Job("model", run.settings, (features.ref(),)), resume=resume) as output:
        for _ in cross_validate(run, output, executor=executor, on_progress=note):
            pass
    return open_folder(path), rows


def contents(folder: Folder) -> dict[str, object]:
    """All that a model folder holds, but for the seconds of its history."""
    files: dict[str, object] = {name: entry for name, entry in folder.files.items() if not name.startswith("history.")}
    lines = folder.read("history.jsonl").decode().splitlines()
    return {**files, "history": without_seconds([json.loads(line) for line in lines])}


def by_member(rows: Sequence[HistoryRow]) -> list[tuple[int, int, int]]:
    return sorted((int(row["fold"]), int(row["seed"]), int(row["step"])) for row in rows)


class Killer:
    """Kills the workers of this process, at the first row that it gets."""

    def __init__(self) -> None:
        self.killed: list[psutil.Process] = []

    def __call__(self, row: HistoryRow) -> None:
        if not self.killed:
            children = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
            self.killed = [one for one in children if "popen_loky" in " ".join(one.cmdline())]
            for one in self.killed:
                one.kill()


@pytest.fixture(scope="module")
def alone(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[HistoryRow]]:
    """The model that one process makes, fold after fold and seed after seed."""
    return train(feature_folder, tmp_path_factory.mktemp("alone") / "m", Executor(1))


def test_members_trained_at_once_give_the_same_model(
    feature_folder: Folder, alone: tuple[Folder, list[HistoryRow]], tmp_path: Path
) -> None:
    together, rows = train(feature_folder, tmp_path / "m", Executor(2))
    assert contents(together) == contents(alone[0])
    assert by_member(rows) == by_member(alone[1])
    assert {member[:2] for member in by_member(rows)} == {(0, 0), (0, 1), (2, 0), (2, 1)}
    assert list((tmp_path / "m").glob("part-*")) == []


def test_a_worker_killed_in_a_member_is_replaced(
    feature_folder: Folder, alone: tuple[Folder, list[HistoryRow]], tmp_path: Path
) -> None:
    killer = Killer()
    mended, _ = train(feature_folder, tmp_path / "m", Executor(2), on_row=killer)
    assert killer.killed
    assert contents(mended) == contents(alone[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_resume_keeps_finished_members(
    feature_folder: Folder, alone: tuple[Folder, list[HistoryRow]], tmp_path: Path, workers: int
) -> None:
    def stop(row: HistoryRow) -> None:
        if row["seed"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(feature_folder, tmp_path / "m", Executor(1), on_row=stop)
    left = sorted(path.name for path in (tmp_path / "m").glob("part-scratch-*/*"))
    assert left == ["lgbm-0.json", "progress.jsonl"]
    resumed, rows = train(feature_folder, tmp_path / "m", Executor(workers), resume=True)
    assert contents(resumed) == contents(alone[0])
    assert {member[:2] for member in by_member(rows)} == {(0, 1), (2, 0), (2, 1)}


def test_members_left_by_others_are_put_together(tmp_path: Path) -> None:
    config = quick(seeds=3, top_features=8, params={"bin_construct_sample_cnt": 50})
    (tmp_path / "alone").mkdir()
    expected = lightgbm_model.fit(task(scratch=tmp_path / "alone"), config)
    rows: list[HistoryRow] = []
    shared = task(scratch=tmp_path, on_progress=rows.append)
    for member in (2, 0, 1):
        lightgbm_model.fit_member(shared, config.model_copy(update={"threads": 2}), member)
    rows.clear()
    found = lightgbm_model.fit(shared, config)
    assert rows == []
    assert found.encode() == expected.encode()
    assert without_seconds(found.history) == without_seconds(expected.history)


def test_members_of_another_task_are_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightgbm_model.fit_member(task(scratch=tmp_path), quick(seeds=2), 0)
    table = task().train.table.copy()
    table[3, 4] += 1
    others = [
        (task(scratch=tmp_path, seed=6), quick(seeds=2)),
        (task(scratch=tmp_path, train=replace(task().train, table=table)), quick(seeds=2)),
        (task(scratch=tmp_path), quick(seeds=2, num_leaves=6)),
    ]
    for other, config in others:
        rows: list[HistoryRow] = []
        lightgbm_model.fit_member(replace(other, on_progress=rows.append), config, 0)
        assert rows
    monkeypatch.setattr(lgb, "__version__", "0")
    lightgbm_model.fit_member(task(scratch=tmp_path, on_progress=rows.append), quick(seeds=2, num_leaves=6), 0)
    assert [row["step"] for row in rows].count(1) == 2


@pytest.mark.parametrize("damage", ["half", "another number", "no object"])
def test_a_damaged_member_is_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    expected = lightgbm_model.fit(task(scratch=tmp_path), quick(seeds=2))
    path = tmp_path / "lgbm-1.json"
    content = path.read_bytes()
    kept = json.loads(content)
    damaged = {
        "half": content[: len(content) // 2],
        "another number": json.dumps({**kept, "text": kept["text"].replace("1", "2", 1)}).encode(),
        "no object": b"[]",
    }
    path.write_bytes(damaged[damage])
    rows: list[HistoryRow] = []
    found = lightgbm_model.fit(task(scratch=tmp_path, on_progress=rows.append), quick(seeds=2))
    assert {row["seed"] for row in rows} == {1}
    assert found.encode() == expected.encode()
    assert "lgbm-1.json: the checkpoint is damaged" in caplog.text


def test_folds_are_put_together_as_soon_as_their_members_are_there() -> None:
    queue = TaskQueue((3, 5), 2)
    drawn = iter(queue)
    assert [next(drawn) for _ in range(5)] == [(3, 0), (3, 1), (5, 0), (5, 1), None]
    for fold in (5, 3, 5):
        queue.done(fold)
    assert [next(drawn), next(drawn)] == [(5, None), None]
    queue.done(3)
    assert list(drawn) == [(3, None)]
    assert list(TaskQueue((3, 5), 1)) == [(3, None), (5, None)]


def test_a_kind_says_how_many_members_a_fold_has() -> None:
    assert model_kind("lgbm").n_members(lightgbm_model.Config(seeds=5)) == 5
    assert model_kind("keras").n_members(keras_model.Config(seeds=3)) == 3
    assert toy_model.KIND.n_members(toy_model.Config()) == 1


def test_rows_of_a_worker_that_started_again_are_read_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text('{"step": 9}\n')
    rows = Rows(path)
    assert list(rows.new()) == []
    path.write_text('{"step": 1}\n{"st')
    assert list(rows.new()) == [{"step": 1}]
    path.write_text('{"step": 1, "more": 2}\n{"step": 2}\n')
    assert list(rows.new()) == [{"step": 1, "more": 2}, {"step": 2}]


def test_rows_that_two_workers_wrote_at_once_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    rows = Rows(path)
    path.write_bytes(b'{"step": 1}\n\0\0\0\0\n{"ste{"step": 2}\n7\n{"step": 3}\n')
    assert list(rows.new()) == [{"step": 1}, {"step": 3}]


def test_networks_left_by_others_are_put_together(tmp_path: Path) -> None:
    config = keras_model.Config(network="two-branch", width=0.1, epochs=2, batch_size=16, seeds=2)
    expected = keras_model.fit(keras_task(tmp_path / "alone"), config)
    rows: list[HistoryRow] = []
    shared = keras_task(tmp_path / "shared", on_progress=rows.append)
    for member in (1, 0):
        keras_model.fit_member(shared, config, member)
    assert [(row["member"], row["step"]) for row in rows] == [(1, 1), (1, 2), (0, 1), (0, 2)]
    rows.clear()
    found = keras_model.fit(shared, config)
    assert rows == []
    assert found.encode() == expected.encode()
    assert without_seconds(found.history) == without_seconds(expected.history)


@pytest.mark.slow
def test_networks_of_a_fold_trained_at_once_predict_the_same(dataset_folder: Folder, tmp_path: Path) -> None:
    with open_output(tmp_path / "features", Job("features", {})) as output:
        features = featurize(dataset_folder, output, FeatureConfig(families=("motion",)))
    config = keras_model.Config(network="two-branch", width=0.1, epochs=2, batch_size=16, seeds=2)
    whole, _ = train(features, tmp_path / "alone", Executor(1), config=config)
    killer = Killer()
    together, rows = train(features, tmp_path / "together", Executor(2), config=config, on_row=killer)
    assert killer.killed
    assert {(row["fold"], row["member"]) for row in rows} == {(0, 0), (0, 1), (2, 0), (2, 1)}
    one, other = read_oof(whole), read_oof(together)
    for scenario in one:
        assert np.abs(one[scenario].proba - other[scenario].proba).max() < 1e-6
