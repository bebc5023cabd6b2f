"""Run many independent pieces of work, in this process or in several, with the same result.

Pieces are plain functions of plain arguments (paths and numbers, never arrays). Processes are started by loky, never
forked, since polars' threads do not survive a fork.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import joblib

T = TypeVar("T")


def n_workers(asked: int) -> int:
    """How many processes `--workers asked` means: 0 is one for each core that we may use."""
    return asked if asked > 0 else max(joblib.cpu_count(), 1)


def run(function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, workers: int) -> Iterator[T]:
    """Call `function(*task)` for every task; results come in the order of the tasks, as they are ready.

    Parameters
    ----------
    function
        A module-level function.
    tasks
        Its arguments, one tuple a call.
    workers
        How many processes; 1 means here.
    """
    count = min(n_workers(workers), len(tasks))
    if count <= 1:
        for task in tasks:
            yield function(*task)
        return
    with _threads_a_worker(max(joblib.cpu_count() // count, 1)):
        parallel = joblib.Parallel(n_jobs=count, backend="loky", return_as="generator", pre_dispatch=count + 2)
        yield from parallel(joblib.delayed(function)(*task) for task in tasks)


@contextmanager
def _threads_a_worker(threads: int) -> Iterator[None]:
    """Let the processes started inside take that many polars threads each, so that cores are not oversubscribed."""
    before = os.environ.get("POLARS_MAX_THREADS")
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    try:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
            yield
    finally:
        if before is None:
            del os.environ["POLARS_MAX_THREADS"]
        else:
            os.environ["POLARS_MAX_THREADS"] = before
