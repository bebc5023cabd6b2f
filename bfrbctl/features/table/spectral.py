"""Welch spectra of blocks: power spectral density, and the numbers that sum it up.

Segments have 32 frames, or the next power of two above 3.2 s of frames at faster rates, a periodic Hann window, half of
their length in common, and their mean removed. A shorter sequence has its mean removed and zeros appended to one
segment. Frames without a value count as the mean.
Source: P. Welch, IEEE Trans. Audio Electroacoust. 15, 1967; the scaling is that of scipy.signal.welch.
"""

import math

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64
from bfrbctl.features.table.blocks import Block
from bfrbctl.features.table.statistics import Statistic, Statistics

MIN_SEGMENT = 32
SEGMENT_S = 3.2
BANDS_HZ = ((0.15, 0.75), (0.75, 1.5), (1.5, 2.5), (2.5, 3.5), (3.5, 5.0))
FLOOR = 1e-9
"""Share of the total power that stands in for an empty bin of the flatness."""

WELCH = "P. Welch, IEEE Trans. Audio Electroacoust. 15, 1967"


def segment_length(rate_hz: float) -> int:
    """Give the frames of one Welch segment: 32 at 10 Hz, 64 at 20 Hz, never fewer than 32."""
    return max(MIN_SEGMENT, 1 << math.ceil(math.log2(max(SEGMENT_S * rate_hz, 1.0))))


def transforms(block: Block, *, size: int, hop: int) -> tuple[AnyArray, Bool]:
    """Transform the windowed segments of every sequence.

    Parameters
    ----------
    block
        Of any width.
    size
        Frames of a segment.
    hop
        Frames from one segment to the next.

    Returns
    -------
    complex128, (n_signals, n_sequences, n_segments, size // 2 + 1), and bool, (n_sequences, n_segments): which
    segments lie inside the sequence (the first always counts).
    """
    centred = block.centred
    if centred.shape[-1] < size:
        padding = np.zeros((*centred.shape[:-1], size - centred.shape[-1]))
        centred = np.concatenate([centred, padding], axis=-1)
    segments = np.lib.stride_tricks.sliding_window_view(centred, size, axis=-1)[..., ::hop, :]
    begin = np.arange(segments.shape[2]) * hop
    inside = (begin + size <= block.lengths[:, None]) | (begin == 0)
    segments = np.ascontiguousarray(segments)
    offset = np.where(block.lengths[:, None] >= size, segments.sum(axis=-1) / size, 0.0)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return np.fft.rfft((segments - offset[..., None]) * window, axis=-1), inside


def power_density(block: Block) -> tuple[Float64, Float64]:
    """Estimate the power spectral density.

    Returns
    -------
    float64, (n_bins,): frequency, Hz; and float64, (n_signals, n_sequences, n_bins), in the signal's unit^2/Hz; NaN
    where there are no values.
    """
    size = segment_length(block.rate_hz)
    spectrum, inside = transforms(block, size=size, hop=size // 2)
    power = spectrum.real**2 + spectrum.imag**2
    total = np.where(inside[..., None], power, 0.0).sum(axis=2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    density = total / inside.sum(axis=1)[:, None] * (2.0 / (block.rate_hz * float(np.sum(window * window))))
    density[..., 0] /= 2.0
    density[..., -1] /= 2.0
    density[block.count == 0] = np.nan
    frequency = np.arange(size // 2 + 1, dtype=np.float64) * (block.rate_hz / size)
    return np.asarray(frequency), np.asarray(density)


def _spectral(block: Block) -> list[Float64]:
    frequency, density = power_density(block)
    frequency, density = frequency[1:], np.ascontiguousarray(density[..., 1:])
    density = np.where(block.std[..., None] == 0, 0.0, density)
    total = density.sum(axis=-1)
    share = density / np.where(total > 0, total, np.nan)[..., None]
    centroid = (share * frequency).sum(axis=-1)
    spread = (share * (frequency - centroid[..., None]) ** 2).sum(axis=-1)
    # two frames give a flat spectrum: of bins that are level but for rounding the lowest is the peak
    known = np.nan_to_num(share)
    peak = np.argmax(known >= known.max(axis=-1, keepdims=True) * (1 - 1e-9), axis=-1)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=-1) / np.log(frequency.size)
    flatness = np.exp(np.log(np.maximum(share, FLOOR)).mean(axis=-1)) * frequency.size
    return [
        total * (frequency[1] - frequency[0]),
        *(_band(share, frequency, low=low, high=high) for low, high in BANDS_HZ),
        np.where(total > 0, frequency[peak], np.nan),
        share.max(axis=-1),
        centroid,
        np.sqrt(spread),
        entropy,
        flatness,
    ]


def _band(share: Float64, frequency: Float64, *, low: float, high: float) -> Float64:
    inside = (frequency >= low) & (frequency < high if high < BANDS_HZ[-1][1] else frequency <= high)
    if not inside.any():
        return np.full(share.shape[:-1], np.nan)
    return np.asarray(np.ascontiguousarray(share[..., inside]).sum(axis=-1))


SPECTRAL = Statistics(
    "spectral",
    tuple(
        Statistic(name, unit, f"{formula} of the Welch spectrum above 0 Hz", WELCH)
        for name, unit, formula in (
            ("power", "({u})^2", "integral"),
            *(
                (f"band{i}", "1", f"share of the power in {low}-{high} Hz")
                for i, (low, high) in enumerate(BANDS_HZ, start=1)
            ),
            ("peak_frequency", "Hz", "frequency of the largest bin"),
            ("peak_share", "1", "share of the power in the largest bin"),
            ("centroid", "Hz", "mean frequency, weighted by power,"),
            ("bandwidth", "Hz", "standard deviation of the frequency, weighted by power,"),
            ("spectral_entropy", "1", "entropy of the shares of power / log(number of bins)"),
            ("flatness", "1", "geometric mean (empty bins as 1e-9 of all) over arithmetic mean"),
        )
    ),
    _spectral,
)
