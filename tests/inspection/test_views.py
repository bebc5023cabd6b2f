import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bfrbctl.artefacts.files import encode_json, parse_json
from bfrbctl.artefacts.folders import MANIFEST, Folder, open_folder, sealed
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.inspection import VIEWS, Options, Table, View, inspect, options_of
from bfrbctl.inspection.report import write_report
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.submission import open_input, predict
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits
from tests import toy_model
from tests.conftest import train_toy
from tests.raw_recordings import raw_frames, write_raw


def tables(view: View) -> dict[str, Table]:
    return {table.title: table for table in view.tables}


def rewritten(folder: Folder, path: Path, **files: pl.DataFrame) -> Folder:
    """Copy a folder, some of its tables replaced, under a sound manifest."""
    content = {name: files.get(name.partition(".")[0], folder.read(name)) for name in folder.files}
    with open_output(path, Job(folder.kind, dict(folder.config))) as output:
        output.publish("all", content)
        return output.finish(folder.content)


def test_every_view_of_every_folder_is_json(
    dataset_folder: Folder, feature_folder: Folder, model_folders: tuple[Folder, Folder], blend_folder: Folder
) -> None:
    made = set()
    for folder in (dataset_folder, feature_folder, model_folders[0], blend_folder):
        for what, (kinds, _) in VIEWS.items():
            if what in ("feature-importance", "compare") or (kinds and folder.kind not in kinds):
                continue
            view = inspect(what, folder.path)
            content = json.loads(json.dumps(view.as_json(), allow_nan=False))
            assert set(content) == {"title", "facts", "tables", "notes"}
            assert content["facts"]
            made.add(what)
    assert made == set(VIEWS) - {"feature-importance", "compare", "predictions"}


def test_a_dataset_shows_people_gestures_folds_and_findings(dataset_folder: Folder) -> None:
    view = inspect("dataset", dataset_folder.path)
    assert view.facts["sequences"] == 64
    assert {"splits", "gestures", "people", "orientations", "folds"} <= set(tables(view))
    assert view.as_json()["tables"]["folds"][0]["subjects"] == 2
    lengths = view.figures[0]
    assert sum(lengths.groups[0][1]) == 64  # type: ignore[union-attr]


def test_a_sequence_shows_its_channels_as_they_were_recorded(dataset_folder: Folder, raw_folder: Path) -> None:
    view = inspect("sequence", dataset_folder.path, Options(sequence="SEQ_000003"))
    raw = pl.read_csv(raw_folder / "train.csv").filter(pl.col("sequence_id") == "SEQ_000003")
    channels = {row[0]: row for row in tables(view)["channels"].rows}
    assert channels["thm_1"][2] == pytest.approx(raw["thm_1"].min(), rel=1e-6)
    assert channels["acc_x"][4] == pytest.approx(raw["acc_x"].max(), rel=1e-6)
    assert view.facts["gesture"] == raw["gesture"][0]
    assert view.facts["seconds"] == raw.height / 10
    acceleration = view.figures[0]
    assert acceleration.shaded[0] == 0.8  # type: ignore[union-attr]
    assert acceleration.series[0].y == pytest.approx(tuple(raw["acc_x"]), rel=1e-6)  # type: ignore[union-attr]


def test_an_unknown_sequence_is_refused_with_the_nearest_name(dataset_folder: Folder) -> None:
    with pytest.raises(DataError, match=r"has no sequence SEQ_00003[\s\S]*SEQ_0000"):
        inspect("sequence", dataset_folder.path, Options(sequence="SEQ_00003"))


def test_a_recording_without_tof_says_so(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", raw_frames(subjects=2, imu_only=True))
    splits = find_splits(raw)
    config = PrepareConfig(folds=2)
    with open_output(tmp_path / "data", Job("dataset", as_mapping(config), split_refs(splits))) as output:
        prepare(splits, output, config)
    view = inspect("sequence", tmp_path / "data")
    assert "no tof was measured in this sequence" in view.notes
    assert {figure.title for figure in view.figures} == {"Acceleration", "Rotation (quaternion)"}


def test_a_dataset_without_labels_has_no_folds(raw_folder: Path, tmp_path: Path) -> None:
    test = raw_frames(subjects=2, labelled=False)
    splits = find_splits(write_raw(tmp_path / "raw", test, split="test"))
    config = PrepareConfig(folds=2)
    with open_output(tmp_path / "data", Job("dataset", as_mapping(config), split_refs(splits))) as output:
        prepare(splits, output, config)
    assert any("no gesture labels" in note for note in inspect("dataset", tmp_path / "data").notes)
    with pytest.raises(DataError, match="has no folds"):
        inspect("folds", tmp_path / "data")


def test_folds_add_up_and_a_shared_subject_is_noted(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    folder = model_folders[0]
    view = inspect("folds", folder.path)
    assert sum(row[1] for row in view.tables[0].rows) == view.facts["sequences"] == 48
    assert view.notes == ()
    table = folder.read_parquet(oof.OOF)
    mixed = table.with_columns(subject=pl.lit("SUBJ_000000"))
    assert (
        "1 subjects are in several folds"
        in inspect("folds", rewritten(folder, tmp_path / "m", oof=mixed).path).notes[0]
    )


def test_features_show_the_catalogue_and_drift_to_test(feature_folder: Folder) -> None:
    view = inspect("features", feature_folder.path)
    assert view.facts["sequence_features"] > 50
    drift = tables(view)["drift from train to test"]
    stability = [row[1] for row in drift.rows]
    assert stability == sorted(stability, reverse=True)
    assert len(drift.rows) == view.facts["sequence_features"]


def test_a_folder_does_not_drift_from_itself(feature_folder: Folder) -> None:
    view = inspect("features", feature_folder.path, options_of("features", other=feature_folder.path))
    drift = tables(view)[f"drift from features to {feature_folder.path.name}"]
    assert {row[1] for row in drift.rows} == {0.0}
    assert {row[2] for row in drift.rows} <= {0.0, None}


def test_features_for_nets_say_that_there_is_no_table(dataset_folder: Folder, tmp_path: Path) -> None:
    config = FeatureConfig(families=("motion",))
    job = Job("features", {**as_mapping(config), "table": False}, (dataset_folder.ref(),))
    with open_output(tmp_path / "f", job) as output:
        featurize(dataset_folder, output, config, table=False)
    assert "trees cannot be trained" in inspect("features", tmp_path / "f").notes[0]


def test_oof_shows_both_scenarios_classes_and_subjects(model_folders: tuple[Folder, Folder]) -> None:
    view = inspect("oof", model_folders[0].path)
    found = tables(view)
    assert [row[0] for row in found["scores"].rows] == ["all", "imu", "mean"]
    assert [row[0] for row in found["classes"].rows] == ["Cheek - pinch skin", "Neck - scratch", "non_target"]
    assert len(found["folds"].rows) == 3
    worst_first = [sum(row[2:]) for row in found["subjects, worst first"].rows]
    assert worst_first == sorted(worst_first)
    assert view.facts["worst_subject"] == found["subjects, worst first"].rows[0][0]


def test_oof_with_the_features_shows_orientations(model_folders: tuple[Folder, Folder], feature_folder: Folder) -> None:
    view = inspect("oof", model_folders[0].path, options_of("oof", features=feature_folder.path))
    (row,) = tables(view)["orientations"].rows
    assert row[:2] == ("Seated Straight", 48)
    assert row[2:] == pytest.approx([scores[1] for scores in tables(view)["scores"].rows[:2]])


def test_features_of_other_recordings_are_refused(
    model_folders: tuple[Folder, Folder], feature_folder: Folder, tmp_path: Path
) -> None:
    index = feature_folder.read_parquet("index.parquet").with_columns(sequence_id=pl.col("sequence_id") + "x")
    other = rewritten(feature_folder, tmp_path / "other", index=index)
    with pytest.raises(DataError, match="does not know sequence SEQ_000000, SEQ_000001, SEQ_000002 and 45 more"):
        inspect("oof", model_folders[0].path, options_of("oof", features=other.path))


def test_a_dataset_with_the_same_names_is_recognised_as_another(
    model_folders: tuple[Folder, Folder], feature_folder: Folder, tmp_path: Path
) -> None:
    index = feature_folder.read_parquet("index.parquet").with_columns(gesture=pl.lit("Wave hello"))
    other = rewritten(feature_folder, tmp_path / "other", index=index)
    message = "gesture of sequence SEQ_000000 is Wave hello, the model was trained with Cheek - pinch skin .36 seq"
    with pytest.raises(DataError, match=message):
        inspect("oof", model_folders[0].path, options_of("oof", features=other.path))
    with pytest.raises(DataError, match=message):
        write_report(model_folders[0].path, tmp_path / "r.html", features=other.path)
    assert not (tmp_path / "r.html").exists()


def test_one_fold_and_an_absent_class_are_noted(feature_folder: Folder, tmp_path: Path) -> None:
    folder = train_toy(feature_folder, tmp_path / "toy")
    table = folder.read_parquet(oof.OOF).filter((pl.col("fold") == 0) & (pl.col("gesture") != "Neck - scratch"))
    partial = rewritten(folder, tmp_path / "partial", oof=table)
    notes = inspect("oof", partial.path).notes
    assert "only 1 of 3 folds were trained" in notes
    assert any("no sequence of class Neck - scratch was held out" in note for note in notes)
    assert "one fold only" in inspect("calibration", partial.path).notes[0]
    assert inspect("confusion", partial.path).figures


def test_training_shows_each_fold(model_folders: tuple[Folder, Folder], blend_folder: Folder) -> None:
    view = inspect("training", model_folders[0].path)
    assert view.tables[0].rows[0][:4] == (0, 0, 1, 0.5)
    assert "no curve to draw" in view.notes[0]
    assert [table.title for table in inspect("training", blend_folder.path).tables] == [
        "training of soft",
        "training of sharp",
    ]


def test_a_blend_shows_weights_scores_and_what_members_add(blend_folder: Folder) -> None:
    view = inspect("blend", blend_folder.path)
    found = tables(view)
    assert [row[0] for row in found["members"].rows] == ["soft", "sharp"]
    assert inspect("oof", blend_folder.path).facts["score"] == pytest.approx(view.facts["score"])
    alone = {row[0]: row[1] for row in found["what each member adds, in-sample"].rows}
    scores = {row[0]: row[3] for row in found["members"].rows}
    assert alone == {"soft": pytest.approx(scores["sharp"]), "sharp": pytest.approx(scores["soft"])}


def test_a_blend_without_its_members_predictions_says_so(blend_folder: Folder, tmp_path: Path) -> None:
    kept = {n: blend_folder.read(n) for n in blend_folder.files if not n.endswith(("oof.parquet", ".jsonl"))}
    with open_output(tmp_path / "old", Job("blend", {})) as output:
        output.publish("all", {**kept, oof.OOF: blend_folder.read(oof.OOF)})
        output.finish(blend_folder.content)
    view = inspect("blend", tmp_path / "old")
    assert any("what each member adds is not known" in note for note in view.notes)
    with pytest.raises(DataError, match="has no training history"):
        inspect("training", tmp_path / "old")


def test_a_folder_without_trees_says_so(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    with pytest.raises(DataError, match="its members are soft, sharp"):
        inspect("feature-importance", blend_folder.path)
    with pytest.raises(DataError, match="it is a toy model"):
        inspect("feature-importance", model_folders[0].path)


def test_predictions_are_shown_with_and_without_labels(blend_folder: Folder, raw_folder: Path, tmp_path: Path) -> None:
    predictor = Predictor.open(blend_folder.path)
    for split, scored in (("test", False), ("train", True)):
        with open_output(tmp_path / split, Job("predictions", {})) as output:
            predict(open_input(raw_folder, predictor, split=split), predictor, output)
        view = inspect("predictions", tmp_path / split)
        assert ("score" in view.facts) is scored
        assert view.notes[0].startswith("the score is in-sample" if scored else "the input had no labels")
        assert sum(view.figures[1].groups[0][1]) == view.facts["sequences"]  # type: ignore[union-attr]


def test_an_artefact_shows_its_lineage_as_far_as_it_is_there(
    dataset_folder: Folder, feature_folder: Folder, tmp_path: Path
) -> None:
    for folder in (dataset_folder, feature_folder):
        shutil.copytree(folder.path, tmp_path / folder.path.name)
    view = inspect("artefact", tmp_path / feature_folder.path.name)
    assert [row[:3] for row in tables(view)["lineage"].rows] == [
        (1, "data", "dataset"),
        *((2, ref["name"], "file") for ref in dataset_folder.manifest["inputs"]),
    ]
    assert view.notes == ()
    shutil.rmtree(tmp_path / "data")
    alone = inspect("artefact", tmp_path / feature_folder.path.name)
    assert [row[4] for row in tables(alone)["lineage"].rows] == ["not found beside it"]
    assert "data is not beside this folder" in alone.notes[0]
    for place in (dataset_folder.path, dataset_folder.path.parent):
        pointed = inspect("artefact", tmp_path / feature_folder.path.name, options_of("artefact", inputs=[place]))
        assert tables(pointed)["lineage"].rows == tables(view)["lineage"].rows


def test_no_path_that_a_manifest_names_is_opened(
    dataset_folder: Folder, feature_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's manifest names folders of the reader: as words of its command, and as names that lead elsewhere."""
    for elsewhere in ("private/data", "data"):
        shutil.copytree(dataset_folder.path, tmp_path / elsewhere)
    stranger = shutil.copytree(feature_folder.path, tmp_path / "downloads" / "features")
    manifest = parse_json((stranger / MANIFEST).read_bytes(), "manifest")
    ref = manifest["inputs"][0]
    names = ["data", "..", "", ".", "../data", str(tmp_path / "data"), "a\0b"]
    manifest["inputs"] = [{**ref, "name": name} for name in names]
    manifest["command"] = ["bfrbctl", "featurize", str(tmp_path / "private" / "data"), "features"]
    (stranger / MANIFEST).write_bytes(encode_json(sealed(manifest)))
    opened: list[Path] = []

    def note(path: Path, *kinds: str) -> Folder:
        opened.append(path)
        return open_folder(path, *kinds)

    monkeypatch.setattr("bfrbctl.inspection.views.artefacts.open_folder", note)
    view = inspect("artefact", stranger)
    assert {row[4] for row in tables(view)["lineage"].rows} == {"not found beside it"}
    beside = stranger.resolve().parent
    assert {path.parent for path in opened} == {beside}
    assert beside not in opened


def test_an_artefact_with_a_changed_file_is_refused(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    copy = shutil.copytree(model_folders[0].path, tmp_path / "copy")
    content = bytearray((copy / "oof.parquet").read_bytes())
    content[100] ^= 1
    (copy / "oof.parquet").write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match=r"oof\.parquet does not match the manifest"):
        inspect("artefact", copy)


def test_a_model_is_no_better_than_itself(model_folders: tuple[Folder, Folder]) -> None:
    path = model_folders[0].path
    view = inspect("compare", path, options_of("compare", other=path))
    assert [row[3:7] for row in tables(view)["scores"].rows] == [(0.0, 0.0, 0.0, 0.5)] * 2
    assert view.facts["verdict_all"] == "no difference that would not be chance"


def test_a_model_that_is_always_right_is_better(feature_folder: Folder, tmp_path: Path) -> None:
    right = train_toy(feature_folder, tmp_path / "right", config=toy_model.Config(sharpness=50.0))
    table = right.read_parquet(oof.OOF)
    names = oof.proba_columns(4)
    turned = table.select(
        pl.exclude(names), *(pl.col(a).alias(b) for a, b in zip(names, names[1:] + names[:1], strict=True))
    )
    wrong = rewritten(right, tmp_path / "wrong", oof=turned.select(table.columns))
    view = inspect("compare", wrong.path, options_of("compare", other=right.path))
    assert view.facts["verdict_all"].startswith("B is ahead on these subjects, as trained")
    swapped = inspect("compare", right.path, options_of("compare", other=wrong.path))
    assert swapped.facts["verdict_all"].startswith("A is ahead on these subjects, as trained")
    for row, back in zip(tables(view)["scores"].rows, tables(swapped)["scores"].rows, strict=True):
        assert row[3:6] == pytest.approx((-back[3], -back[5], -back[4]))


def test_compare_needs_two_folders(model_folders: tuple[Folder, Folder]) -> None:
    with pytest.raises(UsageError, match="expected two folders"):
        inspect("compare", model_folders[0].path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", None),
        ("classes", [1, 2]),
        ("targets", [True]),
        ("members", "soft"),
        ("n_folds", "3"),
        ("rate_hz", True),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(blend_folder: Folder, tmp_path: Path, key: str, value: object) -> None:
    message = rf"manifest\.json: ({key} is .*, expected|classes, targets and prior do not fit each other)"
    with pytest.raises(ArtefactError, match=message), open_output(tmp_path / "odd", Job("blend", {})) as output:
        output.publish("all", {name: blend_folder.read(name) for name in blend_folder.files})
        output.finish({**blend_folder.content, key: value})
    for what in ("blend", "oof"):
        with pytest.raises(ArtefactError, match=message):
            inspect(what, tmp_path / "odd")


def test_scores_of_another_shape_are_refused(blend_folder: Folder, tmp_path: Path) -> None:
    with open_output(tmp_path / "odd", Job("blend", {})) as output:
        output.publish("all", {name: blend_folder.read(name) for name in blend_folder.files} | {"metrics.json": b"{}"})
        output.finish(blend_folder.content)
    with pytest.raises(ArtefactError, match=r"metrics\.json: lacks the scores of a blend"):
        inspect("blend", tmp_path / "odd")


def changed(folder: Folder, path: Path, name: str, content: bytes) -> Path:
    """Copy a folder, one file replaced, under a sound manifest."""
    with open_output(path, Job(folder.kind, dict(folder.config))) as output:
        output.publish("all", {each: folder.read(each) for each in folder.files} | {name: content})
        output.finish(folder.content)
    return path


@pytest.mark.parametrize("key", ["interval", "scenarios", "members", "rules", "optimistic"])
def test_figures_of_a_blend_that_are_no_numbers_are_refused(blend_folder: Folder, tmp_path: Path, key: str) -> None:
    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spoiled(each) for name, each in value.items()}
        return [{}, {}] if isinstance(value, list | tuple) else {"not": "a number"}

    metrics = blend_folder.read_json("metrics.json")
    metrics[key] = spoiled(metrics[key])
    odd = changed(blend_folder, tmp_path / "odd", "metrics.json", encode_json(metrics))
    with pytest.raises(ArtefactError, match=r"metrics\.json: lacks the scores of a blend"):
        write_report(odd, tmp_path / "odd.html")


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"fold": 0, "score": 0.5, "score_all": 0.5}, "a row has no step"),
        ({"fold": [0], "step": 1}, r"fold is \[0\], expected a number"),
        ({"fold": 0, "step": 1, "score_all": "high"}, "score_all is high, expected a number"),
    ],
)
def test_a_history_that_cannot_be_is_refused(
    model_folders: tuple[Folder, Folder], tmp_path: Path, row: dict[str, Any], match: str
) -> None:
    odd = changed(model_folders[0], tmp_path / "odd", "history.jsonl", encode_json(row).replace(b"\n", b" "))
    with pytest.raises(ArtefactError, match=rf"history\.jsonl: {match}"):
        inspect("training", odd)


@pytest.mark.parametrize("odd", [{"score": "high"}, {"score": {"score": "high"}}, {"warnings": 5}])
def test_predictions_that_tell_no_score_are_refused(
    blend_folder: Folder, raw_folder: Path, tmp_path: Path, odd: dict[str, Any]
) -> None:
    predictor = Predictor.open(blend_folder.path)
    with open_output(tmp_path / "p", Job("predictions", {})) as output:
        folder = predict(open_input(raw_folder, predictor, split="test"), predictor, output)
    match = rf"manifest\.json: {next(iter(odd))} is .*, expected"
    with pytest.raises(ArtefactError, match=match), open_output(tmp_path / "odd", Job("predictions", {})) as output:
        output.publish("all", {name: folder.read(name) for name in folder.files})
        output.finish({**folder.content, **odd})
    with pytest.raises(ArtefactError, match=match):
        inspect("predictions", tmp_path / "odd")


@pytest.mark.parametrize(("what", "name"), [("feature", "index"), ("dataset", "sequences")])
def test_a_gesture_that_is_none_of_the_classes_is_refused(
    feature_folder: Folder, dataset_folder: Folder, tmp_path: Path, what: str, name: str
) -> None:
    folder = feature_folder if what == "feature" else dataset_folder
    table = folder.read_parquet(f"{name}.parquet").with_columns(gesture=pl.lit("Nap"))
    odd = rewritten(folder, tmp_path / "odd", **{name: table})
    with pytest.raises(ArtefactError, match=rf"{name}\.parquet: gesture Nap is not among the folder's classes"):
        inspect(what, odd.path)


def test_the_wrong_folder_is_refused(dataset_folder: Folder) -> None:
    with pytest.raises(ArtefactError, match="is a dataset folder, expected model or blend"):
        inspect("oof", dataset_folder.path)
    assert open_folder(dataset_folder.path).kind == "dataset"
