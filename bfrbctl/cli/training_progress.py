"""How far a training is and how long it will take: a table in a terminal, lines of plain text elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bfrbctl.schema import SCENARIOS

if TYPE_CHECKING:
    from rich.table import Table

    from bfrbctl.models.interface import HistoryRow
    from bfrbctl.training.cross_validation import FoldResult

OnRow = Callable[["HistoryRow"], None]
OnFold = Callable[["FoldResult"], None]

LINE_EVERY_S = 60.0
"""How often a log file gets a line while a model trains."""


@dataclass
class FoldRow:
    """What is known of one fold: the last step and its score, the final score of each scenario, seconds."""

    state: str = "training"
    step: int | None = None
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Steps:
    """How far a training goes, and the names under which it is shown.

    Parameters
    ----------
    n_folds, n_members
        Folds, and models in each.
    n_steps
        Steps of a model, at most; 0 where that is not known.
    name, score_name
        What a step and the headline score are called.
    provisional
        Whether finished folds are scored with their last step until all folds are there.
    scenarios
        Those that are scored separately; where it is one, its final score has no name of its own.
    """

    n_folds: int
    n_members: int = 1
    n_steps: int = 0
    name: str = "step"
    score_name: str = "score"
    provisional: bool = False
    scenarios: tuple[str, ...] = tuple(SCENARIOS)


class Pace:
    """How fast steps are taken, and how long the rest takes, from the first step on.

    Steps of all models count alike. As soon as a second row is known, the pace is that of the clock. So it includes
    the time between two models, and several models at once.

    Parameters
    ----------
    steps
        How far the training goes.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(self, steps: Steps, clock: Callable[[], float]) -> None:
        self.steps = steps
        self.clock = clock
        self.taken: dict[tuple[int, int], int] = {}
        self.before: dict[tuple[int, int], int] = {}
        self.done: set[int] = set()
        self.first: tuple[float, int] | None = None
        self.last = clock()
        self.first_pace = 0.0

    def on_row(self, row: "HistoryRow") -> None:
        """Record how far a model is."""
        model = (int(row["fold"]), int(row.get("member", row.get("seed", 0))))
        step, counts_from_start = int(row["step"]), "seed" in row  # of trees
        self.before.setdefault(model, 0 if counts_from_start else step - 1)
        self.taken[model] = step
        self.last = self.clock()
        if self.first is None:
            self.first = (self.last, self._worked())
            seconds = float(row.get("seconds", 0.0))
            self.first_pace = seconds / step if counts_from_start else seconds

    def on_fold(self, result: "FoldResult") -> None:
        """Record that a fold is done."""
        self.done.add(result.fold)

    def _worked(self) -> int:
        return sum(step - self.before[model] for model, step in self.taken.items())

    @property
    def seconds_a_step(self) -> float | None:
        """Seconds of the whole run for each step of any model; None before the first one."""
        if self.first is None:
            return None
        began, worked = self.first
        more = self._worked() - worked
        return (self.last - began) / more if more and self.last > began else self.first_pace or None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None before the first step, or where the steps of a model are not known."""
        pace = self.seconds_a_step
        if pace is None or not self.steps.n_steps:
            return None
        taken = [step for (fold, _), step in self.taken.items() if fold not in self.done]
        n_models = (self.steps.n_folds - len(self.done)) * self.steps.n_members
        each = self.steps.n_steps
        left = sum(max(each - step, 0) for step in taken) + each * max(n_models - len(taken), 0)
        return max(left * pace - (self.clock() - self.last), 0.0)

    def __str__(self) -> str:
        """Give the pace and the time left, as far as they are known: `1.52 s an epoch, about 12:30 left`."""
        pace, left = self.seconds_a_step, self.seconds_left
        article = "an" if self.steps.name[0] in "aeiou" else "a"
        parts = [] if pace is None else [f"{pace:.3g} s {article} {self.steps.name}"]
        if left is not None and len(self.done) < self.steps.n_folds:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class FoldTable:
    """Folds as they train, drawn again whenever the terminal asks.

    Parameters
    ----------
    label
        What is trained.
    steps
        How far the training goes.
    clock
        A monotonic clock, in seconds.
    """

    def __init__(self, label: str, steps: Steps, clock: Callable[[], float] = time.monotonic) -> None:
        self.label = label
        self.steps = steps
        self.clock = clock
        self.pace = Pace(steps, clock)
        self.rows: dict[int, FoldRow] = {}
        self.last_end = clock()

    def on_row(self, row: "HistoryRow") -> None:
        """Record a row of progress."""
        self.pace.on_row(row)
        fold = self._fold(int(row["fold"]))
        fold.step = int(row["step"])
        score = row.get("score")
        if isinstance(score, float):
            fold.score = score

    def on_fold(self, result: "FoldResult") -> None:
        """Record a finished fold."""
        self.pace.on_fold(result)
        fold = self._fold(result.fold)
        fold.scores = dict(result.scores)
        fold.state = "reused" if result.reused else "done"
        if not result.reused:
            fold.seconds = self.clock() - fold.started
        self.last_end = self.clock()

    def _fold(self, number: int) -> FoldRow:
        return self.rows.setdefault(number, FoldRow(started=self.last_end))

    @property
    def n_done(self) -> int:
        """How many folds are finished, in this run or an earlier one."""
        return sum(row.state != "training" for row in self.rows.values())

    def row_line(self, row: "HistoryRow") -> str:
        """Describe a row of progress in one line of plain text."""
        fold, steps = self.rows[int(row["fold"])], self.steps
        of = f" of {steps.n_steps}" if steps.n_steps else ""
        score = f", {steps.score_name} {fold.score:.4f}" if fold.score is not None else ""
        number = int(row.get("member", row.get("seed", 0)))
        model = f" model {number + 1} of {steps.n_members}" if steps.n_members > 1 else ""
        done = "; ".join(part for part in (f"{self.n_done} of {steps.n_folds} folds done", str(self.pace)) if part)
        return f"{self.label} fold {row['fold']}{model}: {steps.name} {row['step']}{of}{score}; {done}"

    def fold_line(self, result: "FoldResult") -> str:
        """Describe a finished fold in one line of plain text."""
        several = len(result.scores) > 1
        names = ((scenario if several else self.steps.score_name, score) for scenario, score in result.scores.items())
        scores = ", ".join(f"{name} {score:.4f}" for name, score in names)
        reused = " (reused)" if result.reused else ""
        last = f" after the last {self.steps.name}" if self.steps.provisional else ""
        return f"{self.label} fold {result.fold}{reused}: {scores}{last}"

    def __rich__(self) -> "Table":
        """Draw the table."""
        from rich.table import Table

        steps, pace = self.steps, str(self.pace)
        caption = f"{self.n_done} of {steps.n_folds} folds{f', {pace}' if pace else ''}"
        if steps.provisional:
            caption += f"\nfinished folds: scores after the last {steps.name}; how many are kept is chosen at the end"
        table = Table(title=f"train {self.label}", caption=caption, title_justify="left", caption_justify="left")
        final = steps.scenarios if len(steps.scenarios) > 1 else ("final",)
        table.add_column("fold", justify="right")
        table.add_column("state")
        for name in (steps.name, steps.score_name, *final, "time"):
            table.add_column(name, justify="right")
        for number, row in sorted(self.rows.items()):
            seconds = self.clock() - row.started if row.state == "training" else row.seconds
            figures = [row.step, row.score, *(row.scores.get(scenario) for scenario in steps.scenarios)]
            time_text = "" if seconds is None else duration(seconds)
            table.add_row(str(number), row.state, *map(_number, figures), time_text)
        return table


@contextmanager
def show_folds(label: str, steps: Steps, *, quiet: bool) -> Iterator[tuple[OnRow, OnFold]]:
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
    folds = FoldTable(label, steps)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(folds, console=Console(stderr=True, highlight=False), refresh_per_second=2):
            yield folds.on_row, folds.on_fold
        return
    printed = -LINE_EVERY_S

    def on_row(row: "HistoryRow") -> None:
        nonlocal printed
        folds.on_row(row)
        if folds.clock() - printed >= LINE_EVERY_S:
            printed = folds.clock()
            print(folds.row_line(row), file=sys.stderr, flush=True)

    def on_fold(result: "FoldResult") -> None:
        folds.on_fold(result)
        print(folds.fold_line(result), file=sys.stderr, flush=True)

    yield on_row, on_fold


def both(first: OnRow, second: OnRow | None) -> OnRow:
    """Give a function that calls two functions with every row of progress."""
    if second is None:
        return first

    def on_row(row: "HistoryRow") -> None:
        first(row)
        second(row)

    return on_row


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Write a time for a reader.

    >>> duration(7.4), duration(95), duration(3725)
    ('7 s', '1:35', '1:02:05')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
