"""Equations to solve, one a file: they make data sets and have no weights."""

from physml.solvers.kolmogorov2d import Kolmogorov2D
from physml.solvers.solver import Solver

__all__ = ["Kolmogorov2D", "Solver"]
