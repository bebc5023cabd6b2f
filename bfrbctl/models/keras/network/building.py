"""The Keras networks that learn, rebuilt from a few bounded numbers; `layout` tells what they are made of.

A network reads padded frames, a mask and, where there are any, ToF images, and gives `gesture` logits, one a class;
helios can also give `imu` logits, the gesture by the IMU alone, `phase` logits of each four frames and `orientation`
logits, which only serve training.
"""

from dataclasses import dataclass, field
from typing import Any

from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.network.images import FlatPixels, ImageEncoder, Mixup, MixupMask, SensorFlags
from bfrbctl.models.keras.network.layers import (
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
from bfrbctl.models.keras.network.layout import NetworkSpec, lay_out
from bfrbctl.models.keras.network.recurrent import Bidirectional

_layers = keras.layers


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
    made = _Made(spec, Seeds(seed))
    train = keras.Model({**inputs, **mixing}, lay_out(_KerasLayers(made, inputs, mixing)))
    logits = lay_out(_KerasLayers(made, inputs, None))["gesture"]
    proba = _layers.Softmax(dtype="float32", name="proba")(logits)
    return Network(train=train, predict=keras.Model(inputs, proba))


@dataclass(frozen=True)
class _Made:
    """Layers of a network, made at the first call and used again at the second."""

    spec: NetworkSpec
    seeds: Seeds
    layers: dict[str, Any] = field(default_factory=dict)

    def __call__(self, kind: Any, name: str, *arguments: Any, **options: Any) -> Any:
        """Give the layer of this name, made by kind(...) when first asked for."""
        if name not in self.layers:
            options.setdefault("dtype", self.spec.precision)
            self.layers[name] = kind(*arguments, name=name, **options)
        return self.layers[name]


class _KerasLayers:
    """Layers of Keras; see `layout.Layers`. `mixing` says how sequences are blended pairwise while learning."""

    def __init__(self, made: _Made, inputs: dict[str, Tensor], mixing: dict[str, Tensor] | None) -> None:
        self.spec, self.made, self.seeds = made.spec, made, made.seeds
        self.inputs, self.mixing = inputs, mixing
        self.learning = mixing is not None
        self.imu_only = False
        self.frames = self._mixed(inputs["frames"])
        self.mask = inputs["mask"]
        if mixing is not None:
            self.mask = made(MixupMask, "mixup_mask")(self.mask, mixing["partner"])

    def _mixed(self, values: Tensor) -> Tensor:
        if self.mixing is None:
            return values
        return self.made(Mixup, "mixup")(values, self.mixing["weight"], self.mixing["partner"])

    def columns(self, first: int, last: int | None) -> Tensor:
        return self.frames[:, :, first:last]

    def channels(self, values: Tensor) -> int:
        return int(values.shape[-1])

    def joined(self, *parts: Tensor) -> Tensor:
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def halve(self, values: Tensor) -> Tensor:
        return self.made(HalveTime, "halve")(values)

    def conv(self, values: Tensor, mask: Tensor, name: str, filters: int, size: int, *, relu: bool = True) -> Tensor:
        return self.made(ConvNorm, name, filters, size, relu=relu, seed=self.seeds())(values, mask)

    def gated(self, values: Tensor, mask: Tensor, name: str, reduction: int) -> Tensor:
        return self.made(SqueezeExcite, name, reduction, seed=self.seeds())(values, mask)

    def plus_relu(self, values: Tensor, short: Tensor) -> Tensor:
        return ops.relu(values + short)

    def drop(self, values: Tensor, rate: float, name: str) -> Tensor:
        share = min(rate * self.spec.dropout, 0.9)
        return values if share <= 0 else self.made(_layers.Dropout, name, share, seed=self.seeds())(values)

    def noisy(self, values: Tensor, deviation: float, name: str) -> Tensor:
        return self.made(_layers.GaussianNoise, name, deviation, seed=self.seeds())(values)

    def pixels(self, name: str) -> Tensor:
        return self._mixed(self.made(FlatPixels, name)(self.inputs["tof"]))

    def images(self, name: str, filters: int, units: int) -> Tensor:
        return self._mixed(self.made(ImageEncoder, name, filters, units, seed=self.seeds())(self.inputs["tof"]))

    def tof_flags(self, name: str) -> Tensor:
        return self._mixed(self.made(SensorFlags, name)(self.inputs["tof"]))

    def recurrent(self, values: Tensor, mask: Tensor, name: str, units: int, cell: str) -> Tensor:
        return self.made(Bidirectional, name, units, cell, seed=self.seeds())(values, mask)

    def dense_elu(self, values: Tensor, name: str, units: int) -> Tensor:
        options = {"activation": "elu", "kernel_initializer": glorot(self.seeds())}
        return self.made(_layers.Dense, name, units, **options)(values)

    def attended(self, values: Tensor, mask: Tensor, name: str, units: int) -> Tensor:
        return self.made(MaskedAttention, name, units, seed=self.seeds())(values, mask)

    def mean(self, values: Tensor, mask: Tensor, name: str) -> Tensor:
        return self.made(MaskedMean, name)(values, mask)

    def present(self, parts: list[Tensor]) -> Tensor:
        return ops.cast(ops.max(ops.concatenate(parts, axis=-1), axis=(1, 2)), "float32")[:, None]

    def dense_norm(self, vectors: Tensor, name: str, units: int) -> Tensor:
        return self.made(DenseNorm, name, units, seed=self.seeds())(vectors)

    def head(self, values: Tensor, name: str, classes: int) -> Tensor:
        """Logits in float32, whatever the precision of the rest."""
        options = {"kernel_initializer": glorot(self.seeds()), "dtype": "float32"}
        return self.made(_layers.Dense, name, classes, **options)(values)


def weight_names(network: Network) -> list[str]:
    """Name the arrays of the prediction model, in the order of `predict.weights`: layer.weight."""
    named = [(weight, f"{layer.name}.{weight.name}") for layer in network.predict.layers for weight in layer.weights]
    by_identity = {id(weight): name for weight, name in named}
    return [by_identity[id(weight)] for weight in network.predict.weights]
