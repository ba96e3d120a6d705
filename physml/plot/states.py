"""States of a data set at a glance: each field at the beginning, in the middle and at the end of a trajectory."""

from __future__ import annotations

import textwrap
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from physml.fields import Layout
from physml.plot.fields import Colours, Pane, View, draw_image, draw_solid, panel_size
from physml.plot.style import PALETTE, blank, label, styled


class Readable(Protocol):
    """What is read of a data set."""

    layout: Layout

    def length(self, trajectory: int) -> int: ...

    def read(self, trajectory: int, start: int, stop: int) -> np.ndarray: ...

    def read_static(self, trajectory: int) -> np.ndarray: ...


@styled
def overview(data: Readable, trajectory: int = 0) -> Figure:
    """Each field at the first, middle and last frame of one trajectory, a row each, with its colour bar and units.

    Frames of a field share their colour limits; a field with both signs is centred at zero. Static fields come last, in
    the first column. Two-dimensional states are drawn as by :func:`physml.plot.fields.compare`: the first array axis to
    the right, of three dimensions the middle slice of the last axis. One-dimensional states are lines.

    Args:
        data: three of its frames are read.
        trajectory: which one.
    """
    layout, last = data.layout, data.length(trajectory) - 1
    frames = sorted({0, last // 2, last})
    states = [data.read(trajectory, frame, frame + 1)[0] for frame in frames]
    rows = [(View.of(layout, name), [_pane(layout, name, state) for state in states]) for name in layout.names]
    still = Layout(layout.static, layout.grid, layout.dt)
    if layout.static:
        fixed = data.read_static(trajectory)
        rows += [(View.of(still, name), [_pane(still, name, fixed)]) for name in still.names]
    lines = len(layout.grid.axes) == 1
    width, height = (2.2, 1.5) if lines else panel_size(max(2, len(frames)), rows[0][0].aspect)
    size = (len(frames) * (width + 0.1) + 1.7, len(rows) * (height + (0.45 if lines else 0.12)) + 1.15)
    figure = blank(*size, "constrained" if lines else "compressed")
    grid = figure.subplots(len(rows), len(frames), squeeze=False, sharex=True, sharey="row" if lines else True)
    for column, frame in enumerate(frames):
        grid[0, column].set_title(f"frame {frame}\n{rows[0][0].time(frame)}")
    for (window, panes), axes in zip(rows, grid, strict=True):
        colours = Colours.of_states(panes)
        for ax, pane in zip(axes, panes, strict=False):
            if lines:
                ax.plot(window.axes[0].points.cpu().numpy(), pane, color=PALETTE[0])
                draw_solid(ax, window)
            else:
                made = draw_image(ax, window, pane, colours)
        for ax in axes[len(panes) :]:
            ax.set_axis_off()
        field, second = window.layout.fields[window.channel], window.axes[-1]
        axes[0].set_ylabel(
            _fitted(field.name, field.units, height) if lines else _fitted(second.name, second.units, height)
        )
        if not lines:
            figure.colorbar(made, ax=axes, label=_fitted(field.name, field.units, height), pad=0.02, aspect=12)
    for ax in grid[-1]:
        if ax.axison:
            ax.set_xlabel(label(rows[0][0].axes[0].name, rows[0][0].axes[0].units))
    whole = f"trajectory {trajectory}"
    figure.suptitle(", ".join(filter(None, [whole, rows[0][0].where])))
    return figure


def _fitted(name: str, units: str, height: float) -> str:
    """A label on as many lines as it needs beside a panel so many inches high."""
    whole, room = label(name, units), max(8, int(13 * height))
    if len(whole) <= room:
        return whole
    return "\n".join([*textwrap.wrap(label(name, ""), room), *([f"({units})"] if units else [])])


def _pane(layout: Layout, name: str, state: np.ndarray) -> Pane:
    return View.of(layout, name).pane(state[None], 1)
