"""An operator that takes and returns physical units."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from physml.fields import Field, Grid, Layout, Setting
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

    Raises:
        ValueError: where they do not fit together.
    """

    def __init__(self, operator: Operator, normaliser: Normaliser) -> None:
        super().__init__()
        self.operator, self.normaliser = operator, normaliser
        normaliser.allocate(
            operator.channels,
            operator.steps,
            frames=operator.frames,
            static=operator.static,
            condition=operator.condition,
        )
        self.origin: Origin | None = None

    @property
    def frames(self) -> int:
        """Frames that one call reads; 0 for a steady problem."""
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
        statistics = origin.statistics
        self.check_setting(layout.static, statistics.get("number_mean", {}))
        mean, std, rise = (torch.tensor(statistics[name]) for name in ("mean", "std", "increment_std"))
        self.normaliser.learn(mean, std, rise, origin.stride)
        self.normaliser.learn_setting(*(self._moments(statistics, kind) for kind in ("mean", "std")))
        self.origin = origin

    def check_setting(self, static: Sequence[Field], numbers: Collection[str]) -> None:
        """Raise ``ValueError`` where data with these static fields and named numbers lack what the operator reads."""
        operator, name = self.operator, type(self.operator).__name__
        lacking = [wanted for wanted in operator.condition if wanted not in numbers]
        if lacking:
            raise ValueError(
                f"operator: {name} reads the numbers {', '.join(operator.condition)}, but the data have no "
                f"{lacking[0]!r}: they have {', '.join(numbers) or 'no numbers'}. Change the operator's arguments or "
                "the data set."
            )
        if operator.static and operator.static != len(static):
            raise ValueError(
                f"operator: {name} reads static={operator.static} static fields; the data have {len(static)} "
                f"({', '.join(item.name for item in static) or 'none'}). Change the operator's arguments or the data "
                "set."
            )

    def _moments(self, statistics: Mapping[str, Any], kind: str) -> Setting:
        names, static = self.operator.condition, self.operator.static
        numbers = torch.tensor([statistics[f"number_{kind}"][name] for name in names]) if names else None
        return Setting(numbers, torch.tensor(statistics[f"static_{kind}"]) if static else None)

    def predict(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """The next frames, network units in and out: what objectives train."""
        frames = self.normaliser.assemble(window, self.operator(window, grid, steps, setting))
        if grid.mask is None:
            return frames
        return torch.where(grid.mask[..., None], frames, self.normaliser.encode(torch.zeros_like(self.normaliser.mean)))

    def forward(
        self,
        window: Tensor,
        steps: int | None = None,
        grid: Grid | None = None,
        condition: Mapping[str, float | Tensor] | None = None,
        static: Tensor | None = None,
    ) -> Tensor:
        """The next frames in physical units.

        Args:
            window: the last :attr:`frames` states ``(B, T, *space, C)``, physical units, oldest first;
                ``(B, 0, *space, C)`` for an emulator that reads none.
            steps: frames wanted, :attr:`steps` if not given.
            grid: where they live; the training grid if not given.
            condition: numbers that hold for a whole trajectory by name, one each or ``(B,)``, physical units; those
                that the operator does not read are ignored.
            static: fields that do not change in time ``(B, *space, S)``, or ``(*space, S)`` for all samples, physical
                units; ignored where the operator reads none.

        Returns:
            ``(B, steps, *space, C)``, physical units, zero inside obstacles.

        Raises:
            ValueError: where something that the operator reads is missing or has another shape.
        """
        steps = self.steps if steps is None else steps
        if grid is None:
            if self.origin is None:
                raise ValueError("grid: this emulator has not seen data yet, so it knows no grid; pass one.")
            grid = self.origin.layout.grid
        setting = self._setting(window, condition or {}, static)
        self.operator.check(window, steps, setting)
        if tuple(window.shape[2:-1]) != grid.shape:
            raise ValueError(
                f"window: got a grid of {tuple(window.shape[2:-1])} points, the coordinates describe {grid.shape}; "
                "pass the `grid` that belongs to the window."
            )
        grid, kind = grid.to(window.device), self.normaliser.mean.dtype
        setting = self.normaliser.encode_setting(setting)
        frames = self.predict(self.normaliser.encode(window.to(kind)), grid, steps, setting)
        return self.normaliser.decode(frames.to(kind))

    def _setting(self, window: Tensor, condition: Mapping[str, float | Tensor], static: Tensor | None) -> Setting:
        """What the operator reads of it, physical units, for each sample of the window."""
        operator, kind, count = self.operator, self.normaliser.mean.dtype, len(window)
        columns = []
        for name in operator.condition:
            if name not in condition:
                raise ValueError(
                    f"condition: got {', '.join(condition) or 'nothing'}, {type(operator).__name__} reads "
                    f"{', '.join(operator.condition)}; give {name!r} as well."
                )
            column = torch.as_tensor(condition[name]).to(window.device, kind)
            if column.shape not in ((), (count,)):
                raise ValueError(
                    f"condition: got shape {tuple(column.shape)} for {name!r}; give one number, or one for each of "
                    f"{count} samples."
                )
            columns.append(column.expand(count))
        numbers = torch.stack(columns, dim=-1) if columns else None
        if not operator.static or static is None:
            return Setting(numbers)
        static = static.to(window.device, kind)
        return Setting(numbers, static.expand(count, *static.shape) if static.ndim == operator.axes + 1 else static)
