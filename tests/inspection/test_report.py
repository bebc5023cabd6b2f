import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Job, open_output
from bfrbctl.errors import OutputError, UsageError
from bfrbctl.evaluation import oof
from bfrbctl.inspection import Options, Table, View
from bfrbctl.inspection.figures import Bars, Matrix
from bfrbctl.inspection.page import MAX_ROWS, page
from bfrbctl.inspection.report import CONTENTS, report, write_report
from bfrbctl.prediction.predictor import Predictor
from bfrbctl.prediction.submission import open_input, predict
from bfrbctl.simulation.gestures import GESTURES

EVIL = "<script>alert('x')</script>\" onload=\"x"


class Outline(HTMLParser):
    """Tags that are open or closed, texts, and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "data")]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag not in ("meta", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def predictions_folder(blend_folder: Folder, raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    predictor = Predictor.open(blend_folder.path)
    with open_output(tmp_path_factory.mktemp("p") / "predictions", Job("predictions", {})) as output:
        return predict(open_input(raw_folder, predictor, split="test"), predictor, output)


@pytest.fixture(scope="module")
def pages(
    dataset_folder: Folder,
    feature_folder: Folder,
    model_folders: tuple[Folder, Folder],
    blend_folder: Folder,
    predictions_folder: Folder,
) -> dict[str, str]:
    folders = (dataset_folder, feature_folder, model_folders[0], blend_folder, predictions_folder)
    return {folder.kind: report(folder, Options())[0] for folder in folders}


@pytest.mark.parametrize("kind", ["dataset", "features", "model", "blend", "predictions"])
def test_a_report_is_whole_and_needs_no_network(pages: dict[str, str], kind: str) -> None:
    outline = Outline(pages[kind])
    assert outline.open == []
    assert outline.tags.count("script") == outline.tags.count("style") == 1
    assert outline.tags.count("svg") >= 1
    sections = set(re.findall(r'<section id="([\w-]+)"', pages[kind]))
    assert {address.removeprefix("#") for address in outline.addresses} == sections
    assert set(CONTENTS[kind]) - {"feature-importance"} == sections
    assert "//" not in pages[kind].replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_a_report_is_the_same_bytes_again(blend_folder: Folder, tmp_path: Path, pages: dict[str, str]) -> None:
    summary = write_report(blend_folder.path, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text("utf-8") == pages["blend"]
    assert summary["bytes"] == len((tmp_path / "a.html").read_bytes())


def test_a_report_does_not_depend_on_where_the_folder_lies(blend_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(blend_folder.path, tmp_path / "elsewhere" / blend_folder.path.name)
    for source, name in ((blend_folder.path, "a.html"), (copy, "b.html")):
        write_report(source, tmp_path / name)
    a, b = ((tmp_path / name).read_text("utf-8") for name in ("a.html", "b.html"))
    assert a == b
    assert str(tmp_path) not in b


def test_what_is_left_out_says_why(blend_folder: Folder, pages: dict[str, str]) -> None:
    _, _, left_out = report(blend_folder, Options())
    assert set(left_out) == {"feature-importance"}
    assert "since no tree model is in it" in pages["blend"]


def test_every_text_of_data_is_text(tmp_path: Path) -> None:
    table = Table(EVIL, (EVIL, "n"), ((EVIL, 1), ("b", None)))
    view = View(EVIL, {EVIL: EVIL}, (table,), (EVIL,), (Bars(EVIL, EVIL, (EVIL,), ((EVIL, (1.0,)),)),))
    outline = Outline(page(EVIL, {"oof": view}, left_out={"blend": EVIL}, footer=EVIL))
    assert outline.open == []
    assert outline.tags.count("script") == 1
    assert outline.texts.count(EVIL) >= 8


def test_a_gesture_called_script_is_text(model_folders: tuple[Folder, Folder], tmp_path: Path) -> None:
    folder = model_folders[0]
    evil = "<script>alert(1)</script>"
    classes = [evil if name == "Neck - scratch" else name for name in folder.content["classes"]]
    rows = folder.read_parquet(oof.OOF).with_columns(pl.col("gesture").replace("Neck - scratch", evil))
    with open_output(tmp_path / "m", Job("model", dict(folder.config))) as output:
        output.publish("all", {**{name: folder.read(name) for name in folder.files}, oof.OOF: rows})
        output.finish({**folder.content, "classes": classes})
    write_report(tmp_path / "m", tmp_path / "m.html")
    text = (tmp_path / "m.html").read_text("utf-8")
    assert Outline(text).tags.count("script") == 1
    assert "&lt;script&gt;alert(1)" in text


def test_a_report_is_not_replaced_without_force_nor_put_into_the_folder(blend_folder: Folder, tmp_path: Path) -> None:
    write_report(blend_folder.path, tmp_path / "a.html")
    with pytest.raises(OutputError, match="exists already"):
        write_report(blend_folder.path, tmp_path / "a.html")
    write_report(blend_folder.path, tmp_path / "a.html", force=True)
    with pytest.raises(UsageError, match="lies in the folder"):
        write_report(blend_folder.path, blend_folder.path / "a.html")


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.html.gz"])
def test_a_report_that_is_no_page_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html") as caught:
        write_report(tmp_path / "no folder", tmp_path / name)
    assert "a browser prints it into a PDF file" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_of_a_page_may_be_written_in_capitals(blend_folder: Folder, tmp_path: Path) -> None:
    write_report(blend_folder.path, tmp_path / "x.HTM")
    assert (tmp_path / "x.HTM").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_the_page_has_every_subject_and_says_when_rows_are_left_out() -> None:
    rows = tuple((f"SUBJ_{n:06}", n) for n in range(MAX_ROWS + 5))
    few, many = Table("few", ("subject", "n"), rows[:300], top=10), Table("many", ("subject", "n"), rows, top=10)
    text = page("x", {"oof": View("x", {}, (few, many))}, left_out={}, footer="")
    assert all(text.count(name) == 2 for name, _ in rows[:300])
    assert all(text.count(name) == 1 for name, _ in rows[300:MAX_ROWS])
    assert f">many ({MAX_ROWS} of {MAX_ROWS + 5}; --json has all)</h3>" in text
    assert ">few</h3>" in text


def test_a_table_is_stacked_on_screens_that_it_is_too_wide_for() -> None:
    def kinds(n_columns: int, cell: object) -> list[str]:
        table = Table("t", tuple(f"column {n}" for n in range(n_columns)), ((cell,) * n_columns,))
        found = page("x", {"oof": View("x", {}, (table,))}, left_out={}, footer="")
        return re.findall(r"<table( class=\"s\d\")?>", found)

    assert [kinds(n, 0.25) for n in (3, 6, 10, 16)] == [[""], [' class="s1"'], [' class="s2"'], [' class="s3"']]
    assert kinds(3, "a text of some length to show") == [' class="s2"']


def test_the_gestures_of_the_study_are_a_table_on_a_desk() -> None:
    figures = ("precision all", "recall all", "F1 all", "precision imu", "recall imu", "F1 imu")
    rows = tuple((gesture.name, "non-target", 96, *(0.25,) * 6) for gesture in GESTURES)
    table = Table("gestures", ("gesture", "kind", "sequences", *figures), rows)
    text = page("x", {"oof": View("x", {}, (table,))}, left_out={}, footer="")
    assert '<table class="s2">' in text


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)


def browse(page_path: Path, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *words, page_path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("kind", ["dataset", "blend"])
def test_a_browser_shows_the_report_without_complaint(pages: dict[str, str], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    # The last script of this copy reports what a browser made of the page; the policy must admit it for that alone.
    probe = """<script>
      document.querySelectorAll("th button")[1].click();
      const column = [...document.querySelector("table").tBodies[0].rows].map((row) => Number(row.cells[1].dataset.v));
      const boxes = [...document.querySelectorAll("svg.figure")].map((svg) => svg.getBoundingClientRect());
      document.title = JSON.stringify([boxes.length, boxes.every((box) => box.width > 200 && box.height > 60),
        document.querySelectorAll("th[aria-sort]").length,
        column.every((value, i) => i === 0 || column[i - 1] >= value),
        document.documentElement.scrollWidth <= window.innerWidth]);
    </script></body>"""
    path.write_text(pages[kind].replace("; script-src '", "; script-src 'unsafe-inline' 'x").replace("</body>", probe))
    done = browse(path, tmp_path, "--dump-dom", "--window-size=500,900")
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    n_figures = pages[kind].count('<svg class="figure"')
    assert title[1] == f"[{n_figures},true,1,true,true]"
    path.write_text(pages[kind], encoding="utf-8")
    done = browse(path, tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,1600")
    assert "CONSOLE" not in done.stderr
    picture = (tmp_path / "shot.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 40_000  # a blank one of this size has some 8 kB


PROBE = """<script>
  const outside = (node, box) => {
    const inner = node.getBoundingClientRect();
    return inner.width > 0 && (inner.left < box.left - 1 || inner.right > box.right + 1);
  };
  const found = [];
  const screen = { left: 0, right: window.innerWidth };
  for (const node of document.querySelectorAll("h1, h2, h3, figcaption, dt, dd, th, td, .note, .search, svg.figure")) {
    if (outside(node, screen)) found.push("off the screen: " + node.textContent.slice(0, 40));
  }
  for (const svg of document.querySelectorAll("svg.figure")) {
    for (const text of svg.querySelectorAll("text")) {
      if (outside(text, svg.getBoundingClientRect())) found.push("cut: " + text.textContent);
      if (text.textContent.includes("\u2026")) found.push("shortened: " + text.textContent);
    }
  }
  for (const node of document.querySelectorAll("h1, h2, h3, dd, td, th, .scroll")) {
    if (node.scrollWidth > node.clientWidth + 1 && node.clientWidth) {
      found.push("clipped: " + node.textContent.slice(0, 40));
    }
  }
  const title = [...document.querySelectorAll("h3")].find((node) => node.textContent.startsWith("subjects"));
  const table = title.parentElement.querySelector("table");
  const box = title.parentElement.querySelector("input"), searched = [];
  if (box) {
    const rows = [...table.tBodies[0].rows];
    box.value = rows[20].cells[0].textContent.toLowerCase();
    box.dispatchEvent(new Event("input"));
    const left = rows.filter((row) => row.getBoundingClientRect().height > 0);
    searched.push(rows.length, left.length, left[0] === rows[20], title.parentElement.querySelector("output").value);
  }
  parent.postMessage(JSON.stringify([window.innerWidth, found, searched]), "*");
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_clipped_on_a_phone_or_a_desk_and_every_subject_can_be_searched(
    pages: dict[str, str], tmp_path: Path, width: int
) -> None:
    long = "Feel around in tray and pull out an object"
    rows = tuple((f"SUBJ_{n:06}", 102, 0.5, 0.25) for n in range(81))
    bars = Bars(f"Score by gesture: {long}, {long}", "score", (long, "b"), (("all", (0.5, 0.9)), ("imu", (0.4, 0.25))))
    counts = tuple(tuple(0.5 for _ in range(18)) for _ in range(18))
    texts = tuple(tuple("123" for _ in range(18)) for _ in range(18))
    matrix = Matrix("Confusion", "predicted", "truth", (long,) * 18, (long,) * 18, counts, texts)
    wide = Table("wide", tuple(f"precision {n}" for n in range(14)), ((0.25,) * 14,))
    digest = Table("files", ("file", "sha256"), (("frames-00000.parquet", "0123456789abcdef" * 4),))
    tables = (Table("subjects, worst first", ("subject", "sequences", "all", "imu"), rows, top=10), wide, digest)
    view = View(f"out-of-fold predictions of {'x' * 60}", {"settings": long * 4}, tables, (long,), (bars, matrix))
    made = page("blend " + "y" * 60, {"oof": view}, left_out={}, footer="z" * 90)
    for text in (made, pages["blend"]):
        admitted = text.replace("; script-src '", "; script-src 'unsafe-inline' 'x").replace("</body>", PROBE)
        (tmp_path / "inner.html").write_text(admitted, encoding="utf-8")
        outer = tmp_path / "outer.html"
        outer.write_text(
            "<!DOCTYPE html><title>none</title><script>addEventListener('message', (e) => document.title = e.data)"
            f"</script><iframe src=inner.html style='width:{width}px;height:844px;border:0'></iframe>"
        )
        done = browse(outer, tmp_path, "--dump-dom", "--virtual-time-budget=4000", "--window-size=1400,1000")
        title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
        assert title is not None
        searched = [81, 1, True, "1 of 81"] if text is made else []
        assert json.loads(unescape(title[1])) == [width, [], searched]
