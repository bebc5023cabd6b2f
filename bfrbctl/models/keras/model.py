"""The Keras member: the networks of one fold, and their artefact.

A model is a JSON spec and npz arrays. The spec has only bounded numbers and names; our own code knows the network
from it and checks every array against it before the array is read. No file that could hold code is ever loaded, and
nothing here imports Keras but what trains: who only predicts needs no TensorFlow.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64
from bfrbctl.errors import ArtefactError, examples, missing_library
from bfrbctl.evaluation.selection import Curve
from bfrbctl.models.interface import FoldTask, HistoryRow, Rehearsal
from bfrbctl.models.keras.inputs import Scaler
from bfrbctl.models.keras.learning.checkpoint import pack_arrays, unpack_arrays
from bfrbctl.models.keras.network.layout import weight_shapes
from bfrbctl.models.keras.runtime.serving import FoldNetworks, Networks, serving
from bfrbctl.models.keras.settings import Config
from bfrbctl.models.keras.spec import MAX_MEMBERS, ModelSpec, decode_spec, encode_spec
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr

NEEDS = frozenset({"frames", "tof"})

SPEC = "keras.json"
MEAN, SCALE = "scaler.mean", "scaler.scale"
CURVE = "curve"
"""What the summary in the spec of a model of several epochs tells beside that of one."""

__all__ = [
    "NEEDS",
    "Config",
    "KerasFoldModel",
    "KerasSteps",
    "ensemble",
    "fit",
    "fit_member",
    "load",
    "load_step",
    "rehearse",
]


def weights_file(member: int) -> str:
    """Name the weights of a network: keras.npz, then keras-1.npz ..."""
    return "keras.npz" if member == 0 else f"keras-{member}.npz"


def step_file(member: int, step: int) -> str:
    """Name the weights of a network after an epoch: keras-epoch-0001.npz, of the second keras-1-epoch-0001.npz ..."""
    return f"keras{f'-{member}' if member else ''}-epoch-{step:04d}.npz"


def named_arrays(weights: Mapping[str, Float32], scaler: Scaler, member: int) -> dict[str, AnyArray]:
    """Give the arrays of a network's file; that of the first holds the scaling too."""
    scaling = {MEAN: scaler.mean, SCALE: scaler.scale} if member == 0 else {}
    return {**weights, **scaling}


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
        Weights of each network: layer.weight -> float32, as `layout.weight_shapes` tells.
    summary
        What to tell of the model.
    history
        All rows of its training; empty for a loaded one.
    """

    spec: ModelSpec
    scaler: Scaler
    members: list[Mapping[str, Float32]]
    summary: Mapping[str, Any]
    history: list[HistoryRow] = field(default_factory=list)

    __repr__ = short_repr

    @cached_property
    def _networks(self) -> Networks:
        return serving([self.networks])

    @property
    def networks(self) -> FoldNetworks:
        """What answers."""
        return FoldNetworks(self.spec.network, self.spec.inputs, self.scaler, self.members, len(self.spec.classes))

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Give class probabilities: float32, (n_sequences, n_classes), rows sum to 1.

        Raises
        ------
        DataError
            When the batch lacks a channel that the network was trained on.
        """
        return self._networks.predict_proba(batch)

    def each_seed(self) -> list["KerasFoldModel"]:
        """Give the networks apart, a model each."""
        return [KerasFoldModel(self.spec, self.scaler, [weights], self.summary) for weights in self.members]

    def encode(self) -> dict[str, bytes]:
        """Give the model as files; the same model gives the same bytes."""
        files = {SPEC: encode_spec(self.spec, len(self.members), self.summary)}
        for member, weights in enumerate(self.members):
            files[weights_file(member)] = pack_arrays(named_arrays(weights, self.scaler, member))
        return files


@dataclass
class KerasSteps:
    """Networks of one fold after each of their epochs, so that other folds can choose one: see `models.OfSteps`.

    Parameters
    ----------
    model
        After the last epoch; what predicts.
    curve
        Figures of the held-out sequences after every epoch, the mean over networks.
    folder
        Where the weights after each epoch lie: the scratch folder of the fold, so `encode` is for before that goes.
    """

    model: KerasFoldModel
    curve: Curve
    folder: Path

    __repr__ = short_repr

    @property
    def summary(self) -> Mapping[str, Any]:
        """What to tell of the model after the last epoch."""
        return self.model.summary

    @property
    def history(self) -> list[HistoryRow]:
        """All rows of the training."""
        return self.model.history

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Give class probabilities after the last epoch: float32, (n_sequences, n_classes), rows sum to 1."""
        return self.model.predict_proba(batch)

    def each_seed(self) -> list[KerasFoldModel]:
        """Give the networks after the last epoch apart, a model each."""
        return self.model.each_seed()

    def encode(self) -> dict[str, bytes]:
        """Give what `load_step` reads: the spec once, and the weights of every network after every epoch."""
        n_members = len(self.model.members)
        summary = {**self.summary, CURVE: self.curve.as_content()}
        steps = range(1, self.curve.n_steps + 1)
        names = [step_file(member, step) for member in range(n_members) for step in steps]
        spec = encode_spec(self.model.spec, n_members, summary)
        return {SPEC: spec, **{name: (self.folder / name).read_bytes() for name in names}}


def curve_of(histories: Sequence[Sequence[HistoryRow]], scenarios: Sequence[str]) -> Curve:
    """Average the figures that networks of a fold have after each epoch.

    Parameters
    ----------
    histories
        Rows of each network, one an epoch.
    scenarios
        Those to give; one, `all`, where there is nothing to take away.
    """

    def mean(figure: str) -> dict[str, Float64]:
        columns = {scenario: f"{figure}_{scenario}" for scenario in scenarios}
        return {
            scenario: np.mean([[float(row[column]) for row in rows] for rows in histories], axis=0, dtype=np.float64)
            for scenario, column in columns.items()
        }

    return Curve(mean("score"), mean("valid_logloss"))


def figures_after(curve: Curve, step: int, *, n_members: int) -> dict[str, Any]:
    """Give what a summary tells of an epoch: how many there were of each network, score and log-loss by scenario."""
    return {
        "epochs": [step] * n_members,
        **{
            figure: {scenario: round(float(each[step - 1]), 6) for scenario, each in values.items()}
            for figure, values in (("score", curve.score), ("logloss", curve.logloss))
        },
    }


def fit(task: FoldTask, config: Config) -> KerasFoldModel | KerasSteps:
    """Train the networks of one fold; continue where `task.scratch` has a checkpoint of the same task.

    Parameters
    ----------
    task
        What to learn from, and what is scored after each epoch.
    config
        Settings.

    Returns
    -------
    The model after the last epoch; a `KerasSteps` where `task.keep_steps` asks for every epoch.

    Raises
    ------
    DataError
        When there is nothing to learn from or to score, or no frame channel.
    UsageError
        When training diverges.
    MissingLibraryError
        When Keras or its back end cannot be imported.
    """
    fold = _fitting().prepared(task, config)
    trained = [fold.trained(member) for member in range(config.seeds)]
    history: list[HistoryRow] = [row for one in trained for row in one.history]
    members = [fold.named(one.weights) for one in trained]
    model = KerasFoldModel(fold.spec, fold.scaler, members, fold.summary(trained), history)
    return KerasSteps(model, fold.curve(trained), task.scratch) if task.keep_steps else model


def fit_member(task: FoldTask, config: Config, member: int) -> None:
    """Train one network of a fold and leave its last checkpoint in `task.scratch`; raises what `fit` raises."""
    _fitting().prepared(task, config).trained(member)


def _fitting(name: str = "fitting") -> Any:
    """Import a module that needs Keras and its back end, which answering does not."""
    try:
        return import_module(f"bfrbctl.models.keras.learning.{name}")
    except ImportError as error:
        raise missing_library("training networks", error, otherwise="choose another KERAS_BACKEND") from error


def rehearse(task: FoldTask, config: Config) -> Rehearsal:
    """Train a few steps of a fold and measure what they take; raises what `fit` raises."""
    began = time.perf_counter()
    module = _fitting("rehearsal")
    import_s = time.perf_counter() - began  # seconds, which each process takes once
    found: Rehearsal = module.rehearse(task, config)
    return replace(found, start_s=found.start_s + import_s)


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
    shapes = {name: (shape, "float32") for name, shape in weight_shapes(spec.network).items()}
    n_channels = len(spec.inputs.imu) + len(spec.inputs.other)
    first = {**shapes, MEAN: ((n_channels,), "float32"), SCALE: ((n_channels,), "float32")}
    members = [
        unpack_arrays(files[weights_file(member)], first if member == 0 else shapes, what=weights_file(member))
        for member in range(n_members)
    ]
    scaler = Scaler(mean=members[0][MEAN], scale=members[0][SCALE])
    if not (scaler.scale > 0).all():
        raise ArtefactError(f"{weights_file(0)}: a channel's scale is not positive")
    return KerasFoldModel(spec, scaler, [{name: arrays[name] for name in shapes} for arrays in members], summary)


def load_step(files: Mapping[str, bytes], step: int, *, classes: tuple[str, ...]) -> KerasFoldModel:
    """Rebuild a model as it was after an epoch; reads no file of another epoch.

    Parameters
    ----------
    files
        What `KerasSteps.encode` gave.
    step
        Number of the epoch, from 1.
    classes
        As for `load`.

    Raises
    ------
    ArtefactError
        When a file is missing, there was no such epoch, the spec is not one of ours, or arrays do not fit it.
    """
    if SPEC not in files:
        raise ArtefactError(f"the model has no {SPEC}")
    spec, n_members, summary = decode_spec(files[SPEC], classes=classes)
    curve = Curve.of_content(summary.pop(CURVE, None), what=SPEC)
    if not 1 <= step <= curve.n_steps:
        raise ArtefactError(f"{SPEC}: tells of {curve.n_steps} epochs, of which {step} is none")
    names = {weights_file(member): step_file(member, step) for member in range(n_members)}
    missing = [name for name in names.values() if name not in files]
    if missing:
        raise ArtefactError(f"the model has no {examples(missing)}", hint="train again with --force")
    summary |= figures_after(curve, step, n_members=n_members)
    chosen = {name: files[kept] for name, kept in names.items()}
    return load({SPEC: encode_spec(spec, n_members, summary), **chosen}, classes=classes)


def ensemble(models: Sequence[KerasFoldModel]) -> Networks:
    """Put folds together: their average in one call, up to rounding (1e-6) that of asking each of them."""
    return serving([model.networks for model in models])
