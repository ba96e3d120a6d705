"""Geometry without weights, on arrays of the CPU: what is computed once when data are prepared."""

from physml.geometry.surfaces import MeshSurface, Nearest, PointSurface, Surface, degenerate

__all__ = ["MeshSurface", "Nearest", "PointSurface", "Surface", "degenerate"]
