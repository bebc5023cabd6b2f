import gc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import UsageError
from bfrbctl.features import FAMILIES, FeatureConfig, columns, compute, engine
from bfrbctl.features.table.blocks import Block
from bfrbctl.recordings.dataset import FeatureBatch, RecordingBatch
from bfrbctl.schema import HELIOS_LAYOUT, IMU_LAYOUT, LABELS, SensorLayout
from tests.noise import partly_imu_only, random_recordings, taken, without_sensors

CONFIG = FeatureConfig()
LENGTHS = (1, 2, 3, 5, 8, 9, 17, 29, 31, 32, 33, 47, 48, 49, 59, 64, 97, 128, 200, 385, 700)


def differing(one: FeatureBatch, other: FeatureBatch) -> list[str]:
    """Name the columns whose bits differ, the images included."""
    names = [
        column.name
        for table, described in (("table", one.features), ("frames", one.channels))
        for column, a, b in zip(described, getattr(one, table).T, getattr(other, table).T, strict=True)
        if a.tobytes() != b.tobytes()
    ]
    return names + ([] if one.tof.tobytes() == other.tof.tobytes() else ["tof"])


@pytest.fixture(scope="module")
def recordings() -> RecordingBatch:
    return random_recordings(LENGTHS * 2, seed=1)


@pytest.fixture(scope="module")
def computed(recordings: RecordingBatch) -> FeatureBatch:
    return compute(recordings, CONFIG)


def test_names_are_unique_and_known_without_data(computed: FeatureBatch) -> None:
    features, channels = columns(CONFIG, HELIOS_LAYOUT)
    assert (computed.features, computed.channels) == (features, channels)
    for described in (features, channels):
        names = [column.name for column in described]
        assert len(set(names)) == len(names)


def test_study_device_gets_at_least_1200_features_and_60_channels() -> None:
    features, channels = columns(CONFIG, HELIOS_LAYOUT)
    assert len(features) >= 1200
    assert len(channels) >= 60


def test_every_column_is_explained_and_of_a_known_family() -> None:
    for column in sum(columns(CONFIG, HELIOS_LAYOUT), ()):
        assert column.family in FAMILIES
        assert column.unit and column.formula
        assert set(column.modality.split("+")) <= {"imu", "thm", "tof", "person"}


def test_every_family_has_columns() -> None:
    assert {column.family for column in sum(columns(CONFIG, HELIOS_LAYOUT), ())} == set(FAMILIES)


def test_labels_have_no_way_in() -> None:
    names = {field.name for field in fields(RecordingBatch)}
    assert not names & set(LABELS)
    assert not {column.name for column in sum(columns(CONFIG, HELIOS_LAYOUT), ())} & set(LABELS)


def test_shapes_and_types_are_those_promised(recordings: RecordingBatch, computed: FeatureBatch) -> None:
    n, n_frames = recordings.n_sequences, recordings.n_frames
    assert (computed.table.shape, computed.table.dtype) == ((n, len(computed.features)), np.float32)
    assert (computed.frames.shape, computed.frames.dtype) == ((n_frames, len(computed.channels)), np.float32)
    assert (computed.tof.shape, computed.tof.dtype) == ((n_frames, 5, 64), np.uint8)
    assert np.array_equal(computed.phase, np.full(n_frames, 255, dtype=np.uint8))


def test_one_sequence_alone_gives_the_bits_it_gives_among_others(
    recordings: RecordingBatch, computed: FeatureBatch
) -> None:
    for i in range(recordings.n_sequences):
        alone = compute(taken(recordings, [i]), CONFIG)
        assert differing(alone, computed.take(np.array([i]))) == []


@pytest.mark.slow
@pytest.mark.parametrize("missing", [(), ("thm",), ("tof",), ("rot",), ("thm", "tof"), ("thm", "tof", "rot")])
def test_every_length_alone_gives_the_bits_it_gives_among_others(missing: tuple[str, ...]) -> None:
    step = 1 if not missing else 7
    batch = without_sensors(random_recordings(range(1, 701, step), seed=12), *missing)
    config = FeatureConfig(tof_images=False)
    whole = compute(batch, config)
    for i in range(batch.n_sequences):
        assert differing(compute(taken(batch, [i]), config), whole.take(np.array([i]))) == []


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=9),
    missing=st.sets(st.sampled_from(["thm", "tof", "rot"])),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_any_batch_of_any_sequences_gives_the_same_bits(
    lengths: list[int], missing: set[str], seed: int, data: st.DataObject
) -> None:
    batch = without_sensors(random_recordings(lengths, seed=seed), *missing)
    whole = compute(batch, CONFIG)
    chosen = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, max_size=len(lengths), unique=True))
    assert differing(compute(taken(batch, chosen), CONFIG), whole.take(np.array(chosen))) == []


def test_taking_sensors_away_equals_never_having_them(recordings: RecordingBatch, computed: FeatureBatch) -> None:
    assert differing(compute(without_sensors(recordings, "thm", "tof"), CONFIG), computed.imu_only()) == []


@settings(max_examples=15, deadline=None)
@given(
    worn=st.lists(st.tuples(st.integers(1, 70), st.booleans()), min_size=1, max_size=9),
    families=st.sets(st.sampled_from(sorted(FAMILIES)), min_size=1),
    modalities=st.sampled_from([("imu",), ("imu", "thm"), ("imu", "tof"), ("imu", "thm", "tof")]),
    images=st.booleans(),
    parts=st.tuples(st.booleans(), st.booleans()),
)
def test_imu_only_sequences_among_others_get_all_columns_as_if_computed_with_them(
    worn: list[tuple[int, bool]],
    families: set[str],
    modalities: tuple[str, ...],
    images: bool,
    parts: tuple[bool, bool],
) -> None:
    lengths, alone = zip(*worn, strict=True)
    batch = partly_imu_only(random_recordings(lengths, seed=7), np.array(alone))
    config = FeatureConfig(families=tuple(sorted(families)), modalities=modalities, tof_images=images)
    table, frames = parts
    found = compute(batch, config, table=table, frames=frames)
    slowly = engine._computed(batch, config, table=table, frames=frames)
    assert differing(found, slowly) == []
    for name in ("sequence_ids", "features", "channels"):
        assert getattr(found, name) == getattr(slowly, name)
    for name in ("offsets", "table", "frames", "tof", "phase"):
        one, other = getattr(found, name), getattr(slowly, name)
        assert (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


def test_one_reading_of_another_sensor_makes_a_sequence_more_than_imu_only() -> None:
    batch = random_recordings([30] * 4, seed=2)
    bare = partly_imu_only(batch, np.array([True, True, True, False]))
    bare.thm[45, 2] = 30.0
    bare.tof[89, 4, 63] = -1  # no return is a measurement
    assert bare.is_imu_only().tolist() == [True, False, False, False]
    assert batch.conform(IMU_LAYOUT).is_imu_only().all()


@pytest.mark.parametrize("modality", ["thm", "tof"])
def test_a_missing_modality_leaves_the_columns_of_the_others_alone(
    recordings: RecordingBatch, computed: FeatureBatch, modality: str
) -> None:
    changed = differing(compute(without_sensors(recordings, modality), CONFIG), computed)
    described = {column.name: column for column in computed.features + computed.channels}
    assert changed
    assert all(name == "tof" or modality in described[name].modality.split("+") for name in changed)


def test_twice_gives_the_same_bytes(recordings: RecordingBatch, computed: FeatureBatch) -> None:
    assert differing(compute(recordings, CONFIG), computed) == []


@pytest.mark.parametrize("rows", [1, 64, 100_000])
def test_the_size_of_blocks_changes_no_bit(
    recordings: RecordingBatch, computed: FeatureBatch, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BLOCK_ROWS", rows)
    assert differing(compute(recordings, CONFIG), computed) == []


def test_nothing_of_it_waits_for_the_garbage_collector(recordings: RecordingBatch) -> None:
    gc.collect()
    gc.disable()
    try:
        compute(recordings, CONFIG)
        left = [each for each in gc.get_objects() if isinstance(each, Block)]
    finally:
        gc.enable()
    assert left == []


def test_values_are_finite_or_nan(computed: FeatureBatch) -> None:
    assert not np.isinf(computed.table).any()
    assert not np.isinf(computed.frames).any()


def test_every_column_is_measurable_on_a_complete_recording() -> None:
    batch = random_recordings([150] * 12, seed=3)
    computed = compute(batch, CONFIG)
    for described, values in ((computed.features, computed.table), (computed.channels, computed.frames)):
        assert [column.name for column, v in zip(described, values.T, strict=True) if np.isnan(v).all()] == []


@pytest.mark.parametrize("layout", [IMU_LAYOUT, SensorLayout(thm=(2,), tof=()), SensorLayout(thm=(), tof=(3, 4))])
def test_other_devices_get_the_columns_of_their_sensors(layout: SensorLayout) -> None:
    computed = compute(random_recordings([1, 40], layout=layout), CONFIG)
    group = {column.name for column in sum(columns(CONFIG, HELIOS_LAYOUT), ())}
    assert {column.name for column in computed.features + computed.channels} < group
    assert computed.tof.shape[1] == len(layout.tof)


def test_nothing_in_nothing_out() -> None:
    computed = compute(random_recordings([]), CONFIG)
    assert computed.table.shape == (0, len(computed.features))
    assert computed.frames.shape == (0, len(computed.channels))


def test_parts_not_asked_for_have_no_columns(recordings: RecordingBatch, computed: FeatureBatch) -> None:
    table = compute(recordings, CONFIG, frames=False)
    frames = compute(recordings, CONFIG, table=False)
    assert table.table.tobytes() == computed.table.tobytes()
    assert (table.frames.shape, table.tof.shape[0], table.offsets.any()) == ((0, 0), 0, np.False_)
    assert frames.frames.tobytes() == computed.frames.tobytes()
    assert frames.table.shape == (recordings.n_sequences, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_alone_has_the_values_it_has_among_all(
    recordings: RecordingBatch, computed: FeatureBatch, family: str
) -> None:
    alone = compute(taken(recordings, range(8)), FeatureConfig(families=(family,)))
    among = computed.take(np.arange(8))
    positions = [i for i, column in enumerate(among.features) if column.family == family]
    assert alone.features == tuple(among.features[i] for i in positions)
    assert alone.table.tobytes() == np.ascontiguousarray(among.table[:, positions]).tobytes()


def test_imu_alone_drops_the_other_modalities(recordings: RecordingBatch, computed: FeatureBatch) -> None:
    alone = compute(recordings, FeatureConfig(modalities=("imu",)))
    positions = [i for i, column in enumerate(computed.features) if column.survives_imu_only]
    assert alone.features == tuple(computed.features[i] for i in positions)
    assert alone.table.tobytes() == np.ascontiguousarray(computed.table[:, positions]).tobytes()
    assert alone.tof.shape[1] == 0


def test_images_can_be_left_out(recordings: RecordingBatch) -> None:
    assert compute(recordings, FeatureConfig(tof_images=False), table=False).tof.shape == (recordings.n_frames, 0, 64)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"families": ("moments", "magic")}, r"families is moments, magic, expected .* \(magic unknown\)"),
        ({"families": ()}, "expected at least one of the feature families"),
        ({"modalities": ("imu", "ecg")}, r"modalities is imu, ecg, expected .* \(ecg unknown\)"),
        ({"modalities": ("tof",)}, "modalities is tof, expected imu among them"),
        ({"undo_flips": "perhaps"}, "undo_flips is 'perhaps'"),
        ({"undo_flips": "listed"}, "0 flipped_subjects"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FeatureConfig(**wrong)  # type: ignore[arg-type]


def test_an_unknown_family_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(UsageError) as caught:
        FeatureConfig(families=("magic",))
    assert all(family in str(caught.value) for family in FAMILIES)
