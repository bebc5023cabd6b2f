"""bfrbctl inspect: look into any folder of ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli import shared

if TYPE_CHECKING:
    from bfrbctl.inspection import Table, View

PLAIN = {
    "dataset": ("Show people, gestures, lengths, missing sensors, repairs and folds of a dataset.", "data/"),
    "folds": ("Show how the folds divide people and gestures.", "features/"),
    "training": ("Show the scores of every scenario while training, by fold.", "keras/"),
    "confusion": ("Show which gestures are taken for which.", "blend/"),
    "calibration": ("Show how far probabilities can be believed, before and after a temperature.", "blend/"),
    "blend": ("Show weights, temperatures, scores and what each member adds.", "blend/"),
    "predictions": ("Show what was predicted, and the score where the input had labels.", "predictions/"),
}
"""Views that take a folder and nothing else: what they show, and an example."""

Folder = Annotated[Path, typer.Argument(help="The folder to look into.", metavar="FOLDER")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Also draw it into this file.", metavar="FILE.svg|png")]
Features = Annotated[
    Path | None, typer.Option("--features", help="The feature folder it was trained on.", metavar="FOLDER")
]

Shap = Annotated[bool, typer.Option("--shap", help="SHAP values too, on held-out sequences of --features.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    inspect = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into any folder bfrbctl wrote.")
    for what in ("dataset", "sequence", "features", "feature", "folds", "training", "oof", "confusion", "calibration"):
        _add(inspect, what)
    for what in ("feature-importance", "blend", "predictions", "artefact", "compare", "report"):
        _add(inspect, what)
    app.add_typer(inspect, name="inspect")


def _add(app: typer.Typer, what: str) -> None:
    if what in PLAIN:
        about, example = PLAIN[what]
        app.command(what, help=f"{about}\n\nExample: bfrbctl inspect {what} {example} --json")(_command(what))
    else:
        app.command(what)(SPECIAL[what])


def _command(what: str) -> Any:
    def show(folder: Folder, plot: Plot = None, as_json: shared.Json = False, debug: shared.Debug = False) -> None:
        _show(what, folder, plot=plot, as_json=as_json)

    return show


def sequence(
    folder: Folder,
    sequence_id: Annotated[str | None, typer.Argument(help="Which; the first when not given.", metavar="ID")] = None,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Show one sequence of a dataset: channels over time, ToF images, what was found in it.

    Example: bfrbctl inspect sequence data/ SEQ_000007 --plot sequence.svg
    """
    _show("sequence", folder, plot=plot, as_json=as_json, sequence=sequence_id)


def features(
    folder: Folder,
    against: Annotated[
        Path | None, typer.Option("--against", help="Feature folder to look for drift against.", metavar="FOLDER")
    ] = None,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Show catalogue, null shares, constant and duplicate columns, and drift from train to test or to another folder.

    Example: bfrbctl inspect features features/ --against test_features/
    """
    _show("features", folder, plot=plot, as_json=as_json, other=against)


def feature(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="Which feature or frame channel.", metavar="NAME")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Model or blend to take the importance from.", metavar="FOLDER")
    ] = None,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Explain one feature: formula, unit, window in frames and seconds, values by gesture, null share, importance.

    Example: bfrbctl inspect feature features/ gyro_mag__last32_std --model lgbm/ --plot feature.svg
    """
    _show("feature", folder, plot=plot, as_json=as_json, feature=name, model=model)


def oof(
    folder: Folder,
    features: Features = None,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Show out-of-fold scores with intervals, of every gesture worst first, by class, orientation, fold and subject.

    Example: bfrbctl inspect oof blend/ --features features/
    """
    _show("oof", folder, plot=plot, as_json=as_json, features=features)


def importance(
    folder: Folder,
    features: Features = None,
    shap: Shap = False,
    sample: Annotated[int, typer.Option("--sample", help="Sequences a fold for SHAP values.", min=1)] = 200,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Show what the trees use, by feature, family and modality, and its spread over folds.

    Example: bfrbctl inspect feature-importance lgbm/ --shap --features features/
    """
    told = {"features": features, "shap": shap, "sample": sample}
    _show("feature-importance", folder, plot=plot, as_json=as_json, **told)


def artefact(
    folder: Folder,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Where to look for inputs that do not lie beside it: an input, or a folder of some; may be repeated.",
            metavar="DIR",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Show manifest, lineage and versions of any folder, and verify its digests.

    Example: bfrbctl inspect artefact blend/ --inputs old/features/
    """
    _show("artefact", folder, plot=plot, as_json=as_json, inputs=inputs or ())


def compare(
    first: Annotated[Path, typer.Argument(help="A model or blend.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another, of the same dataset.", metavar="B")],
    plot: Plot = None,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Compare two models: B - A paired by sequence, with an interval by subject, and by seed where both have several.

    Example: bfrbctl inspect compare lgbm/ blend/
    """
    _show("compare", first, plot=plot, as_json=as_json, other=second)


def report(
    folder: Folder,
    output: Annotated[Path, typer.Argument(help="The page to write.", metavar="OUT.html")],
    features: Features = None,
    shap: Shap = False,
    force: shared.Force = False,
    quiet: shared.Quiet = False,
    as_json: shared.Json = False,
    debug: shared.Debug = False,
) -> None:
    """Write everything there is to see in a folder as one page that needs no network.

    Example: bfrbctl inspect report blend/ blend.html --features features/
    """
    from bfrbctl.inspection.report import write_report

    told = write_report(folder, output, features=features, shap=shap, force=force)
    lines = [f"wrote {output}: {len(told['views'])} views, {told['bytes'] / 1e6:.2f} MB"]
    lines += [f" left out {name}: {reason}" for name, reason in told["left_out"].items()]
    shared.tell({"output": str(output), **told}, lines=lines, next_command=None, as_json=as_json, quiet=quiet)


SPECIAL: dict[str, Any] = {
    "sequence": sequence,
    "features": features,
    "feature": feature,
    "oof": oof,
    "feature-importance": importance,
    "artefact": artefact,
    "compare": compare,
    "report": report,
}


def _show(what: str, folder: Path, *, plot: Path | None, as_json: bool, **told: Any) -> None:
    from bfrbctl.inspection import inspect, options_of

    if plot is not None:
        _check_plot(plot, folder)
    view = inspect(what, folder, options_of(what, **told))
    if plot is not None:
        _plot(view, plot)
    if as_json:
        shared.tell(view.as_json(), lines=(), next_command=None, as_json=True, quiet=False)
    else:
        _draw(view)


def _check_plot(path: Path, folder: Path) -> None:
    """Refuse a file that cannot be drawn, before any work is done for it."""
    from bfrbctl.errors import UsageError
    from bfrbctl.inspection.report import check_outside

    check_outside(path, folder)
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--plot {path}: expected a name that ends in .svg or .png")
    if path.suffix.lower() == ".png":
        _check_png(path)


def _plot(view: "View", path: Path) -> None:
    from bfrbctl.artefacts.files import write_bytes
    from bfrbctl.errors import DataError
    from bfrbctl.inspection.drawing import flattened, standalone

    if not view.figures:
        why = f" ({view.notes[0]})" if view.notes else ""
        raise DataError(f"{view.title}: there is nothing to draw{why}", hint="leave --plot out to see the tables")
    drawing = standalone(view.figures)
    if path.suffix.lower() == ".svg":
        write_bytes(path, drawing.encode())
    else:
        write_bytes(path, bytes(_resvg(path).svg_to_bytes(svg_string=flattened(drawing))))


def _check_png(path: Path) -> None:
    """Refuse a PNG file that would have no labels: without a font the library silently leaves every text out."""
    from bfrbctl.errors import UsageError
    from bfrbctl.inspection.drawing import FONTS

    probe = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    text = f'<text y="15" style="font:15px {FONTS}">a</text>'
    draw = _resvg(path).svg_to_bytes
    if draw(svg_string=probe.format(text)) == draw(svg_string=probe.format("")):
        raise UsageError(
            f"--plot {path}: no font is installed to write the labels with",
            hint="draw it as .svg, or install a font such as DejaVu Sans (Debian, Ubuntu: fonts-dejavu-core)",
        )


def _resvg(path: Path) -> Any:
    """Import what draws PNG files; the wheel that `pack` makes can be installed without it."""
    from bfrbctl.errors import missing_library

    try:
        import resvg_py
    except ImportError as error:
        raise missing_library(f"--plot {path}", error, otherwise="draw it as .svg") from error
    return resvg_py


def _draw(view: "View") -> None:
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
