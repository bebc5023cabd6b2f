"""Everything a ray can meet, in the device's frame: body, hand, furniture, the thing held.

Heads, trunks and palms are ellipsoids, limbs are capsules (a cylinder with two balls), beds and tables are planes.
"""

from dataclasses import dataclass

import numpy as np

from bfrbctl.arrays.ragged import Bool, Float64, Int64
from bfrbctl.simulation.gestures import GESTURES, STRAIGHT
from bfrbctl.simulation.movement import Pose
from bfrbctl.simulation.person import Person
from bfrbctl.simulation.planning import Session
from bfrbctl.simulation.posture import Posture
from bfrbctl.simulation.rays import Plate, Quadric
from bfrbctl.simulation.reaching import TABLE_EDGE, TABLE_HEIGHT

SURFACES = ("face", "hair", "neck", "clothes", "leg", "arm", "hand", "furniture", "object")
FACE, HAIR, NECK, CLOTHES, LEG, ARM, HAND, FURNITURE, OBJECT = range(len(SURFACES))

REFLECTANCE = np.array([0.55, 0.16, 0.50, 0.35, 0.35, 0.35, 0.55, 0.45, 0.40], dtype=np.float32)
"""Share of the emitter's light that comes back from each surface at 940 nm."""


@dataclass(frozen=True)
class Mounting:
    """Where the device is, a row a frame, body frame.

    Parameters
    ----------
    place
        float64, (n_frames, 3), m.
    axes
        float64, (n_frames, 3, 3): columns are the device's x, y and z.
    """

    place: Float64
    axes: Float64


def build_scene(
    person: Person, session: Session, pose: Pose, mounting: Mounting, sequence: Int64
) -> list[Quadric | Plate]:
    """List the solids around a device.

    Parameters
    ----------
    person
        For sizes.
    session
        For the postures and what is held.
    pose, mounting
        Arm and device, a row a frame.
    sequence
        int64, (n_frames,): which sequence of the session each frame belongs to.
    """
    maker = _Maker(mounting)
    postures = session.postures

    def each(name: str) -> Float64:
        return np.stack([getattr(posture, name) for posture in postures])[sequence]

    seated = np.array([posture.seated for posture in postures])[sequence]
    height, scale = person.height, person.head_scale
    head, axes, radii = each("head"), each("head_axes"), postures[0].head_radii
    hair = head + np.einsum("nij,j->ni", axes, np.array([-0.020, 0.0, 0.026]) * scale)
    spine = each("neck_low")
    solids: list[Quadric | Plate] = [
        maker.ellipsoid(head, axes, radii, FACE),
        maker.ellipsoid(hair, axes, radii * 1.04, HAIR),
        *maker.capsule(spine - [0.0, 0.0, 0.03], each("neck_high"), 0.056 * scale, NECK),
        maker.ellipsoid(0.48 * spine, _same(np.eye(3), len(spine)), height * np.array([0.062, 0.094, 0.165]), CLOTHES),
        maker.ellipsoid(0.80 * spine, _same(np.eye(3), len(spine)), height * np.array([0.058, 0.108, 0.070]), CLOTHES),
        *maker.capsule(each("shoulder"), pose.elbow, 0.026 * height, ARM),
    ]
    hip, knee = each("hip"), each("knee")
    flip = np.array([1.0, -1.0, 1.0])
    for side in (np.ones(3), flip):
        solids += maker.capsule(hip * side, _opposite(knee, hip, side), 0.043 * height, LEG)
    solids += _hand(maker, person, pose)
    solids += _furniture(maker, session, sequence, seated)
    solids += _held(maker, session, pose, person, sequence)
    return solids


def _opposite(knee: Float64, hip: Float64, side: Float64) -> Float64:
    """Knee of either leg: the thighs are parallel, so that only the hip is mirrored."""
    return hip * side + (knee - hip)


def _hand(maker: "_Maker", person: Person, pose: Pose) -> list[Quadric | Plate]:
    """Palm and curled fingers."""
    length = person.hand
    side = np.cross(pose.fingers, pose.palm)
    side /= np.sqrt(np.einsum("ni,ni->n", side, side))[:, None]
    palm = np.stack([side, pose.fingers, np.cross(side, pose.fingers)], axis=-1)
    middle = pose.wrist + 0.40 * length * pose.fingers
    inner = pose.palm - np.einsum("ni,ni->n", pose.palm, pose.fingers)[:, None] * pose.fingers
    tips = pose.wrist + 0.72 * length * pose.fingers + 0.10 * length * inner
    return [
        maker.ellipsoid(middle, palm, length * np.array([0.22, 0.30, 0.085]), HAND),
        maker.ellipsoid(tips, palm, length * np.array([0.20, 0.22, 0.12]), HAND),
    ]


def _furniture(maker: "_Maker", session: Session, sequence: Int64, seated: Bool) -> list[Quadric | Plate]:
    """Bed under those who lie, table before those who sit straight."""
    postures = session.postures
    up = np.stack([-posture.down for posture in postures])[sequence]
    straight = np.array([name == STRAIGHT for name in session.orientation])[sequence]
    lowest = np.array([_bed_height(posture) for posture in postures])[sequence]
    bed = up * lowest[:, None] + np.array([0.0, 0.0, 0.30])
    room = np.stack([posture.room for posture in postures])[sequence]
    table = np.einsum("nji,j->ni", room, np.array([TABLE_EDGE + 0.25, 0.0, TABLE_HEIGHT]))
    ahead, left = room[:, 0], room[:, 1]
    spine = np.cross(left, up)
    return [
        maker.plate(bed, np.stack([spine, left, up], axis=1), (1.2, 0.6), FURNITURE, ~seated),
        maker.plate(table, np.stack([ahead, left, up], axis=1), (0.25, 0.45), FURNITURE, straight),
    ]


def _bed_height(posture: Posture) -> float:
    """Height of the bed over the hips' middle, m (negative): the trunk lies on it."""
    return -0.11 if posture.down[0] < -0.5 else -0.18


def _held(maker: "_Maker", session: Session, pose: Pose, person: Person, sequence: Int64) -> list[Quadric | Plate]:
    """Cup or phone in the hand."""
    holds = np.array([GESTURES[number].reach.holds for number in session.gesture])[sequence]
    inner = pose.palm - np.einsum("ni,ni->n", pose.palm, pose.fingers)[:, None] * pose.fingers
    centre = pose.wrist + 0.5 * person.hand * pose.fingers + 0.035 * inner
    side = np.cross(pose.fingers, inner)
    cup = maker.capsule(centre - 0.05 * side, centre + 0.05 * side, 0.032, OBJECT, holds == "cup")
    frame = np.stack([side, pose.fingers, inner], axis=1)
    frame = frame / np.sqrt(np.einsum("nij,nij->ni", frame, frame))[..., None]
    return [*cup, maker.plate(centre, frame, (0.037, 0.075), OBJECT, holds == "phone")]


def _same(value: Float64, n: int) -> Float64:
    return np.broadcast_to(value, (n, *value.shape))


class _Maker:
    """Turns solids of the body frame into solids of the device frame."""

    def __init__(self, mounting: Mounting) -> None:
        self._place = mounting.place
        self._axes = mounting.axes
        self._n = len(mounting.place)

    def _local(self, points: Float64) -> Float64:
        return np.asarray(np.einsum("nji,nj->ni", self._axes, points - self._place))

    def _turned(self, directions: Float64) -> Float64:
        return np.asarray(np.einsum("nji,nj->ni", self._axes, directions))

    def ellipsoid(self, centre: Float64, axes: Float64, radii: Float64, surface: int) -> Quadric:
        """Columns of axes (n, 3, 3) are the directions of the radii (3,) m."""
        local = np.swapaxes(self._axes, 1, 2) @ axes
        form = (local / radii**2) @ np.swapaxes(local, 1, 2)
        return Quadric(
            centre=self._local(centre).astype(np.float32),
            form=form.astype(np.float32),
            reach=float(radii.max()),
            present=np.ones(self._n, dtype=np.bool_),
            surface=surface,
        )

    def capsule(
        self, low: Float64, high: Float64, radius: float, surface: int, present: Bool | None = None
    ) -> list[Quadric]:
        """Cylinder between low and high, (n, 3) m, with a ball at each end."""
        there = np.ones(self._n, dtype=np.bool_) if present is None else present
        along = high - low
        length = np.sqrt(np.einsum("ni,ni->n", along, along))
        axis = self._turned(along / length[:, None])
        ball = np.broadcast_to(np.eye(3) / radius**2, (self._n, 3, 3))
        tube = ball - axis[:, :, None] * axis[:, None, :] / radius**2
        reach = float(np.hypot(length.max() / 2, radius))
        return [
            Quadric(
                self._local((low + high) / 2).astype(np.float32),
                tube.astype(np.float32),
                reach,
                there,
                surface,
                axis.astype(np.float32),
                (length / 2).astype(np.float32),
            ),
            Quadric(self._local(low).astype(np.float32), ball.astype(np.float32), radius, there, surface),
            Quadric(self._local(high).astype(np.float32), ball.astype(np.float32), radius, there, surface),
        ]

    def plate(self, centre: Float64, axes: Float64, half: tuple[float, float], surface: int, present: Bool) -> Plate:
        """Rows of axes (n, 3, 3) are the two edges and the normal."""
        local = np.einsum("nji,nkj->nki", self._axes, axes)
        return Plate(self._local(centre).astype(np.float32), local.astype(np.float32), half, present, surface)
