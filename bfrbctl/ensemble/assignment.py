"""Per-subject causal assignment: no joint label is answered twice for one wearer.

In the study every wearer did each joint label (gesture, posture, first behaviour) at most once. So the
log-probabilities of all sequences of a wearer so far are kept; at each arrival the minimum-cost assignment of sequences
to joint labels is solved anew, and the newest sequence's gesture is answered - what was answered before stands. Once a
wearer has more sequences than there are joint labels, the most probable gesture is answered.

Source: the scheme that winners of the CMI competition of 2025 describe; the assignment itself is solved by
`scipy.optimize.linear_sum_assignment`. The answers depend on the order of arrival, hence several orders are scored.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64, Int64
from bfrbctl.evaluation.labels import JointLabels
from bfrbctl.evaluation.metrics import Score, hierarchical_f1
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.schema import SUBJECT

MAX_SUBJECTS = 1024
"""Wearers that are remembered at once, about 80 KB each with 102 joint labels; the one unseen longest is forgotten."""

N_ORDERS = 3
_FLOOR = 1e-6


class Assigner:
    """Answers sequences as they arrive, remembering those of each wearer.

    Parameters
    ----------
    joint
        The joint labels.
    max_subjects
        How many wearers are remembered.
    """

    def __init__(self, joint: JointLabels, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._gesture_of = np.asarray(joint.gesture_of, dtype=np.int64)
        self._max_subjects = max_subjects
        self._seen: OrderedDict[str, list[Float64]] = OrderedDict()

    def answer(self, subject: str | None, joint_proba: AnyArray) -> int | None:
        """Answer the newest sequence of a wearer.

        Parameters
        ----------
        subject
            Who; None or the empty string when unknown: such a sequence is never taken for another one's.
        joint_proba
            float, (n_joint,): probability of each joint label.

        Returns
        -------
        The position of its gesture; None where there is nothing to assign: no wearer is known, or he has more
        sequences than there are joint labels.
        """
        if not subject:
            return None
        rows = self._seen.setdefault(subject, [])
        self._seen.move_to_end(subject)
        if len(self._seen) > self._max_subjects:
            self._seen.popitem(last=False)
        if len(rows) >= len(self._gesture_of):
            return None
        rows.append(-np.log(np.maximum(np.asarray(joint_proba, dtype=np.float64), _FLOOR)))
        _, columns = linear_sum_assignment(np.stack(rows))
        return int(self._gesture_of[columns[-1]])

    def answers(self, subjects: Sequence[str | None], spread: Float32, *, otherwise: Int64) -> list[int]:
        """Answer sequences in the order in which they arrive; `otherwise` stands where nothing is assigned."""
        found = [self.answer(subject, row) for subject, row in zip(subjects, spread, strict=True)]
        return [stands if got is None else got for got, stands in zip(found, otherwise.tolist(), strict=True)]


def joint_proba(proba: Float32, within: Float32, joint: JointLabels) -> Float32:
    """Spread the probability of each gesture over its joint labels.

    Parameters
    ----------
    proba
        float32, (n_sequences, n_gestures), of the blend.
    within
        float32, (n_sequences, n_joint): probability of each joint label given its gesture.
    joint
        The joint labels.
    """
    return np.asarray(proba[:, list(joint.gesture_of)] * within, dtype=np.float32)


def assigned(part: OofScenario, spread: Float32, joint: JointLabels, *, seed: int) -> Int64:
    """Answer out-of-fold predictions in a random order of arrival: int64, (n_sequences,), positions of gestures.

    Parameters
    ----------
    part
        The predictions; where nothing is assigned, its own answer stands.
    spread
        float32, (n_sequences, n_joint), from `joint_proba`.
    joint
        The joint labels.
    seed
        Of the order.
    """
    assigner = Assigner(joint, max_subjects=part.keys.height + 1)
    order = np.random.default_rng(seed).permutation(part.keys.height)
    subjects = part.keys[SUBJECT].gather(order).to_list()
    out = np.empty_like(part.predicted)
    out[order] = assigner.answers(subjects, spread[order], otherwise=part.predicted[order])
    return out


def score_orders(
    part: OofScenario, spread: Float32, joint: JointLabels, targets: Sequence[bool], *, seed: int
) -> list[Score]:
    """Score the assignment of out-of-fold predictions over three random orders of arrival."""
    orders = [assigned(part, spread, joint, seed=seed + order) for order in range(N_ORDERS)]
    return [hierarchical_f1(part.truth, predicted, targets) for predicted in orders]
