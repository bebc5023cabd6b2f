"""bfrbctl serve: a model or blend behind the competition's gateway."""

from pathlib import Path
from typing import Annotated

import typer

from bfrbctl.cli import shared


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve")(serve)


def serve(
    model: Annotated[Path, typer.Argument(help="Model or blend folder.", metavar="MODEL_OR_BLEND")],
    data_paths: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="test.csv and test_demographics.csv for a local run.", metavar="TEST DEMOGRAPHICS"),
    ] = None,
    expect_sha256: Annotated[
        str | None, typer.Option(help="Refuse the model unless it has this digest.", metavar="HEX")
    ] = None,
    without: shared.Without = None,
    debug: shared.Debug = False,
) -> None:
    """Answer the competition's gateway, one sequence a call.

    Needs kaggle_evaluation, which Kaggle provides in the competition's notebooks.

    Example: bfrbctl serve blend/ --data-paths test.csv test_demographics.csv
    """
    from bfrbctl.prediction.gateway import serve as run

    run(model, data_paths or (), expect_sha256=expect_sha256, without=without or ())
