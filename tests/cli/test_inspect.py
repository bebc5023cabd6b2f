"""bfrbctl inspect as a user runs it: what it draws, writes and refuses."""

import json
import shutil
import signal
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the program in this process: words -> (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bfrbctl", "inspect", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, printed.out, printed.err

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)


def test_a_sequence_is_drawn_in_the_terminal_and_into_a_file(run: Run, dataset_folder: Folder, tmp_path: Path) -> None:
    plot = tmp_path / "s.svg"
    code, out, _ = run("sequence", dataset_folder.path, "SEQ_000004", "--plot", plot)
    assert code == 0
    assert "thm_2" in out
    assert "█" in out
    names = {node.text for node in ET.parse(plot).iter() if node.tag.endswith("text")}
    assert {"Acceleration", "Images of the ToF sensors", "tof_1"} <= names


def test_a_plot_that_cannot_be_is_refused_before_the_work(run: Run, dataset_folder: Folder, tmp_path: Path) -> None:
    code, out, err = run("dataset", dataset_folder.path, "--plot", tmp_path / "a.jpg")
    assert (code, out) == (2, "")
    assert "expected a name that ends in .svg or .png" in err
    code, out, err = run("dataset", dataset_folder.path, "--plot", dataset_folder.path / "a.svg")
    assert (code, out) == (2, "")
    assert "hint: write it beside the folder" in err
    code, out, err = run("artefact", dataset_folder.path, "--plot", tmp_path / "a.svg")
    assert (code, out) == (3, "")
    assert "there is nothing to draw" in err
    assert list(tmp_path.iterdir()) == []


def test_png_without_its_library_says_what_to_install(
    run: Run, dataset_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    code, _, err = run("dataset", dataset_folder.path, "--plot", tmp_path / "a.png")
    assert code == 2
    assert f"{sys.executable} -m pip install resvg-py, or draw it as .svg" in err
    assert list(tmp_path.iterdir()) == []


def test_png_is_a_picture(run: Run, dataset_folder: Folder, tmp_path: Path) -> None:
    code, _, err = run("folds", dataset_folder.path, "--plot", tmp_path / "a.png")
    if "no font is installed" in err:
        pytest.skip("no font is installed")
    assert code == 0
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_png_holds_the_labels_or_is_refused_where_no_font_could_draw_them(
    run: Run, dataset_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resvg_py

    def without_fonts(svg_string: str) -> bytes:
        return draw(svg_string=svg_string, skip_system_fonts=True)

    draw = resvg_py.svg_to_bytes
    monkeypatch.setattr(resvg_py, "svg_to_bytes", without_fonts)
    code, _, err = run("folds", dataset_folder.path, "--plot", tmp_path / "a.png")
    assert code == 2
    assert "no font is installed to write the labels with" in err
    assert list(tmp_path.iterdir()) == []


def test_feature_is_explained_in_the_terminal_and_drawn(run: Run, feature_folder: Folder, tmp_path: Path) -> None:
    code, out, _ = run("feature", feature_folder.path, "lin_mag__last32_std", "--plot", tmp_path / "f.svg")
    assert code == 0
    assert "window: the last 32 frames, or all where there are fewer" in out
    assert "unit: m/s^2" in out
    texts = {node.text for node in ET.parse(tmp_path / "f.svg").iter() if node.tag.endswith("text")}
    assert "m/s^2; targets orange" in texts
    code, _, err = run("feature", feature_folder.path, "lin_mag__last32_sdt")
    assert code == 2
    assert "hint: did you mean lin_mag__last32_std" in err


def test_compare_takes_two_folders(run: Run, model_folders: tuple[Folder, Folder]) -> None:
    a, b = (folder.path for folder in model_folders)
    code, out, err = run("compare", a, b, "--json")
    assert (code, err) == (0, "")
    view = json.loads(out)
    assert view["facts"]["A"] == "soft"
    assert [row["scenario"] for row in view["tables"]["scores"]] == ["all", "imu"]


def test_nothing_to_show_is_bad_data(run: Run, blend_folder: Folder) -> None:
    code, out, err = run("feature-importance", blend_folder.path)
    assert (code, out) == (3, "")
    assert "no tree model is in it" in err


def test_a_report_tells_what_it_wrote_and_what_it_left_out(
    run: Run, blend_folder: Folder, feature_folder: Folder, tmp_path: Path
) -> None:
    page = tmp_path / "blend.html"
    words = ("report", blend_folder.path, page, "--features", feature_folder.path)
    code, out, _ = run(*words)
    assert code == 0
    assert out.startswith(f"wrote {page}: 7 views")
    assert "left out feature-importance" in out
    assert "Seated Straight" in page.read_text("utf-8")
    code, _, err = run(*words)
    assert code == 5
    assert "--force" in err
    code, out, _ = run(*words, "--force", "--json")
    assert code == 0
    assert json.loads(out)["views"][0] == "blend"


def test_a_folder_may_be_the_one_we_are_in(run: Run, blend_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(blend_folder.path)
    code, out, _ = run("blend", ".", "--json")
    assert code == 0
    assert json.loads(out)["title"] == "blend blend"


def test_an_artefact_is_told_where_its_inputs_lie(
    run: Run, dataset_folder: Folder, feature_folder: Folder, tmp_path: Path
) -> None:
    alone = shutil.copytree(feature_folder.path, tmp_path / "features")
    code, out, _ = run("artefact", alone)
    assert (code, "with --inputs DIR" in out) == (0, True)
    code, out, _ = run("artefact", alone, "--inputs", tmp_path, "--inputs", dataset_folder.path, "--json")
    assert code == 0
    assert "not found beside it" not in out
    code, _, err = run("artefact", alone, "--inputs", tmp_path / "nowhere")
    assert (code, "nowhere" in err) == (2, True)
