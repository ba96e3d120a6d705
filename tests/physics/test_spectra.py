"""Spectra: Parseval's identity, single waves in their shells, and sums over shells by brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from physml.fields import Axis, Boundary, Grid
from physml.physics import balances, derivatives, spectra

VELOCITY = ("velocity_x", "velocity_y", "velocity_z")


def periodic(shape: tuple[int, ...], lengths: tuple[float, ...]) -> Grid:
    axes = zip("xyz", shape, lengths, strict=False)
    return Grid(tuple(Axis.periodic_uniform(name, n, length) for name, n, length in axes))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def walls(n: int, name: str = "y", stretched: bool = False) -> Axis:
    s = torch.linspace(-1, 1, n, dtype=torch.float64)
    return Axis(name, torch.tanh(1.5 * s) / math.tanh(1.5) if stretched else s, Boundary.WALL, 2.0)


GRIDS = [
    periodic((8,), (3.0,)),
    periodic((7,), (3.0,)),
    periodic((8, 6), (2.0, 5.0)),
    periodic((9, 16), (4.0, 1.0)),
    periodic((6, 5, 8), (1.0, 2.0, 3.0)),
]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_parseval(grid: Grid) -> None:
    names = VELOCITY[: len(grid.axes)]
    values = 0.7 + noise(2, 3, *grid.shape, len(names))
    k, energy = spectra.energy_spectrum(values, names, grid)
    assert energy.shape == (2, 3, len(k))
    # An identity: rounding only.
    torch.testing.assert_close(energy.sum(-1), balances.kinetic_energy(values, names, grid), rtol=1e-13, atol=0)
    space = tuple(range(2, 2 + len(names)))
    _, variance = spectra.variance_spectrum(values, grid)
    torch.testing.assert_close(variance.sum(-1), values.var(space, correction=0), rtol=1e-12, atol=0)
    assert variance[..., 0].abs().max() < 1e-30, "the mean must not count as variance"


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: str(grid.shape))
def test_shells_by_brute_force(grid: Grid) -> None:
    values = noise(*grid.shape, 1)
    k, found = spectra.variance_spectrum(values, grid)
    full = torch.fft.fftn(values[..., 0] - values.mean()).abs().square() / values.numel() ** 2
    spacing = 2 * math.pi / max(axis.length for axis in grid.axes)
    expected = torch.zeros_like(found[0])
    for place in itertools.product(*(range(n) for n in grid.shape)):
        waves = [(i if 2 * i <= n else i - n) for i, n in zip(place, grid.shape, strict=True)]
        radius = math.hypot(*(2 * math.pi * w / axis.length for w, axis in zip(waves, grid.axes, strict=True)))
        expected[round(radius / spacing)] += full[place]
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(k, spacing * torch.arange(len(k), dtype=torch.float64))


def test_a_single_wave_is_in_its_shell() -> None:
    grid = periodic((16, 12), (2 * math.pi, 4 * math.pi))
    x, y = torch.meshgrid(*(axis.points for axis in grid.axes), indexing="ij")
    # |k|^2 = 9 + 4, |k| = 3.61 = 7.21 dk with dk = 1/2: shell 7.
    values = torch.stack([torch.zeros_like(x), 3 * torch.sin(3 * x + 2 * y)], -1)
    k, energy = spectra.energy_spectrum(values, VELOCITY[:2], grid)
    assert k[7] == 3.5
    assert energy[7].item() == pytest.approx(0.5 * 9 / 2, rel=1e-13)
    assert energy.sum() - energy[7] < 1e-28


def test_vorticity_and_velocity_states_agree() -> None:
    grid = periodic((15, 9), (2.0, 3.0))  # odd: no wave is its own conjugate but the mean
    omega = noise(4, *grid.shape)
    omega -= omega.mean((-2, -1), keepdim=True)
    velocity = derivatives.velocity_from_vorticity(omega, grid)
    for spectrum in (spectra.energy_spectrum, spectra.enstrophy_spectrum):
        _, ours = spectrum(omega[..., None], ("vorticity",), grid)
        _, theirs = spectrum(velocity, VELOCITY[:2], grid)
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-16)
    _, enstrophy = spectra.enstrophy_spectrum(velocity, VELOCITY[:2], grid)
    torch.testing.assert_close(enstrophy.sum(-1), 0.5 * omega.square().mean((-2, -1)), rtol=1e-12, atol=0)


def test_enstrophy_is_k_squared_times_energy() -> None:
    grid = periodic((8, 8, 8), (2 * math.pi,) * 3)
    x = grid.axes[0].points[:, None, None].expand(8, 8, 8)
    # A helical (Beltrami) wave, curl u = 2 u, at k = 2 exactly.
    u = torch.stack([torch.zeros_like(x), torch.sin(2 * x), torch.cos(2 * x)], -1)
    torch.testing.assert_close(derivatives.vorticity(u, grid), 2 * u, rtol=0, atol=1e-13)
    _, energy = spectra.energy_spectrum(u, VELOCITY, grid)
    _, enstrophy = spectra.enstrophy_spectrum(u, VELOCITY, grid)
    assert enstrophy[2].item() == pytest.approx(4 * energy[2].item(), rel=1e-13)
    assert energy[2].item() == pytest.approx(0.5, rel=1e-13)


def test_hann_window_keeps_the_level() -> None:
    grid = Grid((walls(64),))
    constant = torch.full((64, 1), 3.0, dtype=torch.float64)
    _, energy = spectra.energy_spectrum(constant, VELOCITY[:1], grid)
    assert energy.sum().item() == pytest.approx(4.5, rel=1e-13)  # the window has a mean square of one
    y = grid.axes[0].points
    wave = torch.sin(2 * math.pi * 10.5 / 2.0 * y)[:, None]  # ten and a half waves: does not close on itself
    _, energy = spectra.energy_spectrum(wave, VELOCITY[:1], grid)
    assert energy.sum().item() == pytest.approx(
        0.25, rel=0.02
    )  # half of sin^2, up to how the window cuts the last wave
    assert energy[9:13].sum() > 0.99 * energy.sum(), "leakage"
    # Without a window a tenth of a percent would not do: the jump at the ends falls off as k^-2.
    assert energy[20:].sum() < 1e-5 * energy.sum()


def test_a_stretched_axis_is_averaged_over() -> None:
    # The averaged axis is the longer one, which must not set the width of the shells.
    grid = Grid((Axis.periodic_uniform("x", 16, 1.0), walls(33, stretched=True)))
    x, y = torch.meshgrid(*(axis.points for axis in grid.axes), indexing="ij")
    values = torch.stack([(1 - y**2) * torch.sin(6 * math.pi * x), torch.zeros_like(x)], -1)
    k, energy = spectra.energy_spectrum(values, VELOCITY[:2], grid)
    torch.testing.assert_close(k, 2 * math.pi * torch.arange(9, dtype=torch.float64))
    assert energy[3].item() == pytest.approx(balances.kinetic_energy(values, VELOCITY[:2], grid).item(), rel=1e-13)
    assert energy.sum() - energy[3] < 1e-28


def test_solid_points_count_as_zero() -> None:
    grid = periodic((8, 8), (1.0, 1.0))
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[2:4, 5:] = False
    values = noise(8, 8, 2)
    _, expected = spectra.energy_spectrum(torch.where(mask[..., None], values, 0.0), VELOCITY[:2], grid)
    holes = torch.where(mask[..., None], values, math.nan)
    _, found = spectra.energy_spectrum(holes, VELOCITY[:2], Grid(grid.axes, mask))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    _, variance = spectra.variance_spectrum(holes, Grid(grid.axes, mask))
    # The mean is that of the fluid: what is left in shell zero is the mean of a field that is zero in the solid.
    assert variance[:, 0].max() < 1e-30
    assert variance.isfinite().all()


def test_shell_limit() -> None:
    assert spectra.shell_limit(periodic((64, 64), (2 * math.pi,) * 2)) == 21  # 2/3 of 32 = 21.3
    assert spectra.shell_limit(periodic((48, 48), (1.0, 1.0))) == 16  # 2/3 of 24, exactly
    assert spectra.shell_limit(periodic((64, 32), (1.0, 1.0))) == 10  # 2/3 of 16 = 10.7
    assert spectra.shell_limit(periodic((64, 64), (2.0, 1.0))) == 21  # the long axis has k_max = 32 dk
    assert spectra.shell_limit(Grid((Axis.periodic_uniform("x", 16, 1.0), walls(99, stretched=True)))) == 5


def test_single_precision_and_bfloat16() -> None:
    grid = periodic((16, 16), (1.0, 1.0))
    values = noise(16, 16, 2)
    _, expected = spectra.energy_spectrum(values, VELOCITY[:2], grid)
    _, single = spectra.energy_spectrum(values.float(), VELOCITY[:2], grid)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=0)  # white noise: every shell is filled
    assert spectra.energy_spectrum(values.bfloat16(), VELOCITY[:2], grid)[1].dtype == torch.float32


def test_errors_say_what_to_do() -> None:
    grid = periodic((8, 8), (1.0, 1.0))
    with pytest.raises(ValueError, match=r"names: got \['pressure'\]"):
        spectra.energy_spectrum(torch.zeros(8, 8, 1), ("pressure",), grid)
    with pytest.raises(ValueError, match="none of the axes y is uniform"):
        spectra.variance_spectrum(torch.zeros(9, 1), Grid((walls(9, stretched=True),)))
    channel = Grid((grid.axes[0], walls(8)))
    with pytest.raises(ValueError, match=r"uniform periodic axes .*Store the velocity"):
        spectra.energy_spectrum(torch.zeros(8, 8, 1), ("vorticity",), channel)
