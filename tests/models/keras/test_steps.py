"""Every epoch of a fold's networks is kept where other folds choose one, and any of them becomes an ordinary model."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation.selection import Curve, Rule
from bfrbctl.models.interface import FoldTask, HistoryRow, model_kind
from bfrbctl.models.keras.model import KerasFoldModel, KerasSteps, fit, fit_member, load, load_step
from bfrbctl.models.keras.settings import Config
from tests.keras_batches import CLASSES, task

TINY = Config(network="two-branch", width=0.1, epochs=3, batch_size=16, seeds=2, select="other-folds")


class Killed(Exception):
    """Stands for a signal."""


class Read(Mapping[str, bytes]):
    """Files that are read when they are asked for; notes their names."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.names = files, set[str]()

    def __getitem__(self, name: str) -> bytes:
        self.names.add(name)
        return self.files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __contains__(self, name: object) -> bool:
        return name in self.files


def kept_task(scratch: Path, **changes: object) -> FoldTask:
    return replace(task(scratch), keep_steps=True, **changes)  # type: ignore[arg-type]


def trained(job: FoldTask, config: Config = TINY) -> KerasSteps:
    found = fit(job, config)
    assert isinstance(found, KerasSteps)
    return found


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> KerasSteps:
    return trained(kept_task(tmp_path_factory.mktemp("steps")))


@pytest.fixture(scope="module")
def files(steps: KerasSteps) -> dict[str, bytes]:
    return steps.encode()


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> KerasFoldModel:
    """Give the model of a run that keeps the last epoch alone."""
    scratch = tmp_path_factory.mktemp("last")
    found = fit(task(scratch), TINY.model_copy(update={"select": "last"}))
    assert isinstance(found, KerasFoldModel)
    assert found.curve is None
    assert {path.name for path in scratch.iterdir()} == {"keras-0.npz", "keras-1.npz"}
    return found


def test_the_kind_can_choose_and_its_model_has_steps(steps: KerasSteps) -> None:
    assert model_kind("keras").load_step is load_step
    assert steps.curve.n_steps == TINY.n_steps
    assert (TINY.rule, TINY.why_last) == (Rule("score", "mean"), "")
    assert Config().select == "last"


def test_the_curve_is_the_mean_over_networks_of_the_history(steps: KerasSteps) -> None:
    by_member = [[row for row in steps.history if row["member"] == member] for member in (0, 1)]
    assert steps.curve.n_steps == 3
    for scenario in ("all", "imu"):
        for figures, column in ((steps.curve.score, "score"), (steps.curve.logloss, "valid_logloss")):
            expected = np.mean([[row[f"{column}_{scenario}"] for row in rows] for rows in by_member], axis=0)
            np.testing.assert_array_equal(figures[scenario], expected)


def test_the_last_epoch_is_the_model_of_a_run_that_keeps_it_alone(
    files: dict[str, bytes], steps: KerasSteps, last: KerasFoldModel, tmp_path: Path
) -> None:
    assert load_step(files, 3, classes=CLASSES).encode() == last.encode()
    batch = task(tmp_path).valid
    np.testing.assert_array_equal(steps.predict_proba(batch), last.predict_proba(batch))
    assert steps.summary == last.summary


def test_an_epoch_scores_as_its_row_says(files: dict[str, bytes], steps: KerasSteps, tmp_path: Path) -> None:
    job = task(tmp_path)
    for step in (1, 2, 3):
        found = load_step(files, step, classes=CLASSES)
        for member, one in enumerate(found.each_seed()):
            row = next(row for row in steps.history if (row["member"], row["step"]) == (member, step))
            assert row["score_all"] == pytest.approx(job.score(one.predict_proba(job.valid)).score, abs=1e-6)
            assert row["valid_logloss_all"] == pytest.approx(job.loss(one.predict_proba(job.valid)), abs=1e-5)
        assert found.summary["epochs"] == [step, step]
        for name, figures in (("score", steps.curve.score), ("logloss", steps.curve.logloss)):
            assert found.summary[name] == pytest.approx(
                {key: each[step - 1] for key, each in figures.items()}, abs=1e-6
            )


def test_an_epoch_becomes_an_ordinary_model_and_no_other_file_is_read(files: dict[str, bytes]) -> None:
    lazy = Read(files)
    found = load_step(lazy, 2, classes=CLASSES)
    assert lazy.names == {"keras.json", "keras-epoch-0002.npz", "keras-1-epoch-0002.npz"}
    encoded = found.encode()
    assert encoded["keras.npz"] == files["keras-epoch-0002.npz"]
    assert encoded["keras-1.npz"] == files["keras-1-epoch-0002.npz"]
    assert set(encoded) == {"keras.json", "keras.npz", "keras-1.npz"}
    assert "curve" not in json.loads(encoded["keras.json"])["summary"]
    assert load(encoded, classes=CLASSES).encode() == encoded


def test_a_killed_run_continues_to_the_same_files(files: dict[str, bytes], tmp_path: Path) -> None:
    def kill(row: HistoryRow) -> None:
        if (row["member"], row["step"]) == (1, 2):
            raise Killed

    with pytest.raises(Killed):
        fit(kept_task(tmp_path, on_progress=kill), TINY)
    rows: list[HistoryRow] = []
    again = trained(kept_task(tmp_path, on_progress=rows.append))
    assert [(row["member"], row["step"]) for row in rows] == [(1, 3)]
    assert again.encode() == files


def test_networks_that_were_trained_apart_are_put_together(files: dict[str, bytes], tmp_path: Path) -> None:
    for member in (1, 0):
        fit_member(kept_task(tmp_path), TINY, member)
    rows: list[HistoryRow] = []
    assert trained(kept_task(tmp_path, on_progress=rows.append)).encode() == files
    assert rows == []


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, changed])
def test_a_network_with_a_missing_or_changed_epoch_is_trained_again(
    damage: Callable[[Path], None], files: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(kept_task(tmp_path))
    damage(tmp_path / "keras-1-epoch-0001.npz")
    rows: list[HistoryRow] = []
    with caplog.at_level(logging.WARNING):
        again = trained(kept_task(tmp_path, on_progress=rows.append))
    assert "keras-1.npz: the checkpoint is damaged (keras-1-epoch-0001.npz is missing or not what" in caplog.text
    assert [(row["member"], row["step"]) for row in rows] == [(1, 1), (1, 2), (1, 3)]
    assert again.encode() == files


def test_a_run_that_kept_no_epochs_is_not_continued_as_one_that_does(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"seeds": 1, "epochs": 1})
    fit(task(tmp_path), config)
    assert [path.name for path in tmp_path.iterdir()] == ["keras-0.npz"]
    rows: list[HistoryRow] = []
    found = trained(kept_task(tmp_path, on_progress=rows.append), config)
    assert [row["step"] for row in rows] == [1]
    assert set(found.encode()) == {"keras.json", "keras-epoch-0001.npz"}


def test_a_device_with_nothing_to_take_away_has_one_curve(tmp_path: Path) -> None:
    job = replace(task(tmp_path, all_sensors=False), keep_steps=True)
    found = trained(job, TINY.model_copy(update={"seeds": 1, "epochs": 1}))
    assert set(found.curve.score) == set(found.curve.logloss) == {"all"}
    assert set(load_step(found.encode(), 1, classes=CLASSES).summary["score"]) == {"all"}


def test_an_epoch_that_is_not_there_is_refused(files: dict[str, bytes]) -> None:
    for step in (0, 4):
        with pytest.raises(ArtefactError, match=f"has 3 epochs, of which {step} is none"):
            load_step(files, step, classes=CLASSES)
    with pytest.raises(ArtefactError, match=r"has no keras-1-epoch-0002\.npz"):
        load_step({name: files[name] for name in files if "1-epoch-0002" not in name}, 2, classes=CLASSES)
    with pytest.raises(ArtefactError, match=r"has no keras\.json"):
        load_step({}, 1, classes=CLASSES)
    with pytest.raises(ArtefactError, match="is not a sound npz file"):
        load_step({**files, "keras-epoch-0002.npz": b"x"}, 2, classes=CLASSES)


def test_files_of_one_epoch_are_not_taken_for_those_of_several(files: dict[str, bytes], last: KerasFoldModel) -> None:
    with pytest.raises(ArtefactError, match=r"keras\.json: holds no curve"):
        load_step(last.encode(), 1, classes=CLASSES)
    with pytest.raises(ArtefactError, match="the model has files"):
        load(files, classes=CLASSES)
    content = json.loads(files["keras.json"])["summary"]["curve"]
    assert Curve.of_content(content, what="keras.json").n_steps == 3
