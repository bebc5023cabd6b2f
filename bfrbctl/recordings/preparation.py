"""From raw recordings to a prepared dataset: checked, repaired, typed, with folds.

`cleaned_tables` streams any raw input through the checks; `prepare` writes the result. `predict` calls the former too,
so that serving reads exactly what training read. One process streams a raw file; workers read its parts on their own,
one for each frames file, where `raw_sequences.plan` finds them. A dataset can grow: another source is added as files of
its own, and the existing files do not change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bfrbctl.artefacts.folders import QUALITY, SEQUENCES, Folder, InputRef, input_file_ref, pinned_file
from bfrbctl.artefacts.outputs import Output
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation.folds import extend_folds
from bfrbctl.execution.executor import SEQUENTIAL, Executor, n_workers, run_tasks
from bfrbctl.recordings.appending import Before, source
from bfrbctl.recordings.cleaning import CleanTable, Fault, Quality, clean
from bfrbctl.recordings.dataset import frames_file, n_subjects
from bfrbctl.recordings.frames_files import (
    FramesSpec,
    Made,
    Notes,
    frames_table,
    make_file,
    notes_file,
    with_demographics,
)
from bfrbctl.recordings.raw import (
    RawSchema,
    RawSplit,
    Unsorted,
    file_format,
    read_demographics,
    read_schema,
    without_empty,
)
from bfrbctl.recordings.raw_sequences import Part, gather, plan, whole_sequences
from bfrbctl.recordings.sequence_types import TYPED, one_sided_findings, refuse_mixed_types, refuse_strange_types
from bfrbctl.schema import (
    DEFAULT_RATE_HZ,
    DEMOGRAPHICS,
    GESTURE,
    SEQUENCE_COUNTER,
    SEQUENCE_ID,
    SEQUENCE_TYPE,
    SUBJECT,
    TARGET_TYPE,
    SensorLayout,
)

OnBytes = Callable[[int], None]

_MANY = 1 << 20
"""More tasks than any executor runs at once: where these run in this process, all do."""

_WORTH_BYTES = {"csv": 400_000_000, "parquet": 45_000_000}
"""One process prepares a smaller raw file before others have started and done their share."""

_BUSY_ALONE = 2
"""Cores that one process keeps busy by itself, since it reads ahead while it checks and packs."""

_WORKER_BYTES = 1 << 30
"""Memory that a worker may need: 65,536 frames of the study, read, checked and packed."""

_NUMBERS = frozenset(
    {pl.Float64(), pl.Int64(), pl.Int32(), pl.Int16(), pl.Int8(), pl.UInt8(), pl.UInt16(), pl.UInt32()}
)
"""Types of pixel columns that need no conversion: `cleaning` reads any number."""


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of `prepare`.

    Parameters
    ----------
    rate_hz
        Frames a second of the recordings.
    folds
        How many folds the labelled sequences get.
    seed
        Seed of the folds.
    drop
        Sequences to leave out.
    rows_per_file
        A frames file is closed by the sequence that brings it to this many rows or more.
    """

    rate_hz: float = DEFAULT_RATE_HZ
    folds: int = 5
    seed: int = 0
    drop: tuple[str, ...] = ()
    rows_per_file: int = 65_536

    def __post_init__(self) -> None:
        if not 0.1 <= self.rate_hz <= 10_000:
            raise UsageError(f"--rate-hz {self.rate_hz}: expected 0.1 to 10000 frames a second")
        if not 2 <= self.folds <= 100:
            raise UsageError(f"--folds {self.folds}: expected 2 to 100")
        if not 1 <= self.rows_per_file <= 4_000_000:
            raise UsageError(f"--rows-per-file {self.rows_per_file}: expected 1 to 4000000")


def split_refs(splits: Sequence[RawSplit]) -> tuple[InputRef, ...]:
    """Digests of all raw files, for the manifest's lineage."""
    return tuple(input_file_ref(path) for path in raw_paths(splits))


def raw_paths(splits: Sequence[RawSplit]) -> list[Path]:
    """All raw files, recordings and demographics."""
    return [path for split in splits for path in (split.frames, split.demographics) if path is not None]


def common_layout(schemas: Iterable[RawSchema]) -> SensorLayout:
    """All sensors that any of the files has."""
    layouts = [schema.layout for schema in schemas]
    return SensorLayout(
        thm=tuple(sorted({sensor for layout in layouts for sensor in layout.thm})),
        tof=tuple(sorted({sensor for layout in layouts for sensor in layout.tof})),
    )


def cleaned_tables(
    split: RawSplit,
    schema: RawSchema,
    *,
    config: PrepareConfig,
    gathered: bool = False,
    on_bytes: OnBytes | None = None,
) -> Iterator[CleanTable]:
    """Stream a raw file through the checks, about `config.rows_per_file` frames at a time.

    Raises
    ------
    raw.Unsorted
        On the way, when the file is not sorted by sequence: start over with `gathered=True`.
    DataError
        When the file itself is broken.
    """
    demographics = None if split.demographics is None else read_demographics(split.demographics)
    drop = frozenset(config.drop)
    tables = whole_sequences(split.frames, schema, rows=config.rows_per_file, gathered=gathered, on_bytes=on_bytes)
    for table in tables:
        yield with_demographics(clean(table, schema, rate_hz=config.rate_hz, drop=drop), demographics)


def clean_frames(
    frames: pl.DataFrame, demographics: pl.DataFrame | None, *, layout: SensorLayout, rate_hz: float
) -> CleanTable:
    """Put recordings that are in memory through the same checks as a raw file.

    The columns that name a recording may be missing here as a whole: without any sequence_id all rows are one
    recording, without a subject the wearer is unknown, without any counter rows are numbered in their order.

    Parameters
    ----------
    frames
        Rows of one or more sequences in any order: acc_*, rot_*, and what there is of sequence_id, sequence_counter,
        subject, thm_*, tof_*. Other columns are ignored; sensors of `layout` that it lacks are missing.
    demographics
        One row a subject, as in the study's file; None or empty when unknown. A recording whose subject is missing or
        the empty string is of an unknown person.
    layout
        Sensors to give.
    rate_hz
        Frames a second.

    Returns
    -------
    The usable sequences, and the faults of the others.

    Raises
    ------
    DataError
        When some rows, but not all, have no sequence_id.
    """
    schema = RawSchema(layout, (), ())
    n = frames.height
    known = dict(zip(frames.columns, frames.dtypes, strict=True))
    stand_ins = {
        SEQUENCE_ID: lambda: pl.repeat("sequence", n, eager=True),
        SEQUENCE_COUNTER: lambda: pl.Series(np.arange(n)),
        SUBJECT: lambda: pl.repeat(None, n, dtype=pl.String, eager=True),
    }
    nothing = pl.repeat(None, n, dtype=pl.Float32, eager=True)
    pixels = frozenset(layout.tof_columns)
    as_they_are: list[str] = []
    made: list[pl.Series] = []
    for name, dtype in schema.dtypes.items():
        there = known.get(name)
        if there is None:
            made.append((stand_ins[name]() if name in stand_ins else nothing).alias(name))
        elif name in stand_ins:
            made.append(_key(_as_type(frames.get_column(name), dtype), stand_ins[name]))
        elif (name in pixels and there in _NUMBERS) or there == dtype:
            as_they_are.append(name)
        else:
            made.append(_as_type(frames.get_column(name), dtype))
    table = frames[as_they_are].hstack(made) if as_they_are else pl.DataFrame(made)
    if not table[SEQUENCE_ID].is_sorted():
        table = table.sort(SEQUENCE_ID, maintain_order=True)
    cleaned = clean(table, schema, rate_hz=rate_hz)
    if demographics is None or SUBJECT not in demographics.columns:
        return cleaned
    known_subjects = demographics.select(
        pl.col(SUBJECT).cast(pl.String),
        *(pl.col(name).cast(pl.Float32, strict=False) for name in DEMOGRAPHICS if name in demographics.columns),
        *(pl.lit(None, dtype=pl.Float32).alias(name) for name in DEMOGRAPHICS if name not in demographics.columns),
    ).unique(SUBJECT, keep="first", maintain_order=True)
    return with_demographics(cleaned, known_subjects)


def _key(values: pl.Series, stand_in: Callable[[], pl.Series]) -> pl.Series:
    """Fill what is missing of a key where that can only mean one thing; an empty text is as missing as null."""
    if values.dtype == pl.String:
        values = without_empty(values.to_frame()).to_series()
    n_missing = values.null_count()
    if values.name == SUBJECT:
        return values.fill_null(stand_in()) if n_missing else values
    if n_missing and n_missing == len(values):
        return stand_in().alias(values.name)
    if n_missing and values.name == SEQUENCE_ID:
        raise DataError(
            f"{n_missing} of {len(values)} rows have no sequence_id (null or empty), expected one in every row",
            hint="name the recording that they belong to, or leave the column out where all rows are of one",
        )
    return values


def _as_type(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Convert a column; null where a value is none of that type, or no value of the column can be."""
    if values.dtype == dtype:
        return values
    nothing = pl.repeat(None, len(values), dtype=dtype, eager=True).alias(values.name)
    try:
        cast = values.cast(dtype, strict=False)
    except pl.exceptions.PolarsError:
        return nothing
    return cast if cast.dtype == dtype else nothing  # a struct stays a struct of such values


def fitting_workers(splits: Sequence[RawSplit]) -> int:
    """How many processes of this machine are worth their start for these files, and have the memory."""
    few = all(split.frames.stat().st_size < _WORTH_BYTES[file_format(split.frames)] for split in splits)
    found = n_workers(0, memory=_WORKER_BYTES)
    return 1 if few or found <= _BUSY_ALONE else found


def prepare(
    splits: Sequence[RawSplit],
    output: Output,
    config: PrepareConfig,
    *,
    executor: Executor = SEQUENTIAL,
    on_bytes: OnBytes | None = None,
) -> Folder:
    """Write the prepared dataset of one or more raw files, or add them to the dataset that `output` is opened onto.

    Parameters
    ----------
    splits
        What `raw.find_splits` found.
    output
        The folder, opened by `outputs.open_output`.
    config
        Settings.
    executor
        Where the frames files are made.
    on_bytes
        Called with the number of bytes read since the last call.

    Returns
    -------
    The finished dataset folder.

    Raises
    ------
    DataError
        When a file is broken or sequences in it cannot be used; they are all named or counted. When what is added
        does not fit the dataset.
    """
    found = split_refs(splits)
    schemas = {split.name: read_schema(split.frames) for split in splits}
    before = Before.of(output.onto)
    layout = before.layout or common_layout(schemas.values())
    n_files = before.n_files
    results: dict[str, Notes] = {}
    try:
        for split in splits:
            schema = schemas[split.name]
            spec = FramesSpec(
                schema, split.demographics, config.rate_hz, frozenset(config.drop), layout, output.path.absolute()
            )
            writing = _Writing(split, spec, output, config, n_files, executor)
            results[split.name] = writing.write(on_bytes)
            n_files += len(results[split.name].labels)
        _refuse_changed(splits, found)
        _refuse_unknown_drops(results, config, output)
        _refuse_faults(splits, results)
        for split in splits:
            ids = pl.concat([labels[SEQUENCE_ID] for labels in results[split.name].labels])
            before.refuse_unfit(split.frames, ids, results[split.name].live)
        layout = _live_layout(layout, results, keep_dead=before.layout is not None)
        sequences = _sequence_table(splits, results, config, before=before)
    except DataError as error:
        output.refuse_input(error)
        raise
    content = _content(pl.concat([*before.sequences, sequences]), layout, config)
    results[splits[0].name].quality.rows += one_sided_findings(content)
    quality = pl.concat([_split_quality(split, schemas[split.name], results[split.name]) for split in splits])
    output.publish("tables", {before.name(SEQUENCES): sequences, before.name(QUALITY): quality})
    content["n_findings"] = quality.height + before.n_findings
    if output.onto:
        content["sources"] = [*before.sources, source(sequences, output.job)]
    return output.finish(content)


@dataclass(frozen=True)
class _Writing:
    """The frames files of a split being written, from number `first_file` on."""

    split: RawSplit
    spec: FramesSpec
    output: Output
    config: PrepareConfig
    first_file: int
    executor: Executor

    def write(self, on_bytes: OnBytes | None) -> Notes:
        """Write them all; gives the notes of all."""
        try:
            return self._shared_out(on_bytes) or self._streamed(on_bytes)
        except Unsorted:
            first = frames_file(self.first_file)
            self.output.forget([name for name in self.output.pieces if name >= first])
        return self._gathered()

    def _streamed(self, on_bytes: OnBytes | None, *, gathered: bool = False) -> Notes:
        """Read the file here, in its order."""
        result = Notes()
        tables = cleaned_tables(self.split, self.spec.schema, config=self.config, gathered=gathered, on_bytes=on_bytes)
        for number, cleaned in enumerate(tables, self.first_file):
            notes, name = Notes.of(cleaned, number), frames_file(number)
            result.add(notes)
            if not result.faults and not self.output.has(name):
                frames = frames_table(cleaned, self.spec.layout)
                self.output.publish(name, {name: frames, notes_file(number): notes.pack()})
        return result

    def _shared_out(self, on_bytes: OnBytes | None) -> Notes | None:
        """Let workers read the parts of the file; None where it must be streamed, or where that is faster."""
        alone = self.executor.here(_MANY)
        if alone and not self.output.resumed:
            return None  # one that reads ahead while it works is faster than first looking where sequences begin
        parts = plan(self.split.frames.absolute(), self.config.rows_per_file)
        if parts is None or (len(parts) == 1 and not self.output.resumed):
            return None
        return self._from_parts(parts, on_bytes)

    def _gathered(self) -> Notes:
        """Bring the rows of each sequence together, then let workers read them."""
        if self.executor.here(_MANY):
            return self._streamed(None, gathered=True)
        with self.output.scratch(f"gathered-{self.split.name}") as folder:
            parts = gather(
                self.split.frames, self.spec.schema, rows=self.config.rows_per_file, folder=folder.absolute()
            )
            return self._from_parts(parts, None) or self._streamed(None, gathered=True)

    def _from_parts(self, parts: Sequence[Part], on_bytes: OnBytes | None) -> Notes | None:
        """Let workers make a frames file of every part; None when the file turns out to be broken.

        Streaming it then finds where, so that the message is the same for any number of workers.
        """
        result = Notes()
        numbered = list(enumerate(parts, self.first_file))
        tasks = [(part, number, self.spec) for number, part in numbered if not self._has(number)]
        todo = {number for _, number, _ in tasks}
        if todo:
            self.executor.check_paths(self.output.path, *map(pinned_file, raw_paths([self.split])))
        with closing(run_tasks(make_file, tasks, executor=self.executor)) as made:
            for number, part in numbered:
                try:
                    notes = self._publish(number, next(made), result) if number in todo else self._read(number)
                except DataError:
                    return None
                result.add(notes)
                if on_bytes:
                    on_bytes(part.n_bytes)
        return result

    def _has(self, number: int) -> bool:
        name = frames_file(number)
        return self.output.has(name) and notes_file(number) in self.output.pieces[name]

    def _read(self, number: int) -> Notes:
        name = notes_file(number)
        return Notes.unpack(self.output.read(name), name)

    def _publish(self, number: int, made: Made, result: Notes) -> Notes:
        """Publish a frames file, unless it or one before it has sequences that cannot be used."""
        name = frames_file(number)
        if made.frames and result.faults:
            made.frames.unlink()
        elif made.frames:
            self.output.publish(name, {name: made.frames, notes_file(number): made.notes})
        return Notes.unpack(made.notes, notes_file(number), made.faults)


def _live_layout(layout: SensorLayout, results: Mapping[str, Notes], *, keep_dead: bool) -> SensorLayout:
    """Leave out sensors that never measured anything, with one finding each instead of one a sequence."""
    live = {name for result in results.values() for name in result.live}
    kept = SensorLayout(
        thm=tuple(n for n in layout.thm if f"thm_{n}" in live), tof=tuple(n for n in layout.tof if f"tof_{n}" in live)
    )
    dead = {f"thm_{n}" for n in layout.thm} | {f"tof_{n}" for n in layout.tof}
    dead -= live
    for result in results.values():
        rows = result.quality.rows
        result.quality.rows = [row for row in rows if row[1] not in dead or row[2] != "sensor missing"]
        for name in sorted(dead):
            action = "sensor kept as missing" if keep_dead else "sensor left out"
            result.quality.add(None, name, "no data in the whole dataset", action, 0)
    return layout if keep_dead else kept


def _refuse_changed(splits: Sequence[RawSplit], found: Sequence[InputRef]) -> None:
    """Check that the files did not change while they were read: the manifest holds their digests."""
    now = split_refs(splits)
    changed = [path for path, old, new in zip(raw_paths(splits), found, now, strict=True) if old != new]
    if changed:
        raise DataError(
            f"{examples(changed)}: changed while it was read",
            hint="make sure that nothing writes to it, and prepare it again",
        )


def _refuse_unknown_drops(results: Mapping[str, Notes], config: PrepareConfig, output: Output) -> None:
    """Refuse a --drop of a sequence that is not there, which is known only after reading all."""
    dropped = {row[0] for result in results.values() for row in result.quality.rows if row[3] == "left out"}
    unknown = sorted(set(config.drop) - dropped)
    if unknown:
        output.discard()
        raise UsageError(
            f"--drop {examples(unknown)}: no sequence of that name", hint="use names of sequence_id in the file"
        )


def _refuse_faults(splits: Sequence[RawSplit], results: Mapping[str, Notes]) -> None:
    for split in splits:
        result = results[split.name]
        labels = pl.concat(result.labels)
        if GESTURE in labels.columns and labels[GESTURE].is_not_null().any():
            bare = labels.filter(pl.col(GESTURE).is_null())[SEQUENCE_ID].to_list()
            result.faults += [Fault(name, "has no gesture, while others have one") for name in bare]
            result.faults += _without_subject(split, labels)
            refuse_strange_types(labels, what=str(split.frames))
        if result.faults:
            options = " ".join(f"--drop {fault.sequence_id}" for fault in result.faults[:3])
            more = "" if len(result.faults) <= 3 else f" ... ({len(result.faults)} in all)"
            named = [f"sequence {fault.sequence_id} {fault.what}" for fault in result.faults]
            raise DataError(
                f"{split.frames}: {examples(named)}", hint=f"fix the rows, or leave them out with {options}{more}"
            )
    _refuse_repeats(results)


def _without_subject(split: RawSplit, labels: pl.DataFrame) -> list[Fault]:
    """Name the labelled sequences whose subject is unknown: no fold can hold that subject out.

    Raises
    ------
    DataError
        When that is all of them.
    """
    nameless = labels.filter(pl.col(GESTURE).is_not_null() & (pl.col(SUBJECT) == ""))[SEQUENCE_ID].to_list()
    if nameless and len(nameless) == labels.height:
        raise DataError(
            f"{split.frames}: column {SUBJECT} is empty in all {labels.height} labelled sequences, "
            "expected who was recorded",
            hint="fill it in: folds hold out whole subjects",
        )
    return [Fault(name, "has no subject, which labelled sequences need for their folds") for name in nameless]


def _refuse_repeats(results: Mapping[str, Notes]) -> None:
    ids = pl.concat([labels[SEQUENCE_ID] for result in results.values() for labels in result.labels])
    twice = ids.filter(ids.is_duplicated()).unique().sort().to_list()
    if twice:
        raise DataError(
            f"sequence {examples(twice)} is in both files, expected each sequence_id once",
            hint="prepare the two files into two datasets",
        )


def _sequence_table(
    splits: Sequence[RawSplit], results: Mapping[str, Notes], config: PrepareConfig, *, before: Before
) -> pl.DataFrame:
    parts = [pl.concat(results[split.name].labels).with_columns(pl.lit(split.name).alias("split")) for split in splits]
    table = pl.concat(parts)
    if table.height == 0:
        raise DataError("no sequence is left", hint="check --drop and the input")
    repaired = pl.concat([results[split.name].quality.table() for split in splits])
    counts = repaired.drop_nulls(SEQUENCE_ID).group_by(SEQUENCE_ID).len("n_findings")
    table = table.join(counts, on=SEQUENCE_ID, how="left", maintain_order="left").with_columns(
        pl.col("n_findings").fill_null(0).cast(pl.Int32), pl.lit(None, dtype=pl.Int32).alias("fold")
    )
    labelled = table[GESTURE].is_not_null()
    if labelled.any():
        part = table.filter(labelled)
        who = part[GESTURE].to_list(), part[SUBJECT].to_list()
        folds = extend_folds(*who, before=before.folds(), n_folds=config.folds, seed=config.seed)
        where = labelled.arg_true()
        table = table.with_columns(table["fold"].scatter(where, pl.Series(folds, dtype=pl.Int32)))
        refuse_mixed_types(pl.concat([table.select(TYPED) for table in (*before.sequences, part)]))
    front = [SEQUENCE_ID, "split", SUBJECT, GESTURE, SEQUENCE_TYPE]
    return table.select(*front, pl.exclude(front))


def _split_quality(split: RawSplit, schema: RawSchema, result: Notes) -> pl.DataFrame:
    quality = Quality(list(result.quality.rows))
    for name in schema.extra:
        quality.add(None, name, "column we do not know", "left out", 0)
    labels = pl.concat(result.labels)
    unknown = labels.filter(pl.all_horizontal(pl.col(name).is_null() for name in DEMOGRAPHICS))
    for sequence_id in unknown[SEQUENCE_ID]:
        quality.add(sequence_id, SUBJECT, "subject without demographics", "kept as unknown", 0)
    return quality.table().with_columns(pl.lit(split.name).alias("split"))


def _content(sequences: pl.DataFrame, layout: SensorLayout, config: PrepareConfig) -> dict[str, Any]:
    labelled = sequences.drop_nulls(GESTURE)
    gestures = labelled[GESTURE].unique().sort().to_list()
    targets = labelled.filter(pl.col(SEQUENCE_TYPE) == TARGET_TYPE)[GESTURE].unique().to_list()
    return {
        "rate_hz": config.rate_hz,
        "thm": list(layout.thm),
        "tof": list(layout.tof),
        "classes": gestures,
        "targets": [gesture in targets for gesture in gestures],
        "sequence_types": labelled[SEQUENCE_TYPE].drop_nulls().unique().sort().to_list(),
        "n_folds": config.folds if gestures else 0,
        "n_sequences": dict(sequences["split"].value_counts().sort("split").iter_rows()),
        "n_frames": int(sequences["n_frames"].sum()),
        "n_subjects": sequences.select(n_subjects()).item(),
        "n_files": int(sequences["file"].max()) + 1,  # type: ignore[arg-type]
    }
