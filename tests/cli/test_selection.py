"""How many rounds are kept, as a user chooses and reads it; and models and runs of earlier versions."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import JOURNAL, MANIFEST, Folder, open_folder, read_journal, sealed
from tests.cli.test_unfinished import half, run, stop_in_fold_1  # noqa: F401  fixtures
from tests.faults.targets import make_fit

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--set", "n_rounds=4", "--set", "min_data_in_leaf=2", "--workers", "1")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--folds", "1"), "kept: all 4 rounds, as one fold is trained alone, and it must not choose for itself"),
        (
            ("--folds", "1", "--folds", "1"),
            "kept: all 4 rounds, as one fold is trained alone, and it must not choose for itself",
        ),
        (("--set", "boosting=dart"), "kept: all 4 rounds, as boosting=dart changes earlier trees in later rounds"),
        (("--select", "last"), "kept: all 4 rounds"),
    ],
)
def test_the_command_and_the_training_view_say_why_the_last_round_is_kept(
    run: Run,  # noqa: F811
    feature_folder: Folder,
    tmp_path: Path,
    words: tuple[str, ...],
    line: str,
) -> None:
    out = tmp_path / "m"
    code, said, err = run("train", "lgbm", feature_folder.path, out, *QUICK, *words)
    assert (code, line in said.splitlines()) == (0, True), (said, err)
    view = json.loads(run("inspect", "training", out, "--json")[1])
    assert line in view["notes"]
    selection = open_folder(out).read_json("metrics.json")["selection"]
    assert (selection["select"], set(selection["folds"].values())) == ("last", {4})


@pytest.fixture
def chosen(run: Run, feature_folder: Folder, tmp_path: Path) -> tuple[Path, str]:  # noqa: F811
    """Train two folds, which choose from each other: the model, and what was said."""
    code, said, err = run("train", "lgbm", feature_folder.path, tmp_path / "m", *QUICK, "--folds", 0, "--folds", 2)
    assert code == 0, err
    return tmp_path / "m", said


def test_the_command_and_the_training_view_say_how_many_rounds_were_chosen(
    run: Run,  # noqa: F811
    chosen: tuple[Path, str],
) -> None:
    path, said = chosen
    selection = open_folder(path).read_json("metrics.json")["selection"]
    line = f"kept: {selection['kept']} rounds, best on all folds; a fold is scored with those that are best on the"
    assert any(each.startswith(line) for each in said.splitlines()), said
    notes = json.loads(run("inspect", "training", path, "--json")[1])["notes"]
    assert any(each.startswith(line) for each in notes)


def as_of_an_earlier_version(path: Path) -> None:
    """Give a model folder what earlier versions wrote: no selection, no figures of new kinds, best rounds."""
    metrics = json.loads((path / "metrics.json").read_bytes())
    for new in ("selection", "auc_interval"):
        del metrics[new]
    for model in metrics["models"]:
        model |= {"best_rounds": model["rounds"], "best_round": model["rounds"][0]}
    (path / "metrics.json").write_bytes(encode_json(metrics))
    make_fit(path, path / "metrics.json")
    for about in path.glob("fold-*.lgbm.json"):
        content = json.loads(about.read_bytes())
        content["summary"] |= {"best_round": 3, "patience": 50}
        about.write_bytes(encode_json(content))
        make_fit(path, about)
    manifest = json.loads((path / MANIFEST).read_bytes())
    settings = manifest["config"]["settings"]
    for new in ("select", "select_by"):
        del settings[new]
    settings |= {"patience": 50, "stop_on": "score", "tolerance": 0.003}
    del manifest["content"]["trained_on"]
    (path / MANIFEST).write_bytes(encode_json(sealed(manifest)))


def test_a_model_of_an_earlier_version_stays_readable(
    run: Run,  # noqa: F811
    chosen: tuple[Path, str],
    dataset_folder: Folder,
    tmp_path: Path,
) -> None:
    old = tmp_path / "old"
    shutil.copytree(chosen[0], old)
    as_of_an_earlier_version(old)
    for words in (
        ("inspect", "training", old),
        ("inspect", "oof", old),
        ("inspect", "artefact", old),
        ("inspect", "report", old, tmp_path / "report.html"),
        ("predict", dataset_folder.path, old, tmp_path / "predictions", "--split", "test", "--workers", 1),
        ("oof-blend", chosen[0], old, tmp_path / "blend"),
        ("oof-blend", old, tmp_path / "single", "--single"),
    ):
        code, said, err = run(*words)
        assert code == 0, (words, err)
        assert "kept:" not in said, words


EARLIER: dict[str, Any] = {"patience": 50, "stop_on": "logloss", "tolerance": 0.003}


@pytest.mark.parametrize("key", EARLIER)
def test_a_run_of_an_earlier_version_whose_settings_are_gone_is_not_continued(
    run: Run,  # noqa: F811
    half: Path,  # noqa: F811
    feature_folder: Folder,
    key: str,
) -> None:
    journal = read_journal(half)
    config = {**journal["config"], "settings": {**journal["config"]["settings"], key: EARLIER[key]}}
    (half / JOURNAL).write_bytes(encode_json(sealed({**journal, "config": config})))
    before = {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()}
    code, _, err = run("train", "lgbm", feature_folder.path, half, "--resume")
    message = f"the interrupted run has {key} = {EARLIER[key]!r}, and this version cannot continue with that setting"
    assert (code, message in err, "start again with --force" in err, "Traceback" in err) == (2, True, True, False), err
    assert {path.name: path.read_bytes() for path in half.iterdir() if path.is_file()} == before
    assert run("train", "lgbm", feature_folder.path, half, *QUICK, "--folds", 0, "--force", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("kind", "line", "setting"),
    [
        ("lgbm", "patience = 50", "n_rounds"),
        ("lgbm", 'stop_on = "logloss"', "select_by"),
        ("lgbm", "tolerance = 0.003", "select_by"),
        ("keras", "patience = 15", "epochs"),
    ],
)
def test_a_file_of_settings_that_are_gone_is_refused_with_what_to_set(
    run: Run,  # noqa: F811
    feature_folder: Folder,
    tmp_path: Path,
    kind: str,
    line: str,
    setting: str,
) -> None:
    (tmp_path / "old.toml").write_text(f"seeds = 1\n{line}\n")
    words = ("train", kind, feature_folder.path, tmp_path / "m", "--config", tmp_path / "old.toml")
    code, _, err = run(*words)
    name = line.partition(" ")[0]
    assert (code, f"no setting named '{name}'" in err, setting in err) == (2, True, True), err
    assert not (tmp_path / "m").exists()


def test_options_that_are_gone_are_usage_errors(run: Run, feature_folder: Folder, tmp_path: Path) -> None:  # noqa: F811
    code, _, err = run("train", "lgbm", feature_folder.path, tmp_path / "m", "--stop-on", "logloss")
    assert (code, "--stop-on" in err, "Traceback" in err) == (2, True, False), err
