"""bfrbctl oof-blend: model folders -> blend folder."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("oof-blend")(oof_blend)


def oof_blend(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Model folders, then the folder to write the blend into.", metavar="MODEL... BLEND"),
    ],
    pooling: Annotated[str | None, typer.Option(help="arithmetic or logarithmic [default: arithmetic].")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Fixed weights instead of fitted ones.", metavar="NAME=W,NAME=W")
    ] = None,
    decode: Annotated[
        Literal["auto", "argmax", "threshold"] | None,
        typer.Option(help="How probabilities become a gesture [default: auto, what scores better on other folds]."),
    ] = None,
    assign: Annotated[
        Literal["off", "causal"] | None,
        typer.Option(help="causal: no joint label twice for one wearer; needs a member with --labels joint."),
    ] = None,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Blend models by their out-of-fold predictions, with temperatures and weights for both scenarios.

    The score told is honest: every fold is blended with weights fitted on the other folds.

    Example: bfrbctl oof-blend lgbm/ keras/ blend/
    """
    from bfrbctl import config as configuration
    from bfrbctl.blending import METRICS, blend, nesting_note
    from bfrbctl.errors import UsageError
    from bfrbctl.folders import open_folder
    from bfrbctl.mixing import BlendConfig
    from bfrbctl.oof import score_line
    from bfrbctl.outputs import Job, open_output
    from bfrbctl.schema import scenarios_of

    if len(folders) < 2:
        raise UsageError("oof-blend needs a model folder and a folder to write", hint="oof-blend MODEL... BLEND")
    *members, target = folders
    config = configuration.build(
        BlendConfig,
        file=config_file,
        overrides=settings or (),
        pooling=pooling,
        decode=decode,
        assign=assign,
        weights=tuple(weights.split(",")) if weights else None,
    )
    opened = [open_folder(path, "model") for path in members]
    refs = tuple(folder.ref() for folder in opened)
    job = Job("blend", configuration.as_mapping(config), refs, shared.command_line(), config.seed)
    with open_output(target, job, force=force, resume=resume) as output:
        finished = blend(opened, output, config)
    summary = finished.read_json(METRICS)
    best = summary["best_member"]
    told = f"better than its best member {best} by" if summary["gain"] > 0 else f"NOT better than {best}:"
    lines = [
        f"wrote {target}: {score_line(summary, scenarios_of(finished.content))}",
        f"      {told} {summary['gain']:+.4f}",
        *_assignment_line(summary),
        *(f"      {note}" for note in [nesting_note(summary)] if note),
    ]
    shared.tell(
        {"output": target, **summary},
        lines=lines,
        as_json=as_json,
        quiet=quiet,
        next_command=f"bfrbctl predict RAW {target} PREDICTIONS",
    )


def _assignment_line(summary: dict[str, Any]) -> list[str]:
    told = summary["assignment"]
    if not told:
        return []
    orders = [len(part["orders"]) for part in told.values() if isinstance(part, dict)]
    return [f"      with causal assignment {told['score']:.4f} ({told['gain']:+.4f}; mean of {orders[0]} orders)"]
