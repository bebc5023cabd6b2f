"""From raw recordings to a prepared dataset: checked, repaired, typed, with folds.

`writing.FramesWriter` makes the frames files of each raw file; `prepare` checks them together and writes the tables. A
dataset can grow: another source is added as files of its own, and the existing files do not change.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from bfrbctl.artefacts.folders import QUALITY, SEQUENCES, Folder, InputRef, input_file_ref
from bfrbctl.artefacts.outputs import Output
from bfrbctl.config import Settings
from bfrbctl.errors import DataError, UsageError, examples
from bfrbctl.evaluation.folds import extend_folds
from bfrbctl.execution.executor import SEQUENTIAL, Executor, n_workers
from bfrbctl.recordings.appending import Before, source
from bfrbctl.recordings.cleaning import Fault, Quality
from bfrbctl.recordings.dataset import n_subjects
from bfrbctl.recordings.frames_files import FramesSpec, Notes
from bfrbctl.recordings.raw import OnBytes, RawSchema, RawSplit, file_format, read_schema
from bfrbctl.recordings.sequence_types import TYPED, one_sided_findings, refuse_mixed_types, refuse_strange_types
from bfrbctl.recordings.writing import FramesWriter
from bfrbctl.schema import (
    DEFAULT_RATE_HZ,
    DEMOGRAPHICS,
    GESTURE,
    SEQUENCE_ID,
    SEQUENCE_TYPE,
    SUBJECT,
    TARGET_TYPE,
    SensorLayout,
)

_WORTH_BYTES = {"csv": 400_000_000, "parquet": 45_000_000}
"""One process prepares a smaller raw file before others have started and done their share."""

_BUSY_ALONE = 2
"""Cores that one process keeps busy by itself, since it reads ahead while it checks and packs."""

_WORKER_BYTES = 1 << 30
"""Memory that a worker may need: 65,536 frames of the study, read, checked and packed."""


class PrepareConfig(Settings):
    """Settings of `prepare`."""

    rate_hz: float = Field(
        default=DEFAULT_RATE_HZ, ge=0.1, le=10_000.0, description="Frames a second of the recordings"
    )
    folds: int = Field(default=5, ge=2, le=100, description="Folds of the labelled sequences, by subject")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the folds")
    drop: tuple[str, ...] = Field(default=(), description="Sequences to leave out")
    rows_per_file: int = Field(
        default=65_536,
        ge=1,
        le=4_000_000,
        description="Rows at which a frames file is closed, by the sequence that brings it to so many or more",
    )


def split_refs(splits: Sequence[RawSplit]) -> tuple[InputRef, ...]:
    """Digests of all raw files, for the manifest's lineage."""
    return tuple(input_file_ref(path) for path in raw_paths(splits))


def raw_paths(splits: Sequence[RawSplit]) -> list[Path]:
    """All raw files, recordings and demographics."""
    return [path for split in splits for path in split.paths]


def common_layout(schemas: Iterable[RawSchema]) -> SensorLayout:
    """All sensors that any of the files has."""
    layouts = [schema.layout for schema in schemas]
    return SensorLayout(
        thm=tuple(sorted({sensor for layout in layouts for sensor in layout.thm})),
        tof=tuple(sorted({sensor for layout in layouts for sensor in layout.tof})),
    )


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
    before = Before.of(output.onto)
    specs = _specs(splits, config, before.layout, output.path.absolute())
    n_files = before.n_files
    results: dict[str, Notes] = {}
    try:
        for split in splits:
            writer = FramesWriter(split, specs[split.name], output, config.rows_per_file, n_files, executor)
            results[split.name] = writer.write(on_bytes)
            n_files += len(results[split.name].labels)
        _refuse_changed(splits, found)
        _refuse_unknown_drops(results, config, output)
        _refuse_faults(splits, results)
        _refuse_unfit(splits, results, before)
        layout = _live_layout(specs[splits[0].name].layout, results, keep_dead=before.layout is not None)
        sequences = _sequence_table(splits, results, config, before=before)
    except DataError as error:
        output.refuse_input(error)
        raise
    content = _content(pl.concat([*before.sequences, sequences]), layout, config)
    results[splits[0].name].quality.rows += one_sided_findings(content)
    quality = pl.concat([_split_quality(split, specs[split.name].schema, results[split.name]) for split in splits])
    output.publish("tables", {before.name(SEQUENCES): sequences, before.name(QUALITY): quality})
    content["n_findings"] = quality.height + before.n_findings
    if output.onto:
        content["sources"] = [*before.sources, source(sequences, output.job)]
    return output.finish(content)


def _specs(
    splits: Sequence[RawSplit], config: PrepareConfig, layout: SensorLayout | None, folder: Path
) -> dict[str, FramesSpec]:
    """Describe how each raw file becomes frames files, all of them with the same sensors."""
    schemas = [read_schema(split.frames) for split in splits]
    layout = layout or common_layout(schemas)
    drop = frozenset(config.drop)
    return {
        split.name: FramesSpec(schema, split.demographics, config.rate_hz, drop, layout, folder)
        for split, schema in zip(splits, schemas, strict=True)
    }


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


def _refuse_unfit(splits: Sequence[RawSplit], results: Mapping[str, Notes], before: Before) -> None:
    for split in splits:
        ids = pl.concat([labels[SEQUENCE_ID] for labels in results[split.name].labels])
        before.refuse_unfit(split.frames, ids, results[split.name].live)


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
