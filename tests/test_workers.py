import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from bfrbctl import workers
from bfrbctl.errors import BfrbError, DataError, UsageError
from bfrbctl.workers import Crew, open_crew, run
from tests import pieces

TWO = Crew(2)


def test_results_are_the_same_here_and_elsewhere() -> None:
    tasks = [(number,) for number in range(20)]
    expected = [number * number for number in range(20)]
    assert list(run(pieces.square, tasks)) == expected
    assert list(run(pieces.square, tasks, crew=TWO)) == expected


def test_no_tasks_give_no_results() -> None:
    assert list(run(pieces.square, [], crew=TWO)) == []


def test_results_come_in_order(tmp_path: Path) -> None:
    tasks = [(tmp_path / "second is done", number) for number in range(3)]
    assert list(run(pieces.after, tasks, crew=TWO)) == [0, 1, 2]


def test_results_come_as_they_are_ready_when_asked(tmp_path: Path) -> None:
    got = tmp_path / "second is got"
    results = run(pieces.wait_for, [(got, 0), (None, 1)], crew=TWO, in_order=False)
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

    results = run(pieces.square, tasks(), crew=TWO, n_tasks=50)
    assert next(results) == 0
    assert len(drawn) <= 6
    results.close()


@pytest.mark.parametrize("crew", [workers.ALONE, TWO])
def test_a_task_may_wait_for_results(crew: Crew) -> None:
    got: list[int] = []

    def tasks() -> Iterator[tuple[int] | None]:
        yield from ((2,), (3,))
        while len(got) < 2:
            yield None
        yield (sum(got),)

    for result in run(pieces.square, tasks(), crew=crew, n_tasks=3):
        got.append(result)
    assert sorted(got) == [4, 9, 169]


def test_a_piece_whose_worker_is_killed_is_done_again(tmp_path: Path) -> None:
    results = list(run(pieces.die_once, [(tmp_path, number) for number in range(6)], crew=TWO))
    assert [number for number, _ in results] == [0, 1, 2, 3, 4, 5]
    assert results[2][1] >= 2


def test_a_piece_that_always_kills_its_worker_stops_the_run() -> None:
    with pytest.raises(BfrbError, match="a worker died 3 times at the same piece") as caught:
        list(run(pieces.die, [(0,), (1,)], crew=TWO))
    assert "--resume" in str(caught.value.hint)


def test_an_error_of_ours_comes_back_whole() -> None:
    with pytest.raises(DataError, match="the first is bad") as caught:
        list(run(pieces.refuse, [(number,) for number in range(3)], crew=TWO))
    assert caught.value.hint == "leave it out"
    assert caught.value.exit_code == 3


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda: 6)
    assert Crew(0).at_once(100) == 6
    assert Crew(0).threads(2) == 3
    assert Crew(4).at_once(2) == 2
    assert list(run(pieces.limits, [(0,), (1,)], crew=TWO)) == [(min(3, psutil.cpu_count() or 3), "3")] * 2


def test_no_more_workers_are_started_than_memory_holds() -> None:
    assert workers.n_workers(0, memory=1 << 60) == 1
    assert workers.n_workers(5, memory=1 << 60) == 5
    assert workers.n_workers(0) >= 1


def test_a_limit_of_the_container_bounds_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr("bfrbctl.workers.available_memory", lambda: 5 << 30)
    assert workers.n_workers(0, memory=2 << 30) == 2
    monkeypatch.setattr("bfrbctl.workers.available_memory", lambda: None)
    assert workers.n_workers(0, memory=2 << 30) == 8


def test_leaving_a_run_ends_its_workers(tmp_path: Path) -> None:
    waited = []

    def look() -> None:
        waited.append(1)
        if all((tmp_path / f"pid-{number}").exists() for number in range(2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(pieces.linger, [(tmp_path, number) for number in range(2)], crew=TWO, on_wait=look))
    pids = [int((tmp_path / f"pid-{number}").read_text()) for number in range(2)]
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_workers_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="exclude each other"), open_crew(2, "tcp://localhost:1"):
        pass
    with open_crew(3) as crew:
        assert crew == Crew(3)
