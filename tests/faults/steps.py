"""Watch what a run does to a folder, and let something happen at an exact step of it.

A step is a call that changes the folder: opening a file to write, fsync, replace, unlink, mkdir, rmdir. The calls are
the system's own, so that a run is killed, refused or meets a full disk exactly where that can happen to it.
"""

import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")
LASTING = frozenset({"replace", "unlink", "mkdir", "rmdir"})
"""Steps that change what other processes read; between two of them only temporary files differ."""


@dataclass
class Steps:
    """What happens at which step.

    Parameters
    ----------
    root
        The folder; calls on paths elsewhere are no steps.
    action
        `count`, `kill`, `torn` (cut the newest temporary file in half, then kill), `sigint`, `sigterm`, `vanish` (the
        folder is gone), or the name of an errno such as `ENOSPC`.
    at
        Number of the step, from 0, before which it happens.
    kinds
        Which calls are steps.
    """

    root: Path
    action: str = "count"
    at: int = -1
    kinds: frozenset[str] = LASTING
    done: list[tuple[str, str]] = field(default_factory=list)

    def before(self, kind: str, path: str) -> None:
        """Count one step, and act before it when it is the one; errors of the disk stay once they have come."""
        if kind not in self.kinds:
            return
        number = len(self.done)
        self.done.append((kind, os.path.basename(path)))
        if self.action.startswith("E"):
            if 0 <= self.at <= number:
                code = getattr(errno, self.action)
                raise OSError(code, os.strerror(code), path)
        elif number == self.at:
            self._act(kind, path)

    def _act(self, kind: str, path: str) -> None:
        if self.action == "torn" and kind == "replace":
            with suppress(OSError):
                os.truncate(path, os.path.getsize(path) // 2)
        if self.action in ("kill", "torn"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action in ("sigint", "sigterm"):
            os.kill(os.getpid(), getattr(signal, self.action.upper()))
        elif self.action == "vanish":
            shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def watched(steps: Steps) -> Iterator[Steps]:
    """Put the steps in place of the system's calls while inside."""
    real: dict[tuple[Any, str], Callable[..., Any]] = {}

    def put(module: Any, name: str, kind: str, path_of: Callable[..., str | None]) -> None:
        call = real[module, name] = getattr(module, name)

        def step(*words: Any, **options: Any) -> Any:
            path = path_of(*words, **options)
            if path is not None and inside(path):
                steps.before(kind, path)
            return call(*words, **options)

        setattr(module, name, step)

    root = os.path.realpath(steps.root)
    busy = [False]

    def inside(path: str) -> bool:
        if busy[0] or os.path.basename(path) == ".lock":
            return False  # the lock goes with its process, whatever the disk does
        busy[0] = True
        try:
            return os.path.realpath(path).startswith(root)
        finally:
            busy[0] = False

    put(os, "replace", "replace", lambda source, *_, **__: os.fspath(source))
    put(os, "unlink", "unlink", lambda path, dir_fd=None: _below(path, dir_fd))
    put(os, "rmdir", "rmdir", lambda path, dir_fd=None: _below(path, dir_fd))
    put(os, "mkdir", "mkdir", lambda path, *_, **__: os.fspath(path))
    put(os, "fsync", "fsync", lambda descriptor: _below("", descriptor))
    put(io, "open", "open", lambda file, mode="r", *_, **__: _written(file, mode))
    try:
        yield steps
    finally:
        for (module, name), call in real.items():
            setattr(module, name, call)


def _below(path: Any, descriptor: int | None) -> str:
    if descriptor is None:
        return os.fspath(path)
    return os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), os.fspath(path)).rstrip("/")


def _written(file: Any, mode: str) -> str | None:
    return None if isinstance(file, int) or not set(mode) & set("wax+") else os.fspath(file)
