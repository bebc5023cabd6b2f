import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from bfrbctl.errors import BfrbError, DataError, UsageError
from bfrbctl.execution import executor as executor_module
from bfrbctl.execution.cluster import Charge, WorkerLost
from bfrbctl.execution.executor import Executor, open_executor, run_tasks
from tests import task_functions

TWO = Executor(2)


def test_results_are_the_same_here_and_elsewhere() -> None:
    tasks = [(number,) for number in range(20)]
    expected = [number * number for number in range(20)]
    assert list(run_tasks(task_functions.square, tasks)) == expected
    assert list(run_tasks(task_functions.square, tasks, executor=TWO)) == expected


def test_no_tasks_give_no_results() -> None:
    assert list(run_tasks(task_functions.square, [], executor=TWO)) == []


def test_results_come_in_order(tmp_path: Path) -> None:
    tasks = [(tmp_path / "second is done", number) for number in range(3)]
    assert list(run_tasks(task_functions.after, tasks, executor=TWO)) == [0, 1, 2]


def test_results_come_as_they_are_ready_when_asked(tmp_path: Path) -> None:
    got = tmp_path / "second is got"
    results = run_tasks(task_functions.wait_for, [(got, 0), (None, 1)], executor=TWO, in_order=False)
    with closing(results):
        assert next(results) == 1
        got.touch()
        assert list(results) == [0]


def test_tasks_are_drawn_only_a_few_ahead() -> None:
    drawn = []

    def tasks() -> Iterator[tuple[int]]:
        for number in range(50):
            drawn.append(number)
            yield (number,)

    results = run_tasks(task_functions.square, tasks(), executor=TWO, n_tasks=50)
    assert next(results) == 0
    assert len(drawn) <= 6
    results.close()


@pytest.mark.parametrize("executor", [executor_module.SEQUENTIAL, TWO])
def test_a_task_may_wait_for_results(executor: Executor) -> None:
    got: list[int] = []

    def tasks() -> Iterator[tuple[int] | None]:
        yield from ((2,), (3,))
        while len(got) < 2:
            yield None
        yield (sum(got),)

    for result in run_tasks(task_functions.square, tasks(), executor=executor, n_tasks=3):
        got.append(result)
    assert sorted(got) == [4, 9, 169]


def test_a_task_whose_worker_is_killed_runs_again_and_no_other(tmp_path: Path) -> None:
    results = list(run_tasks(task_functions.die_once, [(tmp_path, number) for number in range(6)], executor=TWO))
    assert results == [(0, 1), (1, 1), (2, 2), (3, 1), (4, 1), (5, 1)]


def test_deaths_at_other_tasks_do_not_count(tmp_path: Path) -> None:
    tasks = [(tmp_path, number, (1, 2, 3)) for number in range(6)]
    assert list(run_tasks(task_functions.outlive, tasks, executor=TWO)) == [
        (0, 1),
        (1, 2),
        (2, 2),
        (3, 2),
        (4, 1),
        (5, 1),
    ]


def test_a_task_that_always_kills_its_worker_stops_the_run_and_is_named(tmp_path: Path) -> None:
    named = r"^task 3 \(die_always, folder=.*, number=2, deadly=2\): 3 workers died while they ran it"
    with pytest.raises(BfrbError, match=named) as caught:
        list(run_tasks(task_functions.die_always, [(tmp_path, number, 2) for number in range(6)], executor=TWO))
    assert "--resume" in str(caught.value.hint)
    assert {number: (tmp_path / f"tries-{number}").stat().st_size for number in (0, 1, 2)} == {0: 1, 1: 1, 2: 3}


def test_a_death_before_a_task_is_begun_does_not_count_as_one_at_it() -> None:
    pool = executor_module.ProcessPool(1, 1)
    try:
        for _ in range(executor_module.MAX_TRIES + 1):
            pid = pool.submit(task_functions.pid).result()
            os.kill(pid, signal.SIGSTOP)
            future = pool.submit(task_functions.square, 3)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerLost) as caught:
                future.result()
            assert caught.value.charge == "not begun"
        assert pool.submit(task_functions.square, 3).result() == 9
    finally:
        pool.shutdown(cancel_futures=True)


class Taken(Future[int]):
    """A future that leaves `out` when its result is taken."""

    def __init__(self, out: "dict[Future[int], int]") -> None:
        super().__init__()
        self.out = out

    def result(self, timeout: float | None = None) -> int:
        self.out.pop(self)
        return super().result(timeout)


class Doomed(FuturesExecutor):
    """Workers that die at some numbers, so many times each."""

    def __init__(self, deaths: dict[int, int], charge: Charge) -> None:
        self.deaths = deaths
        self.charge = charge
        self.out: dict[Future[int], int] = {}
        self.begun: list[tuple[int, ...]] = []
        """The numbers submitted and not yet taken, at each submission."""

    def submit(self, function: Callable[..., int], /, number: int) -> "Future[int]":  # type: ignore[override]
        future = Taken(self.out)
        self.out[future] = number
        self.begun.append(tuple(self.out.values()))
        if self.deaths.get(number, 0):
            self.deaths[number] -= 1
            future.set_exception(WorkerLost("it is gone", charge=self.charge))
        else:
            future.set_result(function(number))
        return future


def through(pool: Doomed, n_tasks: int) -> list[int]:
    return list(
        executor_module._Dispatcher(
            pool, task_functions.square, iter([(n,) for n in range(n_tasks)]), size=3, in_order=True
        ).results(lambda: None)
    )


def test_tasks_lost_together_run_again_alone() -> None:
    pool = Doomed({0: 1, 1: 1, 2: 1}, "unknown")
    assert through(pool, 6) == [0, 1, 4, 9, 16, 25]
    again = [out for out in pool.begun[3:] if out[-1] in (0, 1, 2)]
    assert again == [(0,), (1,), (2,)]


def test_a_task_that_kills_workers_when_alone_stops_the_run() -> None:
    pool = Doomed({0: 1, 1: 9, 2: 1}, "unknown")
    with pytest.raises(
        BfrbError, match=r"^task 2 \(square, number=1\): 3 workers died while they ran it \(it is gone\)"
    ):
        through(pool, 6)
    assert pool.begun[3:] == [(0,), (1,), (2,), (1,), (1,)]


def test_workers_that_die_before_they_begin_anything_stop_the_run_with_another_message() -> None:
    with pytest.raises(BfrbError, match=r"^3 workers died before they began task 2 \(square, number=1\)"):
        through(Doomed({1: 9}, "not begun"), 6)


def test_many_processes_may_open_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [(1024, 1_000_000)], []
    monkeypatch.setattr("resource.getrlimit", lambda _: now[0])
    monkeypatch.setattr("resource.setrlimit", lambda _, both: limits.append(both))
    executor_module._allow_files(1280)
    now[0] = (1024, 1500)
    executor_module._allow_files(1280)
    now[0] = (1792, 1792)
    executor_module._allow_files(1280)
    assert limits == [(1792, 1_000_000), (1500, 1500)]


def test_an_error_of_ours_comes_back_whole() -> None:
    with pytest.raises(DataError, match="the first is bad") as caught:
        list(run_tasks(task_functions.refuse, [(number,) for number in range(3)], executor=TWO))
    assert caught.value.hint == "leave it out"
    assert caught.value.exit_code == 3


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module.joblib, "cpu_count", lambda: 6)
    assert Executor(0).at_once(100) == 6
    assert Executor(0).threads(2) == 3
    assert Executor(4).at_once(2) == 2
    assert (
        list(run_tasks(task_functions.limits, [(0,), (1,)], executor=TWO))
        == [(min(3, psutil.cpu_count() or 3), "3")] * 2
    )


def test_no_more_workers_are_started_than_memory_holds() -> None:
    assert executor_module.n_workers(0, memory=1 << 60) == 1
    assert executor_module.n_workers(5, memory=1 << 60) == 5
    assert executor_module.n_workers(0) >= 1


def test_a_limit_of_the_container_bounds_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr("bfrbctl.execution.executor.available_memory", lambda: 5 << 30)
    assert executor_module.n_workers(0, memory=2 << 30) == 2
    monkeypatch.setattr("bfrbctl.execution.executor.available_memory", lambda: None)
    assert executor_module.n_workers(0, memory=2 << 30) == 8


def test_leaving_a_run_ends_its_workers(tmp_path: Path) -> None:
    waited = []

    def look() -> None:
        waited.append(1)
        if all((tmp_path / f"pid-{number}").exists() for number in range(2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_tasks(task_functions.linger, [(tmp_path, number) for number in range(2)], executor=TWO, on_wait=look))
    pids = [int((tmp_path / f"pid-{number}").read_text()) for number in range(2)]
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_workers_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"), open_executor(2, "tcp://localhost:1"):
        pass
    with open_executor(3) as executor:
        assert executor == Executor(3)
