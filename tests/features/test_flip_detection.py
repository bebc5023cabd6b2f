"""Who wore the device upside down is told from a person's accelerations, and from nothing else."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.arrays.ragged import offsets_of
from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.cli.featurize import featurize as command
from bfrbctl.errors import DataError, UsageError
from bfrbctl.features import FeatureConfig, raised, upside_down
from bfrbctl.features.featurization import featurize, with_flips
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.schema import ACC, STANDARD_GRAVITY
from bfrbctl.simulation import SimulationConfig, simulate_subject
from tests.raw_recordings import raw_frames, write_raw

TURNED = "SUBJ_000001"


def group() -> pl.DataFrame:
    """Four people with twenty recordings each, thumbs up, but for the one who wears the device upside down."""
    table = raw_frames(subjects=4, repeats=5)
    table = table.with_columns((pl.col("acc_x") + 5).alias("acc_x"))
    sign = pl.when(pl.col("subject") == TURNED).then(-1.0).otherwise(1.0).cast(pl.Float32)
    return table.with_columns((pl.col(name) * sign).alias(name) for name in ("acc_x", "acc_y"))


def dataset_of(folder: Path, table: pl.DataFrame) -> Folder:
    splits = find_splits(write_raw(folder / "raw", table))
    config = PrepareConfig(folds=2, rows_per_file=700)
    with open_output(folder / "data", Job("dataset", vars(config), split_refs(splits))) as output:
        return prepare(splits, output, config)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return dataset_of(tmp_path_factory.mktemp("worn"), group())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_a_recording_is_scored_by_its_last_third(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = offsets_of(np.array(lengths))
    acc = rng.normal(0, 9, (offsets[-1], 3)).astype(np.float32)
    acc[rng.random(len(acc)) < 0.2] = np.nan
    hands = rng.choice(np.array([0, 1, np.nan], dtype=np.float32), len(lengths))
    got = raised(acc, offsets, hands)
    for number, (begin, end) in enumerate(pairwise(offsets)):
        part = acc[end - max((end - begin) // 3, 1) : end].astype(np.float64)
        part = part[~np.isnan(part).any(axis=1)]
        side = -1 if hands[number] == 0 else 1
        expected = (side * part[:, 0] + part[:, 1]).mean() / STANDARD_GRAVITY if len(part) else np.nan
        np.testing.assert_allclose(got[number], expected, rtol=1e-12, atol=1e-12)
    turned = raised(acc * np.array([-1, -1, 1], dtype=np.float32), offsets, hands)
    assert np.array_equal(turned, -got, equal_nan=True)


def test_few_recordings_turn_nobody_round() -> None:
    scores = np.concatenate([np.full(19, -0.9), np.repeat([0.5, 0.4, 0.3], 30)])
    names = ["few"] * 19 + ["b"] * 30 + ["c"] * 30 + ["d"] * 30
    assert upside_down(scores, names) == ()
    assert upside_down(np.append(scores, -0.9), [*names, "few"]) == ("few",)
    assert upside_down(np.append(scores, np.nan), [*names, "few"]) == ()


def test_a_device_with_other_axes_is_refused() -> None:
    names = [name for name in "abcdefgh" for _ in range(20)]
    with pytest.raises(DataError, match="8 of 8 people seem to have worn the device upside down"):
        upside_down(np.full(160, -0.4), names)


def test_who_wore_it_upside_down_is_found_and_turned_as_if_listed(tmp_path: Path, dataset: Folder) -> None:
    found = with_flips(dataset, FeatureConfig(undo_flips="auto"))
    assert found.flipped_subjects == (TURNED,)
    made = {}
    for name, config in (
        ("auto", FeatureConfig(undo_flips="auto")),
        ("listed", FeatureConfig(undo_flips="listed", flipped_subjects=(TURNED,))),
        ("off", FeatureConfig()),
    ):
        with open_output(tmp_path / name, Job("features", {}, ())) as output:
            made[name] = featurize(dataset, output, config).read("sequences.parquet")
    assert made["auto"] == made["listed"]
    assert made["auto"] != made["off"]


def test_labels_do_not_tell_who_wore_it_upside_down(tmp_path: Path, dataset: Folder) -> None:
    names = ("gesture", "sequence_type", "orientation", "behavior", "phase")
    labels = group().select("sequence_id", *names).unique("sequence_id", maintain_order=True)
    moved = labels.with_columns(pl.col(name).reverse() for name in names)
    table = group().drop(names).join(moved, on="sequence_id", maintain_order="left")
    other = dataset_of(tmp_path, table)
    config = FeatureConfig(undo_flips="auto")
    assert other.read_parquet("sequences.parquet")["gesture"].to_list() != (
        dataset.read_parquet("sequences.parquet")["gesture"].to_list()
    )
    assert with_flips(other, config) == with_flips(dataset, config)


def test_the_command_keeps_whom_it_found(tmp_path: Path, dataset: Folder) -> None:
    command(dataset.path, tmp_path / "features", undo_flips="auto", rate_hz=10.0, workers=1, quiet=True)
    features = open_folder(tmp_path / "features", "features")
    assert features.config["undo_flips"] == "auto"
    assert features.config["flipped_subjects"] == [TURNED]


def test_another_rate_than_the_dataset_has_is_refused(tmp_path: Path, dataset: Folder) -> None:
    with pytest.raises(UsageError, match=r"--rate-hz 20: .*data was prepared at 10 frames a second"):
        command(dataset.path, tmp_path / "features", rate_hz=20.0, quiet=True)
    assert not (tmp_path / "features").exists()


def test_a_flips_file_that_is_not_there_is_told_beside_the_choices(tmp_path: Path, dataset: Folder) -> None:
    with pytest.raises(UsageError, match="cannot be read") as error:
        command(dataset.path, tmp_path / "features", undo_flips="automatic", quiet=True)
    assert error.value.hint == "choose auto, off, or give a text file"


@pytest.mark.slow
@pytest.mark.parametrize("left_handed", [0.0, 1.0])
def test_simulated_people_are_told_apart(left_handed: float) -> None:
    config = SimulationConfig(seed=5, left_handed=left_handed, upside_down=0.0)
    scores, subjects = [], []
    for index in range(4):
        worn = config.model_copy(update={"upside_down": float(index == 2)})
        person = simulate_subject(worn, index, split="train")
        frames = person.frames
        offsets = offsets_of(frames.group_by("sequence_id", maintain_order=True).len()["len"].to_numpy())
        acc = frames.select(ACC).to_numpy().astype(np.float32)
        hands = np.full(len(offsets) - 1, 1 - left_handed, dtype=np.float32)
        scores.append(raised(acc, offsets, hands))
        subjects += [str(index)] * (len(offsets) - 1)
    assert upside_down(np.concatenate(scores), subjects) == ("2",)
