"""Train one network: epochs, learning rate, averaged weights, scores of both scenarios, and checkpoints.

The schedule runs to its end and the averaged weights of the last epoch are the model. Held-out sequences are scored
after each epoch and decide nothing. Where other folds choose an epoch, the averaged weights of each are kept.

After each epoch everything that the next one depends on is written to the checkpoint: weights, optimizer, the state
of dropout, history. Each batch draws its random numbers on the host from (seed, epoch, batch). So a run that was killed
and continued ends with the same numbers as one that was not.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64
from bfrbctl.errors import UsageError
from bfrbctl.evaluation.metrics import Score
from bfrbctl.models.interface import Scorer
from bfrbctl.models.keras.backend import backend_name, ops, to_numpy
from bfrbctl.models.keras.inputs import InputPlan, Ready, prediction_batches
from bfrbctl.models.keras.learning.augmentation import Augmentation, Inputs, TrainingData, epoch_batches, training_batch
from bfrbctl.models.keras.learning.checkpoint import (
    in_order,
    is_sound,
    load_state,
    numbered,
    save_arrays,
    save_state,
    warn_damaged,
)
from bfrbctl.models.keras.learning.losses import HierarchicalLoss, KnownCrossEntropy, PhaseLoss
from bfrbctl.models.keras.learning.optimizer import FlatAdamW
from bfrbctl.models.keras.learning.schedule import rate_at
from bfrbctl.models.keras.network.building import Network, build_network
from bfrbctl.models.keras.network.layout import NetworkSpec
from bfrbctl.models.keras.settings import Config
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY

Row = dict[str, float | int | str]
Arrays = list[AnyArray]


@dataclass(frozen=True)
class Validation:
    """Held-out sequences, in both scenarios, and how they are scored.

    Parameters
    ----------
    scenarios
        Scenario -> the scaled sequences; one only, `all`, where there is nothing to take away.
    labels
        int64, (n_sequences,): classes.
    scorer
        Scores by the gestures that the classes belong to.
    """

    scenarios: dict[str, Ready]
    labels: Int64
    scorer: Scorer

    __repr__ = short_repr


@dataclass(frozen=True)
class StepFiles:
    """Where the averaged weights after each epoch are kept, and under which names.

    Parameters
    ----------
    path
        Number of the epoch, from 1 -> its file.
    named
        Weights in the order of the prediction model -> the arrays of the file.
    """

    path: Callable[[int], Path]
    named: Callable[[Arrays], Mapping[str, AnyArray]]


@dataclass(frozen=True)
class Job:
    """Everything that decides what training one network gives.

    Parameters
    ----------
    spec, config
        The network and the settings.
    train, valid
        What to learn from, and what is scored after each epoch.
    seed
        Of this network.
    digest
        Of the task and the settings: a checkpoint of anything else is not continued.
    fold, member
        Written to the history.
    step_files
        Where the weights after each epoch are kept; None where those of the last one are enough.
    """

    spec: NetworkSpec
    config: Config
    train: TrainingData
    valid: Validation
    seed: int
    digest: str
    fold: int
    member: int
    step_files: StepFiles | None = None


@dataclass(frozen=True)
class Trained:
    """A trained network: its averaged weights in the order of the prediction model, and how it went."""

    weights: Arrays
    history: list[Row]

    __repr__ = short_repr


@dataclass
class Shared:
    """A network built once in a process and given other weights by each caller: tracing it takes seconds.

    Parameters
    ----------
    network
        The layers and their two models.
    lock
        Held while weights are in use.
    compiled
        What the loss and optimizer that it was compiled with last depend on: tracing them again takes seconds.
    """

    network: Network
    lock: RLock = field(default_factory=RLock)
    compiled: object = None


_SHARED: dict[NetworkSpec, Shared] = {}
_SHARED_LOCK = RLock()
MAX_SHARED = 4


def shared_network(spec: NetworkSpec) -> Shared:
    """Give the process's network of this shape; the oldest goes when there are more than 4."""
    with _SHARED_LOCK:
        if spec not in _SHARED:
            while len(_SHARED) >= MAX_SHARED:
                del _SHARED[next(iter(_SHARED))]
            _SHARED[spec] = Shared(build_network(spec, seed=0))
        return _SHARED[spec]


def predict(network: Network, data: Ready, plan: InputPlan, n_classes: int) -> Float32:
    """Give probabilities of scaled sequences: float32, (n_sequences, n_classes)."""
    out = np.empty((data.lengths.size, n_classes), dtype=np.float32)
    for chosen, inputs in prediction_batches(data, plan):
        out[chosen] = network.predict.predict_on_batch(inputs)
    return out


def train(job: Job, checkpoint: Path, on_progress: Callable[[Row], None]) -> Trained:
    """Train a network, continuing from the checkpoint where one of the same job is there.

    Parameters
    ----------
    job
        What is trained.
    checkpoint
        Where the state after each epoch is kept.
    on_progress
        Called with every new history row, after the checkpoint holds it. Raising from it stops the training.

    Raises
    ------
    UsageError
        When the loss is not a finite number any more.
    """
    shared = shared_network(job.spec)
    with shared.lock:
        _compile(shared, job)
        state = _restore(shared.network, job, checkpoint) or _start(shared.network, job)
        while state.epoch < job.config.epochs:
            started = time.perf_counter()
            loss = _run_epoch(shared.network, job, state.epoch)
            row = _scored(shared.network, job, state.epoch, loss)
            row["seconds"] = round(time.perf_counter() - started, 4)
            state.history.append(row)
            state.epoch += 1
            _keep(shared.network, job, state, checkpoint)
            on_progress(row)
        return Trained(_averaged_weights(shared.network, job), state.history)


@dataclass
class _State:
    """Where training stands; `kept` has the sha256 of the weights' file of each epoch, where they are kept."""

    epoch: int
    history: list[Row]
    kept: list[str]


def _compile(shared: Shared, job: Job) -> None:
    config = job.config
    weights = _class_weights(job) if config.class_weight == "balanced" else ()
    steps = -(-job.train.labels.shape[0] // min(config.batch_size, job.train.labels.shape[0]))
    ema = min(config.ema, max(1.0 - 2.0 / steps, 0.0))
    optimizer_part = (config.weight_decay, config.l2, config.clip, ema)
    loss_part = (config.merged_weight, config.binary_weight, config.label_smoothing, config.focal)
    head_part = (config.imu_weight, config.phase_weight, config.orientation_weight)
    wanted = (optimizer_part, loss_part, head_part, job.valid.scorer, weights)
    if shared.compiled == wanted:
        return
    optimizer = FlatAdamW(config.learning_rate, decay=config.weight_decay, l2=config.l2, clip=config.clip, memory=ema)
    losses, shares = _losses(shared.network, job, weights)
    model = shared.network.train
    model.compile(optimizer, loss=losses, loss_weights=shares, jit_compile=backend_name() == "jax")
    optimizer.build(model.trainable_variables)
    shared.compiled = wanted


def _losses(network: Network, job: Job, weights: tuple[float, ...]) -> tuple[dict[str, Any], dict[str, float]]:
    config = job.config
    gesture = HierarchicalLoss(
        job.valid.scorer.targets,
        gesture_of=job.valid.scorer.gesture_of,
        merged=config.merged_weight,
        binary=config.binary_weight,
        smoothing=config.label_smoothing,
        focal=config.focal,
        class_weights=weights,
    )
    losses = {"gesture": gesture, "imu": gesture, "phase": PhaseLoss(), "orientation": KnownCrossEntropy()}
    shares = {
        "gesture": 1.0,
        "imu": config.imu_weight,
        "phase": config.phase_weight,
        "orientation": config.orientation_weight,
    }
    heads = network.train.output
    return {name: losses[name] for name in heads}, {name: shares[name] for name in heads}


def _class_weights(job: Job) -> tuple[float, ...]:
    labels = job.train.labels.argmax(axis=1).astype(np.int64)
    return tuple(job.valid.scorer.balanced_weights(labels).tolist())


def _start(network: Network, job: Job) -> _State:
    """Give the network fresh weights and the optimizer nothing to remember."""
    fresh = build_network(job.spec, seed=job.seed).train
    _assign(network.train.variables, [to_numpy(variable) for variable in fresh.variables])
    for variable in network.train.optimizer.variables:
        variable.assign(ops.zeros(variable.shape, dtype=variable.dtype))
    return _State(0, [], [])


def _assign(variables: Any, values: Arrays) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _run_epoch(network: Network, job: Job, epoch: int) -> float:
    """Pass over the training part once and give the mean loss; the next batch is made while one is trained on."""
    lengths = job.train.data.lengths
    batches = epoch_batches(lengths, job.config.batch_size, np.random.default_rng([job.seed, epoch]))
    total = 0.0
    for step, (inputs, targets) in enumerate(_feed(job, batches, epoch)):
        network.train.optimizer.learning_rate = rate_at(job.config, epoch + step / len(batches))
        known = {name: targets[name] for name in network.train.output}
        network.train.reset_metrics()  # Keras before 3.15 would report a running mean
        total += float(network.train.train_on_batch(inputs, known, return_dict=True)["loss"])
    if not np.isfinite(total):
        raise UsageError(
            f"fold {job.fold}: the loss is no finite number after epoch {epoch + 1}",
            hint=f"lower --set learning_rate={job.config.learning_rate / 10:g}, or set clip=1",
        )
    return total / len(batches)


def _feed(job: Job, batches: Int64, epoch: int) -> Iterator[tuple[Inputs, Inputs]]:
    augmentation = augmentation_of(job.config)

    def make(step: int) -> tuple[Inputs, Inputs]:
        rng = np.random.default_rng([job.seed, epoch, step + 1])
        return training_batch(job.train, batches[step], augmentation, rng)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, 0)
        for step in range(len(batches)):
            batch = coming.result()
            if step + 1 < len(batches):
                coming = pool.submit(make, step + 1)
            yield batch


def augmentation_of(config: Config) -> Augmentation:
    """Pick from the settings how sequences are disturbed."""
    return Augmentation(**{name: getattr(config, name) for name in Augmentation.__dataclass_fields__})


@contextmanager
def _averaged(network: Network, job: Job) -> Iterator[None]:
    """Give the network the running mean of its weights for a while."""
    trainable = network.train.trainable_variables
    raw = [to_numpy(variable) for variable in trainable]
    if job.config.ema > 0:
        network.train.optimizer.finalize_variable_values(trainable)
    try:
        yield
    finally:
        _assign(trainable, raw)


def _averaged_weights(network: Network, job: Job) -> Arrays:
    with _averaged(network, job):
        return [to_numpy(weight) for weight in network.predict.weights]


def _scored(network: Network, job: Job, epoch: int, loss: float) -> Row:
    """Score the averaged weights in every scenario: the row of an epoch, counted from 0."""
    row: Row = {"fold": job.fold, "member": job.member, "step": epoch + 1, "loss": round(loss, 6)}
    scorer, scored = job.valid.scorer, {}
    with _averaged(network, job):
        for scenario, data in job.valid.scenarios.items():
            proba = predict(network, data, job.train.plan, job.spec.n_classes)
            scored[scenario] = (scorer.score(proba, job.valid.labels), scorer.loss(proba, job.valid.labels))
    figures = [scored.get(scenario, scored[ALL_SENSORS]) for scenario in (ALL_SENSORS, IMU_ONLY)]
    for scenario, (score, nats) in zip((ALL_SENSORS, IMU_ONLY), figures, strict=True):
        row.update(_score_columns(scenario, score, nats))
    row["score"] = round(float(np.mean([score.score for score, _ in figures])), 6)
    row["lr"] = rate_at(job.config, epoch + 1.0)
    return row


def _score_columns(scenario: str, score: Score, nats: float) -> Row:
    return {
        f"valid_logloss_{scenario}": round(nats, 6),
        f"binary_f1_{scenario}": round(score.binary_f1, 6),
        f"macro_f1_{scenario}": round(score.macro_f1, 6),
        f"gesture_macro_f1_{scenario}": round(score.gesture_macro_f1, 6),
        f"score_{scenario}": round(score.score, 6),
    }


def _keep(network: Network, job: Job, state: _State, checkpoint: Path) -> None:
    """Write where training stands; the weights of an epoch before the checkpoint that counts on them."""
    if job.step_files:
        arrays = job.step_files.named(_averaged_weights(network, job))
        state.kept.append(save_arrays(job.step_files.path(state.epoch), arrays))
    meta = {"digest": job.digest, "epoch": state.epoch, "history": state.history, "kept": state.kept}
    save_state(checkpoint, _arrays(network), meta)


def _arrays(network: Network) -> dict[str, AnyArray]:
    return {
        **numbered([to_numpy(variable) for variable in network.train.variables], "variable"),
        **numbered([to_numpy(variable) for variable in network.train.optimizer.variables], "slot"),
    }


def _restore(network: Network, job: Job, checkpoint: Path) -> _State | None:
    found = load_state(checkpoint)
    if found is None:
        return None
    arrays, meta = found
    if meta.get("digest") != job.digest:
        return None
    shapes, wanted = ({name: array.shape for name, array in each.items()} for each in (arrays, _arrays(network)))
    if shapes != wanted or not {"epoch", "history", "kept"} <= set(meta):
        warn_damaged(checkpoint, "it does not fit the network")
        return None
    state = _State(meta["epoch"], list(meta["history"]), list(meta["kept"]))
    if job.step_files and (lost := _lost(job.step_files, state)):
        warn_damaged(checkpoint, f"{lost.name} is missing or not what was written")
        return None
    _assign(network.train.variables, in_order(arrays, "variable"))
    _assign(network.train.optimizer.variables, in_order(arrays, "slot"))
    return state


def _lost(files: StepFiles, state: _State) -> Path | None:
    """Give the first file of an epoch that is not there as it was written."""
    kept = dict(enumerate(state.kept, start=1))
    paths = ((step, files.path(step)) for step in range(1, state.epoch + 1))
    return next((path for step, path in paths if not is_sound(path, kept.get(step, ""))), None)
