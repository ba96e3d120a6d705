from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from physml.fields import Axis, Batch, Boundary, Field, Grid, GridField, Layout, Setting


def test_weights_of_a_periodic_axis_sum_to_its_length() -> None:
    points = torch.tensor([0.1, 0.5, 0.6, 2.0], dtype=torch.float64)
    axis = Axis("x", points, Boundary.PERIODIC, 3.0)
    assert math.isclose(float(axis.weights.sum()), 3.0, rel_tol=1e-12)  # the cells tile the circle, up to rounding
    assert not axis.uniform


@given(n=st.integers(1, 50), length=st.floats(0.1, 100))
def test_a_uniform_axis_has_equal_weights(n: int, length: float) -> None:
    axis = Axis.periodic_uniform("x", n, length)
    torch.testing.assert_close(axis.weights, torch.full((n,), length / n, dtype=torch.float64))
    assert axis.uniform


def test_weights_of_a_bounded_axis_integrate_a_line_exactly() -> None:
    points = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)  # cell centres of ten cells of [0, 1]
    axis = Axis("x", points, Boundary.WALL, 1.0)
    assert math.isclose(float((axis.weights * points).sum()), 0.5, rel_tol=1e-12)  # midpoint rule is exact for lines


@pytest.mark.parametrize(
    ("points", "boundary", "message"),
    [
        ([0.0, 1.0, 1.0], Boundary.OPEN, "rise strictly"),
        ([1.0, 0.0], Boundary.OPEN, "rise strictly"),
        ([0.0, 1.0, 2.0], Boundary.PERIODIC, "must not repeat its end point"),
    ],
)
def test_bad_axes_are_refused(points: list[float], boundary: Boundary, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Axis("x", torch.tensor(points), boundary, 2.0)


def test_values_of_another_shape_are_refused() -> None:
    grid = Grid((Axis.periodic_uniform("x", 4, 1.0), Axis.periodic_uniform("y", 6, 1.0)))
    with pytest.raises(ValueError, match=r"expected \(B, T, 4, 6, 2\)"):
        GridField(torch.zeros(1, 1, 6, 4, 2), grid, ("u", "v"))
    with pytest.raises(ValueError, match="mask"):
        Grid(grid.axes, torch.ones(6, 4, dtype=torch.bool))


def test_a_layout_survives_plain_values() -> None:
    axes = (Axis.periodic_uniform("x", 4, 1.0, "m"), Axis("y", torch.tensor([0.0, 0.3, 1.0]), Boundary.WALL, 1.0))
    mask = torch.rand(4, 3) > 0.5
    layout = Layout((Field("u", "m/s"), Field("p")), Grid(axes, mask), 0.5, "s")
    again = Layout.from_plain(layout.to_plain())
    assert again.difference(layout) is None
    assert again.to_plain() == layout.to_plain()
    assert torch.equal(again.grid.mask, mask)  # type: ignore[arg-type]


def test_differences_are_named() -> None:
    def layout(name: str = "u", n: int = 4, dt: float = 1.0) -> Layout:
        return Layout((Field(name),), Grid((Axis.periodic_uniform("x", n, 1.0),)), dt)

    assert "fields" in str(layout().difference(layout(name="v")))
    assert "grid" in str(layout().difference(layout(n=5)))
    assert "frame interval" in str(layout().difference(layout(dt=2.0)))


def test_static_fields_belong_to_a_layout() -> None:
    def layout(*static: Field) -> Layout:
        return Layout((Field("p"),), Grid((Axis.periodic_uniform("x", 4, 1.0),)), 1.0, static=static)

    rough = layout(Field("permeability", "m^2"), Field("depth"))
    again = Layout.from_plain(rough.to_plain())
    assert again.static == rough.static and again.difference(rough) is None
    assert "static fields ['permeability', 'depth'] against []" in str(rough.difference(layout()))
    assert "units of permeability" in str(rough.difference(layout(Field("permeability"), Field("depth"))))
    # without static fields, the plain values are those of a layout that knows nothing of them
    assert "static" not in layout().to_plain() and Layout.from_plain(layout().to_plain()).static == ()


def test_a_batch_gives_its_setting_in_the_order_of_its_numbers() -> None:
    grid = Grid((Axis.periodic_uniform("x", 3, 1.0),))
    state = GridField(torch.zeros(2, 0, 3, 1), grid, ("p",))
    still = GridField(torch.arange(6.0).reshape(2, 1, 3, 1), grid, ("k",))
    numbers = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([3.0, 4.0])}
    setting = Batch(2, {"state": state, "static": still}, {}, numbers).to(torch.float64).setting
    assert setting.numbers is not None and setting.numbers.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert setting.fields is not None and torch.equal(setting.fields, still.values[:, 0].double())
    assert Batch(2, {"state": state}, {}).setting == Setting()
    assert Setting().to(torch.float64) == Setting()
