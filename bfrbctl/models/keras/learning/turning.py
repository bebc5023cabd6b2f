"""Turn the person or the strap, in channels computed already.

Turning the person about the vertical (heading) leaves what the device feels unchanged and turns all that is told in
the world frame. Turning the strap about the forearm, the device's y axis, turns all that is told in the device frame.
Both are done on the scaled frames of a batch: see `inputs.fit_scaler` for why that is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32

DEVICE_VECTORS = ("acc", "lin", "jerk", "snap", "up", "gyro", "gyro_rate")
"""Channels <name>_x, _y, _z that are a vector in the device frame."""

WORLD_VECTORS = ("world",)
"""The same in the world frame, z up."""

QUATERNION = tuple(f"quat_{axis}" for axis in "xyzw")
SIXD = tuple(f"rot6d_{number}" for number in range(1, 7))

Group = tuple[int, ...]


@dataclass(frozen=True)
class Turned:
    """Columns of the frames that a rotation changes.

    Parameters
    ----------
    device, world
        Columns of x, y, z of each vector in the device or world frame.
    quaternion
        Columns of x, y, z, w; empty where the frames have no rotation.
    sixd
        Columns of the first two columns of the rotation matrix; empty where there are none.
    """

    device: tuple[Group, ...]
    world: tuple[Group, ...]
    quaternion: Group
    sixd: Group


def find_turned(names: Sequence[str]) -> Turned:
    """Find by name the columns that a rotation changes; a vector counts only with all its components."""
    at = {name: position for position, name in enumerate(names)}

    def columns(wanted: Sequence[str]) -> Group:
        return tuple(at[name] for name in wanted) if all(name in at for name in wanted) else ()

    def vectors(stems: Sequence[str]) -> tuple[Group, ...]:
        found = (columns([f"{stem}_{axis}" for axis in "xyz"]) for stem in stems)
        return tuple(group for group in found if group)

    return Turned(
        device=vectors(DEVICE_VECTORS),
        world=vectors(WORLD_VECTORS),
        quaternion=columns(QUATERNION),
        sixd=columns(SIXD),
    )


def turn_heading(frames: Float32, turned: Turned, angles: AnyArray) -> None:
    """Turn each sequence's person about the vertical, in place.

    Parameters
    ----------
    frames
        float32, (batch, time, n_columns).
    turned
        Which columns.
    angles
        float, (batch,), rad.
    """
    cosine, sine = _shares(angles)
    pairs = [group[:2] for group in turned.world]
    if turned.sixd:
        pairs += [turned.sixd[0:2], turned.sixd[3:5]]
    for x, y in pairs:
        _rotate(frames, x, y, cosine=cosine, sine=sine)
    if turned.quaternion:
        half_cosine, half_sine = _shares(np.asarray(angles) / 2.0)
        x, y, z, w = turned.quaternion  # (0, 0, s, c) * q turns (x, y) and (w, z) by half the angle
        _rotate(frames, x, y, cosine=half_cosine, sine=half_sine)
        _rotate(frames, w, z, cosine=half_cosine, sine=half_sine)


def turn_strap(frames: Float32, turned: Turned, angles: AnyArray) -> None:
    """Turn each sequence's device about the forearm (its y axis), in place; arguments as in `turn_heading`."""
    cosine, sine = _shares(angles)
    for x, _, z in turned.device:
        _rotate(frames, z, x, cosine=cosine, sine=sine)
    if turned.sixd:
        first = frames[:, :, list(turned.sixd[:3])]
        third = _cross(first, frames[:, :, list(turned.sixd[3:])])
        frames[:, :, list(turned.sixd[:3])] = cosine[..., None] * first + sine[..., None] * third
    if turned.quaternion:
        half_cosine, half_sine = _shares(np.asarray(angles) / 2.0)
        x, y, z, w = turned.quaternion  # q * (0, -s, 0, c) turns (x, z) by minus and (w, y) by minus half the angle
        _rotate(frames, z, x, cosine=half_cosine, sine=half_sine)
        _rotate(frames, y, w, cosine=half_cosine, sine=half_sine)


def _shares(angles: AnyArray) -> tuple[Float32, Float32]:
    column = np.asarray(angles, dtype=np.float32)[:, None]
    return np.cos(column), np.sin(column)


def _rotate(frames: Float32, first: int, second: int, *, cosine: Float32, sine: Float32) -> None:
    """Rotate the plane of two columns: first towards second by the angle."""
    a, b = frames[:, :, first].copy(), frames[:, :, second].copy()
    frames[:, :, first] = cosine * a - sine * b
    frames[:, :, second] = sine * a + cosine * b


def _cross(a: Float32, b: Float32) -> Float32:
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
