"""A whole study on disk, streamed person by person in bounded memory, the same bytes for any number of workers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet as pq
from joblib import Parallel, delayed

from bfrbctl.errors import UsageError
from bfrbctl.simulation.recording import SimulatedSubject, simulate_subject
from bfrbctl.simulation.settings import SPLITS, SimulationConfig

FileFormat = Literal["parquet", "csv"]
Progress = Callable[[int, int], None]


def write_raw(
    folder: Path,
    config: SimulationConfig,
    *,
    split: Literal["train", "test", "both"] = "both",
    file_format: FileFormat = "parquet",
    workers: int = 1,
    answers: bool = False,
    on_progress: Progress | None = None,
) -> list[str]:
    """Simulate a study into an existing folder, in the raw layout of the real one.

    Parameters
    ----------
    folder
        Must exist; files of the same names are replaced.
    config
        The study.
    split
        Which part of it.
    file_format
        Of the recordings and answers; demographics are always CSV.
    workers
        Processes; the bytes written do not depend on it.
    answers
        Write the labels of the test split beside it.
    on_progress
        Called with the people done and the people in all.

    Returns
    -------
    Names of the files written.

    Raises
    ------
    UsageError
        For an unknown split or format, or fewer than one worker.
    """
    if split not in (*SPLITS, "both"):
        raise UsageError(f"split is {split!r}, expected one of train, test, both")
    if file_format not in ("parquet", "csv"):
        raise UsageError(f"format is {file_format!r}, expected parquet or csv")
    if workers < 1:
        raise UsageError(f"workers is {workers}, expected 1 or more")
    splits = SPLITS if split == "both" else (split,)
    total = sum(config.n_subjects(name) for name in splits)
    names: list[str] = []
    done = 0
    for name in splits:
        written = [f"{name}.{file_format}", f"{name}_demographics.csv"]
        written += [f"{name}_answers.{file_format}"] if answers and name == "test" else []
        with ExitStack() as stack:
            files = [_open(folder / file) for file in written]
            for file in files:
                stack.callback(file.close)
            for person in _people(config, name, workers):
                for file, table in zip(files, (person.frames, person.demographics, person.answers), strict=False):
                    file.add(table)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        names += written
    return names


def _people(config: SimulationConfig, split: str, workers: int) -> Iterator[SimulatedSubject]:
    """Simulate the people of a split, in order; loky workers start afresh and never fork."""
    numbers = range(config.n_subjects(split))
    if workers == 1:
        yield from (simulate_subject(config, number, split=split) for number in numbers)
        return
    run = Parallel(n_jobs=workers, backend="loky", return_as="generator", pre_dispatch=workers + 1, batch_size=1)
    yield from run(delayed(simulate_subject)(config, number, split=split) for number in numbers)


class _Csv:
    """Appends to a CSV file; the header is written once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, table: pl.DataFrame) -> None:
        """Append rows."""
        table.write_csv(self._file, include_header=self._file.tell() == 0)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class _Parquet:
    """Appends row groups to a Parquet file, one a person."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pl.DataFrame) -> None:
        """Append one row group."""
        arrow = table.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, arrow.schema, compression="zstd")
        self._writer.write_table(arrow)

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


def _open(path: Path) -> _Csv | _Parquet:
    return _Csv(path) if path.suffix == ".csv" else _Parquet(path)
