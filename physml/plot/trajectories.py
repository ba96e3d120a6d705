"""How rollouts develop: errors, balances and correlation over the lead time, and films of the states.

The curves take what :func:`physml.evaluate.evaluate` returns, one table for each name. A mean is one over the samples
that are stable at that lead; its band is the bootstrap interval of :mod:`physml.metrics.bootstrap`, with the confidence
that the results were made with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from physml.fields import Layout
from physml.plot.fields import (
    Colours,
    Frames,
    View,
    by_name,
    chosen_leads,
    draw_image,
    draw_solid,
    missing_text,
    panel_size,
    value_range,
)
from physml.plot.style import TRUTH, blank, label, lines, styled
from physml.results import independent_units, over_samples, squared

NO_SKILL: Mapping[str, str] = {"nrmse": "prediction of zero", "vrmse": "mean of the truth"}
"""What scores 1."""

_NEAR = 1 / 3
"""The line of no skill is drawn where an error is larger: it would only flatten smaller ones."""

Film: TypeAlias = tuple[Figure, Callable[[int], None]]
"""A figure, and what draws a lead into it."""


@styled
def error_growth(
    results: Mapping[str, xr.Dataset],
    metric: Literal["nrmse", "vrmse", "rmse"] = "nrmse",
    field: str | None = None,
) -> Figure:
    """The mean error over the lead time, with its interval; crosses mark where samples became unstable.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
        metric: nRMSE and VRMSE are 1 for a prediction without skill, which a dotted line shows where errors come near.
        field: one field; a panel for each if not given.
    """
    fields = _fields(results, metric, field)
    figure, axes = _panels(len(fields), share=metric != "rmse")
    look = lines(results)
    final: dict[str, float] = {}
    for ax, name in zip(axes, fields, strict=True):
        for model, table in results.items():
            curve = over_samples(table.sel(field=name), metric)
            final[model] = final.get(model, 0.0) + _last(curve)
            _draw(ax, table, curve, look[model], model)
        units = str(next(iter(results.values()))["field_units"].sel(field=name).item()) if metric == "rmse" else ""
        long_name = str(next(iter(results.values()))[metric].attrs.get("long_name", metric))
        ax.set_ylabel(label(long_name if len(fields) == 1 else f"{long_name} of {name}", units))
    order = sorted(results, key=lambda model: -final[model])
    if metric == "rmse":
        for ax in axes:
            _error_scale([ax])
    else:
        largest = _error_scale(axes)
        if metric in NO_SKILL and largest > _NEAR:
            order.append(NO_SKILL[metric])
            for ax in axes:
                ax.axhline(1, color="0.4", linewidth=0.8, linestyle=":", label=NO_SKILL[metric])
    _finish(figure, axes, results, order)
    return figure


@styled
def correlation(results: Mapping[str, xr.Dataset], field: str | None = None) -> Figure:
    """The mean Pearson correlation over the lead time, with the thresholds 0.8 and 0.95 of the correlation times.

    A sample that has become unstable counts as r = 0 from then on, as in the correlation time.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
        field: one field; a panel for each if not given.
    """
    fields = _fields(results, "correlation", field)
    figure, axes = _panels(len(fields), share=True)
    look = lines(results)
    final: dict[str, float] = {}
    for ax, name in zip(axes, fields, strict=True):
        for model, table in results.items():
            curve = over_samples(table.sel(field=name), "correlation", unstable="count as zero")
            final[model] = final.get(model, 0.0) + _last(curve)
            _draw(ax, table, curve, look[model], model)
        for threshold in (0.8, 0.95):
            ax.axhline(threshold, color="0.4", linewidth=0.8, linestyle=":")
            ax.annotate(
                f"{threshold:g}",
                (1, threshold),
                (3, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color="0.4",
                fontsize=8,
            )
        ax.set_ylabel("Pearson correlation" if len(fields) == 1 else f"Pearson correlation of {name.replace('_', ' ')}")
    axes[0].set_ylim(min(axes[0].get_ylim()[0], 0), 1.02)  # of all panels
    _finish(figure, axes, results, sorted(results, key=lambda model: -final[model]), "unstable samples count as 0")
    return figure


@styled
def conserved(results: Mapping[str, xr.Dataset]) -> Figure:
    """Kinetic energy and enstrophy over the lead time, those of the truth in black.

    States without a velocity have neither; the variance of each field is shown for them.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
    """
    _fields(results, "variance", None)
    first = next(iter(results.values()))
    names: list[tuple[str, str | None]] = [(n, None) for n in ("kinetic_energy", "enstrophy") if n in first]
    names = names or [("variance", str(name)) for name in first["field"].values]
    figure, axes = _panels(len(names), share=False)
    look = lines(results)
    for ax, (name, field) in zip(axes, names, strict=True):
        tables = {model: table if field is None else table.sel(field=field) for model, table in results.items()}
        longest = max(tables.values(), key=lambda table: float(table["lead_time"][-1]))
        truth = over_samples(longest, f"{name}_truth", unstable="keep")
        _draw(ax, longest, truth, {"color": TRUTH}, "truth", marks=False)
        for model, table in tables.items():
            _draw(ax, table, over_samples(table, name), look[model], model)
        variable = first[name]
        units = str(variable.attrs.get("units", ""))
        if field is not None:
            units = squared(str(first["field_units"].sel(field=field).item()))
        ax.set_ylabel(label(name if field is None else f"variance of {field}", units))
    _finish(figure, axes, results, ["truth", *results])
    return figure


@styled
def animate(
    truth: Frames | None,
    prediction: Frames | Mapping[str, Frames],
    layout: Layout,
    *,
    field: str | None = None,
    leads: Sequence[int] | None = None,
    fps: float = 12,
) -> FuncAnimation:
    """Truth and predictions side by side, frame after frame, with shared colours; states are read when they are drawn.

    Args:
        truth: ``(T, *space, C)``, physical units, lead 1 first; ``None`` to show predictions alone.
        prediction: the same shape, or several by name.
        layout: fields, grid and frame interval of both.
        field: which one; the first if not given.
        leads: which frames, from 1; all if not given.
        fps: frames a second in an interactive window; :func:`physml.plot.save_animation` takes its own.

    Returns:
        An animation for :func:`physml.plot.save_animation`.
    """
    predictions = by_name(prediction)
    window = View.of(layout, field)
    length = min(map(len, predictions.values()))
    shown = tuple(range(1, length + 1)) if leads is None else chosen_leads(leads, length)
    rows: dict[str, Frames] = ({} if truth is None else {"truth": truth}) | predictions
    reference = [truth] if truth is not None else list(predictions.values())
    looked = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, 16).round().astype(int))]
    sampled = [window.pane(frames, lead) for frames in reference for lead in looked]
    figure, update = (_film_lines if len(window.axes) == 1 else _film_images)(window, rows, sampled)

    title = figure.suptitle(" ")  # made once, inside the style

    def draw(lead: int) -> list[Artist]:
        update(lead)
        title.set_text(f"{window.time(lead)} (lead {lead})" + (f", {window.where}" if window.where else ""))
        return [title]

    draw(shown[0])
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.12)  # type: ignore[call-arg]  # inches: a tick label may grow when the panels have shrunk
    FigureCanvasAgg(figure).draw()
    figure.set_layout_engine("none")  # the panels keep their places from frame to frame
    return FuncAnimation(figure, draw, frames=list(shown), interval=1000 / fps, cache_frame_data=False)


# ------------------------------------------------------------------------------------------------------------- curves


def _fields(results: Mapping[str, xr.Dataset], metric: str, field: str | None) -> list[str]:
    if not results:
        raise ValueError("results: got none, expected at least one table of physml.evaluate.")
    for model, table in results.items():
        if metric not in table or "field" not in table[metric].dims:
            raise ValueError(f"metric: got {metric!r}, expected one of nrmse, vrmse, rmse; {model} does not hold it.")
    known = [str(name) for name in next(iter(results.values()))["field"].values]
    for model, table in results.items():
        if [str(name) for name in table["field"].values] != known:
            raise ValueError(
                f"results: {model} has the fields {', '.join(map(str, table['field'].values))}, others have "
                f"{', '.join(known)}; draw them apart."
            )
    if field is not None and field not in known:
        raise ValueError(f"field: got {field!r}, expected one of {', '.join(known)}.")
    return known if field is None else [field]


def _draw(
    ax: Axes, table: xr.Dataset, curve: xr.Dataset, look: Mapping[str, str], name: str, marks: bool = True
) -> None:
    time, mean = table["lead_time"].values, curve["mean"].values
    ax.plot(time, mean, label=name, **look)  # type: ignore[arg-type]
    ax.fill_between(time, curve["low"].values, curve["high"].values, color=look["color"], alpha=0.18, linewidth=0)
    lost = table["unstable_from"].values
    if marks and (lost > 0).any():
        at = np.unique(lost[lost > 0]) - 1
        known = np.flatnonzero(np.isfinite(mean))
        before = [known[known <= index][-1] if (known <= index).any() else None for index in at]
        pairs = [(time[index], mean[found]) for index, found in zip(at, before, strict=True) if found is not None]
        if pairs:
            ax.plot(
                *zip(*pairs, strict=True), "x", color=look["color"], markersize=5, markeredgewidth=1.4, gid="unstable"
            )


def _last(curve: xr.Dataset) -> float:
    """The mean at the last lead; infinite where the curve ended before, as no sample was left."""
    value = float(curve["mean"].values[-1])
    return value if math.isfinite(value) else math.inf


def _error_scale(axes: Sequence[Axes]) -> float:
    """Logarithmic where the curves span more than a factor of twenty, linear from zero otherwise; the largest value."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for ax in axes for line in ax.get_lines()])
    drawn = drawn[np.isfinite(drawn)]
    largest = float(drawn.max(initial=0.0))
    if drawn.size and 0 < 20 * drawn.min() < largest:
        axes[0].set_yscale("log")  # for all that share the axis
    else:
        axes[0].set_ylim(bottom=0)
    return largest


def _panels(count: int, share: bool) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = blank((6.0, 7.0, 9.0)[columns - 1], 0.9 + 2.5 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share).ravel().tolist()
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def _finish(
    figure: Figure, axes: Sequence[Axes], results: Mapping[str, xr.Dataset], order: Sequence[str], note: str = ""
) -> None:
    """What all figures of curves have: the time axis, a legend in the order of the curves, what the band is."""
    tables = list(results.values())
    end = max(float(table["lead_time"][-1]) for table in tables)
    for ax in axes:
        ax.set_xlabel(label("lead time", tables[0].attrs["physml"]["time_units"]))
        ax.set_xlim(0, end)
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        [handles[name] for name in order],
        [_entry(name, results.get(name)) for name in order],
        loc="outside right upper" if max(map(len, order)) < 26 else "outside upper left",
    )
    figure.supxlabel(_caption(tables, note), x=0.01, ha="left", fontsize=8, color="0.3")


def _entry(name: str, table: xr.Dataset | None) -> str:
    lost = 0 if table is None else int((table["unstable_from"].values > 0).sum())
    return name if table is None or not lost else f"{name}\n({lost} of {table.sizes['sample']} unstable, ×)"


def _caption(tables: Sequence[xr.Dataset], note: str) -> str:
    samples = sorted({table.sizes["sample"] for table in tables})
    about = tables[0].attrs["physml"]["interval"]
    counted = f"{samples[0]}" if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    text = f"mean over {counted} sample{'s' if samples[-1] > 1 else ''}" + ("" if note else " while they are stable")
    units = independent_units(tables[0])
    if units.count > 1:
        text += f"; band: {100 * about['confidence']:g} % interval over {units.count} {units.over}"
    return f"{text}; {note}" if note else text


# -------------------------------------------------------------------------------------------------------------- films


def _film_images(window: View, rows: Mapping[str, Frames], sampled: Sequence[NDArray[np.float64]]) -> Film:
    colours = Colours.of_states(sampled)
    columns = min(len(rows), 3 if window.aspect < 2.5 else 1)
    lines_of = -(-len(rows) // columns)
    width, height = panel_size(max(columns, 2), window.aspect)
    figure = blank(columns * (width + 0.1) + 1.3, lines_of * (height + 0.35) + 0.8, "compressed")
    grid = figure.subplots(lines_of, columns, squeeze=False, sharex=True, sharey=True)
    axes = grid.ravel().tolist()
    for spare in axes[len(rows) :]:
        spare.remove()
    axes = axes[: len(rows)]
    images, texts = [], []
    for index, (ax, name) in enumerate(zip(axes, rows, strict=False)):
        images.append(draw_image(ax, window, np.full(tuple(len(a.points) for a in window.axes), np.nan), colours))
        texts.append(ax.text(0.5, 0.5, "", transform=ax.transAxes, ha="center", va="center"))
        ax.set_title(name)
        if index % columns == 0:
            ax.set_ylabel(label(window.axes[1].name, window.axes[1].units))
        if index + columns >= len(rows):
            ax.set_xlabel(label(window.axes[0].name, window.axes[0].units))
            ax.tick_params(labelbottom=True)
    figure.colorbar(
        ScalarMappable(colours.norm, colours.cmap),
        ax=axes,
        label=window.title,
        extend="both",
        aspect=14 * lines_of,
        pad=0.02,
    )

    def update(lead: int) -> None:
        for image, text, (name, frames) in zip(images, texts, rows.items(), strict=True):
            pane = window.pane(frames, lead)
            image.set_array(pane.T)
            text.set_text(missing_text(pane, window.solid, "no truth" if name == "truth" else "blown up"))

    return figure, update


def _film_lines(window: View, rows: Mapping[str, Frames], sampled: Sequence[NDArray[np.float64]]) -> Film:
    (axis,) = window.axes
    figure = blank(6.0, 3.2)
    ax = figure.subplots()
    look = lines(name for name in rows if name != "truth") | {"truth": {"color": TRUTH}}
    x, low_high = axis.points.cpu().numpy(), value_range(sampled)
    drawn = {name: ax.plot(x, np.full(len(x), np.nan), label=name, **look[name])[0] for name in rows}
    draw_solid(ax, window)
    room = 0.25 * (low_high[1] - low_high[0]) or 1.0
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(low_high[0] - room, low_high[1] + room)
    ax.set_xlabel(label(axis.name, axis.units))
    ax.set_ylabel(window.title)
    figure.legend(loc="outside right upper")

    def update(lead: int) -> None:
        for name, line in drawn.items():
            line.set_ydata(window.pane(rows[name], lead))

    return figure, update
