"""The page that a report is: one HTML file without network access, for screens light and dark, phones and paper.

A content security policy admits this style sheet and this script, by their digests, and nothing else. Every text from
data is escaped. Nothing in the page depends on when it was made: the same views give the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from bfrbctl.inspection.drawing import STYLE as FIGURE_STYLE
from bfrbctl.inspection.drawing import WIDTH, clean, drawn, width_of
from bfrbctl.inspection.figures import Figure
from bfrbctl.inspection.view import Table, View, cell_text

MAX_ROWS = 1000
"""Most rows of a table in the page."""

_SEARCHED, _SCROLLED = 12, 25
"""Tables of more rows can be searched; of more rows than the second, they scroll in a box of their own."""

_LONG = 34
"""Characters from which a cell may be broken anywhere: digests, settings."""

_BROKEN_PX = 192
"""What is left of the width of such a cell where a table is short of it; 12rem in the style."""

_SPARKS = frozenset("▁▂▃▄▅▆▇█ ")

_STYLE = """
:root{color-scheme:light dark;--text:#1b1f24;--soft:#59636e;--line:#d1d9e0;--page:#fff;--card:#f6f8fa;--link:#0969da}
@media (prefers-color-scheme:dark){
:root{--text:#e6edf3;--soft:#9198a1;--line:#3d444d;--page:#0d1117;--card:#151b23;--link:#58a6ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem clamp(.75rem,3vw,2rem) 3rem;max-width:72rem;color:var(--text);background:var(--page);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:.4rem;margin:1rem 0}
nav a{padding:.3rem .75rem;border:1px solid var(--line);border-radius:1rem;color:var(--link);text-decoration:none}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,11rem),1fr));gap:.5rem;margin:.75rem 0}
dl div{padding:.5rem .75rem;background:var(--card);border-radius:.5rem;min-width:0}
dl div.wide{grid-column:1/-1}
dt{font-size:.8rem;color:var(--soft)}
dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.wide dd{font-weight:400;font-size:.9rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.25rem;margin:1rem 0;
align-items:start}
figure{margin:0;max-width:33rem;min-width:0}
figure.broad{grid-column:1/-1;max-width:60rem;overflow-x:auto}
figcaption{font-weight:600;font-size:.95rem;line-height:1.3;margin:0 0 .25rem;overflow-wrap:anywhere}
svg.figure{display:block;width:100%;height:auto}
@media (max-width:40rem){.js figure.broad svg.figure{cursor:zoom-in}
.js figure.large svg.figure{cursor:zoom-out;width:44rem}}
.tables{display:flex;flex-wrap:wrap;gap:0 2.5rem;align-items:start}
.table{margin:1rem 0;min-width:0;max-width:100%}
h3{font-size:1rem;margin:.25rem 0;overflow-wrap:anywhere}
.search{display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:center;font-size:.875rem;
color:var(--soft);margin:.25rem 0}
.search input{font:inherit;color:var(--text);background:var(--card);border:1px solid var(--line);border-radius:.4rem;
padding:.3rem .5rem;min-width:0;width:14rem}
.scroll{overflow:auto;max-width:100%}
.long{max-height:32rem;border-bottom:1px solid var(--line)}
.long thead th{position:sticky;top:0;background:var(--page);z-index:1}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th{white-space:normal;vertical-align:bottom}
@media (max-width:40rem){table{font-size:.8125rem}th,td{padding:.3rem}}
tr[hidden]{display:none}
.r{text-align:right}
.x{white-space:normal;overflow-wrap:anywhere;min-width:12rem;max-width:26rem}
.k{font-family:monospace;white-space:pre}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit}
th button::after{content:" \\2195";color:var(--soft);font-weight:400}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
.note{color:var(--soft);padding-left:.75rem;border-left:3px solid var(--line);margin:.5rem 0}
footer{margin-top:3rem;padding-top:.75rem;border-top:1px solid var(--line);color:var(--soft);font-size:.85rem;
overflow-wrap:anywhere}
@media print{
:root{--text:#000;--soft:#444;--line:#bbb;--page:#fff;--card:#f4f4f4;--link:#000}
body{max-width:none;font-size:10pt;padding:0}nav{display:none}.scroll,figure,figure.broad{overflow:visible}
th button::after{content:""}.search{display:none}
.long{max-height:none}.long thead th{position:static}
table{font-size:7.5pt}th,td{padding:1pt 3pt;white-space:normal}tr,figure{break-inside:avoid}
h2,h3{break-after:avoid}.figures{grid-template-columns:1fr 1fr}.x{min-width:0}}
"""

_STACKED = """
{table},{table} tbody,{table} tr,{table} td{display:block}
{table},{table} tbody{width:100%}
{table} thead tr{display:flex;flex-wrap:wrap;gap:.1rem .75rem;padding:.25rem 0}
{table} thead th{border:0;padding:0;font-size:.8rem}
{table} tbody tr{padding:.4rem 0;border-bottom:1px solid var(--line)}
{table} tbody tr[hidden]{display:none}
{table} td{display:flex;gap:1rem;justify-content:space-between;border:0;padding:.1rem .25rem;white-space:normal;
text-align:right;min-width:0;max-width:none;overflow-wrap:anywhere}
{table} td::before{content:attr(data-l);color:var(--soft);text-align:left;flex:none;max-width:55%}
{table} td:first-child{background:var(--card);font-weight:600}
{table} td.k{flex-wrap:wrap;justify-content:flex-start;font-size:.7rem}
{table} td.k::before{flex-basis:100%;font:.875rem system-ui,sans-serif}
"""
"""A table as one block a row, each value beside the name of its column: where the screen is too narrow for columns."""

_NARROW = {"s1": (345, "(max-width:40rem)"), "s2": (580, "(max-width:60rem)"), "s3": (1050, "screen")}
"""Class of a table -> the most pixels it may take without that class, and the screens on which it then is stacked."""

_SCRIPT = """
document.documentElement.classList.add("js");
for (const figure of document.querySelectorAll("figure.broad")) {
  figure.addEventListener("click", () => figure.classList.toggle("large"));
}
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")];
  const rows = [...table.tBodies[0].rows];
  if (table.matches(".s1,.s2,.s3")) {
    const names = heads.map((head) => head.textContent);
    for (const row of rows) [...row.cells].forEach((cell, column) => { cell.dataset.l = names[column]; });
  }
  if (rows.length > SEARCHED) {
    const box = document.createElement("label"), input = document.createElement("input");
    const found = document.createElement("output");
    const texts = rows.map((row) => row.textContent.toLowerCase());
    box.className = "search";
    input.type = "search";
    box.append("search", input, found);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\\s+/);
      let n = 0;
      rows.forEach((row, i) => { n += !(row.hidden = !words.every((word) => texts[i].includes(word))); });
      found.textContent = input.value ? n + " of " + rows.length : "";
    });
    table.parentElement.before(box);
  }
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        return head.classList.contains("r") ? Number(cell.dataset.v ?? -Infinity) : cell.textContent;
      };
      const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
    });
  });
}
"""


def page(title: str, views: Mapping[str, View], *, left_out: Mapping[str, str], footer: str) -> str:
    """Lay views out as a page.

    Parameters
    ----------
    title
        Of the page.
    views
        Name -> view, in order.
    left_out
        Name of a view that there is not -> why.
    footer
        What the page was made from.
    """
    style, script = _STYLE + _stacking() + FIGURE_STYLE, _SCRIPT.replace("SEARCHED", str(_SEARCHED))
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    links = "".join(f'<a href="#{clean(name)}">{clean(name.replace("-", " "))}</a>' for name in views)
    missing = "".join(f'<p class="note">no {clean(name)}: {clean(why)}</p>' for name, why in left_out.items())
    sections = "\n".join(_section(name, view) for name, view in views.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{clean(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<h1>{clean(title)}</h1>\n<nav aria-label="Contents">{links}</nav>\n<main>\n{sections}\n{missing}\n</main>\n'
        f"<footer>{clean(footer)}</footer>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _section(name: str, view: View) -> str:
    notes = "".join(f'<p class="note">{clean(note)}</p>\n' for note in view.notes)
    facts = "".join(_fact(key, value) for key, value in view.facts.items())
    figures = "".join(_figure(figure) for figure in view.figures)
    drawings = f'<div class="figures">{figures}</div>\n' if figures else ""
    tables = f'<div class="tables">{"".join(_table(table) for table in view.tables)}</div>'
    head = f'<section id="{clean(name)}">\n<h2>{clean(view.title)}</h2>\n'
    return f"{head}<dl>{facts}</dl>\n{notes}{drawings}{tables}\n</section>"


def _fact(name: str, value: Any) -> str:
    text = cell_text(value)
    kind = ' class="wide"' if len(text) > _LONG else ""
    return f"<div{kind}><dt>{clean(name.replace('_', ' '))}</dt><dd>{clean(text)}</dd></div>"


def _figure(figure: Figure) -> str:
    kind = ' class="broad"' if width_of(figure) > WIDTH else ""
    return f"<figure{kind}><figcaption>{clean(figure.title)}</figcaption>{drawn(figure, titled=False)}</figure>"


def _stacking() -> str:
    """Give the style of tables that are too wide for a screen; without the script they scroll sideways instead."""
    return "".join(
        f"@media {screens}{{{_STACKED.replace('{table}', f'.js table.{name}')}}}\n"
        for name, (_, screens) in _NARROW.items()
    )


def _table(table: Table) -> str:
    numeric = [table.is_numeric(position) for position in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col"{" class=r" if right else ""}>{clean(name)}</th>'
        for name, right in zip(table.columns, numeric, strict=True)
    )
    shown = table.rows[:MAX_ROWS]
    rows = "\n".join(f"<tr>{_cells(row, numeric)}</tr>" for row in shown)
    more = f" ({MAX_ROWS} of {len(table.rows)}; --json has all)" if len(table.rows) > MAX_ROWS else ""
    screens = _screens(table.columns, shown)
    kind = f' class="{screens}"' if screens else ""
    return (
        f'<div class="table"><h3>{clean(table.title)}{more}</h3>'
        f'<div class="scroll{" long" if len(shown) > _SCROLLED else ""}" tabindex="0" role="region" '
        f'aria-label="{clean(table.title)}"><table{kind}>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div></div>"
    )


def _screens(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Estimate how wide a table is, and give the class that stacks it where that is too wide; empty where nowhere.

    Headings break between words; texts longer than `_LONG` break too, down to `_BROKEN_PX`.
    """
    text = 0.0
    for position, name in enumerate(columns):
        head = max(map(len, name.split()), default=0) + 2
        lengths = [len(cell_text(row[position])) for row in rows]
        cells = max((_BROKEN_PX if length > _LONG else 8.2 * length for length in lengths), default=0.0)
        text += max(9.4 * head, cells)
    widths = {"s1": text * 13 / 14 + 9.6 * len(columns), "s2": text + 19.2 * len(columns)}
    widths["s3"] = widths["s2"]
    return max((name for name, (most, _) in _NARROW.items() if widths[name] > most), default="")


def _cells(row: Sequence[Any], numeric: Sequence[bool]) -> str:
    parts = []
    for value, right in zip(row, numeric, strict=True):
        text = cell_text(value)
        if right:
            number = "" if value is None else f' data-v="{float(value)!r}"'
            parts.append(f'<td class="r"{number}>{clean(text)}</td>')
        else:
            kind = " class=k" if not set(text) - _SPARKS and text else " class=x" if len(text) > _LONG else ""
            parts.append(f"<td{kind}>{clean(text)}</td>")
    return "".join(parts)
