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
    single: Annotated[
        bool, typer.Option("--single", help="Take one model by itself: fit its temperature and decoding.")
    ] = False,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Blend models by their out-of-fold predictions, with temperatures and weights for both scenarios.

    The score is honest: every fold is blended with weights fitted, and decoded by a rule chosen, on the other folds.

    Example: bfrbctl oof-blend lgbm/ keras/ blend/
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.ensemble.blending import METRICS, blend, notes_of
    from bfrbctl.ensemble.mixing import BlendConfig
    from bfrbctl.evaluation.oof import score_line
    from bfrbctl.schema import scenarios_of

    *members, target = folders
    earlier = interrupted_run(target, "blend", resume=resume)
    _check_members(members, target, single=single or earlier.n_inputs == 1)
    config = configuration.build(
        BlendConfig,
        earlier=earlier.config,
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
    lines = [
        f"wrote {target}: {score_line(summary, scenarios_of(finished.content))}",
        f"      {_gain_line(summary)}",
        *_assignment_line(summary),
        *(f"      {note}" for note in notes_of(summary)),
    ]
    shared.tell(
        {"output": target, **summary},
        lines=lines,
        as_json=as_json,
        quiet=quiet,
        next_command=f"bfrbctl predict RAW {target} PREDICTIONS",
    )


def _check_members(members: list[Path], target: Path, *, single: bool) -> None:
    """Refuse a blend of one model, which most often is two models and no folder to write, unless it is meant."""
    from bfrbctl.errors import UsageError

    if not members or (len(members) == 1 and not single):
        raise UsageError(
            f"oof-blend: {'one model' if members else 'no model'} and {target} to write, expected two models at least",
            hint="name the folder to write last: oof-blend MODEL MODEL BLEND; --single takes one model by itself",
        )
    twice = sorted({str(path) for path in members if [other.resolve() for other in members].count(path.resolve()) > 1})
    if twice:
        raise UsageError(f"oof-blend: model {', '.join(twice)} is given twice", hint="name each model once")
    if len(members) > 1 and single:
        raise UsageError(f"oof-blend --single: {len(members)} models, expected one", hint="leave --single out")


def _gain_line(summary: dict[str, Any]) -> str:
    best, gain = summary["best_member"], summary["gain"]
    if len(summary["members"]) == 1:
        return f"{gain:+.4f} to {best} by its temperature and decoding"
    return f"better than its best member {best} by {gain:+.4f}" if gain > 0 else f"NOT better than {best}: {gain:+.4f}"


def _assignment_line(summary: dict[str, Any]) -> list[str]:
    told = summary["assignment"]
    if not told:
        return []
    orders = [len(part["orders"]) for part in told.values() if isinstance(part, dict)]
    return [f"      with causal assignment {told['score']:.4f} ({told['gain']:+.4f}; mean of {orders[0]} orders)"]
