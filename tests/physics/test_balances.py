"""Means, energies and the energy budget of states whose integrals are known."""

from __future__ import annotations

import math

import pytest
import torch

from physml.fields import Axis, Boundary, Grid
from physml.physics import balances, derivatives

VELOCITY = ("velocity_x", "velocity_y")


def square(n: int = 16) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name in "xy"))


def test_the_mean_uses_quadrature_weights() -> None:
    nodes, weights = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 4.0, 1.0]).double() / 3
    simpson = Axis("y", nodes, Boundary.WALL, 2.0, weights=weights)
    grid = Grid((Axis.periodic_uniform("x", 4, 1.0), simpson))
    values = (nodes**2 + 0 * grid.axes[0].points[:, None]).expand(5, 4, 3)
    # Simpson's rule is exact for parabolas: the mean of y^2 is 1/3; the plain mean would be 2/3.
    torch.testing.assert_close(balances.mean(values, grid), torch.full((5,), 1 / 3, dtype=torch.float64))


def test_the_mean_is_over_fluid() -> None:
    grid = square(4)
    mask = torch.tensor([[True, False, True, False]] * 4)
    values = torch.where(mask, 2.0, math.nan)
    assert balances.mean(values, Grid(grid.axes, mask)).item() == 2
    assert balances.mean(torch.ones(4, 4), Grid(grid.axes, torch.zeros(4, 4, dtype=torch.bool))).isnan()
    assert balances.mean(torch.eye(4), grid, where=torch.eye(4).bool()).item() == 1
    with pytest.raises(ValueError, match="space axes come last"):
        balances.mean(torch.ones(4, 4, 1), grid)


def test_energy_and_enstrophy_of_known_flows() -> None:
    grid = square()
    x, y = torch.meshgrid(*(axis.points for axis in grid.axes), indexing="ij")
    # Taylor-Green: <u^2 + v^2>/2 = 1/4, omega = -2 cos x cos y up to sign, <omega^2>/2 = 1/2.
    u = torch.stack([torch.cos(x) * torch.sin(y), -torch.sin(x) * torch.cos(y)], -1)
    omega = derivatives.vorticity(u, grid)[..., None]
    for values, names in (
        (u, VELOCITY),
        (omega, ("vorticity",)),
        (torch.cat([omega, u], -1), ("vorticity", *VELOCITY)),
    ):
        assert balances.kinetic_energy(values, names, grid).item() == pytest.approx(0.25, rel=1e-13)
        assert balances.enstrophy(values, names, grid).item() == pytest.approx(0.5, rel=1e-13)
    turned = torch.stack([u[..., 1], u[..., 0]], -1)  # channels are found by name
    assert balances.enstrophy(turned, VELOCITY[::-1], grid).item() == pytest.approx(0.5, rel=1e-13)
    cube = Grid((*grid.axes, Axis.periodic_uniform("z", 4, 1.0)))
    deep = torch.cat([u, torch.zeros(16, 16, 1, dtype=u.dtype)], -1)[:, :, None].expand(16, 16, 4, 3)
    assert balances.enstrophy(deep, (*VELOCITY, "velocity_z"), cube).item() == pytest.approx(0.5, rel=1e-13)


def test_budget_of_steady_shear() -> None:
    """Where force, drag and viscosity balance, u = A sin(ny) / (nu n^2 + mu), the rate is zero."""
    grid = square()
    viscosity = torch.tensor([0.1, 0.02], dtype=torch.float64)
    drag, amplitude, n = 0.1, 2.0, 3
    speed = amplitude / (viscosity * n**2 + drag)
    shear = torch.sin(n * grid.axes[1].points).expand(16, 16)
    u = torch.stack([speed[:, None, None] * shear, torch.zeros(2, 16, 16, dtype=torch.float64)], -1)
    parameters = {"viscosity": viscosity, "drag": drag, "forcing_amplitude": amplitude, "forcing_wavenumber": n}
    for values, names in ((u, VELOCITY), (derivatives.vorticity(u, grid)[..., None], ("vorticity",))):
        budget = balances.energy_budget(values[:, None], names, grid, **parameters)
        assert budget.energy.shape == (2, 1)
        torch.testing.assert_close(budget.input[:, 0], amplitude * speed / 2, rtol=1e-13, atol=0)
        torch.testing.assert_close(budget.drag[:, 0], drag * speed**2 / 2, rtol=1e-13, atol=0)
        torch.testing.assert_close(budget.dissipation[:, 0], viscosity * n**2 * speed**2 / 2, rtol=1e-12, atol=0)
        assert budget.rate.abs().max() < 1e-12 * budget.input.max()


def test_errors_say_what_to_do() -> None:
    grid = square(8)
    parameters = {"viscosity": 0.1, "drag": 0.1, "forcing_amplitude": 1.0, "forcing_wavenumber": 2}
    with pytest.raises(ValueError, match=r"parameter: got shape \(3,\) for 2 samples"):
        balances.energy_budget(torch.zeros(2, 8, 8, 2), VELOCITY, grid, **(parameters | {"drag": torch.ones(3)}))
    wall = Axis("y", grid.axes[1].points, Boundary.WALL, 2 * math.pi)
    with pytest.raises(ValueError, match="two periodic axes"):
        balances.energy_budget(torch.zeros(8, 8, 2), VELOCITY, Grid((grid.axes[0], wall)), **parameters)
    with pytest.raises(ValueError, match=r"names: got \['smoke'\] on 2 axes"):
        balances.kinetic_energy(torch.zeros(8, 8, 1), ("smoke",), grid)
