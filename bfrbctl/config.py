"""Settings of every stage: defaults in a model, a TOML file over them, --set key=value over that; validated once.

A stage's settings are a frozen pydantic model derived from `Settings`. Each field has a default, its bounds or choices
and a description of one line; messages, the commented TOML file and the tables of the documentation come from these.
"""

import difflib
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticUndefined

from bfrbctl.errors import MAX_EXAMPLES, UsageError

EARLIER = "the interrupted run"
"""Where the values of a run that is continued come from."""

_DECIMAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")
"""A number with a point; TOML alone would ask for digits on both sides of it."""

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_SEVERAL = {int: "a list of whole numbers", float: "a list of numbers", str: "a list of names"}
_WIDTH = 100


class Settings(BaseModel):
    """Settings of one stage: strict types, no unknown names, UsageError for what does not fit.

    Derived classes declare fields with `pydantic.Field(default, ge=..., le=..., description=...)`. A list, or one value
    alone, is taken where a field is a tuple, and a whole number where it is a float; nothing else is converted. A
    validator raises `expected(...)` for a value that does not fit, or UsageError with words of its own.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    ELSEWHERE: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """What other tools call a setting -> the setting to suggest."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if get_origin(annotation) is not tuple:
            return value
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        return items if get_args(annotation)[0] is str else tuple(map(_number, items))

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise _usage_error(cls, error, data, info.context or {}) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the settings with some of them changed, validated as when they are built."""
        return type(self)(**{**dict(self), **(update or {})})


T = TypeVar("T", bound=Settings)


def expected(text: str, hint: str = "") -> PydanticCustomError:
    """Make the error that a validator of a field raises: what was expected, and what to do.

    The message that the user reads names the setting, its value, and the file or option that it came from.
    """
    return PydanticCustomError("expected", "expected {text}", {"text": text, "hint": hint})


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
        A class of settings.
    earlier
        Settings of the run that is continued, which need not be given again.
    file
        TOML file with some of the settings at top level; stronger than `earlier`.
    overrides
        `key=value` strings as given by --set; stronger than the file.
    options
        Settings given by options of their own; None means not given. Stronger than all others.

    Raises
    ------
    UsageError
        Unknown name (the nearest is suggested), wrong type, value out of range, unreadable file.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in (earlier or {}).items():
        _put(cls, key, value, EARLIER, values, origins)
    if file is not None:
        for key, value in read_toml(file).items():
            _put(cls, key, value, str(file), values, origins)
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected key=value", hint=f"for example --set {_names(cls)[0]}=...")
        _put(cls, key.strip(), _parse(raw.strip()), f"--set {text}", values, origins)
    for key, value in options.items():
        if value is not None:
            _put(cls, key, value, _option(key), values, origins)
    return cls.model_validate(values, context=origins)


def from_mapping(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """Rebuild a configuration from a manifest; UsageError names `what` when a setting does not fit."""
    known: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in values.items():
        _put(cls, key, value, what, known, origins)
    return cls.model_validate(known, context=origins)


def as_mapping(config: Any) -> dict[str, Any]:
    """Give settings, or the fields of a dataclass, as JSON values; all of them, in the order of their declaration."""
    values = dict(config) if isinstance(config, BaseModel) else asdict(config)
    return {key: _plain(value) for key, value in values.items()}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; UsageError when it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not TOML or UTF-8, too many digits, nested too deep
        raise UsageError(f"{path}: is not TOML ({error})") from error


def commented_toml(cls: type[Settings]) -> str:
    """Write every setting with its description, its range or choices and its default, as a TOML file.

    `read_toml` reads the defaults back from it. A setting whose default TOML cannot write (none, or a table of further
    parameters) stands in a comment.
    """
    parts = []
    for name, field in cls.model_fields.items():
        default = _default(field)
        missing = default is None or isinstance(default, Mapping)
        value = f"# {name} =" if missing else f"{name} = {_toml(default)}"
        parts.append("\n".join([*_comment(_sentence(field)), *_comment(f"Value: {_expected(field)}."), value]))
    return "\n\n".join(parts) + "\n"


def settings_table(cls: type[Settings]) -> str:
    """Write a Markdown table of every setting: name, default, range or choices, description."""
    rows = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        default = _default(field)
        shown = "" if default is None or isinstance(default, Mapping) else f"`{_toml(default, wrap=False)}`"
        cells = (f"`{name}`", shown, _expected(field), _sentence(field))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def nearest(name: str, valid: Sequence[str]) -> str:
    """Hint for a name that does not exist: the nearest ones, else all.

    >>> nearest("learning_rat", ["learning_rate", "seed"])
    'did you mean learning_rate?'
    """
    close = difflib.get_close_matches(name, valid, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(sorted(valid))}"


def _names(cls: type[Settings]) -> list[str]:
    return list(cls.model_fields)


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _put(
    cls: type[Settings], key: str, value: Any, where: str, values: dict[str, Any], origins: dict[str, str]
) -> None:
    """Set one value, and note where it came from; `params` gathers the names that are not settings themselves."""
    names = _names(cls)
    if key not in names and key in cls.ELSEWHERE:
        raise _unknown(key, value, where, f"did you mean {cls.ELSEWHERE[key]}?")
    if key not in names and "params" not in names:
        raise _unknown(key, value, where, nearest(key, names))
    if key not in names:
        key, value = "params", {key: value}
    if key == "params" and isinstance(value, Mapping):
        value = {**values.get(key, {}), **value}
        where = where if origins.get(key, where) == where else ""  # one of several origins would mislead
    values[key], origins[key] = value, where


def _unknown(key: str, value: Any, where: str, hint: str) -> UsageError:
    return _stuck(key, value) if where == EARLIER else UsageError(f"{where}: no setting named {key!r}", hint=hint)


def _stuck(key: str, value: Any) -> UsageError:
    """Explain a setting of the run that is continued, which another version may have begun with settings of its own."""
    return UsageError(
        f"{EARLIER} has {key} = {value!r}, and this version cannot continue with that setting",
        hint="start again with --force, or continue it with the version that began it",
    )


def _usage_error(cls: type[Settings], error: ValidationError, data: Any, origins: Mapping[str, str]) -> UsageError:
    """Say which settings do not fit, where each came from, and what was expected; at most three of them."""
    first: dict[str, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        first.setdefault(str(details["loc"][0]) if details["loc"] else "", details)
    if stuck := next((name for name in first if origins.get(name) == EARLIER), None):
        return _stuck(stuck, data[stuck])
    complaints = [_complaint(cls, name, details, data, origins.get(name, "")) for name, details in first.items()]
    more = f"; and {len(complaints) - MAX_EXAMPLES} more" if len(complaints) > MAX_EXAMPLES else ""
    return UsageError(
        "; ".join(what for what, _ in complaints[:MAX_EXAMPLES]) + more,
        hint=next((hint for _, hint in complaints if hint), None),
    )


def _complaint(
    cls: type[Settings], name: str, details: ErrorDetails, data: Mapping[str, Any], where: str
) -> tuple[str, str]:
    """Explain one error of validation: what is wrong, and a hint."""
    field = cls.model_fields.get(name)
    if field is None:
        return f"no setting named {name!r}", nearest(name, _names(cls))
    if details["type"] == "missing":
        return f"{name} is missing, expected {_expected(field)}", ""
    value = data[name]
    subject = f"{where} is" if where == _option(name) else f"{where}: {name} is" if where else f"{name} is"
    if details["type"] == "expected":
        context = details["ctx"]
        return f"{subject} {_shown(value)}, expected {context['text']}", context["hint"]
    choices = _choices(field.annotation)
    numeric = details["type"].endswith(("_type", "_parsing", "from_float")) and type(field.default) in (int, float)
    example = f", for example {field.default!r}" if numeric else ""
    example = ", with commas between" if get_origin(field.annotation) is tuple else example
    hint = nearest(value, choices) if choices and isinstance(value, str) else ""
    return f"{subject} {_shown(value)}, expected {_expected(field)}{example}", hint


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(map(str, value)):
        return ", ".join(map(str, value))
    return textwrap.shorten(repr(value), 200)


def _expected(field: FieldInfo) -> str:
    """Say what a setting may be: its kind and its range, or its choices."""
    return _kind(field.annotation) + _range(field)


def _kind(annotation: Any) -> str:
    if choices := _choices(annotation):
        return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
    if get_origin(annotation) is tuple:
        return _SEVERAL[get_args(annotation)[0]]
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_kind(each) for each in get_args(annotation) if each is not type(None))
    return _WORDS.get(annotation, "a table of names and values")


def _range(field: FieldInfo) -> str:
    keys = ("ge", "gt", "le", "lt")
    found = {key: getattr(item, key) for item in field.metadata for key in keys if hasattr(item, key)}
    low, high = found.get("ge"), found.get("le")
    if low is not None and high is not None:
        return f" from {_figure(low)} to {_figure(high)}"
    bounds = [f"{_figure(low)} or more"] if low is not None else []
    bounds += [f"{word} {_figure(found[key])}" for key, word in (("gt", "above"), ("lt", "below")) if key in found]
    return f", {' and '.join(bounds)}" if bounds else ""


def _figure(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _default(field: FieldInfo) -> Any:
    found = field.get_default(call_default_factory=True, validated_data={})
    return None if found is PydanticUndefined else found


def _sentence(field: FieldInfo) -> str:
    return f"{(field.description or '').rstrip('.')}."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _toml(value: Any, *, wrap: bool = True) -> str:
    """Write a value as TOML; a long list in several lines."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if not isinstance(value, tuple):
        return repr(value)
    items = ", ".join(_toml(item) for item in value)
    if len(items) < _WIDTH or not wrap:
        return f"[{items}]"
    return "\n".join(["[", *textwrap.wrap(items, _WIDTH, initial_indent="  ", subsequent_indent="  "), "]"])


def _number(item: Any) -> Any:
    """Turn a word of a list with commas into the number that it is, where it is one."""
    found = _scalar(item) if isinstance(item, str) else item
    return found if isinstance(found, int | float) else item


def _parse(raw: str) -> Any:
    found = _scalar(raw)
    if found is not None:
        return found
    return [item.strip() for item in raw.split(",")] if "," in raw else raw


def _scalar(raw: str) -> Any:
    """Read a value as TOML does, or as Python writes it (True, .5); None where it is but a word."""
    if raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    if _DECIMAL.fullmatch(raw):
        return float(raw)
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):  # not TOML, a number of too many digits, or nested too deep
        return None
