"""bfrbctl featurize: prepared dataset -> feature folder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import (
    DisplayOptions,
    OutputOptions,
    RunOptions,
    SettingsOptions,
    command_line,
    grouped,
)
from bfrbctl.cli.progress import executor, progress
from bfrbctl.cli.results import reused_line, show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.folders import Folder
    from bfrbctl.features import FeatureConfig


@dataclass(frozen=True)
class FeatureOptions:
    """Settings of the features that have options of their own."""

    families: Annotated[
        list[str] | None, typer.Option(help="Compute only this family of features. May be repeated.", metavar="NAME")
    ] = None
    modalities: Annotated[
        list[str] | None, typer.Option(help="Use only this modality (imu, thm, tof). May be repeated.", metavar="NAME")
    ] = None
    mirror_left: Annotated[
        bool | None,
        typer.Option(
            "--mirror-left/--no-mirror-left",
            help="Mirror recordings of left-handed subjects to the right [default: mirror-left].",
        ),
    ] = None
    undo_flips: Annotated[
        str | None,
        typer.Option(
            help="Turn the recordings of subjects who wore the device upside down. auto finds these subjects from "
            "accelerations; a text file names them, one per line [default: off].",
            metavar="auto|off|FILE",
        ),
    ] = None
    tof_images: Annotated[
        bool | None,
        typer.Option(
            "--tof-images/--no-tof-images",
            help="Keep the 8x8 ToF images, which networks are trained on [default: tof-images].",
        ),
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("featurize", cls=Command)(featurize)


@grouped
def featurize(
    data: Annotated[Path, typer.Argument(help="Prepared dataset.", metavar="DATA")],
    features: Annotated[Path, typer.Argument(help="Folder to write the features into.", metavar="FEATURES")],
    *,
    options: FeatureOptions,
    rate_hz: Annotated[
        float | None,
        typer.Option(help="Refuse the dataset unless it has this number of frames per second.", metavar="HZ"),
    ] = None,
    model_kind: Annotated[
        str | None,
        typer.Option("--for", help="keras: leave out the sequence table, which only trees need.", metavar="KIND"),
    ] = None,
    settings: SettingsOptions,
    run: RunOptions,
    output: OutputOptions,
    display: DisplayOptions,
) -> None:
    """Compute the frame channels for networks and the sequence table for trees.

    Writes index.parquet, sequences.parquet, frames-*.parquet and catalogue.parquet (what each column is).

    Example: bfrbctl featurize data/ features/ --workers 2
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.features.featurization import featurize as compute
    from bfrbctl.features.featurization import with_flips

    config, table = _settings(features, options, settings, model_kind, resume=output.resume)
    dataset = open_folder(data, "dataset")
    _check_rate(rate_hz, dataset.content["rate_hz"], data)
    config = with_flips(dataset, config)
    effective = {**configuration.as_mapping(config), "table": table}
    job = Job("features", effective, (dataset.ref(),), command_line())
    with (
        executor(run.workers, run.scheduler, quiet=display.quiet) as workers,
        open_output(features, job, force=output.force, resume=output.resume) as folder,
        progress("featurize", dataset.content["n_frames"], quiet=display.quiet, unit="frames") as advance,
    ):
        finished = compute(dataset, folder, config, table=table, executor=workers, on_file=advance)
    reused = [name for name in folder.reused if name.startswith("frames")]
    _show(finished, config, reused, model_kind or ("lgbm" if table else "keras"), display)


def _settings(
    features: Path, options: FeatureOptions, settings: SettingsOptions, model_kind: str | None, *, resume: bool
) -> tuple["FeatureConfig", bool]:
    """Make the settings, and whether the sequence table is written."""
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.errors import UsageError
    from bfrbctl.features import FeatureConfig

    if model_kind not in (None, "keras", "lgbm"):
        raise UsageError(f"--for {model_kind}: no such kind of model", hint="choose keras or lgbm, or leave it out")
    earlier = dict(interrupted_run(features, "features", resume=resume).config)
    table = earlier.pop("table", True)
    values: dict[str, Any] = asdict(options)
    values |= {name: tuple(values[name]) if values[name] else None for name in ("families", "modalities")}
    values |= _flips(values.pop("undo_flips"))
    return settings.build(
        FeatureConfig, earlier=earlier, **values
    ), table if model_kind is None else model_kind != "keras"


def _check_rate(expected: float | None, rate_hz: float, data: Path) -> None:
    """Refuse a rate that is not the dataset's: features know no other one."""
    from bfrbctl.errors import UsageError

    if expected is not None and expected != rate_hz:
        raise UsageError(
            f"--rate-hz {expected:g}: {data} was prepared at {rate_hz:g} frames a second",
            hint=f"leave --rate-hz out, or prepare the recordings again with --rate-hz {expected:g}",
        )


def _flips(choice: str | None) -> dict[str, Any]:
    """Give the settings that --undo-flips stands for; a file that is called auto or off is given as ./auto."""
    from bfrbctl.errors import UsageError

    if choice is None:
        return {}
    if choice in ("auto", "off"):
        return {"undo_flips": choice, "flipped_subjects": ()}
    try:
        lines = Path(choice).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--undo-flips {choice}: cannot be read ({error})", hint="choose auto, off, or give a text file"
        ) from error
    subjects = tuple(line.strip() for line in lines if line.strip())
    if not subjects:
        raise UsageError(f"--undo-flips {choice}: contains no subject", hint="write one subject per line")
    return {"undo_flips": "listed", "flipped_subjects": subjects}


def _show(
    folder: "Folder", config: "FeatureConfig", reused: list[str], model_kind: str, display: DisplayOptions
) -> None:
    content, path, turned = folder.content, folder.path, config.flipped_subjects
    show_result(
        {"output": path, **content, "flipped_subjects": turned, "reused": reused},
        lines=[
            f"wrote {path}: {content['n_features']} sequence features, {content['n_channels']} frame channels",
            *([f"      turned recordings of {', '.join(turned)}, who wore the device upside down"] if turned else []),
            *reused_line(reused),
        ],
        next_command=f"bfrbctl train {model_kind} {path} {model_kind}" if content["classes"] else None,
        display=display,
    )
