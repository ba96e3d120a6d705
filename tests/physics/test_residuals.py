"""The residual of exact solutions is that of the time difference alone, and of order two."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from physml.fields import Axis, Boundary, Grid
from physml.physics import derivatives
from physml.physics.residuals import vorticity_transport_residual, vorticity_transport_terms

VELOCITY = ("velocity_x", "velocity_y")
UNFORCED = {"forcing_amplitude": 0.0, "forcing_wavenumber": 1}


def square(n: int = 16) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name in "xy"))


def taylor_green(grid: Grid, dt: float, frames: int, viscosity: float, drag: float, wind: float = 0.0) -> Tensor:
    """Velocity ``(1, T, n, n, 2)`` of decaying vortices, carried along x by a uniform wind."""
    x, y = torch.meshgrid(*(axis.points for axis in grid.axes), indexing="ij")
    t = dt * torch.arange(frames, dtype=torch.float64)[:, None, None]
    decay, moved = torch.exp(-(2 * viscosity + drag) * t), x - wind * t
    u = wind + decay * torch.cos(moved) * torch.sin(y)
    return torch.stack([u, -decay * torch.sin(moved) * torch.cos(y)], -1)[None]


def as_vorticity(velocity: Tensor, grid: Grid) -> Tensor:
    return derivatives.vorticity(velocity, grid)[..., None]


@pytest.mark.parametrize("state", ["velocity", "vorticity"])
def test_taylor_green_decay_converges_at_second_order(state: str) -> None:
    grid, found = square(), []
    for dt in (0.2, 0.1):
        values = taylor_green(grid, dt, 3, viscosity=0.3, drag=0.5)
        if state == "vorticity":
            values = as_vorticity(values, grid)
        names = VELOCITY if state == "velocity" else ("vorticity",)
        found.append(vorticity_transport_residual(values, names, grid, dt, viscosity=0.3, drag=0.5, **UNFORCED).item())
        # w decays at the rate r = 1.1, and the central difference finds r (1 + (r dt)^2/6 + ...).
        assert found[-1] == pytest.approx((1.1 * dt) ** 2 / 6, rel=0.05)
    assert math.log2(found[0] / found[1]) == pytest.approx(2, abs=0.05)


def test_advection_is_accounted_for() -> None:
    """Vortices in a wind: now the advection balances the change, again to second order in the frame interval."""
    grid, found = square(), []
    for dt in (0.2, 0.1):
        values = taylor_green(grid, dt, 4, viscosity=0.05, drag=0.0, wind=1.0)
        residual = vorticity_transport_residual(values, VELOCITY, grid, dt, viscosity=0.05, drag=0.0, **UNFORCED)
        assert residual.shape == (1, 2)
        found.append(residual[0, 0].item())
    assert math.log2(found[0] / found[1]) == pytest.approx(2, abs=0.05)


def test_steady_forced_flow_has_none() -> None:
    """u = A sin(ny)/(nu n^2 + mu) e_x: checks the sign of the forcing, and parameters given per sample."""
    grid = square()
    viscosity, drag = torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([0.1, 0.0], dtype=torch.float64)
    amplitude, n = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([2, 3])
    speed = amplitude / (viscosity * n**2 + drag)
    omega = -(n * speed)[:, None, None] * torch.cos(n[:, None, None] * grid.axes[1].points).expand(2, 16, 16)
    values = omega[:, None, ..., None].expand(2, 3, 16, 16, 1)
    given = {"viscosity": viscosity, "drag": drag, "forcing_wavenumber": n}
    residual = vorticity_transport_residual(values, ("vorticity",), grid, 0.1, forcing_amplitude=amplitude, **given)
    assert residual.max() < 1e-12  # an exact balance: rounding only
    # Without the force the two dissipative terms stand alone; viscosity, the larger, sets the scale.
    alone = vorticity_transport_residual(values, ("vorticity",), grid, 0.1, forcing_amplitude=0.0, **given)[:, 0]
    expected = (viscosity * n**2 + drag) / torch.maximum(viscosity * n**2, drag)
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=0)


def test_the_terms_sum_to_the_residual() -> None:
    grid = square(8)
    values = torch.randn(2, 5, 8, 8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = {"viscosity": 0.1, "drag": 0.1, "forcing_amplitude": 1.0, "forcing_wavenumber": 2}
    terms = vorticity_transport_terms(values, ("vorticity",), grid, 0.1, **parameters)
    total = torch.stack(torch.broadcast_tensors(*terms.values())).sum(0)
    size = {name: term.expand_as(total).square().mean((-2, -1)).sqrt() for name, term in terms.items()}
    expected = total.square().mean((-2, -1)).sqrt() / torch.stack(list(size.values())).amax(0)
    residual = vorticity_transport_residual(values, ("vorticity",), grid, 0.1, **parameters)
    torch.testing.assert_close(residual, expected)
    assert set(terms) == {"change", "advection", "viscosity", "drag", "forcing"}


def test_walls_and_solid_are_left_out() -> None:
    """Between walls the differences are exact for a parabolic profile, except where one-sided ones are nested."""
    y = torch.tanh(torch.linspace(-1, 1, 17, dtype=torch.float64)) / math.tanh(1)
    grid = Grid((Axis.periodic_uniform("x", 12, 1.0), Axis("y", y, Boundary.WALL, 2.0)))
    mask = torch.ones(12, 17, dtype=torch.bool)
    mask[5, 8] = False
    grid = Grid(grid.axes, mask)
    # u = 1 - y^2 has w = 2y, no advection, no Laplacian; with drag -mu w it decays: w = 2y exp(-mu t).
    dt, drag = 0.1, 0.5
    decay = torch.exp(-drag * dt * torch.arange(3, dtype=torch.float64))[:, None, None]
    u = decay * (1 - y**2).expand(12, 17)
    values = torch.where(mask[..., None], torch.stack([u, torch.zeros_like(u)], -1), math.nan)[None]
    residual = vorticity_transport_residual(values, VELOCITY, grid, dt, viscosity=0.1, drag=drag, **UNFORCED)
    assert residual.item() == pytest.approx((drag * dt) ** 2 / 6, rel=0.01)


def test_missing_frames_stay_missing_and_nothing_is_zero() -> None:
    grid = square(8)
    values = taylor_green(grid, 0.1, 5, 0.1, 0.1)
    values[:, 4] = math.nan
    residual = vorticity_transport_residual(values, VELOCITY, grid, 0.1, viscosity=0.1, drag=0.1, **UNFORCED)
    assert residual.isnan().tolist() == [[False, False, True]]
    still = torch.zeros(1, 3, 8, 8, 1)
    residual = vorticity_transport_residual(still, ("vorticity",), grid, 0.1, viscosity=0.1, drag=0.1, **UNFORCED)
    assert residual.item() == 0


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 8, 8, 1\) .* T >= 3"):
        vorticity_transport_residual(
            torch.zeros(1, 2, 8, 8, 1), ("vorticity",), square(8), 0.1, viscosity=0.1, drag=0.1, **UNFORCED
        )
