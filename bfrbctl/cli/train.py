"""bfrbctl train lgbm | keras: feature folder -> model folder with out-of-fold predictions."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bfrbctl.cli.help import Command, Group
from bfrbctl.cli.options import (
    RUN,
    DisplayOptions,
    OutputOptions,
    RunOptions,
    SettingsOptions,
    command_line,
    grouped,
    remembered_path,
)
from bfrbctl.cli.progress import executor
from bfrbctl.cli.results import show_result

if TYPE_CHECKING:
    from bfrbctl.cli.training_progress import OnRow, Steps
    from bfrbctl.training.cross_validation import CrossValidation

Features = Annotated[Path, typer.Argument(help="Feature folder.", metavar="FEATURES")]
Model = Annotated[Path, typer.Argument(help="Folder to write the model into.", metavar="MODEL")]
Seeds = Annotated[int | None, typer.Option(help="Models per fold, with different seeds, averaged [default: 1].")]
Dropout = Annotated[
    float | None, typer.Option(help="Share of training sequences that are used without thermopiles and ToF.")
]


@dataclass(frozen=True)
class TrainingOptions:
    """Which folds are trained, on which labels, from which seed."""

    folds: Annotated[list[int] | None, typer.Option(help="Train only this fold. May be repeated.", metavar="K")] = None
    labels: Annotated[
        Literal["gesture", "joint"] | None,
        typer.Option(
            help="Classes: gestures, or gestures with their postures and first behaviours [default: gesture]."
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of the run [default: 0].", min=0, max=2**32 - 1)] = None


@dataclass(frozen=True)
class TreeOptions:
    """Settings of LightGBM models that have options of their own."""

    seeds: Seeds = None
    modality_dropout: Dropout = None
    class_weight: Annotated[
        str | None, typer.Option(help="none, balanced, or a TOML file of weights by gesture.", metavar="NAME|FILE")
    ] = None
    top_features: Annotated[int | None, typer.Option(help="Keep this number of features, by gain. 0 keeps all.")] = None
    select: Annotated[
        Literal["other-folds", "last"] | None,
        typer.Option(help="How many rounds to keep: best on the other folds, or all [default: other-folds]."),
    ] = None
    select_by: Annotated[
        Literal["score", "logloss"] | None, typer.Option(help="Metric that chooses the round [default: score].")
    ] = None
    scenario: Annotated[
        Literal["mean", "all", "imu"] | None, typer.Option(help="Scenario of this metric [default: mean].")
    ] = None


@dataclass(frozen=True)
class NetworkOptions:
    """Settings of Keras networks that have options of their own."""

    seeds: Seeds = None
    network: Annotated[
        Literal["helios", "two-branch"] | None, typer.Option(help="Network to train [default: helios].")
    ] = None
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data [default: 60].")] = None
    select: Annotated[
        Literal["last", "other-folds"] | None,
        typer.Option(help="Epoch to keep: the last one, or the best one on the other folds [default: last]."),
    ] = None
    pad: Annotated[Literal["left", "right"] | None, typer.Option(help="Side of padding [default: left].")] = None
    modality_dropout: Dropout = None


@dataclass(frozen=True)
class ResourceOptions:
    """How much memory a training may use, and whether it only estimates what it would take."""

    cache_mb: Annotated[
        int | None,
        typer.Option(
            "--cache-mb",
            help="Memory for features, in MB; the rest lies in mapped files beside the model [default: half of all].",
            metavar="N",
            min=0,
            envvar="BFRBCTL_CACHE_MB",
            rich_help_panel=RUN,
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Run a few steps, estimate time, memory and disk of the whole training, and stop.",
            rich_help_panel=RUN,
        ),
    ] = False

    @property
    def cache_bytes(self) -> int | None:
        """Memory for features in bytes; None where it is not limited."""
        from bfrbctl.execution.cache import default_bound

        return self.cache_mb * 2**20 if self.cache_mb is not None else default_bound()


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs, apart from what it trains."""

    run: RunOptions
    resources: ResourceOptions
    output: OutputOptions
    display: DisplayOptions


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    train = typer.Typer(
        cls=Group, no_args_is_help=True, rich_markup_mode=None, help="Train a model by cross-validation."
    )
    train.command("lgbm", cls=Command)(lgbm)
    train.command("keras", cls=Command)(keras)
    app.add_typer(train, name="train")


@grouped
def lgbm(
    features: Features,
    model: Model,
    training: TrainingOptions,
    *,
    options: TreeOptions,
    settings: SettingsOptions,
    how: TrainOptions,
) -> None:
    """Train LightGBM on the sequence table, fold by fold. The other folds choose how many rounds score a fold.

    --config and --set take every setting that --print-config prints, and every parameter of LightGBM itself.
    docs/lightgbm.md describes them.

    Example: bfrbctl train lgbm features/ lgbm/ --seeds 3 --set learning_rate=0.05 --set num_leaves=31
    """
    values = {**vars(options), "class_weight": _class_weight(options.class_weight)}
    run = _cross_validation("lgbm", features, model, training=training, settings=settings, values=values, how=how)
    _train(run, model, how)


@grouped
def keras(
    features: Features,
    model: Model,
    training: TrainingOptions,
    *,
    options: NetworkOptions,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write the metrics of every epoch for TensorBoard there.", metavar="DIR")
    ] = None,
    settings: SettingsOptions,
    how: TrainOptions,
) -> None:
    """Train a Keras network on the frame channels, fold by fold, with a checkpoint every epoch.

    --config and --set take every setting that --print-config prints. docs/keras.md describes them.

    Example: bfrbctl train keras features/ keras/ --network helios --epochs 60
    """
    from bfrbctl.artefacts.journals import interrupted_run

    earlier = interrupted_run(model, "model", resume=how.output.resume)
    remembered, tensorboard = remembered_path(earlier, "tensorboard", tensorboard)
    with _tensorboard_log(None if how.resources.plan else tensorboard, model) as log:
        run = _cross_validation(
            "keras", features, model, training=training, settings=settings, values=vars(options), how=how
        )
        _train(run, model, how, remembered=remembered, log=log)


def _tensorboard_log(folder: Path | None, model: Path) -> "AbstractContextManager[OnRow | None]":
    """Give a function that writes history rows for TensorBoard; what stands in its way is reported before training."""
    if folder is None:
        return nullcontext()
    from bfrbctl.errors import UsageError
    from bfrbctl.models.keras.learning.tensorboard import scalar_log

    if folder.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"--tensorboard {folder} lies in the model folder", hint="name a folder outside of it")
    return scalar_log(folder)


def _class_weight(choice: str | None) -> str | dict[str, Any] | None:
    """Read weights by gesture from a file; `none` and `balanced` are names."""
    if choice in (None, "none", "balanced"):
        return choice
    from bfrbctl.config import read_toml

    return read_toml(Path(choice))


def _cross_validation(
    kind: str,
    features: Path,
    model: Path,
    *,
    training: TrainingOptions,
    settings: SettingsOptions,
    values: Mapping[str, Any],
    how: TrainOptions,
) -> "CrossValidation":
    """Put together what is trained: features, settings, folds, labels and seed; of an interrupted run, its own."""
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import NO_JOURNAL, interrupted_run
    from bfrbctl.models.interface import model_kind
    from bfrbctl.training.cross_validation import CrossValidation

    found = model_kind(kind)
    earlier = interrupted_run(model, "model", resume=how.output.resume)
    earlier = earlier if earlier.config.get("model") == kind else NO_JOURNAL
    config = settings.build(found.config_class, earlier=earlier.config.get("settings"), **values)
    folds = tuple(training.folds or earlier.config.get("folds", ()))
    seed = (earlier.seed or 0) if training.seed is None else training.seed
    labels = training.labels or earlier.config.get("labels", "gesture")
    folder = open_folder(features, "features")
    return CrossValidation(folder, found, config, folds, seed, labels, how.resources.cache_bytes)


def _train(
    run: "CrossValidation",
    model: Path,
    how: TrainOptions,
    *,
    remembered: Mapping[str, str] | None = None,
    log: "OnRow | None" = None,
) -> None:
    """Train every fold and show how it goes, or only estimate what that takes; `log` gets every history row."""
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.cli.training_plan import show_plan
    from bfrbctl.cli.training_progress import both, show_folds
    from bfrbctl.training.cross_validation import cross_validate, folds_at_once

    n_workers = how.run.workers_or(lambda: folds_at_once(run.kind.name))
    with executor(n_workers, how.run.scheduler, quiet=how.display.quiet) as workers:
        if how.resources.plan:
            show_plan(run, model, workers, how.display)
            return
        job = Job("model", run.settings, (run.features.ref(),), command_line(), run.seed, remembered or {})
        with (
            open_output(model, job, force=how.output.force, resume=how.output.resume) as output,
            show_folds(run.kind.name, _steps(run), quiet=how.display.quiet) as (on_progress, on_fold),
            closing(cross_validate(run, output, executor=workers, on_progress=both(on_progress, log))) as results,
        ):
            for result in results:
                on_fold(result)
    _show(model, [name for name in output.reused if name.startswith("fold")], how.display)


def _steps(run: "CrossValidation") -> "Steps":
    """Give how far a training goes."""
    from bfrbctl.cli.training_progress import Steps
    from bfrbctl.evaluation.metrics import score_name
    from bfrbctl.schema import scenarios_of
    from bfrbctl.training.step_choice import keeps_steps

    content = run.features.content
    n_folds = len(set(run.folds)) or content["n_folds"]
    return Steps(
        n_folds=n_folds,
        n_members=run.n_members,
        n_steps=run.config.n_steps,
        name=run.config.STEP,
        score_name=score_name(content["targets"]),
        provisional=keeps_steps(run, range(n_folds)),
        scenarios=tuple(scenarios_of(content)),
    )


def _show(model: Path, reused: list[str], display: DisplayOptions) -> None:
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.evaluation.oof import score_line
    from bfrbctl.schema import scenarios_of
    from bfrbctl.training.fold_results import METRICS
    from bfrbctl.training.step_choice import selection_line

    folder = open_folder(model, "model")
    summary = folder.read_json(METRICS)
    show_result(
        {"output": model, "reused": reused, **summary},
        lines=[
            f"wrote {model}: {score_line(summary, scenarios_of(folder.content))}",
            selection_line(summary["selection"]),
        ],
        next_command=f"bfrbctl oof-blend {model} OTHER_MODEL BLEND, or bfrbctl predict RAW {model} OUT",
        display=display,
    )
