"""The JSON spec beside the weights: what a network is, strictly checked when read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bfrbctl.artefacts.files import parse_json
from bfrbctl.errors import ArtefactError
from bfrbctl.models.keras.inputs import MAX_LENGTH, STEP, InputPlan
from bfrbctl.models.keras.network.layout import HELIOS, NetworkSpec

FORMAT = 4
"""1 did not tell of postures; helios had another layout in 1 and 2, of which two-branch networks are read; up to 3 no
layer's width could be set by itself."""

_HELIOS_SINCE = 3

MAX_BYTES = 4 * 2**20
MAX_CHANNELS = 4096
MAX_MEMBERS = 100
MAX_NAME = 200


@dataclass(frozen=True)
class ModelSpec:
    """What the networks of a fold are.

    Parameters
    ----------
    network
        Sizes.
    inputs
        Channels in order, length, padding.
    classes, targets
        Names of gestures or joint labels, and one flag each.
    rate_hz
        Frames a second of the recordings they were trained on.
    """

    network: NetworkSpec
    inputs: InputPlan
    classes: tuple[str, ...]
    targets: tuple[bool, ...]
    rate_hz: float


def encode_spec(spec: ModelSpec, n_members: int, summary: Mapping[str, Any]) -> bytes:
    """Write a spec as JSON: the same spec, the same bytes."""
    content = {"format": FORMAT, "n_members": n_members, "summary": dict(summary), **asdict(spec)}
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode_spec(content: bytes, *, classes: tuple[str, ...]) -> tuple[ModelSpec, int, dict[str, Any]]:
    """Read a spec from anybody.

    Returns
    -------
    The spec, how many networks there are, and the summary.

    Raises
    ------
    ArtefactError
        When it is not one that `encode_spec` could have written for these classes.
    """
    if len(content) > MAX_BYTES:
        raise ArtefactError(f"the model's spec has {len(content)} bytes, expected at most {MAX_BYTES}")
    found = parse_json(content, "the model's spec")
    wanted = {"format", "n_members", "summary", "network", "inputs", "classes", "targets", "rate_hz"}
    if not isinstance(found, dict) or set(found) != wanted:
        raise ArtefactError(f"the model's spec has not the fields {', '.join(sorted(wanted))}")
    if type(found["format"]) is not int or not 1 <= found["format"] <= FORMAT:
        raise ArtefactError(f"the model's format is {found['format']!r}, expected {FORMAT}", hint="update bfrbctl")
    spec = ModelSpec(
        network=_network(found["network"], found["format"]),
        inputs=_inputs(found["inputs"]),
        classes=_names(found["classes"], "classes"),
        targets=tuple(_list(found["targets"], bool, "targets")),
        rate_hz=float(_number(found["rate_hz"], "rate_hz", 1e-3, 1e5)),
    )
    _check_together(spec, classes)
    n_members = _whole(found["n_members"], "n_members", 1, MAX_MEMBERS)
    if not isinstance(found["summary"], dict):
        raise ArtefactError("the model's summary is not an object")
    return spec, n_members, found["summary"]


def _network(found: Any, written_as: int) -> NetworkSpec:
    if written_as < _HELIOS_SINCE and isinstance(found, dict) and found.get("network") == HELIOS:
        raise ArtefactError("the model is a helios network of an earlier layout", hint="train it again")
    if written_as == 1 and isinstance(found, dict):
        found = {"n_orientations": 0, **found}
    if written_as < FORMAT and isinstance(found, dict):
        found = {"filters": [], "units": [], **found}
    fields = _fields(found, NetworkSpec)
    for name, kind in NetworkSpec.__annotations__.items():
        if kind is float:
            fields[name] = float(_number(fields[name], name, 0.0, 1e6))
        elif name in ("filters", "units"):
            fields[name] = tuple(_list(fields[name], int, name))
        elif type(fields[name]) is not kind:
            raise ArtefactError(f"the model's {name} is {fields[name]!r}, expected {kind.__name__}")
    spec = NetworkSpec(**fields)
    spec.check()
    return spec


def _inputs(found: Any) -> InputPlan:
    fields = _fields(found, InputPlan)
    other = _names(fields["other"], "other")
    plan = InputPlan(
        imu=_names(fields["imu"], "imu"),
        other=other,
        single=tuple(_list(fields["single"], int, "single")),
        n_tof=_whole(fields["n_tof"], "n_tof", 0, 64),
        length=_whole(fields["length"], "length", STEP, MAX_LENGTH),
        pad=str(fields["pad"]),
    )
    if plan.pad not in ("left", "right") or plan.length % STEP:
        raise ArtefactError(
            f"the model pads {plan.pad!r} to {plan.length}, expected left or right, a multiple of {STEP}"
        )
    if not all(0 <= position < len(other) for position in plan.single) or len(set(plan.single)) != len(plan.single):
        raise ArtefactError("the model's single channels are not positions of its other channels")
    return plan


def _check_together(spec: ModelSpec, classes: tuple[str, ...]) -> None:
    network, inputs = spec.network, spec.inputs
    if spec.classes != classes:
        raise ArtefactError(f"the model has {len(spec.classes)} classes that are not the {len(classes)} of its folder")
    if len(spec.targets) != len(classes) or network.n_classes != len(classes):
        raise ArtefactError(f"the model's targets and outputs are not one for each of {len(classes)} classes")
    if (network.n_imu, network.n_other, network.n_tof) != (inputs.n_imu, inputs.n_other, inputs.n_tof):
        raise ArtefactError("the model's channels are not those of its network")
    if set(inputs.imu) & set(inputs.other):
        raise ArtefactError("the model reads a channel twice")


def _fields(found: Any, kind: Any) -> dict[str, Any]:
    names = set(kind.__annotations__)
    if not isinstance(found, dict) or set(found) != names:
        raise ArtefactError(f"the model's spec has not the fields {', '.join(sorted(names))} where it should")
    return dict(found)


def _list(found: Any, kind: type[Any], what: str) -> list[Any]:
    if not isinstance(found, list) or len(found) > MAX_CHANNELS or any(type(item) is not kind for item in found):
        raise ArtefactError(f"the model's {what} is not a list of at most {MAX_CHANNELS} {kind.__name__}")
    return found


def _names(found: Any, what: str) -> tuple[str, ...]:
    names = _list(found, str, what)
    if len(set(names)) != len(names) or any(not 0 < len(name) <= MAX_NAME for name in names):
        raise ArtefactError(f"the model's {what} are not different names of at most {MAX_NAME} characters")
    return tuple(names)


def _number(found: Any, what: str, low: float, high: float) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
        raise ArtefactError(f"the model's {what} is {found!r}, expected a number from {low:g} to {high:g}")
    return found


def _whole(found: Any, what: str, low: int, high: int) -> int:
    if type(found) is not int or not low <= found <= high:
        raise ArtefactError(f"the model's {what} is {found!r}, expected a whole number from {low} to {high}")
    return found
