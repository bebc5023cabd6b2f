"""The Keras member: networks trained on the frames of one fold, and their artefact.

A model is a JSON spec and npz arrays. The spec has only bounded numbers and names; our own code builds the network
from it and checks every array against it before the array is read. No file that could hold code is ever loaded.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bfrbctl.dataset import FeatureBatch
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.models import FoldTask, HistoryRow
from bfrbctl.models.keras_augmentation import TrainingData
from bfrbctl.models.keras_backend import backend_name, demand_determinism
from bfrbctl.models.keras_checkpoint import pack_arrays, unpack_arrays
from bfrbctl.models.keras_inputs import InputPlan, Ready, Scaler, fit_scaler, plan_inputs, ready
from bfrbctl.models.keras_networks import HELIOS, NetworkSpec, weight_names
from bfrbctl.models.keras_rotation import find_turned
from bfrbctl.models.keras_serving import FoldNetworks, Networks, serving
from bfrbctl.models.keras_settings import Config
from bfrbctl.models.keras_spec import MAX_MEMBERS, ModelSpec, decode_spec, encode_spec
from bfrbctl.models.keras_training import Arrays, Job, Trained, Validation, predict, shared_network, train
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY
from bfrbctl.segments import Float32

NEEDS = frozenset({"frames", "tof"})

SPEC = "keras.json"
MEAN, SCALE = "scaler.mean", "scaler.scale"

__all__ = ["NEEDS", "Config", "KerasFoldModel", "ensemble", "fit", "fit_member", "load"]


def weights_file(member: int) -> str:
    """Name the weights of a network: keras.npz, then keras-1.npz ..."""
    return "keras.npz" if member == 0 else f"keras-{member}.npz"


@dataclass
class KerasFoldModel:
    """Networks of one fold, averaged.

    Parameters
    ----------
    spec
        What they are.
    scaler
        Of their inputs.
    members
        Weights of each network, in the order of its prediction model.
    summary
        What to tell of the model.
    history
        All rows of its training; empty for a loaded one.
    """

    spec: ModelSpec
    scaler: Scaler
    members: list[Arrays]
    summary: Mapping[str, Any]
    history: list[HistoryRow] = field(default_factory=list)

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Give class probabilities: float32, (n_sequences, n_classes), rows sum to 1.

        Raises
        ------
        DataError
            When the batch lacks a channel that the network was trained on.
        """
        plan, n_classes = self.spec.inputs, len(self.spec.classes)
        data = ready(batch, plan, self.scaler)
        total = np.zeros((batch.n_sequences, n_classes), dtype=np.float64)
        shared = shared_network(self.spec.network)
        for weights in self.members:
            with shared.lock:
                if shared.loaded is not weights:
                    for variable, value in zip(shared.network.predict.weights, weights, strict=True):
                        variable.assign(value)
                    shared.loaded = weights
                total += predict(shared.network, data, plan, n_classes)
        return np.asarray(total / total.sum(axis=1, keepdims=True), dtype=np.float32)

    def encode(self) -> dict[str, bytes]:
        """Give the model as files; the same model gives the same bytes."""
        names = weight_names(shared_network(self.spec.network).network)
        files = {SPEC: encode_spec(self.spec, len(self.members), self.summary)}
        for member, weights in enumerate(self.members):
            arrays = dict(zip(names, weights, strict=True))
            if member == 0:
                arrays |= {MEAN: self.scaler.mean, SCALE: self.scaler.scale}
            files[weights_file(member)] = pack_arrays(arrays)
        return files


def fit(task: FoldTask, config: Config) -> KerasFoldModel:
    """Train the networks of one fold; continue where `task.scratch` has a checkpoint of the same task.

    Parameters
    ----------
    task
        What to learn from and what to stop on.
    config
        Settings.

    Raises
    ------
    DataError
        When there is nothing to learn from or to stop on, or no frame channel.
    UsageError
        When training diverges.
    """
    fold = _prepared(task, config)
    trained = [fold.trained(member) for member in range(config.seeds)]
    history: list[HistoryRow] = [row for one in trained for row in one.history]
    weights = [one.weights for one in trained]
    return KerasFoldModel(fold.spec, fold.scaler, weights, _summary(fold.spec, config, trained), history)


def fit_member(task: FoldTask, config: Config, member: int) -> None:
    """Train one network of a fold and leave its last checkpoint in `task.scratch`; raises what `fit` raises."""
    _prepared(task, config).trained(member)


@dataclass(frozen=True)
class _Fold:
    """What the networks of a fold have in common."""

    task: FoldTask
    config: Config
    spec: ModelSpec
    scaler: Scaler
    data: TrainingData
    valid: Validation
    digest: str

    def trained(self, member: int) -> Trained:
        """Train a network, from its checkpoint on; one that is finished is only read."""
        task, config = self.task, self.config
        seed = int(np.random.SeedSequence([task.seed, task.fold, member]).generate_state(1)[0])
        network, digest = self.spec.network, self.digest
        job = Job(network, config, self.data, self.valid, seed=seed, digest=digest, fold=task.fold, member=member)
        return train(job, task.scratch / f"keras-{member}.npz", task.on_progress)


def _prepared(task: FoldTask, config: Config) -> _Fold:
    if not task.train.n_sequences or not task.valid.n_sequences:
        raise DataError(
            f"fold {task.fold}: {task.train.n_sequences} sequences to learn from, {task.valid.n_sequences} to stop on",
            hint="prepare the dataset with fewer folds",
        )
    if config.deterministic:
        demand_determinism()
    plan = plan_inputs(task.train, length=config.length, pad=config.pad, without=config.without)
    turned = find_turned(plan.imu)
    scaler = fit_scaler(task.train, plan, turned)
    labels = np.eye(len(task.classes), dtype=np.float32)[task.train_labels]
    data = TrainingData(ready(task.train, plan, scaler), labels, postures(task, config), plan, turned)
    spec = ModelSpec(_network_spec(task, config, data), plan, task.classes, task.targets, task.rate_hz)
    valid = Validation(_scenarios(task.valid, plan, scaler), task.valid_labels, task.judge)
    return _Fold(task, config, spec, scaler, data, valid, task_digest(task, config))


def postures(task: FoldTask, config: Config) -> Float32:
    """Give the postures to learn: float32, (n_sequences, n_orientations), zeros where unknown; no columns for none."""
    n_sequences, found = task.train.n_sequences, task.train_orientation
    wanted = config.network == HELIOS and config.orientation_weight > 0
    if not wanted or found is None or len(task.orientations) < 2 or not (found >= 0).any():
        return np.zeros((n_sequences, 0), dtype=np.float32)
    known = (found >= 0)[:, None]
    return np.where(known, np.eye(len(task.orientations), dtype=np.float32)[found], np.float32(0.0))


def _network_spec(task: FoldTask, config: Config, data: TrainingData) -> NetworkSpec:
    plan = data.plan
    return NetworkSpec(
        network=config.network,
        n_imu=plan.n_imu,
        n_other=plan.n_other,
        n_tof=plan.n_tof,
        n_classes=len(task.classes),
        width=config.width,
        dropout=config.dropout,
        precision=config.precision,
        phase_head=config.network == HELIOS and config.phase_weight > 0 and bool((data.data.phase <= 1).any()),
        n_orientations=data.orientation.shape[1],
    )


def _scenarios(batch: FeatureBatch, plan: InputPlan, scaler: Scaler) -> dict[str, Ready]:
    scenarios = {ALL_SENSORS: ready(batch, plan, scaler)}
    if not plan.one_scenario:
        scenarios[IMU_ONLY] = ready(batch.imu_only(), plan, scaler)
    return scenarios


def _summary(spec: ModelSpec, config: Config, trained: list[Trained]) -> dict[str, Any]:
    return {
        "network": config.network,
        "best_step": [one.best_epoch + 1 for one in trained],
        "best_score": [round(one.best_score, 6) for one in trained],
        "epochs": [len(one.history) for one in trained],
        "n_weights": int(sum(weight.size for weight in trained[0].weights)),
        "n_channels": len(spec.inputs.imu) + len(spec.inputs.other),
        "n_tof": spec.inputs.n_tof,
        "length": spec.inputs.length,
    }


def task_digest(task: FoldTask, config: Config) -> str:
    """Give a digest of all that training depends on; a checkpoint with another one is not continued."""
    digest = hashlib.blake2b(digest_size=20)
    told = (task.fold, task.classes, task.judge, task.orientations, task.seed, task.rate_hz, config, backend_name())
    digest.update(repr(told).encode())
    if task.train_orientation is not None:
        digest.update(np.ascontiguousarray(task.train_orientation).view(np.uint8).data)
    for batch, labels in ((task.train, task.train_labels), (task.valid, task.valid_labels)):
        digest.update(repr([batch.channels, batch.frames.shape, batch.tof.shape]).encode())
        for values in (batch.offsets, batch.frames, batch.tof, batch.phase, labels):
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def load(files: Mapping[str, bytes], *, classes: tuple[str, ...]) -> KerasFoldModel:
    """Rebuild a model from its files.

    Parameters
    ----------
    files
        What `KerasFoldModel.encode` gave.
    classes
        Names of the classes that it was trained on, gestures or joint labels, as its folder tells them.

    Raises
    ------
    ArtefactError
        When a file is missing or too many, the spec is not one of ours, or arrays do not fit it.
    """
    if SPEC not in files:
        raise ArtefactError(f"the model has no {SPEC}")
    spec, n_members, summary = decode_spec(files[SPEC], classes=classes)
    expected = {SPEC, *(weights_file(member) for member in range(min(n_members, MAX_MEMBERS)))}
    if set(files) != expected:
        raise ArtefactError(f"the model has files {sorted(files)}, expected {sorted(expected)}")
    network = shared_network(spec.network).network
    names = weight_names(network)
    shapes = {
        name: (tuple(weight.shape), "float32") for name, weight in zip(names, network.predict.weights, strict=True)
    }
    n_channels = len(spec.inputs.imu) + len(spec.inputs.other)
    first = {**shapes, MEAN: ((n_channels,), "float32"), SCALE: ((n_channels,), "float32")}
    members = [
        unpack_arrays(files[weights_file(member)], first if member == 0 else shapes, what=weights_file(member))
        for member in range(n_members)
    ]
    scaler = Scaler(mean=members[0][MEAN], scale=members[0][SCALE])
    if not (scaler.scale > 0).all():
        raise ArtefactError(f"{weights_file(0)}: a channel's scale is not positive")
    return KerasFoldModel(spec, scaler, [[arrays[name] for name in names] for arrays in members], summary)


def ensemble(models: Sequence[KerasFoldModel]) -> Networks:
    """Put folds together: their average in one call, up to rounding (1e-6) that of asking each of them."""
    return serving(
        [FoldNetworks(m.spec.network, m.spec.inputs, m.scaler, m.members, len(m.spec.classes)) for m in models]
    )
