"""Estimate what a training will take on this machine - time, memory, disk - from a few of its real steps.

One fold is read, prepared and trained for a few steps, by as many processes at once as the training would have; what
they took is multiplied out. The estimate assumes that later steps take as long as the first ones, other folds as long
as this one, and that nothing else keeps the machine busy.
"""

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bfrbctl.artefacts.folders import Pinned
from bfrbctl.config import as_mapping, from_mapping
from bfrbctl.errors import UsageError
from bfrbctl.evaluation.labels import Sort
from bfrbctl.execution.cache import Cache
from bfrbctl.execution.executor import Executor, run_tasks
from bfrbctl.features.folder import read_features
from bfrbctl.models.interface import Rehearsing, kind_module, n_members
from bfrbctl.training.cross_validation import CrossValidation, chosen_folds, fold_task, settings_elsewhere
from bfrbctl.training.fold_results import fold_files, keeps_steps


@dataclass(frozen=True)
class Measured:
    """What one process took for a few steps of a fold; seconds and bytes.

    Parameters
    ----------
    read_s, start_s, prepare_s
        Reading the features; once a process, such as for tracing a network; once a fold before its first step.
    step_s
        A step of one model.
    finish_s
        Predicting the held-out sequences in both scenarios and encoding the model.
    fold_bytes
        Files of a finished fold.
    kept_bytes
        What each model keeps meanwhile: in the fold's scratch folder, and of all steps until one is chosen.
    mapped_bytes
        Features in mapped files beside the model, beyond `--cache-mb`.
    memory_bytes
        Most memory of the process.
    """

    read_s: float
    start_s: float
    prepare_s: float
    step_s: float
    finish_s: float
    fold_bytes: int
    kept_bytes: int
    mapped_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a training will take.

    Parameters
    ----------
    n_folds, n_members
        Folds, and models in each.
    at_once, threads
        Tasks that run at the same time, and the threads of each.
    n_steps
        Steps of a model.
    seconds
        Of the whole training.
    seconds_a_step
        Of one model.
    memory_bytes
        Of all processes together.
    folder_bytes, disk_bytes
        Of the finished folder, and most while it trains.
    measured
        What it was reckoned from.
    """

    n_folds: int
    n_members: int
    at_once: int
    threads: int
    n_steps: int
    seconds: float
    seconds_a_step: float
    memory_bytes: int
    folder_bytes: int
    disk_bytes: int
    measured: Measured


def estimate(job: CrossValidation, executor: Executor) -> Estimate:
    """Try a training out and reckon what the whole of it takes.

    Parameters
    ----------
    job
        The training.
    crew
        Who would do it: this process, or others of this machine.

    Raises
    ------
    UsageError
        When a cluster would, or the kind of model cannot be tried out, or a fold is asked for that there is not.
    DataError
        When there is nothing to learn from.
    """
    if executor.cluster:
        raise UsageError("--plan tries out this machine, not a cluster", hint="leave --scheduler out")
    if not isinstance(job.kind, Rehearsing):
        raise UsageError(f"a training of {job.kind_name} cannot be tried out")
    index, _ = read_features(job.features, parts=())
    folds, members = chosen_folds(job, index), n_members(job.kind, job.config)
    n_tasks = len(folds) * members
    at_once, here = executor.at_once(n_tasks), executor.here(n_tasks)
    settings, bound = (
        settings_elsewhere(job, executor, n_tasks) if not here else (as_mapping(job.config), job.cache_bytes)
    )
    told = (job.features.pinned(), job.kind_name, settings, job.seed, job.labels, bound)
    tasks = [(*told, folds[number % len(folds)]) for number in range(at_once)]
    began = time.perf_counter()
    with closing(run_tasks(_measure, tasks, executor=executor, n_tasks=n_tasks)) as results:
        found = list(results)
    took = time.perf_counter() - began
    measured = _average([each for each, _ in found])
    begin_s = max(took - max(inside for _, inside in found), 0.0)
    n_steps = int(job.config.n_steps)
    size = len(folds) * measured.fold_bytes
    keeping = len(folds) if keeps_steps(job, folds) else min(len(folds), -(-at_once // members))
    return Estimate(
        n_folds=len(folds),
        n_members=members,
        at_once=at_once,
        threads=executor.threads(n_tasks),
        n_steps=n_steps,
        seconds=begin_s
        + _seconds(measured, n_steps, n_folds=len(folds), members=members, at_once=0 if here else at_once),
        seconds_a_step=measured.step_s,
        memory_bytes=at_once * measured.memory_bytes + (0 if here else _peak_memory()),
        folder_bytes=size,
        disk_bytes=size + keeping * members * measured.kept_bytes + at_once * measured.mapped_bytes,
        measured=measured,
    )


def _seconds(found: Measured, n_steps: int, *, n_folds: int, members: int, at_once: int) -> float:
    """Reckon a training of so many steps a model: one after the other (at_once 0), or several tasks at once."""
    model_s = n_steps * found.step_s
    once = found.read_s + found.prepare_s
    if not at_once:
        folds_s = n_folds * (found.prepare_s + members * model_s + found.finish_s)
        return found.read_s + found.start_s + folds_s
    if members == 1:
        return found.start_s + -(-n_folds // at_once) * (once + model_s + found.finish_s)
    models_s = -(-n_folds * members // at_once) * (once + model_s)
    return found.start_s + models_s + -(-n_folds // at_once) * (once + found.finish_s)


def _average(found: list[Measured]) -> Measured:
    """Take the mean of several processes, which trained at the same time; of sizes the largest."""
    together: dict[str, Any] = {}
    for name in Measured.__dataclass_fields__:
        values = [getattr(each, name) for each in found]
        together[name] = float(np.mean(values)) if name.endswith("_s") else max(values)
    return Measured(**together)


def _measure(
    features: Pinned,
    kind_name: str,
    settings: Mapping[str, Any],
    seed: int,
    labels: Sort,
    cache_bytes: int | None,
    fold: int,
) -> tuple[Measured, float]:
    """Train a few steps of a fold, in a folder that is removed again; gives also the seconds that all of it took."""
    began = time.perf_counter()
    kind = kind_module(kind_name)
    if not isinstance(kind, Rehearsing):
        raise TypeError(f"{kind_name} cannot be tried out")
    config = from_mapping(kind.Config, settings, f"settings of fold {fold}")
    job = CrossValidation(features.open(), kind_name, kind, config, (fold,), seed, labels)
    with tempfile.TemporaryDirectory(prefix="bfrbctl-plan-") as scratch:
        cache = Cache(cache_bytes, Path(scratch))
        started = time.perf_counter()
        index, batch = read_features(job.features, parts=kind.NEEDS, cache=cache)
        read_s = time.perf_counter() - started
        task = fold_task(job, fold, index=index, batch=batch, scratch=Path(scratch), on_progress=lambda _: None)
        taking_s = time.perf_counter() - started - read_s
        found = kind.rehearse(task, config)
        started = time.perf_counter()
        files = fold_files(job, task, index, found.model)
        finish_s = time.perf_counter() - started
        of_model = sum(len(content) for name, content in files.items() if name.startswith(f"fold-{fold}."))
        others = sum(map(len, files.values())) - of_model
        measured = Measured(
            read_s=read_s,
            start_s=found.start_s,
            prepare_s=taking_s + found.prepare_s,
            step_s=found.step_s,
            finish_s=finish_s * found.growth,
            fold_bytes=int(of_model * found.growth) + others,
            kept_bytes=found.kept_bytes,
            mapped_bytes=cache.most_mapped,
            memory_bytes=_peak_memory(),
        )
        return measured, time.perf_counter() - began


def _peak_memory() -> int:
    """Most memory that this process has had so far, in bytes."""
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told if sys.platform == "darwin" else told * 1024


def free_disk(path: Path) -> int:
    """Give the free bytes of the disk that a path lies on, which need not exist yet."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
