"""How much memory this process may use: what the machine has, or less where a container or service has a limit."""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_CGROUPS = "sys/fs/cgroup"


def available_memory(root: Path = _ROOT) -> int | None:
    """Give the memory of this machine, or the lowest limit of the control groups that this process is in.

    Both versions of Linux' control groups count, and every group above ours too: a limit holds for all below it.

    Parameters
    ----------
    root
        Where `proc` and `sys` lie.

    Returns
    -------
    Bytes; None where the operating system does not say.
    """
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min([installed, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Give the limits of our control groups that are numbers; `max` and missing files mean no limit."""
    for file in _limit_files(root):
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:  # a system without control groups, or a group without a limit
            continue
        if text.isdecimal() and int(text):
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    """List the files that hold a limit for us, from our own group up to the topmost that is visible.

    In a container our group often has the name that it has outside, where only the topmost folder is visible.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "0:memory:/", *lines]:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            top, name = root / _CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / _CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        ours = top / group.strip("/")
        yield from (folder / name for folder in (ours, *ours.parents) if folder.is_relative_to(top))
