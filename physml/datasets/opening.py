"""Open any data set by its path."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from physml.datasets import arrays, cylinder_wake, darcy, labelled, pdebench, store, well
from physml.datasets.trajectories import Trajectories

ADAPTERS: tuple[ModuleType, ...] = (cylinder_wake, darcy, well, pdebench, labelled, arrays, store)
"""One module for each kind of data. Each has ``EXPECTED``, what a path must be, in words; ``recognises(path)``, quick
and without reading arrays; and ``opened(path)``, a :class:`Trajectories`. The first that recognises a path opens it."""


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
    for adapter in ADAPTERS:
        if adapter.recognises(found):
            return adapter.opened(found)
    known = "; ".join(adapter.EXPECTED for adapter in ADAPTERS)
    raise ValueError(f"{found}: not a data set physml can read. Expected {known}.")
