"""View of two models side by side, with the interval of their difference, and what that interval covers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from bfrbctl.arrays.ragged import Float64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.ensemble.blending import aligned_members
from bfrbctl.errors import UsageError
from bfrbctl.evaluation.bootstrap import Ranking, Scorer, Tally, auc_interval, drawn_scores, interval
from bfrbctl.evaluation.classes import ClassSpace, gesture_space
from bfrbctl.evaluation.discrimination import positive_side, ranking_figures
from bfrbctl.evaluation.metrics import has_two_sides, hierarchical_f1, score_name
from bfrbctl.evaluation.oof import OofScenario
from bfrbctl.evaluation.seed_predictions import read_seed_predictions
from bfrbctl.inspection.figures import Bars
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, for_each
from bfrbctl.inspection.views.ranking import ranking_differences
from bfrbctl.inspection.views.scores import Scenarios, by_class
from bfrbctl.schema import scenarios_of

SeedScores = Mapping[str, Float64]
"""Scenario -> float64, (n_seeds,): the score of the model of each seed by itself."""


def compare_view(folder: Folder, options: Options) -> View:
    """Show how far B is from A: the same sequences, the same draws of subjects, and the variation over seeds."""
    if options.other is None:
        raise UsageError("compare: expected two folders", hint="bfrbctl inspect compare A B")
    other = options.other
    scenarios = max(scenarios_of(folder.content), scenarios_of(other.content), key=len)
    ours, theirs = ({name: table[name] for name in scenarios} for table in aligned_members([folder, other]))
    space = gesture_space(folder.content)
    targets = space.targets
    seeds = [seed_scores(each, scenarios) for each in (folder, other)]
    rows, moves, facts = [], [], {"A": folder.path.name, "B": other.path.name}
    for scenario, verdict in zip(scenarios, for_each(scenarios, "verdict"), strict=True):
        a, b = ours[scenario], theirs[scenario]
        by_seed = [None if each is None else each[scenario] for each in seeds]
        row, facts[verdict.replace(" ", "_")] = _compared(a, b, space, by_seed, seed=options.seed)
        rows.append((scenario, *row))
        right_a, right_b = a.predicted == a.truth, b.predicted == b.truth
        both = [int(x.sum()) for x in (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)]
        moves.append((scenario, *both))
    columns = ("scenario", "A", "B", "B - A", "low 95", "high 95", "share of draws B is ahead")
    trained = ("low 95 with training", "high 95 with training")
    what = "scores" if has_two_sides(targets) else score_name(targets)
    tables = (
        Table(what, (*columns, *trained), tuple(rows)),
        *_auc_table(ours, theirs, space, seed=options.seed),
        *ranking_differences(*(_ranking(part, space) for part in (ours, theirs))),
        Table("sequences", ("scenario", "both right", "only A right", "only B right", "both wrong"), tuple(moves)),
        *_seed_table(seeds, scenarios, score_name(targets)),
        _class_differences(ours, theirs, space),
    )
    bars = Bars(
        "B - A, with 95 % interval by subject",
        f"difference of {what}",
        tuple(row[0] for row in rows),
        (("B - A", tuple(row[3] for row in rows)),),
        tuple((row[4], row[5]) for row in rows),
    )
    title = f"{folder.path.name} (A) and {other.path.name} (B)"
    return View(title, facts, tables, tuple(_notes(seeds, (folder, other))), (bars,))


def seed_scores(folder: Folder, scenarios: Sequence[str]) -> SeedScores | None:
    """Score the model of each seed by itself; None where the folder does not hold the predictions of two seeds."""
    seeds = read_seed_predictions(folder)
    if seeds is None:
        return None
    targets = folder.content["targets"]
    return {
        name: np.array([hierarchical_f1(seeds.truth, one, targets).score for one in seeds.predicted[name]])
        for name in scenarios
    }


def _compared(
    a: OofScenario, b: OofScenario, space: ClassSpace, seeds: Sequence[Float64 | None], *, seed: int
) -> tuple[tuple[Any, ...], str]:
    score_a, score_b, gains = _paired([Tally.of(part, space) for part in (a, b)], seed)
    gain, (low, high) = score_b - score_a, interval(gains)
    wide = with_training(gain, (low, high), seeds)
    row = (score_a, score_b, gain, low, high, _share_ahead(gains), *(wide or (None, None)))
    return row, verdict_of((low, high), wide)


def _paired(scorers: Sequence[Scorer], seed: int) -> tuple[float, float, Float64]:
    """Score A and B on the sequences that there are, and give B - A of each draw of subjects."""
    once = np.ones((1, scorers[0].n_subjects), dtype=np.int64)
    score_a, score_b = (float(scorer.scores(once)[0]) for scorer in scorers)
    drawn_a, drawn_b = drawn_scores(scorers, seed)
    return score_a, score_b, drawn_b - drawn_a


def _share_ahead(gains: Float64) -> float:
    return float(np.mean((gains > 0) + 0.5 * (gains == 0)))


def _ranking(scenarios: Scenarios, space: ClassSpace) -> dict[str, dict[str, Any]]:
    return {
        name: ranking_figures(part.truth, part.predicted, part.proba, space, groups=part.groups)
        for name, part in scenarios.items()
    }


def _auc_table(ours: Scenarios, theirs: Scenarios, space: ClassSpace, *, seed: int) -> list[Table]:
    """Compare the pooled AUC of what is to be detected, by the same draws as the scores."""
    side = positive_side(space)
    rows = []
    for scenario in ours if side else ():
        rankings = [Ranking.of(part[scenario], side[1]) for part in (ours, theirs)]  # type: ignore[index]
        auc_a, auc_b, gains = _paired(rankings, seed)
        bounds = auc_interval(gains)
        if bounds is not None:
            rows.append((scenario, auc_a, auc_b, auc_b - auc_a, *bounds, _share_ahead(gains[~np.isnan(gains)])))
    columns = ("scenario", "A", "B", "B - A", "low 95", "high 95", "share of draws B is ahead")
    return [Table(f"AUC, detection of {side[0]}", columns, tuple(rows))] if side and rows else []


def with_training(
    gain: float, by_subject: tuple[float, float], seeds: Sequence[Float64 | None]
) -> tuple[float, float] | None:
    """Widen the interval of a difference by what training again, with other seeds, would move it.

    Parameters
    ----------
    gain
        B - A.
    by_subject
        Its 95 % interval over subjects, of these trained models.
    seeds
        Of A and B: float64, (n_seeds,), the score of each seed by itself; None where it is not known.

    Returns
    -------
    The wider interval; None where the variation over seeds of one of them is not known. A model of n seeds is taken to
    vary by the standard deviation of its seeds / sqrt(n), with Student's t of n - 1 degrees of freedom, so that two
    seeds say little. Squared half-widths add up, since subjects and seeds are drawn independently (Zou and Donner,
    "Construction of confidence limits about effect measures: a general approach", 2008).
    """
    if any(scores is None for scores in seeds):
        return None
    widths = [_half_width(scores) for scores in seeds if scores is not None]
    low, high = (float(np.sqrt((bound - gain) ** 2 + np.sum(np.square(widths)))) for bound in by_subject)
    return gain - low, gain + high


def _half_width(scores: Float64) -> float:
    n = len(scores)
    return float(student.ppf(0.975, n - 1) * np.std(scores, ddof=1) / np.sqrt(n))


def verdict_of(by_subject: tuple[float, float], wide: tuple[float, float] | None) -> str:
    """Say which model is ahead, and as far as what the interval holds."""
    ahead = _ahead(by_subject)
    if ahead is None:
        return "no difference that would not be chance"
    if wide is None:
        return f"{ahead} is ahead on these subjects, as trained; how far training again would move it is not known"
    if _ahead(wide) == ahead:
        return f"{ahead} is better, trained again with other seeds too"
    return f"{ahead} is ahead on these subjects, as trained; training again with other seeds may change that"


def _ahead(bounds: tuple[float, float]) -> str | None:
    return "B" if bounds[0] > 0 else "A" if bounds[1] < 0 else None


def _seed_table(seeds: Sequence[SeedScores | None], scenarios: Sequence[str], score: str) -> list[Table]:
    """List how the seeds of each model scored by themselves, where that is known."""
    rows = []
    for name, scores in zip("AB", seeds, strict=True):
        for scenario in scenarios if scores is not None else ():
            values = scores[scenario]  # type: ignore[index]
            deviation = float(np.std(values, ddof=1))
            rows.append((name, scenario, len(values), float(values.min()), float(values.max()), deviation))
    columns = ("model", "scenario", "seeds", "lowest", "highest", "standard deviation")
    return [Table(f"{score} of one seed by itself", columns, tuple(rows))] if rows else []


def _notes(seeds: Sequence[SeedScores | None], folders: Sequence[Folder]) -> list[str]:
    notes = [
        "low 95 and high 95 hold which subjects took part: whole subjects are drawn with replacement, the two models "
        "stay as they were trained. They do not hold what training again would change"
    ]
    if all(scores is not None for scores in seeds):
        notes.append(
            "the columns 'with training' hold the variation over seeds too, but not that of the choice of settings or "
            "of other training subjects"
        )
    for name, scores, folder in zip("AB", seeds, folders, strict=True):
        if scores is None:
            alone = "it has one seed, or is of an older version; models trained with --seeds 5 have it"
            why = (
                "a blend keeps no predictions of single seeds; compare its members" if folder.kind == "blend" else alone
            )
            notes.append(f"{name}: the variation over seeds is not known: {why}")
    return notes


def _class_differences(ours: Scenarios, theirs: Scenarios, space: ClassSpace) -> Table:
    tables = [by_class(part, space) for part in (ours, theirs)]
    rows = []
    for row_a, row_b in zip(tables[0].rows, tables[1].rows, strict=True):
        cells: list[Any] = [row_a[0]]
        for name in for_each(ours, "F1"):
            place = tables[0].columns.index(name)
            a, b = row_a[place], row_b[place]
            cells += [a, b, None if a is None or b is None else b - a]
        rows.append(tuple(cells))
    return Table("classes", ("class", *for_each(ours, "F1 A", "F1 B", "B - A")), tuple(rows))
