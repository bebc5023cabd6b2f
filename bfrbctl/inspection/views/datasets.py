"""Views of recordings: a prepared dataset, one sequence of it, and how the folds divide subjects and gestures."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Float64
from bfrbctl.artefacts.folders import QUALITY, SEQUENCES, Folder
from bfrbctl.errors import DataError, examples
from bfrbctl.evaluation import oof
from bfrbctl.evaluation.metrics import one_sided_note
from bfrbctl.inspection.figures import Bars, Figure, Images, Lines, Matrix, Series
from bfrbctl.inspection.options import Options
from bfrbctl.inspection.view import Table, View, filled
from bfrbctl.inspection.views.scores import read_index
from bfrbctl.recordings.dataset import RecordingBatch, known_subject, n_subjects, read_recordings
from bfrbctl.schema import DEMOGRAPHICS, GESTURE, ORIENTATION, SCENARIOS, SEQUENCE_ID, SUBJECT, TOF_MAX, TOF_MISSING

N_MOMENTS = 8
"""How many ToF images of each sensor a sequence shows."""

_BARS = "▁▂▃▄▅▆▇█"


# --------------------------------------------------------------------------------------------------------- dataset


def dataset_view(folder: Folder, _: Options) -> View:
    """Show subjects, gestures, lengths, missing sensors, repairs and folds of a prepared dataset."""
    sequences = read_index(folder)
    quality = folder.read_together(QUALITY)
    content = folder.content
    lengths = sequences["n_frames"].to_numpy()
    facts = {
        "sequences": sequences.height,
        "frames": content["n_frames"],
        "subjects": sequences.select(n_subjects()).item(),
        "gestures": len(content["classes"]),
        "targets": sum(content["targets"]),
        "rate_hz": content["rate_hz"],
        "thermopiles": len(content["thm"]),
        "tof_sensors": len(content["tof"]),
        "frames_a_sequence": "{:.0f} to {:.0f}, median {:g}".format(*np.quantile(lengths, [0, 1, 0.5]).tolist()),
    }
    tables = [_splits(sequences), _gestures(sequences, content), _orientations(sequences), _subjects(sequences)]
    tables += [_fold_balance(sequences), _findings(quality)]
    figures: list[Figure] = [_length_bars(lengths)]
    notes = []
    if content["classes"]:
        figures += _gesture_orientation(sequences, content["classes"])
    else:
        notes.append("no gesture labels: this dataset can be predicted, not trained on")
    notes += [note for note in [one_sided_note(content)] if note]
    notes += [f"no {name}: the recordings have no such sensor" for name in ("thm", "tof") if not content[name]]
    if not quality.height:
        notes.append("nothing was repaired or refused")
    return View(f"dataset {folder.path.name}", facts, filled(*tables), tuple(notes), tuple(figures))


def _splits(sequences: pl.DataFrame) -> Table:
    rows = []
    for split, part in sequences.group_by("split", maintain_order=True):
        shares = [int(part[flag].sum()) / part.height for flag in ("has_rot", "has_thm", "has_tof")]
        counts = part.height, part.select(n_subjects()).item(), int(part["n_frames"].sum())
        rows.append((str(split[0]), *counts, *shares))
    columns = ("split", "sequences", "subjects", "frames", "with rotation", "with thm", "with tof")
    return Table("splits", columns, tuple(rows))


def _gestures(sequences: pl.DataFrame, content: Mapping[str, Any]) -> Table:
    counts = (
        sequences.drop_nulls(GESTURE)
        .group_by(GESTURE)
        .agg(
            pl.len(),
            n_subjects(),
            pl.col(ORIENTATION).n_unique().alias("orientations"),
            pl.col("n_frames").median(),
        )
        .sort(GESTURE)
    )
    target = dict(zip(content["classes"], content["targets"], strict=True))
    rows = tuple((row[0], "target" if target[row[0]] else "", *row[1:]) for row in counts.iter_rows())
    return Table("gestures", (GESTURE, "kind", "sequences", "subjects", "orientations", "median frames"), rows)


def _orientations(sequences: pl.DataFrame) -> Table:
    counts = (
        sequences.drop_nulls(ORIENTATION)
        .group_by(ORIENTATION)
        .agg(pl.len(), n_subjects(), pl.col(GESTURE).n_unique())
        .sort(ORIENTATION)
    )
    return Table("orientations", (ORIENTATION, "sequences", "subjects", "gestures"), tuple(counts.iter_rows()))


def _subjects(sequences: pl.DataFrame) -> Table:
    by_subject = (
        sequences.group_by(known_subject())
        .agg(
            pl.len(),
            pl.col("n_frames").sum(),
            pl.col(GESTURE).drop_nulls().n_unique(),
            pl.col("handedness").first(),
            pl.col("age").first(),
            pl.col("n_findings").sum(),
        )
        .sort(SUBJECT)
    )
    hands = {1.0: "right", 0.0: "left"}
    rows = tuple((*row[:4], hands.get(row[4]), *row[5:]) for row in by_subject.iter_rows())
    columns = (SUBJECT, "sequences", "frames", "gestures", "hand", "age", "findings")
    return Table("people", columns, rows, top=20)


def _fold_balance(sequences: pl.DataFrame) -> Table:
    counts = (
        sequences.drop_nulls("fold")
        .group_by("fold")
        .agg(pl.len(), n_subjects(), pl.col(GESTURE).n_unique())
        .sort("fold")
    )
    return Table("folds", ("fold", "sequences", "subjects", "gestures"), tuple(counts.iter_rows()))


def _findings(quality: pl.DataFrame) -> Table:
    counts = (
        quality.group_by("column", "problem", "action")
        .agg(pl.col(SEQUENCE_ID).n_unique().alias("sequences"), pl.col("n_frames").sum())
        .sort("sequences", "column", "problem", "action", descending=[True, False, False, False])
    )
    return Table("findings", ("column", "problem", "action", "sequences", "frames"), tuple(counts.iter_rows()), top=20)


def _length_bars(lengths: Any) -> Bars:
    """Histogram of the lengths in a dozen bins of whole frames; the longest hundredth shares the last one."""
    width = max(1, -(-int(np.quantile(lengths, 0.99) - lengths.min() + 1) // 11))
    first = int(lengths.min()) // width
    counts = np.bincount(np.minimum(lengths // width - first, 11))
    labels = [f"{(first + i) * width} to {(first + i + 1) * width - 1}" for i in range(len(counts))]
    if len(labels) == 12:
        labels[-1] = f"{(first + 11) * width} and more"
    return Bars(
        "Lengths of the sequences, in frames", "sequences", tuple(labels), (("frames", tuple(counts.tolist())),)
    )


def _gesture_orientation(sequences: pl.DataFrame, classes: Sequence[str]) -> list[Figure]:
    known = sequences.drop_nulls(GESTURE).with_columns(pl.col(ORIENTATION).fill_null("unknown"))
    orientations = sorted(known[ORIENTATION].unique().to_list())
    counted = known.group_by(GESTURE, ORIENTATION).len()
    return [_counts_matrix("Sequences by gesture and orientation", ORIENTATION, classes, orientations, counted)]


def _counts_matrix(
    title: str, x_label: str, rows: Sequence[str], columns: Sequence[str], counted: pl.DataFrame
) -> Matrix:
    """Make a matrix of counts: `counted` has gesture, the column's name, and how many."""
    counts = {(str(row), str(column)): n for row, column, n in counted.iter_rows()}
    most = max(counts.values(), default=1)
    table = [[counts.get((row, column), 0) for column in columns] for row in rows]
    return Matrix(
        title,
        x_label,
        GESTURE,
        tuple(rows),
        tuple(columns),
        tuple(tuple(0.6 * n / most for n in row) for row in table),
        tuple(tuple(str(n) if n else "" for n in row) for row in table),
    )


# ----------------------------------------------------------------------------------------------------------- folds


def folds_view(folder: Folder, _: Options) -> View:
    """Show how the folds divide subjects and gestures, and how far each is from an even share."""
    if folder.kind in ("dataset", "features"):
        known = read_index(folder).drop_nulls("fold").select(SUBJECT, GESTURE, "fold")
    else:
        known = oof.read_oof(folder)[SCENARIOS[0]].keys.select(SUBJECT, GESTURE, "fold")
    if not known.height:
        raise DataError(
            f"{folder.path}: has no folds, since none of its sequences is labelled",
            hint="folds divide what a model is trained on",
        )
    classes = folder.content["classes"]
    folds_of = known.group_by(known_subject()).agg(pl.col("fold").n_unique()).drop_nulls(SUBJECT)
    shared = folds_of.filter(pl.col("fold") > 1)[SUBJECT].sort().to_list()
    even = {row[0]: row[1] / known.height for row in known.group_by(GESTURE).len().iter_rows()}
    rows = []
    for fold, part in sorted(((key[0], part) for key, part in known.group_by("fold")), key=lambda pair: str(pair[0])):
        share = {row[0]: row[1] / part.height for row in part.group_by(GESTURE).len().iter_rows()}
        off, worst = max((abs(share.get(name, 0.0) - even[name]), name) for name in sorted(even))
        absent = sum(name not in share for name in even)
        rows.append((fold, part.height, part.select(n_subjects()).item(), len(share), absent, off, worst))
    columns = ("fold", "sequences", "subjects", "gestures", "absent gestures", "largest offset", "of gesture")
    counted = known.group_by(GESTURE, "fold").len()
    names = [str(row[0]) for row in rows]
    figure = _counts_matrix("Sequences by gesture and fold", "fold", classes, names, counted)
    facts = {"folds": len(rows), "sequences": known.height, "subjects": known.select(n_subjects()).item()}
    notes = [f"{len(shared)} subjects are in several folds: scores would be too good"] if shared else []
    if len(rows) == 1:
        notes.append("there is one fold only")
    return View(f"folds of {folder.path.name}", facts, (Table("folds", columns, tuple(rows)),), tuple(notes), (figure,))


# -------------------------------------------------------------------------------------------------------- sequence


def sequence_view(folder: Folder, options: Options) -> View:
    """Show one sequence: its channels over time, ToF images at moments, and what was found in it."""
    sequences = folder.read_together(SEQUENCES)
    ids = sequences[SEQUENCE_ID].to_list()
    chosen = ids[0] if options.sequence is None else options.sequence
    if chosen not in ids:
        near = get_close_matches(chosen, ids, n=3, cutoff=0.6) or ids[:3]
        raise DataError(f"{folder.path}: has no sequence {chosen}", hint=f"it has {len(ids)}, such as {examples(near)}")
    row = sequences.filter(pl.col(SEQUENCE_ID) == chosen)
    batch, phases = read_recordings(folder, sequences, int(row["file"][0]))
    place = np.array([batch.sequence_ids.index(chosen)], dtype=np.int64)
    begin, end = batch.offsets[place[0]], batch.offsets[place[0] + 1]
    one = batch.take(place)
    phase = phases[begin:end]
    about = row.drop("file").row(0, named=True)
    quality = folder.read_together(QUALITY).filter(pl.col(SEQUENCE_ID) == chosen)
    findings = Table(
        "findings",
        ("column", "problem", "action", "frames"),
        tuple(quality.select("column", "problem", "action", "n_frames").iter_rows()),
    )
    shown = ("split", SUBJECT, GESTURE, "sequence_type", ORIENTATION, "n_frames", "fold", "n_findings")
    facts = {name: about[name] for name in shown if about[name] not in (None, "")}
    facts["seconds"] = one.n_frames / one.rate_hz
    if about["gesture_start"] is not None:
        facts["gesture_starts_at_seconds"] = about["gesture_start"] / one.rate_hz
    known = [f"{name} {about[name]:g}" for name in DEMOGRAPHICS if about[name] is not None]
    facts["person"] = ", ".join(known) or None
    tables = filled(_channels(one), _tof_sensors(one), findings)
    notes = [] if np.any(phase == 1) else ["the gesture phase is not known here"]
    missing = [
        name
        for name, there in (("rot", about["has_rot"]), ("thm", about["has_thm"]), ("tof", about["has_tof"]))
        if not there
    ]
    notes += [f"no {name} was measured in this sequence" for name in missing]
    return View(f"sequence {chosen}", facts, tables, tuple(notes), _sequence_figures(one, phase))


def _named_channels(one: RecordingBatch) -> list[tuple[str, str, Float64]]:
    """Name, unit and values of every slow channel; in the units of the recordings."""
    found: list[tuple[str, str, Float64]] = []
    groups = (
        ("acc_", "xyz", "m/s^2", one.acc),
        ("rot_", "xyzw", "1", one.rot),
        ("thm_", one.layout.thm, "degC", one.thm),
    )
    for prefix, names, unit, values in groups:
        found += [(f"{prefix}{name}", unit, values[:, i].astype(np.float64)) for i, name in enumerate(names)]
    return found


def _tof_means(one: RecordingBatch) -> list[tuple[str, Float64, float, float]]:
    """Name, mean reading of each ToF sensor by frame, share of pixels not measured, share without return."""
    found = []
    for position, sensor in enumerate(one.layout.tof):
        pixels = one.tof[:, position]
        valid = pixels >= 0
        n = valid.sum(axis=1)
        mean = np.where(n > 0, np.where(valid, pixels, 0).sum(axis=1) / np.maximum(n, 1), np.nan)
        found.append((f"tof_{sensor}", mean, float((pixels == TOF_MISSING).mean()), float((pixels == -1).mean())))
    return found


def _channels(one: RecordingBatch) -> Table:
    rows = []
    for name, unit, values in _named_channels(one):
        known = values[~np.isnan(values)]
        figures = (float(known.min()), float(known.mean()), float(known.max())) if known.size else (None, None, None)
        rows.append((name, unit, *figures, 1 - known.size / values.size, sparkline(values)))
    return Table("channels", ("channel", "unit", "least", "mean", "most", "missing share", "over time"), tuple(rows))


def _tof_sensors(one: RecordingBatch) -> Table:
    rows = [(name, missing, nothing, sparkline(mean)) for name, mean, missing, nothing in _tof_means(one)]
    return Table("ToF sensors", ("sensor", "missing share", "no return", "mean over time"), tuple(rows))


def sparkline(values: Float64, width: int = 40) -> str:
    """Draw a channel in block characters, its least value lowest; a space where nothing was measured.

    >>> sparkline(np.array([0.0, 1.0, np.nan, 7.0]))
    '▁▂ █'
    """
    parts = np.array_split(values, min(width, len(values)))
    means = np.array([part[~np.isnan(part)].mean() if np.any(~np.isnan(part)) else np.nan for part in parts])
    if np.all(np.isnan(means)):
        return " " * len(means)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    span, top = high - low, len(_BARS) - 1
    # Divided first: the inverse of a span too small to be normal would be infinite.
    levels = [(mean - low) / span * top if span > 0 else mean * 0.0 for mean in means.tolist()]
    return "".join(" " if np.isnan(level) else _BARS[round(level)] for level in levels)


def _sequence_figures(one: RecordingBatch, phase: Any) -> tuple[Figure, ...]:
    seconds = tuple((np.arange(one.n_frames) / one.rate_hz).tolist())
    inside = np.flatnonzero(phase == 1)
    shaded = (seconds[inside[0]], seconds[inside[-1]], "gesture") if inside.size else None
    figures: list[Figure] = []
    groups = (("Acceleration", "acc_", "m/s²"), ("Rotation (quaternion)", "rot_", "1"), ("Temperature", "thm_", "°C"))
    channels = _named_channels(one)
    for title, prefix, unit in groups:
        found = [
            (name, values) for name, _, values in channels if name.startswith(prefix) and not np.all(np.isnan(values))
        ]
        figures += _time_lines(title, unit, seconds, found, shaded)
    tof = [(name, mean) for name, mean, _, _ in _tof_means(one) if not np.all(np.isnan(mean))]
    figures += _time_lines("Mean reading of each ToF sensor", "reading", seconds, tof, shaded)
    if tof:
        figures.append(_tof_images(one))
    return tuple(figures)


def _time_lines(
    title: str,
    unit: str,
    seconds: tuple[float, ...],
    channels: Sequence[tuple[str, Float64]],
    shaded: tuple[float, float, str] | None,
) -> list[Figure]:
    series = tuple(
        Series(name, seconds, tuple(None if np.isnan(v) else v for v in values.tolist()), number)
        for number, (name, values) in enumerate(channels)
    )
    return [Lines(title, "seconds", unit, series, shaded)] if series else []


def _tof_images(one: RecordingBatch) -> Images:
    """Small multiples: every sensor at evenly spaced moments; darker is nearer."""
    moments = np.unique(np.linspace(0, one.n_frames - 1, N_MOMENTS).round().astype(np.int64))

    def shade(value: int) -> float | None:
        if value == TOF_MISSING:
            return None
        return -1.0 if value < 0 else 1 - value / TOF_MAX

    return Images(
        "Images of the ToF sensors",
        "seconds; darker is nearer, empty is no return, grey is missing",
        tuple(f"tof_{sensor}" for sensor in one.layout.tof),
        tuple(f"{moment / one.rate_hz:.1f}" for moment in moments),
        tuple(
            tuple(tuple(shade(int(v)) for v in one.tof[moment, position]) for moment in moments)
            for position in range(len(one.layout.tof))
        ),
    )
