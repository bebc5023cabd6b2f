"""From a FeatureBatch to what a network reads: scaled frames, ToF images and a mask, padded to few lengths.

A missing value becomes 0 after scaling, and flags beside the channels tell that it was missing. Sequences are padded
at the front (or the back) up to a multiple of 16 frames, so that a network sees few shapes and pooling by 4 cuts time
at the same frames, counted from the end, however long the padding is. What is longer keeps its tail: the gesture.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float32, Float64, Int64, UInt8, reduce_segments
from bfrbctl.errors import DataError, examples
from bfrbctl.execution.cache import settle
from bfrbctl.models.keras.learning.turning import Turned
from bfrbctl.recordings.dataset import THM, TOF_IMAGE_MISSING, FeatureBatch
from bfrbctl.reprs import short_repr

STEP = 16
"""Padded lengths are multiples of it; pooling by 4 needs a multiple of 4."""

CLIP = 8.0
"""Scaled values are cut at this many standard deviations: a broken reading must not drown a network."""

MAX_LENGTH = 4096
"""Frames; more than any recording needs, and what a model from a stranger may ask for."""

PREDICT_BATCH = 128
"""Sequences predicted at once: bounds memory, changes no result."""

_ROWS_AT_ONCE = 8192
"""Frames that are scaled at once: few enough for the processor's cache."""

_COLUMNS_AT_ONCE = 16
"""Channels whose scale is learnt from one pass over the frames."""


@dataclass(frozen=True)
class InputPlan:
    """Which channels a network reads, in order, and how long its sequences are.

    Parameters
    ----------
    imu
        Names of the channels that an IMU-only device has.
    other
        Names of the channels that need thermopiles or ToF sensors.
    single
        Positions in `other` of the channels that get a presence flag of their own (those of thermopiles). Where nothing
        measured the flag is 0, also that of `thm_present`, whose value is known then.
    n_tof
        ToF sensors whose images are read; 0 for none.
    length
        Longest padded length, a multiple of 16 frames.
    pad
        `left` or `right`: the side that padding lies on.
    """

    imu: tuple[str, ...]
    other: tuple[str, ...]
    single: tuple[int, ...]
    n_tof: int
    length: int
    pad: str

    @property
    def n_imu(self) -> int:
        """Columns of the first branch: IMU channels and one flag."""
        return len(self.imu) + 1

    @property
    def n_other(self) -> int:
        """Columns of the second branch beside the images: channels, their flags, one flag of all; 0 without any."""
        return len(self.other) + len(self.single) + 1 if self.other else 0

    @property
    def one_scenario(self) -> bool:
        """Whether there is nothing that an IMU-only device lacks."""
        return not self.other and self.n_tof == 0

    def padded(self, longest: int) -> int:
        """Give the padded length for sequences of at most `longest` frames."""
        return min(self.length, round_up(longest))


def round_up(n_frames: int) -> int:
    """Round a length up to a multiple of 16, at least 16.

    >>> round_up(17)
    32
    """
    return max(-(-n_frames // STEP), 1) * STEP


def plan_inputs(batch: FeatureBatch, *, length: int, pad: str, without: tuple[str, ...] = ()) -> InputPlan:
    """Choose what a network reads from training data.

    Parameters
    ----------
    batch
        The training sequences.
    length
        Frames kept of a sequence, rounded up to a multiple of 16; 0 takes the 95th percentile of the lengths.
    pad
        `left` or `right`.
    without
        Names of channels to leave out.

    Raises
    ------
    DataError
        When there is no frame channel that an IMU-only device has.
    """
    chosen = [column for column in batch.channels if column.name not in without]
    imu = tuple(column.name for column in chosen if column.survives_imu_only)
    others = [column for column in chosen if not column.survives_imu_only]
    if not imu:
        raise DataError("the features have no frame channel of the IMU", hint="featurize the dataset for keras")
    kept = length or int(np.ceil(np.quantile(np.diff(batch.offsets), 0.95)))
    return InputPlan(
        imu=imu,
        other=tuple(column.name for column in others),
        single=tuple(position for position, column in enumerate(others) if column.modality == THM),
        n_tof=int(batch.tof.shape[1]) if batch.tof.ndim == 3 else 0,
        length=min(round_up(kept), MAX_LENGTH),
        pad=pad,
    )


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each channel of a plan (IMU channels, then the others): float32, (n_channels,)."""

    mean: Float32
    scale: Float32

    __repr__ = short_repr


def fit_scaler(batch: FeatureBatch, plan: InputPlan, turned: Turned) -> Scaler:
    """Learn the scaling from recorded frames, NaN left out.

    Parameters
    ----------
    batch
        The training sequences.
    plan
        Which channels, in order.
    turned
        Channels that are components of vectors or rotations. The components of a vector share one scale and stay
        centred on 0, and rotations stay as they are, so that turning the scaled values is turning the device.
    """
    columns = _positions(batch, plan)
    mean = np.zeros(len(columns), dtype=np.float64)
    scale = np.ones(len(columns), dtype=np.float64)
    squares = np.full(len(columns), np.nan)
    for place in range(len(columns)):  # one column at a time: no float64 copy of everything
        if place % _COLUMNS_AT_ONCE == 0:  # mapped frames are read once for so many
            some = batch.frames[:, columns[place : place + _COLUMNS_AT_ONCE]]
            settle(batch.frames)
        values = some[:, place % _COLUMNS_AT_ONCE].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            mean[place], scale[place], squares[place] = values.mean(), values.std(), np.mean(values**2)
    for group in (*turned.device, *turned.world):
        mean[list(group)] = 0.0
        scale[list(group)] = np.sqrt(_mean_known(squares[list(group)]))
    unscaled = [*turned.quaternion, *turned.sixd]
    mean[unscaled], scale[unscaled] = 0.0, 1.0
    scale = np.where(scale > 1e-6, scale, 1.0)
    return Scaler(mean=mean.astype(np.float32), scale=scale.astype(np.float32))


def _mean_known(values: Float64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 1.0


def _positions(batch: FeatureBatch, plan: InputPlan) -> list[int]:
    at = {column.name: position for position, column in enumerate(batch.channels)}
    names = plan.imu + plan.other
    missing = [name for name in names if name not in at]
    if missing:
        raise DataError(
            f"the features lack {len(missing)} frame channels that the network was trained on: {examples(missing)}",
            hint="featurize with the options of the training features",
        )
    n_tof = batch.tof.shape[1] if batch.tof.ndim == 3 else 0
    if plan.n_tof and n_tof != plan.n_tof:
        raise DataError(
            f"the features have ToF images of {n_tof} sensors, the network was trained on {plan.n_tof}",
            hint="featurize with the ToF images",
        )
    return [at[name] for name in names]


@dataclass(frozen=True)
class Ready:
    """Sequences scaled for a network.

    Parameters
    ----------
    frames
        float32, (n_frames, n_imu + n_other): scaled channels and flags, nothing missing any more.
    tof
        uint8, (n_frames, n_tof, 64), as in FeatureBatch.
    phase
        uint8, (n_frames,); 255 where unknown.
    offsets
        int64, (n_sequences + 1,).
    without
        float32, (n_other,): what the second branch's columns are where an IMU-only device was worn.
    """

    frames: Float32
    tof: UInt8
    phase: UInt8
    offsets: Int64
    without: Float32

    __repr__ = short_repr

    @property
    def lengths(self) -> Int64:
        """Frames of each sequence."""
        return np.diff(self.offsets)


def _absent(batch: FeatureBatch, plan: InputPlan, positions: list[int]) -> Float32:
    """Give what each channel is where a sensor beside the IMU measured nothing: NaN, but for those that say so."""
    absent = np.array([batch.channels[position].when_missing for position in positions], dtype=np.float32)
    absent[: len(plan.imu)] = np.nan
    return absent


def ready(batch: FeatureBatch, plan: InputPlan, scaler: Scaler) -> Ready:
    """Scale sequences and add the presence flags.

    Raises
    ------
    DataError
        When the features lack a channel of the plan, or its ToF images.
    """
    positions = _positions(batch, plan)
    absent = _absent(batch, plan, positions)
    out = batch.cache.zeros((batch.frames.shape[0], plan.n_imu + plan.n_other), np.float32)
    for begin in range(0, len(out), _ROWS_AT_ONCE):
        part = out[begin : begin + _ROWS_AT_ONCE]
        known = _fill(part, batch.frames[begin : begin + _ROWS_AT_ONCE], plan, positions, scaler, absent)
        _flag(part, known, plan, absent)
    settle(out)
    settle(batch.frames)
    tof = batch.tof if plan.n_tof else np.zeros((batch.frames.shape[0], 0, 64), dtype=np.uint8)
    n_imu = len(plan.imu)
    without = _scaled(absent[n_imu:], scaler.mean[n_imu:], scaler.scale[n_imu:])
    return Ready(out, tof, batch.phase, batch.offsets, _with_flags(without, plan))


def unscaled(batch: FeatureBatch, plan: InputPlan) -> Ready:
    """Lay sequences out for networks that scale their inputs themselves, so that all folds can share them.

    Returns
    -------
    As `ready`, but channels, also those of `without`, are as they were measured, NaN where missing.

    Raises
    ------
    DataError
        When the features lack a channel of the plan, or its ToF images.
    """
    positions = _positions(batch, plan)
    absent = _absent(batch, plan, positions)
    n_imu = len(plan.imu)
    values = batch.frames[:, positions]
    out = np.zeros((len(values), plan.n_imu + plan.n_other), dtype=np.float32)
    out[:, :n_imu] = values[:, :n_imu]
    out[:, plan.n_imu : plan.n_imu + len(plan.other)] = values[:, n_imu:]
    _flag(out, np.isfinite(values) & (values != absent), plan, absent)
    tof = batch.tof if plan.n_tof else np.zeros((len(values), 0, 64), dtype=np.uint8)
    return Ready(out, tof, batch.phase, batch.offsets, _with_flags(absent[n_imu:], plan))


def imu_only(data: Ready, plan: InputPlan) -> Bool:
    """Tell in which sequences of `unscaled` all is missing that an IMU-only device lacks: bool, (n_sequences,)."""
    out = np.full(len(data.lengths), not plan.one_scenario)
    if plan.n_other:
        out &= reduce_segments(np.maximum, data.frames[:, -1], data.offsets, empty=0.0) == 0.0
    for i in np.flatnonzero(out):
        rows = slice(data.offsets[i], data.offsets[i + 1])
        others, images = data.frames[rows, plan.n_imu :], data.tof[rows]
        same = np.array_equal(others, np.broadcast_to(data.without, others.shape), equal_nan=True)
        out[i] = same and images.min(initial=TOF_IMAGE_MISSING) == TOF_IMAGE_MISSING
    return out


def scaling(plan: InputPlan, scaler: Scaler) -> Scaler:
    """Give mean and scale of every column of `unscaled`: (n_imu + n_other,); flags stay as they are."""
    n_imu, n_other = len(plan.imu), len(plan.other)
    mean = np.zeros(plan.n_imu + plan.n_other, dtype=np.float32)
    scale = np.ones_like(mean)
    for whole, each in ((mean, scaler.mean), (scale, scaler.scale)):
        whole[:n_imu] = each[:n_imu]
        whole[plan.n_imu : plan.n_imu + n_other] = each[n_imu:]
    return Scaler(mean, scale)


def _flag(out: Float32, known: Bool, plan: InputPlan, absent: Float32) -> None:
    """Write the presence flags to their places in out."""
    n_imu = len(plan.imu)
    out[:, n_imu] = known[:, :n_imu].mean(axis=1, dtype=np.float32)
    if plan.other:
        first = plan.n_imu + len(plan.other)
        for place, position in enumerate(plan.single):
            out[:, first + place] = known[:, n_imu + position]
        measured = n_imu + np.flatnonzero(np.isnan(absent[n_imu:]))
        if measured.size:
            out[:, -1] = known[:, measured].mean(axis=1, dtype=np.float32)


def _fill(
    out: Float32, frames: Float32, plan: InputPlan, positions: list[int], scaler: Scaler, absent: Float32
) -> Bool:
    """Write the scaled channels to their places in out; give which values were measured, (n_frames, n_channels)."""
    known = np.empty((frames.shape[0], len(positions)), dtype=np.bool_)
    for place, position in enumerate(positions):
        values = frames[:, position]
        # not out=: NumPy 2.4 fills strided outputs wrongly; tests/test_ufuncs.py lets no call of ours do it
        known[:, place] = np.isfinite(values) & (values != absent[place])
        to = place if place < len(plan.imu) else place + 1
        out[:, to] = _scaled(values, scaler.mean[place], scaler.scale[place])
    return known


def _scaled(values: Float32, mean: AnyArray, scale: AnyArray) -> Float32:
    """Scale measurements; what is missing becomes 0."""
    return np.where(np.isfinite(values), np.clip((values - mean) / scale, -CLIP, CLIP), np.float32(0.0))


def _with_flags(channels: Float32, plan: InputPlan) -> Float32:
    """Add the flags to the channels of the second branch where nothing measured: all are 0."""
    return np.concatenate([channels, np.zeros(plan.n_other - len(channels), dtype=np.float32)])


def frame_index(lengths: AnyArray, n_steps: int, pad: str) -> tuple[Int64, Bool]:
    """Say which frame of each sequence stands at each padded step.

    Parameters
    ----------
    lengths
        int64, (n_sequences,).
    n_steps
        Padded length; what is longer keeps its tail.
    pad
        `left` or `right`.

    Returns
    -------
    int64 (n_sequences, n_steps), positions inside the sequence, and bool of the same shape: is it a recorded frame?
    """
    steps = np.arange(n_steps, dtype=np.int64)
    kept = np.minimum(lengths, n_steps)[:, None]
    start = lengths[:, None] - (n_steps if pad == "left" else kept)
    position = np.asarray(steps + start, dtype=np.int64)
    valid = steps >= n_steps - kept if pad == "left" else steps < kept
    return position, np.broadcast_to(valid, position.shape)


def gather(data: Ready, chosen: Int64, position: Int64, valid: Bool) -> dict[str, AnyArray]:
    """Copy frames to their padded places.

    Parameters
    ----------
    data
        The scaled sequences.
    chosen
        int64, (batch,): sequence numbers.
    position, valid
        From `frame_index`, for these sequences.

    Returns
    -------
    `frames` float32 (batch, time, n_imu + n_other), `mask` float32 (batch, time, 1) and, where there are ToF sensors,
    `tof` uint8 (batch, time, n_tof, 64). Padding is 0, and missing in the images.
    """
    rows = np.where(valid, data.offsets[chosen][:, None] + position, 0)
    frames = data.frames[rows]
    frames[~valid] = 0.0
    out: dict[str, AnyArray] = {"frames": frames, "mask": valid[..., None].astype(np.float32)}
    if data.tof.shape[1]:
        tof = data.tof[rows]
        tof[~valid] = TOF_IMAGE_MISSING
        out["tof"] = tof
    return out


def drop_sensors(inputs: dict[str, AnyArray], rows: AnyArray, plan: InputPlan, without: Float32) -> None:
    """Take thermopiles and ToF sensors away from some sequences of a padded batch, in place.

    Gives exactly what `FeatureBatch.imu_only` of the same sequences gives. `rows` is a bool or integer index.
    """
    if plan.other:
        inputs["frames"][rows, :, plan.n_imu :] = without * inputs["mask"][rows]
    if "tof" in inputs:
        inputs["tof"][rows] = TOF_IMAGE_MISSING


def prediction_batches(data: Ready, plan: InputPlan) -> Iterator[tuple[Int64, dict[str, AnyArray]]]:
    """Yield sequence numbers and their padded inputs, short sequences first, so that little is padded."""
    order = np.argsort(np.minimum(data.lengths, plan.length), kind="stable")
    padded = np.array([plan.padded(int(length)) for length in data.lengths[order]], dtype=np.int64)
    for n_steps in np.unique(padded):
        same = order[padded == n_steps]
        for first in range(0, same.size, PREDICT_BATCH):
            chosen = same[first : first + PREDICT_BATCH]
            position, valid = frame_index(data.lengths[chosen], int(n_steps), plan.pad)
            yield chosen, gather(data, chosen, position, valid)
