"""Write the generated pages: command line reference (cli.md), settings (settings.md), feature catalogue (features.md).

usage: python docs/generate.py      (or make docs)
A test fails when a page is not what this script would write.
"""

import os
import re
from importlib import import_module
from pathlib import Path

os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "100"

from typer.main import get_command
from typer.testing import CliRunner

from bfrbctl.cli.app import app
from bfrbctl.cli.options import SETTINGS_CLASSES
from bfrbctl.config import settings_table
from bfrbctl.features.documentation import features_markdown

DOCS = Path(__file__).parent
MEASURED = ("ablation.md", "flips.md")
"""Pages at the end of the feature catalogue, written by hand from what was measured."""


def command_paths() -> list[tuple[str, ...]]:
    """Every command and group, as the words that call it, in the order of the help."""
    found: list[tuple[str, ...]] = [()]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found.append((name,))
        found += [(name, child) for child in getattr(command, "commands", {})]
    return found


def help_text(words: tuple[str, ...]) -> str:
    """Give what `bfrbctl WORDS --help` prints, 100 columns wide."""
    runner = CliRunner()
    result = runner.invoke(app, [*words, "--help"], prog_name="bfrbctl", color=False, terminal_width=100)
    return re.sub(r"[ \t]+\n", "\n", result.output).strip()


def cli_page() -> str:
    """Give the whole command line reference as Markdown."""
    parts = [
        "# Command line reference",
        "This page is generated from the program's own help by `make docs`. Exit codes: 0 done, 2 usage, 3 bad data, "
        "4 bad or unsafe\nartefact, 5 output exists or is locked, 130 interrupted, 143 terminated, 1 anything else.",
    ]
    for words in command_paths():
        parts.append(f"## {' '.join(('bfrbctl', *words))}\n\n```text\n{help_text(words)}\n```")
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Give the settings of every command as Markdown: their defaults, what they may be, and what they mean."""
    parts = [
        "# Settings",
        "This page is generated from the settings classes by `make docs`. Set a value with `--set name=value`\n"
        "or in a TOML file (`--config`); `--print-config` of each command prints such a file with all defaults.",
    ]
    for words in command_paths():
        if words and words[-1] in SETTINGS_CLASSES:
            module, name = SETTINGS_CLASSES[words[-1]].split(":")
            table = settings_table(getattr(import_module(module), name)).strip()
            parts.append(f"## bfrbctl {' '.join(words)}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def features_page() -> str:
    """Give the feature catalogue as Markdown, with what was measured of it."""
    return "\n".join([features_markdown(), *((DOCS / name).read_text(encoding="utf-8") for name in MEASURED)])


if __name__ == "__main__":
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    (DOCS / "features.md").write_text(features_page(), encoding="utf-8")
