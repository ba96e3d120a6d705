"""The page of a report as HTML: one string that holds its own style, figures and film."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from physml.report.tables import Table, marks

@dataclass(frozen=True)
class Drawn:
    """A picture in memory.

    Args:
        key: the name of its file.
        png: its bytes; those of a GIF for the film.
        caption: below it.
    """

    key: str
    png: bytes
    caption: str



_STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --soft: #5a5a5a; --line: #d5d5d5; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --soft: #a8a8a8; --line: #444; --page: #17181a; } }
body { margin: 2.5rem auto; padding: 0 1rem; max-width: 52rem; color: var(--text); background: var(--page);
       font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, dd, figcaption, li { overflow-wrap: anywhere; }
.soft, figcaption, dl, ul { color: var(--soft); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .35rem .6rem .35rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; vertical-align: bottom; }
td small, th small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
td strong { font-weight: 700; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; display: block; background: #fff; border-radius: 4px; }
dt { font-weight: 600; color: var(--text); margin-top: .6rem; } dd { margin: 0; }
pre { font-size: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; color: var(--soft); }
summary { cursor: pointer; }
"""


def _page(
    title: str,
    created: str,
    made: Table,
    results: _Results,
    figures: Sequence[Drawn],
    film: Drawn | None,
    provenance: Mapping[str, Any],
    notes: Sequence[str],
    remarks: Sequence[str],
) -> str:
    source = provenance["data"]
    table = next(iter(results.values()))
    about = table.attrs["physml"]
    lead = (
        f"{source['name']}, split {source['split']}: {table.sizes['sample']} samples of {table.sizes['lead']} frames, "
        f"{about['dt']:.4g} {about['time_units']}".rstrip()
        + f" apart. {created}."
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p>',
        *(f"<p>{escape(note)}</p>" for note in notes),
        _html_table(made),
        "".join(f'<p class="soft">{escape(note)}</p>' for note in [*_marks("Bold", made), *made.notes, *remarks]),
        _html_definitions(made, results),
        "<h2>Figures</h2>",
        *(_html_figure(figure, "image/png") for figure in figures),
    ]
    if film is not None:
        parts.append(_html_figure(film, "image/gif"))
    parts += ["<h2>Where this comes from</h2>", _html_provenance(provenance), "</body></html>"]
    return "\n".join(parts) + "\n"


def _html_table(made: Table) -> str:
    first, second = ["<th></th>"], ["<th>model</th>"]
    headings = [column.heading[0] for column in made.columns]
    for index, column in enumerate(made.columns):
        if not index or headings[index - 1] != column.heading[0]:
            span = sum(1 for heading in headings if heading == column.heading[0])
            first.append(f'<th colspan="{span}">{escape(column.heading[0])}</th>')
        units = f"<small>({escape(column.units)})</small>" if column.units else ""
        small = [escape(text) for text in (column.heading[2], column.units and f"({column.units})") if text]
        second.append(f"<th>{escape(column.heading[1])}{''.join(f'<small>{text}</small>' for text in small)}</th>")
    rows = [f"<tr>{''.join(first)}</tr>", f"<tr>{''.join(second)}</tr>"]
    body = []
    for name, row in made.rows.items():
        cells = []
        for column in made.columns:
            cell = row[column.key]
            text = escape(cell.text)
            text = {"best": f"<strong>{text}</strong>", "tie": f"≈ {text}"}.get(cell.mark, text)
            cells.append(f"<td>{text}{f'<small>{escape(cell.below)}</small>' if cell.below else ''}</td>")
        body.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead>{"".join(rows)}</thead><tbody>{"".join(body)}</tbody></table></div>'


def _html_definitions(made: Table, results: _Results) -> str:
    sentences = [column.definition for column in made.columns]
    for table in results.values():
        sentences += [str(table[name].attrs["definition"]) for name in _DRAWN if name in table]
    items = "".join(f"<li>{escape(text)}</li>" for text in dict.fromkeys(sentences))
    return f"<h2>What the numbers mean</h2><ul>{items}</ul>"


def _html_figure(figure: Drawn, kind: str) -> str:
    content = base64.b64encode(figure.png).decode()
    caption = escape(figure.caption)
    return f'<figure><img src="data:{kind};base64,{content}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _html_provenance(provenance: Mapping[str, Any]) -> str:
    data = provenance["data"]
    rows = [("Data", f"{data['name']} ({data['path']}), split {data['split']}, fingerprint {data['fingerprint']}")]
    if data.get("parameters"):
        rows.append(("Parameters of the data", "; ".join(f"{n} {', '.join(f'{v:g}' for v in values)}" for n, values in data["parameters"].items())))
    for name, model in provenance["models"].items():
        rows.append((f"Model {name}", _model_text(model) + f" Rollout: {provenance['rollouts'][name]}."))
    rows.append(("Versions", ", ".join(f"{name} {number}" for name, number in provenance["versions"].items())))
    rows.append(("Report made on", provenance["machine"]))
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in rows)
    whole = escape(json.dumps(provenance, indent=1))
    return f"<dl>{items}</dl><details><summary>All of it</summary><pre>{whole}</pre></details>"


def _model_text(model: Mapping[str, Any] | None) -> str:
    model = model or {}
    operator = model.get("operator")
    kind = operator.get("class_path", "") if isinstance(operator, Mapping) else str(operator or "unknown operator")
    parts = [kind.rpartition(".")[2]]
    if model.get("parameters") is not None:
        parts.append(f"{int(model['parameters']):,} parameters")
    if model.get("trained_steps") is not None:
        parts.append(f"{int(model['trained_steps']):,} training steps")
    if model.get("checkpoint"):
        parts.append(f"checkpoint {model['checkpoint']}")
    if model.get("sha256"):
        parts.append(f"sha256 {str(model['sha256'])[:16]}…")
    return ", ".join(parts) + "."


