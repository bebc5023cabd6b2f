"""View of calibration: how far the probabilities of a model can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Float32, Int64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.ensemble.fitting import fit_temperature
from bfrbctl.ensemble.mixing import BlendConfig, temper
from bfrbctl.ensemble.nesting import nesting_groups
from bfrbctl.evaluation.metrics import log_loss
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.inspection.figures import Lines, Series
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, for_each
from bfrbctl.inspection.views.scores import read_scenarios
from bfrbctl.schema import ALL_SENSORS

N_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Sequences whose top probability lies in one tenth: which tenth, how many, mean probability, share right."""

    number: int
    n: int
    mean: float
    right: float


def calibration_view(folder: Folder, _: Options) -> View:
    """Show how far the probabilities can be believed, before and after a temperature fitted on the other folds."""
    scenarios = read_scenarios(folder)
    epsilon = BlendConfig().epsilon
    rows: list[tuple[Any, ...]] = []
    series: list[Series] = []
    tables: list[Table] = []
    facts: dict[str, Any] = {}
    titles = dict(zip(scenarios, for_each(scenarios, "reliability"), strict=True))
    names = dict(zip(scenarios, for_each(scenarios, "temperature_by_fold"), strict=True))
    for number, (scenario, part) in enumerate(scenarios.items()):
        cooled, temperatures = nested_temperature(part, epsilon)
        facts[names[scenario].replace(" ", "_")] = " ".join(f"{t:.3f}" for t in temperatures)
        found = {name: reliability(proba, part.truth) for name, proba in (("before", part.proba), ("after", cooled))}
        for name, proba in (("before", part.proba), ("after", cooled)):
            rows.append((scenario, name, ece(found[name]), log_loss(proba, part.truth)))
            x, y = tuple(b.mean for b in found[name]), tuple(b.right for b in found[name])
            label = f"{scenario}, {name}" if len(scenarios) > 1 else name
            series.append(Series(label, x, y, number, name == "after"))
        tables.append(_reliability_table(titles[scenario], found["before"], found["after"]))
    notes = _notes(scenarios[ALL_SENSORS])
    summary = Table("calibration", ("scenario", "temperature", "ECE", "log-loss"), tuple(rows))
    title = "Reliability of the top probability, before and after the temperature"
    figure = Lines(title, "mean probability", "share right", tuple(series), diagonal=True)
    return View(f"calibration of {folder.path.name}", facts, (summary, *tables), notes, (figure,))


def _reliability_table(title: str, before: Sequence[Bin], after: Sequence[Bin]) -> Table:
    cells_of: dict[int, list[Any]] = {}
    for place, bins in ((0, before), (3, after)):
        for found in bins:
            cells = cells_of.setdefault(found.number, [None] * 6)
            cells[place : place + 3] = [found.n, found.mean, found.right]
    rows = tuple((n / N_BINS, (n + 1) / N_BINS, *cells) for n, cells in sorted(cells_of.items()))
    columns = ("sequences", "mean probability", "share right")
    return Table(title, ("from", "to", *columns, *(f"{name} after" for name in columns)), rows)


def _notes(part: OofScenario) -> tuple[str, ...]:
    if len(np.unique(part.folds)) > 1:
        return ()
    if len(np.unique(part.groups)) > 1:
        return ("there is one fold only: the temperature of each group of its subjects was fitted on the others",)
    return ("there is one subject only: the temperature was fitted on the sequences it is scored by",)


def nested_temperature(part: OofScenario, epsilon: float) -> tuple[Float32, list[float]]:
    """Temper each fold with what fits the other folds best: probabilities, and the temperature of each fold.

    Groups of subjects stand for folds where there is one fold only; see `nesting.nesting_groups`.
    """
    alone = len(np.unique(part.folds)) == 1 and len(np.unique(part.groups)) == 1
    groups = part.folds if alone else nesting_groups(part)
    out = np.empty_like(part.proba)
    temperatures = []
    for group in np.unique(groups):
        held = groups == group
        rest = held if alone else ~held
        temperatures.append(fit_temperature(part.proba[rest], part.truth[rest], epsilon))
        out[held] = temper(part.proba[held], temperatures[-1], epsilon)
    return out, temperatures


def reliability(proba: AnyArray, truth: Int64) -> list[Bin]:
    """Bin sequences by their top probability; empty bins are left out."""
    top = proba.max(axis=1).astype(np.float64)
    right = np.argmax(proba, axis=1) == truth
    place = np.minimum((top * N_BINS).astype(np.int64), N_BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        held = place == number
        found.append(Bin(number, int(held.sum()), float(top[held].mean()), float(right[held].mean())))
    return found


def ece(bins: Sequence[Bin]) -> float:
    """Give the expected calibration error: mean distance of probability and share right, each bin by its sequences."""
    return sum(b.n * abs(b.mean - b.right) for b in bins) / sum(b.n for b in bins)
