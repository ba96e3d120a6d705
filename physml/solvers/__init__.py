"""Equations to solve, one a file: they make data sets and have no weights."""

from physml.solvers.isotropic3d import Isotropic3D
from physml.solvers.kolmogorov2d import Kolmogorov2D
from physml.solvers.smoke3d import Smoke3D
from physml.solvers.solver import Solver

__all__ = ["Isotropic3D", "Kolmogorov2D", "Smoke3D", "Solver"]
