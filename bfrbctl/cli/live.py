"""The table of folds that a terminal shows while a model trains."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bfrbctl.schema import SCENARIOS

if TYPE_CHECKING:
    from rich.table import Table

    from bfrbctl.models import HistoryRow
    from bfrbctl.training import FoldResult


@dataclass
class FoldRow:
    """What is known of one fold: steps seen, its best score and step, both scenarios' scores, seconds."""

    state: str = "training"
    step: int | None = None
    score: float | None = None
    best: float | None = None
    best_step: int | None = None
    scores: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    seconds: float | None = None


class FoldTable:
    """Folds as they train, drawn anew whenever the terminal asks.

    Parameters
    ----------
    label
        What is trained.
    n_folds
        How many folds there will be.
    clock
        Seconds that only grow.
    scenarios
        Those that are scored apart; where it is one, its final score has no name of its own.
    """

    def __init__(
        self,
        label: str,
        n_folds: int,
        clock: Callable[[], float] = time.monotonic,
        scenarios: Sequence[str] = SCENARIOS,
    ) -> None:
        self.scenarios = tuple(scenarios)
        self.label = label
        self.n_folds = n_folds
        self.clock = clock
        self.rows: dict[int, FoldRow] = {}
        self.last_end = clock()

    def on_row(self, row: "HistoryRow") -> None:
        """Take a history row in: its fold is the one that trains now."""
        fold = self._fold(int(row["fold"]))
        fold.step = int(row["step"])
        score = row.get("score")
        if isinstance(score, float):
            fold.score = score
            if fold.best is None or score > fold.best:
                fold.best, fold.best_step = score, fold.step

    def on_fold(self, result: "FoldResult") -> None:
        """Take a finished fold in."""
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

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take at the pace of the folds trained so far; None before one is done."""
        paces = [row.seconds for row in self.rows.values() if row.seconds is not None]
        if not paces:
            return None
        pace = sum(paces) / len(paces)
        running = [self.clock() - row.started for row in self.rows.values() if row.state == "training"]
        spent = sum(min(seconds, pace) for seconds in running)
        return (pace * (self.n_folds - self.n_done) - spent) / max(len(running), 1)

    def __rich__(self) -> "Table":
        """Draw the table."""
        from rich.table import Table

        left = self.seconds_left
        told = f", {duration(left)} left" if left and self.n_done < self.n_folds else ""
        caption = f"{self.n_done} of {self.n_folds} folds{told}"
        table = Table(title=f"train {self.label}", caption=caption, title_justify="left", caption_justify="left")
        final = self.scenarios if len(self.scenarios) > 1 else ("final",)
        table.add_column("fold", justify="right")
        table.add_column("state")
        for name in ("step", "score", "best", "at step", *final, "time"):
            table.add_column(name, justify="right")
        for number, row in sorted(self.rows.items()):
            seconds = self.clock() - row.started if row.state == "training" else row.seconds
            scores = [_number(row.scores.get(scenario)) for scenario in self.scenarios]
            steps = [_number(row.step), _number(row.score), _number(row.best), _number(row.best_step)]
            table.add_row(str(number), row.state, *steps, *scores, "" if seconds is None else duration(seconds))
        return table


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Write a time for people.

    >>> duration(7.4), duration(95), duration(3725)
    ('7 s', '1:35', '1:02:05')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
