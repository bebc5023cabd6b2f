import ast
import os
from pathlib import Path

import pytest

import bfrbctl
from bfrbctl.execution.memory import available_memory

INSTALLED = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
LIMIT = INSTALLED // 3


def machine(root: Path, groups: str, **limits: object) -> Path:
    """Write what Linux shows of control groups: /proc/self/cgroup, and files with their limits by path."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, limit in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return root


def test_without_control_groups_it_is_what_is_installed(tmp_path: Path) -> None:
    assert available_memory(tmp_path) == INSTALLED


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/\n", "memory.max"),
        ("0::/user.slice/run.scope\n", "user.slice/run.scope/memory.max"),
        ("0::/user.slice/run.scope\n", "user.slice/memory.max"),
        ("0::/docker/0123\n", "memory.max"),
        ("5:cpu,cpuacct:/a\n4:memory:/docker/0123\n0::/\n", "memory/docker/0123/memory.limit_in_bytes"),
        ("4:memory:/docker/0123\n0::/\n", "memory/memory.limit_in_bytes"),
        ("4:hugetlb,memory:/x:y\n", "memory/x:y/memory.limit_in_bytes"),
        ("", "memory/memory.limit_in_bytes"),
    ],
)
def test_a_limit_of_any_group_around_the_process_counts(tmp_path: Path, groups: str, file: str) -> None:
    assert available_memory(machine(tmp_path, groups, **{file: LIMIT})) == LIMIT


def test_the_lowest_limit_counts_and_max_is_none(tmp_path: Path) -> None:
    limits = {"a/b/memory.max": "max", "a/memory.max": LIMIT, "memory.max": 2 * LIMIT, "other/memory.max": 1}
    assert available_memory(machine(tmp_path, "0::/a/b\n", **limits)) == LIMIT


def test_a_limit_beyond_the_machine_is_none(tmp_path: Path) -> None:
    unlimited = 9223372036854771712  # what version 1 shows where there is no limit
    files = {"memory/memory.limit_in_bytes": unlimited}
    assert available_memory(machine(tmp_path, "4:memory:/\n", **files)) == INSTALLED


def test_a_system_that_does_not_say_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert available_memory(tmp_path) is None


def test_nothing_else_reads_the_memory_of_the_machine() -> None:
    readers = {
        path.name
        for path in Path(bfrbctl.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES", "memory.max")
    }
    assert readers == {"memory.py"}
