"""--resume: whose settings a run goes on with, and with which versions of libraries."""

import logging
from pathlib import Path
from typing import Any

import pytest

from bfrbctl import config as configuration
from bfrbctl.artefacts.files import encode_json
from bfrbctl.artefacts.folders import JOURNAL, continue_command, open_folder, read_journal, sealed
from bfrbctl.artefacts.journals import NO_JOURNAL, deciding_libraries, interrupted_run, open_journal
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.ensemble.mixing import BlendConfig
from bfrbctl.errors import ArtefactError, OutputError
from bfrbctl.models.lightgbm.config import Config
from bfrbctl.recordings.raw import find_splits
from tests.contents import CONTENT

JOB = Job("model", {"model": "lgbm", "rate": 0.1}, command=("bfrbctl", "train", "lgbm", "features", "m"), seed=3)


def interrupted(path: Path, job: Job = JOB) -> None:
    with pytest.raises(KeyboardInterrupt), open_output(path, job) as output:
        output.publish("fold-0", {"a.txt": b"first"})
        raise KeyboardInterrupt


def change_journal(path: Path, *, without: tuple[str, ...] = (), **changes: Any) -> None:
    content = {key: value for key, value in read_journal(path).items() if key not in without}
    (path / JOURNAL).write_bytes(encode_json(sealed({**content, **changes})))


def test_a_journal_holds_what_a_resumed_run_needs(tmp_path: Path) -> None:
    interrupted(tmp_path / "m")
    journal = open_journal(tmp_path / "m")
    assert (journal.kind, journal.config, journal.seed) == ("model", JOB.config, 3)
    assert journal.command == JOB.command
    assert journal.continue_command == "bfrbctl train lgbm features m --resume"
    assert {"python", "numpy", "lightgbm"} <= set(journal.libraries or ())
    assert list(journal.parts) == ["fold-0"]


def test_the_command_to_continue_leads_to_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "m")
    here = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert open_journal(tmp_path / "m").continue_command == f"cd {here} && bfrbctl train lgbm features m --resume"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["bfrbctl", "predict", "raw", "m", "out", "--force"], "bfrbctl predict raw m out --resume"),
        (["bfrbctl", "simulate", "raw"], "bfrbctl simulate raw --force"),
        (["bfrbctl", "prepare", "a;rm x", "d"], "bfrbctl prepare 'a;rm x' d --resume"),
        (["rm", "-r", "x"], "the command that began it, with --resume"),
        (["bfrbctl", "prepare\x1b[2J"], "the command that began it, with --resume"),
        (None, "the command that began it, with --resume"),
    ],
)
def test_the_command_to_continue_is_safe_to_paste(command: object, expected: str) -> None:
    assert continue_command({"command": command}) == expected


def test_a_resumed_run_keeps_the_command_that_chose_the_settings(tmp_path: Path) -> None:
    interrupted(tmp_path / "m")
    again = Job("model", JOB.config, command=("bfrbctl", "train", "lgbm", "features", "m", "--resume"), seed=3)
    with open_output(tmp_path / "m", again, resume=True) as output:
        output.finish(CONTENT["model"])
    assert open_folder(tmp_path / "m").manifest["command"] == list(JOB.command)


def test_other_versions_of_libraries_are_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "m")
    before = (tmp_path / "m" / JOURNAL).read_bytes()
    real = deciding_libraries("model", JOB.config)
    monkeypatch.setattr("bfrbctl.artefacts.outputs.deciding_libraries", lambda *_: {**real, "lightgbm": "99.0"})
    both = rf"lightgbm \({real['lightgbm']} then, 99\.0 now\)"
    with pytest.raises(OutputError, match=both) as caught, open_output(tmp_path / "m", JOB, resume=True):
        raise AssertionError("a run that mixes versions was begun")
    assert "install those again, or start again with --force" in str(caught.value.hint)
    assert (tmp_path / "m" / JOURNAL).read_bytes() == before


def test_a_patch_of_python_is_no_other_version(tmp_path: Path) -> None:
    interrupted(tmp_path / "m")
    libraries = read_journal(tmp_path / "m")["libraries"]
    change_journal(tmp_path / "m", libraries={**libraries, "python": f"{libraries['python']}9"})
    with open_output(tmp_path / "m", JOB, resume=True) as output:
        assert output.has("fold-0")


def test_libraries_of_other_models_decide_nothing() -> None:
    assert not {"keras", "tensorflow"} & set(deciding_libraries("model", {"model": "lgbm"}))
    assert "lightgbm" not in deciding_libraries("dataset", {})
    assert {"keras", "lightgbm"} <= set(deciding_libraries("predictions", {}))


def test_a_journal_of_an_earlier_version_is_continued_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted(tmp_path / "m")
    change_journal(tmp_path / "m", without=("command", "directory", "options", "libraries", "content", "planned"))
    assert "with --resume" in open_journal(tmp_path / "m").continue_command
    with caplog.at_level(logging.WARNING), open_output(tmp_path / "m", JOB, resume=True) as output:
        assert output.has("fold-0")
    assert "did not note the versions of its libraries" in caplog.text


def test_settings_that_are_not_given_come_from_the_interrupted_run() -> None:
    then = {"learning_rate": 0.2, "params": {"cat_smooth": 7.0}}
    config = configuration.build(Config, earlier=then, overrides=["max_cat_threshold=31"], seeds=None)
    assert config.learning_rate == 0.2
    assert config.params == {"cat_smooth": 7.0, "max_cat_threshold": 31}
    assert configuration.build(BlendConfig, earlier={"decode": "argmax"}, decode="threshold").decode == "threshold"


def test_there_is_no_run_to_continue_of_another_kind_or_without_resume(tmp_path: Path) -> None:
    interrupted(tmp_path / "m")
    assert interrupted_run(tmp_path / "m", "model", resume=True).seed == 3
    assert interrupted_run(tmp_path / "m", "model", resume=False) is NO_JOURNAL
    assert interrupted_run(tmp_path / "m", "blend", resume=True) is NO_JOURNAL
    assert interrupted_run(tmp_path / "nowhere", "model", resume=True) is NO_JOURNAL
    (tmp_path / "m" / JOURNAL).write_bytes(b"{")
    assert interrupted_run(tmp_path / "m", "model", resume=True) is NO_JOURNAL


@pytest.mark.parametrize("open_it", [open_folder, find_splits])
def test_an_unfinished_input_is_refused_with_the_command_that_continues_it(tmp_path: Path, open_it) -> None:
    interrupted(tmp_path / "m")
    (tmp_path / "m" / "part-scratch-fold-1").mkdir()
    with pytest.raises(ArtefactError, match="is unfinished") as caught:
        open_it(tmp_path / "m")
    assert "bfrbctl train lgbm features m --resume" in str(caught.value.hint)


@pytest.mark.parametrize("changes", [{"pieces": 3}, {"pieces": {"a": {"../x": {}}}}, {"config": []}, {"command": 1}])
def test_a_strange_journal_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    interrupted(tmp_path / "m")
    change_journal(tmp_path / "m", **changes)
    with pytest.raises(ArtefactError):
        open_journal(tmp_path / "m")
