"""Training batches: which sequences together, and how each is disturbed so that the network learns what matters.

All of it is NumPy on whole batches, before the device; only the blending of mixup happens in the network, because
images travel as uint8. One generator a batch, made from (seed, epoch, batch), decides everything: no random state has
to be kept to continue a run.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float32, Int64
from bfrbctl.models.keras.inputs import InputPlan, Ready, drop_sensors, gather
from bfrbctl.models.keras.learning.turning import Turned, turn_heading, turn_strap
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING
from bfrbctl.reprs import short_repr

SORTED_BATCHES = 8
"""Batches whose sequences are sorted by length together: little padding, still much chance."""

POOLED = 4
"""Frames of the input that the networks' last frames stand for."""


@dataclass(frozen=True)
class Augmentation:
    """How training sequences are disturbed; 0 switches a disturbance off.

    Parameters
    ----------
    mixup
        Alpha of the Beta distribution that blends pairs of sequences.
    modality_dropout
        Share of sequences whose thermopiles and ToF sensors are taken away.
    sensor_dropout
        Share of sequences that lose one ToF sensor's images.
    heading
        Standard deviation of the turn about the vertical, degrees; 180 or more is any direction.
    strap
        Standard deviation of the turn about the forearm, degrees.
    stretch
        Time runs by a factor of 1 - stretch to 1 + stretch.
    shift
        Up to this many of the last frames are dropped.
    noise
        Standard deviation of the noise on IMU channels, in standard deviations of the channel.
    cut
        Longest span that goes missing from every sensor, as a share of the sequence.
    """

    mixup: float
    modality_dropout: float
    sensor_dropout: float
    heading: float
    strap: float
    stretch: float
    shift: int
    noise: float
    cut: float


@dataclass(frozen=True)
class TrainingData:
    """What training batches are made from.

    Parameters
    ----------
    data
        The scaled sequences.
    labels
        float32, (n_sequences, n_classes), one-hot.
    orientation
        float32, (n_sequences, n_orientations), one-hot, a row of zeros where unknown; no columns where nobody asks.
    plan
        The network's inputs.
    turned
        Columns that rotations change.
    """

    data: Ready
    labels: Float32
    orientation: Float32
    plan: InputPlan
    turned: Turned

    __repr__ = short_repr


Inputs = dict[str, AnyArray]


def epoch_batches(lengths: Int64, batch_size: int, rng: np.random.Generator) -> Int64:
    """Deal all sequences into batches of like length.

    Parameters
    ----------
    lengths
        int64, (n_sequences,).
    batch_size
        Sequences a batch; the last batch is filled up with sequences drawn again.
    rng
        Chance.

    Returns
    -------
    int64, (n_batches, batch_size): sequence numbers, each at least once.
    """
    size = min(batch_size, lengths.size)
    short = -lengths.size % size
    order = np.concatenate([rng.permutation(lengths.size), rng.permutation(lengths.size)[:short]])
    span = size * SORTED_BATCHES
    sorted_spans = [
        part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(span, order.size, span))
    ]
    batches = np.concatenate(sorted_spans).reshape(-1, size)
    return np.asarray(batches[rng.permutation(len(batches))], dtype=np.int64)


def training_batch(
    source: TrainingData, chosen: Int64, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[Inputs, Inputs]:
    """Make one disturbed training batch.

    Parameters
    ----------
    source
        The sequences.
    chosen
        int64, (batch,): which of them.
    augmentation
        How they are disturbed.
    rng
        Chance; the same generator state gives the same bytes.

    Returns
    -------
    Inputs of the training network, `weight` and `partner` of mixup among them, and its targets: `gesture` and `imu`
    float32 (batch, n_classes), the same; `orientation` float32 (batch, n_orientations), and `phase` float32
    (batch, time / 4, 1), -1 where unknown.
    """
    data, plan = source.data, source.plan
    position, valid = stretched_index(data.lengths[chosen], plan, augmentation, rng)
    inputs = gather(data, chosen, position, valid)
    phase = pooled_phase(data, chosen, position, valid)
    _disturb(inputs, source, augmentation, rng)
    weight, partner = mixing(chosen.size, augmentation.mixup, rng)
    share = weight[:, None]
    gesture = _mixed(source.labels[chosen], share, partner)
    targets = {
        "gesture": gesture,
        "imu": gesture,
        "orientation": _mixed(source.orientation[chosen], share, partner),
        "phase": _mixed_phase(phase, share, partner),
    }
    return {**inputs, "weight": weight, "partner": partner}, targets


def _mixed(labels: Float32, share: Float32, partner: AnyArray) -> Float32:
    return np.asarray(labels * share + labels[partner] * (np.float32(1.0) - share))


def stretched_index(
    lengths: Int64, plan: InputPlan, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[Int64, Bool]:
    """Say which frame stands at each padded step when time is stretched and the last frames are dropped.

    Returns
    -------
    As `inputs.frame_index`: int64 and bool, (batch, n_steps); every sequence keeps at least one frame.
    """
    n_sequences = lengths.size
    pace = rng.uniform(1.0 - augmentation.stretch, 1.0 + augmentation.stretch, (n_sequences, 1))
    dropped = rng.integers(0, augmentation.shift + 1, (n_sequences, 1))
    last = np.maximum(lengths[:, None] - 1 - dropped, 0)
    kept = np.floor(last / pace).astype(np.int64) + 1
    n_steps = plan.padded(int(kept.max()))
    kept = np.minimum(kept, n_steps)
    before_end = n_steps - 1 - np.arange(n_steps) if plan.pad == "left" else kept - 1 - np.arange(n_steps)
    position = np.rint(last - before_end * pace).astype(np.int64)
    valid = (before_end >= 0) & (before_end < kept)
    return np.clip(position, 0, last), np.broadcast_to(valid, position.shape)


def pooled_phase(data: Ready, chosen: Int64, position: Int64, valid: Bool) -> Float32:
    """Give the gesture phase of each 4 frames: 1 where any is in it, 0 where none, -1 unknown; (batch, time / 4, 1)."""
    rows = np.where(valid, data.offsets[chosen][:, None] + position, 0)
    phase = data.phase[rows]
    known = valid & (phase <= 1)
    each = np.where(known, phase.astype(np.float32), np.float32(-1.0))  # (batch, time)
    return np.asarray(each.reshape(chosen.size, -1, POOLED).max(axis=2)[..., None])


def _mixed_phase(phase: Float32, share: Float32, partner: AnyArray) -> Float32:
    other, part = phase[partner], share[..., None]
    mixed = phase * part + other * (np.float32(1.0) - part)
    return np.where((phase >= 0) & (other >= 0), mixed, np.float32(-1.0)).astype(np.float32)


def mixing(n_sequences: int, alpha: float, rng: np.random.Generator) -> tuple[Float32, AnyArray]:
    """Draw mixup's weights float32 (batch,), at least one half, and partners int32 (batch,)."""
    partner = rng.permutation(n_sequences).astype(np.int32)
    if alpha <= 0:
        return np.ones(n_sequences, dtype=np.float32), np.arange(n_sequences, dtype=np.int32)
    weight = rng.beta(alpha, alpha, n_sequences)
    return np.maximum(weight, 1.0 - weight).astype(np.float32), partner


def _disturb(inputs: Inputs, source: TrainingData, augmentation: Augmentation, rng: np.random.Generator) -> None:
    """Turn, shake, cut and blind the sequences, in place."""
    frames, plan = inputs["frames"], source.plan
    n_sequences = frames.shape[0]
    if augmentation.heading > 0:
        turn_heading(frames, source.turned, _angles(augmentation.heading, n_sequences, rng))
    if augmentation.strap > 0:
        turn_strap(frames, source.turned, _angles(augmentation.strap, n_sequences, rng))
    if augmentation.noise > 0:
        shape = (n_sequences, frames.shape[1], len(plan.imu))
        shake = rng.standard_normal(shape, dtype=np.float32) * np.float32(augmentation.noise)
        frames[:, :, : len(plan.imu)] += shake * inputs["mask"]
    if augmentation.cut > 0:
        _cut(inputs, augmentation.cut, rng)
    if "tof" in inputs and augmentation.sensor_dropout > 0:
        lost = np.flatnonzero(rng.random(n_sequences) < augmentation.sensor_dropout)
        inputs["tof"][lost, :, rng.integers(0, plan.n_tof, lost.size)] = TOF_IMAGE_MISSING
    if augmentation.modality_dropout > 0 and not plan.one_scenario:
        blind = np.flatnonzero(rng.random(n_sequences) < augmentation.modality_dropout)
        drop_sensors(inputs, blind, plan, source.data.without)


def _angles(degrees: float, n_sequences: int, rng: np.random.Generator) -> AnyArray:
    if degrees >= 180.0:
        return rng.uniform(-np.pi, np.pi, n_sequences)
    return np.deg2rad(rng.normal(0.0, degrees, n_sequences))


def _cut(inputs: Inputs, longest: float, rng: np.random.Generator) -> None:
    """Make a span of each sequence missing, as when the device loses its link."""
    recorded = inputs["mask"][:, :, 0].sum(axis=1)
    n_sequences, n_steps = inputs["mask"].shape[:2]
    span = np.floor(recorded * rng.uniform(0.0, longest, n_sequences))
    start = rng.uniform(0.0, 1.0, n_sequences) * (n_steps - span)
    steps = np.arange(n_steps)
    gone = (steps >= start[:, None]) & (steps < (start + span)[:, None])
    inputs["frames"][gone] = 0.0
    if "tof" in inputs:
        inputs["tof"][gone] = TOF_IMAGE_MISSING
