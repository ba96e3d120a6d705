"""Open any data set by its path."""

from __future__ import annotations

import os
from pathlib import Path

from physml.datasets import cylinder_wake
from physml.datasets.store import TrajectoryStore
from physml.datasets.trajectories import Trajectories


def data_root() -> Path:
    """The folder that relative data paths are looked up in: ``PHYSML_DATA``, or ``data``."""
    return Path(os.environ.get("PHYSML_DATA") or "data")


def locate(path: str | Path) -> Path:
    """The path itself where it exists, otherwise below :func:`data_root`.

    Raises:
        FileNotFoundError: naming both places.
    """
    for candidate in (Path(path), data_root() / path):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(
        f"no data at {path}, nor at {data_root() / path} (PHYSML_DATA is {os.environ.get('PHYSML_DATA', 'not set')}); "
        "make it with `physml data make`, or set PHYSML_DATA to the folder that holds it."
    )


def open_trajectories(path: str | Path) -> Trajectories:
    """Open a data set of any known kind.

    Args:
        path: a canonical zarr store, or a folder in a format that ``physml.datasets`` has an adapter for; relative
            paths are also looked up in ``PHYSML_DATA``.

    Raises:
        FileNotFoundError: where nothing is there.
        ValueError: where it is nothing physml can read, or is damaged.
    """
    found = locate(path)
    if found.name == cylinder_wake.FILE or (found / cylinder_wake.FILE).exists():
        return cylinder_wake.CylinderWake(found)
    if (found / "zarr.json").exists() or found.suffix == ".zarr":
        return TrajectoryStore(found)
    raise ValueError(
        f"{found}: not a data set physml can read. Expected a zarr store (a folder with zarr.json, from `physml "
        "data make`) "
        f"or a folder with {cylinder_wake.FILE}."
    )
