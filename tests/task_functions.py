"""Functions that workers run in tests; a module of its own, which other processes import quickly."""

import os
import signal
import time
from pathlib import Path

import joblib

from bfrbctl.errors import DataError


def pid() -> int:
    return os.getpid()


def square(number: int) -> int:
    return number * number


def wait_for(marker: Path | None, number: int) -> int:
    """Give the number, once the marker is there."""
    deadline = time.monotonic() + 60
    while marker is not None and not marker.exists():
        if time.monotonic() > deadline:
            raise DataError(f"{marker} was not made in time")
        time.sleep(0.01)
    return number


def after(marker: Path, number: int) -> int:
    """Give the number: 0 only after another task has left its marker."""
    if number:
        marker.touch()
    return wait_for(marker, number)


def die_once(folder: Path, number: int, deadly: tuple[int, ...] = (2,)) -> tuple[int, int]:
    """Kill the own process at the first try of some numbers; gives the number and how often it was begun."""
    tries = _begun(folder, number)
    if number in deadly and tries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, tries


def outlive(folder: Path, number: int, deadly: tuple[int, ...]) -> tuple[int, int]:
    """As `die_once`, but number 0 waits until the deadly numbers are done."""
    found = die_once(folder, number, deadly)
    (folder / f"done-{number}").touch()
    for other in deadly if number == 0 else ():
        wait_for(folder / f"done-{other}", other)
    return found


def die_always(folder: Path, number: int, deadly: int) -> tuple[int, int]:
    """Kill the own process at the deadly number; number 0 ends only after that one was begun three times."""
    tries = _begun(folder, number)
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 0:
        deadline = time.monotonic() + 60
        while not (folder / f"tries-{deadly}").exists() or (folder / f"tries-{deadly}").stat().st_size < 3:
            if time.monotonic() > deadline:
                raise DataError("the deadly number was not begun three times")
            time.sleep(0.01)
    return number, tries


def _begun(folder: Path, number: int) -> int:
    with (folder / f"tries-{number}").open("a") as tries:
        tries.write("x")
    return (folder / f"tries-{number}").stat().st_size


def refuse(number: int) -> int:
    if number == 1:
        raise DataError("the first is bad", hint="leave it out")
    return number


def limits(_number: int) -> tuple[int, str]:
    """How many threads this process believes it may use."""
    return joblib.cpu_count(), os.environ["POLARS_MAX_THREADS"]


def linger(folder: Path, number: int) -> None:
    """Write the own process number and run for long."""
    (folder / f"pid-{number}").write_text(str(os.getpid()))
    time.sleep(600)
