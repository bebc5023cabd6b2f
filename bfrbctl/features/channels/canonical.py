"""Bring recordings into one frame of reference: a device on a right wrist, the right way up, without gaps.

Mirroring a left hand and turning an upside-down device round exchange sensors and flip the ToF images; the tables of
which sensor becomes which are those of the study's device (1 centre, 2 top, 4 bottom, 3 and 5 the two sides).
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, sosfiltfilt

from bfrbctl.arrays import quaternions
from bfrbctl.arrays.ragged import Bool, Float64, Int16, Int64, UInt8, interpolated
from bfrbctl.features.settings import FeatureConfig
from bfrbctl.recordings.dataset import THM, TOF, RecordingBatch
from bfrbctl.reprs import short_repr
from bfrbctl.schema import STANDARD_GRAVITY, SensorLayout

MIRROR_SWAPS = {3: 5, 5: 3}
FLIP_SWAPS = {2: 4, 4: 2, 3: 5, 5: 3}
SIDE_SENSORS = (3, 5)
"""ToF sensors that are mounted turned by 90 degrees: mirroring flips their images up-down."""

GRAVITY_CUTOFF_HZ = 0.75


@dataclass(frozen=True)
class Canonical:
    """Recordings of a batch in the common frame of reference.

    Parameters
    ----------
    offsets
        int64, (n_sequences + 1,).
    acc
        float64, (n_frames, 3), m/s^2; gaps filled along straight lines.
    rot
        float64, (n_frames, 4), unit xyzw of continuous sign, gaps filled by slerp; NaN where a sequence has none.
    gravity
        float64, (n_frames, 3), m/s^2 in the device frame: from `rot`, else from the low-passed acceleration.
    thm
        float64, (n_frames, n_thm), degC.
    images
        uint8, (n_frames, n_tof, 64): 0..249, 254 no return, 255 missing.
    measured_rot
        bool, (n_frames,): the quaternion was measured, not filled in.
    layout, rate_hz
        As in the recordings, less the modalities that were not asked for.
    """

    offsets: Int64
    acc: Float64
    rot: Float64
    gravity: Float64
    thm: Float64
    images: UInt8
    measured_rot: Bool
    layout: SensorLayout
    rate_hz: float

    __repr__ = short_repr


def layout_used(layout: SensorLayout, config: FeatureConfig) -> SensorLayout:
    """Leave only the sensors of the modalities that are wanted."""
    return SensorLayout(
        thm=layout.thm if THM in config.modalities else (), tof=layout.tof if TOF in config.modalities else ()
    )


def canonical(batch: RecordingBatch, config: FeatureConfig) -> Canonical:
    """Mirror, turn and complete the recordings of a batch; every sequence by itself."""
    layout = layout_used(batch.layout, config)
    offsets, lengths = batch.offsets, np.diff(batch.offsets)
    acc = np.array(batch.acc, dtype=np.float64)
    rot = quaternions.normalised(batch.rot)
    thm = np.array(batch.thm, dtype=np.float64) if layout.thm else np.empty((batch.n_frames, 0))
    images = _as_images(batch.tof) if layout.tof else np.empty((batch.n_frames, 0, 64), dtype=np.uint8)
    measured_rot = np.asarray(~np.isnan(rot).any(axis=1))
    if config.flipped_subjects:
        flipped = np.repeat([subject in config.flipped_subjects for subject in batch.subjects], lengths)
        acc[flipped, :2] *= -1.0
        rot[flipped] = quaternions.turned(rot[flipped])
        _exchange(thm, images, flipped, layout=layout, swaps=FLIP_SWAPS)
        images[flipped] = images[flipped][:, :, ::-1]
    if config.mirror_left:
        left = np.repeat(batch.demographic("handedness") == 0, lengths)
        acc[left, 0] *= -1.0
        rot[left] = quaternions.mirrored(rot[left])
        _exchange(thm, images, left, layout=layout, swaps=MIRROR_SWAPS)
        _mirror_images(images, left, layout)
    acc = interpolated(acc, offsets)
    rot = quaternions.interpolated(quaternions.continuous(rot, offsets), offsets)
    gravity = quaternions.up_vector(rot) * STANDARD_GRAVITY
    for begin, end in _ranges_without(rot, offsets):
        gravity[begin:end] = low_passed(acc[begin:end], rate_hz=batch.rate_hz)
    return Canonical(offsets, acc, rot, gravity, thm, images, measured_rot, layout, batch.rate_hz)


def low_passed(acc: Float64, *, rate_hz: float) -> Float64:
    """Estimate gravity as what is slow in the acceleration of one sequence.

    Parameters
    ----------
    acc
        float64, (n_frames, 3), m/s^2.
    rate_hz
        Frames a second.

    Returns
    -------
    float64, (n_frames, 3): a zero-phase second-order Butterworth low-pass at 0.75 Hz; the median of the sequence
    where it is too short for the filter's padding or sampled too slowly for its cut-off.
    """
    n_padding = 9
    if len(acc) <= n_padding or rate_hz <= 2.5 * GRAVITY_CUTOFF_HZ or np.isnan(acc).any():
        return np.broadcast_to(np.median(acc, axis=0), acc.shape)
    sections = butter(2, GRAVITY_CUTOFF_HZ, fs=rate_hz, output="sos")
    return np.asarray(sosfiltfilt(sections, acc, axis=0, padlen=n_padding), dtype=np.float64)


def _as_images(tof: Int16) -> UInt8:
    """-1 -> 254 and -2 -> 255: a cast to uint8 gives 255 and 254, and the last bit tells the two apart."""
    images = tof.astype(np.uint8)
    images ^= (images >= 254).view(np.uint8)
    return images


def _exchange(thm: Float64, images: UInt8, frames: Bool, *, layout: SensorLayout, swaps: dict[int, int]) -> None:
    """Exchange the sensors in place on some frames; one whose partner the device does not have keeps its place."""
    for values, sensors in ((thm, layout.thm), (images, layout.tof)):
        order = [sensors.index(swaps.get(s, s)) if swaps.get(s, s) in sensors else i for i, s in enumerate(sensors)]
        if order != list(range(len(sensors))):
            values[frames] = values[frames][:, order]


def _mirror_images(images: UInt8, frames: Bool, layout: SensorLayout) -> None:
    for position, sensor in enumerate(layout.tof):
        grid = images[frames, position].reshape(-1, 8, 8)
        grid = grid[:, ::-1] if sensor in SIDE_SENSORS else grid[:, :, ::-1]
        images[frames, position] = grid.reshape(-1, 64)


def _ranges_without(rot: Float64, offsets: Int64) -> list[tuple[int, int]]:
    """Give the frames of the sequences without any quaternion (after filling, a sequence has all or none)."""
    filled = np.diff(offsets) > 0
    none = np.flatnonzero(filled)[np.isnan(rot[offsets[:-1][filled], 3])]
    return [(int(offsets[i]), int(offsets[i + 1])) for i in none]
