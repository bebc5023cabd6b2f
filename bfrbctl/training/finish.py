"""How the folds of a cross-validation are put together: the tables and figures of all folds, and the manifest."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.files import Content, encode_json
from bfrbctl.artefacts.folders import Folder
from bfrbctl.artefacts.outputs import Output
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import auc_intervals, score_intervals
from bfrbctl.evaluation.in_sample import TRAINED_ON, training_digests
from bfrbctl.evaluation.labels import JOINT_OOF
from bfrbctl.evaluation.seed_predictions import SEEDS
from bfrbctl.models.interface import HistoryRow
from bfrbctl.schema import GESTURE, SEQUENCE_ID
from bfrbctl.training.fold_results import HISTORY, HISTORY_CSV, IMPORTANCE, METRICS, FoldRecord
from bfrbctl.training.job import CrossValidation
from bfrbctl.training.labelled import LabelledSequences
from bfrbctl.training.step_choice import Selection, keep_last, select, selected_name

KEPT = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds")
"""What the manifest of a model holds of that of its features."""

_TABLES = "tables"
"""Name of the part of a run that is of all folds."""


def kept_content(job: CrossValidation) -> dict[str, Any]:
    """Give what the manifest of the model takes from that of its features."""
    return {key: job.features.content[key] for key in KEPT}


def planned_parts(job: CrossValidation, folds: Sequence[int]) -> list[str]:
    """Name what a training publishes, in this order: its folds, those with chosen steps, and the tables of all."""
    selected = [selected_name(fold) for fold in folds] if job.keep_steps else []
    return [*(f"fold-{fold}" for fold in folds), *selected, _TABLES]


def finish(job: CrossValidation, output: Output, data: LabelledSequences, records: Mapping[int, FoldRecord]) -> Folder:
    """Choose the numbers of steps where that is to be done, merge what the folds left, and write the manifest.

    Parameters
    ----------
    job, output, data
        The training.
    records
        Of every fold that was trained, in the order of the folds.
    """
    if job.keep_steps:
        selection, scored = select(job, output, data, records)
    else:
        selection, scored = keep_last(job, list(records)), dict(records)
    found = list(scored.values())
    table = pl.concat([record.predictions.oof for record in found]).sort("scenario", SEQUENCE_ID)
    history = [row for record in records.values() for row in record.history or ()]
    summary = _summary(job, data, table, found, selection)
    files: dict[str, Content] = {
        oof.OOF: table,
        METRICS: encode_json(summary),
        HISTORY: "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in history).encode(),
        HISTORY_CSV: as_csv(history),
    }
    importance = _merged(found, lambda record: record.importance)
    if importance is not None:
        files[IMPORTANCE] = _importance_table(job.features, importance)
    seeds = _merged(found, lambda record: record.predictions.seeds)
    if seeds is not None:
        files[SEEDS] = seeds.sort("scenario", "seed", SEQUENCE_ID)
    joint = _merged(found, lambda record: record.predictions.joint)
    if joint is not None:
        files[JOINT_OOF] = joint.sort("scenario", SEQUENCE_ID)
    output.publish(_TABLES, files)
    return output.finish(
        {
            **kept_content(job),
            **data.space.joint_content(),
            "model": job.kind.name,
            "folds": list(records),
            "features": job.features.config,
            "prior": _prior(table, data.space.gestures),
            "score": summary["score"],
            TRAINED_ON: training_digests(data.index),
        }
    )


def _summary(
    job: CrossValidation,
    data: LabelledSequences,
    table: pl.DataFrame,
    records: Sequence[FoldRecord],
    selection: Selection,
) -> dict[str, Any]:
    """Give what metrics.json holds: scores with their intervals, and what each fold's model says of itself."""
    scenarios = oof.split_scenarios(table, data.space.gestures)
    summary = oof.summarise(scenarios, data.space)
    summary["interval"] = score_intervals(scenarios, data.space, seed=job.seed)
    summary["auc_interval"] = auc_intervals(scenarios, data.space, seed=job.seed)
    summary["models"] = [{"fold": record.fold, **record.summary} for record in records]
    summary["selection"] = asdict(selection)
    return summary


def _merged(
    records: Sequence[FoldRecord], table_of: Callable[[FoldRecord], pl.DataFrame | None]
) -> pl.DataFrame | None:
    """Put a table of all folds together; None where a fold has none."""
    tables = [table for record in records if (table := table_of(record)) is not None]
    return pl.concat(tables) if len(tables) == len(records) else None


def as_csv(rows: Sequence[HistoryRow]) -> bytes:
    r"""Write history rows as a table; what a row does not have is empty in it.

    >>> as_csv([{"step": 1, "loss": 0.5}, {"step": 2, "score": 0.25}])
    b'step,loss,score\n1,0.5,\n2,,0.25\n'
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _prior(table: pl.DataFrame, classes: Sequence[str]) -> list[float]:
    """Share of every gesture among the labelled sequences: the prediction where nothing can be measured."""
    counts = np.bincount(oof.class_positions(table[GESTURE].to_list(), classes), minlength=len(classes))
    return [float(share) for share in counts / counts.sum()]


def _importance_table(features: Folder, table: pl.DataFrame) -> pl.DataFrame:
    """Gain and split of every feature by fold, with the catalogue's family and modality."""
    catalogue = features.read_parquet("catalogue.parquet").filter(pl.col("table") == "sequence")
    known = catalogue.select(pl.col("name").alias("feature"), "family", "modality")
    return table.join(known, on="feature", how="left", maintain_order="left")
