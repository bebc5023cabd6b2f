"""Score predictions against the true labels: those in the input, or a table of labels.

Predictions and labels are joined by sequence_id. What is left out of a score is counted and reported: sequences without
a label, labels without a prediction, gestures that the model does not know.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bfrbctl.arrays.ragged import Int64
from bfrbctl.artefacts.folders import InputRef, input_file_ref
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.classes import ClassSpace
from bfrbctl.evaluation.discrimination import ranking_figures
from bfrbctl.evaluation.metrics import hierarchical_f1, score_name, score_values
from bfrbctl.reprs import short_repr
from bfrbctl.schema import GESTURE, SEQUENCE_ID

_log = logging.getLogger("bfrbctl.prediction")

TRUTH = "truth"
TRAINED_SEQUENCE, TRAINED_SUBJECT = "seen_sequence", "seen_subject"
"""Columns of a predictions table: whether training used the sequence, or another one of its subject; null unknown."""


@dataclass(frozen=True)
class LabelTable:
    """True labels of a file.

    Parameters
    ----------
    table
        sequence_id and gesture, one row a sequence, no nulls.
    ref
        Name and digest of the file.
    """

    table: pl.DataFrame
    ref: InputRef

    __repr__ = short_repr


def read_labels(path: Path) -> LabelTable:
    """Read a CSV or Parquet table with the columns sequence_id and gesture; other columns are not read.

    Rows that repeat a sequence with the same gesture count once (a table of frames will do); sequences with a null
    gesture have no label.

    Raises
    ------
    UsageError
        When the file is of another kind.
    DataError
        When it cannot be read, lacks a column, has a row without a sequence_id, or two gestures for a sequence.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"--answers {path}: expected a file that ends in .csv or .parquet")
    ref = input_file_ref(path)
    try:
        there = pl.read_parquet_schema(path) if suffix == ".parquet" else pl.read_csv(path, n_rows=0).columns
        missing = [name for name in (SEQUENCE_ID, GESTURE) if name not in there]
        if missing:
            raise DataError(
                f"{path}: lacks column {examples(missing)}; it has {examples(list(there))}",
                hint="labels need one row a sequence with the columns sequence_id and gesture",
            )
        columns = [SEQUENCE_ID, GESTURE]
        if suffix == ".parquet":
            table = pl.read_parquet(path, columns=columns)
        else:
            table = pl.read_csv(path, columns=columns, infer_schema=False)
        table = table.select(pl.col(columns).cast(pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path}: cannot be read ({(str(error).splitlines() or [''])[0][:160]})") from error
    nameless = table[SEQUENCE_ID].null_count()
    if nameless:
        raise DataError(f"{path}: {nameless} of {table.height} rows have no sequence_id", hint="remove or name them")
    known = table.drop_nulls().unique(maintain_order=True)
    twice = known.filter(pl.col(SEQUENCE_ID).is_duplicated())[SEQUENCE_ID].unique(maintain_order=True).to_list()
    if twice:
        raise DataError(
            f"{path}: has two gestures for sequence {examples(twice)}, expected one a sequence",
            hint="keep the right one of each",
        )
    if not known.height:
        raise DataError(f"{path}: has no label", hint="give the table with a gesture for each sequence")
    return LabelTable(known, ref)


def with_labels(predictions: pl.DataFrame, labels: LabelTable) -> tuple[pl.DataFrame, list[str]]:
    """Replace the truth of predictions by the labels of a file; also gives warnings.

    Raises
    ------
    DataError
        When the file has no label for any sequence of the predictions.
    """
    truth = labels.table.rename({GESTURE: TRUTH})
    joined = predictions.drop(TRUTH).join(truth, on=SEQUENCE_ID, how="left", maintain_order="left")
    unlabelled = joined.filter(pl.col(TRUTH).is_null())[SEQUENCE_ID].to_list()
    extra = truth.join(predictions, on=SEQUENCE_ID, how="anti", maintain_order="left")[SEQUENCE_ID].to_list()
    if len(unlabelled) == joined.height:
        raise DataError(
            f"{labels.ref.name}: has no label for any of the {joined.height} predicted sequences; it knows "
            f"{examples(extra)}, predicted are {examples(unlabelled)}",
            hint="the predictions are kept: --resume with --answers of this input scores them",
        )
    warnings = []
    if unlabelled:
        warnings.append(
            f"{labels.ref.name}: has no label for {len(unlabelled)} of {joined.height} sequences "
            f"({examples(unlabelled)}): they are not scored"
        )
    if extra:
        warnings.append(
            f"{labels.ref.name}: {len(extra)} labels are of sequences that were not predicted ({examples(extra)})"
        )
    return joined, warnings


def scored(table: pl.DataFrame, space: ClassSpace, *, source: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Score predictions against their true labels.

    Parameters
    ----------
    table
        sequence_id, gesture, truth (null: unknown), p_0 ..., and whether training used the sequence or its subject.
    space
        Gestures that the model knows.
    source
        Where the labels come from, for metrics.json.

    Returns
    -------
    What metrics.json holds - the scores, how many sequences they are of, and how many of these are in-sample - or None
    where there is nothing to score; and warnings.
    """
    labelled = table.drop_nulls(TRUTH)
    known = labelled.filter(pl.col(TRUTH).is_in(list(space.gestures)))
    strange = labelled.filter(~pl.col(TRUTH).is_in(list(space.gestures)))
    warnings = []
    if strange.height:
        names = strange[TRUTH].unique().sort().to_list()
        warnings.append(
            f"{source}: {strange.height} of {labelled.height} sequences have a gesture that the model does not know "
            f"({examples(names)}): they are not scored, though every prediction of them is wrong"
        )
    if not known.height:
        return None, warnings
    summary: dict[str, Any] = {
        "n_labelled": known.height,
        **_score(known, space),
        "headline": score_name(space.targets),
        **_ranking(known, space),
        "labels": source,
        "n_unknown_gesture": strange.height,
        "in_sample": _in_sample(known),
    }
    new = known.filter(~pl.col(TRAINED_SEQUENCE))
    if 0 < new.height < known.height:
        summary["score_of_new_sequences"] = _score(new, space)
    warnings += [line for line in (in_sample_line(summary["in_sample"], known.height),) if line]
    return summary, warnings


def _score(table: pl.DataFrame, space: ClassSpace) -> dict[str, float | None]:
    return score_values(hierarchical_f1(*_positions(table, space), space.targets), space.targets)


def _ranking(table: pl.DataFrame, space: ClassSpace) -> dict[str, Any]:
    truth, predicted = _positions(table, space)
    proba = table.select(oof.proba_columns(len(space.gestures))).to_numpy()
    return ranking_figures(truth, predicted, proba, space)


def _positions(table: pl.DataFrame, space: ClassSpace) -> tuple[Int64, Int64]:
    truth, predicted = (oof.class_positions(table[column].to_list(), space.gestures) for column in (TRUTH, GESTURE))
    return truth, predicted


def _in_sample(table: pl.DataFrame) -> dict[str, int | None]:
    """Count the sequences that training used, and those of subjects that it used; None where that is not known."""
    return {
        key: None if table[column].null_count() else int(table[column].sum())
        for key, column in (("sequences", TRAINED_SEQUENCE), ("of_known_subjects", TRAINED_SUBJECT))
    }


def in_sample_line(counts: Mapping[str, int | None], n_scored: int) -> str:
    """Say what is in-sample in a score; empty where nothing is.

    >>> in_sample_line({"sequences": 0, "of_known_subjects": 0}, 9)
    ''
    >>> in_sample_line({"sequences": 9, "of_known_subjects": 9}, 9)
    'the score is in-sample: the model was trained on all 9 sequences'
    """
    sequences, known = counts["sequences"], counts["of_known_subjects"]
    if sequences is None or known is None:
        return "whether the score is in-sample is not known: the model has no record of what it was trained on"
    every = f"all {n_scored}"
    if sequences:
        count = every if sequences == n_scored else f"{sequences} of {n_scored}"
        return f"the score is in-sample: the model was trained on {count} sequences"
    if known:
        count = every if known == n_scored else f"{known} of {n_scored}"
        return f"the score is partly in-sample: {count} sequences are of subjects that the model was trained on"
    return ""


def warn(warnings: Sequence[str]) -> None:
    """Log warnings, which the command line shows on stderr."""
    for line in warnings:
        _log.warning("%s", line)
