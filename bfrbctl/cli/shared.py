"""What the verbs have in common: their usual options, the progress bar, and how a result is told."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

Force = Annotated[bool, typer.Option("--force", help="Replace the output if it is there already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished run in the output folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no summary.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting; may be repeated.", metavar="KEY=VALUE")]
Workers = Annotated[int, typer.Option("--workers", help="Processes; 0 means one a core.", min=0)]

Advance = Callable[[float], None]


def command_line() -> tuple[str, ...]:
    """The exact command, for the manifest."""
    return ("bfrbctl", *sys.argv[1:])


@contextmanager
def progress(label: str, total: float, *, quiet: bool, unit: str = "") -> Iterator[Advance]:
    """Draw a bar with rate and remaining time on stderr; nothing when quiet or not a terminal.

    Yields
    ------
    A function that advances the bar by a number of units.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")]
    if unit:
        columns += [MofNCompleteColumn(), TextColumn(unit)]
    with Progress(
        *columns,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(label, total=total)
        yield lambda amount: bar.advance(task, amount)


def tell(
    result: Mapping[str, Any], *, lines: Sequence[str], next_command: str | None, as_json: bool, quiet: bool
) -> None:
    """End a command: one JSON object, or a few lines and the next command.

    Parameters
    ----------
    result
        What scripts get with --json.
    lines
        What people read.
    next_command
        What to run next; None at the end of the chain.
    as_json, quiet
        The options of that name.
    """
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False, default=str))
    elif not quiet:
        for line in lines:
            typer.echo(line)
        if next_command:
            typer.echo(f" next: {next_command}")
