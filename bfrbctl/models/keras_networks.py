"""The networks, rebuilt from a few bounded numbers: the published two-branch design, and helios.

A network reads padded frames, a mask and, where there are any, ToF images, and gives `gesture` logits, one a class;
helios can also give `imu` logits, the gesture by the IMU alone, `phase` logits of each four frames and `orientation`
logits, which only serve training.
"""

from dataclasses import dataclass
from typing import Any

from bfrbctl.errors import ArtefactError
from bfrbctl.models.keras_backend import keras, ops
from bfrbctl.models.keras_images import FlatPixels, ImageEncoder, Mixup, MixupMask, SensorFlags
from bfrbctl.models.keras_layers import (
    ConvNorm,
    DenseNorm,
    HalveTime,
    MaskedAttention,
    MaskedMean,
    Seeds,
    SqueezeExcite,
    Tensor,
    glorot,
)
from bfrbctl.models.keras_recurrent import Bidirectional

TWO_BRANCH, HELIOS = "two-branch", "helios"
NETWORKS = (TWO_BRANCH, HELIOS)
PRECISIONS = ("float32", "mixed_bfloat16")

_layers = keras.layers


@dataclass(frozen=True)
class NetworkSpec:
    """All that a network's weights have their shapes from.

    Parameters
    ----------
    network
        `two-branch` or `helios`.
    n_imu, n_other, n_tof
        Columns of the first branch, of the second, and ToF sensors whose images are read.
    n_classes
        Gestures, or joint labels.
    width
        All layers' widths are multiplied by it; 1 is the published size.
    dropout
        All dropout rates are multiplied by it.
    precision
        What most of it is computed in: `float32` or `mixed_bfloat16`; weights are float32 always.
    phase_head
        Whether `helios` tells the phase of every four frames, too.
    n_orientations
        Postures that `helios` tells, too; 0 where it does not.
    """

    network: str
    n_imu: int
    n_other: int
    n_tof: int
    n_classes: int
    width: float = 1.0
    dropout: float = 1.0
    precision: str = "float32"
    phase_head: bool = False
    n_orientations: int = 0

    def check(self) -> None:
        """Raise ArtefactError unless every number is one that training could have chosen."""
        bounds = {
            "n_imu": (2, 1024),
            "n_other": (0, 4096),
            "n_tof": (0, 64),
            "n_classes": (2, 4096),
            "n_orientations": (0, 64),
            "width": (0.01, 4.0),
            "dropout": (0.0, 1.5),
        }
        if self.network not in NETWORKS:
            raise ArtefactError(f"the model names the network {self.network!r}, known are {', '.join(NETWORKS)}")
        if self.precision not in PRECISIONS:
            raise ArtefactError(f"the model's precision is {self.precision!r}, known are {', '.join(PRECISIONS)}")
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ArtefactError(f"the model's {name} is {value}, expected {low} to {high}")

    def wide(self, channels: int) -> int:
        """Scale a layer's width; at least 4."""
        return max(round(channels * self.width), 4)

    @property
    def has_second_branch(self) -> bool:
        """Whether there is anything beside the IMU."""
        return self.n_other > 0 or self.n_tof > 0


@dataclass(frozen=True)
class Network:
    """One set of weights behind two models.

    Parameters
    ----------
    train
        Reads the inputs and, for mixup, `weight` and `partner`; gives a dict of logits.
    predict
        Reads the inputs; gives probabilities float32 (batch, n_classes).
    """

    train: Any
    predict: Any


def build_network(spec: NetworkSpec, *, seed: int) -> Network:
    """Build a network with fresh weights.

    Parameters
    ----------
    spec
        Sizes; see `NetworkSpec.check`.
    seed
        Of initial weights and dropout.
    """
    inputs = {
        "frames": _layers.Input((None, spec.n_imu + spec.n_other), name="frames"),
        "mask": _layers.Input((None, 1), name="mask"),
    }
    if spec.n_tof:
        inputs["tof"] = _layers.Input((None, spec.n_tof, 64), dtype="uint8", name="tof")
    mixing = {
        "weight": _layers.Input((), name="weight"),
        "partner": _layers.Input((), dtype="int32", name="partner"),
    }
    body = _Body(spec, Seeds(seed))
    outputs = body(inputs, mixing)
    train = keras.Model({**inputs, **mixing}, outputs)
    proba = _layers.Softmax(dtype="float32", name="proba")(body(inputs, None)["gesture"])
    return Network(train=train, predict=keras.Model(inputs, proba))


class _Body:
    """Layers of a network, made at the first call and used again at the second."""

    def __init__(self, spec: NetworkSpec, seeds: Seeds) -> None:
        self.spec, self.seeds = spec, seeds
        self.made: dict[str, Any] = {}

    def __call__(self, inputs: dict[str, Tensor], mixing: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Give the logits of `inputs`, blended pairwise where `mixing` says how."""
        run = two_branch if self.spec.network == TWO_BRANCH else helios
        return run(self, inputs, mixing)

    def layer(self, kind: Any, name: str, *arguments: Any, **options: Any) -> Any:
        """Give the layer of this name, made by kind(...) when first asked for."""
        if name not in self.made:
            options.setdefault("dtype", self.spec.precision)
            self.made[name] = kind(*arguments, name=name, **options)
        return self.made[name]

    def drop(self, values: Tensor, rate: float, name: str) -> Tensor:
        """Blank a share of the values in training."""
        share = min(rate * self.spec.dropout, 0.9)
        return values if share <= 0 else self.layer(_layers.Dropout, name, share, seed=self.seeds())(values)

    def conv(self, values: Tensor, mask: Tensor, name: str, *, filters: int, size: int, relu: bool = True) -> Tensor:
        """Convolve over time, normalise, cut at zero."""
        options = {"relu": relu, "seed": self.seeds()}
        return self.layer(ConvNorm, name, self.spec.wide(filters), size, **options)(values, mask)

    def halve(self, values: Tensor) -> Tensor:
        """Pool two frames into one."""
        return self.layer(HalveTime, "halve")(values)

    def excited(self, values: Tensor, mask: Tensor, name: str, *, filters: int, size: int) -> Tensor:
        """Residual block: two convolutions, squeeze and excitation, shortcut, ReLU."""
        out = self.conv(values, mask, f"{name}_1", filters=filters, size=size)
        out = self.conv(out, mask, f"{name}_2", filters=filters, size=size)
        out = self.layer(SqueezeExcite, f"{name}_gate", 8, seed=self.seeds())(out, mask)
        short = values
        if values.shape[-1] != self.spec.wide(filters):
            short = self.conv(values, mask, f"{name}_short", filters=filters, size=1, relu=False)
        return ops.relu(out + short)

    def mixed(self, values: Tensor, mixing: dict[str, Tensor] | None) -> Tensor:
        """Blend each sequence with its partner, in training."""
        return values if mixing is None else self.layer(Mixup, "mixup")(values, mixing["weight"], mixing["partner"])

    def mixed_mask(self, mask: Tensor, mixing: dict[str, Tensor] | None) -> Tensor:
        """Give the mask of the blended sequences."""
        return mask if mixing is None else self.layer(MixupMask, "mixup_mask")(mask, mixing["partner"])

    def head(self, values: Tensor, name: str, classes: int) -> Tensor:
        """Logits in float32, whatever the precision of the rest."""
        options = {"kernel_initializer": glorot(self.seeds()), "dtype": "float32"}
        return self.layer(_layers.Dense, name, classes, **options)(values)


def two_branch(net: _Body, inputs: dict[str, Tensor], mixing: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Lay out the published network: residual IMU branch beside a plain thermopile and ToF branch, then recurrence.

    Source: the design of the published two-branch solutions for the study's competition.
    """
    spec = net.spec
    frames = net.mixed(inputs["frames"], mixing)
    mask = net.mixed_mask(inputs["mask"], mixing)
    half = net.halve(mask)
    quarter = net.halve(half)
    imu = net.excited(frames[:, :, : spec.n_imu], mask, "imu_a", filters=64, size=3)
    imu = net.drop(net.halve(imu), 0.1, "imu_a_drop")
    imu = net.excited(imu, half, "imu_b", filters=128, size=5)
    merged = net.drop(net.halve(imu), 0.1, "imu_b_drop")
    if spec.has_second_branch:
        parts = [frames[:, :, spec.n_imu :]] if spec.n_other else []
        if spec.n_tof:
            parts.append(net.mixed(net.layer(FlatPixels, "pixels")(inputs["tof"]), mixing))
        other = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        other = net.drop(net.halve(net.conv(other, mask, "other_a", filters=64, size=3)), 0.2, "other_a_drop")
        other = net.drop(net.halve(net.conv(other, half, "other_b", filters=128, size=3)), 0.2, "other_b_drop")
        merged = ops.concatenate([merged, other], axis=-1)
    return {"gesture": _two_branch_head(net, merged, quarter)}


def _two_branch_head(net: _Body, merged: Tensor, mask: Tensor) -> Tensor:
    spec = net.spec
    lstm = net.layer(Bidirectional, "lstm", spec.wide(128), "lstm", seed=net.seeds())(merged, mask)
    gru = net.layer(Bidirectional, "gru", spec.wide(128), "gru", seed=net.seeds())(merged, mask)
    noisy = net.layer(_layers.GaussianNoise, "noise", 0.09, seed=net.seeds())(merged)
    dense = net.layer(_layers.Dense, "dense", spec.wide(16), activation="elu", kernel_initializer=glorot(net.seeds()))(
        noisy
    )
    joined = net.drop(ops.concatenate([lstm, gru, dense], axis=-1), 0.4, "joined_drop")
    pooled = net.layer(MaskedAttention, "attention", 1, seed=net.seeds())(joined, mask)
    for name, units, rate in (("dense_a", 256, 0.5), ("dense_b", 128, 0.3)):
        pooled = net.layer(DenseNorm, name, spec.wide(units), seed=net.seeds())(pooled)
        pooled = net.drop(pooled, rate, f"{name}_drop")
    return net.head(pooled, "gesture", spec.n_classes)


def helios(net: _Body, inputs: dict[str, Tensor], mixing: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Lay out our own network: an answer from the IMU alone, and what thermopiles and ToF sensors add to it.

    Where nothing but the IMU was recorded, nothing is added: such a sequence is answered by a network for IMUs, which
    learns from all sequences.
    """
    spec = net.spec
    frames = net.mixed(inputs["frames"], mixing)
    mask = net.mixed_mask(inputs["mask"], mixing)
    half = net.halve(mask)
    quarter = net.halve(half)
    imu = net.excited(frames[:, :, : spec.n_imu], mask, "imu_a", filters=64, size=3)
    imu = net.drop(net.halve(imu), 0.1, "imu_a_drop")
    imu = net.excited(imu, half, "imu_b", filters=128, size=5)
    imu = net.drop(net.halve(imu), 0.1, "imu_b_drop")
    moved = _vector(net, imu, quarter, "imu", units=128)
    heads = {"gesture": net.head(moved, "gesture", spec.n_classes)}
    joined = imu
    if spec.has_second_branch:
        others, present = _others(net, inputs, frames, masks=(mask, half), mixing=mixing)
        joined = ops.concatenate([imu, *others], axis=-1)
        added = net.head(_vector(net, joined, quarter, "all", units=96), "added", spec.n_classes)
        heads = {"gesture": heads["gesture"] + present * added, "imu": heads["gesture"]}
    if spec.phase_head:
        heads["phase"] = net.head(joined, "phase", 1)
    if spec.n_orientations:
        heads["orientation"] = net.head(moved, "orientation", spec.n_orientations)
    return heads


def _others(
    net: _Body,
    inputs: dict[str, Tensor],
    frames: Tensor,
    *,
    masks: tuple[Tensor, Tensor],
    mixing: dict[str, Tensor] | None,
) -> tuple[list[Tensor], Tensor]:
    """Encode thermopiles and ToF sensors: codes over a quarter of the time, and whether there are any (batch, 1)."""
    spec, (mask, half) = net.spec, masks
    codes, flags = [], []
    if spec.n_other:
        other = net.conv(frames[:, :, spec.n_imu :], mask, "other_a", filters=48, size=3)
        other = net.drop(net.halve(other), 0.2, "other_a_drop")
        other = net.conv(other, half, "other_b", filters=64, size=3)
        codes.append(net.drop(net.halve(other), 0.2, "other_b_drop"))
        flags.append(frames[:, :, -1:])  # the flag of all, see InputPlan.n_other
    if spec.n_tof:
        code = net.layer(ImageEncoder, "image", spec.wide(12), spec.wide(24), seed=net.seeds())(inputs["tof"])
        code = net.halve(net.mixed(code, mixing))
        code = net.drop(net.conv(code, half, "tof_a", filters=96, size=3), 0.2, "tof_a_drop")
        codes.append(net.halve(code))
        flags.append(net.mixed(net.layer(SensorFlags, "tof_flags")(inputs["tof"]), mixing))
    present = ops.max(ops.concatenate(flags, axis=-1), axis=(1, 2))
    return codes, ops.cast(present, "float32")[:, None]


def _vector(net: _Body, frames: Tensor, mask: Tensor, name: str, *, units: int) -> Tensor:
    """Say in one vector what happens: recurrence beside what it reads, attention and mean over time, dense layer."""
    spec = net.spec
    gru = net.layer(Bidirectional, f"{name}_gru", spec.wide(units), "gru", seed=net.seeds())(frames, mask)
    over = net.drop(ops.concatenate([frames, gru], axis=-1), 0.3, f"{name}_drop")
    attended = net.layer(MaskedAttention, f"{name}_attention", spec.wide(32), seed=net.seeds())(over, mask)
    mean = net.layer(MaskedMean, f"{name}_mean")(frames, mask)
    pooled = ops.concatenate([attended, mean], axis=-1)
    vector = net.layer(DenseNorm, f"{name}_dense", spec.wide(192), seed=net.seeds())(pooled)
    return net.drop(vector, 0.4, f"{name}_dense_drop")


def weight_names(network: Network) -> list[str]:
    """Name the arrays of the prediction model, in the order of `predict.weights`: layer.weight."""
    named = [(weight, f"{layer.name}.{weight.name}") for layer in network.predict.layers for weight in layer.weights]
    by_identity = {id(weight): name for weight, name in named}
    return [by_identity[id(weight)] for weight in network.predict.weights]
