"""The one interface of every solver that makes a data set of trajectories."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from physml.configured import Configured
from physml.fields import Layout


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
