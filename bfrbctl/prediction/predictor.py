"""Predict with a saved model or blend: recordings in, probabilities out.

Features are computed by the same functions as in training, once for all members that share their settings. A member's
folds are averaged; a blend puts its members together with the weights of the scenario that each recording is in: all
sensors, or IMU-only when it has no valid thermopile and no valid ToF frame.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl

from bfrbctl import features
from bfrbctl.arrays.ragged import Bool, Float32, Int64
from bfrbctl.artefacts.folders import MANIFEST, open_folder
from bfrbctl.ensemble.assignment import Assigner, joint_proba
from bfrbctl.ensemble.decoding import decide
from bfrbctl.ensemble.members import (
    Member,
    kept_members,
    member_contents,
    mixtures_of,
    names_left_out,
    open_members,
    predicted_space,
    read_layout,
)
from bfrbctl.ensemble.mixing import Mixture
from bfrbctl.errors import ArtefactError, DataError
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.in_sample import TrainedOn, read_trained_on
from bfrbctl.features import FeatureConfig
from bfrbctl.recordings.dataset import FeatureBatch, RecordingBatch
from bfrbctl.recordings.serving import clean_frames
from bfrbctl.reprs import short_repr, written
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY, SEQUENCE_ID, SensorLayout

_log = logging.getLogger("bfrbctl.prediction")

_CHUNK = 512
"""Recordings worked on at once: bounds memory; in chunks of a quarter of it features take a quarter longer."""

Features = Mapping[tuple[FeatureConfig, SensorLayout], FeatureBatch]
"""What members read, by the settings and sensors that they share."""


@dataclass(frozen=True)
class Predictions:
    """What a model predicts of some recordings.

    Parameters
    ----------
    proba
        float32, (n_sequences, n_classes): probability of every gesture; rows sum to 1.
    positions
        int64, (n_sequences,): the gesture by the decoding rule.
    joint_proba
        float32, (n_sequences, n_joint): probability of every joint label, of blends that assign them; None otherwise.
    """

    proba: Float32
    positions: Int64
    joint_proba: Float32 | None = None

    __repr__ = short_repr


@dataclass(frozen=True)
class Predictor:
    """A model or blend, ready to predict.

    Parameters
    ----------
    path
        Its folder.
    space
        The gestures; with joint labels where the blend assigns each of them to a wearer at most once (`oof-blend
        --assign causal`).
    rate_hz
        Frames a second of the recordings it was trained on.
    layout
        All sensors that any member uses.
    prior
        float32, (n_classes,): share of every gesture in training; predicted where nothing was measured.
    members
        The models.
    mixtures
        Scenario -> how the members are put together; None for a model by itself.
    left_out
        Members of the blend that are not used here.
    trained_on
        The sequences and subjects that any member was trained on; None where a member does not list them.
    """

    path: Path
    space: ClassSpace
    rate_hz: float
    layout: SensorLayout
    prior: Float32
    members: tuple[Member, ...]
    mixtures: Mapping[str, Mixture] | None = field(repr=False)
    left_out: tuple[str, ...] = ()
    trained_on: TrainedOn | None = field(default=None, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Gesture names; the columns of every proba."""
        return self.space.gestures

    @property
    def targets(self) -> tuple[bool, ...]:
        """One flag a gesture."""
        return self.space.targets

    def __repr__(self) -> str:
        scenarios = tuple(self.mixtures or ())
        values = {
            "path": self.path,
            "kind": "model" if self.mixtures is None else "blend",
            "members": {member.name: member.kind for member in self.members},
            **({"left_out": self.left_out} if self.left_out else {}),
            **({"scenarios": scenarios} if scenarios else {}),
            "classes": self.classes,
            "n_targets": sum(self.targets),
            "rate_hz": self.rate_hz,
            "thm": self.layout.thm,
            "tof": self.layout.tof,
            "assigns": self.space.is_joint,
        }
        return written("Predictor", values)

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        expect_sha256: str | None = None,
        without: Sequence[str] = (),
        strict: bool = False,
    ) -> "Predictor":
        """Open a model or blend folder, packed or not.

        Parameters
        ----------
        path
            The folder.
        expect_sha256
            The digest that it must have (`Folder.sha256`, as `bfrbctl pack` shows it); any when None.
        without
            Members of a blend to leave out; the weights of the others are scaled up to sum to 1, which is logged.
        strict
            Whether a member whose library is not installed is an error; otherwise it is left out like those above.

        Raises
        ------
        ArtefactError
            When the folder is not one, is damaged or unsafe, has another digest, or its parts do not fit each other.
        UsageError
            When there is no member to leave out of that name, none is left, or (strict) one cannot be used here.
        """
        folder = open_folder(Path(path), "model", "blend").expect(expect_sha256)
        content = folder.content
        try:
            kept = kept_members(folder, frozenset(without), strict=strict)
            members = tuple(open_members(folder, kept))
            predictor = cls(
                path=folder.path,
                space=predicted_space(folder, members),
                rate_hz=float(content["rate_hz"]),
                layout=read_layout(content),
                prior=np.asarray(content["prior"], dtype=np.float32),
                members=members,
                mixtures=mixtures_of(folder, kept) if folder.kind == "blend" else None,
                left_out=names_left_out(folder, kept),
                trained_on=read_trained_on(member_contents(folder, kept), str(folder.path / MANIFEST)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{folder.path / MANIFEST}: lacks what a {folder.kind} needs ({error})",
                hint="make or download the folder again",
            ) from error
        n_classes, prior = len(predictor.classes), predictor.prior
        if prior.shape != (n_classes,) or len(predictor.targets) != n_classes or not np.all(np.isfinite(prior)):
            raise ArtefactError(f"{folder.path / MANIFEST}: classes, targets and prior do not fit each other")
        for member in predictor.members:
            member.ensemble.warm()
        return predictor

    def predict_batch(self, batch: RecordingBatch) -> Predictions:
        """Predict probabilities and gestures.

        Parameters
        ----------
        batch
            Recordings. Sensors that the model does not use are ignored; those that it uses and the batch lacks count as
            missing.

        Raises
        ------
        DataError
            When the recordings have another rate than those of the training.
        """
        self.expect_rate(batch.rate_hz)
        if not batch.n_sequences:
            nothing = np.zeros((0, len(self.classes)), dtype=np.float32)
            return Predictions(
                nothing, np.zeros(0, dtype=np.int64), self._joint_proba(nothing, [nothing] * len(self.members))
            )
        imu_only = batch.conform(self.layout).is_imu_only()
        members = self._member_probas(batch, imu_only)
        probas = [m.space.gesture_proba(proba) for m, proba in zip(self.members, members, strict=True)]
        if self.mixtures is None:
            return Predictions(probas[0], decide(probas[0], self.targets, None))
        mixture = self.mixtures[ALL_SENSORS]
        mixed = mixture.mix(probas)
        positions = decide(mixed, self.targets, mixture.threshold)
        if imu_only.any() and (self.layout.thm or self.layout.tof):
            mixture = self.mixtures[IMU_ONLY]
            mixed[imu_only] = mixture.mix([proba[imu_only] for proba in probas])
            positions[imu_only] = decide(mixed[imu_only], self.targets, mixture.threshold)
        return Predictions(mixed, positions, self._joint_proba(mixed, members))

    def expect_rate(self, rate_hz: float) -> None:
        """Check that recordings have the rate of those of the training; DataError when they do not."""
        if rate_hz != self.rate_hz:
            raise DataError(
                f"the recordings have {rate_hz:g} frames a second, {self.path} was trained on {self.rate_hz:g}",
                hint="resample them, or train on recordings of that rate",
            )

    def _member_probas(self, batch: RecordingBatch, imu_only: Bool) -> list[Float32]:
        """Predict with every member, a chunk of recordings at a time; IMU-only ones last, as each kind is faster alone.

        The chunks depend on the number and kind of the recordings only.
        """
        n_chunks = -(-batch.n_sequences // _CHUNK)
        if n_chunks == 1:
            return self._chunk_probas(self._features(batch))
        order = np.argsort(imu_only, kind="stable")
        parts = [
            self._chunk_probas(computed) for computed in self._features_ahead(batch, np.array_split(order, n_chunks))
        ]
        back = np.argsort(order)
        return [np.concatenate(of_member)[back] for of_member in zip(*parts, strict=True)]

    def _chunk_probas(self, computed: Features) -> list[Float32]:
        return [member.predict_proba(computed[member.config, member.layout]) for member in self.members]

    def _features_ahead(self, batch: RecordingBatch, chunks: Sequence[Int64]) -> Iterator[Features]:
        """Give the features of each chunk; those of the next are computed meanwhile, on one core."""

        def computed(chosen: Int64) -> Features:
            return self._features(batch.take(chosen))

        if joblib.cpu_count() == 1:
            yield from map(computed, chunks)
            return
        with ThreadPoolExecutor(1) as beside:
            ahead = beside.submit(computed, chunks[0])
            for following in chunks[1:]:
                done, ahead = ahead, beside.submit(computed, following)
                yield done.result()
            yield ahead.result()

    def _joint_proba(self, mixed: Float32, members: Sequence[Float32]) -> Float32 | None:
        """Divide the blend's probabilities among joint labels as the members that have them do, on average."""
        if not self.space.is_joint:
            return None
        if not len(mixed):
            return np.zeros((0, len(self.space.classes)), dtype=np.float32)
        pairs = zip(self.members, members, strict=True)
        conditional = [self.space.conditional(each) for member, each in pairs if member.space.is_joint]
        return joint_proba(mixed, np.mean(conditional, axis=0, dtype=np.float32), self.space)

    def new_assigner(self) -> Assigner | None:
        """Give the memory of a serving run, for `predict` and `predict_many`; None where the blend assigns nothing."""
        return Assigner(self.space) if self.space.is_joint else None

    def predict_many(
        self, frames: Any, demographics: Any = None, *, assigner: Assigner | None = None
    ) -> dict[str, str]:
        """Predict the gesture of each sequence of a table.

        Parameters
        ----------
        frames
            polars or pandas table, rows of one or more sequences in the study's columns, any order of rows and
            columns; sensors may lack columns, values may be null.
        demographics
            polars or pandas table with one row a subject; None when unknown.
        assigner
            From `new_assigner`: its memory of each wearer is used and extended, in the order of the sequences.

        Returns
        -------
        sequence_id -> gesture. A sequence that cannot be used gets the gesture most frequent in training.
        """
        cleaned = clean_frames(
            as_polars(frames), _demographics_table(demographics), layout=self.layout, rate_hz=self.rate_hz
        )
        found = self.predict_batch(cleaned.batch)
        best = found.positions.tolist()
        if assigner is not None and found.joint_proba is not None:
            best = assigner.assign_all(cleaned.batch.subjects, found.joint_proba, otherwise=found.positions)
        for fault in cleaned.faults:
            _log.warning("sequence %s %s; the most frequent gesture is predicted", fault.sequence_id, fault.what)
        ids = [*cleaned.batch.sequence_ids, *(fault.sequence_id for fault in cleaned.faults)]
        best = [*best, *([int(np.argmax(self.prior))] * len(cleaned.faults))]
        return {name: self.classes[position] for name, position in zip(ids, best, strict=True)}

    def predict_proba(self, frames: Any, demographics: Any = None) -> pl.DataFrame:
        """Give the probability of every gesture for each sequence of a table.

        Parameters
        ----------
        frames
            As in `predict_many`, or a `RecordingBatch` of a prepared dataset.
        demographics
            As in `predict_many`; a batch has its own.

        Returns
        -------
        One row a sequence: sequence_id, and one float32 column a gesture under its name; the gestures of a row sum
        to 1. A sequence that cannot be used gets the shares of the gestures in training.

        Raises
        ------
        DataError
            When the recordings have another rate than those of the training, or no table is given.
        """
        if isinstance(frames, RecordingBatch):
            ids, proba = list(frames.sequence_ids), self.predict_batch(frames).proba
        else:
            cleaned = clean_frames(
                as_polars(frames), _demographics_table(demographics), layout=self.layout, rate_hz=self.rate_hz
            )
            for fault in cleaned.faults:
                _log.warning("sequence %s %s; the shares of training are predicted", fault.sequence_id, fault.what)
            ids = [*cleaned.batch.sequence_ids, *(fault.sequence_id for fault in cleaned.faults)]
            shares = np.repeat(self.prior[np.newaxis], len(cleaned.faults), axis=0)
            proba = np.concatenate([self.predict_batch(cleaned.batch).proba, shares])
        table = pl.DataFrame(np.ascontiguousarray(proba), schema=list(self.classes), orient="row")
        return table.insert_column(0, pl.Series(SEQUENCE_ID, ids, dtype=pl.String))

    def predict(self, sequence: Any, demographics: Any = None, *, assigner: Assigner | None = None) -> str:
        """Predict the gesture of one sequence: the call that the competition's gateway makes.

        Parameters
        ----------
        sequence
            polars or pandas table with the frames of one sequence.
        demographics
            polars or pandas table with the row of its subject; None when unknown.
        assigner
            As in `predict_many`.

        Returns
        -------
        The name of a gesture, a plain str.

        Raises
        ------
        DataError
            When the table has frames of several sequences.
        """
        gestures = self.predict_many(sequence, demographics, assigner=assigner)
        if len(gestures) > 1:
            raise DataError(f"{len(gestures)} sequences, expected one", hint="use predict_many for several")
        return next(iter(gestures.values()), self.classes[int(np.argmax(self.prior))])

    def _features(self, batch: RecordingBatch) -> Features:
        """Compute each distinct set of features once, with all parts that its members read."""
        needs: dict[tuple[FeatureConfig, SensorLayout], frozenset[str]] = {}
        for member in self.members:
            key = (member.config, member.layout)
            needs[key] = needs.get(key, frozenset()) | member.needs
        return {
            (config, layout): features.compute(
                batch.conform(layout), config, table="table" in parts, frames="frames" in parts or "tof" in parts
            )
            for (config, layout), parts in needs.items()
        }


def as_polars(table: Any) -> pl.DataFrame:
    """Take a polars or a pandas table; DataError for anything else."""
    if isinstance(table, pl.DataFrame):
        return table
    if hasattr(table, "iloc"):
        return pl.DataFrame({str(name): pl.Series(table[name].to_numpy(), strict=False) for name in table.columns})
    raise DataError(f"expected a polars or pandas table, got {type(table).__name__}")


def _demographics_table(demographics: Any) -> pl.DataFrame | None:
    return None if demographics is None else as_polars(demographics)
