"""A data set as a plain array, ``NAME.npy``, with the mapping file ``NAME.physml.yaml`` that says what it means.

The array is ``(trajectory, time, *space, channel)`` in single precision, to be mapped into memory by whoever reads it.
The mapping file says all that a store does: units, boundaries, lengths, times, parameters, splits and provenance; see
:mod:`physml.datasets.arrays`. Beside them lie ``NAME_static.npy``, ``NAME_mask.npy`` and ``NAME_x.npy`` ... where there
are static fields, an obstacle, and axes whose points are not evenly spaced.

Not stored: own quadrature weights. Splits must be consecutive whole trajectories each, or the same frames of all;
others are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from physml.datasets.arrays import Arrays
from physml.datasets.file_writer import FileLayout, Placed, allocated_npy, ends_lost, told
from physml.datasets.mapping import SUFFIX
from physml.datasets.writing import Plan
from physml.fields import Axis, Field


class NpyFiles(FileLayout):
    """An array and its mapping file."""

    ending = (".npy",)

    def check(self, path: Path, plan: Plan) -> None:
        _split(plan)

    def lost(self, plan: Plan) -> tuple[str, ...]:
        return tuple(what for what in ends_lost(plan.layout) if "weights" in what)

    def allocate(self, folder: Path, path: Path, plan: Plan) -> tuple[Placed, ...]:
        layout, every = plan.layout, tuple(range(plan.count))
        placed = []
        for part, static in ((layout.fields, False), (layout.static, True)):
            if part:
                inside = folder / (f"{path.stem}_static.npy" if static else path.name)
                lead = (plan.count,) if static else (plan.count, plan.frames)
                offset = allocated_npy(inside, (*lead, *layout.grid.shape, len(part)))
                placed.append(Placed(inside, offset, every, tuple(range(len(part))), static))
        return tuple(placed)

    def conclude(self, folder: Path, path: Path, plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> None:
        layout = plan.layout
        for axis in layout.grid.axes:
            if not _even(axis):
                np.save(folder / f"{path.stem}_{axis.name}.npy", axis.points.double().numpy())
        if layout.grid.mask is not None:
            np.save(folder / f"{path.stem}_mask.npy", layout.grid.mask.numpy())
        text = yaml.safe_dump(_mapping(path, plan), sort_keys=False, default_flow_style=None, width=110)
        (folder / f"{path.stem}{SUFFIX}").write_text(text, "utf-8")

    def names(self, path: Path) -> tuple[str, ...]:
        return f"{path.stem}{SUFFIX}", path.name

    def provenance(self, path: Path) -> Mapping[str, Any]:
        found: dict[str, Any] = yaml.safe_load(path.with_name(f"{path.stem}{SUFFIX}").read_text("utf-8"))["provenance"]
        return found

    def opened(self, path: Path) -> Arrays:
        return Arrays(path.with_name(f"{path.stem}{SUFFIX}"))


def _even(axis: Axis) -> bool:
    """Whether the points are those of evenly spaced numbers, to the rounding of doubles."""
    points, n = axis.points.double().numpy(), len(axis.points)
    even = np.linspace(*_ends(axis), n, endpoint=not axis.periodic)
    return bool(np.abs(even - points).max() <= 1e-12 * axis.length)


def _ends(axis: Axis) -> tuple[float, float]:
    first, last = float(axis.points[0]), float(axis.points[-1])
    return first, first + axis.length if axis.periodic else last


def _split(plan: Plan) -> dict[str, Any]:
    """The section ``split``.

    Raises:
        ValueError: where it cannot say what the segments are.
    """
    whole: dict[str, Any] = {"along": "trajectory"}
    timed: dict[str, Any] = {"along": "time"}
    for split, segments in plan.segments.items():
        rows = [segment.trajectory for segment in segments]
        spans = {(segment.start, segment.stop) for segment in segments}
        if spans == {(0, plan.frames)} and rows == list(range(rows[0], rows[0] + len(rows))):
            whole[split] = [rows[0], rows[0] + len(rows)]
        if len(spans) == 1 and rows == list(range(plan.count)):
            timed[split] = list(spans.pop())
    for found in (whole, timed):
        if len(found) == 1 + len(plan.segments):
            return found
    raise ValueError(
        "segments: a mapping file has splits of consecutive whole trajectories, or of the same frames of all "
        "trajectories; write a store."
    )


def _mapping(path: Path, plan: Plan) -> dict[str, Any]:
    """The mapping file, plain values."""
    layout = plan.layout
    names = layout.grid.names
    made: dict[str, Any] = {
        "name": plan.name,
        "file": path.name,
        "dimensions": ["trajectory", "time", *names, "channel"],
        "fields": _channels(layout.fields),
    }
    if layout.static:
        source = {"file": f"{path.stem}_static.npy", "dimensions": ["trajectory", *names, "channel"]}
        made["static"] = {name: {**value, **source} for name, value in _channels(layout.static).items()}
    made["axes"] = {axis.name: _axis(path, axis) for axis in layout.grid.axes}
    if layout.grid.mask is not None:
        made["mask"] = {"file": f"{path.stem}_mask.npy", "array": "", "dimensions": list(names), "marks": "fluid"}
    made["time"] = {"dt": float(layout.dt)} | ({"units": layout.time_units} if layout.time_units else {})
    values = {name: [float(value) for value in plan.parameters[name]] for name in sorted(plan.parameters)}
    made["parameters"] = {name: found[0] if len(set(found)) == 1 else found for name, found in values.items()}
    made["split"], made["provenance"] = _split(plan), told(plan)
    return {key: value for key, value in made.items() if value != {}}


def _channels(fields: tuple[Field, ...]) -> dict[str, dict[str, Any]]:
    return {
        field.name: {"array": "", "channel": place} | ({"units": field.units} if field.units else {})
        for place, field in enumerate(fields)
    }


def _axis(path: Path, axis: Axis) -> dict[str, Any]:
    start, stop = _ends(axis)
    points: dict[str, Any] = {"start": start, "stop": stop, "endpoint": not axis.periodic}
    if not _even(axis):
        points = {"file": f"{path.stem}_{axis.name}.npy", "array": ""}
    units = {"units": axis.units} if axis.units else {}
    return points | {"boundary": str(axis.boundary), "length": float(axis.length)} | units
