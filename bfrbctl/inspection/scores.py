"""Views of out-of-fold predictions: scores and confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import oof
from bfrbctl.bootstrap import Tally, drawings, interval
from bfrbctl.dataset import n_subjects
from bfrbctl.errors import DataError, examples
from bfrbctl.feature_folder import INDEX
from bfrbctl.folders import SEQUENCES, Folder
from bfrbctl.inspection.figures import Bars, Matrix
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.metrics import hierarchical_f1, merged_labels
from bfrbctl.oof import OofScenario
from bfrbctl.schema import GESTURE, NON_TARGET, ORIENTATION, SCENARIOS, SEQUENCE_ID, SUBJECT
from bfrbctl.segments import AnyArray, Int64

Scenarios = Mapping[str, OofScenario]


# ------------------------------------------------------------------------------------------------------------- oof


def oof_view(folder: Folder, options: Options) -> View:
    """Show scores in both scenarios with intervals, by class, orientation, fold and subject."""
    scenarios = oof.read_oof(folder)
    classes, targets = folder.content["classes"], folder.content["targets"]
    summary = oof.summarise(scenarios, targets, classes)
    facts: dict[str, Any] = {"score": summary["score"], "sequences": len(scenarios[SCENARIOS[0]].truth)}
    facts["subjects"] = scenarios[SCENARIOS[0]].keys.select(n_subjects()).item()
    classes_table = by_class(scenarios, classes, targets)
    people = _by_subject(scenarios, targets)
    facts["worst_subject"] = people.rows[0][0]
    by_orientation, notes = _by_orientation(scenarios, targets, options)
    folds = Table("folds", ("fold", *SCENARIOS), tuple(tuple(row.values()) for row in summary["folds"]))
    tables = (_scores(scenarios, summary, targets, options), classes_table, folds, people, *by_orientation)
    if len(folds.rows) < int(folder.content["n_folds"]):
        notes.append(f"only {len(folds.rows)} of {folder.content['n_folds']} folds were trained")
    if np.array_equal(scenarios[SCENARIOS[0]].proba, scenarios[SCENARIOS[1]].proba):
        notes.append("both scenarios are the same: the model sees nothing but the IMU")
    absent = [row[0] for row in classes_table.rows if not row[1]]
    if absent:
        notes.append(f"no sequence of class {examples(absent)} was held out: its recall is not known")
    figures = (_class_bars(classes_table), *(_orientation_bars(table) for table in by_orientation))
    return View(f"out-of-fold predictions of {folder.path.name}", facts, filled(*tables), tuple(notes), figures)


def _scores(scenarios: Scenarios, summary: Mapping[str, Any], targets: Sequence[bool], options: Options) -> Table:
    rows = []
    for scenario, part in scenarios.items():
        told = summary["scenarios"][scenario]
        tally = Tally.of(part, targets)
        low, high = interval(tally.scores(drawings(len(tally.binary), options.seed)))
        figures = [told[key] for key in ("binary_f1", "macro_f1", "gesture_macro_f1", "log_loss")]
        rows.append((scenario, told["score"], low, high, *figures))
    columns = ("scenario", "score", "low 95", "high 95", "binary F1", "macro F1", "gesture F1", "log-loss")
    return Table("scores", columns, tuple(rows))


def by_class(scenarios: Scenarios, classes: Sequence[str], targets: Sequence[bool]) -> Table:
    """Precision, recall and F1 of each target and of the merged non-target class, both scenarios side by side."""
    names = [*(name for name, target in zip(classes, targets, strict=True) if target), NON_TARGET]
    counts = np.bincount(merged_labels(scenarios[SCENARIOS[0]].truth, targets), minlength=len(names))
    cells: list[list[Any]] = [[name, int(count)] for name, count in zip(names, counts, strict=True)]
    for part in scenarios.values():
        truth, predicted = merged_labels(part.truth, targets), merged_labels(part.predicted, targets)
        hits = np.bincount(truth[truth == predicted], minlength=len(names))
        said, there = np.bincount(predicted, minlength=len(names)), np.bincount(truth, minlength=len(names))
        for row, hit, p, t in zip(cells, hits.tolist(), said.tolist(), there.tolist(), strict=True):
            row += [_ratio(hit, p), _ratio(hit, t), _ratio(2 * hit, p + t)]
    columns = [f"{figure} {scenario}" for scenario in scenarios for figure in ("precision", "recall", "F1")]
    return Table("classes", ("class", "sequences", *columns), tuple(map(tuple, cells)))


def _class_bars(table: Table) -> Bars:
    groups = tuple(
        (f"{scenario} sensors" if scenario == "all" else "IMU only", tuple(row[column] for row in table.rows))
        for scenario in SCENARIOS
        for column in [table.columns.index(f"F1 {scenario}")]
    )
    return Bars("F1 by class", "F1", tuple(row[0] for row in table.rows), groups)


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
    """List the subjects, those with the lowest scores first."""
    rows = _group_scores(scenarios, scenarios[SCENARIOS[0]].keys[SUBJECT].to_numpy(), targets)
    rows.sort(key=lambda row: (sum(row[2:]), row[0]))
    return Table("subjects, worst first", (SUBJECT, "sequences", *SCENARIOS), tuple(rows), top=10)


def _by_orientation(
    scenarios: Scenarios, targets: Sequence[bool], options: Options
) -> tuple[tuple[Table, ...], list[str]]:
    if options.features is None:
        return (), ["a model does not know orientations: give --features FOLDER to see the scores by orientation"]
    known = matching_index(scenarios[SCENARIOS[0]].keys, options.features)
    rows = _group_scores(scenarios, known[ORIENTATION].fill_null("unknown").to_numpy(), targets)
    return (Table("orientations", (ORIENTATION, "sequences", *SCENARIOS), tuple(rows)),), []


def matching_index(keys: pl.DataFrame, features: Folder) -> pl.DataFrame:
    """Give what a feature folder knows of the sequences of out-of-fold predictions, row by row.

    Raises
    ------
    DataError
        When it lacks one, or tells another subject or gesture: it is of another study.
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


def _orientation_bars(table: Table) -> Bars:
    groups = tuple(
        (name, tuple(row[2 + n] for row in table.rows)) for n, name in enumerate(("all sensors", "IMU only"))
    )
    return Bars("Score by orientation", "score", tuple(row[0] for row in table.rows), groups)


def read_index(folder: Folder) -> pl.DataFrame:
    """Read what a dataset or feature folder knows of its sequences."""
    return folder.read_together(SEQUENCES) if folder.kind == "dataset" else folder.read_parquet(INDEX)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


# ------------------------------------------------------------------------------------------------------- confusion


def confusion_view(folder: Folder, _: Options) -> View:
    """Show which gestures are taken for which, all classes apart."""
    scenarios = oof.read_oof(folder)
    classes, targets = folder.content["classes"], folder.content["targets"]
    tables, figures, facts = [], [], {}
    for scenario, part in scenarios.items():
        counts = confusion(part, len(classes))
        facts[f"right_{scenario}"] = float(np.trace(counts) / counts.sum())
        tables.append(_confused(counts, classes, targets, scenario))
        figures.append(_confusion_figure(counts, classes, scenario))
    notes = () if any(table.rows for table in tables) else ("every sequence was recognised: nothing is confused",)
    return View(f"confusion of {folder.path.name}", facts, filled(*tables), notes, tuple(figures))


def confusion(part: OofScenario, n_classes: int) -> Int64:
    """Count truth and prediction: int64, (n_classes, n_classes), truth by row."""
    pairs = part.truth * n_classes + part.predicted
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def _confused(counts: Int64, classes: Sequence[str], targets: Sequence[bool], scenario: str) -> Table:
    there = counts.sum(axis=1)
    rows = [
        (classes[i], classes[j], int(counts[i, j]), float(counts[i, j] / there[i]), _cost(targets[i], targets[j]))
        for i, j in zip(*np.nonzero(counts), strict=True)
        if i != j
    ]
    rows.sort(key=lambda row: (-row[2], row[0], row[1]))
    columns = ("gesture", "taken for", "sequences", "share of the gesture", "kind")
    return Table(f"most confused, {scenario}", columns, tuple(rows), top=15)


def _cost(truth: bool, predicted: bool) -> str:
    if truth == predicted:
        return "among targets" if truth else "among non-targets (free)"
    return "target missed" if truth else "false alarm"


def _confusion_figure(counts: Int64, classes: Sequence[str], scenario: str) -> Matrix:
    there = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Matrix(
        f"Confusion, {'all sensors' if scenario == 'all' else 'IMU only'}",
        "predicted",
        "truth; shade is the share of the row",
        tuple(classes),
        tuple(classes),
        tuple(map(tuple, (counts / there).tolist())),
        tuple(tuple(str(n) if n else "" for n in row) for row in counts.tolist()),
    )
