"""Features of the whole recording: who wears the device, what was measured, how the hand is held and turned."""

from functools import lru_cache

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64
from bfrbctl.features.table.blocks import ratio
from bfrbctl.features.table.signals import Extra, SignalBlock
from bfrbctl.recordings.dataset import IMU, THM, TOF, Column
from bfrbctl.schema import DEMOGRAPHICS, SensorLayout


@lru_cache(maxsize=32)
def _describe_presence(layout: SensorLayout) -> tuple[Column, ...]:
    flags = [
        Column("n_frames", "presence", IMU, "frame", "number of frames"),
        Column("duration", "presence", IMU, "s", "n_frames / rate_hz"),
        Column("rot_measured", "presence", IMU, "1", "share of frames with a measured quaternion"),
    ]
    if layout.thm:
        formula = "share of frames where any thermopile measured"
        flags.append(Column("thm_measured", "presence", THM, "1", formula, when_missing=0.0))
    if layout.tof:
        formula = "share of frames where any ToF pixel was measured"
        flags.append(Column("tof_measured", "presence", TOF, "1", formula, when_missing=0.0))
    return tuple(flags)


def _presence(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    flags = ("rot_present", *(("thm_present",) if layout.thm else ()), *(("tof_present",) if layout.tof else ()))
    lengths = signals.lengths.astype(np.float64)
    return [lengths, lengths / signals.rate_hz, *signals.block(flags).mean]


_PERSON_UNITS = {"age": "year", "height_cm": "cm", "shoulder_to_wrist_cm": "cm", "elbow_to_wrist_cm": "cm"}
_REACH_UNIT = "cm"


@lru_cache(maxsize=32)
def _describe_person(layout: SensorLayout) -> tuple[Column, ...]:
    return tuple(
        Column(name, "person", "person", _PERSON_UNITS.get(name, "1"), f"{name} of the wearer") for name in DEMOGRAPHICS
    )


def _person(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    return list(signals.demographics.T)


_UP = ("up_x", "up_y", "up_z")


@lru_cache(maxsize=32)
def _describe_orientation(layout: SensorLayout) -> tuple[Column, ...]:
    def column(name: str, unit: str, formula: str) -> Column:
        return Column(name, "orientation", IMU, unit, formula)

    return (
        column("tilt_change", "rad", "angle between the mean vertical of the first and of the last third"),
        column("tilt_spread", "1", "1 - |mean of up| over all frames: 0 when the hand keeps its tilt"),
        column("tilt_spread_last", "1", "1 - |mean of up| over the last third"),
        column("turn_total", "rad", "sum of turn: the whole path of rotation"),
        column("turn_net", "rad", "angle between the first and the last orientation"),
        column("turn_ratio", "1", "turn_net / turn_total"),
        *(
            column(f"reach_{axis}", _REACH_UNIT, f"elbow_to_wrist_cm x (mean up_{axis} in last third - in first third)")
            for axis in "xyz"
        ),
        *(
            column(f"height_{axis}", _REACH_UNIT, f"elbow_to_wrist_cm x mean up_{axis} over the last 32 frames")
            for axis in "xyz"
        ),
    )


def _orientation(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    up = signals.block(_UP)
    first, last = (up.window(name).mean for name in ("first", "last"))
    turns = signals.block(("turn",))
    # the last frame's turn repeats the one before and is no way travelled
    steps = np.where(np.arange(turns.values.shape[-1]) < signals.lengths[:, None] - 1, turns.filled[0], 0.0)
    total = np.where(turns.count[0] > 0, steps.sum(axis=-1), np.nan)
    net = _net_turn(signals)
    forearm = signals.demographics[:, DEMOGRAPHICS.index("elbow_to_wrist_cm")]
    return [
        _angle(first, last),
        1.0 - _norm(up.mean),
        1.0 - _norm(last),
        total,
        net,
        ratio(net, total),
        *(forearm * (last - first)),
        *(forearm * up.window("last32").mean),
    ]


def _net_turn(signals: SignalBlock) -> Float64:
    quat = signals.block(("quat_x", "quat_y", "quat_z", "quat_w")).values
    end = np.take_along_axis(quat, (signals.lengths - 1)[None, :, None], axis=-1)[..., 0]
    dot = _dot(quat[..., 0], end)
    apart = end * np.where(dot < 0, -1.0, 1.0) - quat[..., 0]
    # |q1 - q0| = 2 sin(angle / 4): well conditioned at small angles, unlike arccos of the dot product
    return np.asarray(4.0 * np.arcsin(np.minimum(_norm(apart) / 2.0, 1.0)))


def _angle(a: Float64, b: Float64) -> Float64:
    cross = np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
    return np.asarray(np.arctan2(_norm(cross), _dot(a, b)))


def _dot(a: Float64, b: Float64) -> Float64:
    total = a[0] * b[0]
    for one, other in zip(a[1:], b[1:], strict=True):
        total = total + one * other
    return np.asarray(total)


def _norm(a: Float64) -> Float64:
    return np.asarray(np.sqrt(_dot(a, a)))


EXTRAS = (
    Extra(_describe_presence, _presence),
    Extra(_describe_person, _person),
    Extra(_describe_orientation, _orientation),
)
