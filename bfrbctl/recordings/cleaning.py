"""Check raw recordings: repair what can be repaired and report it, name what cannot.

`clean` takes a table of whole raw sequences and gives a `RecordingBatch`, one label row a sequence, a row for every
repair, and the faults that make sequences unusable. `prepare` and `predict` both call it, so that a recording is the
same in training and in serving.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from bfrbctl.arrays.ragged import Bool, Float32, Float64, Int16, Int64, UInt8
from bfrbctl.recordings.dataset import RecordingBatch, float_matrix, known_subject, transpose_into
from bfrbctl.recordings.raw import RawSchema
from bfrbctl.reprs import short_repr
from bfrbctl.schema import (
    ACC,
    ACC_LIMIT,
    BEHAVIOR,
    DEMOGRAPHICS,
    GESTURE,
    GESTURE_PHASE,
    ORIENTATION,
    PHASE,
    ROT,
    SEQUENCE_COUNTER,
    SEQUENCE_ID,
    SEQUENCE_TYPE,
    SUBJECT,
    THM_BROKEN_BELOW,
    THM_LIMITS,
    TOF_MAX,
    TOF_MISSING,
    TOF_NO_RETURN,
    TOF_PIXELS,
)

QUALITY_SCHEMA = {
    SEQUENCE_ID: pl.String(),
    "column": pl.String(),
    "problem": pl.String(),
    "action": pl.String(),
    "n_frames": pl.Int64(),
}
PHASE_UNKNOWN = 255
_NORM_TOLERANCE = 5e-3
_NORM_LIMIT = 0.1
_MIN_FRAMES_OF_CONSTANT_SENSOR = 10


@dataclass(frozen=True)
class Fault:
    """Why a sequence cannot be used: what is wrong with it, in words that follow its name."""

    sequence_id: str
    what: str


@dataclass
class Quality:
    """What was repaired or noticed, a row a sequence, column and problem."""

    rows: list[tuple[str | None, str, str, str, int]] = field(default_factory=list)

    def add(self, sequence_id: str | None, column: str, problem: str, action: str, n_frames: int) -> None:
        """Add one finding."""
        self.rows.append((sequence_id, column, problem, action, n_frames))

    def add_frames(
        self, bad: Bool, offsets: Int64, ids: tuple[str, ...], *, column: str, problem: str, action: str
    ) -> None:
        """Add a finding for each sequence: on how many of its frames `bad`, (n_frames,), is true."""
        if bad.any():
            counts = np.add.reduceat(bad, offsets[:-1], dtype=np.int64)
            for position in np.flatnonzero(counts):
                self.add(ids[position], column, problem, action, int(counts[position]))

    def table(self) -> pl.DataFrame:
        """Give all findings as a table with the columns of `QUALITY_SCHEMA`."""
        return pl.DataFrame(self.rows, schema=QUALITY_SCHEMA, orient="row")


@dataclass(frozen=True)
class CleanTable:
    """Whole sequences after the checks.

    Parameters
    ----------
    batch
        The usable sequences; demographics are NaN here.
    labels
        One row a sequence of the batch: sequence_id, subject, gesture, sequence_type, orientation, behavior_first,
        n_frames, gesture_start; labels are null where the file has none.
    counters
        int64, (n_frames,): sequence_counter.
    behavior
        String, (n_frames,); null where unknown.
    phase
        uint8, (n_frames,): 1 in the gesture phase, 0 outside, 255 unknown.
    quality
        What was repaired or noticed.
    faults
        Sequences that cannot be used, and why; they are not in the batch.
    """

    batch: RecordingBatch
    labels: pl.DataFrame
    counters: Int64
    behavior: pl.Series
    phase: UInt8
    quality: Quality
    faults: list[Fault]

    __repr__ = short_repr


def clean(table: pl.DataFrame, schema: RawSchema, *, rate_hz: float, drop: frozenset[str] = frozenset()) -> CleanTable:
    """Check and repair a table of whole sequences.

    Parameters
    ----------
    table
        Rows of whole sequences with the columns of `schema.dtypes`; rows of a sequence are together.
    schema
        What `raw.read_schema` said of the file.
    rate_hz
        Frames a second.
    drop
        Sequences to leave out; each gets a quality row.
    """
    quality = Quality()
    faults: dict[str, str] = {}
    table = _dropped(table, drop, quality)
    table = _in_order(_subjects_known(table), quality, faults)
    for sequence_id, what in _conflicts(table, schema):
        faults.setdefault(sequence_id, what)
    table = _without(table, faults)
    starts = np.flatnonzero(_changed(table[SEQUENCE_ID]))
    offsets = np.append(starts, table.height)
    ids = tuple(table[SEQUENCE_ID].gather(starts).to_list())
    acc = _acceleration(table, offsets, ids, quality, faults)
    rot = _rotation(table, offsets, ids, quality)
    thm = _thermopiles(table, schema, offsets, ids, quality=quality)
    tof = _time_of_flight(table, schema, offsets, ids, quality=quality)
    subjects = tuple(table[SUBJECT].gather(starts).to_list())
    for sequence_id, subject in zip(ids, subjects, strict=True):
        if subject is None:
            quality.add(sequence_id, SUBJECT, "no subject", "kept as unknown", 0)
    batch = RecordingBatch(
        sequence_ids=ids,
        subjects=subjects,
        offsets=offsets,
        acc=acc,
        rot=rot,
        thm=thm,
        tof=tof,
        demographics=np.full((len(ids), len(DEMOGRAPHICS)), np.nan, dtype=np.float32),
        layout=schema.layout,
        rate_hz=rate_hz,
    )
    phase = _phase(table)
    cleaned = CleanTable(
        batch=batch,
        labels=_label_rows(table, offsets, ids, phase).with_columns(pl.col(SUBJECT).fill_null("")),
        counters=table[SEQUENCE_COUNTER].to_numpy(),
        behavior=table[BEHAVIOR] if BEHAVIOR in table.columns else _nulls(BEHAVIOR, table.height),
        phase=phase,
        quality=quality,
        faults=[],
    )
    return _keep_usable(cleaned, faults)


# ---------------------------------------------------------------------------------------------------- rows and keys


def _dropped(table: pl.DataFrame, drop: frozenset[str], quality: Quality) -> pl.DataFrame:
    if not drop:
        return table
    gone = table[SEQUENCE_ID].is_in(list(drop))
    for sequence_id, n_frames in table.filter(gone)[SEQUENCE_ID].value_counts().sort(SEQUENCE_ID).iter_rows():
        quality.add(sequence_id, "", "left out by --drop", "left out", n_frames)
    return table.filter(~gone)


def _subjects_known(table: pl.DataFrame) -> pl.DataFrame:
    """Replace an empty subject by null: both mean that it is unknown."""
    return table.with_columns(known_subject()) if (table[SUBJECT] == "").any() else table


def _in_order(table: pl.DataFrame, quality: Quality, faults: dict[str, str]) -> pl.DataFrame:
    """Sort frames by counter, drop repeated rows, report gaps."""
    ids, counter = table[SEQUENCE_ID], table[SEQUENCE_COUNTER]
    if counter.null_count():
        for sequence_id in ids.filter(counter.is_null()).unique().sort().to_list():
            faults[sequence_id] = "has rows without a sequence_counter"
    same, step = ~_changed(ids), _steps(counter)
    if (same & (step <= 0)).any():
        back = table.filter(pl.Series(same & (step < 0)))[SEQUENCE_ID].value_counts().sort(SEQUENCE_ID)
        for sequence_id, n_frames in back.iter_rows():
            quality.add(sequence_id, SEQUENCE_COUNTER, "out of order", "sorted", n_frames)
        table = table.sort(SEQUENCE_ID, SEQUENCE_COUNTER, maintain_order=True)
        table = _without_repeats(table, quality, faults)
        ids, counter = table[SEQUENCE_ID], table[SEQUENCE_COUNTER]
        same, step = ~_changed(ids), _steps(counter)
    gap = same & (step > 1)
    if gap.any():
        gaps = pl.DataFrame({SEQUENCE_ID: ids, "n": counter - counter.shift(1) - 1}).filter(pl.Series(gap))
        for sequence_id, n_frames in gaps.group_by(SEQUENCE_ID).agg(pl.col("n").sum()).sort(SEQUENCE_ID).iter_rows():
            quality.add(sequence_id, SEQUENCE_COUNTER, "frames missing in between", "kept as it is", n_frames)
    return table


def _changed(values: pl.Series) -> Bool:
    """Where a value differs from the one before, null being a value too: bool, (n_rows,); True at the first."""
    changed = np.ones(len(values), dtype=np.bool_)
    before, here = values[:-1], values[1:]
    changed[1:] = (here.ne_missing(before) if values.null_count() else here != before).to_numpy()
    return changed


def _steps(counter: pl.Series) -> Float64:
    """Counter less the one before: float64, (n_rows,); NaN at the first row and beside nulls."""
    out = np.full(len(counter), np.nan)
    values = counter.to_numpy()
    np.subtract(values[1:], values[:-1], out=out[1:])
    return out


def _without_repeats(table: pl.DataFrame, quality: Quality, faults: dict[str, str]) -> pl.DataFrame:
    keys = table.select(pl.struct(SEQUENCE_ID, SEQUENCE_COUNTER).is_duplicated()).to_series()
    if not keys.any():
        return table
    repeated = table.filter(keys)
    distinct = repeated.unique(maintain_order=True)
    clash = distinct.filter(pl.struct(SEQUENCE_ID, SEQUENCE_COUNTER).is_duplicated())
    for sequence_id, counter in (
        clash.select(SEQUENCE_ID, SEQUENCE_COUNTER).unique(SEQUENCE_ID).sort(SEQUENCE_ID).rows()
    ):
        faults.setdefault(sequence_id, f"has two different rows with sequence_counter {counter}")
    extra = (
        repeated.group_by(SEQUENCE_ID)
        .len()
        .join(distinct.group_by(SEQUENCE_ID).len().rename({"len": "kept"}), on=SEQUENCE_ID)
    )
    for sequence_id, n_rows, n_kept in extra.sort(SEQUENCE_ID).iter_rows():
        if n_rows > n_kept:
            quality.add(sequence_id, SEQUENCE_COUNTER, "duplicate rows", "removed", n_rows - n_kept)
    return table.unique(maintain_order=True)


def _conflicts(table: pl.DataFrame, schema: RawSchema) -> Iterator[tuple[str, str]]:
    """Name sequences with two subjects, gestures, types or orientations, or with a label on some rows alone."""
    ids = table[SEQUENCE_ID]
    same = ~_changed(ids)
    once = [SUBJECT, *(name for name in (GESTURE, SEQUENCE_TYPE, ORIENTATION) if name in schema.labels)]
    for name in once:
        differs = same & _changed(table[name])
        if not differs.any():
            continue
        for sequence_id in ids.filter(pl.Series(differs)).unique().sort().to_list():
            values = table.filter(ids == sequence_id)[name].unique(maintain_order=True).to_list()
            shown = ", ".join("none" if value is None else str(value) for value in values[:3])
            yield sequence_id, f"has {len(values)} {name}s ({shown}), expected 1"


def _without(table: pl.DataFrame, faults: dict[str, str]) -> pl.DataFrame:
    return table.filter(~pl.col(SEQUENCE_ID).is_in(list(faults))) if faults else table


def _keep_usable(cleaned: CleanTable, faults: dict[str, str]) -> CleanTable:
    """Leave out the sequences whose signals turned out to be unusable."""
    found = [Fault(sequence_id, what) for sequence_id, what in sorted(faults.items())]
    batch = cleaned.batch
    keep = np.array([sequence_id not in faults for sequence_id in batch.sequence_ids], dtype=np.bool_)
    if keep.all():
        return CleanTable(**{**vars(cleaned), "faults": found})
    rows = np.repeat(keep, np.diff(batch.offsets))
    chosen = np.flatnonzero(keep)
    mask = pl.Series(rows)
    return CleanTable(
        batch=batch.take(chosen),
        labels=cleaned.labels.filter(pl.Series(keep)),
        counters=cleaned.counters[rows],
        behavior=cleaned.behavior.filter(mask),
        phase=cleaned.phase[rows],
        quality=cleaned.quality,
        faults=found,
    )


# ---------------------------------------------------------------------------------------------------------- labels


def _phase(table: pl.DataFrame) -> UInt8:
    if PHASE not in table.columns:
        return np.full(table.height, PHASE_UNKNOWN, dtype=np.uint8)
    code = (table[PHASE] == GESTURE_PHASE).cast(pl.UInt8).fill_null(PHASE_UNKNOWN)
    return np.array(code.to_numpy(), dtype=np.uint8)


def _label_rows(table: pl.DataFrame, offsets: Int64, ids: tuple[str, ...], phase: UInt8) -> pl.DataFrame:
    starts = offsets[:-1]

    def first(name: str) -> pl.Series:
        return table[name].gather(starts) if name in table.columns else _nulls(name, len(ids))

    inside = np.where(phase == 1, np.arange(table.height), table.height)
    begin = np.minimum.reduceat(inside, starts) - starts if len(ids) else np.zeros(0, dtype=np.int64)
    none = begin >= np.diff(offsets)
    gesture_start = pl.Series("gesture_start", begin, dtype=pl.Int64).set(pl.Series(none), None)
    return pl.DataFrame(
        {
            SEQUENCE_ID: pl.Series(ids, dtype=pl.String),
            SUBJECT: first(SUBJECT),
            GESTURE: first(GESTURE),
            SEQUENCE_TYPE: first(SEQUENCE_TYPE),
            ORIENTATION: first(ORIENTATION),
            "behavior_first": first(BEHAVIOR),
            "n_frames": pl.Series(np.diff(offsets), dtype=pl.Int64),
            "gesture_start": gesture_start,
        }
    )


def _nulls(name: str, n: int) -> pl.Series:
    return pl.Series(name, [None] * n, dtype=pl.String)


# --------------------------------------------------------------------------------------------------------- sensors


def _acceleration(
    table: pl.DataFrame, offsets: Int64, ids: tuple[str, ...], quality: Quality, faults: dict[str, str]
) -> Float32:
    acc = float_matrix(table, ACC)
    with np.errstate(invalid="ignore"):
        absurd = np.isinf(acc) | (np.abs(acc) > ACC_LIMIT)
    for axis, name in enumerate(ACC):
        column = acc[:, axis]
        quality.add_frames(absurd[:, axis], offsets, ids, column=name, problem="out of range", action="interpolated")
        quality.add_frames(np.isnan(column), offsets, ids, column=name, problem="missing", action="interpolated")
    acc[absurd] = np.nan
    holes = np.isnan(acc)
    for position in np.unique(np.searchsorted(offsets, np.flatnonzero(holes.any(axis=1)), side="right") - 1):
        rows = slice(offsets[position], offsets[position + 1])
        if np.isnan(acc[rows]).all(axis=0).any():
            faults[ids[position]] = "has an acc_ column without any valid value"
        else:
            acc[rows] = _interpolated(acc[rows])
    return acc


def _interpolated(values: Float32) -> Float32:
    """Fill the NaN of each column of one sequence linearly, the ends by the nearest value."""
    out = values.copy()
    time = np.arange(len(values))
    for axis in range(values.shape[1]):
        bad = np.isnan(values[:, axis])
        if bad.any():
            out[bad, axis] = np.interp(time[bad], time[~bad], values[~bad, axis])
    return out


def _rotation(table: pl.DataFrame, offsets: Int64, ids: tuple[str, ...], quality: Quality) -> Float32:
    rot = float_matrix(table, ROT)
    valid = np.isfinite(rot)
    complete = np.asarray(valid.all(axis=1))
    some = np.asarray(valid.any(axis=1)) & ~complete
    with np.errstate(invalid="ignore", over="ignore"):
        norm = np.sqrt(np.sum(rot.astype(np.float64) ** 2, axis=1))
        broken = complete & ~(np.abs(norm - 1.0) <= _NORM_LIMIT)
        off = complete & ~broken & (np.abs(norm - 1.0) > _NORM_TOLERANCE)
    missing = ~complete | broken
    whole = np.logical_and.reduceat(missing, offsets[:-1]) if len(ids) else np.zeros(0, dtype=np.bool_)
    absent = np.repeat(whole, np.diff(offsets))

    def note(bad: Bool, problem: str, action: str) -> None:
        quality.add_frames(bad, offsets, ids, column="rot", problem=problem, action=action)

    note(some, "partly missing quaternion", "treated as missing")
    note(broken, "not a unit quaternion", "treated as missing")
    note(off, "norm differs from 1", "normalised")
    note(missing & absent, "sensor missing", "kept missing")
    note(missing & ~absent, "missing", "interpolated when features are computed")
    rot[missing] = np.nan
    with np.errstate(invalid="ignore"):
        return np.asarray(rot / np.where(missing, np.nan, norm)[:, None], dtype=np.float32)


def _thermopiles(
    table: pl.DataFrame, schema: RawSchema, offsets: Int64, ids: tuple[str, ...], *, quality: Quality
) -> Float32:
    columns = schema.layout.thm_columns
    thm = float_matrix(table, columns)
    low, high = THM_LIMITS
    for sensor, name in enumerate(columns):
        values = thm[:, sensor]
        with np.errstate(invalid="ignore"):
            absurd = np.isinf(values) | (values < low) | (values > high)
        quality.add_frames(absurd, offsets, ids, column=name, problem="out of range", action="treated as missing")
        values[absurd] = np.nan
        broken = _broken(values, offsets)
        quality.add_frames(
            broken, offsets, ids, column=name, problem="broken sensor (cold or constant)", action="treated as missing"
        )
        values[broken] = np.nan
        _note_missing(np.isnan(values) & ~absurd & ~broken, offsets, ids, name, quality=quality)
    return thm


def _broken(values: Float32, offsets: Int64) -> Bool:
    """Frames of sequences in which a thermopile stays below 18 degC or never changes."""
    if len(offsets) < 2:
        return np.zeros(0, dtype=np.bool_)
    starts = offsets[:-1]
    valid = ~np.isnan(values)
    lowest = np.minimum.reduceat(np.where(valid, values, np.inf), starts)
    highest = np.maximum.reduceat(np.where(valid, values, -np.inf), starts)
    count = np.add.reduceat(valid, starts, dtype=np.int64)
    constant = (lowest == highest) & (count >= _MIN_FRAMES_OF_CONSTANT_SENSOR)
    broken = (count > 0) & ((highest < THM_BROKEN_BELOW) | constant)
    return np.asarray(np.repeat(broken, np.diff(offsets)) & valid)


def _note_missing(missing: Bool, offsets: Int64, ids: tuple[str, ...], name: str, *, quality: Quality) -> None:
    if not missing.any():
        return
    whole = np.repeat(np.logical_and.reduceat(missing, offsets[:-1]), np.diff(offsets))
    quality.add_frames(missing & whole, offsets, ids, column=name, problem="sensor missing", action="kept missing")
    quality.add_frames(missing & ~whole, offsets, ids, column=name, problem="missing", action="kept missing")


def _time_of_flight(
    table: pl.DataFrame, schema: RawSchema, offsets: Int64, ids: tuple[str, ...], *, quality: Quality
) -> Int16:
    n_tof = len(schema.layout.tof)
    tof = np.empty((table.height, n_tof, TOF_PIXELS), dtype=np.int16)
    columns = schema.layout.tof_columns
    for sensor, number in enumerate(schema.layout.tof):
        names = columns[sensor * TOF_PIXELS : (sensor + 1) * TOF_PIXELS]
        values = _pixels(table, names)
        with np.errstate(invalid="ignore"):
            whole = values.astype(np.int16)
        valid = (whole == values) & (whole >= TOF_NO_RETURN) & (whole <= TOF_MAX)
        if not valid.all():
            whole[~valid] = TOF_MISSING
        transpose_into(whole, tof[:, sensor])
        missing = np.isnan(values)
        absurd = ~valid & ~missing
        quality.add_frames(
            np.asarray(absurd.any(axis=0)),
            offsets,
            ids,
            column=f"tof_{number}",
            problem=f"no whole number in -1..{TOF_MAX}",
            action="treated as missing",
        )
        wholly = np.asarray(missing.all(axis=0))
        _note_missing(wholly, offsets, ids, f"tof_{number}", quality=quality)
        partly = np.asarray(missing.any(axis=0)) & ~wholly
        quality.add_frames(
            partly, offsets, ids, column=f"tof_{number}", problem="some pixels missing", action="kept missing"
        )
    return tof


def _pixels(table: pl.DataFrame, names: Sequence[str]) -> Float32:
    """Copy columns of any type of number as float32, (n_columns, n_rows), null -> NaN."""
    out = np.empty((len(names), table.height), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is out of range anyway
        for row, name in zip(out, names, strict=True):
            row[:] = table.get_column(name).to_numpy()
    return out
