import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bfrbctl.cli import main
from bfrbctl.errors import UsageError
from bfrbctl.models.keras.learning.tensorboard import run_name, scalar_log, tag

ROW = {
    "fold": 2,
    "member": 0,
    "step": 3,
    "loss": 1.5,
    "score": 0.7,
    "score_all": 0.75,
    "macro_f1_imu": 0.5,
    "note": "x",
}


class Written:
    """Stands for TensorBoard's writer; keeps what it is given."""

    made: dict[str, "Written"]

    def __init__(self, folder: str) -> None:
        self.points: list[tuple[str, float, int]] = []
        self.n_flushed, self.closed = 0, False
        Written.made[Path(folder).name] = self

    def add_scalar(self, tag: str, data: float, step: int) -> None:
        self.points.append((tag, data, step))

    def flush(self) -> None:
        self.n_flushed += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Written]:
    Written.made = {}
    monkeypatch.setitem(sys.modules, "tensorboard.summary", SimpleNamespace(Writer=Written))
    return Written.made


def test_each_fold_and_seed_is_a_run_and_each_number_a_curve(made: dict[str, Written], tmp_path: Path) -> None:
    with scalar_log(tmp_path) as write:
        write(ROW)
        write({**ROW, "step": 4})
        write({**ROW, "member": 1})
        assert [made[name].n_flushed for name in ("fold-2", "fold-2-seed-1")] == [2, 1]
    assert [made[name].closed for name in made] == [True, True]
    first = {("loss", 1.5, 3), ("score/mean", 0.7, 3), ("score/all", 0.75, 3), ("macro_f1/imu", 0.5, 3)}
    assert set(made["fold-2"].points[:4]) == first
    assert {step for _, _, step in made["fold-2"].points} == {3, 4}


def test_writers_are_closed_when_training_fails(made: dict[str, Written], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scalar_log(tmp_path) as write:
        write(ROW)
        raise KeyboardInterrupt
    assert made["fold-2"].closed


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Run `bfrbctl train keras`, which must end as a usage error: words -> stderr."""

    def call(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["bfrbctl", "train", "keras", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        return capsys.readouterr().err

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


def test_without_tensorboard_the_command_says_how_to_get_it_before_it_reads_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(UsageError, match="--tensorboard needs tensorboard"), scalar_log(tmp_path):
        pass
    told = refused(tmp_path / "features", tmp_path / "model", "--tensorboard", tmp_path / "board")
    assert f"{sys.executable} -m pip install tensorboard, or train without" in told
    assert not list(tmp_path.iterdir())


def test_a_board_inside_the_model_folder_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    model = tmp_path / "model"
    told = refused("features", model, "--tensorboard", model / "board")
    assert "lies in the model folder" in told


def test_names_put_both_scenarios_into_one_group() -> None:
    assert [tag(name) for name in ("score", "score_imu", "valid_logloss_all", "lr")] == [
        "score/mean",
        "score/imu",
        "valid_logloss/all",
        "lr",
    ]
    assert run_name({"fold": 0, "step": 1}) == "fold-0"


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with scalar_log(tmp_path) as write:
        write(ROW)
    found = events.EventAccumulator(str(tmp_path / "fold-2"))
    found.Reload()
    assert found.Tags()["tensors"] == ["loss", "score/mean", "score/all", "macro_f1/imu"]
    assert [point.step for point in found.Tensors("score/all")] == [3]
