"""What a fold of a cross-validation leaves, and how the folds are put together.

A fold whose training ended leaves its model, its out-of-fold predictions, and its history. Where the number of steps
(rounds, epochs) is chosen by the other folds, it leaves the model of all steps and the curve of its scores instead,
with the predictions of the last step for who looks in before the others are there. When all folds are there, the
numbers are chosen, each fold's held-out sequences are predicted with its own, and the models are cut.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32, Int64
from bfrbctl.artefacts.files import Content, decode_parquet, encode_json, parquet_bytes, parse_json
from bfrbctl.artefacts.folders import PART, Folder
from bfrbctl.artefacts.outputs import Output
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.bootstrap import auc_intervals, score_intervals
from bfrbctl.evaluation.classes import ClassSpace, gesture_space
from bfrbctl.evaluation.in_sample import TRAINED_ON, training_digests
from bfrbctl.evaluation.labels import JOINT_OOF, joint_labels
from bfrbctl.evaluation.seed_predictions import SEEDS, seed_rows
from bfrbctl.evaluation.selection import Curve, select_steps
from bfrbctl.execution.cache import Cache
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import FoldModel, FoldTask, HistoryRow, OfSeeds, Selecting
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SEQUENCE_ID

if TYPE_CHECKING:
    from bfrbctl.training.cross_validation import CrossValidation

METRICS = "metrics.json"
HISTORY = "history.jsonl"
HISTORY_CSV = "history.csv"
IMPORTANCE = "importance.parquet"

KEPT = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds")
"""What the manifest of a model holds of that of its features."""

STEPS = "steps"
"""Name of the parts that hold a model of all steps."""

_SELECTED = "selected-"
"""Prefix of the parts and pieces that are made when the numbers of steps were chosen."""

_TABLES = "tables"
"""Name of the piece that is of all folds."""


# ----------------------------------------------------------------------------------------------------- of one fold


def fold_files(job: "CrossValidation", task: FoldTask, index: pl.DataFrame, model: FoldModel) -> dict[str, bytes]:
    """Give what is to be published of a fold whose training ended.

    Parameters
    ----------
    job
        The cross-validation.
    task
        What the fold was trained on.
    index
        Of all labelled sequences.
    model
        What came of it; it is kept whole where `task.keep_steps`.
    """
    summary = {"summary": model.summary, "history": model.history}
    files = _oof_files(job, index, task.fold, model, task.valid)
    if not task.keep_steps:
        files |= _model_files(model, task.fold)
    else:
        files |= {_part(STEPS, task.fold, suffix): content for suffix, content in model.encode().items()}
        summary["curve"] = _curve(model).as_content()
    files[_part("summary", task.fold, "json")] = encode_json(summary)
    return {name: content if isinstance(content, bytes) else parquet_bytes(content) for name, content in files.items()}


def _curve(model: FoldModel) -> Curve:
    curve: Curve | None = getattr(model, "curve", None)
    if curve is None:
        raise TypeError(f"{type(model).__name__} tells no curve, expected one as its steps are kept")
    return curve


def _oof_files(
    job: "CrossValidation", index: pl.DataFrame, fold: int, model: FoldModel, valid: FeatureBatch, prefix: str = ""
) -> dict[str, bytes | pl.DataFrame]:
    """Predict what a fold held out, in every scenario; also of joint labels and of each of several seeds."""
    rows = index.filter(pl.col("fold") == fold)
    probas = predict_scenarios(model, valid)
    files: dict[str, bytes | pl.DataFrame] = {}
    space, _ = labelling(job, index)
    if space.is_joint:
        files[_part(f"{prefix}joint", fold, "parquet")] = oof.oof_rows(rows, probas)
        probas = {scenario: space.gesture_proba(proba) for scenario, proba in probas.items()}
    files[_part(f"{prefix}oof", fold, "parquet")] = oof.oof_rows(rows, probas)
    seeds = _each_seed(model, valid, space)
    if seeds:
        content = seed_rows(rows[SEQUENCE_ID], seeds, job.features.content["classes"])
        files[_part(f"{prefix}seeds", fold, "parquet")] = content
    return files


def _each_seed(model: FoldModel, valid: FeatureBatch, space: ClassSpace) -> list[dict[str, Float32]]:
    """Predict what was held out with the model of each seed by itself; nothing where there is one seed."""
    models = model.each_seed() if isinstance(model, OfSeeds) else ()
    probas = [predict_scenarios(one, valid) for one in models] if len(models) > 1 else []
    return [{name: space.gesture_proba(proba) for name, proba in each.items()} for each in probas]


def predict_scenarios(model: FoldModel, batch: FeatureBatch) -> dict[str, Float32]:
    """Predict with all sensors and IMU-only; once for both where there is nothing to take away."""
    proba = model.predict_proba(batch)
    columns = (*batch.features, *batch.channels)
    if all(column.survives_imu_only for column in columns) and not batch.tof.shape[1]:
        return {ALL_SENSORS: proba, IMU_ONLY: proba}
    return {ALL_SENSORS: proba, IMU_ONLY: model.predict_proba(batch.imu_only())}


def _model_files(model: FoldModel, fold: int, prefix: str = "") -> dict[str, bytes | pl.DataFrame]:
    """Give the files of a model that is kept, and how much it uses each feature where it can tell."""
    files: dict[str, bytes | pl.DataFrame] = {
        f"fold-{fold}.{suffix}": content for suffix, content in model.encode().items()
    }
    importance = getattr(model, "importance", None)
    if importance is not None:
        found = importance()
        columns = {"feature": list(found.features), "gain": found.gain, "split": found.split}
        table = pl.DataFrame(columns).with_columns(pl.lit(fold).alias("fold"))
        files[_part(f"{prefix}importance", fold, "parquet")] = table
    return files


def _part(name: str, fold: int, suffix: str) -> str:
    return f"{PART}{name}-{fold}.{suffix}"


def fold_oof(output: Output, fold: int) -> pl.DataFrame:
    """Read the out-of-fold predictions of a fold whose training ended, of its last step."""
    return decode_parquet(output.read(_part("oof", fold, "parquet")), f"fold {fold}")


def fold_summary(output: Output, fold: int) -> dict[str, Any]:
    """Read what a fold whose training ended left of its summary, history and, where steps are kept, curve."""
    found: dict[str, Any] = parse_json(output.read(_part("summary", fold, "json")), f"fold {fold}")
    return found


# --------------------------------------------------------------------------------------------------- how many steps


@dataclass(frozen=True)
class Selection:
    """How the numbers of steps came about; what metrics.json keeps.

    Parameters
    ----------
    select
        `other-folds` or `last`.
    why
        Why it is `last` where `other-folds` was asked for; else empty.
    step
        What a step is called.
    by, scenario
        The figure that chose; empty where nothing was chosen.
    kept
        Steps of the models that are kept for prediction, at most.
    folds
        Fold -> steps of the model that its held-out sequences are scored with.
    """

    select: str
    why: str
    step: str
    by: str
    scenario: str
    kept: int
    folds: Mapping[str, int]


def why_last(job: "CrossValidation", folds: Sequence[int]) -> str:
    """Say why the last step is kept though `select` is `other-folds`; empty where it is chosen, or was asked for."""
    if not isinstance(job.kind, Selecting) or job.config.select != "other-folds":
        return ""
    if job.config.why_last:
        return str(job.config.why_last)
    return "one fold is trained alone, and it must not choose for itself" if len(folds) < 2 else ""


def keeps_steps(job: "CrossValidation", folds: Sequence[int]) -> bool:
    """Whether every step of the folds is kept, as the other folds choose one."""
    return isinstance(job.kind, Selecting) and job.config.select == "other-folds" and not why_last(job, folds)


def planned_pieces(job: "CrossValidation", folds: Sequence[int]) -> list[str]:
    """Name what a training publishes, in this order: its folds, those with chosen steps, and the tables of all."""
    selected = [_selected(fold) for fold in folds] if job.keep_steps else []
    return [*(f"fold-{fold}" for fold in folds), *selected, _TABLES]


def _selected(fold: int) -> str:
    return f"{_SELECTED}{fold}"


@dataclass(frozen=True)
class _StepFiles(Mapping[str, bytes]):
    """The files of a fold's model of all steps, by suffix, read when they are asked for."""

    output: Output
    fold: int

    def __getitem__(self, suffix: str) -> bytes:
        if suffix not in set(self):
            raise KeyError(suffix)
        return self.output.read(_part(STEPS, self.fold, suffix))

    def __iter__(self) -> Iterator[str]:
        prefix = _part(STEPS, self.fold, "")
        return (
            name.removeprefix(prefix) for name in self.output.pieces[f"fold-{self.fold}"] if name.startswith(prefix)
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)


def selection_line(selection: Mapping[str, Any]) -> str:
    """Say in one line how the numbers of steps came about, from what metrics.json holds."""
    step, kept, steps = selection["step"], selection["kept"], sorted(selection["folds"].values())
    if selection["select"] == "last":
        return f"kept: all {kept} {step}s{f', as {why}' if (why := selection['why']) else ''}"
    span = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]} to {steps[-1]}"
    return f"kept: {kept} {step}s, best on all folds; a fold is scored with those that are best on the others ({span})"


def _select(job: "CrossValidation", output: Output, folds: Sequence[int], index: pl.DataFrame) -> Selection:
    """Choose the numbers of steps, predict the held-out sequences anew, and cut the models."""
    if not isinstance(job.kind, Selecting):
        raise TypeError(f"{job.kind_name} cannot be cut to a step")
    curves = {
        fold: Curve.of_content(fold_summary(output, fold).get("curve"), what=f"fold {fold} of {output.path}")
        for fold in folds
    }
    rule = job.config.rule
    chosen = select_steps(curves, rule)
    _, batch = read_features(job.features, parts=job.kind.NEEDS, cache=Cache(job.cache_bytes, output.path))
    space, _ = labelling(job, index)
    for fold in folds:
        valid = batch.take(np.flatnonzero((index["fold"] == fold).to_numpy()))
        files = _StepFiles(output, fold)
        scored = job.kind.load_step(files, chosen.folds[fold], classes=space.classes)
        same = chosen.kept == chosen.folds[fold]
        kept = scored if same else job.kind.load_step(files, chosen.kept, classes=space.classes)
        output.publish(
            _selected(fold),
            {
                **_oof_files(job, index, fold, scored, valid, _SELECTED),
                **_model_files(kept, fold, _SELECTED),
                _part(f"{_SELECTED}summary", fold, "json"): encode_json({"summary": kept.summary}),
            },
        )
    steps = {str(fold): step for fold, step in chosen.folds.items()}
    return Selection("other-folds", "", job.config.STEP, rule.by, rule.scenario, chosen.kept, steps)


# ------------------------------------------------------------------------------------------------------ of all folds


def finish(job: "CrossValidation", output: Output, folds: Sequence[int], index: pl.DataFrame) -> Folder:
    """Choose the numbers of steps where that is to be done, merge what the folds left, and write the manifest."""
    if job.keep_steps:
        selection = _select(job, output, folds, index)
    else:
        steps = {str(fold): job.config.n_steps for fold in folds}
        selection = Selection("last", why_last(job, folds), job.config.STEP, "", "", job.config.n_steps, steps)
    prefix = _SELECTED if job.keep_steps else ""
    space, _ = labelling(job, index)
    table = _merged(output, f"{prefix}oof", folds).sort("scenario", SEQUENCE_ID)
    history = [row for fold in folds for row in fold_summary(output, fold)["history"]]
    summary = _summary(job, output, folds, table, prefix)
    summary["selection"] = asdict(selection)
    files: dict[str, Content] = {
        oof.OOF: table,
        METRICS: encode_json(summary),
        HISTORY: "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in history).encode(),
        HISTORY_CSV: as_csv(history),
    }
    if _all_have(output, f"{prefix}importance", folds):
        files[IMPORTANCE] = _importance_table(job.features, _merged(output, f"{prefix}importance", folds))
    if _all_have(output, f"{prefix}seeds", folds):
        files[SEEDS] = _merged(output, f"{prefix}seeds", folds).sort("scenario", "seed", SEQUENCE_ID)
    if space.is_joint:
        files[JOINT_OOF] = _merged(output, f"{prefix}joint", folds).sort("scenario", SEQUENCE_ID)
    output.publish(_TABLES, files)
    content = {key: job.features.content[key] for key in KEPT}
    return output.finish(
        {
            **content,
            **space.joint_content(),
            "model": job.kind_name,
            "folds": list(folds),
            "features": job.features.config,
            "prior": _prior(table, job.features.content["classes"]),
            "score": summary["score"],
            TRAINED_ON: training_digests(index),
        }
    )


def _summary(
    job: "CrossValidation", output: Output, folds: Sequence[int], table: pl.DataFrame, prefix: str
) -> dict[str, Any]:
    """Give what metrics.json holds: scores with their intervals, and what each fold's model says of itself."""
    space = gesture_space(job.features.content)
    scenarios = oof.split_scenarios(table, space.gestures)
    summary = oof.summarise(scenarios, space)
    summary["interval"] = score_intervals(scenarios, space, seed=job.seed)
    summary["auc_interval"] = auc_intervals(scenarios, space, seed=job.seed)
    models = [
        parse_json(output.read(_part(f"{prefix}summary", fold, "json")), f"fold {fold}")["summary"] for fold in folds
    ]
    summary["models"] = [{"fold": fold, **model} for fold, model in zip(folds, models, strict=True)]
    return summary


def _merged(output: Output, name: str, folds: Sequence[int]) -> pl.DataFrame:
    return pl.concat([decode_parquet(output.read(_part(name, fold, "parquet")), f"fold {fold}") for fold in folds])


def _all_have(output: Output, name: str, folds: Sequence[int]) -> bool:
    return all((output.path / _part(name, fold, "parquet")).exists() for fold in folds)


def labelling(job: "CrossValidation", index: pl.DataFrame) -> tuple[ClassSpace, Int64]:
    """Give the classes that are trained, gestures or joint labels, and the class of each sequence."""
    space = gesture_space(job.features.content)
    if job.labels == "joint":
        return joint_labels(index, space, what=str(job.features.path))
    return space, oof.class_positions(index[GESTURE].to_list(), space.gestures)


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
    """Share of every gesture among the labelled sequences: the answer where nothing can be measured."""
    counts = np.bincount(oof.class_positions(table[GESTURE].to_list(), classes), minlength=len(classes))
    return [float(share) for share in counts / counts.sum()]


def _importance_table(features: Folder, table: pl.DataFrame) -> pl.DataFrame:
    """Gain and split of every feature by fold, with the catalogue's family and modality."""
    catalogue = features.read_parquet("catalogue.parquet").filter(pl.col("table") == "sequence")
    known = catalogue.select(pl.col("name").alias("feature"), "family", "modality")
    return table.join(known, on="feature", how="left", maintain_order="left")
