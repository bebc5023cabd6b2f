import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.models.interface import FoldTask, HistoryRow, model_kind
from bfrbctl.models.keras.backend import to_numpy
from bfrbctl.models.keras.learning import epochs as keras_training
from bfrbctl.models.keras.learning.augmentation import training_batch
from bfrbctl.models.keras.learning.checkpoint import pack_arrays, unpack_arrays
from bfrbctl.models.keras.learning.fitting import postures, task_digest
from bfrbctl.models.keras.learning.schedule import rate_at
from bfrbctl.models.keras.model import KerasFoldModel, fit, load
from bfrbctl.models.keras.network.building import build_network, weight_names
from bfrbctl.models.keras.network.layout import NETWORKS, NetworkSpec
from bfrbctl.models.keras.settings import Config
from bfrbctl.models.keras.spec import decode_spec
from tests.keras_batches import CLASSES, made, proba_of_keras, task

ROOT = Path(__file__).parents[3]
TINY = Config(width=0.1, epochs=3, batch_size=16, learning_rate=0.01)


class Killed(Exception):
    """Stands for a signal."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> KerasFoldModel:
    return fit(task(tmp_path_factory.mktemp("model")), TINY)


@pytest.fixture(scope="module")
def files(model: KerasFoldModel) -> dict[str, bytes]:
    return model.encode()


def test_the_kind_is_found_by_name() -> None:
    kind = model_kind("keras")
    assert (kind.name, kind.config_class, kind.needs) == ("keras", Config, {"frames", "tof"})


def test_probabilities_sum_to_one_in_both_scenarios(model: KerasFoldModel) -> None:
    batch, _ = made(20, seed=5)
    for given_batch in (batch, batch.imu_only()):
        proba = model.predict_proba(given_batch)
        assert proba.dtype == np.float32
        assert proba.shape == (20, 4)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)


def test_a_probability_does_not_depend_on_the_other_sequences(model: KerasFoldModel) -> None:
    batch, _ = made(9, seed=6)
    together = model.predict_proba(batch)
    alone = np.concatenate([model.predict_proba(batch.take(np.array([i]))) for i in range(9)])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_history_has_both_scenarios_each_epoch(model: KerasFoldModel) -> None:
    assert [row["step"] for row in model.history] == [1, 2, 3]
    wanted = {"fold", "step", "loss", "lr", "seconds", "score"}
    for scenario in ("all", "imu"):
        wanted |= {f"{name}_{scenario}" for name in ("score", "binary_f1", "macro_f1", "valid_logloss")}
    assert wanted <= set(model.history[0])
    json.dumps([model.summary, model.history])


def test_the_summary_is_of_the_last_epoch(model: KerasFoldModel) -> None:
    last = model.history[-1]
    assert model.summary["epochs"] == [3]
    assert model.summary["score"] == {"all": last["score_all"], "imu": last["score_imu"]}
    assert model.summary["logloss"] == {"all": last["valid_logloss_all"], "imu": last["valid_logloss_imu"]}


def test_a_killed_run_continues_to_the_same_bytes(
    model: KerasFoldModel, files: dict[str, bytes], tmp_path: Path
) -> None:
    def kill(row: HistoryRow) -> None:
        if row["step"] == 1:
            raise Killed

    with pytest.raises(Killed):
        fit(task(tmp_path, on_progress=kill), TINY)
    seen: list[HistoryRow] = []
    continued = fit(task(tmp_path, on_progress=seen.append), TINY)
    assert [row["step"] for row in seen] == [2, 3]
    assert continued.encode() == files
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in continued.history]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in model.history]


def test_a_checkpoint_of_another_task_is_not_continued(tmp_path: Path) -> None:
    base = task(tmp_path)
    same = task_digest(base, TINY)
    assert task_digest(task(tmp_path), TINY) == same
    frames = base.train.frames.copy()
    frames[0, 0] += 1
    others = [
        (replace(base, seed=4), TINY),
        (replace(base, fold=2), TINY),
        (replace(base, keep_steps=True), TINY),
        (base, TINY.model_copy(update={"epochs": 4})),
        (replace(base, train=replace(base.train, frames=frames)), TINY),
        (replace(base, train_labels=base.train_labels[::-1]), TINY),
    ]
    assert all(task_digest(other, config) != same for other, config in others)


def test_a_loaded_model_predicts_the_same(model: KerasFoldModel, files: dict[str, bytes]) -> None:
    batch, _ = made(6, seed=7)
    loaded = load(files, classes=CLASSES)
    np.testing.assert_array_equal(loaded.predict_proba(batch), model.predict_proba(batch))
    assert loaded.encode() == files


def test_files_hold_no_code_and_no_time_of_day(files: dict[str, bytes]) -> None:
    assert set(files) == {"keras.json", "keras.npz"}
    with zipfile.ZipFile(BytesIO(files["keras.npz"])) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(member.filename.endswith(".npy") for member in archive.infolist())


def test_several_seeds_are_averaged_and_saved_apart(tmp_path: Path) -> None:
    config = TINY.model_copy(update={"epochs": 1, "seeds": 2})
    found = fit(task(tmp_path), config)
    assert set(found.encode()) == {"keras.json", "keras.npz", "keras-1.npz"}
    assert {row["member"] for row in found.history} == {0, 1}
    batch, _ = made(4)
    alone = [one.predict_proba(batch) for one in found.each_seed()]
    assert not np.allclose(alone[0], alone[1], atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(batch), (alone[0] + alone[1]) / 2, atol=1e-6)
    again = load(found.encode(), classes=CLASSES)
    np.testing.assert_array_equal(again.predict_proba(batch), found.predict_proba(batch))


def test_an_imu_only_device_has_one_scenario(tmp_path: Path) -> None:
    found = fit(task(tmp_path, all_sensors=False), TINY.model_copy(update={"network": "two-branch", "epochs": 2}))
    row = found.history[-1]
    assert row["score_all"] == row["score_imu"] == row["score"]
    assert found.summary["n_tof"] == 0
    assert all(not name.startswith("other") for name in weight_names_of(found))
    with pytest.raises(DataError, match="acc_x"):
        batch, _ = made(3, all_sensors=False)
        found.predict_proba(replace(batch, channels=batch.channels[1:], frames=batch.frames[:, 1:]))


def weight_names_of(found: KerasFoldModel) -> list[str]:
    return weight_names(build_network(found.spec.network, seed=0))


def test_a_diverging_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        inputs, targets = training_batch(*arguments)
        return {**inputs, "weight": np.full_like(inputs["weight"], np.nan)}, targets

    monkeypatch.setattr(keras_training, "training_batch", broken)
    with pytest.raises(UsageError, match="no finite number"):
        fit(task(tmp_path), TINY)


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    job = task(tmp_path)
    empty = job.train.take(np.array([], dtype=np.int64))
    with pytest.raises(DataError, match="0 sequences to learn from"):
        fit(replace(job, train=empty, train_labels=job.train_labels[:0]), TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"width": 9.0}, "width is 9"),
        ({"network": "resnet"}, "network is 'resnet'"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config(**change)  # type: ignore[arg-type]


def test_learning_rate_rises_then_falls() -> None:
    config = Config(epochs=100, learning_rate=1.0)
    rates = [rate_at(config, float(epoch)) for epoch in range(101)]
    assert np.argmax(rates) == 10
    assert rates[10] == 1.0
    assert rates[100] == pytest.approx(0.01)
    assert {rate_at(config.model_copy(update={"schedule": "constant"}), epoch) for epoch in (0.0, 50.0)} == {1.0}


@pytest.mark.parametrize("name", NETWORKS)
def test_padding_changes_no_probability_of_a_whole_network(name: str) -> None:
    network = build_network(NetworkSpec(name, n_imu=5, n_other=3, n_tof=2, n_classes=4, width=0.1), seed=0)
    rng = np.random.default_rng(0)
    short = {
        "frames": rng.normal(size=(3, 16, 8)).astype(np.float32),
        "mask": np.ones((3, 16, 1), dtype=np.float32),
        "tof": rng.integers(0, 256, (3, 16, 2, 64)).astype(np.uint8),
    }
    fill = {"frames": 0, "mask": 0, "tof": 255}
    before = ((0, 0), (32, 0))
    long = {
        key: np.pad(value, before + ((0, 0),) * (value.ndim - 2), constant_values=fill[key])
        for key, value in short.items()
    }
    first, second = (to_numpy(network.predict(inputs, training=False)) for inputs in (short, long))
    np.testing.assert_allclose(first, second, atol=1e-6)
    names = weight_names(network)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_is_of_training_alone(name: str, tmp_path: Path) -> None:
    found = fit(task(tmp_path), TINY.model_copy(update={"network": name, "precision": "mixed_bfloat16", "epochs": 1}))
    assert all(np.isfinite(row["loss"]) for row in found.history)
    assert {array.dtype for arrays in found.members for array in arrays.values()} == {np.dtype(np.float32)}
    batch, _ = made(12, seed=5)
    for worn in (batch, batch.imu_only()):
        proba, half = found.predict_proba(worn), proba_of_keras(found, worn)
        np.testing.assert_allclose(half, proba, atol=0.05)
        assert np.abs(half - proba).max() > 1e-6
    assert load(found.encode(), classes=CLASSES).spec == found.spec


def test_a_missing_or_foreign_file_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ArtefactError, match=r"has no keras\.json"):
        load({"keras.npz": files["keras.npz"]}, classes=CLASSES)
    with pytest.raises(ArtefactError, match="has files"):
        load({**files, "keras-1.npz": files["keras.npz"]}, classes=CLASSES)
    with pytest.raises(ArtefactError, match="classes"):
        load(files, classes=CLASSES[::-1])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("network", "width"), 1e9, "width"),
        (("network", "width"), 0.2, "array"),
        (("network", "network"), "evil", "evil"),
        (("network", "n_imu"), 3, "channels"),
        (("inputs", "length"), 10**9, "length"),
        (("inputs", "pad"), "up", "pads"),
        (("inputs", "single"), [99], "single"),
        (("n_members",), 10**6, "n_members"),
        (("rate_hz",), "ten", "rate_hz"),
        (("format",), 5, "format"),
        (("network", "filters"), [16], "filters"),
        (("network", "filters"), [16, 10**6], "filters"),
        (("network", "filters"), [16, 16], "array"),
        (("network", "units"), [16, True], "units"),
        (("network", "units"), "16", "units"),
        (("format",), True, "format"),
        (("network", "n_orientations"), 65, "n_orientations"),
        (("targets",), [1, 1, 0, 0], "targets"),
        (("summary",), [], "summary"),
    ],
)
def test_a_changed_spec_is_refused(files: dict[str, bytes], path: tuple[str, ...], value: object, message: str) -> None:
    spec = json.loads(files["keras.json"])
    place = spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ArtefactError, match=message):
        load({**files, "keras.json": json.dumps(spec).encode()}, classes=CLASSES)


@pytest.mark.parametrize("written_as", [1, 2])
def test_of_older_specs_those_of_networks_that_still_exist_are_read(
    written_as: int, model: KerasFoldModel, files: dict[str, bytes]
) -> None:
    spec = json.loads(files["keras.json"])
    assert spec["format"] == 4
    spec["format"] = written_as
    assert spec["network"].pop("filters") == spec["network"].pop("units") == []
    if written_as == 1:
        assert spec["network"].pop("n_orientations") == 0
    with pytest.raises(ArtefactError, match="helios network of an earlier layout"):
        load({**files, "keras.json": json.dumps(spec).encode()}, classes=CLASSES)
    spec["network"]["network"] = "two-branch"
    found, n_members, _ = decode_spec(json.dumps(spec).encode(), classes=CLASSES)
    assert found == replace(model.spec, network=replace(model.spec.network, network="two-branch"))
    assert n_members == 1


def test_a_spec_from_before_widths_could_be_set_means_the_same_network(
    model: KerasFoldModel, files: dict[str, bytes]
) -> None:
    spec = json.loads(files["keras.json"])
    spec["format"] = 3
    del spec["network"]["filters"], spec["network"]["units"]
    spec["network"]["dropout"] = 0.5  # a factor then as now
    found, _, _ = decode_spec(json.dumps(spec).encode(), classes=CLASSES)
    assert found == replace(model.spec, network=replace(model.spec.network, dropout=0.5))


def test_widths_that_are_set_reach_the_network_and_come_back(tmp_path: Path) -> None:
    found = fit(task(tmp_path), TINY.model_copy(update={"epochs": 1, "filters": (5, 9), "units": (6, 10)}))
    weights = found.members[0]
    assert weights["imu_a_1.kernel"].shape[-1] == weights["other_a.kernel"].shape[-1] == 5
    assert weights["imu_b_1.kernel"].shape[-1] == weights["tof_a.kernel"].shape[-1] == 9
    assert weights["imu_gru.forward_state"].shape == (6, 18)
    assert weights["all_dense.kernel"].shape[-1] == 10
    again = load(found.encode(), classes=CLASSES)
    assert again.spec.network.filters == (5, 9) and again.spec.network.units == (6, 10)
    np.testing.assert_array_equal(again.predict_proba(task(tmp_path).valid), found.predict_proba(task(tmp_path).valid))


@pytest.mark.parametrize("rate", [0.5, 0.0])
def test_the_dropout_factor_scales_every_rate(rate: float) -> None:
    built = build_network(NetworkSpec("helios", 5, 3, 2, n_classes=4, width=0.1, dropout=rate), seed=0)
    plain = build_network(NetworkSpec("helios", 5, 3, 2, n_classes=4, width=0.1), seed=0)
    rates = {layer.name: layer.rate for layer in plain.train.layers if layer.name.endswith("_drop")}
    scaled = {layer.name: layer.rate for layer in built.train.layers if layer.name.endswith("_drop")}
    assert rates and scaled == {name: value * rate for name, value in rates.items() if rate}


JOINT = tuple(f"{name} | {posture}" for name in CLASSES for posture in ("lying", "sitting"))


def joint_task(scratch: Path) -> FoldTask:
    """Give the task with two postures of each gesture as classes of their own, and as postures too."""
    base = task(scratch)
    rng = np.random.default_rng(0)
    posture = rng.integers(0, 2, base.train_labels.size)
    valid_posture = rng.integers(0, 2, base.valid_labels.size)
    posture_known = np.where(np.arange(posture.size) % 5 == 0, -1, posture)
    return replace(
        base,
        classes=JOINT,
        targets=(True,) * 4 + (False,) * 4,
        gestures=CLASSES,
        gesture_of=(0, 0, 1, 1, 2, 2, 3, 3),
        train_labels=2 * base.train_labels + posture,
        valid_labels=2 * base.valid_labels + valid_posture,
        orientations=("lying", "sitting"),
        train_orientation=posture_known,
    )


@pytest.fixture(scope="module")
def joint_model(tmp_path_factory: pytest.TempPathFactory) -> KerasFoldModel:
    return fit(
        joint_task(tmp_path_factory.mktemp("joint")), TINY.model_copy(update={"epochs": 2, "class_weight": "balanced"})
    )


def test_joint_labels_are_judged_by_their_gestures(joint_model: KerasFoldModel, tmp_path: Path) -> None:
    job, found = joint_task(tmp_path), joint_model
    proba = found.predict_proba(job.valid)
    assert proba.shape == (32, 8)
    last = found.history[-1]
    assert last["score_all"] == pytest.approx(job.score(proba).score, abs=1e-6)
    assert last["valid_logloss_all"] == pytest.approx(job.loss(proba), abs=1e-6)
    again = load(found.encode(), classes=JOINT)
    np.testing.assert_array_equal(again.predict_proba(job.valid), proba)
    with pytest.raises(ArtefactError, match="classes"):
        load(found.encode(), classes=CLASSES)


def test_postures_are_learnt_by_helios_alone_where_they_are_known(joint_model: KerasFoldModel, tmp_path: Path) -> None:
    job, quick = joint_task(tmp_path), TINY
    assert joint_model.spec.network.n_orientations == 2
    unknown = np.full(80, -1)
    for other, config in [
        (job, quick.model_copy(update={"orientation_weight": 0.0})),
        (job, quick.model_copy(update={"network": "two-branch"})),
        (replace(job, train_orientation=None), quick),
        (replace(job, train_orientation=unknown), quick),
        (replace(job, orientations=("lying",), train_orientation=unknown + 1), quick),
    ]:
        assert postures(other, config).shape == (80, 0)
    found = postures(job, quick)
    assert found.shape == (80, 2)
    np.testing.assert_array_equal(found.sum(axis=1), job.train_orientation >= 0)
    assert task_digest(replace(job, train_orientation=unknown), quick) != task_digest(job, quick)


def test_weights_that_do_not_fit_are_refused(model: KerasFoldModel, files: dict[str, bytes]) -> None:
    arrays = dict(np.load(BytesIO(files["keras.npz"]), allow_pickle=False))
    name = "gesture.kernel"
    bad = {
        "not finite": {**arrays, name: np.full_like(arrays[name], np.nan)},
        "expected float32": {**arrays, name: arrays[name].astype(np.int32)},
        "not those": {key: value for key, value in arrays.items() if key != name},
        "expected .* and a header": {**arrays, name: np.zeros((500, 500), dtype=np.float32)},
        "is not positive": {**arrays, "scaler.scale": np.zeros_like(arrays["scaler.scale"])},
    }
    for message, changed in bad.items():
        with pytest.raises(ArtefactError, match=message):
            load({**files, "keras.npz": pack_arrays(changed)}, classes=CLASSES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_weights_never_crash(files: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(files["keras.npz"])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    damaged = bytes(content[: cut if data.draw(st.booleans()) else len(content)])
    try:
        loaded = load({**files, "keras.npz": damaged}, classes=CLASSES)
    except ArtefactError:
        return
    assert all(np.isfinite(weights).all() for weights in loaded.members[0].values())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_spec_never_crashes(files: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(files["keras.json"])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))
    try:
        loaded = load({**files, "keras.json": bytes(content)}, classes=CLASSES)
    except ArtefactError:
        return
    assert loaded.spec.classes == CLASSES


def test_importing_keras_writes_nothing_to_stderr() -> None:
    code = "import bfrbctl.models.keras.learning.fitting"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stderr == found.stdout == ""


BACKEND_CHECK = """
import sys
from pathlib import Path
import numpy as np
from tests.keras_batches import CLASSES, made, task, proba_of_keras
from bfrbctl.models.keras.model import fit, load
from bfrbctl.models.keras.settings import Config
folder = Path(sys.argv[1])
files = {name: (folder / name).read_bytes() for name in ("keras.json", "keras.npz")}
np.save(folder / "proba.npy", proba_of_keras(load(files, classes=CLASSES), made(20, seed=5)[0]))
model = fit(task(folder / "scratch"), Config(width=0.1, epochs=2, batch_size=16))
assert len(model.history) == 2
assert all(np.isfinite(row["loss"]) for row in model.history)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends_compute_the_same_and_train(
    backend: str, model: KerasFoldModel, files: dict[str, bytes], tmp_path: Path
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run([sys.executable, "-c", BACKEND_CHECK, str(tmp_path)], cwd=ROOT, env=environment, check=True)
    expected = model.predict_proba(made(20, seed=5)[0])
    np.testing.assert_allclose(np.load(tmp_path / "proba.npy"), expected, atol=1e-4)


def test_an_array_whose_header_does_not_close_its_brackets_is_refused() -> None:
    content = pack_arrays({"a": np.zeros(3, dtype=np.float32)})
    with zipfile.ZipFile(BytesIO(content)) as archive:
        npy = archive.read("a.npy").replace(b"}", b" ").replace(b"(3,)", b"(3,(")
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy)
    with pytest.raises(ArtefactError, match=r"keras\.npz: is not a sound npz file"):
        unpack_arrays(buffer.getvalue(), {"a": ((3,), "float32")}, what="keras.npz")
