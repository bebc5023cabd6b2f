"""The settings of the Keras networks and of their training, checked once."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from bfrbctl.errors import UsageError
from bfrbctl.evaluation.selection import Rule, Select
from bfrbctl.models.keras.network.layout import WIDTHS_TOLD, could_be_widths

BOUNDS: dict[str, tuple[float, float]] = {
    "width": (0.01, 4.0),
    "dropout_factor": (0.0, 1.5),
    "l2": (0.0, 1.0),
    "epochs": (1, 100_000),
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


_WIDTHS_MEAN = {
    "filters": "the first is before time is first halved, the second after",
    "units": "the first is of the recurrent layers, the second of the dense layers before the answer",
}

_FACTOR = "dropout_factor, a factor on all dropout rates and not a rate (1 keeps them, 0.5 halves them)"
_FILTERS, _UNITS = "filters, two numbers such as 64,128", "units, two numbers such as 128,192"
_WHOLE = "epochs, how long training is: the schedule runs to its end, as held-out sequences must not end it"


@dataclass(frozen=True)
class Config:
    """What a network is and how it is trained.

    Parameters
    ----------
    network
        `helios` (ours) or `two-branch` (the published design).
    width
        Factor on all layer widths; 1 is the published size.
    filters
        Filters of the convolutions over time in every branch, before and after time is first halved, such as
        `(64, 128)`; empty for the design's own, times `width`.
    units
        Units of the recurrent layers each way, and of the dense layers before the answer, such as `(128, 192)`; empty
        for the design's own, times `width`.
    dropout_factor
        Factor on all dropout rates, which lie between .1 and .5 by place: 1 keeps them, 0 drops nothing. Not a rate.
    l2
        Weight of the squared kernels in the loss.
    precision
        `float32`, or `mixed_bfloat16` where the device multiplies bfloat16 faster.
    deterministic
        Ask the backend for kernels that give the same bits every time (on a GPU; CPUs do anyway).
    epochs
        Passes over the training part: how long the schedule is, which runs to its end.
    select
        Which epoch's weights are the model: of the `last` one, or of the one that is best by the held-out sequences of
        the `other-folds`. Never of one that a fold's own held-out sequences favour.
    batch_size, length, pad
        Sequences a step; frames kept of a sequence, 0 for the 95th percentile of the training part; side of padding.
    without
        Frame channels to leave out, by name.
    learning_rate, schedule, weight_decay, clip, ema
        Of AdamW: peak rate and its course (`one-cycle`, `cosine`, `constant`), decay of kernels, largest norm of the
        gradient (0 for any), memory of the averaged weights that predict (0 for none).
    mixup, modality_dropout, sensor_dropout, heading, strap, stretch, shift, noise, cut
        See `augmentation.Augmentation`; 0 switches each off.
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
    filters: tuple[int, ...] = ()
    units: tuple[int, ...] = ()
    dropout_factor: float = 1.0
    l2: float = 1e-5
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    deterministic: bool = False
    epochs: int = 60
    select: Select = "last"
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

    STEP: ClassVar[str] = "epoch"

    ELSEWHERE: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            **dict.fromkeys(("lr", "eta", "alpha", "max_lr", "base_lr", "init_lr"), "learning_rate"),
            **dict.fromkeys(("n_epochs", "num_epochs", "max_epochs", "iterations", "n_rounds"), "epochs"),
            **dict.fromkeys(("batch", "bs", "minibatch_size", "train_batch_size"), "batch_size"),
            **dict.fromkeys(("dropout", "dropout_rate", "drop_rate", "p_dropout", "rate"), _FACTOR),
            **dict.fromkeys(("n_filters", "num_filters", "channels", "kernels"), _FILTERS),
            **dict.fromkeys(("hidden", "hidden_size", "hidden_units", "n_units", "lstm_units", "gru_units"), _UNITS),
            **dict.fromkeys(("dense_units", "rnn_units"), _UNITS),
            **dict.fromkeys(("patience", "early_stopping", "early_stopping_rounds"), _WHOLE),
            **dict.fromkeys(("early_stopping_patience", "restore_best_weights"), _WHOLE),
            **dict.fromkeys(("wd", "decay"), "weight_decay"),
            **dict.fromkeys(("clipnorm", "clip_norm", "global_clipnorm", "max_grad_norm", "grad_clip"), "clip"),
            "gradient_clip_val": "clip",
            **dict.fromkeys(("mixup_alpha", "mix_alpha"), "mixup"),
            **dict.fromkeys(("ema_decay", "ema_momentum"), "ema"),
            **dict.fromkeys(("smoothing", "ls"), "label_smoothing"),
            **dict.fromkeys(("focal_gamma", "gamma"), "focal"),
            **dict.fromkeys(("scheduler", "lr_schedule", "lr_scheduler", "lr_scheduler_type"), "schedule"),
            **dict.fromkeys(("maxlen", "max_len", "max_length", "seq_len", "sequence_length"), "length"),
            "padding": "pad",
            **dict.fromkeys(("n_seeds", "num_seeds"), "seeds"),
            **dict.fromkeys(("model", "architecture", "backbone"), "network"),
            **dict.fromkeys(("dtype", "mixed_precision", "amp"), "precision"),
            **dict.fromkeys(("class_weights", "weights"), "class_weight"),
            **dict.fromkeys(("drop_channels", "exclude"), "without"),
        }
    )
    """What other tools call our settings, or an earlier version did -> the setting to suggest, and what to know."""

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
        for name, example in (("filters", "64,128"), ("units", "128,192")):
            widths = getattr(self, name)
            if not could_be_widths(widths):
                raise UsageError(
                    f"{name} is {', '.join(map(str, widths))}, expected two {WIDTHS_TOLD}",
                    hint=f"for example --set {name}={example}; {_WIDTHS_MEAN[name]}",
                )

    @property
    def n_steps(self) -> int:
        """Steps of a model: epochs."""
        return self.epochs

    @property
    def rule(self) -> Rule:
        """What makes an epoch better than another, where other folds choose it: score, then log-loss."""
        return Rule()

    @property
    def why_last(self) -> str:
        """Why nothing but the last epoch can be chosen: never so."""
        return ""


def _choices(annotation: Any) -> tuple[str, ...]:
    return tuple(getattr(annotation, "__args__", ())) if getattr(annotation, "__origin__", None) is Literal else ()


PUBLISHED = {
    "network": "two-branch",
    "l2": 1e-4,
    "epochs": 160,
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
