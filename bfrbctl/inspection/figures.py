"""Figures as data, and in words: every figure has a text alternative that describes it."""

from dataclasses import dataclass

from bfrbctl.reprs import short_repr


@dataclass(frozen=True)
class Series:
    """A line: points in order; a y of None leaves a gap.

    Parameters
    ----------
    name
        What the legend calls it.
    x, y
        The points.
    colour
        Which of the eight colours; lines of one colour belong together.
    dashed
        Whether the line is dashed, so that two lines can share a colour.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    colour: int = 0
    dashed: bool = False

    __repr__ = short_repr


@dataclass(frozen=True)
class Lines:
    """Lines over a common x axis.

    Parameters
    ----------
    title, x_label, y_label
        What is shown.
    series
        The lines.
    shaded
        Span of x to shade, and what it is.
    diagonal
        Whether to draw y = x.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    shaded: tuple[float, float, str] | None = None
    diagonal: bool = False

    __repr__ = short_repr


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, one a label; several groups stand under each other.

    Parameters
    ----------
    title, x_label
        What is shown.
    labels
        One a bar.
    groups
        Name and values, one a label; None where there is none.
    spans
        Whiskers (low, high) of the first group, one a label.
    """

    title: str
    x_label: str
    labels: tuple[str, ...]
    groups: tuple[tuple[str, tuple[float | None, ...]], ...]
    spans: tuple[tuple[float, float], ...] = ()

    __repr__ = short_repr


@dataclass(frozen=True)
class Matrix:
    """A table of shaded cells.

    Parameters
    ----------
    title, x_label, y_label
        What is shown.
    rows, columns
        Labels.
    shades
        0..1 a cell, row by row.
    texts
        What stands in the cells.
    """

    title: str
    x_label: str
    y_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shades: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]

    __repr__ = short_repr


@dataclass(frozen=True)
class Images:
    """Small images side by side: one row of them a sensor, one column a moment.

    Parameters
    ----------
    title, x_label
        What is shown.
    rows, columns
        Labels.
    images
        images[row][column][pixel]: 0..1, darker is larger, None not measured, -1 no return; square, row-major.
    """

    title: str
    x_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    images: tuple[tuple[tuple[float | None, ...], ...], ...]

    __repr__ = short_repr


@dataclass(frozen=True)
class Ranges:
    """How values are distributed, one row a label: a box from the lower to the upper quartile, whiskers, the median.

    Parameters
    ----------
    title, x_label
        What is shown.
    labels
        One a row.
    quantiles
        (5 %, 25 %, median, 75 %, 95 %) of each row; None where there is no value.
    colours
        Which of the eight colours each row has; the first where empty.
    """

    title: str
    x_label: str
    labels: tuple[str, ...]
    quantiles: tuple[tuple[float, float, float, float, float] | None, ...]
    colours: tuple[int, ...] = ()

    __repr__ = short_repr


Figure = Lines | Bars | Matrix | Images | Ranges


def describe(figure: Figure) -> str:
    """Describe in words what a figure shows."""
    match figure:
        case Lines():
            lines = []
            for series in figure.series:
                known = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
                if known:
                    low, high = min(y for _, y in known), max(y for _, y in known)
                    lines.append(f"{series.name} from {low:.4g} to {high:.4g}, last {known[-1][1]:.4g}")
            return f"Lines of {figure.y_label} over {figure.x_label}: {'; '.join(lines) or 'none'}."
        case Bars():
            groups = []
            for name, values in figure.groups:
                pairs = [
                    f"{label} {value:.4g}"
                    for label, value in zip(figure.labels, values, strict=True)
                    if value is not None
                ]
                groups.append(f"{name}: {', '.join(pairs) or 'none'}")
            return f"Bars of {figure.x_label}. {'; '.join(groups)}."
        case Ranges():
            rows = [
                f"{label} {row[2]:.4g} ({row[0]:.4g} to {row[4]:.4g})"
                for label, row in zip(figure.labels, figure.quantiles, strict=True)
                if row is not None
            ]
            return f"Medians of {figure.x_label} and the range of the middle 90 %: {', '.join(rows) or 'none'}."
        case Matrix():
            return (
                f"Table of {len(figure.rows)} rows ({figure.y_label}) by {len(figure.columns)} columns "
                f"({figure.x_label}): {_strongest(figure)}."
            )
        case Images():
            return f"{len(figure.rows)} rows of images ({', '.join(figure.rows)}) at {', '.join(figure.columns)}."


def _strongest(figure: Matrix) -> str:
    cells = [
        (-shade, f"{row} / {column} {text}")
        for row, shades, texts in zip(figure.rows, figure.shades, figure.texts, strict=True)
        for column, shade, text in zip(figure.columns, shades, texts, strict=True)
        if shade > 0 and row != column
    ]
    return "strongest " + ", ".join(text for _, text in sorted(cells)[:3]) if cells else "nothing beside the diagonal"
