"""The command ``data stats``: moments and range of the fields of a split."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physml.cli.apart import Lost, apart
from physml.cli.errors import UserError, did_you_mean
from physml.cli.progress import bar

if TYPE_CHECKING:
    from physml.datasets.moments import Moments
    from physml.datasets.trajectories import Accumulator, Trajectories


def stats(arguments: argparse.Namespace) -> int:
    """Measure the fields of a split."""
    path = arguments.path
    with bar(f"measuring {path}") as progress:
        try:
            told = apart(measured, path, arguments.split, arguments.workers, hear=progress, patience=math.inf)
        except Lost as lost:
            raise UserError(f"{path}: {lost.what}", hint=lost.remedy) from None
    print(json.dumps(told, indent=2) if arguments.json else _table(told))
    return 0


def measured(path: Path | str, split: str, workers: int, say: Callable[[int, int], None]) -> dict[str, Any]:
    """What a split holds, in plain values."""
    from physml.datasets import open_trajectories

    data = open_trajectories(path)
    if split not in data.segments:
        hint = did_you_mean(split, data.segments)
        raise UserError(f"no split {split!r}", expected=f"one of {', '.join(data.segments)}", hint=hint)
    return _told(data, split, data.gathered(split, workers=workers, progress=say))


def _told(data: Trajectories, split: str, found: Accumulator) -> dict[str, Any]:
    """What was measured, in plain values."""
    layout, moments = data.layout, found.statistics(data.parameters)
    assert found.states is not None
    rise = found.increments
    rows = _of(found.states) | ({} if rise is None else {"increment_std": rise.std.tolist()})
    return {
        "name": data.name,
        "path": data.path,
        "split": split,
        "frames": found.frames,
        "fields": _columns(layout.fields, rows),
        "static": _columns(layout.static, {} if found.static is None else _of(found.static)),
        "energy": moments.energy,
        "parameters": {
            name: {"mean": mean, "std": moments.number_std[name]} for name, mean in moments.number_mean.items()
        },
    }


def _of(moments: Moments) -> dict[str, list[float]]:
    """Of each field; a constant has the deviation 0 here, while training takes its scale as 1."""
    names = {"mean": "mean", "std": "std", "rms": "rms", "min": "low", "max": "high"}
    return {name: getattr(moments, attribute).tolist() for name, attribute in names.items()}


def _columns(fields: Any, rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        item.name: {"units": item.units, **{name: values[index] for name, values in rows.items()}}
        for index, item in enumerate(fields)
    }


def _table(told: dict[str, Any]) -> str:
    names = ["mean", "std", "increment_std", "rms", "min", "max"]
    lines = [f"{told['name']} ({told['path']}), split {told['split']}, {told['frames']} frames", ""]
    rows = [["", "units", *names]]
    for title, part in (("", told["fields"]), ("static ", told["static"]), ("parameter ", told["parameters"])):
        for field, values in part.items():
            numbers = [f"{values[name]:.6g}" if name in values else "" for name in names]
            rows.append([title + field, values.get("units") or ("1" if title != "parameter " else ""), *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
        cells += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", f"largest energy of a frame: {told['energy']:.6g}"])
