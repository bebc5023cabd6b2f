"""The settings of the Keras networks and of their training, checked once."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from bfrbctl.errors import UsageError

BOUNDS: dict[str, tuple[float, float]] = {
    "width": (0.01, 4.0),
    "dropout": (0.0, 1.5),
    "l2": (0.0, 1.0),
    "epochs": (1, 100_000),
    "patience": (0, 100_000),
    "batch_size": (2, 65_536),
    "length": (0, 4096),
    "learning_rate": (1e-8, 10.0),
    "weight_decay": (0.0, 10.0),
    "clip": (0.0, 1e6),
    "ema": (0.0, 0.99999),
    "mixup": (0.0, 10.0),
    "modality_dropout": (0.0, 1.0),
    "sensor_dropout": (0.0, 1.0),
    "heading": (0.0, 180.0),
    "strap": (0.0, 90.0),
    "stretch": (0.0, 0.5),
    "shift": (0, 256),
    "noise": (0.0, 5.0),
    "cut": (0.0, 0.9),
    "label_smoothing": (0.0, 0.9),
    "focal": (0.0, 10.0),
    "merged_weight": (0.0, 100.0),
    "binary_weight": (0.0, 100.0),
    "imu_weight": (0.0, 100.0),
    "phase_weight": (0.0, 100.0),
    "orientation_weight": (0.0, 100.0),
    "seeds": (1, 100),
}
"""Smallest and largest value of each number."""


@dataclass(frozen=True)
class Config:
    """What a network is and how it is trained.

    Parameters
    ----------
    network
        `helios` (ours) or `two-branch` (the published design).
    width, dropout, l2
        Factors on all layer widths and dropout rates; weight of the squared kernels in the loss.
    precision
        `float32`, or `mixed_bfloat16` where the device multiplies bfloat16 faster.
    deterministic
        Ask the backend for kernels that give the same bits every time (on a GPU; CPUs do anyway).
    epochs, patience
        Passes over the training part at most; passes without a better score until training stops, 0 for never.
    batch_size, length, pad
        Sequences a step; frames kept of a sequence, 0 for the 95th percentile of the training part; side of padding.
    without
        Frame channels to leave out, by name.
    learning_rate, schedule, weight_decay, clip, ema
        Of AdamW: peak rate and its course (`one-cycle`, `cosine`, `constant`), decay of kernels, largest norm of the
        gradient (0 for any), memory of the averaged weights that predict (0 for none).
    mixup, modality_dropout, sensor_dropout, heading, strap, stretch, shift, noise, cut
        See `keras_augmentation.Augmentation`; 0 switches each off.
    label_smoothing, focal, class_weight
        Of the classes' cross-entropy; `balanced` weighs a sequence by the rarity of its gesture, so that a joint
        label with few sequences does not outweigh the rest.
    merged_weight, binary_weight, imu_weight, phase_weight, orientation_weight
        Weights of the further losses: 9 merged classes, target or not; for `helios` what the IMU alone says, phase of
        each four frames, and posture of the wearer.
    seeds
        Networks trained one after the other and averaged.
    """

    network: Literal["helios", "two-branch"] = "helios"
    width: float = 1.0
    dropout: float = 1.0
    l2: float = 1e-5
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    deterministic: bool = False
    epochs: int = 60
    patience: int = 15
    batch_size: int = 64
    length: int = 0
    pad: Literal["left", "right"] = "left"
    without: tuple[str, ...] = ()
    learning_rate: float = 2e-3
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    weight_decay: float = 3e-3
    clip: float = 2.0
    ema: float = 0.99
    mixup: float = 0.4
    modality_dropout: float = 0.4
    sensor_dropout: float = 0.05
    heading: float = 180.0
    strap: float = 6.0
    stretch: float = 0.15
    shift: int = 2
    noise: float = 0.03
    cut: float = 0.0
    label_smoothing: float = 0.05
    focal: float = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    merged_weight: float = 0.5
    binary_weight: float = 0.1
    imu_weight: float = 0.5
    phase_weight: float = 0.1
    orientation_weight: float = 0.1
    seeds: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(
                    f"{name} is {value}, expected {low:g} to {high:g}", hint=f"set {name} inside its range"
                )
        for field in fields(self):
            choices = _choices(field.type)
            value = getattr(self, field.name)
            if choices and value not in choices:
                raise UsageError(f"{field.name} is {value!r}", hint=f"choose {' or '.join(choices)}")


def _choices(annotation: Any) -> tuple[str, ...]:
    return tuple(getattr(annotation, "__args__", ())) if getattr(annotation, "__origin__", None) is Literal else ()


PUBLISHED = {
    "network": "two-branch",
    "l2": 1e-4,
    "epochs": 160,
    "patience": 40,
    "learning_rate": 5e-4,
    "schedule": "cosine",
    "clip": 0.0,
    "ema": 0.0,
    "label_smoothing": 0.1,
    "heading": 0.0,
    "strap": 0.0,
    "stretch": 0.0,
    "shift": 0,
    "noise": 0.0,
    "sensor_dropout": 0.0,
}
"""The settings that the two-branch network was published with, as far as they differ from the defaults."""
