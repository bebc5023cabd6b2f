"""What goes missing: single rows, whole sensors, whole rotations, and what the test split hides on purpose.

The rates are those of the study: 0.6 % of sequences without rotation, 1.2 % without any thermopile and ToF, 4 % without
sensor 5, 1.4 % with a dead thermopile 3 and 0.5 % with a dead thermopile 1, which then read 0.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float32, Float64, Int16, Int64, offsets_of, segment_ids
from bfrbctl.schema import TOF_MISSING
from bfrbctl.simulation.settings import SimulationConfig

NO_ROTATION = 0.0058
NO_OPTICS = 0.0118
NO_FIFTH = 0.041
FIFTH_PRONE = 0.35
DEAD_THERMOPILES = (0.005, 0.0, 0.014, 0.0, 0.0)
LOST_ROTATION_ROW = 0.0004
LOST_SENSOR_ROW = 0.0006


@dataclass(frozen=True)
class Measured:
    """What the device stores, a row a frame.

    Parameters
    ----------
    acc
        float64, (n_frames, 3), m/s^2.
    rot
        float64, (n_frames, 4), xyzw, rot_w >= 0; NaN where missing.
    thm
        float32, (n_frames, 5), degC; NaN where missing.
    tof
        int16, (n_frames, 5, 64); -2 where missing.
    """

    acc: Float64
    rot: Float64
    thm: Float32
    tof: Int16


@dataclass(frozen=True)
class Faults:
    """What is wrong, a row a sequence (and a row a frame for lost rows).

    Parameters
    ----------
    rotation
        bool, (n_sequences,): rotation missing.
    sensor
        bool, (n_sequences, 5): thermopile and ToF of that number missing.
    dead
        bool, (n_sequences, 5): thermopile of that number reads 0.
    lost_rotation
        bool, (n_frames,): rotation missing in that row.
    lost_sensor
        bool, (n_frames, 5): ToF sensor missing in that row.
    sequence
        int64, (n_frames,): which sequence each frame belongs to.
    """

    rotation: Bool
    sensor: Bool
    dead: Bool
    lost_rotation: Bool
    lost_sensor: Bool
    sequence: Int64


def draw_faults(lengths: Int64, rng: np.random.Generator, config: SimulationConfig, *, hide: float) -> Faults:
    """Draw what goes wrong in one person's session.

    Parameters
    ----------
    lengths
        int64, (n_sequences,): frames.
    rng
        Generator of this person's faults alone.
    config
        `failures` is the factor on all rates.
    hide
        Share of the sequences whose thermopiles and ToF sensors are taken away on purpose.
    """
    n, rate = lengths.size, config.failures
    sequence = segment_ids(offsets_of(lengths))
    sensor = np.repeat(rng.random((n, 1)) < NO_OPTICS * rate, 5, axis=1)
    # A loose sensor 5 fails repeatedly on the same person.
    prone = rng.random() < FIFTH_PRONE
    sensor[:, 4] |= rng.random(n) < (NO_FIFTH / FIFTH_PRONE * rate if prone else 0.0)
    hidden = rng.permutation(n) < round(hide * n)
    return Faults(
        rotation=rng.random(n) < NO_ROTATION * rate,
        sensor=sensor | hidden[:, None],
        dead=rng.random((n, 5)) < np.array(DEAD_THERMOPILES) * rate,
        lost_rotation=rng.random(sequence.size) < LOST_ROTATION_ROW * rate,
        lost_sensor=rng.random((sequence.size, 5)) < LOST_SENSOR_ROW * rate,
        sequence=sequence,
    )


def spoil(measured: Measured, faults: Faults) -> Measured:
    """Apply the faults: what they hide becomes missing, a dead thermopile reads 0."""
    rows = faults.sequence
    rot = np.where((faults.rotation[rows] | faults.lost_rotation)[:, None], np.nan, measured.rot)
    thm = measured.thm.copy()
    thm[faults.dead[rows]] = 0.0
    thm[faults.sensor[rows]] = np.nan
    gone = faults.sensor[rows] | faults.lost_sensor
    tof = np.where(gone[:, :, None], np.int16(TOF_MISSING), measured.tof)
    return Measured(acc=measured.acc, rot=rot, thm=thm, tof=tof)
