"""Open any data set by its path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from physml.datasets import arrays, cylinder_wake, darcy, labelled, pdebench, store, well
from physml.datasets.mapping import SUFFIX
from physml.datasets.places import data_root
from physml.datasets.remote import Place, Remote, place
from physml.datasets.trajectories import Trajectories

ADAPTERS: tuple[ModuleType, ...] = (cylinder_wake, darcy, well, pdebench, labelled, arrays, store)
"""One module for each kind of data. Each has ``EXPECTED``, what a path must be, in words; ``recognises(path)``, quick
and without reading arrays; and ``opened(path)``, a :class:`Trajectories`. The first that recognises a path opens it."""


REMOTE: tuple[ModuleType, ...] = (store, well, pdebench)
"""Those that read what a URL names, in the order in which they are asked."""


def locate(path: str | Place) -> Place:
    """The path itself where it exists, otherwise below :func:`data_root`; or what a URL names.

    Raises:
        FileNotFoundError: naming both places.
        ValueError: where a server does not answer.
    """
    where = place(path)
    if isinstance(where, Remote):
        try:
            if where.exists() or (where / "zarr.json").exists():
                return where
        except (ValueError, ImportError):
            raise
        except Exception as problem:  # of a package of fsspec: no credentials, no network, no permission
            raise ValueError(
                f"{where}: cannot be looked at ({type(problem).__name__}: {problem}); check the URL, the network and "
                "your credentials."
            ) from None
        raise FileNotFoundError(f"no data at {where}; is the URL right, and may you read there?")
    for candidate in (where, data_root() / where):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(
        f"no data at {path}, nor at {data_root() / where} (PHYSML_DATA is {os.environ.get('PHYSML_DATA', 'not set')}); "
        "make it with `physml data make`, or set PHYSML_DATA to the folder that holds it."
    )


def open_trajectories(path: str | Place) -> Trajectories:
    """Open a data set of any known kind.

    Args:
        path: a canonical zarr store, or a folder in a format that ``physml.datasets`` has an adapter for; relative
            paths are also looked up in ``PHYSML_DATA``. A store and files of The Well and of PDEBench may also lie
            elsewhere, and are then given by a URL, ``s3://bucket/folder``; see :mod:`physml.datasets.remote`.

    Raises:
        FileNotFoundError: where nothing is there.
        ValueError: where it is nothing physml can read, or is damaged.
        ImportError: where the package that reads such URLs is missing.
    """
    found = locate(path)
    adapters = REMOTE if isinstance(found, Remote) else ADAPTERS
    with _words_for_libraries(found):
        for adapter in adapters:
            if adapter.recognises(found):
                opened: Trajectories = adapter.opened(found)
                return opened
    known = "; ".join(adapter.EXPECTED for adapter in adapters)
    raise ValueError(f"{found}: not a data set physml can read. Expected {known}.")


def open_mapped(path: str | Path, mapping: str | Path) -> Trajectories:
    """Open arrays, a netCDF file or a zarr archive with a mapping file that lies elsewhere.

    Args:
        path: of the data; it takes the place of what the mapping file names, if it names any.
        mapping: the mapping file; see :mod:`physml.datasets.mapping`.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_trajectories`.
    """
    found = locate(path)
    if isinstance(found, Remote):
        raise ValueError(f"{found}: a mapping file is about files of this machine; copy the data here.")
    if found.name.endswith(SUFFIX):
        raise ValueError(f"{found}: is a mapping file itself; give the data it is about, or no other mapping file.")
    with _words_for_libraries(found):
        labels = labelled.recognises(found)
        return labelled.Labelled(mapping, data=found) if labels else arrays.Arrays(mapping, data=found)


@contextmanager
def _words_for_libraries(path: Place) -> Iterator[None]:
    """What libraries of C raise for damaged structures, of which they know no path, becomes an error of the path."""
    try:
        yield
    except MemoryError as problem:
        raise ValueError(f"{path}: needs more memory than there is ({problem}); are its sizes right?") from None
    except (RuntimeError, SystemError, OSError) as problem:
        if isinstance(problem, OSError) and (type(problem) is not OSError or problem.filename is not None):
            raise  # says of itself which file it is about
        if "allocate memory" in str(problem):  # as torch says it
            raise ValueError(f"{path}: needs more memory than there is; are its sizes right?") from None
        raise ValueError(
            f"{path}: cannot be read ({problem}); its structure is damaged, fetch or make it again."
        ) from None
