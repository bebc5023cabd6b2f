"""What a fold of a cross-validation leaves: its predictions, what its model says of itself, and its history.

A `FoldRecord` is made when the fold is trained, handed on, and written once. A run that continues reads the records of
the folds that an earlier run finished. Where the number of steps (rounds, epochs) is chosen by the other folds, a fold
leaves the model of all steps and the curve of its scores, with the predictions of the last step for readers of an
unfinished run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from bfrbctl.arrays.ragged import Float32
from bfrbctl.artefacts.files import decode_parquet, encode_json, parquet_bytes, parse_json
from bfrbctl.artefacts.folders import PART
from bfrbctl.artefacts.outputs import Output
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import score_proba
from bfrbctl.evaluation.seed_predictions import seed_rows
from bfrbctl.evaluation.selection import Curve
from bfrbctl.models.interface import FoldModel, FoldTask, HistoryRow
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SEQUENCE_ID
from bfrbctl.training.labelled import LabelledSequences

METRICS = "metrics.json"
HISTORY = "history.jsonl"
HISTORY_CSV = "history.csv"
IMPORTANCE = "importance.parquet"

STEPS = "steps"
"""Name of the files that hold a model of all steps."""


@dataclass(frozen=True)
class FoldPredictions:
    """Predictions of what a fold held out.

    Parameters
    ----------
    oof
        Of gestures, in every scenario.
    joint
        Of joint labels; None where gestures are the classes.
    seeds
        Of the model of each seed by itself; None where there is one seed.
    """

    oof: pl.DataFrame
    joint: pl.DataFrame | None
    seeds: pl.DataFrame | None

    __repr__ = short_repr


@dataclass(frozen=True)
class FoldRecord:
    """What a fold leaves beside its model.

    Parameters
    ----------
    fold
        Its number.
    predictions
        Of the held-out sequences.
    importance
        How much the model uses each feature; None where it does not know.
    summary
        What the model says of itself.
    history
        All rows of the training; None of a model that was cut to a step.
    curve
        Figures of the held-out sequences after every step; None where they were not kept.
    """

    fold: int
    predictions: FoldPredictions
    importance: pl.DataFrame | None
    summary: Mapping[str, Any]
    history: Sequence[HistoryRow] | None = None
    curve: Curve | None = None

    __repr__ = short_repr

    def scores(self, data: LabelledSequences, scenarios: Sequence[str]) -> dict[str, float]:
        """Give the headline score of each scenario."""
        found = {}
        for scenario in scenarios:
            part = self.predictions.oof.filter(scenario=scenario)
            truth = oof.class_positions(part[GESTURE].to_list(), data.space.gestures)
            proba = part.select(oof.proba_columns(len(data.space.gestures))).to_numpy()
            found[scenario] = score_proba(proba, truth, data.space.targets).score
        return found


@dataclass(frozen=True)
class TrainedFold:
    """A fold as it is published: its record, and the files of its model by name."""

    record: FoldRecord
    model: Mapping[str, bytes]

    __repr__ = short_repr

    def files(self, prefix: str = "") -> dict[str, bytes]:
        """Encode all, in the order in which it is written; `prefix` goes before the names of what is of the record."""
        record, predictions = self.record, self.record.predictions
        before = {"joint": predictions.joint, "oof": predictions.oof, "seeds": predictions.seeds}
        summary: dict[str, Any] = {"summary": record.summary}
        if record.history is not None:
            summary["history"] = record.history
        if record.curve is not None:
            summary["curve"] = record.curve.as_content()
        return {
            **_encoded(before, record.fold, prefix),
            **self.model,
            **_encoded({"importance": record.importance}, record.fold, prefix),
            part_name(f"{prefix}summary", record.fold, "json"): encode_json(summary),
        }


def _encoded(tables: Mapping[str, pl.DataFrame | None], fold: int, prefix: str) -> dict[str, bytes]:
    return {
        part_name(f"{prefix}{name}", fold, "parquet"): parquet_bytes(table)
        for name, table in tables.items()
        if table is not None
    }


def part_name(name: str, fold: int, suffix: str) -> str:
    """Name a file of a fold that goes when the folder is finished."""
    return f"{PART}{name}-{fold}.{suffix}"


def trained_fold(data: LabelledSequences, task: FoldTask, model: FoldModel) -> TrainedFold:
    """Predict what a fold held out, and give all that is published of it.

    Parameters
    ----------
    data
        All labelled sequences.
    task
        What the fold was trained on.
    model
        What came of it; it is kept whole where `task.keep_steps`.
    """
    predictions = predict_fold(data, task.fold, model, task.valid)
    if not task.keep_steps:
        record = FoldRecord(task.fold, predictions, importance_of(model, task.fold), model.summary, model.history)
        return TrainedFold(record, model_files(model, task.fold))
    if model.curve is None:
        raise TypeError(f"{type(model).__name__} has no curve, expected one as its steps are kept")
    record = FoldRecord(task.fold, predictions, None, model.summary, model.history, model.curve)
    steps = {part_name(STEPS, task.fold, suffix): content for suffix, content in model.encode().items()}
    return TrainedFold(record, steps)


def predict_fold(data: LabelledSequences, fold: int, model: FoldModel, valid: FeatureBatch) -> FoldPredictions:
    """Predict what a fold held out, in every scenario; also of joint labels and of each of several seeds."""
    rows = data.index.filter(pl.col("fold") == fold)
    probas = predict_scenarios(model, valid)
    models = model.each_seed()
    seeds = [_of_gestures(data, predict_scenarios(one, valid)) for one in models] if len(models) > 1 else []
    return FoldPredictions(
        oof=oof.oof_rows(rows, _of_gestures(data, probas)),
        joint=oof.oof_rows(rows, probas) if data.space.is_joint else None,
        seeds=seed_rows(rows[SEQUENCE_ID], seeds, data.space.gestures) if seeds else None,
    )


def _of_gestures(data: LabelledSequences, probas: dict[str, Float32]) -> dict[str, Float32]:
    return {scenario: data.space.gesture_proba(proba) for scenario, proba in probas.items()}


def predict_scenarios(model: FoldModel, batch: FeatureBatch) -> dict[str, Float32]:
    """Predict with all sensors and IMU-only; once for both where there is nothing to take away."""
    proba = model.predict_proba(batch)
    columns = (*batch.features, *batch.channels)
    if all(column.survives_imu_only for column in columns) and not batch.tof.shape[1]:
        return {ALL_SENSORS: proba, IMU_ONLY: proba}
    return {ALL_SENSORS: proba, IMU_ONLY: model.predict_proba(batch.imu_only())}


def model_files(model: FoldModel, fold: int) -> dict[str, bytes]:
    """Give the files of a model that is kept, by name."""
    return {f"fold-{fold}.{suffix}": content for suffix, content in model.encode().items()}


def importance_of(model: FoldModel, fold: int) -> pl.DataFrame | None:
    """Give gain and split of every feature as a table; None of a model that does not know."""
    found = model.importance()
    if found is None:
        return None
    columns = {"feature": list(found.features), "gain": found.gain, "split": found.split}
    return pl.DataFrame(columns).with_columns(pl.lit(fold).alias("fold"))


def read_record(output: Output, fold: int) -> FoldRecord:
    """Read the record of a fold that an earlier run finished."""
    what = f"fold {fold} of {output.path}"
    summary = parse_json(output.read(part_name("summary", fold, "json")), what)
    tables = {name: _read_table(output, name, fold) for name in ("joint", "seeds", "importance")}
    return FoldRecord(
        fold=fold,
        predictions=FoldPredictions(_decoded(output, "oof", fold), tables["joint"], tables["seeds"]),
        importance=tables["importance"],
        summary=summary["summary"],
        history=summary["history"],
        curve=Curve.of_content(summary["curve"], what=what) if "curve" in summary else None,
    )


def _read_table(output: Output, name: str, fold: int) -> pl.DataFrame | None:
    return _decoded(output, name, fold) if (output.path / part_name(name, fold, "parquet")).exists() else None


def _decoded(output: Output, name: str, fold: int) -> pl.DataFrame:
    return decode_parquet(output.read(part_name(name, fold, "parquet")), f"fold {fold}")
