"""A two-segment arm: where the elbow is, and how the forearm and the device on it are turned.

Source of the two-link solution: D. Tolani, A. Goswami, N. Badler, "Real-time inverse kinematics techniques for
anthropomorphic limbs", Graphical Models 62 (2000).
"""

import numpy as np

from bfrbctl.arrays.ragged import Float64

_SOFTNESS = 0.015
"""m; over how much the arm eases into being straight, so that speed stays continuous."""


def unit(v: Float64) -> Float64:
    """Scale vectors to length 1: float64, (..., 3)."""
    return np.asarray(v / np.sqrt(np.einsum("...i,...i->...", v, v))[..., None])


def dot(a: Float64, b: Float64) -> Float64:
    """Dot product of the last axis, kept as an axis of one: float64, (..., 1)."""
    return np.asarray(np.einsum("...i,...i->...", a, b)[..., None])


def bend(shoulder: Float64, wrist: Float64, pole: Float64, lengths: tuple[float, float]) -> tuple[Float64, Float64]:
    """Solve a two-segment arm.

    Parameters
    ----------
    shoulder, wrist
        float64, (n, 3), m. A wrist beyond reach is drawn in along its own direction.
    pole
        float64, (n, 3): where the elbow points.
    lengths
        m; upper arm and forearm.

    Returns
    -------
    Elbow and wrist as reached: float64, (n, 3), m.
    """
    upper, lower = lengths
    offset = wrist - shoulder
    asked = np.sqrt(dot(offset, offset))
    longest, shortest = 0.985 * (upper + lower), 1.15 * abs(upper - lower) + 0.06
    distance = asked - _SOFTNESS * np.logaddexp(0.0, (asked - longest) / _SOFTNESS)
    distance = distance + _SOFTNESS * np.logaddexp(0.0, (shortest - distance) / _SOFTNESS)
    along = offset / asked
    reach = (upper**2 - lower**2 + distance**2) / (2.0 * distance)
    side = np.sqrt(np.maximum(upper**2 - reach**2, 1e-6))
    across = unit(pole - dot(pole, along) * along)
    return shoulder + reach * along + side * across, shoulder + distance * along


def forearm_axes(elbow: Float64, wrist: Float64, palm: Float64, roll: Float64) -> Float64:
    """Turn the forearm so that its inner side faces as the palm does.

    Parameters
    ----------
    elbow, wrist
        float64, (n, 3), m.
    palm
        float64, (n, 3): where the palm should face.
    roll
        float64, (n,), rad: extra turn about the forearm.

    Returns
    -------
    float64, (n, 3, 3): columns x (thumb), y (towards the hand), z (out of the inner side of the wrist).
    """
    y = unit(wrist - elbow)
    z = unit(palm - dot(palm, y) * y)
    x = np.cross(y, z)
    cosine, sine = np.cos(roll)[:, None], np.sin(roll)[:, None]
    z = cosine * z + sine * x
    return np.stack([np.cross(y, z), y, z], axis=-1)
