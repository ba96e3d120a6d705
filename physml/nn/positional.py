"""Where a point is, as features that a network can add to its channels."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Axis, Grid


def stretched(axis: Axis) -> Tensor:
    """``x_j n / (n - 1)``: the last point of a periodic axis lands on the first of the next period.

    Published codes place ``n`` points on ``[0, L]`` with both ends included even where the axis is periodic; this
    reproduces their coordinates.
    """
    n = len(axis.points)
    return axis.points * (n / (n - 1)) if axis.periodic and n > 1 else axis.points


class Positions(Configured):
    """A choice of position features; :meth:`build` makes the layer that computes and embeds them."""

    @abstractmethod
    def build(self, axes: int, width: int) -> nn.Module:
        """A module ``grid -> (*space, width)``, broadcastable over a batch."""


class Harmonics(Positions):
    """Sines and cosines that fit the domain: smooth across a periodic boundary, the same at every resolution.

    On a periodic axis ``sin(2 pi k x / L), cos(2 pi k x / L)`` for ``k = 1..most``, on any other axis the same with
    ``pi k x / L``. The embedding starts at zero, so that a network is translation equivariant until the data teach it
    otherwise.

    Args:
        most: highest wavenumber; forcing at wavenumber n needs ``most >= n``.
    """

    def __init__(self, *, most: int = 8) -> None:
        if most < 1:
            raise ValueError(f"most: got {most}, expected at least 1; leave positions out (null) for none.")
        self.most = most

    def build(self, axes: int, width: int) -> nn.Module:
        return _Harmonics(self.most, axes, width)


class _Harmonics(nn.Module):
    def __init__(self, most: int, axes: int, width: int) -> None:
        super().__init__()
        self.most = most
        self.embed = nn.ParameterList(torch.zeros(2 * most, width) for _ in range(axes))

    def forward(self, grid: Grid) -> Tensor:
        total: Tensor | float = 0.0
        for m, (axis, weight) in enumerate(zip(grid.axes, self.embed, strict=True)):
            k = torch.arange(1, self.most + 1, device=axis.points.device)
            turns = (axis.points - (0.0 if axis.periodic else axis.points[0])) / axis.length
            phase = (2 if axis.periodic else 1) * torch.pi * turns[:, None] * k
            features = torch.cat([phase.sin(), phase.cos()], dim=-1).to(weight.dtype)
            shape = [1] * len(grid.axes) + [weight.shape[1]]
            shape[m] = len(axis.points)
            total = total + (features @ weight).reshape(shape)
        assert isinstance(total, Tensor)
        return total


class FourierFeatures(Positions):
    """``[sin(2 pi x B), cos(2 pi x B)]`` with fixed Gaussian ``B``, then a linear layer (Tancik et al. 2020, arXiv
    2006.10739).

    The published FactFormer uses these, with end points included on periodic axes too. They do not close on a periodic
    domain, and with a large ``scale`` they alias on coarse grids.

    Args:
        scale: standard deviation of the entries of B, cycles per unit length.
    """

    def __init__(self, *, scale: float = 8.0) -> None:
        self.scale = scale

    def build(self, axes: int, width: int) -> nn.Module:
        return _FourierFeatures(self.scale, axes, width)


class _FourierFeatures(nn.Module):
    frequencies: Tensor

    def __init__(self, scale: float, axes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(axes, width // 2))
        self.embed = nn.Linear(2 * (width // 2), width)

    def forward(self, grid: Grid) -> Tensor:
        points = [stretched(axis).to(self.frequencies.dtype) for axis in grid.axes]
        x = torch.stack(torch.meshgrid(*points, indexing="ij"), dim=-1)
        phase = 2 * torch.pi * x @ self.frequencies
        return self.embed(torch.cat([phase.sin(), phase.cos()], dim=-1))


def rotate(x: Tensor, phase: Tensor) -> Tensor:
    """Turn the pairs ``(x_i, x_{i + d/2})`` by ``phase`` (RoFormer, arXiv 2104.09864, half-split pairing).

    Args:
        x: ``(..., S, d)``.
        phase: ``(..., S, d/2)``, radians.
    """
    a, b = x.chunk(2, dim=-1)
    cos, sin = phase.cos().to(x.dtype), phase.sin().to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
