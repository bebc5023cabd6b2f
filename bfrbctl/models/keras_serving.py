"""All networks of all folds behind one call, traced once: how the Keras member answers.

Asking one network after the other spends most of the time outside the networks: weights are assigned, inputs are scaled
and copied for every fold, each layer is an operation of its own. Here the inputs are laid out once for all folds, each
fold's scaling is part of its network, and the backend gets one function of all of them. One sequence is padded to one
of three lengths, each compiled once (by XLA, where the backend has it); many sequences go through the same networks in
whatever shape they have.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from bfrbctl.dataset import TOF_IMAGE_MISSING, FeatureBatch
from bfrbctl.models.keras_backend import backend_name, ops, to_numpy
from bfrbctl.models.keras_inputs import (
    CLIP,
    InputPlan,
    Ready,
    Scaler,
    frame_index,
    gather,
    prediction_batches,
    round_up,
    scaling,
    unscaled,
)
from bfrbctl.models.keras_layers import Tensor
from bfrbctl.models.keras_networks import NetworkSpec
from bfrbctl.models.keras_training import Arrays, shared_network
from bfrbctl.segments import AnyArray, Float32, Float64, Int64

FEW = 4
"""Up to so many sequences are answered one by one: sooner done than as a batch."""

ROWS = 32
"""Sequences of a batch where the backend compiles every shape anew."""

WARMING = 2
"""Lengths compiled at the same time."""

Inputs = dict[str, AnyArray]
Answer = Callable[[Inputs], AnyArray]
"""From padded inputs to the probabilities of all networks: (n_networks, batch, n_classes)."""

Step = Callable[[Sequence[Tensor], Mapping[str, Tensor]], Tensor]
"""From the arrays of one network and padded inputs to its probabilities: a pure function."""


@dataclass(frozen=True)
class FoldNetworks:
    """The networks of one fold: what they are, their weights in the order of `predict.weights`, their scaling."""

    spec: NetworkSpec
    plan: InputPlan
    scaler: Scaler
    members: Sequence[Arrays]
    n_classes: int


@dataclass(frozen=True)
class Compiled:
    """What a backend made of some networks.

    Parameters
    ----------
    one
        Answers a batch of one sequence of one of the plan's few lengths.
    many
        Answers a batch of sequences.
    rows
        Sequences that `many` takes, neither more nor fewer; 0 for any number.
    warms
        Whether the first call of a shape takes long.
    """

    one: Answer
    many: Answer
    rows: int
    warms: bool


@dataclass(frozen=True)
class Group:
    """Folds whose networks have the same layers and read the same channels.

    Parameters
    ----------
    plan
        What they read; of the longest sequences that any of them reads.
    compiled
        All their networks.
    share
        float64, (n_networks,): weight of each network in the answer of the group.
    """

    plan: InputPlan
    compiled: Compiled
    share: Float64

    def proba(self, batch: FeatureBatch, n_classes: int) -> Float64:
        """Give the sum of the folds' probabilities: (n_sequences, n_classes)."""
        data = unscaled(batch, self.plan)
        out = np.empty((batch.n_sequences, n_classes))
        if batch.n_sequences <= FEW:
            for position in range(batch.n_sequences):
                out[position] = self._blend(self.compiled.one(single(data, position, self.plan)))[0]
            return out
        for chosen, inputs in prediction_batches(data, self.plan):
            for first in range(0, chosen.size, self.compiled.rows or chosen.size):
                part = slice(first, first + (self.compiled.rows or chosen.size))
                told = self.compiled.many(_with_age(_filled(inputs, part, self.compiled.rows, self.plan)))
                out[chosen[part]] = self._blend(told)[: chosen[part].size]
        return out

    def warm(self) -> None:
        """Answer a sequence of each length once, so that nothing is left to be compiled."""
        if self.compiled.warms:
            frames = np.zeros((1, self.plan.n_imu + self.plan.n_other), dtype=np.float32)
            tof = np.zeros((1, self.plan.n_tof, 64), dtype=np.uint8)
            unknown = np.zeros(1, dtype=np.uint8)
            data = Ready(frames, tof, unknown, np.array([0, 1]), np.zeros(0, dtype=np.float32))
            lengths = few_lengths(self.plan)
            inputs = [single(data, 0, self.plan, at_least=length) for length in lengths]
            with ThreadPoolExecutor(WARMING) as pool:
                list(pool.map(self.compiled.one, inputs))

    def _blend(self, told: AnyArray) -> Float64:
        return np.asarray(np.tensordot(self.share, told.astype(np.float64), axes=1))


@dataclass(frozen=True)
class Networks:
    """The Keras member's ensemble: the average of its folds.

    Parameters
    ----------
    groups
        All folds, each in one group.
    n_folds, n_classes
        How many.
    """

    groups: tuple[Group, ...]
    n_folds: int
    n_classes: int

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes), rows sum to 1.

        Raises
        ------
        DataError
            When the batch lacks a channel that the networks were trained on.
        """
        total = np.zeros((batch.n_sequences, self.n_classes))
        for group in self.groups:
            total += group.proba(batch, self.n_classes)
        return np.asarray(total / total.sum(axis=1, keepdims=True), dtype=np.float32)

    def warm(self) -> None:
        """Compile what answers one sequence; seconds."""
        for group in self.groups:
            group.warm()


def serving(folds: Sequence[FoldNetworks]) -> Networks:
    """Put the networks of all folds together."""
    kinds: dict[tuple[NetworkSpec, InputPlan], list[FoldNetworks]] = {}
    for fold in folds:
        # Padded at the front, a fold that reads fewer frames than another one gets the rest as padding.
        alike = replace(fold.plan, length=0) if fold.plan.pad == "left" else fold.plan
        kinds.setdefault((fold.spec, alike), []).append(fold)
    return Networks(tuple(_group(alike) for alike in kinds.values()), len(folds), folds[0].n_classes)


def _group(folds: Sequence[FoldNetworks]) -> Group:
    plan = max((fold.plan for fold in folds), key=lambda each: each.length)
    networks = [
        [*weights, scaler.mean, scaler.scale, np.array(fold.plan.length, dtype=np.float32)]
        for fold in folds
        for scaler in (scaling(plan, fold.scaler),)
        for weights in fold.members
    ]
    share = np.array([1.0 / len(fold.members) for fold in folds for _ in fold.members])
    compiled = _COMPILERS[backend_name()](network_step(folds[0].spec), networks, plan)
    return Group(plan, compiled, share)


def network_step(spec: NetworkSpec) -> Step:
    """Give the process's network of this shape as a pure function of its arrays and the unscaled inputs."""
    model = shared_network(spec).network.predict
    place = {id(weight): position for position, weight in enumerate(model.weights)}
    trainable = [place[id(variable)] for variable in model.trainable_variables]
    rest = [place.get(id(variable)) for variable in model.non_trainable_variables]
    # Beside the weights these are the seeds of dropout, which prediction does not use but has to be given.
    unused = [to_numpy(variable) for variable in model.non_trainable_variables]

    def step(arrays: Sequence[Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        *weights, mean, scale, longest = arrays
        frames = inputs["frames"]
        mask = inputs["mask"] * ops.cast(inputs["age"] <= longest, "float32")
        scaled = ops.clip((frames - mean) / scale, -CLIP, CLIP)
        given: dict[str, Tensor] = {"frames": ops.where(ops.isfinite(frames), scaled, 0.0) * mask, "mask": mask}
        if "tof" in inputs:
            missing = ops.full((), TOF_IMAGE_MISSING, dtype="uint8")
            given["tof"] = ops.where(mask[..., None] > 0, inputs["tof"], missing)
        others = [
            ops.convert_to_tensor(value) if position is None else weights[position]
            for position, value in zip(rest, unused, strict=True)
        ]
        return model.stateless_call([weights[place] for place in trainable], others, given, training=False)[0]

    return step


def few_lengths(plan: InputPlan) -> tuple[int, ...]:
    """Give the lengths that single sequences are padded to: half, three quarters and all of the longest."""
    return tuple(sorted({round_up(-(-plan.length * part // 4)) for part in (2, 3, 4)}))


def single(data: Ready, position: int, plan: InputPlan, *, at_least: int = 0) -> Inputs:
    """Pad one sequence to the next of the few lengths; a longer one keeps its tail."""
    chosen = np.array([position], dtype=np.int64)
    lengths: Int64 = data.lengths[chosen]
    wanted = max(int(lengths[0]), at_least)
    n_steps = next((length for length in few_lengths(plan) if length >= wanted), plan.length)
    return _with_age(gather(data, chosen, *frame_index(lengths, n_steps, plan.pad)))


def _with_age(inputs: Inputs) -> Inputs:
    """Add how many frames there are from each step to the end of the padded time: float32, (1, time, 1)."""
    n_steps = inputs["mask"].shape[1]
    return {**inputs, "age": np.arange(n_steps, 0, -1, dtype=np.float32)[None, :, None]}


def _filled(inputs: Inputs, part: slice, rows: int, plan: InputPlan) -> Inputs:
    """Give a part of a batch; as many rows, and one of the few lengths, where the backend wants it so."""
    some = {name: values[part] for name, values in inputs.items()}
    if not rows:
        return some
    n_rows, n_steps = some["mask"].shape[:2]
    length = next(length for length in few_lengths(plan) if length >= n_steps)
    before, after = (length - n_steps, 0) if plan.pad == "left" else (0, length - n_steps)
    return {
        name: np.pad(values, ((0, rows - n_rows), (before, after), *((0, 0),) * (values.ndim - 2)))
        for name, values in some.items()
    }


# -------------------------------------------------------------------------------------------------------- backends


def _tensorflow(step: Step, networks: Sequence[Arrays], plan: InputPlan) -> Compiled:
    """One graph of all networks, of any length; XLA compiles the network in it once a length, for all its weights."""
    tf = import_module("tensorflow")
    common: dict[Any, Any] = {}

    def tensor(array: AnyArray) -> Any:
        """Give one tensor for arrays that are alike: on lengths in common hang the pixels, which are read once then."""
        return common.setdefault((array.shape, array.dtype.str, array.tobytes()), tf.constant(array))

    held = [[tensor(array) for array in arrays] for arrays in networks]
    signature = {
        "frames": tf.TensorSpec((None, None, plan.n_imu + plan.n_other), tf.float32),
        "mask": tf.TensorSpec((None, None, 1), tf.float32),
        "age": tf.TensorSpec((1, None, 1), tf.float32),
    }
    if plan.n_tof:
        signature["tof"] = tf.TensorSpec((None, None, plan.n_tof, 64), tf.uint8)

    def together(network: Any) -> Any:
        def answer(inputs: Mapping[str, Tensor]) -> Tensor:
            return tf.stack([network(arrays, inputs) for arrays in held])

        return tf.function(answer, input_signature=[signature], autograph=False)

    fused = together(tf.function(step, autograph=False, jit_compile=True))
    plain = together(tf.function(step, autograph=False))
    return Compiled(lambda inputs: fused(inputs).numpy(), lambda inputs: plain(inputs).numpy(), rows=0, warms=True)


def _jax(step: Step, networks: Sequence[Arrays], plan: InputPlan) -> Compiled:
    """One function that runs over the networks, compiled once for each shape."""
    jax = import_module("jax")
    stacked = [jax.numpy.stack(same) for same in zip(*networks, strict=True)]
    run = jax.jit(lambda arrays, inputs: jax.lax.map(lambda network: step(network, inputs), arrays))

    def answer(inputs: Inputs) -> AnyArray:
        return np.asarray(run(stacked, inputs))

    return Compiled(answer, answer, rows=ROWS, warms=True)


def _torch(step: Step, networks: Sequence[Arrays], plan: InputPlan) -> Compiled:
    """One network after the other; there is nothing to compile."""
    torch = import_module("torch")
    held = [[ops.convert_to_tensor(array) for array in arrays] for arrays in networks]

    def answer(inputs: Inputs) -> AnyArray:
        given = {name: ops.convert_to_tensor(values) for name, values in inputs.items()}
        with torch.no_grad():
            return np.stack([to_numpy(step(arrays, given)) for arrays in held])

    return Compiled(answer, answer, rows=0, warms=False)


_COMPILERS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
