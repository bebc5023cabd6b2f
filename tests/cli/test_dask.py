"""The commands on a Dask cluster of real processes on this machine: the same bytes, and clear words where it cannot."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import Folder, open_folder, pinned_file
from bfrbctl.cli.app import app
from bfrbctl.errors import ArtefactError, BfrbError, OutputError, UsageError
from bfrbctl.execution.executor import open_executor, run_tasks
from tests import task_functions
from tests.raw_recordings import raw_frames, write_raw

distributed = pytest.importorskip("distributed")

ROOT = Path(__file__).parents[2]
ODD = ROOT / "tests" / "odd_dask.py"
FEATURES = ["--families", "motion", "--families", "moments"]
LGBM = ["--set", "n_rounds=20", "--set", "min_data_in_leaf=2"]


@contextmanager
def process(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run something beside the test, and end it with the test."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # for tests.task_functions
    environment = {**os.environ, "PYTHONPATH": path}
    started = subprocess.Popen([sys.executable, *map(str, words)], env=environment, **quiet)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for(what: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def scheduler(*odd: str) -> Iterator[str]:
    """Start `dask scheduler` and give its address."""
    port = free_port()
    with process(ODD, *odd, "--", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show"):
        wait_for(lambda: listens(port))
        yield f"tcp://127.0.0.1:{port}"


@contextmanager
def worker(address: str, folder: Path, *odd: str, nanny: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Start `dask worker` with one thread, and wait until the scheduler knows it; a nanny starts it again."""
    options = ["--nthreads", 1, "--no-dashboard", "--host", "127.0.0.1", "--local-directory", folder]
    options.append("--nanny" if nanny else "--no-nanny")
    with process(ODD, *odd, "--", "worker", address, *options) as started:
        before = n_workers(address)
        wait_for(lambda: n_workers(address) > before)
        yield started


def n_workers(address: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that differ
        with distributed.Client(address, timeout=30, set_as_default=False) as client:
            return len(client.nthreads())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and three workers; the tests leave two of them alive at least."""
    folder = tmp_path_factory.mktemp("dask")
    with ExitStack() as contexts:
        address = contexts.enter_context(scheduler())
        workers = [contexts.enter_context(worker(address, folder)) for _ in range(3)]
        yield address, workers


@pytest.mark.slow
def test_who_waited_for_a_worker_that_died_is_not_charged_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")  # a death is reported at once
    with scheduler() as address, worker(address, tmp_path / "w", nanny=True), open_executor(0, address) as executor:
        (tmp_path / "once").mkdir()
        tasks = [(tmp_path / "once", number, (0, 1, 2)) for number in range(6)]
        assert [number for number, _ in run_tasks(task_functions.die_once, tasks, executor=executor)] == list(range(6))

        named = r"^task 1 \(die_always, folder=.*, number=1, deadly=1\): 3 workers died while they ran it"
        with pytest.raises(BfrbError, match=named):
            list(
                run_tasks(
                    task_functions.die_always, [(tmp_path, number, 1) for number in range(1, 4)], executor=executor
                )
            )


def call(*words: object) -> None:
    """Run the program in this process."""
    app([*map(str, words), "--quiet"], standalone_mode=False)


def bfrbctl(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "bfrbctl", *map(str, words)], stderr=subprocess.PIPE, text=True)


def finish(run: subprocess.Popen[str]) -> str:
    _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    return err


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw recordings, and what this machine alone makes of them."""
    folder = tmp_path_factory.mktemp("cluster")
    write_raw(folder / "raw", raw_frames(subjects=6, repeats=4))
    call("prepare", folder / "raw", folder / "data", "--folds", 3, "--rows-per-file", 200)
    call("featurize", folder / "data", folder / "features", *FEATURES, "--workers", 1)
    call("train", "lgbm", folder / "features", folder / "model", *LGBM, "--workers", 1)
    call("predict", folder / "data", folder / "model", folder / "predictions", "--workers", 1)
    return folder


def same(one: Folder, other: Folder) -> None:
    """The same files with the same bytes, but for histories, which have seconds in them."""

    def files(folder: Folder) -> dict[str, object]:
        return {name: entry for name, entry in folder.files.items() if not name.startswith("history.")}

    assert files(one) == files(other)


def test_a_cluster_gives_the_same_bytes_though_a_worker_is_killed(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], base: Path, tmp_path: Path
) -> None:
    address, workers = cluster
    run = bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", address)
    wait_for(lambda: any((tmp_path / "features").glob("frames-*.parquet")) or run.poll() is not None)
    workers[0].send_signal(signal.SIGKILL)
    assert f"cluster {address}: 3 workers, 3 tasks at once" in finish(run)
    same(open_folder(base / "features"), open_folder(tmp_path / "features"))

    call("train", "lgbm", base / "features", tmp_path / "model", *LGBM, "--scheduler", address)
    same(open_folder(base / "model"), open_folder(tmp_path / "model"))

    call("predict", base / "data", base / "model", tmp_path / "predictions", "--scheduler", address)
    same(open_folder(base / "predictions"), open_folder(tmp_path / "predictions"))


@pytest.mark.slow
def test_seeds_of_a_fold_are_shared_out_though_a_worker_is_killed(base: Path, tmp_path: Path) -> None:
    words = ["train", "lgbm", base / "features", tmp_path / "there", *LGBM, "--folds", 1, "--folds", 2, "--seeds", 2]
    call(*words[:3], tmp_path / "here", *words[4:], "--workers", 1)
    with ExitStack() as contexts:
        address = contexts.enter_context(scheduler())
        two = [contexts.enter_context(worker(address, tmp_path / "w")) for _ in range(2)]
        run = bfrbctl(*words, "--scheduler", address)
        begun = (tmp_path / "there" / "part-scratch-fold-1").glob
        wait_for(lambda: any(begun("progress-*.jsonl")) or run.poll() is not None)
        two[0].kill()
        finish(run)
    same(open_folder(tmp_path / "here"), open_folder(tmp_path / "there"))


@pytest.mark.slow
def test_raw_recordings_are_predicted_on_a_cluster(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], base: Path, tmp_path: Path
) -> None:
    call("predict", base / "raw", base / "model", tmp_path / "here", "--workers", 1)
    call("predict", base / "raw", base / "model", tmp_path / "there", "--scheduler", cluster[0])
    same(open_folder(tmp_path / "here"), open_folder(tmp_path / "there"))


@pytest.mark.slow
def test_a_cluster_simulates_and_prepares_the_same_bytes(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], base: Path, tmp_path: Path
) -> None:
    options = ["--split", "test", "--set", "test_subjects=2", "--answers"]
    call("simulate", tmp_path / "s-here", *options, "--workers", 1)
    call("simulate", tmp_path / "s-there", *options, "--scheduler", cluster[0])
    same(open_folder(tmp_path / "s-here"), open_folder(tmp_path / "s-there"))

    options = ["--folds", 3, "--rows-per-file", 200, "--scheduler", cluster[0]]
    call("prepare", base / "raw", tmp_path / "data", *options)
    same(open_folder(base / "data"), open_folder(tmp_path / "data"))

    table = raw_frames(subjects=6, repeats=4)
    write_raw(tmp_path / "sorted", table, suffix="parquet")
    write_raw(tmp_path / "scattered", table.sample(fraction=1.0, shuffle=True, seed=3), suffix="parquet")
    for name in ("sorted", "scattered"):
        call("prepare", tmp_path / name, tmp_path / f"d-{name}", *options)
    same(open_folder(base / "data"), open_folder(tmp_path / "d-sorted"))
    here, there = open_folder(base / "data"), open_folder(tmp_path / "d-scattered")
    assert [there.files[name] for name in here.names(r"frames-.*")] == [
        here.files[name] for name in here.names(r"frames-.*")
    ]


@pytest.mark.slow
def test_bad_data_on_a_worker_is_told_as_here(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], base: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for file in (base / "data").iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((data / "frames-00001.parquet").read_bytes())
    damaged[100] ^= 255
    (data / "frames-00001.parquet").write_bytes(damaged)
    with pytest.raises(ArtefactError, match=r"frames-00001\.parquet: is not the file that the manifest lists"):
        call("featurize", data, tmp_path / "features", "--scheduler", cluster[0])


def test_an_address_where_nothing_listens_fails_in_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match="nothing answers"), open_executor(0, f"tcp://127.0.0.1:{free_port()}"):
        pass
    assert time.monotonic() - began < 10
    for address in ("localhost", "tcp://localhost", "http://localhost:80", "tcp://localhost:port"):
        with pytest.raises(UsageError, match="expected an address such as"), open_executor(0, address):
            pass


def test_something_else_that_listens_is_no_scheduler() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UsageError, match="what listens there is no Dask scheduler"), open_executor(0, address):
            pass


def test_a_missing_dask_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(UsageError, match="--scheduler needs distributed") as caught,
        open_executor(0, "tcp://127.0.0.1:1"),
    ):
        pass
    assert caught.value.hint == f"{sys.executable} -m pip install distributed, or use --workers on this machine"


def test_a_scheduler_without_workers_is_told() -> None:
    with scheduler() as address, pytest.raises(UsageError, match="has no workers"), open_executor(0, address):
        pass


def refusal(address: str) -> str:
    """What is said of a cluster that cannot be used."""
    with pytest.raises(UsageError) as caught, open_executor(0, address):
        pass
    return caught.value.what


@pytest.mark.slow
def test_the_side_that_lacks_the_package_is_named(tmp_path: Path) -> None:
    with scheduler("bfrbctl=") as address, worker(address, tmp_path):
        assert "bfrbctl is not installed for the scheduler" in refusal(address)
    with scheduler() as address, worker(address, tmp_path, "bfrbctl="):
        assert "bfrbctl is not installed for worker tcp://" in refusal(address)


@pytest.mark.slow
def test_other_versions_on_a_worker_are_refused(tmp_path: Path) -> None:
    with scheduler() as address, worker(address, tmp_path, "numpy=1.0", "lightgbm="):
        message = refusal(address)
    assert "has numpy 1.0 (here " in message
    assert "has lightgbm not installed (here " in message
    with scheduler("bfrbctl=0.0.1") as address, worker(address, tmp_path):
        assert "the scheduler has bfrbctl 0.0.1 (here " in refusal(address)


@pytest.mark.slow
def test_a_worker_with_other_files_is_named(base: Path, tmp_path: Path) -> None:
    with (
        scheduler() as address,
        worker(address, tmp_path / "w", str(tmp_path / "out")),
        open_executor(0, address) as executor,
    ):
        (tmp_path / "out").mkdir()
        with pytest.raises(OutputError, match=r"worker tcp://.* cannot read what is written to .*out"):
            executor.check_paths(tmp_path / "out", open_folder(base / "data").pinned())
        assert list((tmp_path / "out").iterdir()) == []
        executor.check_paths(tmp_path, open_folder(base / "data").pinned())
    with (
        scheduler() as address,
        worker(address, tmp_path / "w", str(base / "data")),
        open_executor(0, address) as executor,
        pytest.raises(UsageError, match=r"does not have the same .*data"),
    ):
        executor.check_paths(tmp_path, open_folder(base / "data").pinned())


@pytest.mark.slow
def test_a_worker_with_other_recordings_of_the_same_size_is_named(base: Path, tmp_path: Path) -> None:
    real, other = base / "raw" / "train.csv", tmp_path / "other.csv"
    content = real.read_bytes()
    other.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    odd = f"{real}={other}"
    with scheduler() as address, worker(address, tmp_path / "w", odd), open_executor(0, address) as executor:
        with pytest.raises(UsageError, match=r"worker tcp://.* does not have the same .*train\.csv"):
            executor.check_paths(tmp_path, pinned_file(real))
        with pytest.raises(UsageError, match=r"does not have the same .*train\.csv"):
            call("prepare", base / "raw", tmp_path / "data", "--rows-per-file", 200, "--scheduler", address)
        executor.check_paths(tmp_path, pinned_file(base / "raw" / "train_demographics.csv"))


@pytest.mark.slow
def test_a_cluster_of_one_core_works_and_says_what_it_is_worth(base: Path, tmp_path: Path) -> None:
    with scheduler() as address, worker(address, tmp_path / "w"):
        run = bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", address)
        assert "1 worker, 1 task at once: no faster than this machine alone" in finish(run)
    same(open_folder(base / "features"), open_folder(tmp_path / "features"))


@pytest.mark.slow
def test_a_cluster_that_loses_all_workers_ends_the_run_and_can_be_resumed(base: Path, tmp_path: Path) -> None:
    with scheduler() as address:
        with worker(address, tmp_path / "w") as only:
            run = bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", address)
            wait_for(lambda: any((tmp_path / "features").glob("frames-*.parquet")) or run.poll() is not None)
            only.kill()
            _, err = run.communicate(timeout=120)
        assert run.returncode == 1, err
        assert "the cluster has had no workers" in err
        with worker(address, tmp_path / "w"):
            finish(
                bfrbctl(
                    "featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", address, "--resume"
                )
            )
    same(open_folder(base / "features"), open_folder(tmp_path / "features"))


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_the_run(base: Path, tmp_path: Path) -> None:
    with ExitStack() as contexts:
        inner = ExitStack()
        address = inner.enter_context(scheduler())
        contexts.enter_context(worker(address, tmp_path / "w"))
        run = bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", address)
        wait_for(lambda: any((tmp_path / "features").glob("frames-*.parquet")) or run.poll() is not None)
        inner.close()
        _, err = run.communicate(timeout=120)
    assert run.returncode == 1, err
    assert "--resume" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_ctrl_c_leaves_the_cluster_free_and_the_state_kept(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], base: Path, tmp_path: Path
) -> None:
    run = bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--scheduler", cluster[0])
    wait_for(lambda: any((tmp_path / "features").glob("frames-*.parquet")) or run.poll() is not None)
    os.kill(run.pid, signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143, err
    assert "Traceback" not in err
    finish(bfrbctl("featurize", base / "data", tmp_path / "features", *FEATURES, "--workers", 1, "--resume"))
    same(open_folder(base / "features"), open_folder(tmp_path / "features"))
