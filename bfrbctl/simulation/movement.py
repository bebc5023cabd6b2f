"""What the dominant arm does over time: rest, a minimum-jerk reach, a pause, the gesture.

A plan holds one row a sequence; `pose` evaluates it at any instants, so that accelerations are exact second
differences of a smooth path whatever the frame rate. Source of the reach: T. Flash and N. Hogan, "The coordination of
arm movements", Journal of Neuroscience 5 (1985): s = 10 u^3 - 15 u^4 + 6 u^5.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Float64, Int64
from bfrbctl.simulation.arm import bend, forearm_axes, unit
from bfrbctl.simulation.person import Person


@dataclass(frozen=True)
class Plan:
    """Everything that the arm will do, a row a sequence, body frame.

    Parameters
    ----------
    shoulder
        float64, (n, 3), m.
    wrist, palm, fingers, pole
        float64, (n, 2, 3): at the start and at the target; wrist in m, the others directions.
    bulge
        float64, (n, 3), m: how far the path bends off the straight line half-way.
    twist
        float64, (n, 3): direction that the palm passes during the movement.
    move_start, move_end, gesture_start, gesture_end
        float64, (n,), s.
    rate
        float64, (n,), strokes a second.
    stroke, second, drift
        float64, (n, 3), m: main oscillation, second one, displacement over the gesture.
    ratio, pulse, roll, lag
        float64, (n,): frequency of the second over the first, shape of the main stroke, swing of the forearm in rad,
        its phase in rad.
    jitter
        float64, (n, 3): depth in rad, frequency in Hz and phase of the stroke's unevenness.
    envelope
        float64, (n, 3): depth 0..1, frequency in Hz and phase of the stroke's waxing and waning.
    idle
        float64, (n, 2, 3, 3, 3): at rest and at the target, three waves, for each axis: amplitude in m, Hz, phase.
    turn
        float64, (n, 3, 3): three waves of the forearm's slow turning: amplitude in rad, Hz, phase.
    """

    shoulder: Float64
    wrist: Float64
    palm: Float64
    fingers: Float64
    pole: Float64
    bulge: Float64
    twist: Float64
    move_start: Float64
    move_end: Float64
    gesture_start: Float64
    gesture_end: Float64
    rate: Float64
    stroke: Float64
    second: Float64
    drift: Float64
    ratio: Float64
    pulse: Float64
    roll: Float64
    lag: Float64
    jitter: Float64
    envelope: Float64
    idle: Float64
    turn: Float64


@dataclass(frozen=True)
class Pose:
    """The arm at n instants, body frame.

    Parameters
    ----------
    elbow, wrist
        float64, (n, 3), m.
    axes
        float64, (n, 3, 3): columns thumb, towards the hand, out of the inner side of the wrist.
    fingers, palm
        float64, (n, 3): unit directions of the hand.
    """

    elbow: Float64
    wrist: Float64
    axes: Float64
    fingers: Float64
    palm: Float64


def minimum_jerk(u: Float64) -> Float64:
    """Share of the path done at share u of the time, 0 before and 1 after.

    >>> minimum_jerk(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    array([0. , 0. , 0.5, 1. , 1. ])
    """
    u = np.clip(u, 0.0, 1.0)
    return np.asarray(u**3 * (10.0 - 15.0 * u + 6.0 * u * u))


def waveform(phase: Float64, pulse: Float64) -> Float64:
    """Displacement of a stroke: sin(phase) when pulse is 0, a slow pull and a quick release when it is 1.

    Parameters
    ----------
    phase
        float64, rad.
    pulse
        float64, 0..1, broadcast.

    Returns
    -------
    float64, -1..1.
    """
    skewed = np.sin(phase + 0.75 * pulse * np.sin(phase))
    return np.asarray((1.0 - pulse) * np.sin(phase) + pulse * (2.0 * (0.5 + 0.5 * skewed) ** 2 - 1.0))


def pose(plan: Plan, person: Person, sequence: Int64, time: Float64) -> Pose:
    """Evaluate a plan.

    Parameters
    ----------
    plan
        Of one person.
    person
        For the lengths of the arm.
    sequence
        int64, (n,): which row of the plan.
    time
        float64, (n,), s since the sequence began.
    """
    span = plan.move_end - plan.move_start
    s = minimum_jerk((time - plan.move_start[sequence]) / span[sequence])[:, None]
    middle = 4.0 * s * (1.0 - s)
    stroke, roll = _gesture(plan, sequence, time)
    start, target = plan.wrist[sequence, 0], plan.wrist[sequence, 1]
    wrist = start + (target - start) * s + plan.bulge[sequence] * middle + stroke
    wander = _waves(plan.idle[sequence], time)  # (n, 2, 3)
    wrist = wrist + wander[:, 0] * (1.0 - s) + wander[:, 1] * s
    palm = _between(plan.palm[sequence], s) + plan.twist[sequence] * middle
    fingers = unit(_between(plan.fingers[sequence], s) + 0.2 * plan.twist[sequence] * middle)
    elbow, wrist = bend(
        plan.shoulder[sequence], wrist, _between(plan.pole[sequence], s), (person.upper_arm, person.forearm)
    )
    slow = plan.turn[sequence]
    roll = roll + np.sum(slow[..., 0] * np.sin(2 * np.pi * slow[..., 1] * time[:, None] + slow[..., 2]), axis=1)
    axes = forearm_axes(elbow, wrist, palm, roll)
    return Pose(elbow=elbow, wrist=wrist, axes=axes, fingers=fingers, palm=axes[..., 2])


def _gesture(plan: Plan, sequence: Int64, time: Float64) -> tuple[Float64, Float64]:
    """Displacement of the wrist, (n, 3) m, and swing of the forearm, (n,) rad, that the gesture itself adds."""
    since = time - plan.gesture_start[sequence]
    left = plan.gesture_end[sequence] - time
    on = minimum_jerk(since / 0.5) * minimum_jerk((left + 0.35) / 0.5)
    depth, rate, at = plan.jitter[sequence].T
    phase = 2 * np.pi * plan.rate[sequence] * since + depth * np.sin(2 * np.pi * rate * since + at)
    waning, slow, when = plan.envelope[sequence].T
    size = on * (1.0 - waning * (0.5 + 0.5 * np.sin(2 * np.pi * slow * since + when)))
    main = (size * waveform(phase, plan.pulse[sequence]))[:, None]
    other = (size * np.sin(plan.ratio[sequence] * phase + plan.lag[sequence]))[:, None]
    length = plan.gesture_end[sequence] - plan.gesture_start[sequence]
    gone = (minimum_jerk(since / length) * on)[:, None]
    moved = plan.stroke[sequence] * main + plan.second[sequence] * other + plan.drift[sequence] * gone
    return moved, plan.roll[sequence] * size * waveform(phase + plan.lag[sequence], plan.pulse[sequence])


def _between(pair: Float64, s: Float64) -> Float64:
    return np.asarray(pair[:, 0] * (1.0 - s) + pair[:, 1] * s)


def _waves(waves: Float64, time: Float64) -> Float64:
    """Sum three waves: (n, ..., 3, 3, 3) of (wave, axis, [size, Hz, phase]) at (n,) s -> (n, ..., 3)."""
    size, rate, at = np.moveaxis(waves, -1, 0)
    t = time.reshape((-1,) + (1,) * (size.ndim - 1))
    return np.asarray((size * np.sin(2 * np.pi * rate * t + at)).sum(axis=-2))
