"""What the comparison of two models holds: the draw of subjects, and the variation over seeds where it is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import ArtefactError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.evaluation.seed_predictions import SEEDS, read_seed_predictions
from bfrbctl.features.folder import read_features
from bfrbctl.inspection import View, inspect, options_of
from bfrbctl.inspection.views.comparison import verdict_of, with_training
from bfrbctl.models.interface import model_kind
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.models.lightgbm.model import LightGBMModel, load
from bfrbctl.training.cross_validation import CrossValidation, cross_validate


def trained(features: Folder, path: Path, *, seeds: int, seed: int = 0) -> Folder:
    config = Config(seeds=seeds, threads=1, n_rounds=1, min_data_in_leaf=2, feature_fraction=0.01)
    run = CrossValidation(features, model_kind("lgbm"), config, seed=seed)
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path, "model")


@pytest.fixture(scope="module")
def several(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Folder]:
    """Two models of three seeds, and one of one seed."""
    base = tmp_path_factory.mktemp("seeds")
    shapes = {"a": (3, 0), "b": (3, 7), "one": (1, 0)}
    return [trained(feature_folder, base / name, seeds=n, seed=seed) for name, (n, seed) in shapes.items()]


def compared(a: Folder, b: Folder) -> View:
    return inspect("compare", a.path, options_of("compare", other=b.path))


def test_training_keeps_what_each_seed_answered(several: Sequence[Folder], feature_folder: Folder) -> None:
    found = read_seed_predictions(several[0])
    assert found is not None
    part = oof.read_oof(several[0])["all"]
    assert np.array_equal(found.truth, part.truth)
    assert {name: rows.shape for name, rows in found.predicted.items()} == {"all": (3, 48), "imu": (3, 48)}
    assert not np.array_equal(*found.predicted["all"][:2]), "seeds that never differ would test nothing"
    index, batch = read_features(feature_folder, parts={"table"})
    held = np.flatnonzero(index["fold"].to_numpy() == 1)
    files = {name[7:]: several[0].read(name) for name in several[0].names(r"fold-1\.lgbm.+")}
    model = LightGBMModel.each_seed(load(files, classes=tuple(several[0].content["classes"])))
    for one, by_seed in zip(model, found.predicted["imu"], strict=True):
        predicted = np.argmax(one.predict_proba(batch.imu_only().take(held)), axis=1)
        order = np.argsort(index["sequence_id"].to_numpy()[held])
        assert np.array_equal(by_seed[part.folds == 1], predicted[order])
    assert read_seed_predictions(several[2]) is None


def test_with_seeds_the_interval_holds_training_too(several: Sequence[Folder]) -> None:
    view = compared(*several[:2])
    scores, seeds = view.tables[0], next(t for t in view.tables if t.title == "score of one seed by itself")
    found = read_seed_predictions(several[0])
    assert found is not None
    alone = [hierarchical_f1(found.truth, row, several[0].content["targets"]).score for row in found.predicted["all"]]
    assert seeds.rows[0] == ("A", "all", 3, min(alone), max(alone), pytest.approx(np.std(alone, ddof=1)))
    for row in scores.rows:
        cells = dict(zip(scores.columns, row, strict=True))
        assert cells["low 95 with training"] <= cells["low 95"] <= cells["high 95"] <= cells["high 95 with training"]
    assert any("hold the variation over seeds too" in note for note in view.notes)


def test_without_seeds_the_view_says_what_is_not_known(several: Sequence[Folder], blend_folder: Folder) -> None:
    view = compared(several[0], several[2])
    assert {row[-2:] for row in view.tables[0].rows} == {(None, None)}
    assert "the two models stay as they were trained" in view.notes[0]
    assert [note[:2] for note in view.notes[1:]] == ["B:"]
    notes = compared(blend_folder, several[0]).notes
    assert notes[1].startswith("A: the variation over seeds is not known: a blend keeps no predictions")


def test_a_verdict_says_no_more_than_its_interval_holds() -> None:
    assert verdict_of((-0.1, 0.1), None) == verdict_of((-0.1, 0.1), (-0.2, 0.2))
    assert "how far training again would move it is not known" in verdict_of((0.01, 0.1), None)
    assert "other seeds may change that" in verdict_of((0.01, 0.1), (-0.05, 0.2))
    assert verdict_of((0.01, 0.1), (0.005, 0.2)).startswith("B is better")
    assert verdict_of((-0.1, -0.02), (-0.2, -0.01)).startswith("A is better")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(-0.5, 0.5), st.floats(0, 0.2), st.floats(0, 0.2))
def test_training_again_never_makes_an_interval_narrower(
    scores: list[float], gain: float, below: float, above: float
) -> None:
    seeds = np.array(scores)
    wide = with_training(gain, (gain - below, gain + above), [seeds, seeds])
    assert wide is not None
    assert wide[0] <= gain - below + 1e-9 and wide[1] >= gain + above - 1e-9
    assert with_training(gain, (gain - below, gain + above), [seeds, None]) is None
    same = with_training(gain, (gain - below, gain + above), [np.full(3, 0.5)] * 2)
    assert same == pytest.approx((gain - below, gain + above))


def test_two_seeds_say_less_than_five_of_the_same_spread() -> None:
    two, five = np.array([0.4, 0.6]), np.array([0.4, 0.6, 0.4, 0.6, 0.5])
    wide = [with_training(0.0, (-0.01, 0.01), [seeds, seeds]) for seeds in (two, five)]
    assert wide[0] is not None and wide[1] is not None
    assert wide[0][1] > 4 * wide[1][1]


def test_predictions_of_seeds_that_do_not_fit_the_model_are_refused(several: Sequence[Folder], tmp_path: Path) -> None:
    table = several[0].read_parquet(SEEDS)
    broken = {
        "sequences": table.filter(pl.col("sequence_id") != table["sequence_id"][0]),
        "columns": table.drop("answer"),
        "predictions": table.with_columns(seed=pl.col("seed").shuffle(seed=1)),
        "not among": table.with_columns(answer=pl.lit("Yawn")),
    }
    for number, (match, rows) in enumerate(broken.items()):
        with open_output(tmp_path / str(number), Job("model", {})) as output:
            output.publish("all", {**{name: several[0].read(name) for name in several[0].files}, SEEDS: rows})
            folder = output.finish(several[0].content)
        with pytest.raises(ArtefactError, match=match):
            read_seed_predictions(folder)
