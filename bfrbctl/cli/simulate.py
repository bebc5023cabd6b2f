"""bfrbctl simulate: a synthetic data collection in the raw layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import OUTPUT, DisplayOptions, Force, RunOptions, SettingsOptions, command_line, grouped
from bfrbctl.cli.progress import executor, progress
from bfrbctl.cli.results import show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.outputs import Output
    from bfrbctl.execution.executor import Executor
    from bfrbctl.simulation import SimulationConfig


@dataclass(frozen=True)
class FileOptions:
    """Which raw files are written."""

    split: Annotated[Literal["train", "test", "both"], typer.Option(help="Split to write.", rich_help_panel=OUTPUT)] = (
        "both"
    )
    file_format: Annotated[
        Literal["parquet", "csv"],
        typer.Option("--format", help="Format of the recordings.", rich_help_panel=OUTPUT),
    ] = "parquet"
    answers: Annotated[
        bool,
        typer.Option("--answers", help="Write the labels of the test split beside it.", rich_help_panel=OUTPUT),
    ] = False


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("simulate", cls=Command)(simulate)


@grouped
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the raw files into.", metavar="RAW")],
    *,
    subjects: Annotated[int | None, typer.Option(help="Subjects in the train split [default: 16].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole simulation [default: 0].")] = None,
    settings: SettingsOptions,
    run: RunOptions,
    files: FileOptions,
    force: Force = False,
    display: DisplayOptions,
) -> None:
    """Simulate labelled wrist recordings in the raw layout of the competition: 341 columns, 102 sequences a subject.

    The test split is what a competitor gets: no labels, half of the sequences IMU-only.

    Example: bfrbctl simulate raw/ --subjects 16 --answers
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.simulation import SimulationConfig

    config = settings.build(SimulationConfig, subjects=subjects, seed=seed)
    effective = {**configuration.as_mapping(config), "split": files.split, "format": files.file_format}
    job = Job("raw", {**effective, "answers": files.answers}, (), command_line(), config.seed)
    with (
        executor(run.workers, run.scheduler, quiet=display.quiet) as workers,
        open_output(out, job, force=force) as output,
    ):
        n_subjects, names = _write(output, config, files, executor=workers, quiet=display.quiet)
    show_result(
        {"output": out, "files": names, "n_subjects": n_subjects},
        lines=[f"wrote {out}: {n_subjects} subjects in {', '.join(names)}"],
        next_command=f"bfrbctl prepare {out} DATA",
        display=display,
    )


def _write(
    output: "Output", config: "SimulationConfig", files: FileOptions, *, executor: "Executor", quiet: bool
) -> tuple[int, list[str]]:
    """Write the raw files and finish the folder; gives the number of subjects and the names of the files."""
    from bfrbctl.simulation import write_raw

    n_subjects = sum(config.n_subjects(name) for name in ("train", "test") if files.split in (name, "both"))
    with (
        output.scratch("raw") as folder,
        progress("simulate", n_subjects, quiet=quiet, unit="subjects") as advance,
    ):
        names = write_raw(
            folder,
            config,
            split=files.split,
            file_format=files.file_format,
            executor=executor,
            labels=files.answers,
            on_progress=lambda _done, _total: advance(1),
        )
        output.publish("raw", {name: folder / name for name in names})
    output.finish({"n_subjects": n_subjects, "rate_hz": config.rate_hz})
    return n_subjects, names
