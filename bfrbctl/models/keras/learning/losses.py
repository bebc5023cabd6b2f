"""What a network is trained to lower: cross-entropy over gestures, over the metric's classes, and target or not.

The competition scores 9 merged classes and a binary question, so both are part of the loss: the probabilities of the
classes are summed into them, which needs no further output. Labels may be mixtures of two classes (mixup).
"""

from typing import Any

import numpy as np

from bfrbctl.models.interface import Scorer
from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.network.layers import Tensor, registered

FLOOR = 1e-7
"""Probabilities are not taken smaller than this before their logarithm."""


@registered
class HierarchicalLoss(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of classes + `merged` x that of targets and one non-target + `binary` x that of target or not.

    Parameters
    ----------
    targets
        One flag a class.
    gesture_of
        The gesture of every class, where classes are finer than gestures: the merged term adds up all classes of a
        target gesture. Empty where each class is a gesture.
    merged, binary
        Weights of the two further terms; a term of weight 0, or without two classes, is left out.
    smoothing
        Share of each label spread evenly over all classes.
    focal
        Exponent of (1 - probability) that plays down what is known already (Lin et al. 2017); 0 for none.
    class_weights
        How much a sequence of each class counts.
    """

    def __init__(
        self,
        targets: tuple[bool, ...],
        *,
        gesture_of: tuple[int, ...] = (),
        merged: float = 0.5,
        binary: float = 0.1,
        smoothing: float = 0.0,
        focal: float = 0.0,
        class_weights: tuple[float, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.targets, self.merged, self.binary = tuple(targets), merged, binary
        self.smoothing, self.focal = smoothing, focal
        self.class_weights = tuple(class_weights) or (1.0,) * len(self.targets)
        self.gesture_of = tuple(gesture_of)
        self.to_merged = merging_matrix(self.targets, self.gesture_of)
        flags = np.asarray(self.targets, dtype=np.float32)
        self.to_binary = np.stack([1.0 - flags, flags], axis=1)  # (n_classes, 2)

    def call(self, truth: Tensor, logits: Tensor) -> Tensor:
        """Give the loss of each sequence: (batch, n_classes) twice -> (batch,)."""
        n_classes = len(self.targets)
        weight = ops.matmul(truth, ops.convert_to_tensor(np.array(self.class_weights, dtype=np.float32))[:, None])
        smooth = truth * (1.0 - self.smoothing) + self.smoothing / n_classes
        log_proba = ops.log_softmax(logits, axis=-1)
        terms = smooth * log_proba
        if self.focal > 0:
            terms = terms * ops.power(1.0 - ops.exp(log_proba), self.focal)
        total = -ops.sum(terms, axis=-1)
        proba = ops.exp(log_proba)
        for share, matrix in ((self.merged, self.to_merged), (self.binary, self.to_binary)):
            if share > 0 and 0 < sum(self.targets) < n_classes:
                fold = ops.convert_to_tensor(matrix)
                known = ops.log(ops.maximum(ops.matmul(proba, fold), FLOOR))
                total = total - share * ops.sum(ops.matmul(smooth, fold) * known, axis=-1)
        return total * weight[:, 0]

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        own = {"merged": self.merged, "binary": self.binary, "smoothing": self.smoothing, "focal": self.focal}
        return {**super().get_config(), **own, **self._classes()}

    def _classes(self) -> dict[str, Any]:
        return {"targets": self.targets, "gesture_of": self.gesture_of, "class_weights": self.class_weights}


def merging_matrix(targets: tuple[bool, ...], gesture_of: tuple[int, ...] = ()) -> Any:
    """Give the float32 (n_classes, n_targets + 1) matrix that sums classes into target gestures and one non-target.

    >>> merging_matrix((True, False, False)).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    >>> merging_matrix((True, True, False), (0, 0, 1)).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    flags = np.asarray(Scorer(targets, gesture_of).gesture_targets, dtype=np.bool_)
    column = np.where(flags, np.cumsum(flags) - 1, int(flags.sum()))
    by_gesture = np.eye(int(flags.sum()) + 1, dtype=np.float32)[column]
    return by_gesture[list(gesture_of)] if gesture_of else by_gesture


@registered
class PhaseLoss(keras.losses.Loss):  # type: ignore[misc]
    """Binary cross-entropy of each frame, averaged over frames whose phase is known; -1 is unknown."""

    def call(self, truth: Tensor, logits: Tensor) -> Tensor:
        """Give the loss of each sequence: (batch, time, 1) twice -> (batch,)."""
        known = ops.cast(truth >= 0.0, logits.dtype)
        label = ops.maximum(truth, 0.0)
        each = ops.softplus(logits) - label * logits
        count = ops.maximum(ops.sum(known, axis=(1, 2)), 1.0)
        return ops.sum(each * known, axis=(1, 2)) / count


@registered
class KnownCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy against labels of which some are not known: a row of zeros adds nothing.

    A mixture of a known and an unknown label has a row that sums to the known one's share, and counts so much.
    """

    def call(self, truth: Tensor, logits: Tensor) -> Tensor:
        """Give the loss of each sequence: (batch, n) twice -> (batch,)."""
        return -ops.sum(truth * ops.log_softmax(logits, axis=-1), axis=-1)
