"""Layers that know which frames are padding.

Every layer over time takes the frames x (batch, time, channels) and a mask (batch, time, 1) of ones for recorded
frames and zeros for padding, and gives zeros where the mask is zero. So what follows may sum and convolve over all
of time: padding adds nothing, and more of it changes nothing. Padding lies on one side only, recorded frames are one
run; the recurrent layer relies on it.

All maths is `keras.ops`; each layer holds its own weights and no other layer, so `layer.weight` names every array.
"""

from collections.abc import Iterator
from typing import Any

from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.network.layout import EPSILON

Tensor = Any
"""A tensor of whatever backend is in use."""

registered = keras.saving.register_keras_serializable(package="bfrbctl")


class Seeds:
    """Hands out one seed after the other, so that each layer of a network has its own and all follow from one."""

    def __init__(self, first: int) -> None:
        self._numbers: Iterator[int] = iter(range(first % 2**30, 2**31 - 1))

    def __call__(self) -> int:
        """Give the next seed."""
        return next(self._numbers)


def glorot(seed: int) -> Any:
    """Give the initial values of a kernel: uniform, scaled by its fan-in and fan-out."""
    return keras.initializers.GlorotUniform(seed=seed)


class _Normalised(keras.layers.Layer):  # type: ignore[misc]
    """What layers ending in a batch normalisation share: its weights and its two ways to run."""

    def __init__(self, *, momentum: float = 0.9, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum, self.seed = momentum, seed

    def _kernel(self, shape: tuple[int, ...]) -> Any:
        return self.add_weight(shape=shape, name="kernel", initializer=glorot(self.seed))

    def _add_norm(self, width: int) -> None:
        self.gamma = self.add_weight(shape=(width,), name="gamma", initializer="ones", autocast=False)
        self.beta = self.add_weight(shape=(width,), name="beta", initializer="zeros", autocast=False)
        kept = {"trainable": False, "autocast": False}
        self.mean = self.add_weight(shape=(width,), name="mean", initializer="zeros", **kept)
        self.variance = self.add_weight(shape=(width,), name="variance", initializer="ones", **kept)

    def _normalise(self, rows: Tensor, weights: Tensor | None, training: bool) -> Tensor:
        """Scale and shift rows (n, width), learning mean and variance from the rows of weight 1 alone."""
        if not training:
            scale, shift = self._learnt()
            return rows * scale + shift
        mean, variance = _moments(rows, weights)
        self.mean.assign(self.mean * self.momentum + mean * (1.0 - self.momentum))
        self.variance.assign(self.variance * self.momentum + variance * (1.0 - self.momentum))
        scale = self.gamma / ops.sqrt(variance + EPSILON)
        return rows * scale + (self.beta - mean * scale)

    def _learnt(self) -> tuple[Tensor, Tensor]:
        """Give the scale and the shift that training ended with."""
        scale = self.gamma / ops.sqrt(self.variance + EPSILON)
        return scale, self.beta - self.mean * scale

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "momentum": self.momentum, "seed": self.seed}


def _moments(rows: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance over the rows of weight 1, as products with a matrix of one row, which CPUs do fastest."""
    if weights is None:
        weights = ops.ones_like(rows[:, :1])
    row = ops.transpose(weights) / ops.maximum(ops.sum(weights), 1.0)  # (1, n)
    mean = ops.matmul(row, rows)  # (1, width)
    variance = ops.matmul(row, ops.square(rows - mean))
    return mean[0], variance[0]


@registered
class ConvNorm(_Normalised):
    """Convolution over time, masked batch normalisation, ReLU: (batch, time, c) -> (batch, time, filters).

    Parameters
    ----------
    filters
        Channels out.
    kernel_size
        Frames seen at once, odd; the frames before the first and after the last count as zeros.
    relu
        Whether negative values become 0.
    momentum, seed
        Of the running statistics; of the kernel's initial values.
    """

    def __init__(self, filters: int, kernel_size: int, *, relu: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.relu = filters, kernel_size, relu

    def build(self, frames_shape: tuple[int | None, ...], keep_shape: tuple[int | None, ...]) -> None:
        """Create the kernel and the normalisation's weights."""
        width = frames_shape[-1]
        assert width is not None
        self.kernel = self._kernel((self.kernel_size, width, self.filters))
        self._add_norm(self.filters)

    def call(self, frames: Tensor, keep: Tensor, training: bool = False) -> Tensor:
        """Convolve, normalise over recorded frames, and blank the padding."""
        keep = ops.cast(keep, "float32")
        if training:
            wide = self._convolved(frames, self.kernel)
            rows = self._normalise(ops.reshape(wide, (-1, self.filters)), ops.reshape(keep, (-1, 1)), training)
            out = ops.reshape(rows, ops.shape(wide))
        else:  # the scale of a convolution is that of its kernel
            scale, shift = self._learnt()
            out = self._convolved(frames, ops.cast(self.kernel * scale, self.compute_dtype)) + shift
        if self.relu:
            out = ops.relu(out)
        return ops.cast(out * keep, self.compute_dtype)

    def _convolved(self, frames: Tensor, kernel: Tensor) -> Tensor:
        out = ops.conv(frames, kernel, strides=1, padding="same", data_format="channels_last")
        return ops.cast(out, "float32")

    def compute_output_shape(self, frames_shape: Any, keep_shape: Any) -> Any:
        """(batch, time, filters)."""
        return (*frames_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        own = {"filters": self.filters, "kernel_size": self.kernel_size, "relu": self.relu}
        return {**super().get_config(), **own}


@registered
class DenseNorm(_Normalised):
    """Dense layer, batch normalisation, ReLU on vectors: (batch, c) -> (batch, units)."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape: tuple[int, ...]) -> None:
        """Create the kernel and the normalisation's weights."""
        self.kernel = self._kernel((shape[-1], self.units))
        self._add_norm(self.units)

    def call(self, vectors: Tensor, training: bool = False) -> Tensor:
        """Multiply, normalise over the batch, cut at zero."""
        rows = ops.cast(ops.matmul(vectors, self.kernel), "float32")
        return ops.cast(ops.relu(self._normalise(rows, None, training)), self.compute_dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        """(batch, units)."""
        return (*shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "units": self.units}


@registered
class SqueezeExcite(keras.layers.Layer):  # type: ignore[misc]
    """Scale each channel by a gate that looks at the mean of all channels over the recorded frames.

    Source: Hu et al., "Squeeze-and-Excitation Networks" (2018).
    """

    def __init__(self, reduction: int = 8, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction, self.seed = reduction, seed

    def build(self, frames_shape: tuple[int | None, ...], keep_shape: tuple[int | None, ...]) -> None:
        """Create the two small dense layers."""
        width = frames_shape[-1]
        assert width is not None
        inner = max(width // self.reduction, 1)
        self.squeeze = self.add_weight(shape=(width, inner), name="squeeze", initializer=glorot(self.seed))
        self.squeeze_bias = self.add_weight(shape=(inner,), name="squeeze_bias", initializer="zeros")
        self.excite = self.add_weight(shape=(inner, width), name="excite", initializer=glorot(self.seed + 1))
        self.excite_bias = self.add_weight(shape=(width,), name="excite_bias", initializer="zeros")

    def call(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Gate the channels; padding stays 0."""
        mean = masked_mean(frames, keep)
        hidden = ops.relu(ops.matmul(mean, self.squeeze) + self.squeeze_bias)
        gate = ops.sigmoid(ops.matmul(hidden, self.excite) + self.excite_bias)
        return frames * gate[:, None, :]

    def compute_output_shape(self, frames_shape: Any, keep_shape: Any) -> Any:
        """Give the shape of the frames."""
        return frames_shape

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "reduction": self.reduction, "seed": self.seed}


def masked_mean(frames: Tensor, keep: Tensor) -> Tensor:
    """Average over the recorded frames: (batch, time, c) -> (batch, c); frames are 0 where the mask is."""
    count = ops.maximum(ops.sum(ops.cast(keep, "float32"), axis=1), 1.0)
    return ops.cast(ops.sum(frames, axis=1) / ops.cast(count, frames.dtype), frames.dtype)


@registered
class MaskedMean(keras.layers.Layer):  # type: ignore[misc]
    """Average over the recorded frames: (batch, time, c) -> (batch, c)."""

    def call(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Average."""
        return masked_mean(frames * keep, keep)

    def compute_output_shape(self, frames_shape: Any, keep_shape: Any) -> Any:
        """(batch, c)."""
        return (frames_shape[0], frames_shape[-1])


@registered
class HalveTime(keras.layers.Layer):  # type: ignore[misc]
    """Keep the larger of each two neighbouring frames; time must be even.

    Only right for values that are never negative and 0 on padding (as after a ReLU), and for masks: then the larger
    one of a recorded and a padded frame is the recorded one.
    """

    def call(self, frames: Tensor) -> Tensor:
        """(batch, time, c) -> (batch, time / 2, c)."""
        return ops.max_pool(frames, pool_size=2, strides=2, padding="valid", data_format="channels_last")

    def compute_output_shape(self, shape: Any) -> Any:
        """Half the time."""
        return (shape[0], None if shape[1] is None else shape[1] // 2, shape[2])


@registered
class MaskedAttention(keras.layers.Layer):  # type: ignore[misc]
    """Weigh the frames by a learnt score and sum them: (batch, time, c) -> (batch, c).

    The score is tanh(W x + b) . v over `units` directions; softmax over the recorded frames makes it a weight.
    """

    def __init__(self, units: int = 1, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.seed = units, seed

    def build(self, frames_shape: tuple[int | None, ...], keep_shape: tuple[int | None, ...]) -> None:
        """Create the score's weights."""
        self.kernel = self.add_weight(
            shape=(frames_shape[-1], self.units), name="kernel", initializer=glorot(self.seed)
        )
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="zeros")
        self.vector = self.add_weight(shape=(self.units, 1), name="vector", initializer="ones")

    def call(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Sum the frames, weighted."""
        score = ops.matmul(ops.tanh(ops.matmul(frames, self.kernel) + self.bias), self.vector)
        score = ops.cast(score, "float32") + (ops.cast(keep, "float32") - 1.0) * 1e9
        weight = ops.cast(ops.softmax(score, axis=1), frames.dtype)
        return ops.sum(frames * weight, axis=1)

    def compute_output_shape(self, frames_shape: Any, keep_shape: Any) -> Any:
        """(batch, c)."""
        return (frames_shape[0], frames_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "units": self.units, "seed": self.seed}
