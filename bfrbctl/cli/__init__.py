"""The command line: one file a verb. Only this package prints or exits, and only it imports typer or rich."""

from bfrbctl.cli.app import main

__all__ = ["main"]
