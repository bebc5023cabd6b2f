"""Measure the Keras member: the figures of docs/keras.md.

    python benchmarks/train_keras.py oof features/ --folds 0 1 --set epochs=20 --keep runs/
    python benchmarks/train_keras.py ablation features/ --folds 0 --set epochs=20 --keep runs/
    python benchmarks/train_keras.py speed

`oof` trains both networks, `ablation` helios with one thing switched off at a time; both print a Markdown row a
training with the out-of-fold scores of both scenarios, over the folds done so far. With --keep a run that was stopped
goes on where it was when the same command is given again. `speed` times a training step of both networks beside the
two-branch network built plainly from stock layers, in the same process, taking turns.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from fold_tasks import fold_task, read
from measuring import header, parser, row, timed

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.config import build
from bfrbctl.evaluation.metrics import score_proba
from bfrbctl.models.interface import FoldTask, model_kind
from bfrbctl.models.keras.backend import keras, ops
from bfrbctl.models.keras.inputs import prediction_batches, ready
from bfrbctl.models.keras.learning import epochs as keras_training
from bfrbctl.models.keras.learning.augmentation import training_batch
from bfrbctl.models.keras.learning.losses import HierarchicalLoss
from bfrbctl.models.keras.learning.optimizer import FlatAdamW
from bfrbctl.models.keras.model import KerasFoldModel, fit
from bfrbctl.models.keras.network.building import build_network, weight_names
from bfrbctl.models.keras.network.layout import NETWORKS, NetworkSpec
from bfrbctl.models.keras.settings import Config
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import SCENARIOS

UNMASKED = "padding counts as frames"
ABLATIONS: Mapping[str, Sequence[str]] = {
    "all of it": (),
    "padding not masked": (UNMASKED,),
    "no modality dropout": ("modality_dropout=0.0",),
    "no mixup": ("mixup=0.0",),
    "no loss of the IMU alone": ("imu_weight=0.0",),
    "no phase and posture heads": ("phase_weight=0.0", "orientation_weight=0.0"),
    "no merged and binary loss": ("merged_weight=0.0", "binary_weight=0.0"),
    "no rotation": ("heading=0.0", "strap=0.0"),
    "no stretch, shift, noise": ("stretch=0.0", "shift=0", "noise=0.0"),
    "no running mean of weights": ("ema=0.0",),
}
BATCH, TIME, N_IMU, N_OTHER, N_TOF, N_CLASSES = 64, 100, 20, 25, 5, 18


@dataclass
class Tally:
    """Held-out predictions of one training, over the folds done so far."""

    targets: tuple[bool, ...]
    labels: list[np.ndarray] = field(default_factory=list)
    probas: dict[str, list[np.ndarray]] = field(default_factory=lambda: {scenario: [] for scenario in SCENARIOS})
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    """Processor time of epochs, but for the first of a training, which traces the network."""

    def row(self, name: str) -> str:
        """Give a row of the table."""
        labels = np.concatenate(self.labels)
        scores = {
            scenario: score_proba(np.concatenate(parts), labels, self.targets)
            for scenario, parts in self.probas.items()
        }
        cells = [f"{scores[scenario].score:.4f}" for scenario in SCENARIOS]
        both = np.mean([score.score for score in scores.values()])
        macro = [f"{scores[scenario].gesture_macro_f1:.4f}" for scenario in SCENARIOS]
        times = [f"{np.median(taken):.1f}" if taken else "-" for taken in (self.seconds, self.busy)]
        figures = [str(len(self.labels)), *cells, f"{both:.4f}", *macro, *times]
        return row(name, *figures)


COLUMNS = ("folds", "all", "IMU-only", "mean", "gestures, all", "gestures, IMU-only", "s an epoch", "processor s")


def compare(path: Path, folds: Sequence[int], variants: Mapping[str, Sequence[str]], keep: Path) -> None:
    """Train every variant on one fold after the other and print a row after each."""
    tallies: dict[str, Tally] = {}
    print(header("training", *COLUMNS), flush=True)
    for fold in folds or read(path, model_kind("keras").needs)[1]["fold"].unique().sort().to_list():
        task = fold_task(path, "keras", fold)
        for name, settings in variants.items():
            tally = tallies.setdefault(name, Tally(task.targets))
            scratch = keep / f"{name.replace(' ', '-')}-{task.fold}"
            scratch.mkdir(parents=True, exist_ok=True)
            measure(replace(task, scratch=scratch), settings, tally)
            print(tally.row(name), flush=True)


def measure(task: FoldTask, settings: Sequence[str], tally: Tally) -> None:
    """Train one fold with these settings and add its predictions to the tally."""
    config = build(Config, overrides=[setting for setting in settings if setting != UNMASKED])
    ends: list[float] = []
    task = replace(task, on_progress=lambda row: ends.append(time.process_time()))
    unmasked = UNMASKED in settings
    with padding_counted() if unmasked else nullcontext():
        model = fit(task, config)
        assert isinstance(model, KerasFoldModel)
        for scenario, batch in zip(SCENARIOS, (task.valid, task.valid.imu_only()), strict=True):
            tally.probas[scenario].append(proba_of(model, batch) if unmasked else model.predict_proba(batch))
    tally.labels.append(task.valid_labels)
    tally.seconds += [float(row["seconds"]) for row in model.history]
    tally.busy += np.diff(ends).tolist()


def proba_of(model: KerasFoldModel, batch: FeatureBatch) -> AnyArray:
    """Predict by Keras, which pads; what a model answers by itself comes from sequences without padding."""
    network = keras_training.shared_network(model.spec.network).network
    for variable, name in zip(network.predict.weights, weight_names(network), strict=True):
        variable.assign(model.members[0][name])
    data = ready(batch, model.spec.inputs, model.scaler)
    return keras_training.predict(network, data, model.spec.inputs, len(model.spec.classes))


def padding_counted() -> AbstractContextManager[Any]:
    """Hide from Keras which frames are padding."""

    def train(*arguments: Any) -> Any:
        inputs, targets = training_batch(*arguments)
        return {**inputs, "mask": np.ones_like(inputs["mask"])}, targets

    def predict(*arguments: Any) -> Any:
        for chosen, inputs in prediction_batches(*arguments):
            yield chosen, {**inputs, "mask": np.ones_like(inputs["mask"])}

    return patch.multiple(keras_training, training_batch=train, prediction_batches=predict)


def stock_two_branch() -> Any:
    """Build the two-branch network as one would from stock layers: no masks, pixels scaled before."""
    layers = keras.layers

    def conv(values: Any, filters: int, size: int, *, relu: bool = True) -> Any:
        values = layers.Conv1D(filters, size, padding="same", use_bias=False)(values)
        values = layers.BatchNormalization()(values)
        return layers.ReLU()(values) if relu else values

    def block(values: Any, filters: int, size: int) -> Any:
        out = conv(conv(values, filters, size), filters, size)
        gate = layers.Dense(filters // 8, activation="relu")(layers.GlobalAveragePooling1D()(out))
        gate = layers.Reshape((1, filters))(layers.Dense(filters, activation="sigmoid")(gate))
        short = conv(values, filters, 1, relu=False)
        out = layers.ReLU()(layers.Add()([layers.Multiply()([out, gate]), short]))
        return layers.Dropout(0.1)(layers.MaxPooling1D(2)(out))

    imu, other = layers.Input((TIME, N_IMU)), layers.Input((TIME, N_OTHER + 64 * N_TOF))
    right = other
    for filters in (64, 128):
        right = layers.Dropout(0.2)(layers.MaxPooling1D(2)(conv(right, filters, 3)))
    merged = layers.Concatenate()([block(block(imu, 64, 3), 128, 5), right])
    lstm = layers.Bidirectional(layers.LSTM(128, return_sequences=True))(merged)
    gru = layers.Bidirectional(layers.GRU(128, return_sequences=True))(merged)
    dense = layers.Dense(16, activation="elu")(layers.GaussianNoise(0.09)(merged))
    joined = layers.Dropout(0.4)(layers.Concatenate()([lstm, gru, dense]))
    weight = layers.Softmax(axis=1)(layers.Dense(1, activation="tanh")(joined))
    vector = ops.sum(joined * weight, axis=1)
    for units, rate in ((256, 0.5), (128, 0.3)):
        vector = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units, use_bias=False)(vector)))
        vector = layers.Dropout(rate)(vector)
    model = keras.Model([imu, other], layers.Dense(N_CLASSES, activation="softmax")(vector))
    model.compile(keras.optimizers.AdamW(5e-4, weight_decay=3e-3), "categorical_crossentropy")
    return model


def speed(rounds: int) -> None:
    """Time training steps, taking turns, and print the shortest, the median and the processor time of each."""
    rng = np.random.default_rng(0)
    truth = np.eye(N_CLASSES, dtype=np.float32)[rng.integers(0, N_CLASSES, BATCH)]
    plain = [rng.normal(size=(BATCH, TIME, width)).astype(np.float32) for width in (N_IMU, N_OTHER + 64 * N_TOF)]
    stock = stock_two_branch()
    steps: dict[str, Callable[[], Any]] = {"two-branch, stock layers": partial(stock.train_on_batch, plain, truth)}
    ours = {
        "frames": rng.normal(size=(BATCH, TIME, N_IMU + N_OTHER)).astype(np.float32),
        "mask": np.ones((BATCH, TIME, 1), dtype=np.float32),
        "tof": rng.integers(0, 256, (BATCH, TIME, N_TOF, 64)).astype(np.uint8),
        "weight": np.ones(BATCH, dtype=np.float32),
        "partner": np.arange(BATCH, dtype=np.int32),
    }
    for name in NETWORKS:
        network = build_network(NetworkSpec(name, N_IMU, N_OTHER, N_TOF, N_CLASSES), seed=0).train
        loss = {name: HierarchicalLoss((True,) * 8 + (False,) * 10) for name in network.output}
        wanted = dict.fromkeys(loss, truth)
        network.compile(FlatAdamW(5e-4, decay=3e-3, l2=1e-4, clip=0.0, memory=0.0), loss=loss, jit_compile=False)
        steps[name] = partial(network.train_on_batch, ours, wanted)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    busy: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            _, wall, processor = timed(step)
            if number >= 2:
                taken[name].append(wall)
                busy[name].append(processor)
    print(header("network", "shortest", "median", "processor time"))
    for name, seconds in taken.items():
        figures = (min(seconds), float(np.median(seconds)), float(np.median(busy[name])))
        print(row(name, *(f"{figure * 1e3:.0f} ms" for figure in figures)))


def main() -> None:
    """Parse the command line and measure."""
    arguments = parser(__doc__)
    arguments.add_argument("what", choices=["oof", "ablation", "speed"])
    arguments.add_argument("features", type=Path, nargs="?", help="feature folder with frame channels")
    arguments.add_argument("--folds", type=int, nargs="*", default=[], help="these folds only")
    arguments.add_argument("--set", action="append", default=[], dest="settings", help="setting of every training")
    arguments.add_argument("--only", nargs="*", default=[], help="names of trainings, as in the table")
    arguments.add_argument("--keep", type=Path, help="folder for checkpoints")
    arguments.add_argument("--rounds", type=int, default=15, help="rounds of speed")
    options = arguments.parse_args()
    if options.what == "speed":
        speed(options.rounds)
        return
    if options.features is None:
        arguments.error("name a feature folder")
    variants = ABLATIONS if options.what == "ablation" else {name: (f"network={name}",) for name in NETWORKS}
    chosen = {
        name: [*options.settings, *changes]
        for name, changes in variants.items()
        if not options.only or name in options.only
    }
    with tempfile.TemporaryDirectory() as scratch:
        compare(options.features, options.folds, chosen, options.keep or Path(scratch))


if __name__ == "__main__":
    main()
