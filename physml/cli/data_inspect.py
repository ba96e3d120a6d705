"""The command ``data inspect``: what a data set or a rollout holds."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from physml.cli.apart import Lost, apart
from physml.cli.errors import UserError

if TYPE_CHECKING:
    from physml.datasets.remote import Remote
    from physml.datasets.trajectories import Trajectories
    from physml.fields import Axis


def inspect(arguments: argparse.Namespace) -> int:
    """Say what a data set or a rollout holds; of data sets that store no statistics, a few frames are read."""
    path, picture = arguments.path, arguments.picture
    try:
        plain = apart(looked_at, path, arguments.window, picture, arguments.trajectory, patience=arguments.patience)
    except Lost as lost:
        raise UserError(f"{path}: {lost.what}", hint=lost.remedy) from None
    if arguments.json:
        print(json.dumps(plain, indent=2))
    else:
        _print(_rollout_rows(plain) if plain["kind"] == "rollout" else _rows(plain))
        if picture is not None:
            print(f"wrote {picture}")
    return 0


def looked_at(
    where: Path | str, window: int, picture: Path | None, trajectory: int, say: Callable[..., None]
) -> dict[str, Any]:
    """What a path holds, in plain values; draws it where a picture is wanted."""
    from physml.datasets import open_trajectories
    from physml.datasets.opening import locate

    path = locate(where)
    rollout = _rollout(path)
    if picture is not None:
        from physml.plot.style import FIGURES, check_suffix

        check_suffix(picture, FIGURES)
        if rollout is not None:
            raise UserError(f"{path} is a rollout", hint=f"physml plot fields {path} --out {picture}")
    if rollout is not None:
        return rollout
    data = open_trajectories(path)
    if not 0 <= trajectory < data.count:
        raise UserError(f"--trajectory {trajectory}", expected=f"a number from 0 to {data.count - 1}")
    plain = _described(data, window)
    if picture is not None:
        from physml.plot import save
        from physml.plot.states import overview

        save(overview(data, trajectory), picture)
    return plain


def _described(data: Trajectories, window: int) -> dict[str, Any]:
    """What a data set holds, in plain values."""
    storage, layout = data.storage(), data.layout
    # these attributes are there from the start, or found by reading everything when they are asked for
    known = {name: vars(data).get(name) for name in ("fingerprint", "statistics")}
    moments = known["statistics"]
    read, sample = (None, moments) if moments is not None else _sampled(data)
    points, lengths = math.prod(layout.grid.shape), [data.length(row) for row in range(data.count)]
    plain: dict[str, Any] = {
        "name": data.name,
        "path": data.path,
        "kind": f"{type(data).__name__} ({type(data).__module__})",
        "fingerprint": known["fingerprint"],
        "trajectories": data.count,
        "frames": data.frames,
        "shortest": min(lengths),
        "dt": layout.dt,
        "time_units": layout.time_units,
        "bytes": 4 * points * (sum(lengths) * len(layout.fields) + data.count * len(layout.static)),
        "axes": [
            {
                "name": axis.name,
                "points": len(axis.points),
                "length": float(axis.length),
                "units": axis.units,
                "boundary": str(axis.boundary),
                "spacing": _spacing(axis),
            }
            for axis in layout.grid.axes
        ],
        "solid": None if layout.grid.mask is None else 1 - float(layout.grid.mask.float().mean()),
        "moments_of": "the split train" if read is None else f"a sample of {read} frames",
        "fields": [
            {"name": field.name, "units": field.units, "mean": mean, "std": std, "increment_std": rise}
            for field, mean, std, rise in zip(layout.fields, sample.mean, sample.std, sample.increment_std, strict=True)
        ],
        "static": [
            {"name": field.name, "units": field.units, "mean": mean, "std": std}
            for field, mean, std in zip(layout.static, sample.static_mean, sample.static_std, strict=True)
        ],
        "parameters": {name: [float(min(found)), float(max(found))] for name, found in data.parameters.items()},
        "splits": {
            split: {
                "frames": sum(s.stop - s.start for s in segments),
                "segments": len(segments),
                "trajectories": len({s.trajectory for s in segments}),
            }
            for split, segments in data.segments.items()
        },
        "storage": {
            "files": len(storage.files),
            "bytes": storage.size,
            "statistics": storage.statistics,
            "chunks": [
                {
                    **asdict(chunks),
                    "shape": chunks.shape,
                    "window": min(window, data.frames),
                    "amplification": chunks.amplification(window, data.frames),
                }
                for chunks in storage.chunks
            ],
        },
    }
    return plain


def _sampled(data: Trajectories) -> tuple[int, Any]:
    """Statistics of pairs of frames at the beginning, in the middle and at the end of three segments; and how many."""
    import warnings

    from physml.datasets.trajectories import Accumulator

    train = next(iter(data.segments.values())) if "train" not in data.segments else data.segments["train"]
    found = Accumulator(data.layout)
    for segment in {train[0], train[len(train) // 2], train[-1]}:
        length = segment.stop - segment.start
        for first in sorted({0, max(0, length // 2 - 1), max(0, length - 2)}):
            start = segment.start + first
            found.add(segment.trajectory, data.read(segment.trajectory, start, min(start + 2, segment.stop)))
        if data.layout.static:
            found.add_static(data.read_static(segment.trajectory))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a few frames may be constant where the whole is not
        return found.frames, found.statistics()


def _spacing(axis: Axis) -> str:
    if axis.uniform:
        return "uniform"
    steps = axis.points.diff()
    even = bool((steps - steps.mean()).abs().max() < 1e-3 * steps.mean().abs())
    return "evenly spaced, points of unequal weight" if even else "not uniform"


def _rows(plain: Mapping[str, Any]) -> dict[str, str]:
    """The same as lines of a table."""
    count, frames, shortest = plain["trajectories"], plain["frames"], plain["shortest"]
    lengths = f"{frames}" if shortest == frames else f"{shortest} to {frames}"
    rows = {"data set": f"{plain['name']} ({plain['path']})", "kind": plain["kind"]}
    if plain["fingerprint"] is not None:
        rows["fingerprint"] = plain["fingerprint"]
    apart = f"{plain['dt']:g} {plain['time_units']}".rstrip()
    rows["trajectories"] = f"{count} of {lengths} frames, {apart} apart" if frames > 1 else f"{count} of one frame"
    storage = plain["storage"]
    files = f"{storage['files']:,} files" if storage["files"] != 1 else "one file"
    stored = f", {_size(storage['bytes'])} on disk in {files}" if storage["bytes"] else ""  # not told of what is remote
    rows["size"] = f"{_size(plain['bytes'])} of float32 in memory{stored}"
    for chunks in storage["chunks"]:
        told = f"{chunks['shape']}, {chunks['compression'] or 'not compressed'}"
        if chunks["frames"] > 1 or chunks["trajectories"] > 1:
            told += f"; a window of {chunks['window']} frames reads {chunks['amplification']:.2g} times its bytes"
        rows[f"chunks {chunks['array']}"] = told
    for axis in plain["axes"]:
        length = f"{axis['length']:g} {axis['units']}".rstrip()
        rows[f"axis {axis['name']}"] = (
            f"{axis['points']} points, length {length}, {axis['boundary']}, {axis['spacing']}"
        )
    if plain["solid"] is not None:
        rows["obstacle"] = f"{100 * plain['solid']:.1f} % of the points are solid"
    rows["moments"] = f"of {plain['moments_of']}"
    for field in plain["fields"]:
        change = f", change per frame {field['increment_std']:.4g}" if frames > 1 else ""
        rows[f"field {field['name']}"] = f"{_moments(field)}{change}"
    for field in plain["static"]:
        rows[f"static {field['name']}"] = f"{_moments(field)}, does not change in time"
    for name, (low, high) in plain["parameters"].items():
        rows[f"parameter {name}"] = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    for split, held in plain["splits"].items():
        rows[f"split {split}"] = f"{held['frames']} frames in {held['segments']} segments"
    return rows


def _moments(field: Mapping[str, Any]) -> str:
    return f"[{field['units'] or '1'}] mean {field['mean']:.4g}, std {field['std']:.4g}"


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _rollout(path: Path | Remote) -> dict[str, Any] | None:
    """What a rollout holds; ``None`` where the path is something else."""
    if not (path / "zarr.json").exists():
        return None
    import zarr

    from physml.datasets.store import open_group

    try:
        plain = dict(zarr.open_group(str(path), mode="r").attrs).get("physml", {})
    except (ValueError, TypeError, KeyError, OSError):  # an array, or damaged; opening it says what is wrong
        return None
    if not (isinstance(plain, Mapping) and plain.get("kind") == "rollout"):
        return None
    group, about = open_group(path, "rollout")
    held: Any = group["blowup"]
    return {
        "path": str(path),
        "kind": "rollout",
        "source": about["source"],
        "model": about["model"],
        "samples": int(held.shape[0]),
        "steps": about["steps"],
        "complete": bool(about["complete"]),
        "blown_up_at": [int(lead) for lead in held[:] if lead],
    }


def _rollout_rows(plain: Mapping[str, Any]) -> dict[str, str]:
    source, model, unstable = plain["source"], plain["model"], plain["blown_up_at"]
    return {
        "rollout": f"of {source['name']} ({source['path']}), split {source['split']}, fingerprint "
        f"{source['fingerprint']}",
        "model": str(model.get("checkpoint") or model.get("operator", {}).get("class_path", "")),
        "samples": f"{plain['samples']} of {plain['steps']} frames{'' if plain['complete'] else ', NOT COMPLETE'}",
        "blown up": f"{len(unstable)}" + (f", first at lead {min(unstable)}" if unstable else ""),
    }


def _print(rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")
