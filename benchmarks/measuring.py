"""What the benchmarks share: the command line, the clock, and rows of Markdown tables."""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser whose help is the docstring of the benchmark, as it stands."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def timed(function: Callable[..., Result], *arguments: object) -> tuple[Result, float, float]:
    """Call a function; give its result, the seconds by the clock, and the processor seconds of this process."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, time.perf_counter() - wall, time.process_time() - processor


def row(*cells: object) -> str:
    """Write a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def header(*names: str) -> str:
    """Write the two first lines of a Markdown table."""
    return f"{row(*names)}\n|{'---|' * len(names)}"
