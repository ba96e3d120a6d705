"""The commands on data: ``data make`` and ``data inspect``."""

from __future__ import annotations

import argparse
import importlib
import inspect as inspection
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from physml.cli.errors import UserError, nearest
from physml.cli.experiment import pairs, parse, read

_OWN = {"out", "batch", "device", "validation", "test"}


def make(arguments: argparse.Namespace) -> int:
    """Solve an equation and store the trajectories; the same command again continues an interrupted one."""
    import torch
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from physml.datasets.generate import generate
    from physml.solvers import Solver

    module = importlib.import_module(f"physml.{_home(arguments.name)}.{arguments.name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    solvers = [kind for kind in found if issubclass(kind, Solver)]
    if not solvers:
        raise UserError(
            f"{arguments.name} is read where it lies; there is nothing to make",
            hint="give its folder to the commands that take a STORE; 'physml data inspect FOLDER' looks at it",
        )
    options = _options(arguments, solvers[0])
    own = {name: options.pop(name) for name in _OWN & set(options)}
    out = Path(arguments.out or own.pop("out", ""))
    own.pop("out", None)
    if str(out) in ("", "."):
        raise UserError(
            "no --out: where should the store go?",
            hint=f"physml data make {arguments.name} --out data/{arguments.name}/NAME.zarr",
        )
    if out.suffix != ".zarr":
        raise UserError(f"--out {out}", expected="a name that ends in .zarr")
    own.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
    required = [
        name
        for name, parameter in inspection.signature(solvers[0].__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in options
    ]
    if required:
        raise UserError(f"data make {arguments.name}: missing: {', '.join(f'--{name}' for name in required)}")
    solver = solvers[0](**options)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(f"solving {solver.name}", total=None)
        store = generate(solver, out, progress=lambda done, total: bar.update(task, completed=done, total=total), **own)
    print(f"{out}: {store.count} trajectories of {store.frames} frames, fingerprint {store.fingerprint}")
    return 0


def _home(name: str) -> str:
    package = Path(__file__).resolve().parents[1]
    homes = [folder for folder in ("solvers", "datasets") if (package / folder / f"{name}.py").exists()]
    return homes[0]


def _options(arguments: argparse.Namespace, solver: type) -> dict[str, Any]:
    """Options of the recipe and of the command line, which wins, checked against the solver's constructor."""
    known = list(inspection.signature(solver.__init__).parameters)[1:] + sorted(_OWN)  # type: ignore[misc]
    given: dict[str, tuple[Any, str]] = {}
    if arguments.config:
        recipe = read(arguments.config)
        given.update({name: (value, recipe.where(name)) for name, value in recipe.tree.items()})
    given.update({name.replace("-", "_"): (parse(text), "command line") for name, text in pairs(arguments.options)})
    for name, (_, where) in given.items():
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"{arguments.name} has no option {name!r}",
                where=where,
                expected=f"one of {', '.join(known)}",
                hint=f"did you mean {near!r}?" if near else "",
            )
    return {name: value for name, (value, _) in given.items()}


def inspect(arguments: argparse.Namespace) -> int:
    """Say what a data set or a rollout holds, and whether it is whole."""
    from physml.datasets import open_trajectories
    from physml.datasets.opening import locate
    from physml.datasets.store import open_group

    path = locate(arguments.path)
    if (path / "zarr.json").exists():
        import zarr

        plain = dict(zarr.open_group(path, mode="r").attrs).get("physml", {})
        if isinstance(plain, Mapping) and plain.get("kind") == "rollout":
            group, about = open_group(path, "rollout")
            _print(_rollout_rows(group, about))
            return 0
    data = open_trajectories(path)
    layout, axes = data.layout, data.layout.grid.axes
    size = 4 * data.count * (data.frames * len(layout.fields) + len(layout.static))
    for n in layout.grid.shape:
        size *= n
    rows = {
        "data set": f"{data.name} ({data.path})",
        "fingerprint": data.fingerprint,
        "trajectories": f"{data.count} of {data.frames} frames, {layout.dt:g} {layout.time_units} apart"
        if data.frames > 1
        else f"{data.count} of one frame",
        "size": f"{size / 2**20:,.1f} MiB of float32 in memory",
    }
    for axis in axes:
        spacing = "uniform" if axis.uniform else "not uniform"
        rows[f"axis {axis.name}"] = (
            f"{len(axis.points)} points, length {axis.length:g} {axis.units}, {axis.boundary}, {spacing}"
        )
    if layout.grid.mask is not None:
        rows["obstacle"] = f"{100 * (1 - float(layout.grid.mask.float().mean())):.1f} % of the points are solid"
    for index, field in enumerate(layout.fields):
        s = data.statistics
        change = f", change per frame {s.increment_std[index]:.4g}" if data.frames > 1 else ""
        rows[f"field {field.name}"] = f"[{field.units or '1'}] mean {s.mean[index]:.4g}, std {s.std[index]:.4g}{change}"
    for field, mean, std in zip(layout.static, data.statistics.static_mean, data.statistics.static_std, strict=True):
        rows[f"static {field.name}"] = f"[{field.units or '1'}] mean {mean:.4g}, std {std:.4g}, does not change in time"
    for name, values in data.parameters.items():
        low, high = float(min(values)), float(max(values))
        rows[f"parameter {name}"] = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    for split, segments in data.segments.items():
        rows[f"split {split}"] = f"{sum(s.stop - s.start for s in segments)} frames in {len(segments)} segments"
    _print(rows)
    bad = _unreadable(data)
    if bad:
        raise UserError(bad[0] + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""))
    print("every frame is readable and finite")
    return 0


def _rollout_rows(group: Any, about: Mapping[str, Any]) -> dict[str, str]:
    blown, source = [int(lead) for lead in group["blowup"][:]], about["source"]
    unstable = [lead for lead in blown if lead]
    return {
        "rollout": f"of {source['name']} ({source['path']}), split {source['split']}, fingerprint "
        f"{source['fingerprint']}",
        "model": str(about["model"].get("checkpoint") or about["model"].get("operator", {}).get("class_path", "")),
        "samples": f"{len(blown)} of {about['steps']} frames{'' if about['complete'] else ', NOT COMPLETE'}",
        "blown up": f"{len(unstable)}" + (f", first at lead {min(unstable)}" if unstable else ""),
    }


def _unreadable(data: Any) -> list[str]:
    """Read everything once, a few frames at a time."""
    found = []
    for trajectory in range(data.count):
        reads = [partial(data.read_static, trajectory)]
        end = data.length(trajectory)
        reads += [partial(data.read, trajectory, start, min(start + 16, end)) for start in range(0, end, 16)]
        for reading in reads:
            try:
                reading()
            except ValueError as problem:
                found.append(str(problem))
    return found


def _print(rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")
