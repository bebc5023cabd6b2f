"""Add another source to a prepared dataset, as files of its own; the existing files do not change."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bfrbctl.artefacts.folders import SEQUENCES, Folder, open_folder
from bfrbctl.artefacts.outputs import Job
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.recordings.dataset import dataset_layout
from bfrbctl.reprs import short_repr
from bfrbctl.schema import SEQUENCE_ID, SUBJECT, SensorLayout


def settings_of(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fill missing settings of an addition with those of the dataset.

    Raises
    ------
    UsageError
        When a rate or number of folds is given that is not the dataset's.
    ArtefactError
        When there is no dataset.
    """
    dataset = open_folder(path, "dataset")
    complete = {key: dataset.config[key] if value is None else value for key, value in settings.items()}
    fixed = {"rate_hz": dataset.content["rate_hz"]}
    if dataset.content["n_folds"]:
        fixed["folds"] = dataset.content["n_folds"]
    for key, value in fixed.items():
        if complete[key] != value:
            raise UsageError(
                f"--{key.replace('_', '-')} {complete[key]}: the dataset in {path} has {value}",
                hint="leave the option out, or prepare into another dataset",
            )
    return complete


def source(sequences: pl.DataFrame, job: Job) -> dict[str, Any]:
    """Describe where some files of a dataset are from."""
    return {
        "first_file": int(sequences["file"].min()),  # type: ignore[arg-type]
        "n_files": sequences["file"].n_unique(),
        "n_sequences": sequences.height,
        "n_frames": int(sequences["n_frames"].sum()),
        "config": job.config,
        "inputs": [ref.sha256 for ref in job.inputs],
    }


@dataclass(frozen=True)
class Before:
    """What a dataset already has when another source is added to it."""

    layout: SensorLayout | None = None
    sequences: tuple[pl.DataFrame, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = ()
    n_files: int = 0
    n_findings: int = 0

    __repr__ = short_repr

    @classmethod
    def of(cls, dataset: Folder | None) -> "Before":
        """Read it from a dataset; None for a new dataset."""
        if dataset is None:
            return cls()
        content = dataset.content
        sequences = dataset.read_together(SEQUENCES)
        first = {
            "first_file": 0,
            "n_files": content["n_files"],
            "n_sequences": sequences.height,
            "n_frames": content["n_frames"],
            "config": dataset.config,
            "inputs": [ref["sha256"] for ref in dataset.manifest["inputs"]],
        }
        sources = tuple(content.get("sources", [first]))
        return cls(dataset_layout(dataset), (sequences,), sources, content["n_files"], content["n_findings"])

    def name(self, table: str) -> str:
        """Name this source's own file of a table."""
        return f"{table.removesuffix('.parquet')}-{len(self.sources):05d}.parquet" if self.sources else table

    def refuse_unfit(self, frames: Path, ids: pl.Series, sensors: set[str]) -> None:
        """Check that the sequences and the live sensors of an added file fit the dataset (DataError)."""
        if self.layout is None:
            return
        twice = ids.filter(ids.is_in(self.sequences[0][SEQUENCE_ID].implode())).sort().to_list()
        if twice:
            raise DataError(
                f"{frames}: sequence {examples(twice)} is in the dataset already, expected each sequence_id once",
                hint="leave it out with --drop, or prepare the file into another dataset",
            )
        known = {f"thm_{n}" for n in self.layout.thm} | {f"tof_{n}" for n in self.layout.tof}
        if not sensors <= known:
            raise DataError(
                f"{frames}: has {examples(sorted(sensors - known))}, which the dataset does not have",
                hint="prepare it into another dataset, or prepare all files again",
            )

    def folds(self) -> list[tuple[str, int]]:
        """Subject and fold of every labelled sequence."""
        return [pair for table in self.sequences for pair in table.select(SUBJECT, "fold").drop_nulls("fold").rows()]
