"""The forecast that nothing changes: the score every other operator has to beat."""

from __future__ import annotations

from torch import Tensor

from physml.fields import Grid, Setting
from physml.operators.operator import Operator


class Persistence(Operator):
    r"""Repeats the last frame of the window, :math:`\hat u(t + k\Delta) = u(t)`.

    It has no parameters, so it is evaluated and never trained. Its output is a state; it therefore belongs with network
    units in which states are predicted and not with those of increments.

    Args:
        channels: number of fields C.
        frames: frames read, T; only the last is used.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D.

    Raises:
        ValueError: where it is to read no frame: there is nothing to repeat.
    """

    def __init__(self, *, channels: int, frames: int = 1, steps: int = 1, axes: int) -> None:
        super().__init__()
        if frames < 1:
            raise ValueError(f"frames: got {frames}, persistence repeats the last frame it reads; give at least 1.")
        self.channels, self.frames, self.steps, self.axes = channels, frames, steps, axes

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``."""
        self.check(window, steps)
        return window[:, -1:].repeat_interleave(steps, dim=1)
