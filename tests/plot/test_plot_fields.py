"""States beside each other: what stands where, which limits, what is masked."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from physml.fields import Axis, Boundary, Field, Grid, Layout
from physml.plot.fields import cell_edges, compare
from physml.plot.style import OBSTACLE, TRUTH

RNG = np.random.default_rng(1)


def layout(
    *shape: int, mask: torch.Tensor | None = None, fields: tuple[Field, ...] = (Field("vorticity", "1/s"),)
) -> Layout:
    axes = tuple(
        Axis.periodic_uniform(name, n, 2.0 * (index + 1), "m")
        for index, (name, n) in enumerate(zip("xyz", shape, strict=False))
    )
    return Layout(fields, Grid(axes, mask), 0.5, "s")


def states(*shape: int, frames: int = 6) -> np.ndarray:
    return RNG.normal(size=(frames, *shape, 1))


def panels(figure: Figure) -> list[list[Axes]]:
    """The axes of the grid, row by row; colour bars left out."""
    found: dict[int, list[Axes]] = {}
    for ax in figure.axes:
        place = ax.get_subplotspec()
        if place is not None and ax.get_label() != "<colorbar>":
            found.setdefault(place.rowspan.start, []).append(ax)
    return [found[row] for row in sorted(found)]


def bars(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]


def image(ax: Axes) -> Any:
    return ax.get_images()[0]


def test_rows_are_truth_prediction_error_and_columns_are_leads() -> None:
    truth, prediction = states(8, 10), states(8, 10)
    grid = panels(compare(truth, prediction, layout(8, 10), leads=[1, 3, 6]))
    assert [len(row) for row in grid] == [3, 3, 3]
    for row, values in zip(grid, (truth, prediction, prediction - truth), strict=True):
        for ax, lead in zip(row, (1, 3, 6), strict=True):
            np.testing.assert_array_equal(image(ax).get_array().T, values[lead - 1, ..., 0])
    assert [ax.get_title() for ax in grid[0]] == ["t = 0.5 s (lead 1)", "t = 1.5 s (lead 3)", "t = 3 s (lead 6)"]
    assert [row[0].get_ylabel() for row in grid] == ["truth\ny (m)", "prediction\ny (m)", "error\ny (m)"]
    assert {ax.get_xlabel() for ax in grid[-1]} == {"x (m)"}


def test_truth_and_prediction_share_symmetric_limits_and_errors_have_their_own() -> None:
    truth = states(8, 8)
    prediction = truth + 0.1 * states(8, 8)
    figure = compare(truth, prediction, layout(8, 8), leads=[2, 5])
    true, guess, error = panels(figure)
    size = np.abs(truth[[1, 4]]).max()
    wrong = np.abs(prediction - truth)[[1, 4]].max()
    assert {image(ax).get_clim() for ax in true + guess} == {(-size, size)}
    assert {image(ax).get_clim() for ax in error} == {(-wrong, wrong)}
    assert image(true[0]).get_cmap().name != image(error[0]).get_cmap().name
    assert [bar.get_ylabel() for bar in bars(figure)] == [f"error (1/s)\nlimits ±{wrong:.3g}", "vorticity (1/s)"]


def test_a_field_with_one_sign_is_not_centred_at_zero() -> None:
    truth = 300 + states(6, 6)
    figure = compare(truth, truth, layout(6, 6, fields=(Field("temperature", "K"),)), leads=[1])
    assert image(panels(figure)[0][0]).get_clim() == (truth[0].min(), truth[0].max())


def test_an_error_larger_than_the_truth_is_cut_off_with_arrows() -> None:
    truth = states(6, 6)
    figure = compare(truth, {"good": truth, "bad": 100 * truth}, layout(6, 6), leads=[1])
    size = np.abs(truth[0]).max()
    assert image(panels(figure)[-1][0]).get_clim() == (-2 * size, 2 * size)
    # A bar with arrows at both ends has two patches beside the bar itself.
    assert [len(bar._colorbar._extend_patches) for bar in bars(figure)] == [2, 2]


def test_each_prediction_has_a_row_and_an_error_row() -> None:
    truth = states(6, 6)
    grid = panels(compare(truth, {"a": truth + 1, "b": truth}, layout(6, 6), leads=[1, 2]))
    assert [row[0].get_ylabel().split("\n")[0] for row in grid] == ["truth", "a", "b", "error of a", "error of b"]
    np.testing.assert_allclose(image(grid[3][1]).get_array(), 1, rtol=1e-12)  # rounding of one addition
    assert len(panels(compare(None, {"a": truth, "b": truth}, layout(6, 6), leads=[1]))) == 2


def test_the_first_array_axis_points_right_and_the_second_up() -> None:
    state = np.zeros((1, 8, 16, 1))
    state[0, 6, 4] = 1  # x = 6/8 of 2 m, y = 4/16 of 4 m
    ax = panels(compare(state, state, layout(8, 16), leads=[1]))[0][0]
    found = image(ax)
    left, right, bottom, top = found.get_extent()
    row, column = np.unravel_index(found.get_array().argmax(), (16, 8))
    assert found.origin == "lower"
    assert left + (column + 0.5) * (right - left) / 8 == pytest.approx(1.5)
    assert bottom + (row + 0.5) * (top - bottom) / 16 == pytest.approx(1.0)
    assert ax.get_aspect() == 1 and ax.get_xlim() == (left, right) and ax.get_ylim() == (bottom, top)


def test_axes_with_different_units_are_not_drawn_to_scale() -> None:
    axes = (Axis.periodic_uniform("x", 6, 1.0, "m"), Axis.periodic_uniform("y", 6, 1.0, "K"))
    state = states(6, 6)
    ax = panels(compare(state, state, Layout((Field("f"),), Grid(axes), 1.0), leads=[1]))[0][0]
    assert ax.get_aspect() == "auto" and ax.get_title() == "t = 1 (lead 1)"


def test_a_stretched_axis_is_drawn_by_its_coordinates() -> None:
    y = Axis("y", 1 - torch.cos(torch.linspace(0, math.pi, 9, dtype=torch.float64)), Boundary.WALL, 2.0, "m")
    state = states(6, 9)
    plan = Layout((Field("f"),), Grid((Axis.periodic_uniform("x", 6, 2.0, "m"), y)), 1.0)
    mesh = panels(compare(state, state, plan, leads=[1]))[0][0].collections[0]
    assert isinstance(mesh, QuadMesh)
    edges = mesh.get_coordinates()[:, 0, 1]
    points = y.points.numpy()
    np.testing.assert_allclose(edges[1:-1], (points[1:] + points[:-1]) / 2)
    np.testing.assert_array_equal(mesh.get_array().reshape(9, 6), state[0, ..., 0].T)


def test_cells_of_a_periodic_axis_fill_one_period() -> None:
    edges = cell_edges(Axis.periodic_uniform("x", 7, 3.0))
    assert edges[-1] - edges[0] == pytest.approx(3.0) and len(edges) == 8


def test_obstacles_are_grey_in_every_panel() -> None:
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[2:4, 1:3] = False
    state = states(8, 6)
    figure = compare(state, state, layout(8, 6, mask=mask), leads=[1, 2])
    FigureCanvasAgg(figure).draw()
    for ax in (ax for row in panels(figure) for ax in row):
        (solid,) = [item for item in ax.collections if item.get_label() == "obstacle"]
        drawn = np.ma.getmaskarray(np.ma.masked_invalid(solid.get_array())).reshape(6, 8)
        np.testing.assert_array_equal(drawn, mask.numpy().T)
        shown = solid.get_facecolors().reshape(6, 8, 4)[~drawn]
        np.testing.assert_array_equal(shown, np.tile(to_rgba(OBSTACLE), (4, 1)))
        np.testing.assert_array_equal(np.ma.getmaskarray(image(ax).get_array()), ~mask.numpy().T)


def test_one_dimension_is_lines_with_errors_below() -> None:
    truth = states(16)
    x = np.arange(16) / 8
    top, bottom = panels(compare(truth, {"a": truth + 1, "b": truth}, layout(16), leads=[2, 3]))
    assert len(top) == len(bottom) == 2
    lines = {line.get_label(): line for line in top[1].get_lines()}
    assert list(lines) == ["truth", "a", "b"] and lines["truth"].get_color() == TRUTH
    np.testing.assert_array_equal(lines["truth"].get_ydata(), truth[2, :, 0])
    np.testing.assert_allclose(lines["a"].get_xdata(), x)
    errors = bottom[1].get_lines()
    np.testing.assert_allclose(errors[0].get_ydata(), 1, rtol=1e-12)  # rounding of one addition
    assert errors[0].get_color() == lines["a"].get_color() != lines["b"].get_color()
    assert top[0].get_ylabel() == "vorticity (1/s)" and bottom[0].get_ylabel() == "error (1/s)"
    assert bottom[0].get_xlabel() == "x (m)"


def test_one_dimension_with_an_obstacle() -> None:
    mask = torch.ones(8, dtype=torch.bool)
    mask[3:5] = False
    truth = states(8)
    figure = compare(truth, truth, layout(8, mask=mask), leads=[1])
    for ax in (row[0] for row in panels(figure)):
        assert [item.get_label() for item in ax.collections] == ["obstacle"]
    shown = panels(figure)[0][0].get_lines()[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(shown), ~mask.numpy())


def test_three_dimensions_are_the_middle_slice_and_say_so() -> None:
    truth = states(6, 4, 8)
    figure = compare(truth, truth, layout(6, 4, 8), leads=[1])
    assert figure.get_suptitle() == "slice z = 3 m"  # point 4 of 8 on 6 m
    np.testing.assert_array_equal(image(panels(figure)[0][0]).get_array().T, truth[0, :, :, 4, 0])


def test_what_is_missing_is_said() -> None:
    truth, prediction = states(6, 6), states(6, 6)
    prediction[3:] = np.nan
    grid = panels(compare(truth[:5], prediction, layout(6, 6), leads=[1, 4, 6]))
    said = [[ax.texts[0].get_text() for ax in row] for row in grid]
    assert said == [["", "", "no truth"], ["", "blown up", "blown up"], ["", "blown up", "no truth"]]
    true, guess, _ = grid
    assert image(true[0]).get_clim() == image(guess[1]).get_clim()


def test_only_the_frames_shown_are_read() -> None:
    class Slow:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int, /) -> torch.Tensor:
            self.read.append(index)
            return torch.ones(4, 4, 1, requires_grad=True)

    truth, prediction = Slow(), Slow()
    compare(truth, prediction, layout(4, 4), leads=[1, 700])
    assert truth.read == prediction.read == [0, 699]


@pytest.mark.parametrize("shape", [(16,), (12, 12), (24, 6), (6, 24), (40, 6, 4)])
def test_letters_are_readable_and_panels_are_equal(shape: tuple[int, ...]) -> None:
    axes = tuple(Axis.periodic_uniform(name, n, n / 4, "m") for name, n in zip("xyz", shape, strict=False))
    plan = Layout((Field("vorticity", "1/s"),), Grid(axes), 0.5, "s")
    state = states(*shape)
    figure = compare(state, {"FNO": state + 1}, plan)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert texts and min(text.get_fontsize() for text in texts) >= 8
    grid = [ax for row in panels(figure) for ax in row]
    sizes = np.array([ax.get_window_extent().size for ax in grid])
    np.testing.assert_allclose(sizes, sizes[:1].repeat(len(sizes), 0), atol=1.0)  # pixels
    titles = [ax.title.get_window_extent() for ax in panels(figure)[0]]
    assert all(left.x1 <= right.x0 for left, right in pairwise(titles))
    if len(shape) > 1 and axes[0].length <= 8 * axes[1].length:
        width, height = sizes[0]
        assert width / height == pytest.approx(axes[0].length / axes[1].length, rel=0.02)  # whole pixels


def test_refusals() -> None:
    state, plan = states(4, 4), layout(4, 4)
    for named in ({}, {"truth": state}):
        with pytest.raises(ValueError, match=r"prediction: got .* under another name than 'truth'"):
            compare(state, named, plan)
    with pytest.raises(ValueError, match="field: got 'pressure', expected one of vorticity"):
        compare(state, state, plan, field="pressure")
    for leads in ([0], [7], []):
        with pytest.raises(ValueError, match=r"leads: .* from 1 to 6"):
            compare(state, state, plan, leads=leads)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 1\), the layout says \(4, 5, 1\)"):
        compare(state, state, layout(4, 5))
    axes = tuple(Axis.periodic_uniform(name, 2, 1.0) for name in "xyzw")
    with pytest.raises(ValueError, match="4 axes"):
        compare(state, state, Layout((Field("f"),), Grid(axes), 1.0))
