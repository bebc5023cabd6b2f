"""The help of a command: its options in named groups, as plain text or, on a terminal, in panels.

typer can draw panels as well, but only where it may read every help text as markup, in which `[default: 10]` vanishes;
and without a terminal it shows no groups.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

DISPLAY = "Display"
"""Group of the options that decide what is printed; --help joins it."""

Section = tuple[str, list[tuple[str, str]]]
"""A title, and rows of a name and its explanation."""

_SHORT = 1000
"""Length to which typer may cut the first sentence of a command: not at all, since lines are wrapped."""

_MAX_WIDTH = 100


class Command(TyperCommand):
    """A command whose help shows its options by the group that each names (`rich_help_panel`)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write(_parameter_sections(self, ctx), formatter)


class Group(TyperGroup):
    """A group of commands whose help is laid out like that of a command."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options and commands."""
        rows = [(name, self.commands[name].get_short_help_str(_SHORT)) for name in self.list_commands(ctx)]
        _write([*_parameter_sections(self, ctx), ("Commands", rows)], formatter)


def _parameter_sections(command: TyperCommand | TyperGroup, ctx: Any) -> list[Section]:
    """Sort parameters by group, in the order in which groups first appear."""
    sections: dict[str, list[tuple[str, str]]] = {}
    parameters: list[Any] = command.get_params(ctx)  # typer adds the group and the text to click's class
    for parameter in parameters:
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            title = "Arguments"
        elif "--help" in parameter.opts:  # the last one
            title = DISPLAY if DISPLAY in sections else "Options"
        else:
            title = parameter.rich_help_panel or "Options"
        sections.setdefault(title, []).append(row)
    return list(sections.items())


def _write(sections: Sequence[Section], formatter: Any) -> None:
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formatter.write("\n" + _drawn(sections))
        return
    for title, rows in sections:
        with formatter.section(title):
            formatter.write_dl(rows)


def _drawn(sections: Sequence[Section]) -> str:
    """Draw every section as a panel that is as wide as the terminal, up to 100 columns."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.width = min(console.width, _MAX_WIDTH)
    longest = max((len(name) for _, rows in sections for name, _ in rows), default=0)
    with console.capture() as captured:
        for title, rows in sections:
            table = Table.grid(padding=(0, 2, 0, 0))
            table.add_column(style="cyan", width=min(longest, 3 * console.width // 8))
            table.add_column()
            for name, explanation in rows:
                table.add_row(Text(name), Text(explanation))
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))
    return captured.get()
