"""The classes of a model: gestures, each a target or not, or joint labels, each a finer class of one gesture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64
from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation.metrics import has_two_sides, pooled, scored_labels
from bfrbctl.reprs import short_repr
from bfrbctl.schema import NON_TARGET

MAX_JOINT = 4096


@dataclass(frozen=True)
class ClassSpace:
    """Gestures, and the classes that a model predicts: the gestures themselves, or joint labels.

    Made by `ClassSpace.of`, `refined`, or from a manifest by `gesture_space` and `read_class_space`.

    Parameters
    ----------
    gestures
        Names.
    targets
        One flag a gesture.
    classes
        Names; the columns of the model's probabilities.
    gesture_of
        One a class: position of its gesture.
    """

    gestures: tuple[str, ...]
    targets: tuple[bool, ...]
    classes: tuple[str, ...]
    gesture_of: tuple[int, ...]

    __repr__ = short_repr

    @classmethod
    def of(cls, gestures: Sequence[str], targets: Sequence[bool]) -> "ClassSpace":
        """Make the space whose classes are the gestures.

        Examples
        --------
        >>> space = ClassSpace.of(["drink", "pull hair", "wave"], [False, True, False])
        >>> space.scored_names
        ('pull hair', 'non_target')
        """
        names = tuple(map(str, gestures))
        return cls(names, tuple(map(bool, targets)), names, tuple(range(len(names))))

    @property
    def is_joint(self) -> bool:
        """Whether the classes are joint labels."""
        return (self.classes, self.gesture_of) != (self.gestures, tuple(range(len(self.gestures))))

    @property
    def class_targets(self) -> tuple[bool, ...]:
        """One flag a class."""
        return tuple(self.targets[gesture] for gesture in self.gesture_of)

    @property
    def has_two_sides(self) -> bool:
        """Whether there are both targets and non-targets, so that target or not can be scored."""
        return has_two_sides(self.targets)

    @property
    def scored_names(self) -> tuple[str, ...]:
        """Names of what the headline score counts: the targets and the merged non-target class; else all gestures."""
        if not self.has_two_sides:
            return self.gestures
        return (*(name for name, target in zip(self.gestures, self.targets, strict=True) if target), NON_TARGET)

    def scored_labels(self, labels: Int64) -> Int64:
        """Give int64, (n_sequences,): positions in `scored_names` of labels that are positions in `gestures`."""
        return scored_labels(labels, self.targets)

    def refined(self, classes: Sequence[str], gesture_of: Sequence[int]) -> "ClassSpace":
        """Give the same gestures with joint labels as classes."""
        return replace(self, classes=tuple(classes), gesture_of=tuple(gesture_of))

    def gesture_proba(self, proba: AnyArray) -> Float32:
        """Sum probabilities of classes, float (n, n_classes), into those of gestures: float32, (n, n_gestures)."""
        if not self.is_joint:
            return np.asarray(proba, dtype=np.float32)
        return np.asarray(pooled(np.asarray(proba, dtype=np.float64), self.gesture_of), dtype=np.float32)

    def conditional(self, proba: AnyArray) -> Float32:
        """Give the probability of each class, given its gesture: float32, (n, n_classes).

        Where a gesture has no probability at all its classes are equally likely.
        """
        exact = np.maximum(np.asarray(proba, dtype=np.float64), 1e-12)
        return np.asarray(exact / pooled(exact, self.gesture_of)[:, list(self.gesture_of)], dtype=np.float32)

    def joint_content(self) -> dict[str, Any]:
        """Give what a manifest keeps of joint labels; nothing where the classes are gestures."""
        return {"joint": {"names": list(self.classes), "gesture_of": list(self.gesture_of)}} if self.is_joint else {}


def gesture_space(content: Mapping[str, Any]) -> ClassSpace:
    """Read the gestures of any manifest content with `classes` and `targets`."""
    return ClassSpace.of(content["classes"], content["targets"])


def read_class_space(content: Mapping[str, Any], *, what: str) -> ClassSpace:
    """Read and check the classes of a model's or blend's manifest: its joint labels, or gestures where it has none.

    Raises
    ------
    ArtefactError
        When joint labels are not names, each of one of the gestures, with every gesture there.
    """
    space, joint = gesture_space(content), content.get("joint")
    if joint is None:
        return space
    try:
        names, gesture_of = tuple(map(str, joint["names"])), tuple(int(each) for each in joint["gesture_of"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{what}: its joint labels cannot be read") from error
    sound = len(names) == len(gesture_of) <= MAX_JOINT and len(set(names)) == len(names)
    if not sound or sorted(set(gesture_of)) != list(range(len(space.gestures))):
        raise ArtefactError(f"{what}: its joint labels do not fit its gestures")
    return space.refined(names, gesture_of)
