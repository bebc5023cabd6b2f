"""Run many independent tasks: here, in processes of this machine, or on a Dask cluster.

Tasks are module-level functions of plain arguments (paths, numbers, settings; never arrays). The caller gets the same
results wherever they run, and does all publishing itself. Processes are started by loky, never forked, since polars'
threads do not survive a fork. A task whose worker dies is run again, and a death counts only against the task that the
worker was running: each process here has one at a time, and tasks that were lost together on a cluster run again alone.
"""

import os
import signal
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures import Executor as FuturesExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import joblib
from joblib.externals import loky
from joblib.externals.loky.backend import get_context

from bfrbctl.artefacts.folders import Pinned
from bfrbctl.errors import BfrbError, UsageError
from bfrbctl.execution.cluster import Cluster, ClusterPool, WorkerLost, join
from bfrbctl.execution.memory import available_memory

if sys.platform != "win32":
    import resource

P = ParamSpec("P")
T = TypeVar("T")

MAX_TRIES = 3
"""How many workers may die at a task before the run gives up: the cause will kill the next one too."""

_POLL_S = 0.25
_IDLE_S = 60
_AHEAD = 2
"""Tasks submitted beyond those that can run, so that no worker waits for the next one."""

_FILES = 10
"""Largest number of file descriptors that a worker process takes here: pipes for calls, results, marks and its end."""

_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # what joblib.cpu_count() gives in the worker
)


def n_workers(asked: int, *, memory: int = 0) -> int:
    """How many processes `--workers asked` means: 0 is one for each core that we may use.

    Parameters
    ----------
    asked
        What the user wants.
    memory
        Bytes that each may need. Where the user asks for no number, no more are started than this machine, or its
        container, has memory for.
    """
    if asked > 0:
        return asked
    cores: int = max(joblib.cpu_count(), 1)
    there = available_memory()
    if not memory or there is None:
        return cores
    return max(min(cores, there // memory), 1)


@dataclass(frozen=True)
class Executor:
    """Where the tasks of a run are run.

    Parameters
    ----------
    workers
        Processes of this machine; 0 is one a core, 1 is this process alone.
    cluster
        A Dask cluster, opened by `open_executor`; `workers` is ignored then.
    """

    workers: int = 1
    cluster: Cluster | None = None

    def at_once(self, n_tasks: int) -> int:
        """How many of so many tasks run at the same time."""
        return max(min(self.cluster.slots if self.cluster else n_workers(self.workers), n_tasks), 1)

    def here(self, n_tasks: int) -> bool:
        """Whether so many tasks all run in this process, one after the other."""
        return self.cluster is None and self.at_once(n_tasks) == 1

    def threads(self, n_tasks: int) -> int:
        """How many threads a task may use without two of them sharing a core."""
        return self.cluster.threads if self.cluster else max(joblib.cpu_count() // self.at_once(n_tasks), 1)

    def check_paths(self, output: Path, *inputs: Pinned) -> None:
        """Check that the workers read and write the same folders as this process does.

        Raises
        ------
        OutputError, UsageError
            When one of them does not; the message names it.
        """
        if self.cluster:
            self.cluster.check_paths(output.absolute(), inputs)


SEQUENTIAL = Executor()


@contextmanager
def open_executor(workers: int = 1, scheduler: str | None = None) -> Iterator[Executor]:
    """Open the executor that the options ask for, and check that it can do our work.

    Parameters
    ----------
    workers
        Processes of this machine; 0 is one a core.
    scheduler
        Address of a Dask scheduler, such as `tcp://host:8786`; None to work here.

    Raises
    ------
    UsageError
        When the cluster cannot be used; within seconds.
    """
    if scheduler is None:
        yield Executor(workers)
        return
    if workers:
        raise UsageError("--workers and --scheduler exclude each other", hint="the cluster has workers of its own")
    with join(scheduler) as cluster:
        yield Executor(cluster=cluster)


def run_tasks(
    function: Callable[..., T],
    tasks: Iterable[tuple[Any, ...] | None],
    *,
    executor: Executor = SEQUENTIAL,
    n_tasks: int | None = None,
    in_order: bool = True,
    on_wait: Callable[[], None] | None = None,
) -> Generator[T, None, None]:
    """Call `function(*task)` for every task.

    Parameters
    ----------
    function
        A module-level function.
    tasks
        Its arguments, one tuple a call; drawn as they are needed, a few ahead. None where the next task needs a result
        that is not there yet: the iterator is asked again after the caller has received one.
    executor
        Where they run.
    n_tasks
        About how many tasks there are, where `tasks` has no length.
    in_order
        Whether results come in the order of the tasks, or each as soon as it is there.
    on_wait
        Called a few times a second while tasks run elsewhere.

    Yields
    ------
    The results. An exception inside, or closing the generator, stops the workers: use `contextlib.closing`, so that
    they stop as well when something fails outside.

    Raises
    ------
    BfrbError
        When a task has killed its worker MAX_TRIES times; the message names it. When the cluster is gone.
    """
    if n_tasks is None:
        n_tasks = len(tasks) if isinstance(tasks, Sized) else n_workers(executor.workers)
    if executor.here(n_tasks):
        yield from (function(*task) for task in tasks if task is not None)
        return
    at_once = executor.at_once(n_tasks)
    pool: ProcessPool | ClusterPool
    pool = ClusterPool(executor.cluster) if executor.cluster else ProcessPool(at_once, executor.threads(n_tasks))
    dispatcher = _Dispatcher(pool, function, iter(tasks), size=at_once + _AHEAD, in_order=in_order)

    def waiting() -> None:
        if isinstance(pool, ClusterPool):
            pool.check()
        if on_wait:
            on_wait()

    finished = False
    try:
        yield from dispatcher.results(waiting)
        finished = True
    finally:
        pool.shutdown(cancel_futures=not finished)


@dataclass
class _Submitted:
    number: int
    arguments: tuple[Any, ...]
    alone: bool = False
    deaths: int = 0
    unbegun: int = 0


class _Dispatcher:
    """Submits tasks, and holds the results that wait for their turn."""

    def __init__(
        self,
        pool: FuturesExecutor,
        function: Callable[..., Any],
        coming: Iterator[tuple[Any, ...] | None],
        *,
        size: int,
        in_order: bool,
    ) -> None:
        self.pool = pool
        self.function = function
        self.coming = coming
        self.size = size
        self.in_order = in_order
        self.out: dict[Future[Any], _Submitted] = {}
        self.ready: dict[int, Any] = {}
        self.suspects: deque[_Submitted] = deque()
        self.numbers = count()

    def results(self, on_wait: Callable[[], None]) -> Iterator[Any]:
        """Submit tasks and give results until there are no more."""
        following = 0
        self._fill()
        while self.out:
            done = wait(self.out, timeout=_POLL_S, return_when=FIRST_COMPLETED).done
            on_wait()
            if not done:
                continue
            self._take(min(done, key=lambda future: self.out[future].number))
            while self.ready:
                number = following if self.in_order else next(iter(self.ready))
                if number not in self.ready:
                    break
                following += 1
                yield self.ready.pop(number)
            self._fill()

    def _fill(self) -> None:
        while not self.suspects and len(self.out) + len(self.ready) < self.size:
            task = next(self.coming, None)
            if task is None:
                return
            self._submit(_Submitted(next(self.numbers), task))
        if self.suspects and not self.out:  # alone, so that a worker that dies now dies because of this task
            suspect = self.suspects.popleft()
            suspect.alone = True
            self._submit(suspect)

    def _submit(self, task: _Submitted) -> None:
        self.out[self.pool.submit(self.function, *task.arguments)] = task

    def _take(self, future: "Future[Any]") -> None:
        """Keep the result of a task; run one again whose worker died, alone where another may have killed it."""
        task = self.out.pop(future)
        try:
            self.ready[task.number] = future.result()
        except WorkerLost as lost:
            if task.alone or lost.charge != "unknown":
                self._count(task, lost)
            if task.alone or lost.charge == "unknown":
                self.suspects.append(task)
            else:
                self._submit(task)

    def _count(self, task: _Submitted, lost: WorkerLost) -> None:
        """Count a death against a task; BfrbError when there are too many."""
        if lost.charge == "not begun":
            task.unbegun += 1
        else:
            task.deaths += lost.deaths
        name = _described(task.number, self.function, task.arguments)
        if task.deaths >= MAX_TRIES:
            raise BfrbError(
                f"{name}: {task.deaths} workers died while they ran it ({lost})",
                hint="it may be out of memory: use fewer --workers, or workers with more memory, then --resume",
            ) from lost
        if task.unbegun >= MAX_TRIES:
            raise BfrbError(
                f"{task.unbegun} workers died before they began {name} ({lost})",
                hint="there may be no memory for so many processes: use fewer --workers, then --resume",
            ) from lost


def _described(number: int, function: Callable[..., Any], task: tuple[Any, ...]) -> str:
    """Describe a task for messages: its number, its function, its short arguments."""
    arguments = signature(function).bind(*task).arguments.items()
    shown = [
        f"{name}={value.name if isinstance(value, Path) else value}"
        for name, value in arguments
        if value is None or isinstance(value, str | int | Path)
    ]
    return f"task {number + 1} ({textwrap.shorten(', '.join([function.__name__.strip('_'), *shown]), 200)})"


class ProcessPool(FuturesExecutor):
    """Processes of this machine, each of them a pool of its own: one that dies does not stop the others.

    The future of a call whose process dies raises WorkerLost.
    """

    def __init__(self, size: int, threads: int) -> None:
        _allow_files(size * _FILES)
        environment = dict.fromkeys(_THREAD_LIMITS, str(threads))
        self.all = [_Process(environment) for _ in range(size)]
        self.idle = list(reversed(self.all))
        self.waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self.lock = threading.RLock()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Start a call, or keep it until a process is free."""
        future: Future[T] = Future()
        with self.lock:
            self.waiting.append((future, partial(function, *args, **kwargs)))
            while self.waiting and self.idle:
                self._start_on(self.idle.pop())
        return future

    def _start_on(self, process: "_Process") -> None:
        future, function = self.waiting.popleft()
        try:
            called = process.call(function)
        except Exception as error:  # such as no memory for a process; lost if it were raised in a thread of loky's
            self.idle.append(process)
            future.set_exception(error)
        else:
            called.add_done_callback(partial(self._done, process, future))

    def _done(self, process: "_Process", future: "Future[Any]", called: "Future[Any]") -> None:
        """Pass on the result of a call, in a thread of loky's; the process gets the next one at once."""
        error = called.exception()
        begun = process.begun()
        with self.lock:
            if self.waiting and not isinstance(error, loky.BrokenProcessPool):
                self._start_on(process)
            else:  # the next submit restarts one that died
                self.idle.append(process)
        if error is None:
            future.set_result(called.result())
        elif isinstance(error, loky.process_executor.TerminatedWorkerError):
            future.set_exception(WorkerLost("its process ended abruptly", charge="own" if begun else "not begun"))
        else:
            future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the processes and wait for their end; with `cancel_futures` stop also those in the middle of a call."""
        with self.lock:
            while self.waiting:
                self.waiting.popleft()[0].cancel()
        with ThreadPoolExecutor(len(self.all)) as threads:  # one waits for its process to end, which takes a while
            list(threads.map(lambda process: process.close(kill=cancel_futures), self.all))


class _Process:
    """A process that runs one call after the other, started by the first of them, and again when it died."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.executor: Any = None
        self.marks: Any = None

    def call(self, function: Callable[[], Any]) -> "Future[Any]":
        if self.executor is not None:
            try:
                return self.executor.submit(_call, function)  # type: ignore[no-any-return]
            except loky.BrokenProcessPool:
                self.executor.shutdown(wait=False)
        self.marks, mark = get_context("loky").Pipe(duplex=False)
        self.executor = loky.ProcessPoolExecutor(
            1, timeout=_IDLE_S, env=self.environment, initializer=_begin, initargs=(os.getpid(), mark)
        )
        return self.executor.submit(_call, function)  # type: ignore[no-any-return]

    def begun(self) -> bool:
        """Whether the process began the last call; to be called once after each."""
        if not self.marks.poll():
            return False
        self.marks.recv_bytes()
        return True

    def close(self, *, kill: bool) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True, kill_workers=kill)


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files where it is lower than what we need; with many cores 1024 is not enough."""
    if sys.platform == "win32":  # where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += 512  # what this process has open by itself
    if soft != resource.RLIM_INFINITY and soft < wanted:
        enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


_mark: Any = None
"""In a worker: the pipe on which it reports that it begins a call."""


def _begin(client: int, mark: Any) -> None:
    """Start a worker: only the client handles Ctrl-C, and a worker does not outlive its client."""
    global _mark
    _mark = mark
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(client,), daemon=True).start()


def _call(function: Callable[[], T]) -> T:
    _mark.send_bytes(b"begun")
    return function()


def _follow(client: int) -> None:
    while os.getppid() == client:
        time.sleep(0.5)
    os._exit(1)
