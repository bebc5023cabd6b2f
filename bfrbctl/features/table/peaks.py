"""Peaks and runs: statistics of what happens inside a signal, counted on flattened blocks without a loop."""

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float64, Int64
from bfrbctl.features.table.blocks import CLOSE, Block, ratio
from bfrbctl.features.table.statistics import Statistic, Statistics

PEAK_PROMINENCE = 0.25
"""In standard deviations: a lesser hill is not counted as a peak."""


def _peaks(block: Block) -> list[Float64]:
    shape, width = block.count.shape, block.values.shape[-1]
    places, prominences = find_peaks(block)
    high = prominences > PEAK_PROMINENCE * block.std.reshape(-1)[places // width]
    places, prominences = places[high], prominences[high]
    rows = places // width
    spacing, inner = np.diff(places) / block.rate_hz, rows[1:] == rows[:-1]
    count, total, _, largest = _by_row(rows, prominences, block.count.size)
    n_gaps, gaps, squares, _ = _by_row(rows[1:][inner], spacing[inner], block.count.size)
    mean_gap = ratio(gaps, n_gaps)
    variance = np.maximum(ratio(squares, n_gaps) - mean_gap * mean_gap, 0.0)
    return [
        ratio(count.reshape(shape) * block.rate_hz, block.count),
        mean_gap.reshape(shape),
        np.sqrt(np.where(variance > CLOSE * mean_gap * mean_gap, variance, 0.0 * variance)).reshape(shape),
        ratio(total, count).reshape(shape),
        np.where(count > 0, largest, np.nan).reshape(shape),
    ]


def find_peaks(block: Block) -> tuple[Int64, Float64]:
    """Find the local maxima of a block and how far each stands out from the valleys beside it.

    Returns
    -------
    int64, (n_peaks,): places in the flattened block, ascending; and float64, (n_peaks,): the height above the higher
    one of the two valleys towards the neighbouring maxima (or the ends of the sequence). A maximum is larger than the
    value before and not smaller than the value after it, both valid.
    """
    width = block.values.shape[-1]
    if width < 3:
        return np.empty(0, dtype=np.int64), np.empty(0)
    values = block.values
    maxima = np.zeros(values.shape, dtype=np.bool_)
    np.greater(values[..., 1:-1], values[..., :-2], out=maxima[..., 1:-1])
    maxima[..., 1:-1] &= values[..., 1:-1] >= values[..., 2:]
    cuts = maxima.reshape(-1, width).copy()
    cuts[:, 0] = True
    starts = np.flatnonzero(cuts)
    flat = np.where(block.valid, values, np.inf).reshape(-1)
    valleys = np.minimum.reduceat(flat, starts)
    chosen = np.flatnonzero(maxima.reshape(-1)[starts])
    places = starts[chosen].astype(np.int64)
    return places, np.asarray(flat[places] - np.maximum(valleys[chosen - 1], valleys[chosen]))


PEAKS = Statistics(
    "peaks",
    (
        Statistic("peak_rate", "Hz", f"peaks of a prominence above {PEAK_PROMINENCE} std a second"),
        Statistic("peak_spacing", "s", "mean time between neighbouring peaks"),
        Statistic("peak_spacing_std", "s", "standard deviation of the time between neighbouring peaks"),
        Statistic("peak_prominence", "{u}", "mean height of peaks above the higher of the two valleys beside them"),
        Statistic("peak_prominence_max", "{u}", "largest height of a peak above the higher of the two valleys"),
    ),
    _peaks,
)


def _runs(block: Block) -> list[Float64]:
    band = block.tolerance
    measured = block.count > 0
    out: list[Float64] = []
    for threshold, sides in ((block.mean + band, "both"), (block.mean + block.std + band, "above")):
        lengths, rows, above = _run_lengths(block, threshold)
        for side in (True, False) if sides == "both" else (True,):
            of_side = above == side
            out += _run_statistics(lengths[of_side], rows[of_side], block, full=sides == "both")
    lengths, rows, above = _run_lengths(block, block.mean - block.std - band)
    out += _run_statistics(lengths[~above], rows[~above], block, full=False)
    return [np.where(measured, values, np.nan) for values in out]


def _run_lengths(block: Block, threshold: Float64) -> tuple[Int64, Int64, AnyArray]:
    """Cut the flattened block where the side of the threshold changes: lengths in frames, rows, sides of the runs."""
    width = block.values.shape[-1]
    state = (block.values > threshold[..., None]).view(np.uint8)
    state[~block.valid] = 2
    table = state.reshape(-1, width)
    cuts = np.ones(table.shape, dtype=np.bool_)
    np.not_equal(table[:, 1:], table[:, :-1], out=cuts[:, 1:])
    starts = np.flatnonzero(cuts)
    lengths = np.diff(np.append(starts, table.size))
    side = table.reshape(-1)[starts]
    known = side < 2
    return lengths[known], (starts // width)[known], side[known] == 1


def _run_statistics(lengths: Int64, rows: Int64, block: Block, *, full: bool) -> list[Float64]:
    count, total, squares, longest = _by_row(rows, lengths.astype(np.float64), block.count.size)
    shape, rate_hz = block.count.shape, block.rate_hz
    out = [np.where(count > 0, longest, 0.0).reshape(shape) / rate_hz]
    if full:
        # whole numbers below 2^53: both terms are exact, and so is their difference
        variance = ratio(count * squares - total * total, count * count)
        out += [ratio(total, count).reshape(shape) / rate_hz, variance.reshape(shape) / rate_hz**2]
    return out


RUNS = Statistics(
    "runs",
    (
        Statistic("run_above", "s", "longest run above the mean"),
        Statistic("run_above_mean", "s", "mean length of runs above the mean"),
        Statistic("run_above_var", "s^2", "variance of the length of runs above the mean"),
        Statistic("run_below", "s", "longest run not above the mean"),
        Statistic("run_below_mean", "s", "mean length of runs not above the mean"),
        Statistic("run_below_var", "s^2", "variance of the length of runs not above the mean"),
        Statistic("run_high", "s", "longest run above mean + std"),
        Statistic("run_low", "s", "longest run not above mean - std"),
    ),
    _runs,
)


def _by_row(rows: Int64, values: Float64, n_rows: int) -> tuple[Float64, Float64, Float64, Float64]:
    """Count, sum, sum of squares and largest of the values of each row; rows ascend."""
    count = np.bincount(rows, minlength=n_rows).astype(np.float64)
    total = np.bincount(rows, values, minlength=n_rows).astype(np.float64)
    squares = np.bincount(rows, values * values, minlength=n_rows).astype(np.float64)
    largest = np.full(n_rows, -np.inf)
    np.maximum.at(largest, rows, values)
    return count, total, squares, largest
