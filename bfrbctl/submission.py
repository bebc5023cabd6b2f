"""Predict whole inputs: raw files or a prepared dataset in, predictions and a submission out.

Inputs are read some thousand frames at a time, and each part is published when it is done, so that memory is bounded
and a killed run can be continued. A sequence that cannot be used is answered with the class prior, and told.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import oof
from bfrbctl.cleaning import CleanTable
from bfrbctl.dataset import RecordingBatch, read_recordings
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.folders import MANIFEST, PART, Folder, InputRef, open_folder
from bfrbctl.metrics import score_proba
from bfrbctl.outputs import Output
from bfrbctl.prediction import Predictor
from bfrbctl.preparation import PrepareConfig, cleaned_tables, split_refs
from bfrbctl.raw import RawSplit, Unsorted, find_splits, read_schema
from bfrbctl.schema import GESTURE, SEQUENCE_ID
from bfrbctl.storage import Content, decode_parquet, encode_json

METRICS = "metrics.json"
_BATCH_FRAMES = 65_536
OnFrames = Callable[[int], None]


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
    unit, scale
        How to tell that amount: `MB` of a million bytes, or `frames`.
    batches
        Reads it, some thousand frames at a time; calls its first argument with the amount done. The second is
        whether to bring scattered rows together first; without, raw.Unsorted may be raised on the way.
    """

    total: int
    unit: str
    scale: float
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

    return Input(int(wanted["n_frames"].sum()), "frames", 1.0, batches)


def _raw_input(split: RawSplit, predictor: Predictor) -> Input:
    schema = read_schema(split.frames)
    config = PrepareConfig(rate_hz=predictor.rate_hz, rows_per_file=_BATCH_FRAMES)

    def batches(on_bytes: OnFrames, gathered: bool) -> Iterator[Batch]:
        for cleaned in cleaned_tables(split, schema, config=config, gathered=gathered, on_bytes=on_bytes):
            yield _as_batch(cleaned)

    return Input(split.frames.stat().st_size, "MB", 1e6, batches)


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
