"""Out-of-fold predictions: a table joined by sequence_id, never by position.

Columns: sequence_id, subject, fold, scenario (all | imu), gesture, p_0 ... p_<n-1> in the order of the class list, and,
of blends, answer: the gesture that the blend's decoding rule predicts. Each labelled sequence of the folds done appears
exactly once a scenario.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32, Int64
from bfrbctl.artefacts.folders import Folder
from bfrbctl.errors import ArtefactError, examples
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.discrimination import ranking_figures
from bfrbctl.evaluation.metrics import (
    COMPETITION_SCORE,
    GESTURE_SCORE,
    Score,
    f1_by_class,
    hierarchical_f1,
    log_loss,
    score_name,
    score_values,
)
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE, SCENARIOS, SEQUENCE_ID, SUBJECT

OOF = "oof.parquet"
DECIDED = "answer"
"""Column of a blend: the gesture by its decoding rule."""

KEYS = (SEQUENCE_ID, SUBJECT, "fold", "scenario", GESTURE)


def proba_columns(n_classes: int) -> list[str]:
    """Names of the probability columns, in the order of the class list."""
    return [f"p_{number}" for number in range(n_classes)]


@dataclass(frozen=True)
class OofScenario:
    """The out-of-fold predictions of one scenario, as arrays.

    Parameters
    ----------
    keys
        sequence_id, subject, fold, gesture; sorted by sequence_id.
    truth
        int64, (n_sequences,): positions in the class list.
    proba
        float32, (n_sequences, n_classes).
    decided
        int64, (n_sequences,): positions of the predicted gestures, where these are not the most probable ones (blends
        with a threshold); None otherwise.
    """

    keys: pl.DataFrame
    truth: Int64
    proba: Float32
    decided: Int64 | None = None

    __repr__ = short_repr

    @property
    def predicted(self) -> Int64:
        """int64, (n_sequences,): positions of the predicted gestures."""
        return np.argmax(self.proba, axis=1).astype(np.int64) if self.decided is None else self.decided

    def score(self, targets: Sequence[bool], *, fold: int | None = None) -> Score:
        """Score the predicted gestures, of one fold or of all."""
        held = slice(None) if fold is None else self.folds == fold
        return hierarchical_f1(self.truth[held], self.predicted[held], targets)

    @property
    def groups(self) -> Int64:
        """int64, (n_sequences,): number of the subject, in the order of their names.

        A sequence whose subject is unknown is a group of its own, after the subjects: two of them need not be of one
        person.
        """
        subjects = self.keys[SUBJECT]
        known = (subjects.is_not_null() & (subjects != "")).to_numpy()
        names, number = np.unique(subjects.filter(known).to_numpy(), return_inverse=True)
        out = np.empty(len(subjects), dtype=np.int64)
        out[known] = number
        out[~known] = len(names) + np.arange(np.count_nonzero(~known))
        return out

    @property
    def folds(self) -> Int64:
        """int64, (n_sequences,): which fold held the sequence out."""
        return self.keys["fold"].to_numpy().astype(np.int64)


def oof_rows(index: pl.DataFrame, probas: Mapping[str, Float32]) -> pl.DataFrame:
    """Make the table of out-of-fold predictions.

    Parameters
    ----------
    index
        sequence_id, subject, fold, gesture of the held-out sequences.
    probas
        Scenario -> float32, (n_sequences, n_classes), rows as in `index`.
    """
    parts = []
    for scenario, proba in probas.items():
        keys = index.select(
            SEQUENCE_ID, SUBJECT, pl.col("fold").cast(pl.Int32), pl.lit(scenario).alias("scenario"), GESTURE
        )
        values = pl.DataFrame(proba, schema=dict.fromkeys(proba_columns(proba.shape[1]), pl.Float32), orient="row")
        parts.append(pl.concat([keys, values], how="horizontal"))
    return pl.concat(parts).sort("scenario", SEQUENCE_ID)


def read_oof(folder: Folder) -> dict[str, OofScenario]:
    """Read and check the out-of-fold predictions of a model or blend folder.

    Returns
    -------
    Scenario -> its predictions, sorted by sequence_id.

    Raises
    ------
    ArtefactError
        When a sequence is there twice or missing in a scenario, a gesture is not in the class list, or a row of
        probabilities is not finite or does not sum to 1.
    """
    classes: Sequence[str] = folder.content["classes"]
    table = folder.read_parquet(OOF)
    lacking = [name for name in (*KEYS, *proba_columns(len(classes))) if name not in table.columns]
    if lacking:
        raise ArtefactError(f"{folder.path / OOF}: has no column {examples(lacking)}")
    return split_scenarios(table, classes, what=f"{folder.path / OOF}")


def split_scenarios(table: pl.DataFrame, classes: Sequence[str], *, what: str = OOF) -> dict[str, OofScenario]:
    """Check an out-of-fold table and split it by scenario; ArtefactError as in `read_oof`."""
    names = proba_columns(len(classes))
    found = {}
    for scenario in SCENARIOS:
        rows = table.filter(pl.col("scenario") == scenario).sort(SEQUENCE_ID)
        twice = rows.filter(pl.col(SEQUENCE_ID).is_duplicated())[SEQUENCE_ID].unique().sort().to_list()
        if twice:
            raise ArtefactError(f"{what}: sequence {examples(twice)} is there twice in scenario {scenario}")
        for column in (GESTURE, DECIDED) if DECIDED in rows.columns else (GESTURE,):
            strange = rows.filter(~pl.col(column).is_in(list(classes)))[column].unique().to_list()
            if strange or rows[column].null_count():
                raise ArtefactError(f"{what}: {column} {examples(strange or ['null'])} is not among its classes")
        proba = np.asarray(rows.select(names).to_numpy(), dtype=np.float32)
        if not np.all(np.isfinite(proba)) or np.any(np.abs(proba.sum(axis=1) - 1) > 1e-3) or np.any(proba < 0):
            raise ArtefactError(f"{what}: has probabilities that are not finite or do not sum to 1")
        truth = class_positions(rows[GESTURE].to_list(), classes)
        decided = class_positions(rows[DECIDED].to_list(), classes) if DECIDED in rows.columns else None
        found[scenario] = OofScenario(rows.select(SEQUENCE_ID, SUBJECT, "fold", GESTURE), truth, proba, decided)
    ids = {scenario: part.keys[SEQUENCE_ID] for scenario, part in found.items()}
    if not all(ids[scenario].equals(ids[SCENARIOS[0]]) for scenario in SCENARIOS) or not len(ids[SCENARIOS[0]]):
        raise ArtefactError(f"{what}: its two scenarios do not have the same sequences")
    return found


def class_positions(gestures: Sequence[str], classes: Sequence[str]) -> Int64:
    """Turn gesture names into positions in the class list: int64, (n,); ArtefactError for one that is not there."""
    position = {name: number for number, name in enumerate(classes)}
    unknown = sorted({str(name) for name in set(gestures) if name not in position})
    if unknown:
        raise ArtefactError(
            f"gesture {examples(unknown)} is not among the {len(classes)} classes",
            hint="the folder does not hold together; make it again",
        )
    return np.array([position[gesture] for gesture in gestures], dtype=np.int64)


def summarise(scenarios: Mapping[str, OofScenario], space: ClassSpace) -> dict[str, Any]:
    """Score out-of-fold predictions in both scenarios, overall, by fold and by class; JSON values only."""
    targets = space.targets
    summary: dict[str, Any] = {"scenarios": {}, "folds": []}
    for scenario, part in scenarios.items():
        summary["scenarios"][scenario] = {
            **score_values(part.score(targets), targets),
            "log_loss": log_loss(part.proba, part.truth),
            "n_sequences": len(part.truth),
            "f1": class_f1(part, space),
            **ranking_figures(part.truth, part.predicted, part.proba, space, groups=part.groups),
        }
    for fold in sorted(set(scenarios[SCENARIOS[0]].folds.tolist())):
        row: dict[str, Any] = {"fold": fold}
        for scenario, part in scenarios.items():
            row[scenario] = part.score(targets, fold=fold).score
        summary["folds"].append(row)
    summary["score"] = mean_score([summary["scenarios"][scenario]["score"] for scenario in scenarios])
    summary["headline"] = score_name(targets)
    return summary


def class_f1(part: OofScenario, space: ClassSpace) -> dict[str, float | None]:
    """Give the F1 of each of `space.scored_names`; None where one is absent altogether."""
    names = space.scored_names
    values = f1_by_class(space.scored_labels(part.truth), space.scored_labels(part.predicted), len(names))
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def mean_score(scores: Sequence[float]) -> float:
    """Mean of the scenarios' headline scores: half of the study's test is IMU-only."""
    return float(np.mean(scores))


def score_line(summary: Mapping[str, Any], scenarios: Sequence[str] = SCENARIOS) -> str:
    """Write the headline figures in a line: the score with its interval, and each scenario where there are several."""
    figures = {name: summary["scenarios"][name] for name in scenarios}
    parts = [f"{name} {values['score']:.4f}" for name, values in figures.items()] if len(figures) > 1 else []
    if "interval" in summary:
        low, high = summary["interval"]["mean"]
        parts.insert(0, f"95 % by subject {low:.4f} to {high:.4f}")
    about = f" ({', '.join(parts)})" if parts else ""
    name = summary.get("headline", COMPETITION_SCORE)
    line = f"{name} {summary['score']:.4f}{about}"
    if name == GESTURE_SCORE:
        return line
    gestures = [f"{values['gesture_macro_f1']:.4f}" for values in figures.values()]
    return f"{line}; macro F1 over all gestures {' / '.join(gestures)}"
