r"""Isotropic spectra: a squared field summed over shells of equal wavenumber.

.. math:: E(k) = \tfrac12 \sum_{\mathbf{k}:\ \mathrm{round}(|\mathbf{k}|/\Delta k)\, =\, k/\Delta k}
    \frac{|\hat{u}(\mathbf{k})|^2}{S^2}, \qquad k_i = \frac{2\pi n_i}{L_i}, \qquad \Delta k = \frac{2\pi}{\max_i L_i}

with S points and unnormalised transforms. The shells hold every wave of the grid, corners included, so that on periodic
axes :math:`\sum_k E(k)` is the mean of the square in physical space (Parseval), for odd sizes and rectangular domains
too.

Axes that are not what a Fourier series wants:

* a uniform axis that is not periodic is multiplied by a Hann window scaled to a mean square of one. The spectrum then
  keeps its level but is smeared over neighbouring shells, and its sum is the energy weighted towards the middle of the
  axis. Prediction and truth are treated alike, so that they compare; the absolute values are an estimate;
* a stretched axis is not transformed: the spectrum is that of the other axes, averaged over this one with its
  quadrature weights, as is done for channel flow;
* solid points count as zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from physml.fields import Axis, Grid
from physml.physics import kinematics
from physml.physics.derivatives import on_axis, spectral, stencil, uniform, wavenumbers


def energy_spectrum(values: Tensor, names: Sequence[str], grid: Grid) -> tuple[Tensor, Tensor]:
    r"""Kinetic energy in each shell, :math:`E(k) = \frac12\sum|\hat u|^2`, or :math:`\frac12\sum|\hat\omega|^2/k^2`.

    Args:
        values: ``(..., *space, C)``, a state that holds a velocity, or a 2-D vorticity on periodic axes.
        names: one for each channel.
        grid: where the values live.

    Returns:
        ``k (n,)`` and ``E (..., n)``; the sum over ``n`` is the kinetic energy per unit mass.

    Raises:
        ValueError: where the fields imply no velocity, or no axis can be transformed.
    """
    if kinematics.holds_velocity(names, grid):
        velocity = kinematics.velocity(values, names, grid)
        power, squared = _power(velocity.movedim(-1, 0), grid)
        return _shells(0.5 * power.sum(0), squared, grid)
    vorticity = kinematics.vorticity(values, names, grid)
    if not all(spectral(axis, grid) for axis in grid.axes):
        raise ValueError(
            f"grid: got axes {stencil(grid)}; the energy of a vorticity is |w|^2/k^2 on uniform periodic axes without "
            "obstacle only. Store the velocity, or use enstrophy_spectrum."
        )
    power, squared = _power(vorticity, grid)
    return _shells(torch.where(squared > 0, 0.5 * power / squared.clamp_min(1e-30), 0.0), squared, grid)


def enstrophy_spectrum(values: Tensor, names: Sequence[str], grid: Grid) -> tuple[Tensor, Tensor]:
    r"""Enstrophy in each shell, :math:`Z(k) = \frac12\sum|\hat\omega|^2`.

    Arguments, returns and errors are those of :func:`energy_spectrum`, except that a vorticity may live on any axes.
    A vorticity field is taken as it is; otherwise it is the curl of the velocity. Where the velocity is
    incompressible and the axes periodic, :math:`Z(k) \approx k^2 E(k)`, up to the spread of k within a shell.
    """
    vorticity = kinematics.vorticity(values, names, grid)
    components = vorticity[None] if len(grid.axes) == 2 else vorticity.movedim(-1, 0)
    power, squared = _power(components, grid)
    return _shells(0.5 * power.sum(0), squared, grid)


def variance_spectrum(values: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    r"""Variance of each field in each shell, :math:`P(k) = \sum|\hat q|^2` with the mean of q removed.

    Args:
        values: ``q``, ``(..., *space, C)``.
        grid: where the values live.

    Returns:
        ``k (n,)`` and ``P (..., C, n)``; the sum over ``n`` is the variance of a field, without a factor of one half.

    Raises:
        ValueError: where no axis can be transformed.
    """
    fields = values.movedim(-1, -1 - len(grid.axes))
    space = tuple(range(-len(grid.axes), 0))
    if grid.mask is None:
        mean = fields.mean(space, keepdim=True)
    else:
        mask = grid.mask.to(values.device)
        mean = torch.where(mask, fields, 0.0).sum(space, keepdim=True) / mask.sum()
    power, squared = _power(fields - mean, grid)
    return _shells(power, squared, grid)


def shell_limit(grid: Grid) -> int:
    r"""Index of the last shell that a comparison should use: :math:`\lfloor\frac23 k_{\max}/\Delta k\rfloor`.

    :math:`k_{\max} = \min_i \pi n_i/L_i` is the smallest Nyquist wavenumber. Beyond two thirds of it a pseudo-spectral
    truth was set to zero, and the shells are no longer full.
    """
    axes = _transformed(grid)
    spacing = 2 * math.pi / max(axis.length for axis in axes)
    nyquist = min(math.pi * len(axis.points) / axis.length for axis in axes)
    # The small number keeps an exact multiple, such as 2/3 of 48, from falling to the shell below by rounding.
    return math.floor(2 / 3 * nyquist / spacing + 1e-9)


def _transformed(grid: Grid) -> list[Axis]:
    axes = [axis for axis in grid.axes if uniform(axis) and len(axis.points) > 1]
    if not axes:
        raise ValueError(
            f"grid: none of the axes {', '.join(grid.names)} is uniform, so no Fourier series is defined on them; "
            "interpolate onto a uniform axis first, or skip the spectrum."
        )
    return axes


def _power(fields: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """``|f|^2 / S^2`` of ``(..., *space)`` over the half spectrum, conjugates counted, and ``|k|^2`` of every wave.

    An axis that is not transformed keeps a length of one: the power is its mean over the axis.
    """
    dimension = len(grid.axes)
    kept = _transformed(grid)
    dims = [position - dimension for position, axis in enumerate(grid.axes) if any(axis is one for one in kept)]
    values = fields if fields.dtype in (torch.float32, torch.float64) else fields.float()
    if grid.mask is not None:
        values = torch.where(grid.mask.to(values.device), values, 0.0)
    for dim, axis in zip(dims, kept, strict=True):
        if not axis.periodic:
            values = values * on_axis(_hann(len(axis.points)), dim, values)
    points = math.prod(len(axis.points) for axis in kept)
    power = torch.view_as_real(torch.fft.rfftn(values, dim=dims)).square().sum(-1) / points**2

    # Each wave that the half spectrum leaves out has the power of its conjugate.
    n_last = len(kept[-1].points)
    twice = torch.full((n_last // 2 + 1,), 2.0, dtype=torch.float64)
    twice[0] = 1.0
    if n_last % 2 == 0:
        twice[-1] = 1.0
    power = power * on_axis(twice, dims[-1], power)

    squared = torch.zeros([1] * dimension, dtype=torch.float64)
    for dim, axis in zip(dims, kept, strict=True):
        squared = squared + on_axis(wavenumbers(axis, half=dim == dims[-1]), dim, squared) ** 2
    for dim in set(range(-dimension, 0)) - set(dims):
        weights = grid.axes[dim].weights.double()
        power = (power * on_axis(weights / weights.sum(), dim, power)).sum(dim, keepdim=True)
    return power, squared.to(values.device)


def _shells(power: Tensor, squared: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Sums over shells: ``k (n,)`` and ``(..., n)``, accumulated in float64 so that the order does not matter."""
    spacing = 2 * math.pi / max(axis.length for axis in _transformed(grid))
    shell = (squared.sqrt() / spacing).round().long().flatten()
    count = int(shell.max()) + 1
    flat = power.flatten(-squared.ndim).double()
    sums = torch.zeros(*flat.shape[:-1], count, dtype=flat.dtype, device=flat.device).index_add_(-1, shell, flat)
    k = spacing * torch.arange(count, dtype=power.dtype, device=power.device)
    return k, sums.to(power.dtype)


def _hann(n: int) -> Tensor:
    """Hann window whose mean square is one, from the first point to the last of an axis, neither of them zero."""
    window = torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1]
    return window / window.square().mean().sqrt()
