"""Frame channels of the IMU: acceleration, rotation, and what follows from both."""

import numpy as np

from bfrbctl import rotation
from bfrbctl.dataset import IMU, Column
from bfrbctl.features.canonical import Canonical
from bfrbctl.segments import AnyArray, Float64, differences

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
    world = rotation.rotate(rot, linear)
    jerk = differences(linear, offsets) * rate_hz
    gyro = rotation.angular_velocity(rot, offsets, rate_hz=rate_hz)
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
        **_numbered("rot6d", rotation.matrix(rot)[:, :, :2].transpose(0, 2, 1).reshape(-1, 6), "123456"),
        **_xyz("gyro", gyro),
        "gyro_mag": gyro_mag,
        "turn": gyro_mag / rate_hz,
        **_xyz("gyro_rate", differences(gyro, offsets) * rate_hz),
        "rot_present": recordings.measured_rot.astype(np.float64),
    }


def describe() -> tuple[Column, ...]:
    """Say what the IMU's frame channels are."""
    return (
        *_axes("acc", "motion", ACCELERATION, "measured acceleration, gravity included, device frame"),
        _column("acc_mag", "motion", ACCELERATION, "|acc|"),
        *_axes("lin", "motion", ACCELERATION, "acc - R^T (0, 0, 9.81), device frame"),
        _column("lin_mag", "motion", ACCELERATION, "|lin|"),
        *_axes("world", "motion", ACCELERATION, "R lin, world frame", DIEBEL),
        _column("world_horizontal", "motion", ACCELERATION, "sqrt(world_x^2 + world_y^2)"),
        *_axes("jerk", "motion", "m/s^3", "(lin[t] - lin[t-1]) x rate_hz"),
        _column("jerk_mag", "motion", "m/s^3", "|jerk|"),
        *_axes("snap", "motion", "m/s^4", "(jerk[t] - jerk[t-1]) x rate_hz"),
        *_axes("up", "rotation", "1", "the world's vertical in the device frame, R^T (0, 0, 1)", DIEBEL),
        *(_column(f"quat_{axis}", "rotation", "1", f"{axis} of the quaternion, continuous sign") for axis in "xyzw"),
        *(
            _column(f"rot6d_{i + 1}", "rotation", "1", f"R[{i % 3}, {i // 3}]: first two columns of R", ZHOU)
            for i in range(6)
        ),
        *_axes("gyro", "motion", "rad/s", "rotvec(R[t]^T R[t+1]) x rate_hz, device frame", DIEBEL),
        _column("gyro_mag", "motion", "rad/s", "|gyro|"),
        _column("turn", "motion", "rad", "angle between the orientations of this frame and the next"),
        *_axes("gyro_rate", "motion", "rad/s^2", "(gyro[t] - gyro[t-1]) x rate_hz"),
        _column("rot_present", "presence", "1", "1 where the quaternion was measured, 0 where it was filled in"),
    )


def magnitude(vectors: AnyArray) -> Float64:
    """Give the length of each row of (n_rows, 3)."""
    x, y, z = vectors.T
    return np.asarray(np.sqrt(x * x + y * y + z * z), dtype=np.float64)


def _xyz(name: str, vectors: Float64) -> dict[str, Float64]:
    return _numbered(name, vectors, "xyz")


def _numbered(name: str, values: Float64, letters: str) -> dict[str, Float64]:
    return {f"{name}_{letter}": values[:, i] for i, letter in enumerate(letters)}


def _axes(name: str, family: str, unit: str, formula: str, source: str = "") -> tuple[Column, ...]:
    return tuple(_column(f"{name}_{axis}", family, unit, f"{axis} of {formula}", source) for axis in "xyz")


def _column(name: str, family: str, unit: str, formula: str, source: str = "") -> Column:
    return Column(name=name, family=family, modality=IMU, unit=unit, formula=formula, source=source)
