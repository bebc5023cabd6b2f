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


def reduce_segments(ufunc: np.ufunc, values: AnyArray, offsets: Int64, *, empty: float = np.nan) -> AnyArray:
    """Reduce each segment to one value.

    Parameters
    ----------
    ufunc
        `np.add`, `np.maximum`, ... NaN rows are not left out.
    values
        Any dtype, (n_rows, ...).
    offsets
        int64, (n_segments + 1,).
    empty
        The result for a segment without rows.

    Returns
    -------
    The dtype of the reduction, (n_segments, ...).

    Examples
    --------
    >>> reduce_segments(np.add, np.array([1.0, 2.0, 3.0]), np.array([0, 2, 2, 3]), empty=0.0)
    array([3., 0., 3.])
    """
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if filled.size == len(offsets) - 1 and filled.size > 0:
        return np.asarray(ufunc.reduceat(values, offsets[:-1], axis=0))
    out = np.full((len(offsets) - 1, *values.shape[1:]), empty, dtype=np.result_type(values.dtype, type(empty)))
    if filled.size:
        out[filled] = ufunc.reduceat(values, offsets[:-1][filled], axis=0)
    return out


def differences(values: AnyArray, offsets: Int64) -> Float64:
    """Subtract from each row the row before it; the first row of a segment repeats the second's difference.

    Parameters
    ----------
    values
        float, (n_rows, ...).
    offsets
        int64, (n_segments + 1,).

    Returns
    -------
    float64, (n_rows, ...); NaN for a segment of one row, where there is nothing to subtract.

    Examples
    --------
    >>> differences(np.array([1.0, 3.0, 7.0, 5.0]), np.array([0, 3, 4]))
    array([ 2.,  2.,  4., nan])
    """
    out = np.full(values.shape, np.nan, dtype=np.float64)
    if len(values) > 1:
        np.subtract(values[1:], values[:-1], out=out[1:], dtype=np.float64)
    lengths = np.diff(offsets)
    first = offsets[:-1][lengths > 1]
    out[first] = out[first + 1]
    out[offsets[:-1][lengths == 1]] = np.nan
    return out


def neighbours(valid: Bool, offsets: Int64) -> tuple[Int64, Int64]:
    """Find for each row the nearest valid row at or before it and at or after it, inside its segment.

    Parameters
    ----------
    valid
        bool, (n_rows,).
    offsets
        int64, (n_segments + 1,).

    Returns
    -------
    Two int64 arrays, (n_rows,): row numbers, -1 where there is none.

    Examples
    --------
    >>> neighbours(np.array([True, False, True, False]), np.array([0, 3, 4]))
    (array([ 0,  0,  2, -1]), array([ 0,  2,  2, -1]))
    """
    n_rows = len(valid)
    rows = np.arange(n_rows, dtype=np.int64)
    before = np.maximum.accumulate(np.where(valid, rows, -1)) if n_rows else rows
    after = np.minimum.accumulate(np.where(valid, rows, n_rows)[::-1])[::-1] if n_rows else rows
    begin = np.repeat(offsets[:-1], np.diff(offsets))
    end = np.repeat(offsets[1:], np.diff(offsets))
    return np.where(before >= begin, before, -1), np.where(after < end, after, -1)


def interpolated(values: AnyArray, offsets: Int64) -> Float64:
    """Fill NaN gaps along straight lines inside each segment; before the first and after the last value, hold it.

    Parameters
    ----------
    values
        float, (n_rows, n_columns); a row counts as missing when any column is NaN.
    offsets
        int64, (n_segments + 1,).

    Returns
    -------
    float64, (n_rows, n_columns); a segment without any complete row stays NaN.
    """
    out = np.array(values, dtype=np.float64)
    missing = np.isnan(out).any(axis=1)
    if not missing.any():
        return out
    before, after = neighbours(np.asarray(~missing), offsets)
    gaps = np.flatnonzero(missing)
    left, right = before[gaps], after[gaps]
    hopeless = (left < 0) & (right < 0)
    left, right = np.where(left < 0, right, left), np.where(right < 0, left, right)
    share = (gaps - left) / np.maximum(right - left, 1)
    filled = out[left] + (out[right] - out[left]) * share[:, None]
    filled[hopeless] = np.nan
    out[gaps] = filled
    return out


def padded_length(lengths: Int64) -> Int64:
    """Give the common length that segments are padded to: the next multiple of 8, 16, 32 ... with growing length.

    It is a function of the segment's own length alone, so that a sum over the padded row is formed in the same order
    whatever else is in the batch; at most an eighth of a long segment is padding.

    >>> padded_length(np.array([1, 8, 59, 97, 193]))
    array([  8,   8,  64, 112, 224])
    """
    step = np.full(len(lengths), 8, dtype=np.int64)
    for limit in (96, 192, 384, 768):
        step[lengths > limit] *= 2
    return np.asarray(-(-lengths // step) * step, dtype=np.int64)


def padded_rows(offsets: Int64, chosen: Int64, width: int) -> Int64:
    """Give the row numbers of segments as a rectangle; beyond the end of a segment stands the total row count.

    Parameters
    ----------
    offsets
        int64, (n_segments + 1,).
    chosen
        int64, (n_chosen,): segment numbers, none longer than `width`.
    width
        Columns of the rectangle.

    Returns
    -------
    int64, (n_chosen, width).

    Examples
    --------
    >>> padded_rows(np.array([0, 2, 5]), np.array([0, 1]), 4)
    array([[0, 1, 5, 5],
           [2, 3, 4, 5]])
    """
    steps = np.arange(width, dtype=np.int64)
    rows = offsets[chosen, None] + steps
    return np.asarray(np.where(rows < offsets[chosen + 1, None], rows, offsets[-1]))


def length_groups(lengths: Int64, max_rows: int) -> list[tuple[int, Int64]]:
    """Group segments by padded length, in blocks of a bounded size.

    Parameters
    ----------
    lengths
        int64, (n_segments,).
    max_rows
        Most padded rows in one block (one segment at least is always taken).

    Returns
    -------
    (padded length, segment numbers) of each block; every segment with a row or more is in exactly one.
    """
    widths = padded_length(lengths)
    groups: list[tuple[int, Int64]] = []
    for width in np.unique(widths[lengths > 0]):
        members = np.flatnonzero((widths == width) & (lengths > 0))
        size = max(1, max_rows // int(width))
        groups += [(int(width), members[start : start + size]) for start in range(0, len(members), size)]
    return groups
