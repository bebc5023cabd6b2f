"""All networks of all folds behind one call: how the Keras member answers, at serving and out of fold alike.

Asking one network after the other by `model.predict` spends most of the time outside the networks. Here recordings are
laid out once for all folds and each fold's scaling is part of its networks, which NumPy computes, some at once, on all
cores: see `inference`. How the work is cut depends on nothing but the recordings and the networks, so answers do
not depend on the number of cores.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import joblib
import numpy as np
from threadpoolctl import ThreadpoolController

from bfrbctl.arrays.ragged import Float32, Float64, Int64
from bfrbctl.models.keras.inputs import InputPlan, Ready, Scaler, imu_only, scaling, unscaled
from bfrbctl.models.keras.network.layout import NetworkSpec
from bfrbctl.models.keras.runtime.inference import Packed, Stack
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr

TOGETHER = 6
"""Networks in a stack at most: one sequence is mostly calls of NumPy, which so many share."""

ROWS = 32
"""Sequences in a pack: enough to keep matrix products busy, few enough for the cache."""


@dataclass(frozen=True)
class FoldNetworks:
    """The networks of one fold: what they are, the weights of each by name, their scaling."""

    spec: NetworkSpec
    plan: InputPlan
    scaler: Scaler
    members: Sequence[Mapping[str, Float32]]
    n_classes: int

    __repr__ = short_repr


@dataclass(frozen=True)
class Part:
    """A stack of networks.

    Parameters
    ----------
    stack
        The networks.
    share
        float64, (n_networks,): the weight of each in the answer.
    lengths
        int64, (n_networks,): frames that each reads at most; longest first.
    """

    stack: Stack
    share: Float64
    lengths: Int64

    __repr__ = short_repr

    def alike(self) -> list["Part"]:
        """Take those apart that read different lengths."""
        firsts = np.unique(self.lengths, return_index=True)[1]
        groups = [np.flatnonzero(self.lengths == self.lengths[first]) for first in np.sort(firsts)]
        return [self.only(slice(int(group[0]), int(group[-1]) + 1)) for group in groups]

    def only(self, chosen: slice) -> "Part":
        """Give some of the networks."""
        return Part(self.stack.part(chosen), self.share[chosen], self.lengths[chosen])


Task = tuple[Part, Int64, int | None]
"""Which networks answer which sequences; the first branch's columns where those sequences have nothing else."""


@dataclass(frozen=True)
class Group:
    """Folds whose networks have the same layers and read the same channels.

    Parameters
    ----------
    plan
        What they read.
    parts
        Stacks for sequences that every network of it reads whole.
    alike
        The same networks for longer ones, in stacks that read the same length.
    """

    plan: InputPlan
    parts: tuple[Part, ...]
    alike: tuple[Part, ...]

    __repr__ = short_repr

    def proba(self, batch: FeatureBatch, n_classes: int) -> Float64:
        """Give the sum of the folds' probabilities: (n_sequences, n_classes)."""
        data = unscaled(batch, self.plan)
        out = np.zeros((batch.n_sequences, n_classes))
        tasks = list(self._tasks(data))

        def answer(task: Task) -> Float64:
            part, chosen, n_imu = task
            packed = Packed.of(data, chosen, length=int(part.lengths[-1]), pad=self.plan.pad, n_imu=n_imu)
            told = part.stack.predict_proba(packed).astype(np.float64)
            return np.asarray(np.tensordot(part.share, told, axes=1))

        with _libraries().limit(limits=1, user_api="blas"), ExitStack() as stack:
            # for one pack, threads would wait for each other: its calls of NumPy are too short
            several = batch.n_sequences > ROWS
            share = stack.enter_context(ThreadPoolExecutor(joblib.cpu_count())).map if several else map
            for (_, chosen, _), told in zip(tasks, share(answer, tasks), strict=True):
                out[chosen] += told
        return out

    def _tasks(self, data: Ready) -> Sequence[Task]:
        """Cut the work, longest sequences first, so that little is left to wait for at the end.

        Sequences of an IMU alone have packs of their own, in which the networks have less to do.
        """
        order = np.argsort(-data.lengths, kind="stable")
        shortest = min(int(part.lengths[-1]) for part in self.parts)
        n_long = int((data.lengths > shortest).sum())
        alone = imu_only(data, self.plan)[order]
        tasks: list[Task] = []
        for parts, those in ((self.alike, slice(n_long)), (self.parts, slice(n_long, None))):
            for kind, n_imu in ((~alone[those], None), (alone[those], self.plan.n_imu)):
                sequences = order[those][kind]
                packs = [sequences[first : first + ROWS] for first in range(0, sequences.size, ROWS)]
                tasks += [(part, pack, n_imu) for pack in packs for part in parts]
        return tasks


@dataclass(frozen=True)
class Networks:
    """The Keras member's ensemble: the average of its folds.

    Parameters
    ----------
    groups
        All folds, each in one group.
    n_classes
        How many.
    """

    groups: tuple[Group, ...]
    n_classes: int

    __repr__ = short_repr

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
        """Lay the weights out; a fraction of a second."""
        for group in self.groups:
            for part in (*group.parts, *group.alike):
                plan = group.plan
                frames = np.zeros((1, plan.n_imu + plan.n_other), dtype=np.float32)
                tof = np.zeros((1, plan.n_tof, 64), dtype=np.uint8)
                one = Ready(frames, tof, np.zeros(1, dtype=np.uint8), np.array([0, 1]), np.zeros(0, dtype=np.float32))
                part.stack.predict_proba(Packed.of(one, np.zeros(1, dtype=np.int64), length=plan.length, pad=plan.pad))


def serving(folds: Sequence[FoldNetworks]) -> Networks:
    """Put the networks of all folds together."""
    kinds: dict[tuple[NetworkSpec, InputPlan], list[FoldNetworks]] = {}
    for fold in folds:
        # what only matters while learning, and the length, may differ
        spec = replace(fold.spec, dropout=0.0, precision="float32", phase_head=False, n_orientations=0)
        kinds.setdefault((spec, replace(fold.plan, length=0)), []).append(fold)
    groups = tuple(_group(spec, alike) for (spec, _), alike in kinds.items())
    return Networks(groups, folds[0].n_classes)


def _group(spec: NetworkSpec, folds: Sequence[FoldNetworks]) -> Group:
    folds = sorted(folds, key=lambda fold: -fold.plan.length)
    networks = [(weights, scaling(fold.plan, fold.scaler)) for fold in folds for weights in fold.members]
    arrays = {name: np.stack([weights[name] for weights, _ in networks]) for name in networks[0][0]}
    mean = np.stack([scaler.mean for _, scaler in networks])[:, None]
    scale = np.stack([scaler.scale for _, scaler in networks])[:, None]
    share = np.array([1.0 / len(fold.members) for fold in folds for _ in fold.members])
    lengths = np.array([fold.plan.length for fold in folds for _ in fold.members])
    everything = Part(Stack(spec, arrays, mean, scale), share, lengths)
    parts = tuple(_evenly(everything))
    alike = tuple(piece for part in everything.alike() for piece in _evenly(part)) if len(set(lengths)) > 1 else parts
    return Group(folds[0].plan, parts, alike)


def _evenly(part: Part) -> list[Part]:
    """Cut a stack into as few as allowed, of much the same size."""
    bounds = np.linspace(0, len(part.share), -(-len(part.share) // TOGETHER) + 1).round().astype(int)
    return [part.only(slice(int(first), int(last))) for first, last in pairwise(bounds)]


@cache
def _libraries() -> ThreadpoolController:
    """Find what multiplies matrices, to keep it to one thread while we share work among threads; milliseconds."""
    return ThreadpoolController()
