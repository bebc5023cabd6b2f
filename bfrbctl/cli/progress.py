"""What is shown on stderr while a command works: the cluster that it uses, and a bar."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bfrbctl.execution.executor import Executor

Advance = Callable[[float], None]


@contextmanager
def executor(workers: int, scheduler: str | None, *, quiet: bool) -> Iterator["Executor"]:
    """Open the executor of a command; a cluster is named on stderr.

    Parameters
    ----------
    workers
        Processes of this machine; 0 means one per core.
    scheduler
        Address of the scheduler of a Dask cluster to use instead.
    quiet
        Whether to print nothing.
    """
    from bfrbctl.execution.executor import open_executor

    with open_executor(workers, scheduler) as opened:
        if opened.cluster and not quiet:
            print(f"cluster {opened.cluster.about}", file=sys.stderr)
        yield opened


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
        The rate is shown in `unit` per second; one unit is `scale` of what the bar counts.

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
