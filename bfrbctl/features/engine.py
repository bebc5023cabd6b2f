"""Compute frame channels and the sequence table of a batch of recordings.

Whole-array steps on all frames first, then the table on blocks of sequences of like length. A block is kept small
enough for the processor's cache; how a batch is cut into blocks never changes a bit of the result. Recordings in which
nothing but the IMU measured are computed as those of a device that has nothing else.
"""

from functools import lru_cache

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float32, Float64, Int64, UInt8, length_groups, offsets_of, padded_rows
from bfrbctl.features.catalogue import EXTRAS, columns
from bfrbctl.features.channels import imu, thermopile, tof
from bfrbctl.features.channels.canonical import Canonical, canonical, layout_used
from bfrbctl.features.settings import FeatureConfig
from bfrbctl.features.table.plan import FeatureGroup, feature_groups
from bfrbctl.features.table.signals import SignalBlock
from bfrbctl.recordings.dataset import TOF, TOF_IMAGE_MISSING, FeatureBatch, RecordingBatch
from bfrbctl.schema import IMU_LAYOUT, TOF_PIXELS, SensorLayout

BLOCK_ROWS = 8192
"""Most padded frames in one block: a signal of it takes 64 KiB."""

_ROWS_AT_ONCE = 1024
"""Rows that are put together at once: few enough for the processor's cache."""

_FEW_ROWS = 256
"""Up to so many rows all columns are put together in one step: what counts then is the number of steps."""

UNKNOWN_PHASE = 255

Places = tuple[Int64, Float32]


def compute(batch: RecordingBatch, config: FeatureConfig, *, table: bool = True, frames: bool = True) -> FeatureBatch:
    """Compute the features of recordings.

    Parameters
    ----------
    batch
        Whole sequences; their labels, if there are any, are not in it.
    config
        What is wanted.
    table
        Whether to compute the sequence table.
    frames
        Whether to give the frame channels and ToF images.

    Returns
    -------
    A batch whose rows for a sequence depend on that sequence alone, bit for bit. `phase` is unknown (255) throughout.
    """
    used = layout_used(batch.layout, config)
    imu_only = batch.is_imu_only() if used.thm or used.tof else np.zeros(batch.n_sequences, dtype=np.bool_)
    if not imu_only.any():
        return _computed(batch, config, table=table, frames=frames)
    features, wanted = columns(config, batch.layout)
    lengths = np.diff(batch.offsets) if frames else np.zeros(batch.n_sequences, dtype=np.int64)
    offsets = offsets_of(lengths)
    n_frames, n_tof = int(offsets[-1]), len(used.tof) if config.tof_images else 0
    out = FeatureBatch(
        sequence_ids=batch.sequence_ids,
        offsets=offsets,
        table=np.empty((batch.n_sequences, len(features) if table else 0), dtype=np.float32),
        features=features if table else (),
        frames=np.empty((n_frames, len(wanted) if frames else 0), dtype=np.float32),
        channels=wanted if frames else (),
        tof=np.full((n_frames, n_tof, TOF_PIXELS), TOF_IMAGE_MISSING, dtype=np.uint8),
        phase=np.full(n_frames, UNKNOWN_PHASE, dtype=np.uint8),
    )
    of_table, of_frames = _imu_places(config, batch.layout)
    for chosen, layout in ((imu_only, IMU_LAYOUT), (~imu_only, batch.layout)):
        if chosen.any():
            some = batch.conform(layout).take(np.flatnonzero(chosen))
            computed = _computed(some, config, table=table, frames=frames)
            rows = np.repeat(chosen, lengths)
            _write(out.table, chosen, computed.table, of_table)
            _write(out.frames, rows, computed.frames, of_frames)
            if computed.tof.shape[1]:
                out.tof[rows] = computed.tof
    return out


@lru_cache(maxsize=32)
def _imu_places(config: FeatureConfig, layout: SensorLayout) -> tuple[Places, Places]:
    """Say where the columns of table and frames stand that need the IMU alone, and what the others are without more."""
    table, frames = (
        (
            np.flatnonzero([column.survives_imu_only for column in described]),
            np.array([column.when_missing for column in described], dtype=np.float32),
        )
        for described in columns(config, layout)
    )
    return table, frames


def _write(out: Float32, rows: Bool, values: Float32, places: Places) -> None:
    """Write what was computed of some rows: all columns, or those that need the IMU alone."""
    if values.shape[1] < out.shape[1]:
        at, missing = places
        narrow, values = values, np.repeat(missing[None], len(values), axis=0)
        values[:, at] = narrow
    out[rows] = values


def _computed(batch: RecordingBatch, config: FeatureConfig, *, table: bool, frames: bool) -> FeatureBatch:
    """Compute all columns of a device's sensors, whether or not they measured anything."""
    features, wanted = columns(config, batch.layout)
    with np.errstate(all="ignore"):  # what is not measurable is NaN: dividing by zero on the way there is no news
        recordings = canonical(batch, config)
        channels = {**imu.channels(recordings), **thermopile.channels(recordings), **tof.channels(recordings)}
        values = (
            _table(batch, recordings, channels, config=config)
            if table
            else np.empty((batch.n_sequences, 0), dtype=np.float32)
        )
    n_frames = batch.n_frames if frames else 0
    return FeatureBatch(
        sequence_ids=batch.sequence_ids,
        offsets=batch.offsets if frames else np.zeros_like(batch.offsets),
        table=values,
        features=features if table else (),
        frames=_stacked([channels[column.name][:n_frames] for column in wanted] if frames else [], n_frames),
        channels=wanted if frames else (),
        tof=_images(recordings, config, n_frames),
        phase=np.full(n_frames, UNKNOWN_PHASE, dtype=np.uint8),
    )


def _images(recordings: Canonical, config: FeatureConfig, n_frames: int) -> UInt8:
    if TOF in config.modalities and config.tof_images:
        return recordings.images[:n_frames]
    return np.empty((n_frames, 0, 64), dtype=np.uint8)


def _table(
    batch: RecordingBatch, recordings: Canonical, channels: dict[str, Float64], *, config: FeatureConfig
) -> Float32:
    features, _ = columns(config, batch.layout)
    plan = feature_groups(recordings.layout, config)
    matrix = np.full((len(channels), batch.n_frames + 1), np.nan)
    for row, values in zip(matrix, channels.values(), strict=True):
        row[:-1] = values
    padded = dict(zip(channels, matrix, strict=True))
    lengths = np.diff(batch.offsets)
    out = np.full((batch.n_sequences, len(features)), np.nan, dtype=np.float32)
    for width, chosen in length_groups(lengths, BLOCK_ROWS):
        signals = SignalBlock(
            padded,
            padded_rows(batch.offsets, chosen, width),
            lengths=lengths[chosen],
            demographics=batch.demographics[chosen].astype(np.float64),
            rate_hz=batch.rate_hz,
        )
        rows = [row for group in plan for row in _group_rows(signals, group)]
        rows += _extra_rows(signals, recordings, config)
        out[chosen] = _stacked(rows, len(chosen))
    return out


def _group_rows(signals: SignalBlock, group: FeatureGroup) -> list[Float64]:
    block = signals.block(group.signals)
    return [
        row
        for statistics, windows in group.steps
        for window in windows
        for values in statistics.compute(block.window(window))
        for row in values
    ]


def _extra_rows(signals: SignalBlock, recordings: Canonical, config: FeatureConfig) -> list[Float64]:
    rows: list[Float64] = []
    for extra in EXTRAS:
        families = [column.family for column in extra.describe(recordings.layout)]
        if not set(families).isdisjoint(config.families):
            values = extra.compute(signals, recordings.layout)
            rows += [row for row, family in zip(values, families, strict=True) if family in config.families]
    return rows


def _stacked(columns: list[Float64], n_rows: int) -> Float32:
    """Put columns side by side as float32; what float32 cannot hold is not a measurement and becomes NaN."""
    if 0 < n_rows <= _FEW_ROWS and columns:
        few = np.concatenate(columns).reshape(len(columns), n_rows).T.astype(np.float32, order="C")
        few[~np.isfinite(few)] = np.nan
        return few
    out = np.empty((n_rows, len(columns)), dtype=np.float32)
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        part = out[start : start + _ROWS_AT_ONCE]
        for position, values in enumerate(columns):
            part[:, position] = values[start : start + _ROWS_AT_ONCE]
        part[~np.isfinite(part)] = np.nan
    return out
