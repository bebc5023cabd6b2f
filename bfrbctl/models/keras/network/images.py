"""Layers that read raw ToF images on the device, and the one that mixes two sequences.

Images travel as uint8, a quarter of the bytes, and become numbers only here. A pixel that saw nothing in range is a
measurement and gets one fixed far value; a missing one is 0, in the middle of the scale, and sensors have a flag.
"""

from typing import Any

from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.network.layers import Tensor, glorot, registered
from bfrbctl.models.keras.network.layout import FAR, HALF, MIDDLE, SIDE, TAPS
from bfrbctl.recordings.dataset import TOF_IMAGE_MISSING, TOF_IMAGE_NO_RETURN


def scaled_pixels(tof: Tensor, dtype: str) -> Tensor:
    """Turn uint8 readings into numbers: -1..1, 1.25 for no return, 0 for missing; same shape."""
    values = ops.cast(tof, "float32")
    near = (values - MIDDLE) / MIDDLE
    seen = ops.where(values >= TOF_IMAGE_NO_RETURN, FAR, near)
    return ops.cast(ops.where(values >= TOF_IMAGE_MISSING, 0.0, seen), dtype)


@registered
class FlatPixels(keras.layers.Layer):  # type: ignore[misc]
    """All pixels of all sensors as channels: uint8 (batch, time, n_tof, 64) -> (batch, time, n_tof * 64 + n_tof).

    The last n_tof channels are 1 where a sensor measured anything, 0 where all its pixels are missing.
    """

    def call(self, tof: Tensor) -> Tensor:
        """Scale, flatten, add the flags."""
        sensors = int(tof.shape[2])
        pixels = ops.reshape(scaled_pixels(tof, self.compute_dtype), (*ops.shape(tof)[:2], sensors * SIDE * SIDE))
        return ops.concatenate([pixels, sensor_flags(tof, self.compute_dtype)], axis=-1)

    def compute_output_spec(self, tof: Tensor) -> Any:
        """(batch, time, n_tof * 65)."""
        return keras.KerasTensor((*tof.shape[:2], tof.shape[2] * (SIDE * SIDE + 1)), dtype=self.compute_dtype)


def sensor_flags(tof: Tensor, dtype: str) -> Tensor:
    """Tell which sensors measured anything: uint8 (batch, time, n_tof, 64) -> (batch, time, n_tof) of 0 and 1."""
    return ops.cast(ops.min(tof, axis=-1) < TOF_IMAGE_MISSING, dtype)


@registered
class SensorFlags(keras.layers.Layer):  # type: ignore[misc]
    """Which sensors measured anything: uint8 (batch, time, n_tof, 64) -> (batch, time, n_tof) of 0 and 1."""

    def call(self, tof: Tensor) -> Tensor:
        """Look for a pixel that is not missing."""
        return sensor_flags(tof, self.compute_dtype)

    def compute_output_spec(self, tof: Tensor) -> Any:
        """(batch, time, n_tof)."""
        return keras.KerasTensor(tuple(tof.shape[:3]), dtype=self.compute_dtype)


@registered
class ImageEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Encode each 8x8 image by one small network shared by the sensors.

    uint8 (batch, time, n_tof, 64) -> (batch, time, n_tof * units). The scaled readings go through a 3x3 convolution
    of stride 2, a ReLU and a dense layer. What comes out is multiplied by the sensor's presence, and each sensor has a
    bias of its own for where it sits: a missing sensor gives exactly 0.

    The convolution is one product with a matrix that is laid out from its kernel: seven times the arithmetic of a
    convolution, but images of 64 pixels are so small that it takes a third of the time.

    Parameters
    ----------
    filters, units
        Width of the convolution; numbers that describe an image.
    seed
        Of the initial values.
    """

    def __init__(self, filters: int, units: int, *, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.units, self.seed = filters, units, seed

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.kernel = self.add_weight(shape=(3, 3, 1, self.filters), name="kernel", initializer=glorot(self.seed))
        self.bias = self.add_weight(shape=(self.filters,), name="bias", initializer="zeros")
        self.dense = self.add_weight(
            shape=(HALF * HALF * self.filters, self.units), name="dense", initializer=glorot(self.seed + 1)
        )
        self.place = self.add_weight(shape=(shape[2], self.units), name="place", initializer="zeros")

    def call(self, tof: Tensor) -> Tensor:
        """Encode all images at once."""
        batch, time = ops.shape(tof)[:2]
        sensors = int(tof.shape[2])
        images = ops.reshape(scaled_pixels(tof, self.compute_dtype), (-1, SIDE * SIDE))
        # Biases are laid out to whole rows: a fifth less time forwards, a tenth less with gradients.
        found = ops.relu(ops.matmul(images, self._matrix()) + ops.tile(self.bias, HALF * HALF))
        code = ops.reshape(ops.matmul(found, self.dense), (batch, time, sensors * self.units))
        code = ops.relu(code + ops.reshape(self.place, (-1,)))
        return code * ops.repeat(sensor_flags(tof, self.compute_dtype), self.units, axis=-1)

    def _matrix(self) -> Tensor:
        """Lay the kernel out as what it does to an image: (64 pixels, 16 places * filters)."""
        kernel = ops.reshape(self.kernel, (9, self.filters))
        laid = ops.matmul(ops.convert_to_tensor(TAPS, dtype=kernel.dtype), kernel)
        return ops.reshape(laid, (SIDE * SIDE, HALF * HALF * self.filters))

    def compute_output_spec(self, tof: Tensor) -> Any:
        """(batch, time, n_tof * units)."""
        return keras.KerasTensor((*tof.shape[:2], tof.shape[2] * self.units), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        return {**super().get_config(), "filters": self.filters, "units": self.units, "seed": self.seed}


@registered
class Mixup(keras.layers.Layer):  # type: ignore[misc]
    """Blend each sequence of a batch with another one: weight * x + (1 - weight) * x[partner].

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).
    """

    def call(self, values: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
        """Blend (batch, time, c) by weight (batch,) with the sequences partner int32 (batch,)."""
        share = ops.cast(weight, values.dtype)[:, None, None]
        return values * share + ops.take(values, partner, axis=0) * (1.0 - share)

    def compute_output_shape(self, values_shape: Any, weight_shape: Any, partner_shape: Any) -> Any:
        """Give the shape of the values."""
        return values_shape


@registered
class MixupMask(keras.layers.Layer):  # type: ignore[misc]
    """The mask of blended sequences: a frame counts when either sequence recorded it."""

    def call(self, keep: Tensor, partner: Tensor) -> Tensor:
        """(batch, time, 1) and int32 (batch,) -> (batch, time, 1)."""
        return ops.maximum(keep, ops.take(keep, partner, axis=0))

    def compute_output_shape(self, keep_shape: Any, partner_shape: Any) -> Any:
        """Give the shape of the mask."""
        return keep_shape
