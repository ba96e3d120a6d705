"""The command ``data convert``: a data set of any format, or a part of it, to a store."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from physml.cli.apart import Lost, apart
from physml.cli.errors import UserError
from physml.cli.progress import bar


def convert(arguments: argparse.Namespace) -> int:
    """Write a data set to a store; the same command again continues an interrupted one."""
    source, out = arguments.path, arguments.store
    if out.suffix != ".zarr":
        raise UserError(f"data convert: DST is {out}", expected="a name that ends in .zarr")
    chosen = {
        name: value
        for name in ("fields", "static", "frames", "trajectories")
        if (value := getattr(arguments, name)) is not None
    }
    with bar(f"converting {source}") as shown:
        phases = {
            "identifying": shown.phase(f"reading {source} to identify it"),
            "converting": shown.phase(f"converting {source}"),
        }
        try:
            told = apart(
                written,
                source,
                arguments.map,
                chosen,
                out,
                arguments.workers,
                hear=lambda phase, done, total: phases[phase](done, total),
                patience=math.inf,
            )
        except Lost as lost:
            raise UserError(f"{source}: {lost.what}", hint=lost.remedy) from None
    print(f"{out}: {told}")
    return 0


def written(
    source: Path | str,
    mapping: Path | None,
    chosen: Mapping[str, Any],
    out: Path,
    workers: int,
    say: Callable[[str, int, int], None],
) -> str:
    """Write the store; returns what it holds, in words."""
    from functools import partial

    from physml.datasets.convert import convert as write
    from physml.datasets.opening import open_mapped, open_trajectories
    from physml.datasets.selection import Selection

    data = open_mapped(source, mapping) if mapping else open_trajectories(source)
    store = write(
        Selection(data, **chosen) if chosen else data,
        out,
        workers=workers,
        progress=partial(say, "converting"),
        identifying=partial(say, "identifying"),
    )
    frames = sum(store.length(row) for row in range(store.count))
    return f"{store.count} trajectories, {frames} frames, verified, fingerprint {store.fingerprint}"
