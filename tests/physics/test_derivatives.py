"""Derivatives are exact where they are spectral, of second order elsewhere, and keep the identities of the calculus."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from physml.fields import Axis, Boundary, Grid
from physml.physics import derivatives


def periodic(shape: tuple[int, ...], lengths: tuple[float, ...]) -> Grid:
    axes = zip("xyz", shape, lengths, strict=False)
    return Grid(tuple(Axis.periodic_uniform(name, n, length) for name, n, length in axes))


def walls(n: int, stretched: bool, length: float = 2.0, name: str = "y") -> Axis:
    """From 0 to ``length``, ends included; stretched, the cells at the walls are a third of the middle ones."""
    s = torch.linspace(-1, 1, n, dtype=torch.float64)
    if stretched:
        s = torch.tanh(1.1 * s) / math.tanh(1.1)
    return Axis(name, 0.5 * length * (s + 1), Boundary.WALL, length)


def coordinates(grid: Grid) -> list[Tensor]:
    return list(torch.meshgrid(*(axis.points for axis in grid.axes), indexing="ij"))


SHAPES = [((16,), (3.0,)), ((15,), (2.0,)), ((12, 9), (2.0, 5.0)), ((8, 6, 7), (1.0, 2.0, 3.0))]


@pytest.mark.parametrize(("shape", "lengths"), SHAPES)
def test_waves_are_differentiated_exactly(shape: tuple[int, ...], lengths: tuple[float, ...]) -> None:
    grid = periodic(shape, lengths)
    k = [2 * math.pi * (m + 1) / length for m, length in enumerate(lengths)]
    phase = sum(wave * x for wave, x in zip(k, coordinates(grid), strict=True))
    f = torch.stack([torch.sin(phase), torch.cos(phase)])
    slope = torch.stack([torch.cos(phase), -torch.sin(phase)])
    # Rounding of a transform of order one, times a wavenumber of at most 20.
    for axis, wave in enumerate(k):
        torch.testing.assert_close(derivatives.derivative(f, axis, grid), wave * slope, rtol=0, atol=1e-12)
    gradient = derivatives.gradient(f, grid)
    assert gradient.shape == (*f.shape, len(shape))
    torch.testing.assert_close(gradient[..., -1], k[-1] * slope, rtol=0, atol=1e-12)
    squared = sum(wave**2 for wave in k)
    torch.testing.assert_close(derivatives.laplacian(f, grid), -squared * f, rtol=0, atol=1e-11)


def test_the_highest_wave_has_no_slope_and_a_curvature() -> None:
    grid = periodic((8,), (2 * math.pi,))
    f = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert derivatives.derivative(f, 0, grid).abs().max() < 1e-14  # the slope at the points is zero by symmetry
    torch.testing.assert_close(derivatives.laplacian(f, grid), -16 * f)


@pytest.mark.parametrize("stretched", [False, True])
def test_differences_are_exact_for_parabolas(stretched: bool) -> None:
    axis = walls(9, stretched)
    grid, y = Grid((axis,)), axis.points
    # Three points determine a parabola; rounding only, also at the ends.
    torch.testing.assert_close(derivatives.derivative(3 * y**2 - y, 0, grid), 6 * y - 1, rtol=0, atol=1e-12)
    torch.testing.assert_close(derivatives.laplacian(3 * y**2 - y, grid), torch.full_like(y, 6), rtol=0, atol=1e-11)
    # The four points at each end determine a cubic.
    ends = derivatives.laplacian(y**3, grid)[[0, -1]]
    torch.testing.assert_close(ends, 6 * y[[0, -1]], rtol=0, atol=1e-11)


def error_on_walls(n: int, stretched: bool, order: int) -> float:
    axis = walls(n, stretched)
    grid, y = Grid((axis,)), axis.points
    f = torch.exp(torch.sin(2 * y))
    slope = 2 * torch.cos(2 * y) * f
    if order == 1:
        return float((derivatives.derivative(f, 0, grid) - slope).abs().max())
    curvature = 2 * torch.cos(2 * y) * slope - 4 * torch.sin(2 * y) * f
    return float((derivatives.laplacian(f, grid) - curvature).abs().max())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("stretched", [False, True])
def test_differences_converge_at_second_order_up_to_the_walls(stretched: bool, order: int) -> None:
    coarse, fine = (error_on_walls(n, stretched, order) for n in (65, 129))
    # Order two is a factor of four; the next term of the error moves it by less than a tenth of an order here.
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("uniform", [True, False])
def test_periodic_differences_converge_at_second_order(uniform: bool) -> None:
    errors = []
    for n in (64, 128):
        x = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
        x = x if uniform else x + 0.3 * torch.sin(x)
        # A uniform periodic axis is differenced only beside an obstacle: here one solid point, far below in y.
        mask = torch.ones(n, 3, dtype=torch.bool)
        mask[0, 0] = False
        grid = Grid((Axis("x", x, Boundary.PERIODIC, 2 * math.pi), walls(3, False)), mask if uniform else None)
        f = torch.sin(x)[:, None].expand(n, 3)
        slope = derivatives.derivative(f, 0, grid)[:, 1]
        errors.append(float((slope - torch.cos(x)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)


def mixed() -> Grid:
    """One periodic axis between a stretched and a uniform one with walls."""
    return Grid((walls(8, True, name="x"), Axis.periodic_uniform("y", 9, 2.0), walls(7, False, name="z")))


@pytest.mark.parametrize("grid", [periodic((8, 6, 9), (1.0, 2.0, 3.0)), mixed()], ids=["periodic", "walls"])
def test_a_curl_has_no_divergence_and_a_gradient_no_curl(grid: Grid) -> None:
    generator = torch.Generator().manual_seed(0)
    potential = torch.randn(2, *grid.shape, 3, generator=generator, dtype=torch.float64)
    curl = derivatives.vorticity(potential, grid)
    assert curl.shape == potential.shape
    # Operators along different axes commute, whatever they are: what is left is the rounding of the terms.
    largest = derivatives.derivative(curl[..., 0], 0, grid).abs().max()
    assert derivatives.divergence(curl, grid).abs().max() < 1e-13 * largest
    slope = derivatives.gradient(potential[..., 0], grid)
    largest = derivatives.derivative(slope[..., 1], 0, grid).abs().max()
    assert derivatives.vorticity(slope, grid).abs().max() < 1e-13 * largest


def test_signs_of_the_vorticity() -> None:
    grid = periodic((8, 8, 8), (2 * math.pi,) * 3)
    _, y, _ = coordinates(grid)
    shear = torch.stack([torch.sin(y), torch.zeros_like(y), torch.zeros_like(y)], -1)
    # omega_z = d_x u_y - d_y u_x = -cos y, alone.
    expected = torch.stack([torch.zeros_like(y), torch.zeros_like(y), -torch.cos(y)], -1)
    torch.testing.assert_close(derivatives.vorticity(shear, grid), expected, rtol=0, atol=1e-13)
    flat = Grid(grid.axes[:2])
    torch.testing.assert_close(
        derivatives.vorticity(shear[:, :, 0, :2], flat), expected[:, :, 0, 2], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("shape", [(8, 12), (9, 7)])
def test_velocity_and_vorticity_are_inverse(shape: tuple[int, int]) -> None:
    grid = periodic(shape, (2.0, 3.0))
    x, y = coordinates(grid)
    kx, ky = 2 * math.pi / 2, 2 * math.pi / 3
    omega = torch.sin(2 * kx * x + ky * y) + torch.cos(kx * x) - 0.5 * torch.sin(2 * ky * y)
    u = derivatives.velocity_from_vorticity(5 + omega, grid)
    torch.testing.assert_close(derivatives.vorticity(u, grid), omega, rtol=0, atol=1e-12)  # the mean is dropped
    assert derivatives.divergence(u, grid).abs().max() < 1e-12
    assert u.mean((0, 1)).abs().max() < 1e-14
    shear = derivatives.velocity_from_vorticity(-torch.cos(ky * y), grid)
    torch.testing.assert_close(shear[..., 0], torch.sin(ky * y) / ky, rtol=0, atol=1e-13)


def test_precision_is_kept_and_half_precision_raised() -> None:
    grid = periodic((8, 8), (1.0, 1.0))
    for given, returned in ((torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32)):
        for found in (derivatives.derivative, derivatives.laplacian):
            arguments = (0, grid) if found is derivatives.derivative else (grid,)
            assert found(torch.ones(8, 8, dtype=given), *arguments).dtype == returned


def test_interior_by_hand() -> None:
    assert derivatives.interior(periodic((4, 5), (1.0, 1.0))).all()
    line = Grid((walls(7, False),))
    assert derivatives.interior(line).tolist() == [False, False, True, True, True, False, False]
    assert derivatives.interior(line, 2).tolist() == [False, False, False, True, False, False, False]
    # A solid point at the seam of a periodic axis shadows its neighbours on both sides.
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[0, 2] = False
    around = derivatives.interior(Grid(periodic((6, 5), (1.0, 1.0)).axes, mask))
    expected = torch.ones(6, 5, dtype=torch.bool)
    for point in ((0, 2), (1, 2), (5, 2), (0, 1), (0, 3)):
        expected[point] = False
    assert torch.equal(around, expected)
    assert mask.sum() == 29, "the mask of the grid must not be changed"


def test_what_is_in_the_solid_does_not_reach_the_interior() -> None:
    grid = Grid((walls(12, True, name="x"), Axis.periodic_uniform("y", 10, 2.0)))
    mask = torch.ones(grid.shape, dtype=torch.bool)
    mask[4:6, 8:] = False
    grid = Grid(grid.axes, mask)
    x, y = coordinates(grid)
    u = torch.stack([x**2, 3 * x * torch.sin(math.pi * y)], -1)
    u = torch.where(mask[..., None], u, math.nan)
    for width, field in ((1, derivatives.divergence(u, grid)), (1, derivatives.laplacian(u[..., 0], grid))):
        assert field[derivatives.interior(grid, width)].isfinite().all()
    twice = derivatives.gradient(derivatives.vorticity(u, grid), grid)
    assert twice[derivatives.interior(grid, 2)].isfinite().all()
    assert not twice[mask].isfinite().all()
    # The x derivative of x^2 is exact inside, whatever the solid holds.
    inside = derivatives.interior(grid)
    slope = derivatives.derivative(u[..., 0], 0, grid)
    torch.testing.assert_close(slope[inside], 2 * x[inside], rtol=0, atol=1e-12)


def test_uniform_means_the_points_not_the_weights() -> None:
    points = torch.arange(8, dtype=torch.float64)
    assert derivatives.uniform(Axis("y", points, Boundary.WALL, 7.0, weights=torch.tensor([0.5, *[1.0] * 6, 0.5])))
    # Points in pairs have cells of equal width.
    assert not derivatives.uniform(Axis("x", points + 0.25 * (points % 2), Boundary.PERIODIC, 8.0))


def test_the_stencil_is_named() -> None:
    channel = Grid((Axis.periodic_uniform("x", 8, 1.0), walls(8, True)))
    words = derivatives.stencil(channel)
    assert words == "x: spectral; y: second-order central differences, one-sided at both ends"
    mask = torch.zeros(8, 8, dtype=torch.bool)
    assert "spectral" not in derivatives.stencil(Grid(channel.axes, mask))
    assert derivatives.stencil(Grid(channel.axes, ~mask)) == words  # an obstacle of no points is none


def test_errors_say_what_to_do() -> None:
    grid = periodic((8, 6), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"values: got shape \(8, 6, 2\).*space axes come last"):
        derivatives.derivative(torch.zeros(8, 6, 2), 0, grid)
    with pytest.raises(ValueError, match="axis: got 2"):
        derivatives.derivative(torch.zeros(8, 6), 2, grid)
    with pytest.raises(ValueError, match="velocity: got 3 components"):
        derivatives.divergence(torch.zeros(8, 6, 3), grid)
    with pytest.raises(ValueError, match="1 axes; a vorticity"):
        derivatives.vorticity(torch.zeros(8, 1), periodic((8,), (1.0,)))
    with pytest.raises(ValueError, match="two uniform periodic axes"):
        derivatives.velocity_from_vorticity(torch.zeros(8, 8), Grid((grid.axes[0], walls(8, False))))
    with pytest.raises(ValueError, match="'y': got 3 points, second-order differences need 4"):
        derivatives.laplacian(torch.zeros(3), Grid((walls(3, False),)))
