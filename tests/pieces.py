"""Pieces of work that workers do in tests; a module of its own, which other processes import quickly."""

import os
import signal
import time
from pathlib import Path

import joblib

from bfrbctl.errors import DataError


def square(number: int) -> int:
    return number * number


def wait_for(marker: Path | None, number: int) -> int:
    """Give the number, once the marker is there."""
    deadline = time.monotonic() + 60
    while marker is not None and not marker.exists():
        if time.monotonic() > deadline:
            raise DataError(f"nobody has made {marker}")
        time.sleep(0.01)
    return number


def after(marker: Path, number: int) -> int:
    """Give the number: 0 only after another piece has left its marker."""
    if number:
        marker.touch()
    return wait_for(marker, number)


def die_once(folder: Path, number: int) -> tuple[int, int]:
    """Kill the own process at the first try of number 2; gives the number and how often it was begun."""
    with (folder / f"tries-{number}").open("a") as tries:
        tries.write("x")
    if number == 2 and (folder / f"tries-{number}").stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, (folder / f"tries-{number}").stat().st_size


def die(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> int:
    if number == 1:
        raise DataError("the first is bad", hint="leave it out")
    return number


def limits(_number: int) -> tuple[int, str]:
    """How many threads this process believes it may use."""
    return joblib.cpu_count(), os.environ["POLARS_MAX_THREADS"]


def linger(folder: Path, number: int) -> None:
    """Tell the own process number and go on for long."""
    (folder / f"pid-{number}").write_text(str(os.getpid()))
    time.sleep(600)
