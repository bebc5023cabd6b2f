"""Views of a feature folder: its catalogue, what is null, constant or there twice, and drift between two sets."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import AnyArray, Float32, Float64
from bfrbctl.artefacts.folders import SEQUENCES, Folder
from bfrbctl.errors import DataError, examples
from bfrbctl.features.folder import CATALOGUE, INDEX
from bfrbctl.inspection.figures import Bars, Figure
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.recordings.dataset import float_matrix
from bfrbctl.schema import GESTURE, SEQUENCE_ID

TOP = 20
N_BINS = 10
_FLOOR = 1e-4
"""Least share of a bin, so that an empty one does not make the index infinite."""


def features_view(folder: Folder, options: Options) -> View:
    """Show the catalogue, null shares, constant and duplicate columns, and drift."""
    catalogue = folder.read_parquet(CATALOGUE)
    index = folder.read_parquet(INDEX)
    content = folder.content
    facts: dict[str, Any] = {
        "sequences": index.height,
        "labelled": index[GESTURE].drop_nulls().len(),
        "sequence_features": content["n_features"],
        "frame_channels": content["n_channels"],
        "tof_images": "yes" if content["tof"] and folder.config.get("tof_images") else "no",
        "rate_hz": content["rate_hz"],
    }
    by_family = catalogue.group_by("table", "family", "modality").len().sort("table", "family", "modality")
    tables = [Table("columns", ("table", "family", "modality", "columns"), tuple(by_family.iter_rows()))]
    if not content["n_features"]:
        note = "no sequence table (featurized --for keras): trees cannot be trained on this folder"
        return View(f"features {folder.path.name}", facts, filled(*tables), (note,))
    names, table = _read_table(folder)
    tables += [_nulls(names, table), _constant(names, table), _duplicates(names, table)]
    facts["constant"], facts["duplicates"] = len(tables[-2].rows), len(tables[-1].rows)
    drift, notes, figures = _drift(folder, options, index, names, table)
    title = f"features {folder.path.name}"
    return View(title, facts, filled(*drift, *tables), tuple(notes), (_null_bars(catalogue, names, table), *figures))


def _read_table(folder: Folder) -> tuple[list[str], Float32]:
    rows = folder.read_together(SEQUENCES).drop(SEQUENCE_ID)
    return rows.columns, float_matrix(rows, rows.columns)


def _nulls(names: Sequence[str], table: Float32) -> Table:
    shares = np.isnan(table).mean(axis=0).tolist()
    rows = sorted(
        ((name, share) for name, share in zip(names, shares, strict=True) if share), key=lambda r: (-r[1], r[0])
    )
    return Table("most often null", ("feature", "null share"), tuple(rows), top=TOP)


def _constant(names: Sequence[str], table: Float32) -> Table:
    low, high = np.fmin.reduce(table), np.fmax.reduce(table)
    same = ~(low < high)
    rows = tuple((names[i], None if np.isnan(low[i]) else float(low[i])) for i in np.flatnonzero(same).tolist())
    return Table("constant", ("feature", "value"), rows, top=TOP)


def _duplicates(names: Sequence[str], table: Float32) -> Table:
    """Name the columns that hold the same bits as an earlier one; constant ones are listed already."""
    first: dict[bytes, str] = {}
    rows = []
    for name, column in zip(names, np.ascontiguousarray(table.T), strict=True):
        known = column[~np.isnan(column)]
        if not known.size or np.all(known == known[0]):
            continue
        digest = hashlib.sha256(column.tobytes()).digest()
        if digest in first:
            rows.append((name, first[digest]))
        first.setdefault(digest, name)
    return Table("the same in every sequence", ("feature", "as"), tuple(rows), top=TOP)


def _null_bars(catalogue: pl.DataFrame, names: Sequence[str], table: Float32) -> Bars:
    family = dict(catalogue.filter(pl.col("table") == "sequence").select("name", "family").iter_rows())
    shares: dict[str, list[float]] = {}
    for name, share in zip(names, np.isnan(table).mean(axis=0).tolist(), strict=True):
        shares.setdefault(family.get(name, "unknown"), []).append(share)
    labels = tuple(sorted(shares))
    means = tuple(float(np.mean(shares[label])) for label in labels)
    return Bars("Null share of the sequence features, by family", "mean null share", labels, (("null", means),))


# ----------------------------------------------------------------------------------------------------------- drift


def _drift(
    folder: Folder, options: Options, index: pl.DataFrame, names: Sequence[str], table: Float32
) -> tuple[list[Table], list[str], list[Figure]]:
    """Compare with the folder given, or else the training rows with the test rows of this one."""
    if options.other is not None:
        other_names, other = _read_table(options.other)
        shared = [name for name in names if name in set(other_names)]
        if not shared:
            raise DataError(f"{folder.path} and {options.other.path} have no feature in common")
        places = {name: i for i, name in enumerate(other_names)}
        ours = table[:, [i for i, name in enumerate(names) if name in places]]
        found = drift_rows(shared, ours, other[:, [places[name] for name in shared]])
        alone = sorted(set(names) ^ set(other_names))
        notes = [f"{len(alone)} features are in one of the folders only: {examples(alone)}"] if alone else []
        what = f"drift from {folder.path.name} to {options.other.path.name}"
    else:
        test = (index["split"] == "test").to_numpy()
        if not test.any() or test.all():
            return [], ["no second split here: give --against FOLDER to measure drift"], []
        found, notes, what = drift_rows(names, table[~test], table[test]), [], "drift from train to test"
    columns = ("feature", "PSI", "KS", "null share before", "null share after")
    bars = Bars(
        f"Largest {what}",
        "population stability index (above 0.25: another distribution)",
        tuple(row[0] for row in found[:12]),
        (("PSI", tuple(row[1] for row in found[:12])),),
    )
    return [Table(what, columns, tuple(found), top=TOP)], notes, [bars]


def drift_rows(
    names: Sequence[str], before: Float32, after: Float32
) -> list[tuple[str, float, float | None, float, float]]:
    """Measure how far each column moved: name, PSI, Kolmogorov-Smirnov, null shares; largest PSI first."""
    rows = []
    for number, name in enumerate(names):
        a, b = before[:, number], after[:, number]
        nulls = float(np.isnan(a).mean()), float(np.isnan(b).mean())
        rows.append((name, stability(a, b), kolmogorov_smirnov(a, b), *nulls))
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def stability(before: AnyArray, after: AnyArray) -> float:
    """Give the population stability index over deciles of the values before, and a bin for missing ones.

    Parameters
    ----------
    before, after
        float, (n,) and (m,); NaN is missing.

    Returns
    -------
    0 for equal shares; by custom, above 0.1 a shift and above 0.25 another distribution.
    """
    known = before[~np.isnan(before)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, N_BINS + 1)[1:-1])) if known.size else np.zeros(0)
    a, b = _bin_shares(before, edges), _bin_shares(after, edges)
    return float(np.sum((b - a) * np.log(b / a)))


def _bin_shares(values: AnyArray, edges: AnyArray) -> Float64:
    missing = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~missing], side="left"), minlength=len(edges) + 1)
    shares = np.append(counts, missing.sum()) / max(values.size, 1)
    return np.asarray(np.maximum(shares, _FLOOR), dtype=np.float64)


def kolmogorov_smirnov(before: AnyArray, after: AnyArray) -> float | None:
    """Largest distance of the two distribution functions; None where one side has no value."""
    a, b = np.sort(before[~np.isnan(before)]), np.sort(after[~np.isnan(after)])
    if not a.size or not b.size:
        return None
    at = np.concatenate([a, b])
    gap = np.searchsorted(a, at, side="right") / a.size - np.searchsorted(b, at, side="right") / b.size
    return float(np.abs(gap).max())
