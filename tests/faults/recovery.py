"""What must hold of a folder after a run into it was disturbed, and how it is brought to its end."""

from collections.abc import Sequence
from pathlib import Path

from bfrbctl.errors import ArtefactError
from bfrbctl.folders import JOURNAL, LOCK, MANIFEST, PART, Folder, open_folder
from bfrbctl.storage import TEMPORARY
from tests.faults.chain import Command, names_in, run_here


def content_of(folder: Path) -> dict[str, bytes]:
    """Read every file that a finished folder lists; each is compared with its digest on the way."""
    opened = open_folder(folder)
    return {name: opened.read(name) for name in opened.files}


def see_nothing_half_done(folder: Path) -> None:
    """See that a disturbed folder is finished and whole, or is refused by every reader."""
    if (folder / MANIFEST).exists():
        content_of(folder)
        return
    try:
        open_folder(folder)
    except ArtefactError:
        return
    raise AssertionError(f"{folder} was opened though it is unfinished")


def finish(command: Command, base: Path, out: Path, more: Sequence[str] = ()) -> Folder:
    """Bring a disturbed run to its end as a user would, by what the program itself advises."""
    line = command.line(base, out, *more)
    if (out / MANIFEST).exists():
        code, said = run_here(line)
        assert (code, "exists already and is finished" in said) == (5, True), said
        return open_folder(out)
    if (out / JOURNAL).exists():
        code, said = run_here(line)
        assert (code, "an unfinished run is in it" in said) == (5, True), said
        line.append("--resume" if command.resumes else "--force")
    code, said = run_here(line)
    assert (code, said) == (0, ""), said
    done = open_folder(out)
    assert names_in(out) == sorted([MANIFEST, *done.files])
    return done


def see_same(done: Folder, whole: Folder, *, exactly: bool = True) -> None:
    """See that a folder is what an undisturbed run makes."""
    assert set(done.files) == set(whole.files)
    if exactly:
        assert done.files == whole.files
        assert done.sha256 == whole.sha256
    left = set(names_in(done.path)) - set(done.files) - {MANIFEST, JOURNAL, LOCK}
    assert all(name.startswith((TEMPORARY, PART)) for name in left)
