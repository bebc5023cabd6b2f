"""Frame channels of the time-of-flight sensors: each 8x8 image in a few numbers.

A pixel that saw nothing in range is a measurement: it counts as `FAR` in depths and regions, and is left out of the
statistics over returns. Every sum below is of whole numbers small enough for float32 to hold exactly, so that the
matrix products give the same bits in any order and on any number of frames.
"""

import numpy as np

from bfrbctl.arrays.ragged import Float32, Float64, UInt8
from bfrbctl.features.channels.canonical import Canonical
from bfrbctl.features.table.blocks import ratio
from bfrbctl.recordings.dataset import TOF, TOF_IMAGE_MISSING, TOF_IMAGE_NO_RETURN, Column
from bfrbctl.schema import TOF_PIXELS, SensorLayout

FAR = 250
"""Depth given to a pixel without a return: one step beyond the largest reading."""

QUADRANTS = ("11", "12", "21", "22")
NINTHS = tuple(f"{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))
_CHUNK = 4096
"""Images worked on at once: few enough for the processor's cache."""

_SLICE = 128
"""Images in one matrix product: so few that no linear-algebra library spreads it over threads."""

_ROWS, _COLUMNS = np.divmod(np.arange(TOF_PIXELS), 8)
_X, _Y = 2 * _COLUMNS - 7, 2 * _ROWS - 7
_NINTH_OF = np.array([0, 0, 0, 1, 1, 2, 2, 2])


def _regions() -> Float32:
    halves = [(i == _ROWS // 4) & (j == _COLUMNS // 4) for i in range(2) for j in range(2)]
    ninths = [(_NINTH_OF[_ROWS] == i) & (_NINTH_OF[_COLUMNS] == j) for i in range(3) for j in range(3)]
    return np.stack([*halves, *ninths]).astype(np.float32)  # (13, 64)


def _shape_weights() -> Float32:
    ones = np.ones(TOF_PIXELS)
    return np.stack([ones, _X, _Y, _X * _X, _Y * _Y, _X * _Y]).astype(np.float32)  # (6, 64)


_WEIGHTS = np.concatenate([_regions(), _shape_weights()])  # (19, 64)
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
    values, measured = image_statistics(images)
    for position, sensor in enumerate(sensors):
        out |= {f"tof_{sensor}_{name}": values[i, position] for i, (name, _, _) in enumerate(_STATISTICS)}
        out[f"tof_{sensor}_measured"] = measured[position]
    return out | {"tof_present": np.asarray(measured.any(axis=0), dtype=np.float64)}


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
        uint8, (n_frames, n_tof, 64): 0..249, 254 no return, 255 missing.

    Returns
    -------
    float64, (n_statistics, n_tof, n_frames), NaN where not measurable; and float64, (n_tof, n_frames), the share of
    pixels measured.
    """
    n_frames, n_tof, _ = images.shape
    values = np.empty((len(_STATISTICS), n_tof, n_frames))
    measured = np.empty((n_tof, n_frames))
    n_at_once = max(_CHUNK // n_tof, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, n_frames, n_at_once):
            part = slice(start, min(start + n_at_once, n_frames))
            pixels = np.ascontiguousarray(images[part].transpose(2, 1, 0))
            statistics, share = _pixel_statistics(pixels.reshape(TOF_PIXELS, -1))
            measured[:, part] = share.reshape(n_tof, -1)
            for row, of_images in zip(values, statistics, strict=True):
                row[:, part] = of_images.reshape(n_tof, -1)
    return values, measured


def _pixel_statistics(pixels: UInt8) -> tuple[list[Float64], Float64]:
    """Describe images that stand in columns, uint8 (64, n): a reduction over pixels then runs along rows of memory."""
    returned = pixels < TOF_IMAGE_NO_RETURN
    mask = returned.astype(np.float32)
    depth = pixels * mask
    sums, counts = _weighted(depth), _weighted(mask)  # (19, n): 13 regions, then 6 weights of the shape
    n_measured = _n_measured(pixels)  # (13, n)
    nearness = FAR * counts[_N_REGIONS:] - sums[_N_REGIONS:]
    total, n, m = (values[:4].sum(axis=0) for values in (sums, counts, n_measured))
    far = sums[:_N_REGIONS] + FAR * (n_measured - counts[:_N_REGIONS])
    squares = np.einsum("pi,pi->i", depth, depth).astype(np.float64)
    none = n == 0
    statistics = [
        ratio(far[:4].sum(axis=0), m),
        ratio(total, n),
        np.sqrt(np.maximum(ratio(n * squares - total * total, n * n), 0.0)),
        np.where(none, np.nan, pixels.min(axis=0)),  # what is no return is above every return
        np.where(none, np.nan, (pixels * returned).max(axis=0)),
        ratio(n, m),
        *_spread(nearness),
        *_asymmetry(far, n_measured),
        *ratio(far, n_measured),
    ]
    return statistics, m / TOF_PIXELS


def _weighted(pixels: Float32) -> Float64:
    """Weigh and sum the pixels of images in columns: (64, n) -> float64, (19, n)."""
    n_weights, n_images = len(_WEIGHTS), pixels.shape[1]
    out = np.empty((n_weights, n_images), dtype=np.float32)
    whole = n_images // _SLICE * _SLICE
    in_slices, out_slices = (
        values[:, :whole].reshape(len(values), -1, _SLICE).swapaxes(0, 1) for values in (pixels, out)
    )
    np.matmul(_WEIGHTS, in_slices, out=out_slices)
    np.matmul(_WEIGHTS, pixels[:, whole:], out=out[:, whole:])
    return out.astype(np.float64)


def _n_measured(pixels: UInt8) -> Float64:
    """Count the measured pixels of each region: float64, (13, n); most often all of them."""
    counted = pixels != TOF_IMAGE_MISSING
    regions = _WEIGHTS[:_N_REGIONS].sum(axis=1, dtype=np.float64)
    out = np.repeat(regions[:, None], pixels.shape[1], axis=1)
    gappy = np.flatnonzero(~counted.all(axis=0))
    if gappy.size:
        out[:, gappy] = _weighted(counted[:, gappy].astype(np.float32))[:_N_REGIONS]
    return out


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
