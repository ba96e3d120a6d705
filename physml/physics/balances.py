r"""Integrals of a state over its domain, and the energy budget of forced two-dimensional flow.

Means are taken with the quadrature weights of the grid over its fluid points:
:math:`\langle q\rangle = \int q\,\mathrm{d}V / \int \mathrm{d}V`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from physml.fields import Grid
from physml.physics import kinematics
from physml.physics.forcing import kolmogorov_velocity_forcing, per_sample


def mean(values: Tensor, grid: Grid, where: Tensor | None = None) -> Tensor:
    r""":math:`\langle q\rangle` over the fluid points of the grid, with quadrature weights.

    Args:
        values: ``q``, ``(..., *space)``. What it holds in solid points does not matter, not even NaN.
        grid: where the values live.
        where: ``(*space)``, boolean: the points to average over; the fluid points where it is not given.

    Returns:
        ``(...)``; NaN where there is no point to average over.
    """
    dimension = len(grid.axes)
    if values.ndim < dimension or tuple(values.shape[values.ndim - dimension :]) != grid.shape:
        raise ValueError(
            f"values: got shape {tuple(values.shape)}, the grid is {grid.shape}; the space axes come last."
        )
    values = values if values.dtype in (torch.float32, torch.float64) else values.float()
    where = grid.mask if where is None else where
    if where is not None:
        where = where.to(values.device)
        values = torch.where(where, values, 0.0)
        total = mean(where.to(values.dtype), Grid(grid.axes))
    for axis in reversed(grid.axes):
        weights = axis.weights.to(device=values.device, dtype=values.dtype)
        values = (values * (weights / weights.sum())).sum(-1)
    return values if where is None else values / total


def kinetic_energy(values: Tensor, names: Sequence[str], grid: Grid) -> Tensor:
    r""":math:`\frac12\langle|u|^2\rangle` of states ``(..., *space, C)`` with a velocity or a 2-D vorticity."""
    return 0.5 * mean(kinematics.velocity(values, names, grid).square().sum(-1), grid)


def enstrophy(values: Tensor, names: Sequence[str], grid: Grid) -> Tensor:
    r""":math:`\frac12\langle|\omega|^2\rangle` of states ``(..., *space, C)`` with a vorticity or a velocity."""
    squared = kinematics.vorticity(values, names, grid).square()
    return 0.5 * mean(squared if len(grid.axes) == 2 else squared.sum(-1), grid)


@dataclass(frozen=True)
class EnergyBudget:
    r"""Terms of :math:`\mathrm{d}E/\mathrm{d}t = I - D - \varepsilon` per unit mass, ``(B, ...)`` each.

    Args:
        energy: :math:`E = \frac12\langle|u|^2\rangle`.
        input: :math:`I = \langle u\cdot f\rangle`, by the forcing.
        drag: :math:`D = 2\mu E`, lost to the linear drag.
        dissipation: :math:`\varepsilon = 2\nu\,\frac12\langle\omega^2\rangle`, lost to viscosity.
    """

    energy: Tensor
    input: Tensor
    drag: Tensor
    dissipation: Tensor

    @property
    def rate(self) -> Tensor:
        r""":math:`\mathrm{d}E/\mathrm{d}t` that the terms imply."""
        return self.input - self.drag - self.dissipation


def energy_budget(
    values: Tensor,
    names: Sequence[str],
    grid: Grid,
    *,
    viscosity: Tensor | float,
    drag: Tensor | float,
    forcing_amplitude: Tensor | float,
    forcing_wavenumber: Tensor | float,
) -> EnergyBudget:
    r"""Energy budget of two-dimensional flow under viscosity, linear drag and a sinusoidal force.

    .. math:: \partial_t u + u\cdot\nabla u = -\nabla p + \nu\nabla^2 u - \mu u + A\sin(ny)\,e_x

    It holds on two periodic axes, where :math:`\langle|\nabla u|^2\rangle = \langle\omega^2\rangle`.

    Args:
        values: ``(B, ..., nx, ny, C)``, a state that holds a velocity or a vorticity.
        names: one for each channel.
        grid: two periodic axes without obstacle, the second of which is y.
        viscosity: ``nu``; like the others a number, or one per sample ``(B,)``.
        drag: ``mu``.
        forcing_amplitude: ``A``.
        forcing_wavenumber: ``n``, in units of one over those of y.

    Raises:
        ValueError: on any other grid, or where the fields imply no velocity.
    """
    if len(grid.axes) != 2 or not all(axis.periodic for axis in grid.axes) or grid.mask is not None:
        raise ValueError("grid: this budget holds on two periodic axes without obstacle; elsewhere walls do work too.")
    velocity = kinematics.velocity(values, names, grid)
    force = kolmogorov_velocity_forcing(grid, forcing_amplitude, forcing_wavenumber, velocity[..., 0])
    energy = 0.5 * mean(velocity.square().sum(-1), grid)
    return EnergyBudget(
        energy=energy,
        input=mean(velocity[..., 0] * force, grid),
        drag=2 * per_sample(drag, energy) * energy,
        dissipation=2 * per_sample(viscosity, energy) * enstrophy(values, names, grid),
    )
