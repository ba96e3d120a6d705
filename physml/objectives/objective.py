"""What is minimised: from a batch in network units to named loss terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Batch, Grid


class Predict(Protocol):
    """``(window, grid, steps) -> frames``, network units: :meth:`physml.emulator.Emulator.predict`."""

    def __call__(self, window: Tensor, grid: Grid, steps: int) -> Tensor: ...


class Objective(Configured, nn.Module):
    """Turns a batch into loss terms; the loss is their sum. The only place where the branches of a batch are unpacked.

    Attributes:
        horizon: frames after the window that a training sample must hold.
    """

    horizon: int

    @abstractmethod
    def forward(self, predict: Predict, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """Loss terms.

        Args:
            predict: the operator, in network units.
            batch: in network units.
            step: optimiser steps taken so far, for schedules.

        Returns:
            A scalar for each term.
        """

    def check(self, steps: int) -> None:
        """Raise ``ValueError`` where an operator that predicts at most ``steps`` frames a call cannot be trained so."""

    @property
    @abstractmethod
    def heaviest(self) -> int:
        """A step count at which the objective costs most: what a memory forecast must try."""
