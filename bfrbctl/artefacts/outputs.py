"""Folders being written: one writer at a time, finished parts noted in a journal, the manifest last.

A folder is unfinished until its `manifest.json` exists. Meanwhile `journal.json` lists the parts that are done, so that
`--resume` continues where a killed run stopped, with its settings. A folder that is replaced stays as it was until the
run that replaces it has something to put in its place.
"""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bfrbctl import __version__
from bfrbctl.artefacts.files import (
    TEMPORARY,
    Content,
    FileEntry,
    encode_json,
    file_sha256,
    plain,
    write_bytes,
    write_file,
    writing,
)
from bfrbctl.artefacts.folders import (
    ALONGSIDE,
    JOURNAL,
    LOCK,
    MANIFEST,
    PART,
    SCHEMA_VERSION,
    SCRATCH,
    Folder,
    InputRef,
    open_folder,
    sealed,
)
from bfrbctl.artefacts.journals import (
    deciding_libraries,
    kind_name,
    kind_there,
    library_versions,
    open_journal,
    refuse_other_run,
    version_differences,
)
from bfrbctl.artefacts.locks import lock_folder, names_in, refuse_foreign
from bfrbctl.errors import ArtefactError, DataError, OutputError, UsageError, examples
from bfrbctl.reprs import short_repr

_log = logging.getLogger("bfrbctl.outputs")

_ASIDE = f"{SCRATCH}aside-"
"""Prefix of scratch folders of an unfinished run that another run is to replace, until that one begins."""

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


@dataclass(frozen=True)
class Job:
    """What a run is: its folder records it, and a resumed run is recognised by it.

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
    options
        What else the result depends on and the command line gave, by option, for a run that continues this one.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: tuple[InputRef, ...] = ()
    command: tuple[str, ...] = ()
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass
class Output:
    """A folder being written; made by `open_output`, used in its `with`.

    A run is made of *parts*: some files that are published together, then noted in the journal.
    """

    path: Path
    job: Job
    parts: dict[str, dict[str, FileEntry]] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    begun: bool = False
    """Whether the folder is this run's: not yet while a finished or unfinished one in it is only to be replaced."""
    resumed: bool = False
    content: Mapping[str, Any] = field(default_factory=dict)
    planned: Sequence[str] = ()
    scratches: set[str] = field(default_factory=set)
    onto: Folder | None = None
    """The finished folder that this run adds files to; it stays readable as it was until the new manifest is there."""

    __repr__ = short_repr

    def has(self, part: str) -> bool:
        """Whether an earlier run finished this part and its files are still as it left them."""
        files = self.parts.get(part)
        if files is None:
            return False
        sound = all(_matches(self.path / name, entry) for name, entry in files.items())
        if not sound:
            del self.parts[part]
        elif part not in self.reused:
            self.reused.append(part)
        return sound

    def publish(self, part: str, files: Mapping[str, Content]) -> None:
        """Write the files of a part and note it as done."""
        self.begin()
        self.parts[part] = {name: write_file(self.path / name, content) for name, content in files.items()}
        self._note()

    def forget(self, parts: Iterable[str]) -> None:
        """Take parts back that turned out to be wrong; they will be made again."""
        for part in parts:
            self.parts.pop(part, None)
        if self.begun:
            self._note()

    def describe(self, content: Mapping[str, Any], planned: Sequence[str]) -> None:
        """Note what is known already of the manifest's content, and which parts there will be, for `inspect`."""
        self.content, self.planned = content, planned
        if self.begun:
            self._note()

    def read(self, name: str) -> bytes:
        """Read a published file of this run; OutputError when it is gone or changed."""
        entry = next((files[name] for files in self.parts.values() if name in files), None)
        try:
            content = (self.path / name).read_bytes()
        except OSError as error:
            raise OutputError(
                f"{self.path / name}: cannot be read back ({error.strerror})", hint="it was removed; run this again"
            ) from error
        if entry is None or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise OutputError(f"{self.path / name}: is not what this run wrote", hint="start again with --force")
        return content

    def finish(self, content: Mapping[str, Any]) -> "Folder":
        """Write the manifest and remove what only the run itself needed.

        Parameters
        ----------
        content
            What readers need to know of this kind of folder, such as classes, targets, sensors, rate.
        """
        before = self.onto.files if self.onto else {}
        files = {**before, **{name: entry for entries in self.parts.values() for name, entry in entries.items()}}
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
        return self._close(manifest, {name for files in self.parts.values() for name in files})

    def _close(self, manifest: bytes, kept: Iterable[str]) -> "Folder":
        self.begin()
        for left in self.path.glob(f"{SCRATCH}*"):  # of a run killed while it cleared up; no reader takes a sub-folder
            with writing(left):
                shutil.rmtree(left)
        write_bytes(self.path / MANIFEST, manifest)
        self.sweep(keep={*kept, MANIFEST, LOCK})
        return open_folder(self.path)

    def _note(self) -> None:
        parts = {part: {name: vars(entry) for name, entry in files.items()} for part, files in self.parts.items()}
        found = {
            **self._identity,
            "command": list(self.job.command),
            "directory": os.getcwd(),
            "options": self.job.options,
            "libraries": self._libraries,
            "content": self.content,
            "planned": list(self.planned),
            "pieces": parts,
        }
        write_bytes(self.path / JOURNAL, encode_json(sealed(plain(found))))

    @cached_property
    def _libraries(self) -> dict[str, str]:
        return deciding_libraries(self.job.kind, self.job.config)

    @property
    def _identity(self) -> dict[str, Any]:
        return {**self.job.identity, **({"onto": self.onto.sha256} if self.onto else {})}

    def sweep(self, *, keep: set[str], temporary: bool = True) -> None:
        """Remove all files but some, and what is left of scratch folders; the journal last.

        Without it readers refuse what the manifest does not list, also when this is killed half-way. Temporary files
        stay unless `temporary`.
        """
        with writing(self.path):
            for entry in sorted(self.path.iterdir(), key=lambda entry: (entry.name == JOURNAL, entry.name)):
                if entry.name in keep or (entry.name.startswith(TEMPORARY) and not temporary):
                    continue
                if entry.is_file():
                    entry.unlink()
                elif entry.name.startswith(SCRATCH) and entry.is_dir():
                    shutil.rmtree(entry)

    @contextmanager
    def scratch(self, part: str, *, checkpoints: bool = False) -> Iterator[Path]:
        """Give a folder that outlives a crash and goes when its work is done.

        Parameters
        ----------
        part
            What it is for.
        checkpoints
            Whether what an earlier run left in it is of use: files that say themselves what they are of. Otherwise
            the folder is empty.
        """
        folder = self.path / f"{SCRATCH}{part}"
        replaced = not self.begun and folder.name not in self.scratches  # of the run that this one is to replace
        with writing(folder):
            aside = self.path / f"{_ASIDE}{part}"
            if replaced and folder.exists() and not aside.exists():
                folder.rename(aside)
            elif folder.exists() and (replaced or not checkpoints):
                shutil.rmtree(folder)
            self.scratches.add(folder.name)  # before it is there, so that whatever ends the run from here on removes it
            folder.mkdir(exist_ok=True)
            for left in folder.glob(f"{TEMPORARY}*"):
                left.unlink()
        yield folder
        with writing(folder):
            shutil.rmtree(folder)

    def start(self, *, force: bool, resume: bool) -> None:
        """Look at what is there already and make the folder ready; called once, under the lock."""
        finished = (self.path / MANIFEST).exists()
        unfinished = (self.path / JOURNAL).exists() and not finished
        if finished or unfinished:
            self._refuse_other_kind()
        if force:
            refuse_foreign(self.path)
            if finished or unfinished:
                self._remove_temporary()
                return
        elif finished:
            raise OutputError(
                f"{self.path}: exists already and is finished", hint="choose another folder, or replace it with --force"
            )
        elif unfinished and resume:
            refuse_foreign(self.path)
            self._put_back()
            self._continue()
            self.resumed = True
        elif unfinished:
            go_on = "" if self.job.kind == "raw" else "continue it with --resume, which keeps its settings, or "
            raise OutputError(f"{self.path}: an unfinished run is in it", hint=f"{go_on}replace it with --force")
        elif names_in(self.path):
            raise OutputError(f"{self.path}: is not empty and not a folder of ours", hint="choose another folder")
        self._remove_temporary()
        self.begin()

    def begin(self) -> None:
        """Make the folder this run's; what it held until now goes, and the next thing in it is of this run.

        The first part that is published does it. A run that has proved itself before, such as a training after its
        first round, says so earlier, so that a kill from then on can be resumed.
        """
        if self.begun:
            return
        self._note()  # before anything is removed, so that a kill from here on leaves a folder known as ours
        self.begun = True  # only now: where no journal could be written, the folder is still what it was
        with writing(self.path / MANIFEST):
            (self.path / MANIFEST).unlink(missing_ok=True)
        published = {name for files in self.parts.values() for name in files}
        found = {entry.name for entry in self.path.glob(f"{SCRATCH}*")} if self.resumed else self.scratches
        self.sweep(keep=published | found | {LOCK, JOURNAL}, temporary=False)

    def _remove_temporary(self) -> None:
        with writing(self.path):
            for left in self.path.glob(f"{TEMPORARY}*"):
                if left.is_file():
                    left.unlink()

    def _refuse_other_kind(self) -> None:
        """Refuse to continue or to replace a folder of another kind; a damaged one that cannot be opened is of none."""
        there, ours = kind_there(self.path), kind_name(self.job.kind, self.job.config)
        if there is not None and there != ours:
            raise OutputError(
                f"{self.path}: holds a {there} folder, and this command writes a {ours} folder",
                hint="name another folder to write into; the last folder named is the one that is written",
            )

    def start_onto(self, *, resume: bool) -> None:
        """Make a finished folder ready for more files; called once, under the lock.

        What an append left that was killed is continued with `resume`, and removed without. Whatever it gathered is
        gathered again: readers take a scratch folder for what it is as long as there is a journal.
        """
        self.onto = open_folder(self.path, self.job.kind)
        if resume and (self.path / JOURNAL).exists():
            self._continue()
            self.resumed = True
        self._note()
        self.sweep(keep={*self._before, JOURNAL, *(name for files in self.parts.values() for name in files)})
        self.begun = True

    def discard(self) -> None:
        """Remove all that this run wrote, and nothing that an earlier one did.

        For a caller who knows that no later run can use it: the recordings themselves cannot be used, so that the
        next run will have another input or other settings.
        """
        if not self.begun or self.resumed:
            return
        if self.onto:
            self.sweep(keep={*self._before, JOURNAL})
            (self.path / JOURNAL).unlink(missing_ok=True)  # last: without it, readers refuse files that are not listed
        elif not (self.path / MANIFEST).exists():
            self.sweep(keep={LOCK})

    def refuse_input(self, error: DataError) -> None:
        """Discard what this run wrote of an input that is wrong; of one that could not be read for once, keep it."""
        if not isinstance(error.__cause__, OSError):
            self.discard()

    def leave(self) -> None:
        """After an error: take along what holds no result, so that --force is not needed for it.

        Parts and checkpoints stay for --resume; a file without content, such as one for progress to come, is neither.
        """
        made = [path for name in self.scratches for path in (self.path / name).rglob("*")]
        if self.begun and not self.parts and not any(path.is_file() and path.stat().st_size for path in made):
            self.discard()

    def withdraw(self) -> None:
        """Leave a folder that was only to be replaced, or is refused, as it was, however the run ended.

        What an earlier run left in it that was killed before it began goes too: without the lock file, readers would
        refuse a finished folder with scratch folders in it.
        """
        if self.begun:
            return
        for name in self.scratches:
            shutil.rmtree(self.path / name, ignore_errors=True)
        if not kind_there(self.path):
            return  # not ours
        self._put_back()
        if not (self.path / JOURNAL).exists():
            for left in self.path.glob(f"{SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
        self._remove_temporary()

    def _put_back(self) -> None:
        """Give an unfinished run the scratch folders back that a run which was to replace it had put aside."""
        with writing(self.path):
            for aside in self.path.glob(f"{_ASIDE}*"):
                folder = self.path / f"{SCRATCH}{aside.name.removeprefix(_ASIDE)}"
                if folder.exists():
                    shutil.rmtree(folder)
                aside.rename(folder)

    @property
    def _before(self) -> set[str]:
        return {*(self.onto.files if self.onto else ()), MANIFEST, LOCK, *ALONGSIDE}

    def _continue(self) -> None:
        try:
            journal = open_journal(self.path)
        except ArtefactError as error:
            raise OutputError(error.what, hint=f"it was damaged or changed; {self._again}") from error
        refuse_other_run(self.path, journal, plain(self._identity), again=self._again)
        if journal.libraries is None:
            _log.warning(
                "%s: was begun by an earlier bfrbctl, which did not note the versions of its libraries; what is "
                "finished is right if they are the same now, otherwise %s",
                self.path,
                self._again,
            )
        elif different := version_differences(journal.libraries, self._libraries):
            raise OutputError(
                f"{self.path}: the unfinished run in it was begun with other versions of {examples(different)}",
                hint=f"other versions may give other results: install those again, or {self._again}",
            )
        if journal.command:  # of the run that chose the settings; this one may have said no more than --resume
            self.job = replace(self.job, command=journal.command, options={**journal.options, **self.job.options})
        self.content, self.planned = journal.content, journal.planned
        self.parts = {part: dict(files) for part, files in journal.parts.items()}

    @property
    def _again(self) -> str:
        return "begin the addition again with --append alone" if self.onto else "start again with --force"


@contextmanager
def open_output(
    path: Path, job: Job, *, force: bool = False, resume: bool = False, append: bool = False
) -> Iterator[Output]:
    """Make, continue or (append) add to an output folder, alone: a second run is refused while this one goes on.

    Raises
    ------
    OutputError
        When the folder exists (and neither `force` nor `resume` fits), is locked, or cannot be written.
    UsageError
        When both `force` and `resume` are given: one would throw away what the other goes on with.
    """
    if force and resume:
        raise UsageError(
            "--force and --resume exclude each other", hint="one replaces what is there, the other continues it"
        )
    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made a folder ({error.strerror})", hint="choose another path") from error
    lock = lock_folder(path)
    output = Output(path, job)
    try:
        if append:
            output.start_onto(resume=resume)
        else:
            output.start(force=force, resume=resume)
        yield output
    except Exception as error:
        with suppress(OSError, OutputError):  # a disk that fails cannot be cleared up; the error itself says so
            output.leave()
        if not isinstance(error, OSError):
            raise  # of libraries that write by themselves, such as to a scratch folder
        if error.errno in _OF_THE_DISK or str(error.filename).startswith(str(path)):
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error})",
                hint="check its free space and permissions",
            ) from error
        raise
    finally:
        with suppress(OSError, OutputError):  # a disk that fails says so where it matters
            output.withdraw()
        with suppress(OSError):  # as above; a lock file left behind does no harm
            (path / LOCK).unlink(missing_ok=True)
            if created and path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        lock.release()


def _matches(path: Path, entry: FileEntry) -> bool:
    try:
        return path.stat().st_size == entry.size and file_sha256(path) == entry.sha256
    except OSError:
        return False
