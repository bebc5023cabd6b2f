import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.arrays.ragged import AnyArray, Float32
from bfrbctl.errors import DataError
from bfrbctl.models.keras.backend import to_numpy
from bfrbctl.models.keras.inputs import fit_scaler, plan_inputs, unscaled
from bfrbctl.models.keras.learning.turning import find_turned
from bfrbctl.models.keras.model import KerasFoldModel, ensemble
from bfrbctl.models.keras.network.building import build_network, weight_names
from bfrbctl.models.keras.network.layout import EPSILON, HELIOS, NETWORKS, TWO_BRANCH, NetworkSpec, weight_shapes
from bfrbctl.models.keras.runtime.inference import GAP, Packed, Stack, Steady, Time, _NumpyLayers
from bfrbctl.models.keras.runtime.serving import ROWS, TOGETHER, Networks
from bfrbctl.models.keras.spec import ModelSpec
from bfrbctl.recordings.dataset import FeatureBatch
from tests.keras_batches import CLASSES, TARGETS, made, told_by_keras

ROOT = Path(__file__).parents[3]


def fold(
    *,
    length: int,
    seeds: int = 1,
    n_tof: int = 2,
    all_sensors: bool = True,
    network: str = HELIOS,
    pad: str = "left",
    **widths: tuple[int, ...],
) -> KerasFoldModel:
    """A fold whose networks never trained, with normalisations that are not those of a fresh network."""
    batch, _ = made(30, seed=length, n_tof=n_tof, all_sensors=all_sensors)
    plan = plan_inputs(batch, length=length, pad=pad)
    spec = NetworkSpec(network, plan.n_imu, plan.n_other, plan.n_tof, n_classes=4, width=0.1, **widths)
    told = ModelSpec(spec, plan, CLASSES, TARGETS, 10.0)
    members = [random_weights(spec, seed=length + k) for k in range(seeds)]
    return KerasFoldModel(told, fit_scaler(batch, plan, find_turned(plan.imu)), members, {})


def random_weights(spec: NetworkSpec, seed: int) -> dict[str, Float32]:
    network, rng = build_network(spec, seed=seed), np.random.default_rng(seed)

    def moved(name: str, values: AnyArray) -> Float32:
        values = values + rng.normal(scale=0.1, size=values.shape)
        return np.asarray(np.abs(values) + 0.5 if name.endswith("variance") else values, dtype=np.float32)

    named = zip(weight_names(network), network.predict.weights, strict=True)
    return {name: moved(name, to_numpy(weight)) for name, weight in named}


def average(folds: list[KerasFoldModel], batch: FeatureBatch) -> AnyArray:
    return np.mean([told_by_keras(one, batch) for one in folds], axis=0)


@pytest.fixture(scope="module")
def folds() -> list[KerasFoldModel]:
    """Two folds that differ in everything a fold may: weights, scaling, number of networks, frames read."""
    return [fold(length=32, seeds=TOGETHER), fold(length=48)]


@pytest.fixture(scope="module")
def together(folds: list[KerasFoldModel]) -> Networks:
    return ensemble(folds)


@pytest.mark.parametrize("pad", ["left", "right"])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_answer_what_keras_computes(network: str, pad: str) -> None:
    found = fold(length=48, seeds=2, network=network, pad=pad)
    batch, _ = made(ROWS + 3, seed=8)
    for worn in (batch, batch.imu_only()):
        proba = found.predict_proba(worn)
        assert proba.dtype == np.float32
        np.testing.assert_allclose(proba, told_by_keras(found, worn), atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("widths", [{"filters": (7, 20)}, {"units": (11, 6)}, {"filters": (9, 4), "units": (5, 13)}])
def test_networks_of_other_widths_answer_what_keras_computes(network: str, widths: dict[str, tuple[int, ...]]) -> None:
    found = fold(length=48, seeds=2, network=network, **widths)
    batch, _ = made(9, seed=8)
    for worn in (batch, batch.imu_only()):
        np.testing.assert_allclose(found.predict_proba(worn), told_by_keras(found, worn), atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_device_without_other_sensors_is_served(network: str) -> None:
    found = fold(length=48, all_sensors=False, network=network)
    batch, _ = made(7, seed=4, all_sensors=False)
    np.testing.assert_allclose(found.predict_proba(batch), told_by_keras(found, batch), atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_device_without_tof_images_is_served(network: str) -> None:
    found = fold(length=48, n_tof=0, network=network)
    batch, _ = made(7, seed=4, n_tof=0)
    np.testing.assert_allclose(found.predict_proba(batch), told_by_keras(found, batch), atol=1e-6)


def test_the_answer_is_the_average_of_the_folds(folds: list[KerasFoldModel], together: Networks) -> None:
    batch, _ = made(24, seed=8)
    for worn in (batch, batch.imu_only()):
        proba = together.predict_proba(worn)
        np.testing.assert_allclose(proba, average(folds, worn), atol=1e-6)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)


def test_one_at_a_time_is_as_all_at_once(together: Networks) -> None:
    batch, _ = made(10, seed=6)
    everything = together.predict_proba(batch)
    alone = [together.predict_proba(batch.take(np.array([i]))) for i in range(10)]
    np.testing.assert_allclose(np.concatenate(alone), everything, atol=1e-6)


@pytest.mark.parametrize("pad", ["left", "right"])
@pytest.mark.parametrize("network", NETWORKS)
def test_sequences_of_an_imu_alone_are_answered_among_others(network: str, pad: str) -> None:
    found = fold(length=48, seeds=2, network=network, pad=pad)
    batch, _ = made(ROWS + 7, seed=3)
    blind = batch.imu_only()
    alone = np.arange(batch.n_sequences) % 3 != 0
    rows = np.repeat(alone, np.diff(batch.offsets))[:, None]
    mixed = replace(
        batch,
        frames=np.where(rows, blind.frames, batch.frames),
        tof=np.where(rows[..., None], blind.tof, batch.tof),
    )
    proba = found.predict_proba(mixed)
    np.testing.assert_allclose(proba, told_by_keras(found, mixed), atol=1e-6)
    (group,) = ensemble([found]).groups
    packs = group._tasks(unscaled(mixed, group.plan))
    assert (
        sorted(int(i) for _, pack, n_imu in packs if n_imu is not None for i in pack) == np.flatnonzero(alone).tolist()
    )


def test_the_same_sequences_get_the_same_bits_whatever_the_cores(
    together: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, _ = made(2 * ROWS + 5, seed=2)
    found = []
    for cores in (1, 2, 7):
        monkeypatch.setattr("bfrbctl.models.keras.runtime.serving.joblib.cpu_count", lambda cores=cores: cores)
        found.append(together.predict_proba(batch))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_folds_that_read_different_lengths_share_stacks_for_what_all_read_whole(
    folds: list[KerasFoldModel], together: Networks
) -> None:
    (group,) = together.groups
    assert [part.lengths.tolist() for part in group.parts] == [[48, 32, 32, 32], [32, 32, 32]]
    assert [part.lengths.tolist() for part in group.alike] == [[48], [32] * TOGETHER]
    behind = [replace(one, spec=replace(one.spec, inputs=replace(one.spec.inputs, pad="right"))) for one in folds]
    batch, _ = made(8, seed=3)
    np.testing.assert_allclose(ensemble(behind).predict_proba(batch), average(behind, batch), atol=1e-6)


def test_folds_with_other_layouts_are_served_side_by_side(folds: list[KerasFoldModel]) -> None:
    mixed = [folds[1], fold(length=48, network=TWO_BRANCH)]
    found = ensemble(mixed)
    assert len(found.groups) == 2
    batch, _ = made(5, seed=3)
    np.testing.assert_allclose(found.predict_proba(batch), average(mixed, batch), atol=1e-6)


def test_what_only_matters_while_learning_keeps_no_networks_apart(folds: list[KerasFoldModel]) -> None:
    network = replace(folds[1].spec.network, dropout=0.5, precision="mixed_bfloat16")
    other = replace(folds[1], spec=replace(folds[1].spec, network=network))
    assert len(ensemble([folds[1], other]).groups) == 1


def test_warming_up_leaves_nothing_to_lay_out(folds: list[KerasFoldModel]) -> None:
    fresh = ensemble(folds)
    fresh.warm()
    stacks = [part.stack for group in fresh.groups for part in (*group.parts, *group.alike)]
    laid = [set(stack._ready) for stack in stacks]
    assert all(laid)
    batch, _ = made(9, seed=1)
    fresh.predict_proba(batch)
    assert [set(stack._ready) for stack in stacks] == laid


def test_no_sequence_gets_no_answer_and_a_missing_channel_is_told(together: Networks) -> None:
    batch, _ = made(3)
    assert together.predict_proba(batch.take(np.zeros(0, dtype=np.int64))).shape == (0, 4)
    with pytest.raises(DataError, match="acc_x"):
        together.predict_proba(replace(batch, channels=batch.channels[1:], frames=batch.frames[:, 1:]))


def test_a_sequence_of_one_frame_is_answered(folds: list[KerasFoldModel], together: Networks) -> None:
    whole, _ = made(2, seed=1)
    first, last = whole.offsets[:2].tolist()
    batch = replace(
        whole.take(np.array([0])),
        offsets=np.array([0, 1]),
        frames=whole.frames[first : first + 1],
        tof=whole.tof[first : first + 1],
        phase=whole.phase[first : first + 1],
    )
    assert last > 1
    np.testing.assert_allclose(together.predict_proba(batch), average(folds, batch), atol=1e-6)


@pytest.mark.parametrize("sizes", [(21, 20, 5), (5, 0, 0), (5, 3, 0), (5, 0, 3)])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_shapes_of_a_layout_are_those_of_its_keras_network(network: str, sizes: tuple[int, int, int]) -> None:
    own = NetworkSpec(network, *sizes, n_classes=18, width=0.3, phase_head=True, n_orientations=4)
    for spec in (own, replace(own, filters=(6, 11), units=(9, 14))):
        built = build_network(spec, seed=0)
        shapes = {
            name: tuple(weight.shape) for name, weight in zip(weight_names(built), built.predict.weights, strict=True)
        }
        assert weight_shapes(spec) == shapes


def test_predicting_imports_no_keras(folds: list[KerasFoldModel], tmp_path: Path) -> None:
    for name, content in folds[1].encode().items():
        (tmp_path / name).write_bytes(content)
    code = f"""
import sys
from pathlib import Path
from tests.keras_batches import CLASSES, made
from bfrbctl.models.keras.model import ensemble, load
files = {{path.name: path.read_bytes() for path in Path({str(tmp_path)!r}).iterdir()}}
print(ensemble([load(files, classes=CLASSES)]).predict_proba(made(3)[0]).shape)
print(sorted({{"keras", "tensorflow"}} & set(sys.modules)))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert told.split("\n")[:2] == ["(3, 4)", "[]"]


lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=9).map(lambda found: np.array(sorted(found)[::-1]))


@settings(deadline=None)
@given(lengths=lengths_of, pad=st.sampled_from(["left", "right"]))
def test_packed_sequences_lie_apart_and_are_pooled_as_if_alone(lengths: AnyArray, pad: str) -> None:
    time = Time.of(lengths, pad=pad)
    assert time.starts[0] == GAP
    assert (np.append(time.starts[1:], time.n_rows) - time.starts - time.steps == GAP).all()
    before = np.zeros(0, dtype=bool)
    for level in (time, time.halved, time.halved.halved):
        recorded = np.zeros(level.n_rows, dtype=bool)
        recorded[level.recorded] = True
        assert set(level.padding) == set(np.flatnonzero(~recorded))
        assert np.array_equal(level.belongs.sum(axis=1), level.counts)
        assert np.array_equal(np.flatnonzero(level.belongs.any(axis=0)), np.sort(level.recorded))
        if level is not time:
            assert np.array_equal(recorded, np.logical_or(*before.reshape(-1, 2).T))
        before = recorded
    forwards, backwards = level.ways
    for read in (forwards, backwards):
        assert sorted(read) == sorted(level.recorded)
    begin = np.cumsum([0, *level.running])
    for number, (start, steps) in enumerate(zip(level.starts, level.steps, strict=True)):
        path = [forwards[begin[step] + number] for step in range(steps)]
        assert path == list(range(start, start + steps))
        assert [backwards[begin[step] + number] for step in range(steps)] == path[::-1]


@settings(deadline=None)
@given(
    lengths=lengths_of,
    size=st.sampled_from([1, 3, 5]),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    shared=st.integers(0, 2),
    steady=st.sets(st.integers(0, 2)),
    relu=st.booleans(),
)
def test_a_convolution_agrees_with_the_plain_loop(
    lengths: AnyArray, size: int, channels: list[int], shared: int, steady: set[int], relu: bool
) -> None:
    """Inputs of one network each, inputs of all beside each other, and steady ones, whatever the sequences."""
    n_networks, filters, rng = 2, 3, np.random.default_rng(size)
    time = Time.of(lengths, pad="right")

    def drawn(*shape: int) -> Float32:
        return rng.normal(size=shape).astype(np.float32)

    given: list[Float32 | Steady] = []
    parts = []
    for i, width in enumerate(channels):
        n = 1 if i == shared else n_networks
        if i in steady:
            given.append(Steady(drawn(n, 1, width) * np.float32(i > 0)))  # zeros for the first
            parts.append(np.repeat(given[-1].row, time.n_rows, axis=1))
        else:
            parts.append(drawn(n, time.n_rows, width))
            given.append(parts[-1])
        parts[-1][:, time.padding] = 0.0
    weights = {f"c.{name}": drawn(n_networks, filters) for name in ("gamma", "beta", "mean")}
    weights |= {"c.kernel": drawn(n_networks, size, sum(channels), filters)}
    weights |= {"c.variance": np.abs(drawn(n_networks, filters)) + np.float32(0.5)}
    stack = Stack(NetworkSpec(HELIOS, 1, 0, 0, n_classes=2), weights, drawn(n_networks, 1, 1), drawn(n_networks, 1, 1))
    nothing = Packed(time, drawn(time.n_rows, 1), np.zeros((time.n_rows, 0, 64), dtype=np.uint8))
    net = _NumpyLayers(stack, nothing)
    found = net.conv(net.joined(*given), time, "c", filters, size, relu=relu)

    seen = np.concatenate([np.broadcast_to(part, (n_networks, *part.shape[1:])) for part in parts], axis=-1)
    for network, row in np.ndindex(n_networks, time.n_rows):
        expected = np.zeros(filters)
        if row in time.recorded:
            for tap in range(size):
                expected += seen[network, row + tap - size // 2] @ weights["c.kernel"][network, tap]
            gamma, beta, mean, variance = (
                weights[f"c.{name}"][network].astype(np.float64) for name in ("gamma", "beta", "mean", "variance")
            )
            expected = (expected - mean) / np.sqrt(variance + EPSILON) * gamma + beta
            expected = np.maximum(expected, 0.0) if relu else expected
        np.testing.assert_allclose(found[network, row], expected, atol=1e-4)


def test_packing_keeps_the_tail_of_what_is_too_long(together: Networks) -> None:
    batch, _ = made(6, seed=5)
    data = unscaled(batch, together.groups[0].plan)
    chosen = np.argsort(-data.lengths)
    packed = Packed.of(data, chosen, length=24, pad="left")
    for number, sequence in enumerate(chosen):
        end = data.offsets[sequence + 1]
        kept = min(24, data.lengths[sequence])
        rows = packed.time.recorded[packed.time.sequence[packed.time.recorded] == number]
        np.testing.assert_array_equal(packed.frames[rows], data.frames[end - kept : end])
        np.testing.assert_array_equal(packed.tof[rows], data.tof[end - kept : end])
    assert np.isnan(packed.frames[packed.time.padding]).all()
