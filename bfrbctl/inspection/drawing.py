"""Figures drawn as SVG, without a plotting library.

`drawn` turns a figure into one `<svg>` element whose colours are CSS variables, so that the same picture serves light
and dark pages, and `standalone` makes a file of several. Numbers are written with one decimal: the same figure gives
the same bytes.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from html import escape

from bfrbctl.inspection.figures import Bars, Figure, Images, Lines, Matrix, Ranges, Series, describe

WIDTH = 440
"""Width of a figure in its own units; a character of its labels is 11 units high, so that it can be read on a phone."""

FONTS = "system-ui,'DejaVu Sans','Liberation Sans','Noto Sans',Arial,Helvetica,sans-serif"
"""Browsers know the first or the last; what draws PNG files knows fonts by their own names alone."""

_CHARACTER = 5.9
_CAPITAL = 7.9
"""Mean width of a character, in the same units."""

_BOLD = 1.22
"""How much wider a title is than a label of the same text: bold, and a twelfth larger."""

_SMALL = 10 / 11
"""Size of small texts, of that of others."""

_TITLE, _LINE = 20.0, 15.0
"""Room that a title of one line takes, and each further line."""

_FEW = 24
"""Up to so many points of a line are marked."""

_N_COLOURS = 8


_LIGHT = (
    "--f:#1b1f24;--m:#59636e;--g:#d1d9e0;--b:#fff;"
    "--c0:#0969da;--c1:#bc4c00;--c2:#1a7f37;--c3:#8250df;--c4:#bf3989;--c5:#9a6700;--c6:#0f766e;--c7:#57606a"
)
_DARK = (
    "--f:#e6edf3;--m:#9198a1;--g:#3d444d;--b:#0d1117;"
    "--c0:#58a6ff;--c1:#f0883e;--c2:#3fb950;--c3:#bc8cff;--c4:#ff7eb6;--c5:#d29922;--c6:#2dd4bf;--c7:#a0a8b0"
)
_RULES = {
    "": f"font:11px {FONTS}",
    " text": "fill:var(--f)",
    " .m": "fill:var(--m)",
    " .v": "font-size:10px",
    " .e": "text-anchor:end",
    " .c": "text-anchor:middle",
    " .h": "font-weight:600;font-size:12px",
    " .g": "stroke:var(--g);fill:none",
    " .w": "stroke:var(--f);fill:none",
    " .l": "fill:none;stroke-width:1.6;stroke-linejoin:round",
    " .d": "stroke-dasharray:4 3",
    " .s": "fill:var(--c5);fill-opacity:.14",
    " .bg": "fill:var(--b)",
    " text.o": "fill:var(--b)",
    " .q": "fill:var(--c0)",
    " .n": "fill:var(--g)",
    **{f" .k{i}": f"stroke:var(--c{i})" for i in range(_N_COLOURS)},
    **{f" .f{i}": f"fill:var(--c{i})" for i in range(_N_COLOURS)},
}
STYLE = "\n".join(
    [
        f"svg.figure{{{_LIGHT}}}",
        f"@media (prefers-color-scheme:dark){{svg.figure{{{_DARK}}}}}",
        f"@media print{{svg.figure{{{_LIGHT}}}}}",
        *(f"svg.figure{where}{{{rule}}}" for where, rule in _RULES.items()),
    ]
)
"""Style sheet of all figures: colours of light and dark pages (paper is light), sizes, the eight colours of lines."""


def clean(text: str) -> str:
    """Escape a text for HTML and XML; what neither may hold is replaced."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return escape(printable, quote=True)


def drawn(figure: Figure, *, titled: bool = True) -> str:
    """Draw a figure as an `<svg class="figure">` element; the page gives it `STYLE`.

    Parameters
    ----------
    figure
        What to draw.
    titled
        Whether its title is written into the drawing, too.
    """
    body, width, height = _whole(figure) if titled else _body(figure)
    top = 0 if titled else _TITLE
    head = (
        f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" viewBox="0 {_n(top)} {_n(width)} {_n(height - top)}" '
        f'role="img"><title>{clean(figure.title)}</title><desc>{clean(describe(figure))}</desc>'
    )
    return f"{head}{body}</svg>"


def width_of(figure: Figure) -> float:
    """How wide a figure is, in its own units."""
    return _body(figure)[1]


def standalone(figures: Sequence[Figure]) -> str:
    """Draw figures under each other as an SVG file."""
    parts, top, width = [], 0.0, max(width_of(figure) for figure in figures)
    for figure in figures:
        body, _, height = _whole(figure)
        parts.append(
            f'<g transform="translate(0 {_n(top)})" role="img"><desc>{clean(describe(figure))}</desc>{body}</g>'
        )
        top += height + 10
    size = f'width="{_n(2 * width)}" height="{_n(2 * top)}" viewBox="0 0 {_n(width)} {_n(top)}"'
    head = f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>'
    return f'{head}<rect class="bg" width="100%" height="100%"/>{"".join(parts)}</svg>\n'


def flattened(svg: str) -> str:
    """Put the colours of a light page in place of the variables, for programs that know no CSS variables."""
    light = dict(rule.split(":") for rule in _LIGHT.split(";"))
    without_dark = re.sub(r"@media [^\n]*\n", "", svg)
    return re.sub(r"var\((--\w+)\)", lambda match: light[match[1]], without_dark)


def _whole(figure: Figure) -> tuple[str, float, float]:
    """Draw a figure under its title, in as many lines as that needs; also its width and height."""
    body, width, height = _body(figure)
    lines = _wrapped(figure.title, width - 16)
    title = "".join(_text(8, 16 + _LINE * number, line, "h") for number, line in enumerate(lines))
    extra = _LINE * (len(lines) - 1)
    moved = f'<g transform="translate(0 {_n(extra)})">{body}</g>' if extra else body
    return title + moved, width, height + extra


def _wrapped(text: str, width: float) -> list[str]:
    """Break a title into lines between words, or inside a word that is too long for one."""
    n_characters = max(int(width / (_BOLD * max(_width(text) / max(len(text), 1), 1.0))), 1)
    return textwrap.wrap(text, n_characters, break_on_hyphens=False) or [""]


def _body(figure: Figure) -> tuple[str, float, float]:
    """Draw the inside of a figure, below `_TITLE`, the room of a title in one line; also its width and height."""
    match figure:
        case Lines():
            return _lines(figure)
        case Bars():
            return _bars(figure)
        case Ranges():
            return _ranges(figure)
        case Matrix():
            return _matrix(figure)
        case Images():
            return _images(figure)


def _n(value: float) -> str:
    """Write a coordinate: one decimal, none where it is 0, never -0."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    css = f' class="{kind}"' if kind else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{css}>{clean(text)}</text>'


def _cut(text: str, width: float) -> str:
    """Shorten a text to a width."""
    if _width(text) <= width:
        return text
    n = len(text)
    while n > 1 and _width(text[:n]) + _CHARACTER > width:
        n -= 1
    return text[:n] + "…"


def _width(text: str) -> float:
    """Estimate how wide a text is drawn: capitals take a third more room than other characters."""
    return sum(_CAPITAL if character.isupper() else _CHARACTER for character in text)


def _label(x: float, y: float, text: str, width: float, kind: str) -> str:
    """Write the label of a row, in two smaller lines where one is too wide; what is too long for those is shortened.

    The whole of a shortened one shows under the pointer.
    """
    if _width(text) <= width:
        return _text(x, y, text, kind)
    lines = _two_lines(text, width / _SMALL)
    short = any(line.endswith("…") for line in lines)
    first, second = (
        f'<tspan x="{_n(x)}" y="{_n(y + offset)}">{clean(line)}</tspan>'
        for line, offset in zip(lines, (-5, 5), strict=True)
    )
    whole = f"<title>{clean(text)}</title>" if short else ""
    return f'<text class="{kind} v">{whole}{first}{second}</text>'


def _two_lines(text: str, width: float) -> tuple[str, str]:
    """Break a text between words where its halves are most alike, and shorten what is still too wide."""
    places = [i for i, character in enumerate(text) if character == " "] or [len(text) // 2]
    middle = min(places, key=lambda i: max(_width(text[:i]), _width(text[i:])))
    return _cut(text[:middle].strip(), width), _cut(text[middle:].strip(), width)


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Give round numbers between two bounds: about n of them, in steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _value(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _tick(value: float) -> str:
    return f"{value:.6g}"


def _legend(names: Sequence[tuple[str, int, bool]], top: float, *, solid: bool = False) -> tuple[str, float]:
    """Draw a legend, of lines or solid bars, in as many rows as it needs; also where it ends."""
    parts, x, y = [], 8.0, top
    thick = ' stroke-width="9"' if solid else ""
    for name, colour, dashed in names:
        width = 24 + min(len(name), 40) * _CHARACTER + 12
        if x + width > WIDTH and x > 8:
            x, y = 8.0, y + 15
        dash = " d" if dashed else ""
        css = f"k{colour % _N_COLOURS}" if solid else f"l k{colour % _N_COLOURS}{dash}"
        parts.append(f'<path class="{css}"{thick} d="M{_n(x)} {_n(y)}h18"/>')
        parts.append(_text(x + 23, y + 4, _cut(name, 40 * _CHARACTER)))
        x += width
    return "".join(parts), y + 12


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        pad = abs(low) * 0.05 or 0.5
        return low - pad, high + pad
    return low, high


def _lines(figure: Lines) -> tuple[str, float, float]:
    parts: list[str] = []
    legend, top = _legend([(s.name, s.colour, s.dashed) for s in figure.series], 32)
    parts.append(legend)
    if figure.shaded:
        parts.append(f'<rect class="s" x="8" y="{_n(top - 3)}" width="18" height="10"/>')
        parts.append(_text(31, top + 6, figure.shaded[2]))
        top += 18
    left, right, bottom = 52.0, WIDTH - 12.0, top + 180
    xs = [x for s in figure.series for x in s.x]
    ys = [y for s in figure.series for y in s.y if y is not None]
    (x0, x1), (y0, y1) = ((0.0, 1.0), (0.0, 1.0)) if figure.diagonal else (_bounds(xs), _bounds(ys))

    def at(x: float, y: float) -> str:
        return (
            f"{_n(left + (x - x0) / (x1 - x0) * (right - left))} {_n(bottom - (y - y0) / (y1 - y0) * (bottom - top))}"
        )

    if figure.shaded:
        begin, end = (max(x0, min(x1, x)) for x in figure.shaded[:2])
        x, _, _ = at(begin, y0).partition(" ")
        width = (end - begin) / (x1 - x0) * (right - left)
        parts.append(f'<rect class="s" x="{x}" y="{_n(top)}" width="{_n(width)}" height="{_n(bottom - top)}"/>')
    for tick in ticks(y0, y1):
        parts.append(f'<path class="g" d="M{at(x0, tick)}H{_n(right)}"/>')
        parts.append(_text(left - 5, float(at(x0, tick).split()[1]) + 4, _tick(tick), "m e"))
    for tick in ticks(x0, x1, 6):
        parts.append(_text(float(at(tick, y0).split()[0]), bottom + 14, _tick(tick), "m c"))
    if figure.diagonal:
        parts.append(f'<path class="g d" d="M{at(0, 0)}L{at(1, 1)}"/>')
    parts += [
        _polyline(series, [at(x, y) if y is not None else None for x, y in zip(series.x, series.y, strict=True)])
        for series in figure.series
    ]
    parts.append(_text((left + right) / 2, bottom + 29, figure.x_label, "m c"))
    parts.append(
        f'<text class="m c" transform="translate(11 {_n((top + bottom) / 2)}) rotate(-90)">'
        f"{clean(figure.y_label)}</text>"
    )
    return "".join(parts), WIDTH, bottom + 36


def _polyline(series: Series, points: Sequence[str | None]) -> str:
    """Draw a line with gaps, a dot where a point stands alone, and one at each point where they are few."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    path = "".join(f"M{'L'.join(run)}" for run in runs if len(run) > 1)
    dash = " d" if series.dashed else ""
    few = sum(map(len, runs)) <= _FEW
    dots = "".join(
        f'<circle class="f{series.colour % _N_COLOURS}" cx="{x}" cy="{y}" r="2.5"/>'
        for run in runs
        if few or len(run) == 1
        for x, y in map(str.split, run)
    )
    line = f'<path class="l k{series.colour % _N_COLOURS}{dash}" d="{path}"/>' if path else ""
    return line + dots


def _bars(figure: Bars) -> tuple[str, float, float]:
    parts: list[str] = []
    top = 28.0
    if len(figure.groups) > 1:
        legend, top = _legend([(name, number, False) for number, (name, _) in enumerate(figure.groups)], 32, solid=True)
        parts.append(legend)
    left, right = _label_room(figure.labels), WIDTH - 46.0
    low, high = _bar_bounds(figure)
    scale = (right - left) / (high - low)
    bar = 13.0 if len(figure.groups) == 1 else 10.0
    step = bar * len(figure.groups) + 6
    bottom = top + step * len(figure.labels)
    for tick in ticks(low, high):
        x = left + (tick - low) * scale
        parts.append(
            f'<path class="g" d="M{_n(x)} {_n(top)}V{_n(bottom)}"/>' + _text(x, bottom + 13, _tick(tick), "m c")
        )
    for row, label in enumerate(figure.labels):
        y = top + row * step + 3
        parts.append(_label(left - 6, y + (step - 6) / 2 + 4, label, left - 10, "e"))
        for number, (_, group) in enumerate(figure.groups):
            value = group[row]
            if value is None:
                continue
            begin = left + (min(value, 0.0) - low) * scale
            parts.append(
                f'<rect class="f{number % _N_COLOURS}" x="{_n(begin)}" y="{_n(y + number * bar)}" '
                f'width="{_n(abs(value) * scale)}" height="{_n(bar - 1)}"/>'
            )
            end = max(begin + abs(value) * scale, left + (figure.spans[row][1] - low) * scale if figure.spans else 0)
            parts.append(_text(end + 4, y + number * bar + bar - 2, _value(value), "m v"))
        if figure.spans:
            a, b = (left + (v - low) * scale for v in figure.spans[row])
            parts.append(f'<path class="w" d="M{_n(a)} {_n(y + bar / 2)}H{_n(b)}"/>')
    parts.append(_text((left + right) / 2, bottom + 28, figure.x_label, "m c"))
    return "".join(parts), WIDTH, bottom + 35


def _label_room(labels: Sequence[str]) -> float:
    """Give where bars begin: right of their labels."""
    return 20 + min(max(map(_width, labels), default=1.0), 190)


def _bar_bounds(figure: Bars) -> tuple[float, float]:
    """Give the ends of the axis: 0 is on it, and that of scores and shares close to 1 ends at 1."""
    spans = [value for span in figure.spans for value in span]
    values = [value for _, group in figure.groups for value in group if value is not None] + spans
    low, high = min(0.0, *values, 0.0), max(*values, 0.0, 1e-12)
    return low, 1.0 if 0.8 <= high < 1 else high


def _ranges(figure: Ranges) -> tuple[str, float, float]:
    parts: list[str] = []
    left, right, top, step = _label_room(figure.labels), WIDTH - 46.0, 28.0, 19.0
    low, high = _bounds([value for row in figure.quantiles if row for value in row])
    scale, bottom = (right - left) / (high - low), top + step * len(figure.labels)
    for tick in ticks(low, high):
        x = left + (tick - low) * scale
        parts.append(
            f'<path class="g" d="M{_n(x)} {_n(top)}V{_n(bottom)}"/>' + _text(x, bottom + 13, _tick(tick), "m c")
        )
    for number, (label, row) in enumerate(zip(figure.labels, figure.quantiles, strict=True)):
        y = top + number * step + step / 2
        parts.append(_label(left - 6, y + 4, label, left - 10, "e"))
        if row is None:
            continue
        a, b, middle, c, d = (left + (value - low) * scale for value in row)
        colour = (figure.colours[number] if figure.colours else 0) % _N_COLOURS
        parts.append(f'<path class="w" d="M{_n(a)} {_n(y)}H{_n(d)}"/>')
        parts.append(
            f'<rect class="f{colour}" x="{_n(b)}" y="{_n(y - 5)}" width="{_n(max(c - b, 1))}" height="10"/>'
            f'<path class="w" stroke-width="2" d="M{_n(middle)} {_n(y - 7)}v14"/>'
        )
        parts.append(_text(right + 4, y + 4, _value(row[2]), "m v"))
    parts.append(_text((left + right) / 2, bottom + 28, figure.x_label, "m c"))
    return "".join(parts), WIDTH, bottom + 35


def _matrix(figure: Matrix) -> tuple[str, float, float]:
    left = 14 + min(max(map(_width, figure.rows), default=1.0), 200)
    longest = max((len(text) for row in figure.texts for text in row), default=1)
    even = min(56.0, (WIDTH - left - 8) / max(len(figure.columns), 1))
    cell = max(22.0, longest * _CHARACTER + 6, even)
    upright = max((len(label) for label in figure.columns), default=1) * _CHARACTER + 6 <= cell
    tall = 14.0 if upright else min(max(len(label) for label in figure.columns) * _CHARACTER, 190) + 8
    top = 44 + tall
    width = max(WIDTH, left + cell * len(figure.columns) + 8)
    parts = [
        _text(8, 34, f"rows: {figure.y_label}, columns: {figure.x_label}", "m"),
    ]
    for number, label in enumerate(figure.columns):
        x = left + (number + 0.5) * cell
        if upright:
            parts.append(_text(x, top - 4, label, "c"))
        else:
            turned = _label(0, 0, label, tall - 8, "")
            parts.append(f'<g transform="translate({_n(x + 4)} {_n(top - 4)}) rotate(-90)">{turned}</g>')
    for row, label in enumerate(figure.rows):
        y = top + row * 20
        parts.append(_label(left - 6, y + 14, label, left - 10, "e"))
        for column, (shade, text) in enumerate(zip(figure.shades[row], figure.texts[row], strict=True)):
            parts.append(_shaded_cell(left + column * cell, y, cell, shade, text))
    bottom = top + 20 * len(figure.rows)
    parts.append(
        f'<rect class="g" x="{_n(left - 0.5)}" y="{_n(top - 0.5)}" width="{_n(cell * len(figure.columns))}" '
        f'height="{_n(bottom - top)}"/>'
    )
    return "".join(parts), width, bottom + 10


def _shaded_cell(x: float, y: float, width: float, shade: float, text: str) -> str:
    strength = max(0.0, min(1.0, shade))
    box = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width - 1)}" height="19"'
    rect = f'<rect class="q" fill-opacity="{strength:.2f}" {box}/>' if strength > 0 else ""
    return rect + (_text(x + width / 2, y + 13, text, "c o" if strength > 0.6 else "c") if text else "")


def _images(figure: Images) -> tuple[str, float, float]:
    left, top = 46.0, 42.0
    step = (WIDTH - left - 4) / max(len(figure.columns), 1)
    parts: list[str] = []
    for number, label in enumerate(figure.columns):
        parts.append(_text(left + (number + 0.5) * step - 2, 36, label, "m c"))
    for row, label in enumerate(figure.rows):
        y = top + row * step
        parts.append(_text(left - 6, y + step / 2, label, "e"))
        for column, pixels in enumerate(figure.images[row]):
            parts.append(_image(pixels, left + column * step, y, step - 4))
    bottom = top + step * len(figure.rows)
    parts.append(_text((left + WIDTH) / 2, bottom + 12, figure.x_label, "m c"))
    return "".join(parts), WIDTH, bottom + 20


def _image(pixels: Sequence[float | None], x: float, y: float, size: float) -> str:
    """Draw one image: pixels of one of 16 shades share a path; grey is not measured, empty is no return."""
    side = math.isqrt(len(pixels))
    shades: dict[int, list[str]] = {}
    for number, value in enumerate(pixels):
        shade = -1 if value is None else round(15 * min(value, 1.0))
        if value is not None and value < 0:
            continue
        shades.setdefault(shade, []).append(f"M{number % side} {number // side}h1v1h-1z")
    frame = f'<rect class="g" stroke-width=".15" width="{side}" height="{side}"/>'
    paths = "".join(
        f'<path class="n" d="{"".join(path)}"/>'
        if shade < 0
        else f'<path class="q" fill-opacity="{0.06 + shade / 16:.2f}" d="{"".join(path)}"/>'
        for shade, path in sorted(shades.items())
    )
    return f'<g transform="translate({_n(x)} {_n(y)}) scale({size / side:.3f})">{frame}{paths}</g>'
