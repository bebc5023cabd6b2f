"""Where the hand is before a gesture and at its target: wrist, fingers, palm and elbow, body frame, right-handed."""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Float64
from bfrbctl.simulation.arm import unit
from bfrbctl.simulation.gestures import Gesture, Mix
from bfrbctl.simulation.person import Person
from bfrbctl.simulation.posture import Posture

TABLE_HEIGHT = 0.12
"""m above the hips; the table stands in front of a person who sits straight."""

TABLE_EDGE = 0.22
"""m in front of the hips."""

_ARM = 0.516
"""m; shoulder to wrist of the person that distances in the air refer to."""


@dataclass(frozen=True)
class Hold:
    """Hand and arm at one end of a movement: float64, (3,) each; wrist in m, the others directions."""

    wrist: Float64
    palm: Float64
    fingers: Float64
    pole: Float64


@dataclass(frozen=True)
class Deviation:
    """How a person, or one repetition, deviates from the standard form of a gesture.

    Parameters
    ----------
    place
        float64, (3,), m: along the body's axes.
    palm, fingers, pole
        float64, (3,): added to the unit directions.
    size, rate, roll
        Logarithms of factors on strokes, their rate and the forearm's swing.
    lag
        rad; phase of the forearm's swing.
    pulse
        Added to the shape of the stroke.
    """

    place: Float64
    palm: Float64
    fingers: Float64
    pole: Float64
    size: Float64
    rate: float
    roll: float
    lag: float
    pulse: float

    def plus(self, other: "Deviation") -> "Deviation":
        """Add the deviation of a repetition to that of its person."""
        return Deviation(
            self.place + other.place,
            self.palm + other.palm,
            self.fingers + other.fingers,
            self.pole + other.pole,
            self.size + other.size,
            self.rate + other.rate,
            self.roll + other.roll,
            self.lag + other.lag,
            self.pulse + other.pulse,
        )


def draw_deviation(rng: np.random.Generator, scale: float) -> Deviation:
    """Draw a deviation; scale 1 is the variation between persons who do the same gesture."""
    return Deviation(
        place=rng.normal(0.0, 0.010 * scale, 3),
        palm=rng.normal(0.0, 0.25 * scale, 3),
        fingers=rng.normal(0.0, 0.30 * scale, 3),
        pole=rng.normal(0.0, 0.34 * scale, 3),
        size=rng.normal(0.0, 0.34 * scale, 3),
        rate=float(rng.normal(0.0, 0.18 * scale)),
        roll=float(rng.normal(0.0, 0.45 * scale)),
        lag=float(rng.normal(0.0, 1.2 * scale)),
        pulse=float(rng.normal(0.0, 0.25 * scale)),
    )


def target_hold(person: Person, gesture: Gesture, posture: Posture, deviation: Deviation) -> tuple[Hold, Float64]:
    """Give the hold at a gesture's target.

    Returns
    -------
    The hold, and the axes of the gesture's strokes: float64, (3, 3), rows out, up and sideways.
    """
    point, frame = _touched(person, gesture, posture)
    fingers = unit(_mixed(frame, gesture.reach.fingers) + deviation.fingers)
    palm = unit(_mixed(frame, gesture.reach.palm) + deviation.palm)
    in_air = gesture.reach.place in ("air", "table")
    wrist = point + deviation.place * (3.0 if in_air else 1.0)
    if not in_air:
        wrist = wrist - 0.92 * person.hand * fingers
    out = frame[0]
    up = unit(frame[1] - (frame[1] @ out) * out)
    strokes = np.stack([out, up, np.cross(up, out)])
    return Hold(wrist, palm, fingers, _pole(posture, deviation)), strokes


def rest_hold(person: Person, posture: Posture, deviation: Deviation, manner: Float64) -> Hold:
    """Give the hold at rest: on the thigh when seated, on the belly or beside the body when lying.

    Parameters
    ----------
    manner
        float64, (3,), standard normal: how this person lets the palm lie, and where.
    """
    down = posture.down
    left = np.array([0.0, 1.0, 0.0])
    if posture.seated:
        thigh = posture.knee - posture.hip
        fingers = unit(unit(thigh) + 0.25 * left + 0.5 * deviation.fingers)
        wrist = (
            posture.hip + (0.42 + 0.08 * manner[1]) * thigh - down * (0.115 + 0.012 * abs(manner[2])) + deviation.place
        )
        turn = np.radians(np.clip(42.0 + 40.0 * manner[0], -30.0, 185.0))
        palm = -np.cos(turn) * down + np.sin(turn) * left
    elif down[0] < -0.5:  # on the back
        if manner[1] > -0.3:
            wrist = np.array([0.16, -0.10 + 0.03 * manner[2], 0.10 * person.height]) + deviation.place
            fingers, palm = unit(np.array([-0.1, 0.9, 0.1])), np.array([-0.8, 0.25 * manner[0], 0.4])
        else:
            wrist = np.array([0.0, -0.30 - 0.02 * manner[2], 0.0]) + deviation.place
            fingers, palm = np.array([0.05, 0.0, -1.0]), np.array([0.5, 0.8 + 0.3 * manner[0], 0.0])
    else:
        wrist = np.array([0.26, 0.10 + 0.03 * manner[2], 0.13 * person.height]) + deviation.place
        fingers, palm = unit(np.array([0.7, 0.35, 0.2])), down + 0.4 * manner[0] * np.array([0.0, 0.0, 1.0])
    return Hold(wrist, unit(palm + 0.5 * deviation.palm), fingers, _pole(posture, deviation))


def other_hold(person: Person, posture: Posture, deviation: Deviation, rng: np.random.Generator) -> Hold:
    """Give a hold somewhere in front of the body, where the hand happens to be before it moves."""
    scale = (person.upper_arm + person.forearm) / _ARM
    low, high = np.array([0.16, -0.02, -0.42]), np.array([0.38, 0.24, -0.10])
    wrist = posture.shoulder + scale * rng.uniform(low, high)
    palm = unit(np.array([-0.1, 0.5, -0.2]) + rng.normal(0.0, 0.5, 3) + 0.3 * posture.down)
    fingers = unit(np.array([0.8, 0.4, 0.1]) + rng.normal(0.0, 0.3, 3))
    return Hold(wrist, palm, fingers, _pole(posture, deviation))


def _touched(person: Person, gesture: Gesture, posture: Posture) -> tuple[Float64, Float64]:
    """Point aimed at, (3,) m, and the local directions out, up, front and inward as rows, (4, 3)."""
    at, place = gesture.reach.at, gesture.reach.place
    body = np.eye(3)
    if place == "head":
        side, lift = np.radians(at[0]), np.radians(at[1])
        ball = np.array([np.cos(lift) * np.cos(side), -np.cos(lift) * np.sin(side), np.sin(lift)])
        out = posture.head_axes @ unit(ball / posture.head_radii)
        point = posture.head + posture.head_axes @ (posture.head_radii * ball)
        axes = posture.head_axes.T
        return point + at[2] * out, np.stack([out, axes[2], axes[0], axes[1]])
    if place == "neck":
        turn = np.radians(at[0])
        out = np.array([np.cos(turn), -np.sin(turn), 0.0])
        point = posture.neck_low + at[1] * (posture.neck_high - posture.neck_low)
        return point + (0.056 * person.head_scale + at[2]) * out, np.stack([out, body[2], body[0], body[1]])
    if place == "thigh":
        along = unit(posture.knee - posture.hip)
        above = unit(-posture.down + (posture.down @ along) * along)
        out = unit(above + np.tan(np.radians(at[1])) * np.array([0.0, -1.0, 0.0]))
        point = posture.hip + at[0] * (posture.knee - posture.hip)
        return point + (0.043 * person.height + at[2]) * out, np.stack([out, along, along, body[1]])
    if place == "air":
        scale = (person.upper_arm + person.forearm) / _ARM
        return posture.shoulder + scale * np.array(at), body[[0, 2, 0, 1]]
    room = posture.room.T
    point = room @ (np.array([TABLE_EDGE, posture.shoulder[1] + 0.06, TABLE_HEIGHT]) + np.array(at))
    return point, np.stack([-posture.down, room[:, 0], room[:, 0], room[:, 1]])


def _mixed(frame: Float64, weights: Mix) -> Float64:
    return np.asarray(np.asarray(weights) @ frame)


def _pole(posture: Posture, deviation: Deviation) -> Float64:
    """Where the elbow points: down and outwards when upright, to the side on the back, in front on the side."""
    down = posture.down
    if posture.seated:
        base = 0.75 * down + np.array([0.0, -0.45, -0.35])
    elif down[0] < -0.5:
        base = np.array([0.10, -0.70, -0.45])
    else:
        base = 0.30 * down + np.array([0.50, 0.0, -0.55])
    return unit(base + deviation.pole)
