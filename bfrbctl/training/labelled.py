"""The labelled sequences of a feature folder, and the classes that a training predicts of them."""

from dataclasses import dataclass

import polars as pl

from bfrbctl.arrays.ragged import Bool, Int64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.labels import JointLabels, Sort, joint_labels, postures
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE


@dataclass(frozen=True)
class LabelledSequences:
    """What is known of the labelled sequences; made once for a training.

    Parameters
    ----------
    index
        One row a sequence.
    gestures
        Names of the gestures.
    gesture_targets
        One flag a gesture: is it a target?
    joint
        The joint labels; None where gestures are the classes.
    labels
        int64, (n_sequences,): position of each sequence's class in `classes`.
    orientations
        Names of the postures.
    orientation
        int64, (n_sequences,): positions in `orientations`, -1 unknown; None where none is known.
    """

    index: pl.DataFrame
    gestures: tuple[str, ...]
    gesture_targets: tuple[bool, ...]
    joint: JointLabels | None
    labels: Int64
    orientations: tuple[str, ...]
    orientation: Int64 | None

    __repr__ = short_repr

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes: joint labels, or gestures."""
        return self.joint.names if self.joint else self.gestures

    @property
    def targets(self) -> tuple[bool, ...]:
        """One flag a class."""
        if self.joint is None:
            return self.gesture_targets
        return tuple(self.gesture_targets[gesture] for gesture in self.joint.gesture_of)

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
    gestures = tuple(features.content["classes"])
    if labels == "joint":
        joint, positions = joint_labels(index, gestures, what=str(features.path))
    else:
        joint, positions = None, oof.class_positions(index[GESTURE].to_list(), gestures)
    names, orientation = postures(index)
    return LabelledSequences(
        index=index,
        gestures=gestures,
        gesture_targets=tuple(features.content["targets"]),
        joint=joint,
        labels=positions,
        orientations=names,
        orientation=orientation,
    )
