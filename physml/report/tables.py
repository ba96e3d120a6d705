"""The table of a report: one row for each model, which numbers are best, and as text for a terminal."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from physml.evaluate import CORRELATIONS, DEFINITIONS, over_samples, summary



@dataclass(frozen=True)
class Column:
    """One number for each model.

    Args:
        key: in ``metrics.json``.
        heading: what is shared with neighbours, what is not, and at which time.
        units: empty where there are none.
        better: which way is good; ``None`` where models are not ranked.
        definition: one printable sentence.
    """

    key: str
    heading: tuple[str, str, str]
    units: str
    better: Literal["low", "high", "near zero"] | None
    definition: str


@dataclass(frozen=True)
class Cell:
    """A number with the interval it is known to.

    Args:
        value: ``None`` where it is not defined.
        low, high: ends of the interval, ``None`` where it is not known.
        text: as it is printed.
        below: printed below it, smaller.
        lost: samples missing from the mean because they are unstable.
        mark: ``best`` where it is, beyond doubt; ``tie`` where others' intervals overlap with that of the best.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = "–"
    below: str = ""
    lost: int = 0
    mark: Literal["best", "tie", ""] = ""


@dataclass(frozen=True)
class Table:
    """What is printed and written: rows in order, columns, and sentences for the space below."""

    columns: tuple[Column, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    notes: tuple[str, ...]


def tabulate(results: Mapping[str, xr.Dataset]) -> Table:
    """The table of several results, sorted by the relative L2 error over the longest horizon that all have.

    A model is marked as best where its interval overlaps with no other; otherwise all that overlap with it are marked as
    tied. A mean over fewer samples than the rollout has, because some became unstable, is no candidate: those that are
    left are the easy ones.

    Raises:
        ValueError: where the results are of different data, for which no ranking has a meaning.
    """
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
    told = {name: summary(table) for name, table in results.items()}
    shared = sorted(set.intersection(*({int(h) for h in table["horizon"].values} for table in results.values())))
    if not shared:
        raise ValueError("results: no horizon is common to all of them; evaluate with the same horizons.")
    columns, rows = [], {name: {} for name in results}  # type: tuple[list[Column], dict[str, dict[str, Cell]]]
    for maker in (_relative_l2, _correlation, _spectral, _drift, _unstable):
        for column, cells in maker(results, told, shared):
            columns.append(column)
            for name, cell in _marked(cells, column.better).items():
                rows[name][column.key] = cell
    last = f"relative_l2_{shared[-1]}"
    order = sorted(results, key=lambda name: _nan_last(rows[name][last].value))
    return Table(tuple(columns), {name: rows[name] for name in order}, tuple(_notes(results, told)))


_Made = list[tuple[Column, dict[str, Cell]]]
_Results, _Told = Mapping[str, xr.Dataset], Mapping[str, Mapping[str, Any]]


def _relative_l2(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    shown = shared if len(shared) <= 3 else [shared[0], shared[len(shared) // 2], shared[-1]]
    made: _Made = []
    for horizon in shown:
        cells = {}
        for name, item in told.items():
            row = next(row for row in item["metrics"]["relative_l2"]["rows"] if row["horizon"] == horizon)
            cells[name] = _cell(row["mean"], row["low"], row["high"], lost=_lost(results[name], horizon))
        times = {float(table["lead_time"].sel(lead=horizon)) for table in results.values()}
        time = _time_text(times.pop(), _any(told)["time_units"]) if len(times) == 1 else ""
        heading = ("relative L2", f"{horizon} frame{'s' if horizon > 1 else ''}", time)
        made.append((Column(f"relative_l2_{horizon}", heading, "", "low", DEFINITIONS["relative_l2"]), cells))
    return made


def _correlation(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    made: _Made = []
    units = _any(told)["time_units"]
    several = len(next(iter(results.values()))["field"]) > 1
    definition = DEFINITIONS["correlation_time"] + (" The field that drops first is shown." if several else "")
    for threshold in CORRELATIONS:
        cells = {}
        for name, item in told.items():
            found = [row for row in item["correlation_time"]["rows"] if row["threshold"] == threshold and row["time"] is not None]
            if not found:
                cells[name] = Cell(None)
                continue
            row = min(found, key=lambda row: (row["time"], not row["reached"]))
            cell = _cell(row["time"], row["low"], row["high"])
            if not row["reached"]:
                cell = replace(cell, text=f"> {cell.text}", below="not reached", low=None, high=None)
            elif several:
                cell = replace(cell, below=f"{cell.below} {row['field'].replace('_', ' ')}".strip())
            cells[name] = cell
        heading = ("correlation time", f"r < {threshold:g}", "")
        made.append((Column(f"correlation_time_{threshold:g}", heading, units, "high", definition), cells))
    return made


def _spectral(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    if not all("log_spectral_error" in item["metrics"] for item in told.values()):
        return []
    cells = {}
    for name, item in told.items():
        rows = [row for row in item["metrics"]["log_spectral_error"]["rows"] if row["lead"] == shared[-1] and row["mean"] is not None]
        worst = max(rows, key=lambda row: row["mean"], default=None)
        cells[name] = Cell(None) if worst is None else _cell(worst["mean"], lost=_lost(results[name], shared[-1]))
    definition = str(_any(told)["metrics"]["log_spectral_error"]["definition"])
    if "field" in next(iter(results.values()))["log_spectral_error"].dims:
        definition += " The field with the largest error is shown."
    definition += " It belongs to a mean spectrum and has no interval, so that models are not ranked by it."
    heading = ("log-spectral", "error", f"lead {shared[-1]}")
    return [(Column("log_spectral_error", heading, "", None, definition), cells)]


def _drift(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    first = next(iter(results.values()))
    energy = "kinetic_energy" in first
    name = "kinetic_energy" if energy else "variance"
    cells = {}
    for model, table in results.items():
        at = table.sel(lead=shared[-1])
        ratio = at[name] / at[f"{name}_truth"] - 1
        kept = table.assign(drift=ratio.where(np.isfinite(ratio)).expand_dims(lead=[shared[-1]])).sel(lead=[shared[-1]])
        kept.attrs = table.attrs
        worst = Cell(None)
        for row in _drift_rows(kept):
            cell = _cell(row["mean"], row["low"], row["high"], lost=_lost(table, shared[-1]), percent=True)
            if worst.value is None or abs(cell.value or 0) > abs(worst.value):
                worst = cell
        cells[model] = worst
    what = "kinetic energy" if energy else "variance of a field (the one that drifts most)"
    definition = (
        f"{'Energy' if energy else 'Variance'} drift = {what} of the prediction over that of the truth, minus 1, at lead "
        f"{shared[-1]}, mean over the stable samples; 0 is best."
    )
    short = "energy" if energy else "variance"
    return [(Column(f"{short}_drift", (short, "drift", f"lead {shared[-1]}"), "", "near zero", definition), cells)]


def _drift_rows(table: xr.Dataset) -> list[dict[str, Any]]:
    found = over_samples(table, "drift").squeeze("lead")
    columns = [np.atleast_1d(found[part].values) for part in ("mean", "low", "high", "samples")]
    return [dict(zip(("mean", "low", "high", "samples"), map(_plain, row), strict=True)) for row in zip(*columns, strict=True)]


def _unstable(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    cells = {}
    for name, item in told.items():
        blowups, units = item["blowups"], item["time_units"]
        first = min((row["lead_time"] for row in blowups["rows"]), default=None)
        cells[name] = Cell(
            float(blowups["count"]),
            text=f"{blowups['count']} of {item['samples']}",
            below="" if first is None else f"from {_time_text(first, units)}",
        )
    definition = f"Unstable = samples that are not stable up to the last lead. {DEFINITIONS['stable']}"
    return [(Column("unstable", ("unstable", "samples", ""), "", None, definition), cells)]


def _marked(cells: Mapping[str, Cell], better: str | None) -> dict[str, Cell]:
    """Mark the best, or those that cannot be told apart from it."""
    if better is None or len(cells) < 2:
        return dict(cells)

    def cost(cell: Cell) -> tuple[float, float, float]:
        """Value, low and high end of something that is best when small."""
        assert cell.value is not None and cell.low is not None and cell.high is not None
        if better == "high":
            return -cell.value, -cell.high, -cell.low
        if better == "near zero":
            ends = abs(cell.low), abs(cell.high)
            return abs(cell.value), 0.0 if cell.low <= 0 <= cell.high else min(ends), max(ends)
        return cell.value, cell.low, cell.high

    costs = {
        name: cost(cell) for name, cell in cells.items() if None not in (cell.value, cell.low, cell.high) and not cell.lost
    }
    if len(costs) < 2 and len(costs) < len(cells):
        return dict(cells)
    best = min(costs, key=lambda name: costs[name][0])
    tied = {name for name, (_, low, _) in costs.items() if name != best and low <= costs[best][2]}
    marks: dict[str, Literal["best", "tie", ""]] = {best: "tie" if tied else "best"} | dict.fromkeys(tied, "tie")
    return {name: replace(cell, mark=marks.get(name, "")) for name, cell in cells.items()}


def _notes(results: _Results, told: _Told) -> list[str]:
    """What a reader must know to trust the table."""
    notes = []
    item = _any(told)
    interval = item["interval"]
    if any(other["interval"]["units"] > 1 for other in told.values()):
        notes.append(
            f"In brackets: {100 * interval['confidence']:g} % bootstrap interval of the mean over {interval['units']} {interval['over']}."
        )
    else:
        notes.append("Without intervals: all samples overlap within one trajectory.")
    if any(int((table["unstable_from"].values > 0).sum()) for table in results.values()):
        notes.append(
            "†: mean over the samples that stayed stable, fewer than the rollout has; those left are the easier ones, so such a number is never marked as best."
        )
    tables = list(results.values())
    starts = [set(zip(t["trajectory"].values.tolist(), t["frame"].values.tolist(), strict=True)) for t in tables]
    if any(other != starts[0] for other in starts[1:]):
        notes.append("The models did not start from the same frames (they read different numbers of frames, or were rolled out with other options).")
    if len({round(float(t["lead_time"][0]), 9) for t in tables}) > 1:
        notes.append("The frames of the models are not equally far apart: compare them by time, not by number of frames.")
    if len({t.attrs["physml"]["source"]["split"] for t in tables}) > 1:
        notes.append("The models were rolled out over different splits: " + ", ".join(f"{n}: {t.attrs['physml']['source']['split']}" for n, t in results.items()) + ".")
    return notes


def _marks(best: str, made: Table) -> list[str]:
    """What the marks mean, ``best`` being how the best is shown; nothing where there are none."""
    found = {cell.mark for row in made.rows.values() for cell in row.values()}
    told = [f"{best}: best, its interval overlaps with no other."] if "best" in found else []
    return told + (["≈: its interval overlaps with that of the best; the samples do not tell them apart."] if "tie" in found else [])


def _lost(table: xr.Dataset, lead: int) -> int:
    """Samples with a truth at this lead that are no longer stable."""
    at = table.sel(lead=lead)
    return int((at["compared"] & ~at["stable"]).sum())


def _any(told: _Told) -> Mapping[str, Any]:
    return next(iter(told.values()))


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
    if not 1e-3 <= abs(value) < 1e4:
        return f"{value:{sign}.{digits - 1}e}"
    return f"{value:{sign}.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def _time_text(value: float, units: str) -> str:
    return f"t = {value:.4g} {units}".rstrip()


def _plain(value: Any) -> Any:
    value = value.item()
    return value if math.isfinite(value) else None


def _nan_last(value: float | None) -> float:
    return math.inf if value is None else value


def table(results: Mapping[str, xr.Dataset], *, width: int | None = None, definitions: bool = True) -> str:
    """The table as text for a terminal.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
        width: columns of the terminal; found out where not given. Where the table is wider, each model is a block of lines.
        definitions: print below what every number means.
    """
    made = tabulate(results)
    width = width or shutil.get_terminal_size((100, 24)).columns
    layouts = (_rows_of_models(made), _columns_of_models(made))
    text = next((lines for lines in layouts if max(map(len, lines)) <= width), None) or _blocks(made)
    notes = [*_marks("*x*", made), *made.notes]
    if definitions:
        notes += ["", *dict.fromkeys(column.definition for column in made.columns)]
    return "\n".join([*text, "", *(line for note in notes for line in textwrap.wrap(note, width) or [""])])


def _shown(cell: Cell) -> list[str]:
    return [{"best": f"*{cell.text}*", "tie": f"≈{cell.text}"}.get(cell.mark, cell.text), cell.below]


def _rows_of_models(made: Table) -> list[str]:
    head, before = [["", "", "model"]], ""
    for column in made.columns:
        group, part, detail = column.heading
        head.append(["" if group == before else group, part, detail or (f"({column.units})" if column.units else "")])
        before = group
    body = [[[name], *(_shown(row[column.key]) for column in made.columns)] for name, row in made.rows.items()]
    return _aligned([head, *body])


def _columns_of_models(made: Table) -> list[str]:
    body = []
    for column in made.columns:
        group, part, detail = column.heading
        named = f"{group}, {part}" + (f" ({column.units})" if column.units else "")
        body.append([[named, f"  {detail}" if detail else ""], *(_shown(row[column.key]) for row in made.rows.values())])
    return _aligned([[[""], *([name] for name in made.rows)], *body])


def _aligned(rows: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Rows of cells of lines, in columns; the headings of the first row stand on its lowest line."""
    widths = [max(len(line) for row in rows for line in row[index]) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        height = max(map(len, row))
        for index in range(height):
            cells = [cell[index] if index < len(cell) else "" for cell in row]
            lines.append("  ".join(text.ljust(size) for text, size in zip(cells, widths, strict=True)).rstrip())
    return [line for line in lines if line]


def _blocks(made: Table) -> list[str]:
    """One model after the other, for narrow terminals."""
    single = [Table(made.columns, {name: row}, ()) for name, row in made.rows.items()]
    return [line for table in single for line in _columns_of_models(table)]


