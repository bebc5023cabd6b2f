import doctest
import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from bfrbctl.cli import training_progress
from bfrbctl.cli.training_progress import FoldTable, Pace, Steps, show_folds
from bfrbctl.training.cross_validation import FoldResult


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def drawn(table: FoldTable) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_durations_are_as_the_docstring_says() -> None:
    assert doctest.testmod(training_progress).failed == 0


def done(fold: int, *, reused: bool = False) -> FoldResult:
    return FoldResult(fold, {"all": 0.8, "imu": 0.7}, {}, reused)


def test_the_table_tells_the_latest_score_the_pace_and_what_is_left() -> None:
    clock = Clock()
    table = FoldTable("keras", Steps(3, 1, 10, "epoch", "macro F1"), clock)
    assert table.pace.seconds_left is None
    for step, score in ((1, 0.5), (2, 0.75), (3, 0.625)):
        clock.now = 20.0 * step
        table.on_row({"fold": 0, "step": step, "score": score, "seconds": 20.0})
    assert "0 of 3 folds, 20 s an epoch, about 9:00 left" in drawn(table)
    table.on_fold(done(0))
    clock.now = 80.0
    table.on_row({"fold": 1, "step": 1, "score": 0.25, "seconds": 20.0})
    text = drawn(table)
    assert "1 of 3 folds, 20 s an epoch, about 6:20 left" in text
    assert "macro F1" in text and "last epoch" not in text
    finished, training = (line.replace("│", " ").split() for line in text.splitlines() if line.startswith("│"))
    assert finished == ["0", "done", "3", "0.6250", "0.8000", "0.7000", "1:00"]
    assert training == ["1", "training", "1", "0.2500", "20", "s"]


def test_scores_of_finished_folds_are_said_to_be_of_the_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(2, 1, 10, "round", "macro F1", provisional=True)
    table = FoldTable("lgbm", steps)
    table.on_fold(done(0))
    assert "finished folds: scores after the last round; how many are kept is chosen" in " ".join(drawn(table).split())
    one = FoldResult(1, {"all": 0.8}, {}, True)
    with show_folds("lgbm", steps, quiet=False) as (_, on_fold):
        on_fold(done(0))
        on_fold(one)
    assert capsys.readouterr().err.splitlines() == [
        "lgbm fold 0: all 0.8000, imu 0.7000 after the last round",
        "lgbm fold 1 (reused): macro F1 0.8000 after the last round",
    ]


def test_what_is_left_is_known_after_the_first_step_and_runs_down() -> None:
    clock = Clock()
    pace = Pace(Steps(2, 1, 10, "epoch"), clock)
    clock.now = 100.0  # features were read for long
    pace.on_row({"fold": 0, "step": 1, "seconds": 4.0})
    assert pace.seconds_left == 76.0
    clock.now = 102.0
    assert pace.seconds_left == 74.0
    assert str(pace) == "4 s an epoch, about 1:14 left"


def test_rounds_that_count_from_their_start_give_the_pace_too() -> None:
    clock = Clock()
    pace = Pace(Steps(2, 1, 400, "round"), clock)
    pace.on_row({"fold": 0, "seed": 0, "step": 50, "seconds": 5.0})
    assert pace.seconds_left == 75.0
    clock.now = 10.0
    pace.on_row({"fold": 0, "seed": 0, "step": 100, "seconds": 10.0})
    assert str(pace) == "0.2 s a round, about 2:20 left"


def test_a_model_that_goes_on_from_a_checkpoint_counts_what_it_did_now() -> None:
    clock = Clock()
    pace = Pace(Steps(1, 1, 40, "epoch"), clock)
    pace.on_row({"fold": 0, "step": 31, "member": 0, "seconds": 2.0})
    clock.now = 2.0
    pace.on_row({"fold": 0, "step": 32, "member": 0, "seconds": 2.0})
    assert pace.seconds_a_step == 2.0
    assert pace.seconds_left == 16.0


def test_models_that_train_at_once_are_as_fast_as_all_together() -> None:
    clock = Clock()
    pace = Pace(Steps(2, 2, 10, "epoch"), clock)
    for step in range(1, 5):
        clock.now = 6.0 * step
        for member in range(2):
            pace.on_row({"fold": 0, "member": member, "step": step, "seconds": 6.0})
    assert pace.seconds_a_step == pytest.approx(18 / 7)  # as if they took turns
    assert pace.seconds_left == pytest.approx((2 * 6 + 20) * 18 / 7)


def test_reused_folds_do_not_count_for_the_pace() -> None:
    clock = Clock()
    table = FoldTable("lgbm", Steps(2, 1, 10), clock)
    table.on_fold(done(0, reused=True))
    assert table.pace.seconds_left is None
    clock.now = 10.0
    table.on_row({"fold": 1, "seed": 0, "step": 5, "seconds": 10.0})
    assert table.pace.seconds_left == 10.0
    table.on_fold(done(1))
    assert table.pace.seconds_left == 0.0
    assert "2 of 2 folds" in drawn(table)
    assert "reused" in drawn(table)


def test_a_log_gets_a_line_at_once_and_then_one_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(FoldTable.__init__, "__defaults__", (clock,))
    with show_folds("lgbm", Steps(2, 3, 100, "round"), quiet=False) as (on_row, on_fold):
        for step in range(1, 14):
            clock.now = 10.0 * step
            on_row({"fold": 0, "seed": 1, "step": step, "seconds": clock.now, "score": 0.5})
        on_fold(done(0))
    assert capsys.readouterr().err.splitlines() == [
        "lgbm fold 0 model 2 of 3: round 1 of 100, score 0.5000; 0 of 2 folds done; 10 s a round, about 1:39:50 left",
        "lgbm fold 0 model 2 of 3: round 7 of 100, score 0.5000; 0 of 2 folds done; 10 s a round, about 1:38:50 left",
        "lgbm fold 0 model 2 of 3: round 13 of 100, score 0.5000; 0 of 2 folds done; 10 s a round, about 1:37:50 left",
        "lgbm fold 0: all 0.8000, imu 0.7000",
    ]


SCRIPT = """
from bfrbctl.cli.options import DisplayOptions
from bfrbctl.cli.results import show_result
from bfrbctl.cli.training_progress import Steps, show_folds
from bfrbctl.training.cross_validation import FoldResult
with show_folds("keras", Steps(1), quiet=False) as (on_row, on_fold):
    on_row({"fold": 0, "step": 7, "score": 0.5})
    on_fold(FoldResult(0, {"all": 0.875, "imu": 0.75}, {"epochs": 7}, False))
show_result({}, lines=["wrote it"], next_command="bfrbctl predict", display=DisplayOptions())
"""


def test_a_terminal_gets_a_table_and_a_panel_and_a_pipe_gets_lines() -> None:
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=side, stderr=side, env=environment) as run:
        os.close(side)
        shown = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # Linux says so when the other side has closed
                break
            if not part:
                break
            shown += part
    os.close(main)
    assert run.returncode == 0
    text = shown.decode()
    assert "1 of 1 folds" in text
    assert "0.8750" in text
    assert "╭" in text
    assert "next: bfrbctl predict" in text
    piped = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert piped.stderr == (
        "keras fold 0: step 7, score 0.5000; 0 of 1 folds done\nkeras fold 0: all 0.8750, imu 0.7500\n"
    )
    assert piped.stdout == "wrote it\n next: bfrbctl predict\n"
