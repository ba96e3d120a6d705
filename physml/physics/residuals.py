r"""How well consecutive frames obey an equation: the two-dimensional vorticity transport equation.

.. math:: \partial_t\omega + u\cdot\nabla\omega - \nu\nabla^2\omega + \mu\,\omega - f = 0, \qquad f = -nA\cos(ny)

It needs no pressure. The time derivative is the second-order central difference over two frame intervals,
:math:`(\omega_{t+1} - \omega_{t-1})/2\Delta t`; space derivatives are those of :mod:`physml.physics.derivatives`
(:func:`~physml.physics.derivatives.stencil` names them). Frames of an exact solution therefore have a residual too, of
the size of the discarded :math:`\frac16\Delta t^2\,\partial_t^3\omega`, which grows with the frame interval: compute
the residual of the reference as well and read the two together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from physml.fields import Grid
from physml.physics import derivatives, kinematics
from physml.physics.balances import mean
from physml.physics.forcing import kolmogorov_vorticity_forcing, per_sample


def vorticity_transport_terms(
    values: Tensor,
    names: Sequence[str],
    grid: Grid,
    dt: float,
    *,
    viscosity: Tensor | float,
    drag: Tensor | float,
    forcing_amplitude: Tensor | float,
    forcing_wavenumber: Tensor | float,
) -> dict[str, Tensor]:
    """The terms of the equation at the frames that have one on either side; their sum is the residual.

    Arguments as :func:`vorticity_transport_residual`.

    Returns:
        ``change``, ``advection``, ``viscosity``, ``drag`` and ``forcing``, signs included: ``(B, T - 2, nx, ny)`` each,
        or what broadcasts to it.
    """
    if len(grid.axes) != 2 or values.ndim != 5 or values.shape[1] < 3:
        raise ValueError(
            f"values: got shape {tuple(values.shape)} on {len(grid.axes)} axes; the residual needs (B, T, nx, ny, C) "
            "with three consecutive frames or more: T >= 3."
        )
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    vorticity = kinematics.vorticity(values, names, grid)
    velocity = kinematics.velocity(values[:, 1:-1], names, grid)
    now = vorticity[:, 1:-1]
    slope = derivatives.gradient(now, grid)
    return {
        "change": (vorticity[:, 2:] - vorticity[:, :-2]) / (2 * dt),
        "advection": (velocity * slope).sum(-1),
        "viscosity": -per_sample(viscosity, now) * derivatives.laplacian(now, grid),
        "drag": per_sample(drag, now) * now,
        "forcing": -kolmogorov_vorticity_forcing(grid, forcing_amplitude, forcing_wavenumber, now),
    }


def vorticity_transport_residual(
    values: Tensor,
    names: Sequence[str],
    grid: Grid,
    dt: float,
    *,
    viscosity: Tensor | float,
    drag: Tensor | float,
    forcing_amplitude: Tensor | float,
    forcing_wavenumber: Tensor | float,
) -> Tensor:
    r"""Root mean square of the residual over that of its largest term: zero is exact, one is no better than noise.

    Averaged over :func:`~physml.physics.derivatives.interior` points, two neighbours deep.

    Args:
        values: ``(B, T, nx, ny, C)``, three consecutive frames or more, with a velocity, or a periodic vorticity.
        names: one for each channel.
        grid: two axes, the second of which is y.
        dt: interval between the frames, in the time units of the parameters.
        viscosity: ``nu``; like the others a number, or one per sample ``(B,)``.
        drag: ``mu``.
        forcing_amplitude: ``A`` of the velocity forcing ``A sin(ny) e_x``.
        forcing_wavenumber: ``n``.

    Returns:
        ``(B, T - 2)``, dimensionless, for the frames 1 to T - 2; zero where every term is zero.

    Raises:
        ValueError: with fewer than three frames, or fields that imply no velocity.
    """
    terms = vorticity_transport_terms(
        values,
        names,
        grid,
        dt,
        viscosity=viscosity,
        drag=drag,
        forcing_amplitude=forcing_amplitude,
        forcing_wavenumber=forcing_wavenumber,
    )
    inside = derivatives.interior(grid, width=2)
    residual = torch.stack(torch.broadcast_tensors(*terms.values())).sum(0)

    def rms(term: Tensor) -> Tensor:
        return mean(term.expand_as(residual).square(), grid, inside).sqrt()

    largest = torch.stack([rms(term) for term in terms.values()]).amax(0)
    # Not `largest > 0`: a frame of NaN must stay NaN.
    return torch.where(largest == 0, 0.0, rms(residual) / largest)
