"""Single files: atomic writes, and reading what a stranger may have made.

A file is written under a temporary name, flushed to disk, and moved over its final name, so it is there whole or not
at all. What is read is JSON, Parquet and plain bytes; nothing is ever unpickled.
"""

import errno
import hashlib
import io
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bfrbctl.errors import ArtefactError, OutputError

TEMPORARY = ".tmp-"
"""Prefix of files being written; what a killed run left of them is removed by the next one."""

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 64
MAX_INTEGER_DIGITS = 40
MAX_PARQUET_CELLS = 1 << 32
_CELLS, _CELLS_A_BYTE = 1 << 25, 64
_UNPACKED, _UNPACKED_A_BYTE = 64 << 20, 256

Content = bytes | pl.DataFrame | Path
"""What a file is made of: its bytes, a table to be written as Parquet, or a finished temporary file to be moved."""

# The first array that polars makes looks up NumPy's interface, where Ctrl-C would be a panic: do it while nothing runs.
pl.DataFrame({"": [0.0]}).to_numpy()


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and sha256 (hex) of one file."""

    size: int
    sha256: str


def encode_json(value: object) -> bytes:
    """Write JSON, the same bytes for the same value; NaN and infinity are refused (ValueError)."""
    return (json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(content: bytes, what: str) -> Any:
    """Read JSON that a stranger may have written.

    Raises
    ------
    ArtefactError
        When it is too large, too deep, not JSON, or has a key twice; `what` names the file in the message.
    """
    if len(content) > MAX_JSON_BYTES:
        raise ArtefactError(f"{what}: {len(content)} bytes of JSON, expected at most {MAX_JSON_BYTES}")
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_not_too_long,
        )
        if "\\u" in text:  # half of a surrogate pair is JSON, but no text that could ever be written
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{what}: not well-formed JSON ({error})", hint="make or download it again") from error
    if _depth(value) > MAX_JSON_DEPTH:
        raise ArtefactError(f"{what}: JSON nested deeper than {MAX_JSON_DEPTH} levels")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is larger than any number can be")
    return number


def _not_too_long(text: str) -> int:
    if len(text) > MAX_INTEGER_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def _depth(value: Any) -> int:
    level, deepest = [value], 0
    while level and deepest <= MAX_JSON_DEPTH:
        deepest += 1
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children += item.values()
            elif isinstance(item, list):
                children += item
        level = children
    return deepest


def plain(value: object) -> Any:
    """Turn tuples, paths and mappings into what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def temporary_path(path: Path) -> Path:
    """Draw a name, in the same folder, under which a file is written before it is published.

    No two calls give the same name, so that two writers of one file never publish each other's bytes.
    """
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}-{path.name[-40:]}")  # no longer than names may be


def write_bytes(path: Path, content: bytes) -> FileEntry:
    """Write a file so that it is there whole or not at all.

    Raises
    ------
    OutputError
        When it cannot be written; the message names the path and the reason.
    """
    temporary = temporary_path(path)
    with writing(path, temporary):
        with temporary.open("xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())


def parquet_bytes(frame: pl.DataFrame, *, row_group_rows: int | None = None) -> bytes:
    """Encode a table as Parquet (zstd); the same table gives the same bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(
        buffer, compression="zstd", compression_level=1, row_group_size=row_group_rows, statistics=False
    )
    return buffer.getvalue()


def write_file(path: Path, content: Content) -> FileEntry:
    """Publish bytes, a table, or a finished temporary file under `path`, atomically; raises as `write_bytes`."""
    if isinstance(content, bytes):
        return write_bytes(path, content)
    if isinstance(content, pl.DataFrame):
        return write_bytes(path, parquet_bytes(content))
    with writing(path, content):
        with content.open("rb+") as handle:
            os.fsync(handle.fileno())
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            size = handle.tell()
        os.replace(content, path)
        _sync_folder(path.parent)
    return FileEntry(size, digest)


def _sync_folder(path: Path) -> None:
    """Bring new names to the disk in the order that they were given, so that a power cut leaves no gap in them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot do it for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn what the operating system says of a failed write into an OutputError that names the path.

    Parameters
    ----------
    path
        What is written.
    temporary
        A file that shall not stay behind when the write fails or is interrupted.
    """
    written = False
    try:
        yield
        written = True
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error})", hint="check its free space and permissions"
        ) from error
    finally:
        if temporary is not None and not written:
            with suppress(OSError):  # a disk that cannot be written cannot be cleared up either; the next run does
                temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Digest of a file's content (hex)."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def decode_parquet(content: bytes, what: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read Parquet bytes that a stranger may have written; ArtefactError when they are not sound."""
    hint = "make or download the folder again"
    check_parquet(content, what)
    try:
        frame = pl.read_parquet(io.BytesIO(content), columns=None if columns is None else list(columns))
    except pl.exceptions.ColumnNotFoundError as error:
        raise ArtefactError(f"{what}: has no column {error}", hint=hint) from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise ArtefactError(f"{what}: cannot be read as Parquet ({error})", hint=hint) from error
    return frame


def check_parquet(content: bytes, what: str) -> None:
    """Refuse a Parquet file whose footer is broken or promises absurd totals (ArtefactError)."""
    if len(content) < 12 or content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise ArtefactError(f"{what}: is not a Parquet file, or was cut short", hint="make or download it again")
    if int.from_bytes(content[-8:-4], "little") > len(content) - 12:
        raise ArtefactError(f"{what}: its Parquet footer is longer than the file", hint="make or download it again")
    try:
        footer = pq.read_metadata(io.BytesIO(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArtefactError(f"{what}: its Parquet footer cannot be read ({error})") from error
    absurd = absurd_totals(footer, len(content))
    if absurd:
        raise ArtefactError(f"{what}: {absurd}", hint="do not trust this file")


def absurd_totals(footer: pq.FileMetaData, n_bytes: int) -> str | None:
    """Say what a Parquet footer promises beyond what a file of so many bytes could hold; None when it is sound.

    A few kilobytes can unpack to any size. What our files hold is measurements, which do not: the bounds are some
    ten times what the emptiest of them reach.
    """
    cells = footer.num_rows * max(footer.num_columns, 1)
    if not 0 <= cells <= min(MAX_PARQUET_CELLS, _CELLS + _CELLS_A_BYTE * n_bytes):
        return f"promises {footer.num_rows} rows x {footer.num_columns} columns, more than we accept in {n_bytes} bytes"
    unpacked = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
    if not 0 <= unpacked <= _UNPACKED + _UNPACKED_A_BYTE * n_bytes:
        return f"promises {unpacked} bytes packed into {n_bytes}"
    return None


def read_regular(path: Path, *, limit: int) -> bytes:
    """Read a plain file, no more than limit + 1 bytes; symlinks and devices are refused (ArtefactError)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as handle:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ArtefactError(f"{path}: is not a plain file")
            return handle.read(limit + 1)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
