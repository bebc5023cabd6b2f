"""How two signals go together: correlations over valid pairs, coherence and phase of rotation and acceleration."""

from functools import lru_cache

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Bool, Float64, Int64
from bfrbctl.features.table.blocks import Block, dot, ratio
from bfrbctl.features.table.signals import Extra, SignalBlock
from bfrbctl.features.table.spectral import WELCH, segment_length, transforms
from bfrbctl.recordings.dataset import IMU, THM, TOF, Column
from bfrbctl.schema import SensorLayout

MIN_PAIRS = 8
"""Fewer frames with both values say nothing of how two signals go together."""

MIN_SEGMENTS = 3
"""Fewer segments give a coherence near 1 whatever the signals."""

COHERENCE_BANDS_HZ = ((0.15, 1.5), (1.5, 3.0), (3.0, 5.0))

_AT_ONCE = 8
"""Pairs that are computed together: few enough for the processor's cache."""

Pairs = tuple[tuple[str, str], ...]

_IMU_PAIRS: Pairs = (
    *((f"{name}_{a}", f"{name}_{b}") for name in ("acc", "lin", "gyro") for a, b in ("xy", "xz", "yz")),
    *((f"gyro_{a}", f"lin_{b}") for a in "xyz" for b in "xyz"),
    ("lin_mag", "gyro_mag"),
    ("world_z", "world_horizontal"),
    ("up_x", "lin_mag"),
)
_COHERENCE_PAIRS: Pairs = (
    ("gyro_mag", "lin_mag"),
    *((f"gyro_{a}", f"lin_{b}") for a, b in ("xy", "xz", "yx", "yz", "zx", "zy")),
)


@lru_cache(maxsize=32)
def _pairs(layout: SensorLayout) -> Pairs:
    thm, tof = layout.thm_columns, tuple(f"tof_{sensor}" for sensor in layout.tof)
    return (
        *_IMU_PAIRS,
        *((name, signal) for name in thm for signal in ("up_x", "up_y", "gyro_mag")),
        *((f"{name}_depth", signal) for name in tof for signal in ("up_x", "up_y", "up_z", "gyro_mag")),
        *((f"tof_{sensor}_depth", f"thm_{sensor}") for sensor in layout.tof if sensor in layout.thm),
        *((f"{a}_depth", f"{b}_depth") for i, a in enumerate(tof) for b in tof[i + 1 :]),
    )


@lru_cache(maxsize=32)
def describe_correlation(layout: SensorLayout) -> tuple[Column, ...]:
    """Say which correlations there are."""
    return tuple(
        Column(
            f"corr__{a}__{b}",
            "coupling",
            _modality(a, b),
            "1",
            f"Pearson correlation of {a} and {b} over frames that have both; null below {MIN_PAIRS} of them",
        )
        for a, b in _pairs(layout)
    )


def correlation(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    """Correlate the pairs: one (n_sequences,) array each."""
    pairs = _pairs(layout)
    names = tuple(dict.fromkeys(name for pair in pairs for name in pair))
    block = signals.block(names)
    left, right = (np.array([names.index(pair[side]) for pair in pairs]) for side in (0, 1))
    return [
        row
        for start in range(0, len(pairs), _AT_ONCE)
        for row in _correlated(block, left[start : start + _AT_ONCE], right[start : start + _AT_ONCE])
    ]


def _correlated(signals: Block, left: Int64, right: Int64) -> Float64:
    both = (signals.valid[left] & signals.valid[right]).astype(np.float64)
    count = both.sum(axis=-1)
    a, b = (_centred(signals.centred[side], both, count) for side in (left, right))
    flat = (signals.std[left] == 0) | (signals.std[right] == 0) | (count < MIN_PAIRS)
    return np.where(flat, np.nan, np.clip(ratio(dot(a, b), np.sqrt(dot(a, a) * dot(b, b))), -1.0, 1.0))


def _centred(values: Float64, chosen: Float64, count: Float64) -> Float64:
    """Take their mean from the chosen values, 1 of 0 and 1; the others become 0. In place."""
    values *= chosen
    values -= ratio(values.sum(axis=-1), count)[..., None]
    values *= chosen
    return values


@lru_cache(maxsize=32)
def describe_coherence(layout: SensorLayout) -> tuple[Column, ...]:
    """Say which coherences and phases there are."""
    columns = []
    for name, formula in (
        *(
            (f"coherence{i}", f"mean |Sxy|^2 / (Sxx Syy) over {low}-{high} Hz")
            for i, (low, high) in enumerate(COHERENCE_BANDS_HZ, start=1)
        ),
        ("phase_cos", "cosine of the phase of Sxy at its largest bin above 0 Hz"),
        ("phase_sin", "sine of the phase of Sxy at its largest bin above 0 Hz"),
    ):
        columns += [
            Column(
                f"{name}__{a}__{b}",
                "coupling",
                IMU,
                "1",
                f"{formula}; Welch, three quarters overlap, null below {MIN_SEGMENTS} segments; x = {a}, y = {b}",
                WELCH,
            )
            for a, b in _COHERENCE_PAIRS
        ]
    return tuple(columns)


def coherence(signals: SignalBlock, layout: SensorLayout) -> list[AnyArray]:
    """Compute coherence by band, then the phase, of all pairs: one (n_sequences,) array each."""
    size = segment_length(signals.rate_hz)
    names = tuple(dict.fromkeys(name for pair in _COHERENCE_PAIRS for name in pair))
    spectrum, inside = transforms(signals.block(names), size=size, hop=size // 4)
    spectrum = np.where(inside[..., None], spectrum[..., 1:], 0.0)
    re, im = np.ascontiguousarray(spectrum.real), np.ascontiguousarray(spectrum.imag)
    power = (re * re + im * im).sum(axis=2)
    i, j = (np.array([names.index(pair[side]) for pair in _COHERENCE_PAIRS]) for side in (0, 1))
    cross_re = (re[i] * re[j] + im[i] * im[j]).sum(axis=2)  # conj(X) Y, as in scipy.signal.csd
    cross_im = (re[i] * im[j] - im[i] * re[j]).sum(axis=2)
    size2 = cross_re * cross_re + cross_im * cross_im
    values = ratio(size2, power[i] * power[j])
    values[:, inside.sum(axis=1) < MIN_SEGMENTS] = np.nan
    frequency = np.arange(1, size // 2 + 1) * (signals.rate_hz / size)
    rows = [_band_mean(values, (frequency >= low) & (frequency < high)) for low, high in COHERENCE_BANDS_HZ]
    place = np.argmax(np.nan_to_num(size2), axis=-1)[..., None]
    largest = np.sqrt(np.take_along_axis(size2, place, axis=-1)[..., 0])
    known = ~np.isnan(values[..., 0])
    rows += [
        np.where(known, ratio(np.take_along_axis(part, place, axis=-1)[..., 0], largest), np.nan)
        for part in (cross_re, cross_im)
    ]
    return [row for values in rows for row in values]


def _band_mean(values: Float64, inside: Bool) -> Float64:
    if not inside.any():
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(np.ascontiguousarray(values[..., inside]).mean(axis=-1))


def _modality(a: str, b: str) -> str:
    needed = {name[:3] if name[:3] in (THM, TOF) else IMU for name in (a, b)}
    return "+".join(modality for modality in (IMU, THM, TOF) if modality in needed)


EXTRAS = (Extra(describe_correlation, correlation), Extra(describe_coherence, coherence))
