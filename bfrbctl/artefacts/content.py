"""The content of a manifest: classes, sensors, folds and counts of a folder, checked when it is opened."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bfrbctl.errors import ArtefactError

MAX_NAMES = 100_000


class _Content(dict[str, Any]):
    """The content of a manifest; asking for a key that it lacks is an ArtefactError."""

    def __init__(self, content: Mapping[str, Any], what: Path) -> None:
        super().__init__(content)
        self._what = what

    def __missing__(self, key: str) -> Any:
        raise ArtefactError(f"{self._what}: its content lacks {key!r}", hint="make or download the folder again")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MAX_NAMES and all(map(check, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1000


def _are_names(value: Any) -> bool:
    return _each(_is_name)(value) and len(set(value)) == len(value)


def _are_sensors(value: Any) -> bool:
    return _each(lambda item: type(item) is int and 1 <= item <= 99)(value) and value == sorted(set(value))


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "rate_hz": (lambda value: type(value) in (int, float) and 0.1 <= value <= 10_000, "a rate from 0.1 to 10000 Hz"),
    "thm": (_are_sensors, "ascending numbers of sensors"),
    "tof": (_are_sensors, "ascending numbers of sensors"),
    "classes": (_are_names, "different names"),
    "members": (_are_names, "different names"),
    "targets": (_each(lambda item: isinstance(item, bool)), "a list of true and false"),
    "folds": (_each(_is_count), "a list of counts"),
    "prior": (_each(lambda item: type(item) in (int, float) and 0 <= item <= 1), "a list of shares"),
    "model": (_is_name, "a name"),
    "features": (lambda value: isinstance(value, dict), "an object"),
    **dict.fromkeys(
        ("n_folds", "n_frames", "n_files", "n_features", "n_channels", "n_subjects"), (_is_count, "a count")
    ),
}
"""Keys that are checked where a content has them: key -> check, and what was expected."""


def check_content(content: Mapping[str, Any], what: str) -> None:
    """Check what a content says of classes, sensors, folds and counts (ArtefactError)."""
    for key, (sound, expected) in _CHECKS.items():
        if key in content and not sound(content[key]):
            raise ArtefactError(f"{what}: {key} is {str(content[key])[:60]}, expected {expected}")
    sizes = {key: len(content[key]) for key in ("classes", "targets", "prior") if key in content}
    if "classes" in sizes and len(set(sizes.values())) > 1:
        counts = ", ".join(f"{size} {key}" for key, size in sizes.items())
        raise ArtefactError(f"{what}: classes, targets and prior do not fit each other ({counts})")


def checked_content(content: Mapping[str, Any], what: Path) -> Mapping[str, Any]:
    """Check the content of a manifest, the file `what`, and give it for reading; ArtefactError when it is unsound."""
    check_content(content, str(what))
    return _Content(content, what)
