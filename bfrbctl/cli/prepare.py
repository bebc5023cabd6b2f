"""bfrbctl prepare: raw recordings -> prepared dataset."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import (
    OUTPUT,
    DisplayOptions,
    OutputOptions,
    RunOptions,
    SettingsOptions,
    command_line,
    grouped,
    remembered_path,
)
from bfrbctl.cli.progress import executor, progress
from bfrbctl.cli.results import reused_line, show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.folders import Folder
    from bfrbctl.artefacts.journals import Journal
    from bfrbctl.recordings.preparation import PrepareConfig


@dataclass(frozen=True)
class DatasetOptions:
    """Settings of the dataset that have options of their own."""

    rate_hz: Annotated[float | None, typer.Option(help="Frames per second [default: 10].")] = None
    folds: Annotated[int | None, typer.Option(help="Number of subject-grouped folds [default: 5].")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the folds [default: 0].")] = None
    drop: Annotated[list[str] | None, typer.Option(help="Leave this sequence out. May be repeated.", metavar="SEQ")] = (
        None
    )
    rows_per_file: Annotated[int | None, typer.Option(help="Frames per file, at least [default: 65536].")] = None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("prepare", cls=Command)(prepare)


@grouped
def prepare(
    raw: Annotated[
        Path,
        typer.Argument(
            help="Folder of the recordings (train.csv and/or test.csv, or .parquet), or one file.", metavar="RAW"
        ),
    ],
    data: Annotated[Path, typer.Argument(help="Folder to write the prepared dataset into.", metavar="DATA")],
    *,
    demographics: Annotated[
        Path | None, typer.Option(help="The subjects of a single raw file (CSV or Parquet).")
    ] = None,
    options: DatasetOptions,
    settings: SettingsOptions,
    run: RunOptions,
    append: Annotated[
        bool,
        typer.Option("--append", help="Add the recordings to the dataset, as new files.", rich_help_panel=OUTPUT),
    ] = False,
    output: OutputOptions,
    display: DisplayOptions,
) -> None:
    """Check raw recordings, repair what can be repaired, split the subjects into folds.

    Writes sequences.parquet, frames-*.parquet and quality.parquet (what was repaired, where, why). With --append
    existing files do not change: subjects keep their folds, and new subjects get a fold.

    Example: bfrbctl prepare cmi-detect-behavior/ data/ --workers 2
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.recordings.preparation import fitting_workers, split_refs
    from bfrbctl.recordings.preparation import prepare as prepare_recordings
    from bfrbctl.recordings.raw import find_splits

    if append:
        _check_append(settings, force=output.force)
    earlier = interrupted_run(data, "dataset", resume=output.resume)
    config = _settings(data, options, settings, earlier, append=append)
    remembered, demographics = remembered_path(earlier, "demographics", demographics)
    splits = find_splits(raw, demographics)
    job = Job("dataset", configuration.as_mapping(config), split_refs(splits), command_line(), config.seed, remembered)
    n_bytes = sum(split.frames.stat().st_size for split in splits)
    n_workers = run.workers_or(lambda: fitting_workers(splits))
    with (
        executor(n_workers, run.scheduler, quiet=display.quiet) as workers,
        open_output(data, job, force=output.force, resume=output.resume, append=append) as folder,
        progress("prepare", n_bytes, quiet=display.quiet, unit="MB", scale=1e6) as advance,
    ):
        dataset = prepare_recordings(splits, folder, config, executor=workers, on_bytes=advance)
    _show(dataset, [name for name in folder.reused if name.startswith("frames")], display)


def _check_append(settings: SettingsOptions, *, force: bool) -> None:
    """Refuse options that have no meaning where recordings are added to a dataset."""
    from bfrbctl.errors import UsageError

    if force:
        raise UsageError(
            "--append and --force exclude each other", hint="one adds to the dataset, the other replaces it"
        )
    if settings.config_file or settings.settings:
        raise UsageError(
            "--append takes the settings of the dataset, and no --config or --set",
            hint="leave them out; --drop and --rows-per-file can be given",
        )


def _settings(
    data: Path, options: DatasetOptions, settings: SettingsOptions, earlier: "Journal", *, append: bool
) -> "PrepareConfig":
    """Make the settings; with --append those of the dataset, which no option may contradict."""
    from bfrbctl.recordings.appending import settings_of
    from bfrbctl.recordings.preparation import PrepareConfig

    values: dict[str, Any] = asdict(options)
    drop = values.pop("drop")
    if append:
        values = {key: earlier.config.get(key) if value is None else value for key, value in values.items()}
        values = settings_of(data, values)
    return settings.build(PrepareConfig, earlier=earlier.config, **values, drop=tuple(drop) if drop else None)


def _show(dataset: "Folder", reused: list[str], display: DisplayOptions) -> None:
    from bfrbctl.evaluation.metrics import one_sided_note

    content, path = dataset.content, dataset.path
    note = one_sided_note(content)
    counts = ", ".join(f"{n} {name}" for name, n in content["n_sequences"].items())
    show_result(
        {"output": path, **content, "reused": reused, "warnings": [note] if note else []},
        lines=[
            f"wrote {path}: {counts} sequences of {content['n_subjects']} subjects, {content['n_frames']} frames, "
            f"{len(content['classes'])} gestures",
            f"      {content['n_findings']} findings in {path / 'quality.parquet'}",
            *reused_line(reused),
        ],
        next_command=f"bfrbctl featurize {path} FEATURES",
        display=display,
    )
