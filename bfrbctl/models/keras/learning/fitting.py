"""From the sequences of one fold to its trained networks: inputs, scaling, spec, then `epochs`."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import Float32
from bfrbctl.errors import DataError
from bfrbctl.evaluation.selection import Curve
from bfrbctl.models.interface import FoldTask
from bfrbctl.models.keras.backend import backend_name, demand_determinism
from bfrbctl.models.keras.inputs import InputPlan, Ready, Scaler, fit_scaler, plan_inputs, ready
from bfrbctl.models.keras.learning.augmentation import TrainingData
from bfrbctl.models.keras.learning.epochs import Arrays, Job, StepFiles, Trained, Validation, shared_network, train
from bfrbctl.models.keras.learning.turning import find_turned
from bfrbctl.models.keras.model import curve_of, figures_after, named_arrays, step_file
from bfrbctl.models.keras.network.building import weight_names
from bfrbctl.models.keras.network.layout import HELIOS, NetworkSpec
from bfrbctl.models.keras.settings import Config
from bfrbctl.models.keras.spec import ModelSpec
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY

CHECKPOINT = 2
"""Format of checkpoints: 1 held the weights of the best epoch as well."""


@dataclass(frozen=True)
class Fold:
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
        job = Job(
            network,
            config,
            self.data,
            self.valid,
            seed=seed,
            digest=digest,
            fold=task.fold,
            member=member,
            step_files=self._step_files(member) if task.keep_steps else None,
        )
        return train(job, task.scratch / f"keras-{member}.npz", task.on_progress)

    def _step_files(self, member: int) -> StepFiles:
        return StepFiles(
            path=lambda step: self.task.scratch / step_file(member, step),
            named=lambda weights: named_arrays(self.named(weights), self.scaler, member),
        )

    def named(self, weights: Arrays) -> dict[str, Float32]:
        """Name the weights of a trained network: layer.weight."""
        return dict(zip(weight_names(shared_network(self.spec.network).network), weights, strict=True))

    def curve(self, trained: list[Trained]) -> Curve:
        """Give the figures of the held-out sequences after every epoch, the mean over members."""
        return curve_of([one.history for one in trained], tuple(self.valid.scenarios))

    def summary(self, trained: list[Trained]) -> dict[str, Any]:
        """Sum up the training of all members."""
        inputs, curve = self.spec.inputs, self.curve(trained)
        return {
            "network": self.config.network,
            **figures_after(curve, curve.n_steps, n_members=len(trained)),
            "n_weights": int(sum(weight.size for weight in trained[0].weights)),
            "n_channels": len(inputs.imu) + len(inputs.other),
            "n_tof": inputs.n_tof,
            "length": inputs.length,
        }


def prepared(task: FoldTask, config: Config) -> Fold:
    """Scale the sequences of a fold and say what its networks are; raises what `model.fit` raises."""
    if not task.train.n_sequences or not task.valid.n_sequences:
        raise DataError(
            f"fold {task.fold}: {task.train.n_sequences} sequences to learn from, {task.valid.n_sequences} to score",
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
    valid = Validation(_scenarios(task.valid, plan, scaler), task.valid_labels, task.scorer)
    return Fold(task, config, spec, scaler, data, valid, task_digest(task, config))


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
        dropout=config.dropout_factor,
        precision=config.precision,
        phase_head=config.network == HELIOS and config.phase_weight > 0 and bool((data.data.phase <= 1).any()),
        n_orientations=data.orientation.shape[1],
        filters=config.filters,
        units=config.units,
    )


def _scenarios(batch: FeatureBatch, plan: InputPlan, scaler: Scaler) -> dict[str, Ready]:
    scenarios = {ALL_SENSORS: ready(batch, plan, scaler)}
    if not plan.one_scenario:
        scenarios[IMU_ONLY] = ready(batch.imu_only(), plan, scaler)
    return scenarios


def task_digest(task: FoldTask, config: Config) -> str:
    """Give a digest of all that training depends on; a checkpoint with another one is not continued."""
    digest = hashlib.blake2b(digest_size=20)
    about = (task.fold, task.classes, task.scorer, task.orientations, task.seed, task.rate_hz, task.keep_steps)
    digest.update(repr((CHECKPOINT, *about, config, backend_name())).encode())
    if task.train_orientation is not None:
        digest.update(np.ascontiguousarray(task.train_orientation).view(np.uint8).data)
    for batch, labels in ((task.train, task.train_labels), (task.valid, task.valid_labels)):
        digest.update(repr([batch.channels, batch.frames.shape, batch.tof.shape]).encode())
        for values in (batch.offsets, batch.frames, batch.tof, batch.phase, labels):
            digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
