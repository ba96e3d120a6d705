"""The table of a report: one row for each model, which numbers are best, and all of it as text for a terminal."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr

from physml.results import CORRELATIONS, DEFINITIONS, over_samples, summary

Better = Literal["low", "high", "near zero"]
Mark = Literal["best", "tie", ""]


@dataclass(frozen=True)
class Column:
    """One number for each model.

    Args:
        key: in ``metrics.json``.
        group: first line of the heading; neighbours may share it.
        part: second line.
        detail: third line, such as the lead time; may be empty.
        units: empty where there are none.
        better: which way is good; ``None`` where models are not ranked by it.
        definition: one printable sentence.
    """

    key: str
    group: str
    part: str
    detail: str
    units: str
    better: Better | None
    definition: str


@dataclass(frozen=True)
class Cell:
    """A number with the interval it is known to.

    Args:
        value: ``None`` where it is not defined.
        low: lower end of the interval, ``None`` where it is not known.
        high: upper end.
        text: as it is printed.
        below: printed below it, smaller.
        lost: samples that are missing from the mean because they became unstable.
        mark: ``best`` where it is, beyond doubt; ``tie`` where intervals overlap with that of the best.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = "–"
    below: str = ""
    lost: int = 0
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """What is printed and written.

    Args:
        columns: in order.
        rows: cells by the key of their column, by the name of the model, best first.
        notes: sentences for the space below.
        summaries: of :func:`physml.results.summary`, by the name of the model; what the cells were taken from.
    """

    columns: tuple[Column, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    notes: tuple[str, ...]
    summaries: Mapping[str, Mapping[str, Any]]


Results: TypeAlias = Mapping[str, xr.Dataset]
_Summaries: TypeAlias = Mapping[str, Mapping[str, Any]]
_Made: TypeAlias = list[tuple[Column, dict[str, Cell]]]


def tabulate(results: Results) -> Table:
    """The table of several results, sorted by the relative L2 error over the longest horizon that all have.

    A model is best where its interval overlaps with no other; otherwise it is tied with all whose intervals overlap its
    own. A mean from which unstable samples are missing is no candidate, as those that are left are the easier ones; it
    can still keep another from being the best.

    Raises:
        ValueError: where the results are of different data, so that no ranking has a meaning.
    """
    _check(results)
    told = {name: summary(table) for name, table in results.items()}
    shared = sorted(set.intersection(*({int(h) for h in table["horizon"].values} for table in results.values())))
    if not shared:
        raise ValueError("results: no horizon is common to all of them; evaluate all with the same horizons.")
    made = [
        *_relative_l2(results, told, shared),
        *_correlation_time(results, told),
        *_late(results, told, "vrmse", "VRMSE", "", "low"),
        *_late(results, told, "divergence", "divergence", "", None),
        *_late(results, told, "residual", "PDE", "residual", None),
        *_spectral_error(results, told, shared[-1]),
        *_drift(results, shared[-1]),
        *_unstable(told),
    ]
    marked = {column.key: mark(cells, column.better) for column, cells in made}
    last = {name: cell.value for name, cell in marked[f"relative_l2_{shared[-1]}"].items()}
    order = sorted(results, key=lambda name: math.inf if last[name] is None else last[name])  # type: ignore[arg-type, return-value]
    rows = {name: {key: cells[name] for key, cells in marked.items()} for name in order}
    return Table(tuple(column for column, _ in made), rows, tuple(_notes(results, told)), told)


def _check(results: Results) -> None:
    if not results:
        raise ValueError("results: got none, expected at least one table of physml.evaluate.")
    sources = {name: table.attrs["physml"]["source"] for name, table in results.items()}
    first = next(iter(sources))
    for name, source in sources.items():
        if source["fingerprint"] != sources[first]["fingerprint"]:
            raise ValueError(
                f"results: {name} was measured on the data {source['path']} ({source['fingerprint']}), {first} on "
                f"{sources[first]['path']} ({sources[first]['fingerprint']}); compare models on the same data."
            )
        if source["split"] != sources[first]["split"]:
            raise ValueError(
                f"results: {name} was measured on split {source['split']!r}, {first} on {sources[first]['split']!r}; "
                "compare models on the same split."
            )


# ----------------------------------------------------------------------------------------------------------- columns


def _relative_l2(results: Results, told: _Summaries, shared: Sequence[int]) -> _Made:
    """The first, a middle and the last horizon; ``metrics.json`` has all."""
    made: _Made = []
    for horizon in sorted({shared[0], shared[len(shared) // 2], shared[-1]}):
        cells = {}
        for name, item in told.items():
            row = next(row for row in item["metrics"]["relative_l2"]["rows"] if row["horizon"] == horizon)
            cells[name] = _cell(row["mean"], row["low"], row["high"], lost=_lost(results[name], horizon))
        times = {float(table["lead_time"].sel(lead=horizon)) for table in results.values()}
        time = _time(times.pop(), _first(told)["time_units"]) if len(times) == 1 else ""
        part = f"{horizon} frame{'s' if horizon > 1 else ''}"
        column = Column(
            f"relative_l2_{horizon}", "relative L2", part, time, "", "low", DEFINITIONS["relative_l2"]
        )  # fmt: skip
        made.append((column, cells))
    return made


def _correlation_time(results: Results, told: _Summaries) -> _Made:
    """Left out where there is one lead only, as of a steady problem: no time passes."""
    if all(table.sizes["lead"] == 1 for table in results.values()):
        return []
    several = len(_first(results)["field"]) > 1
    definition = DEFINITIONS["correlation_time"] + (" The field that drops first is shown." if several else "")
    made: _Made = []
    for threshold in CORRELATIONS:
        cells = {}
        for name, item in told.items():
            rows = [row for row in item["correlation_time"]["rows"] if row["threshold"] == threshold]
            row = min(rows, key=lambda row: (math.inf if row["time"] is None else row["time"], not row["reached"]))
            cell = _cell(row["time"], row["low"], row["high"])
            if not row["reached"] and row["time"] is not None:
                cell = Cell(row["time"], text=f"> {cell.text}", below="not reached")
            cells[name] = cell
        key, units = f"correlation_time_{threshold:g}", _first(told)["time_units"]
        made.append(
            (Column(key, "correlation time", f"r < {threshold:g}", "", units, "high", definition), cells)
        )  # fmt: skip
    return made


def _late(results: Results, told: _Summaries, name: str, group: str, part: str, better: Better | None) -> _Made:
    """A metric at the last lead that all have, of the field where it is largest, beside the truth's own."""
    rows = {
        model: [row for row in item["metrics"].get(name, {"rows": []})["rows"] if row["mean"] is not None]
        for model, item in told.items()
    }
    leads = set.intersection(*({row["lead"] for row in found} for found in rows.values()))
    if not leads:
        return []
    lead, cells = max(leads), {}
    for model, found in rows.items():
        row = max((row for row in found if row["lead"] == lead), key=lambda row: row["mean"])
        cell = _cell(row["mean"], row["low"], row["high"], lost=_lost(results[model], lead))
        floors = told[model]["metrics"].get(f"{name}_truth", {"rows": []})["rows"]
        floor = next((row["mean"] for row in floors if row["lead"] == lead and row["mean"] is not None), None)
        if floor is not None:  # the floor says more than the interval
            cell = replace(cell, low=None, high=None, below=f"truth {_number(floor, 2)}")
        cells[model] = cell
    definition = str(_first(results)[name].attrs["definition"])
    if len({row.get("field") for row in _first(rows)}) > 1:
        definition += " The field with the largest is shown."
    return [(Column(name, group, part, f"lead {lead}", "", better, definition), cells)]


def _spectral_error(results: Results, told: _Summaries, lead: int) -> _Made:
    name = "log_spectral_error"
    if not all(name in table for table in results.values()):
        return []
    cells = {}
    for model, item in told.items():
        found = [
            row["mean"] for row in item["metrics"][name]["rows"] if row["lead"] == lead and row["mean"] is not None
        ]
        cells[model] = _cell(max(found, default=None), lost=_lost(results[model], lead))
    definition = str(_first(results)[name].attrs["definition"])
    if "field" in _first(results)[name].dims:
        definition += " The field with the largest error is shown."
    definition += " Models are not ranked by it: it belongs to a mean spectrum and has no interval."
    return [(Column(name, "log-spectral", "error", f"lead {lead}", "", None, definition), cells)]


def _drift(results: Results, lead: int) -> _Made:
    kind = "energy" if "kinetic_energy" in _first(results) else "variance"
    name = "kinetic_energy" if kind == "energy" else "variance"
    cells = {}
    for model, table in results.items():
        at = table.sel(lead=[lead])
        with np.errstate(divide="ignore", invalid="ignore"):
            at = at.assign(drift=at[name] / at[f"{name}_truth"] - 1)
        found = over_samples(at, "drift").squeeze("lead")
        parts = [np.atleast_1d(found[part].values).tolist() for part in ("mean", "low", "high")]
        drifts = [_cell(*row, lost=_lost(table, lead), percent=True) for row in zip(*parts, strict=True)]
        cells[model] = max(drifts, key=lambda cell: -1 if cell.value is None else abs(cell.value))
    what = "kinetic energy" if kind == "energy" else "variance of a field (of the one that drifts most)"
    definition = (
        f"{kind.capitalize()} drift = {what} of the prediction over that of the truth, minus 1, at lead {lead}, mean "
        "over the stable samples; 0 is best."
    )
    return [(Column(f"{kind}_drift", kind, "drift", f"lead {lead}", "", "near zero", definition), cells)]


def _unstable(told: _Summaries) -> _Made:
    cells = {}
    for name, item in told.items():
        count = item["blowups"]["count"]
        first = min((row["lead_time"] for row in item["blowups"]["rows"]), default=None)
        below = "" if first is None else f"from {_time(first, item['time_units'])}"
        cells[name] = Cell(float(count), text=f"{count} of {item['samples']}", below=below)
    definition = f"Unstable = samples that are not stable up to the last lead. {DEFINITIONS['stable']}"
    return [(Column("unstable", "unstable", "samples", "", "", None, definition), cells)]


def _first(items: Mapping[str, Any]) -> Any:
    return next(iter(items.values()))


def _lost(table: xr.Dataset, lead: int) -> int:
    """Samples with a truth at this lead that are no longer stable."""
    at = table.sel(lead=lead)
    return int((at["compared"] & ~at["stable"]).sum())


def _cell(
    value: float | None, low: float | None = None, high: float | None = None, *, lost: int = 0, percent: bool = False
) -> Cell:
    if value is None or not math.isfinite(value):
        return Cell(None, lost=lost)
    text = (f"{_number(100 * value, 2, '+')} %" if percent else _number(value)) + ("†" if lost else "")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Cell(value, text=text, lost=lost)
    ends = (_number(100 * end, 2, "+") if percent else _number(end, 2) for end in (low, high))
    return Cell(value, low, high, text, f"[{', '.join(ends)}]", lost)


def _number(value: float, digits: int = 3, sign: str = "") -> str:
    """So many significant digits."""
    if value == 0:
        return "0"
    scientific = f"{value:{sign}.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    return f"{value:{sign}.{max(0, digits - 1 - exponent)}f}" if -4 < exponent < 4 else scientific


def _time(value: float, units: str) -> str:
    return f"t = {value:.4g} {units}".rstrip()


# ------------------------------------------------------------------------------------------------------------- marks


def mark(cells: Mapping[str, Cell], better: Better | None) -> dict[str, Cell]:
    """The cells of one column with the best marked, or those that cannot be told apart from it."""
    costs = {name: cost for name, cell in cells.items() if (cost := _cost(cell, better)) is not None}
    complete = {name: cost for name, cost in costs.items() if not cells[name].lost}
    if not complete or len(cells) < 2:
        return dict(cells)
    best = min(complete, key=lambda name: complete[name][0])
    high = complete[best][2]
    tied = {name for name, (_, low, _) in complete.items() if name != best and low <= high}
    # Neither a rival without an interval nor one whose remaining samples look as good has been beaten.
    unbeaten = any(
        cell.value is not None and name not in complete and (name not in costs or costs[name][1] <= high)
        for name, cell in cells.items()
    )
    if unbeaten and not tied:
        return dict(cells)
    marks: dict[str, Mark] = {best: "tie" if tied else "best"}
    for name in tied:
        marks[name] = "tie"
    return {name: replace(cell, mark=marks.get(name, "")) for name, cell in cells.items()}


def _cost(cell: Cell, better: Better | None) -> tuple[float, float, float] | None:
    """Value, lower and upper end of something that is best when small; ``None`` where they are not known."""
    if better is None or cell.value is None or cell.low is None or cell.high is None:
        return None
    if better == "high":
        return -cell.value, -cell.high, -cell.low
    if better == "near zero":
        ends = abs(cell.low), abs(cell.high)
        return abs(cell.value), 0.0 if cell.low <= 0 <= cell.high else min(ends), max(ends)
    return cell.value, cell.low, cell.high


def marks(best: str, made: Table) -> list[str]:
    """What the marks mean, ``best`` being how the best is shown; nothing where there are none."""
    found = {cell.mark for row in made.rows.values() for cell in row.values()}
    told = []
    if "best" in found:
        told.append(f"{best}: best, its interval overlaps with no other.")
    if "tie" in found:
        told.append("≈: its interval overlaps with that of the best; the samples do not tell them apart.")
    return told


def _notes(results: Results, told: _Summaries) -> list[str]:
    """What a reader must know to trust the table."""
    tables, about = list(results.values()), _first(told)["interval"]
    notes = ["No intervals: all samples overlap within one trajectory."]
    if about["units"] > 1:
        notes = [
            f"In brackets: {100 * about['confidence']:g} % bootstrap interval of the mean over {about['units']} "
            f"{about['over']}."
        ]
    if any((table["unstable_from"].values > 0).any() for table in tables):
        notes.append(
            "†: mean over the samples that stayed stable only; they are the easier ones, so that such a number is "
            "never marked as best."
        )
    starts = [set(zip(t["trajectory"].values.tolist(), t["frame"].values.tolist(), strict=True)) for t in tables]
    if any(other != starts[0] for other in starts):
        notes.append(
            "The models did not start from the same frames; rolled out with the same --history and --starts they do."
        )
    if len({round(float(table["lead_time"][0]), 9) for table in tables}) > 1:
        notes.append("The frames of the models are not equally far apart: compare by time, not by number of frames.")
    splits = {name: table.attrs["physml"]["source"]["split"] for name, table in results.items()}
    if len(set(splits.values())) > 1:
        listed = ", ".join(f"{name}: {split}" for name, split in splits.items())
        notes.append(f"The models were rolled out over different splits ({listed}).")
    return notes


# -------------------------------------------------------------------------------------------------------------- text


def table(results: Results, *, width: int | None = None, definitions: bool = True) -> str:
    """The table as text for a terminal: a row for each model, or a column for each where rows would be too wide.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
        width: characters in a line; those of the terminal where not given.
        definitions: print below what every number means.
    """
    made = tabulate(results)
    width = width or shutil.get_terminal_size((100, 24)).columns
    layouts = (_rows_of_models(made), _columns_of_models(made))
    text = next((lines for lines in layouts if max(map(len, lines)) <= width), None) or _one_by_one(made)
    notes = [*marks("*x*", made), *made.notes]
    if definitions:
        notes += ["", *dict.fromkeys(column.definition for column in made.columns)]
    return "\n".join([*text, "", *(line for note in notes for line in textwrap.wrap(note, width) or [""])])


def _shown(cell: Cell) -> list[str]:
    return [{"best": f"*{cell.text}*", "tie": f"≈{cell.text}"}.get(cell.mark, cell.text), cell.below]


def _rows_of_models(made: Table) -> list[str]:
    head, before = [["", "", "model"]], ""
    for column in made.columns:
        units = f"({column.units})" if column.units else ""
        head.append(["" if column.group == before else column.group, column.part, column.detail or units])
        before = column.group
    body = [[[name], *(_shown(row[column.key]) for column in made.columns)] for name, row in made.rows.items()]
    return _aligned([head, *body])


def _columns_of_models(made: Table) -> list[str]:
    groups = [column.group for column in made.columns]
    body = []
    for column in made.columns:
        between = ", " if groups.count(column.group) > 1 else " "
        named = f"{column.group}{between}{column.part}" + (f" ({column.units})" if column.units else "")
        cells = [_shown(row[column.key]) for row in made.rows.values()]
        body.append([[named, f"  {column.detail}" if column.detail else ""], *cells])
    return _aligned([[[""], *([name] for name in made.rows)], *body])


def _one_by_one(made: Table) -> list[str]:
    single = [replace(made, rows={name: row}) for name, row in made.rows.items()]
    return [line for part in single for line in _columns_of_models(part)]


def _aligned(rows: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Rows of cells, each of several lines, in columns."""
    widths = [max(len(line) for row in rows for line in row[index]) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        for index in range(max(map(len, row))):
            cells = [cell[index] if index < len(cell) else "" for cell in row]
            lines.append("  ".join(text.ljust(size) for text, size in zip(cells, widths, strict=True)).rstrip())
    return [line for line in lines if line]
