"""The wrist device: where its sensors sit, and what an ideal or a noisy device reads.

Axes of the device on a right wrist: x towards the thumb, y towards the hand, z out of the inner side of the wrist.
ToF sensor 1 is in the middle, 2 towards the hand, 4 towards the elbow, 3 and 5 towards thumb and little finger, turned
by 90 degrees.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from bfrbctl.arrays.quaternions import from_rotvec, multiply
from bfrbctl.arrays.ragged import Float32, Float64, Int16, Int64, segment_ids
from bfrbctl.schema import STANDARD_GRAVITY, TOF_MAX, TOF_NO_RETURN
from bfrbctl.simulation.person import Person
from bfrbctl.simulation.posture import about
from bfrbctl.simulation.rays import Fan, Hits
from bfrbctl.simulation.scene import ARM, CLOTHES, FACE, FURNITURE, HAIR, HAND, LEG, NECK, OBJECT, REFLECTANCE

ACC_STEP = 1.0 / 256.0
"""m/s^2; resolution of the BNO08x accelerometer report."""

ROT_STEP = 2.0**-14
"""Resolution of its rotation vector report."""

FIELD_DEG = 45.0
"""Field of view of a VL53L7CX-like fan, along and across."""

TOF_RANGE = 0.249
"""m; one step of a reading is taken as 1 mm."""

SIGHT = 0.60
"""m; range of the thermopiles, which is larger than that of the ToF sensors."""

STRONGEST = 32.0
"""m/s^2; no wrist exceeds it, and the motion part of an acceleration saturates at it."""

LAG_S = 0.35
"""s; time constant of the thermopiles' first-order lag."""

FAINTEST = -2.75
"""Logarithm of the weakest echo that a ToF pixel detects."""

_TILT_DEG = 18.0
_SPACING = 0.017
_RAISED = 0.024

_TILTS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0))
"""Where sensors 1-5 sit and lean, along x and y."""


def sensor_fans() -> list[Fan]:
    """Give the five 8x8 fans, pixels row-major.

    Rows of sensors 1, 2 and 4 run from the elbow to the hand and their columns towards the thumb (a lens turns the
    image over); in sensors 3 and 5, turned by 90 degrees, columns run to the hand and rows away from the thumb.
    """
    steps = np.tan(np.radians((np.arange(8) - 3.5) * FIELD_DEG / 8))
    fans = []
    for number, (x, y) in enumerate(_TILTS):
        tilt = np.radians(_TILT_DEG) if x or y else 0.0
        normal = np.array([x * np.sin(tilt), y * np.sin(tilt), np.cos(tilt)])
        thumb = np.array([np.cos(tilt) if x else 1.0, 0.0, -x * np.sin(tilt)])
        handwards = np.array([0.0, np.cos(tilt) if y else 1.0, -y * np.sin(tilt)])
        column, row = (handwards, -thumb) if number in (2, 4) else (thumb, handwards)
        rays = normal + steps[None, :, None] * column + steps[:, None, None] * row
        rays /= np.sqrt((rays**2).sum(axis=-1, keepdims=True))
        place = _SPACING * np.array([x, y, 0.0]) - np.array([0.0, 0.0, 0.003 if x or y else 0.0])
        fans.append(Fan(place.astype(np.float32), rays.reshape(64, 3).astype(np.float32)))
    return fans


def strap(person: Person) -> Float64:
    """Rotation from the device to the forearm, right wrist: float64, (3, 3)."""
    turned = about(1, person.strap_roll)
    return turned @ about(2, np.pi) if person.upside_down else turned


def device_place(wrist: Float64, forearm: Float64, person: Person) -> Float64:
    """Place of the device on forearms: wrist (n, 3) m and forearm axes (n, 3, 3) -> float64, (n, 3), m."""
    behind = 0.030 + person.strap_shift
    out = np.sin(person.strap_roll) * forearm[..., 0] + np.cos(person.strap_roll) * forearm[..., 2]
    return np.asarray(wrist - behind * forearm[..., 1] + _RAISED * out)


def specific_force(places: Float64, step_s: float, axes: Float64) -> Float64:
    """Read an ideal accelerometer.

    Parameters
    ----------
    places
        float64, (3, n, 3), m, room frame: a step before, at, and a step after each instant.
    step_s
        s.
    axes
        float64, (n, 3, 3): columns are the device's axes in the room.

    Returns
    -------
    float64, (n, 3), m/s^2, device frame: motion minus gravity, so that rest reads +9.81 upwards.
    """
    acceleration = (places[0] - 2.0 * places[1] + places[2]) / step_s**2
    size = np.sqrt(np.einsum("ni,ni->n", acceleration, acceleration))[:, None]
    acceleration = acceleration / (1.0 + (size / STRONGEST) ** 4) ** 0.25
    return np.asarray(np.einsum("nji,nj->ni", axes, acceleration + np.array([0.0, 0.0, STANDARD_GRAVITY])))


@dataclass(frozen=True)
class Warmth:
    """Temperatures of one person's surroundings, degC."""

    ambient: float
    surfaces: Float32


def warmth_of(person: Person) -> Warmth:
    """Give the temperature of every surface around a person."""
    surfaces = np.empty(REFLECTANCE.size, dtype=np.float32)
    surfaces[[FACE, NECK]] = person.skin, person.skin + 0.8
    surfaces[HAIR] = 0.55 * person.skin + 0.45 * person.ambient
    surfaces[CLOTHES] = person.clothes
    surfaces[ARM] = person.skin - 1.8
    surfaces[LEG] = person.clothes + 0.8
    surfaces[HAND] = person.skin - 2.0
    surfaces[[FURNITURE, OBJECT]] = person.ambient, person.ambient + 1.0
    return Warmth(person.ambient, surfaces)


def seen_temperature(hits: Hits, warmth: Warmth) -> Float64:
    """Average the temperature over the field of view of each fan.

    Warmth of a surface at distance d counts 1 / (1 + (d / 0.60 m)^2); the rest of the field is at ambient.

    Returns
    -------
    float64, (n_frames, n_fans), degC.
    """
    excess = np.append(warmth.surfaces - np.float32(warmth.ambient), np.float32(0.0))
    weight = np.float32(1.0) / (np.float32(1.0) + (hits.distance / np.float32(0.60)) ** 2)
    warm = (excess[hits.surface] * weight).mean(axis=-1, dtype=np.float64)
    return np.asarray(warmth.ambient + warm)


def lagged(values: Float64, offsets: Int64, rate_hz: float, tau_s: float) -> Float64:
    """First-order lag, each sequence starting settled: float64, (n_frames, n) in and out."""
    keep = np.exp(-1.0 / (tau_s * rate_hz))
    lengths = np.diff(offsets)
    out = np.array(values)
    for step in range(1, int(lengths.max())):
        rows = offsets[:-1][lengths > step] + step
        out[rows] = keep * out[rows - 1] + (1.0 - keep) * values[rows]
    return out


def read_tof(hits: Hits, sequence: Int64, rng: np.random.Generator, noise: float) -> Int16:
    """Turn hits into readings.

    A pixel returns when its echo, reflectance x cosine / (d / 0.1 m)^2, is above a threshold that differs a little
    from pixel to pixel (for a whole sequence) and from frame to frame.

    Parameters
    ----------
    hits
        (n_frames, 5, 64).
    sequence
        int64, (n_frames,): which sequence each frame belongs to.
    rng
        For the noise.
    noise
        Factor on it; 0 gives every hit within range, rounded.

    Returns
    -------
    int16, same shape: 0..249, -1 for no return.
    """
    distance = hits.distance
    near = (hits.surface >= 0) & (distance <= np.float32(TOF_RANGE + 0.01 * min(noise, 1.0)))
    reading = distance * np.float32(1000.0)
    if noise > 0.0:
        reflectance = np.append(REFLECTANCE, np.float32(1e-6))[hits.surface]
        echo = np.log(np.maximum(reflectance * hits.cosine, np.float32(1e-6)))
        echo -= 2.0 * np.log(np.maximum(distance, np.float32(0.004)) / np.float32(0.1))
        n_sequences = int(sequence.max()) + 1
        fixed = rng.standard_normal((n_sequences, *distance.shape[1:]), dtype=np.float32)
        shaky = rng.standard_normal(distance.shape, dtype=np.float32)
        near &= echo + np.float32(0.45 * noise) * (fixed[sequence] + np.float32(0.6) * shaky) > np.float32(FAINTEST)
        bias = rng.standard_normal((n_sequences, *distance.shape[1:]), dtype=np.float32)[sequence]
        sigma = np.float32(noise) * (np.float32(1.2) + np.float32(0.025) * np.minimum(reading, np.float32(300.0)))
        reading = reading + sigma * (rng.standard_normal(distance.shape, dtype=np.float32) + np.float32(0.5) * bias)
        reading = reading - np.float32(8.0 * min(noise, 1.0))
    near &= reading <= np.float32(TOF_MAX + 0.5)
    whole = np.clip(np.rint(np.where(near, reading, 0.0)), 0, TOF_MAX).astype(np.int16)
    return np.where(near, whole, np.int16(TOF_NO_RETURN))


def read_acc(force: Float64, sequence: Int64, person: Person, rng: np.random.Generator, noise: float) -> Float64:
    """Add bias, scale error, tremor and noise to accelerations and round them: float64, (n_frames, 3), m/s^2."""
    bias, scale = rng.normal(0.0, 0.05 * noise, 3), 1.0 + rng.normal(0.0, 0.008 * noise, 3)
    shake = rng.normal(0.0, 1.0, force.shape) * (person.tremor + 0.05) * noise
    strength = np.exp(rng.normal(0.0, 0.5, int(sequence.max()) + 1))[sequence, None]
    return in_steps(force * scale + bias + shake * strength, ACC_STEP)


def read_rot(axes: Float64, sequence: Int64, heading: float, rng: np.random.Generator, noise: float) -> Float64:
    """Turn orientations into stored quaternions.

    Parameters
    ----------
    axes
        float64, (n_frames, 3, 3): columns are the device's axes in the room.
    sequence
        int64, (n_frames,).
    heading
        rad; turn of the room's front away from the world's x axis.
    rng
        For tilt errors, and for yaw, which nothing corrects, so that it drifts through the session.
    noise
        Factor on both.

    Returns
    -------
    float64, (n_frames, 4) xyzw, rot_w >= 0, in steps of 2^-14.
    """
    n_sequences = int(sequence.max()) + 1
    walk = np.cumsum(rng.normal(0.0, np.radians(1.2) * noise, n_sequences)) + rng.normal(0.0, 0.05 * noise, n_sequences)
    tilt = rng.normal(0.0, np.radians(2.0) * noise, (n_sequences, 3)) * np.array([1.0, 1.0, 0.0])
    shaky = rng.normal(0.0, np.radians(0.25) * noise, (sequence.size, 3))
    true = Rotation.from_matrix(axes).as_quat()
    turn = from_rotvec(np.array([0.0, 0.0, 1.0]) * (heading + walk[sequence])[:, None])
    rot = multiply(multiply(turn, from_rotvec(tilt[sequence] + shaky)), true)
    rot = in_steps(np.where(rot[:, 3:] < 0, -rot, rot), ROT_STEP)
    return np.asarray(rot + 0.0)


def read_thm(seen: Float64, offsets: Int64, rate_hz: float, rng: np.random.Generator, noise: float) -> Float32:
    """Lag, offset and noise of the thermopiles: float64 (n_frames, 5) degC seen -> float32 degC read."""
    sequence = segment_ids(offsets)
    offset = rng.normal(0.0, 0.25 * noise, seen.shape[1])
    drift = rng.normal(0.0, 0.18 * noise, (len(offsets) - 1, seen.shape[1]))
    slow = lagged(seen, offsets, rate_hz, LAG_S)
    return (slow + offset + drift[sequence] + rng.normal(0.0, 0.09 * noise, seen.shape)).astype(np.float32)


def in_steps(values: Float64, step: float) -> Float64:
    """Round to a sensor's resolution."""
    return np.asarray(np.rint(values / step) * step)
