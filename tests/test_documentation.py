import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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


def test_the_command_line_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == GENERATE.cli_page(), "run: make docs"


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
