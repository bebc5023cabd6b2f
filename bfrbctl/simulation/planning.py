"""From a person to a session: the order of its 102 sequences, their lengths, and what the arm will do.

Style is drawn at three levels: the person (tempo, size, strap), the person's form of one gesture or of holding the body
in one orientation, and the single repetition.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Float64, Int64
from bfrbctl.simulation.gestures import COMBINATIONS, GESTURES, Gesture
from bfrbctl.simulation.movement import Plan
from bfrbctl.simulation.person import Person
from bfrbctl.simulation.posture import Posture, hold_body, personal_lean
from bfrbctl.simulation.reaching import Deviation, Hold, draw_deviation, other_hold, rest_hold, target_hold
from bfrbctl.simulation.settings import SimulationConfig

RELAXES = "Relaxes and moves hand to target location"
MOVES = "Moves hand to target location"
WAITS = "Hand at target location"
PERFORMS = "Performs gesture"
FIRST_BEHAVIOURS = (RELAXES, MOVES)

_REPEAT = 0.45
"""Deviation of a repetition from its person's form, relative to the deviation between persons."""

_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.9995, 1.0)
_LENGTHS_S = (3.3, 4.2, 4.5, 4.95, 5.6, 7.4, 9.9, 12.2, 20.0, 45.0, 68.0)
"""Quantiles of a sequence's length, s, before a gesture's own extra; after the study's table of lengths."""


@dataclass(frozen=True)
class Session:
    """What one person will do, a row a sequence in the order of recording.

    Parameters
    ----------
    gesture
        int64, (n,): position in GESTURES.
    orientation, first_behaviour
        Names, n of them.
    frames
        int64, (n, 3): frames of the first behaviour, the pause and the gesture.
    postures
        How the body is held, n of them.
    plan
        What the arm does.
    """

    gesture: Int64
    orientation: tuple[str, ...]
    first_behaviour: tuple[str, ...]
    frames: Int64
    postures: tuple[Posture, ...]
    plan: Plan


def draw_session(person: Person, rng: np.random.Generator, config: SimulationConfig) -> Session:
    """Plan the 102 sequences of one person, in random order.

    Parameters
    ----------
    person
        Who.
    rng
        Generator of this person's session alone.
    config
        Frame rate and variation.
    """
    variation, repeat = config.personal_variation, config.repeat_variation
    lean = personal_lean(rng, variation)
    deviations = [draw_deviation(rng, variation) for _ in GESTURES]
    manner = rng.normal(0.0, variation, 3)
    wanted = [(gesture, name, first) for gesture, name in COMBINATIONS for first in FIRST_BEHAVIOURS]
    order = [wanted[i] for i in rng.permutation(len(wanted))]
    gesture = np.array([row[0] for row in order], dtype=np.int64)
    frames = _draw_frames(rng, gesture, config.rate_hz)
    postures = tuple(hold_body(person, name, lean[name] + rng.normal(0.0, 0.06 * repeat, 3)) for _, name, _ in order)
    rows = []
    for i, (number, _, first) in enumerate(order):
        deviation = deviations[number].plus(draw_deviation(rng, _REPEAT * repeat))
        target, strokes = target_hold(person, GESTURES[number], postures[i], deviation)
        slip = draw_deviation(rng, 0.5 * repeat)
        if first == RELAXES:
            start = rest_hold(person, postures[i], slip, manner + rng.normal(0.0, 0.35 * repeat, 3))
        else:
            start = other_hold(person, postures[i], slip, rng)
        row = _ends(postures[i], start, target, rng) | _stroke(person, GESTURES[number], deviation, strokes, rng)
        rows.append(row | _timing(person, GESTURES[number], frames[i] / config.rate_hz, deviation, rng))
    plan = Plan(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return Session(gesture, tuple(row[1] for row in order), tuple(row[2] for row in order), frames, postures, plan)


def _draw_frames(rng: np.random.Generator, gesture: Int64, rate_hz: float) -> Int64:
    """Frames of the first behaviour, the pause and the gesture: int64, (n, 3), each at least 1."""
    n = gesture.size
    total = np.interp(rng.random(n), _SHARES, _LENGTHS_S)
    # The movement to a phone or into a tray takes some persons much longer than others.
    extra = np.array([g.extra_frames for g in GESTURES])[gesture] / 10.0
    total = total + extra * np.exp(rng.normal(-0.03, 0.25, n))
    doing = np.clip(rng.normal(3.08, 0.22, n) + 0.25 * rng.exponential(1.0, n) * (rng.random(n) < 0.25), 2.2, 5.5)
    doing = np.where(rng.random(n) < 0.005, rng.uniform(0.3, 1.2, n), doing)
    waiting = np.clip(np.exp(rng.normal(np.log(0.85), 0.30, n)), 0.3, 3.0)
    moving = np.maximum(total - doing - waiting, 0.7)
    return np.maximum(np.rint(np.stack([moving, waiting, doing], axis=1) * rate_hz), 1).astype(np.int64)


def _ends(posture: Posture, start: Hold, target: Hold, rng: np.random.Generator) -> dict[str, Float64]:
    idle = np.empty((2, 3, 3, 3))
    sizes = (0.010 * np.exp(rng.normal(0.0, 0.6)), 0.0035 * np.exp(rng.normal(0.0, 0.4)))
    for end, size in enumerate(sizes):
        idle[end, ..., 0] = size * rng.normal(0.0, 1.0, (3, 3)) / np.array([1.0, 1.6, 3.0])[:, None]
        idle[end, ..., 1] = np.array([0.10, 0.35, 0.9])[:, None] * np.exp(rng.normal(0.0, 0.25, (3, 3)))
        idle[end, ..., 2] = rng.uniform(0.0, 2 * np.pi, (3, 3))
    turn = np.empty((3, 3))
    turn[:, 0] = 0.05 * rng.normal(0.0, 1.0, 3)
    turn[:, 1] = (0.08, 0.3, 0.8) * np.exp(rng.normal(0.0, 0.25, 3))
    turn[:, 2] = rng.uniform(0.0, 2 * np.pi, 3)
    return {
        "shoulder": posture.shoulder,
        "wrist": np.stack([start.wrist, target.wrist]),
        "palm": np.stack([start.palm, target.palm]),
        "fingers": np.stack([start.fingers, target.fingers]),
        "pole": np.stack([start.pole, target.pole]),
        "bulge": np.array([rng.uniform(0.02, 0.10), -0.03, 0.0]) + rng.normal(0.0, 0.02, 3),
        "twist": np.array([0.0, 0.35, 0.0]) + rng.normal(0.0, 0.25, 3),
        "idle": idle,
        "turn": turn,
    }


def _stroke(
    person: Person, gesture: Gesture, deviation: Deviation, strokes: Float64, rng: np.random.Generator
) -> dict[str, Float64]:
    motion = gesture.motion
    scale = person.amplitude * person.height / 1.70
    size = scale * np.exp(deviation.size)
    second = scale * np.exp(rng.normal(0.0, 0.4, 3))
    return {
        "stroke": (np.asarray(motion.stroke) * size) @ strokes,
        "second": (np.asarray(motion.second) * second) @ strokes,
        "drift": motion.drift * scale * np.exp(rng.normal(0.0, 0.3)) * strokes[2],
        "ratio": np.asarray(motion.ratio * np.exp(rng.normal(0.0, 0.05))),
        "pulse": np.asarray(np.clip(motion.pulse + deviation.pulse, 0.0, 1.0)),
        "roll": np.asarray(np.radians(motion.roll_deg) * person.amplitude * np.exp(deviation.roll)),
        "lag": np.asarray(deviation.lag),
        "jitter": np.array([abs(rng.normal(0.0, 0.7)), rng.uniform(0.15, 0.5), rng.uniform(0.0, 2 * np.pi)]),
        "envelope": np.array([rng.uniform(0.0, 0.7), rng.uniform(0.1, 0.5), rng.uniform(0.0, 2 * np.pi)]),
    }


def _timing(
    person: Person, gesture: Gesture, seconds: Float64, deviation: Deviation, rng: np.random.Generator
) -> dict[str, Float64]:
    """When the hand really moves; the labels are those of an observer and differ a little."""
    reached = seconds[0] + rng.normal(0.0, 0.15)
    duration = np.clip(1.15 * person.speed * np.exp(rng.normal(0.0, 0.18)), 0.6, 3.0)
    begun = max(reached - duration, min(0.1, 0.2 * reached))
    start = seconds[0] + seconds[1] + rng.normal(0.0, 0.15)
    end = float(seconds.sum()) + rng.normal(0.1, 0.2)
    motion = gesture.motion
    rate = motion.rate_hz * person.frequency * np.exp(deviation.rate) if motion.rate_hz else 1.0 / seconds[2]
    return {
        "move_start": np.asarray(begun),
        "move_end": np.asarray(max(reached, begun + 0.5)),
        "gesture_start": np.asarray(start),
        "gesture_end": np.asarray(max(end, start + 0.2)),
        "rate": np.asarray(rate),
    }
