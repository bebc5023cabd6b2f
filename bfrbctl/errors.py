"""What can go wrong, as a tree of exceptions.

BfrbError                  exit code 1
|- UsageError              2   the command line or a configuration cannot be understood
|  |- MissingLibraryError  2   a library is needed that cannot be imported here
|- DataError               3   the recordings, or a table given, are not what they should be
|- ArtefactError           4   a folder of ours is damaged, unsafe, or of another kind
|- OutputError             5   the output exists already, is locked, or cannot be written

Every error says what happened and, as `hint`, what to do about it. Only `bfrbctl.cli` prints or exits.
"""

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import ClassVar

MAX_EXAMPLES = 3

_PACKAGES = {"resvg_py": "resvg-py", "sklearn": "scikit-learn"}
"""Module -> the package that brings it, where the names differ."""


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


class MissingLibraryError(UsageError):
    """A library that is needed cannot be imported here."""


class DataError(BfrbError):
    """The recordings, or a table given, are not what they should be."""

    exit_code = 3


class ArtefactError(BfrbError):
    """A folder of ours is damaged, unsafe, or of another kind than asked for."""

    exit_code = 4


class OutputError(BfrbError):
    """The output exists already, is locked by another run, or cannot be written."""

    exit_code = 5


def missing_library(needed_by: str, error: ImportError, *, otherwise: str = "") -> MissingLibraryError:
    """Describe a library that cannot be imported, with the command that installs it.

    Parameters
    ----------
    needed_by
        What needs it, such as an option.
    error
        What the import raised; it names the library.
    otherwise
        What else can be done, said after "or".

    Raises
    ------
    ImportError
        The one given, where it is about a module of ours: nothing that is installed beside it could help.
    """
    module = (error.name or "").partition(".")[0]
    if module == __name__.partition(".")[0]:
        raise error
    what = f"{needed_by} needs {module or 'a library'}, which cannot be imported here ({error})"
    command = install_command(_PACKAGES.get(module, module)) if module else "reinstall the library"
    return MissingLibraryError(what, hint=f"{command}, or {otherwise}" if otherwise else command)


def install_command(*packages: str) -> str:
    """Give the command that installs packages for the Python that runs now, however bfrbctl itself was installed.

    It names the libraries themselves: an extra of bfrbctl could be installed from a package index only.
    """
    if find_spec("pip") is None:  # as in environments that uv made
        return shlex.join(["uv", "pip", "install", "--python", sys.executable, *packages])
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])


def examples(values: Sequence[object]) -> str:
    """Join at most three examples, and say how many more there are.

    >>> examples(["a", "b"])
    'a, b'
    >>> examples(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(str(value) for value in values[:MAX_EXAMPLES])
    left = len(values) - MAX_EXAMPLES
    return shown if left <= 0 else f"{shown} and {left} more"
