"""bfrbctl featurize: prepared dataset -> feature folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("featurize")(featurize)


def featurize(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.", metavar="DATA")],
    features: Annotated[Path, typer.Argument(help="Folder to write the features into.", metavar="FEATURES")],
    families: Annotated[
        list[str] | None, typer.Option(help="Only this family of features; may be repeated.", metavar="NAME")
    ] = None,
    modalities: Annotated[
        list[str] | None, typer.Option(help="Only this modality (imu, thm, tof); may be repeated.", metavar="NAME")
    ] = None,
    mirror_left: Annotated[
        bool | None,
        typer.Option("--mirror-left/--no-mirror-left", help="Mirror left-handers to the right [default: mirror-left]."),
    ] = None,
    undo_flips: Annotated[
        str | None,
        typer.Option(
            help="Turn round again whose device was upside down: found from accelerations (auto), or named in a text "
            "file, a subject a line; nobody by default (off).",
            metavar="auto|off|FILE",
        ),
    ] = None,
    rate_hz: Annotated[
        float | None, typer.Option(help="Refuse the dataset unless it has so many frames a second.", metavar="HZ")
    ] = None,
    tof_images: Annotated[
        bool | None,
        typer.Option(
            "--tof-images/--no-tof-images", help="Keep the 8x8 ToF images, which nets train on [default: tof-images]."
        ),
    ] = None,
    only_for: Annotated[
        str | None, typer.Option("--for", help="keras: leave out the sequence table, which trees need.", metavar="KIND")
    ] = None,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    workers: shared.Workers = 0,
    scheduler: shared.Scheduler = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Compute the frame channels that nets train on and the sequence table that trees train on.

    Writes index.parquet, sequences.parquet, frames-*.parquet and catalogue.parquet (what each column is).

    Example: bfrbctl featurize data/ features/ --workers 2
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.errors import UsageError
    from bfrbctl.features import FeatureConfig
    from bfrbctl.features.featurization import featurize as run
    from bfrbctl.features.featurization import with_flips

    if only_for not in (None, "keras", "lgbm"):
        raise UsageError(f"--for {only_for}: no such kind of model", hint="choose keras or lgbm, or leave it out")
    earlier = dict(interrupted_run(features, "features", resume=resume).config)
    table = earlier.pop("table", True)
    table = table if only_for is None else only_for != "keras"
    config = configuration.build(
        FeatureConfig,
        earlier=earlier,
        file=config_file,
        overrides=settings or (),
        families=tuple(families) if families else None,
        modalities=tuple(modalities) if modalities else None,
        mirror_left=mirror_left,
        tof_images=tof_images,
        **_flips(undo_flips),
    )
    dataset = open_folder(data, "dataset")
    _see_rate(rate_hz, dataset.content["rate_hz"], data)
    config = with_flips(dataset, config)
    effective = {**configuration.as_mapping(config), "table": table}
    job = Job("features", effective, (dataset.ref(),), shared.command_line())
    with (
        shared.executor(workers, scheduler, quiet=quiet) as executor,
        open_output(features, job, force=force, resume=resume) as output,
        shared.progress("featurize", dataset.content["n_frames"], quiet=quiet, unit="frames") as advance,
    ):
        folder = run(dataset, output, config, table=table, executor=executor, on_file=advance)
        reused = [name for name in output.reused if name.startswith("frames")]
    content = folder.content
    lines = [
        f"wrote {features}: {content['n_features']} sequence features, {content['n_channels']} frame channels",
        *([f"      turned round again: {', '.join(config.flipped_subjects)}"] if config.flipped_subjects else []),
        *([f"      reused {len(reused)} files of the earlier run"] if reused else []),
    ]
    kind = only_for or ("lgbm" if table else "keras")
    shared.tell(
        {"output": features, **content, "flipped_subjects": config.flipped_subjects, "reused": reused},
        lines=lines,
        next_command=f"bfrbctl train {kind} {features} {kind}" if content["classes"] else None,
        as_json=as_json,
        quiet=quiet,
    )


def _see_rate(told: float | None, rate_hz: float, data: Path) -> None:
    """Refuse a rate that is not the dataset's: features know no other one."""
    from bfrbctl.errors import UsageError

    if told is not None and told != rate_hz:
        raise UsageError(
            f"--rate-hz {told:g}: {data} was prepared at {rate_hz:g} frames a second",
            hint=f"leave --rate-hz out, or prepare the recordings anew with --rate-hz {told:g}",
        )


def _flips(told: str | None) -> dict[str, Any]:
    """Give the settings that --undo-flips stands for; a file that is called auto or off is told as ./auto."""
    from bfrbctl.errors import UsageError

    if told is None:
        return {}
    if told in ("auto", "off"):
        return {"undo_flips": told, "flipped_subjects": ()}
    try:
        lines = Path(told).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--undo-flips {told}: cannot be read ({error})", hint="choose auto, off, or give a text file"
        ) from error
    subjects = tuple(line.strip() for line in lines if line.strip())
    if not subjects:
        raise UsageError(f"--undo-flips {told}: names nobody", hint="one subject a line")
    return {"undo_flips": "listed", "flipped_subjects": subjects}
