"""Share many independent pieces of work out: here, among processes of this machine, or to a Dask cluster.

Pieces are module-level functions of plain arguments (paths, numbers, settings; never arrays). Whoever runs them, the
caller gets the same results and does all publishing itself. Processes are started by loky, never forked, since polars'
threads do not survive a fork. A piece whose worker dies is done again, and a death counts against nothing but the piece
that the worker was doing: each process here has one at a time, and what died together on a cluster is done again alone.
"""

import os
import signal
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import joblib
from joblib.externals import loky
from joblib.externals.loky.backend import get_context

from bfrbctl.artefacts.folders import Pinned
from bfrbctl.errors import BfrbError, UsageError
from bfrbctl.execution.cluster import Cluster, WorkerLost, join
from bfrbctl.execution.memory import available_memory

if sys.platform != "win32":
    import resource

T = TypeVar("T")

MAX_TRIES = 3
"""How many workers may die at a piece before the run gives up: whatever killed them will kill the next one too."""

_LOOK_S = 0.25
_IDLE_S = 60
_AHEAD = 2
"""Pieces handed out beyond those that can run, so that no worker waits for the next one."""

_FILES = 10
"""File descriptors that a process of ours takes here, at most: pipes for calls, results and marks, and its end."""

_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "LOKY_MAX_CPU_COUNT",  # what joblib.cpu_count() tells inside
)


def n_workers(asked: int, *, memory: int = 0) -> int:
    """How many processes `--workers asked` means: 0 is one for each core that we may use.

    Parameters
    ----------
    asked
        What the user wants.
    memory
        Bytes that each may need: of our own accord no more are started than this machine, or its container, has
        memory for.
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
    """Who does the pieces of a run.

    Parameters
    ----------
    workers
        Processes of this machine; 0 is one a core, 1 is this process alone.
    cluster
        A Dask cluster, joined by `open_executor`; then `workers` means nothing.
    """

    workers: int = 1
    cluster: Cluster | None = None

    def at_once(self, n_pieces: int) -> int:
        """How many pieces run at the same time."""
        return max(min(self.cluster.slots if self.cluster else n_workers(self.workers), n_pieces), 1)

    def here(self, n_pieces: int) -> bool:
        """Whether all of them run in this process, one after the other."""
        return self.cluster is None and self.at_once(n_pieces) == 1

    def threads(self, n_pieces: int) -> int:
        """How many threads a piece may take without two of them sharing a core."""
        return self.cluster.threads if self.cluster else max(joblib.cpu_count() // self.at_once(n_pieces), 1)

    def check_paths(self, output: Path, *inputs: Pinned) -> None:
        """See that the workers read and write the same folders as this process does.

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
    """Find those who will do the work, and see that they are able to.

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
        Its arguments, one tuple a call; drawn as they are needed, a few ahead. None where the next one waits for a
        result that is still to come: it is asked for again after the caller has got that.
    crew
        Who works.
    n_tasks
        How many tasks there are, about, where `tasks` itself does not tell.
    in_order
        Whether results come in the order of the tasks, or each as soon as it is there.
    on_wait
        Called a few times a second while pieces run elsewhere.

    Yields
    ------
    The results. An exception inside, or closing the generator, stops the workers: use `contextlib.closing`, lest they
    work on when something fails outside.

    Raises
    ------
    BfrbError
        When a piece has killed its worker MAX_TRIES times; the message names it. When the cluster is gone.
    """
    if n_tasks is None:
        n_tasks = len(tasks) if isinstance(tasks, Sized) else n_workers(executor.workers)
    if executor.here(n_tasks):
        yield from (function(*task) for task in tasks if task is not None)
        return
    at_once = executor.at_once(n_tasks)
    pool: WorkerPool = executor.cluster.pool() if executor.cluster else _Processes(at_once, executor.threads(n_tasks))
    board = _Dispatcher(pool, function, iter(tasks), size=at_once + _AHEAD, in_order=in_order)
    finished = False
    try:
        yield from board.results(on_wait or (lambda: None))
        finished = True
    finally:
        pool.close(kill=not finished)


class WorkerPool(Protocol):
    """Workers to whom a call can be handed."""

    def submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
        """Hand a call out; gives a future."""

    def result(self, future: Any) -> Any:
        """Give what a finished future holds; WorkerLost when its worker died."""

    def check(self) -> None:
        """See, while waiting, that there is still somebody at work."""

    def close(self, *, kill: bool) -> None:
        """Let the workers go, in the middle of their work if need be."""


@dataclass
class _Piece:
    number: int
    task: tuple[Any, ...]
    alone: bool = False
    deaths: int = 0
    unbegun: int = 0
    future: Any = None


class _Dispatcher:
    """The pieces that are handed out, and the results that wait for their turn."""

    def __init__(
        self,
        pool: WorkerPool,
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
        self.out: dict[int, _Piece] = {}
        self.ready: dict[int, Any] = {}
        self.suspects: deque[_Piece] = deque()
        self.done: SimpleQueue[int] = SimpleQueue()
        self.numbers = count()
        self.tickets = count()

    def results(self, on_wait: Callable[[], None]) -> Iterator[Any]:
        """Hand pieces out and give results until there are no more."""
        following = 0
        self._fill()
        while self.out:
            try:
                ticket = self.done.get(timeout=_LOOK_S)
            except Empty:
                self.pool.check()
                on_wait()
                continue
            self._take(self.out.pop(ticket))
            on_wait()
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
            self._hand_out(_Piece(next(self.numbers), task))
        if self.suspects and not self.out:  # alone, so that whatever dies now dies at this one
            piece = self.suspects.popleft()
            piece.alone = True
            self._hand_out(piece)

    def _hand_out(self, piece: _Piece) -> None:
        ticket = next(self.tickets)
        piece.future = self.pool.submit(self.function, piece.task)
        self.out[ticket] = piece
        piece.future.add_done_callback(partial(_note, self.done, ticket))

    def _take(self, piece: _Piece) -> None:
        """Keep the result of a piece; one whose worker died is done again, alone where others may have killed it."""
        try:
            self.ready[piece.number] = self.pool.result(piece.future)
        except WorkerLost as lost:
            if piece.alone or lost.charge != "unknown":
                self._count(piece, lost)
            if piece.alone or lost.charge == "unknown":
                self.suspects.append(piece)
            else:
                self._hand_out(piece)

    def _count(self, piece: _Piece, lost: WorkerLost) -> None:
        """Count a death against a piece; BfrbError when it is one too many."""
        if lost.charge == "not begun":
            piece.unbegun += 1
        else:
            piece.deaths += lost.deaths
        which = _described(piece.number, self.function, piece.task)
        if piece.deaths >= MAX_TRIES:
            raise BfrbError(
                f"{which}: {piece.deaths} workers died while they ran it ({lost})",
                hint="it may be out of memory: use fewer --workers, or workers with more memory, then --resume",
            ) from lost
        if piece.unbegun >= MAX_TRIES:
            raise BfrbError(
                f"{piece.unbegun} workers died before they began {which} ({lost})",
                hint="there may be no memory for so many processes: use fewer --workers, then --resume",
            ) from lost


def _described(number: int, function: Callable[..., Any], task: tuple[Any, ...]) -> str:
    """Describe a piece for people: which it is, and its short arguments."""
    arguments = signature(function).bind(*task).arguments.items()
    shown = [
        f"{name}={value.name if isinstance(value, Path) else value}"
        for name, value in arguments
        if value is None or isinstance(value, str | int | Path)
    ]
    return f"task {number + 1} ({textwrap.shorten(', '.join([function.__name__.strip('_'), *shown]), 200)})"


def _note(done: "SimpleQueue[int]", ticket: int, _future: object) -> None:
    done.put(ticket)


class _Processes:
    """Processes of this machine, each of them a pool of its own: one that dies takes none of the others with it."""

    def __init__(self, size: int, threads: int) -> None:
        _allow_files(size * _FILES)
        environment = dict.fromkeys(_THREAD_LIMITS, str(threads))
        self.all = [_Process(environment) for _ in range(size)]
        self.idle = list(reversed(self.all))
        self.waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self.lock = threading.RLock()

    def submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self.lock:
            self.waiting.append((future, function, task))
            while self.waiting and self.idle:
                self._hand_to(self.idle.pop())
        return future

    def _hand_to(self, process: "_Process") -> None:
        future, function, task = self.waiting.popleft()
        try:
            called = process.call(function, task)
        except Exception as error:  # such as no memory for another process; in a thread of loky's nobody would know
            self.idle.append(process)
            future.set_exception(error)
        else:
            called.add_done_callback(partial(self._done, process, future))

    def _done(self, process: "_Process", future: "Future[Any]", called: "Future[Any]") -> None:
        """Pass on what came of a call, in a thread of loky's; the process gets the next one at once."""
        error = called.exception()
        begun = process.begun()
        with self.lock:
            if self.waiting and not isinstance(error, loky.BrokenProcessPool):
                self._hand_to(process)
            else:  # the next submit starts one that died anew
                self.idle.append(process)
        if error is None:
            future.set_result(called.result())
        elif isinstance(error, loky.process_executor.TerminatedWorkerError):
            future.set_exception(WorkerLost("its process ended abruptly", charge="own" if begun else "not begun"))
        else:
            future.set_exception(error)

    def result(self, future: "Future[Any]") -> Any:
        return future.result()

    def check(self) -> None:
        """Nothing can be wrong: a process that dies is told by its future."""

    def close(self, *, kill: bool) -> None:
        with self.lock:
            self.waiting.clear()
        with ThreadPoolExecutor(len(self.all)) as threads:  # one waits for its process to end, which takes a while
            list(threads.map(lambda process: process.close(kill=kill), self.all))


class _Process:
    """A process that does one call after the other, started by the first of them, and again when it died."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.executor: Any = None
        self.marks: Any = None

    def call(self, function: Callable[..., Any], task: tuple[Any, ...]) -> "Future[Any]":
        if self.executor is not None:
            try:
                return self.executor.submit(_call, function, task)  # type: ignore[no-any-return]
            except loky.BrokenProcessPool:
                self.executor.shutdown(wait=False)
        self.marks, mark = get_context("loky").Pipe(duplex=False)
        self.executor = loky.ProcessPoolExecutor(
            1, timeout=_IDLE_S, env=self.environment, initializer=_begin, initargs=(os.getpid(), mark)
        )
        return self.executor.submit(_call, function, task)  # type: ignore[no-any-return]

    def begun(self) -> bool:
        """Tell whether the process began the last call; to be asked once after each."""
        if not self.marks.poll():
            return False
        self.marks.recv_bytes()
        return True

    def close(self, *, kill: bool) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True, kill_workers=kill)


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files where it is lower than what we need, which many cores take and 1024 is not."""
    if sys.platform == "win32":  # where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += 512  # what this process has open by itself
    if soft != resource.RLIM_INFINITY and soft < wanted:
        enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


_mark: Any = None
"""In a worker: where it notes that it begins a call."""


def _begin(client: int, mark: Any) -> None:
    """Start a worker: Ctrl-C is the client's to answer, and a worker does not outlive its client."""
    global _mark
    _mark = mark
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(client,), daemon=True).start()


def _call(function: Callable[..., T], task: tuple[Any, ...]) -> T:
    _mark.send_bytes(b"begun")
    return function(*task)


def _follow(client: int) -> None:
    while os.getppid() == client:
        time.sleep(0.5)
    os._exit(1)
