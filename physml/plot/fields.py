"""States beside each other: truth, predictions and their errors at chosen lead times."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from physml.fields import Axis, Layout
from physml.plot.style import OBSTACLE, TRUTH, blank, label, lines, quantity, styled

Pane = NDArray[np.float64]
"""What one panel shows."""

SIGNED, ONE_SIDED, ERROR = "RdBu_r", "viridis", "PuOr"
"""Colour maps of fields with both signs, of fields with one, and of errors."""

_LONGEST = 8.0
"""Domains longer than so many times their width are not drawn to scale."""

_BEHIND = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1.0}


class Frames(Protocol):
    """States in order: ``frames[i]`` is lead ``i + 1``, ``(*space, C)``. An array, a tensor, or read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@styled
def compare(
    truth: Frames | None,
    prediction: Frames | Mapping[str, Frames],
    layout: Layout,
    *,
    field: str | None = None,
    leads: Sequence[int] | None = None,
) -> Figure:
    """Truth, prediction and error at chosen leads, one column each.

    Truth and predictions share their colour limits, which are those of the truth; a field with both signs is centred at
    zero. All errors share limits of their own, ``±max |error|``, but no more than the range of the truth, so that one
    rollout that leaves it does not hide the others; the bars end in arrows where colours are cut off. Two-dimensional
    states are drawn to scale with the first array axis to the right and the second up; of three-dimensional ones the
    middle slice of the last axis is shown. One-dimensional states are lines, all in one row, with their errors below.

    Args:
        truth: ``(T, *space, C)``, physical units, lead 1 first; ``None`` to show predictions alone.
        prediction: the same shape, or several by name. Frames that are not finite are shown as blown up.
        layout: fields, grid and frame interval of both.
        field: which one; the first if not given.
        leads: which frames after the last known one, from 1; four between the first and the last if not given.

    Raises:
        ValueError: where the field is unknown, or a lead lies outside the prediction.
    """
    predictions = by_name(prediction)
    window = View.of(layout, field)
    shown = chosen_leads(leads, min(map(len, predictions.values())))
    true = None if truth is None else window.panes(truth, shown)
    guesses = {name: window.panes(frames, shown) for name, frames in predictions.items()}
    if len(window.axes) == 1:
        return _compare_lines(window, true, guesses, shown)
    return _compare_images(window, true, guesses, shown)


def by_name(prediction: Frames | Mapping[str, Frames]) -> dict[str, Frames]:
    """Several predictions, or one under the name ``prediction``."""
    named = dict(prediction) if isinstance(prediction, Mapping) else {"prediction": prediction}
    if not named or "truth" in named:
        got = ", ".join(named) or "none"
        raise ValueError(f"prediction: got {got}, expected at least one, under another name than 'truth'.")
    return named


def chosen_leads(leads: Sequence[int] | None, length: int, count: int = 4) -> tuple[int, ...]:
    """The leads asked for, or ``count`` of them spread by their logarithm from the first to the last."""
    if leads is None:
        return tuple(int(lead) for lead in np.unique(np.geomspace(1, length, count).round().astype(int)))
    if not leads or min(leads) < 1 or max(leads) > length:
        raise ValueError(
            f"leads: got {', '.join(map(str, leads)) or 'none'}, expected numbers from 1 to {length}; lead 1 is the "
            "first predicted frame."
        )
    return tuple(leads)


@dataclass(frozen=True)
class View:
    """One field on the axes that are drawn.

    Args:
        layout: of the states.
        channel: which field.
        axes: one or two.
        solid: ``(*space)`` of these axes, true inside obstacles.
        slice: index along the last axis of a 3-D state.
    """

    layout: Layout
    channel: int
    axes: tuple[Axis, ...]
    solid: NDArray[np.bool_] | None
    slice: int | None

    @classmethod
    def of(cls, layout: Layout, field: str | None) -> View:
        if field is not None and field not in layout.names:
            raise ValueError(f"field: got {field!r}, expected one of {', '.join(layout.names)}.")
        axes, mask = layout.grid.axes, layout.grid.mask
        if len(axes) > 3:
            raise ValueError(f"layout: got {len(axes)} axes, figures show one to three; take a slice first.")
        solid = None if mask is None else ~mask.cpu().numpy()
        cut = len(axes[2].points) // 2 if len(axes) == 3 else None
        if solid is not None and cut is not None:
            solid = solid[..., cut]
        return cls(layout, 0 if field is None else layout.names.index(field), axes[:2], solid, cut)

    @property
    def title(self) -> str:
        """The field with its units."""
        field = self.layout.fields[self.channel]
        return label(field.name, field.units)

    @property
    def where(self) -> str:
        """``slice z = 0.5 m``; empty where all is shown."""
        if self.slice is None:
            return ""
        axis = self.layout.grid.axes[2]
        return f"slice {axis.name} = {quantity(float(axis.points[self.slice]), axis.units)}"

    def time(self, lead: int) -> str:
        return f"t = {quantity(lead * self.layout.dt, self.layout.time_units)}"

    def pane(self, frames: Frames, lead: int) -> NDArray[np.float64]:
        """The values to draw; NaN inside obstacles, and everywhere beyond the last frame."""
        shape = tuple(len(axis.points) for axis in self.axes)
        if lead > len(frames):
            return np.full(shape, np.nan)
        frame = frames[lead - 1]
        values = np.asarray(frame.detach().cpu() if hasattr(frame, "detach") else frame)
        expected = (*self.layout.grid.shape, len(self.layout.fields))
        if values.shape != expected:
            raise ValueError(f"frames: one has shape {values.shape}, the layout says {expected}: space, then fields.")
        pane = values[..., self.channel].astype(np.float64)
        if self.slice is not None:
            pane = pane[..., self.slice]
        return pane if self.solid is None else np.where(self.solid, np.nan, pane)

    def panes(self, frames: Frames, leads: Sequence[int]) -> list[Pane]:
        return [self.pane(frames, lead) for lead in leads]

    @property
    def aspect(self) -> float:
        """Width over height of a panel."""
        ratio = self._ratio
        return ratio if self.to_scale else float(np.clip(ratio, 0.5, 2.0))

    @property
    def to_scale(self) -> bool:
        """Whether a length is as long to the right as up: with equal units, unless the domain is a thread."""
        return self.axes[0].units == self.axes[1].units and 1 / _LONGEST <= self._ratio <= _LONGEST

    @property
    def _ratio(self) -> float:
        width, height = (float(edges[-1] - edges[0]) for edges in map(cell_edges, self.axes))
        return width / height


@dataclass(frozen=True)
class Colours:
    """A colour map with its limits."""

    cmap: str
    norm: Normalize

    @classmethod
    def of_states(cls, panes: Sequence[Pane]) -> Colours:
        """Limits of the values; symmetric about zero where both signs matter."""
        low, high = value_range(panes)
        size = max(abs(low), abs(high)) or 1.0
        if min(-low, high) > 0.1 * size:
            return cls(SIGNED, Normalize(-size, size))
        return cls(ONE_SIDED, Normalize(low, high if high > low else low + size))

    @classmethod
    def of_errors(cls, panes: Sequence[Pane], states: Colours) -> Colours:
        """Symmetric limits, at most the range of the states."""
        low, high = value_range(panes)
        assert states.norm.vmin is not None and states.norm.vmax is not None
        size = min(max(abs(low), abs(high)), states.norm.vmax - states.norm.vmin) or 1.0
        return cls(ERROR, Normalize(-size, size))

    def arrows(self, panes: Sequence[Pane]) -> str:
        """Which ends of the bar say that values lie beyond them."""
        low, high = value_range(panes)
        assert self.norm.vmin is not None and self.norm.vmax is not None
        slack = 1e-6 * (self.norm.vmax - self.norm.vmin)
        below, above = low < self.norm.vmin - slack, high > self.norm.vmax + slack
        return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")


def value_range(panes: Sequence[Pane]) -> tuple[float, float]:
    """Smallest and largest finite value; 0 and 0 where there is none."""
    finite = [pane[np.isfinite(pane)] for pane in panes]
    some = [values for values in finite if values.size]
    return (min(float(v.min()) for v in some), max(float(v.max()) for v in some)) if some else (0.0, 0.0)


def cell_edges(axis: Axis) -> NDArray[np.float64]:
    """Halfway between points, and half a spacing beyond the first and the last, ``(n + 1,)``."""
    points = axis.points.cpu().numpy().astype(np.float64)
    if len(points) == 1:
        return points[0] + np.array([-0.5, 0.5]) * axis.length
    middle = 0.5 * (points[1:] + points[:-1])
    return np.concatenate([[2 * points[0] - middle[0]], middle, [2 * points[-1] - middle[-1]]])


def draw_image(ax: Axes, window: View, pane: Pane, colours: Colours) -> ScalarMappable:
    """One pane with obstacles in grey; ``set_array(pane.T)`` of what is returned draws another."""
    x, y = map(cell_edges, window.axes)
    if all(axis.uniform for axis in window.axes):
        extent = (x[0], x[-1], y[0], y[-1])
        made: ScalarMappable = ax.imshow(
            pane.T, origin="lower", extent=extent, cmap=colours.cmap, norm=colours.norm, aspect="auto"
        )
    else:
        made = ax.pcolormesh(x, y, pane.T, cmap=colours.cmap, norm=colours.norm, rasterized=True)
    if window.solid is not None:
        solid = np.where(window.solid, 1.0, np.nan).T
        ax.pcolormesh(x, y, solid, cmap=ListedColormap([OBSTACLE]), rasterized=True, label="obstacle")
    ax.set_aspect("equal" if window.to_scale else "auto")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    return made


def draw_solid(ax: Axes, window: View) -> None:
    """Obstacles of a 1-D state, over the whole height."""
    if window.solid is not None:
        x, height = window.axes[0].points.cpu().numpy(), ax.get_xaxis_transform()
        look: dict[str, Any] = {"color": OBSTACLE, "linewidth": 0, "label": "obstacle"}
        ax.fill_between(x, 0, 1, where=window.solid, step="mid", transform=height, **look)


def missing_text(pane: Pane, solid: NDArray[np.bool_] | None, text: str) -> str:
    """The text, where no fluid point of a pane is finite."""
    return "" if np.isfinite(pane if solid is None else pane[~solid]).any() else text


def _compare_images(
    window: View, true: list[Pane] | None, guesses: Mapping[str, list[Pane]], leads: Sequence[int]
) -> Figure:
    guessed = [pane for row in guesses.values() for pane in row]
    states = Colours.of_states(guessed if true is None or value_range(true) == (0, 0) else true)
    wrong: dict[str, list[Pane]] = {}
    if true is not None:
        for name, row in guesses.items():
            title = "error" if name == "prediction" else f"error of {name}"
            wrong[title] = [guess - pane for guess, pane in zip(row, true, strict=True)]
    error = Colours.of_errors([pane for row in wrong.values() for pane in row], states)
    rows = ({} if true is None else {"truth": true}) | dict(guesses) | wrong

    width, height = panel_size(len(leads), window.aspect)
    flat = height < 0.9
    gap, wide, high = (0.16, 1.45, 2.15) if flat else (0.08, 1.6, 0.75)  # room for labels and bars
    figure = blank(len(leads) * (width + 0.08) + wide, len(rows) * (height + gap) + high, "compressed")
    grid = figure.subplots(len(rows), len(leads), squeeze=False, sharex=True, sharey=True)
    for column, lead in enumerate(leads):
        grid[0, column].set_title(window.time(lead) + ("\n" if width < 1.4 else " ") + f"(lead {lead})")
        grid[-1, column].set_xlabel(label(window.axes[0].name, window.axes[0].units))
        lacking = "" if true is None else missing_text(true[column], window.solid, "no truth")
        for (name, panes), ax in zip(rows.items(), grid[:, column], strict=True):
            draw_image(ax, window, panes[column], error if name in wrong else states)
            why = lacking if name in wrong or name == "truth" else ""
            text = missing_text(panes[column], window.solid, why or "blown up")
            ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")
            if name in wrong and not text and not flat:
                low, high = value_range([panes[column]])
                ax.text(0.03, 0.03, f"max {max(-low, high):.2g}", transform=ax.transAxes, fontsize=8, bbox=_BEHIND)
    for name, ax in zip(rows, grid[:, 0], strict=True):
        axis_label = label(window.axes[1].name, window.axes[1].units)
        if flat:
            ax.set_ylabel(axis_label)
            ax.annotate(
                textwrap.fill(name, 12), (0, 0.5), (-46, 0), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="center", fontsize=9,
            )  # fmt: skip
        else:
            ax.set_ylabel(f"{textwrap.fill(name, max(8, int(height * 11)))}\n{axis_label}")
    split = len(rows) - len(wrong)
    bars = [(states, window.title, [pane for name in list(rows)[:split] for pane in rows[name]], grid[:split])]
    if wrong:
        units = window.layout.fields[window.channel].units
        text = label("error", units) + (", " if flat else "\n") + f"limits ±{float(error.norm.vmax or 0):.3g}"
        bars.append((error, text, [pane for row in wrong.values() for pane in row], grid[split:]))
    for colours, text, panes, part in reversed(bars):
        mappable, extend = ScalarMappable(colours.norm, colours.cmap), colours.arrows(panes)
        if flat:
            figure.colorbar(mappable, ax=grid, label=text, extend=extend, location="bottom", aspect=50, shrink=0.6)
        else:
            figure.colorbar(mappable, ax=part, label=text, extend=extend, aspect=12 * len(part), pad=0.02)
    if window.where:
        figure.suptitle(window.where)
    return figure


def panel_size(columns: int, aspect: float) -> tuple[float, float]:
    """Width and height in inches of one of several panels beside each other."""
    if aspect >= 1:
        width = float(np.clip(6.0 / columns, 1.45 if aspect < 2.5 else 2.3, 2.8 if aspect < 2.5 else 4.5))
        return width, width / aspect
    height = float(np.clip(6.0 / columns / aspect, 1.45, 2.8))
    return max(0.75, height * aspect), height


def _compare_lines(
    window: View, true: list[Pane] | None, guesses: Mapping[str, list[Pane]], leads: Sequence[int]
) -> Figure:
    (axis,) = window.axes
    x = axis.points.cpu().numpy()
    look, rows = lines(guesses), 1 if true is None else 2
    figure = blank(max(3.2, len(leads) * 1.9 + 0.7), 1.7 * rows + 0.8)
    grid = figure.subplots(rows, len(leads), squeeze=False, sharex=True, sharey="row")
    for column, lead in enumerate(leads):
        top = grid[0, column]
        top.set_title(f"{window.time(lead)} (lead {lead})")
        if true is not None:
            top.plot(x, true[column], color=TRUTH, label="truth")
        for name, row in guesses.items():
            top.plot(x, row[column], **look[name], label=name)
            if true is not None:
                grid[1, column].plot(x, row[column] - true[column], **look[name])
        for ax in grid[:, column]:
            draw_solid(ax, window)
        grid[-1, column].set_xlabel(label(axis.name, axis.units))
    grid[0, 0].set_ylabel(window.title)
    _limit_lines(grid[0, 0], true if true is not None else [p for row in guesses.values() for p in row])
    if true is not None:
        field = window.layout.fields[window.channel]
        grid[1, 0].set_ylabel(label("error", field.units))
        for ax in grid[1]:
            ax.axhline(0, color="0.7", linewidth=0.6, zorder=0)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
    return figure


def _limit_lines(ax: Axes, panes: Sequence[Pane]) -> None:
    """Room for half the range of the values on either side: what is far outside does not flatten the rest."""
    low, high = value_range(panes)
    room = 0.5 * (high - low) or 1.0
    bottom, top = ax.get_ylim()
    ax.set_ylim(max(bottom, low - room), min(top, high + room))
