"""Arrays and a little JSON in one npz file: safe to read from anybody, the same bytes for the same values.

NumPy's own `savez` writes the time of day into the archive and its `load` believes the header: here the time is
fixed, and shapes and types are checked against what is expected before any array is read.
"""

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from bfrbctl.arrays.ragged import AnyArray
from bfrbctl.artefacts.files import parse_json, write_bytes
from bfrbctl.errors import ArtefactError

_log = logging.getLogger("bfrbctl.training")

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member: the oldest a zip file can hold."""

META = "meta"
"""Name of the array that holds JSON as bytes."""

MAX_META = 64 * 2**20
"""Bytes of JSON that are read at most."""

_UNSOUND = (zipfile.BadZipFile, ValueError, OSError, EOFError, SyntaxError, RuntimeError, TokenError, zlib.error)
"""What zipfile and NumPy raise of an npz file that was cut short or changed."""

Shapes = Mapping[str, tuple[tuple[int, ...], str]]
"""Expected arrays: name -> (shape, dtype)."""


def pack_arrays(arrays: Mapping[str, AnyArray]) -> bytes:
    """Write named arrays to npz bytes that depend on names and values alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name], order="C"), version=(1, 0), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=EPOCH)
            member.create_system = 3  # the same on every system
            archive.writestr(member, content.getvalue())
    return out.getvalue()


def unpack_arrays(content: bytes, expected: Shapes, *, what: str) -> dict[str, AnyArray]:
    """Read npz bytes that must hold exactly the expected arrays, all finite.

    Parameters
    ----------
    content
        Bytes of a stored (not compressed) npz file.
    expected
        Name -> shape and dtype; nothing larger is ever allocated.
    what
        Name of the file, for errors.

    Raises
    ------
    ArtefactError
        When a name, shape, type or size is another, or a number is not finite.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = sorted(member.filename for member in archive.infolist())
            if found != sorted(f"{name}.npy" for name in expected):
                raise ArtefactError(f"{what}: its arrays are not those of the network in its spec")
            return {name: _read(archive, name, *expected[name], what=what) for name in sorted(expected)}
    except _UNSOUND as error:
        raise ArtefactError(f"{what}: is not a sound npz file ({error})") from error


def _read(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str, *, what: str) -> AnyArray:
    member = archive.getinfo(f"{name}.npy")
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if member.compress_type != zipfile.ZIP_STORED or not size <= member.file_size <= size + 1024:
        raise ArtefactError(f"{what}: array {name} has {member.file_size} bytes, expected {size} and a header")
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ArtefactError(f"{what}: array {name} has an unknown header")
        header = np.lib.format.read_array_header_1_0(stream)
        if header != (shape, False, np.dtype(dtype)):
            raise ArtefactError(f"{what}: array {name} is {header[2]} {header[0]}, expected {dtype} {shape}")
        values = np.frombuffer(stream.read(size), dtype=dtype).reshape(shape)
        if stream.read(1):  # also what makes zipfile compare the checksum
            raise ArtefactError(f"{what}: array {name} is followed by bytes that do not belong to it")
    if not np.isfinite(values).all():
        raise ArtefactError(f"{what}: array {name} has numbers that are not finite")
    return values


def save_state(path: Path, arrays: Mapping[str, AnyArray], meta: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a crash at any moment leaves the old one or the new one, never half."""
    text = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), dtype=np.uint8)
    write_bytes(path, pack_arrays({**arrays, META: text}))


def save_arrays(path: Path, arrays: Mapping[str, AnyArray]) -> str:
    """Write named arrays as `pack_arrays` does, whole or not at all; gives the sha256 of the file."""
    return write_bytes(path, pack_arrays(arrays)).sha256


def is_sound(path: Path, sha256: str) -> bool:
    """Whether a file is there and has the bytes that were written."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == sha256
    except OSError:
        return False


def load_state(path: Path) -> tuple[dict[str, AnyArray], dict[str, Any]] | None:
    """Read a checkpoint of our own; None where there is none or, with a warning, where it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = parse_json(arrays.pop(META).tobytes(), META)
        if not isinstance(meta, dict):
            raise ValueError(f"its {META} is no object")
    except (ArtefactError, KeyError, TypeError, AttributeError, MemoryError, *_UNSOUND) as error:
        warn_damaged(path, error)
        return None
    return arrays, meta


def warn_damaged(path: Path, why: object) -> None:
    """Say that a checkpoint is not used."""
    _log.warning("%s: the checkpoint is damaged (%s); training begins anew", path, why)


def numbered(values: Sequence[AnyArray], prefix: str) -> dict[str, AnyArray]:
    """Name arrays by their position: prefix00000, prefix00001, ..."""
    return {f"{prefix}{position:05d}": np.asarray(value) for position, value in enumerate(values)}


def in_order(arrays: Mapping[str, AnyArray], prefix: str) -> list[AnyArray]:
    """Give back what `numbered` named, in order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(prefix)]
