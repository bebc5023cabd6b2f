"""How a command ends: one JSON object for scripts, or a few lines and the next command for users."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from bfrbctl.cli.options import DisplayOptions


def show_result(
    result: Mapping[str, Any], *, lines: Sequence[str], next_command: str | None, display: DisplayOptions
) -> None:
    """Print the result of a command, in a panel on a terminal.

    Parameters
    ----------
    result
        What scripts get with --json.
    lines
        What users read.
    next_command
        What to run next; None at the end of the chain.
    display
        The options that ask for JSON or for nothing.
    """
    if display.as_json:
        print_json(result)
    elif not display.quiet and lines:
        text = [*lines, f" next: {next_command}"] if next_command else list(lines)
        if sys.stdout.isatty():
            _panel(text)
        else:
            typer.echo("\n".join(text))


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(result, indent=1, ensure_ascii=False, default=str))


def reused_line(names: Sequence[str]) -> list[str]:
    """Say how many files an earlier run had finished; no line where there are none."""
    return [f"      reused {len(names)} files of the earlier run"] if names else []


def _panel(lines: Sequence[str]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    Console(highlight=False).print(Panel(Text("\n".join(line.strip() for line in lines)), expand=False))
