"""Frame channels of the time-of-flight sensors: each 8x8 image in a few numbers.

A pixel that saw nothing in range is a measurement: it counts as `FAR` in depths and regions, and is left out of the
statistics over returns. Every sum below is of whole numbers small enough for float32 to hold exactly, so that the
matrix products give the same bits in any order and on any number of frames.
"""

import numpy as np

from bfrbctl.dataset import TOF, TOF_IMAGE_MISSING, TOF_IMAGE_NO_RETURN, Column
from bfrbctl.features.blocks import ratio
from bfrbctl.features.canonical import Canonical
from bfrbctl.schema import TOF_PIXELS, SensorLayout
from bfrbctl.segments import Float32, Float64, UInt8

FAR = 250
"""Depth given to a pixel without a return: one step beyond the largest reading."""

QUADRANTS = ("11", "12", "21", "22")
NINTHS = tuple(f"{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))
_CHUNK = 2048
_SLICE = 128

_ROWS, _COLUMNS = np.divmod(np.arange(TOF_PIXELS), 8)
_X, _Y = 2 * _COLUMNS - 7, 2 * _ROWS - 7
_NINTH_OF = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def _regions() -> Float32:
    halves = [(i == _ROWS // 4) & (j == _COLUMNS // 4) for i in range(2) for j in range(2)]
    ninths = [(_NINTH_OF[_ROWS] == i) & (_NINTH_OF[_COLUMNS] == j) for i in range(3) for j in range(3)]
    return np.stack([*halves, *ninths], axis=1).astype(np.float32)  # (64, 13)


def _shape_weights() -> Float32:
    ones = np.ones(TOF_PIXELS)
    return np.stack([ones, _X, _Y, _X * _X, _Y * _Y, _X * _Y], axis=1).astype(np.float32)  # (64, 6)


_WEIGHTS = np.concatenate([_regions(), _shape_weights()], axis=1)  # (64, 19)
_N_REGIONS = 13

_STATISTICS: tuple[tuple[str, str, str], ...] = (
    ("depth", "step", "mean over measured pixels, 250 where nothing returned"),
    ("mean", "step", "mean over pixels with a return"),
    ("std", "step", "standard deviation over pixels with a return"),
    ("min", "step", "nearest pixel with a return"),
    ("max", "step", "farthest pixel with a return"),
    ("valid", "1", "share of measured pixels with a return"),
    ("cx", "pixel", "column of the centroid weighted by nearness 250 - v, from the centre"),
    ("cy", "pixel", "row of the centroid weighted by nearness 250 - v, from the centre"),
    ("sxx", "pixel^2", "second moment over columns about the centroid, weighted by nearness"),
    ("syy", "pixel^2", "second moment over rows about the centroid, weighted by nearness"),
    ("sxy", "pixel^2", "mixed second moment about the centroid, weighted by nearness"),
    ("lr", "step", "left half less right half, depth with 250 where nothing returned"),
    ("tb", "step", "top half less bottom half, depth with 250 where nothing returned"),
    *((f"q{q}", "step", f"depth of quadrant row {q[0]}, column {q[1]} (2x2)") for q in QUADRANTS),
    *((f"r{r}", "step", f"depth of region row {r[0]}, column {r[1]} (3x3: 3, 2, 3 pixels)") for r in NINTHS),
)


def channels(recordings: Canonical) -> dict[str, Float64]:
    """Compute the ToF sensors' frame channels.

    Returns
    -------
    name -> float64, (n_frames,), in the order of `describe`; NaN where missing, 0 for presence.
    """
    sensors, images = recordings.layout.tof, recordings.images
    out: dict[str, Float64] = {}
    if not sensors:
        return out
    present = np.zeros(len(images), dtype=np.bool_)
    for position, sensor in enumerate(sensors):
        values, measured = image_statistics(images[:, position])
        out |= {f"tof_{sensor}_{name}": values[i] for i, (name, _, _) in enumerate(_STATISTICS)}
        out[f"tof_{sensor}_measured"] = measured
        present |= measured > 0
    return out | {"tof_present": present.astype(np.float64)}


def describe(layout: SensorLayout) -> tuple[Column, ...]:
    """Say what the ToF sensors' frame channels are."""
    columns: list[Column] = []
    for sensor in layout.tof:
        columns += [
            Column(f"tof_{sensor}_{name}", "distance", TOF, unit, f"ToF sensor {sensor}: {formula}")
            for name, unit, formula in _STATISTICS
        ]
        formula = f"ToF sensor {sensor}: share of pixels measured"
        columns.append(Column(f"tof_{sensor}_measured", "presence", TOF, "1", formula, when_missing=0.0))
    if columns:
        formula = "1 where any pixel of any ToF sensor was measured"
        columns.append(Column("tof_present", "presence", TOF, "1", formula, when_missing=0.0))
    return tuple(columns)


def image_statistics(images: UInt8) -> tuple[Float64, Float64]:
    """Describe 8x8 images in numbers.

    Parameters
    ----------
    images
        uint8, (n_frames, 64): 0..249, 254 no return, 255 missing.

    Returns
    -------
    float64, (n_statistics, n_frames), NaN where not measurable; and float64, (n_frames,), the share of pixels measured.
    """
    values = np.empty((len(_STATISTICS), len(images)))
    measured = np.empty(len(images))
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(images)))
            values[:, part], measured[part] = _chunk_statistics(np.ascontiguousarray(images[part]))
    return values, measured


def _chunk_statistics(images: UInt8) -> tuple[Float64, Float64]:
    returned = images < TOF_IMAGE_NO_RETURN
    mask = returned.astype(np.float32)
    depth = images * mask
    sums, counts = _weighted(depth), _weighted(mask)  # (19, n): 13 regions, then 6 weights of the shape
    n_measured = _n_measured(images)  # (13, n)
    nearness = FAR * counts[_N_REGIONS:] - sums[_N_REGIONS:]
    total, n, m = (values[:4].sum(axis=0) for values in (sums, counts, n_measured))
    far = sums[:_N_REGIONS] + FAR * (n_measured - counts[:_N_REGIONS])
    squares = np.sum(depth * depth, axis=1).astype(np.float64)
    none = n == 0
    statistics = [
        ratio(far[:4].sum(axis=0), m),
        ratio(total, n),
        np.sqrt(np.maximum(ratio(n * squares - total * total, n * n), 0.0)),
        np.where(none, np.nan, images.min(axis=1)),  # what is no return is above every return
        np.where(none, np.nan, (images * returned).max(axis=1)),
        ratio(n, m),
        *_spread(nearness),
        *_asymmetry(far, n_measured),
        *ratio(far, n_measured),
    ]
    return np.stack(statistics), m / TOF_PIXELS


def _weighted(pixels: Float32) -> Float64:
    """Weigh and sum the pixels: (n, 64) -> float64, (19, n).

    In slices so small that no linear-algebra library spreads one product over threads: its waiting threads would cost
    more than they gain.
    """
    n_whole = len(pixels) // _SLICE * _SLICE
    parts = [(pixels[:n_whole].reshape(-1, _SLICE, TOF_PIXELS) @ _WEIGHTS).reshape(n_whole, _WEIGHTS.shape[1])]
    parts.append(pixels[n_whole:] @ _WEIGHTS)
    return np.concatenate(parts).T.astype(np.float64, order="C")


def _n_measured(images: UInt8) -> Float64:
    """Count the measured pixels of each region: float64, (13, n); most often all of them."""
    counted = images != TOF_IMAGE_MISSING
    if counted.all():
        return np.repeat(_WEIGHTS[:, :_N_REGIONS].sum(axis=0, dtype=np.float64)[:, None], len(images), axis=1)
    return _weighted(counted.astype(np.float32))[:_N_REGIONS]


def _spread(nearness: Float64) -> list[Float64]:
    """Centroid and second moments; coordinates are twice the distance in pixels from the centre."""
    weight, x, y, xx, yy, xy = nearness
    cx, cy = ratio(x, weight), ratio(y, weight)
    moments = [ratio(xx, weight) - cx * cx, ratio(yy, weight) - cy * cy, ratio(xy, weight) - cx * cy]
    return [cx / 2, cy / 2, *(moment / 4 for moment in moments)]


def _asymmetry(far: Float64, n_measured: Float64) -> list[Float64]:
    """Left less right and top less bottom, from the quadrants (top left, top right, bottom left, bottom right)."""
    out = []
    for (a, b), (c, d) in (((0, 2), (1, 3)), ((0, 1), (2, 3))):
        one = ratio(far[a] + far[b], n_measured[a] + n_measured[b])
        out.append(one - ratio(far[c] + far[d], n_measured[c] + n_measured[d]))
    return out
