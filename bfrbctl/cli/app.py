"""The app, its commands, and the one place where errors become messages and exit codes."""

import os
import signal
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer

from bfrbctl import __version__
from bfrbctl.cli.help import Group
from bfrbctl.errors import BfrbError

# In the order of the pipeline.
VERBS = ("simulate", "prepare", "featurize", "train", "oof_blend", "predict", "pack", "serve", "inspect")

RESUMABLE = frozenset({"prepare", "featurize", "train", "oof-blend", "predict", "pack"})
"""Commands that have --resume."""

INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    name="bfrbctl",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _about(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.", is_eager=True)] = False,
) -> None:
    """Recognise body-focused repetitive behaviours from wrist-sensor recordings.

    The chain: prepare -> featurize -> train lgbm | keras -> oof-blend -> predict, and inspect on every folder.
    """
    if version:
        typer.echo(f"bfrbctl {__version__}")
        raise typer.Exit()


for _verb in VERBS:
    import_module(f"bfrbctl.cli.{_verb}").register(app)


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 2 usage, 3 data, 4 artefact, 5 output, 130 interrupted, 1 unforeseen."""
    ended: list[int] = []

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        _print(f"terminated{_kept()}")
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        code = _run()
    except BaseException:
        if not ended:
            raise
    # Even if a library has replaced the exception: polars turns one that is raised inside it into a panic or an error.
    sys.exit(TERMINATED if ended else code)


def _run() -> int | str:
    """Run the command line; gives the exit code."""
    try:
        code = app(standalone_mode=False) or 0  # typer turns Exit and Ctrl-C into a returned code
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except typer.Exit as stop:
        code = stop.exit_code
    except BfrbError as error:
        code = _report(error)
    except (KeyboardInterrupt, typer.Abort):
        _print(f"interrupted{_kept()}")
        code = INTERRUPTED
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = _report_unforeseen(error)
    return code


def _report(error: BfrbError) -> int:
    _print(f"error: {error.what}")
    if error.hint:
        _print(f" hint: {error.hint}")
    if _debugging():
        raise error
    return error.exit_code


def _report_unforeseen(error: Exception) -> int:
    if hasattr(error, "format_message"):  # click's own: a wrong option, a missing argument
        return _report_usage(error)
    if _debugging():
        raise error
    _print(f"error: {type(error).__name__}: {error}")
    _print(" hint: this is a fault of bfrbctl; BFRBCTL_DEBUG=1 shows where it occurred, please report it")
    return 1


def _report_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        _print(error.format_message())  # the help
    else:
        _print(f"error: {error.format_message()}")
        if context is not None:
            _print(f" hint: {context.command_path} --help shows the usage")
    return int(getattr(error, "exit_code", 2))


def _kept() -> str:
    """Describe what an interrupted command leaves: nothing unless it writes a folder that --resume continues."""
    if RESUMABLE.isdisjoint(sys.argv[1:2]) or "--plan" in sys.argv:
        return ""
    return "; what was finished is kept, --resume continues it"


def _debugging() -> bool:
    return bool(os.environ.get("BFRBCTL_DEBUG")) or "--debug" in sys.argv


def _print(text: str) -> None:
    print(text, file=sys.stderr)
