"""From a prepared dataset to a feature folder: all that training needs, computed once.

Every frames file of the dataset becomes one frames file of features, by `features.compute`, which is the same function
that `predict` calls. Files are independent of each other, so that any number of workers give the same bytes, and no
more than some files' features are ever in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bfrbctl import features
from bfrbctl.artefacts.files import Content, parquet_bytes, temporary_path, write_bytes, writing
from bfrbctl.artefacts.folders import PART, SEQUENCES, Folder, Pinned
from bfrbctl.artefacts.outputs import Output
from bfrbctl.execution.executor import SEQUENTIAL, Executor, run_tasks
from bfrbctl.features.folder import CATALOGUE, INDEX, catalogue_table, feature_frames, feature_table
from bfrbctl.recordings.dataset import dataset_layout, frames_file, known_subject, read_accelerations, read_recordings
from bfrbctl.schema import GESTURE, ORIENTATION, SEQUENCE_ID, SEQUENCE_TYPE, SUBJECT

_MERGED_ROWS = 4096
"""Sequences in a row group of the merged table, at least: the 2,400 features of so many take 40 MB."""

_TABLE_ROWS = 65_536
"""Sequences in a file of the table, at most: a reader has one file at a time in memory."""

_PARQUET = {"compression": "zstd", "compression_level": 1, "write_statistics": False, "use_dictionary": False}

_INDEX_COLUMNS = (
    SEQUENCE_ID,
    "split",
    SUBJECT,
    GESTURE,
    SEQUENCE_TYPE,
    ORIENTATION,
    "behavior_first",
    "fold",
    "n_frames",
    "gesture_start",
    "has_rot",
    "has_thm",
    "has_tof",
    "file",
)


def featurize(
    dataset: Folder,
    output: Output,
    config: features.FeatureConfig,
    *,
    table: bool = True,
    executor: Executor = SEQUENTIAL,
    on_file: Callable[[int], None] | None = None,
) -> Folder:
    """Compute the features of a whole dataset.

    Parameters
    ----------
    dataset
        A prepared dataset.
    output
        The folder to write, opened by `outputs.open_output`.
    config
        Which features.
    table
        Whether to compute the sequence table (what trees need) at all.
    executor
        Runs the tasks, one a file.
    on_file
        Called with the number of frames of every file done.

    Returns
    -------
    The finished feature folder.
    """
    config = with_flips(dataset, config)
    sequences = dataset.read_together(SEQUENCES)
    frames_by_file = dict(sequences.group_by("file").agg(pl.col("n_frames").sum()).sort("file").iter_rows())
    output.describe({}, [*map(frames_file, frames_by_file), "tables"])
    todo = [number for number in frames_by_file if not output.has(frames_file(number))]
    for number, n_frames in frames_by_file.items():
        if on_file and number not in todo:
            on_file(n_frames)
    if todo:
        executor.check_paths(output.path, dataset.pinned())
    tasks = [(dataset.pinned(), number, config, table, output.path.absolute()) for number in todo]
    with closing(run_tasks(_featurize_file, tasks, executor=executor, in_order=False)) as done:
        for number, made in done:
            output.publish(frames_file(number), made)
            if on_file:
                on_file(frames_by_file[number])
    layout = dataset_layout(dataset)
    columns, channels = features.columns(config, layout)
    files: dict[str, Content] = {
        INDEX: sequences.select(_INDEX_COLUMNS),
        CATALOGUE: catalogue_table(columns if table else (), channels),
    }
    if table:
        for name, numbers in _table_files(sequences["file"]):
            merged = temporary_path(output.path / name)
            with writing(merged, merged):
                _merge([output.path / _part(number) for number in numbers], merged)
            files[name] = merged
    output.publish("tables", files)
    kept = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds", "n_frames", "n_files", "n_sequences")
    counts = {"n_features": len(columns) if table else 0, "n_channels": len(channels)}
    content = {key: dataset.content[key] for key in kept}
    if "sequence_types" in dataset.content:  # datasets of earlier versions do not have it
        content["sequence_types"] = dataset.content["sequence_types"]
    return output.finish({**content, **counts})


def with_flips(dataset: Folder, config: features.FeatureConfig) -> features.FeatureConfig:
    """Find the subjects who wore the device upside down, where `undo_flips` is `auto`; else leave the config.

    All recordings of a subject count, labelled or not, and nothing but their accelerations and handedness does.

    Raises
    ------
    DataError
        When it would be more than a quarter of the subjects.
    """
    if config.undo_flips != "auto":
        return config
    sequences, acc, offsets = read_accelerations(dataset)
    scores = features.raised(acc, offsets, sequences["handedness"].cast(pl.Float32).to_numpy())
    found = features.upside_down(scores, sequences.select(known_subject()).to_series().to_list())
    return config.model_copy(update={"flipped_subjects": found})


def _featurize_file(
    data: Pinned, number: int, config: features.FeatureConfig, table: bool, out_path: Path
) -> tuple[int, dict[str, Path]]:
    """Compute one file in a worker, which writes files of its own under temporary names; the caller publishes them."""
    dataset = data.open()
    sequences = dataset.read_together(SEQUENCES)
    recordings, phase = read_recordings(dataset, sequences, number)
    batch = replace(features.compute(recordings, config, table=table), phase=phase)
    tof = recordings.layout.tof if batch.tof.shape[1] else ()
    tables = {frames_file(number): feature_frames(batch, tof)}
    if table:
        tables[_part(number)] = feature_table(batch)
    made = {}
    for name, frame in tables.items():
        made[name] = temporary_path(out_path / name)
        write_bytes(made[name], parquet_bytes(frame))
    return number, made


def _table_files(files: pl.Series) -> Iterator[tuple[str, list[int]]]:
    """Name the files of the sequence table, and the frames files whose sequences each of them holds.

    Parameters
    ----------
    files
        Number of the frames file of every sequence.
    """
    rows: dict[int, int] = dict(files.value_counts().sort(files.name).iter_rows())
    together: list[int] = []
    n_tables = n_rows = 0
    for number, height in rows.items():
        if together and n_rows + height > _TABLE_ROWS:
            yield _table_name(n_tables), together
            together, n_rows, n_tables = [], 0, n_tables + 1
        together.append(number)
        n_rows += height
    yield _table_name(n_tables), together


def _table_name(number: int) -> str:
    return f"sequences-{number:05d}.parquet" if number else SEQUENCES


def _merge(parts: Sequence[Path], merged: Path) -> None:
    """Join tables of some sequences each into one file, of which no more than a row group is ever in memory."""
    with pq.ParquetWriter(merged, pq.read_schema(parts[0]), **_PARQUET) as writer:
        pending: list[pa.Table] = []
        for part in parts:
            pending.append(pq.read_table(part))
            if sum(table.num_rows for table in pending) >= _MERGED_ROWS:
                writer.write_table(pa.concat_tables(pending))
                pending = []
        if pending:
            writer.write_table(pa.concat_tables(pending))


def _part(number: int) -> str:
    return f"{PART}table-{number:05d}.parquet"
