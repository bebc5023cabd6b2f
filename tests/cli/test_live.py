import doctest
import io
import os
import pty
import subprocess
import sys

from rich.console import Console

from bfrbctl.cli import live
from bfrbctl.cli.live import FoldTable
from bfrbctl.training import FoldResult


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
    assert doctest.testmod(live).failed == 0


def test_the_table_tells_the_best_step_and_what_is_left() -> None:
    clock = Clock()
    table = FoldTable("keras", 3, clock)
    assert table.seconds_left is None
    for step, score in ((1, 0.5), (2, 0.75), (3, 0.625)):
        table.on_row({"fold": 0, "step": step, "score": score})
    clock.now = 60.0
    table.on_fold(FoldResult(0, {"all": 0.8, "imu": 0.7}, {}, False))
    assert table.seconds_left == 120.0
    clock.now = 80.0
    table.on_row({"fold": 1, "step": 1, "score": 0.25})
    assert table.seconds_left == 100.0
    text = drawn(table)
    assert "1 of 3 folds, 1:40 left" in text
    done, training = (line.replace("│", " ").split() for line in text.splitlines() if line.startswith("│"))
    assert done == ["0", "done", "3", "0.6250", "0.7500", "2", "0.8000", "0.7000", "1:00"]
    assert training == ["1", "training", "1", "0.2500", "0.2500", "1", "20", "s"]


def test_reused_folds_do_not_count_for_the_pace() -> None:
    clock = Clock()
    table = FoldTable("lgbm", 2, clock)
    table.on_fold(FoldResult(0, {"all": 0.8, "imu": 0.7}, {}, True))
    assert table.seconds_left is None
    clock.now = 10.0
    table.on_fold(FoldResult(1, {"all": 0.8, "imu": 0.7}, {}, False))
    assert table.seconds_left == 0.0
    assert "2 of 2 folds" in drawn(table)
    assert "reused" in drawn(table)


SCRIPT = """
from bfrbctl.cli import shared
from bfrbctl.training import FoldResult
with shared.watch_folds("keras", n_folds=1, quiet=False) as (on_row, on_fold):
    on_row({"fold": 0, "step": 7, "score": 0.5})
    on_fold(FoldResult(0, {"all": 0.875, "imu": 0.75}, {"best_step": 7}, False))
shared.tell({}, lines=["wrote it"], next_command="bfrbctl predict", as_json=False, quiet=False)
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
    assert piped.stderr == "keras fold 0: all 0.8750, imu 0.7500; best_step 7\n"
    assert piped.stdout == "wrote it\n next: bfrbctl predict\n"
