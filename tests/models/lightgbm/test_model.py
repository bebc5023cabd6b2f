import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.errors import ArtefactError, BfrbError, DataError, UsageError
from bfrbctl.evaluation.metrics import log_loss, score_proba
from bfrbctl.models.interface import FoldTask, HistoryRow, kind_module
from bfrbctl.models.lightgbm import training as lightgbm_training
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.models.lightgbm.model import NEEDS, Config, LightGBMModel, fit, load, load_step
from bfrbctl.models.lightgbm.training import augmented
from bfrbctl.recordings.dataset import Column, FeatureBatch

CLASSES = ("Cheek - pinch skin", "Eyebrow - pull hair", "Wave hello", "Text on phone")
TARGETS = (True, True, False, False)
N_FEATURES = 12
QUICK = {"n_rounds": 12, "feature_fraction": 0.3, "num_leaves": 5, "min_data_in_leaf": 5, "threads": 1}


def batch(n_sequences: int, seed: int, *, modalities: tuple[str, ...] = ("imu", "imu+tof", "thm")) -> FeatureBatch:
    rng = np.random.default_rng(seed)
    table = (rng.normal(size=(n_sequences, N_FEATURES)) + labels(n_sequences)[:, None] * 0.4).astype(np.float32)
    table[rng.random(table.shape) < 0.05] = np.nan
    columns = tuple(
        Column(f"feature [{i}] = µ", "motion", modalities[i % len(modalities)], "1", "none") for i in range(N_FEATURES)
    )
    return FeatureBatch(
        sequence_ids=tuple(f"SEQ_{seed}_{i}" for i in range(n_sequences)),
        offsets=np.zeros(n_sequences + 1, dtype=np.int64),
        table=table,
        features=columns,
        frames=np.zeros((0, 0), dtype=np.float32),
        channels=(),
        tof=np.zeros((0, 0, 64), dtype=np.uint8),
        phase=np.zeros(0, dtype=np.uint8),
    )


def labels(n_sequences: int) -> np.ndarray:
    return (np.arange(n_sequences, dtype=np.int64) * 7) % len(CLASSES)


def task(**changes: Any) -> FoldTask:
    rows: list[HistoryRow] = []
    plain = FoldTask(
        fold=0,
        classes=CLASSES,
        targets=TARGETS,
        train=batch(160, 1),
        train_labels=labels(160),
        valid=batch(70, 2),
        valid_labels=labels(70),
        seed=5,
        rate_hz=10.0,
        scratch=Path("unused"),
        on_progress=rows.append,
    )
    return replace(plain, **changes)


def quick(**settings_: Any) -> Config:
    return Config(**{**QUICK, **settings_})


@pytest.fixture(scope="module")
def model() -> LightGBMModel:
    return fit(task(), quick())


def without_seconds(rows: list[HistoryRow]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_module_is_a_kind() -> None:
    kind = kind_module("lgbm")
    assert kind.Config is Config
    assert frozenset({"table"}) == kind.NEEDS == NEEDS


def test_rows_of_proba_sum_to_one(model: LightGBMModel) -> None:
    proba = model.predict_proba(task().valid)
    assert proba.dtype == np.float32
    assert proba.shape == (70, len(CLASSES))
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-6


def test_a_model_learns_what_can_be_learned(model: LightGBMModel) -> None:
    assert score_proba(model.predict_proba(task().valid), labels(70), TARGETS).score > 0.7


def test_one_sequence_alone_gets_the_same_bits(model: LightGBMModel) -> None:
    valid = batch(150, 3)
    together = model.predict_proba(valid)
    for place in range(0, 150, 7):
        assert np.array_equal(model.predict_proba(valid.take(np.array([place])))[0], together[place])


def test_no_sequences_give_no_rows(model: LightGBMModel) -> None:
    assert model.predict_proba(batch(0, 1)).shape == (0, len(CLASSES))


def test_the_same_task_gives_the_same_bytes(model: LightGBMModel) -> None:
    assert fit(task(), quick()).encode() == model.encode()


def test_the_number_of_threads_does_not_matter(model: LightGBMModel) -> None:
    again = fit(task(), quick(threads=2))
    assert again.encode() == model.encode()
    assert without_seconds(again.history) == without_seconds(model.history)


def test_seed_and_fold_change_the_model(model: LightGBMModel) -> None:
    assert fit(task(seed=6), quick()).encode() != model.encode()
    assert fit(task(fold=1), quick()).encode()["lgbm.txt"] != model.encode()["lgbm.txt"]


def test_a_loaded_model_predicts_the_same_and_encodes_the_same(model: LightGBMModel) -> None:
    loaded = load(model.encode(), classes=CLASSES)
    assert np.array_equal(loaded.predict_proba(task().valid), model.predict_proba(task().valid))
    assert loaded.encode() == model.encode()
    assert loaded.summary == model.summary


def test_training_leaves_its_input_alone() -> None:
    given_task = task()
    before = given_task.train.table.copy(), given_task.valid.table.copy()
    fit(given_task, quick())
    assert np.array_equal(given_task.train.table, before[0], equal_nan=True)
    assert np.array_equal(given_task.valid.table, before[1], equal_nan=True)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    fit(task(train=batch(12, 1), train_labels=labels(12)), quick())
    assert capfd.readouterr() == ("", "")


# modality dropout


def test_copies_lack_thermopiles_and_tof_and_share_the_weight() -> None:
    rows = augmented(task(), quick(modality_dropout=0.4))
    n_copies = rows.labels.size - 160
    assert 0.25 * 160 < n_copies < 0.55 * 160
    assert rows.weights.sum() == pytest.approx(160)
    assert (rows.weights[160:] == 0.5).all()
    lost = [not column.survives_imu_only for column in task().train.features]
    assert np.isnan(rows.table[160:, lost]).all()
    kept = rows.table[160:, np.logical_not(lost)]
    originals = {row.tobytes() for row in rows.table[:160, np.logical_not(lost)]}
    assert all(row.tobytes() in originals for row in kept)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 160), (1.0, 320)])
def test_dropout_of_none_and_of_all(share: float, expected: int) -> None:
    assert augmented(task(), quick(modality_dropout=share)).labels.size == expected


def test_a_device_without_thermopiles_needs_no_copies() -> None:
    imu = task(train=batch(160, 1, modalities=("imu",)), valid=batch(70, 2, modalities=("imu",)))
    assert augmented(imu, quick()).labels.size == 160
    for scenario in ("mean", "imu", "all"):
        last = fit(imu, quick(scenario=scenario)).history[-1]
        assert last["score_all"] == last["score_imu"] == last["score"]


def test_dropout_helps_where_sensors_are_missing() -> None:
    with_copies = fit(task(), quick(n_rounds=30)).summary
    without = fit(task(), quick(n_rounds=30, modality_dropout=0.0)).summary
    assert with_copies["logloss_imu"] < without["logloss_imu"]


# scores after every round


def test_history_tells_the_metric_of_both_scenarios() -> None:
    trained = fit(task(), quick(log_every=1, n_rounds=5))
    row, valid = trained.history[-1], task().valid
    assert (row["step"], trained.summary["rounds"]) == (5, [5])
    for name, each in (("all", valid), ("imu", valid.imu_only())):
        proba = trained.predict_proba(each)
        assert row[f"score_{name}"] == trained.summary[f"score_{name}"] == score_proba(proba, labels(70), TARGETS).score
        assert row[f"valid_logloss_{name}"] == pytest.approx(log_loss(proba, labels(70)), rel=1e-6)
    assert row["score"] == 0.5 * (row["score_all"] + row["score_imu"])


def test_the_curve_has_the_figures_of_every_round_whatever_is_reported() -> None:
    trained = fit(task(), quick(log_every=1, n_rounds=20))
    seldom = fit(task(), quick(log_every=7, n_rounds=20))
    assert trained.curve is not None and seldom.curve is not None
    assert trained.curve.as_content() == seldom.curve.as_content()
    for scenario in ("all", "imu"):
        assert trained.curve.score[scenario].tolist() == [row[f"score_{scenario}"] for row in trained.history]
        assert trained.curve.logloss[scenario].tolist() == [row[f"valid_logloss_{scenario}"] for row in trained.history]


def test_the_curve_is_the_mean_over_seeds(tmp_path: Path) -> None:
    trained = fit(task(scratch=tmp_path), quick(seeds=2))
    assert trained.curve is not None
    rows = [[row["valid_logloss_imu"] for row in trained.history if row["seed"] == seed] for seed in (0, 1)]
    assert trained.curve.logloss["imu"] == pytest.approx(np.mean(rows, axis=0))


def test_held_out_sequences_decide_nothing_of_their_model() -> None:
    valid = batch(70, 2)
    other = task(valid=replace(valid, table=valid.table[::-1].copy()), valid_labels=np.roll(labels(70), 1))
    config = quick(n_rounds=30, learning_rate=0.5)
    (expected, found) = (fit(each, config) for each in (task(), other))
    assert found.texts == expected.texts
    assert found.trees[0].n_rounds == 30


def test_training_ends_where_no_tree_can_be_grown_and_the_curve_goes_on() -> None:
    constant = replace(batch(160, 1), table=np.zeros((160, N_FEATURES), np.float32))
    held = replace(batch(70, 2), table=np.zeros((70, N_FEATURES), np.float32))
    trained = fit(task(train=constant, valid=held, keep_steps=True), quick(n_rounds=6, modality_dropout=0.0))
    assert trained.curve is not None
    assert (trained.curve.n_steps, trained.trees[0].n_rounds) == (6, 1)
    cut = load_step(trained.encode(), 5, classes=CLASSES)
    assert np.array_equal(cut.predict_proba(held), trained.predict_proba(held))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_model_cut_to_a_round_scores_what_its_curve_says(tmp_path: Path, seeds: int) -> None:
    # few columns a tree and a bound on gain: some rounds find no split and leave no tree, and later ones do
    given = task(scratch=tmp_path, keep_steps=True)
    bounds = {"feature_fraction": 0.05, "min_gain_to_split": 8.0, "learning_rate": 0.1, "modality_dropout": 0.0}
    config = quick(n_rounds=20, seeds=seeds, **bounds)
    trained = fit(given, config)
    assert trained.curve is not None
    assert all(1 < trees.n_rounds < 20 for trees in trained.trees), "no round was without a split: nothing is tried"
    for step in range(1, 21):
        cut = load_step(trained.encode(), step, classes=CLASSES)
        assert "rounds_after" not in cut.summary
        losses = [given.loss(each.predict_proba(given.valid)) for each in cut.each_seed()]
        assert np.mean(losses) == pytest.approx(trained.curve.logloss["all"][step - 1], abs=1e-6)
        rounds = zip(trained.boosters, cut.summary["rounds"], strict=True)
        proba = np.mean([each.predict(given.valid.table, num_iteration=n) for each, n in rounds], axis=0)
        assert np.array_equal(cut.predict_proba(given.valid), proba.astype(np.float32))


@pytest.mark.parametrize("rounds_after", [None, [], [[]], [[0]], [["3"]], [[3], [3]], 3])
def test_what_does_not_say_what_each_round_left_is_not_cut(rounds_after: object) -> None:
    files = fit(task(keep_steps=True), quick(n_rounds=3)).encode()
    about = json.loads(files["lgbm.json"])
    about["summary"]["rounds_after"] = rounds_after
    with pytest.raises(ArtefactError, match="not a model of all rounds"):
        load_step({**files, "lgbm.json": json.dumps(about).encode()}, 2, classes=CLASSES)


def test_rows_come_every_few_rounds_and_at_the_end() -> None:
    seen: list[HistoryRow] = []
    trained = fit(task(on_progress=seen.append), quick(log_every=5, n_rounds=12))
    assert [row["step"] for row in seen] == [5, 10, 12]
    assert seen == trained.history
    assert all(row["fold"] == 0 for row in seen)


def test_where_training_stands_is_told_between_far_rows_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightgbm_training, "_SILENCE_S", 0.0)
    seen: list[HistoryRow] = []
    trained = fit(task(on_progress=seen.append), quick(log_every=4, n_rounds=8))
    assert [row["step"] for row in seen] == list(range(1, 9))
    assert [row["step"] for row in trained.history] == [4, 8]
    assert set(seen[0]) == {"fold", "seed", "step", "seconds"}


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_what_progress_raises_stops_the_training(raised: type[BaseException]) -> None:
    def stop(row: HistoryRow) -> None:
        raise raised

    with pytest.raises(raised):
        fit(task(on_progress=stop), quick(log_every=1))


# seeds and features


def test_several_seeds_are_averaged(tmp_path: Path) -> None:
    trained = fit(task(scratch=tmp_path), quick(seeds=3))
    files = trained.encode()
    assert sorted(files) == ["lgbm-1.txt", "lgbm-2.txt", "lgbm-3.txt", "lgbm.json"]
    assert len(set(files.values())) == 4
    each = [booster.predict(task().valid.table) for booster in trained.boosters]
    assert np.allclose(trained.predict_proba(task().valid), np.mean(each, axis=0), atol=1e-7)
    assert load(files, classes=CLASSES).encode() == files


def test_only_the_strongest_features_are_used() -> None:
    trained = fit(task(), quick(top_features=4))
    importance = trained.importance()
    assert trained.summary["n_features"] == 4
    assert np.count_nonzero(importance.gain) <= 4
    assert importance.split.sum() > 0
    loaded = load(trained.encode(), classes=CLASSES)
    assert np.array_equal(loaded.predict_proba(task().valid), trained.predict_proba(task().valid))


def test_importance_counts_splits_and_gain(model: LightGBMModel) -> None:
    importance = model.importance()
    assert importance.features == tuple(column.name for column in task().train.features)
    assert importance.split.tolist() == model.boosters[0].feature_importance("split").tolist()
    assert np.allclose(importance.gain, model.boosters[0].feature_importance("gain"), rtol=1e-6)


def test_a_missing_column_is_named(model: LightGBMModel) -> None:
    valid = task().valid
    less = replace(valid, features=valid.features[1:], table=valid.table[:, 1:])
    with pytest.raises(DataError, match=r"1 features of the model are missing: feature \[0\]"):
        model.predict_proba(less)


def test_an_extra_column_is_named(model: LightGBMModel) -> None:
    valid = task().valid
    more = replace(
        valid,
        features=(*valid.features, replace(valid.features[0], name="new")),
        table=np.concatenate([valid.table, valid.table[:, :1]], axis=1),
    )
    with pytest.raises(DataError, match="does not know: new"):
        model.predict_proba(more)


def test_columns_in_another_order_are_refused(model: LightGBMModel) -> None:
    valid = task().valid
    with pytest.raises(DataError, match=r"feature 0 is 'feature \[11\] = µ', the model expects 'feature \[0\] = µ'"):
        model.predict_proba(replace(valid, features=valid.features[::-1]))


# weights


def test_balanced_classes_weigh_the_same() -> None:
    uneven = np.where(np.arange(160) < 100, 0, labels(160)).astype(np.int64)
    rows = augmented(task(train_labels=uneven), quick(class_weight="balanced"))
    assert np.bincount(rows.labels, rows.weights) == pytest.approx([40.0] * 4)


def test_weights_by_gesture_are_used() -> None:
    rows = augmented(task(), quick(class_weight={"Wave hello": 3.0}, modality_dropout=0.0))
    assert (rows.weights == np.where(rows.labels == 2, 3.0, 1.0)).all()


def test_weights_of_unknown_gestures_are_refused() -> None:
    with pytest.raises(UsageError, match="not in the data: Wave goodbye"):
        fit(task(), quick(class_weight={"Wave goodbye": 3.0}))


def test_a_gesture_that_training_never_saw_gets_no_probability() -> None:
    trained = fit(task(train_labels=labels(160) % 3), quick(class_weight="balanced"))
    assert trained.predict_proba(task().valid)[:, 3].max() < 1e-6


# settings


@pytest.mark.parametrize(
    ("settings_", "match"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"modality_dropout": 1.5}, "modality_dropout is 1.5, expected a number from 0 to 1"),
        ({"select": "others"}, "did you mean other-folds"),
        ({"select_by": "loss"}, "did you mean logloss"),
        ({"scenario": "both"}, "expected mean, all or imu"),
        ({"class_weight": "even"}, "expected balanced, none, or weights"),
        ({"class_weight": {"Wave hello": -1.0}}, "expected a number from 0 on"),
        ({"params": {"feature_fractoin": 0.3}}, "did you mean feature_fraction"),
        ({"params": {"selectby": 3}}, "did you mean select_by"),
        ({"params": {"eta": 0.3}}, "set learning_rate instead"),
        ({"params": {"early_stopping_rounds": 3}}, "trained for n_rounds, and `select` says how many are kept"),
        ({"params": {"objective": "binary"}}, "'objective' cannot be set"),
        ({"params": {"linear_tree": True}}, "constant leaves"),
        ({"params": {"cat_smooth": "3 num_class=5"}}, "without spaces"),
        ({"params": {"cegb_tradeoff": "much"}}, "LightGBM refuses"),
        ({"params": {"boosting": "best"}}, "LightGBM refuses"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings_: Mapping[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        quick(**settings_)


def test_settings_reach_lightgbm() -> None:
    assert Config(max_bin=17).lightgbm()["max_bin"] == 17
    assert Config(params={"top_rate": "0.3"}).lightgbm()["top_rate"] == "0.3"


def test_parameters_with_a_value_a_feature_meet_the_data() -> None:
    constraints = ",".join(["0"] * N_FEATURES)
    assert fit(task(), quick(params={"monotone_constraints": constraints})).trees[0].n_rounds > 0
    assert fit(task(), quick(params={"monotone_constraints": [0] * N_FEATURES})).trees[0].n_rounds > 0
    with pytest.raises(UsageError, match="LightGBM stopped"):
        fit(task(), quick(params={"monotone_constraints": "0,1"}))


@pytest.mark.parametrize("boosting", ["dart", "rf"])
def test_other_kinds_of_boosting_can_be_saved_and_loaded(boosting: str) -> None:
    config = quick(params={"boosting": boosting}, bagging_freq=1, bagging_fraction=0.6)
    trained = fit(task(), config)
    proba = trained.predict_proba(task().valid)
    assert np.array_equal(load(trained.encode(), classes=CLASSES).predict_proba(task().valid), proba)
    assert np.abs(proba.sum(axis=1) - 1).max() < 1e-5
    assert trained.summary["rounds"] == [12]
    assert trained.history[-1]["score_all"] == pytest.approx(trained.summary["score_all"], abs=0.2)


@pytest.mark.parametrize("name", ["boosting", "boosting_type", "boost"])
@pytest.mark.parametrize("value", ["dart", "DART"])
def test_no_round_of_dart_can_be_cut_off(name: str, value: str) -> None:
    assert "changes earlier trees" in quick(params={name: value}).why_last
    assert quick(params={name: "rf"}, bagging_freq=1, bagging_fraction=0.6).why_last == ""


def test_an_abort_of_quantized_gradients_costs_no_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, train = fit(task(), quick()), lgb.train

    def aborting(params: dict[str, Any], *args: Any, **others: Any) -> Any:
        if params["use_quantized_grad"]:
            others["callbacks"].append(abort)
        return train(params, *args, **others)

    def abort(env: Any) -> None:
        raise lgb.basic.LightGBMError("Check failed: (best_split_info.right_count) > (0)")

    monkeypatch.setattr(lightgbm_training.lgb, "train", aborting)
    trained = fit(task(), quick(quantized=True, log_every=1))
    assert trained.summary["quantized"] == [False]
    assert trained.encode()["lgbm.txt"] == plain.encode()["lgbm.txt"]
    assert [row["step"] for row in trained.history] == list(range(1, 13))


def test_an_abort_of_lightgbm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def abort(*args: Any, **others: Any) -> Any:
        raise lgb.basic.LightGBMError("Check failed")

    monkeypatch.setattr(lightgbm_training.lgb, "train", abort)
    with pytest.raises(BfrbError, match="fold 0: LightGBM stopped: Check failed"):
        fit(task(), quick())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": CLASSES[:1]}, "1 gestures"),
        ({"train": batch(0, 1), "train_labels": labels(0)}, "0 training"),
        ({"valid": batch(0, 1), "valid_labels": labels(0)}, "0 held-out"),
        ({"train": replace(batch(160, 1), features=(), table=np.zeros((160, 0), np.float32))}, "no sequence features"),
    ],
)
def test_a_fold_that_cannot_be_learned_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        fit(task(**changes), quick())


# loading


def edited(model: LightGBMModel, **changes: Any) -> dict[str, bytes]:
    files = model.encode()
    about = {**json.loads(files["lgbm.json"]), **changes}
    return {**files, "lgbm.json": json.dumps(about).encode()}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": 2}, "has format 2, expected 1"),
        ({"classes": ["Wave hello"]}, "other gestures"),
        ({"features": []}, "no list of names"),
        ({"features": "abc"}, "no list of names"),
        ({"features": ["a"] * N_FEATURES}, "stands twice"),
        ({"features": ["a", "b"]}, "max_feature_idx"),
        ({"selected": [0, 1]}, "max_feature_idx"),
        ({"selected": [1, 0]}, "ascending"),
        ({"selected": [0, N_FEATURES]}, "ascending"),
        ({"selected": [-1]}, "ascending"),
        ({"selected": [True]}, "ascending"),
        ({"selected": []}, "ascending"),
        ({"summary": 1}, "summary"),
        ({"summary": float("nan")}, "NaN is not a JSON number"),
        ({"other": 1}, "does not describe"),
    ],
)
def test_a_wrong_description_is_refused(model: LightGBMModel, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ArtefactError, match=match):
        load(edited(model, **changes), classes=CLASSES)


def test_wrong_files_are_refused(model: LightGBMModel) -> None:
    files = model.encode()
    text = files["lgbm.txt"]
    for wrong in (
        {"lgbm.json": files["lgbm.json"]},
        {"lgbm.txt": text},
        {**files, "lgbm-2.txt": text},
        {"lgbm.json": files["lgbm.json"], "lgbm-1.txt": text},
        {**files, "lgbm.json": b"[" * 100_000},
        {**files, "lgbm.json": b"\xff"},
    ):
        with pytest.raises(ArtefactError):
            load(wrong, classes=CLASSES)


@given(st.data())
@settings(max_examples=100, deadline=None, database=None)
def test_changed_bytes_of_the_description_are_refused_or_harmless(data: st.DataObject) -> None:
    files = trained_once().encode()
    content = bytearray(files["lgbm.json"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        loaded = load({**files, "lgbm.json": bytes(content)}, classes=CLASSES)
    except ArtefactError:
        return
    assert loaded.selected.size == N_FEATURES


_TRAINED: list[LightGBMModel] = []


def trained_once() -> LightGBMModel:
    if not _TRAINED:
        _TRAINED.append(fit(task(), quick(n_rounds=2)))
    return _TRAINED[0]
