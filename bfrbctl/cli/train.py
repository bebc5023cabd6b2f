"""bfrbctl train lgbm | keras: feature folder -> model folder with out-of-fold predictions."""

from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bfrbctl.cli import shared

if TYPE_CHECKING:
    from bfrbctl.models.interface import HistoryRow
    from bfrbctl.training.cross_validation import CrossValidation
    from bfrbctl.training.estimate import Estimate

Features = Annotated[Path, typer.Argument(help="Feature folder.", metavar="FEATURES")]
Model = Annotated[Path, typer.Argument(help="Folder to write the model into.", metavar="MODEL")]
Folds = Annotated[list[int] | None, typer.Option(help="Train only this fold; may be repeated.", metavar="K")]
Seeds = Annotated[int | None, typer.Option(help="Models a fold that differ in their seed, averaged [default: 1].")]
Dropout = Annotated[float | None, typer.Option(help="Share of training sequences seen without thermopiles and ToF.")]
Labels = Annotated[
    Literal["gesture", "joint"] | None,
    typer.Option(help="What to tell apart: gestures, or also their postures and first behaviours [default: gesture]."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the run [default: 0].", min=0)]
CacheMB = Annotated[
    int | None,
    typer.Option(
        "--cache-mb",
        help="Memory for features, in MB; the rest lies in mapped files beside the model [default: half of all].",
        metavar="N",
        min=0,
        envvar="BFRBCTL_CACHE_MB",
    ),
]
Workers = Annotated[int, typer.Option(help="Folds and seeds trained at once; 0: as many as fill the cores.", min=0)]

Plan = Annotated[bool, typer.Option("--plan", help="Try a few steps, tell the time, memory and disk of all, and stop.")]


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
    labels: Labels = None,
    seed: Seed = None,
    seeds: Seeds = None,
    select: Annotated[
        Literal["other-folds", "last"] | None,
        typer.Option(help="How many rounds to keep: best on the other folds, or all [default: other-folds]."),
    ] = None,
    select_by: Annotated[
        Literal["score", "logloss"] | None, typer.Option(help="Figure that chooses the round [default: score].")
    ] = None,
    scenario: Annotated[
        Literal["mean", "all", "imu"] | None, typer.Option(help="Whose figure that is [default: mean].")
    ] = None,
    modality_dropout: Dropout = None,
    class_weight: Annotated[
        str | None, typer.Option(help="none, balanced, or a TOML file of weights by gesture.", metavar="NAME|FILE")
    ] = None,
    top_features: Annotated[int | None, typer.Option(help="Keep so many features, by gain; 0 keeps all.")] = None,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    workers: Workers = 0,
    scheduler: shared.Scheduler = None,
    cache_mb: CacheMB = None,
    plan: Plan = False,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Train LightGBM on the sequence table, fold by fold; the other folds choose how many rounds score a fold.

    Every setting, and every parameter of LightGBM itself, can be given by --config or --set; docs/lightgbm.md tells
    them.

    Example: bfrbctl train lgbm features/ lgbm/ --seeds 3 --set learning_rate=0.05 --set num_leaves=31
    """
    options = {
        "seeds": seeds,
        "select": select,
        "select_by": select_by,
        "scenario": scenario,
        "modality_dropout": modality_dropout,
        "class_weight": _class_weight(class_weight),
        "top_features": top_features,
    }
    given = Given(config_file, settings, options)
    ways = Ways(workers, scheduler, cache_mb, plan, force, resume, quiet, as_json)
    train("lgbm", features, model, which=Which(folds, labels, seed), given=given, ways=ways)


def keras(
    features: Features,
    model: Model,
    folds: Folds = None,
    labels: Labels = None,
    seed: Seed = None,
    seeds: Seeds = None,
    network: Annotated[
        Literal["helios", "two-branch"] | None, typer.Option(help="Which network [default: helios].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part [default: 60].")] = None,
    select: Annotated[
        Literal["last", "other-folds"] | None,
        typer.Option(help="Epoch to keep: the last one, or the best one on the other folds [default: last]."),
    ] = None,
    pad: Annotated[Literal["left", "right"] | None, typer.Option(help="Side of padding [default: left].")] = None,
    modality_dropout: Dropout = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write every epoch's figures for TensorBoard there.", metavar="DIR")
    ] = None,
    config_file: shared.Config = None,
    settings: shared.Set = None,
    workers: Workers = 0,
    scheduler: shared.Scheduler = None,
    cache_mb: CacheMB = None,
    plan: Plan = False,
    force: shared.Force = False,
    resume: shared.Resume = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Train a Keras network on the frame channels, fold by fold, with a checkpoint every epoch.

    Every setting can be given by --config or --set; docs/keras.md tells them.

    Example: bfrbctl train keras features/ keras/ --network helios --epochs 60
    """
    from bfrbctl.artefacts.journals import interrupted_run

    options = {
        "seeds": seeds,
        "network": network,
        "epochs": epochs,
        "select": select,
        "pad": pad,
        "modality_dropout": modality_dropout,
    }
    earlier = interrupted_run(model, "model", resume=resume)
    remembered, tensorboard = shared.remembered_path(earlier, "tensorboard", tensorboard)
    given = Given(config_file, settings, options, remembered)
    ways = Ways(workers, scheduler, cache_mb, plan, force, resume, quiet, as_json)
    with _drawn(None if plan else tensorboard, model) as draw:
        train("keras", features, model, which=Which(folds, labels, seed), given=given, ways=ways, also=draw)


def _drawn(folder: Path | None, model: Path) -> AbstractContextManager[shared.OnRow | None]:
    """Give what draws history rows in a folder; told of what is in the way before anything is trained."""
    if folder is None:
        return nullcontext()
    from bfrbctl.errors import UsageError
    from bfrbctl.models.keras.learning.tensorboard import scalar_log

    if folder.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"--tensorboard {folder} lies in the model folder", hint="name a folder outside of it")
    return scalar_log(folder)


def _class_weight(told: str | None) -> str | dict[str, Any] | None:
    """Read weights by gesture from a file; `none` and `balanced` are names."""
    if told in (None, "none", "balanced"):
        return told
    from bfrbctl.config import read_toml

    return read_toml(Path(told))


@dataclass(frozen=True)
class Which:
    """What is trained: which folds, on which sort of labels, from which seed; None where it was not given."""

    folds: list[int] | None
    labels: Literal["gesture", "joint"] | None
    seed: int | None


@dataclass(frozen=True)
class Given:
    """What the user set: a TOML file, --set texts, options of their own (None: not given), and paths to remember."""

    file: Path | None
    overrides: list[str] | None
    options: dict[str, Any]
    remembered: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ways:
    """Who works, and how a command goes about its output; the options of these names."""

    workers: int
    scheduler: str | None
    cache_mb: int | None
    plan: bool
    force: bool
    resume: bool
    quiet: bool
    as_json: bool


def _both(one: shared.OnRow, other: shared.OnRow | None) -> shared.OnRow:
    if other is None:
        return one

    def tell(row: "HistoryRow") -> None:
        one(row)
        other(row)

    return tell


def train(
    kind: str,
    features: Path,
    model: Path,
    *,
    which: Which,
    given: Given,
    ways: Ways,
    also: shared.OnRow | None = None,
) -> None:
    """Train a model of any kind and tell how it went; `also` gets every history row."""
    from bfrbctl import config as configuration
    from bfrbctl.artefacts.folders import open_folder
    from bfrbctl.artefacts.journals import NO_JOURNAL, interrupted_run
    from bfrbctl.artefacts.outputs import Job, open_output
    from bfrbctl.cli.live import Steps
    from bfrbctl.evaluation.metrics import score_name
    from bfrbctl.evaluation.oof import score_line
    from bfrbctl.execution.cache import default_bound
    from bfrbctl.models.interface import kind_module, n_members
    from bfrbctl.schema import scenarios_of
    from bfrbctl.training.cross_validation import CrossValidation, cross_validate, folds_at_once
    from bfrbctl.training.fold_results import METRICS, keeps_steps, selection_line

    module = kind_module(kind)
    earlier = interrupted_run(model, "model", resume=ways.resume)
    earlier = earlier if earlier.config.get("model") == kind else NO_JOURNAL
    config = configuration.build(
        module.Config,
        earlier=earlier.config.get("settings"),
        file=given.file,
        overrides=given.overrides or (),
        **given.options,
    )
    folder = open_folder(features, "features")
    scenarios = scenarios_of(folder.content)
    bound = default_bound() if ways.cache_mb is None else ways.cache_mb * 2**20
    folds = tuple(which.folds or earlier.config.get("folds", ()))
    seed = (earlier.seed or 0) if which.seed is None else which.seed
    labels = which.labels or earlier.config.get("labels", "gesture")
    run = CrossValidation(folder, kind, module, config, folds, seed, labels, bound)
    job = Job("model", run.settings, (folder.ref(),), shared.command_line(), seed, given.remembered)
    at_once = ways.workers if ways.scheduler or ways.workers else folds_at_once(kind)
    if ways.plan:
        _tell_plan(run, model, at_once, ways)
        return
    with (
        shared.executor(at_once, ways.scheduler, quiet=ways.quiet) as executor,
        open_output(model, job, force=ways.force, resume=ways.resume) as output,
    ):
        n_folds = len(set(run.folds)) or folder.content["n_folds"]
        name, choosing = score_name(folder.content["targets"]), keeps_steps(run, range(n_folds))
        steps = Steps(n_members(module, config), config.n_steps, config.STEP, name, choosing)
        watch = shared.show_folds(kind, n_folds=n_folds, quiet=ways.quiet, steps=steps, scenarios=scenarios)
        with (
            watch as (on_progress, on_fold),
            closing(cross_validate(run, output, executor=executor, on_progress=_both(on_progress, also))) as results,
        ):
            for result in results:
                on_fold(result)
    finished = open_folder(model, "model")
    summary = finished.read_json(METRICS)
    shared.tell(
        {"output": model, "reused": [name for name in output.reused if name.startswith("fold")], **summary},
        lines=[f"wrote {model}: {score_line(summary, scenarios)}", selection_line(summary["selection"])],
        next_command=f"bfrbctl oof-blend {model} OTHER_MODEL BLEND, or bfrbctl predict RAW {model} OUT",
        as_json=ways.as_json,
        quiet=ways.quiet,
    )


def _tell_plan(run: "CrossValidation", model: Path, at_once: int, ways: Ways) -> None:
    """Try a training out, tell what all of it will take, and write nothing."""
    from bfrbctl.config import as_mapping
    from bfrbctl.execution.memory import available_memory
    from bfrbctl.training.estimate import estimate, free_disk

    with shared.executor(at_once, ways.scheduler, quiet=ways.quiet) as executor:
        found = estimate(run, executor)
    memory, free = available_memory(), free_disk(model)
    told = {**as_mapping(found), "memory_there_bytes": memory, "disk_free_bytes": free}
    told |= {"step": run.config.STEP, "n_tasks": found.n_folds * found.n_members, "assumes": ASSUMES}
    lines = _plan_lines(found, run.config.STEP, memory=memory, free=free)
    shared.tell(
        {"output": model, **told},
        lines=[f"plan of {model}, which is not written:", *lines],
        next_command=None,
        as_json=ways.as_json,
        quiet=ways.quiet,
    )


ASSUMES = "later steps and other folds take as long as those tried, and nothing else keeps the machine busy"


def _plan_lines(found: "Estimate", step: str, *, memory: int | None, free: int) -> list[str]:
    """Lay an estimate out as a small table."""
    from bfrbctl.cli.live import duration

    took, article = found.measured, "an" if step[0] in "aeiou" else "a"
    around = took.prepare_s + took.finish_s
    begin = f"{took.read_s:.1f} s to read features, {took.start_s:.1f} s to start"
    rows = {
        "models": f"{found.n_folds} folds x {found.n_members}, {found.at_once} at once, threads each: {found.threads}",
        "time": f"about {duration(found.seconds)}",
        "": f"{found.seconds_a_step:.3g} s {article} {step}, {found.n_steps} a model; {begin}, "
        f"{around:.1f} s more a fold",
        "memory": f"{_size(found.memory_bytes)}{f' of {_size(memory)}' if memory else ''}",
        "disk": f"at most {_size(found.folder_bytes)} finished and {_size(found.disk_bytes)} while it trains, "
        f"of {_size(free)} free",
        "assumes": ASSUMES,
    }
    return [f"{name:<9}{text}" for name, text in rows.items()]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
