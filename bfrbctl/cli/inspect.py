"""bfrbctl inspect: look into any folder of ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bfrbctl.cli import shared

if TYPE_CHECKING:
    from bfrbctl.inspection import Table, View

HELP = {
    "dataset": ("Show people, gestures, folds and repairs of a prepared dataset.", "data/"),
    "features": ("Show the catalogue, null shares and constant columns of a feature folder.", "features/"),
    "oof": ("Show out-of-fold scores in both scenarios, by class, fold and subject.", "lgbm/"),
    "feature-importance": ("Show which features, families and modalities the trees use.", "blend/"),
    "blend": ("Show weights, temperatures and scores of a blend and its members.", "blend/"),
    "predictions": ("Show what was predicted, and the score where the input had labels.", "predictions/"),
}


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    inspect = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look into any folder bfrbctl wrote.")
    for what, (about, example) in HELP.items():
        text = f"{about}\n\nExample: bfrbctl inspect {what} {example} --json"
        inspect.command(what, help=text)(_command(what))
    app.add_typer(inspect, name="inspect")


def _command(what: str) -> Any:
    def show(
        folder: Annotated[Path, typer.Argument(help="The folder to look into.", metavar="FOLDER")],
        as_json: shared.Json = False,
        debug: shared.Debug = False,
    ) -> None:
        from bfrbctl.inspection import inspect

        view = inspect(what, folder)
        if as_json:
            shared.tell(view.as_json(), lines=(), next_command=None, as_json=True, quiet=False)
        else:
            _draw(view)

    return show


def _draw(view: "View") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    console.print(view.title, style="bold", markup=False)
    for name, value in view.facts.items():
        console.print(f"  {name.replace('_', ' ')}: {_cell(value)}", markup=False)
    for table in view.tables:
        console.print(_rich_table(table))
    for note in view.notes:
        console.print(f"note: {note}", markup=False)


def _rich_table(table: "Table") -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=table.title, title_justify="left", title_style="bold")
    for position, name in enumerate(table.columns):
        numbers = all(not isinstance(row[position], str) for row in table.rows)
        drawn.add_column(name, justify="right" if numbers else "left")
    for row in table.rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    return drawn


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
