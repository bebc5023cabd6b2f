"""The lock of a folder that is written, and which of the files in the folder are of bfrbctl."""

import os
from pathlib import Path

import filelock

from bfrbctl.artefacts.files import MAX_JSON_BYTES, TEMPORARY, parse_json, read_regular
from bfrbctl.artefacts.folders import ALONGSIDE, JOURNAL, LOCK, MANIFEST, PACK, PART, could_be_ours
from bfrbctl.errors import ArtefactError, OutputError, examples


def lock_folder(path: Path) -> filelock.BaseFileLock:
    """Lock a folder for this process; OutputError when another one holds it, or it cannot be written."""
    lock = filelock.FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
        (path / LOCK).write_text(f"{os.getpid()}\n")
    except filelock.Timeout as error:
        raise OutputError(
            f"{path}: process {_holder(path)} is writing into it", hint="wait for it, or choose another folder"
        ) from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})", hint="choose another path") from error
    return lock


def _holder(path: Path) -> str:
    try:
        return (path / LOCK).read_text().strip() or "of unknown number"
    except OSError:
        return "of unknown number"


def names_in(path: Path) -> set[str]:
    """List what is in a folder beside the lock and the leftovers of a killed write."""
    return {entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.startswith(TEMPORARY)}


def refuse_foreign(path: Path) -> None:
    """Refuse to replace or continue a folder that holds files which bfrbctl did not write (OutputError)."""
    names = names_in(path)
    if names and not names & {MANIFEST, JOURNAL}:
        raise OutputError(
            f"{path}: is not a folder of ours ({examples(sorted(names))})",
            hint="--force replaces only what bfrbctl wrote; choose another folder",
        )
    foreign = sorted(name for name in names - _ours(path, names) if not name.startswith(PART))
    if foreign:
        raise OutputError(
            f"{path}: has files in it that are not ours ({examples(foreign)})",
            hint="move them away; only what bfrbctl wrote is replaced",
        )


def _ours(path: Path, names: set[str]) -> set[str]:
    """Name the files that are ours: those in the manifest; in an unfinished folder all of the kinds that we write."""
    ours = {*ALONGSIDE, MANIFEST, JOURNAL, *filter(could_be_ours, names)}
    if JOURNAL in names:  # a run may have been killed between a file and the note of it
        return ours
    try:
        lists = [parse_json(read_regular(path / name, limit=MAX_JSON_BYTES), name) for name in {MANIFEST, PACK} & names]
        return {*ALONGSIDE, MANIFEST, JOURNAL, *(file for manifest in lists for file in manifest["files"])}
    except (ArtefactError, KeyError, TypeError):
        return ours  # the lists cannot be read
