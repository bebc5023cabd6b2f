"""Joint labels from end to end: training, blending with assignment, prediction, serving."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.config import as_mapping
from bfrbctl.ensemble.blending import blend
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.errors import DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.labels import JOINT_OOF, Sort
from bfrbctl.features import FeatureConfig
from bfrbctl.features.featurization import featurize
from bfrbctl.prediction import gateway
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.submission import open_input, predict
from bfrbctl.recordings.preparation import PrepareConfig, prepare, split_refs
from bfrbctl.recordings.raw import find_splits, read_demographics
from bfrbctl.training.cross_validation import CrossValidation, cross_validate
from tests import toy_model
from tests.raw_recordings import raw_frames, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wearers who do every gesture once sitting and once lying."""
    number = pl.col("sequence_id").str.slice(4).cast(pl.Int64)
    postures = pl.when(number // 4 % 2 == 0).then(pl.lit("Seated Straight")).otherwise(pl.lit("Lie on Back"))
    return write_raw(tmp_path_factory.mktemp("raw"), raw_frames(subjects=6).with_columns(orientation=postures))


@pytest.fixture(scope="module")
def features(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    base = tmp_path_factory.mktemp("joint")
    prepared, featured = PrepareConfig(folds=3), FeatureConfig(families=("presence", "motion", "moments"))
    splits = find_splits(raw)
    with open_output(base / "data", Job("dataset", as_mapping(prepared), split_refs(splits))) as output:
        dataset = prepare(splits, output, prepared)
    job = Job("features", {**as_mapping(featured), "table": True}, (dataset.ref(),))
    with open_output(base / "features", job) as output:
        return featurize(dataset, output, featured)


def train(features: Folder, path: Path, labels: Sort) -> Folder:
    run = CrossValidation(features, toy_model.KIND, toy_model.Config(sharpness=4.0), labels=labels)
    with open_output(path, Job("model", run.settings, (features.ref(),))) as output:
        for _ in cross_validate(run, output):
            pass
    return open_folder(path, "model")


@pytest.fixture(scope="module")
def members(features: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Folder]:
    base = tmp_path_factory.mktemp("members")
    return train(features, base / "plain", "gesture"), train(features, base / "joint", "joint")


@pytest.fixture(scope="module")
def assigning(members: tuple[Folder, Folder], tmp_path_factory: pytest.TempPathFactory) -> Folder:
    config = BlendConfig(assign="causal")
    refs = tuple(member.ref() for member in members)
    with open_output(tmp_path_factory.mktemp("blend") / "blend", Job("blend", as_mapping(config), refs)) as output:
        return blend(members, output, config)


def test_a_joint_model_tells_gestures_as_any_other(members: tuple[Folder, Folder]) -> None:
    plain, joint = members
    assert joint.content["classes"] == plain.content["classes"]
    assert len(joint.content["joint"]["names"]) == 8
    parts, others = oof.read_oof(joint), oof.read_oof(plain)
    for scenario, part in parts.items():
        assert part.keys.equals(others[scenario].keys)
        rows = joint.read_parquet(JOINT_OOF).filter(scenario=scenario).sort("sequence_id")
        finer = rows.select(oof.proba_columns(8)).to_numpy()
        summed = np.zeros_like(part.proba)
        for column, gesture in enumerate(joint.content["joint"]["gesture_of"]):
            summed[:, gesture] += finer[:, column]
        assert np.allclose(part.proba, summed, atol=1e-6)


def test_the_assignment_is_scored_over_three_orders(assigning: Folder) -> None:
    scores = assigning.read_json("metrics.json")["assignment"]
    assert all(len(scores[scenario]["orders"]) == 3 for scenario in ("all", "imu"))
    assert scores["gain"] == pytest.approx(scores["score"] - assigning.read_json("metrics.json")["score"])


def test_prediction_in_the_order_of_the_input_equals_serving_in_that_order(
    assigning: Folder, raw: Path, tmp_path: Path
) -> None:
    predictor = Predictor.open(assigning.path)
    source = open_input(raw, predictor)
    with open_output(tmp_path / "out", Job("predictions", {})) as output:
        written = predict(source, predictor, output).read_parquet("submission.parquet")
    demographics = read_demographics(raw / "train_demographics.csv")
    listener = gateway.make_listener(lambda: predictor)
    frames = raw_frames(subjects=6)
    for name, given in written.sort("sequence_id").iter_rows():
        assert listener(frames.filter(sequence_id=name), demographics) == given
    served = [listener(frames.filter(sequence_id=name), demographics) for name in written["sequence_id"]]
    assert set(served) <= set(assigning.content["classes"]), "beyond its joint labels a gesture is still predicted"


@pytest.mark.parametrize("unknown", ["no column", "null", "empty"])
def test_people_without_a_name_are_answered_as_if_each_were_alone(assigning: Folder, unknown: str) -> None:
    predictor = Predictor.open(assigning.path)
    one = raw_frames(subjects=1, repeats=1).filter(sequence_id="SEQ_000000")
    frames = pl.concat([one.with_columns(sequence_id=pl.lit(f"SEQ_{number}")) for number in range(5)])
    subject = {"null": pl.lit(None, dtype=pl.String), "empty": pl.lit("")}
    anonymous = frames.drop("subject") if unknown == "no column" else frames.with_columns(subject=subject[unknown])
    assigner = predictor.new_assigner()
    parts = anonymous.partition_by("sequence_id", maintain_order=True)
    together = [predictor.predict(part, assigner=assigner) for part in parts]
    assert together == [predictor.predict(parts[0], assigner=predictor.new_assigner())] * 5
    assert list(predictor.predict_many(anonymous, assigner=predictor.new_assigner()).values()) == together


def test_subjects_without_a_name_are_predicted_and_a_warning_says_so(
    assigning: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.open(assigning.path)
    frames = raw_frames(subjects=2, seed=4, labelled=False).with_columns(subject=pl.lit(None, dtype=pl.String))
    source = open_input(write_raw(tmp_path / "raw", frames, split="test"), predictor)
    with open_output(tmp_path / "out", Job("predictions", {})) as output:
        made = predict(source, predictor, output)
    assert made.content["n_problems"] == 0
    assert "16 sequences have no subject" in caplog.text
    assert dict(made.read_parquet("submission.parquet").iter_rows()) == predictor.predict_many(frames)


def test_without_memory_the_decoding_rule_predicts(assigning: Folder) -> None:
    predictor = Predictor.open(assigning.path)
    frames = raw_frames(subjects=1)
    one_by_one = [predictor.predict(part) for part in frames.partition_by("sequence_id", maintain_order=True)]
    assert list(predictor.predict_many(frames).values()) == one_by_one


def test_members_with_other_joint_labels_are_refused(
    members: tuple[Folder, Folder], features: Folder, tmp_path: Path
) -> None:
    _, joint = members
    names = [*joint.content["joint"]["names"][:-1], "another"]
    content = {**joint.content, "joint": {**joint.content["joint"], "names": names}}
    with open_output(tmp_path / "other", Job("model", {})) as output:
        output.publish("all", {name: joint.read(name) for name in joint.files})
        other = output.finish(content)
    with (
        pytest.raises(DataError, match="differ in joint labels"),
        open_output(tmp_path / "blend", Job("blend", {})) as output,
    ):
        blend([joint, other], output, BlendConfig(assign="causal"))


def test_a_blend_without_joint_members_assigns_nothing(members: tuple[Folder, Folder], tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="--labels joint"),
        open_output(tmp_path / "blend", Job("blend", {})) as output,
    ):
        blend([members[0]], output, BlendConfig(assign="causal"))
