"""The page that a report is: one HTML file without network access, for screens light and dark, phones and paper.

A content security policy admits this style sheet and this script, by their digests, and nothing else. Every text from
data is escaped. Nothing in the page tells when it was made: the same views give the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from bfrbctl.inspection.drawing import STYLE as FIGURE_STYLE
from bfrbctl.inspection.drawing import WIDTH, clean, drawn, width_of
from bfrbctl.inspection.figures import Figure
from bfrbctl.inspection.view import Table, View, cell_text

_LONG = 34
"""Characters from which a cell may be broken anywhere: digests, settings."""

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
figure{margin:0;overflow-x:auto;max-width:33rem}
figure.broad{grid-column:1/-1;max-width:60rem}
svg.figure{display:block;width:100%;height:auto}
figure.broad svg.figure{min-width:36rem}
.tables{display:flex;flex-wrap:wrap;gap:0 2.5rem;align-items:start}
.scroll{overflow-x:auto;margin:1rem 0;max-width:100%}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;font-size:1rem;padding:.25rem 0}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
th:first-child,td:first-child{position:sticky;left:0;background:var(--page)}
td:first-child{max-width:16rem;white-space:normal;overflow-wrap:break-word}
@media (max-width:40rem){td:first-child{max-width:9rem}}
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
body{max-width:none;font-size:10pt;padding:0}nav{display:none}.scroll,figure{overflow:visible}
th button::after{content:""}table{font-size:7.5pt}th,td{padding:1pt 3pt;white-space:normal}tr,figure{break-inside:avoid}
h2{break-after:avoid}.figures{grid-template-columns:1fr 1fr}figure.broad svg.figure{min-width:0}.x{min-width:0}}
"""

_SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("th")];
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
    style = _STYLE + FIGURE_STYLE
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(_SCRIPT)}'"
    links = "".join(f'<a href="#{clean(name)}">{clean(name.replace("-", " "))}</a>' for name in views)
    missing = "".join(f'<p class="note">no {clean(name)}: {clean(why)}</p>' for name, why in left_out.items())
    sections = "\n".join(_section(name, view) for name, view in views.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{clean(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<h1>{clean(title)}</h1>\n<nav aria-label="Contents">{links}</nav>\n<main>\n{sections}\n{missing}\n</main>\n'
        f"<footer>{clean(footer)}</footer>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
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
    return f"<figure{kind}>{drawn(figure)}</figure>"


def _table(table: Table) -> str:
    numeric = [table.is_numeric(position) for position in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col"{" class=r" if right else ""}>{clean(name)}</th>'
        for name, right in zip(table.columns, numeric, strict=True)
    )
    rows = "\n".join(f"<tr>{_cells(row, numeric)}</tr>" for row in table.shown)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{clean(table.title)}">'
        f"<table><caption>{clean(table.caption)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(row: Sequence[Any], numeric: Sequence[bool]) -> str:
    parts = []
    for value, right in zip(row, numeric, strict=True):
        text = cell_text(value)
        if right:
            number = "" if value is None else f' data-v="{float(value)!r}"'
            parts.append(f'<td class="r"{number}>{clean(text)}</td>')
        else:
            kind = " class=k" if not set(text) - _SPARKS else " class=x" if len(text) > _LONG else ""
            parts.append(f"<td{kind}>{clean(text)}</td>")
    return "".join(parts)
