"""From a prepared dataset to a feature folder: all that training needs, computed once.

Every frames file of the dataset becomes one frames file of features, by `features.compute`, which is the same function
that `predict` calls. Files are independent of each other, so that any number of processes give the same bytes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from bfrbctl import features, workers
from bfrbctl.dataset import (
    CATALOGUE,
    INDEX,
    catalogue_table,
    dataset_layout,
    feature_frames,
    feature_table,
    frames_file,
    read_recordings,
)
from bfrbctl.folders import PART, Folder, open_folder
from bfrbctl.outputs import Output
from bfrbctl.schema import GESTURE, ORIENTATION, SEQUENCE_ID, SEQUENCE_TYPE, SUBJECT
from bfrbctl.storage import parquet_bytes, temporary_path, write_bytes

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
    n_processes: int = 1,
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
    n_processes
        How many processes; 0 is one a core.
    on_file
        Called with the number of frames of every file done.

    Returns
    -------
    The finished feature folder.
    """
    sequences = dataset.read_parquet("sequences.parquet")
    frames_by_file = dict(sequences.group_by("file").agg(pl.col("n_frames").sum()).sort("file").iter_rows())
    todo = [number for number in frames_by_file if not output.has(frames_file(number))]
    for number, n_frames in frames_by_file.items():
        if on_file and number not in todo:
            on_file(n_frames)
    tasks = [(dataset.path, number, config, table, output.path) for number in todo]
    for number in workers.run(_featurize_file, tasks, workers=n_processes):
        names = [frames_file(number), *([_part(number)] if table else [])]
        output.publish(frames_file(number), {name: temporary_path(output.path / name) for name in names})
        if on_file:
            on_file(frames_by_file[number])
    layout = dataset_layout(dataset)
    columns, channels = features.columns(config, layout)
    files = {
        INDEX: sequences.select(_INDEX_COLUMNS),
        CATALOGUE: catalogue_table(columns if table else (), channels),
    }
    if table:
        parts = [pl.read_parquet(output.path / _part(number)) for number in frames_by_file]
        files["sequences.parquet"] = pl.concat(parts)
    output.publish("tables", files)
    kept = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds", "n_frames", "n_files", "n_sequences")
    counts = {"n_features": len(columns) if table else 0, "n_channels": len(channels)}
    return output.finish({**{key: dataset.content[key] for key in kept}, **counts})


def _featurize_file(data_path: Path, number: int, config: features.FeatureConfig, table: bool, out_path: Path) -> int:
    """Compute one file in a worker; it writes temporary files, the caller publishes them."""
    dataset = open_folder(data_path, "dataset")
    sequences = dataset.read_parquet("sequences.parquet")
    recordings, phase = read_recordings(dataset, sequences, number)
    batch = replace(features.compute(recordings, config, table=table), phase=phase)
    tof = recordings.layout.tof if batch.tof.shape[1] else ()
    write_bytes(temporary_path(out_path / frames_file(number)), parquet_bytes(feature_frames(batch, tof)))
    if table:
        write_bytes(temporary_path(out_path / _part(number)), parquet_bytes(feature_table(batch)))
    return number


def _part(number: int) -> str:
    return f"{PART}table-{number:05d}.parquet"
