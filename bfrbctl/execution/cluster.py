"""An existing Dask cluster: connect to it, check that it can do our work, submit tasks to it.

Whatever would make a cluster hang without a message, or give other bytes than this machine, is checked before the first
task is submitted: an address where nothing answers, no workers, a side that lacks this package or has other versions of
the libraries that results depend on, workers that do not read the same files.
"""

import asyncio
import logging
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, Literal, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

from bfrbctl.artefacts.files import temporary_path, write_bytes
from bfrbctl.artefacts.folders import Pinned, current_digest
from bfrbctl.artefacts.journals import comparable_version, library_versions
from bfrbctl.errors import BfrbError, OutputError, UsageError, examples, missing_library

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_S = 5.0
"""How long a scheduler may take to respond, and a cluster to have its first worker."""

PROBE_S = 30.0
"""How long all workers may take for a check: they import the package for it."""

_SLOWEST_READ = 10e6
"""Bytes a second at which the slowest worker may read a raw file for a check."""

NO_WORKERS_S = 20.0
"""How long a cluster may have no worker before the run gives up."""

_CHECK_S = 2.0

_NOT_TAKEN = "deserialization of the task graph"
"""Part of Dask's message when the scheduler ended before it had read a task."""


Charge = Literal["own", "not begun", "unknown"]
"""Whether a task caused a worker's death: it ran alone there; it had not begun; other tasks ran there too."""


class WorkerLost(Exception):
    """The worker of a task died; the task may be submitted again.

    Parameters
    ----------
    what
        How it died.
    charge
        Whether the task was running when it died.
    deaths
        How many workers died.
    """

    def __init__(self, what: str, *, charge: Charge, deaths: int = 1) -> None:
        super().__init__(what)
        self.charge = charge
        self.deaths = deaths


@dataclass(frozen=True)
class Cluster:
    """A cluster that passed all checks; made by `join`.

    Parameters
    ----------
    address
        Of its scheduler.
    slots
        Tasks that it runs at once: the threads of all workers.
    threads
        Threads that a task may use where its host has more cores than its workers have threads.
    n_workers
        How many workers it had when we connected.
    client
        Dask's own client.
    """

    address: str
    slots: int
    threads: int
    n_workers: int
    client: Any = field(repr=False)

    @property
    def about(self) -> str:
        """One line for the user: address, workers, tasks at once."""
        workers = f"{self.n_workers} worker{'s' if self.n_workers > 1 else ''}"
        line = f"{self.address}: {workers}, {self.slots} task{'s' if self.slots > 1 else ''} at once"
        return line if self.slots > 1 else f"{line}: no faster than this machine alone"

    def check_paths(self, output: Path, inputs: Sequence[Pinned]) -> None:
        """Check that all workers read what we write and have the same inputs, byte for byte.

        Parameters
        ----------
        output
            Folder that workers write into, absolute.
        inputs
            Folders of ours and raw files that they read.

        Raises
        ------
        OutputError, UsageError
            When a worker does not; the message names it and the path.
        """
        token = secrets.token_hex(16)
        probe = temporary_path(output / f"probe-{token}")
        write_bytes(probe, token.encode())
        wanted = {str(item.path): item.sha256 for item in inputs}
        n_bytes = sum(item.path.stat().st_size for item in inputs if item.kind == "file")
        try:
            responses = _call_workers(
                self.address,
                self.client.run,
                check_files,
                str(probe),
                list(wanted),
                seconds=PROBE_S + n_bytes / _SLOWEST_READ,
            )
        finally:
            probe.unlink(missing_ok=True)
        hint = "the workers must read the same files as this process, under the same paths: use a shared file system"
        for worker, (content, trouble, digests) in sorted(responses.items()):
            if content != token:
                raise OutputError(f"worker {worker}: cannot read what is written to {output} ({trouble})", hint=hint)
            different = [path for path, digest in wanted.items() if digests[path] != digest]
            if different:
                raise UsageError(f"worker {worker}: does not have the same {examples(different)}", hint=hint)


@contextmanager
def join(address: str) -> Iterator[Cluster]:
    """Connect to a cluster and check that it can do our work.

    Parameters
    ----------
    address
        Of the scheduler, such as `tcp://host:8786`.

    Raises
    ------
    UsageError
        When Dask is not installed here, nothing answers, there are no workers, or a side lacks this package or has
        other versions than we have.
    """
    distributed = _distributed()
    _check_address(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask compares versions too, of other libraries and in other words
        try:
            # Dask's own timeout does not cover a server that accepts the connection and sends nothing.
            client = _call_within(2 * CONNECT_S, distributed.Client, address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"--scheduler {address}: what listens there is no Dask scheduler ({_line(error)})", hint=_HINT
            ) from error
    try:
        yield _checked(address, client)
    finally:
        client.close(timeout=CONNECT_S)


_HINT = "start one with `dask scheduler`, and give the address that it prints"


def _distributed() -> ModuleType:
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise missing_library("--scheduler", error, otherwise="use --workers on this machine") from error
    for name in tuple(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)  # every failure also arrives as an exception
    return distributed


def _check_address(address: str) -> None:
    """Check that something listens there; Dask itself would try for half a minute."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("tcp", "tls", "ws", "wss", "ucx"):
        raise UsageError(f"--scheduler {address}: expected an address such as tcp://host:8786", hint=_HINT)
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise UsageError(f"--scheduler {address}: nothing answers ({_line(error)})", hint=_HINT) from error


def _checked(address: str, client: Any) -> Cluster:
    deadline = time.monotonic() + CONNECT_S
    while not (threads := client.nthreads()):
        if time.monotonic() > deadline:
            raise UsageError(
                f"--scheduler {address}: the cluster has no workers",
                hint=f"start some with `dask worker {address} --nthreads 1`",
            )
        time.sleep(0.1)
    ours = library_versions()
    packages = ["bfrbctl", *(name for name in ours if name != "python")]
    versions = _call_workers(address, client.get_versions, check=False, packages=packages)
    _check_versions(address, versions, ours)
    hosts = _call_workers(address, client.run, host_and_cores)
    cores: dict[str, int] = dict(hosts.values())
    busy = {name: sum(threads.get(worker, 0) for worker, (host, _) in hosts.items() if host == name) for name in cores}
    share = min(cores[name] // max(busy[name], 1) for name in cores)
    return Cluster(address, sum(threads.values()), max(share, 1), len(threads), client)


def _check_versions(address: str, versions: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    """Check that scheduler and workers have this package, and the same libraries that results depend on."""
    workers = {f"worker {name}": one for name, one in versions["workers"].items()}
    sides = {"the scheduler": versions["scheduler"], **workers}
    found = {side: one["packages"] for side, one in sides.items()}
    without = [side for side, packages in found.items() if packages.get("bfrbctl") is None]
    if without:
        raise UsageError(
            f"--scheduler {address}: bfrbctl is not installed for {examples(without)}",
            hint="install the same bfrbctl in the environment of the scheduler and of every worker",
        )
    here = {"bfrbctl": versions["client"]["packages"]["bfrbctl"], **ours}
    different = [
        f"{side} has {name} {comparable_version(name, packages[name])} (here {comparable_version(name, here[name])})"
        for side, packages in found.items()
        for name in here
        if side != "the scheduler" or name in ("bfrbctl", "python")
        if comparable_version(name, packages.get(name)) != comparable_version(name, here[name])
    ]
    if different:
        raise UsageError(
            f"--scheduler {address}: {examples(different)}",
            hint="other versions may give other results: install the same ones on all sides, from one constraints file",
        )


def host_and_cores() -> tuple[str, int]:
    """Give, on a worker, the name of its host and how many cores it may use there."""
    affinity = getattr(os, "sched_getaffinity", None)
    return socket.gethostname(), len(affinity(0)) if affinity else os.cpu_count() or 1


async def check_files(probe: str, inputs: Sequence[str]) -> tuple[str | None, str, dict[str, str | None]]:
    """Read, on a worker, a file just written and the inputs: content, error, digests.

    It runs in a thread: a scheduler takes a worker for dead that sends no heartbeat while it reads a large file.
    """
    return await asyncio.to_thread(_read_files, probe, inputs)


def _read_files(probe: str, inputs: Sequence[str]) -> tuple[str | None, str, dict[str, str | None]]:
    content: str | None
    try:
        content, trouble = Path(probe).read_text(encoding="ascii"), ""
        with Path(f"{probe}.{secrets.token_hex(8)}").open("xb") as handle:
            os.unlink(handle.name)
    except OSError as error:
        content, trouble = None, error.strerror or str(error)
    return content, trouble, {path: current_digest(Path(path)) for path in inputs}


class ClusterPool(Executor):
    """Runs calls on a cluster; Dask itself repeats the call of a worker that is gone.

    A future raises WorkerLost when several workers died that had the call, and BfrbError when the cluster is gone.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.distributed = _distributed()
        self.open: dict[str, Any] = {}
        self.closed = False
        self.checked = self.last_worker = time.monotonic()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Submit a call; BfrbError when the cluster does not take it."""
        call = partial(function, *args, **kwargs)
        future: Future[T] = Future()
        try:
            remote = self.client.submit(call, key=f"bfrbctl-{secrets.token_hex(16)}", pure=False)
        except Exception as error:  # Dask's own, of many types: nothing of ours has run yet
            raise self._gone() from error
        self.open[remote.key] = remote
        remote.add_done_callback(partial(self._finish, future))
        return future

    def _finish(self, future: "Future[T]", remote: Any) -> None:
        """Pass on the result of a call, in a thread of Dask's."""
        try:
            result = self._result(remote)
        except BaseException as error:  # an error that is raised in that thread would be lost
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            self.open.pop(remote.key, None)

    def _result(self, remote: Any) -> Any:
        try:
            while True:
                try:
                    return remote.result(timeout=_CHECK_S)
                except self.distributed.TimeoutError:
                    if remote.status == "error":
                        raise  # the task's own
                    if self.closed:
                        raise self._gone() from None
        except self.distributed.KilledWorker as error:  # Dask counts running and waiting tasks alike
            what = f"the last was {error.last_worker.address}"
            raise WorkerLost(what, charge="unknown", deaths=error.allowed_failures + 1) from error
        except (CancelledError, self.distributed.CancelledError) as error:
            raise self._gone() from error
        except RuntimeError as error:
            if _NOT_TAKEN in str(error):
                raise self._gone() from error
            raise

    def check(self) -> None:
        """Check, every few seconds, that the cluster still has workers.

        Raises
        ------
        BfrbError
            When it has had none for NO_WORKERS_S.
        """
        now = time.monotonic()
        if now - self.checked < _CHECK_S:
            return
        self.checked = now
        if self.client.status not in ("running", "connecting"):
            raise self._gone()
        try:
            if self.client.nthreads():
                self.last_worker = now
        except OSError:
            pass
        if now - self.last_worker > NO_WORKERS_S:
            raise BfrbError(
                f"{self.cluster.address}: the cluster has had no workers for {NO_WORKERS_S:.0f} s",
                hint="start workers again, then continue with --resume",
            )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what is open, without waiting; with `cancel_futures` cancel also what has not begun."""
        self.closed = True
        if cancel_futures and self.open and self.client.status == "running":
            self.client.cancel(list(self.open.values()), force=True)
        self.open.clear()

    def _gone(self) -> BfrbError:
        return BfrbError(
            f"{self.cluster.address}: the connection to the scheduler was lost",
            hint="check that it runs, then continue with --resume",
        )


def _call_workers(address: str, call: Callable[..., T], *args: Any, seconds: float = PROBE_S, **options: Any) -> T:
    """Call a function of all workers that must return in time.

    Raises
    ------
    UsageError
        When it does not, or a worker raises an error.
    """
    try:
        return _call_within(seconds, call, *args, **options)
    except TimeoutError as error:
        what = f"--scheduler {address}: its workers do not respond ({_line(error)})"
        raise UsageError(what, hint="read their logs") from error
    except Exception as error:
        raise UsageError(
            f"--scheduler {address}: a worker cannot do our work ({_line(error)})",
            hint="check that bfrbctl can be imported in the environment of every worker",
        ) from error


def _call_within(seconds: float, call: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call a function that may hang; TimeoutError when it does."""
    outcome: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(*args, **options), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()  # a daemon thread: one that hangs must not keep us from ending
    try:
        result, error = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no response in {seconds:.0f} s") from None
    if error is not None:
        raise error
    return cast(T, result)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
