"""bfrbctl simulate: a synthetic study in the raw layout."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("simulate")(simulate)


def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the raw files into.", metavar="RAW")],
    subjects: Annotated[int | None, typer.Option(help="People in the train split [default: 16].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything [default: 0].")] = None,
    split: Annotated[Literal["train", "test", "both"], typer.Option(help="Which part of the study.")] = "both",
    file_format: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Of the recordings.")] = "parquet",
    answers: Annotated[bool, typer.Option("--answers", help="Write the labels of the test split beside it.")] = False,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    workers: shared.Workers = 0,
    scheduler: shared.Scheduler = None,
    force: shared.Force = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Simulate wrist recordings in the study's raw layout: 341 columns, 102 sequences a subject, labelled.

    The test split is what a contestant sees: no labels, half of the sequences IMU-only.

    Example: bfrbctl simulate raw/ --subjects 16 --answers
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.simulation import SimulationConfig, write_raw

    config = configuration.build(
        SimulationConfig, file=config_file, overrides=settings or (), subjects=subjects, seed=seed
    )
    effective = {**configuration.as_mapping(config), "split": split, "format": file_format, "answers": answers}
    job = Job("raw", effective, (), shared.command_line(), config.seed)
    people = sum(config.n_subjects(name) for name in ("train", "test") if split in (name, "both"))
    with shared.executor(workers, scheduler, quiet=quiet) as executor, open_output(out, job, force=force) as output:
        with (
            output.scratch("raw") as folder,
            shared.progress("simulate", people, quiet=quiet, unit="people") as advance,
        ):
            names = write_raw(
                folder,
                config,
                split=split,
                file_format=file_format,
                executor=executor,
                labels=answers,
                on_progress=lambda _done, _total: advance(1),
            )
            output.publish("raw", {name: folder / name for name in names})
        output.finish({"n_subjects": people, "rate_hz": config.rate_hz})
    shared.tell(
        {"output": out, "files": names, "n_subjects": people},
        lines=[f"wrote {out}: {people} people in {', '.join(names)}"],
        next_command=f"bfrbctl prepare {out} DATA",
        as_json=as_json,
        quiet=quiet,
    )
