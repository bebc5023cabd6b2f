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
    mirror_left: Annotated[bool, typer.Option(help="Mirror left-handers to the right.")] = True,
    undo_flips: Annotated[
        Path | None,
        typer.Option(help="Text file with a subject a line who wore the device upside down.", metavar="FILE"),
    ] = None,
    tof_images: Annotated[bool, typer.Option(help="Keep the 8x8 ToF images, which nets train on.")] = True,
    only_for: Annotated[
        str | None, typer.Option("--for", help="keras: leave out the sequence table, which trees need.", metavar="KIND")
    ] = None,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    workers: shared.Workers = 0,
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
    from bfrbctl.errors import UsageError
    from bfrbctl.features import FeatureConfig
    from bfrbctl.featurization import featurize as run
    from bfrbctl.folders import open_folder
    from bfrbctl.outputs import Job, open_output

    if only_for not in (None, "keras", "lgbm"):
        raise UsageError(f"--for {only_for}: no such kind of model", hint="choose keras or lgbm, or leave it out")
    config = configuration.build(
        FeatureConfig,
        file=config_file,
        overrides=settings or (),
        families=tuple(families) if families else None,
        modalities=tuple(modalities) if modalities else None,
        mirror_left=None if mirror_left else False,
        tof_images=None if tof_images else False,
        **(_flips(undo_flips) if undo_flips else {}),
    )
    dataset = open_folder(data, "dataset")
    effective = {**configuration.as_mapping(config), "table": only_for != "keras"}
    job = Job("features", effective, (dataset.ref(),), shared.command_line())
    with (
        open_output(features, job, force=force, resume=resume) as output,
        shared.progress("featurize", dataset.content["n_frames"], quiet=quiet, unit="frames") as advance,
    ):
        folder = run(dataset, output, config, table=only_for != "keras", n_processes=workers, on_file=advance)
        reused = [name for name in output.reused if name.startswith("frames")]
    content = folder.content
    lines = [
        f"wrote {features}: {content['n_features']} sequence features, {content['n_channels']} frame channels",
        *([f"      reused {len(reused)} files of the earlier run"] if reused else []),
    ]
    kind = only_for or "lgbm"
    shared.tell(
        {"output": features, **content, "reused": reused},
        lines=lines,
        next_command=f"bfrbctl train {kind} {features} {kind}" if content["classes"] else None,
        as_json=as_json,
        quiet=quiet,
    )


def _flips(file: Path) -> dict[str, Any]:
    """Read who wore the device upside down."""
    from bfrbctl.errors import UsageError

    try:
        subjects = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--undo-flips {file}: cannot be read ({error})", hint="give a text file") from error
    if not subjects:
        raise UsageError(f"--undo-flips {file}: names nobody", hint="one subject a line")
    return {"undo_flips": "listed", "flipped_subjects": subjects}
