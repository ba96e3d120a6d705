"""An operator that takes and returns physical units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from physml.fields import Grid, Layout
from physml.normalise import Normaliser
from physml.operators.operator import Operator


@dataclass(frozen=True)
class Origin:
    """What an emulator was trained on.

    Args:
        layout: of the training data.
        statistics: of the training split, plain values (see ``datasets.Statistics``).
        stride: stored frames from one frame of the operator to the next.
        fingerprint: of the training data.
    """

    layout: Layout
    statistics: Mapping[str, Any] = field(default_factory=dict)
    stride: int = 1
    fingerprint: str = ""


class Emulator(nn.Module):
    """Operator and normaliser in one: physical window in, physical frames out.

    Args:
        operator: works in network units.
        normaliser: changes units.
    """

    def __init__(self, operator: Operator, normaliser: Normaliser) -> None:
        super().__init__()
        self.operator, self.normaliser = operator, normaliser
        normaliser.allocate(operator.channels, operator.steps)
        self.origin: Origin | None = None

    @property
    def frames(self) -> int:
        """Frames that one call reads."""
        return self.operator.frames

    @property
    def steps(self) -> int:
        """Most frames that one call predicts."""
        return self.operator.steps

    def learn(self, origin: Origin) -> None:
        """Take layout and statistics of the training data.

        Raises:
            ValueError: where the operator was made for other states.
        """
        layout, operator = origin.layout, self.operator
        if len(layout.fields) != operator.channels or len(layout.grid.axes) != operator.axes:
            raise ValueError(
                f"operator: {type(operator).__name__} was made for channels={operator.channels}, axes={operator.axes}; "
                f"the data have {len(layout.fields)} fields ({', '.join(layout.names)}) on "
                f"{len(layout.grid.axes)} axes. "
                "Change the operator's arguments or the data set."
            )
        mean, std, rise = (torch.tensor(origin.statistics[name]) for name in ("mean", "std", "increment_std"))
        self.normaliser.learn(mean, std, rise, origin.stride)
        self.origin = origin

    def predict(self, window: Tensor, grid: Grid, steps: int) -> Tensor:
        """The next frames, network units in and out: what objectives train."""
        frames = self.normaliser.assemble(window, self.operator(window, grid, steps))
        if grid.mask is None:
            return frames
        return torch.where(grid.mask[..., None], frames, self.normaliser.encode(torch.zeros_like(self.normaliser.mean)))

    def forward(self, window: Tensor, steps: int | None = None, grid: Grid | None = None) -> Tensor:
        """The next frames in physical units.

        Args:
            window: the last :attr:`frames` states ``(B, T, *space, C)``, physical units, oldest first.
            steps: frames wanted, :attr:`steps` if not given.
            grid: where they live; the training grid if not given.

        Returns:
            ``(B, steps, *space, C)``, physical units, zero inside obstacles.
        """
        steps = self.steps if steps is None else steps
        if grid is None:
            if self.origin is None:
                raise ValueError("grid: this emulator has not seen data yet, so it knows no grid; pass one.")
            grid = self.origin.layout.grid
        self.operator.check(window, steps)
        if tuple(window.shape[2:-1]) != grid.shape:
            raise ValueError(
                f"window: got a grid of {tuple(window.shape[2:-1])} points, the coordinates describe {grid.shape}; "
                "pass the `grid` that belongs to the window."
            )
        grid = grid.to(window.device)
        frames = self.predict(self.normaliser.encode(window.to(self.normaliser.mean.dtype)), grid, steps)
        return self.normaliser.decode(frames.to(self.normaliser.mean.dtype))
