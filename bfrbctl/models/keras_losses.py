"""What a network is trained to lower: cross-entropy over gestures, over the metric's classes, and target or not.

The competition scores 9 merged classes and a binary question, so both are part of the loss: the probabilities of the
gestures are summed into them, which needs no further output. Labels may be mixtures of two gestures (mixup).
"""

from typing import Any

import numpy as np

from bfrbctl.models.keras_backend import keras, ops
from bfrbctl.models.keras_layers import Tensor, registered

FLOOR = 1e-7
"""Probabilities are not taken smaller than this before their logarithm."""


@registered
class HierarchicalLoss(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy of gestures + `merged` x that of targets and one non-target + `binary` x that of target or not.

    Parameters
    ----------
    targets
        One flag a class.
    merged, binary
        Weights of the two further terms; a term of weight 0, or without two classes, is left out.
    smoothing
        Share of each label spread evenly over all gestures.
    focal
        Exponent of (1 - probability) that plays down what is known already (Lin et al. 2017); 0 for none.
    class_weights
        How much a sequence of each class counts.
    """

    def __init__(
        self,
        targets: tuple[bool, ...],
        *,
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
        self.to_merged = merging_matrix(self.targets)
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
        return {**super().get_config(), **own, "targets": self.targets, "class_weights": self.class_weights}


def merging_matrix(targets: tuple[bool, ...]) -> Any:
    """Give the float32 (n_classes, n_targets + 1) matrix that sums gestures into targets and one non-target.

    >>> merging_matrix((True, False, False)).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    """
    flags = np.asarray(targets, dtype=np.bool_)
    column = np.where(flags, np.cumsum(flags) - 1, int(flags.sum()))
    return np.eye(int(flags.sum()) + 1, dtype=np.float32)[column]


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
