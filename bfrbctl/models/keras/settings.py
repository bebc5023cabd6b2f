"""The settings of the Keras networks and of their training, checked once."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from bfrbctl.config import Settings, expected
from bfrbctl.evaluation.selection import Rule, Select
from bfrbctl.models.keras.network.layout import WIDTHS_TOLD, could_be_widths

_WIDTHS_MEAN = {
    "filters": ("64,128", "the first is before time is first halved, the second after"),
    "units": ("128,192", "the first is of the recurrent layers, the second of the last dense layers"),
}

_FACTOR = "dropout_factor, a factor on all dropout rates and not a rate (1 keeps them, 0.5 halves them)"
_FILTERS, _UNITS = "filters, two numbers such as 64,128", "units, two numbers such as 128,192"
_WHOLE = "epochs, how long training is: the schedule runs to its end, as held-out sequences must not end it"


class Config(Settings):
    """What a network is and how it is trained."""

    network: Literal["helios", "two-branch"] = Field(
        default="helios", description="Architecture: helios (ours) or two-branch (the published design)"
    )
    width: float = Field(
        default=1.0, ge=0.01, le=4.0, description="Factor on all layer widths; 1 is the published size"
    )
    filters: tuple[int, ...] = Field(
        default=(),
        description="Filters of the convolutions over time in every branch, before and after time is first "
        "halved, such as 64,128; empty for the design's own, times width",
    )
    units: tuple[int, ...] = Field(
        default=(),
        description="Units of the recurrent layers in each direction, and of the last dense layers, such as "
        "128,192; empty for the design's own, times width",
    )
    dropout_factor: float = Field(
        default=1.0,
        ge=0.0,
        le=1.5,
        description="Factor on all dropout rates, which lie between .1 and .5 by place: 1 keeps them, 0 drops "
        "nothing; not a rate",
    )
    l2: float = Field(default=1e-5, ge=0.0, le=1.0, description="Weight of the squared kernels in the loss")
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        default="float32", description="mixed_bfloat16 where the device multiplies bfloat16 faster"
    )
    deterministic: bool = Field(
        default=False,
        description="Ask the backend for kernels that give the same bits every time (on a GPU; CPUs do so without it)",
    )
    epochs: int = Field(
        default=60,
        ge=1,
        le=100_000,
        description="Passes over the training part: the length of the schedule, which runs to its end",
    )
    select: Select = Field(
        default="last",
        description="Epoch whose weights are the model: the last, or the one that is best by the held-out "
        "sequences of the other-folds, never by a fold's own",
    )
    batch_size: int = Field(default=64, ge=2, le=65_536, description="Sequences a step")
    length: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="Frames kept of a sequence; 0 for the 95th percentile of the training part",
    )
    pad: Literal["left", "right"] = Field(default="left", description="Side on which shorter sequences are padded")
    without: tuple[str, ...] = Field(default=(), description="Frame channels to leave out")
    learning_rate: float = Field(default=2e-3, ge=1e-8, le=10.0, description="Peak learning rate of AdamW")
    schedule: Literal["one-cycle", "cosine", "constant"] = Field(
        default="one-cycle", description="Course of the learning rate over the epochs"
    )
    weight_decay: float = Field(default=3e-3, ge=0.0, le=10.0, description="Decay of the kernels by AdamW")
    clip: float = Field(default=2.0, ge=0.0, le=1e6, description="Largest norm of the gradient; 0 for any")
    ema: float = Field(
        default=0.99,
        ge=0.0,
        le=0.99999,
        description="Memory of the moving average of the weights that predicts; 0 for none",
    )
    mixup: float = Field(
        default=0.4,
        ge=0.0,
        le=10.0,
        description="Alpha of the Beta distribution that mixes pairs of sequences; 0 for none",
    )
    modality_dropout: float = Field(
        default=0.4, ge=0.0, le=1.0, description="Share of the sequences that train without thermopile and ToF"
    )
    sensor_dropout: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Share of the sequences that lose one ToF sensor's images"
    )
    heading: float = Field(
        default=180.0,
        ge=0.0,
        le=180.0,
        description="Standard deviation of the turn about the vertical, degrees; 180 is any direction",
    )
    strap: float = Field(
        default=6.0, ge=0.0, le=90.0, description="Standard deviation of the turn about the forearm, degrees"
    )
    stretch: float = Field(
        default=0.15, ge=0.0, le=0.5, description="Time runs by a factor of 1 - stretch to 1 + stretch"
    )
    shift: int = Field(default=2, ge=0, le=256, description="Up to this many of the last frames are dropped")
    noise: float = Field(
        default=0.03,
        ge=0.0,
        le=5.0,
        description="Standard deviation of the noise on IMU channels, in standard deviations of the channel",
    )
    cut: float = Field(
        default=0.0,
        ge=0.0,
        le=0.9,
        description="Longest span that goes missing from every sensor, as a share of the sequence",
    )
    label_smoothing: float = Field(
        default=0.05, ge=0.0, le=0.9, description="Share of a label's weight that goes to all classes alike"
    )
    focal: float = Field(default=0.0, ge=0.0, le=10.0, description="Gamma of the focal loss; 0 for plain cross-entropy")
    class_weight: Literal["none", "balanced"] = Field(
        default="none",
        description="balanced weighs a sequence by the rarity of its gesture, so that a joint label with few "
        "sequences does not outweigh the rest",
    )
    merged_weight: float = Field(default=0.5, ge=0.0, le=100.0, description="Weight of the loss over 9 merged classes")
    binary_weight: float = Field(
        default=0.1, ge=0.0, le=100.0, description="Weight of the loss of target or non-target"
    )
    imu_weight: float = Field(
        default=0.5, ge=0.0, le=100.0, description="Weight of the loss of what the IMU alone predicts (helios)"
    )
    phase_weight: float = Field(
        default=0.1, ge=0.0, le=100.0, description="Weight of the loss of the phase of each four frames (helios)"
    )
    orientation_weight: float = Field(
        default=0.1, ge=0.0, le=100.0, description="Weight of the loss of the subject's posture (helios)"
    )
    seeds: int = Field(default=1, ge=1, le=100, description="Networks trained one after the other and averaged")

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

    @field_validator("filters", "units")
    @classmethod
    def _could_be_widths(cls, widths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if not could_be_widths(widths):
            example, meaning = _WIDTHS_MEAN[str(info.field_name)]
            raise expected(f"two {WIDTHS_TOLD}", f"for example --set {info.field_name}={example}; {meaning}")
        return widths

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
