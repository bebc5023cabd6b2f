import doctest
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from bfrbctl.artefacts.folders import Folder

ROOT = Path(__file__).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = generator()
PATHS = GENERATE.command_paths()


@pytest.mark.parametrize("name", ["cli", "features"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / f"{name}.md").read_text("utf-8") == getattr(GENERATE, f"{name}_page")(), "run: make docs"


@pytest.mark.parametrize(
    "words", [path for path in PATHS if path and path not in (("train",), ("inspect",))], ids=" ".join
)
def test_every_command_has_help_an_example_and_a_place_in_the_docs(words: tuple[str, ...]) -> None:
    text = GENERATE.help_text(words)
    assert f"Example: bfrbctl {' '.join(words)}" in text
    call = f"bfrbctl {' '.join(words)}"
    pages = [page for page in (ROOT / "docs").glob("*.md") if page.name != "cli.md"] + [ROOT / "README.md"]
    assert any(call in page.read_text() for page in pages), f"no page explains {call}"


def test_readme_links_lead_somewhere() -> None:
    import re

    targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_examples_of_the_python_page_run(
    raw_folder: Path,
    dataset_folder: Folder,
    feature_folder: Folder,
    blend_folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = {
        "raw": raw_folder,
        "data": dataset_folder.path,
        "features": feature_folder.path,
        "blend": blend_folder.path,
    }
    for name, path in folders.items():
        shutil.copytree(path, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "python.md"
    text = page.read_text("utf-8").replace("```\n", "\n")  # the fence after an answer is no part of it
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    options = doctest.NORMALIZE_WHITESPACE
    failed, attempted = doctest.DocTestRunner(verbose=False, optionflags=options).run(examples)
    assert (failed, attempted > 15) == (0, True)


def test_the_package_gives_its_public_names_and_lists_them() -> None:
    import bfrbctl
    from bfrbctl.prediction.predictor import Predictor

    assert bfrbctl.Predictor is Predictor
    assert "Predictor" in dir(bfrbctl)
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        _ = bfrbctl.Predicter
