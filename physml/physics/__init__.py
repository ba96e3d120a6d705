"""Equations without weights: derivatives, spectra, balances and residuals of gridded states."""

from physml.physics.balances import EnergyBudget, energy_budget, enstrophy, kinetic_energy, mean
from physml.physics.derivatives import (
    derivative,
    divergence,
    gradient,
    interior,
    laplacian,
    stencil,
    velocity_from_vorticity,
    vorticity,
)
from physml.physics.residuals import vorticity_transport_residual, vorticity_transport_terms
from physml.physics.spectra import energy_spectrum, enstrophy_spectrum, shell_limit, variance_spectrum

__all__ = [
    "EnergyBudget",
    "derivative",
    "divergence",
    "energy_budget",
    "energy_spectrum",
    "enstrophy",
    "enstrophy_spectrum",
    "gradient",
    "interior",
    "kinetic_energy",
    "laplacian",
    "mean",
    "shell_limit",
    "stencil",
    "variance_spectrum",
    "velocity_from_vorticity",
    "vorticity",
    "vorticity_transport_residual",
    "vorticity_transport_terms",
]
