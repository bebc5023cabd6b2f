"""AdamW over all weights as one vector.

Keras updates weight by weight: some fifty operations for each of sixty arrays, which is half of the whole training
graph, takes seconds to trace and milliseconds of overhead a step. Here gradients are put end to end once, the update
is a dozen operations on one vector, and the result is dealt out again. The numbers are those of AdamW (Loshchilov &
Hutter 2019), with the gradient of an L2 penalty, a limit on the gradient's norm, and a running mean of the weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bfrbctl.models.keras.backend import keras, ops, to_numpy
from bfrbctl.models.keras.network.layers import Tensor, registered

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-7
"""AdamW's memories of the gradient and of its square, and what keeps it from dividing by zero."""

KERNELS = ("kernel", "state", "dense", "squeeze", "excite")
"""Weights by the end of their name that are decayed: the others have no scale of their own to keep small."""


@registered
class FlatAdamW(keras.optimizers.Optimizer):  # type: ignore[misc]
    """AdamW on one vector.

    Parameters
    ----------
    learning_rate
        Step size.
    decay
        Share of a kernel that goes a step, times the learning rate.
    l2
        Weight of the kernels' squares in the loss.
    clip
        Largest norm of the gradient of all weights together; 0 for any.
    memory
        Share of the running mean of the weights that stays a step; 0 for no running mean.
    """

    def __init__(
        self, learning_rate: float, *, decay: float, l2: float, clip: float, memory: float, **kwargs: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.decay, self.l2, self.clip, self.memory = decay, l2, clip, memory

    def build(self, variables: Sequence[Any]) -> None:
        """Create the vectors for these weights."""
        super().build(variables)
        self.sizes = [int(np.prod(variable.shape)) for variable in variables]
        chosen = [float(variable.name.endswith(KERNELS)) for variable in variables]
        self.decayed = np.repeat(np.array(chosen, dtype=np.float32), self.sizes)
        self.first = self._vector("first")
        self.second = self._vector("second")
        self.average = self._vector("average")

    def _vector(self, name: str) -> Any:
        shape = (sum(self.sizes),) if name != "average" or self.memory > 0 else (0,)
        return self.add_variable(shape=shape, initializer="zeros", dtype="float32", name=name)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Any] | None = None) -> Tensor:
        """Update the weights, in place."""
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        if not self.built:
            self.build(variables)
        weights = ops.concatenate([ops.reshape(variable.value, (-1,)) for variable in variables])
        gradient = ops.concatenate([ops.reshape(ops.cast(each, "float32"), (-1,)) for each in grads])
        weights = self._step(weights, gradient)
        begins = np.cumsum([0, *self.sizes])
        for place, variable in enumerate(variables):
            part = weights[int(begins[place]) : int(begins[place + 1])]
            variable.assign(ops.reshape(part, variable.shape))
        self.iterations.assign_add(1)
        return self.iterations

    def _step(self, weights: Tensor, gradient: Tensor) -> Tensor:
        rate = ops.cast(self.learning_rate, "float32")
        decayed = ops.convert_to_tensor(self.decayed) * weights
        gradient = gradient + (2.0 * self.l2) * decayed
        if self.clip > 0:
            norm = ops.sqrt(ops.sum(ops.square(gradient)))
            gradient = gradient * (self.clip / ops.maximum(norm, self.clip))
        count = ops.cast(self.iterations + 1, "float32")
        self.first.assign(self.first * FIRST + gradient * (1.0 - FIRST))
        self.second.assign(self.second * SECOND + ops.square(gradient) * (1.0 - SECOND))
        mean = self.first.value / (1.0 - ops.power(FIRST, count))
        spread = ops.sqrt(self.second.value / (1.0 - ops.power(SECOND, count)))
        weights = weights - rate * (mean / (spread + EPSILON) + self.decay * decayed)
        if self.memory > 0:
            stays = ops.where(count > 1.0, self.memory, 0.0)
            self.average.assign(self.average * stays + weights * (1.0 - stays))
        return weights

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Give the weights their running mean."""
        if self.memory > 0:
            mean = to_numpy(self.average)
            parts = np.split(mean, np.cumsum(self.sizes)[:-1])
            for variable, part in zip(var_list, parts, strict=True):
                variable.assign(part.reshape(variable.shape))

    def get_config(self) -> dict[str, Any]:
        """Give what `from_config` needs."""
        own = {"decay": self.decay, "l2": self.l2, "clip": self.clip, "memory": self.memory}
        base = {key: value for key, value in super().get_config().items() if key in ("name", "learning_rate")}
        return {**base, **own}
