"""The recordings of one person: from the drawn session through motion and rays to what the device stores."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
from threadpoolctl import threadpool_limits

from bfrbctl.arrays.ragged import Float64, Int64, offsets_of, segment_ids
from bfrbctl.errors import UsageError
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ACC, GESTURE_PHASE, HELIOS_LAYOUT, LABELS, NON_TARGET_TYPE, ROT, TARGET_TYPE, TOF_MISSING
from bfrbctl.simulation import device
from bfrbctl.simulation.faults import Measured, draw_faults, spoil
from bfrbctl.simulation.gestures import GESTURES
from bfrbctl.simulation.movement import Pose, pose
from bfrbctl.simulation.person import Person, draw_person
from bfrbctl.simulation.planning import PERFORMS, WAITS, Session, draw_session
from bfrbctl.simulation.posture import Posture
from bfrbctl.simulation.rays import cast
from bfrbctl.simulation.scene import Mounting, build_scene
from bfrbctl.simulation.settings import MAX_SUBJECTS, SEQUENCES_PER_SUBJECT, SPLITS, SimulationConfig

MIRROR = np.array([1.0, -1.0, 1.0])
"""Left and right of the body frame change places."""

_THUMB = np.array([-1.0, 1.0, 1.0])
"""The device's x axis turns from the thumb away from it."""

_POINTS = ("shoulder", "hip", "knee", "neck_low", "neck_high", "head")

_STEP_S = 1.0 / 60.0
"""Half the span over which an acceleration is taken; like the low-pass of the accelerometer."""


@dataclass(frozen=True)
class SimulatedSubject:
    """Everything recorded of one subject.

    Parameters
    ----------
    frames
        Raw layout: 341 columns with labels in train, 336 without in test; sorted by sequence and counter.
    labels
        The labels, one row a sequence: sequence_id, gesture, sequence_type, orientation.
    demographics
        One row.
    """

    frames: pl.DataFrame
    labels: pl.DataFrame
    demographics: pl.DataFrame

    __repr__ = short_repr


def simulate_subject(config: SimulationConfig, index: int, *, split: str) -> SimulatedSubject:
    """Simulate all sequences of one person.

    Parameters
    ----------
    config
        The study.
    index
        Number of the subject in the split, 0 to MAX_SUBJECTS - 1; may exceed the number of subjects in the study.
    split
        "train" or "test"; they have no subject in common.

    Raises
    ------
    UsageError
        For another split or index.
    """
    if split not in SPLITS:
        raise UsageError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
    if not 0 <= index < MAX_SUBJECTS:
        raise UsageError(f"subject {index} does not exist, expected 0 to {MAX_SUBJECTS - 1}")
    seeds = np.random.SeedSequence(config.seed, spawn_key=(SPLITS.index(split), index)).spawn(4)
    who, what, noise, faults = (np.random.default_rng(seed) for seed in seeds)
    person = draw_person(who, config)
    session = draw_session(person, what, config)
    # The products of tiny matrices gain nothing from threads, and one thread rounds the same way everywhere.
    with threadpool_limits(1):
        measured = measure(person, session, noise, config)
    broken = draw_faults(session.frames.sum(axis=1), faults, config, hide=config.imu_only if split == "test" else 0.0)
    return _tables(person, session, spoil(measured, broken), SPLITS.index(split) * MAX_SUBJECTS + index, split)


def measure(person: Person, session: Session, rng: np.random.Generator, config: SimulationConfig) -> Measured:
    """Let a device record a session, nothing missing yet.

    Parameters
    ----------
    person
        Who; a left-hander does everything mirrored.
    session
        What they do.
    rng
        For the noise.
    config
        Frame rate and noise.
    """
    offsets = offsets_of(session.frames.sum(axis=1))
    sequence = segment_ids(offsets)
    scene = _moved(person, session, sequence, (np.arange(offsets[-1]) - offsets[sequence]) / config.rate_hz)
    session, room = scene.session, scene.room
    axes = room @ scene.mounting.axes
    places = np.stack([np.einsum("nij,nj->ni", room, place) for place in scene.places])
    solids = build_scene(person, session, scene.arm, scene.mounting, sequence)
    hits = cast(solids, device.sensor_fans(), n_frames=sequence.size, limit=device.SIGHT)
    temperature = device.seen_temperature(hits, device.warmth_of(person))
    level = config.sensor_noise
    return Measured(
        acc=device.read_acc(device.specific_force(places, _STEP_S, axes), sequence, person, rng, level),
        rot=device.read_rot(axes, sequence, person.heading, rng, level),
        thm=device.read_thm(temperature, offsets, config.rate_hz, rng, level),
        tof=device.read_tof(hits, sequence, rng, level),
    )


@dataclass(frozen=True)
class _Moved:
    """Body, arm and device of one session in the body frame; places a step before, at and after each frame."""

    session: Session
    arm: Pose
    mounting: Mounting
    places: Float64
    room: Float64


def _moved(person: Person, session: Session, sequence: Int64, time: Float64) -> _Moved:
    """Move the body of the person; the scene of a left-hander is that of a right-hander, mirrored."""
    arms = [pose(session.plan, person, sequence, time + shift) for shift in (-_STEP_S, 0.0, _STEP_S)]
    places = np.stack([device.device_place(arm.wrist, arm.axes, person) for arm in arms])
    arm, mounting = arms[1], Mounting(place=places[1], axes=arms[1].axes @ device.strap(person))
    if not person.right_handed:
        arm, mounting, session = _mirrored(arm, mounting, session)
        places = places * MIRROR
    room = np.stack([posture.room for posture in session.postures])[sequence]
    return _Moved(session=session, arm=arm, mounting=mounting, places=places, room=room)


def _mirrored(arm: Pose, mounting: Mounting, session: Session) -> tuple[Pose, Mounting, Session]:
    """Turn a right-hander's scene into a left-hander's: the body left for right, the device's x axis about."""
    turn = MIRROR[:, None] * _THUMB

    def posture(p: Posture) -> Posture:
        points = {name: getattr(p, name) * MIRROR for name in _POINTS}
        both = MIRROR[:, None] * MIRROR
        return replace(p, room=p.room * both, head_axes=p.head_axes * both, **points)

    pose_ = Pose(
        elbow=arm.elbow * MIRROR,
        wrist=arm.wrist * MIRROR,
        axes=arm.axes * turn,
        fingers=arm.fingers * MIRROR,
        palm=arm.palm * MIRROR,
    )
    moved = Mounting(place=mounting.place * MIRROR, axes=mounting.axes * turn)
    return pose_, moved, replace(session, postures=tuple(posture(p) for p in session.postures))


def _tables(person: Person, session: Session, measured: Measured, number: int, split: str) -> SimulatedSubject:
    """Put measurements and labels into the study's tables."""
    n_sequences = len(session.gesture)
    lengths = session.frames.sum(axis=1)
    offsets = offsets_of(lengths)
    sequence = segment_ids(offsets)
    counter = np.arange(offsets[-1]) - offsets[sequence]
    ids = np.array([f"SEQ_{number * SEQUENCES_PER_SUBJECT + i:06d}" for i in range(n_sequences)])
    gestures = [GESTURES[g] for g in session.gesture]
    kinds = [TARGET_TYPE if gesture.target else NON_TARGET_TYPE for gesture in gestures]
    labels = pl.DataFrame(
        {
            "sequence_id": ids,
            "gesture": [gesture.name for gesture in gestures],
            "sequence_type": kinds,
            "orientation": list(session.orientation),
        }
    )
    subject = f"SUBJ_{number:06d}"
    behaviours = [name for first in session.first_behaviour for name in (first, WAITS, PERFORMS)]
    columns: dict[str, pl.Series] = {
        "row_id": pl.Series([f"{ids[s]}_{c:06d}" for s, c in zip(sequence, counter, strict=True)]),
        "sequence_type": labels["sequence_type"].gather(sequence),
        "sequence_id": labels["sequence_id"].gather(sequence),
        "sequence_counter": pl.Series(counter),
        "subject": pl.repeat(subject, counter.size, eager=True),
        "orientation": labels["orientation"].gather(sequence),
        "behavior": pl.Series(behaviours).gather(np.repeat(np.arange(3 * n_sequences), session.frames.ravel())),
        "phase": pl.Series(["Transition", "Transition", GESTURE_PHASE] * n_sequences).gather(
            np.repeat(np.arange(3 * n_sequences), session.frames.ravel())
        ),
        "gesture": labels["gesture"].gather(sequence),
    }
    columns |= _sensor_columns(measured)
    frames = pl.DataFrame(columns)
    if split == "test":
        frames = frames.drop(LABELS)
    return SimulatedSubject(frames=frames, labels=labels, demographics=_demographics(person, subject))


def _sensor_columns(measured: Measured) -> dict[str, pl.Series]:
    """Columns in the study's order: acceleration, quaternion with w first, thermopiles, ToF; null where missing."""
    columns = {name: pl.Series(measured.acc[:, i]) for i, name in enumerate(ACC)}
    for name in ("rot_w", "rot_x", "rot_y", "rot_z"):
        columns[name] = pl.Series(measured.rot[:, ROT.index(name)]).fill_nan(None)
    for i, name in enumerate(HELIOS_LAYOUT.thm_columns):
        columns[name] = pl.Series(measured.thm[:, i]).fill_nan(None)
    pixels = np.ascontiguousarray(measured.tof.reshape(len(measured.tof), -1).T)
    for i, name in enumerate(HELIOS_LAYOUT.tof_columns):
        missing = pixels[i] == TOF_MISSING
        values = pa.array(pixels[i], mask=missing) if missing.any() else pa.array(pixels[i])
        columns[name] = pl.Series(values)
    return columns


def _demographics(person: Person, subject: str) -> pl.DataFrame:
    reach = person.upper_arm + person.forearm
    return pl.DataFrame(
        {
            "subject": [subject],
            "adult_child": [int(person.adult)],
            "age": [person.age],
            "sex": [int(person.male)],
            "handedness": [int(person.right_handed)],
            "height_cm": [round(100.0 * person.height * 2) / 2],
            "shoulder_to_wrist_cm": [round(100.0 * reach)],
            "elbow_to_wrist_cm": [float(round(100.0 * person.forearm * 2) / 2)],
        }
    )
