"""Scoring predictions: labels joined by sequence_id, what is left out, and scores that are in-sample."""

import doctest
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import ArtefactError, BfrbError, DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.discrimination import ranking_figures
from bfrbctl.evaluation.in_sample import TRAINED_ON, read_trained_on, training_digests
from bfrbctl.evaluation.metrics import hierarchical_f1
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.views.artefacts import predictions_view
from bfrbctl.prediction import scoring
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.scoring import read_labels
from bfrbctl.prediction.submission import open_input, predict, sensor_warnings
from bfrbctl.schema import SensorLayout
from tests.raw_recordings import raw_frames, write_raw


@pytest.fixture(scope="module")
def predictor(blend_folder: Folder) -> Predictor:
    return Predictor.open(blend_folder.path)


def scored(source: Path, predictor: Predictor, out: Path, given: Path | None = None, split: str = "test") -> Folder:
    with open_output(out, Job("predictions", {})) as output:
        table = read_labels(given) if given else None
        return predict(open_input(source, predictor, split=split), predictor, output, labels=table)


def write_labels(raw_folder: Path, path: Path, *, drop: int = 0, more: Sequence[tuple[str, str]] = ()) -> Path:
    """Labels of the test split, in another order, with another column: gestures in turn."""
    ids = pl.read_csv(raw_folder / "test.csv")["sequence_id"].unique().sort()[drop:]
    names = ("Cheek - pinch skin", "Neck - scratch", "Text on phone", "Wave hello")
    rows = [*((name, names[n % 4]) for n, name in enumerate(ids)), *more]
    table = pl.DataFrame(rows, schema=["sequence_id", "gesture"], orient="row").reverse().with_columns(x=1)
    table.write_parquet(path) if path.suffix == ".parquet" else table.write_csv(path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "A.CSV"])
def test_labels_score_a_test_split_by_sequence_id(
    predictor: Predictor, raw_folder: Path, tmp_path: Path, name: str
) -> None:
    folder = scored(raw_folder, predictor, tmp_path / "p", write_labels(raw_folder, tmp_path / name))
    truth = dict(read_labels(tmp_path / name).table.iter_rows())
    said = folder.read_parquet("submission.parquet")
    positions = [
        oof.class_positions(found, predictor.classes)
        for found in ([truth[name] for name in said["sequence_id"]], said["gesture"].to_list())
    ]
    expected = vars(hierarchical_f1(*positions, predictor.targets))
    metrics = folder.read_json("metrics.json")
    assert {key: metrics[key] for key in expected} == folder.content["score"] == expected
    assert metrics["n_labelled"] == folder.content["n_labelled"] == 16
    proba = folder.read_parquet("predictions.parquet").select(oof.proba_columns(4)).to_numpy()
    ranked = ranking_figures(*positions, proba, predictor.space)
    assert {key: metrics[key] for key in ranked} == ranked
    assert metrics["headline"] == folder.content["headline"] == "score"
    rows = next(
        table.rows
        for table in predictions_view(folder, Options()).tables
        if table.title == "scored gestures, worst first"
    )
    assert [row[2] for row in rows if row[0] == "Wave hello"] == [4]
    assert [row[5] or 0.0 for row in rows if row[2]] == sorted(row[5] or 0.0 for row in rows if row[2])
    assert metrics["in_sample"]["sequences"] == 0
    assert folder.content["answers"]["name"] == name
    assert not [line for line in folder.content["warnings"] if "label" in line]


def test_what_labels_leave_out_is_counted(
    predictor: Predictor, raw_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = [("SEQ_777777", "Wave hello"), ("SEQ_888888", "Yawn")]
    path = write_labels(raw_folder, tmp_path / "a.csv", drop=3, more=more)
    table = pl.read_csv(path)
    strange = table["sequence_id"][-1]
    table.with_columns(
        gesture=pl.when(pl.col("sequence_id") == strange).then(pl.lit("Yawn")).otherwise("gesture")
    ).write_csv(path)
    folder = scored(raw_folder, predictor, tmp_path / "p", path)
    metrics = folder.read_json("metrics.json")
    assert (metrics["n_labelled"], metrics["n_unknown_gesture"]) == (12, 1)
    text = "\n".join(folder.content["warnings"])
    assert "a.csv: has no label for 3 of 16 sequences" in text
    assert "2 labels are of sequences that were not predicted (SEQ_888888, SEQ_777777)" in text
    assert "1 of 13 sequences have a gesture that the model does not know (Yawn)" in text
    assert all(line in caplog.text for line in folder.content["warnings"])


def test_labels_of_another_input_are_refused(predictor: Predictor, raw_folder: Path, tmp_path: Path) -> None:
    pl.DataFrame({"sequence_id": ["A"], "gesture": ["Wave hello"]}).write_csv(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"for any of the 16 predicted sequences; it knows A, predicted are SEQ_9"):
        scored(raw_folder, predictor, tmp_path / "p", tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("name", "table", "match", "kind"),
    [
        ("a.csv", {"id": ["A"], "gesture": ["x"]}, "lacks column sequence_id; it has id, gesture", DataError),
        ("a.csv", {"sequence_id": ["A"]}, "lacks column gesture", DataError),
        ("a.csv", {"sequence_id": ["A", None], "gesture": ["x", "y"]}, "1 of 2 rows have no sequence_id", DataError),
        ("a.csv", {"sequence_id": ["A", "A"], "gesture": ["x", "y"]}, "has two gestures for sequence A", DataError),
        ("a.csv", {"sequence_id": ["A"], "gesture": [None]}, "has no label", DataError),
        ("a.xlsx", {"sequence_id": ["A"], "gesture": ["x"]}, "ends in .csv or .parquet", UsageError),
    ],
)
def test_tables_without_labels_are_explained(
    tmp_path: Path, name: str, table: dict[str, list[str]], match: str, kind: type[BfrbError]
) -> None:
    pl.DataFrame(table).write_csv(tmp_path / name)
    with pytest.raises(kind, match=match):
        read_labels(tmp_path / name)


def test_a_file_that_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    for name in ("none.csv", "none.parquet", "b.parquet"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            read_labels(tmp_path / name)


def test_ids_that_look_like_numbers_stay_text_and_repeated_rows_count_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("gesture,sequence_id\nx,007\nx,007\ny,8\n,9\n")
    assert read_labels(tmp_path / "a.csv").table.rows() == [("007", "x"), ("8", "y")]


def test_the_line_about_in_sample_scores_is_as_its_docstring_says() -> None:
    assert doctest.testmod(scoring).failed == 0


# ----------------------------------------------------------------------------------------------------- in-sample


def test_inspect_shows_the_warnings_of_a_prediction(predictor: Predictor, raw_folder: Path, tmp_path: Path) -> None:
    folder = scored(raw_folder, predictor, tmp_path / "p", split="train")
    notes = predictions_view(folder, Options()).notes
    assert "the score is in-sample: the model was trained on all 48 sequences" in notes


@pytest.mark.parametrize("prepared", [False, True])
def test_a_score_on_what_the_model_was_trained_on_is_named_in_sample(
    predictor: Predictor, raw_folder: Path, dataset_folder: Folder, tmp_path: Path, prepared: bool
) -> None:
    source = dataset_folder.path if prepared else raw_folder
    folder = scored(source, predictor, tmp_path / "p", split="train")
    assert folder.read_json("metrics.json")["in_sample"] == {"sequences": 48, "of_known_subjects": 48}
    assert "the score is in-sample: the model was trained on all 48 sequences" in folder.content["warnings"]


def test_of_a_mixed_input_new_sequences_are_scored_apart(predictor: Predictor, tmp_path: Path) -> None:
    new = raw_frames(subjects=1, seed=5).with_columns(
        pl.col("sequence_id").str.replace("SEQ_0", "SEQ_7"), subject=pl.lit("SUBJ_NEW")
    )
    known = raw_frames(subjects=6).filter(pl.col("subject") < "SUBJ_000002")  # as in the raw folder
    mixed = pl.concat([known, new])
    folder = scored(write_raw(tmp_path / "mixed", mixed), predictor, tmp_path / "p", split="train")
    metrics = folder.read_json("metrics.json")
    assert metrics["n_labelled"] == 24
    assert metrics["in_sample"] == {"sequences": 16, "of_known_subjects": 16}
    assert "the model was trained on 16 of 24 sequences" in "\n".join(folder.content["warnings"])
    assert set(metrics["score_of_new_sequences"]) == set(folder.content["score"])


def test_new_sequences_of_known_subjects_are_reported(predictor: Predictor, tmp_path: Path) -> None:
    new = raw_frames(subjects=2, seed=5).with_columns(pl.col("sequence_id").str.replace("SEQ_0", "SEQ_7"))
    folder = scored(write_raw(tmp_path / "new", new), predictor, tmp_path / "p", split="train")
    assert folder.read_json("metrics.json")["in_sample"] == {"sequences": 0, "of_known_subjects": 16}
    assert "partly in-sample: all 16 sequences are of subjects" in "\n".join(folder.content["warnings"])


def test_a_model_that_does_not_tell_what_it_was_trained_on_is_said_not_to(
    predictor: Predictor, raw_folder: Path, tmp_path: Path
) -> None:
    silent = replace(predictor, trained_on=None)
    folder = scored(raw_folder, silent, tmp_path / "p", split="train")
    assert folder.read_json("metrics.json")["in_sample"] == {"sequences": None, "of_known_subjects": None}
    assert "whether the score is in-sample is not known" in "\n".join(folder.content["warnings"])


def test_a_sequence_that_cannot_be_used_was_in_no_training(predictor: Predictor, tmp_path: Path) -> None:
    table, here = raw_frames(subjects=1, labelled=False), pl.col("sequence_id") == "SEQ_000002"
    broken = table.with_columns(acc_x=pl.when(here).then(None).otherwise("acc_x"))
    raw = write_raw(tmp_path / "raw", broken, split="test")
    folder = scored(raw, predictor, tmp_path / "p", write_labels(raw, tmp_path / "a.csv"))
    metrics = folder.read_json("metrics.json")
    assert (metrics["n_labelled"], folder.content["n_problems"]) == (8, 1)
    assert metrics["in_sample"] == {"sequences": 7, "of_known_subjects": 7}
    assert "the model was trained on 7 of 8 sequences" in "\n".join(folder.content["warnings"])


def test_a_folder_of_before_digests_opens(model_folders: tuple[Folder, Folder]) -> None:
    content = dict(model_folders[0].content)
    assert read_trained_on([content], "x") is not None
    del content[TRAINED_ON]
    assert read_trained_on([content], "x") is None


def test_no_name_is_in_the_digests_and_all_folds_are(model_folders: tuple[Folder, Folder]) -> None:
    digests = model_folders[0].content[TRAINED_ON]
    text = json.dumps(digests)
    assert "SEQ" not in text and "SUBJ" not in text
    assert (len(digests["sequences"]), len(digests["subjects"])) == (48 * 16, 6 * 16)


def test_digests_are_represented_by_their_number() -> None:
    index = pl.DataFrame({"subject": ["a", "a"], "sequence_id": ["x", "y"], "n_frames": [3, 4]})
    known = read_trained_on([{TRAINED_ON: training_digests(index)}], "m")
    assert repr(known) == "TrainedOn(n_sequences=2, n_subjects=1)"


def test_a_sequence_of_the_same_name_but_another_length_is_another_one() -> None:
    index = pl.DataFrame({"subject": ["S", None], "sequence_id": ["A", "B"], "n_frames": [30, 40]})
    known = read_trained_on([{TRAINED_ON: training_digests(index)}], "x")
    assert known is not None
    assert known.has_sequence("S", "A", 30) and known.has_sequence(None, "B", 40)
    assert not known.has_sequence("S", "A", 31)
    assert known.has_subject("S") and not known.has_subject(None) and not known.has_subject("")


@pytest.mark.parametrize("entry", [None, {}, {"sequences": "abc", "subjects": ""}, {"sequences": "G" * 16}])
def test_digests_that_cannot_be_are_refused(entry: object) -> None:
    with pytest.raises(ArtefactError, match="has no digests of"):
        read_trained_on([{TRAINED_ON: entry}], "manifest.json")


# ------------------------------------------------------------------------------------------- a model that does not fit


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        (SensorLayout((), ()), "none of the 3 sensors beside the IMU that the model was trained with"),
        (SensorLayout((1,), (1,)), r"lacks 1 of the 3 sensors .* \(thm_2\): they count as missing"),
        (SensorLayout((1, 2, 3), (1, 4)), r"was trained without 2 sensors of the input \(thm_3, tof_4\)"),
    ],
)
def test_sensors_that_do_not_fit_warn(predictor: Predictor, layout: SensorLayout, match: str) -> None:
    (found,) = sensor_warnings(layout, predictor)
    assert re.search(match, found)


def test_columns_of_sensors_that_measured_nothing_do_not_warn(
    predictor: Predictor, raw_folder: Path, tmp_path: Path
) -> None:
    plain = replace(predictor, layout=SensorLayout((), ()))
    source = open_input(raw_folder, predictor, split="test")
    assert source.live == set()
    assert sensor_warnings(source.layout, plain, live=source.live) == []
    assert len(list(source.batches(lambda _: None, False))) == 1
    assert source.live == {*(f"thm_{n}" for n in source.layout.thm), *(f"tof_{n}" for n in source.layout.tof)}
    (found,) = sensor_warnings(source.layout, plain, live=source.live)
    assert "the model was trained without" in found


def test_sensors_that_fit_do_not_warn(predictor: Predictor) -> None:
    assert sensor_warnings(predictor.layout, predictor) == []


def test_a_dataset_of_another_rate_is_refused_before_anything_is_predicted(
    predictor: Predictor, dataset_folder: Folder
) -> None:
    with pytest.raises(DataError, match=r"the recordings have 10 frames a second, .* was trained on 20"):
        open_input(dataset_folder.path, replace(predictor, rate_hz=20.0))
