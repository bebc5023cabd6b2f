from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble.blending import aligned_members, blend, decoding_note, nesting_note, notes_of, read_mixtures
from bfrbctl.ensemble.mixing import (
    BlendConfig,
    Mixture,
    decide,
    fit_mixture,
    fit_temperature,
    fit_threshold,
    nested,
    nesting_groups,
    pool,
    temper,
)
from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import score_intervals
from bfrbctl.evaluation.metrics import hierarchical_f1, log_loss, score_proba
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.inspection import inspect

TARGETS = [True, True, False]


def members(n: int = 300, seed: int = 0, noise: tuple[float, ...] = (1.0, 1.0)) -> tuple[list[np.ndarray], OofScenario]:
    """Members that know the truth but for noise of their own."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    probas = []
    for level in noise:
        logits = 2.0 * np.eye(3)[truth] + level * rng.normal(size=(n, 3))
        powers = np.exp(logits)
        probas.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))
    keys = pl.DataFrame(
        {
            "sequence_id": [f"q{i:04d}" for i in range(n)],
            "subject": [f"s{i % 12}" for i in range(n)],
            "fold": [i % 12 % 4 for i in range(n)],
            "gesture": [str(k) for k in truth],
        }
    )
    return probas, OofScenario(keys, truth.astype(np.int64), probas[0])


@given(
    st.floats(0.2, 5.0),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    st.sampled_from(["arithmetic", "logarithmic"]),
)
def test_blends_are_probabilities(temperature: float, weights: list[float], pooling: str) -> None:
    probas, _ = members(20, noise=(1.0, 2.0, 0.5))
    share = np.array(weights) / sum(weights)
    mixed = pool([temper(p, temperature, 1e-4) for p in probas], share.tolist(), pooling)
    assert np.allclose(mixed.sum(axis=1), 1)
    assert (mixed > 0).all()


def test_temperature_one_leaves_probabilities_and_softening_is_found() -> None:
    probas, part = members()
    assert np.allclose(temper(probas[0], 1.0, 1e-9), probas[0], atol=1e-6)
    sharp = temper(probas[0], 0.25, 1e-9)
    found = fit_temperature(sharp, part.truth, 1e-9)
    direct = fit_temperature(probas[0], part.truth, 1e-9)
    assert found == pytest.approx(4 * direct, rel=0.01)
    assert log_loss(temper(sharp, found, 1e-9), part.truth) < log_loss(sharp, part.truth)


def test_the_better_member_decides_and_equal_members_weigh_the_same() -> None:
    probas, part = members(noise=(0.5, 4.0))
    mixed = fit_mixture(probas, part.truth, TARGETS, BlendConfig()).mix(probas)
    better = np.argmax(probas[0], axis=1)
    assert (np.argmax(mixed, axis=1) == better).mean() > 0.97 > (np.argmax(probas[1], axis=1) == better).mean()
    twins = [probas[0], probas[0]]
    assert fit_mixture(twins, part.truth, TARGETS, BlendConfig()).weights == (0.5, 0.5)


def test_in_sample_the_blend_is_no_worse_than_equal_weights() -> None:
    for seed in range(3):
        probas, part = members(seed=seed, noise=(1.0, 1.5, 2.0))
        mixture = fit_mixture(probas, part.truth, TARGETS, BlendConfig())
        scaled = [temper(p, t, 1e-4) for p, t in zip(probas, mixture.temperatures, strict=True)]
        equal = pool(scaled, [1 / 3] * 3, "arithmetic")
        got = score_proba(mixture.mix(probas), part.truth, TARGETS).score
        assert got >= score_proba(equal, part.truth, TARGETS).score - 1e-9


def test_the_nested_blend_of_a_fold_does_not_see_that_fold() -> None:
    probas, part = members()
    honest = nested(probas, part, TARGETS, BlendConfig())
    lied = part.truth.copy()
    held = part.folds == 2
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(part.keys, lied, part.proba), TARGETS, BlendConfig())
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert not np.array_equal(honest.proba[~held], again.proba[~held])
    for rule, predicted in honest.predicted.items():
        assert np.array_equal(predicted[held], again.predicted[rule][held])


def biased(bias: float, *, n: int = 240, seed: int = 3) -> tuple[list[np.ndarray], OofScenario]:
    """A member that favours non-targets in one half of the folds, so that groups disagree on the decoding rule."""
    probas, part = members(n, seed=seed, noise=(2.5,))
    proba = probas[0] * np.where((part.folds < 2)[:, None], [1.0, 1.0, bias], 1.0).astype(np.float32)
    return [proba / proba.sum(axis=1, keepdims=True)], part


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=20)
def test_what_a_fold_answers_does_not_depend_on_its_labels(seed: int, fold: int, bias: float) -> None:
    probas, part = biased(bias, n=96, seed=seed % 1000)
    held = part.folds == fold
    lied = part.truth.copy()
    lied[held] = np.random.default_rng(seed).integers(0, 3, held.sum())
    honest = nested(probas, part, TARGETS, BlendConfig())
    again = nested(probas, OofScenario(part.keys, lied, part.proba), TARGETS, BlendConfig())
    assert honest.rules[fold] == again.rules[fold]
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert np.array_equal(honest.decided[held], again.decided[held])


def gain_of_the_threshold(part: OofScenario, predicted: Mapping[str, np.ndarray]) -> tuple[float, list[float]]:
    """How much better the threshold answers than argmax: on all folds, and without each."""

    def gain(rows: np.ndarray) -> float:
        scores = {
            rule: hierarchical_f1(part.truth[rows], each[rows], TARGETS).score for rule, each in predicted.items()
        }
        return scores["threshold"] - scores["argmax"]

    return gain(part.folds >= 0), [gain(part.folds != fold) for fold in np.unique(part.folds)]


def test_each_fold_is_decoded_by_the_rule_that_the_others_choose() -> None:
    disagreed = 0
    for seed in range(12):
        probas, part = biased(1.5, seed=seed)
        honest = nested(probas, part, TARGETS, BlendConfig())
        for fold in range(4):
            held, rest = part.folds == fold, part.folds != fold
            inside = OofScenario(part.keys.filter(rest), part.truth[rest], probas[0][rest])
            within = nested([probas[0][rest]], inside, TARGETS, BlendConfig(decode="argmax"))
            gain, without = gain_of_the_threshold(inside, within.predicted)
            error = (sum((each - sum(without) / 3) ** 2 for each in without) * 2 / 3) ** 0.5  # of the jackknife
            assert honest.rules[fold] == ("threshold" if gain > error else "argmax")
            assert np.array_equal(honest.decided[held], honest.predicted[honest.rules[fold]][held])
        disagreed += len(set(honest.rules.values())) == 2
    assert disagreed, "every fold chose alike: nothing was tried"


def test_many_groups_choose_by_a_few_inner_ones() -> None:
    probas, part = members(n=120, noise=(2.0,))
    alone = OofScenario(part.keys.with_columns(fold=pl.Series(range(120)) % 12), part.truth, part.proba)
    honest = nested(probas, alone, TARGETS, BlendConfig())
    assert sorted(honest.rules) == list(range(12))
    held = alone.folds == 7
    lied = alone.truth.copy()
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(alone.keys, lied, part.proba), TARGETS, BlendConfig())
    assert honest.rules[7] == again.rules[7]
    assert np.array_equal(honest.decided[held], again.decided[held])


@pytest.mark.parametrize("decode", ["argmax", "threshold"])
def test_a_rule_that_is_asked_for_is_that_of_every_fold(decode: str) -> None:
    probas, part = members()
    config = BlendConfig(decode=decode)
    honest = nested(probas, part, TARGETS, config)
    assert honest.rules == dict.fromkeys(range(4), decode)
    assert np.array_equal(honest.decided, honest.predicted[decode])
    assert honest.kept_rule(part.truth, TARGETS, config) == decode


def test_two_groups_leave_none_to_choose_a_rule_by() -> None:
    probas, part = biased(0.2)
    two = OofScenario(part.keys.with_columns(pl.col("fold") // 2), part.truth, part.proba)
    honest = nested(probas, two, TARGETS, BlendConfig())
    assert honest.rules == {0: "argmax", 1: "argmax"}
    assert honest.kept_rule(part.truth, TARGETS, BlendConfig()) == "argmax"
    rules = {"all": {"asked": "auto"}}
    assert "auto is argmax" in str(decoding_note({"rules": rules, "nesting": {"groups": 2}}))
    assert decoding_note({"rules": rules, "nesting": {"groups": 3}}) is None
    assert decoding_note({"rules": {"all": {"asked": "argmax"}}, "nesting": {"groups": 2}}) is None
    assert decoding_note({"rules": {"all": {"chosen": "argmax"}}}) is None


def test_the_interval_holds_the_score() -> None:
    probas, part = members()
    low, high = score_intervals({"all": part}, TARGETS, seed=0)["all"]
    assert low < score_proba(probas[0], part.truth, TARGETS).score < high


def test_a_blend_travels_with_its_members(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    assert blend_folder.content["members"] == ["soft", "sharp"]
    assert blend_folder.read("member-1.fold-2.toy.npz") == model_folders[1].read("fold-2.toy.npz")
    told = blend_folder.read_json("metrics.json")
    assert told["best_member"] in ("soft", "sharp")
    assert told["optimistic"]["all"]["score"] >= 0
    parts = oof.read_oof(blend_folder)
    assert told["score"] == pytest.approx(
        np.mean([part.score(blend_folder.content["targets"]).score for part in parts.values()])
    )


def changed(folder: Folder, path: Path, rows: pl.DataFrame | None = None, **content: object) -> Folder:
    """The same model with another OOF table or other content."""
    with open_output(path, Job("model", {})) as output:
        files = {name: folder.read(name) for name in folder.files}
        output.publish("all", {**files, **({} if rows is None else {oof.OOF: rows})})
        return output.finish({**folder.content, **content})


def test_members_that_differ_are_refused_with_the_first_difference(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    first, other = model_folders
    rows = other.read_parquet(oof.OOF)
    name = rows["sequence_id"][0]
    here = pl.col("sequence_id") == name
    moved = rows.with_columns(fold=(pl.col("fold") + 1) % 3)
    with pytest.raises(DataError, match=r"fold of sequence SEQ_\d+: . and . \(48 sequences differ\)"):
        aligned_members([first, changed(other, tmp_path / "a", moved)])
    with pytest.raises(DataError, match=f"sequence {name} is in one of them only"):
        aligned_members([first, changed(other, tmp_path / "b", rows.filter(~here))])
    renamed = rows.with_columns(gesture=pl.when(here).then(pl.lit("Wave hello")).otherwise("gesture"))
    with pytest.raises(DataError, match=f"gesture of sequence {name}: .* and Wave hello"):
        aligned_members([first, changed(other, tmp_path / "c", renamed)])
    classes = [*first.content["classes"][:-1], "Yawn"]
    with pytest.raises((DataError, ArtefactError), match=r"Yawn|Wave hello"):
        aligned_members([first, changed(other, tmp_path / "d", classes=classes)])


def test_fixed_weights_must_name_every_member(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    for wrong in (("soft=1",), ("soft=a", "sharp=1"), ("soft=-1", "sharp=2"), ("soft=0", "sharp=0")):
        with pytest.raises(UsageError, match="--weights"), open_output(tmp_path / "b", Job("blend", {})) as output:
            blend(model_folders, output, BlendConfig(weights=wrong))
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        folder = blend(model_folders, output, BlendConfig(weights=("soft=1", "sharp=3")))
    assert read_mixtures(folder)["imu"].weights == (0.25, 0.75)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": [2.0, -1.0]},
        {"weights": [1.0]},
        {"temperatures": [0.0, 1.0]},
        {"pooling": "harmonic"},
        {"epsilon": "x"},
    ],
)
def test_weights_that_cannot_be_are_refused(blend_folder: Folder, tmp_path: Path, change: dict[str, object]) -> None:
    told = blend_folder.read_json("weights.json")
    told["scenarios"]["all"] |= change
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        output.publish("w", {"weights.json": encode_json(told)})
        folder = output.finish(blend_folder.content)
    with pytest.raises(ArtefactError, match="scenario all"):
        read_mixtures(folder)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="pooling is 'median', expected arithmetic or logarithmic"):
        BlendConfig(pooling="median")
    with pytest.raises(UsageError, match=r"epsilon is 0\.5, expected a number, above 0 and below 0\.05"):
        BlendConfig(epsilon=0.5)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_the_threshold_decides_between_targets_and_the_rest(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(3), size=50)
    for row, answer in zip(proba, decide(proba, TARGETS, threshold), strict=True):
        if row[:2].sum() >= threshold:
            assert answer == np.argmax(row[:2])
        else:
            assert answer == 2


def test_without_a_threshold_or_without_two_sides_the_most_probable_gesture_is_answered() -> None:
    proba = np.random.default_rng(0).dirichlet(np.ones(3), size=50)
    best = np.argmax(proba, axis=1)
    assert np.array_equal(decide(proba, TARGETS, None), best)
    assert np.array_equal(decide(proba, [True] * 3, 0.9), best)
    assert fit_threshold(proba, best, [False] * 3) is None


def test_a_threshold_mends_probabilities_that_favour_one_side() -> None:
    probas, part = members(n=600, noise=(1.0,))
    biased = probas[0] * np.array([0.3, 0.3, 1.0], dtype=np.float32)
    biased /= biased.sum(axis=1, keepdims=True)
    threshold = fit_threshold(biased, part.truth, TARGETS)
    assert threshold is not None and threshold < 0.5
    mended = hierarchical_f1(part.truth, decide(biased, TARGETS, threshold), TARGETS).score
    assert mended > score_proba(biased, part.truth, TARGETS).score


def test_a_mixture_of_some_members_keeps_their_proportions() -> None:
    mixture = Mixture((1.0, 2.0, 3.0), (0.5, 0.2, 0.3), "arithmetic", 1e-4, 0.4)
    some = mixture.only([1, 2])
    assert some.temperatures == (2.0, 3.0)
    assert some.weights == pytest.approx((0.4, 0.6))
    assert some.threshold == 0.4
    assert Mixture((1.0, 1.0), (1.0, 0.0), "arithmetic", 1e-4).only([1]).weights == (1.0,)


def test_the_answers_in_a_blend_are_those_of_the_rule_it_chose(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    for decode in ("argmax", "threshold"):
        config = BlendConfig(decode=decode)
        with open_output(tmp_path / decode, Job("blend", {"decode": decode})) as output:
            made = blend(model_folders, output, config)
        told = made.read_json("metrics.json")
        for scenario, mixture in read_mixtures(made).items():
            assert (mixture.threshold is None) == (decode == "argmax")
            assert told["scenarios"][scenario]["score"] == told["rules"][scenario]["scores"][decode]
            assert told["rules"][scenario]["by_group"] == dict.fromkeys("012", decode)
        parts = oof.read_oof(made)
        assert told["score"] == np.mean([part.score(made.content["targets"]).score for part in parts.values()])


def test_assignment_without_joint_labels_is_refused(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="no member has joint labels"),
        open_output(tmp_path / "blend", Job("blend", {})) as output,
    ):
        blend(model_folders, output, BlendConfig(assign="causal"))


def of_fold(folder: Folder, path: Path, fold: int, *, subjects: int = 2) -> Folder:
    """The same model as if one fold alone had been trained, holding out so many subjects."""
    rows = folder.read_parquet(oof.OOF).filter(pl.col("fold") == fold)
    kept = rows["subject"].unique().sort()[:subjects].to_list()
    return changed(folder, path, rows.filter(pl.col("subject").is_in(kept)), folds=[fold])


def test_models_of_one_fold_are_blended_by_groups_of_its_subjects(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    members = [of_fold(folder, tmp_path / folder.path.name, 1) for folder in model_folders]
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        made = blend(members, output, BlendConfig())
    told = made.read_json("metrics.json")
    assert told["nesting"] == {"over": "groups of subjects", "groups": 2}
    assert inspect("blend", made.path).notes[-2:] == (nesting_note(told), decoding_note(told)) == tuple(notes_of(told))
    assert "one fold" in str(nesting_note(told))
    parts = oof.read_oof(made)
    assert told["score"] == np.mean([part.score(made.content["targets"]).score for part in parts.values()])


def test_the_blend_of_one_fold_does_not_score_subjects_that_it_was_fitted_on() -> None:
    probas, part = members()
    alone = OofScenario(part.keys.with_columns(fold=3), part.truth, part.proba)
    groups = nesting_groups(alone)
    assert len(np.unique(groups)) == 5
    honest = nested(probas, alone, TARGETS, BlendConfig())
    lied = part.truth.copy()
    held = groups == 2
    lied[held] = (lied[held] + 1) % 3
    again = nested(probas, OofScenario(alone.keys, lied, part.proba), TARGETS, BlendConfig())
    assert np.array_equal(honest.proba[held], again.proba[held])
    assert not np.array_equal(honest.proba[~held], again.proba[~held])
    divided = alone.keys.with_columns(group=groups).group_by("subject").agg(pl.col("group").n_unique())
    assert divided["group"].to_list() == [1] * 12


def test_one_fold_with_one_subject_is_refused_before_anything_is_fitted(
    model_folders: tuple[Folder, Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [of_fold(folder, tmp_path / folder.path.name, 1, subjects=1) for folder in model_folders]
    monkeypatch.setattr("bfrbctl.ensemble.blending.fit_mixture", None)
    with (
        pytest.raises(DataError, match=r"fold 1 is the only one .* holds out one subject"),
        open_output(tmp_path / "b", Job("blend", {})) as output,
    ):
        blend(members, output, BlendConfig())


def test_a_blend_of_several_folds_says_that_it_is_nested_over_them(blend_folder: Folder) -> None:
    told = blend_folder.read_json("metrics.json")
    assert told["nesting"] == {"over": "folds", "groups": 3}
    assert nesting_note(told) is None and nesting_note({}) is None
