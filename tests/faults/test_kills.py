"""SIGKILL, SIGINT and SIGTERM at every publication step: what is there is whole, and the run can be continued."""

import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import MANIFEST, Folder, open_folder
from bfrbctl.evaluation import oof
from tests.faults.chain import COMMANDS, ensure, names_in, run_here, run_in_process
from tests.faults.recovery import check_nothing_half_done, content_of, finish
from tests.faults.steps import Steps
from tests.raw_recordings import raw_frames, write_raw

Record = Callable[[str, object], None]
Undisturbed = Callable[[str], tuple[Folder, int]]
QUICK = {"prepare": (1, 3, 5, 6, 8), "featurize": (2, 5, 9, 12, 14)}
"""Points of the fast lane: lock, journal, frames, parts; those before libraries are loaded that cost seconds."""

SAMPLED_NETWORKS = 6


def kill(name: str, chain: Path, folder: Path, points: Iterable[int]) -> list[Path]:
    """Kill a command at each of these steps, two processes at a time; the folders that are left."""

    def one(at: int) -> Path:
        out = folder / f"killed-{at}"
        code, said = run_in_process(COMMANDS[name].line(chain, out), Steps(out, "torn", at))
        assert (code, said) == (-signal.SIGKILL, ""), (name, at)
        return out

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, points))


def see_recovery(name: str, chain: Path, left: Sequence[Path], whole: Folder) -> None:
    for out in left:
        check_nothing_half_done(out)
        finish(COMMANDS[name], chain, out, whole)
        shutil.rmtree(out)


@pytest.mark.parametrize("name", QUICK)
def test_a_killed_run_continues_to_the_same_digests(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record, name: str
) -> None:
    whole, _ = undisturbed(name)
    see_recovery(name, chain, kill(name, chain, tmp_path, QUICK[name]), whole)
    record_property("kill points", len(QUICK[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train keras"])
def test_a_run_killed_at_any_step_continues_to_the_same_digests(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record, name: str
) -> None:
    whole, n_steps = undisturbed(name)
    points = [at for at in range(n_steps) if at not in QUICK.get(name, ())]
    see_recovery(name, chain, kill(name, chain, tmp_path, points), whole)
    record_property("kill points", len(points))


@pytest.mark.slow
def test_networks_killed_between_and_inside_folds_end_the_same(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record
) -> None:
    """Probabilities are compared to 1e-6: threads add up in any order."""
    whole, n_steps = undisturbed("train keras")
    points = np.unique(np.linspace(0, n_steps - 1, SAMPLED_NETWORKS).astype(int)).tolist()
    expected = oof.read_oof(whole)
    for out in kill("train keras", chain, tmp_path, points):
        check_nothing_half_done(out)
        done = finish(COMMANDS["train keras"], chain, out, whole, exactly=False)
        for scenario, part in oof.read_oof(done).items():
            assert np.abs(part.proba - expected[scenario].proba).max() < 1e-6
    record_property("kill points", len(points))


@pytest.mark.slow
def test_a_run_killed_while_it_replaces_a_folder_leaves_the_old_or_continues_to_the_new(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record
) -> None:
    command = COMMANDS["prepare"]
    whole, _ = undisturbed("prepare")
    steps = Steps(tmp_path / "first")
    old = tmp_path / "old"
    for out, watching in ((old, None), (steps.root, None), (steps.root, steps)):
        more = ["--force"] if watching else ["--seed", "7"]
        code, said = run_here(command.line(chain, out, *more), watching)
        assert code == 0, said
    before = content_of(old)
    for at in range(len(steps.done)):
        out = tmp_path / f"killed-{at}"
        shutil.copytree(old, out)
        code, said = run_in_process(command.line(chain, out, "--force"), Steps(out, "torn", at))
        assert (code, said) == (-signal.SIGKILL, "")
        check_nothing_half_done(out)
        if not (out / MANIFEST).exists():
            finish(command, chain, out)
        assert content_of(out) in (before, content_of(whole.path))
    record_property("kill points", len(steps.done))


@dataclass(frozen=True)
class Addition:
    """Recordings to add to the chain's dataset, and how."""

    chain: Path
    raw: Path
    options: tuple[str, ...]

    @classmethod
    def made(cls, chain: Path, raw: Path, how: str) -> "Addition":
        """Write the recordings: `streamed` by one process, or `gathered` from scattered rows for two workers."""
        more = raw_frames(subjects=2, repeats=1, seed=5).with_columns(
            pl.col("sequence_id").str.replace("_0", "_5"), pl.col("subject").str.replace("_0", "_5")
        )
        if how == "streamed":
            return cls(chain, write_raw(raw, more), ("--workers", "1"))
        scattered = more.sample(fraction=1.0, shuffle=True, seed=0)
        return cls(chain, write_raw(raw, scattered), ("--workers", "2", "--rows-per-file", "100"))

    def copied(self, out: Path) -> Path:
        """Copy the dataset that they are added to."""
        return shutil.copytree(ensure(self.chain, "data"), out)

    def line(self, out: Path, *more: str) -> list[str]:
        """Give the words of a run."""
        return ["prepare", str(self.raw), str(out), "--append", "--quiet", *self.options, *more]

    def whole(self, out: Path) -> tuple[Folder, int]:
        """Add them without disturbance: the folder, and in how many steps."""
        steps = Steps(self.copied(out))
        code, said = run_here(self.line(out), steps)
        assert (code, said) == (0, "")
        return open_folder(out), len(steps.done)


@contextmanager
def read_all_the_while(folder: Path) -> Iterator[set[str]]:
    """Read a folder again and again in a thread: the digests that it had; it must never be refused."""
    digests: set[str] = set()
    ended = Event()

    def read() -> int:
        n_reads = 0
        while not ended.is_set() or not n_reads:
            content_of(folder)
            digests.add(open_folder(folder).sha256)
            n_reads += 1
        return n_reads

    with ThreadPoolExecutor(1) as thread:
        reading = thread.submit(read)
        try:
            yield digests
        finally:
            ended.set()
        assert reading.result() > 0


def disturb_addition(addition: Addition, out: Path, action: str, at: int, whole: Folder) -> None:
    """Disturb an addition at a step, then continue it; readers open the dataset all the while, and after."""
    before = open_folder(addition.copied(out)).sha256
    with read_all_the_while(out) as digests:
        code, said = run_in_process(addition.line(out), Steps(out, action, at))
        assert code == {"torn": -signal.SIGKILL, "sigint": 130, "sigterm": 143}[action], (at, said)
        assert ("--resume" in said, "Traceback" in said) == (action != "torn", False), (at, said)
        found = open_folder(out).sha256
        assert found in (before, whole.sha256), at
        if found == before:
            code, said = run_here(addition.line(out, "--resume"))
            assert (code, said) == (0, ""), (at, said)
    assert digests <= {before, whole.sha256}
    assert content_of(out) == content_of(whole.path)
    if found == before:
        assert names_in(out) == names_in(whole.path)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["streamed", "gathered"])
def test_a_run_killed_while_it_adds_to_a_folder_leaves_the_old_or_continues_to_the_new(
    chain: Path, tmp_path: Path, record_property: Record, how: str
) -> None:
    addition = Addition.made(chain, tmp_path / "more", how)
    whole, n_steps = addition.whole(tmp_path / "whole")
    for at in range(n_steps):
        disturb_addition(addition, tmp_path / f"killed-{at}", "torn", at, whole)
    record_property("kill points", n_steps)


@pytest.mark.parametrize("action", ["torn", pytest.param("sigint", marks=pytest.mark.slow)])
def test_a_dataset_stays_readable_while_scattered_rows_are_added(
    chain: Path, tmp_path: Path, record_property: Record, action: str
) -> None:
    """Stopped while the rows that were gathered lie in a folder inside the dataset."""
    addition = Addition.made(chain, tmp_path / "more", "gathered")
    whole, n_steps = addition.whole(tmp_path / "whole")
    disturb_addition(addition, tmp_path / "stopped", action, n_steps // 2, whole)
    record_property("kill points" if action == "torn" else "signals", 1)


@pytest.mark.slow
def test_an_addition_killed_anywhere_can_be_begun_anew(chain: Path, tmp_path: Path, record_property: Record) -> None:
    addition = Addition.made(chain, tmp_path / "more", "gathered")
    whole, n_steps = addition.whole(tmp_path / "whole")
    for at in range(3, n_steps, 4):
        out = addition.copied(tmp_path / f"killed-{at}")
        code, said = run_in_process(addition.line(out), Steps(out, "torn", at))
        assert code == -signal.SIGKILL, said
        if open_folder(out).sha256 != whole.sha256:
            assert run_here(addition.line(out)) == (0, "")
            assert names_in(out) == names_in(whole.path)
        assert content_of(out) == content_of(whole.path)
    record_property("kill points", len(range(3, n_steps, 4)))


@pytest.mark.parametrize("name", ["prepare", pytest.param("train lgbm", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("action", "code"), [("sigint", 130), ("sigterm", 143)])
def test_a_signal_at_any_step_keeps_what_was_finished(
    chain: Path,
    tmp_path: Path,
    undisturbed: Undisturbed,
    record_property: Record,
    name: str,
    action: str,
    code: int,
) -> None:
    whole, n_steps = undisturbed(name)
    for at in range(n_steps):
        out = tmp_path / f"stopped-{at}"
        found, said = run_here(COMMANDS[name].line(chain, out), Steps(out, action, at))
        assert (found, "--resume continues it" in said, "Traceback" in said) == (code, True, False), (at, said)
        check_nothing_half_done(out)
        finish(COMMANDS[name], chain, out, whole)
    record_property("signals", n_steps)


@pytest.mark.parametrize(("action", "code"), [("sigint", 130), ("sigterm", 143)])
def test_a_signal_to_a_process_of_its_own_is_no_traceback(
    chain: Path, tmp_path: Path, record_property: Record, action: str, code: int
) -> None:
    command, out = COMMANDS["prepare"], tmp_path / "out"
    found, said = run_in_process(command.line(chain, out), Steps(out, action, 6))
    assert (found, len(said.splitlines()), "--resume continues it" in said) == (code, 1, True), said
    record_property("signals", 1)
