"""Ragged arrays: `values` of all sequences one after the other, and the `offsets` where each begins.

Segment i is rows offsets[i]:offsets[i+1]. Everything here works on whole arrays; no function loops over frames, and
the result for a segment never depends on which other segments are in the batch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int16 = npt.NDArray[np.int16]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]


def offsets_of(lengths: npt.ArrayLike) -> Int64:
    """Turn segment lengths into offsets.

    >>> offsets_of([2, 3])
    array([0, 2, 5])
    """
    counts = np.asarray(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def segment_ids(offsets: Int64) -> Int64:
    """Give each row the number of its segment.

    >>> segment_ids(np.array([0, 2, 5]))
    array([0, 0, 1, 1, 1])
    """
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def take_segments(values: AnyArray, offsets: Int64, chosen: Int64) -> tuple[AnyArray, Int64]:
    """Pick whole segments, in the order of `chosen`.

    Parameters
    ----------
    values
        Any dtype, (n_rows, ...).
    offsets
        int64, (n_segments + 1,).
    chosen
        int64, (n_chosen,): segment numbers.

    Returns
    -------
    The rows of the chosen segments and their own offsets.
    """
    lengths = np.diff(offsets)[chosen]
    out = offsets_of(lengths)
    rows = np.repeat(offsets[chosen] - out[:-1], lengths) + np.arange(out[-1])
    return values[rows], out
