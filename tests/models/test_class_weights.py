"""Balanced class weights mean the same in every kind of model: a gesture's rarity, whatever its joint labels."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.models.interface import Scorer
from bfrbctl.models.keras.learning.epochs import Job, _class_weights
from bfrbctl.models.keras.learning.fitting import prepared
from bfrbctl.models.keras.settings import Config as KerasConfig
from bfrbctl.models.lightgbm.config import Config as LightGBMConfig
from bfrbctl.models.lightgbm.training import augmented
from tests.keras_batches import task

GESTURE_OF = (0, 0, 0, 1, 2, 3)


def test_weights_of_joint_labels_are_those_of_their_gestures() -> None:
    labels = np.repeat(np.arange(5), [1, 5, 2, 0, 8])
    weights = Scorer((True, True, True, False, False), gesture_of=(0, 0, 1, 1, 2)).balanced_weights(labels)
    assert weights[0] == weights[1] and weights[2] == weights[3]
    np.testing.assert_allclose(weights[[0, 2, 4]] * [6, 2, 8], 16 / 3)


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_sequences_weigh_one_on_average_and_gestures_the_same_in_sum(labels: list[int]) -> None:
    found = np.array(labels)
    weights = Scorer((True, True, True, True, False, False), gesture_of=GESTURE_OF).balanced_weights(found)
    gestures = np.array(GESTURE_OF)[found]
    assert weights[found].mean() == pytest.approx(1)
    sums = np.bincount(gestures, weights[found])
    assert sums[sums > 0] == pytest.approx(np.full((sums > 0).sum(), len(labels) / (sums > 0).sum()))


def test_both_kinds_weigh_joint_labels_alike(tmp_path: Path) -> None:
    base = task(tmp_path)
    labels = np.repeat(np.arange(6), [40, 3, 2, 20, 10, 5])
    joint: Any = replace(
        base,
        classes=tuple("abcdef"),
        targets=(True, True, True, True, False, False),
        gestures=("hair", "neck", "text", "wave"),
        gesture_of=GESTURE_OF,
        train_labels=labels,
        valid_labels=np.zeros_like(base.valid_labels),
    )
    rows = augmented(joint, LightGBMConfig(class_weight="balanced"))
    by_class = np.array([rows.weights[rows.labels == label][0] for label in range(6)])
    fold = prepared(joint, KerasConfig(class_weight="balanced", width=0.1))
    job: Job = SimpleNamespace(train=fold.data, valid=fold.valid)  # type: ignore[assignment]
    np.testing.assert_allclose(_class_weights(job), by_class)
    assert by_class[0] == by_class[1] == by_class[2]
