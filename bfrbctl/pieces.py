"""Pieces of a cross-validation that is shared out: in which order they can be begun, and how they tell of themselves.

A piece is a member of a fold (see `models.InMembers`), or the putting together of a fold whose members are there.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from bfrbctl.errors import ArtefactError
from bfrbctl.models import HistoryRow
from bfrbctl.storage import parse_json

Piece = tuple[int, int | None]
"""A fold and which of its members is to be trained; None: put the fold together."""


class Pieces:
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
        self.all: list[Piece] = [*self.members, *((fold, None) for fold in folds)]

    def __iter__(self) -> Iterator[Piece | None]:
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
        for line in lines.splitlines():
            try:
                row = parse_json(line, str(self.path))
            except (
                ArtefactError
            ):  # a worker that was taken for dead still wrote; the finished fold tells its rows again
                continue
            if isinstance(row, dict):
                yield row
