"""What is minimised: from a batch in network units to named loss terms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Batch, Grid, Setting


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        step: optimiser steps taken.
        part: of the whole run, 0 to 1.
    """

    step: int = 0
    part: float = 0.0


class Predict(Protocol):
    """``(window, grid, steps, setting) -> frames``, network units: :meth:`physml.emulator.Emulator.predict`."""

    def __call__(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor: ...


class Objective(Configured, nn.Module):
    """Turns a batch into loss terms; the loss is their sum. The only place where the branches of a batch are unpacked.

    Attributes:
        horizon: frames after the window that a training sample must hold.
    """

    horizon: int

    @abstractmethod
    def forward(self, predict: Predict, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        """Loss terms.

        Args:
            predict: the operator, in network units.
            batch: in network units.
            progress: of the run, for schedules.

        Returns:
            A scalar for each term.
        """

    def check(self, steps: int) -> None:
        """Raise ``ValueError`` where an operator that predicts at most ``steps`` frames a call cannot be trained so."""

    @abstractmethod
    def phase(self, progress: Progress) -> tuple[int, ...]:
        """Steps of one phase do the same work on other numbers, so that a recording of one serves all; ``()`` where the
        work never changes.
        """

    @property
    @abstractmethod
    def heaviest(self) -> Progress:
        """When the objective costs most: what a memory forecast must try."""
