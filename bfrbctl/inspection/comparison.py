"""View of two models side by side, with the interval of their difference."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bfrbctl.blending import aligned_members
from bfrbctl.bootstrap import Tally, drawings, interval
from bfrbctl.errors import UsageError
from bfrbctl.folders import Folder
from bfrbctl.inspection.figures import Bars
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.scores import Scenarios, by_class
from bfrbctl.inspection.view import Table, View
from bfrbctl.oof import OofScenario
from bfrbctl.schema import SCENARIOS


def compare_view(folder: Folder, options: Options) -> View:
    """Tell whether B is better than A: the same sequences, the same drawings of subjects."""
    if options.other is None:
        raise UsageError("compare: expected two folders", hint="bfrbctl inspect compare A B")
    other = options.other
    ours, theirs = aligned_members([folder, other])
    targets = folder.content["targets"]
    rows, moves, facts = [], [], {"A": folder.path.name, "B": other.path.name}
    for scenario in SCENARIOS:
        a, b = ours[scenario], theirs[scenario]
        row, facts[f"verdict_{scenario}"] = _compared(scenario, a, b, targets, seed=options.seed)
        rows.append(row)
        right_a, right_b = a.predicted == a.truth, b.predicted == b.truth
        both = [int(x.sum()) for x in (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)]
        moves.append((scenario, *both))
    columns = ("scenario", "A", "B", "B - A", "low 95", "high 95", "share of draws B is ahead")
    classes = folder.content["classes"]
    tables = (
        Table("scores", columns, tuple(rows)),
        Table("sequences", ("scenario", "both right", "only A right", "only B right", "both wrong"), tuple(moves)),
        _class_differences(ours, theirs, classes, targets),
    )
    bars = Bars(
        "B - A, with 95 % interval by subject",
        "difference of scores",
        tuple(row[0] for row in rows),
        (("B - A", tuple(row[3] for row in rows)),),
        tuple((row[4], row[5]) for row in rows),
    )
    return View(f"{folder.path.name} (A) and {other.path.name} (B)", facts, tables, (), (bars,))


def _compared(
    scenario: str, a: OofScenario, b: OofScenario, targets: Sequence[bool], *, seed: int
) -> tuple[tuple[Any, ...], str]:
    tallies = [Tally.of(part, targets) for part in (a, b)]
    once = np.ones((1, len(tallies[0].binary)), dtype=np.int64)
    score_a, score_b = (float(tally.scores(once)[0]) for tally in tallies)
    times = drawings(once.shape[1], seed)
    gain = tallies[1].scores(times) - tallies[0].scores(times)
    low, high = interval(gain)
    verdict = "B is better" if low > 0 else "A is better" if high < 0 else "no difference that would not be chance"
    share = float(np.mean((gain > 0) + 0.5 * (gain == 0)))
    return (scenario, score_a, score_b, score_b - score_a, low, high, share), verdict


def _class_differences(ours: Scenarios, theirs: Scenarios, classes: Sequence[str], targets: Sequence[bool]) -> Table:
    tables = [by_class(part, classes, targets) for part in (ours, theirs)]
    rows = []
    for row_a, row_b in zip(tables[0].rows, tables[1].rows, strict=True):
        cells: list[Any] = [row_a[0]]
        for scenario in SCENARIOS:
            place = tables[0].columns.index(f"F1 {scenario}")
            a, b = row_a[place], row_b[place]
            cells += [a, b, None if a is None or b is None else b - a]
        rows.append(tuple(cells))
    columns = [f"{what} {scenario}" for scenario in SCENARIOS for what in ("F1 A", "F1 B", "B - A")]
    return Table("classes", ("class", *columns), tuple(rows))
