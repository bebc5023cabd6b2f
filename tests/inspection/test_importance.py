from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.features.folder import read_features
from bfrbctl.inspection import View, inspect, options_of
from bfrbctl.models.interface import model_kind
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests.raw_recordings import raw_frames, write_raw


@pytest.fixture(scope="module")
def trees(feature_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    kind = model_kind("lgbm")
    config = kind.config_class(n_rounds=6, min_data_in_leaf=2, seeds=2)
    run = CrossValidation(feature_folder, kind, config)
    path = tmp_path_factory.mktemp("trees") / "lgbm"
    with open_output(path, Job("model", {"model": "lgbm"}, (feature_folder.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path)


def shares(view: View, title: str) -> dict[str, float]:
    table = next(table for table in view.tables if table.title == title)
    place = next(i for i, name in enumerate(table.columns) if name.endswith(" share"))
    return {row[0]: row[place] for row in table.rows}


def test_importance_shares_sum_to_one_by_feature_family_and_modality(trees: Folder) -> None:
    view = inspect("feature-importance", trees.path)
    for group in ("features", "family", "modality"):
        assert sum(shares(view, f"{group} by gain").values()) == pytest.approx(1.0)
    for row in next(table for table in view.tables if table.title == "features by gain").rows:
        assert row[6] <= row[3] <= row[7]
    assert view.facts["tree models"] == 3


def test_the_curve_of_a_training_with_default_settings_has_every_round(trees: Folder) -> None:
    (curves,) = inspect("training", trees.path).figures
    assert [series.x for series in curves.series] == [(1, 2, 3, 4, 5, 6)] * 6


def test_shap_values_are_of_what_the_fold_held_out_and_sum_to_one(trees: Folder, feature_folder: Folder) -> None:
    options = options_of("feature-importance", features=feature_folder.path, shap=True, sample=10)
    view = inspect("feature-importance", trees.path, options)
    found = shares(view, "features by SHAP")
    assert sum(found.values()) == pytest.approx(1.0)
    gain = shares(view, "features by gain")
    assert all(gain[name] > 0 for name, share in found.items() if share > 0)
    assert view.as_json() == inspect("feature-importance", trees.path, options).as_json()


def test_shap_needs_the_feature_folder(trees: Folder, dataset_folder: Folder) -> None:
    for features in (None, dataset_folder.path):
        with pytest.raises(UsageError, match="needs the sequence table"):
            inspect("feature-importance", trees.path, options_of("feature-importance", features=features, shap=True))


def test_contributions_and_expectation_sum_to_the_raw_score(trees: Folder, feature_folder: Folder) -> None:
    classes = tuple(trees.content["classes"])
    files = {name.removeprefix("fold-0."): trees.read(name) for name in trees.names(r"fold-0\..*")}
    model: Any = model_kind("lgbm").load(files, classes=classes)
    _, batch = read_features(feature_folder, parts=frozenset({"table"}))
    contributions = model.contributions(batch)
    assert contributions.shape == (48, len(model.features), 4)
    raw = np.mean([booster.predict(batch.table, raw_score=True) for booster in model.boosters], axis=0)
    expectation = raw - contributions.sum(axis=1)
    assert np.ptp(expectation, axis=0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert model.contributions(batch.take(np.zeros(0, dtype=np.int64))).shape == (0, len(model.features), 4)
    with pytest.raises(DataError, match="features of the model are missing"):
        model.contributions(read_features(feature_folder, parts=frozenset({"frames"}))[1])


def test_a_model_of_trees_has_curves_and_seconds(trees: Folder) -> None:
    view = inspect("training", trees.path)
    assert len(view.tables[0].rows) == 6  # 3 folds, 2 seeds
    assert all(row[6] > 0 for row in view.tables[0].rows)
    assert len(view.figures[0].series) == 6  # type: ignore[union-attr]  # 3 folds, 2 scenarios, the first seed


# --------------------------------------------------------------------------------------------------------- feature


def explained(feature_folder: Folder, name: str, **options: Any) -> View:
    return inspect("feature", feature_folder.path, options_of("feature", feature=name, **options))


def test_a_feature_tells_formula_window_and_the_quantiles_of_each_gesture(feature_folder: Folder) -> None:
    name = "lin_mag__last32_std"
    view = explained(feature_folder, name)
    assert view.facts["unit"] == "m/s^2"
    assert view.facts["formula"].startswith("population standard deviation; x = lin_mag")
    assert view.facts["family"].startswith("moments: ")
    index, batch = read_features(feature_folder, parts={"table"})
    all_lengths = feature_folder.read_parquet("index.parquet")["n_frames"].clip(upper_bound=32)
    assert view.facts["window_frames"] == (
        f"{all_lengths.median():g} in the median recording, {all_lengths.min()} to {all_lengths.max()}"
    )
    values = batch.table[:, [column.name for column in batch.features].index(name)]
    by_gesture = view.tables[0]
    assert sum(row[2] for row in by_gesture.rows) == index.height
    for row in by_gesture.records:
        found = values[(index["gesture"] == row["gesture"]).to_numpy()]
        known = found[~np.isnan(found)].astype(np.float64)
        assert row["median"] == pytest.approx(np.median(known))
        assert row["5 %"] == pytest.approx(np.quantile(known, 0.05))
        assert row["null share"] == pytest.approx(1 - known.size / found.size)
    assert [row[0] for row in by_gesture.rows] == list(view.figures[0].labels)


@pytest.mark.parametrize("name", ["lin_mag__mean", "lin_mag__first_mean", "lin_mag__middle_mean", "lin_mag__last_mean"])
def test_the_window_of_a_feature_is_that_over_which_it_is_computed(feature_folder: Folder, name: str) -> None:
    view = explained(feature_folder, name)
    lengths = np.sort(feature_folder.read_parquet("index.parquet")["n_frames"].to_numpy()).astype(int)
    third = {"mean": (0, 3), "first_mean": (0, 1), "middle_mean": (1, 2), "last_mean": (2, 3)}[name.split("__")[1]]
    frames = lengths * third[1] // 3 - lengths * third[0] // 3
    assert view.facts["window_frames"].startswith(f"{np.median(frames):g}")
    assert view.facts["window_seconds"].startswith(f"{np.median(frames) / 10:g}")


def test_a_frame_channel_is_explained_over_its_frames(feature_folder: Folder) -> None:
    view = explained(feature_folder, "acc_x")
    assert view.facts["window_seconds"] == "0.1"
    index, batch = read_features(feature_folder, parts={"frames"})
    assert sum(row["frames"] for row in view.tables[0].records) == len(batch.frames) == index["n_frames"].sum()
    column = batch.frames[:, [channel.name for channel in batch.channels].index("acc_x")]
    assert max(row["most"] for row in view.tables[0].records) == pytest.approx(np.nanmax(column))


def test_the_importance_of_a_feature_is_its_place_among_all(trees: Folder, feature_folder: Folder) -> None:
    ranked = inspect("feature-importance", trees.path).tables[0]
    for number in (0, 3):
        view = explained(feature_folder, ranked.rows[number][0], model=trees.path)
        assert view.facts["gain_share"] == ranked.rows[number][3]
        assert view.facts["rank"] == f"{number + 1} of {len(ranked.rows)}"
    unused = next(row for row in ranked.rows if not row[4])
    assert explained(feature_folder, unused[0], model=trees.path).facts["rank"] == "none: no tree uses it"
    channel = explained(feature_folder, "acc_x", model=trees.path)
    assert "gain_share" not in channel.facts
    assert "a frame channel has no importance" in channel.notes[0]


@pytest.mark.parametrize(
    ("odd", "match"),
    [
        (pl.lit("many").alias("gain"), "column gain is String"),
        (pl.lit(float("nan")).alias("gain"), "gain nan, .* cannot be"),
        (pl.lit(3).alias("feature"), "column feature is Int32"),
        (pl.lit(-(2**60)).alias("split"), "splits cannot be"),
    ],
)
def test_importances_that_cannot_be_are_refused(trees: Folder, tmp_path: Path, odd: pl.Expr, match: str) -> None:
    table = trees.read_parquet("importance.parquet").with_columns(odd)
    with open_output(tmp_path / "odd", Job("model", dict(trees.config))) as output:
        output.publish("all", {name: trees.read(name) for name in trees.files} | {"importance.parquet": table})
        output.finish(trees.content)
    with pytest.raises(ArtefactError, match=match):
        inspect("feature-importance", tmp_path / "odd")


def test_a_name_that_is_not_there_is_refused_with_the_nearest(feature_folder: Folder) -> None:
    for given, hint in (
        ("lin_mag__last32_sdt", "did you mean lin_mag__last32_std"),
        ("last32_std", "__last32_std"),
        ("\N{SNOWMAN}", "all of them in catalogue.parquet"),
    ):
        with pytest.raises(UsageError, match="has no feature or channel") as caught:
            explained(feature_folder, given)
        assert caught.value.hint is not None
        assert hint in caught.value.hint


def test_a_model_without_trees_or_of_other_recordings_is_refused(
    feature_folder: Folder, blend_folder: Folder, trees: Folder, raw_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no tree model is in it"):
        explained(feature_folder, "lin_mag__mean", model=blend_folder.path)
    with pytest.raises(ArtefactError, match="expected"):
        explained(feature_folder, "lin_mag__mean", model=feature_folder.path)
    splits = find_splits(write_raw(tmp_path / "raw", raw_frames(subjects=3, seed=77)))
    with open_output(tmp_path / "data", Job("dataset", {}, split_refs(splits))) as output:
        data = prepare(splits, output, PrepareConfig(folds=3))
    with open_output(tmp_path / "other", Job("features", {"table": True}, (data.ref(),))) as output:
        other = featurize(data, output, FeatureConfig(families=("moments",)))
    with pytest.raises(DataError, match=r"does not know sequence|is SUBJ"):
        explained(other, "lin_mag__mean", model=trees.path)


def test_an_unlabelled_folder_has_no_distribution_by_gesture(raw_folder: Path, tmp_path: Path) -> None:
    splits = find_splits(write_raw(tmp_path / "raw", raw_frames(subjects=2, seed=5, labelled=False), split="test"))
    with open_output(tmp_path / "data", Job("dataset", {}, split_refs(splits))) as output:
        data = prepare(splits, output, PrepareConfig())
    with open_output(tmp_path / "features", Job("features", {"table": True}, (data.ref(),))) as output:
        folder = featurize(data, output, FeatureConfig(families=("moments", "spectral")))
    view = explained(folder, "lin_mag__power")
    assert [table.title for table in view.tables] == ["distribution by split"]
    assert view.figures == ()
    assert view.facts["welch_segment"] == "32 frames, 3.2 s"
