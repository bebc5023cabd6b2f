"""Checks of sequence_type: whether the gesture of a labelled sequence is a target."""

import logging
from collections.abc import Mapping
from typing import Any

import polars as pl

from bfrbctl.errors import DataError, examples
from bfrbctl.evaluation.metrics import one_sided_note
from bfrbctl.schema import GESTURE, NON_TARGET_TYPE, SEQUENCE_ID, SEQUENCE_TYPE, TARGET_TYPE

_log = logging.getLogger("bfrbctl.preparation")

TYPED = (GESTURE, SEQUENCE_TYPE)


def refuse_strange_types(labels: pl.DataFrame, *, what: str) -> None:
    """Check that sequence_type is one of its two values in all labelled sequences of a file, or missing in all.

    Parameters
    ----------
    labels
        sequence_id and sequence_type, one row a labelled sequence.
    what
        The file, for errors.

    Raises
    ------
    DataError
        Naming the other values, or sequences without one: they would count as non-targets.
    """
    known = (TARGET_TYPE, NON_TARGET_TYPE)
    hint = f"write {TARGET_TYPE} or {NON_TARGET_TYPE} in every row, or leave the column out"
    strange = labels.filter(~pl.col(SEQUENCE_TYPE).is_in(known))  # null is not among them
    if strange.height:
        values = strange[SEQUENCE_TYPE].unique().sort().to_list()
        raise DataError(
            f"{what}: {SEQUENCE_TYPE} is {examples(values)} in {strange.height} of {labels.height} sequences "
            f"({examples(strange[SEQUENCE_ID].to_list())}), expected {TARGET_TYPE} or {NON_TARGET_TYPE}",
            hint=hint,
        )
    bare = labels.filter(pl.col(SEQUENCE_TYPE).is_null())[SEQUENCE_ID].to_list()
    if 0 < len(bare) < labels.height:
        raise DataError(f"{what}: sequence {examples(bare)} has no {SEQUENCE_TYPE}, while others have one", hint=hint)


def refuse_mixed_types(labelled: pl.DataFrame) -> None:
    """Check that a gesture is always, or never, a target."""
    kinds = (
        labelled.drop_nulls(GESTURE)
        .select(GESTURE, (pl.col(SEQUENCE_TYPE) == TARGET_TYPE).fill_null(False).alias("t"))
        .unique()
    )
    mixed = kinds.filter(pl.col(GESTURE).is_duplicated())[GESTURE].unique().sort().to_list()
    if mixed:
        raise DataError(f"gesture {examples(mixed)} is a target in some sequences and not in others")


def one_sided_findings(content: Mapping[str, Any]) -> list[tuple[str | None, str, str, str, int]]:
    """Warn where all gestures are targets, or none is; gives the row of quality.parquet, as `Quality` holds it.

    Parameters
    ----------
    content
        Of the dataset's manifest.
    """
    note = one_sided_note(content)
    if note is None:
        return []
    _log.warning("%s", note)
    side = "all gestures are targets" if content["targets"][0] else "no gesture is a target"
    return [(None, SEQUENCE_TYPE, side, "target or not is not scored", 0)]
