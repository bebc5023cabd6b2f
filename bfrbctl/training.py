"""Train a model by subject-grouped cross-validation and assemble its out-of-fold predictions.

Each fold is published as soon as it is done - its model, its predictions, its history - so that a killed run continues
with the others. The folds are those stored in the dataset, so that every model of a blend is judged by the same ones.
Folds know nothing of each other: they are trained here one after the other, or several at once by a crew. To a crew
each member of a fold (its models that differ in nothing but the seed) is a piece of work of its own, which is left in
the fold's scratch folder; as soon as all of them are there, putting the fold together is a piece too.
"""

import csv
import io
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl import oof, workers
from bfrbctl.bootstrap import score_intervals
from bfrbctl.cache import Cache
from bfrbctl.config import as_mapping, from_mapping
from bfrbctl.dataset import FeatureBatch
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.feature_folder import read_features
from bfrbctl.folders import PART, Folder, Pinned
from bfrbctl.labels import JOINT_OOF, JointLabels, Sort, joint_labels, postures
from bfrbctl.metrics import score_proba
from bfrbctl.models import FoldModel, FoldTask, HistoryRow, InMembers, Kind, OfSeeds, kind_module, n_members
from bfrbctl.outputs import Output
from bfrbctl.pieces import Pieces, Rows, progress_path, written_rows
from bfrbctl.schema import ALL_SENSORS, GESTURE, IMU_ONLY, SEQUENCE_ID, SUBJECT, scenarios_of
from bfrbctl.seed_answers import SEEDS, seed_rows
from bfrbctl.segments import Float32, Int64
from bfrbctl.storage import Content, decode_parquet, encode_json, parquet_bytes, parse_json
from bfrbctl.trained_on import TRAINED_ON, training_digests
from bfrbctl.workers import ALONE, Crew

METRICS = "metrics.json"
HISTORY = "history.jsonl"
HISTORY_CSV = "history.csv"
IMPORTANCE = "importance.parquet"
OnProgress = Callable[[HistoryRow], None]

_KEPT = ("rate_hz", "thm", "tof", "classes", "targets", "n_folds")
"""What the manifest of a model holds of that of its features."""

_CORES_A_FOLD = {"lgbm": 4}
"""How many cores a piece is worth before a second one is trained beside it; a kind that is not here takes all.

The 4 is a judgement: no machine of many cores was there to measure it on. For few threads a piece: LightGBM's
documentation of `num_threads` warns of many for small data ("do not use 64 threads for a dataset with 10,000 rows"),
and a fold of the study has some 8,000 rows; threads wait for each other at every split, of which a round of 18 small
trees has a hundred and more and takes 20 ms in all (2,000 rows of 300 columns, docs/lightgbm.md), while pieces wait
for nobody. Against a process a core: each reads and bins the table for itself, in memory of its own. `--workers`
overrides it.
"""


@dataclass(frozen=True)
class FoldResult:
    """What became of one fold.

    Parameters
    ----------
    fold
        Which.
    scores
        Scenario -> competition score on the held-out sequences; of one scenario where the device has no other.
    summary
        What the model tells of itself.
    reused
        Whether an earlier run had finished it already.
    """

    fold: int
    scores: Mapping[str, float]
    summary: Mapping[str, Any]
    reused: bool


@dataclass(frozen=True)
class CrossValidation:
    """What is trained on what.

    Parameters
    ----------
    features
        The feature folder.
    kind_name
        `lgbm` or `keras`.
    kind
        Its module, from `models.kind_module`.
    config
        Its settings.
    folds
        Which folds to hold out; all when empty.
    seed
        Seed of the run.
    labels
        `gesture`, or `joint`: tell apart a gesture's postures and first behaviours too.
    cache_bytes
        Memory for features; what goes beyond lies in mapped files. None is no bound.
    """

    features: Folder
    kind_name: str
    kind: Kind
    config: Any
    folds: tuple[int, ...] = ()
    seed: int = 0
    labels: Sort = "gesture"
    cache_bytes: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest keeps: every setting that changes the result, which the number of threads does not."""
        settings = {key: value for key, value in as_mapping(self.config).items() if key != "threads"}
        return {"model": self.kind_name, "folds": list(self.folds), "labels": self.labels, "settings": settings}


def folds_at_once(kind_name: str) -> int:
    """How many folds of a kind, or members of folds, fill this machine's cores, with the threads that each takes.

    Where there are fewer pieces than that, each takes more threads: see `Crew.threads`.
    """
    cores = workers.n_workers(0)
    return max(cores // _CORES_A_FOLD.get(kind_name, cores), 1)


def cross_validate(
    job: CrossValidation, output: Output, *, crew: Crew = ALONE, on_progress: OnProgress | None = None
) -> Generator[FoldResult, None, None]:
    """Train the folds, then write what belongs to all of them.

    Parameters
    ----------
    job
        What to train on what.
    output
        The model folder, opened by `outputs.open_output`.
    crew
        Who trains the folds; the result does not depend on it.
    on_progress
        Called with every history row as it is known.

    Yields
    ------
    The result of each fold as it is done: those of an earlier run first, the others in any order where several are
    trained at once. The folder is finished when the iterator is exhausted.

    Raises
    ------
    DataError
        When there is nothing to learn from.
    UsageError
        When a fold is asked for that the dataset does not have.
    """
    index, _ = read_features(job.features, parts=())
    if not index.height:
        raise DataError(f"{job.features.path}: has no labelled sequence", hint="train on a dataset with gestures")
    nameless = index.filter(pl.col(SUBJECT) == "")[SEQUENCE_ID].to_list()
    if nameless:
        raise DataError(
            f"{job.features.path}: labelled sequence {examples(nameless)} has no subject: "
            "the same person may be in several folds",
            hint="fill in the subject, or leave such sequences out with prepare --drop",
        )
    chosen = chosen_folds(job, index)
    content = {key: job.features.content[key] for key in _KEPT}
    output.describe({**content, "model": job.kind_name}, [f"fold-{fold}" for fold in chosen])
    todo = [fold for fold in chosen if not output.has(f"fold-{fold}")]
    for fold in chosen:
        if fold not in todo:
            yield _fold_result(output, fold, job.features.content, reused=True)
    train = _train_here if crew.here(len(todo) * n_members(job.kind, job.config)) else _train_elsewhere

    def note(row: HistoryRow) -> None:
        output.begin()  # it learns: from now on the run is worth more than what it is to replace
        if on_progress:
            on_progress(row)

    with closing(train(job, output, todo, crew=crew, on_progress=note)) as folds:
        for fold in folds:
            yield _fold_result(output, fold, job.features.content, reused=False)
    _finish(job, output, chosen, index)


def _train_here(
    job: CrossValidation, output: Output, folds: Sequence[int], *, crew: Crew, on_progress: OnProgress
) -> Generator[int, None, None]:
    """Train folds in this process, one after the other; gives each when it is published."""
    if not folds:
        return
    cache = Cache(job.cache_bytes, output.path)
    index, batch = read_features(job.features, parts=job.kind.NEEDS, cache=cache)
    for fold in folds:
        folder = output.scratch(f"fold-{fold}", checkpoints=True)
        with folder as scratch, written_rows(progress_path(scratch, None), anew=False) as write:
            note = _both(write, on_progress)
            task = fold_task(job, fold, index=index, batch=batch, scratch=scratch, on_progress=note)
            output.publish(f"fold-{fold}", _train_fold(job, task, index))
        yield fold


def _both(first: OnProgress, second: OnProgress) -> OnProgress:
    def call(row: HistoryRow) -> None:
        first(row)
        second(row)

    return call


def _train_elsewhere(
    job: CrossValidation, output: Output, folds: Sequence[int], *, crew: Crew, on_progress: OnProgress
) -> Generator[int, None, None]:
    """Train folds in other processes, which get paths and settings and give files; gives each when it is published."""
    crew.see(output.path, job.features.pinned())
    n_pieces = len(folds) * n_members(job.kind, job.config)
    settings, bound = settings_elsewhere(job, crew, n_pieces)
    told = (job.features.pinned(), job.kind_name, settings, job.seed, job.labels, bound)
    held = {fold: ExitStack() for fold in folds}
    scratch = {
        fold: held[fold].enter_context(output.scratch(f"fold-{fold}", checkpoints=True)).absolute() for fold in folds
    }
    pieces = Pieces(folds, n_members(job.kind, job.config))
    rows = {piece: Rows(progress_path(scratch[piece[0]], piece[1])) for piece in pieces.all}

    def tell() -> None:
        for row in (row for known in rows.values() for row in known.new()):
            on_progress(row)

    tasks = (piece and (*told, *piece, scratch[piece[0]]) for piece in pieces)
    made = workers.run(_piece_elsewhere, tasks, crew=crew, n_tasks=n_pieces, in_order=False, on_wait=tell)
    with closing(made):
        for fold, member, files in made:
            del rows[fold, member]
            if member is not None:
                pieces.done(fold)
                continue
            output.publish(f"fold-{fold}", files)
            held[fold].close()
            yield fold


def settings_elsewhere(job: CrossValidation, crew: Crew, n_tasks: int) -> tuple[dict[str, Any], int | None]:
    """Give the settings and the memory for features that each of several tasks at once is trained with."""
    settings = as_mapping(job.config)
    if settings.get("threads") == 0:
        settings["threads"] = crew.threads(n_tasks)
    bound = job.cache_bytes
    if bound is not None and not crew.cluster:
        bound //= crew.at_once(n_tasks)
    return settings, bound


def _piece_elsewhere(
    features: Pinned,
    kind_name: str,
    settings: Mapping[str, Any],
    seed: int,
    labels: Sort,
    cache_bytes: int | None,
    fold: int,
    member: int | None,
    scratch: Path,
) -> tuple[int, int | None, dict[str, bytes]]:
    """Train one fold, or one member of it, in a worker; it publishes nothing."""
    kind = kind_module(kind_name)
    config = from_mapping(kind.Config, settings, f"settings of fold {fold}")
    job = CrossValidation(features.open(), kind_name, kind, config, (fold,), seed, labels)
    index, batch = read_features(job.features, parts=kind.NEEDS, cache=Cache(cache_bytes, scratch))
    with written_rows(progress_path(scratch, member), anew=True) as note:
        task = fold_task(job, fold, index=index, batch=batch, scratch=scratch, on_progress=note)
        if member is None:
            return fold, None, _train_fold(job, task, index)
        if not isinstance(kind, InMembers):
            raise TypeError(f"{kind_name} knows no members")
        kind.fit_member(task, config, member)
        return fold, member, {}


def chosen_folds(job: CrossValidation, index: pl.DataFrame) -> list[int]:
    """Give the folds to train; UsageError for one that the dataset lacks, DataError when it has one only."""
    there = index["fold"].unique().sort().to_list()
    unknown = [fold for fold in job.folds if fold not in there]
    if unknown:
        raise UsageError(f"no fold {examples(unknown)}", hint=f"the dataset has folds {', '.join(map(str, there))}")
    if len(there) < 2:
        raise DataError(f"{job.features.path}: has one fold, expected two at least", hint="prepare it with --folds 5")
    return sorted(set(job.folds)) or there


def _train_fold(job: CrossValidation, task: FoldTask, index: pl.DataFrame) -> dict[str, bytes]:
    """Train one fold; gives the files that are to be published of it."""
    return fold_files(job, task, index, job.kind.fit(task, job.config))


def fold_files(job: CrossValidation, task: FoldTask, index: pl.DataFrame, model: FoldModel) -> dict[str, bytes]:
    """Give what is to be published of a fold: its model, its predictions of the held-out sequences, its history."""
    probas = predict_scenarios(model, task.valid)
    rows = index.filter(pl.col("fold") == task.fold)
    files = _model_files(model, task.fold)
    joint, _ = _labelling(job, index)
    if joint:
        files[_part("joint", task.fold, "parquet")] = oof.oof_rows(rows, probas)
        probas = {scenario: joint.gestures(proba) for scenario, proba in probas.items()}
    files[_part("oof", task.fold, "parquet")] = oof.oof_rows(rows, probas)
    seeds = _each_seed(model, task, joint)
    if seeds:
        files[_part("seeds", task.fold, "parquet")] = seed_rows(rows[SEQUENCE_ID], seeds, task.gestures)
    return {name: content if isinstance(content, bytes) else parquet_bytes(content) for name, content in files.items()}


def _each_seed(model: FoldModel, task: FoldTask, joint: JointLabels | None) -> list[dict[str, Float32]]:
    """Predict what was held out with the model of each seed by itself; nothing where there is one seed."""
    models = model.each_seed() if isinstance(model, OfSeeds) else ()
    probas = [predict_scenarios(one, task.valid) for one in models] if len(models) > 1 else []
    if joint is None:
        return probas
    return [{name: joint.gestures(proba) for name, proba in each.items()} for each in probas]


def fold_task(
    job: CrossValidation,
    fold: int,
    *,
    index: pl.DataFrame,
    batch: FeatureBatch,
    scratch: Path,
    on_progress: OnProgress,
) -> FoldTask:
    """Part the sequences into those to learn from and those held out."""
    gestures, targets = tuple(job.features.content["classes"]), job.features.content["targets"]
    joint, labels = _labelling(job, index)
    gesture_of = joint.gesture_of if joint else tuple(range(len(gestures)))
    held = (index["fold"] == fold).to_numpy()
    fitted, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    orientations, orientation = postures(index)
    return FoldTask(
        fold=fold,
        classes=joint.names if joint else gestures,
        targets=tuple(targets[gesture] for gesture in gesture_of),
        train=batch.take(fitted),
        train_labels=labels[fitted],
        valid=batch.take(held_out),
        valid_labels=labels[held_out],
        seed=job.seed,
        rate_hz=float(job.features.content["rate_hz"]),
        scratch=scratch,
        on_progress=on_progress,
        gestures=gestures,
        gesture_of=joint.gesture_of if joint else (),
        orientations=orientations,
        train_orientation=None if orientation is None else orientation[fitted],
    )


def _labelling(job: CrossValidation, index: pl.DataFrame) -> tuple[JointLabels | None, Int64]:
    """Give the joint labels, None where gestures are told apart alone, and the class of each sequence."""
    classes = tuple(job.features.content["classes"])
    if job.labels == "joint":
        return joint_labels(index, classes, what=str(job.features.path))
    return None, oof.class_positions(index[GESTURE].to_list(), classes)


def predict_scenarios(model: FoldModel, batch: FeatureBatch) -> dict[str, Float32]:
    """Predict with all sensors and IMU-only; once for both where there is nothing to take away."""
    proba = model.predict_proba(batch)
    columns = (*batch.features, *batch.channels)
    if all(column.survives_imu_only for column in columns) and not batch.tof.shape[1]:
        return {ALL_SENSORS: proba, IMU_ONLY: proba}
    return {ALL_SENSORS: proba, IMU_ONLY: model.predict_proba(batch.imu_only())}


def _model_files(model: FoldModel, fold: int) -> dict[str, bytes | pl.DataFrame]:
    files: dict[str, bytes | pl.DataFrame] = {
        f"fold-{fold}.{suffix}": content for suffix, content in model.encode().items()
    }
    files[_part("summary", fold, "json")] = encode_json({"summary": model.summary, "history": model.history})
    importance = getattr(model, "importance", None)
    if importance is not None:
        found = importance()
        columns = {"feature": list(found.features), "gain": found.gain, "split": found.split}
        files[_part("importance", fold, "parquet")] = pl.DataFrame(columns).with_columns(pl.lit(fold).alias("fold"))
    return files


def _part(name: str, fold: int, suffix: str) -> str:
    return f"{PART}{name}-{fold}.{suffix}"


def _fold_result(output: Output, fold: int, content: Mapping[str, Any], *, reused: bool) -> FoldResult:
    classes, targets = content["classes"], content["targets"]
    rows = decode_parquet(output.read(_part("oof", fold, "parquet")), f"fold {fold}")
    scores = {}
    for scenario in scenarios_of(content):
        part = rows.filter(scenario=scenario)
        truth = oof.class_positions(part[GESTURE].to_list(), classes)
        proba = part.select(oof.proba_columns(len(classes))).to_numpy()
        scores[scenario] = score_proba(proba, truth, targets).score
    told = parse_json(output.read(_part("summary", fold, "json")), f"fold {fold}")
    return FoldResult(fold, scores, told["summary"], reused)


def _finish(job: CrossValidation, output: Output, folds: Sequence[int], index: pl.DataFrame) -> Folder:
    """Merge what the folds left and write the manifest."""
    joint, _ = _labelling(job, index)
    parts = [decode_parquet(output.read(_part("oof", fold, "parquet")), f"fold {fold}") for fold in folds]
    table = pl.concat(parts).sort("scenario", "sequence_id")
    told = [parse_json(output.read(_part("summary", fold, "json")), f"fold {fold}") for fold in folds]
    history = [row for fold in told for row in fold["history"]]
    lines = [json.dumps(row, ensure_ascii=False) for row in history]
    classes, targets = job.features.content["classes"], job.features.content["targets"]
    scenarios = oof.split_scenarios(table, classes)
    summary = oof.summarise(scenarios, targets, classes)
    summary["interval"] = score_intervals(scenarios, targets, seed=job.seed)
    summary["models"] = [{"fold": fold, **item["summary"]} for fold, item in zip(folds, told, strict=True)]
    files: dict[str, Content] = {
        oof.OOF: table,
        METRICS: encode_json(summary),
        HISTORY: "".join(f"{line}\n" for line in lines).encode(),
        HISTORY_CSV: as_csv(history),
    }
    importances = [_part("importance", fold, "parquet") for fold in folds]
    if all((output.path / name).exists() for name in importances):
        files[IMPORTANCE] = _importance_table(job.features, [output.read(name) for name in importances])
    seeds = [_part("seeds", fold, "parquet") for fold in folds]
    if all((output.path / name).exists() for name in seeds):
        files[SEEDS] = pl.concat([decode_parquet(output.read(name), SEEDS) for name in seeds]).sort(
            "scenario", "seed", SEQUENCE_ID
        )
    if joint:
        parts = [decode_parquet(output.read(_part("joint", fold, "parquet")), f"fold {fold}") for fold in folds]
        files[JOINT_OOF] = pl.concat(parts).sort("scenario", "sequence_id")
    output.publish("tables", files)
    content = {key: job.features.content[key] for key in _KEPT}
    return output.finish(
        {
            **content,
            **({"joint": joint.as_content()} if joint else {}),
            "model": job.kind_name,
            "folds": list(folds),
            "features": job.features.config,
            "prior": _prior(table, classes),
            "score": summary["score"],
            TRAINED_ON: training_digests(index),
        }
    )


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


def _importance_table(features: Folder, parts: Sequence[bytes]) -> pl.DataFrame:
    """Gain and split of every feature by fold, with the catalogue's family and modality."""
    table = pl.concat([decode_parquet(part, IMPORTANCE) for part in parts])
    catalogue = features.read_parquet("catalogue.parquet").filter(pl.col("table") == "sequence")
    known = catalogue.select(pl.col("name").alias("feature"), "family", "modality")
    return table.join(known, on="feature", how="left", maintain_order="left")
