"""Train a model by subject-grouped cross-validation.

Each fold is published as soon as it is done - its model, its predictions, its history - so that a killed run continues
with the others; `fold_results` says what that is, and `finish` puts the folds together. The folds are those stored in
the dataset, so that every model of a blend is scored on the same ones. Folds do not depend on each other: they are
trained here one after the other, or several at once by an executor. There each member of a fold (its models that differ
in nothing but the seed) is a task of its own, which leaves its result in the fold's scratch folder; as soon as all of
them are there, another task joins them to the fold.
"""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.outputs import Output
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation.metrics import one_sided_note
from bfrbctl.execution.cache import Cache
from bfrbctl.execution.executor import SEQUENTIAL, Executor, n_workers, run_tasks
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import FoldTask, HistoryRow
from bfrbctl.recordings.dataset import FeatureBatch
from bfrbctl.schema import SEQUENCE_ID, SUBJECT, scenarios_of
from bfrbctl.training.finish import finish, kept_content, planned_parts
from bfrbctl.training.fold_results import FoldRecord, TrainedFold, read_record, trained_fold
from bfrbctl.training.job import CrossValidation, PortableJob
from bfrbctl.training.labelled import LabelledSequences, labelled_sequences
from bfrbctl.training.step_choice import keeps_steps
from bfrbctl.training.tasks import Rows, TaskQueue, progress_path, written_rows

__all__ = ["CrossValidation", "FoldResult", "chosen_folds", "cross_validate", "fold_task", "folds_at_once"]

_log = logging.getLogger("bfrbctl.training")

OnProgress = Callable[[HistoryRow], None]

_CORES_A_FOLD = {"lgbm": 4}
"""How many cores a task is worth before a second one is trained beside it; a kind that is not here takes all.

The 4 is an estimate: no machine of many cores was there to measure it on. For few threads a task: LightGBM's
documentation of `num_threads` warns of many for small data ("do not use 64 threads for a dataset with 10,000 rows"),
and a fold of the study has some 8,000 rows; threads wait for each other at every split, of which a round of 18 small
trees has a hundred and more and takes 20 ms in all (2,000 rows of 300 columns, docs/lightgbm.md), while tasks never
wait for each other. Against a process a core: each reads and bins the table for itself, in memory of its own.
`--workers` overrides it.
"""


@dataclass(frozen=True)
class FoldResult:
    """What became of one fold.

    Parameters
    ----------
    fold
        Its number.
    scores
        Scenario -> headline score on the held-out sequences, after the last step; of one scenario where the device has
        no other.
    summary
        What the model says of itself.
    reused
        Whether an earlier run had finished it already.
    """

    fold: int
    scores: Mapping[str, float]
    summary: Mapping[str, Any]
    reused: bool


def folds_at_once(kind_name: str) -> int:
    """How many folds of a kind, or members of folds, fill this machine's cores, with the threads that each takes.

    Where there are fewer tasks than that, each takes more threads: see `Executor.threads`.
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
    executor
        What runs the tasks; the result does not depend on it.
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
    data = _labelled(job)
    chosen = chosen_folds(job, data.index)
    job = replace(job, keep_steps=keeps_steps(job, chosen))
    scenarios = scenarios_of(job.features.content)
    output.describe({**kept_content(job), "model": job.kind.name}, planned_parts(job, chosen))
    todo = [fold for fold in chosen if not output.has(f"fold-{fold}")]
    records: dict[int, FoldRecord] = {}

    def result(record: FoldRecord, *, reused: bool) -> FoldResult:
        records[record.fold] = record
        return FoldResult(record.fold, record.scores(data, scenarios), record.summary, reused)

    def on_row(row: HistoryRow) -> None:
        output.begin()  # it learns: from now on the run is worth more than what it is to replace
        if on_progress:
            on_progress(row)

    for fold in chosen:
        if fold not in todo:
            yield result(read_record(output, fold), reused=True)
    train = _train_here if executor.here(len(todo) * job.n_members) else _train_elsewhere
    with closing(train(job, output, todo, data=data, executor=executor, on_progress=on_row)) as trained:
        for record in trained:
            yield result(record, reused=False)
    finish(job, output, data, {fold: records[fold] for fold in chosen})


def _labelled(job: CrossValidation) -> LabelledSequences:
    """Read which sequences there are to learn from; DataError where there is none, or one without a subject."""
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
    return labelled_sequences(job.features, index, job.labels)


def _train_here(
    job: CrossValidation,
    output: Output,
    folds: Sequence[int],
    *,
    data: LabelledSequences,
    executor: Executor,
    on_progress: OnProgress,
) -> Generator[FoldRecord, None, None]:
    """Train folds in this process, one after the other; gives the record of each when it is published."""
    if not folds:
        return
    cache = Cache(job.cache_bytes, output.path)
    _, batch = read_features(job.features, parts=job.kind.needs, cache=cache)
    for fold in folds:
        folder = output.scratch(f"fold-{fold}", checkpoints=True)
        with folder as scratch, written_rows(progress_path(scratch, None), start_over=False) as write:
            note = _both(write, on_progress)
            task = fold_task(job, fold, data=data, batch=batch, scratch=scratch, on_progress=note)
            trained = _train_fold(job, task, data)
            output.publish(f"fold-{fold}", trained.files())
        record = trained.record
        del trained, task  # the model's bytes need not wait in memory while the next fold trains
        yield record


def _both(first: OnProgress, second: OnProgress) -> OnProgress:
    def call(row: HistoryRow) -> None:
        first(row)
        second(row)

    return call


def _train_elsewhere(
    job: CrossValidation,
    output: Output,
    folds: Sequence[int],
    *,
    data: LabelledSequences,
    executor: Executor,
    on_progress: OnProgress,
) -> Generator[FoldRecord, None, None]:
    """Train folds in other processes; gives the record of each when it is published."""
    portable = PortableJob.of(job)
    executor.check_paths(output.path, portable.features)
    n_tasks = len(folds) * job.n_members
    portable = portable.shared_out(executor, n_tasks)
    held = {fold: ExitStack() for fold in folds}
    scratch = {
        fold: held[fold].enter_context(output.scratch(f"fold-{fold}", checkpoints=True)).absolute() for fold in folds
    }
    queue = TaskQueue(folds, job.n_members)
    rows = {key: Rows(progress_path(scratch[key[0]], key[1])) for key in queue.all}

    def report() -> None:
        for row in (row for known in rows.values() for row in known.new()):
            on_progress(row)

    tasks = (key and (portable, *key, scratch[key[0]]) for key in queue)
    made = run_tasks(_train_in_worker, tasks, executor=executor, n_tasks=n_tasks, in_order=False, on_wait=report)
    with closing(made):
        for fold, member, trained in made:
            del rows[fold, member]
            if trained is None:
                queue.done(fold)
                continue
            output.publish(f"fold-{fold}", trained.files())
            held[fold].close()
            yield trained.record


def _train_in_worker(
    portable: PortableJob, fold: int, member: int | None, scratch: Path
) -> tuple[int, int | None, TrainedFold | None]:
    """Train one fold, or one member of it, in a worker; it publishes nothing, and gives nothing of a member."""
    job = portable.open()
    index, batch = read_features(job.features, parts=job.kind.needs, cache=Cache(job.cache_bytes, scratch))
    data = labelled_sequences(job.features, index, job.labels)
    with written_rows(progress_path(scratch, member), start_over=True) as note:
        task = fold_task(job, fold, data=data, batch=batch, scratch=scratch, on_progress=note)
        if member is None:
            return fold, None, _train_fold(job, task, data)
        if job.kind.fit_member is None:
            raise TypeError(f"{job.kind.name} knows no members")
        job.kind.fit_member(task, job.config, member)
        return fold, member, None


def chosen_folds(job: CrossValidation, index: pl.DataFrame) -> list[int]:
    """Give the folds to train; UsageError for one that the dataset lacks, DataError when it has one only."""
    there = index["fold"].unique().sort().to_list()
    unknown = [fold for fold in job.folds if fold not in there]
    if unknown:
        raise UsageError(f"no fold {examples(unknown)}", hint=f"the dataset has folds {', '.join(map(str, there))}")
    if len(there) < 2:
        raise DataError(f"{job.features.path}: has one fold, expected two at least", hint="prepare it with --folds 5")
    return sorted(set(job.folds)) or there


def _train_fold(job: CrossValidation, task: FoldTask, data: LabelledSequences) -> TrainedFold:
    """Train one fold; gives all that is to be published of it."""
    return trained_fold(data, task, job.kind.fit(task, job.config))


def fold_task(
    job: CrossValidation,
    fold: int,
    *,
    data: LabelledSequences,
    batch: FeatureBatch,
    scratch: Path,
    on_progress: OnProgress,
) -> FoldTask:
    """Part the sequences into those to learn from and those held out."""
    held = data.held_out(fold)
    fitted, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    return FoldTask(
        fold=fold,
        classes=data.space.classes,
        targets=data.space.class_targets,
        train=batch.take(fitted),
        train_labels=data.labels[fitted],
        valid=batch.take(held_out),
        valid_labels=data.labels[held_out],
        seed=job.seed,
        rate_hz=float(job.features.content["rate_hz"]),
        scratch=scratch,
        on_progress=on_progress,
        gestures=data.space.gestures,
        gesture_of=data.space.gesture_of if data.space.is_joint else (),
        orientations=data.orientations,
        train_orientation=None if data.orientation is None else data.orientation[fitted],
        keep_steps=job.keep_steps,
    )
