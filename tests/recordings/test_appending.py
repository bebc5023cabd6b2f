import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import QUALITY, SEQUENCES, Folder, open_folder
from bfrbctl.artefacts.outputs import Job, Output, open_output
from bfrbctl.config import as_mapping
from bfrbctl.errors import ArtefactError, DataError, OutputError, UsageError
from bfrbctl.evaluation.folds import extend_folds
from bfrbctl.execution.executor import SEQUENTIAL, Executor
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.recordings.appending import settings_of
from bfrbctl.recordings.dataset import read_recordings
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.schema import SensorLayout
from tests.raw_recordings import raw_frames, write_raw

FIRST = raw_frames(subjects=4)
MORE = raw_frames(subjects=5, seed=7).with_columns(
    pl.col("sequence_id").str.replace("SEQ_0", "SEQ_5"),
    pl.col("subject").str.replace("SUBJ_00000[234]", "SUBJ_10000${0}").str.replace("SUBJ_10000SUBJ", "SUBJ_1"),
)


def write(
    raw: Path,
    out: Path,
    *,
    append: bool = False,
    resume: bool = False,
    executor: Executor = SEQUENTIAL,
    **settings: Any,
) -> Folder:
    config = PrepareConfig(**{"folds": 2, "rows_per_file": 300, **settings})
    splits = find_splits(raw)
    job = Job("dataset", as_mapping(config), split_refs(splits), seed=0)
    with open_output(out, job, append=append, resume=resume) as output:
        return prepare(splits, output, config, executor=executor)


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("raws")
    return write_raw(base / "one", FIRST), write_raw(base / "two", MORE, suffix="parquet")


@pytest.fixture
def dataset(raws: tuple[Path, Path], tmp_path: Path) -> Folder:
    return write(raws[0], tmp_path / "data")


def test_a_source_is_added_as_files_of_its_own(dataset: Folder, raws: tuple[Path, Path]) -> None:
    grown = write(raws[1], dataset.path, append=True)
    assert {name: grown.files[name] for name in dataset.files} == dict(dataset.files)
    n_files = dataset.content["n_files"]
    assert {f"frames-{n_files:05d}.parquet", "sequences-00001.parquet", "quality-00001.parquet"} <= set(grown.files)
    table = grown.read_together(SEQUENCES)
    assert table["sequence_id"].to_list() == [
        *FIRST["sequence_id"].unique(maintain_order=True),
        *MORE["sequence_id"].unique(maintain_order=True),
    ]
    assert grown.content["n_sequences"] == {"train": table.height}
    assert grown.content["n_frames"] == FIRST.height + MORE.height
    assert grown.content["n_findings"] == grown.read_together(QUALITY).height
    parts = [read_recordings(grown, table, number)[0] for number in range(grown.content["n_files"])]
    acc = np.concatenate([part.acc for part in parts])
    assert np.array_equal(acc[:, 2], pl.concat([FIRST["acc_z"], MORE["acc_z"]]).to_numpy())


def test_two_workers_add_the_same_files(dataset: Folder, raws: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(dataset.path, tmp_path / "other")
    together = write(raws[1], tmp_path / "other", append=True, executor=Executor(2))
    assert together.files == write(raws[1], dataset.path, append=True).files


def test_the_manifest_lists_the_sources_of_files(dataset: Folder, raws: tuple[Path, Path]) -> None:
    grown = write(raws[1], dataset.path, append=True)
    first, second = grown.content["sources"]
    assert (first["first_file"], first["n_files"]) == (0, dataset.content["n_files"])
    assert (second["first_file"], second["n_sequences"]) == (dataset.content["n_files"], 40)
    assert first["inputs"] + second["inputs"] == [ref["sha256"] for ref in grown.manifest["inputs"]]
    assert second["inputs"] == [ref.sha256 for ref in split_refs(find_splits(raws[1]))]


def test_folds_that_are_there_do_not_change(dataset: Folder, raws: tuple[Path, Path]) -> None:
    before = dict(dataset.read_together(SEQUENCES).select("subject", "fold").rows())
    grown = write(raws[1], dataset.path, append=True).read_together(SEQUENCES)
    assert grown["fold"].null_count() == 0
    assert grown.group_by("subject").agg(pl.col("fold").n_unique())["fold"].max() == 1
    after = dict(grown.select("subject", "fold").rows())
    assert {subject: after[subject] for subject in before} == before
    assert len(after) > len(before)


def test_features_of_all_sources_lie_in_one_folder(dataset: Folder, raws: tuple[Path, Path], tmp_path: Path) -> None:
    config = FeatureConfig(families=("motion",))
    with open_output(tmp_path / "before", Job("features", {})) as output:
        before = featurize(dataset, output, config)
    grown = write(raws[1], dataset.path, append=True)
    with open_output(tmp_path / "after", Job("features", {})) as output:
        after = featurize(grown, output, config)
    old, new = before.read_parquet("sequences.parquet"), after.read_parquet("sequences.parquet")
    assert new[: old.height].equals(old)
    assert new["sequence_id"].to_list() == grown.read_together(SEQUENCES)["sequence_id"].to_list()


def unchanged(dataset: Folder) -> bool:
    names = {entry.name for entry in dataset.path.iterdir()}
    return open_folder(dataset.path).sha256 == dataset.sha256 and names == {*dataset.files, "manifest.json"}


def test_a_sequence_that_is_there_is_refused_and_nothing_changes(dataset: Folder, raws: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="sequence SEQ_000000, SEQ_000001, SEQ_000002 and 29 more is in the dataset"):
        write(raws[0], dataset.path, append=True)
    assert unchanged(dataset)


def test_sensors_must_be_known_but_may_lack(dataset: Folder, tmp_path: Path) -> None:
    ids = pl.col("sequence_id").str.replace("SEQ_0", "SEQ_7")
    other = raw_frames(subjects=2, layout=SensorLayout(thm=(1, 2, 3), tof=(1,))).with_columns(ids)
    with pytest.raises(DataError, match="has thm_3, which the dataset does not have"):
        write(write_raw(tmp_path / "other", other), dataset.path, append=True)
    assert unchanged(dataset)
    bare = raw_frames(subjects=2, layout=SensorLayout(thm=(), tof=())).with_columns(ids)
    grown = write(write_raw(tmp_path / "bare", bare), dataset.path, append=True)
    assert (grown.content["thm"], grown.content["tof"]) == ([1, 2], [1])
    table = grown.read_together(SEQUENCES)
    assert table.filter(pl.col("sequence_id").str.starts_with("SEQ_7"))["has_thm"].any() is False
    recordings, _ = read_recordings(grown, table, grown.content["n_files"] - 1)
    assert np.isnan(recordings.thm).all()
    assert (recordings.tof == -2).all()


def test_settings_are_those_of_the_dataset(dataset: Folder) -> None:
    nothing = {"rate_hz": None, "folds": None, "seed": None, "rows_per_file": None}
    assert settings_of(dataset.path, nothing) == {"rate_hz": 10.0, "folds": 2, "seed": 0, "rows_per_file": 300}
    with pytest.raises(UsageError, match=r"--rate-hz 20\.0: the dataset in .* has 10"):
        settings_of(dataset.path, {**nothing, "rate_hz": 20.0})
    with pytest.raises(UsageError, match=r"--folds 5: the dataset in .* has 2"):
        settings_of(dataset.path, {**nothing, "folds": 5})
    with pytest.raises(ArtefactError, match="no such folder"):
        settings_of(dataset.path / "nowhere", nothing)


SCATTERED = MORE.sample(fraction=1.0, shuffle=True, seed=1)


@pytest.mark.parametrize("order", ["sorted", "scattered, two workers"])
def test_while_a_source_is_added_readers_find_the_dataset_as_it_was(
    dataset: Folder, raws: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    publish, seen = Output.publish, []
    scattered = order != "sorted"
    executor = Executor(2) if scattered else SEQUENTIAL
    more = write_raw(tmp_path / "more", SCATTERED, suffix="parquet") if scattered else raws[1]

    def look(output: Output, name: str, files: Any) -> None:
        publish(output, name, files)
        seen.append(open_folder(dataset.path).sha256)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Output, "publish", look)
        write(more, dataset.path, append=True, executor=executor)
    assert seen == [dataset.sha256] * 3
    assert open_folder(dataset.path).sha256 == dataset.sha256
    assert any(entry.is_dir() for entry in dataset.path.iterdir()) == scattered
    resumed = write(more, dataset.path, append=True, resume=True, executor=executor)
    write(raws[0], tmp_path / "whole")
    assert resumed.files == write(more, tmp_path / "whole", append=True).files
    assert {entry.name for entry in dataset.path.iterdir()} == {*resumed.files, "manifest.json"}


def test_a_killed_addition_can_be_started_again(dataset: Folder, raws: tuple[Path, Path]) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_output(dataset.path, Job("dataset", {}), append=True) as output,
        output.scratch("gathered") as scratch,
    ):
        (scratch / "000000.parquet").write_bytes(b"half")
        output.publish("frames-00090.parquet", {"frames-00090.parquet": b"half"})
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match="begin the addition again with --append alone"):
        write(raws[1], dataset.path, append=True, resume=True)
    grown = write(raws[1], dataset.path, append=True)
    assert "frames-00090.parquet" not in grown.files
    assert {entry.name for entry in dataset.path.iterdir()} == {*grown.files, "manifest.json"}


def test_readers_open_a_dataset_at_every_step_of_clearing_up(dataset: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a journal they refuse what is not listed, such as a file that was taken back."""
    unlink, removed = Path.unlink, []

    def look(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        removed.append(path.name)
        assert open_folder(dataset.path).files == dataset.files

    with open_output(dataset.path, Job("dataset", {}), append=True) as output:
        output.publish("stray", {"sequences-00050.parquet": b""})
        output.forget(["stray"])
        monkeypatch.setattr(Path, "unlink", look)
        output.finish(dataset.content)
    assert removed[:2] == ["sequences-00050.parquet", "journal.json"]


def test_nothing_can_be_added_to_what_is_not_there(raws: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"has no manifest\.json"):
        write(raws[0], tmp_path / "nothing", append=True)
    assert not (tmp_path / "nothing").exists()


def test_few_new_subjects_fill_the_smallest_folds() -> None:
    before = [("a", 0), ("a", 0), ("a", 0), ("b", 1), ("c", 2), ("c", 2)]
    folds = extend_folds(["x"] * 5, ["new", "a", "new", "d", "b"], before=before, n_folds=3, seed=0)
    assert folds.tolist() == [1, 0, 1, 2, 1]
