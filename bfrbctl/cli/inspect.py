"""bfrbctl inspect: show what a folder holds, of any kind that bfrbctl writes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli.help import Command, Group
from bfrbctl.cli.options import OUTPUT, Debug, DisplayOptions, Force, Json, grouped
from bfrbctl.cli.plots import check_plot, write_plot
from bfrbctl.cli.results import print_json, show_result

if TYPE_CHECKING:
    from bfrbctl.inspection import Table, View

PLAIN = {
    "dataset": ("Show subjects, gestures, lengths, missing sensors, repairs and folds of a dataset.", "data/"),
    "folds": ("Show how the folds divide subjects and gestures.", "features/"),
    "training": ("Show the scores of every scenario during training, by fold.", "keras/"),
    "confusion": ("Show which gestures are confused with which.", "blend/"),
    "calibration": ("Show how well probabilities are calibrated, before and after a temperature.", "blend/"),
    "blend": ("Show weights, temperatures, scores and what each member adds.", "blend/"),
    "predictions": ("Show what was predicted, and the score where the input had labels.", "predictions/"),
}
"""Views that take a folder and nothing else: what they show, and an example."""

Folder = Annotated[Path, typer.Argument(help="Folder to inspect.", metavar="FOLDER")]
Features = Annotated[
    Path | None, typer.Option("--features", help="Feature folder that the model was trained on.", metavar="FOLDER")
]
Shap = Annotated[bool, typer.Option("--shap", help="Compute SHAP values too, on held-out sequences of --features.")]


@dataclass(frozen=True)
class ViewOptions:
    """How a view is shown."""

    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="Also draw the view into this file.", metavar="FILE.svg|png", rich_help_panel=OUTPUT
        ),
    ] = None
    as_json: Json = False
    debug: Debug = False


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    about = "Show what a folder holds, of any kind that bfrbctl writes."
    inspect = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, help=about)
    for name in ("dataset", "sequence", "features", "feature", "folds", "training", "oof", "confusion", "calibration"):
        _add(inspect, name)
    for name in ("feature-importance", "blend", "predictions", "artefact", "compare", "report"):
        _add(inspect, name)
    app.add_typer(inspect, name="inspect")


def _add(app: typer.Typer, name: str) -> None:
    if name in PLAIN:
        about, example = PLAIN[name]
        text = f"{about}\n\nExample: bfrbctl inspect {name} {example} --json"
        app.command(name, cls=Command, help=text)(_plain_command(name))
    else:
        app.command(name, cls=Command)(SPECIAL[name])


def _plain_command(name: str) -> Callable[..., None]:
    @grouped
    def show(folder: Folder, *, view: ViewOptions) -> None:
        _show(name, folder, view)

    return show


@grouped
def sequence(
    folder: Folder,
    sequence_id: Annotated[
        str | None, typer.Argument(help="Sequence to show; the first one by default.", metavar="ID")
    ] = None,
    *,
    view: ViewOptions,
) -> None:
    """Show one sequence of a dataset: channels over time, ToF images, and the findings of its checks.

    Example: bfrbctl inspect sequence data/ SEQ_000007 --plot sequence.svg
    """
    _show("sequence", folder, view, sequence=sequence_id)


@grouped
def features(
    folder: Folder,
    *,
    against: Annotated[
        Path | None, typer.Option("--against", help="Feature folder to look for drift against.", metavar="FOLDER")
    ] = None,
    view: ViewOptions,
) -> None:
    """Show catalogue, null shares, constant and duplicate columns, and drift from train to test or to another folder.

    Example: bfrbctl inspect features features/ --against test_features/
    """
    _show("features", folder, view, other=against)


@grouped
def feature(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Name of a feature or frame channel.", metavar="NAME")],
    *,
    model: Annotated[
        Path | None, typer.Option("--model", help="Model or blend to take the importance from.", metavar="FOLDER")
    ] = None,
    view: ViewOptions,
) -> None:
    """Explain one feature: formula, unit, window in frames and seconds, values by gesture, null share, importance.

    Example: bfrbctl inspect feature features/ gyro_mag__last32_std --model lgbm/ --plot feature.svg
    """
    _show("feature", folder, view, feature=name, model=model)


@grouped
def oof(folder: Folder, *, features: Features = None, view: ViewOptions) -> None:
    """Show out-of-fold scores with intervals: of every gesture, worst first, by class, orientation, fold and subject.

    Example: bfrbctl inspect oof blend/ --features features/
    """
    _show("oof", folder, view, features=features)


@grouped
def importance(
    folder: Folder,
    *,
    features: Features = None,
    shap: Shap = False,
    sample: Annotated[int, typer.Option("--sample", help="Sequences per fold for SHAP values.", min=1)] = 200,
    view: ViewOptions,
) -> None:
    """Show what the trees use, by feature, family and modality, and its standard deviation over folds.

    Example: bfrbctl inspect feature-importance lgbm/ --shap --features features/
    """
    _show("feature-importance", folder, view, features=features, shap=shap, sample=sample)


@grouped
def artefact(
    folder: Folder,
    *,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Where to look for inputs that do not lie beside the folder: an input, or a folder of inputs. May be "
            "repeated.",
            metavar="DIR",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    view: ViewOptions,
) -> None:
    """Show manifest, lineage and versions of any folder, and verify its digests.

    Example: bfrbctl inspect artefact blend/ --inputs old/features/
    """
    _show("artefact", folder, view, inputs=inputs or ())


@grouped
def compare(
    first: Annotated[Path, typer.Argument(help="A model or blend.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same dataset.", metavar="B")],
    *,
    view: ViewOptions,
) -> None:
    """Compare two models: B - A paired by sequence, with an interval by subject, and by seed where both have several.

    Example: bfrbctl inspect compare lgbm/ blend/
    """
    _show("compare", first, view, other=second)


@grouped
def report(
    folder: Folder,
    output: Annotated[Path, typer.Argument(help="Page to write.", metavar="OUT.html")],
    *,
    features: Features = None,
    shap: Shap = False,
    force: Force = False,
    display: DisplayOptions,
) -> None:
    """Write all views of a folder as one page that needs no network.

    Example: bfrbctl inspect report blend/ blend.html --features features/
    """
    from bfrbctl.inspection.report import write_report

    written = write_report(folder, output, features=features, shap=shap, force=force)
    lines = [f"wrote {output}: {len(written['views'])} views, {written['bytes'] / 1e6:.2f} MB"]
    lines += [f" left out {name}: {reason}" for name, reason in written["left_out"].items()]
    show_result({"output": str(output), **written}, lines=lines, next_command=None, display=display)


SPECIAL: dict[str, Callable[..., None]] = {
    "sequence": sequence,
    "features": features,
    "feature": feature,
    "oof": oof,
    "feature-importance": importance,
    "artefact": artefact,
    "compare": compare,
    "report": report,
}


def _show(name: str, folder: Path, options: ViewOptions, **more: Any) -> None:
    from bfrbctl.inspection import inspect, options_of

    if options.plot is not None:
        check_plot(options.plot, folder)
    view = inspect(name, folder, options_of(name, **more))
    if options.plot is not None:
        write_plot(view, options.plot)
    if options.as_json:
        print_json(view.as_json())
    else:
        _draw(view)


def _draw(view: "View") -> None:
    """Print a view as text and tables."""
    from rich.console import Console

    from bfrbctl.inspection.view import cell_text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(cell_text(view.title), style="bold", markup=False)
    for name, value in view.facts.items():
        console.print(f"  {name.replace('_', ' ')}: {cell_text(value)}", markup=False, soft_wrap=True)
    for table in view.tables:
        console.print(table.caption, style="bold", markup=False)
        console.print(_rich_table(table))
    for note in view.notes:
        console.print(f"note: {cell_text(note)}", markup=False, soft_wrap=True)  # it may hold a command to copy


def _rich_table(table: "Table") -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    from bfrbctl.inspection.view import cell_text

    drawn = RichTable()
    for position, name in enumerate(table.columns):
        drawn.add_column(name, justify="right" if table.is_numeric(position) else "left")
    for row in table.shown:
        drawn.add_row(*(Text(cell_text(value)) for value in row))
    return drawn
