"""Rays against simple solids, many frames at once.

Everything is in the device's own frame, where the rays never move: a solid is a quadratic form
(x - c)^T G (x - c) = 1 with its centre c and matrix G a frame, perhaps cut off at a length along an axis, or a bounded
plane. With o the sensor's place and d a ray, the hit is the smaller root t of

    a t^2 + 2 b t + e = 0,   a = d^T G d,   b = d^T G (o - c),   e = (o - c)^T G (o - c) - 1

and a, b for all 64 rays of a sensor are two small matrix products. The cosine of incidence is
sqrt(b^2 - a e) / |G (o + t d - c)|.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float32, Int64

FAR = np.float32(1e3)
"""m; distance of a ray that hit nothing."""


@dataclass(frozen=True)
class Quadric:
    """A solid with a quadratic surface, a row a frame, device frame.

    Parameters
    ----------
    centre
        float32, (n_frames, 3), m.
    form
        float32, (n_frames, 3, 3), 1/m^2: symmetric, positive semi-definite.
    axis, half_length
        float32, (n_frames, 3) unit and (n_frames,) m: only hits within half_length of the centre along axis count;
        None for a whole surface.
    reach
        m; radius of a ball about the centre that holds the solid.
    present
        bool, (n_frames,): frames in which it is there at all.
    surface
        Number of the surface, for its temperature and reflectance.
    """

    centre: Float32
    form: Float32
    reach: float
    present: Bool
    surface: int
    axis: Float32 | None = None
    half_length: Float32 | None = None


@dataclass(frozen=True)
class Plate:
    """A bounded plane, a row a frame, device frame.

    Parameters
    ----------
    centre
        float32, (n_frames, 3), m.
    axes
        float32, (n_frames, 3, 3): rows are the two edge directions and the normal, unit.
    half
        m; half the two edges.
    present
        bool, (n_frames,).
    surface
        Number of the surface.
    """

    centre: Float32
    axes: Float32
    half: tuple[float, float]
    present: Bool
    surface: int


@dataclass(frozen=True)
class Fan:
    """The rays of one sensor in the device frame: place float32 (3,), m, and unit directions float32 (n_rays, 3)."""

    place: Float32
    directions: Float32


@dataclass(frozen=True)
class Hits:
    """The first hit of each ray.

    Parameters
    ----------
    distance
        float32, (n_frames, n_fans, n_rays), m; `FAR` where nothing was met.
    cosine
        float32, same shape: cosine of the angle of incidence, 0..1.
    surface
        int8, same shape: number of the surface, -1 where nothing was met.
    """

    distance: Float32
    cosine: Float32
    surface: np.ndarray[tuple[int, ...], np.dtype[np.int8]]


def cast(solids: list[Quadric | Plate], fans: list[Fan], *, n_frames: int, limit: float) -> Hits:
    """Find the nearest hit of every ray.

    Parameters
    ----------
    solids
        All in the device frame.
    fans
        One a sensor, all with the same number of rays.
    n_frames
        Rows of every solid.
    limit
        m; solids wholly farther away than this are left out of the search.
    """
    shape = (n_frames, len(fans), len(fans[0].directions))
    distance = np.full(shape, FAR, dtype=np.float32)
    cosine = np.zeros(shape, dtype=np.float32)
    surface = np.full(shape, -1, dtype=np.int8)
    for solid in solids:
        for number, fan in enumerate(fans):
            rows = _near(solid, fan, limit)
            if rows.size == 0:
                continue
            found, slant = _quadric(solid, fan, rows) if isinstance(solid, Quadric) else _plate(solid, fan, rows)
            closer = found < distance[rows, number]
            frames, rays = np.nonzero(closer)
            distance[rows[frames], number, rays] = found[frames, rays]
            cosine[rows[frames], number, rays] = slant[frames, rays]
            surface[rows[frames], number, rays] = solid.surface
    return Hits(distance=distance, cosine=cosine, surface=surface)


def _near(solid: Quadric | Plate, fan: Fan, limit: float) -> Int64:
    """Rows in which the solid can be hit: present, near enough, and not wholly behind the sensor."""
    reach = 1e-4 + (solid.reach if isinstance(solid, Quadric) else float(np.hypot(*solid.half)))
    offset = solid.centre - fan.place
    distance = np.sqrt(np.einsum("ij,ij->i", offset, offset))
    middle = fan.directions.mean(axis=0)
    middle /= np.sqrt(middle @ middle)
    cosine = min(float((fan.directions @ middle).min()), 1.0)
    # The ball of radius `reach` meets the cone of the fan only if its centre is at most `reach` beside the cone.
    along = offset @ middle
    across = np.sqrt(np.maximum(distance**2 - along**2, 0.0))
    beside = across * cosine - along * np.sqrt(1.0 - cosine**2)
    meets = (distance < reach) | ((along > -reach) & (beside < reach))
    return np.flatnonzero(solid.present & (distance < reach + limit) & meets)


def _quadric(solid: Quadric, fan: Fan, rows: Int64) -> tuple[Float32, Float32]:
    form, directions = solid.form[rows], fan.directions
    offset = fan.place - solid.centre[rows]
    pushed = np.einsum("nij,nj->ni", form, offset)  # G (o - c)
    a = _forms(form) @ _monomials(directions).T  # (n_rows, n_rays)
    b = pushed @ directions.T
    e = np.einsum("ni,ni->n", offset, pushed)[:, None] - np.float32(1.0)
    inside = e < 0.0
    root = b * b - a * e
    miss = root <= 0.0
    root = np.sqrt(np.maximum(root, 0.0))
    found = (-b - root) / np.maximum(a, np.float32(1e-9))
    if solid.axis is not None and solid.half_length is not None:
        axis = solid.axis[rows]
        along = np.einsum("ni,ni->n", axis, offset)[:, None] + found * (axis @ directions.T)
        miss |= np.abs(along) > solid.half_length[rows, None]
    else:
        # A sensor inside a whole solid is pressed against it: it reads contact, not nothing.
        found = np.where(inside, np.float32(0.0), found)
        miss &= ~inside
    miss |= found < 0.0
    squared = form @ form
    length = (
        np.einsum("ni,ni->n", pushed, pushed)[:, None]
        + 2.0 * found * (np.einsum("nij,nj->ni", form, pushed) @ directions.T)
        + found * found * (_forms(squared) @ _monomials(directions).T)
    )
    slant = np.minimum(root / np.sqrt(np.maximum(length, np.float32(1e-9))), np.float32(1.0))
    return np.where(miss, FAR, found).astype(np.float32), np.where(inside, np.float32(1.0), slant).astype(np.float32)


def _plate(solid: Plate, fan: Fan, rows: Int64) -> tuple[Float32, Float32]:
    axes = solid.axes[rows]
    offset = np.einsum("nij,nj->ni", axes, fan.place - solid.centre[rows])
    speed = np.einsum("nij,rj->nir", axes, fan.directions)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = -offset[:, 2, None] / speed[:, 2]
        first = offset[:, 0, None] + found * speed[:, 0]
        second = offset[:, 1, None] + found * speed[:, 1]
        good = (found >= 0.0) & (np.abs(first) <= solid.half[0]) & (np.abs(second) <= solid.half[1])
    return np.where(good, found, FAR).astype(np.float32), np.abs(speed[:, 2])


def _forms(form: Float32) -> Float32:
    """Six entries of symmetric matrices, (n, 3, 3) -> (n, 6), to go with `_monomials`."""
    return np.stack([form[:, 0, 0], form[:, 1, 1], form[:, 2, 2], form[:, 0, 1], form[:, 0, 2], form[:, 1, 2]], axis=1)


def _monomials(d: Float32) -> Float32:
    """x^2, y^2, z^2, 2xy, 2xz, 2yz of directions: (n, 3) -> (n, 6)."""
    x, y, z = d.T
    return np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)
