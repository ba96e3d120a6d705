"""The one interface of every solver that makes a data set of trajectories, and what two solvers need."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from physml.configured import Configured
from physml.fields import Layout

ADVECTION_LIMIT = 2 * math.sqrt(2)
"""How far fourth-order Runge-Kutta is stable along the imaginary axis, where advection has its eigenvalues."""


class Solver(Configured, abc.ABC):
    """Advances batches of states in time and says what of them is stored.

    A state is a dictionary of plain tensors, complex ones included, batch first: saving it and loading it again
    continues the run bit for bit. No method changes the state it is given. A subclass sets the attributes below in its
    constructor.

    Attributes:
        name: of the equation, for instance ``kolmogorov2d``.
        trajectories: how many there are.
        frames: stored frames of each.
        warmup: frame intervals to advance before the first stored frame.
        layout: fields, grid and frame interval of what is stored.
    """

    name: ClassVar[str]
    trajectories: int
    frames: int
    warmup: int
    layout: Layout

    @abc.abstractmethod
    def parameters(self) -> dict[str, list[float]]:
        """Numbers that hold for a whole trajectory, by name: one for each trajectory, in the units of the equation."""

    @abc.abstractmethod
    def initial(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """States of these trajectories before the warm-up, as one batch.

        The state of a trajectory depends on its number and the configured seed alone: not on the others of the batch,
        their count, or the device.

        Raises:
            ValueError: where a number is not one of ``0 ... trajectories - 1``.
        """

    @abc.abstractmethod
    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The states one frame interval later.

        Raises:
            ValueError: where a state is no longer finite or the time step is beyond the limit of stability; it names
                the trajectories.
        """

    @abc.abstractmethod
    def observe(self, state: dict[str, Tensor]) -> Tensor:
        """What is stored of the states: ``(B, *space, C)``, float32, in the order and units of the layout."""

    def run(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> Iterator[Tensor]:
        """Warm up, then yield the stored frames of these trajectories one by one: ``(B, *space, C)`` each."""
        state = self.initial(trajectories, device)
        for _ in range(self.warmup):
            state = self.advance(state)
        for frame in range(self.frames):
            if frame > 0:
                state = self.advance(state)
            yield self.observe(state)


def whole_multiple(label: str, value: float, unit_label: str, unit: float, least: int) -> int:
    """How many units there are in a value, which must be a whole number, to rounding.

    Args:
        label: of the value, for the message.
        value: such as a frame interval.
        unit_label: of the unit, for the message.
        unit: such as a time step.
        least: smallest number allowed.

    Raises:
        ValueError: where the quotient is not a whole number (to a millionth of it), or is less than ``least``.
    """
    if not (0 < unit < math.inf and 0 <= value < math.inf):
        raise ValueError(
            f"{label}, {unit_label}: got {value}, {unit}; expected finite, not negative, {unit_label} positive."
        )
    count = round(value / unit)
    if count < least or abs(value / unit - count) > 1e-6 * max(1, count):
        raise ValueError(
            f"{label}: got {value:g}, which is {value / unit:g} times {unit_label} {unit:g}; expected a whole "
            f"number from {least} up. Change one of the two."
        )
    return count
