"""A Dask cluster that is there already: join it, see that it can do our work, hand pieces to it.

Everything that would make a cluster hang in silence, or give other bytes than this machine would, is looked at before
the first piece is handed out: an address where nobody answers, no workers, a side that lacks this package or has other
versions of the libraries that results depend on, workers that do not see the same files.
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
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit

from bfrbctl.artefacts.files import temporary_path, write_bytes
from bfrbctl.artefacts.folders import Pinned, current_digest
from bfrbctl.artefacts.journals import comparable_version, library_versions
from bfrbctl.errors import BfrbError, OutputError, UsageError, examples, missing_library

T = TypeVar("T")

ANSWER_S = 5.0
"""How long a scheduler may take to answer, and a cluster to have its first worker."""

PROBE_S = 30.0
"""How long all workers may take for the first look: they import the package for it."""

_SLOWEST_READ = 10e6
"""Bytes a second at which the slowest worker may read a raw file for that look."""

DESERTED_S = 20.0
"""How long a cluster may be without any worker before the run gives up."""

_CHECK_S = 2.0

_NOT_TAKEN = "deserialization of the task graph"
"""What Dask says when the scheduler ended before it had read a piece."""


Charge = Literal["own", "not begun", "unknown"]
"""What a death has to do with a piece: the worker was doing it and nothing else; had not begun it; had others too."""


class WorkerLost(Exception):
    """The worker of a piece died; the piece may be handed out anew.

    Parameters
    ----------
    what
        How it died.
    charge
        Whether it died at this piece.
    deaths
        How many workers died.
    """

    def __init__(self, what: str, *, charge: Charge, deaths: int = 1) -> None:
        super().__init__(what)
        self.charge = charge
        self.deaths = deaths


@dataclass(frozen=True)
class Cluster:
    """A cluster that was found able to work for us; made by `join`.

    Parameters
    ----------
    address
        Of its scheduler.
    slots
        Pieces that it runs at once: the threads of all workers.
    threads
        Threads that a piece may take for itself where its host has more cores than the workers on it have threads.
    n_workers
        How many workers it had when it was joined.
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
        """What it is, for people."""
        workers = f"{self.n_workers} worker{'s' if self.n_workers > 1 else ''}"
        told = f"{self.address}: {workers}, {self.slots} piece{'s' if self.slots > 1 else ''} at once"
        return told if self.slots > 1 else f"{told}: no faster than this machine alone"

    def pool(self) -> "ClusterPool":
        """Give what pieces can be handed to."""
        return ClusterPool(self)

    def check_paths(self, output: Path, inputs: Sequence[Pinned]) -> None:
        """See that all workers read what we write and have the same inputs, byte for byte.

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
            answers = _asked(
                self.address,
                self.client.run,
                look,
                str(probe),
                list(wanted),
                seconds=PROBE_S + n_bytes / _SLOWEST_READ,
            )
        finally:
            probe.unlink(missing_ok=True)
        hint = "the workers must see the same files as this process, under the same paths: use a shared file system"
        for worker, (seen, trouble, found) in sorted(answers.items()):
            if seen != token:
                raise OutputError(f"worker {worker}: does not see what is written to {output} ({trouble})", hint=hint)
            other = [path for path, digest in wanted.items() if found[path] != digest]
            if other:
                raise UsageError(f"worker {worker}: has not the same {examples(other)}", hint=hint)


@contextmanager
def join(address: str) -> Iterator[Cluster]:
    """Join a cluster and see that it can do our work.

    Parameters
    ----------
    address
        Of the scheduler, such as `tcp://host:8786`.

    Raises
    ------
    UsageError
        When Dask is not installed here, nobody answers, there are no workers, or a side lacks this package or has
        other versions than we have.
    """
    distributed = _distributed()
    _knock(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask compares versions too, of other libraries and in other words
        try:
            # Dask's own timeout does not cover something that listens and says nothing.
            client = _within(2 * ANSWER_S, distributed.Client, address, timeout=ANSWER_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(
                f"--scheduler {address}: what listens there is no Dask scheduler ({_line(error)})", hint=_HINT
            ) from error
    try:
        yield _examined(address, client)
    finally:
        client.close(timeout=ANSWER_S)


_HINT = "start one with `dask scheduler`, and give the address that it prints"


def _distributed() -> ModuleType:
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise missing_library("--scheduler", error, otherwise="use --workers on this machine") from error
    for name in tuple(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters arrives as an exception too
    return distributed


def _knock(address: str) -> None:
    """See that something listens there, which Dask would try for half a minute."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme not in ("tcp", "tls", "ws", "wss", "ucx"):
        raise UsageError(f"--scheduler {address}: expected an address such as tcp://host:8786", hint=_HINT)
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        raise UsageError(f"--scheduler {address}: nobody answers ({_line(error)})", hint=_HINT) from error


def _examined(address: str, client: Any) -> Cluster:
    deadline = time.monotonic() + ANSWER_S
    while not (threads := client.nthreads()):
        if time.monotonic() > deadline:
            raise UsageError(
                f"--scheduler {address}: the cluster has no workers",
                hint=f"start some with `dask worker {address} --nthreads 1`",
            )
        time.sleep(0.1)
    ours = library_versions()
    packages = ["bfrbctl", *(name for name in ours if name != "python")]
    told = _asked(address, client.get_versions, check=False, packages=packages)
    _compare(address, told, ours)
    hosts = _asked(address, client.run, whereabouts)
    cores: dict[str, int] = dict(hosts.values())
    busy = {name: sum(threads.get(worker, 0) for worker, (host, _) in hosts.items() if host == name) for name in cores}
    share = min(cores[name] // max(busy[name], 1) for name in cores)
    return Cluster(address, sum(threads.values()), max(share, 1), len(threads), client)


def _compare(address: str, told: Mapping[str, Any], ours: Mapping[str, str]) -> None:
    """See that scheduler and workers have this package, and all of them the libraries that results depend on."""
    sides = {"the scheduler": told["scheduler"], **{f"worker {name}": one for name, one in told["workers"].items()}}
    found = {side: one["packages"] for side, one in sides.items()}
    without = [side for side, packages in found.items() if packages.get("bfrbctl") is None]
    if without:
        raise UsageError(
            f"--scheduler {address}: bfrbctl is not installed for {examples(without)}",
            hint="install the same bfrbctl in the environment of the scheduler and of every worker",
        )
    here = {"bfrbctl": told["client"]["packages"]["bfrbctl"], **ours}
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


def whereabouts() -> tuple[str, int]:
    """Tell, on a worker, its host and how many cores it may use there."""
    affinity = getattr(os, "sched_getaffinity", None)
    return socket.gethostname(), len(affinity(0)) if affinity else os.cpu_count() or 1


async def look(probe: str, inputs: Sequence[str]) -> tuple[str | None, str, dict[str, str | None]]:
    """Look, on a worker, for a file just written and for the inputs: content, what went wrong, digests.

    In a thread, since a worker that does not answer its scheduler while it reads a large file is taken for dead.
    """
    return await asyncio.to_thread(_look, probe, inputs)


def _look(probe: str, inputs: Sequence[str]) -> tuple[str | None, str, dict[str, str | None]]:
    try:
        seen, trouble = Path(probe).read_text(encoding="ascii"), ""
        with Path(f"{probe}.{secrets.token_hex(8)}").open("xb") as handle:
            os.unlink(handle.name)
    except OSError as error:
        seen, trouble = None, error.strerror or str(error)
    return seen, trouble, {path: current_digest(Path(path)) for path in inputs}


class ClusterPool:
    """Hands pieces to a cluster; Dask itself repeats the piece of a worker that is gone."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self.distributed = _distributed()
        self.open: dict[str, Any] = {}
        self.looked = self.peopled = time.monotonic()

    def submit(self, function: Callable[..., Any], task: tuple[Any, ...]) -> Any:
        """Hand a call out; gives a future. BfrbError when the cluster does not take it."""
        try:
            future = self.client.submit(function, *task, key=f"bfrbctl-{secrets.token_hex(16)}", pure=False)
        except Exception as error:  # Dask's own, of many types: nothing of ours has run yet
            raise self._gone() from error
        self.open[future.key] = future
        return future

    def result(self, future: Any) -> Any:
        """Give what a finished future holds.

        Raises
        ------
        WorkerLost
            When several workers died that had it. Dask counts what they were doing and what they had still to do alike.
        BfrbError
            When the cluster is gone.
        """
        try:
            while True:
                try:
                    return future.result(timeout=_CHECK_S)
                except self.distributed.TimeoutError:
                    if future.status == "error":
                        raise  # the piece's own
                    self.check()
        except self.distributed.KilledWorker as error:
            what = f"the last was {error.last_worker.address}"
            raise WorkerLost(what, charge="unknown", deaths=error.allowed_failures + 1) from error
        except (CancelledError, self.distributed.CancelledError) as error:
            raise self._gone() from error
        except RuntimeError as error:
            if _NOT_TAKEN in str(error):
                raise self._gone() from error
            raise
        finally:
            self.open.pop(future.key, None)

    def check(self) -> None:
        """See, every few seconds, that the cluster still has workers.

        Raises
        ------
        BfrbError
            When it had none for long.
        """
        now = time.monotonic()
        if now - self.looked < _CHECK_S:
            return
        self.looked = now
        if self.client.status not in ("running", "connecting"):
            raise self._gone()
        try:
            if self.client.nthreads():
                self.peopled = now
        except OSError:
            pass
        if now - self.peopled > DESERTED_S:
            raise BfrbError(
                f"{self.cluster.address}: the cluster has had no workers for {DESERTED_S:.0f} s",
                hint="start workers again, then continue with --resume",
            )

    def close(self, *, kill: bool) -> None:
        """Forget what is still handed out; what runs already runs to its end, and nobody asks for it."""
        if kill and self.open and self.client.status == "running":
            self.client.cancel(list(self.open.values()), force=True)
        self.open.clear()

    def _gone(self) -> BfrbError:
        return BfrbError(
            f"{self.cluster.address}: the connection to the scheduler was lost",
            hint="see that it runs, then continue with --resume",
        )


def _asked(address: str, call: Callable[..., T], *args: Any, seconds: float = PROBE_S, **options: Any) -> T:
    """Ask all workers something that they must answer in time.

    Raises
    ------
    UsageError
        When they do not, or one answers with an error.
    """
    try:
        return _within(seconds, call, *args, **options)
    except TimeoutError as error:
        what = f"--scheduler {address}: its workers do not answer ({_line(error)})"
        raise UsageError(what, hint="see their logs") from error
    except Exception as error:
        raise UsageError(
            f"--scheduler {address}: a worker cannot do our work ({_line(error)})",
            hint="see that bfrbctl can be imported in the environment of every worker",
        ) from error


def _within(seconds: float, call: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call something that may hang; TimeoutError when it does."""
    answer: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answer.put((call(*args, **options), None))
        except Exception as error:
            answer.put((None, error))

    threading.Thread(target=ask, daemon=True).start()  # a daemon, so that one that hangs does not keep us from ending
    try:
        given, error = answer.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return cast(T, given)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
