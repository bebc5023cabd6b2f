"""Views of out-of-fold predictions: scores and confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import AnyArray, Int64
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.errors import ArtefactError, DataError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import MEAN, auc_intervals, score_intervals
from bfrbctl.evaluation.classes import ClassSpace, gesture_space
from bfrbctl.evaluation.metrics import (
    class_figures,
    has_two_sides,
    hierarchical_f1,
    score_column,
    score_name,
)
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.features.folder import INDEX
from bfrbctl.inspection.figures import Bars, Figure, Matrix
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import SCENARIO_NAMES, Table, View, filled, for_each, of_scenario, score_columns
from bfrbctl.inspection.views.ranking import ranking_tables, roc_figure
from bfrbctl.recordings.dataset import n_subjects
from bfrbctl.schema import ALL_SENSORS, GESTURE, ORIENTATION, SEQUENCE_ID, SUBJECT, scenarios_of

Scenarios = Mapping[str, OofScenario]

MOST_SUBJECTS = 40
"""Subjects in a chart, at most: the worst; the table has all."""


# ------------------------------------------------------------------------------------------------------------- oof


def read_scenarios(folder: Folder, other: Folder | None = None) -> dict[str, OofScenario]:
    """Read the out-of-fold predictions of the scenarios that differ for the device, in this folder or the other."""
    found = oof.read_oof(folder)
    contents = [each.content for each in (folder, other) if each is not None]
    return {scenario: found[scenario] for scenario in max(map(scenarios_of, contents), key=len)}


def oof_view(folder: Folder, options: Options) -> View:
    """Show scores with intervals, by gesture, class, orientation, fold and subject, in every scenario that there is."""
    scenarios = read_scenarios(folder)
    part = scenarios[ALL_SENSORS]
    space = gesture_space(folder.content)
    targets = space.targets
    summary = oof.summarise(scenarios, space)
    intervals = score_intervals(scenarios, space, seed=options.seed)
    headline = score_name(targets)
    facts: dict[str, Any] = {headline: summary["score"]}
    facts[f"{headline}_low_95"], facts[f"{headline}_high_95"] = intervals[MEAN]
    facts |= {"sequences": len(part.truth), "subjects": part.keys.select(n_subjects()).item()}
    gestures, merged = by_gesture(scenarios, space), by_class(scenarios, space)
    subjects = _by_subject(scenarios, targets)
    facts |= {"worst_gesture": gestures.rows[0][0], "worst_subject": subjects.rows[0][0] if subjects.rows else None}
    by_orientation, notes = _by_orientation(scenarios, targets, options)
    columns = ("fold", *score_columns(scenarios, targets))
    folds = Table("folds", columns, tuple(tuple(row.values()) for row in summary["folds"]))
    ranking = ranking_tables(summary["scenarios"], auc_intervals(scenarios, space, seed=options.seed))
    merged_classes = [merged] if has_two_sides(targets) else []
    tables = (
        _scores(summary, intervals, targets),
        gestures,
        *merged_classes,
        *ranking,
        folds,
        subjects,
        *by_orientation,
    )
    notes += _oof_notes(folder, scenarios, gestures, n_folds=len(folds.rows))
    figures: list[Figure] = [
        _gesture_bars(scenarios, gestures, merged, targets),
        *roc_figure(scenarios, space),
    ]
    figures += _subject_bars(scenarios, subjects, targets)
    figures += [_score_bars("by orientation", scenarios, table.rows, targets) for table in by_orientation]
    return View(f"out-of-fold predictions of {folder.path.name}", facts, filled(*tables), tuple(notes), tuple(figures))


def _oof_notes(folder: Folder, scenarios: Scenarios, gestures: Table, *, n_folds: int) -> list[str]:
    notes = []
    if n_folds < int(folder.content["n_folds"]):
        notes.append(f"only {n_folds} of {folder.content['n_folds']} folds were trained")
    others = [part.proba for part in scenarios.values()][1:]
    if any(np.array_equal(scenarios[ALL_SENSORS].proba, proba) for proba in others):
        notes.append("both scenarios are the same: the model reads nothing but the IMU")
    absent = [row[0] for row in gestures.rows if not row[2]]
    if absent:
        notes.append(f"no sequence of class {examples(absent)} was held out: its recall is not known")
    return notes


def _scores(summary: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]], targets: Sequence[bool]) -> Table:
    """List the figures of each scenario, then their mean where there are several."""
    keys = {"binary_f1": "binary F1", "macro_f1": "macro F1", "gesture_macro_f1": "gesture F1", "log_loss": "log-loss"}
    if not has_two_sides(targets):
        keys = {"log_loss": "log-loss"}
    by_scenario = summary["scenarios"]
    rows = [
        (scenario, values["score"], *intervals[scenario], *(values[key] for key in keys))
        for scenario, values in by_scenario.items()
    ]
    if len(rows) > 1:
        means = [float(np.mean([values[key] for values in by_scenario.values()])) for key in keys]
        rows.append((MEAN, summary["score"], *intervals[MEAN], *means))
    columns = ("scenario", score_column(targets), "low 95", "high 95", *keys.values())
    return Table("scores", columns, tuple(rows))


def by_gesture(scenarios: Scenarios, space: ClassSpace) -> Table:
    """Precision, recall and F1 of every gesture, those with the lowest F1 first; those never held out last."""
    kinds = ["target" if target else "non-target" for target in space.targets]
    pairs = {scenario: (part.truth, part.predicted) for scenario, part in scenarios.items()}
    rows = _class_rows(pairs, space.gestures, kinds)
    rows.sort(key=lambda row: (not row[2], sum(row[5::3]) if row[2] else 0.0, row[0]))
    columns = (GESTURE, "kind", "sequences", *for_each(scenarios, "precision", "recall", "F1"))
    return Table("gestures, worst first", columns, tuple(rows))


def by_class(scenarios: Scenarios, space: ClassSpace) -> Table:
    """Precision, recall and F1 of each class that the headline figure counts, scenarios side by side."""
    names = space.scored_names
    pairs = {
        scenario: (space.scored_labels(part.truth), space.scored_labels(part.predicted))
        for scenario, part in scenarios.items()
    }
    rows = [(row[0], *row[2:]) for row in _class_rows(pairs, names, names)]
    return Table("classes", ("class", "sequences", *for_each(scenarios, "precision", "recall", "F1")), tuple(rows))


def _class_rows(
    pairs: Mapping[str, tuple[Int64, Int64]], names: Sequence[str], kinds: Sequence[str]
) -> list[tuple[Any, ...]]:
    """List name, kind, sequences, then precision, recall and F1 of each scenario; None where not defined."""
    found = [class_figures(truth, predicted, len(names)) for truth, predicted in pairs.values()]
    rows = []
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        figures = [float(values[place]) for each in found for values in (each.precision, each.recall, each.f1)]
        cells = (None if np.isnan(value) else value for value in figures)
        rows.append((name, kind, int(found[0].support[place]), *cells))
    return rows


def _gesture_bars(scenarios: Scenarios, gestures: Table, merged: Table, targets: Sequence[bool]) -> Bars:
    """Draw the F1 of every gesture, and of all non-targets as the one class that the competition metric counts."""
    others = merged.rows[-1:] if has_two_sides(targets) else ()
    labels = [*(row[0] for row in gestures.rows), *(f"{row[0]} (merged)" for row in others)]
    groups = tuple(
        (SCENARIO_NAMES[scenario], (*(row[5 + 3 * n] for row in gestures.rows), *(row[4 + 3 * n] for row in others)))
        for n, scenario in enumerate(scenarios)
    )
    return Bars("F1 by gesture, worst first", "F1", tuple(labels), groups)


def _score_bars(groups_of: str, scenarios: Scenarios, rows: Sequence[tuple[Any, ...]], targets: Sequence[bool]) -> Bars:
    """Draw the headline figure of groups of sequences: rows are label, sequences, a figure a scenario."""
    groups = tuple(
        (SCENARIO_NAMES[scenario], tuple(row[2 + n] for row in rows)) for n, scenario in enumerate(scenarios)
    )
    name = score_name(targets)
    return Bars(f"{name[0].upper()}{name[1:]} {groups_of}", name, tuple(row[0] for row in rows), groups)


def _subject_bars(scenarios: Scenarios, subjects: Table, targets: Sequence[bool]) -> list[Bars]:
    n_all, shown = len(subjects.rows), subjects.rows[:MOST_SUBJECTS]
    shown_of = f"the {MOST_SUBJECTS} worst of {n_all}" if n_all > MOST_SUBJECTS else "worst first"
    return [_score_bars(f"by subject, {shown_of}", scenarios, shown, targets)] if shown else []


def _group_scores(scenarios: Scenarios, labels: AnyArray, targets: Sequence[bool]) -> list[tuple[Any, ...]]:
    """Score each group of sequences in each scenario: label, n, scores; in the order of the labels."""
    rows: list[tuple[Any, ...]] = []
    predicted = {scenario: part.predicted for scenario, part in scenarios.items()}
    for label in np.unique(labels):
        held = labels == label
        scores = [
            hierarchical_f1(part.truth[held], predicted[scenario][held], targets).score
            for scenario, part in scenarios.items()
        ]
        rows.append((str(label), int(held.sum()), *scores))
    return rows


def _by_subject(scenarios: Scenarios, targets: Sequence[bool]) -> Table:
    """List the subjects that are known, those with the lowest scores first."""
    subjects = scenarios[ALL_SENSORS].keys[SUBJECT].fill_null("").to_numpy()
    rows = [row for row in _group_scores(scenarios, subjects, targets) if row[0]]
    rows.sort(key=lambda row: (sum(row[2:]), row[0]))
    columns = (SUBJECT, "sequences", *score_columns(scenarios, targets))
    return Table("subjects, worst first", columns, tuple(rows), top=10)


def _by_orientation(
    scenarios: Scenarios, targets: Sequence[bool], options: Options
) -> tuple[tuple[Table, ...], list[str]]:
    if options.features is None:
        return (), ["a model does not know orientations: give --features FOLDER for the scores by orientation"]
    known = matching_index(scenarios[ALL_SENSORS].keys, options.features)
    rows = _group_scores(scenarios, known[ORIENTATION].fill_null("unknown").to_numpy(), targets)
    columns = (ORIENTATION, "sequences", *score_columns(scenarios, targets))
    return (Table("orientations", columns, tuple(rows)),), []


def matching_index(keys: pl.DataFrame, features: Folder) -> pl.DataFrame:
    """Give what a feature folder knows of the sequences of out-of-fold predictions, row by row.

    Raises
    ------
    DataError
        When it lacks one, or has another subject or gesture: it is of another dataset.
    """
    hint = "give the dataset or feature folder that the model was trained on"
    columns = (SUBJECT, GESTURE, ORIENTATION, "n_frames")
    known = read_index(features).select(SEQUENCE_ID, *columns)
    joined = keys.select(SEQUENCE_ID).join(known, on=SEQUENCE_ID, how="left", maintain_order="left")
    lacking = joined.filter(pl.col("n_frames").is_null())[SEQUENCE_ID].to_list()
    if lacking:
        raise DataError(f"{features.path}: does not know sequence {examples(lacking)}", hint=hint)
    for column in (SUBJECT, GESTURE):
        at = joined[column].ne_missing(keys[column]).arg_true()
        if len(at):
            row = int(at[0])
            raise DataError(
                f"{features.path}: {column} of sequence {keys[SEQUENCE_ID][row]} is {joined[column][row]}, "
                f"the model was trained with {keys[column][row]} ({len(at)} sequences differ)",
                hint=hint,
            )
    return joined


def read_index(folder: Folder) -> pl.DataFrame:
    """Read what a dataset or feature folder knows of its sequences.

    Raises
    ------
    ArtefactError
        When a gesture is none of the folder's classes.
    """
    name = SEQUENCES if folder.kind == "dataset" else INDEX
    index = folder.read_together(name) if folder.kind == "dataset" else folder.read_parquet(name)
    strange = set(index[GESTURE].drop_nulls()) - set(folder.content["classes"])
    if strange:
        raise ArtefactError(
            f"{folder.path / name}: gesture {examples(sorted(strange))} is not among the folder's classes",
            hint="the folder does not hold together; make or download it again",
        )
    return index


# ------------------------------------------------------------------------------------------------------- confusion


def confusion_view(folder: Folder, _: Options) -> View:
    """Show the gestures that are confused, non-targets not merged."""
    scenarios = read_scenarios(folder)
    space = gesture_space(folder.content)
    tables, figures, facts = [], [], {}
    names = dict(zip(scenarios, for_each(scenarios, "right"), strict=True))
    for scenario, part in scenarios.items():
        counts = confusion(part, len(space.gestures))
        facts[names[scenario].replace(" ", "_")] = float(np.trace(counts) / counts.sum())
        title = f"most confused, {scenario}" if len(scenarios) > 1 else "most confused"
        tables.append(_confused(counts, space, title=title))
        figures.append(_confusion_figure(counts, space.gestures, of_scenario("Confusion", scenario, scenarios)))
    notes = () if any(table.rows for table in tables) else ("every sequence was recognised: nothing is confused",)
    return View(f"confusion of {folder.path.name}", facts, filled(*tables), notes, tuple(figures))


def confusion(part: OofScenario, n_classes: int) -> Int64:
    """Count truth and prediction: int64, (n_classes, n_classes), truth by row."""
    pairs = part.truth * n_classes + part.predicted
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def _confused(counts: Int64, space: ClassSpace, *, title: str) -> Table:
    there = counts.sum(axis=1)
    rows = [
        (space.gestures[i], space.gestures[j], int(counts[i, j]), float(counts[i, j] / there[i]), _cost(space, i, j))
        for i, j in zip(*np.nonzero(counts), strict=True)
        if i != j
    ]
    rows.sort(key=lambda row: (-row[2], row[0], row[1]))
    columns = ("gesture", "taken for", "sequences", "share of the gesture", "kind")
    return Table(title, columns, tuple(rows), top=15)


def _cost(space: ClassSpace, truth: int, predicted: int) -> str:
    """Say what confusing one class with another is, where there are targets and non-targets."""
    targets = space.targets
    if not space.has_two_sides:
        return "among gestures"
    if targets[truth] == targets[predicted]:
        return "among targets" if targets[truth] else "among non-targets (free)"
    return "target missed" if targets[truth] else "false alarm"


def _confusion_figure(counts: Int64, classes: Sequence[str], title: str) -> Matrix:
    there = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Matrix(
        title,
        "predicted",
        "truth; shade is the share of the row",
        tuple(classes),
        tuple(classes),
        tuple(map(tuple, (counts / there).tolist())),
        tuple(tuple(str(n) if n else "" for n in row) for row in counts.tolist()),
    )
