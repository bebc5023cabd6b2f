from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble.blending import aligned_members, blend, decoding_note, nesting_note, notes_of, read_mixtures
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.errors import ArtefactError, DataError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import score_intervals
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.metrics import score_proba
from bfrbctl.inspection import inspect
from tests.blend_members import TARGETS, members


def test_the_interval_holds_the_score() -> None:
    probas, part = members()
    low, high = score_intervals({"all": part}, ClassSpace.of("abc", TARGETS), seed=0)["all"]
    assert low < score_proba(probas[0], part.truth, TARGETS).score < high


def test_a_blend_travels_with_its_members(blend_folder: Folder, model_folders: tuple[Folder, Folder]) -> None:
    assert blend_folder.content["members"] == ["soft", "sharp"]
    assert blend_folder.read("member-1.fold-2.toy.npz") == model_folders[1].read("fold-2.toy.npz")
    metrics = blend_folder.read_json("metrics.json")
    assert metrics["best_member"] in ("soft", "sharp")
    assert metrics["optimistic"]["all"]["score"] >= 0
    parts = oof.read_oof(blend_folder)
    assert metrics["score"] == pytest.approx(
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
    weights = blend_folder.read_json("weights.json")
    weights["scenarios"]["all"] |= change
    with open_output(tmp_path / "b", Job("blend", {})) as output:
        output.publish("w", {"weights.json": encode_json(weights)})
        folder = output.finish(blend_folder.content)
    with pytest.raises(ArtefactError, match="scenario all"):
        read_mixtures(folder)


def test_the_predictions_of_a_blend_are_those_of_the_rule_it_chose(
    model_folders: tuple[Folder, Folder], tmp_path: Path
) -> None:
    for decode in ("argmax", "threshold"):
        config = BlendConfig(decode=decode)
        with open_output(tmp_path / decode, Job("blend", {"decode": decode})) as output:
            made = blend(model_folders, output, config)
        metrics = made.read_json("metrics.json")
        for scenario, mixture in read_mixtures(made).items():
            assert (mixture.threshold is None) == (decode == "argmax")
            assert metrics["scenarios"][scenario]["score"] == metrics["rules"][scenario]["scores"][decode]
            assert metrics["rules"][scenario]["by_group"] == dict.fromkeys("012", decode)
        parts = oof.read_oof(made)
        assert metrics["score"] == np.mean([part.score(made.content["targets"]).score for part in parts.values()])


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
    metrics = made.read_json("metrics.json")
    assert metrics["nesting"] == {"over": "groups of subjects", "groups": 2}
    assert (
        inspect("blend", made.path).notes[-2:]
        == (nesting_note(metrics), decoding_note(metrics))
        == tuple(notes_of(metrics))
    )
    assert "one fold" in str(nesting_note(metrics))
    parts = oof.read_oof(made)
    assert metrics["score"] == np.mean([part.score(made.content["targets"]).score for part in parts.values()])


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
    metrics = blend_folder.read_json("metrics.json")
    assert metrics["nesting"] == {"over": "folds", "groups": 3}
    assert nesting_note(metrics) is None and nesting_note({}) is None
