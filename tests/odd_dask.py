"""Run `dask` as if its environment were another one: `python odd_dask.py [WHAT] ... -- worker ...`.

NAME=VERSION lets a package seem to have that version, NAME= to be absent; /PATH lets all below it seem absent, and
/PATH=/OTHER lets pathlib open another file in its place.
"""

import importlib.metadata
import pathlib
import sys
from collections.abc import Sequence
from runpy import run_module
from typing import Any

real_version = importlib.metadata.version


def disguise(versions: dict[str, str], hidden: Sequence[str]) -> None:
    def version(name: str) -> str:
        if name in versions and not versions[name]:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real_version(name)

    def hide(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(tuple(hidden)):
            raise FileNotFoundError(2, "No such file or directory", arguments[0])

    importlib.metadata.version = version
    if hidden:
        sys.addaudithook(hide)


def exchange(other: dict[str, str]) -> None:
    opened = pathlib.Path.open

    def instead(path: pathlib.Path, *args: Any, **options: Any) -> Any:
        return opened(pathlib.Path(other.get(str(path), path)), *args, **options)

    pathlib.Path.open = instead  # type: ignore[method-assign]


if __name__ == "__main__":
    end = sys.argv.index("--")
    odd, words = sys.argv[1:end], sys.argv[end + 1 :]
    given = dict(word.split("=") for word in odd if "=" in word)
    exchange({name: other for name, other in given.items() if name.startswith("/")})
    disguise(
        {name: version for name, version in given.items() if not name.startswith("/")},
        [word for word in odd if word.startswith("/") and "=" not in word],
    )
    sys.argv = ["dask", *words]
    run_module("dask", run_name="__main__")
