"""One page about one or several rollouts: a table, its figures, what every number means and where it comes from.

``index.html`` is complete in itself: figures and film are inside it, it runs no script and asks nothing of the network.
Beside it lie the same numbers as ``metrics.json``, the figures as ``figures/*.png`` and the film as ``animation.gif``.
"""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import platform
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from physml.datasets.opening import open_trajectories
from physml.datasets.store import open_group, read_state
from physml.datasets.trajectories import Trajectories
from physml.evaluate import CORRELATIONS, DEFINITIONS, load, over_samples, summary
from physml.fields import Layout
from physml.plot import fields, save_animation, spectra, trajectories
from physml.plot.style import png

FORMAT = 1
_FILM_FRAMES = 36
_FILM_FPS = 6

# ----------------------------------------------------------------------------------------------------------- one sample


@dataclass(frozen=True)
class Sample:
    """One sample of a stored rollout beside its truth; both are read frame by frame, when looked at.

    Args:
        layout: of the predicted states.
        prediction: ``prediction[i]`` is lead ``i + 1``, ``(*space, C)``, physical units.
        truth: the same; ``None`` where the data are not there any more.
        origin: fingerprint of the data, trajectory, source frame of lead 1 and stride: equal for samples that may be
            shown beside each other.
        blowup: lead of the first unphysical frame, 0 where there is none.
    """

    layout: Layout
    prediction: fields.Frames
    truth: fields.Frames | None
    origin: tuple[str, int, int, int]
    blowup: int

    @classmethod
    def open(cls, rollout: str | Path, sample: int = 0, truth: Trajectories | str | Path | None = None) -> Sample:
        """Open a sample of a rollout store.

        Args:
            rollout: written by :func:`physml.rollout.write_rollout`.
            sample: from 0.
            truth: the data it started from; where not given, the data that the rollout names as its source, if there.

        Raises:
            FileNotFoundError, ValueError: where the rollout cannot be used, or the truth is not the data it started from.
        """
        group, about = open_group(rollout, "rollout")
        if not about.get("complete"):
            raise ValueError(f"rollout: {rollout} was interrupted; give the command that writes it once more, it continues.")
        state = group["state"]
        assert isinstance(state, zarr.Array)
        if not 0 <= sample < state.shape[0]:
            raise ValueError(f"sample: got {sample}, {rollout} has samples 0 to {state.shape[0] - 1}.")
        data = _truth(truth, about["source"], str(rollout))
        trajectory, frame, blowup = (int(np.asarray(group[name])[sample]) for name in ("trajectory", "frame", "blowup"))
        stride = int(about["stride"])
        return cls(
            Layout.from_plain(about["layout"]),
            _Predicted(str(rollout), state, sample),
            None if data is None else _True(data, trajectory, frame, stride, state.shape[1]),
            (str(about["source"]["fingerprint"]), trajectory, frame, stride),
            blowup,
        )


class _Predicted:
    def __init__(self, path: str, state: zarr.Array, sample: int) -> None:
        self.path, self.state, self.sample = path, state, sample

    def __len__(self) -> int:
        return int(self.state.shape[1])

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        found: NDArray[np.float32] = read_state(self.path, self.state, (self.sample, slice(index, index + 1)))[0]
        return found


class _True:
    def __init__(self, data: Trajectories, trajectory: int, frame: int, stride: int, leads: int) -> None:
        self.data, self.trajectory, self.frame, self.stride = data, trajectory, frame, stride
        self.length = max(0, min(leads, -(-(data.frames - frame) // stride)))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        at = self.frame + index * self.stride
        found: NDArray[np.float32] = self.data.read(self.trajectory, at, at + 1)[0]
        return found


def _truth(given: Trajectories | str | Path | None, source: Mapping[str, Any], rollout: str) -> Trajectories | None:
    if isinstance(given, Trajectories):
        data = given
    else:
        try:
            data = open_trajectories(source["path"] if given is None else given)
        except FileNotFoundError:
            if given is not None:
                raise
            return None
    if data.fingerprint != source["fingerprint"]:
        raise ValueError(
            f"truth: {data.path} has fingerprint {data.fingerprint}, the rollout {rollout} started from data with "
            f"{source['fingerprint']} ({source['path']}); pass these data, or roll out again."
        )
    return data


# ------------------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Column:
    """One number for each model.

    Args:
        key: in ``metrics.json``.
        heading: two parts, the first shared by neighbours.
        units: empty where there are none.
        better: which way is good; ``None`` where models are not ranked.
        definition: one printable sentence.
    """

    key: str
    heading: tuple[str, str]
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
            compared = int(results[name]["compared"].sel(lead=horizon).sum())
            cells[name] = _cell(row["mean"], row["low"], row["high"], lost=compared - row["samples"])
        dt = {item["metrics"]["relative_l2"]["rows"][0]["lead_time"] for item in told.values()}
        time = _time_text(horizon * dt.pop(), _any(told)["time_units"]) if len(dt) == 1 else ""
        heading = f"{horizon} frame{'s' if horizon > 1 else ''}" + (f", {time}" if time else "")
        made.append((Column(f"relative_l2_{horizon}", ("relative L2", heading), "", "low", DEFINITIONS["relative_l2"]), cells))
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
            cell = _cell(row["time"], row["low"], row["high"], decimals=3)
            if not row["reached"]:
                cell = replace(cell, text=f"> {cell.text}", below="not reached", low=None, high=None)
            elif several:
                cell = replace(cell, below=f"{cell.below} {row['field'].replace('_', ' ')}".strip())
            cells[name] = cell
        made.append((Column(f"correlation_time_{threshold:g}", ("correlation time", f"r < {threshold:g}"), units, "high", definition), cells))
    return made


def _spectral(results: _Results, told: _Told, shared: Sequence[int]) -> _Made:
    if not all("log_spectral_error" in item["metrics"] for item in told.values()):
        return []
    cells = {}
    for name, item in told.items():
        rows = [row for row in item["metrics"]["log_spectral_error"]["rows"] if row["lead"] == shared[-1] and row["mean"] is not None]
        worst = max(rows, key=lambda row: row["mean"], default=None)
        stable = int(results[name]["stable"].sel(lead=shared[-1]).sum())
        cells[name] = Cell(None) if worst is None else _cell(worst["mean"], None, None, lost=results[name].sizes["sample"] - stable)
    definition = str(_any(told)["metrics"]["log_spectral_error"]["definition"])
    if "field" in next(iter(results.values()))["log_spectral_error"].dims:
        definition += " The field with the largest error is shown."
    definition += " It belongs to a mean spectrum and has no interval, so that models are not ranked by it."
    return [(Column("log_spectral_error", ("log-spectral error", f"lead {shared[-1]}"), "", None, definition), cells)]


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
            lost = int(at["compared"].sum()) - row["samples"]
            cell = _cell(row["mean"], row["low"], row["high"], lost=lost, percent=True)
            if worst.value is None or abs(cell.value or 0) > abs(worst.value):
                worst = cell
        cells[model] = worst
    what = "kinetic energy" if energy else "variance of a field (the one that drifts most)"
    definition = (
        f"{'Energy' if energy else 'Variance'} drift = {what} of the prediction over that of the truth, minus 1, at lead "
        f"{shared[-1]}, mean over the stable samples; 0 is best."
    )
    return [(Column("energy_drift" if energy else "variance_drift", ("energy drift" if energy else "variance drift", f"lead {shared[-1]}"), "", "near zero", definition), cells)]


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
            below="" if first is None else f"first at {_time_text(first, units)}",
        )
    definition = f"Unstable = samples that are not stable up to the last lead. {DEFINITIONS['stable']}"
    return [(Column("unstable", ("unstable", "samples"), "", None, definition), cells)]


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
    if len(results) > 1:
        notes.append(
            "Bold: best, its interval overlaps with no other. ≈: overlaps with the interval of the best, the data do not tell them apart."
        )
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


def _any(told: _Told) -> Mapping[str, Any]:
    return next(iter(told.values()))


def _cell(
    value: float | None, low: float | None, high: float | None, *, lost: int = 0, percent: bool = False, decimals: int = 3
) -> Cell:
    if value is None or not math.isfinite(value):
        return Cell(None, lost=lost)
    known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    show = _percent if percent else _number
    text = show(value) + (" %" if percent else "") + ("†" if lost else "")
    below = f"[{show(low)}, {show(high)}]" if known else ""  # type: ignore[arg-type]
    return Cell(value, low if known else None, high if known else None, text, below, lost)


def _number(value: float) -> str:
    """Three significant digits."""
    size = abs(value)
    if value == 0 or 1e-3 <= size < 9.995:
        return f"{value:#.3g}" if value else "0"
    if size < 1e4:
        return f"{value:.1f}" if 9.995 <= size < 99.95 else f"{value:.0f}" if size >= 1 else f"{value:.2e}"
    return f"{value:.2e}"


def _percent(value: float) -> str:
    return f"{100 * value:+.2g}" if abs(value) < 0.995 else f"{100 * value:+.0f}"


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
    text = _wide(made)
    if max(map(len, text)) > width:
        text = _narrow(made)
    below = list(made.notes)
    if definitions:
        below += list(dict.fromkeys(column.definition for column in made.columns))
    for note in below:
        text += ["", *textwrap.wrap(note, width)] if note is below[0] else textwrap.wrap(note, width)
    return "\n".join(text)


def _shown(cell: Cell) -> str:
    return {"best": f"*{cell.text}*", "tie": f"≈{cell.text}"}.get(cell.mark, cell.text)


def _second(column: Column) -> str:
    return column.heading[1] + (f" ({column.units})" if column.units else "")


def _wide(made: Table) -> list[str]:
    names = ["", "", *(part for name in made.rows for part in (name, ""))]
    body = [[line.rstrip() for line in names]]
    before = ""
    for column in made.columns:
        first = "" if column.heading[0] == before else column.heading[0]
        before = column.heading[0]
        cells = [part for row in made.rows.values() for part in (_shown(row[column.key]), row[column.key].below)]
        body.append([first, _second(column), *cells])
    widths = [max(map(len, lines)) for lines in body]
    lines = ["  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip() for line in zip(*body, strict=True)]
    return [line for line in lines if line]


def _narrow(made: Table) -> list[str]:
    text = []
    size = max(len(f"{c.heading[0]}, {_second(c)}") for c in made.columns)
    for name, row in made.rows.items():
        text += [name] + [
            f"  {f'{c.heading[0]}, {_second(c)}':{size}}  {_shown(row[c.key])} {row[c.key].below}".rstrip() for c in made.columns
        ]
    return text


# ------------------------------------------------------------------------------------------------------------- the page


def write_report(
    folder: str | Path,
    evaluations: Mapping[str, xr.Dataset | str | Path],
    *,
    rollouts: Mapping[str, str | Path] | None = None,
    truth: Trajectories | str | Path | None = None,
    title: str = "Rollouts compared",
    notes: str | Sequence[str] = (),
    sample: int = 0,
) -> Path:
    """Write the page and what lies beside it.

    Args:
        folder: made if missing; a report that was there is replaced, other files are left alone.
        evaluations: results of :func:`physml.evaluate.evaluate`, or folders that hold them, by the name to show.
        rollouts: rollout stores by the same names; where not given, the stores that the results name, if they are still there.
        truth: the data; where not given, the data that the rollouts name, if they are still there.
        title: of the page.
        notes: paragraphs of plain text below the table.
        sample: of the rollouts, to be shown as fields and film.

    Returns:
        The path of ``index.html``.

    Raises:
        OSError: where the folder cannot be written, before anything is computed.
        ValueError: where the results do not belong together, or the folder holds results of an evaluation.
    """
    folder = Path(folder)
    _check_folder(folder)
    results = {name: item if isinstance(item, xr.Dataset) else load(item) for name, item in evaluations.items()}
    made = tabulate(results)
    results = {name: results[name] for name in made.rows}
    stores, remarks = _stores(results, rollouts)
    samples = {name: Sample.open(path, sample, truth) for name, path in stores.items()}
    figures = _figures(results, samples)
    film = _film(samples)
    provenance = _provenance(results, samples, truth)
    created = datetime.now(UTC).isoformat(" ", "seconds")
    paragraphs = [notes] if isinstance(notes, str) else list(notes)
    page = _page(title, created, made, results, figures, film, provenance, paragraphs, remarks)
    metrics = {
        "kind": "report",
        "format": FORMAT,
        "title": title,
        "created": created,
        "columns": [
            {"key": c.key, "heading": " ".join(c.heading), "units": c.units, "better": c.better, "definition": c.definition}
            for c in made.columns
        ],
        "models": [
            {
                "name": name,
                "row": {key: {"value": c.value, "low": c.low, "high": c.high, "lost": c.lost, "mark": c.mark} for key, c in row.items()},
                "summary": summary(results[name]),
            }
            for name, row in made.rows.items()
        ],
        "notes": [*made.notes, *paragraphs, *remarks],
        "provenance": provenance,
    }
    files = {f"figures/{figure.key}.png": figure.png for figure in figures}
    if film:
        files["animation.gif"] = film.png
    files["metrics.json"] = (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
    files["index.html"] = page.encode()
    _write(folder, files)
    return folder / "index.html"


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


def _stores(results: _Results, rollouts: Mapping[str, str | Path] | None) -> tuple[dict[str, Path], list[str]]:
    """Where the rollouts are; what is not there is said, not passed over."""
    if rollouts is not None:
        unknown = [name for name in rollouts if name not in results]
        if unknown:
            raise ValueError(f"rollouts: got {', '.join(unknown)}, expected names of the results: {', '.join(results)}.")
        return {name: Path(rollouts[name]) for name in results if name in rollouts}, []
    found = {name: Path(table.attrs["physml"]["rollout"]) for name, table in results.items()}
    gone = [f"The rollout of {name} is no longer at {path}; its fields are not shown." for name, path in found.items() if not path.exists()]
    return {name: path for name, path in found.items() if path.exists()}, gone


def _figures(results: _Results, samples: Mapping[str, Sample]) -> list[Drawn]:
    made = [
        Drawn("errors", png(trajectories.error_growth(results)), "Error over the lead time."),
        Drawn("correlation", png(trajectories.correlation(results)), "Correlation with the truth over the lead time."),
        Drawn("balances", png(trajectories.conserved(results)), "What the flow holds, over the lead time."),
    ]
    if all("energy_spectrum" in t or "variance_spectrum" in t for t in results.values()):
        grid = next((item.layout.grid for item in samples.values()), None)
        made.append(
            Drawn(
                "spectra",
                png(spectra.energy(results, grid=grid)),
                "Spectra at three lead times"
                + ("; the dashed line marks two thirds of the smallest Nyquist wavenumber, where the log-spectral error ends." if grid else "."),
            )
        )
    for number, group in enumerate(_groups(samples), 1):
        first = next(iter(group.values()))
        _, trajectory, frame, _ = first.origin
        for index, field in enumerate(first.layout.fields[:4]):
            picture = fields.compare(
                first.truth, {name: item.prediction for name, item in group.items()}, first.layout, field=field.name
            )
            key = "fields" + (f"_{number}" if number > 1 else "") + (f"_{field.name}" if index else "")
            caption = f"One sample (trajectory {trajectory}, first predicted frame {frame}): {field.name.replace('_', ' ')}."
            made.append(Drawn(key, png(picture), caption))
    return made


def _groups(samples: Mapping[str, Sample]) -> list[dict[str, Sample]]:
    """Samples with the same truth at the same times, the largest group first."""
    groups: dict[tuple[str, int, int, int], dict[str, Sample]] = {}
    for name, item in samples.items():
        groups.setdefault(item.origin, {})[name] = item
    return sorted(groups.values(), key=len, reverse=True)


def _film(samples: Mapping[str, Sample]) -> Drawn | None:
    if not samples:
        return None
    group = _groups(samples)[0]
    first = next(iter(group.values()))
    last = min(len(item.prediction) for item in group.values())
    leads = np.unique(np.linspace(1, last, min(last, _FILM_FRAMES)).round().astype(int)).tolist()
    film = trajectories.animate(first.truth, {n: item.prediction for n, item in group.items()}, first.layout, leads=leads)
    with tempfile.TemporaryDirectory() as scratch:
        path = save_animation(film, Path(scratch) / "film.gif", fps=_FILM_FPS, dpi=90)
        return Drawn("animation", path.read_bytes(), f"The same sample, {len(leads)} of {last} frames.")


def _provenance(
    results: _Results, samples: Mapping[str, Sample], truth: Trajectories | str | Path | None
) -> dict[str, Any]:
    source = dict(next(iter(results.values())).attrs["physml"]["source"])
    data = next((item.truth.data for item in samples.values() if isinstance(item.truth, _True)), None)
    if data is not None:
        source["parameters"] = {name: sorted({float(f"{v:.6g}") for v in np.asarray(values).ravel()})[:8] for name, values in data.parameters.items()}
        source["made_by"] = json.loads(json.dumps(dict(data.provenance), default=str))
    return {
        "data": source,
        "models": {name: table.attrs["physml"]["model"] for name, table in results.items()},
        "rollouts": {name: table.attrs["physml"]["rollout"] for name, table in results.items()},
        "versions": {name: version(name) for name in ("physml", "torch", "numpy", "xarray", "zarr", "matplotlib")}
        | {"python": platform.python_version()},
        "machine": _machine(),
    }


def _machine() -> str:
    import torch

    parts = [platform.system(), platform.machine(), f"{os.cpu_count()} processor cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


# ------------------------------------------------------------------------------------------------------------- the HTML

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
        "".join(f'<p class="soft">{escape(note)}</p>' for note in [*made.notes, *remarks]),
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
        parts = escape(column.heading[1]).split(", ")
        second.append(f"<th>{parts[0]}{''.join(f'<small>{part}</small>' for part in parts[1:])}{units}</th>")
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
    sentences = {column.heading[0]: column.definition for column in made.columns}
    for table in results.values():
        for name in ("nrmse", "correlation", "kinetic_energy", "enstrophy", "variance", "energy_spectrum", "variance_spectrum"):
            if name in table:
                sentences.setdefault(str(table[name].attrs["long_name"]), str(table[name].attrs["definition"]))
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in sentences.items())
    return f"<h2>What the numbers mean</h2><dl>{items}</dl>"


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


# ------------------------------------------------------------------------------------------------------------ the files


def _check_folder(folder: Path) -> None:
    if (folder / "results.zarr").exists():
        raise ValueError(f"folder: {folder} holds the results of an evaluation, whose metrics.json would be lost; give another one.")
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "cannot write a report below a file; choose another folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot write a report there; choose another folder", str(there))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Each file whole or not at all, the page last."""
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{os.getpid()}.new")
            try:
                beside.write_bytes(content)
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OSError(problem.errno, f"cannot write the report ({reason}); choose another folder", str(folder)) from None
