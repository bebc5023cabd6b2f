"""Short representations: what an object is, in a few lines, whatever the size of its arrays and tables."""

import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from itertools import islice
from os import PathLike
from typing import Any

MAX_ITEMS, MAX_NUMBERS = 3, 8
MAX_TEXT = 80
_WIDTH = 100


def short_repr(value: Any) -> str:
    """Represent a dataclass by its fields, each cut short; made to be its `__repr__`.

    Arrays are represented by dtype and shape, tables by rows and columns, collections by their first items and the
    number of all.
    """
    return written(type(value).__name__, {item.name: getattr(value, item.name) for item in fields(value) if item.repr})


def written(name: str, values: Mapping[str, Any]) -> str:
    """Write `name(key=value, ...)`, each value cut short, in as many lines as it needs.

    >>> written("Batch", {"ids": ("a", "b", "c", "d"), "rate_hz": 10.0})
    "Batch(ids=('a', 'b', 'c' and 1 more), rate_hz=10.0)"
    """
    inside = ", ".join(f"{key}={_short(value)}" for key, value in values.items())
    lines = textwrap.wrap(f"{name}({inside})", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)


def _short(value: Any, depth: int = 0) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is not None and isinstance(shape, tuple) and shape:
        return f"{dtype} {shape}"
    if isinstance(shape, tuple) and hasattr(value, "columns"):
        return f"table of {shape[0]} rows, {shape[1]} columns"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, PathLike):
        return _cut(repr(str(value)))
    if isinstance(value, str) or value is None or isinstance(value, int | float):
        return _cut(repr(value))
    if isinstance(value, Mapping | Sequence | Set):
        return _collection(value, depth)
    if is_dataclass(value) and not isinstance(value, type) and not depth:
        inner = ", ".join(f"{item.name}={_short(getattr(value, item.name), 1)}" for item in fields(value) if item.repr)
        if len(inner) <= MAX_TEXT:
            return f"{type(value).__name__}({inner})"
    return f"<{getattr(value, '__name__', None) or type(value).__name__}>"


def _collection(value: Mapping[Any, Any] | Sequence[Any] | Set[Any], depth: int) -> str:
    """Write the first items and how many more there are; deep inside, how many there are alone."""
    if depth > 1:
        return f"{len(value)} items"
    items = list(islice(value.items() if isinstance(value, Mapping) else value, MAX_NUMBERS))
    if not all(isinstance(item, int | float) for item in items):
        items = items[:MAX_ITEMS]
    if isinstance(value, Mapping):
        shown = ", ".join(f"{_short(key, depth + 1)}: {_short(item, depth + 1)}" for key, item in items)
    else:
        shown = ", ".join(_short(item, depth + 1) for item in items)
    left = len(value) - len(items)
    more = f" and {left} more" if left > 0 else ""
    ends = "{}" if isinstance(value, Mapping | Set) else "[]" if isinstance(value, list) else "()"
    return f"{ends[0]}{shown}{more}{ends[1]}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
