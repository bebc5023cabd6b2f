import json
import sys
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import Folder, open_folder
from bfrbctl.cli import main


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr(sys, "argv", ["bfrbctl", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    return stop.value.code, printed.out, printed.err


def test_predictions_name_the_member_that_was_left_out(
    blend_folder: Folder,
    raw_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = blend_folder.content["members"]
    words = ("predict", raw_folder, blend_folder.path, tmp_path / "p", "--without", first, "--json")
    code, out, err = run(monkeypatch, capsys, *words)
    assert (code, err) == (0, "")
    assert json.loads(out)["n_sequences"] == 16
    assert open_folder(tmp_path / "p").config["without"] == [first]
    assert f"weights are now {second} 1.000 (scenario all)" in caplog.text


def test_a_member_that_is_not_there_is_a_mistake_of_the_command_line(
    blend_folder: Folder,
    raw_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("predict", raw_folder, blend_folder.path, tmp_path / "p", "--without", "moon")
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 2
    assert "--without moon" in err
    assert "there is soft, sharp" in err
    assert not (tmp_path / "p").exists()
    assert run(monkeypatch, capsys, "serve", blend_folder.path, "--without", "moon")[0] == 2
