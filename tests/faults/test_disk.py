"""Full, read-only, forbidden and vanishing disks: exit code 5 or 3 with the path, and nothing half-written."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bfrbctl.artefacts.folders import MANIFEST
from tests.faults.chain import COMMANDS, ROOT, ensure, names_in, run_here
from tests.faults.recovery import check_nothing_half_done, finish
from tests.faults.steps import KINDS, Steps
from tests.faults.test_kills import Record, Undisturbed

EVERYTHING = frozenset(KINDS)
NEEDS_SPACE = EVERYTHING - {"unlink", "rmdir"}
SAMPLED = 6


def n_calls(name: str, chain: Path, out: Path, kinds: frozenset[str]) -> int:
    """How many calls a command makes that a disk could refuse."""
    steps = Steps(out, kinds=kinds)
    code, said = run_here(COMMANDS[name].line(chain, out), steps)
    assert code == 0, said
    shutil.rmtree(out)
    return len(steps.done)


def points(n: int, at_most: int | None) -> list[int]:
    """All steps, or a sample over all of them."""
    return sorted({round(i * (n - 1) / (at_most - 1)) for i in range(at_most)}) if at_most else list(range(n))


def see_refusals(
    name: str, chain: Path, folder: Path, whole_of: Undisturbed, *, action: str, at_most: int | None
) -> int:
    """Let an action happen at the steps of a command; how many they were."""
    whole, _ = whole_of(name)
    kinds = NEEDS_SPACE if action == "ENOSPC" else EVERYTHING
    chosen = points(n_calls(name, chain, folder / "counted", kinds), at_most)
    for at in chosen:
        out = folder / f"{action}-{at}"
        code, said = run_here(COMMANDS[name].line(chain, out), Steps(out, action, at, kinds))
        if code == 0:
            assert action == "vanish", (at, said)
        else:
            assert (code, str(out) in said, "foreseen" in said) == (5, True, False), (at, said)
        check_nothing_half_done(out)
        finish(COMMANDS[name], chain, out, whole)
        shutil.rmtree(out)
    return len(chosen)


@pytest.mark.parametrize("action", ["ENOSPC", "EROFS", "vanish"])
def test_a_disk_that_fails_is_reported_with_the_path(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record, action: str
) -> None:
    n = see_refusals("prepare", chain, tmp_path, undisturbed, action=action, at_most=SAMPLED)
    record_property("disk faults", n)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train keras", "simulate")])
@pytest.mark.parametrize("action", ["ENOSPC", "EROFS", "EACCES", "EIO", "vanish"])
def test_a_disk_may_fail_at_any_call(
    chain: Path, tmp_path: Path, undisturbed: Undisturbed, record_property: Record, name: str, action: str
) -> None:
    at_most = None if action in ("ENOSPC", "vanish") else SAMPLED
    record_property("disk faults", see_refusals(name, chain, tmp_path, undisturbed, action=action, at_most=at_most))


# ---------------------------------------------------------------------------------------------------- the real thing


def run_limited(words: Sequence[str], before: Callable[[], None]) -> tuple[int, str]:
    """Run the program in a process of its own, changed just before it starts."""
    line = [sys.executable, "-m", "bfrbctl", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, preexec_fn=before)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("prepare", 600),
        ("prepare", 20_000),
        pytest.param("simulate", 30_000, marks=pytest.mark.slow),
        pytest.param("featurize", 20_000, marks=pytest.mark.slow),
        pytest.param("train lgbm", 3_000, marks=pytest.mark.slow),
        pytest.param("oof-blend", 3_000, marks=pytest.mark.slow),
        pytest.param("predict", 1_500, marks=pytest.mark.slow),
    ],
)
def test_a_file_that_may_not_grow_ends_the_run_cleanly(
    chain: Path, tmp_path: Path, record_property: Record, name: str, limit: int
) -> None:
    """RLIMIT_FSIZE makes the system itself refuse, for libraries that write by themselves as well."""
    out = tmp_path / "out"
    line = COMMANDS[name].line(chain, out)
    code, said = run_limited(line, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert (code, str(out) in said, "Traceback" in said) == (5, True, False), said
    check_nothing_half_done(out)
    finish(COMMANDS[name], chain, out)
    record_property("disk faults", 1)


def may_mount() -> bool:
    """Whether a file system can be mounted here, out of sight of everybody else."""
    line = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=8k none /mnt"]
    try:
        return subprocess.run(line, capture_output=True).returncode == 0
    except OSError:
        return False


def run_on(options: str, place: Path, words: Sequence[str]) -> tuple[int, str, list[str]]:
    """Run the program with a small or read-only disk at `place`: exit code, stderr, and what lay in its output then."""
    script = f'mount -t tmpfs -o {options} none "$0" && "$@"; code=$?; ls -1A "$0/out"; exit $code'
    line = ["unshare", "--mount", "sh", "-c", script, str(place), sys.executable, "-m", "bfrbctl", *words]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr, done.stdout.split()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prepare", "ro"),
        ("prepare", "size=64k"),
        pytest.param("simulate", "size=200k", marks=pytest.mark.slow),
        pytest.param("featurize", "size=64k", marks=pytest.mark.slow),
        pytest.param("train lgbm", "size=32k", marks=pytest.mark.slow),
        pytest.param("predict", "size=16k", marks=pytest.mark.slow),
    ],
)
def test_a_real_disk_that_is_full_or_read_only(
    chain: Path, tmp_path: Path, record_property: Record, name: str, options: str
) -> None:
    if not may_mount():
        pytest.skip("mounting is not allowed here; the same errors are tested one call at a time above")
    out = tmp_path / "out"
    code, said, left = run_on(options, tmp_path, COMMANDS[name].line(chain, out))
    assert (code, str(out) in said, "Traceback" in said) == (5, True, False), said
    assert MANIFEST not in left
    record_property("disk faults", 1)


def forget_powers() -> None:
    """Give up what lets the superuser pass by permissions; nothing to do for anybody else."""
    if os.geteuid() == 0:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)()
        assert libc.capget(header, sets) == 0
        for position in range(3):
            sets[position] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.capset(header, sets) == 0
        assert libc.prctl(24, 1, 0, 0, 0) == 0  # or a new program would get them back
        assert libc.prctl(24, 2, 0, 0, 0) == 0


def test_permission_denied_is_reported_with_the_path(chain: Path, tmp_path: Path, record_property: Record) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    shutil.copytree(chain / "raw", tmp_path / "raw")
    shutil.copytree(ensure(chain, "data"), tmp_path / "data")
    raw, table = tmp_path / "raw" / "train.csv", tmp_path / "data" / "sequences.parquet"
    for path, mode in ((closed, 0o500), (raw, 0o000), (table, 0o000)):
        path.chmod(mode)
    prepare, featurize = COMMANDS["prepare"], COMMANDS["featurize"]
    cases = (
        (5, closed / "out", prepare.line(chain, closed / "out")),
        (5, closed, prepare.line(chain, closed)),
        (3, raw, prepare.line(tmp_path, tmp_path / "out")),
        (4, table, featurize.line(tmp_path, tmp_path / "out")),
    )
    for expected, path, line in cases:
        code, said = run_limited(line, forget_powers)
        assert (code, str(path) in said) == (expected, True), said
        assert "foreseen" not in said
        assert "Traceback" not in said
        assert names_in(closed) == []
        assert not (tmp_path / "out" / MANIFEST).exists()
    record_property("disk faults", len(cases))
