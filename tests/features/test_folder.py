"""What reaches a feature folder: the sensors and the wearer, never a label, whatever the cut into files."""

from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from tests.raw_recordings import raw_frames, write_raw

TABLE = raw_frames(subjects=2)


def shuffled(table: pl.DataFrame) -> pl.DataFrame:
    """Give every sequence the gesture, type and orientation of another, and every frame another phase and behaviour."""
    labels = table.group_by("sequence_id", maintain_order=True).agg(pl.col("gesture", "sequence_type").first())
    moved = labels.select("sequence_id", pl.col("gesture", "sequence_type").shift(3).backward_fill())
    return (
        table.drop("gesture", "sequence_type", "orientation", "phase", "behavior")
        .join(moved, on="sequence_id", maintain_order="left")
        .with_columns(pl.lit("Lie on Back").alias("orientation"), pl.lit("Gesture").alias("phase"))
        .with_columns(pl.lit("Performs gesture").alias("behavior"))
    )


def features_of(folder: Path, table: pl.DataFrame, *, split: str = "train", rows_per_file: int = 65536) -> Folder:
    splits = find_splits(write_raw(folder / "raw", table, split=split))
    config = PrepareConfig(folds=2, rows_per_file=rows_per_file)
    with open_output(folder / "data", Job("dataset", vars(config), split_refs(splits))) as output:
        dataset = prepare(splits, output, config)
    with open_output(folder / "features", Job("features", {}, ())) as output:
        return featurize(dataset, output, FeatureConfig())


def contents(features: Folder) -> tuple[bytes, bytes]:
    """Bytes of the sequence table and of the frame channels, in the order of the sequences' ids."""
    table = features.read_parquet("sequences.parquet").sort("sequence_id")
    names = sorted(name for name in features.files if name.startswith("frames-"))
    frames = pl.concat([features.read_parquet(name) for name in names]).drop("phase", strict=False)
    frames = frames.sort("sequence_id", maintain_order=True)
    numbers = frames.select(pl.col(pl.Float32)).to_numpy()
    return table.drop("sequence_id").to_numpy().tobytes(), numbers.tobytes()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return contents(features_of(tmp_path_factory.mktemp("original"), TABLE))


def test_shuffled_labels_change_no_byte(tmp_path: Path, original: tuple[bytes, bytes]) -> None:
    table = shuffled(TABLE)
    assert (table["gesture"] != TABLE["gesture"]).any()
    assert contents(features_of(tmp_path, table)) == original


def test_deleted_labels_change_no_byte(tmp_path: Path, original: tuple[bytes, bytes]) -> None:
    bare = TABLE.drop("sequence_type", "orientation", "behavior", "phase", "gesture")
    assert contents(features_of(tmp_path, bare, split="test")) == original


def test_the_cut_into_files_changes_no_byte(tmp_path: Path, original: tuple[bytes, bytes]) -> None:
    features = features_of(tmp_path, TABLE, rows_per_file=100)
    assert sum(name.startswith("frames-") for name in features.files) > 2
    assert contents(features) == original
