"""Recordings without a subject: each stands for itself, and none of them is taken for another one's."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.assignment import Assigner
from bfrbctl.errors import DataError
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.features import FeatureConfig, upside_down
from bfrbctl.features.channels.canonical import canonical
from bfrbctl.features.featurization import featurize
from bfrbctl.inspection import inspect
from bfrbctl.recordings.dataset import read_recordings
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.recordings.serving import clean_frames
from tests.conftest import train_toy
from tests.raw_recordings import SMALL_LAYOUT, raw_frames, write_raw

JOINT = ClassSpace.of(("a", "b"), (True, False)).refined(("a | up", "b | up"), (0, 1))
TEST = raw_frames(subjects=2, repeats=1, labelled=False, seed=3)
FIRST = pl.col("subject") == "SUBJ_000000"


def prepared(base: Path, table: pl.DataFrame, *, split: str = "train", suffix: str = "csv") -> Folder:
    splits = find_splits(write_raw(base / "raw", table, split=split, suffix=suffix))
    config = PrepareConfig(folds=2)
    with open_output(base / "data", Job("dataset", as_mapping(config), split_refs(splits))) as output:
        return prepare(splits, output, config)


@pytest.mark.parametrize("unknown", [None, ""])
def test_recordings_of_unknown_people_share_no_memory(unknown: str | None) -> None:
    assigner = Assigner(JOINT)
    joint_probas = np.array([[0.9, 0.1], [0.6, 0.4]], dtype=np.float32)
    best = np.array([0, 0])
    assert assigner.assign_all([unknown, unknown], joint_probas, otherwise=best) == [0, 0]
    assert assigner.assign_all(["S", "S"], joint_probas, otherwise=best) == [0, 1]


@pytest.mark.parametrize("unknown", ["no column", "null", "empty"])
def test_recordings_in_memory_without_a_subject_have_none(unknown: str) -> None:
    subject = {"null": pl.lit(None, dtype=pl.String), "empty": pl.lit("")}
    table = TEST.drop("subject") if unknown == "no column" else TEST.with_columns(subject=subject[unknown])
    demographics = pl.DataFrame({"subject": [""], "handedness": [0.0]})
    batch = clean_frames(table, demographics, layout=SMALL_LAYOUT, rate_hz=10.0).batch
    assert batch.subjects == (None,) * 8
    assert np.isnan(batch.demographics).all()  # nor do they get those of a nameless row


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("unknown", [None, ""])
def test_unlabelled_recordings_without_a_subject_are_kept_as_unknown(
    tmp_path: Path, suffix: str, unknown: str | None
) -> None:
    table = TEST.with_columns(subject=pl.when(FIRST).then(pl.lit(unknown)).otherwise("subject"))
    data = prepared(tmp_path, table, split="test", suffix=suffix)
    batch, _ = read_recordings(data, data.read_parquet("sequences.parquet"), 0)
    assert batch.subjects == (None,) * 4 + ("SUBJ_000001",) * 4
    assert data.content["n_subjects"] == 1
    view = inspect("dataset", data.path)
    assert view.facts["subjects"] == 1
    assert "subject" not in inspect("sequence", data.path).facts
    found = data.read_parquet("quality.parquet").filter(pl.col("problem") == "no subject")
    assert found["sequence_id"].to_list() == list(batch.sequence_ids[:4])


def test_half_a_sequence_without_a_subject_is_a_fault(tmp_path: Path) -> None:
    late = pl.col("sequence_counter") > 5
    table = TEST.with_columns(subject=pl.when(FIRST & late).then(None).otherwise("subject"))
    with pytest.raises(DataError, match=r"SEQ_000000 has 2 subjects \(SUBJ_000000, none\), expected 1"):
        prepared(tmp_path, table, split="test")


def test_labelled_recordings_without_a_subject_are_refused(tmp_path: Path) -> None:
    table = raw_frames(subjects=3)
    some = table.with_columns(subject=pl.when(FIRST).then(pl.lit("")).otherwise("subject"))
    with pytest.raises(DataError, match=r"SEQ_000000 has no subject, which labelled sequences need for their folds"):
        prepared(tmp_path / "some", some, suffix="parquet")
    with pytest.raises(DataError, match=r"column subject is empty in all 24 labelled sequences") as caught:
        prepared(tmp_path / "all", table.with_columns(subject=pl.lit("")), suffix="parquet")
    assert "--drop" not in str(caught.value.hint)


def test_features_of_an_older_dataset_with_nameless_labels_are_not_trained_on(
    dataset_folder: Folder, tmp_path: Path
) -> None:
    files = {name: dataset_folder.read(name) for name in dataset_folder.files}
    table = dataset_folder.read_parquet("sequences.parquet")
    nameless = table.with_columns(subject=pl.when(pl.col("fold") == 0).then(pl.lit("")).otherwise("subject"))
    with open_output(tmp_path / "old", Job("dataset", dict(dataset_folder.config))) as output:
        output.publish("all", {**files, "sequences.parquet": nameless})
        old = output.finish(dataset_folder.content)
    config = FeatureConfig(families=("motion",))
    with open_output(tmp_path / "f", Job("features", {**as_mapping(config), "table": True}, (old.ref(),))) as output:
        features = featurize(old, output, config)
    with pytest.raises(DataError, match=r"labelled sequence SEQ_.* has no subject"):
        train_toy(features, tmp_path / "m")


def test_recordings_of_nobody_are_not_turned_round_together() -> None:
    scores = np.repeat([0.4, -0.4, 0.5, 0.3, 0.4], 20)
    subjects = [subject for subject in ("a", None, "b", "c", "d") for _ in range(20)]
    assert upside_down(scores, subjects) == ()
    batch = clean_frames(TEST.drop("subject"), None, layout=SMALL_LAYOUT, rate_hz=10.0).batch
    listed = FeatureConfig(undo_flips="listed", flipped_subjects=("SUBJ_000000",))
    assert np.array_equal(canonical(batch, listed).acc, canonical(batch, FeatureConfig()).acc)
