"""How the body is held: the four orientations relative to gravity, and where shoulder, head, neck and thighs are.

The body frame has its origin between the hips; its axes are front, left and up the spine. Everything is built for a
right-handed person; `recording` mirrors the whole scene for a left-handed one. The room frame has z up.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Float64
from bfrbctl.simulation.gestures import BACK, LEAN, SIDE, STRAIGHT
from bfrbctl.simulation.person import Person

_TRUNK_DEG = {STRAIGHT: (-6.0, 0.0), LEAN: (30.0, -20.0), BACK: (-86.0, 0.0), SIDE: (4.0, -88.0)}
"""Trunk's pitch (forward positive) and roll (towards the dominant side positive) of each orientation."""

_HEAD_DEG = {STRAIGHT: 8.0, LEAN: 34.0, BACK: -2.0, SIDE: 6.0}
"""Head's pitch relative to the trunk."""


@dataclass(frozen=True)
class Posture:
    """The body in one sequence, body frame except `room`.

    Parameters
    ----------
    room
        float64, (3, 3): body to room.
    shoulder, hip, knee, neck_low, neck_high, head
        float64, (3,), m: joints of the dominant side, ends of the neck, centre of the head.
    head_axes
        float64, (3, 3): columns are the head's front, left and up.
    head_radii
        float64, (3,), m.
    seated
        Are the thighs in front?
    """

    room: Float64
    shoulder: Float64
    hip: Float64
    knee: Float64
    neck_low: Float64
    neck_high: Float64
    head: Float64
    head_axes: Float64
    head_radii: Float64
    seated: bool

    @property
    def down(self) -> Float64:
        """Direction of gravity in the body frame: float64, (3,)."""
        return np.asarray(-self.room[2])


def about(axis: int, angle: float) -> Float64:
    """Rotation matrix about x (0), y (1) or z (2): float64, (3, 3)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[i, i] = out[j, j] = cosine
    out[j, i], out[i, j] = sine, -sine
    return out


def personal_lean(rng: np.random.Generator, variation: float) -> dict[str, Float64]:
    """Draw how a person holds trunk and head in each orientation: extra pitch, roll and head pitch, rad."""
    return {name: rng.normal(0.0, np.radians(11.0) * variation, 3) for name in _TRUNK_DEG}


def hold_body(person: Person, orientation: str, lean: Float64) -> Posture:
    """Place the joints of a person in an orientation.

    Parameters
    ----------
    person
        Whose body.
    orientation
        One of the four.
    lean
        float64, (3,), rad: extra trunk pitch, trunk roll and head pitch.
    """
    pitch, roll = np.radians(_TRUNK_DEG[orientation]) + lean[:2]
    # A positive turn about the body's left tips the spine forward, about its front lifts the left side.
    room = about(0, roll) @ about(1, pitch)
    height, scale = person.height, person.head_scale
    seated = orientation in (STRAIGHT, LEAN)
    spine = 0.285 * height
    hip = np.array([0.02, -0.052 * height, 0.0])
    forward = room.T @ np.array([1.0, -0.12, 0.0]) if seated else np.array([0.02, -0.05, -1.0])
    thigh = 0.235 * height * forward / np.linalg.norm(forward)
    nod = np.radians(_HEAD_DEG[orientation]) + lean[2]
    axes = about(1, nod)
    neck_low = np.array([0.0, 0.0, spine])
    neck_high = neck_low + axes @ np.array([0.01, 0.0, 0.075 * scale])
    return Posture(
        room=room,
        shoulder=np.array([0.0, -0.113 * height, spine - 0.015]),
        hip=hip,
        knee=hip + thigh,
        neck_low=neck_low,
        neck_high=neck_high,
        head=neck_high + axes @ np.array([0.022, 0.0, 0.085 * scale]),
        head_axes=axes,
        head_radii=scale * np.array([0.098, 0.076, 0.122]),
        seated=seated,
    )
