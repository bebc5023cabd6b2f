"""Options that commands share, in groups: a command names a group, and `grouped` gives it the options of the group."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from bfrbctl.cli.help import DISPLAY

if TYPE_CHECKING:
    from bfrbctl.artefacts.journals import Journal
    from bfrbctl.config import Settings

T = TypeVar("T", bound="Settings")

RUN, OUTPUT, SETTINGS = "Run", "Output", "Settings"
_display = partial(typer.Option, rich_help_panel=DISPLAY)
_output = partial(typer.Option, rich_help_panel=OUTPUT)

Force = Annotated[bool, _output("--force", help="Replace the output if it exists and is of the same kind.")]
Json = Annotated[bool, _display("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, _display("--debug", help="Show where in the code an error occurred.")]


SETTINGS_CLASSES = {
    "simulate": "bfrbctl.simulation.settings:SimulationConfig",
    "prepare": "bfrbctl.recordings.preparation:PrepareConfig",
    "featurize": "bfrbctl.features.settings:FeatureConfig",
    "lgbm": "bfrbctl.models.lightgbm.config:Config",
    "keras": "bfrbctl.models.keras.settings:Config",
    "oof-blend": "bfrbctl.ensemble.mixing:BlendConfig",
}
"""The class of the settings of each command that has some."""


def _print_settings(context: typer.Context, value: bool) -> None:
    """Print all settings of the command as TOML, and stop."""
    if not value:
        return
    from bfrbctl.config import commented_toml

    module, name = SETTINGS_CLASSES[str(context.info_name)].split(":")
    typer.echo(commented_toml(getattr(import_module(module), name)), nl=False)
    raise typer.Exit()


@dataclass(frozen=True)
class SettingsOptions:
    """Settings of the command, from a file and one by one."""

    config_file: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with settings.", metavar="FILE", rich_help_panel=SETTINGS),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting. May be repeated.", metavar="KEY=VALUE", rich_help_panel=SETTINGS),
    ] = None
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print all settings with their defaults and ranges as TOML, for --config, and exit.",
            is_eager=True,
            callback=_print_settings,
            rich_help_panel=SETTINGS,
        ),
    ] = False

    def build(self, cls: type[T], *, earlier: Mapping[str, Any] | None = None, **options: Any) -> T:
        """Make the validated settings: `options` over --set over --config over those of the `earlier` run."""
        from bfrbctl import config

        return config.build(cls, earlier=earlier, file=self.config_file, overrides=self.settings or (), **options)


@dataclass(frozen=True)
class RunOptions:
    """Who does the work: processes of this machine, or a cluster."""

    workers: Annotated[
        int,
        typer.Option(
            help="Tasks that run at once. 0 chooses the number by the cores and the input.",
            min=0,
            rich_help_panel=RUN,
        ),
    ] = 0
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Run on the Dask cluster of this scheduler, such as tcp://host:8786.",
            metavar="ADDRESS",
            rich_help_panel=RUN,
        ),
    ] = None

    def workers_or(self, fitting: Callable[[], int]) -> int:
        """Give the number of workers; where the user left it open, the number that fits the input."""
        return self.workers if self.scheduler or self.workers else fitting()


@dataclass(frozen=True)
class OutputOptions:
    """What happens to a folder that is there already."""

    force: Force = False
    resume: Annotated[
        bool, _output("--resume", help="Continue the unfinished run in the output folder, with its settings.")
    ] = False


@dataclass(frozen=True)
class DisplayOptions:
    """What the command prints."""

    quiet: Annotated[bool, _display("--quiet", "-q", help="Show no progress and no summary.")] = False
    as_json: Json = False
    debug: Debug = False


@dataclass(frozen=True)
class ModelOptions:
    """How the model or blend that predicts is opened."""

    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave this member of the blend out. May be repeated.", metavar="NAME", rich_help_panel="Model"
        ),
    ] = None
    expect_sha256: Annotated[
        str | None,
        typer.Option(help="Refuse the model unless it has this digest.", metavar="HEX", rich_help_panel="Model"),
    ] = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command whose type is a dataclass by the fields of that dataclass.

    typer reads one option off each parameter of a function, and knows no groups. So the function that it gets has one
    parameter for each field, with the annotation and the default of the field; when called, it makes the dataclasses.

    Parameters
    ----------
    command
        A function whose parameters are those that typer understands, and dataclasses of such or of dataclasses. No two
        may have the same name, fields included.
    """
    outer = inspect.signature(command)
    signature = outer.replace(parameters=[one for each in outer.parameters.values() for one in _expanded(each)])

    @wraps(command)
    def call(*positional: Any, **named: Any) -> None:
        values = signature.bind(*positional, **named).arguments
        for name, each in outer.parameters.items():
            if is_dataclass(each.annotation):
                values[name] = _take(each.annotation, values)
        command(**values)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _expanded(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Give the parameters that stand for one: itself, or those of its group's fields."""
    group = parameter.annotation
    if not is_dataclass(group):
        return [parameter]
    hints = get_type_hints(group, include_extras=True)
    defaults = {each.name: parameter.empty if each.default is MISSING else each.default for each in fields(group)}
    return [
        one
        for name, default in defaults.items()
        for one in _expanded(parameter.replace(name=name, annotation=hints[name], default=default))
    ]


def _take(group: Any, values: dict[str, Any]) -> Any:
    """Make a group from the values of its fields, which are taken out of `values`."""
    types = {each.name: each.type for each in fields(group)}
    own = {name: _take(kind, values) for name, kind in types.items() if is_dataclass(kind)}
    return group(**own, **{name: values.pop(name) for name in types if name in values and name not in own})


def command_line() -> tuple[str, ...]:
    """Give the exact command, for the manifest."""
    return ("bfrbctl", *sys.argv[1:])


def remembered_path(earlier: "Journal", option: str, path: Path | None) -> tuple[dict[str, str], Path | None]:
    """Take a path that is an option of a run from the run that is continued, unless the user gives one.

    Returns
    -------
    What the journal of this run records of it, and the path.
    """
    known = earlier.options.get(option)
    path = Path(known) if path is None and isinstance(known, str) else path
    return ({} if path is None else {option: str(path.absolute())}), path
