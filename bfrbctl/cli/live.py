"""How far a training is and how long it will take: a table in a terminal, lines of plain text elsewhere."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bfrbctl.schema import SCENARIOS

if TYPE_CHECKING:
    from rich.table import Table

    from bfrbctl.models.interface import HistoryRow
    from bfrbctl.training.cross_validation import FoldResult


@dataclass
class FoldRow:
    """What is known of one fold: steps seen, the score after the last of them, both scenarios' scores, seconds."""

    state: str = "training"
    step: int | None = None
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    started: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Steps:
    """How far a run goes: models in a fold, steps of a model, what a step and the headline score are called.

    `provisional` says whether finished folds are scored with their last step until all folds are there.
    """

    n_members: int = 1
    n_steps: int = 0
    name: str = "step"
    score_name: str = "score"
    provisional: bool = False


class Pace:
    """How fast steps are taken, and how long the rest takes: from the first step on, whoever takes them.

    Steps of all models count alike. As soon as a second row is known, the pace is that of the clock, so that what lies
    between two models, and several models at once, are in it.

    Parameters
    ----------
    n_folds
        How many folds there will be.
    steps
        What each of them takes.
    clock
        Seconds that only grow.
    """

    def __init__(self, n_folds: int, steps: Steps, clock: Callable[[], float]) -> None:
        self.n_folds = n_folds
        self.steps = steps
        self.clock = clock
        self.taken: dict[tuple[int, int], int] = {}
        self.before: dict[tuple[int, int], int] = {}
        self.done: set[int] = set()
        self.first: tuple[float, int] | None = None
        self.last = clock()
        self.first_pace = 0.0

    def on_row(self, row: "HistoryRow") -> None:
        """Take in where a model stands."""
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
        """Take in that a fold is done."""
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
        n_models = (self.n_folds - len(self.done)) * self.steps.n_members
        each = self.steps.n_steps
        left = sum(max(each - step, 0) for step in taken) + each * max(n_models - len(taken), 0)
        return max(left * pace - (self.clock() - self.last), 0.0)

    def told(self) -> str:
        """Say the pace and what is left, as far as they are known: `1.52 s an epoch, about 12:30 left`."""
        pace, left = self.seconds_a_step, self.seconds_left
        article = "an" if self.steps.name[0] in "aeiou" else "a"
        parts = [] if pace is None else [f"{pace:.3g} s {article} {self.steps.name}"]
        if left is not None and len(self.done) < self.n_folds:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class FoldTable:
    """Folds as they train, drawn anew whenever the terminal asks.

    Parameters
    ----------
    label
        What is trained.
    n_folds
        How many folds there will be.
    steps
        What each of them takes at most.
    clock
        Seconds that only grow.
    scenarios
        Those that are scored apart; where it is one, its final score has no name of its own.
    """

    def __init__(
        self,
        label: str,
        n_folds: int,
        steps: Steps = Steps(),
        clock: Callable[[], float] = time.monotonic,
        scenarios: Sequence[str] = SCENARIOS,
    ) -> None:
        self.scenarios = tuple(scenarios)
        self.score_name = steps.score_name
        self.label = label
        self.n_folds = n_folds
        self.clock = clock
        self.pace = Pace(n_folds, steps, clock)
        self.rows: dict[int, FoldRow] = {}
        self.last_end = clock()

    def on_row(self, row: "HistoryRow") -> None:
        """Take a row of progress in: its fold is the one that trains now."""
        self.pace.on_row(row)
        fold = self._fold(int(row["fold"]))
        fold.step = int(row["step"])
        score = row.get("score")
        if isinstance(score, float):
            fold.score = score

    def on_fold(self, result: "FoldResult") -> None:
        """Take a finished fold in."""
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

    def line(self, row: "HistoryRow") -> str:
        """Say in one line of plain text where training stands after a row of progress."""
        fold, steps = self.rows[int(row["fold"])], self.pace.steps
        of = f" of {steps.n_steps}" if steps.n_steps else ""
        score = f", {self.score_name} {fold.score:.4f}" if fold.score is not None else ""
        model = int(row.get("member", row.get("seed", 0)))
        which = f" model {model + 1} of {steps.n_members}" if steps.n_members > 1 else ""
        told = "; ".join(part for part in (f"{self.n_done} of {self.n_folds} folds done", self.pace.told()) if part)
        return f"{self.label} fold {row['fold']}{which}: {steps.name} {row['step']}{of}{score}; {told}"

    def __rich__(self) -> "Table":
        """Draw the table."""
        from rich.table import Table

        told = self.pace.told()
        caption = f"{self.n_done} of {self.n_folds} folds{f', {told}' if told else ''}"
        if self.pace.steps.provisional:
            name = self.pace.steps.name
            caption += f"\nfinished folds: scores after the last {name}; how many are kept is chosen at the end"
        table = Table(title=f"train {self.label}", caption=caption, title_justify="left", caption_justify="left")
        final = self.scenarios if len(self.scenarios) > 1 else ("final",)
        table.add_column("fold", justify="right")
        table.add_column("state")
        for name in (self.pace.steps.name, self.score_name, *final, "time"):
            table.add_column(name, justify="right")
        for number, row in sorted(self.rows.items()):
            seconds = self.clock() - row.started if row.state == "training" else row.seconds
            scores = [_number(row.scores.get(scenario)) for scenario in self.scenarios]
            steps = [_number(row.step), _number(row.score)]
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
