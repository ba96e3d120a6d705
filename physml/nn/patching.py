"""Groups of neighbouring points as one token, on grids of any dimension."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from physml.fields import Axis, Grid


def coarse(grid: Grid, patch: int) -> Grid:
    """The grid of patch centres; a patch weighs what its points weigh."""
    if patch == 1:
        return grid

    def merge(axis: Axis) -> Axis:
        points, weights = axis.points.reshape(-1, patch), axis.weights.reshape(-1, patch)
        return replace(axis, points=points.mean(dim=1), weights=weights.sum(dim=1))

    return Grid(tuple(merge(axis) for axis in grid.axes))


def gather(x: Tensor, patch: int) -> Tensor:
    """``(B, *space, C)`` to ``(B, *space / patch, patch^D C)``.

    Raises:
        ValueError: where an axis is not a multiple of ``patch``.
    """
    if patch == 1:
        return x
    shape = x.shape[1:-1]
    if any(n % patch for n in shape):
        raise ValueError(
            f"patch: got {patch} for a grid of {tuple(shape)} points; every axis must be a multiple of it."
        )
    d = len(shape)
    x = x.reshape(x.shape[0], *(part for n in shape for part in (n // patch, patch)), x.shape[-1])
    order = [0, *range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 2 * d + 1]
    x = x.permute(order)
    return x.reshape(*x.shape[: d + 1], -1)


def scatter(x: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`gather`."""
    if patch == 1:
        return x
    shape = x.shape[1:-1]
    d = len(shape)
    x = x.reshape(x.shape[0], *shape, *[patch] * d, -1)
    order = [0, *(part for m in range(d) for part in (1 + m, 1 + d + m)), 2 * d + 1]
    return x.permute(order).reshape(x.shape[0], *(n * patch for n in shape), x.shape[-1])
