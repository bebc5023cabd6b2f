import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()
PATHS = GENERATE.command_paths()


@pytest.mark.parametrize("name", ["cli", "settings", "features"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == getattr(GENERATE, f"{name}_page")(), "run: make docs"


@pytest.mark.parametrize(
    "words", [path for path in PATHS if path and path not in (("train",), ("inspect",))], ids=" ".join
)
def test_every_command_has_help_an_example_and_a_place_in_the_docs(words: tuple[str, ...]) -> None:
    text = GENERATE.help_text(words)
    assert f"Example: bfrbctl {' '.join(words)}" in text
    call = f"bfrbctl {' '.join(words)}"
    generated = ("cli.md", "settings.md")
    pages = [page for page in (ROOT / "docs").glob("*.md") if page.name not in generated] + [ROOT / "README.md"]
    assert any(call in page.read_text() for page in pages), f"no page explains {call}"


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as the forges make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text("utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target} is not there"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target} has no heading {anchor}"


def test_readme_lists_every_page_with_a_line() -> None:
    listed = re.findall(r"^\| \[(docs/[\w-]+\.md)\]\(\1\) \| \S.+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))


def test_the_package_gives_its_public_names_and_lists_them() -> None:
    import bfrbctl
    from bfrbctl.prediction.predictor import Predictor

    assert bfrbctl.Predictor is Predictor
    assert "Predictor" in dir(bfrbctl)
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        _ = bfrbctl.Predicter
