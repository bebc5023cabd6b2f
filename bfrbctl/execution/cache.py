"""Space for large arrays: in memory up to a bound, beyond it in memory-mapped files.

A mapped array works like any other and holds the same bits. Its pages are read when they are used, and the operating
system may drop them when memory is short. The files have no name: their space is free again as soon as the array is
gone, also when the process is killed.
"""

import mmap
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

from bfrbctl.arrays.ragged import AnyArray, Int64, take_segments
from bfrbctl.artefacts.files import TEMPORARY
from bfrbctl.errors import OutputError
from bfrbctl.execution.memory import available_memory

_BLOCK_BYTES = 32 * 2**20
"""Bytes that are copied at once into a mapped array."""


class Cache:
    """Makes arrays, and counts the memory of those that are still in use.

    Parameters
    ----------
    bound
        Bytes of memory for all arrays together; None is no bound.
    folder
        Where the files go; None makes every array in memory.

    Examples
    --------
    >>> Cache().zeros((2, 2), np.float32).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, bound: int | None = None, folder: Path | None = None) -> None:
        self.bound = None if folder is None else bound
        self.folder = folder
        self.used = 0
        self.mapped = self.most_mapped = 0

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> AnyArray:
        """Make an array without content.

        Raises
        ------
        OutputError
            When there is no space for its file.
        """
        if self.bound is None:
            return np.empty(shape, dtype=dtype)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if n_bytes == 0 or self.used + n_bytes <= self.bound:
            array = np.empty(shape, dtype=dtype)
            self.used += n_bytes
            weakref.finalize(array, self._free, n_bytes)
            return array
        array = np.ndarray(shape, dtype=dtype, buffer=_mapped(n_bytes, self.folder))
        self.mapped += n_bytes
        self.most_mapped = max(self.most_mapped, self.mapped)
        weakref.finalize(array, self._unmap, n_bytes)
        return array

    def zeros(self, shape: tuple[int, ...], dtype: type[np.generic]) -> AnyArray:
        """Make an array of zeros."""
        out = self.empty(shape, dtype)
        if _mapping(out) is None:  # a new file reads as zeros
            out.fill(0)
        return out

    def take(self, values: AnyArray, offsets: Int64, chosen: Int64) -> AnyArray:
        """Copy whole segments, in the order of `chosen`: the same as `ragged.take_segments`.

        Parameters
        ----------
        values
            Any dtype, (n_rows, ...).
        offsets
            int64, (n_segments + 1,).
        chosen
            int64, (n_chosen,): segment numbers.
        """
        ends = np.cumsum(np.diff(offsets)[chosen], dtype=np.int64)
        out = self.empty((int(ends[-1]) if len(ends) else 0, *values.shape[1:]), values.dtype.type)
        block = max(_BLOCK_BYTES // max(values[:1].nbytes, 1), 1)
        first = begin = 0
        while first < len(chosen):
            last = max(int(np.searchsorted(ends, begin + block, side="right")), first + 1)
            end = int(ends[last - 1])
            out[begin:end] = take_segments(values, offsets, chosen[first:last])[0]
            first, begin = last, end
            settle(out)
            settle(values)
        return out

    def _free(self, n_bytes: int) -> None:
        self.used -= n_bytes

    def _unmap(self, n_bytes: int) -> None:
        self.mapped -= n_bytes


IN_MEMORY = Cache()
"""Every array in memory, without a bound."""


def settle(array: AnyArray) -> None:
    """Let the operating system write the pages of a mapped array and remove them from this process."""
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def default_bound() -> int | None:
    """Half of the memory of this machine, or of what its container may take; None where it is unknown."""
    memory = available_memory()
    return None if memory is None else memory // 2


def _mapping(array: AnyArray) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _mapped(n_bytes: int, folder: Path | None) -> mmap.mmap:
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk is an error here, a crash later
            else:
                file.truncate(n_bytes)
            return mmap.mmap(file.fileno(), n_bytes)
    except OSError as error:
        raise OutputError(
            f"{folder}: no space for {n_bytes / 2**20:.0f} MB of features beside it ({error.strerror or error})",
            hint="free some space on that disk, or raise --cache-mb if there is memory",
        ) from error
