"""Pieces of a cross-validation that is shared out: in which order they can be begun, and how they tell of themselves.

A piece is a member of a fold (see `models.InMembers`), or the putting together of a fold whose members are there.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bfrbctl.artefacts.files import parse_json
from bfrbctl.errors import ArtefactError
from bfrbctl.models.interface import HistoryRow

TaskKey = tuple[int, int | None]
"""A fold and which of its members is to be trained; None: put the fold together."""


class TaskQueue:
    """Pieces in the order in which they can be begun: members by fold, and a fold as soon as its members are there.

    Parameters
    ----------
    folds
        Which folds.
    members
        How many members each has; of one only, it is trained as the fold is put together.
    """

    def __init__(self, folds: Sequence[int], members: int) -> None:
        apart = range(members if members > 1 else 0)
        self.members = deque((fold, member) for fold in folds for member in apart)
        self.left = dict.fromkeys(folds, len(apart))
        self.all: list[TaskKey] = [*self.members, *((fold, None) for fold in folds)]

    def __iter__(self) -> Iterator[TaskKey | None]:
        while self.left:
            whole = next((fold for fold, left in self.left.items() if left == 0), None)
            if whole is not None:
                del self.left[whole]
                yield whole, None
            else:
                yield self.members.popleft() if self.members else None  # the rest waits for what is being done

    def done(self, fold: int) -> None:
        """Note that a member of a fold is there."""
        self.left[fold] -= 1


def progress_path(scratch: Path, member: int | None) -> Path:
    """Name the file of a piece's history rows, by which this process comes to know them."""
    return scratch / ("progress.jsonl" if member is None else f"progress-{member}.jsonl")


@contextmanager
def written_rows(path: Path, *, anew: bool) -> Iterator[Callable[[HistoryRow], None]]:
    """Give what appends history rows to a file as they are known, for who looks into a run."""
    with path.open("w" if anew else "a", encoding="utf-8", buffering=1) as file:

        def write(row: HistoryRow) -> None:
            file.write(json.dumps(row) + "\n")

        yield write


def latest_rows(content: bytes) -> list[HistoryRow]:
    """Read such a file while it may be written, or as a kill left it: of a model that was begun anew, the last rows.

    A line that is not whole is left out.
    """
    by_model: dict[tuple[object, object], list[dict[str, Any]]] = {}
    for line in content.splitlines():
        row = _row(line)
        if row is None or not isinstance(row.get("step"), int):
            continue
        rows = by_model.setdefault((row.get("fold"), row.get("seed", row.get("member"))), [])
        if rows and row["step"] <= rows[-1]["step"]:
            rows.clear()
        rows.append(row)
    return [row for rows in by_model.values() for row in rows]


def _row(line: bytes) -> dict[str, Any] | None:
    """Read a line; None where it is not whole, as of a worker that was taken for dead and still wrote."""
    try:
        row = parse_json(line, "a history row")
    except ArtefactError:
        return None
    return row if isinstance(row, dict) else None


class Rows:
    """Rows that a worker appends to a file, read as they come; those of an earlier run are let go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = b""
        path.unlink(missing_ok=True)

    def new(self) -> Iterator[HistoryRow]:
        """Give the whole lines since the last call; from the start again when a worker began anew."""
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        if not content.startswith(self.seen):
            self.seen = b""
        lines, newline, _ = content[len(self.seen) :].rpartition(b"\n")
        self.seen += lines + newline
        yield from filter(None, map(_row, lines.splitlines()))
