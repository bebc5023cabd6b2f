"""Frame channels of the IMU: acceleration, rotation, and what follows from both."""

import numpy as np

from bfrbctl.arrays import quaternions
from bfrbctl.arrays.ragged import AnyArray, Float64, differences
from bfrbctl.features.channels.canonical import Canonical
from bfrbctl.recordings.dataset import IMU, Column

ACCELERATION = "m/s^2"
DIEBEL = "J. Diebel, Representing Attitude, 2006"
ZHOU = "Zhou et al., On the Continuity of Rotation Representations, 2019"


def channels(recordings: Canonical) -> dict[str, Float64]:
    """Compute the IMU's frame channels.

    Returns
    -------
    name -> float64, (n_frames,), in the order of `describe`; NaN where missing.
    """
    rate_hz, offsets = recordings.rate_hz, recordings.offsets
    acc, rot = recordings.acc, recordings.rot
    linear = acc - recordings.gravity
    world = quaternions.rotate(rot, linear)
    jerk = differences(linear, offsets) * rate_hz
    gyro = quaternions.angular_velocity(rot, offsets, rate_hz=rate_hz)
    gyro_mag = magnitude(gyro)
    up = recordings.gravity / magnitude(recordings.gravity)[:, None]
    return {
        **_xyz("acc", acc),
        "acc_mag": magnitude(acc),
        **_xyz("lin", linear),
        "lin_mag": magnitude(linear),
        **_xyz("world", world),
        "world_horizontal": np.sqrt(world[:, 0] ** 2 + world[:, 1] ** 2),
        **_xyz("jerk", jerk),
        "jerk_mag": magnitude(jerk),
        **_xyz("snap", differences(jerk, offsets) * rate_hz),
        **_xyz("up", up),
        **_numbered("quat", rot, "xyzw"),
        **_numbered("rot6d", quaternions.matrix(rot)[:, :, :2].transpose(0, 2, 1).reshape(-1, 6), "123456"),
        **_xyz("gyro", gyro),
        "gyro_mag": gyro_mag,
        "turn": gyro_mag / rate_hz,
        **_xyz("gyro_rate", differences(gyro, offsets) * rate_hz),
        "rot_present": recordings.measured_rot.astype(np.float64),
    }


def describe() -> tuple[Column, ...]:
    """Say what the IMU's frame channels are."""
    measured = "measured acceleration, gravity included, device frame"
    velocity = "rotvec(R[t]^T R[t+1]) x rate_hz, device frame"
    return (
        *_axes("acc", measured, unit=ACCELERATION),
        _column("acc_mag", "|acc|", unit=ACCELERATION),
        *_axes("lin", "acc - R^T (0, 0, 9.81), device frame", unit=ACCELERATION),
        _column("lin_mag", "|lin|", unit=ACCELERATION),
        *_axes("world", "R lin, world frame", unit=ACCELERATION, source=DIEBEL),
        _column("world_horizontal", "sqrt(world_x^2 + world_y^2)", unit=ACCELERATION),
        *_axes("jerk", "(lin[t] - lin[t-1]) x rate_hz", unit="m/s^3"),
        _column("jerk_mag", "|jerk|", unit="m/s^3"),
        *_axes("snap", "(jerk[t] - jerk[t-1]) x rate_hz", unit="m/s^4"),
        *_rotation_columns(),
        *_axes("gyro", velocity, unit="rad/s", source=DIEBEL),
        _column("gyro_mag", "|gyro|", unit="rad/s"),
        _column("turn", "angle between the orientations of this frame and the next", unit="rad"),
        *_axes("gyro_rate", "(gyro[t] - gyro[t-1]) x rate_hz", unit="rad/s^2"),
        Column("rot_present", "presence", IMU, "1", "1 where the quaternion was measured, 0 where it was filled in"),
    )


def _rotation_columns() -> tuple[Column, ...]:
    formulas = {f"up_{axis}": f"{axis} of the world's vertical in the device frame, R^T (0, 0, 1)" for axis in "xyz"}
    formulas |= {f"quat_{axis}": f"{axis} of the quaternion, continuous sign" for axis in "xyzw"}
    formulas |= {f"rot6d_{i + 1}": f"R[{i % 3}, {i // 3}]: first two columns of R" for i in range(6)}
    sources = {"up": DIEBEL, "rot6d": ZHOU}
    return tuple(
        Column(name, "rotation", IMU, "1", formula, sources.get(name.split("_")[0], ""))
        for name, formula in formulas.items()
    )


def magnitude(vectors: AnyArray) -> Float64:
    """Give the length of each row of (n_rows, 3)."""
    x, y, z = vectors.T
    return np.asarray(np.sqrt(x * x + y * y + z * z), dtype=np.float64)


def _xyz(name: str, vectors: Float64) -> dict[str, Float64]:
    return _numbered(name, vectors, "xyz")


def _numbered(name: str, values: Float64, letters: str) -> dict[str, Float64]:
    return {f"{name}_{letter}": values[:, i] for i, letter in enumerate(letters)}


def _axes(name: str, formula: str, *, unit: str, source: str = "") -> tuple[Column, ...]:
    return tuple(_column(f"{name}_{axis}", f"{axis} of {formula}", unit=unit, source=source) for axis in "xyz")


def _column(name: str, formula: str, *, unit: str, source: str = "") -> Column:
    return Column(name=name, family="motion", modality=IMU, unit=unit, formula=formula, source=source)
