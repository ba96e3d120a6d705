"""The one interface of every operator that maps a window of gridded states to the frames that follow."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Grid, Setting


class Operator(Configured, nn.Module):
    """Maps the last ``frames`` states, with what holds for the whole trajectory, to the next ones, in network units.

    A subclass sets the attributes below in its constructor and computes :meth:`forward`; it knows nothing of batches,
    training or files.

    Attributes:
        channels: number of fields C.
        frames: frames read, T; 0 for the operator of a steady problem, which reads static fields or numbers only.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D.
        static: fields read that do not change in time, S.
        condition: names of the P numbers read that hold for a whole trajectory.
    """

    channels: int
    frames: int
    steps: int
    axes: int
    static: int = 0
    condition: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """Predict.

        Args:
            window: ``(B, T, *space, C)``, oldest frame first.
            grid: coordinates, boundary kinds and quadrature weights of the D axes.
            steps: frames wanted, at most :attr:`steps`.
            setting: numbers ``(B, P)``, a column for each name of :attr:`condition`, and fields ``(B, *space, S)``;
                what the operator does not read is ignored.

        Returns:
            ``(B, steps, *space, C)``.
        """

    def check(self, window: Tensor, steps: int, setting: Setting | None = None) -> None:
        """Raise ``ValueError`` where window or setting cannot be read, in words that say what to change."""
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
        given = Setting() if setting is None else setting
        batch, space = window.shape[0], window.shape[2:-1]
        if self.condition:
            self._fits("numbers", given.numbers, (batch, len(self.condition)), f"condition={list(self.condition)}")
        if self.static:
            self._fits("fields", given.fields, (batch, *space, self.static), f"static={self.static} fields")

    def _fits(self, name: str, found: Tensor | None, expected: tuple[int, ...], read: str) -> None:
        if found is None or tuple(found.shape) != expected:
            got = "none" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(
                f"setting.{name}: got {got}, {type(self).__name__} reads {read} for each sample; give a tensor of "
                f"shape {expected}."
            )

    def inputs(self, window: Tensor, setting: Setting | None) -> Tensor:
        """The channels of every point, ``(B, *space, T C + S)``: the fields of each frame, then the static fields."""
        channels = window.movedim(1, -2).flatten(-2)
        if not self.static:
            return channels
        assert setting is not None and setting.fields is not None
        return torch.cat([channels, setting.fields.to(channels.dtype)], dim=-1)
