"""The commands ``data convert`` and ``data stats``: a data set read whole, once."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from physml.cli.errors import UserError, did_you_mean
from physml.cli.progress import bar

if TYPE_CHECKING:
    from physml.datasets.moments import Moments
    from physml.datasets.trajectories import Accumulator, Trajectories


def convert(arguments: argparse.Namespace) -> int:
    """Write a data set to a store; the same command again continues an interrupted one."""
    from physml.datasets.convert import convert as write
    from physml.datasets.opening import open_mapped, open_trajectories

    source, out = arguments.path, arguments.store
    if out.suffix != ".zarr":
        raise UserError(f"data convert: DST is {out}", expected="a name that ends in .zarr")
    data = open_mapped(source, arguments.map) if arguments.map else open_trajectories(source)
    with bar(f"converting {data.name}") as progress:
        store = write(data, out, workers=arguments.workers, progress=progress)
    frames = sum(store.length(row) for row in range(store.count))
    print(f"{out}: {store.count} trajectories, {frames} frames, verified, fingerprint {store.fingerprint}")
    return 0


def stats(arguments: argparse.Namespace) -> int:
    """Measure the fields of a split."""
    from physml.datasets import open_trajectories

    data = open_trajectories(arguments.path)
    split = arguments.split
    if split not in data.segments:
        hint = did_you_mean(split, data.segments)
        raise UserError(f"no split {split!r}", expected=f"one of {', '.join(data.segments)}", hint=hint)
    with bar(f"measuring {data.name}") as progress:
        found = data.gathered(split, workers=arguments.workers, progress=progress)
    told = _told(data, split, found)
    print(json.dumps(told, indent=2) if arguments.json else _table(told))
    return 0


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
