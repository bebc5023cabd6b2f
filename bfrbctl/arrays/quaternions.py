"""Unit-quaternion maths, xyzw, device to world, on whole arrays (..., 4).

Source of the formulas: J. Diebel, "Representing Attitude" (Stanford, 2006), with the scalar part last.
NaN in, NaN out.
"""

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64, Int64, neighbours

_MIRROR = np.array([1.0, -1.0, -1.0, 1.0])


def multiply(p: AnyArray, q: AnyArray) -> Float64:
    """Multiply quaternions: first rotate by q, then by p.

    Parameters
    ----------
    p, q
        float, (..., 4) xyzw, broadcast against each other.

    Returns
    -------
    float64, (..., 4) xyzw.
    """
    px, py, pz, pw = np.moveaxis(np.asarray(p, dtype=np.float64), -1, 0)
    qx, qy, qz, qw = np.moveaxis(np.asarray(q, dtype=np.float64), -1, 0)
    return np.stack(
        [
            pw * qx + px * qw + py * qz - pz * qy,
            pw * qy - px * qz + py * qw + pz * qx,
            pw * qz + px * qy - py * qx + pz * qw,
            pw * qw - px * qx - py * qy - pz * qz,
        ],
        axis=-1,
    )


def inverse(q: AnyArray) -> Float64:
    """Give the inverse rotation of unit quaternions: float64, (..., 4) xyzw."""
    return np.asarray(np.asarray(q, dtype=np.float64) * np.array([-1.0, -1.0, -1.0, 1.0]))


def rotate(q: AnyArray, v: AnyArray) -> Float64:
    """Rotate vectors from the device to the world frame.

    Parameters
    ----------
    q
        float, (..., 4) xyzw, unit.
    v
        float, (..., 3), any unit.

    Returns
    -------
    float64, (..., 3), in the unit of v.
    """
    q64 = np.asarray(q, dtype=np.float64)
    v64 = np.asarray(v, dtype=np.float64)
    axis, w = q64[..., :3], q64[..., 3:]
    t = 2.0 * _cross(axis, v64)
    return np.asarray(v64 + w * t + _cross(axis, t))


def matrix(q: AnyArray) -> Float64:
    """Give rotation matrices: float64, (..., 3, 3); matrix(q) @ v == rotate(q, v)."""
    x, y, z, w = np.moveaxis(np.asarray(q, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotvec(q: AnyArray) -> Float64:
    """Give rotation vectors (axis times angle in 0..pi) of unit quaternions.

    Returns
    -------
    float64, (..., 3), rad. The shorter way round is taken, whatever the sign of q.
    """
    q64 = np.asarray(q, dtype=np.float64)
    q64 = np.where(q64[..., 3:] < 0, -q64, q64)
    axis, w = q64[..., :3], q64[..., 3]
    sine = np.sqrt(axis[..., 0] ** 2 + axis[..., 1] ** 2 + axis[..., 2] ** 2)
    angle = 2.0 * np.arctan2(sine, w)
    small = sine < 1e-8
    scale = np.where(small, 2.0, angle / np.where(small, 1.0, sine))
    return np.asarray(axis * scale[..., None])


def from_rotvec(v: AnyArray) -> Float64:
    """Give unit quaternions of rotation vectors: (..., 3) rad -> float64, (..., 4) xyzw."""
    v64 = np.asarray(v, dtype=np.float64)
    angle = np.sqrt(v64[..., 0] ** 2 + v64[..., 1] ** 2 + v64[..., 2] ** 2)
    half = 0.5 * angle
    small = angle < 1e-8
    scale = np.where(small, 0.5, np.sin(half) / np.where(small, 1.0, angle))
    return np.concatenate([v64 * scale[..., None], np.cos(half)[..., None]], axis=-1)


def continuous(q: AnyArray, offsets: Int64) -> Float64:
    """Choose the sign of each quaternion so that neighbours inside a segment never jump.

    Parameters
    ----------
    q
        float, (n_frames, 4) xyzw; NaN rows are kept and do not break the chain of signs.
    offsets
        int64, (n_segments + 1,).

    Returns
    -------
    float64, (n_frames, 4): the same rotations; the first valid one of each segment keeps its sign.
    """
    out = np.array(q, dtype=np.float64)
    valid = np.flatnonzero(~np.isnan(out).any(axis=1))
    if valid.size < 2:
        return out
    segment = np.searchsorted(offsets, valid, side="right")
    dots = np.sum(out[valid[1:]] * out[valid[:-1]], axis=1)
    same = segment[1:] == segment[:-1]
    flips = np.concatenate([[0], np.cumsum((dots < 0) & same)])
    starts = np.concatenate([[True], ~same])
    first = np.maximum.accumulate(np.where(starts, np.arange(valid.size), 0))
    negative = (flips - flips[first]) % 2 == 1
    out[valid[negative]] *= -1.0
    return out


def slerp(q0: AnyArray, q1: AnyArray, t: AnyArray) -> Float64:
    """Interpolate between unit quaternions at constant angular speed, the shorter way.

    Parameters
    ----------
    q0, q1
        float, (..., 4) xyzw.
    t
        float, (...,), 0 gives q0, 1 gives q1.

    Returns
    -------
    float64, (..., 4) xyzw.
    """
    step = rotvec(multiply(inverse(q0), q1))
    return multiply(q0, from_rotvec(step * np.asarray(t, dtype=np.float64)[..., None]))


def normalised(q: AnyArray) -> Float64:
    """Scale quaternions to unit length: float64, (..., 4); all NaN where one is (almost) zero or partly NaN."""
    q64 = np.asarray(q, dtype=np.float64)
    x, y, z, w = np.moveaxis(q64, -1, 0)
    norm = np.sqrt(x * x + y * y + z * z + w * w)
    norm = np.where(norm > 1e-6, norm, np.nan)
    return np.asarray(q64 / norm[..., None])


def interpolated(q: AnyArray, offsets: Int64) -> Float64:
    """Fill missing quaternions by slerp inside each segment; hold the nearest one before the first and after the last.

    Parameters
    ----------
    q
        float, (n_frames, 4) xyzw; NaN where missing.
    offsets
        int64, (n_segments + 1,).

    Returns
    -------
    float64, (n_frames, 4); a segment without any quaternion stays NaN.
    """
    out = np.array(q, dtype=np.float64)
    missing = np.isnan(out).any(axis=1)
    if not missing.any():
        return out
    before, after = neighbours(np.asarray(~missing), offsets)
    gaps = np.flatnonzero(missing)
    left, right = before[gaps], after[gaps]
    inside = (left >= 0) & (right >= 0)
    nearest = np.where(inside | (left >= 0), left, right)
    filled = np.where(nearest[:, None] >= 0, out[nearest], np.nan)
    share = (gaps - left)[inside] / (right - left)[inside]
    filled[inside] = slerp(out[left[inside]], out[right[inside]], share)
    out[gaps] = filled
    return out


def angular_velocity(q: AnyArray, offsets: Int64, *, rate_hz: float) -> Float64:
    """Give the angular velocity in the device frame, rotvec(R_t^T R_(t+1)) x rate.

    Parameters
    ----------
    q
        float, (n_frames, 4) xyzw, without gaps inside a segment.
    offsets
        int64, (n_segments + 1,).
    rate_hz
        Frames a second.

    Returns
    -------
    float64, (n_frames, 3), rad/s. The last frame of a segment repeats the one before; NaN for a segment of one frame.
    """
    q64 = np.asarray(q, dtype=np.float64)
    out = np.full((len(q64), 3), np.nan)
    if len(q64) > 1:
        out[:-1] = rotvec(multiply(inverse(q64[:-1]), q64[1:])) * rate_hz
    lengths = np.diff(offsets)
    last = offsets[1:][lengths > 1] - 1
    out[last] = out[last - 1]
    out[offsets[:-1][lengths == 1]] = np.nan
    return out


def up_vector(q: AnyArray) -> Float64:
    """Give the world's vertical in the device frame, R^T (0, 0, 1): float64, (..., 3)."""
    x, y, z, w = np.moveaxis(np.asarray(q, dtype=np.float64), -1, 0)
    return np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=-1)


def mirrored(q: AnyArray) -> Float64:
    """Mirror rotations in the device's x axis, R' = M R M with M = diag(-1, 1, 1): y and z change sign."""
    return np.asarray(np.asarray(q, dtype=np.float64) * _MIRROR)


def turned(q: AnyArray) -> Float64:
    """Turn the device by 180 degrees about its own z axis, q (0, 0, 1, 0): (x, y, z, w) -> (y, -x, w, -z)."""
    x, y, z, w = np.moveaxis(np.asarray(q, dtype=np.float64), -1, 0)
    return np.stack([y, -x, w, -z], axis=-1)


def _cross(a: Float64, b: Float64) -> Float64:
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
