"""Views of out-of-fold predictions: scores, confusion, calibration, and two models side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import oof
from bfrbctl.blending import BlendConfig, aligned_members, fit_temperature, temper
from bfrbctl.dataset import INDEX
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.folders import Folder
from bfrbctl.inspection.figures import Bars, Lines, Matrix, Series
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.metrics import hierarchical_f1, log_loss, merged_labels
from bfrbctl.oof import OofScenario
from bfrbctl.schema import NON_TARGET, ORIENTATION, SCENARIOS, SEQUENCE_ID, SUBJECT
from bfrbctl.segments import AnyArray, Float32, Float64, Int64

N_DRAWS = 1000
N_BINS = 10
Scenarios = Mapping[str, OofScenario]


# ------------------------------------------------------------------------------------------- bootstrap by subject


@dataclass(frozen=True)
class Tally:
    """What the competition score counts, by subject, so that a drawing of subjects is a product of matrices.

    Parameters
    ----------
    hits, totals
        float64, (n_subjects, n_merged): right ones, and truth + predicted, of each target and the merged non-target.
    binary
        float64, (n_subjects, 2): the same two of target or not.
    """

    hits: Float64
    totals: Float64
    binary: Float64

    @classmethod
    def of(cls, part: OofScenario, targets: Sequence[bool]) -> "Tally":
        """Count the most probable gestures of one scenario."""
        predicted = _predicted(part)
        subjects, group = np.unique(part.keys[SUBJECT].to_numpy(), return_inverse=True)
        n_merged = sum(targets) + 1
        truth_m, predicted_m = merged_labels(part.truth, targets), merged_labels(predicted, targets)
        flags = np.asarray(targets, dtype=np.bool_)
        hits, totals = np.zeros((2, len(subjects), n_merged))
        np.add.at(hits, (group, truth_m), truth_m == predicted_m)
        np.add.at(totals, (group, truth_m), 1.0)
        np.add.at(totals, (group, predicted_m), 1.0)
        binary = np.zeros((len(subjects), 2))
        np.add.at(binary[:, 0], group, flags[part.truth] & flags[predicted])
        np.add.at(binary[:, 1], group, flags[part.truth].astype(float) + flags[predicted])
        return cls(hits, totals, binary)

    def scores(self, times: Int64) -> Float64:
        """Score drawings: times is (n_draws, n_subjects), how often each subject counts; float64 (n_draws,)."""
        hits, totals, binary = times @ self.hits, times @ self.totals, times @ self.binary
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(totals > 0, 2 * hits / totals, np.nan)
            target_f1 = np.where(binary[:, 1] > 0, 2 * binary[:, 0] / binary[:, 1], 0.0)
        return np.asarray(0.5 * (target_f1 + np.nanmean(f1, axis=1)))


def drawings(n_subjects: int, seed: int) -> Int64:
    """Draw subjects with replacement: int64 (1000, n_subjects), how often each was drawn."""
    drawn = np.random.default_rng(seed).integers(0, n_subjects, (N_DRAWS, n_subjects))
    times = np.zeros((N_DRAWS, n_subjects), dtype=np.int64)
    np.add.at(times, (np.arange(N_DRAWS)[:, None], drawn), 1)
    return times


def _interval(values: Float64) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# ------------------------------------------------------------------------------------------------------------- oof


def oof_view(folder: Folder, options: Options) -> View:
    """Show scores in both scenarios with intervals, by class, orientation, fold and subject."""
    scenarios = oof.read_oof(folder)
    classes, targets = folder.content["classes"], folder.content["targets"]
    summary = oof.summarise(scenarios, targets, classes)
    facts: dict[str, Any] = {"score": summary["score"], "sequences": len(scenarios[SCENARIOS[0]].truth)}
    facts["subjects"] = scenarios[SCENARIOS[0]].keys[SUBJECT].n_unique()
    by_class = _by_class(scenarios, classes, targets)
    people = _by_subject(scenarios, targets)
    facts["worst_subject"] = people.rows[0][0]
    by_orientation, notes = _by_orientation(scenarios, targets, options)
    folds = Table("folds", ("fold", *SCENARIOS), tuple(tuple(row.values()) for row in summary["folds"]))
    tables = (_scores(scenarios, summary, targets, options), by_class, folds, people, *by_orientation)
    if len(folds.rows) < int(folder.content["n_folds"]):
        notes.append(f"only {len(folds.rows)} of {folder.content['n_folds']} folds were trained")
    absent = [row[0] for row in by_class.rows if not row[1]]
    if absent:
        notes.append(f"no sequence of class {examples(absent)} was held out: its recall is not known")
    figures = (_class_bars(by_class), *(_orientation_bars(table) for table in by_orientation))
    return View(f"out-of-fold predictions of {folder.path.name}", facts, filled(*tables), tuple(notes), figures)


def _scores(scenarios: Scenarios, summary: Mapping[str, Any], targets: Sequence[bool], options: Options) -> Table:
    rows = []
    for scenario, part in scenarios.items():
        told = summary["scenarios"][scenario]
        tally = Tally.of(part, targets)
        low, high = _interval(tally.scores(drawings(len(tally.binary), options.seed)))
        figures = [told[key] for key in ("binary_f1", "macro_f1", "gesture_macro_f1", "log_loss")]
        rows.append((scenario, told["score"], low, high, *figures))
    columns = ("scenario", "score", "low 95", "high 95", "binary F1", "macro F1", "gesture F1", "log-loss")
    return Table("scores", columns, tuple(rows))


def _predicted(part: OofScenario) -> Int64:
    return np.asarray(np.argmax(part.proba, axis=1), dtype=np.int64)


def _by_class(scenarios: Scenarios, classes: Sequence[str], targets: Sequence[bool]) -> Table:
    """Precision, recall and F1 of each target and of the merged non-target class, both scenarios side by side."""
    names = [*(name for name, target in zip(classes, targets, strict=True) if target), NON_TARGET]
    counts = np.bincount(merged_labels(scenarios[SCENARIOS[0]].truth, targets), minlength=len(names))
    cells: list[list[Any]] = [[name, int(count)] for name, count in zip(names, counts, strict=True)]
    for part in scenarios.values():
        truth, predicted = merged_labels(part.truth, targets), merged_labels(_predicted(part), targets)
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
    predicted = {scenario: _predicted(part) for scenario, part in scenarios.items()}
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
    known = read_index(options.features)
    keys = scenarios[SCENARIOS[0]].keys
    joined = keys.join(known.select(SEQUENCE_ID, ORIENTATION), on=SEQUENCE_ID, how="left", maintain_order="left")
    lacking = keys.filter(~pl.Series(keys[SEQUENCE_ID].is_in(known[SEQUENCE_ID].to_list())))[SEQUENCE_ID].to_list()
    if lacking:
        raise DataError(
            f"{options.features}: does not know sequence {examples(lacking)}",
            hint="give the dataset or feature folder that the model was trained on",
        )
    rows = _group_scores(scenarios, joined[ORIENTATION].fill_null("unknown").to_numpy(), targets)
    return (Table("orientations", (ORIENTATION, "sequences", *SCENARIOS), tuple(rows)),), []


def _orientation_bars(table: Table) -> Bars:
    groups = tuple(
        (name, tuple(row[2 + n] for row in table.rows)) for n, name in enumerate(("all sensors", "IMU only"))
    )
    return Bars("Score by orientation", "score", tuple(row[0] for row in table.rows), groups)


def read_index(folder: Folder) -> pl.DataFrame:
    """Read what a dataset or feature folder knows of its sequences."""
    return folder.read_parquet("sequences.parquet" if folder.kind == "dataset" else INDEX)


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
    pairs = part.truth * n_classes + _predicted(part)
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


# ----------------------------------------------------------------------------------------------------- calibration


def calibration_view(folder: Folder, _: Options) -> View:
    """Show how far the probabilities can be believed, before and after a temperature fitted on the other folds."""
    scenarios = oof.read_oof(folder)
    epsilon = BlendConfig().epsilon
    rows, series, facts = [], [], {}
    tables = []
    for number, (scenario, part) in enumerate(scenarios.items()):
        cooled, temperatures = nested_temperature(part, epsilon)
        for name, proba in (("before", part.proba), ("after", cooled)):
            bins = reliability(proba, part.truth)
            rows.append((scenario, name, ece(bins), log_loss(proba, part.truth)))
            x, y = tuple(b[3] for b in bins), tuple(b[4] for b in bins)
            series.append(Series(f"{scenario}, {name}", x, y, number, name == "after"))
            columns = ("from", "to", "sequences", "mean probability", "share right")
            tables.append(Table(f"reliability {scenario}, {name}", columns, tuple(bins)))
        facts[f"temperature_{scenario}"] = " ".join(f"{t:.3f}" for t in temperatures)
    notes = () if len(np.unique(scenarios[SCENARIOS[0]].folds)) > 1 else _ONE_FOLD
    summary = Table("calibration", ("scenario", "temperature", "ECE", "log-loss"), tuple(rows))
    figure = Lines(
        "Reliability of the top probability", "mean probability", "share right", tuple(series), diagonal=True
    )
    return View(f"calibration of {folder.path.name}", facts, (summary, *tables), notes, (figure,))


_ONE_FOLD = ("there is one fold only: the temperature was fitted on the sequences it is judged by",)


def nested_temperature(part: OofScenario, epsilon: float) -> tuple[Float32, list[float]]:
    """Temper each fold with what fits the other folds best: probabilities, and the temperature of each fold."""
    folds = np.unique(part.folds)
    out = np.empty_like(part.proba)
    temperatures = []
    for fold in folds:
        held = part.folds == fold
        rest = ~held if len(folds) > 1 else held
        temperatures.append(fit_temperature(part.proba[rest], part.truth[rest], epsilon))
        out[held] = temper(part.proba[held], temperatures[-1], epsilon)
    return out, temperatures


def reliability(proba: AnyArray, truth: Int64) -> list[tuple[float, float, int, float, float]]:
    """Bin sequences by their top probability: from, to, n, mean probability, share right; empty bins are left out."""
    top = proba.max(axis=1).astype(np.float64)
    right = np.argmax(proba, axis=1) == truth
    place = np.minimum((top * N_BINS).astype(np.int64), N_BINS - 1)
    found = []
    for number in np.unique(place):
        held = place == number
        mean, share = float(top[held].mean()), float(right[held].mean())
        found.append((int(number) / N_BINS, (int(number) + 1) / N_BINS, int(held.sum()), mean, share))
    return found


def ece(bins: Sequence[tuple[float, float, int, float, float]]) -> float:
    """Give the expected calibration error: mean distance of probability and share right, each bin by its sequences."""
    total = sum(n for _, _, n, _, _ in bins)
    return sum(n * abs(mean - share) for _, _, n, mean, share in bins) / total


# --------------------------------------------------------------------------------------------------------- compare


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
        right_a, right_b = _predicted(a) == a.truth, _predicted(b) == b.truth
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
    low, high = _interval(gain)
    verdict = "B is better" if low > 0 else "A is better" if high < 0 else "no difference that would not be chance"
    share = float(np.mean((gain > 0) + 0.5 * (gain == 0)))
    return (scenario, score_a, score_b, score_b - score_a, low, high, share), verdict


def _class_differences(ours: Scenarios, theirs: Scenarios, classes: Sequence[str], targets: Sequence[bool]) -> Table:
    tables = [_by_class(part, classes, targets) for part in (ours, theirs)]
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
