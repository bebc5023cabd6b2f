"""The classes of a model: gestures, or joint labels - a gesture in a posture after a first behaviour.

In the study every wearer did each joint label at most once, which `assignment` makes use of. A gesture's probability is
the sum over its joint labels, so that models of both kinds are scored and blended alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.evaluation.metrics import pooled
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE, ORIENTATION

BEHAVIOR_FIRST = "behavior_first"
JOINT_COLUMNS = (GESTURE, ORIENTATION, BEHAVIOR_FIRST)
JOINT_OOF = "joint.parquet"
"""Out-of-fold predictions of joint labels; columns as in oof.parquet, gesture still the gesture's name."""

MAX_JOINT = 4096
Sort = Literal["gesture", "joint"]


@dataclass(frozen=True)
class JointLabels:
    """Classes finer than gestures.

    Parameters
    ----------
    names
        `gesture | posture | first behaviour`, in the order of the gestures' class list.
    gesture_of
        One a name: position of its gesture in the class list.
    """

    names: tuple[str, ...]
    gesture_of: tuple[int, ...]

    __repr__ = short_repr

    def gestures(self, proba: AnyArray) -> Float32:
        """Sum joint probabilities (n, n_joint) into those of gestures: float32, (n, n_gestures)."""
        return np.asarray(pooled(np.asarray(proba, dtype=np.float64), self.gesture_of), dtype=np.float32)

    def conditional(self, proba: AnyArray) -> Float32:
        """Give the probability of each joint label, given its gesture: float32, (n, n_joint).

        Where a gesture has no probability at all its joint labels are equally likely.
        """
        exact = np.maximum(np.asarray(proba, dtype=np.float64), 1e-12)
        return np.asarray(exact / pooled(exact, self.gesture_of)[:, list(self.gesture_of)], dtype=np.float32)

    def as_content(self) -> dict[str, Any]:
        """Give what a manifest keeps."""
        return {"names": list(self.names), "gesture_of": list(self.gesture_of)}


def joint_labels(index: pl.DataFrame, classes: Sequence[str], *, what: str) -> tuple[JointLabels, Int64]:
    """Find the joint labels of labelled sequences.

    Parameters
    ----------
    index
        Columns gesture, orientation, behavior_first.
    classes
        Gesture names.
    what
        Whose sequences they are, for errors.

    Returns
    -------
    The joint labels, and int64 (n_sequences,): which one each sequence has.

    Raises
    ------
    DataError
        When a sequence's posture or first behaviour is not known.
    """
    lacking = [name for name in (ORIENTATION, BEHAVIOR_FIRST) if index[name].null_count()]
    if lacking:
        count = max(index[name].null_count() for name in lacking)
        raise DataError(
            f"{what}: {count} of {index.height} sequences have no {' and no '.join(lacking)}, which joint labels need",
            hint="train with --labels gesture",
        )
    position = {name: number for number, name in enumerate(classes)}
    keys = [(position[gesture], gesture, *rest) for gesture, *rest in index.select(JOINT_COLUMNS).iter_rows()]
    kinds = sorted(set(keys))
    number_of = {key: number for number, key in enumerate(kinds)}
    names = tuple(" | ".join(key[1:]) for key in kinds)
    return JointLabels(names, tuple(key[0] for key in kinds)), np.array([number_of[key] for key in keys], np.int64)


def read_joint(content: Mapping[str, Any], *, what: str) -> JointLabels | None:
    """Read and check the joint labels of a model's or blend's manifest; None where it has none.

    Raises
    ------
    ArtefactError
        When they are not names, each of one of the gestures, with every gesture there.
    """
    joint = content.get("joint")
    if joint is None:
        return None
    n_gestures = len(content["classes"])
    try:
        names, gesture_of = tuple(map(str, joint["names"])), tuple(int(each) for each in joint["gesture_of"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{what}: its joint labels cannot be read") from error
    sound = len(names) == len(gesture_of) <= MAX_JOINT and len(set(names)) == len(names)
    if not sound or sorted(set(gesture_of)) != list(range(n_gestures)):
        raise ArtefactError(f"{what}: its joint labels do not fit its gestures")
    return JointLabels(names, gesture_of)


def postures(index: pl.DataFrame) -> tuple[tuple[str, ...], Int64 | None]:
    """Give the postures that occur, sorted, and int64 (n_sequences,): which one each sequence has, -1 unknown.

    None where none is known.
    """
    names = tuple(index[ORIENTATION].drop_nulls().unique().sort().to_list())
    if not names:
        return (), None
    position = {name: number for number, name in enumerate(names)}
    return names, np.array([position.get(name, -1) for name in index[ORIENTATION].to_list()], dtype=np.int64)
