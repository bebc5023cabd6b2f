"""What the benchmarks that train share: the parts of one fold, and the features that anybody would begin with."""

from functools import cache
from pathlib import Path

import polars as pl

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import FoldTask, model_kind
from bfrbctl.recordings.dataset import Column, FeatureBatch
from bfrbctl.training import cross_validation
from bfrbctl.training.cross_validation import CrossValidation
from bfrbctl.training.labelled import labelled_sequences

_FIRST = tuple(f"__{name}" for name in ("mean", "std", "min", "max"))


def in_first_table(column: Column) -> bool:
    """Say whether a feature is in a first table: mean, std, min or max over whole recordings, or of the wearer."""
    return column.name.endswith(_FIRST) or column.family == "person"


@cache
def read(path: Path, parts: frozenset[str] = frozenset({"table"})) -> tuple[Folder, pl.DataFrame, FeatureBatch]:
    """Read a feature folder once: the folder, the index of its labelled sequences, and their features."""
    folder = open_folder(path, "features")
    index, batch = read_features(folder, parts=parts)
    return folder, index, batch


def fold_task(path: Path, kind_name: str, fold: int, *, seed: int = 0, keep_steps: bool = False) -> FoldTask:
    """Give the task of one fold as `bfrbctl train` makes it, with no scratch folder and nobody to report to."""
    kind = model_kind(kind_name)
    folder, index, batch = read(path, kind.needs)
    job = CrossValidation(folder, kind, kind.config_class(), seed=seed, keep_steps=keep_steps)
    data = labelled_sequences(folder, index, job.labels)
    return cross_validation.fold_task(job, fold, data=data, batch=batch, scratch=Path(), on_progress=lambda row: None)
