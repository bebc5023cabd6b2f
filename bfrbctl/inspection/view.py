"""What there is to see in a folder, as data: facts, tables, figures, and notes on what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bfrbctl.inspection.figures import Figure
from bfrbctl.reprs import short_repr

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
        All rows, most telling first.
    top
        How many of them people are shown; scripts get all.
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
        """The rows that people are shown."""
        return self.rows[: self.top]

    @property
    def caption(self) -> str:
        """The title, and how many rows there are where not all are shown."""
        more = len(self.rows) > self.top
        return f"{self.title} ({self.top} of {len(self.rows)}; --json tells all)" if more else self.title

    def is_numeric(self, position: int) -> bool:
        """Whether a column holds numbers alone."""
        return all(not isinstance(row[position], str) for row in self.rows)


@dataclass(frozen=True)
class View:
    """What there is to see in a folder.

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


def filled(*tables: Table) -> tuple[Table, ...]:
    """Leave out the tables without a row."""
    return tuple(table for table in tables if table.rows)


def cell_text(value: Any) -> str:
    """Write a cell or fact for people; characters that could steer a terminal are replaced.

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
