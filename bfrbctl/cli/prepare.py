"""bfrbctl prepare: raw recordings -> prepared dataset."""

from pathlib import Path
from typing import Annotated

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("prepare")(prepare)


def prepare(
    raw: Annotated[
        Path,
        typer.Argument(help="The study's folder (train.csv and/or test.csv, or .parquet), or one file.", metavar="RAW"),
    ],
    data: Annotated[Path, typer.Argument(help="Folder to write the prepared dataset into.", metavar="DATA")],
    demographics: Annotated[Path | None, typer.Option(help="The people of a single raw file (CSV or Parquet).")] = None,
    rate_hz: Annotated[float | None, typer.Option(help="Frames a second [default: 10].")] = None,
    folds: Annotated[int | None, typer.Option(help="Number of subject-grouped folds [default: 5].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the folds [default: 0].")] = None,
    drop: Annotated[
        list[str] | None, typer.Option(help="Leave out a sequence; may be repeated.", metavar="SEQ")
    ] = None,
    rows_per_file: Annotated[int | None, typer.Option(help="Frames a file, at least [default: 65536].")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add the recordings to the dataset that is there, as files of their own.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes; 0 means one a core, or none beside this one for a small input or up to two cores.", min=0
        ),
    ] = 0,
    scheduler: shared.Scheduler = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Check raw recordings, repair what can be repaired, split the subjects into folds.

    Writes sequences.parquet, frames-*.parquet and quality.parquet (what was repaired, where, why). With --append
    nothing that is there changes: subjects keep their folds, new ones get theirs.

    Example: bfrbctl prepare cmi-detect-behavior/ data/ --workers 2
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.errors import UsageError
    from bfrbctl.evaluation.metrics import one_sided_note
    from bfrbctl.recordings.appending import settings_of
    from bfrbctl.recordings.preparation import PrepareConfig, fitting_workers, split_refs
    from bfrbctl.recordings.preparation import prepare as run
    from bfrbctl.recordings.raw import find_splits

    if append and force:
        raise UsageError(
            "--append and --force exclude each other", hint="one adds to the dataset, the other replaces it"
        )
    earlier = interrupted_run(data, "dataset", resume=resume)
    given = {"rate_hz": rate_hz, "folds": folds, "seed": seed, "rows_per_file": rows_per_file}
    given = {key: earlier.config.get(key) if value is None else value for key, value in given.items()}
    config = configuration.build(
        PrepareConfig,
        earlier=earlier.config,
        **(settings_of(data, given) if append else given),
        drop=tuple(drop) if drop else None,
    )
    options, demographics = shared.remembered_path(earlier, "demographics", demographics)
    splits = find_splits(raw, demographics)
    effective = configuration.as_mapping(config)
    job = Job("dataset", effective, split_refs(splits), shared.command_line(), config.seed, options)
    processes = workers if scheduler or workers else fitting_workers(splits)
    total = sum(split.frames.stat().st_size for split in splits)
    with (
        shared.executor(processes, scheduler, quiet=quiet) as executor,
        open_output(data, job, force=force, resume=resume, append=append) as output,
        shared.progress("prepare", total, quiet=quiet, unit="MB", scale=1e6) as advance,
    ):
        folder = run(splits, output, config, executor=executor, on_bytes=advance)
        reused = [name for name in output.reused if name.startswith("frames")]
    content = folder.content
    note = one_sided_note(content)
    counts = ", ".join(f"{n} {name}" for name, n in content["n_sequences"].items())
    lines = [
        f"wrote {data}: {counts} sequences of {content['n_subjects']} subjects, {content['n_frames']} frames, "
        f"{len(content['classes'])} gestures",
        f"      {content['n_findings']} findings in {data / 'quality.parquet'}",
        *([f"      reused {len(reused)} files of the earlier run"] if reused else []),
    ]
    shared.tell(
        {"output": data, **content, "reused": reused, "warnings": [note] if note else []},
        lines=lines,
        as_json=as_json,
        quiet=quiet,
        next_command=f"bfrbctl featurize {data} FEATURES",
    )
