"""What a state is: named fields with units, on a grid of named axes; and the batches made of them.

Every array of a gridded state is laid out channels last, ``(B, T, *space, C)``: sample, frame, one axis for each space
dimension, field. Coordinates, boundary kinds and units travel with the numbers, so that no function has to guess them.
What holds for a whole trajectory, numbers and fields that do not change in time, is its :class:`Setting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor


class Boundary(StrEnum):
    """What lies beyond the ends of an axis."""

    PERIODIC = "periodic"
    """The axis closes on itself: the point after the last is the first, one ``length`` further."""
    WALL = "wall"
    """A solid boundary."""
    OPEN = "open"
    """Fluid passes freely, or nothing is known."""


@dataclass(frozen=True)
class Axis:
    """One space axis.

    Args:
        name: for instance ``x``; the second array axis of a 2-D state is ``y``.
        points: coordinates ``(n,)``, ascending, in ``units``. A periodic axis does not repeat its end point.
        boundary: what lies beyond both ends.
        length: period of a periodic axis, extent of the domain otherwise, in ``units``.
        units: for instance ``m``; an empty string means dimensionless.
        weights: quadrature weights ``(n,)``; the width of the cell around each point where they are not given.
        uniform: whether all weights are equal, to a thousandth; found out where it is not given.

    Raises:
        ValueError: where the points are not a rising sequence, or do not fit in one period.
    """

    name: str
    points: Tensor
    boundary: Boundary
    length: float
    units: str = ""
    weights: Tensor = None  # type: ignore[assignment]  # these two are filled in below and never None afterwards
    uniform: bool = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "boundary", Boundary(self.boundary))
        if self.weights is None:
            object.__setattr__(self, "weights", self._default_weights())
        if self.weights.shape != self.points.shape:
            raise ValueError(
                f"axis {self.name!r}: got {len(self.weights)} weights for {len(self.points)} points; give one each."
            )
        if self.uniform is None:
            mean = self.weights.mean()
            equal = self.weights.is_meta or bool((self.weights - mean).abs().max() <= 1e-3 * mean)
            object.__setattr__(self, "uniform", equal)

    def _default_weights(self) -> Tensor:
        if self.points.ndim != 1 or len(self.points) < 1:
            raise ValueError(
                f"axis {self.name!r}: points must be one-dimensional, got shape {tuple(self.points.shape)}."
            )
        if self.points.is_meta:
            return torch.empty_like(self.points)
        steps = self.points.diff()
        if not bool((steps > 0).all()):
            raise ValueError(f"axis {self.name!r}: coordinates must rise strictly; sort them and drop repeated points.")
        span = float(self.points[-1] - self.points[0]) if len(self.points) > 1 else 0.0
        if self.length <= 0 or (self.periodic and span >= self.length * (1 - 1e-9)):
            raise ValueError(
                f"axis {self.name!r}: length {self.length:g} does not hold points that span {span:g}; "
                "a periodic axis must not repeat its end point."
            )
        return self._cells(steps)

    def _cells(self, steps: Tensor) -> Tensor:
        if self.periodic:
            closing = (self.points[0] + self.length - self.points[-1]).reshape(1)
            after = torch.cat([steps, closing])
            return 0.5 * (after + after.roll(1))
        if len(self.points) == 1:
            return torch.full_like(self.points, self.length)
        after, before = torch.cat([steps, steps[-1:]]), torch.cat([steps[:1], steps])
        return 0.5 * (after + before)

    @property
    def periodic(self) -> bool:
        return self.boundary is Boundary.PERIODIC

    def to(self, *args: Any, **kwargs: Any) -> Axis:
        return replace(self, points=self.points.to(*args, **kwargs), weights=self.weights.to(*args, **kwargs))

    @classmethod
    def periodic_uniform(cls, name: str, n: int, length: float, units: str = "") -> Axis:
        """``x_j = j L / n``: ``n`` points, the end point left out."""
        return cls(name, torch.arange(n, dtype=torch.float64) * (length / n), Boundary.PERIODIC, length, units)


@dataclass(frozen=True)
class Grid:
    """A tensor-product grid, with the part of it that is solid.

    Args:
        axes: one for each space dimension, in array order.
        mask: ``(*space)``, true where there is fluid; ``None`` where there is fluid everywhere.
    """

    axes: tuple[Axis, ...]
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and tuple(self.mask.shape) != self.shape:
            raise ValueError(
                f"mask: got shape {tuple(self.mask.shape)}, the axes give {self.shape}; store it in the axes' order."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.points) for axis in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        return tuple(axis.boundary for axis in self.axes)

    def to(self, *args: Any, **kwargs: Any) -> Grid:
        mask = None if self.mask is None else self.mask.to(*args, **kwargs).bool()
        return Grid(tuple(axis.to(*args, **kwargs) for axis in self.axes), mask)


@dataclass(frozen=True)
class Field:
    """One channel: its name (``vorticity``, ``velocity_x``) and units (``m/s``; empty means dimensionless)."""

    name: str
    units: str = ""


@dataclass(frozen=True)
class Layout:
    """All that must agree between two states before their numbers may be compared.

    Args:
        fields: one for each channel, in order.
        grid: where the values live.
        dt: time between two frames, in ``time_units``.
        time_units: for instance ``s``; empty means dimensionless.
        static: one for each field that does not change in time (permeability, roughness), in order.
    """

    fields: tuple[Field, ...]
    grid: Grid
    dt: float
    time_units: str = ""
    static: tuple[Field, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.fields)

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dictionaries only: fit for JSON and for a checkpoint without pickle.

        The key ``static`` is there only where there are static fields.
        """
        mask = self.grid.mask
        static = [{"name": item.name, "units": item.units} for item in self.static]
        return {
            "fields": [{"name": item.name, "units": item.units} for item in self.fields],
            "axes": [
                {
                    "name": axis.name,
                    "points": axis.points.tolist(),
                    "boundary": str(axis.boundary),
                    "length": float(axis.length),
                    "units": axis.units,
                    "weights": axis.weights.tolist(),
                }
                for axis in self.grid.axes
            ],
            "mask": None if mask is None else mask.to(torch.uint8).tolist(),
            "dt": float(self.dt),
            "time_units": self.time_units,
            **({"static": static} if static else {}),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Layout:
        axes = tuple(
            Axis(
                item["name"],
                torch.tensor(item["points"], dtype=torch.float64),
                Boundary(item["boundary"]),
                item["length"],
                item["units"],
                torch.tensor(item["weights"], dtype=torch.float64),
            )
            for item in plain["axes"]
        )
        mask = plain["mask"]
        grid = Grid(axes, None if mask is None else torch.tensor(mask, dtype=torch.bool))
        fields, static = (tuple(Field(**item) for item in plain.get(key, ())) for key in ("fields", "static"))
        return cls(fields, grid, plain["dt"], plain["time_units"], static)

    def difference(self, other: Layout) -> str | None:
        """The first thing that differs, in words; ``None`` where both describe the same states."""
        for kind, ours, theirs in (
            ("fields", self.fields, other.fields),
            ("static fields", self.static, other.static),
        ):
            if [item.name for item in ours] != [item.name for item in theirs]:
                return f"{kind} {[item.name for item in ours]} against {[item.name for item in theirs]}"
            for a, b in zip(ours, theirs, strict=True):
                if a.units != b.units:
                    return f"units of {a.name} {a.units!r} against {b.units!r}"
        if self.grid.names != other.grid.names:
            return f"axes {list(self.grid.names)} against {list(other.grid.names)}"
        if self.grid.shape != other.grid.shape:
            return f"grid {list(self.grid.shape)} against {list(other.grid.shape)}"
        for mine, its in zip(self.grid.axes, other.grid.axes, strict=True):
            if mine.boundary != its.boundary:
                return f"boundary of {mine.name} {mine.boundary} against {its.boundary}"
            if float((mine.points - its.points).abs().max()) > 1e-6 * abs(mine.length):
                return f"coordinates of {mine.name}"
        if abs(self.dt - other.dt) > 1e-6 * abs(self.dt):
            return f"frame interval {self.dt:g} against {other.dt:g}"
        return None


@dataclass(frozen=True)
class GridField:
    """Values on a grid.

    Args:
        values: ``(B, T, *space, C)``.
        grid: where they live.
        names: one for each channel.
    """

    values: Tensor
    grid: Grid
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if len(shape) != 3 + len(self.grid.axes) or shape[2:-1] != self.grid.shape or shape[-1] != len(self.names):
            raise ValueError(
                f"values: got shape {shape}, expected (B, T, {', '.join(map(str, self.grid.shape))}, "
                f"{len(self.names)}): "
                f"sample, frame, {', '.join(self.grid.names)}, field."
            )

    def to(self, *args: Any, **kwargs: Any) -> GridField:
        return replace(self, values=self.values.to(*args, **kwargs), grid=self.grid.to(*args, **kwargs))

    def pin_memory(self) -> GridField:
        return replace(self, values=self.values.pin_memory())


@dataclass(frozen=True)
class Setting:
    """What holds for a whole trajectory: numbers, and fields that do not change in time.

    Args:
        numbers: ``(B, P)``, one column for each number (Reynolds number, viscosity); ``None`` where there are none.
        fields: ``(B, *space, S)``, static fields (permeability, roughness); ``None`` where there are none.
    """

    numbers: Tensor | None = None
    fields: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> Setting:
        numbers = None if self.numbers is None else self.numbers.to(*args, **kwargs)
        return Setting(numbers, None if self.fields is None else self.fields.to(*args, **kwargs))


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    Args:
        size: number of samples.
        inputs: what is known, by branch name. Gridded trajectories have the branch ``state``, ``(B, T, *space, C)``,
            and the branch ``static``, ``(B, 1, *space, S)``, where they have static fields.
        targets: wanted states, by branch name.
        condition: numbers per sample that hold for the whole trajectory, such as a viscosity, by name, ``(B,)`` each:
            all that the data have, in physical units, or those that the operator reads, in its order and in network
            units (see :meth:`physml.normalise.Normaliser.forward`).
    """

    size: int
    inputs: Mapping[str, GridField]
    targets: Mapping[str, GridField]
    condition: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """``condition``, a column each in its order, and the branch ``static``, in the units of the batch."""
        numbers = torch.stack(tuple(self.condition.values()), dim=-1) if self.condition else None
        static = self.inputs.get("static")
        return Setting(numbers, None if static is None else static.values[:, 0])

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        def move(branches: Mapping[str, Any]) -> dict[str, Any]:
            return {name: item.to(*args, **kwargs) for name, item in branches.items()}

        return Batch(self.size, move(self.inputs), move(self.targets), move(self.condition))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All numbers of the samples, in a fixed order; grids are not among them."""
        fields = (*self.inputs.values(), *self.targets.values())
        return (*(item.values for item in fields), *self.condition.values())

    def pin_memory(self) -> Batch:
        def pin(branches: Mapping[str, Any]) -> dict[str, Any]:
            return {name: item.pin_memory() for name, item in branches.items()}

        return Batch(self.size, pin(self.inputs), pin(self.targets), pin(self.condition))
