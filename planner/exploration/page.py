"""The page of an exploration: one self-contained HTML file; pictures, tables and the command."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from planner.exploration.exploration import Exploration, breakpoint_rows, front_rows, rows

START = b"<!doctype html>\n<!-- nonn-plan explore -->\n"
"""How such a page begins."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #222; }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
"""


def page(exploration: Exploration, pictures: Mapping[str, bytes]) -> bytes:
    """Return the page."""
    states = ("optimal", "infeasible", "unproven")
    counts = ", ".join(f"{exploration.with_status(state)} {state}" for state in states)
    parts = [
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>nonn-plan explore</title><style>{_STYLE}</style></head><body>",
        "<h1>What if</h1>",
        f"<pre>{escape(exploration.command)}</pre>",
        f"<p>{len(exploration.cells)} cells: {counts}. "
        f"{escape(', '.join(f'{name} {is_}' for name, is_ in exploration.versions.items()))}.</p>",
    ]
    for name, content in pictures.items():
        data = base64.b64encode(content).decode()
        title = escape(name.removesuffix(".png"))
        parts.append(f'<img alt="{title}" src="data:image/png;base64,{data}">')
    tables = (
        ("Optimal plans", rows(exploration.cells)),
        ("Pareto front", front_rows(exploration.cells)),
        (
            "Break-points: the least budget from which on a plan is as good",
            breakpoint_rows(exploration.cells),
        ),
    )
    parts += [f"<h2>{title}</h2>{_table(found)}" for title, found in tables if found]
    conflicts = [
        f"<li>{escape(_where(cell.place.model_dump()))}: "
        f"{escape('; '.join(cell.found.conflict))}</li>"
        for cell in exploration.plans
        if cell.found.conflict
    ]
    if conflicts:
        parts.append(f"<h2>What cannot hold together</h2><ul>{''.join(conflicts)}</ul>")
    parts.append("</body></html>\n")
    return START + "\n".join(parts).encode()


def _where(place: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in place.items() if value is not None)


def _table(found: Sequence[Mapping[str, Any]]) -> str:
    names = [
        name
        for name in dict.fromkeys(name for row in found for name in row)
        if any(row.get(name) is not None for row in found)
    ]
    numeric = {name for name in names if any(_is_number(row.get(name)) for row in found)}

    def cell(tag: str, name: str, text: str) -> str:
        kind = ' class="number"' if name in numeric else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", name, name.replace("_", " ")) for name in names)
    body = "".join(
        f"<tr>{''.join(cell('td', name, _text(row.get(name))) for name in names)}</tr>\n"
        for row in found
    )
    return f'<div class="table"><table><tr>{head}</tr>\n{body}</table></div>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.5g}"
    return str(value)
