"""Tell who wore the device upside down, from accelerations alone.

At rest an accelerometer reads +1 g along whatever points up. On a right wrist x points to the thumb and y to the
fingers, and over a session of varied gestures a hand holds both rather up than down: of 81 simulated people worn the
right way, the sum of the two over the last third of a recording, averaged over a person's recordings, is .48 g with a
standard deviation of .12, and never below .13. Upside down both change sign, and so does the sum. One recording alone
tells little (26 % have the wrong sign), so this is decided for a person and never for a recording.
"""

from collections.abc import Sequence

import numpy as np

from bfrbctl.arrays.ragged import Float32, Float64, Int64, reduce_segments
from bfrbctl.errors import DataError, examples
from bfrbctl.schema import STANDARD_GRAVITY

THRESHOLD = -0.1
"""g: whose average is below wore the device upside down."""

FEWEST = 20
"""Recordings of a person that it takes to decide; with fewer nobody is turned round."""

MOST = 0.25
"""Share of the people that may have worn it upside down; more, and the device has other axes than the study's."""


def raised(acc: Float32, offsets: Int64, handedness: Float32) -> Float64:
    """Tell how far thumb and fingers of each recording point up.

    Parameters
    ----------
    acc
        float32, (n_frames, 3), m/s^2, gravity included; NaN where missing.
    offsets
        int64, (n_sequences + 1,).
    handedness
        float32, (n_sequences,): 0 left, whose x points away from the thumb; right where unknown.

    Returns
    -------
    float64, (n_sequences,), g: mean of acc_x + acc_y (left hand: -acc_x + acc_y) over the last third of the frames;
    NaN where none of them was measured.
    """
    lengths = np.diff(offsets)
    side = np.repeat(np.where(handedness == 0, -1.0, 1.0), lengths)
    both = side * acc[:, 0].astype(np.float64) + acc[:, 1]
    position = np.arange(len(acc)) - np.repeat(offsets[:-1], lengths)
    counted = (position >= np.repeat(lengths - np.maximum(lengths // 3, 1), lengths)) & ~np.isnan(both)
    total = reduce_segments(np.add, np.where(counted, both, 0.0), offsets)
    count = reduce_segments(np.add, counted.astype(np.float64), offsets)
    out = np.full(len(lengths), np.nan)
    np.divide(total, count * STANDARD_GRAVITY, out=out, where=count > 0)
    return out


def upside_down(scores: Float64, subjects: Sequence[str | None]) -> tuple[str, ...]:
    """Name those who wore the device upside down.

    Parameters
    ----------
    scores
        float64, (n_sequences,): from `raised`.
    subjects
        One a recording; None where it is unknown, which is nobody's recording.

    Returns
    -------
    Subjects in the order of their names.

    Raises
    ------
    DataError
        When they are more than a quarter of the people: then the device is not worn like the study's.

    Examples
    --------
    >>> upside_down(np.repeat([0.4, -0.4, 0.5, 0.3], 20), ["a"] * 20 + ["b"] * 20 + ["c"] * 20 + ["d"] * 20)
    ('b',)
    """
    of_somebody = np.array([subject is not None for subject in subjects], dtype=np.bool_)
    scores = scores[of_somebody]
    names, person = np.unique(
        np.array([subject for subject in subjects if subject is not None], dtype=np.str_), return_inverse=True
    )
    known = ~np.isnan(scores)
    count = np.bincount(person[known], minlength=len(names))
    total = np.bincount(person[known], scores[known], minlength=len(names))
    turned = (count >= FEWEST) & (total < THRESHOLD * count)
    if turned.sum() > MOST * len(names):
        found = names[turned].tolist()
        raise DataError(
            f"{len(found)} of {len(names)} people seem to have worn the device upside down ({examples(found)})",
            hint="its axes are not those of the study's device: use --undo-flips off, or name people in a FILE",
        )
    return tuple(names[turned].tolist())
