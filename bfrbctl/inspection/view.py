"""What a folder holds, as data: facts, tables, figures, and notes on what is missing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfrbctl.evaluation.metrics import has_two_sides, score_column
from bfrbctl.inspection.figures import Figure
from bfrbctl.reprs import short_repr
from bfrbctl.schema import ALL_SENSORS, IMU_ONLY

SCENARIO_NAMES = {ALL_SENSORS: "all sensors", IMU_ONLY: "IMU only"}

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows to show under a title; cells are str, int, float or None.

    Parameters
    ----------
    title
        What the rows are.
    columns
        Their names.
    rows
        All rows, the most important first.
    top
        How many of them the terminal shows; --json has all.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    top: int = 60

    __repr__ = short_repr

    @property
    def records(self) -> list[dict[str, Any]]:
        """The rows as JSON objects."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def shown(self) -> tuple[tuple[Any, ...], ...]:
        """The rows that the terminal shows."""
        return self.rows[: self.top]

    @property
    def caption(self) -> str:
        """The title, and how many rows there are where not all are shown."""
        more = len(self.rows) > self.top
        return f"{self.title} ({self.top} of {len(self.rows)}; --json has all)" if more else self.title

    def is_numeric(self, position: int) -> bool:
        """Whether a column holds numbers alone."""
        return all(not isinstance(row[position], str) for row in self.rows)


@dataclass(frozen=True)
class View:
    """What a folder holds.

    Parameters
    ----------
    title
        What is shown of what.
    facts
        Headline figures by name.
    tables
        Details.
    notes
        What is missing, and why.
    figures
        Pictures of the same.
    """

    title: str
    facts: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()

    __repr__ = short_repr

    def as_json(self) -> dict[str, Any]:
        """Give everything but the figures as JSON values."""
        return {
            "title": self.title,
            "facts": dict(self.facts),
            "tables": {table.title: table.records for table in self.tables},
            "notes": list(self.notes),
        }


def for_each(scenarios: Collection[str], *names: str) -> list[str]:
    """Name columns that there are once a scenario; where there is one scenario, their names are enough.

    >>> for_each(["all", "imu"], "F1"), for_each(["all"], "F1")
    (['F1 all', 'F1 imu'], ['F1'])
    """
    return [f"{name} {scenario}" if len(scenarios) > 1 else name for scenario in scenarios for name in names]


def score_columns(scenarios: Collection[str], targets: Sequence[bool]) -> tuple[str, ...]:
    """Name the columns that hold the scenarios' headline figures: by the scenario, or by the figure.

    >>> score_columns(["all", "imu"], [False, False]), score_columns(["all"], [False, False])
    (('gesture F1 all', 'gesture F1 imu'), ('gesture F1',))
    """
    if len(scenarios) > 1 and has_two_sides(targets):
        return tuple(scenarios)
    return tuple(for_each(scenarios, score_column(targets)))


def of_scenario(text: str, scenario: str, scenarios: Collection[str]) -> str:
    """Add the scenario to a title in words, where there are several.

    >>> of_scenario("Confusion", "imu", ["all", "imu"]), of_scenario("Confusion", "all", ["all"])
    ('Confusion, IMU only', 'Confusion')
    """
    return f"{text}, {SCENARIO_NAMES[scenario]}" if len(scenarios) > 1 else text


def filled(*tables: Table) -> tuple[Table, ...]:
    """Leave out the tables without a row."""
    return tuple(table for table in tables if table.rows)


def cell_text(value: Any) -> str:
    """Write a cell or fact as text; characters that could steer a terminal are replaced.

    >>> cell_text(0.12345), cell_text(0.00001), cell_text(1234567.5), cell_text(None), cell_text(True)
    ('0.1235', '1e-05', '1234568', '-', 'yes')
    >>> cell_text(1.0), cell_text(20.0)
    ('1.0000', '20')
    >>> cell_text(71.5), cell_text(1234.56)
    ('71.50', '1235')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _float_text(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def _float_text(value: float) -> str:
    size = abs(value)
    if 2 <= size < 1e15 and value == int(value):
        return str(int(value))
    if value == 0 or 0.001 <= size < 2:
        return f"{value:.4f}"
    if size >= 2:
        return f"{value:#.4g}".rstrip(".") if size < 10_000 else f"{value:.0f}"
    return f"{value:.2g}"
