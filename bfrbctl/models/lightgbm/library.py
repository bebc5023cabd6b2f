"""LightGBM, imported the way this package wants it: polite to other processes, and silent.

Every other module takes `lgb` from here, so that nobody imports the library before its environment is set.
"""

import os
from collections.abc import Mapping
from functools import cache

# Idle OpenMP threads spin by default. Where another process wants the core, a round was seen to take 20 times as long.
# The variable is read when the library is loaded, hence before the import; a value that is set already stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightgbm as lgb

__all__ = ["lgb", "parameter_names", "silence"]


@cache
def parameter_names() -> Mapping[str, str]:
    """Give every name of every parameter -> its main name, as the library itself lists them."""
    aliases: Mapping[str, list[str]] = lgb.basic._ConfigAliases._get_all_param_aliases()
    return {name: main for main, names in aliases.items() for name in (main, *names)}


def silence() -> None:
    """Stop the library from printing on stdout, where a command's own answer goes."""
    lgb.register_logger(_Silence())


class _Silence:
    """Takes the library's messages: what it has to say arrives as an exception too."""

    def info(self, message: str) -> None:
        """Drop a message."""

    def warning(self, message: str) -> None:
        """Drop a warning."""
