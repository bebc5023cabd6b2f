"""Settings: defaults in a frozen dataclass, a TOML file over them, --set key=value over that; all checked once.

A stage's settings are a frozen dataclass of plain fields (int, float, str, bool, tuple[str, ...]). Its
`__post_init__` checks ranges; this module checks names and types and suggests the nearest valid name. What other tools
call a setting it may list in a class variable `ELSEWHERE`: that name -> the setting to suggest.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from bfrbctl.errors import UsageError

T = TypeVar("T")


def build(
    cls: type[T],
    *,
    earlier: Mapping[str, Any] | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    **options: Any,
) -> T:
    """Make one validated configuration.

    Parameters
    ----------
    cls
        A frozen dataclass with a default for every field.
    earlier
        Fields of the run that is continued, which need not be given again.
    file
        TOML file with some of its fields at top level.
    overrides
        `key=value` strings as given by --set; stronger than the file.
    options
        Fields given by options of their own; None means not given. Stronger than both.

    Raises
    ------
    UsageError
        Unknown name (the nearest is suggested), wrong type, value out of range, unreadable file.
    """
    values: dict[str, Any] = {}
    for key, value in (earlier or {}).items():
        _merge(values, _checked_earlier(cls, key, value))
    if file is not None:
        for key, value in read_toml(file).items():
            _merge(values, _checked(cls, key, value, str(file)))
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected key=value", hint=f"for example --set {_names(cls)[0]}=...")
        _merge(values, _checked(cls, key.strip(), _parse(raw.strip()), f"--set {text}"))
    for key, value in options.items():
        if value is not None:
            _merge(values, _checked(cls, key, value, f"--{key.replace('_', '-')}"))
    return cls(**values)


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """Rebuild a configuration from a manifest; UsageError names `what` when a field does not fit."""
    known: dict[str, Any] = {}
    for key, value in values.items():
        _merge(known, _checked(cls, key, value, what))
    return cls(**known)


def as_mapping(config: Any) -> dict[str, Any]:
    """Give a configuration as JSON values, every field told."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; UsageError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint="see that the path is right") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML ({error})") from error


def nearest(name: str, valid: Sequence[str]) -> str:
    """Hint for a name that does not exist: the nearest ones, else all.

    >>> nearest("learning_rat", ["learning_rate", "seed"])
    'did you mean learning_rate?'
    """
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(sorted(valid))}"


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Set fields, except that `params` gathers the names that are not fields (a library's own parameters)."""
    for key, value in more.items():
        values[key] = {**values.get(key, {}), **value} if key == "params" else value


def _names(cls: type[Any]) -> list[str]:
    return [item.name for item in fields(cls)]


def _checked_earlier(cls: type[Any], key: str, value: Any) -> dict[str, Any]:
    """Check a setting of the run that is continued, which another version may have begun with settings of its own."""
    try:
        return _checked(cls, key, value, "the interrupted run")
    except UsageError as error:
        raise UsageError(
            f"the interrupted run has {key} = {value!r}, and this version cannot continue with that setting",
            hint="start anew with --force, or continue it with the version that began it",
        ) from error


def _checked(cls: type[Any], key: str, value: Any, where: str) -> dict[str, Any]:
    elsewhere: Mapping[str, str] = getattr(cls, "ELSEWHERE", {})
    if key in elsewhere and key not in _names(cls):
        raise UsageError(f"{where}: no setting named {key!r}", hint=f"did you mean {elsewhere[key]}?")
    if key not in _names(cls) and "params" in _names(cls):
        return {"params": {key: value}}
    if key not in _names(cls):
        raise UsageError(f"{where}: no setting named {key!r}", hint=nearest(key, _names(cls)))
    wanted = get_type_hints(cls)[key]
    field: Field[Any] = cls.__dataclass_fields__[key]
    converted = _convert(value, wanted)
    if converted is MISSING:
        kind = _kind_of(wanted)
        default = f", for example {field.default!r}" if field.default is not MISSING else ""
        raise UsageError(f"{where}: {key} is {value!r}, expected {kind}{default}")
    return {key: converted}


def _kind_of(wanted: Any) -> str:
    if get_origin(wanted) is Literal:
        return " or ".join(map(str, get_args(wanted)))
    if get_origin(wanted) is tuple:
        return f"one or more {get_args(wanted)[0].__name__}, with commas between"
    return wanted.__name__ if isinstance(wanted, type) and not get_args(wanted) else str(wanted)


def _convert(value: Any, wanted: Any) -> Any:
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (int, float, str, bool):
        return value if type(value) is wanted else MISSING
    if get_origin(wanted) is tuple:
        inner = get_args(wanted)[0]
        items = value if isinstance(value, list | tuple) or not isinstance(value, str | int | float) else [value]
        if not isinstance(items, list | tuple):
            return MISSING
        converted = [_convert(_number(item) if inner in (int, float) else item, inner) for item in items]
        return MISSING if any(item is MISSING for item in converted) else tuple(converted)
    if get_origin(wanted) in (dict, Mapping):
        return dict(value) if isinstance(value, Mapping) else MISSING
    if get_origin(wanted) is Literal:
        return value if value in get_args(wanted) else MISSING
    options = get_args(wanted)
    if options:  # a union such as float | None
        if value is None:
            return None if type(None) in options else MISSING
        found = [_convert(value, option) for option in options if option is not type(None)]
        return next((item for item in found if item is not MISSING), MISSING)
    return MISSING


def _number(item: Any) -> Any:
    """Turn a word of a list with commas into the number that it is, where it is one."""
    try:
        return tomllib.loads(f"value = {item}")["value"] if isinstance(item, str) else item
    except tomllib.TOMLDecodeError:
        return item


def _parse(raw: str) -> Any:
    lowered = raw.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return [item.strip() for item in raw.split(",")] if "," in raw else raw
