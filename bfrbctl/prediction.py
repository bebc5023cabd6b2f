"""Predict with a saved model or blend: recordings in, probabilities out.

Features are computed by the same functions as in training, once for all members that share their settings. A member's
folds are averaged; a blend puts its members together with the weights of the scenario that each recording is in: all
sensors, or IMU-only when it has no valid thermopile and no valid ToF frame.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import features, oof
from bfrbctl.blending import Mixture, read_mixtures
from bfrbctl.cleaning import CleanTable
from bfrbctl.config import from_mapping
from bfrbctl.dataset import FeatureBatch, RecordingBatch, read_recordings
from bfrbctl.errors import ArtefactError, DataError, UsageError, examples
from bfrbctl.features import FeatureConfig
from bfrbctl.folders import MANIFEST, PART, Folder, InputRef, open_folder
from bfrbctl.metrics import score_proba
from bfrbctl.models import FoldModel, kind_module
from bfrbctl.outputs import Output
from bfrbctl.preparation import PrepareConfig, cleaned_tables, split_refs
from bfrbctl.raw import RawSplit, Unsorted, find_splits, read_schema
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SEQUENCE_ID, TOF_MISSING, SensorLayout
from bfrbctl.segments import Bool, Float32
from bfrbctl.storage import Content, decode_parquet, encode_json

METRICS = "metrics.json"
_BATCH_FRAMES = 65_536
OnFrames = Callable[[int], None]


@dataclass(frozen=True)
class Member:
    """One model of a blend, or a model by itself.

    Parameters
    ----------
    name
        How the blend calls it.
    kind
        `lgbm` or `keras`.
    models
        One a fold.
    config
        Which features it was trained on.
    layout
        Which sensors it was trained on.
    needs
        Which parts of a FeatureBatch it reads.
    """

    name: str
    kind: str
    models: tuple[FoldModel, ...]
    config: FeatureConfig
    layout: SensorLayout
    needs: frozenset[str]

    def predict_proba(self, batch: FeatureBatch) -> Float32:
        """Average the folds: float32, (n_sequences, n_classes)."""
        total = np.zeros((batch.n_sequences, 1), dtype=np.float64)
        for model in self.models:
            total = total + model.predict_proba(batch)
        return (total / len(self.models)).astype(np.float32)


@dataclass(frozen=True)
class Predictor:
    """A model or blend, ready to answer.

    Parameters
    ----------
    path
        Its folder.
    classes
        Gesture names; the columns of every proba.
    targets
        One flag a class.
    rate_hz
        Frames a second of the recordings it was trained on.
    layout
        All sensors that any member uses.
    prior
        float32, (n_classes,): share of every gesture in training; the answer where nothing was measured.
    members
        The models.
    mixtures
        Scenario -> how the members are put together; None for a model by itself.
    """

    path: Path
    classes: tuple[str, ...]
    targets: tuple[bool, ...]
    rate_hz: float
    layout: SensorLayout
    prior: Float32
    members: tuple[Member, ...]
    mixtures: Mapping[str, Mixture] | None = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> "Predictor":
        """Open a model or blend folder.

        Raises
        ------
        ArtefactError
            When the folder is not one, is damaged or unsafe, or its parts do not fit each other.
        """
        folder = open_folder(Path(path), "model", "blend")
        content = folder.content
        try:
            prior = np.asarray(content["prior"], dtype=np.float32)
            predictor = cls(
                path=folder.path,
                classes=tuple(map(str, content["classes"])),
                targets=tuple(map(bool, content["targets"])),
                rate_hz=float(content["rate_hz"]),
                layout=_layout(content),
                prior=prior,
                members=tuple(_members(folder)),
                mixtures=read_mixtures(folder) if folder.kind == "blend" else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{folder.path / MANIFEST}: lacks what a {folder.kind} needs ({error})",
                hint="make or download the folder again",
            ) from error
        n_classes = len(predictor.classes)
        if prior.shape != (n_classes,) or len(predictor.targets) != n_classes or not np.all(np.isfinite(prior)):
            raise ArtefactError(f"{folder.path / MANIFEST}: classes, targets and prior do not fit each other")
        return predictor

    def predict_proba(self, batch: RecordingBatch) -> Float32:
        """Give the probability of every gesture.

        Parameters
        ----------
        batch
            Recordings; sensors that the model does not know are ignored, those it knows and the batch lacks are
            missing.

        Returns
        -------
        float32, (n_sequences, n_classes); rows sum to 1.

        Raises
        ------
        DataError
            When the recordings have another rate than those of the training.
        """
        if batch.rate_hz != self.rate_hz:
            raise DataError(
                f"the recordings have {batch.rate_hz:g} frames a second, {self.path} was trained on {self.rate_hz:g}",
                hint="resample them, or train on recordings of that rate",
            )
        if not batch.n_sequences:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        computed = self._features(batch)
        probas = [member.predict_proba(computed[member.config, member.layout]) for member in self.members]
        if self.mixtures is None:
            return probas[0]
        imu_only = _imu_only(batch.conform(self.layout)) if self.layout.thm or self.layout.tof else None
        mixed = self.mixtures[ALL_SENSORS].mix(probas)
        if imu_only is not None and imu_only.any():
            mixed[imu_only] = self.mixtures[IMU_ONLY].mix([proba[imu_only] for proba in probas])
        return mixed

    def _features(self, batch: RecordingBatch) -> dict[tuple[FeatureConfig, SensorLayout], FeatureBatch]:
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


def _imu_only(batch: RecordingBatch) -> Bool:
    """Which recordings have no valid thermopile and no valid ToF frame: bool, (n_sequences,)."""
    valid = (~np.isnan(batch.thm)).any(axis=1) | (batch.tof != TOF_MISSING).any(axis=(1, 2))
    return np.asarray(~np.logical_or.reduceat(valid, batch.offsets[:-1]))


def _layout(content: Mapping[str, Any]) -> SensorLayout:
    return SensorLayout(thm=tuple(map(int, content["thm"])), tof=tuple(map(int, content["tof"])))


def _members(folder: Folder) -> Iterator[Member]:
    if folder.kind == "model":
        yield _member(folder, folder.path.name, folder.content, prefix="")
        return
    for number, name in enumerate(folder.content["members"]):
        told = folder.read_json(f"member-{number}.json")
        if told["content"]["classes"] != folder.content["classes"]:
            raise ArtefactError(f"{folder.path}: member {name} has other classes than the blend")
        yield _member(folder, str(name), told["content"], prefix=f"member-{number}.")


def _member(folder: Folder, name: str, content: Mapping[str, Any], *, prefix: str) -> Member:
    module = kind_module(str(content["model"]))
    classes = tuple(map(str, content["classes"]))
    models = []
    for fold in content["folds"]:
        start = f"{prefix}fold-{int(fold)}."
        files = {file[len(start) :]: folder.read(file) for file in folder.files if file.startswith(start)}
        if not files:
            raise ArtefactError(f"{folder.path}: has no model of fold {fold} of {name}")
        models.append(module.load(files, classes=classes))
    if not models:
        raise ArtefactError(f"{folder.path}: member {name} has no folds")
    known = FeatureConfig.__dataclass_fields__
    settings = {key: value for key, value in content["features"].items() if key in known}
    config = from_mapping(FeatureConfig, settings, str(folder.path / MANIFEST))
    return Member(name, str(content["model"]), tuple(models), config, _layout(content), module.NEEDS)


# -------------------------------------------------------------------------------------------------- whole inputs


@dataclass(frozen=True)
class Batch:
    """Some recordings of an input, with what is known of them.

    Parameters
    ----------
    recordings
        The usable ones.
    labels
        sequence_id and gesture (null where unknown), one row a recording.
    problems
        sequence_id and what is wrong, one row an unusable sequence.
    """

    recordings: RecordingBatch
    labels: pl.DataFrame
    problems: list[tuple[str, str]]


@dataclass(frozen=True)
class Input:
    """What to predict: raw files or a prepared dataset, opened.

    Parameters
    ----------
    total
        Bytes to read (raw) or frames (prepared), for progress.
    batches
        Reads it, some thousand frames at a time; calls its first argument with the amount done. The second is
        whether to bring scattered rows together first; without, raw.Unsorted may be raised on the way.
    """

    total: int
    batches: Callable[[OnFrames, bool], Iterator[Batch]]


def open_input(path: Path, predictor: Predictor, *, split: str | None = None) -> Input:
    """Open raw recordings or a prepared dataset for prediction.

    Parameters
    ----------
    path
        A prepared dataset, the study's folder, or a raw file.
    predictor
        Tells the rate of raw recordings.
    split
        `train` or `test`; when None: test where there is one, else train.

    Raises
    ------
    UsageError
        When there is no such split.
    DataError, ArtefactError
        When the input cannot be used.
    """
    if (path / MANIFEST).exists() and open_folder(path).kind == "dataset":
        return _prepared_input(open_folder(path, "dataset"), split)
    splits = {item.name: item for item in find_splits(path)}
    return _raw_input(splits[_chosen_split(list(splits), split, path)], predictor)


def input_refs(path: Path) -> tuple[InputRef, ...]:
    """Digests of what `open_input` reads, for the manifest's lineage."""
    if (path / MANIFEST).exists() and open_folder(path).kind == "dataset":
        return (open_folder(path, "dataset").ref(),)
    return split_refs(find_splits(path))


def _chosen_split(there: Sequence[str], asked: str | None, path: Path) -> str:
    if asked is not None and asked not in there:
        raise UsageError(f"--split {asked}: {path} has none", hint=f"there is {', '.join(there)}")
    return asked or ("test" if "test" in there else there[0])


def _prepared_input(dataset: Folder, split: str | None) -> Input:
    sequences = dataset.read_parquet("sequences.parquet")
    chosen = _chosen_split(sequences["split"].unique().sort().to_list(), split, dataset.path)
    wanted = sequences.filter(pl.col("split") == chosen)

    def batches(on_frames: OnFrames, gathered: bool) -> Iterator[Batch]:
        for number in wanted["file"].unique(maintain_order=True):
            recordings, _ = read_recordings(dataset, sequences, number)
            rows = wanted.filter(pl.col("file") == number)
            yield Batch(recordings, rows.select(SEQUENCE_ID, GESTURE), [])
            on_frames(recordings.n_frames)

    return Input(int(wanted["n_frames"].sum()), batches)


def _raw_input(split: RawSplit, predictor: Predictor) -> Input:
    schema = read_schema(split.frames)
    config = PrepareConfig(rate_hz=predictor.rate_hz, rows_per_file=_BATCH_FRAMES)

    def batches(on_bytes: OnFrames, gathered: bool) -> Iterator[Batch]:
        for cleaned in cleaned_tables(split, schema, config=config, gathered=gathered, on_bytes=on_bytes):
            yield _as_batch(cleaned)

    return Input(split.frames.stat().st_size, batches)


def _as_batch(cleaned: CleanTable) -> Batch:
    problems = [(fault.sequence_id, fault.what) for fault in cleaned.faults]
    return Batch(cleaned.batch, cleaned.labels.select(SEQUENCE_ID, GESTURE), problems)


def predict(
    source: Input, predictor: Predictor, output: Output, *, strict: bool = False, on_frames: OnFrames | None = None
) -> Folder:
    """Predict a whole input and write predictions, submission and problems.

    Parameters
    ----------
    source
        What `open_input` opened.
    predictor
        The model.
    output
        The predictions folder, opened by `outputs.open_output`.
    strict
        Whether an unusable sequence is an error; otherwise it is answered with the class prior and told in
        problems.parquet.
    on_frames
        Called with the amount done since the last call.

    Raises
    ------
    DataError
        When the input is broken, a sequence comes twice, or (strict) cannot be used.
    """
    report = on_frames or (lambda _: None)
    try:
        parts = _predict_parts(source.batches(report, False), predictor, output, strict=strict)
    except Unsorted:
        output.forget(list(output.pieces))
        parts = _predict_parts(source.batches(lambda _: None, True), predictor, output, strict=strict)
    table = pl.concat(parts).sort(SEQUENCE_ID)
    twice = table.filter(pl.col(SEQUENCE_ID).is_duplicated())[SEQUENCE_ID].unique().sort().to_list()
    if twice:
        raise DataError(f"sequence {examples(twice)} comes twice", hint="each sequence_id must be one recording")
    return _finish(table, predictor, output)


def _predict_parts(
    batches: Iterator[Batch], predictor: Predictor, output: Output, *, strict: bool
) -> list[pl.DataFrame]:
    parts = []
    for number, batch in enumerate(batches):
        if strict and batch.problems:
            raise DataError(
                f"sequence {examples([f'{sequence_id} {what}' for sequence_id, what in batch.problems])}",
                hint="fix the rows, or predict without --strict",
            )
        name = f"{PART}predictions-{number:05d}.parquet"
        if not output.has(name):
            output.publish(name, {name: _prediction_rows(batch, predictor)})
        parts.append(decode_parquet(output.read(name), name))
    return parts


def _prediction_rows(batch: Batch, predictor: Predictor) -> pl.DataFrame:
    proba = predictor.predict_proba(batch.recordings)
    prior = np.tile(predictor.prior, (len(batch.problems), 1))
    everything = np.concatenate([proba, prior]).astype(np.float32)
    ids = [*batch.labels[SEQUENCE_ID].to_list(), *(name for name, _ in batch.problems)]
    truth = [*batch.labels[GESTURE].to_list(), *([None] * len(batch.problems))]
    notes: list[str | None] = [*([None] * batch.labels.height), *(what for _, what in batch.problems)]
    best = np.argmax(everything, axis=1)
    targets = np.array(predictor.targets, dtype=np.bool_)
    front = {
        SEQUENCE_ID: pl.Series(ids, dtype=pl.String),
        GESTURE: pl.Series([predictor.classes[position] for position in best], dtype=pl.String),
        "target_proba": pl.Series(everything[:, targets].sum(axis=1, dtype=np.float64), dtype=pl.Float64),
    }
    columns = dict(zip(oof.proba_columns(len(predictor.classes)), everything.T, strict=True))
    back = {"truth": pl.Series(truth, dtype=pl.String), "problem": pl.Series(notes, dtype=pl.String)}
    return pl.DataFrame({**front, **columns, **back})


def _finish(table: pl.DataFrame, predictor: Predictor, output: Output) -> Folder:
    submission = table.select(SEQUENCE_ID, GESTURE)
    problems = table.drop_nulls("problem").select(SEQUENCE_ID, "problem")
    files: dict[str, Content] = {
        "predictions.parquet": table.drop("problem", "truth"),
        "submission.parquet": submission,
        "submission.csv": submission.write_csv().encode(),
        "problems.parquet": problems,
    }
    content: dict[str, Any] = {
        "classes": list(predictor.classes),
        "targets": list(predictor.targets),
        "n_sequences": table.height,
        "n_problems": problems.height,
    }
    known = table.filter(pl.col("truth").is_in(list(predictor.classes)))
    if known.height:
        truth = oof.class_positions(known["truth"].to_list(), predictor.classes)
        proba = known.select(oof.proba_columns(len(predictor.classes))).to_numpy()
        content["score"] = vars(score_proba(proba, truth, predictor.targets))
        files[METRICS] = encode_json({"n_labelled": known.height, **content["score"]})
    output.publish("tables", files)
    return output.finish(content)
