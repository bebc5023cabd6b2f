"""What the columns of our tables are, in code: checked whenever a table of a folder is read.

A table that a stranger made may have another type where we expect a number, a null where we expect a name, or a count
that is beyond all bounds. Readers rely on what is checked here, so that none of them needs to look again.
"""

import re
from collections.abc import Mapping

import polars as pl

from bfrbctl.errors import ArtefactError, examples
from bfrbctl.schema import (
    ACC,
    BEHAVIOR,
    DEMOGRAPHICS,
    GESTURE,
    ORIENTATION,
    PHASE,
    ROT,
    SEQUENCE_COUNTER,
    SEQUENCE_ID,
    SEQUENCE_TYPE,
    SUBJECT,
    TOF_PIXELS,
)

MAX_TEXT = 10_000
"""Bytes of the longest name, label or formula."""

Types = Mapping[str, pl.DataType]

_TEXT, _SMALL, _LARGE, _FLOAT, _FLAG = pl.String(), pl.Int32(), pl.Int64(), pl.Float32(), pl.Boolean()
_FLAGS: Types = dict.fromkeys(("has_rot", "has_thm", "has_tof"), _FLAG)
_SEQUENCE: Types = {
    **dict.fromkeys((SEQUENCE_ID, "split", SUBJECT, GESTURE, SEQUENCE_TYPE, ORIENTATION, "behavior_first"), _TEXT),
    **{"fold": _SMALL, "file": _SMALL, "n_frames": _LARGE, "gesture_start": _LARGE},
    **_FLAGS,
}
_IMPORTANCE: Types = {
    **dict.fromkeys(("feature", "family", "modality"), _TEXT),
    **{"gain": pl.Float64(), "split": _LARGE, "fold": _SMALL},
}
_CATALOGUE_TEXT = ("table", "name", "family", "modality", "unit", "formula", "source")

_REQUIRED: Mapping[tuple[str, str], Types] = {
    ("dataset", r"sequences(-\d{5})?\.parquet"): {**_SEQUENCE, **dict.fromkeys(DEMOGRAPHICS, _FLOAT)},
    ("dataset", r"frames-\d+\.parquet"): {
        **{SEQUENCE_ID: _TEXT, SEQUENCE_COUNTER: _LARGE, BEHAVIOR: _TEXT, PHASE: pl.UInt8()},
        **dict.fromkeys((*ACC, *ROT), _FLOAT),
    },
    ("features", r"index\.parquet"): _SEQUENCE,
    ("features", r"sequences(-\d{5})?\.parquet"): {SEQUENCE_ID: _TEXT},
    ("features", r"frames-\d+\.parquet"): {SEQUENCE_ID: _TEXT, PHASE: pl.UInt8()},
    ("features", r"catalogue\.parquet"): {**dict.fromkeys(_CATALOGUE_TEXT, _TEXT), "when_missing": pl.Float64()},
    ("model", r"importance\.parquet"): _IMPORTANCE,
    ("blend", r"member-\d+\.importance\.parquet"): _IMPORTANCE,
    ("predictions", r"predictions\.parquet"): {SEQUENCE_ID: _TEXT, GESTURE: _TEXT, "target_proba": pl.Float64()},
}
"""Kind of folder and name of file -> columns that there must be."""

_OTHERS: Mapping[tuple[str, str], tuple[tuple[str, pl.DataType], ...]] = {
    ("predictions", r"predictions\.parquet"): ((r"p_\d+", _FLOAT),),
    ("dataset", r"frames-\d+\.parquet"): ((r"thm_\d+", _FLOAT), (r"tof_\d+_v\d+", pl.Int16())),
    ("features", r"sequences(-\d{5})?\.parquet"): ((r".*", _FLOAT),),
    ("features", r"frames-\d+\.parquet"): ((r"tof_\d+", pl.Array(pl.UInt8(), TOF_PIXELS)), (r".*", _FLOAT)),
}
"""What further columns are, by their names; those that match nothing may be anything."""

_OOF: Types = {**dict.fromkeys((SEQUENCE_ID, SUBJECT, GESTURE, "scenario"), _TEXT), "fold": _SMALL}
_NEVER_NULL = (SEQUENCE_ID, SUBJECT, "split", "scenario", "file", "n_frames", "feature", "gain", *_CATALOGUE_TEXT)
_WITHIN: Mapping[str, tuple[float, float]] = {
    **{"n_frames": (1, 2**31), "file": (0, 99_999), "fold": (0, 9_999)},
    **{"gain": (0, 1e300), "target_proba": (0, 1.001)},
}


def check_table(frame: pl.DataFrame, kind: str, name: str, what: str, *, whole: bool) -> None:
    """Check that the columns of a table are what a folder of this kind has there.

    Parameters
    ----------
    frame
        The table.
    kind, name
        Kind of the folder, and name of the file; tables that we know nothing of pass.
    what
        Names the file in a message.
    whole
        Whether all columns were read, so that none may be missing.

    Raises
    ------
    ArtefactError
        For a missing column, another type, a null in a name, a count that cannot be.
    """
    if re.fullmatch(r"(member-\d+\.)?oof\.parquet", name):
        required: Types = _OOF
        others: tuple[tuple[str, pl.DataType], ...] = ((r"p_\d+", _FLOAT),)
    else:
        required = next((types for key, types in _REQUIRED.items() if _fits(key, kind, name)), {})
        others = next((types for key, types in _OTHERS.items() if _fits(key, kind, name)), ())
    if not required:
        return
    hint = "the folder does not hold together; make or download it again"
    missing = [column for column in required if column not in frame.columns]
    if missing and whole:
        raise ArtefactError(f"{what}: has no column {examples(missing)}", hint=hint)
    if "file" in required and SEQUENCE_ID in frame.columns and frame[SEQUENCE_ID].is_duplicated().any():
        raise ArtefactError(f"{what}: has a sequence twice", hint=hint)
    for column, dtype in frame.schema.items():
        expected = required.get(column) or next((kind for form, kind in others if re.fullmatch(form, column)), None)
        if expected is not None and dtype != expected:
            raise ArtefactError(f"{what}: column {column} is {dtype}, expected {expected}", hint=hint)
        if column in _NEVER_NULL and column in required and frame[column].null_count():
            raise ArtefactError(f"{what}: column {column} has nulls, expected none", hint=hint)
        if dtype == _TEXT and column in required and (frame[column].str.len_bytes() > MAX_TEXT).any():
            raise ArtefactError(f"{what}: column {column} has a text of more than {MAX_TEXT} bytes", hint=hint)
        if column in _WITHIN and column in required:
            _check_bounds(frame[column], *_WITHIN[column], what=what)


def _fits(key: tuple[str, str], kind: str, name: str) -> bool:
    return key[0] == kind and re.fullmatch(key[1], name) is not None


def _check_bounds(column: pl.Series, low: float, high: float, *, what: str) -> None:
    bad = column.filter((column < low) | (column > high))
    if len(bad):
        raise ArtefactError(f"{what}: {column.name} {examples(bad.to_list())} cannot be, expected {low} to {high}")
