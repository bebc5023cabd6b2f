"""The 18 gestures: where the fingers go, how the hand is held there, and what it then does.

Directions are in the frame of the person who is touched: `out` of the surface, `up` the spine, `front` of the body,
`inward` from the dominant to the other side. Sizes are of a person of 1.70 m; the figures are our own reading of what
the gestures are, calibrated on the study's published distributions.
"""

from dataclasses import dataclass
from typing import Literal

STRAIGHT = "Seated Straight"
LEAN = "Seated Lean Non Dom - FACE DOWN"
BACK = "Lie on Back"
SIDE = "Lie on Side - Non Dominant"
ORIENTATIONS = (STRAIGHT, LEAN, BACK, SIDE)

Mix = tuple[float, float, float, float]
"""Weights of out, up, front and inward."""

Place = Literal["head", "neck", "thigh", "air", "table"]


@dataclass(frozen=True)
class Reach:
    """Where the hand goes and how it is held there.

    Parameters
    ----------
    place
        What `at` is relative to.
    at
        head: degrees towards the dominant side, degrees up, m off the surface. neck: degrees towards the dominant
        side, share of the neck's length, m off. thigh: share of the distance to the knee, degrees towards the dominant
        side, m off. air, table: m in front of, inward of and above the shoulder (air) or the table's edge (table), to
        the wrist itself.
    fingers
        Direction from the wrist to the fingertips.
    palm
        Direction that the palm faces; the device sits on that side of the wrist.
    holds
        What is in the hand.
    """

    place: Place
    at: tuple[float, float, float]
    fingers: Mix
    palm: Mix
    holds: Literal["nothing", "cup", "phone"] = "nothing"


@dataclass(frozen=True)
class Motion:
    """What the wrist does while the gesture lasts.

    Parameters
    ----------
    rate_hz
        Strokes a second; 0 means one stroke in the whole gesture.
    stroke
        m along out, up and sideways (towards the other side) of the main stroke.
    second
        m along the same directions of a second oscillation.
    ratio
        Its frequency over that of the main stroke.
    pulse
        0 a smooth swing both ways, 1 a slow pull with a quick release one way.
    roll_deg
        Swing of the forearm about its own axis.
    drift
        m sideways from the beginning to the end.
    """

    rate_hz: float
    stroke: tuple[float, float, float]
    second: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ratio: float = 2.0
    pulse: float = 0.0
    roll_deg: float = 0.0
    drift: float = 0.0


@dataclass(frozen=True)
class Gesture:
    """One gesture of the study.

    Parameters
    ----------
    name
        As in the study.
    target
        Body-focused repetitive behaviour or not.
    orientations
        In which it is recorded.
    reach, motion
        Where and what.
    extra_frames
        How many frames longer than usual the movement to the target takes.
    """

    name: str
    target: bool
    orientations: tuple[str, ...]
    reach: Reach
    motion: Motion
    extra_frames: int = 0


_NOT_LEAN = (STRAIGHT, BACK, SIDE)

GESTURES = (
    Gesture(
        "Above ear - pull hair",
        True,
        ORIENTATIONS,
        Reach("head", (88, 24, 0.005), (-0.55, 0.55, -0.45, 0.0), (-1.0, 0.0, -0.2, 0.0)),
        Motion(1.1, (0.022, -0.008, 0.0), (0.0, 0.004, 0.004), 2.0, 0.7, 7.0),
    ),
    Gesture(
        "Forehead - pull hairline",
        True,
        ORIENTATIONS,
        Reach("head", (22, 58, 0.005), (-0.50, 0.60, -0.25, 0.25), (-0.9, 0.0, -0.35, 0.0)),
        Motion(1.1, (0.020, 0.008, 0.0), (0.0, 0.004, 0.004), 2.0, 0.7, 7.0),
    ),
    Gesture(
        "Forehead - scratch",
        True,
        ORIENTATIONS,
        Reach("head", (16, 42, 0.004), (-0.50, 0.60, -0.15, 0.30), (-0.9, 0.0, -0.35, 0.0)),
        Motion(2.9, (0.002, 0.009, 0.006), (0.002, 0.003, 0.0), 1.0, 0.0, 8.0),
    ),
    Gesture(
        "Eyebrow - pull hair",
        True,
        ORIENTATIONS,
        Reach("head", (28, 22, 0.004), (-0.55, 0.60, -0.10, 0.30), (-0.9, 0.0, -0.30, 0.0)),
        Motion(1.15, (0.015, 0.003, -0.004), (0.002, 0.003, 0.003), 2.0, 0.7, 6.0),
    ),
    Gesture(
        "Eyelash - pull hair",
        True,
        ORIENTATIONS,
        Reach("head", (26, 8, 0.006), (-0.60, 0.55, -0.10, 0.30), (-0.9, 0.0, -0.30, 0.0)),
        Motion(1.2, (0.013, -0.005, 0.0), (0.002, 0.002, 0.002), 2.0, 0.75, 5.0),
    ),
    Gesture(
        "Neck - pinch skin",
        True,
        ORIENTATIONS,
        Reach("neck", (55, 0.45, 0.006), (-0.75, 0.25, -0.25, 0.30), (-0.9, 0.0, -0.35, 0.0)),
        Motion(1.2, (0.010, 0.002, 0.002), (0.002, 0.002, 0.002), 2.0, 0.45, 8.0),
    ),
    Gesture(
        "Neck - scratch",
        True,
        ORIENTATIONS,
        Reach("neck", (68, 0.50, 0.005), (-0.70, 0.30, -0.35, 0.20), (-0.9, 0.0, -0.35, 0.0)),
        Motion(2.8, (0.002, 0.011, 0.004), (0.002, 0.003, 0.003), 1.0, 0.0, 9.0),
        4,
    ),
    Gesture(
        "Cheek - pinch skin",
        True,
        ORIENTATIONS,
        Reach("head", (42, -24, 0.005), (-0.65, 0.50, -0.10, 0.25), (-0.9, 0.0, -0.30, 0.0)),
        Motion(1.2, (0.010, -0.003, 0.002), (0.002, 0.002, 0.002), 2.0, 0.45, 8.0),
    ),
    Gesture(
        "Text on phone",
        False,
        ORIENTATIONS,
        Reach("air", (0.27, 0.16, -0.13), (0.0, 0.35, 0.60, 0.55), (0.0, 0.60, -0.70, 0.25), "phone"),
        Motion(2.6, (0.0015, 0.0015, 0.0010), (0.0005, 0.0010, 0.0010), 2.7, 0.2, 2.5),
        17,
    ),
    Gesture(
        "Wave hello",
        False,
        _NOT_LEAN,
        Reach("air", (0.24, -0.10, 0.20), (0.0, 1.0, 0.10, 0.05), (0.0, 0.0, 1.0, 0.10)),
        Motion(1.8, (0.0, 0.006, 0.045), (0.006, 0.006, 0.0), 2.0, 0.0, 14.0),
        2,
    ),
    Gesture(
        "Write name in air",
        False,
        _NOT_LEAN,
        Reach("air", (0.36, 0.05, 0.06), (0.0, 0.35, 0.85, 0.15), (0.0, -0.65, 0.25, 0.60)),
        Motion(1.1, (0.005, 0.036, 0.016), (0.003, 0.012, 0.018), 1.37, 0.0, 6.0, 0.10),
    ),
    Gesture(
        "Pull air toward your face",
        False,
        _NOT_LEAN,
        Reach("air", (0.28, 0.10, 0.12), (0.0, 0.70, -0.20, 0.55), (0.0, 0.10, -0.95, 0.25)),
        Motion(1.2, (0.055, 0.014, 0.006), (0.006, 0.012, 0.0), 2.0, 0.25, 10.0),
    ),
    Gesture(
        "Drink from bottle/cup",
        False,
        (STRAIGHT,),
        Reach("head", (18, -38, 0.075), (-0.30, 0.20, 0.10, 0.80), (-0.55, -0.05, 0.10, 0.70), "cup"),
        Motion(0.0, (0.030, 0.050, 0.010), (0.006, 0.010, 0.0), 2.0, 0.0, 26.0),
        12,
    ),
    Gesture(
        "Glasses on/off",
        False,
        (STRAIGHT,),
        Reach("head", (60, 10, 0.020), (-0.60, 0.60, -0.20, 0.15), (-0.9, 0.0, -0.10, 0.10)),
        Motion(0.0, (0.130, -0.050, 0.020), (0.010, 0.014, 0.010), 3.0, 0.2, 16.0),
        10,
    ),
    Gesture(
        "Feel around in tray and pull out an object",
        False,
        (STRAIGHT,),
        Reach("table", (0.16, 0.00, 0.085), (0.0, -0.35, 0.85, 0.20), (0.0, -1.0, 0.05, 0.15)),
        Motion(0.9, (0.030, 0.018, 0.040), (0.020, 0.014, 0.025), 1.61, 0.0, 15.0),
        27,
    ),
    Gesture(
        "Pinch knee/leg skin",
        False,
        (LEAN,),
        Reach("thigh", (0.78, 8, 0.006), (-0.68, 0.0, 0.75, 0.10), (-1.0, 0.0, 0.05, 0.10)),
        Motion(1.2, (0.010, 0.003, 0.002), (0.002, 0.002, 0.002), 2.0, 0.45, 7.0),
    ),
    Gesture(
        "Scratch knee/leg skin",
        False,
        (LEAN,),
        Reach("thigh", (0.74, 6, 0.006), (-0.60, 0.0, 0.80, 0.10), (-1.0, 0.0, 0.05, 0.10)),
        Motion(2.7, (0.003, 0.014, 0.006), (0.002, 0.003, 0.003), 1.0, 0.0, 7.0),
        2,
    ),
    Gesture(
        "Write name on leg",
        False,
        (LEAN,),
        Reach("thigh", (0.66, 4, 0.002), (-0.46, 0.0, 0.80, 0.30), (-1.0, 0.0, 0.05, 0.25)),
        Motion(1.5, (0.002, 0.014, 0.012), (0.001, 0.008, 0.010), 1.43, 0.0, 6.0, 0.05),
    ),
)

COMBINATIONS = tuple((gesture, name) for gesture in range(len(GESTURES)) for name in GESTURES[gesture].orientations)
"""The 51 combinations (position in GESTURES, orientation) that exist."""
