"""Predict whole inputs: raw files or a prepared dataset in, predictions and a submission out.

Inputs are read some thousand frames at a time, and each part is published when it is done, so that memory is bounded
and a killed run can be continued. A sequence that cannot be used gets the class prior, and is reported. Batches
are independent, so that workers can predict several at once: a worker gets the number of a dataset's frames file, or
the path of a temporary file that holds the recordings.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.files import Content, decode_parquet, encode_json, parquet_bytes, temporary_path
from bfrbctl.artefacts.folders import MANIFEST, PART, SEQUENCES, Folder, InputRef, Pinned, open_folder
from bfrbctl.artefacts.outputs import Output
from bfrbctl.ensemble.members import read_layout
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import Score
from bfrbctl.execution.executor import SEQUENTIAL, Executor, n_workers, run_tasks
from bfrbctl.prediction.batches import Batch, Stored, dataset_batch, store_batch
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.scoring import TRAINED_SEQUENCE, TRAINED_SUBJECT, TRUTH, LabelTable, scored, warn, with_labels
from bfrbctl.recordings.cleaning import CleanTable
from bfrbctl.recordings.frames_files import live_sensors
from bfrbctl.recordings.preparation import PrepareConfig, split_refs
from bfrbctl.recordings.raw import RawSplit, Unsorted, file_format, find_splits, read_schema
from bfrbctl.recordings.serving import cleaned_tables
from bfrbctl.schema import GESTURE, SEQUENCE_ID, SUBJECT, SensorLayout

_log = logging.getLogger("bfrbctl.prediction")

METRICS = "metrics.json"
_BATCH_FRAMES = 65_536
_BATCH_BYTES = {"csv": 128_000_000, "parquet": 15_000_000}
"""About how much of a raw file with the study's columns is so many frames."""

_FEW_BATCHES = 4
"""Fewer batches than that are predicted before other processes have started and loaded the model."""

_WORKER_BYTES = 1 << 31
"""Memory that a worker may need: a batch of the study's frames with all features, and a blend of five folds each."""

_JOINT_PROBA = "spread"
"""Column of the parts, until joint labels are assigned: the probability of each of them."""

OnFrames = Callable[[int], None]
PinnedModel = tuple[Pinned, tuple[str, ...]]
"""How a worker opens the model: folder, members to leave out."""


@dataclass(frozen=True)
class Input:
    """What to predict: raw files or a prepared dataset, opened.

    Parameters
    ----------
    total
        Bytes to read (raw) or frames (prepared), for progress.
    unit, scale
        The unit of that amount: `MB` of a million bytes, or `frames`.
    batches
        Reads it, some thousand frames at a time; calls its first argument with the amount done. The second is
        whether to bring scattered rows together first; without, raw.Unsorted may be raised on the way.
    n_batches
        About how many there will be.
    layout
        Which thermopiles and ToF sensors it has.
    stored
        The batches of a prepared dataset, for other processes to read; empty for raw recordings.
    """

    total: int
    unit: str
    scale: float
    batches: Callable[[OnFrames, bool], Iterator[Batch]]
    n_batches: int
    layout: SensorLayout
    stored: tuple[Stored, ...] = ()
    live: set[str] | None = None
    """Sensors that measured anything in the batches read so far; None where all of `layout` did."""

    @property
    def fitting_workers(self) -> int:
        """How many processes of this machine are worth their start and have the memory."""
        return 1 if self.n_batches < _FEW_BATCHES else n_workers(0, memory=_WORKER_BYTES)


def open_input(path: Path, predictor: Predictor, *, split: str | None = None) -> Input:
    """Open raw recordings or a prepared dataset for prediction.

    Parameters
    ----------
    path
        A prepared dataset, the study's folder, or a raw file.
    predictor
        Has the rate of raw recordings.
    split
        `train` or `test`; when None: test where there is one, else train.

    Raises
    ------
    UsageError
        When there is no such split.
    DataError, ArtefactError
        When the input cannot be used, or is a dataset of another rate than the model's.
    """
    if (path / MANIFEST).exists() and open_folder(path).kind == "dataset":
        dataset = open_folder(path, "dataset")
        predictor.expect_rate(float(dataset.content["rate_hz"]))
        return _prepared_input(dataset, split)
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
    sequences = dataset.read_together(SEQUENCES)
    chosen = _chosen_split(sequences["split"].unique().sort().to_list(), split, dataset.path)
    wanted = sequences.filter(pl.col("split") == chosen)

    files = wanted["file"].unique(maintain_order=True).to_list()

    def batches(on_frames: OnFrames, gathered: bool) -> Iterator[Batch]:
        for number in files:
            batch = dataset_batch(dataset, sequences, number, chosen)
            yield batch
            on_frames(batch.recordings.n_frames)

    stored = tuple(Stored(dataset.pinned(), number, chosen) for number in files)
    layout = read_layout(dataset.content)
    return Input(int(wanted["n_frames"].sum()), "frames", 1.0, batches, len(files), layout, stored)


def _raw_input(split: RawSplit, predictor: Predictor) -> Input:
    schema = read_schema(split.frames)
    config = PrepareConfig(rate_hz=predictor.rate_hz, rows_per_file=_BATCH_FRAMES)
    live: set[str] = set()

    def batches(on_bytes: OnFrames, gathered: bool) -> Iterator[Batch]:
        for cleaned in cleaned_tables(split, schema, config=config, gathered=gathered, on_bytes=on_bytes):
            live.update(live_sensors(cleaned.batch))
            yield _as_batch(cleaned)

    size = split.frames.stat().st_size
    n_batches = size // _BATCH_BYTES[file_format(split.frames)] + 1
    return Input(size, "MB", 1e6, batches, n_batches, schema.layout, live=live)


def sensor_warnings(layout: SensorLayout, predictor: Predictor, *, live: set[str] | None = None) -> list[str]:
    """Say which sensors of an input the model does not know, and which of the model's the input lacks.

    A sensor of the input that is not among the `live` ones has columns and no value: the model loses nothing by it.
    """
    names = {"thm": "thermopile", "tof": "ToF sensor"}
    model = {(kind, sensor) for kind in names for sensor in getattr(predictor.layout, kind)}
    given = {(kind, sensor) for kind in names for sensor in getattr(layout, kind)}
    lacking, unknown = ([f"{kind}_{n}" for kind, n in sorted(found)] for found in (model - given, given - model))
    unknown = [name for name in unknown if live is None or name in live]
    warnings = []
    if lacking and not model & given:
        warnings.append(
            f"the input has none of the {len(model)} sensors beside the IMU that the model was trained with "
            f"({examples(lacking)}): it predicts by the IMU alone, as well as its IMU-only score says"
        )
    elif lacking:
        warnings.append(
            f"the input lacks {len(lacking)} of the {len(model)} sensors beside the IMU that the model was trained "
            f"with ({examples(lacking)}): they count as missing"
        )
    if unknown:
        warnings.append(
            f"the model was trained without {len(unknown)} sensors of the input ({examples(unknown)}): they are "
            "ignored; train on recordings of this device to use them"
        )
    return warnings


def _as_batch(cleaned: CleanTable) -> Batch:
    problems = [(fault.sequence_id, fault.what) for fault in cleaned.faults]
    return Batch(cleaned.batch, cleaned.labels.select(SEQUENCE_ID, GESTURE), problems)


def predict(
    source: Input,
    predictor: Predictor,
    output: Output,
    *,
    strict: bool = False,
    labels: LabelTable | None = None,
    executor: Executor = SEQUENTIAL,
    on_frames: OnFrames | None = None,
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
        Whether an unusable sequence is an error; otherwise it gets the class prior and is listed in
        problems.parquet.
    labels
        True labels to score against; None takes the labels in the input, where there are any.
    executor
        Where the batches are predicted.
    on_frames
        Called with the amount done since the last call.

    Raises
    ------
    DataError
        When the input is broken, a sequence comes twice, or (strict) cannot be used; when no sequence has a label.
    """
    run = partial(_predict_parts, source, predictor, output, strict=strict, executor=executor)
    try:
        try:
            parts = run(on_frames=on_frames or (lambda _: None), gathered=False)
        except Unsorted:
            output.forget(list(output.parts))
            parts = run(on_frames=lambda _: None, gathered=True)
        table = _assigned(pl.concat(parts), predictor).sort(SEQUENCE_ID)
        twice = table.filter(pl.col(SEQUENCE_ID).is_duplicated())[SEQUENCE_ID].unique().sort().to_list()
        if twice:
            raise DataError(f"sequence {examples(twice)} comes twice", hint="each sequence_id must be one recording")
    except DataError as error:
        output.refuse_input(error)
        raise
    warnings = sensor_warnings(source.layout, predictor, live=source.live)
    return _finish(table, predictor, output, labels=labels, warnings=warnings)


def _predict_parts(
    source: Input,
    predictor: Predictor,
    output: Output,
    *,
    strict: bool,
    executor: Executor,
    on_frames: OnFrames,
    gathered: bool,
) -> list[pl.DataFrame]:
    """Publish the predictions of every batch, and give them in order."""
    here = executor.here(source.n_batches)
    n_batches = 0

    def missing() -> Iterator[tuple[int, Batch | Stored]]:
        nonlocal n_batches
        batches: Iterator[Batch | Stored] = source.batches(on_frames, gathered)
        if source.stored and not here:
            batches = iter(source.stored)
        for number, batch in enumerate(batches):
            if strict and isinstance(batch, Batch):
                _refuse_problems(batch)
            n_batches = number + 1
            if not output.has(_part(number)):
                yield number, batch

    if here:
        for number, batch in missing():
            assert isinstance(batch, Batch)
            output.publish(_part(number), {_part(number): _prediction_rows(batch, predictor)})
    else:
        _predict_elsewhere(missing(), source, predictor, output, executor=executor, on_frames=on_frames)
    return [decode_parquet(output.read(_part(number)), _part(number)) for number in range(n_batches)]


def _predict_elsewhere(
    batches: Iterator[tuple[int, Batch | Stored]],
    source: Input,
    predictor: Predictor,
    output: Output,
    *,
    executor: Executor,
    on_frames: OnFrames,
) -> None:
    """Publish the predictions that other processes make."""
    model, folder = open_folder(predictor.path).pinned(), output.path.absolute()
    executor.check_paths(folder, model, *{stored.place for stored in source.stored if isinstance(stored.place, Pinned)})
    spec = (model, predictor.left_out)
    temporary: dict[int, Path] = {}

    def tasks() -> Iterator[tuple[int, Stored, PinnedModel]]:
        for number, batch in batches:
            if isinstance(batch, Batch):
                temporary[number] = temporary_path(folder / "batch.npz")
                batch = store_batch(batch, temporary[number])
            yield number, batch, spec

    made = run_tasks(_predict_stored, tasks(), executor=executor, n_tasks=source.n_batches, in_order=False)
    with closing(made):
        for number, rows, n_frames in made:
            output.publish(_part(number), {_part(number): rows})
            if number in temporary:
                temporary.pop(number).unlink()
            else:
                on_frames(n_frames)


def _predict_stored(number: int, stored: Stored, spec: PinnedModel) -> tuple[int, bytes, int]:
    """Predict a batch in a worker: its number, its rows as Parquet, its frames."""
    batch = stored.read()
    return number, parquet_bytes(_prediction_rows(batch, _predictor(spec))), batch.recordings.n_frames


@lru_cache(maxsize=1)
def _predictor(spec: PinnedModel) -> Predictor:
    """Open a model once in a worker that predicts many batches: with just the members that the client uses."""
    model, left_out = spec
    return Predictor.open(model.open().path, expect_sha256=model.sha256, without=left_out, strict=True)


def _part(number: int) -> str:
    """Name the file of a batch; parts of the name before this one do not say what training used, and are made again."""
    return f"{PART}predicted-{number:05d}.parquet"


def _refuse_problems(batch: Batch) -> None:
    if batch.problems:
        raise DataError(
            f"sequence {examples([f'{sequence_id} {what}' for sequence_id, what in batch.problems])}",
            hint="fix the rows, or predict without --strict",
        )


def _prediction_rows(batch: Batch, predictor: Predictor) -> pl.DataFrame:
    found = predictor.predict_batch(batch.recordings)
    n_problems = len(batch.problems)
    everything = np.concatenate([found.proba, np.tile(predictor.prior, (n_problems, 1))]).astype(np.float32)
    best = [*found.positions.tolist(), *([int(np.argmax(predictor.prior))] * n_problems)]
    ids = [*batch.labels[SEQUENCE_ID].to_list(), *(name for name, _ in batch.problems)]
    truth = [*batch.labels[GESTURE].to_list(), *([None] * n_problems)]
    in_training = _in_training(batch, predictor, n_problems)
    notes: list[str | None] = [*([None] * batch.labels.height), *(what for _, what in batch.problems)]
    targets = np.array(predictor.targets, dtype=np.bool_)
    front = {
        SEQUENCE_ID: pl.Series(ids, dtype=pl.String),
        GESTURE: pl.Series([predictor.classes[position] for position in best], dtype=pl.String),
        "target_proba": pl.Series(everything[:, targets].sum(axis=1, dtype=np.float64), dtype=pl.Float64),
    }
    columns = dict(zip(oof.proba_columns(len(predictor.classes)), everything.T, strict=True))
    back = {
        TRUTH: pl.Series(truth, dtype=pl.String),
        "problem": pl.Series(notes, dtype=pl.String),
        **{name: pl.Series(flags, dtype=pl.Boolean) for name, flags in in_training.items()},
    }
    table = pl.DataFrame({**front, **columns, **back})
    if found.joint_proba is None:
        return table
    unknown = np.full((n_problems, found.joint_proba.shape[1]), np.nan, dtype=np.float32)
    subjects = [*batch.recordings.subjects, *([None] * n_problems)]
    return table.with_columns(
        pl.Series(SUBJECT, subjects, dtype=pl.String),
        pl.Series(_JOINT_PROBA, np.concatenate([found.joint_proba, unknown])),
    )


def _in_training(batch: Batch, predictor: Predictor, n_problems: int) -> dict[str, list[bool | None]]:
    """Say of each recording whether training used it, and whether it used its subject; None where that is unknown.

    The sequences that cannot be used come last; no training can have used them.
    """
    recordings, known = batch.recordings, predictor.trained_on
    if known is None:
        return dict.fromkeys((TRAINED_SEQUENCE, TRAINED_SUBJECT), [None] * (recordings.n_sequences + n_problems))
    unused = [False] * n_problems
    lengths = np.diff(recordings.offsets).tolist()
    rows = zip(recordings.subjects, recordings.sequence_ids, lengths, strict=True)
    return {
        TRAINED_SEQUENCE: [*(known.has_sequence(*row) for row in rows), *unused],
        TRAINED_SUBJECT: [*(known.has_subject(subject) for subject in recordings.subjects), *unused],
    }


def _assigned(table: pl.DataFrame, predictor: Predictor) -> pl.DataFrame:
    """Assign each joint label at most once to a wearer, in the order of the input, where the blend does so."""
    assigner = predictor.new_assigner()
    if assigner is None:
        return table
    n_unknown = table[SUBJECT].null_count() - table["problem"].count()
    if n_unknown:
        _log.warning(
            "%d sequences have no subject: each is predicted by itself, nothing is assigned to them", n_unknown
        )
    before = oof.class_positions(table[GESTURE].to_list(), predictor.classes)
    after = assigner.assign_all(table[SUBJECT].to_list(), table[_JOINT_PROBA].to_numpy(), otherwise=before)
    names = pl.Series(GESTURE, [predictor.classes[position] for position in after], dtype=pl.String)
    return table.drop(SUBJECT, _JOINT_PROBA).with_columns(names)


def _finish(
    table: pl.DataFrame,
    predictor: Predictor,
    output: Output,
    *,
    labels: LabelTable | None,
    warnings: list[str],
) -> Folder:
    source = "the labels in the input"
    if labels is not None:
        table, of_join = with_labels(table, labels)
        warnings, source = [*warnings, *of_join], labels.ref.name
    summary, of_score = scored(table, predictor.space, source=source)
    warnings = [*warnings, *of_score]
    warn(warnings)
    submission = table.select(SEQUENCE_ID, GESTURE)
    problems = table.drop_nulls("problem").select(SEQUENCE_ID, "problem")
    files: dict[str, Content] = {
        "predictions.parquet": table.drop("problem", TRUTH, TRAINED_SEQUENCE, TRAINED_SUBJECT),
        "submission.parquet": submission,
        "submission.csv": submission.write_csv().encode(),
        "problems.parquet": problems,
    }
    content: dict[str, Any] = {
        "classes": list(predictor.classes),
        "targets": list(predictor.targets),
        "n_sequences": table.height,
        "n_problems": problems.height,
        "warnings": warnings,
    }
    if labels is not None:
        content["answers"] = vars(labels.ref)
    if summary is not None:
        content["score"] = {name: summary[name] for name in Score.__dataclass_fields__}
        content |= {name: summary[name] for name in ("headline", "n_labelled", "in_sample")}
        files[METRICS] = encode_json(summary)
    output.publish("tables", files)
    return output.finish(content)
