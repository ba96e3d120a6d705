"""PDEBench: HDF5 files of advection, Burgers, reaction-diffusion, gas dynamics, shallow water, Darcy and incompressible
flow (Takamoto et al. 2022, arXiv 2210.07182), read where they lie.

The kind of a file is found by what it holds, never by its ending:

=====================  ===========================================  ================================  ==============
kind                   arrays                                       fields                            boundary
=====================  ===========================================  ================================  ==============
scalar, 1-D to 3-D     ``tensor (n, T, *space)``                    ``u``                             periodic
Darcy                  ``tensor (n, 1, x, y)``, ``nu (n, x, y)``    ``pressure``; static              wall
                                                                    ``permeability``
gas, 1-D to 3-D        ``density``, ``pressure``, ``Vx`` …          ``density``, ``pressure``,        by name: see
                       ``(n, T, *space)``                           ``velocity_x`` …                  below
incompressible, 2-D    ``velocity (n, T, x, y, 2)``,                ``velocity_x``, ``velocity_y``,   wall
                       ``particles (.., 1)``,                       ``particles``; static
                       ``force (n, x, y, 2)``                       ``force_x``, ``force_y``
diffusion-sorption     ``0000/data (T, x, 1)`` …                    ``concentration``                 open
diffusion-reaction     ``0000/data (T, x, y, 2)`` …                 ``activator``, ``inhibitor``      wall
shallow water          ``0000/data (T, x, y, 1)`` …                 ``height``                        open
=====================  ===========================================  ================================  ==============

* Gas is periodic where the name of the file says ``periodic``, otherwise open; ``boundary`` says it for files whose
  name does not (Kelvin-Helmholtz, Orszag-Tang).
* Coordinates are ``x-coordinate`` …, ``grid/x`` … of the first group; without them cell centres of the unit interval,
  ``(j + 1/2)/n``. Times are ``t-coordinate``, ``t`` or ``grid/t`` of the first group, of which the first ``T`` count
  (solvers wrote one more); without them the frame interval is 1.
* Advection of the generator's own layout, ``(1, n, T, x)``, is read as ``(n, T, x)``.
* Parameters are ``beta``, ``nu``, ``rho``, ``eta``, ``zeta`` and ``mach`` in the file name (``Nu0.01``, ``M0.1``), or
  else numeric attributes of the root. The configuration stored with each group is not read. Other arrays are ignored.

PDEBench has no validation split. Ours is fixed, 80/10/10 by trajectory and in order, file by file: the published code
tests on the first tenth of a file, and on the last tenth of the groups; that is ``test`` here, the tenth beside it is
``validation``, the rest ``train``. Failed simulations, stored as frames of zeros, are read as they are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import h5py
import numpy as np

from physml.datasets import hdf5
from physml.datasets.remote import Place, place
from physml.datasets.storage import Chunks, Storage
from physml.datasets.storage import of_hdf5 as hdf5_chunks
from physml.datasets.trajectories import Statistics, Trajectories
from physml.fields import Axis, Boundary, Grid, Layout

_AXES = "xyz"
_NUMBER = re.compile(r"(?:^|_)(beta|nu|rho|eta|zeta|m)(\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?=_|$)", re.IGNORECASE)
_PARAMETERS = {"beta": "beta", "nu": "nu", "rho": "rho", "eta": "eta", "zeta": "zeta", "m": "mach"}
_GROUPS = {  # space dimensions and channels of a group's data
    (1, 1): (("concentration",), Boundary.OPEN),
    (2, 2): (("activator", "inhibitor"), Boundary.WALL),
    (2, 1): (("height",), Boundary.OPEN),
}


@dataclass(frozen=True)
class _Array:
    """An array: its key, the field and its channels, and whether it changes in time."""

    key: str
    name: str
    channels: tuple[str, ...]
    moving: bool = True


@dataclass(frozen=True)
class _Part:
    """What one file holds. ``groups`` are its samples, or none where samples are the first axis of each array."""

    path: Place
    count: int
    frames: int
    dt: float | None
    axes: tuple[Axis, ...]
    arrays: tuple[_Array, ...]
    groups: tuple[str, ...]
    nested: bool
    parameters: Mapping[str, np.ndarray]


class PDEBench(Trajectories):
    """A data set of PDEBench, read lazily: only the frames and fields that are asked for.

    Handles are opened once in each process; see :class:`physml.datasets.hdf5.Files`. Units are not stored in the files
    and stay empty. Statistics are measured when they are first asked for, in one pass over the split ``train``.

    Args:
        path: a file, or a folder of files of one kind; their parameters may differ.
        fields: names of fields or channels to read (``velocity``, ``density``); all by default.
        boundary: of all axes, where the name of the file does not tell.

    Raises:
        FileNotFoundError: where there are no files.
        ValueError: where a file is of no known kind, or files do not belong together; it names the file, and what is
            wrong in it.
    """

    def __init__(
        self, path: str | Place, *, fields: Sequence[str] | None = None, boundary: Boundary | str | None = None
    ) -> None:
        self.path = str(path)
        paths = _found(place(path))
        where = place(path)
        self.name = where.stem if where.is_file() else where.name
        self._files = hdf5.Files(paths)
        told = None if boundary is None else Boundary(boundary)
        self._parts = [_described(self._files[index], file, told) for index, file in enumerate(paths)]
        first = self._parts[0]
        for part in self._parts[1:]:
            _check_alike(first, part)
        self._ends = np.cumsum([part.count for part in self._parts]).tolist()
        self.count, self.frames = self._ends[-1], max(part.frames for part in self._parts)
        moving, still = (
            [(array.name, channel) for array in first.arrays if array.moving is kind for channel in array.channels]
            for kind in (True, False)
        )
        kept, kept_still = hdf5.chosen(moving, still, fields, self.path)
        self._moving, self._still = tuple(moving[i][1] for i in kept), tuple(still[i][1] for i in kept_still)
        self.layout = Layout(
            fields=hdf5.named(self._moving),
            grid=Grid(first.axes),
            dt=hdf5.common_interval([(part.dt, str(part.path)) for part in self._parts]),
            static=hdf5.named(self._still),
        )
        self.parameters, lost = hdf5.joined([(part.path, part.parameters) for part in self._parts])
        lengths = [part.frames for part in self._parts for _ in range(part.count)]
        rows = hdf5.tenths([part.count for part in self._parts], test_first=not first.groups)
        self.segments = hdf5.whole(rows, lengths)
        axes = [(axis.name, str(axis.boundary)) for axis in first.axes]
        self.fingerprint = hdf5.fingerprint(paths, self._moving, self._still, axes, rows)
        self.provenance = {
            "source": [file.name for file in paths],
            "format": "PDEBench (arXiv 2210.07182)",
            "left_out": [f"{name}: not finite" for name in lost],
        }
        self._files.close()

    @cached_property
    def statistics(self) -> Statistics:  # type: ignore[override]  # an attribute that is found when first asked for
        return self.measured()

    def _place(self, trajectory: int) -> tuple[int, _Part, int]:
        index = bisect_right(self._ends, trajectory)
        part = self._parts[index]
        return index, part, trajectory - (self._ends[index] - part.count)

    def length(self, trajectory: int) -> int:
        return self._place(trajectory)[1].frames

    def storage(self) -> Storage:
        part, chunks = self._parts[0], list[Chunks]()
        for array in part.arrays:
            source = self._files.array(0, "/".join(filter(None, [*part.groups[:1], array.key])))
            words = [""] * part.nested + ["trajectory"] * (not part.groups) + ["time"] * array.moving
            words += [axis.name for axis in part.axes]
            chunks += hdf5_chunks(source, words + ["channel"] * (source.ndim - len(words)))
        return Storage.of(map(str, self._files.paths), chunks=tuple(chunks))

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        out = self._room(frames)
        self._fill(trajectory, frames, out)
        return out

    def _fill(self, trajectory: int, frames: slice, out: np.ndarray) -> None:
        self._gather(trajectory, frames, self._moving, out)

    def _read_static(self, trajectory: int) -> np.ndarray:
        out = np.empty((1, *self.layout.grid.shape, len(self._still)), dtype=np.float32)
        self._gather(trajectory, None, self._still, out)
        return out[0]

    def _gather(self, trajectory: int, frames: slice | None, channels: Sequence[str], out: np.ndarray) -> None:
        """Put channels in ``out``, ``(T, *space, C)``; static fields, ``T = 1``, where no frames are given."""
        index, part, row = self._place(trajectory)
        for array in part.arrays:
            wanted = [(at, channels.index(name)) for at, name in enumerate(array.channels) if name in channels]
            if array.moving is (frames is None) or not wanted:
                continue
            where: tuple[int | slice, ...] = () if frames is None else (frames,)
            if part.groups:
                source = self._files.array(index, f"{part.groups[row]}/{array.key}")
                expected = (part.frames, *out.shape[1:-1], len(array.channels))
                if source.shape != expected:
                    raise ValueError(
                        f"{part.path}: {source.name} has shape {source.shape}, that of group {part.groups[0]} is "
                        f"{expected}; all must be alike."
                    )
            else:
                source = self._files.array(index, array.key)
                where = ((0,) if part.nested else ()) + (row, *where)
            if array.channels == tuple(channels):
                hdf5.read_into(source, where, out)
                continue
            found = hdf5.values(source, where).reshape(*out.shape[:-1], len(array.channels))
            for at, channel in wanted:
                out[..., channel] = found[..., at]


def _found(path: Place) -> list[Place]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    files = [path] if path.is_file() else hdf5.listed(path)
    if not files:
        raise FileNotFoundError(f"{path}: holds no files {' or '.join(hdf5.SUFFIXES)}.")
    return files


def _samples(file: h5py.File) -> tuple[str, ...]:
    """Groups named by digits, in the order of their numbers."""
    return tuple(sorted((name for name in file if name.isdecimal()), key=int))


def _kind(file: h5py.File) -> str | None:
    """The kind of a file by its keys."""
    if "density" in file:
        return "gas"
    if "tensor" in file:
        return "darcy" if "nu" in file else "scalar"
    if "velocity" in file and "particles" in file:
        return "incompressible"
    return "groups" if _samples(file) else None


def _described(file: h5py.File, path: Place, told: Boundary | None) -> _Part:
    """Everything but values: arrays, coordinates, clock, parameters."""
    kind, nested = _kind(file), False
    groups: tuple[str, ...] = ()
    boundary = Boundary.WALL
    if kind is None:
        raise ValueError(f"{path}: holds {hdf5.listing(file)}; expected {_KEYS}.")
    if kind == "gas":
        dimensions = hdf5.dataset(file, "density").ndim - 2
        velocities = [_Array(f"V{name}", "velocity", (f"velocity_{name}",)) for name in _AXES[: max(1, dimensions)]]
        arrays = [
            _Array("density", "density", ("density",)),
            _Array("pressure", "pressure", ("pressure",)),
            *velocities,
        ]
        boundary = Boundary.PERIODIC if "periodic" in path.stem.lower() else Boundary.OPEN
        shape = hdf5.dataset(file, "density").shape
    elif kind == "scalar":
        arrays, boundary = [_Array("tensor", "u", ("u",))], Boundary.PERIODIC
        shape = hdf5.dataset(file, "tensor").shape
        if len(shape) == 4 and "y-coordinate" not in file:
            if shape[0] != 1:
                raise ValueError(
                    f"{path}: tensor has shape {shape} and there is no y-coordinate; expected (n, T, x) or "
                    "(1, n, T, x)."
                )
            nested, shape = True, shape[1:]
    elif kind == "darcy":
        arrays = [_Array("tensor", "pressure", ("pressure",)), _Array("nu", "permeability", ("permeability",), False)]
        shape = hdf5.dataset(file, "tensor").shape
        if len(shape) != 4 or shape[1] != 1:
            raise ValueError(f"{path}: tensor has shape {shape}; beside nu, (n, 1, x, y) was expected.")
    elif kind == "incompressible":
        arrays = [
            _Array("velocity", "velocity", ("velocity_x", "velocity_y")),
            _Array("particles", "particles", ("particles",)),
            _Array("force", "force", ("force_x", "force_y"), False),
        ]
        shape = hdf5.dataset(file, "velocity").shape[:-1]
        if len(shape) != 4:
            raise ValueError(f"{path}: velocity has shape {(*shape, '...')}; expected (n, T, x, y, 2).")
    else:
        groups = _samples(file)
        inner = hdf5.dataset(hdf5.group(file, groups[0]), "data").shape
        channels, boundary = _GROUPS.get((len(inner) - 2, inner[-1] if inner else 0), ((), boundary))
        if not channels:
            raise ValueError(
                f"{path}: {groups[0]}/data has shape {inner}; expected (T, x, 1), (T, x, y, 2) or (T, x, y, 1)."
            )
        arrays = [_Array("data", channels[0] if len(channels) == 1 else "data", channels)]
        shape = (len(groups), *inner[:-1])
    if not 3 <= len(shape) <= 5 or min(shape) < 1:
        raise ValueError(f"{path}: {arrays[0].key} has shape {shape}; expected samples, times and one to three axes.")
    count, frames, *space = shape
    for array in () if groups else arrays:
        tail = (len(array.channels),) if kind == "incompressible" else ()
        expected = (1,) * nested + (count, *((frames,) if array.moving else ()), *space, *tail)
        if hdf5.dataset(file, array.key).shape != expected:
            raise ValueError(
                f"{path}: {array.key} has shape {file[array.key].shape}, expected {expected} beside {arrays[0].key}."
            )
    grid = file[groups[0]].get("grid") if groups else None
    axes = tuple(
        hdf5.axis(name, _coordinate(file, grid, name, n, path), told or boundary, str(path))
        for name, n in zip(_AXES, space, strict=False)
    )
    return _Part(
        path=path,
        count=count,
        frames=frames,
        dt=_interval(file, grid, frames, path),
        axes=axes,
        arrays=tuple(arrays),
        groups=groups,
        nested=nested,
        parameters={name: np.full(count, value) for name, value in _numbers(file, path).items()},
    )


def _located(file: h5py.File, grid: h5py.Group | None, name: str) -> h5py.Dataset | None:
    """A coordinate, where there is one."""
    if grid is not None:
        return hdf5.dataset(grid, name) if name in grid else None
    return next((hdf5.dataset(file, key) for key in (f"{name}-coordinate", name) if key in file), None)


def _coordinate(file: h5py.File, grid: h5py.Group | None, name: str, n: int, path: Place) -> np.ndarray:
    source = _located(file, grid, name)
    if source is None:
        return (np.arange(n) + 0.5) / n
    if source.shape != (n,):
        raise ValueError(f"{path}: {source.name} has shape {source.shape}, the fields have {n} points along {name}.")
    return hdf5.values(source, kind=np.float64)


def _interval(file: h5py.File, grid: h5py.Group | None, frames: int, path: Place) -> float | None:
    source = _located(file, grid, "t")
    if source is None or frames == 1:
        return None
    where = f"{path}: {source.name}"
    if source.ndim not in (1, 2) or source.shape[-1] not in (frames, frames + 1):
        raise ValueError(f"{where} has shape {source.shape}; {frames} frames have {frames} or {frames + 1} times.")
    clocks = np.atleast_2d(hdf5.values(source, kind=source.dtype.newbyteorder("=")))[:, :frames]
    return hdf5.common_interval([(hdf5.interval(row, where), f"{where}, row {at}") for at, row in enumerate(clocks)])


def _numbers(file: h5py.File, path: Place) -> dict[str, float]:
    """Parameters; the name of a file wins over its attributes."""
    found = {}
    for name, value in file.attrs.items():
        if name.lower() in _PARAMETERS and np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu":
            found[_PARAMETERS[name.lower()]] = float(np.asarray(value).reshape(-1)[0])
    found.update({_PARAMETERS[name.lower()]: float(value) for name, value in _NUMBER.findall(path.stem)})
    return found


def _check_alike(first: _Part, part: _Part) -> None:
    """Files of a data set differ in length, number and parameters only."""
    where = f"{part.path} and {first.path} do not belong together"
    if (part.arrays, bool(part.groups)) != (first.arrays, bool(first.groups)):
        mine, its = ([array.key for array in p.arrays] for p in (part, first))
        raise ValueError(f"{where}: arrays {mine} and {its}; open them apart.")
    if difference := Layout((), Grid(part.axes), 1.0).difference(Layout((), Grid(first.axes), 1.0)):
        raise ValueError(f"{where}: {difference}; open them apart.")


_KEYS = "tensor, density, velocity and particles, or groups 0000, 0001, ..."
EXPECTED = f"files of PDEBench (.hdf5 or .h5, with {_KEYS})"


def recognises(path: Place) -> bool:
    """Whether the first file has the keys of PDEBench. A file of the right ending that is no HDF5 is taken too: opening
    it says what is wrong.
    """
    if path.is_file() and path.suffix not in hdf5.SUFFIXES:
        return False
    try:
        files = _found(path)
    except FileNotFoundError:
        return False
    try:
        with hdf5.open_file(files[0]) as file:
            return _kind(file) is not None
    except ValueError:
        return True


def opened(path: Place) -> PDEBench:
    """All fields of the data set."""
    return PDEBench(path)
