"""What can go wrong, as a tree of exceptions.

BfrbError                  exit code 1
|- UsageError              2   the command line or a configuration cannot be understood
|- DataError               3   the recordings, or a table given, are not what they should be
|- ArtefactError           4   a folder of ours is damaged, unsafe, or of another kind
|- OutputError             5   the output exists already, is locked, or cannot be written

Every error says what happened and, as `hint`, what to do about it. Only `bfrbctl.cli` prints or exits.
"""

from collections.abc import Sequence
from typing import ClassVar

MAX_EXAMPLES = 3


class BfrbError(Exception):
    """An error that a user can act on.

    Parameters
    ----------
    what
        One sentence: the file, the sequence or column, the value, what was expected.
    hint
        What to do about it; None where there is nothing better to say.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what, hint)  # by position, as pickle brings an error back from another process
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return self.what if self.hint is None else f"{self.what}\n hint: {self.hint}"


class UsageError(BfrbError):
    """The command line or a configuration cannot be understood."""

    exit_code = 2


class DataError(BfrbError):
    """The recordings, or a table given, are not what they should be."""

    exit_code = 3


class ArtefactError(BfrbError):
    """A folder of ours is damaged, unsafe, or of another kind than asked for."""

    exit_code = 4


class OutputError(BfrbError):
    """The output exists already, is locked by another run, or cannot be written."""

    exit_code = 5


def examples(values: Sequence[object]) -> str:
    """Join at most three examples and tell how many there are in all.

    >>> examples(["a", "b"])
    'a, b'
    >>> examples(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(str(value) for value in values[:MAX_EXAMPLES])
    left = len(values) - MAX_EXAMPLES
    return shown if left <= 0 else f"{shown} and {left} more"
