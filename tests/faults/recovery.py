"""What must hold of a folder after a run into it was disturbed, and how it is brought to its end."""

from pathlib import Path

from bfrbctl.artefacts.files import TEMPORARY
from bfrbctl.artefacts.folders import JOURNAL, LOCK, MANIFEST, PART, Folder, open_folder
from bfrbctl.errors import ArtefactError
from tests.faults.chain import Command, names_in, run_here

TIMED = frozenset({"history.jsonl", "history.csv"})
"""Files of trees with the seconds of each round, which differ between any two runs."""


def content_of(folder: Path) -> dict[str, bytes]:
    """Read every file that a finished folder lists; each is compared with its digest while it is read."""
    opened = open_folder(folder)
    return {name: opened.read(name) for name in opened.files}


def check_nothing_half_done(folder: Path) -> None:
    """Check that a disturbed folder is finished and whole, or is refused by every reader."""
    if (folder / MANIFEST).exists():
        content_of(folder)
        return
    try:
        open_folder(folder)
    except ArtefactError:
        return
    raise AssertionError(f"{folder} was opened though it is unfinished")


def finish(command: Command, base: Path, out: Path, whole: Folder | None = None, *, exactly: bool = True) -> Folder:
    """Bring a disturbed run to its end as the program itself advises, and compare it with an undisturbed one.

    Parameters
    ----------
    command, base, out
        What was run, on which chain, into which folder.
    whole
        What an undisturbed run makes.
    exactly
        Whether every byte must be the same, or the names alone.
    """
    line = command.line(base, out)
    if (out / MANIFEST).exists():
        code, said = run_here(line)
        assert (code, "exists already and is finished" in said) == (5, True), said
        if whole:
            check_same(out, whole, exactly=exactly)
        return open_folder(out)
    if (out / JOURNAL).exists():
        code, said = run_here(line)
        assert (code, "an unfinished run is in it" in said) == (5, True), said
        line.append("--resume" if command.resumes else "--force")
    code, said = run_here(line)
    assert (code, said) == (0, ""), said
    if whole:
        check_same(out, whole, exactly=exactly)
        assert names_in(out) == names_in(whole.path)
    return open_folder(out)


def check_same(out: Path, whole: Folder, *, exactly: bool) -> None:
    """Check that a folder is what an undisturbed run makes; temporary files of a killed one may lie beside."""
    made = set(names_in(whole.path))
    left = {name for name in names_in(out) if not name.startswith((TEMPORARY, PART))} - {JOURNAL, LOCK}
    assert left == made
    if exactly:
        assert made & TIMED or open_folder(out).sha256 == whole.sha256
        differ = [name for name in made if (out / name).read_bytes() != (whole.path / name).read_bytes()]
        assert set(differ) <= {MANIFEST, *TIMED}
