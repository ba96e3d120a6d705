"""Distances between predicted and wanted frames, ``(B, T, *space, C)`` in network units, as one number."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Grid


class Loss(Configured, nn.Module):
    """A distance; points inside obstacles never count."""

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, grid: Grid) -> Tensor:
        """A scalar."""


class RelativeL2(Loss):
    """``mean_B sqrt(sum (x - y)^2 / max(sum y^2, floor))``, sums over frames, fluid points and fields of a sample.

    Args:
        floor: smallest denominator per sample; only matters for a target that is zero everywhere.
    """

    def __init__(self, *, floor: float = 1e-5) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, prediction: Tensor, target: Tensor, grid: Grid) -> Tensor:
        error, size = (prediction - target).float().square(), target.float().square()
        if grid.mask is not None:
            fluid = grid.mask[..., None]
            error, size = error * fluid, size * fluid
        over = tuple(range(1, error.ndim))
        ratio = error.sum(over) / size.sum(over).clamp(min=self.floor)
        # the root has an infinite slope at zero: a perfect sample must not turn the gradient into NaN
        return torch.sqrt(ratio + torch.finfo(ratio.dtype).tiny).mean()


class MeanSquare(Loss):
    """``<(x - y)^2>`` over samples, frames, fluid points and fields."""

    def forward(self, prediction: Tensor, target: Tensor, grid: Grid) -> Tensor:
        error = (prediction - target).float().square()
        if grid.mask is None:
            return error.mean()
        fluid = grid.mask[..., None].expand_as(error[0, 0])
        return (error * fluid).sum() / (fluid.sum() * error.shape[0] * error.shape[1])
