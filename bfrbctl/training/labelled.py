"""The labelled sequences of a feature folder, and the classes that a training predicts of them."""

from dataclasses import dataclass

import polars as pl

from bfrbctl.arrays.ragged import Bool, Int64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.classes import ClassSpace, gesture_space
from bfrbctl.evaluation.labels import Sort, joint_labels, postures
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE


@dataclass(frozen=True)
class LabelledSequences:
    """What is known of the labelled sequences; made once for a training.

    Parameters
    ----------
    index
        One row a sequence.
    space
        The classes: gestures, or joint labels.
    labels
        int64, (n_sequences,): position of each sequence's class in `space.classes`.
    orientations
        Names of the postures.
    orientation
        int64, (n_sequences,): positions in `orientations`, -1 unknown; None where none is known.
    """

    index: pl.DataFrame
    space: ClassSpace
    labels: Int64
    orientations: tuple[str, ...]
    orientation: Int64 | None

    __repr__ = short_repr

    def held_out(self, fold: int) -> Bool:
        """Give the sequences of a fold: bool, (n_sequences,)."""
        return (self.index["fold"] == fold).to_numpy()


def labelled_sequences(features: Folder, index: pl.DataFrame, labels: Sort) -> LabelledSequences:
    """Find the class of every sequence.

    Parameters
    ----------
    features
        The feature folder.
    index
        Its labelled sequences, from `read_features`.
    labels
        `gesture` or `joint`.

    Raises
    ------
    DataError
        When joint labels are asked for and a sequence's posture or first behaviour is not known.
    """
    space = gesture_space(features.content)
    if labels == "joint":
        space, positions = joint_labels(index, space, what=str(features.path))
    else:
        positions = oof.class_positions(index[GESTURE].to_list(), space.gestures)
    names, orientation = postures(index)
    return LabelledSequences(
        index=index,
        space=space,
        labels=positions,
        orientations=names,
        orientation=orientation,
    )
