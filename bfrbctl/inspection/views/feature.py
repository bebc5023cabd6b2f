"""View of one feature or frame channel: what it is, over which frames, and how it is distributed by gesture."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float32
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation.oof import read_oof
from bfrbctl.features.folder import CATALOGUE, read_catalogue
from bfrbctl.features.settings import FAMILIES
from bfrbctl.features.table.blocks import WINDOWS, window_bounds
from bfrbctl.features.table.plan import window_of
from bfrbctl.features.table.spectral import segment_length
from bfrbctl.inspection.figures import Ranges
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.inspection.views.models import features_by_gain
from bfrbctl.inspection.views.scores import matching_index, read_index
from bfrbctl.recordings.dataset import Column, frames_file
from bfrbctl.schema import GESTURE, SCENARIOS, SEQUENCE_ID

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_NAMES = ("least", "5 %", "25 %", "median", "75 %", "95 %", "most")


def feature_view(folder: Folder, options: Options) -> View:
    """Explain one feature: formula, unit, window, distribution by gesture, null share, importance in a model.

    Raises
    ------
    UsageError
        When the folder has no feature or channel of that name; the hint has the nearest.
    DataError
        When the model given has no trees, or was trained on other recordings.
    ArtefactError
        As `read_index`.
    """
    features, channels = read_catalogue(folder)
    column = _find(folder, (*features, *channels), options.feature)
    of_frames = column not in features
    index = read_index(folder)
    values = _frame_values(folder, index, column.name) if of_frames else _sequence_values(folder, index, column.name)
    facts = {**_what(column, of_frames), **_window(column, of_frames, index, float(folder.content["rate_hz"]))}
    facts["null_share"] = float(np.isnan(values["value"].to_numpy()).mean()) if values.height else None
    notes = []
    if options.model is not None and of_frames:
        notes.append("a frame channel has no importance: trees read the sequence features")
    elif options.model is not None:
        facts |= _importance(folder, options.model, column.name)
    unit = "frames" if of_frames else "sequences"
    by_gesture, figure = _by_gesture(values, folder, column, unit)
    if not by_gesture.rows:
        notes.append("no sequence here is labelled: there is no distribution by gesture")
    by_split = Table("distribution by split", ("split", unit, "null share", *_NAMES), _rows(values, "split"))
    tables, figures = filled(by_gesture, by_split), (figure,) if by_gesture.rows else ()
    return View(f"feature {column.name} of {folder.path.name}", facts, tables, tuple(notes), figures)


def _find(folder: Folder, columns: Sequence[Column], name: str | None) -> Column:
    found = next((column for column in columns if name in (None, column.name)), None)
    if found is None:
        names, wanted = [column.name for column in columns], str(name)
        close = get_close_matches(wanted, names, n=3, cutoff=0.6) or [each for each in names if wanted in each]
        hint = f"did you mean {examples(close)}?" if close else f"it has {len(names)}, all of them in {CATALOGUE}"
        raise UsageError(f"{folder.path}: has no feature or channel {name}", hint=hint)
    return found


def _what(column: Column, of_frames: bool) -> dict[str, Any]:
    facts = {
        "formula": column.formula,
        "unit": column.unit,
        "kind": "frame channel (nets)" if of_frames else "sequence feature (trees)",
        "family": f"{column.family}: {FAMILIES[column.family]}" if column.family in FAMILIES else column.family,
        "needs": column.modality,
    }
    return {**facts, "source": column.source} if column.source else facts


def _window(column: Column, of_frames: bool, index: pl.DataFrame, rate_hz: float) -> dict[str, Any]:
    """Give the window in words, in frames, and in seconds at the rate of the dataset."""
    lengths = index["n_frames"].to_numpy().astype(np.int64)
    name = window_of(column)
    if of_frames:
        text, frames = "one frame", np.ones(1, dtype=np.int64)
    elif name is None:
        text, frames = "as the formula says, inside the recording", lengths
    else:
        begin, end = window_bounds(lengths, name)
        text, frames = WINDOWS[name], end - begin
    facts: dict[str, Any] = {"window": text, "rate_hz": rate_hz}
    facts["window_frames"] = _median_and_range(frames, 1.0)
    facts["window_seconds"] = _median_and_range(frames, rate_hz)
    if column.family == "spectral":
        size = segment_length(rate_hz)
        facts["welch_segment"] = f"{size} frames, {size / rate_hz:g} s"
    return facts


def _median_and_range(frames: Any, rate_hz: float) -> str:
    """Write the median of a number of frames over the recordings, and its range where it is not the same in all."""
    if not frames.size:
        return "-"
    low, middle, high = (float(value) / rate_hz for value in np.quantile(frames, [0, 0.5, 1]))
    return f"{middle:g}" if low == high else f"{middle:g} in the median recording, {low:g} to {high:g}"


def _sequence_values(folder: Folder, index: pl.DataFrame, name: str) -> pl.DataFrame:
    parts = [folder.read_parquet(file, [SEQUENCE_ID, name]) for file in folder.parts(SEQUENCES)]
    return _labelled(pl.concat(parts), index, name)


def _frame_values(folder: Folder, index: pl.DataFrame, name: str) -> pl.DataFrame:
    files = index["file"].unique(maintain_order=True)
    return pl.concat(
        [_labelled(folder.read_parquet(frames_file(number), [SEQUENCE_ID, name]), index, name) for number in files]
    )


def _labelled(values: pl.DataFrame, index: pl.DataFrame, name: str) -> pl.DataFrame:
    """Give split, gesture and value (float32, NaN where null)."""
    known = values.join(index.select(SEQUENCE_ID, "split", GESTURE), on=SEQUENCE_ID, maintain_order="left")
    return known.select("split", GESTURE, pl.col(name).cast(pl.Float32).fill_null(float("nan")).alias("value"))


def _by_gesture(values: pl.DataFrame, folder: Folder, column: Column, unit: str) -> tuple[Table, Ranges]:
    """List the distribution of each gesture, highest median first."""
    targets = dict(zip(folder.content["classes"], folder.content["targets"], strict=True))
    known = _rows(values.drop_nulls(GESTURE), GESTURE)
    median = 3 + _NAMES.index("median")  # after name, number and null share
    rows = sorted(known, key=lambda row: (row[median] is None, -(row[median] or 0.0), row[0]))
    laid_out = tuple((row[0], "target" if targets[row[0]] else "", *row[1:]) for row in rows)
    table = Table("distribution by gesture", (GESTURE, "kind", unit, "null share", *_NAMES), laid_out)
    figure = Ranges(
        f"{column.name} by gesture: quartiles, 5 to 95 %",
        f"{column.unit}; targets orange",
        tuple(row[0] for row in rows),
        tuple(None if row[3] is None else row[4:9] for row in rows),
        tuple(int(targets[row[0]]) for row in rows),
    )
    return table, figure


def _rows(values: pl.DataFrame, by: str) -> tuple[tuple[Any, ...], ...]:
    """Describe each group: its name, how many values, null share, quantiles (None where all are null)."""
    return tuple((name, n, share, *quantiles) for name, n, share, quantiles in _described(values, by))


def _described(values: pl.DataFrame, by: str) -> Iterator[tuple[str, int, float, Sequence[float | None]]]:
    for key, part in sorted(values.group_by(by), key=lambda pair: str(pair[0][0])):
        found: Float32 = part["value"].to_numpy()
        known = found[~np.isnan(found)].astype(np.float64)
        quantiles = np.quantile(known, QUANTILES).tolist() if known.size else [None] * len(QUANTILES)
        yield str(key[0]), found.size, 1 - known.size / found.size, quantiles


def _importance(folder: Folder, model: Folder, name: str) -> dict[str, Any]:
    """Give share of the gain and rank of a feature in a model that was trained on this folder."""
    matching_index(read_oof(model)[SCENARIOS[0]].keys, folder)
    ranked = features_by_gain(model)
    for number, row in enumerate(ranked.records, start=1):
        if row["feature"] == name:
            used = f"{row['used in models']} tree models, {row['splits']} splits"
            rank = f"{number} of {len(ranked.rows)}" if row["splits"] else "none: no tree uses it"
            return {"gain_share": row["gain share"], "rank": rank, "used_in": used}
    raise DataError(
        f"{model.path}: does not know the feature {name}", hint=f"give a model that was trained on {folder.path}"
    )
