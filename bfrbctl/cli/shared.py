"""What the verbs have in common: their usual options, the progress bar, and how a result is told."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.schema import SCENARIOS

if TYPE_CHECKING:
    from bfrbctl.artefacts.journals import Journal
    from bfrbctl.cli.live import Steps
    from bfrbctl.execution.executor import Executor
    from bfrbctl.models.interface import HistoryRow
    from bfrbctl.training.cross_validation import FoldResult

Force = Annotated[bool, typer.Option("--force", help="Replace the output if it is there already and of the same kind.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the unfinished run in the output folder, with its settings.")
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="Leave this member of the blend out; may be repeated.", metavar="NAME"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no summary.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting; may be repeated.", metavar="KEY=VALUE")]
Workers = Annotated[int, typer.Option("--workers", help="Processes; 0 means one a core.", min=0)]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Work on the Dask cluster with this scheduler, such as tcp://host:8786.", metavar="ADDRESS"),
]

Advance = Callable[[float], None]
OnRow = Callable[["HistoryRow"], None]
OnFold = Callable[["FoldResult"], None]

LINE_EVERY_S = 60.0
"""How often a log file gets a line while a model trains."""


def command_line() -> tuple[str, ...]:
    """Give the exact command, for the manifest."""
    return ("bfrbctl", *sys.argv[1:])


def remembered_path(earlier: "Journal", option: str, given: Path | None) -> tuple[dict[str, str], Path | None]:
    """Take a path that is an option of a run from the run that is continued, unless it is given.

    Returns
    -------
    What the journal of this run remembers of it, and the path.
    """
    known = earlier.options.get(option)
    path = Path(known) if given is None and isinstance(known, str) else given
    return ({} if path is None else {option: str(path.absolute())}), path


@contextmanager
def executor(workers: int, scheduler: str | None, *, quiet: bool) -> Iterator["Executor"]:
    """Find those who will do the work, and tell of a cluster on stderr."""
    from bfrbctl.execution.executor import open_executor

    with open_executor(workers, scheduler) as found:
        if found.cluster and not quiet:
            print(f"cluster {found.cluster.about}", file=sys.stderr)
        yield found


@contextmanager
def progress(label: str, total: float, *, quiet: bool, unit: str, scale: float = 1.0) -> Iterator[Advance]:
    """Draw a bar with rate and remaining time on stderr; nothing when quiet or not a terminal.

    Parameters
    ----------
    label
        What is being done.
    total
        How much there is to do.
    quiet
        Whether to draw nothing.
    unit, scale
        The rate is told in `unit` a second, of which each is `scale` of what the bar counts.

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
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    begin, done = time.monotonic(), 0.0
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")]
    columns += [TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, rate="")

        def advance(amount: float) -> None:
            nonlocal done
            done += amount
            rate = done / scale / max(time.monotonic() - begin, 1e-3)
            bar.update(task, advance=amount, rate=f"{rate:,.1f} {unit}/s")

        yield advance


@contextmanager
def show_folds(
    label: str, *, n_folds: int, quiet: bool, steps: "Steps | None" = None, scenarios: Sequence[str] = SCENARIOS
) -> Iterator[tuple[OnRow, OnFold]]:
    """Show folds as they train; nothing when quiet.

    A terminal gets a live table; a file or a pipe gets a line after the first row, then about one a minute, and one for
    each finished fold.

    Yields
    ------
    What to call with every row of progress, and with every finished fold.
    """
    if quiet:
        yield (lambda _: None), (lambda _: None)
        return
    from bfrbctl.cli.live import FoldTable, Steps

    folds = FoldTable(label, n_folds, steps or Steps(), scenarios=scenarios)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(folds, console=Console(stderr=True, highlight=False), refresh_per_second=2):
            yield folds.on_row, folds.on_fold
        return
    told = -LINE_EVERY_S

    def on_row(row: "HistoryRow") -> None:
        nonlocal told
        folds.on_row(row)
        if folds.clock() - told >= LINE_EVERY_S:
            told = folds.clock()
            print(folds.line(row), file=sys.stderr, flush=True)

    def on_fold(result: "FoldResult") -> None:
        folds.on_fold(result)
        several = len(result.scores) > 1
        name, last = (
            folds.score_name,
            f" after the last {folds.pace.steps.name}" if folds.pace.steps.provisional else "",
        )
        scores = ", ".join(f"{scenario if several else name} {score:.4f}" for scenario, score in result.scores.items())
        again = " (reused)" if result.reused else ""
        print(f"{label} fold {result.fold}{again}: {scores}{last}", file=sys.stderr, flush=True)

    yield on_row, on_fold


def tell(
    result: Mapping[str, Any], *, lines: Sequence[str], next_command: str | None, as_json: bool, quiet: bool
) -> None:
    """End a command: one JSON object, or a few lines and the next command, in a panel on a terminal.

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
    elif not quiet and lines:
        told = [*lines, f" next: {next_command}"] if next_command else list(lines)
        if sys.stdout.isatty():
            _panel(told)
        else:
            typer.echo("\n".join(told))


def _panel(lines: Sequence[str]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    Console(highlight=False).print(Panel(Text("\n".join(line.strip() for line in lines)), expand=False))
