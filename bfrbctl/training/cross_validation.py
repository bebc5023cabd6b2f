"""Train a model by subject-grouped cross-validation.

Each fold is published as soon as it is done - its model, its predictions, its history - so that a killed run continues
with the others; `fold_results` says what that is, and puts the folds together. The folds are those stored in the
dataset, so that every model of a blend is judged by the same ones. Folds know nothing of each other: they are trained
here one after the other, or several at once by a crew. To a crew each member of a fold (its models that differ in
nothing but the seed) is a piece of work of its own, which is left in the fold's scratch folder; as soon as all of them
are there, putting the fold together is a piece too.
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.folders import Folder, Pinned
from bfrbctl.artefacts.outputs import Output
from bfrbctl.config import as_mapping, from_mapping
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.labels import Sort, postures
from bfrbctl.evaluation.metrics import one_sided_note, score_proba
from bfrbctl.execution.cache import Cache
from bfrbctl.execution.executor import SEQUENTIAL, Executor, n_workers, run_tasks
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import FoldTask, HistoryRow, InMembers, Kind, kind_module, n_members
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import GESTURE, SEQUENCE_ID, SUBJECT, scenarios_of
from bfrbctl.training.fold_results import (
    KEPT,
    finish,
    fold_files,
    fold_oof,
    fold_summary,
    keeps_steps,
    labelling,
    planned_pieces,
)
from bfrbctl.training.tasks import Rows, TaskQueue, progress_path, written_rows

_log = logging.getLogger("bfrbctl.training")

OnProgress = Callable[[HistoryRow], None]

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
        Scenario -> headline score on the held-out sequences, after the last step; of one scenario where the device has
        no other.
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
    keep_steps
        Whether every step of the folds is kept, to choose one when all are there; `cross_validate` decides it.
    """

    features: Folder
    kind_name: str
    kind: Kind
    config: Any
    folds: tuple[int, ...] = ()
    seed: int = 0
    labels: Sort = "gesture"
    cache_bytes: int | None = None
    keep_steps: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What the manifest keeps: every setting that changes the result, which the number of threads does not."""
        settings = {key: value for key, value in as_mapping(self.config).items() if key != "threads"}
        return {"model": self.kind_name, "folds": list(self.folds), "labels": self.labels, "settings": settings}


def folds_at_once(kind_name: str) -> int:
    """How many folds of a kind, or members of folds, fill this machine's cores, with the threads that each takes.

    Where there are fewer pieces than that, each takes more threads: see `Executor.threads`.
    """
    cores = n_workers(0)
    return max(cores // _CORES_A_FOLD.get(kind_name, cores), 1)


def cross_validate(
    job: CrossValidation, output: Output, *, executor: Executor = SEQUENTIAL, on_progress: OnProgress | None = None
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
    note = one_sided_note(job.features.content)
    if note:
        _log.warning("%s: %s", job.features.path, note)
    chosen = chosen_folds(job, index)
    job = replace(job, keep_steps=keeps_steps(job, chosen))
    content = {key: job.features.content[key] for key in KEPT}
    output.describe({**content, "model": job.kind_name}, planned_pieces(job, chosen))
    todo = [fold for fold in chosen if not output.has(f"fold-{fold}")]
    for fold in chosen:
        if fold not in todo:
            yield _fold_result(output, fold, job.features.content, reused=True)
    train = _train_here if executor.here(len(todo) * n_members(job.kind, job.config)) else _train_elsewhere

    def on_row(row: HistoryRow) -> None:
        output.begin()  # it learns: from now on the run is worth more than what it is to replace
        if on_progress:
            on_progress(row)

    with closing(train(job, output, todo, executor=executor, on_progress=on_row)) as folds:
        for fold in folds:
            yield _fold_result(output, fold, job.features.content, reused=False)
    finish(job, output, chosen, index)


def _train_here(
    job: CrossValidation, output: Output, folds: Sequence[int], *, executor: Executor, on_progress: OnProgress
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
    job: CrossValidation, output: Output, folds: Sequence[int], *, executor: Executor, on_progress: OnProgress
) -> Generator[int, None, None]:
    """Train folds in other processes, which get paths and settings and give files; gives each when it is published."""
    executor.check_paths(output.path, job.features.pinned())
    n_pieces = len(folds) * n_members(job.kind, job.config)
    settings, bound = settings_elsewhere(job, executor, n_pieces)
    told = (job.features.pinned(), job.kind_name, settings, job.seed, job.labels, bound, job.keep_steps)
    held = {fold: ExitStack() for fold in folds}
    scratch = {
        fold: held[fold].enter_context(output.scratch(f"fold-{fold}", checkpoints=True)).absolute() for fold in folds
    }
    pieces = TaskQueue(folds, n_members(job.kind, job.config))
    rows = {piece: Rows(progress_path(scratch[piece[0]], piece[1])) for piece in pieces.all}

    def tell() -> None:
        for row in (row for known in rows.values() for row in known.new()):
            on_progress(row)

    tasks = (piece and (*told, *piece, scratch[piece[0]]) for piece in pieces)
    made = run_tasks(_piece_elsewhere, tasks, executor=executor, n_tasks=n_pieces, in_order=False, on_wait=tell)
    with closing(made):
        for fold, member, files in made:
            del rows[fold, member]
            if member is not None:
                pieces.done(fold)
                continue
            output.publish(f"fold-{fold}", files)
            held[fold].close()
            yield fold


def settings_elsewhere(job: CrossValidation, executor: Executor, n_tasks: int) -> tuple[dict[str, Any], int | None]:
    """Give the settings and the memory for features that each of several tasks at once is trained with."""
    settings = as_mapping(job.config)
    if settings.get("threads") == 0:
        settings["threads"] = executor.threads(n_tasks)
    bound = job.cache_bytes
    if bound is not None and not executor.cluster:
        bound //= executor.at_once(n_tasks)
    return settings, bound


def _piece_elsewhere(
    features: Pinned,
    kind_name: str,
    settings: Mapping[str, Any],
    seed: int,
    labels: Sort,
    cache_bytes: int | None,
    keep_steps: bool,
    fold: int,
    member: int | None,
    scratch: Path,
) -> tuple[int, int | None, dict[str, bytes]]:
    """Train one fold, or one member of it, in a worker; it publishes nothing."""
    kind = kind_module(kind_name)
    config = from_mapping(kind.Config, settings, f"settings of fold {fold}")
    job = CrossValidation(features.open(), kind_name, kind, config, (fold,), seed, labels, keep_steps=keep_steps)
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
    space, labels = labelling(job, index)
    held = (index["fold"] == fold).to_numpy()
    fitted, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    orientations, orientation = postures(index)
    return FoldTask(
        fold=fold,
        classes=space.classes,
        targets=space.class_targets,
        train=batch.take(fitted),
        train_labels=labels[fitted],
        valid=batch.take(held_out),
        valid_labels=labels[held_out],
        seed=job.seed,
        rate_hz=float(job.features.content["rate_hz"]),
        scratch=scratch,
        on_progress=on_progress,
        gestures=space.gestures,
        gesture_of=space.gesture_of if space.is_joint else (),
        orientations=orientations,
        train_orientation=None if orientation is None else orientation[fitted],
        keep_steps=job.keep_steps,
    )


def _fold_result(output: Output, fold: int, content: Mapping[str, Any], *, reused: bool) -> FoldResult:
    classes, targets = content["classes"], content["targets"]
    rows = fold_oof(output, fold)
    scores = {}
    for scenario in scenarios_of(content):
        part = rows.filter(scenario=scenario)
        truth = oof.class_positions(part[GESTURE].to_list(), classes)
        proba = part.select(oof.proba_columns(len(classes))).to_numpy()
        scores[scenario] = score_proba(proba, truth, targets).score
    return FoldResult(fold, scores, fold_summary(output, fold)["summary"], reused)
