"""bfrbctl train lgbm | keras: feature folder -> model folder with out-of-fold predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bfrbctl.cli import shared

if TYPE_CHECKING:
    pass

Features = Annotated[Path, typer.Argument(help="Feature folder.", metavar="FEATURES")]
Model = Annotated[Path, typer.Argument(help="Folder to write the model into.", metavar="MODEL")]
Folds = Annotated[list[int] | None, typer.Option(help="Train only this fold; may be repeated.", metavar="K")]
Seed = Annotated[int, typer.Option(help="Seed of the run.", min=0)]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    train = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train a model by cross-validation.")
    train.command("lgbm")(lgbm)
    train.command("keras")(keras)
    app.add_typer(train, name="train")


def lgbm(
    features: Features,
    model: Model,
    folds: Folds = None,
    seed: Seed = 0,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Train LightGBM on the sequence table, fold by fold, stopping on the competition metric.

    Every setting, and every parameter of LightGBM itself, can be given by --config or --set.

    Example: bfrbctl train lgbm features/ lgbm/ --set learning_rate=0.05 --set num_leaves=31
    """
    train(
        "lgbm",
        features,
        model,
        folds=folds,
        seed=seed,
        config_file=config_file,
        settings=settings,
        force=force,
        resume=resume,
        quiet=quiet,
        as_json=as_json,
    )


def keras(
    features: Features,
    model: Model,
    folds: Folds = None,
    seed: Seed = 0,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Train a Keras network on the frame channels, fold by fold, with a checkpoint every epoch.

    Every setting can be given by --config or --set; docs/keras.md lists them.

    Example: bfrbctl train keras features/ keras/ --set epochs=60
    """
    train(
        "keras",
        features,
        model,
        folds=folds,
        seed=seed,
        config_file=config_file,
        settings=settings,
        force=force,
        resume=resume,
        quiet=quiet,
        as_json=as_json,
    )


def train(
    kind: str,
    features: Path,
    model: Path,
    *,
    folds: list[int] | None,
    seed: int,
    config_file: Path | None,
    settings: list[str] | None,
    force: bool,
    resume: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a model of any kind and tell how it went."""
    from bfrbctl import config as configuration
    from bfrbctl.folders import open_folder
    from bfrbctl.models import kind_module
    from bfrbctl.oof import score_line
    from bfrbctl.outputs import Job, open_output
    from bfrbctl.training import METRICS, CrossValidation, cross_validate

    module = kind_module(kind)
    config = configuration.build(module.Config, file=config_file, overrides=settings or ())
    folder = open_folder(features, "features")
    run = CrossValidation(folder, kind, module, config, tuple(folds or ()), seed)
    job = Job("model", run.settings, (folder.ref(),), shared.command_line(), seed)
    with open_output(model, job, force=force, resume=resume) as output:
        watch = shared.watch_folds(kind, n_folds=len(run.folds) or folder.content["n_folds"], quiet=quiet)
        with watch as (on_progress, on_fold):
            for result in cross_validate(run, output, on_progress=on_progress):
                on_fold(result)
    finished = open_folder(model, "model")
    summary = finished.read_json(METRICS)
    shared.tell(
        {"output": model, "reused": [name for name in output.reused if name.startswith("fold")], **summary},
        lines=[f"wrote {model}: {score_line(summary)}"],
        next_command=f"bfrbctl oof-blend {model} OTHER_MODEL BLEND, or bfrbctl predict RAW {model} OUT",
        as_json=as_json,
        quiet=quiet,
    )
