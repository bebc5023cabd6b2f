import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfrbctl.errors import ArtefactError, BfrbError, DataError, UsageError
from bfrbctl.evaluation.metrics import log_loss, score_proba
from bfrbctl.models.interface import HistoryRow
from bfrbctl.models.lightgbm import training as lightgbm_training
from bfrbctl.models.lightgbm.library import lgb
from bfrbctl.models.lightgbm.model import fit, load_step
from bfrbctl.models.lightgbm.training import augmented
from tests.tree_batches import CLASSES, N_FEATURES, TARGETS, batch, labels, quick, task

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


def test_history_has_the_metric_of_both_scenarios() -> None:
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


def test_where_training_stands_is_reported_between_far_rows_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
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


# what cannot be learned


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


def test_an_abort_of_lightgbm_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
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
