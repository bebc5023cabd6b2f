"""Finished folders: what a manifest holds, and reading one that may come from a stranger.

Checked in this order, before a byte is parsed: the path is a folder; no symlink and no unlisted file is in it; the
manifest is small, well formed and as it was sealed, lists only kinds of files that we write, and has sound classes,
sensors and folds; each file has the size and the sha256 that the manifest gives; a Parquet footer does not promise more
than could be true.

A folder packed for an upload is the folder it was, manifest and digest included, with a few files beside it that
`pack.json` lists in the same way; other names are refused.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from bfrbctl.artefacts.content import CONTENT, C, Content, Lookup, ModelContent, read_content
from bfrbctl.artefacts.files import (
    MAX_JSON_BYTES,
    TEMPORARY,
    FileEntry,
    decode_parquet,
    encode_json,
    file_sha256,
    parse_json,
    read_regular,
)
from bfrbctl.artefacts.tables import check_table
from bfrbctl.errors import ArtefactError, DataError, UsageError, examples
from bfrbctl.reprs import written

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = "journal.json"
LOCK = ".lock"
PART = "part-"
"""Prefix of files that a later part of the same run merges; they are removed when the folder is finished."""
SCRATCH = f"{PART}scratch-"
"""Prefix of sub-folders for what a run needs until a part of it is done; nothing else reads them."""
PACK = "pack.json"
METADATA = "dataset-metadata.json"
ALONGSIDE = frozenset({METADATA, PACK})
_ALONGSIDE = ALONGSIDE | {MANIFEST, JOURNAL, LOCK}
"""Files that need not be in the manifest; dataset-metadata.json is for Kaggle, which keeps it to itself."""

MAX_FILE_BYTES = 4 << 30
"""No file that is read whole is as large as this."""

SEAL = "seal"
"""Key of the digest of all other keys of a manifest or a journal."""

SEQUENCES = "sequences.parquet"
QUALITY = "quality.parquet"

_APPENDED = re.compile(r"(frames|sequences|quality)-[0-9]{5}\.parquet")
"""What an append may be writing while the folder is still what it was; it is read only once a manifest lists it."""

_DESCRIBING = ("model", "members", "classes", "rate_hz", "thm", "tof", "n_folds", "n_features", "n_frames")
"""Keys of a manifest's content that represent a folder."""

_AGAIN = "the folder does not hold together; make or download it again"

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SUFFIXES = (".json", ".jsonl", ".parquet", ".npz", ".txt", ".csv")
_PACKED = re.compile(r"bfrbctl-[0-9][0-9A-Za-z.]*-py3-none-any\.whl|submission\.py|README\.md")
"""The only names that pack.json may list."""


@dataclass(frozen=True)
class InputRef:
    """One input of a run: a name to show, its kind, and the digest of its manifest or file."""

    name: str
    kind: str
    sha256: str


@dataclass(frozen=True)
class Folder:
    """A finished folder, its manifest already checked; files are checked when they are read."""

    path: Path
    kind: str
    config: Mapping[str, Any]
    content: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    sha256: str
    """Digest of what the folder is - kind, settings, seed, inputs, files - but not of the command or the versions."""
    manifest: Mapping[str, Any]
    assembled: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files that no disk holds: of an unfinished run, what its finished parts amount to."""
    checked: Content | None = field(default=None, repr=False, compare=False)
    """The content as it was checked when the folder was opened; None of an unfinished run."""

    def __repr__(self) -> str:
        what = {key: self.content[key] for key in _DESCRIBING if key in self.content}
        n_bytes = sum(entry.size for entry in self.files.values())
        size = {"files": len(self.files), "bytes": n_bytes, "sha256": f"{self.sha256[:12]}..."}
        return written("Folder", {"kind": self.kind, "path": self.path, **what, **size})

    def typed(self, model: type[C]) -> C:
        """Give the content as a model, such as `LabelledContent`; ArtefactError where it is of another kind."""
        if isinstance(self.checked, model):
            return self.checked
        return read_content(model, self.content, str(self.path / MANIFEST))

    def names(self, pattern: str) -> list[str]:
        """Files whose whole name matches a regular expression, sorted."""
        return sorted(name for name in self.files if re.fullmatch(pattern, name))

    def read(self, name: str) -> bytes:
        """Read a file, and check that it is the one in the manifest.

        Raises
        ------
        ArtefactError
            When it is not listed, missing, or its size or digest differs.
        """
        if name in self.assembled:
            return self.assembled[name]
        entry = self.files.get(name)
        if entry is None:
            raise ArtefactError(f"{self.path}: has no {name}", hint=f"there is {examples(sorted(self.files))}")
        if entry.size > MAX_FILE_BYTES:
            raise ArtefactError(f"{self.path / name}: has {entry.size} bytes, we read at most {MAX_FILE_BYTES}")
        content = read_regular(self.path / name, limit=entry.size)
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ArtefactError(
                f"{self.path / name}: is not the file that the manifest lists (sha256 differs)",
                hint="it was damaged or changed; make or download the folder again",
            )
        return content

    def expect(self, sha256: str | None) -> "Folder":
        """Give the folder back if its digest is the expected one, or none is expected.

        Raises
        ------
        ArtefactError
            When it is another folder; both digests are named.
        UsageError
            When what is expected is no digest.
        """
        if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise UsageError(f"--expect-sha256 {sha256}: expected 64 hexadecimal digits")
        if sha256 is not None and sha256.lower() != self.sha256:
            raise ArtefactError(
                f"{self.path}: has the digest {self.sha256}, expected {sha256.lower()}",
                hint="it is not the folder you mean; get that one, or expect this one if you trust it",
            )
        return self

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the folder."""
        what = str(self.path / name)
        value = parse_json(self.read(name), what)
        if re.fullmatch(r"member-\d+\.json", name):  # from the manifest of a blend's member
            if not isinstance(value, dict) or not isinstance(value.get("content"), dict):
                raise ArtefactError(f"{what}: does not describe a member")
            read_content(ModelContent, value["content"], what)
        return value

    def read_parquet(self, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read a Parquet file of the folder, all columns or some; ArtefactError for a missing or mistyped one."""
        frame = decode_parquet(self.read(name), str(self.path / name), columns)
        check_table(frame, self.kind, name, str(self.path / name), whole=columns is None)
        return frame

    def parts(self, name: str) -> list[str]:
        """Files of a table that may lie in several, in order: `x.parquet`, `x-00001.parquet` ..."""
        return [name, *self.names(rf"{name.removesuffix('.parquet')}-\d{{5}}\.parquet")]

    def read_together(self, name: str) -> pl.DataFrame:
        """Read a table that lies in several files as one.

        Raises
        ------
        ArtefactError
            As `read_parquet`, and when the files do not fit each other.
        """
        names = self.parts(name)
        try:
            table = pl.concat([self.read_parquet(each) for each in names])
        except pl.exceptions.PolarsError as error:
            raise ArtefactError(f"{self.path}: {examples(names)} have other columns ({error})", hint=_AGAIN) from error
        if "sequence_id" in table.columns and name == SEQUENCES and table["sequence_id"].is_duplicated().any():
            raise ArtefactError(f"{self.path}: has a sequence in two of {examples(names)}", hint=_AGAIN)
        return table

    def ref(self) -> InputRef:
        """Name this folder as an input of a run."""
        return InputRef(self.path.name, self.kind, self.sha256)

    def pinned(self) -> "Pinned":
        """Give what a worker needs to open this folder and no other one."""
        return Pinned(self.path.absolute(), self.kind, self.sha256)


@dataclass(frozen=True)
class Pinned:
    """An input of a run as it was when the run began, for workers that open it by themselves.

    Parameters
    ----------
    path
        Folder or raw file, absolute.
    kind
        Kind of the folder, or `file`.
    sha256
        Digest of what it is, as in `InputRef`.
    """

    path: Path
    kind: str
    sha256: str

    def open(self) -> Folder:
        """Open the folder.

        Raises
        ------
        ArtefactError
            When it is not what it was, and as `open_folder`.
        """
        folder = open_folder(self.path, self.kind)
        if folder.sha256 != self.sha256:
            raise ArtefactError(
                f"{self.path}: was changed while this run uses it (digest {folder.sha256}, {self.sha256} before)",
                hint="let nothing write into it during a run, and run this again",
            )
        return folder


def open_folder(path: Path, *kinds: str) -> Folder:
    """Open a finished folder, trusting nothing in it.

    Parameters
    ----------
    path
        The folder.
    kinds
        Kinds that are accepted; any when empty.

    Raises
    ------
    ArtefactError
        When it is missing, unfinished, unsafe, damaged, or of another kind.
    """
    if not path.is_dir():
        raise ArtefactError(f"{path}: {'is not a folder' if path.exists() else 'there is no such folder'}")
    refuse_unfinished(path)
    try:
        names = _safe_names(path)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})", hint="check its permissions") from error
    if MANIFEST not in names:
        raise ArtefactError(
            f"{path}: has no {MANIFEST}, so it is not a folder of ours", hint="give a folder bfrbctl wrote"
        )
    raw = read_regular(path / MANIFEST, limit=MAX_JSON_BYTES)
    manifest = parse_json(raw, str(path / MANIFEST))
    files = _file_entries(manifest, path / MANIFEST)
    refused = sorted(name for name in files if not name.endswith(_SUFFIXES))
    if refused:
        raise ArtefactError(
            f"{path / refused[0]}: is no kind of file that folders of ours hold",
            hint="do not trust this folder",
        )
    sha256 = _identity_digest(manifest)
    packed = _packed(path, sha256) if PACK in names else {}
    _check_files(path, names, {**packed, **files})
    folder = Folder(
        path=path,
        kind=_expect(manifest, "kind", str, path),
        config=_expect(manifest, "config", dict, path),
        content=Lookup(_expect(manifest, "content", dict, path), path / MANIFEST),
        files=MappingProxyType(files),
        sha256=sha256,
        manifest=manifest,
    )
    if kinds and folder.kind not in kinds:
        raise ArtefactError(f"{path}: is a {folder.kind} folder, expected {' or '.join(kinds)}")
    written = _expect(manifest, "schema_version", int, path)
    if written > SCHEMA_VERSION:
        raise ArtefactError(
            f"{path}: has schema version {written}, this bfrbctl reads up to {SCHEMA_VERSION}",
            hint=f"it was written by bfrbctl {manifest.get('bfrbctl')}; install that version or a later one",
        )
    check_seal(manifest, str(path / MANIFEST))
    if folder.kind not in CONTENT:
        raise ArtefactError(
            f"{path / MANIFEST}: kind is {folder.kind[:60]!r}, expected {', '.join(CONTENT)}", hint=_AGAIN
        )
    return replace(folder, checked=folder.typed(CONTENT[folder.kind]))


def is_unfinished(path: Path) -> bool:
    """Whether a run is writing this folder, or was interrupted before it was finished."""
    return (path / JOURNAL).is_file() and not (path / MANIFEST).exists()


def refuse_unfinished(path: Path) -> None:
    """Refuse a folder that a run has not finished; the ArtefactError gives the command that continues it."""
    if not is_unfinished(path):
        return
    try:
        journal = read_journal(path)
    except ArtefactError:
        journal = {}
    raise ArtefactError(
        f"{path}: is unfinished: a run is writing it, or was interrupted",
        hint=f"wait for it, or continue it: {continue_command(journal)}",
    )


def read_journal(path: Path) -> dict[str, Any]:
    """Read the journal of a folder; ArtefactError when it is missing, damaged, or not of this version."""
    what = str(path / JOURNAL)
    journal = parse_json(read_regular(path / JOURNAL, limit=MAX_JSON_BYTES), what)
    if not isinstance(journal, dict) or SEAL not in journal:
        raise ArtefactError(f"{what}: is not a journal of this version")
    check_seal(journal, what)
    return journal


def continue_command(journal: Mapping[str, Any]) -> str:
    """Give the command that continues a run: the one that began it, with --resume, where it was given.

    >>> continue_command({"command": ["bfrbctl", "train", "lgbm", "features", "my lgbm", "--force"]})
    "bfrbctl train lgbm features 'my lgbm' --resume"
    """
    words, directory = journal.get("command"), journal.get("directory")
    words = words if isinstance(words, list) else []
    if len(words) < 2 or words[0] != "bfrbctl" or not all(isinstance(w, str) and w.isprintable() for w in words):
        return "the command that began it, with --resume"
    line = shlex.join([*(word for word in words if word not in ("--force", "--resume")), "--resume"])
    if words[1] == "simulate":
        line = line.removesuffix("--resume") + "--force"  # nothing of it can be continued
    elsewhere = isinstance(directory, str) and directory.isprintable() and Path(directory) != Path.cwd()
    return f"cd {shlex.quote(directory)} && {line}" if elsewhere and isinstance(directory, str) else line


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the digest of a manifest or a journal to it, so that damage is noticed."""
    rest = {key: value for key, value in values.items() if key != SEAL}
    return {**rest, SEAL: hashlib.sha256(encode_json(rest)).hexdigest()}


def check_seal(values: Mapping[str, Any], what: str) -> None:
    """Compare the seal with the rest, where there is one; ArtefactError when they do not fit."""
    if SEAL in values and sealed(values)[SEAL] != values[SEAL]:
        raise ArtefactError(
            f"{what}: is not as it was written (its seal differs)",
            hint="it was damaged or changed; make or download the folder again",
        )


def _identity_digest(manifest: Mapping[str, Any]) -> str:
    inputs = [ref.get("sha256") if isinstance(ref, dict) else None for ref in _expect(manifest, "inputs", list, Path())]
    parts = {key: manifest.get(key) for key in ("kind", "schema_version", "config", "seed", "content", "files")}
    return hashlib.sha256(encode_json({**parts, "inputs": inputs})).hexdigest()


def _safe_names(path: Path) -> set[str]:
    """Names of the files; ArtefactError for anything else but the scratch folders of a run that writes here, or did.

    Those are not read: files are opened by the names that the manifest lists.
    """
    with os.scandir(path) as entries:
        found = {entry.name: entry for entry in entries}
    scratch = {
        name
        for name, entry in found.items()
        if name.startswith(SCRATCH) and entry.is_dir(follow_symlinks=False) and found.keys() & {JOURNAL, LOCK}
    }
    for name in sorted(found.keys() - scratch):
        entry = found[name]
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise ArtefactError(
                f"{path / name}: is not a plain file; folders of ours hold nothing else",
                hint="do not trust this folder unless you know why it is there",
            )
    return set(found) - scratch


def _check_files(path: Path, names: set[str], files: Mapping[str, FileEntry]) -> None:
    left_behind = {name for name in names if name.startswith((TEMPORARY, PART))}
    if JOURNAL in names:
        left_behind |= {name for name in names if _APPENDED.fullmatch(name)}
    unknown = sorted(names - set(files) - _ALONGSIDE - left_behind)
    if unknown:
        raise ArtefactError(
            f"{path}: has files that its manifest does not list ({examples(unknown)})",
            hint="remove them if they are yours; do not trust the folder otherwise",
        )
    missing = sorted(set(files) - names)
    if missing:
        raise ArtefactError(f"{path}: lacks {examples(missing)}", hint="make or download the folder again")
    for name, entry in files.items():
        try:
            size = (path / name).stat().st_size
        except OSError as error:  # it was there a moment ago: another process replaces the folder
            raise ArtefactError(f"{path / name}: cannot be read ({error.strerror})", hint="try again") from error
        if size != entry.size:
            raise ArtefactError(
                f"{path / name}: has {size} bytes, the manifest says {entry.size}",
                hint="it was damaged or changed; make or download the folder again",
            )


def _packed(path: Path, sha256: str) -> dict[str, FileEntry]:
    """Read which files lie beside a packed folder, and check that they are what they were; nothing else reads them."""
    beside = parse_json(read_regular(path / PACK, limit=MAX_JSON_BYTES), str(path / PACK))
    files = _file_entries(beside, path / PACK)
    check_seal(beside, str(path / PACK))
    if beside.get("artefact") != sha256:
        raise ArtefactError(
            f"{path / PACK}: is of the folder {beside.get('artefact')}, this one has the digest {sha256}",
            hint="pack the folder again",
        )
    for name, entry in files.items():
        if not _PACKED.fullmatch(name):
            raise ArtefactError(f"{path / PACK}: lists {name}, which no packed folder has beside it")
        try:
            same = (path / name).stat().st_size == entry.size and file_sha256(path / name) == entry.sha256
        except OSError as error:
            raise ArtefactError(f"{path / name}: cannot be read ({error.strerror})") from error
        if not same:
            raise ArtefactError(
                f"{path / name}: is not the file that {PACK} lists (sha256 differs)",
                hint="it was damaged or changed; pack or download the folder again",
            )
    return files


def _file_entries(manifest: Any, source: Path) -> dict[str, FileEntry]:
    found: dict[str, FileEntry] = {}
    for name, entry in _expect(manifest, "files", dict, source.parent, source.name).items():
        sound = isinstance(entry, dict) and set(entry) == {"size", "sha256"}
        if not sound or type(entry["size"]) is not int or not isinstance(entry["sha256"], str) or entry["size"] < 0:
            raise ArtefactError(f"{source}: gives no size and sha256 of {name!r}")
        found[file_name(name, str(source))] = FileEntry(entry["size"], entry["sha256"])
    return found


def could_be_ours(name: str) -> bool:
    """Whether a file of this name could be one that we wrote into a folder."""
    return bool(_FILE_NAME.fullmatch(name) and name.endswith(_SUFFIXES)) or bool(_PACKED.fullmatch(name))


def file_name(name: str, what: str) -> str:
    """Check a file name from a manifest or journal; ArtefactError when it could lead out of the folder."""
    if not _FILE_NAME.fullmatch(name) or name in _ALONGSIDE:
        raise ArtefactError(f"{what}: lists {name!r}, which is no file name of ours")
    return name


def _expect(manifest: Any, key: str, kind: type[Any], path: Path, name: str = MANIFEST) -> Any:
    value = manifest.get(key) if isinstance(manifest, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArtefactError(f"{path / name}: {key!r} is missing or not a {kind.__name__}")
    return value


def input_file_ref(path: Path) -> InputRef:
    """Name a raw file as an input of a run; DataError when it cannot be read."""
    return InputRef(path.name, "file", pinned_file(path).sha256)


def pinned_file(path: Path) -> Pinned:
    """Give what a raw file is now; it is read again only when it was written since. DataError when it cannot be."""
    try:
        found = path.stat()
        return _pinned_file(path.absolute(), (found.st_ino, found.st_size, found.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error


@lru_cache(maxsize=64)
def _pinned_file(path: Path, _written: tuple[int, int, int]) -> Pinned:
    return Pinned(path, "file", file_sha256(path))


def current_digest(path: Path) -> str | None:
    """Give the digest of a folder of ours or a raw file, as `Pinned` has it; None where there is no sound one."""
    try:
        return open_folder(path).sha256 if path.is_dir() else file_sha256(path)
    except (ArtefactError, OSError):
        return None
