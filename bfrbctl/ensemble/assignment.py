"""Per-subject causal assignment: no joint label is predicted twice for one wearer.

In the study every wearer did each joint label (gesture, posture, first behaviour) at most once. So the
log-probabilities of all sequences of a wearer so far are kept; at each arrival the minimum-cost assignment of sequences
to joint labels is solved again, and the newest sequence gets the gesture that it is assigned. Earlier predictions
stand. Once a wearer has more sequences than there are joint labels, the most probable gesture is predicted.

Source: the scheme that winners of the CMI competition of 2025 describe; the assignment itself is solved by
`scipy.optimize.linear_sum_assignment`. The predictions depend on the order of arrival, so several orders are scored.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64, Int64
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.metrics import Score, hierarchical_f1
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.schema import SUBJECT

MAX_SUBJECTS = 1024
"""Wearers that are remembered at once, about 80 KB each with 102 joint labels; the least recent one is forgotten."""

N_ORDERS = 3
_FLOOR = 1e-6


class Assigner:
    """Assigns sequences to joint labels as they arrive, and remembers those of each wearer.

    Parameters
    ----------
    space
        The gestures and the joint labels.
    max_subjects
        How many wearers are remembered.
    """

    def __init__(self, space: ClassSpace, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._gesture_of = np.asarray(space.gesture_of, dtype=np.int64)
        self._max_subjects = max_subjects
        self._memory: OrderedDict[str, list[Float64]] = OrderedDict()

    def assign(self, subject: str | None, joint_proba: AnyArray) -> int | None:
        """Assign the newest sequence of a wearer.

        Parameters
        ----------
        subject
            The wearer; None or empty when unknown: then nothing is assigned.
        joint_proba
            float, (n_joint,): probability of each joint label.

        Returns
        -------
        The position of its gesture; None where there is nothing to assign: the wearer is not known, or has more
        sequences than there are joint labels.
        """
        if not subject:
            return None
        rows = self._memory.setdefault(subject, [])
        self._memory.move_to_end(subject)
        if len(self._memory) > self._max_subjects:
            self._memory.popitem(last=False)
        if len(rows) >= len(self._gesture_of):
            return None
        rows.append(-np.log(np.maximum(np.asarray(joint_proba, dtype=np.float64), _FLOOR)))
        _, columns = linear_sum_assignment(np.stack(rows))
        return int(self._gesture_of[columns[-1]])

    def assign_all(self, subjects: Sequence[str | None], joint_probas: Float32, *, otherwise: Int64) -> list[int]:
        """Assign sequences in the order in which they arrive; `otherwise` stands where nothing is assigned."""
        found = [self.assign(subject, row) for subject, row in zip(subjects, joint_probas, strict=True)]
        return [before if got is None else got for got, before in zip(found, otherwise.tolist(), strict=True)]


def joint_proba(proba: Float32, conditional: Float32, space: ClassSpace) -> Float32:
    """Divide the probability of each gesture among its joint labels.

    Parameters
    ----------
    proba
        float32, (n_sequences, n_gestures), of the blend.
    conditional
        float32, (n_sequences, n_joint): probability of each joint label given its gesture.
    space
        The gestures and the joint labels.
    """
    return np.asarray(proba[:, list(space.gesture_of)] * conditional, dtype=np.float32)


def assigned(part: OofScenario, joint_probas: Float32, space: ClassSpace, *, seed: int) -> Int64:
    """Assign out-of-fold predictions in a random order of arrival: int64, (n_sequences,), positions of gestures.

    Parameters
    ----------
    part
        The predictions; where nothing is assigned, its own prediction stands.
    joint_probas
        float32, (n_sequences, n_joint), from `joint_proba`.
    space
        The gestures and the joint labels.
    seed
        Of the order.
    """
    assigner = Assigner(space, max_subjects=part.keys.height + 1)
    order = np.random.default_rng(seed).permutation(part.keys.height)
    subjects = part.keys[SUBJECT].gather(order).to_list()
    out = np.empty_like(part.predicted)
    out[order] = assigner.assign_all(subjects, joint_probas[order], otherwise=part.predicted[order])
    return out


def score_orders(part: OofScenario, joint_probas: Float32, space: ClassSpace, *, seed: int) -> list[Score]:
    """Score the assignment of out-of-fold predictions over three random orders of arrival."""
    orders = [assigned(part, joint_probas, space, seed=seed + order) for order in range(N_ORDERS)]
    return [hierarchical_f1(part.truth, predicted, space.targets) for predicted in orders]
