"""Arrival of the hand at its target, as thermopiles and ToF sensors see it, and frames far from the usual."""

from functools import lru_cache

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64
from bfrbctl.features.table.blocks import Block, ratio
from bfrbctl.features.table.signals import Extra, SignalBlock
from bfrbctl.recordings.dataset import THM, TOF, Column
from bfrbctl.schema import SensorLayout

HOT_DEVIATIONS = 3.0
MAD_TO_STD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""

NEAR_SHARE = 0.5

_THM: tuple[tuple[str, str, str, str], ...] = (
    ("rise", "temperature", "degC", "mean of the last third less mean of the first third"),
    ("rise_max", "temperature", "degC", "largest value less mean of the first third"),
    ("rise_time", "temperature", "1", "frame of the steepest rise / n_frames"),
    ("hot", "anomalies", "1", "share of frames above median + 3 x 1.4826 x median absolute deviation"),
    ("cold", "anomalies", "1", "share of frames below median - 3 x 1.4826 x median absolute deviation"),
)
_TOF: tuple[tuple[str, str, str, str], ...] = (
    ("approach", "distance", "step", "mean depth of the first third less mean depth of the last third"),
    ("arrival", "distance", "1", "first frame whose depth is below the middle of its extremes / n_frames"),
    ("path", "distance", "pixel", "mean way of the centroid from frame to frame"),
    ("near", "anomalies", "1", "share of frames whose nearest pixel is below half of its median"),
    ("spot", "anomalies", "1", "share of frames whose nearest pixel is below half of the frame's mean over returns"),
)


@lru_cache(maxsize=32)
def describe_thm(layout: SensorLayout) -> tuple[Column, ...]:
    """Say what is computed of each thermopile."""
    return tuple(
        Column(f"{sensor}__{name}", family, THM, unit, f"{formula}; x = {sensor}")
        for name, family, unit, formula in _THM
        for sensor in layout.thm_columns
    )


def thm(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    """Compute arrival and anomalies of the thermopiles: one (n_sequences,) array each."""
    if not layout.thm:
        return []
    block = signals.block(layout.thm_columns)
    rates = signals.block(tuple(f"{name}_rate" for name in layout.thm_columns))
    first, last = block.window("first").mean, block.window("last").mean
    steepest = np.argmax(np.where(rates.valid, rates.values, -np.inf), axis=-1)
    median = block.quantile(0.5)
    apart = np.sort(np.abs(block.values - median[..., None]), axis=-1)
    limit = HOT_DEVIATIONS * MAD_TO_STD * _median_of_sorted(apart, block.count)
    hot = np.sum(block.values > (median + limit)[..., None], axis=-1)
    cold = np.sum(block.values < (median - limit)[..., None], axis=-1)
    rows = [
        last - first,
        block.maximum - first,
        np.where(rates.count > 0, steepest / signals.lengths, np.nan),
        ratio(hot, block.count),
        ratio(cold, block.count),
    ]
    return [row for values in rows for row in values]


@lru_cache(maxsize=32)
def describe_tof(layout: SensorLayout) -> tuple[Column, ...]:
    """Say what is computed of each ToF sensor."""
    return (
        *(
            Column(f"tof_{sensor}__{name}", family, TOF, unit, f"{formula}; ToF sensor {sensor}")
            for name, family, unit, formula in _TOF
            for sensor in layout.tof
        ),
        *(
            Column(
                f"tof_{sensor}__nearest",
                "distance",
                TOF,
                "1",
                f"share of frames where the depth of ToF sensor {sensor} is the least of all (the first of equals)",
            )
            for sensor in layout.tof
        ),
    )


def tof(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    """Compute arrival and anomalies of the ToF sensors: one (n_sequences,) array each."""
    if not layout.tof:
        return []
    depth, least, mean = (_of_each(signals, layout, name) for name in ("depth", "min", "mean"))
    halfway = (depth.minimum + depth.maximum) / 2.0
    arrived = depth.values < halfway[..., None]
    near = np.sum(least.values < (NEAR_SHARE * least.quantile(0.5))[..., None], axis=-1)
    spot = np.sum(least.values < NEAR_SHARE * mean.values, axis=-1)
    nearest = np.argmin(np.where(depth.valid, depth.values, np.inf), axis=0)
    seen = depth.valid.any(axis=0)
    rows: list[Float64 | list[Float64]] = [
        depth.window("first").mean - depth.window("last").mean,
        np.where(arrived.any(axis=-1), np.argmax(arrived, axis=-1) / signals.lengths, np.nan),
        _path(signals, layout),
        ratio(near, least.count),
        ratio(spot, least.count),
        [ratio(np.sum(seen & (nearest == i), axis=-1), np.sum(seen, axis=-1)) for i in range(len(layout.tof))],
    ]
    return [row for values in rows for row in values]


def _of_each(signals: SignalBlock, layout: SensorLayout, name: str) -> Block:
    return signals.block(tuple(f"tof_{sensor}_{name}" for sensor in layout.tof))


def _path(signals: SignalBlock, layout: SensorLayout) -> Float64:
    x, y = (_of_each(signals, layout, name).steps for name in ("cx", "cy"))
    way = np.sqrt(x * x + y * y)
    known = ~np.isnan(way)
    return ratio(np.where(known, way, 0.0).sum(axis=-1), np.sum(known, axis=-1))


def _median_of_sorted(values: Float64, count: Float64) -> Float64:
    """Median of rows sorted with NaN last."""
    top = np.maximum(count - 1, 0).astype(np.int64)
    low, high = (np.take_along_axis(values, index[..., None], axis=-1)[..., 0] for index in (top // 2, (top + 1) // 2))
    return np.asarray((low + high) / 2.0)


EXTRAS = (Extra(describe_thm, thm), Extra(describe_tof, tof))
