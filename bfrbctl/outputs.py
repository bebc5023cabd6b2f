"""Folders being written: one writer at a time, pieces noted in a journal, the manifest last.

A folder is unfinished until its `manifest.json` exists. Meanwhile `journal.json` tells which pieces are done, so that
`--resume` continues where a killed run stopped.
"""

import errno
import hashlib
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock

from bfrbctl import __version__
from bfrbctl.errors import ArtefactError, DataError, OutputError, UsageError, examples
from bfrbctl.folders import (
    ALONGSIDE,
    JOURNAL,
    LOCK,
    MANIFEST,
    PACK,
    PART,
    SCHEMA_VERSION,
    SEAL,
    Folder,
    InputRef,
    check_seal,
    could_be_ours,
    file_name,
    open_folder,
    sealed,
)
from bfrbctl.reprs import short_repr
from bfrbctl.storage import (
    MAX_JSON_BYTES,
    TEMPORARY,
    Content,
    FileEntry,
    encode_json,
    file_sha256,
    parse_json,
    plain,
    read_regular,
    write_bytes,
    write_file,
    writing,
)

_SCRATCH = f"{PART}scratch-"
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_LIBRARIES = ("numpy", "polars", "pyarrow", "scipy", "scikit-learn", "lightgbm", "tensorflow", "keras")


@dataclass(frozen=True)
class Job:
    """What a run is, so that its folder can tell and a resumed run can be recognised.

    Parameters
    ----------
    kind
        Kind of the folder: dataset, features, model, blend, predictions, raw.
    config
        Every setting that changes the result; JSON values only.
    inputs
        What it reads.
    command
        The exact command line.
    seed
        The seed, where there is one.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: tuple[InputRef, ...] = ()
    command: tuple[str, ...] = ()
    seed: int | None = None

    __repr__ = short_repr

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a run to continue another one."""
        return {
            "kind": self.kind,
            "schema_version": SCHEMA_VERSION,
            "bfrbctl": __version__,
            "config": plain(self.config),
            "inputs": [{"kind": ref.kind, "sha256": ref.sha256} for ref in self.inputs],
            "seed": self.seed,
        }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on, without importing them."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@dataclass
class Output:
    """A folder being written; made by `open_output`, used in its `with`.

    Every step is a *piece*: some files that are published together, then noted in the journal.
    """

    path: Path
    job: Job
    pieces: dict[str, dict[str, FileEntry]] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    started: bool = False
    resumed: bool = False
    onto: Folder | None = None
    """The finished folder that this run adds files to; it stays readable as it was until the new manifest is there."""

    __repr__ = short_repr

    def has(self, piece: str) -> bool:
        """Whether an earlier run finished this piece and its files are still as it left them."""
        files = self.pieces.get(piece)
        if files is None:
            return False
        sound = all(_matches(self.path / name, entry) for name, entry in files.items())
        if not sound:
            del self.pieces[piece]
        elif piece not in self.reused:
            self.reused.append(piece)
        return sound

    def publish(self, piece: str, files: Mapping[str, Content]) -> None:
        """Write the files of a piece and note it as done."""
        self.pieces[piece] = {name: write_file(self.path / name, content) for name, content in files.items()}
        self._note()

    def forget(self, pieces: Iterable[str]) -> None:
        """Take pieces back that turned out to be wrong; they will be made again."""
        for piece in pieces:
            self.pieces.pop(piece, None)
        self._note()

    def read(self, name: str) -> bytes:
        """Read a published file of this run; OutputError when it is gone or changed."""
        entry = next((files[name] for files in self.pieces.values() if name in files), None)
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise OutputError(
                f"{self.path / name}: cannot be read back ({error.strerror})", hint="somebody removed it; run it again"
            ) from error
        if entry is None or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise OutputError(f"{self.path / name}: is not what this run wrote", hint="start anew with --force")
        return content

    def finish(self, content: Mapping[str, Any]) -> "Folder":
        """Write the manifest and remove what only the run itself needed.

        Parameters
        ----------
        content
            What readers need to know of this kind of folder, such as classes, targets, sensors, rate.
        """
        before = self.onto.files if self.onto else {}
        files = {**before, **{name: entry for piece in self.pieces.values() for name, entry in piece.items()}}
        kept = {name: files[name] for name in sorted(files) if not name.startswith(PART)}
        manifest = {
            "kind": self.job.kind,
            "schema_version": SCHEMA_VERSION,
            "bfrbctl": __version__,
            "libraries": library_versions(),
            "command": list(self.job.command),
            "config": self.job.config,
            "seed": self.job.seed,
            "inputs": [*(self.onto.manifest["inputs"] if self.onto else ()), *map(vars, self.job.inputs)],
            "content": content,
            "files": {name: vars(entry) for name, entry in kept.items()},
        }
        return self._close(encode_json(sealed(manifest)), kept)

    def finish_copy(self, manifest: bytes) -> "Folder":
        """Finish a copy of another folder: its manifest as it is, beside all that was published."""
        return self._close(manifest, {name for files in self.pieces.values() for name in files})

    def _close(self, manifest: bytes, kept: Iterable[str]) -> "Folder":
        for left in self.path.glob(f"{_SCRATCH}*"):  # of a run killed while it cleared up; no reader takes a sub-folder
            with writing(left):
                shutil.rmtree(left)
        write_bytes(self.path / MANIFEST, manifest)
        self.sweep(keep={*kept, MANIFEST, LOCK})
        return open_folder(self.path)

    def _note(self) -> None:
        pieces = {piece: {name: vars(entry) for name, entry in files.items()} for piece, files in self.pieces.items()}
        write_bytes(self.path / JOURNAL, encode_json(sealed({**self._identity, "pieces": pieces})))

    @property
    def _identity(self) -> dict[str, Any]:
        return {**self.job.identity, **({"onto": self.onto.sha256} if self.onto else {})}

    @property
    def fresh(self) -> bool:
        """Whether all that is in the folder is of this very run, and it is not finished."""
        return self.started and not self.resumed and not (self.path / MANIFEST).exists()

    def sweep(self, *, keep: set[str]) -> None:
        """Remove all files but some, and what is left of scratch folders."""
        with writing(self.path):
            for entry in self.path.iterdir():
                if entry.name not in keep and entry.is_file():
                    entry.unlink()
                elif entry.name.startswith(_SCRATCH) and entry.is_dir() and entry.name not in keep:
                    shutil.rmtree(entry)

    @contextmanager
    def scratch(self, piece: str) -> Iterator[Path]:
        """Give a folder for checkpoints of a piece; it outlives a crash and goes when the piece is published."""
        folder = self.path / f"{_SCRATCH}{piece}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        yield folder
        with writing(folder):
            shutil.rmtree(folder)

    def start(self, *, force: bool, resume: bool) -> None:
        """Look at what is there already and make the folder ready; called once, under the lock."""
        finished = (self.path / MANIFEST).exists()
        unfinished = (self.path / JOURNAL).exists() and not finished
        if force:
            _refuse_foreign(self.path)
        elif finished:
            raise OutputError(
                f"{self.path}: exists already and is finished", hint="choose another folder, or replace it with --force"
            )
        elif unfinished and resume:
            _refuse_foreign(self.path)
            self._continue()
            self.resumed = True
        elif unfinished:
            raise OutputError(
                f"{self.path}: an unfinished run is in it", hint="continue it with --resume, or replace it with --force"
            )
        elif _names(self.path):
            raise OutputError(f"{self.path}: is not empty and not a folder of ours", hint="choose another folder")
        self._note()  # before anything is removed, so that a kill from here on leaves a folder known as ours
        with writing(self.path / MANIFEST):
            (self.path / MANIFEST).unlink(missing_ok=True)
        published = {name for files in self.pieces.values() for name in files}
        scratch = {entry.name for entry in self.path.glob(f"{_SCRATCH}*")} if self.resumed else set()
        self.sweep(keep=published | scratch | {LOCK, JOURNAL})
        self.started = True

    def start_onto(self, *, resume: bool) -> None:
        """Make a finished folder ready for more files; called once, under the lock.

        What an append left that was killed is continued with `resume`, and removed without.
        """
        self.onto = open_folder(self.path, self.job.kind)
        if resume and (self.path / JOURNAL).exists():
            self._continue()
            self.resumed = True
        self._note()
        self.sweep(keep={*self._before, JOURNAL, *(name for files in self.pieces.values() for name in files)})
        self.started = True

    def give_up(self) -> None:
        """Remove all that this run wrote: the same input would fail again, so nothing shall ask for --force."""
        if self.onto and not self.resumed:
            self.sweep(keep={*self._before, JOURNAL})
            (self.path / JOURNAL).unlink(missing_ok=True)  # last: without it, readers refuse files that are not listed
        elif self.fresh:
            self.sweep(keep={LOCK})

    @property
    def _before(self) -> set[str]:
        return {*(self.onto.files if self.onto else ()), MANIFEST, LOCK, *ALONGSIDE}

    def _continue(self) -> None:
        journal = self._journal()
        identity = plain(self._identity)
        different = [key for key, value in identity.items() if journal.get(key) != value]
        if different:
            raise OutputError(
                f"{self.path}: the unfinished run in it differs in {examples(_differences(journal, identity))}",
                hint="run it with the same input and settings, or start anew with --force",
            )
        self.pieces = {
            piece: {
                name if name in ALONGSIDE else file_name(name, JOURNAL): FileEntry(**entry)
                for name, entry in files.items()
            }
            for piece, files in journal["pieces"].items()
        }

    def _journal(self) -> Mapping[str, Any]:
        path = self.path / JOURNAL
        try:
            journal = parse_json(read_regular(path, limit=MAX_JSON_BYTES), str(path))
            if not isinstance(journal, dict) or SEAL not in journal:
                raise ArtefactError(f"{path}: is not a journal of this version")
            check_seal(journal, str(path))
        except ArtefactError as error:
            raise OutputError(error.what, hint="it was damaged or changed; start anew with --force") from error
        return journal


@contextmanager
def open_output(
    path: Path, job: Job, *, force: bool = False, resume: bool = False, append: bool = False
) -> Iterator[Output]:
    """Make, continue or (append) add to an output folder, alone: a second run is refused while this one goes on.

    Raises
    ------
    OutputError
        When the folder exists (and neither `force` nor `resume` fits), is locked, or cannot be written.
    """
    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made a folder ({error.strerror})", hint="choose another path") from error
    lock = _lock(path)
    output = Output(path, job)
    try:
        if append:
            output.start_onto(resume=resume)
        else:
            output.start(force=force, resume=resume)
        yield output
    except (DataError, UsageError):
        output.give_up()
        raise
    except OSError as error:  # of libraries that write by themselves, such as to a scratch folder
        if error.errno in _OF_THE_DISK or str(error.filename).startswith(str(path)):
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error})", hint="see that the disk has space and rights"
            ) from error
        raise
    finally:
        with suppress(OSError):  # a disk that fails says so where it matters; a lock file left behind does no harm
            (path / LOCK).unlink(missing_ok=True)
            if created and path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        lock.release()


def _lock(path: Path) -> filelock.BaseFileLock:
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


def _names(path: Path) -> set[str]:
    """List what is in a folder beside the lock and the leftovers of a killed write."""
    return {entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.startswith(TEMPORARY)}


def _refuse_foreign(path: Path) -> None:
    names = _names(path)
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
    """Which files are ours: those that the manifest lists; in an unfinished folder all of the kinds that we write."""
    ours = {*ALONGSIDE, MANIFEST, JOURNAL, *filter(could_be_ours, names)}
    if JOURNAL in names:  # a run may have been killed between a file and the note of it
        return ours
    try:
        lists = [parse_json(read_regular(path / name, limit=MAX_JSON_BYTES), name) for name in {MANIFEST, PACK} & names]
        return {*ALONGSIDE, MANIFEST, JOURNAL, *(file for told in lists for file in told["files"])}
    except (ArtefactError, KeyError, TypeError):
        return ours  # nobody can tell


def _matches(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size and file_sha256(path) == entry.sha256
    except OSError:
        return False


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [
            key for key in sorted(set(old) | set(new)) if key not in ("pieces", SEAL) and old.get(key) != new.get(key)
        ]
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{prefix}{key}.")]
    if isinstance(old, list) and isinstance(new, list) and prefix == "inputs.":
        return ["the input (its content changed)"]
    return [f"{prefix.rstrip('.')} ({old!r} then, {new!r} now)"]
