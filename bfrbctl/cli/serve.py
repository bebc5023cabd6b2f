"""bfrbctl serve: a model or blend behind the competition's gateway."""

from pathlib import Path
from typing import Annotated

import typer

from bfrbctl.cli.help import Command
from bfrbctl.cli.options import Debug, ModelOptions, grouped


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve", cls=Command)(serve)


@grouped
def serve(
    model: Annotated[Path, typer.Argument(help="Model or blend folder.", metavar="MODEL_OR_BLEND")],
    *,
    data_paths: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="test.csv and test_demographics.csv for a local run.", metavar="TEST DEMOGRAPHICS"),
    ] = None,
    opening: ModelOptions,
    debug: Debug = False,
) -> None:
    """Serve predictions to the competition's gateway, one sequence per call.

    Needs kaggle_evaluation, which Kaggle provides in the competition's notebooks.

    Example: bfrbctl serve blend/ --data-paths test.csv test_demographics.csv
    """
    from bfrbctl.prediction.gateway import serve as serve_gateway

    serve_gateway(model, data_paths or (), expect_sha256=opening.expect_sha256, without=opening.without or ())
