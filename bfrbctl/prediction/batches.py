"""Batches of recordings to predict, and where another process finds one of them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bfrbctl.artefacts.files import parse_json, writing
from bfrbctl.artefacts.folders import SEQUENCES, Folder, Pinned
from bfrbctl.recordings.dataset import RecordingBatch, read_recordings
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE, SEQUENCE_ID, SensorLayout

_ARRAYS = ("offsets", "acc", "rot", "thm", "tof", "demographics")


@dataclass(frozen=True)
class Batch:
    """Some recordings of an input, with their labels and problems.

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

    __repr__ = short_repr


@dataclass(frozen=True)
class Stored:
    """Where another process finds a batch.

    Parameters
    ----------
    place
        A prepared dataset, or a file that `store_batch` wrote.
    file
        Number of the dataset's frames file.
    split
        Which split of the dataset's file.
    """

    place: Pinned | Path
    file: int = 0
    split: str = ""

    def read(self) -> Batch:
        """Read the batch; ArtefactError when the dataset is not what it was."""
        if isinstance(self.place, Path):
            return _read_stored(self.place)
        dataset = self.place.open()
        return dataset_batch(dataset, dataset.read_together(SEQUENCES), self.file, self.split)


def dataset_batch(dataset: Folder, sequences: pl.DataFrame, number: int, split: str) -> Batch:
    """Read a frames file of a prepared dataset, whose sequences are all of one split."""
    recordings, _ = read_recordings(dataset, sequences, number)
    rows = sequences.filter((pl.col("file") == number) & (pl.col("split") == split))
    return Batch(recordings, rows.select(SEQUENCE_ID, GESTURE), [])


def store_batch(batch: Batch, path: Path) -> Stored:
    """Write a batch into a file for another process to read; OutputError when it cannot be written."""
    recordings = batch.recordings
    about = {
        "sequence_ids": recordings.sequence_ids,
        "subjects": recordings.subjects,
        "layout": [recordings.layout.thm, recordings.layout.tof],
        "rate_hz": recordings.rate_hz,
        "labels": [batch.labels[SEQUENCE_ID].to_list(), batch.labels[GESTURE].to_list()],
        "problems": batch.problems,
    }
    arrays = {name: getattr(recordings, name) for name in _ARRAYS}
    with writing(path, path), path.open("wb") as handle:
        np.savez(handle, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)
    return Stored(path)


def _read_stored(path: Path) -> Batch:
    with np.load(path, allow_pickle=False) as arrays:
        about = parse_json(arrays["about"].tobytes(), str(path))
        recordings = RecordingBatch(
            sequence_ids=tuple(about["sequence_ids"]),
            subjects=tuple(about["subjects"]),
            layout=SensorLayout(*map(tuple, about["layout"])),
            rate_hz=about["rate_hz"],
            **{name: arrays[name] for name in _ARRAYS},
        )
    labels = dict(zip((SEQUENCE_ID, GESTURE), about["labels"], strict=True))
    problems = [(sequence_id, what) for sequence_id, what in about["problems"]]
    return Batch(recordings, pl.DataFrame(labels, schema=dict.fromkeys(labels, pl.String)), problems)
