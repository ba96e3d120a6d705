"""The page of a report as HTML: one string that holds its own style, figures and film."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from physml.report.tables import Table, marks

_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --soft: #5a5a5a; --line: #d5d5d5; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --soft: #a8a8a8; --line: #444; --page: #17181a; }
}
body { margin: 2.5rem auto; padding: 0 1rem; max-width: 50rem; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, dd, li, pre, figcaption { overflow-wrap: anywhere; }
.soft, figcaption, dl, ul { color: var(--soft); font-size: .875rem; }
p.soft { margin: .4rem 0; }
ul { padding-left: 1.1rem; }
li { margin: .3rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .8125rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 0 .35rem .7rem; text-align: right; vertical-align: top; }
td, thead tr:last-child th, tbody th { border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; white-space: nowrap; }
thead tr:first-child th { padding-bottom: 0; }
th[colspan]:not([colspan="1"]) { text-align: center; }
small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 4px; }
dt { font-weight: 600; color: var(--text); margin-top: .6rem; }
dd { margin: 0; }
pre { font-size: .75rem; white-space: pre-wrap; color: var(--soft); }
summary { cursor: pointer; font-size: .875rem; margin-top: .6rem; }
"""


@dataclass(frozen=True)
class Drawn:
    """A picture in memory.

    Args:
        name: of its file.
        content: of its file, PNG or GIF.
        caption: printed below it.
        width: on the page, in pixels of 1/96 inch.
    """

    name: str
    content: bytes
    caption: str
    width: int


def render(
    *,
    title: str,
    subtitle: str,
    paragraphs: Sequence[str],
    table: Table,
    remarks: Sequence[str],
    definitions: Sequence[str],
    figures: Sequence[Drawn],
    provenance: Mapping[str, Any],
) -> str:
    """The whole page; every text is escaped here and nowhere else.

    Args:
        title: heading.
        subtitle: below it.
        paragraphs: of plain text, above the table.
        table: of the models.
        remarks: below the table, after the table's own notes.
        definitions: what the numbers of table and figures mean.
        figures: in order.
        provenance: ``data``, ``models``, ``rollouts``, ``versions`` and ``machine``.
    """
    notes = [*marks("Bold", table), *table.notes, *remarks]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="soft">{escape(subtitle)}</p>',
            *(f"<p>{escape(text)}</p>" for text in paragraphs),
            _table(table),
            *(f'<p class="soft">{escape(text)}</p>' for text in notes),
            "<h2>What the numbers mean</h2>",
            f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in definitions)}</ul>",
            "<h2>Figures</h2>",
            *map(_figure, figures),
            "<h2>Where this comes from</h2>",
            _provenance(provenance),
            "</body>",
            "</html>",
            "",
        ]
    )


def _table(made: Table) -> str:
    groups = [column.group for column in made.columns]
    first, second = ["<th></th>"], ["<th>model</th>"]
    for index, column in enumerate(made.columns):
        if column.group not in groups[:index]:
            first.append(f'<th colspan="{groups.count(column.group)}">{escape(column.group)}</th>')
        small = [column.detail, f"({column.units})" if column.units else ""]
        second.append(f"<th>{escape(column.part)}{''.join(f'<small>{escape(s)}</small>' for s in small if s)}</th>")
    body = []
    for name, row in made.rows.items():
        cells = []
        for cell in (row[column.key] for column in made.columns):
            text = escape(cell.text)
            text = {"best": f"<strong>{text}</strong>", "tie": f"≈&nbsp;{text}"}.get(cell.mark, text)
            cells.append(f"<td>{text}{f'<small>{escape(cell.below)}</small>' if cell.below else ''}</td>")
        body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    head = f"<tr>{''.join(first)}</tr><tr>{''.join(second)}</tr>"
    rows = "\n".join(body)
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _figure(figure: Drawn) -> str:
    kind = "image/gif" if figure.name.endswith(".gif") else "image/png"
    content, caption = base64.b64encode(figure.content).decode(), escape(figure.caption)
    image = f'<img src="data:{kind};base64,{content}" width="{figure.width}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _provenance(provenance: Mapping[str, Any]) -> str:
    data = provenance["data"]
    rows = {"Data": f"{data['name']} ({data['path']}), split {data['split']}, fingerprint {data['fingerprint']}"}
    if data.get("parameters"):
        listed = [f"{name} {', '.join(f'{v:g}' for v in values)}" for name, values in data["parameters"].items()]
        rows["Parameters of the data"] = "; ".join(listed)
    for name, model in provenance["models"].items():
        rows[f"Model {name}"] = f"{_model(model)}; rollout {provenance['rollouts'][name]}"
    rows["Versions"] = ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())
    rows["Report made on"] = provenance["machine"]
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in rows.items())
    whole = escape(json.dumps(provenance, indent=1))
    return f"<dl>{items}</dl><details><summary>All that was recorded</summary><pre>{whole}</pre></details>"


def _model(model: Mapping[str, Any] | None) -> str:
    model = model or {}
    operator = model.get("operator", "unknown operator")
    kind = operator.get("class_path", "") if isinstance(operator, Mapping) else str(operator)
    parts = [kind.rpartition(".")[2]]
    if model.get("parameters") is not None:
        parts.append(f"{int(model['parameters']):,} parameters")
    if model.get("trained_steps") is not None:
        parts.append(f"{int(model['trained_steps']):,} training steps")
    if model.get("checkpoint"):
        parts.append(f"checkpoint {model['checkpoint']}")
    if model.get("sha256"):
        parts.append(f"sha256 {str(model['sha256'])[:16]}…")
    return ", ".join(parts)
