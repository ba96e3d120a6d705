"""The one interface of every operator that maps a window of gridded states to the frames that follow."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Grid


class Operator(Configured, nn.Module):
    """Maps the last ``frames`` states to the next ones, all in network units.

    A subclass sets the attributes below in its constructor and computes :meth:`forward`; it knows nothing of batches,
    training or files.

    Attributes:
        channels: number of fields C.
        frames: frames read, T.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D.
    """

    channels: int
    frames: int
    steps: int
    axes: int

    @abstractmethod
    def forward(self, window: Tensor, grid: Grid, steps: int) -> Tensor:
        """Predict.

        Args:
            window: ``(B, T, *space, C)``, oldest frame first.
            grid: coordinates, boundary kinds and quadrature weights of the D axes.
            steps: frames wanted, at most :attr:`steps`.

        Returns:
            ``(B, steps, *space, C)``.
        """

    def check(self, window: Tensor, steps: int) -> None:
        """Raise ``ValueError`` where a window cannot be read, in words that say what to change."""
        if window.ndim != self.axes + 3:
            raise ValueError(
                f"window: got {window.ndim - 3} space axes in shape {tuple(window.shape)}, "
                f"{type(self).__name__} was made for axes={self.axes}."
            )
        if window.shape[1] != self.frames or window.shape[-1] != self.channels:
            raise ValueError(
                f"window: got {window.shape[1]} frames of {window.shape[-1]} fields, "
                f"{type(self).__name__} reads frames={self.frames} of channels={self.channels}."
            )
        if not 1 <= steps <= self.steps:
            raise ValueError(f"steps: got {steps}, {type(self).__name__} predicts 1 to {self.steps} frames a call.")
