"""How well probabilities rank sequences, as tables and a chart: AUC, average precision, operating points."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.discrimination import Curve, curve, operating_points, positive_side, side_proba
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.inspection.figures import Lines, Series
from bfrbctl.inspection.view import SCENARIO_NAMES, Table, for_each
from bfrbctl.schema import ALL_SENSORS, GESTURE

MOST_POINTS = 200
"""Points of an ROC curve that are drawn, at most."""

Intervals = Mapping[str, tuple[float, float] | None]
Figures = Mapping[str, Mapping[str, Any]]
_POINT_KEYS = {
    "rule": "threshold chosen by",
    "threshold": "threshold",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "false_alarms_per_100": "false alarms in 100",
}


def ranking_tables(scenarios: Figures, intervals: Intervals) -> list[Table]:
    """List AUC and average precision of the one side, of every gesture, and the operating points.

    Parameters
    ----------
    scenarios
        Scenario -> its figures, as `oof.summarise` gives them.
    intervals
        Scenario -> 95 % interval of the pooled AUC, or None.
    """
    return [
        _detection(scenarios, intervals),
        _within_subjects(scenarios),
        _gestures(scenarios),
        *_operating_points(scenarios),
    ]


def _detection(scenarios: Figures, intervals: Intervals) -> Table:
    rows = []
    for scenario, figures in scenarios.items():
        found = figures["detection"]
        if found:
            bounds = intervals[scenario] or (None, None)
            rows.append(
                (scenario, found["positive"], found["share"], found["auc"], *bounds, found["average_precision"])
            )
    columns = ("scenario", "detected", "share of sequences", "AUC", "low 95", "high 95", "average precision")
    return Table("detection", columns, tuple(rows))


def _within_subjects(scenarios: Figures) -> Table:
    """List the mean AUC within subjects: of what is detected, over those with both sides, and of the gestures."""
    rows = []
    for scenario, figures in scenarios.items():
        found = (figures["detection"] or {}).get("auc_within_subjects") or {}
        summary = tuple(found.get(key) for key in ("mean", "sd", "n_subjects"))
        rows.append((scenario, *summary, figures["macro_auc_within_subjects"]))
    columns = ("scenario", "detection", "standard deviation", "subjects with both", "mean over gestures")
    known = any(value is not None for row in rows for value in row[1:])
    return Table("AUC within subjects", columns, tuple(rows) if known else ())


def _gestures(scenarios: Figures) -> Table:
    """List the gestures in the order of the class list, then their mean, each against the rest."""
    names = list(next(iter(scenarios.values()))["gestures"])
    rows = [
        (
            name,
            *(figures["gestures"][name][key] for figures in scenarios.values() for key in ("auc", "average_precision")),
        )
        for name in names
    ]
    means = (figures[key] for figures in scenarios.values() for key in ("macro_auc", "macro_average_precision"))
    rows.append(("mean", *means))
    columns = (GESTURE, *for_each(scenarios, "AUC", "average precision"))
    return Table("each gesture against the rest", columns, tuple(rows))


def _operating_points(scenarios: Figures) -> list[Table]:
    titles = for_each(scenarios, "operating points")
    return [
        Table(
            title,
            tuple(_POINT_KEYS.values()),
            tuple(tuple(point[key] for key in _POINT_KEYS) for point in figures["detection"]["operating_points"]),
        )
        for title, figures in zip(titles, scenarios.values(), strict=True)
        if figures["detection"]
    ]


def ranking_differences(ours: Figures, theirs: Figures) -> list[Table]:
    """Compare how A and B rank, on the sequences that there are: what is detected, and each gesture against the rest.

    Parameters
    ----------
    ours, theirs
        Scenario -> figures of A and of B, from `ranking_figures`.
    """
    rows: list[tuple[Any, ...]] = []
    for scenario, a in ours.items():
        b = theirs[scenario]
        for name, key in (("average precision", "average_precision"), ("AUC within subjects", "auc_within_subjects")):
            pair = [(each["detection"] or {}).get(key) for each in (a, b)]
            pair = [value["mean"] if isinstance(value, Mapping) else value for value in pair]
            rows.append((scenario, f"{name}, detection", *_pair(*pair)))
        for key in ("macro_auc", "macro_average_precision", "macro_auc_within_subjects"):
            name = key.removeprefix("macro_").replace("_", " ").replace("auc", "AUC")
            rows.append((scenario, f"{name}, mean over gestures", *_pair(a[key], b[key])))
    known = tuple(row for row in rows if row[2:4] != (None, None))
    gestures = []
    for name in next(iter(ours.values()))["gestures"]:
        cells = [_pair(ours[each]["gestures"][name]["auc"], theirs[each]["gestures"][name]["auc"]) for each in ours]
        gestures.append((name, *(value for cell in cells for value in cell)))
    return [
        Table("ranking", ("scenario", "figure", "A", "B", "B - A"), known),
        Table("each gesture against the rest", (GESTURE, *for_each(ours, "AUC A", "AUC B", "B - A")), tuple(gestures)),
    ]


def _pair(a: float | None, b: float | None) -> tuple[float | None, float | None, float | None]:
    return a, b, None if a is None or b is None else b - a


def roc_figure(scenarios: Mapping[str, OofScenario], space: ClassSpace) -> list[Lines]:
    """Draw the ROC curve of each scenario with its operating points; nothing where there are no two sides."""
    side = positive_side(space)
    series: list[Series] = []
    for number, (scenario, part) in enumerate(scenarios.items()):
        found = curve(side[1][part.truth], side_proba(part.proba, side[1])) if side else None
        if found:
            series += _roc(found, SCENARIO_NAMES[scenario], number, dashed=scenario != ALL_SENSORS)
    if not series or side is None:
        return []
    title = f"Detection of {side[0]} at every threshold; dots are the operating points"
    return [Lines(title, "false alarms, share of the others", "sensitivity", tuple(series), diagonal=True)]


def _roc(found: Curve, name: str, colour: int, *, dashed: bool) -> list[Series]:
    x, y = (np.r_[0.0, values] for values in (found.false_alarm_rate, found.sensitivity))
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(np.int64))
    points = [(1 - point["specificity"], point["sensitivity"]) for point in operating_points(found)]
    dots = [pair for at_x, at_y in points for pair in ((at_x, at_y), (at_x, None))]  # a point alone is drawn as a dot
    dots_x, dots_y = zip(*dots, strict=True)
    line = Series(name, tuple(x[kept].tolist()), tuple(y[kept].tolist()), colour, dashed)
    return [line, Series(f"{name}, operating points", dots_x, dots_y, colour)]
