"""bfrbctl oof-blend: model folders -> blend folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import DisplayOptions, OutputOptions, SettingsOptions, command_line, grouped
from bfrbctl.cli.results import show_result

if TYPE_CHECKING:
    from bfrbctl.artefacts.folders import Folder


@dataclass(frozen=True)
class BlendOptions:
    """Settings of the blend that have options of their own."""

    pooling: Annotated[str | None, typer.Option(help="arithmetic or logarithmic [default: arithmetic].")] = None
    weights: Annotated[
        str | None, typer.Option(help="Fixed weights instead of fitted ones.", metavar="NAME=W,NAME=W")
    ] = None
    decode: Annotated[
        Literal["auto", "argmax", "threshold"] | None,
        typer.Option(help="How probabilities become a gesture [default: auto, what scores better on other folds]."),
    ] = None
    assign: Annotated[
        Literal["off", "causal"] | None,
        typer.Option(help="causal: no joint label twice for one wearer; needs a member with --labels joint."),
    ] = None


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("oof-blend", cls=Command)(oof_blend)


@grouped
def oof_blend(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Model folders, then the folder to write the blend into.", metavar="MODEL... BLEND"),
    ],
    *,
    options: BlendOptions,
    single: Annotated[
        bool, typer.Option("--single", help="Take one model alone: fit its temperature and decoding.")
    ] = False,
    settings: SettingsOptions,
    output: OutputOptions,
    display: DisplayOptions,
) -> None:
    """Blend models by their out-of-fold predictions, with temperatures and weights for both scenarios.

    The score is honest: the weights and the decoding rule of a fold are chosen on the other folds.

    Example: bfrbctl oof-blend lgbm/ keras/ blend/
    """
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.ensemble.blending import blend
    from bfrbctl.ensemble.mixing import BlendConfig

    *members, target = folders
    earlier = interrupted_run(target, "blend", resume=output.resume)
    _check_members(members, target, single=single or earlier.n_inputs == 1)
    weights = tuple(options.weights.split(",")) if options.weights else None
    values = {**vars(options), "weights": weights}
    config = settings.build(BlendConfig, earlier=earlier.config, **values)
    models = [open_folder(path, "model") for path in members]
    refs = tuple(model.ref() for model in models)
    job = Job("blend", configuration.as_mapping(config), refs, command_line(), config.seed)
    with open_output(target, job, force=output.force, resume=output.resume) as folder:
        finished = blend(models, folder, config)
    _show(finished, display)


def _check_members(members: list[Path], target: Path, *, single: bool) -> None:
    """Refuse a blend of one model, which most often is two models and no folder to write, unless it is meant."""
    from bfrbctl.errors import UsageError

    if not members or (len(members) == 1 and not single):
        raise UsageError(
            f"oof-blend: {'one model' if members else 'no model'} and {target} to write, expected two models at least",
            hint="name the folder to write last: oof-blend MODEL MODEL BLEND; --single takes one model alone",
        )
    twice = sorted({str(path) for path in members if [other.resolve() for other in members].count(path.resolve()) > 1})
    if twice:
        raise UsageError(f"oof-blend: model {', '.join(twice)} is given twice", hint="name each model once")
    if len(members) > 1 and single:
        raise UsageError(f"oof-blend --single: {len(members)} models, expected one", hint="leave --single out")


def _show(folder: "Folder", display: DisplayOptions) -> None:
    from bfrbctl.ensemble.blending import METRICS, notes_of
    from bfrbctl.evaluation.oof import score_line
    from bfrbctl.schema import scenarios_of

    summary = folder.read_json(METRICS)
    show_result(
        {"output": folder.path, **summary},
        lines=[
            f"wrote {folder.path}: {score_line(summary, scenarios_of(folder.content))}",
            f"      {_gain_line(summary)}",
            *_assignment_line(summary),
            *(f"      {note}" for note in notes_of(summary)),
        ],
        next_command=f"bfrbctl predict RAW {folder.path} PREDICTIONS",
        display=display,
    )


def _gain_line(summary: dict[str, Any]) -> str:
    best, gain = summary["best_member"], summary["gain"]
    if len(summary["members"]) == 1:
        return f"{gain:+.4f} to {best} by its temperature and decoding"
    return f"better than its best member {best} by {gain:+.4f}" if gain > 0 else f"NOT better than {best}: {gain:+.4f}"


def _assignment_line(summary: dict[str, Any]) -> list[str]:
    assignment = summary["assignment"]
    if not assignment:
        return []
    orders = [len(part["orders"]) for part in assignment.values() if isinstance(part, dict)]
    gain = f"{assignment['gain']:+.4f}; mean of {orders[0]} orders"
    return [f"      with causal assignment {assignment['score']:.4f} ({gain})"]
