"""Write a whole study, streamed subject by subject in bounded memory: the same bytes for any number of workers.

A worker writes each subject to temporary files: CSV as it is appended to the study's file, or Arrow's own format, which
is fast to read and becomes a row group.
"""

import shutil
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet as pq

from bfrbctl.artefacts.files import temporary_path, writing
from bfrbctl.errors import UsageError
from bfrbctl.execution.executor import SEQUENTIAL, Executor, run_tasks
from bfrbctl.simulation.recording import simulate_subject
from bfrbctl.simulation.settings import SPLITS, SimulationConfig

FileFormat = Literal["parquet", "csv"]
Progress = Callable[[int, int], None]


def write_raw(
    folder: Path,
    config: SimulationConfig,
    *,
    split: Literal["train", "test", "both"] = "both",
    file_format: FileFormat = "parquet",
    executor: Executor = SEQUENTIAL,
    labels: bool = False,
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
        The split to simulate, or both.
    file_format
        Of the recordings and the labels; demographics are always CSV.
    executor
        Where the subjects are simulated; the bytes written do not depend on it.
    labels
        Write the labels of the test split beside it.
    on_progress
        Called with the number of subjects done and the number of all.

    Returns
    -------
    Names of the files written.

    Raises
    ------
    UsageError
        For an unknown split or format, or workers that do not read the same folder.
    """
    if split not in (*SPLITS, "both"):
        raise UsageError(f"split is {split!r}, expected one of train, test, both")
    if file_format not in ("parquet", "csv"):
        raise UsageError(f"format is {file_format!r}, expected parquet or csv")
    executor.check_paths(folder)
    splits = SPLITS if split == "both" else (split,)
    total = sum(config.n_subjects(name) for name in splits)
    names: list[str] = []
    done = 0
    for name in splits:
        files = [f"{name}.{file_format}", f"{name}_demographics.csv"]
        files += [f"{name}_answers.{file_format}"] if labels and name == "test" else []
        with closing(_write_split(folder, name, files, config, executor)) as subjects:
            for _ in subjects:
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        names += files
    return names


def _write_split(
    folder: Path, split: str, names: list[str], config: SimulationConfig, executor: Executor
) -> Generator[None, None, None]:
    """Write the files of a split, subject by subject; yields after each of them."""
    tasks = [(config, number, split, names, folder.absolute()) for number in range(config.n_subjects(split))]
    with ExitStack() as stack:
        files = [_open(folder / name) for name in names]
        for file in files:
            stack.callback(file.close)
        for tables in stack.enter_context(closing(run_tasks(_simulate, tasks, executor=executor))):
            for file, made in zip(files, tables, strict=True):
                file.add(made)
                made.unlink()
            yield


def _simulate(config: SimulationConfig, number: int, split: str, files: list[str], folder: Path) -> list[Path]:
    """Simulate a subject in a worker, into a temporary file for each of the study's files."""
    subject = simulate_subject(config, number, split=split)
    made = []
    for name, table in zip(files, (subject.frames, subject.demographics, subject.labels), strict=False):
        made.append(temporary_path(folder / name))
        with writing(made[-1], made[-1]):
            if name.endswith(".csv"):
                table.write_csv(made[-1], include_header=number == 0)
            else:
                table.write_ipc(made[-1])
    return made


class _Csv:
    """Appends lines to a CSV file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, made: Path) -> None:
        """Append what a worker wrote."""
        with made.open("rb") as lines:
            shutil.copyfileobj(lines, self._file)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class _Parquet:
    """Appends row groups to a Parquet file, one a subject."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, made: Path) -> None:
        """Append what a worker wrote as one row group."""
        arrow = pl.read_ipc(made.read_bytes()).to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, arrow.schema, compression="zstd")
        self._writer.write_table(arrow)

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()


def _open(path: Path) -> _Csv | _Parquet:
    return _Csv(path) if path.suffix == ".csv" else _Parquet(path)
