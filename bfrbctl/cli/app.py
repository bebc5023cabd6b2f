"""The app, its commands, and the one place where errors become messages and exit codes."""

import os
import signal
import sys
from importlib import import_module
from typing import Annotated, NoReturn

import typer

from bfrbctl import __version__
from bfrbctl.errors import BfrbError

# In the order of the pipeline.
VERBS = ("simulate", "prepare", "featurize", "train", "oof_blend", "predict", "pack", "serve", "inspect")

RESUMABLE = frozenset({"prepare", "featurize", "train", "oof-blend", "predict"})
"""Commands that have --resume."""

INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    name="bfrbctl",
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
        _say(f"terminated{_kept()}")
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    try:
        code = _run()
    except BaseException:
        if not ended:
            raise
    # whatever a library made of it: polars turns what is raised inside into a panic or an error
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
        code = _tell(error)
    except (KeyboardInterrupt, typer.Abort):
        _say(f"interrupted{_kept()}")
        code = INTERRUPTED
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = _tell_unforeseen(error)
    return code


def _tell(error: BfrbError) -> int:
    _say(f"error: {error.what}")
    if error.hint:
        _say(f" hint: {error.hint}")
    if _debugging():
        raise error
    return error.exit_code


def _tell_unforeseen(error: Exception) -> int:
    if hasattr(error, "format_message"):  # click's own: a wrong option, a missing argument
        context = getattr(error, "ctx", None)
        _say(f"error: {error.format_message()}")
        if context is not None:
            _say(f" hint: {context.command_path} --help tells how it is used")
        return int(getattr(error, "exit_code", 2))
    if _debugging():
        raise error
    _say(f"error: {type(error).__name__}: {error}")
    _say(" hint: this was not foreseen; BFRBCTL_DEBUG=1 shows where, please report it")
    return 1


def _kept() -> str:
    """Say what an interrupted command leaves: nothing unless it writes a folder that --resume continues."""
    if RESUMABLE.isdisjoint(sys.argv[1:2]) or "--plan" in sys.argv:
        return ""
    return "; what was finished is kept, --resume continues it"


def _debugging() -> bool:
    return bool(os.environ.get("BFRBCTL_DEBUG")) or "--debug" in sys.argv


def _say(text: str) -> None:
    print(text, file=sys.stderr)
