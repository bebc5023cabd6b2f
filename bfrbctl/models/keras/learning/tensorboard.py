"""Write the history of training for TensorBoard, an epoch at a time, where TensorBoard is installed.

Its own writer is used, which needs NumPy alone: the files are the same whatever Keras runs on.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bfrbctl.errors import missing_library
from bfrbctl.models.interface import HistoryRow
from bfrbctl.schema import SCENARIOS

PLACE = ("fold", "member", "step")
"""Columns of a history row that say where a number belongs and are no number to draw."""


@contextmanager
def scalar_log(folder: Path) -> Iterator[Callable[[HistoryRow], None]]:
    """Give what writes history rows into event files: one run a fold and seed, one point a number and epoch.

    Parameters
    ----------
    folder
        What `tensorboard --logdir` is given; made when the first row comes. Earlier runs in it are kept.

    Raises
    ------
    MissingLibraryError
        When TensorBoard cannot be imported.
    """
    try:
        summary: Any = import_module("tensorboard.summary")
    except ImportError as error:
        otherwise = "train without --tensorboard: history.csv has the numbers"
        raise missing_library("--tensorboard", error, otherwise=otherwise) from error
    with ExitStack() as stack:
        writers: dict[str, Any] = {}

        def write(row: HistoryRow) -> None:
            run = run_name(row)
            if run not in writers:
                writers[run] = stack.enter_context(closing(summary.Writer(str(folder / run))))
            for column, value in row.items():
                if column not in PLACE and isinstance(value, int | float):
                    writers[run].add_scalar(tag(column), value, step=int(row["step"]))
            writers[run].flush()  # an epoch is seen when it is over, and kept when the next one is killed

        yield write


def run_name(row: HistoryRow) -> str:
    """Name the run of a row: fold-2, and fold-2-seed-1 for the second network of a fold."""
    member = int(row.get("member", 0))
    return f"fold-{row['fold']}" + (f"-seed-{member}" if member else "")


def tag(column: str) -> str:
    """Name a number so that TensorBoard draws both scenarios side by side.

    >>> tag("macro_f1_imu"), tag("score"), tag("lr")
    ('macro_f1/imu', 'score/mean', 'lr')
    """
    name, _, scenario = column.rpartition("_")
    if scenario in SCENARIOS:
        return f"{name}/{scenario}"
    return "score/mean" if column == "score" else column
