"""The labels of sequences: joint labels - a gesture in a posture after a first behaviour - and postures.

In the study every wearer did each joint label at most once, which `assignment` makes use of. A gesture's probability is
the sum over its joint labels, so that models of both kinds are scored and blended alike.
"""

from typing import Literal

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Int64
from bfrbctl.errors import DataError
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.schema import GESTURE, ORIENTATION

BEHAVIOR_FIRST = "behavior_first"
JOINT_COLUMNS = (GESTURE, ORIENTATION, BEHAVIOR_FIRST)
JOINT_OOF = "joint.parquet"
"""Out-of-fold predictions of joint labels; columns as in oof.parquet, gesture still the gesture's name."""

Sort = Literal["gesture", "joint"]


def joint_labels(index: pl.DataFrame, space: ClassSpace, *, what: str) -> tuple[ClassSpace, Int64]:
    """Find the joint labels of labelled sequences.

    Parameters
    ----------
    index
        Columns gesture, orientation, behavior_first.
    space
        The gestures.
    what
        Whose sequences they are, for errors.

    Returns
    -------
    The gestures with these joint labels as classes, `gesture | posture | first behaviour` in the order of the gestures;
    and int64 (n_sequences,): position of each sequence's class.

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
    position = {name: number for number, name in enumerate(space.gestures)}
    keys = [(position[gesture], gesture, *rest) for gesture, *rest in index.select(JOINT_COLUMNS).iter_rows()]
    kinds = sorted(set(keys))
    number_of = {key: number for number, key in enumerate(kinds)}
    joint = space.refined([" | ".join(key[1:]) for key in kinds], [key[0] for key in kinds])
    return joint, np.array([number_of[key] for key in keys], np.int64)


def postures(index: pl.DataFrame) -> tuple[tuple[str, ...], Int64 | None]:
    """Give the postures that occur, sorted, and int64 (n_sequences,): which one each sequence has, -1 unknown.

    None where none is known.
    """
    names = tuple(index[ORIENTATION].drop_nulls().unique().sort().to_list())
    if not names:
        return (), None
    position = {name: number for number, name in enumerate(names)}
    return names, np.array([position.get(name, -1) for name in index[ORIENTATION].to_list()], dtype=np.int64)
