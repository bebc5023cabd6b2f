"""The simulated study: its layout on disk, its determinism, and what may not leak."""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.errors import UsageError
from bfrbctl.execution.executor import Executor
from bfrbctl.schema import HELIOS_LAYOUT
from bfrbctl.simulation import SimulatedSubject, SimulationConfig, simulate_subject, write_raw
from bfrbctl.simulation.gestures import COMBINATIONS, GESTURES

CONFIG = SimulationConfig(subjects=2, test_subjects=1, seed=5)
LABELLED = ["row_id", "sequence_type", "sequence_id", "sequence_counter", "subject", "orientation", "behavior", "phase"]
SENSORS = ["acc_x", "acc_y", "acc_z", "rot_w", "rot_x", "rot_y", "rot_z"]
SENSORS += [*HELIOS_LAYOUT.thm_columns, *HELIOS_LAYOUT.tof_columns]


@pytest.fixture(scope="module")
def train() -> SimulatedSubject:
    return simulate_subject(CONFIG, 0, split="train")


@pytest.fixture(scope="module")
def test() -> SimulatedSubject:
    return simulate_subject(CONFIG, 0, split="test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole study by one process."""
    path = tmp_path_factory.mktemp("raw")
    write_raw(path, CONFIG, labels=True)
    return path


def by_sequence(subject: SimulatedSubject) -> pl.DataFrame:
    return subject.frames.group_by("sequence_id", maintain_order=True).agg(
        pl.len().alias("n"),
        pl.col("sequence_counter"),
        pl.col("gesture").unique(),
        pl.col("orientation").unique(),
        pl.col("behavior"),
        pl.col("phase"),
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"subjects": 0}, "subjects is 0"),
        ({"test_subjects": 5000}, "test_subjects is 5000"),
        ({"seed": -1}, "seed is -1"),
        ({"rate_hz": 0.0}, "rate_hz is 0"),
        ({"imu_only": 1.5}, "imu_only is 1.5"),
        ({"sensor_noise": float("nan")}, "sensor_noise is nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SimulationConfig(**settings)  # type: ignore[arg-type]


def test_the_test_split_has_two_fifths_of_the_subjects_by_default() -> None:
    assert SimulationConfig(subjects=81).n_subjects("test") == 32
    assert SimulationConfig(subjects=1).n_subjects("test") == 1
    assert SimulationConfig(subjects=81, test_subjects=3).n_subjects("test") == 3


def test_an_unknown_split_or_subject_is_refused() -> None:
    with pytest.raises(UsageError, match="split is 'valid', expected one of train, test"):
        simulate_subject(CONFIG, 0, split="valid")
    with pytest.raises(UsageError, match="subject 4000 does not exist"):
        simulate_subject(CONFIG, 4000, split="train")


def test_train_frames_have_the_341_columns_of_the_study(train: SimulatedSubject) -> None:
    assert train.frames.columns == [*LABELLED, "gesture", *SENSORS]
    assert train.frames.width == 341


def test_test_frames_have_336_columns_and_no_label(test: SimulatedSubject) -> None:
    assert test.frames.columns == ["row_id", "sequence_id", "sequence_counter", "subject", *SENSORS]
    assert test.frames.width == 336


def test_each_combination_is_recorded_twice_with_both_first_behaviours(train: SimulatedSubject) -> None:
    assert len(COMBINATIONS) == 51
    rows = by_sequence(train).select(
        pl.col("gesture").list.first(), pl.col("orientation").list.first(), pl.col("behavior").list.first()
    )
    assert len(rows) == 102
    assert rows.n_unique() == 102
    assert rows.select("gesture", "orientation").n_unique() == 51
    assert rows["behavior"].n_unique() == 2


def test_the_targets_are_the_eight_body_focused_gestures(train: SimulatedSubject) -> None:
    targets = train.labels.filter(pl.col("sequence_type") == "Target")["gesture"].unique()
    assert set(targets) == {gesture.name for gesture in GESTURES if gesture.target}
    assert len(targets) == 8
    assert train.labels["gesture"].n_unique() == 18


def test_a_sequence_is_contiguous_and_ends_with_its_gesture_phase(train: SimulatedSubject) -> None:
    for row in by_sequence(train).iter_rows(named=True):
        assert row["sequence_counter"] == list(range(row["n"]))
        assert len(row["gesture"]) == len(row["orientation"]) == 1
        changes = [b for a, b in zip([None, *row["behavior"]], row["behavior"], strict=False) if a != b]
        assert changes[1:] == ["Hand at target location", "Performs gesture"]
        gesture = [behavior == "Performs gesture" for behavior in row["behavior"]]
        assert gesture == [phase == "Gesture" for phase in row["phase"]]
    ids = train.frames["sequence_id"].to_list()
    assert ids == sorted(ids)


def test_row_ids_are_the_sequence_and_the_counter(train: SimulatedSubject) -> None:
    expected = train.frames.select(
        pl.format("{}_{}", "sequence_id", pl.col("sequence_counter").cast(pl.String).str.zfill(6))
    ).to_series()
    assert expected.to_list() == train.frames["row_id"].to_list()


def test_readings_keep_to_the_steps_and_limits_of_the_device(train: SimulatedSubject) -> None:
    acc = train.frames.select("acc_x", "acc_y", "acc_z").to_numpy()
    rot = train.frames.select("rot_x", "rot_y", "rot_z", "rot_w").drop_nulls().to_numpy()
    assert np.array_equal(acc * 256, np.rint(acc * 256))
    assert np.array_equal(rot * 2**14, np.rint(rot * 2**14))
    assert rot[:, 3].min() >= 0
    assert np.abs(np.sqrt((rot**2).sum(axis=1)) - 1).max() < 2e-4
    tof = train.frames.select(HELIOS_LAYOUT.tof_columns)
    assert set(tof.dtypes) == {pl.Int16}
    assert tof.min().min_horizontal().item() == -1
    assert tof.max().max_horizontal().item() == 249


def test_exactly_half_of_the_test_sequences_are_imu_only(test: SimulatedSubject) -> None:
    optics = [*HELIOS_LAYOUT.thm_columns, *HELIOS_LAYOUT.tof_columns]
    quiet = SimulationConfig(seed=5, failures=0.0)
    frames = simulate_subject(quiet, 0, split="test").frames
    seen = frames.group_by("sequence_id").agg(pl.col(optics).is_not_null().mean())
    share = seen.select(optics).to_numpy()
    assert set(np.unique(share)) == {0.0, 1.0}
    assert np.all(share == share[:, :1])
    assert share[:, 0].sum() == 51
    assert test.frames.select("acc_x").null_count().item() == 0


def test_nothing_is_missing_in_train_when_nothing_fails() -> None:
    frames = simulate_subject(SimulationConfig(failures=0.0), 3, split="train").frames
    assert sum(frames.null_count().row(0)) == 0


def test_train_and_test_share_no_subject_and_no_sequence(train: SimulatedSubject, test: SimulatedSubject) -> None:
    assert set(train.frames["subject"]) & set(test.frames["subject"]) == set()
    assert set(train.frames["sequence_id"]) & set(test.frames["sequence_id"]) == set()
    assert train.demographics["subject"].to_list() == train.frames["subject"].unique().to_list()
    assert not train.frames["acc_x"].head(50).equals(test.frames["acc_x"].head(50))


def test_each_subject_has_its_own_order_of_gestures(train: SimulatedSubject, folder: Path) -> None:
    second = pl.read_parquet(folder / "train.parquet").filter(pl.col("subject") == "SUBJ_000001")
    other = second.unique("sequence_id", maintain_order=True)["gesture"].to_list()
    own = train.labels["gesture"].to_list()
    same = sum(a == b for a, b in zip(own, other, strict=True))
    assert same < 25  # about 102/16 by chance


def test_demographics_are_in_the_ranges_of_the_study() -> None:
    from bfrbctl.simulation.person import draw_person

    persons = [draw_person(np.random.default_rng(seed), CONFIG) for seed in range(2000)]
    height = np.array([person.height for person in persons])
    reach = np.array([person.upper_arm + person.forearm for person in persons])
    assert 1.35 <= height.min() < height.max() <= 1.905
    assert abs(height.mean() - 1.68) < 0.03
    assert abs(height.std() - 0.106) < 0.02
    assert abs(reach.mean() - 0.516) < 0.015
    assert abs(np.mean([person.age for person in persons]) - 21.8) < 2.5
    assert abs(np.mean([person.right_handed for person in persons]) - 0.88) < 0.03
    assert abs(np.mean([person.upside_down for person in persons]) - 0.025) < 0.012


def test_a_person_does_not_depend_on_how_many_others_there_are(train: SimulatedSubject) -> None:
    again = simulate_subject(SimulationConfig(subjects=50, seed=5), 0, split="train")
    assert again.frames.equals(train.frames)


def test_another_seed_gives_other_subjects(train: SimulatedSubject) -> None:
    other = simulate_subject(SimulationConfig(seed=6), 0, split="train")
    assert not other.frames["acc_x"].head(100).equals(train.frames["acc_x"].head(100))


def test_the_bytes_do_not_depend_on_the_number_of_workers(folder: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    names = write_raw(
        tmp_path, CONFIG, executor=Executor(2), labels=True, on_progress=lambda n, total: done.append((n, total))
    )
    assert names == [
        "train.parquet",
        "train_demographics.csv",
        "test.parquet",
        "test_demographics.csv",
        "test_answers.parquet",
    ]
    assert done == [(1, 3), (2, 3), (3, 3)]
    for name in names:
        digests = [hashlib.sha256((path / name).read_bytes()).hexdigest() for path in (folder, tmp_path)]
        assert digests[0] == digests[1], name


def test_csv_and_parquet_hold_the_same_values(folder: Path, tmp_path: Path) -> None:
    names = write_raw(tmp_path, SimulationConfig(subjects=1, seed=5), split="train", file_format="csv")
    assert names == ["train.csv", "train_demographics.csv"]
    (tmp_path / "together").mkdir()
    write_raw(tmp_path / "together", CONFIG, split="train", file_format="csv", executor=Executor(2))
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == names
    for name in names:  # one person more, who follows
        assert (tmp_path / "together" / name).read_bytes().startswith((tmp_path / name).read_bytes())
    thm = HELIOS_LAYOUT.thm_columns
    read = pl.read_csv(tmp_path / "train.csv", n_rows=1500, schema_overrides=dict.fromkeys(thm, pl.Float32))
    stored = pl.read_parquet(folder / "train.parquet", n_rows=1500)
    assert read.columns == stored.columns
    for name in stored.columns:
        assert read[name].cast(stored[name].dtype).equals(stored[name]), name


def test_labels_fit_the_test_recordings(folder: Path) -> None:
    labels = pl.read_parquet(folder / "test_answers.parquet")
    frames = pl.read_parquet(folder / "test.parquet")
    assert labels["sequence_id"].to_list() == frames["sequence_id"].unique(maintain_order=True).to_list()
    assert labels.columns == ["sequence_id", "gesture", "sequence_type", "orientation"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"split": "all"}, "split is 'all'"),
        ({"file_format": "xlsx"}, "format is 'xlsx'"),
    ],
)
def test_writing_refuses_what_it_cannot_do(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_raw(tmp_path, CONFIG, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
