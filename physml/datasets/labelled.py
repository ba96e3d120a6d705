"""Labelled arrays: netCDF files and zarr archives of other programs, understood by their names and CF attributes.

Dimensions may come in any order. What each is follows from the attributes of its coordinate (``standard_name``,
``units``, ``axis``, ``positive``; CF conventions 1.11, chapter 4) and from its name:

==========================  ======================================================================================
dimension                   becomes
==========================  ======================================================================================
time                        frames; times must be evenly spaced, in the units they are stored in (``hours``)
longitude, latitude         the first and second axis, longitude being first as ``x`` is; see below
x, y, z                     axes, in this order
level (pressure, height,    more fields, one for each level: ``u_500``
depth)
member (number, sample)     trajectories
anything of length one      nothing
==========================  ======================================================================================

Variables over time and all axes are fields, those over all axes without time are static fields, those over members
alone are parameters; where nothing depends on time, all are fields of a single frame. Other variables are left out, and
named in the provenance. A longitude that spans 360 degrees is periodic, all else is open. Falling coordinates are
turned round. The quadrature weights of latitude are ``sin(upper) - sin(lower)`` of the cell around each point,
``cos(latitude)`` to second order. Values that are missing in every frame mark what is solid: a point is fluid where no
field misses it. Values that are missing in some frames only are an error.

What the file does not say, or says wrongly, goes into a mapping file ``NAME.physml.yaml`` beside it, where no key but
``file`` is needed:

.. code-block:: yaml

    file: eraint_uvz.nc                            # or a pattern, in the order of names
    along: time                                    # how several files go together; or trajectory
    dimensions: {month: time}                      # what dimensions are: a word of the table
    fields: {velocity_x: {array: u, level: 500}}   # also units; static: the same
    parameters: {drag: 0.1}                        # a number, a list, or the name of a variable
    axes: {x: {boundary: periodic, length: 2.0}}   # also repeated, units
    time: {dt: 6, units: months}                   # taken in place of the times of the file
    split: {along: time, gap: 0, train: 0.5, test: 0.5}

netCDF-4 is read by h5netcdf, ``pip install 'physml[formats]'``, and netCDF-3 by scipy. Nothing but the frames that are
asked for is read. Missing chunks of a zarr archive have its fill value, as zarr defines it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr

from physml.datasets import mapping
from physml.datasets.array_files import BROKEN, brief
from physml.datasets.mapping import SUFFIX, Section
from physml.datasets.storage import Chunks, Storage, of_zarr
from physml.datasets.trajectories import NotFinite, Statistics, Trajectories
from physml.fields import Axis, Boundary, Field, Grid, Layout

_SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf")
_SPACE = ("longitude", "latitude", "x", "y", "z")
_WORDS = ("time", "trajectory", "level", *_SPACE)
_OPEN = 64  # files held open at once
_STANDARD = {
    "time": "time",
    "realization": "trajectory",
    "latitude": "latitude",
    "longitude": "longitude",
    "projection_x_coordinate": "x",
    "projection_y_coordinate": "y",
    "grid_longitude": "x",
    "grid_latitude": "y",
    "air_pressure": "level",
    "height": "level",
    "altitude": "level",
    "depth": "level",
    "model_level_number": "level",
}
_UNITS = {
    **dict.fromkeys(("degrees_north", "degree_north", "degrees_n", "degree_n", "degreen", "degreesn"), "latitude"),
    **dict.fromkeys(("degrees_east", "degree_east", "degrees_e", "degree_e", "degreee", "degreese"), "longitude"),
}
_NAMES = {
    **dict.fromkeys(("time", "t", "valid_time"), "time"),
    **dict.fromkeys(("lat", "latitude"), "latitude"),
    **dict.fromkeys(("lon", "longitude"), "longitude"),
    **dict.fromkeys(("member", "ensemble", "realization", "number", "trajectory", "sample", "run"), "trajectory"),
    **dict.fromkeys(("level", "lev", "plev", "pressure_level", "isobaricinhpa", "height", "depth"), "level"),
    **{name: name for name in ("x", "y", "z")},
}


@dataclass(frozen=True)
class _Channel:
    """A field: a variable of the files, at one of its levels where it has some."""

    field: Field
    array: str
    level: int | None = None


class Labelled(Trajectories):
    """netCDF files or a zarr archive; safe to hand to worker processes (each opens the files itself).

    Statistics and fingerprint read all that is needed once, when they are first asked for.

    Args:
        path: of the file or folder, or of a mapping file.
        data: the file or folder, in place of what the mapping file names.

    Raises:
        ValueError: where a dimension is not understood, time or coordinates are uneven or out of order, or a file is
            damaged; it names the place.
        FileNotFoundError: where a file is missing.
        ImportError: where the library that reads the file is missing.
    """

    def __init__(self, path: str | Path, *, data: Path | None = None) -> None:
        self.path = str(path)
        mapped = data is not None or Path(path).name.endswith(SUFFIX)
        whole = mapping.read_mapping(Path(path), data) if mapped else Section(Path(path), "", {})
        self._files = whole.files() if mapped else (Path(path),)
        if not self._files:
            raise whole.wrong("file", "a netCDF file or a zarr folder")
        self._process, self._open = os.getpid(), OrderedDict[Path, xr.Dataset]()
        self.name = whole.text("name", Path(path).name.removesuffix(SUFFIX) if mapped else Path(path).stem)
        self._along = whole.choice("along", ("time", "trajectory"), "time")
        first = self._dataset(self._files[0])
        self._dimensions = self._roles(first, whole.section("dimensions", {}))
        fields, static, left = self._choice(first, whole)
        self._fields, self._static = fields, static
        used = [channel.array for channel in fields]
        self._axes = tuple(
            word for word in _SPACE if any(self._word(d) == word for name in used for d in first[name].dims)
        )
        if not self._axes:
            raise ValueError(f"{path}: {', '.join(used)}: no dimension of space was found; {self._help(first)}")
        for name in dict.fromkeys(channel.array for channel in (*fields, *static)):
            self._check(first, name)
        if len({self._has(first[channel.array], "time") for channel in fields}) > 1:
            raise whole.wrong("fields", "variables that all have time; one that does not change belongs to static")
        if any(self._has(first[channel.array], "time") for channel in static):
            raise whole.wrong("static", "variables without time; what changes in time belongs to fields")
        sizes = [self._sizes(self._dataset(file), first) for file in self._files]
        self._counts = [size[self._along] for size in sizes]
        self.count, self.frames = (
            sum(self._counts) if word == self._along else sizes[0][word] for word in ("trajectory", "time")
        )
        axes = whole.section("axes", {})
        grid, self._keep = self._grid(first, axes)
        axes.finish()
        dt, time_units = self._time(whole)
        self._holes: np.ndarray | None = None
        self._fluid: np.ndarray | None = None
        holes = np.isnan(self._values(self._fields, 0, slice(0, 1))[0])
        if holes.any():
            self._holes, self._fluid = holes, ~holes.any(axis=-1)
            if not self._fluid.any():
                raise ValueError(f"{path}: in the first frame every point misses a field (NaN); leave that field out.")
            grid = replace(grid, mask=torch.from_numpy(self._fluid))
        self.layout = Layout(
            tuple(channel.field for channel in fields),
            grid,
            dt,
            time_units,
            tuple(channel.field for channel in static),
        )
        self.parameters = self._parameters(first, whole)
        parted = whole.section("split") if whole.take("split", None) is not None else None
        self.segments = mapping.split(parted, self.count, self.frames)
        whole.finish()
        self.provenance = {
            "source": [file.name for file in self._files],
            "left_out": sorted(set(left) - set(self.parameters)),
            **{
                key: str(first.attrs[key])
                for key in ("Conventions", "title", "institution", "source")
                if key in first.attrs
            },
        }

    # What the dimensions are

    def _roles(self, data: xr.Dataset, section: Section) -> dict[Hashable, str]:
        said = {}
        for name in section.values:
            said[name] = section.choice(name, _WORDS)
            if name not in data.dims:
                raise section.wrong(name, f"a dimension of the file; there are {', '.join(map(str, data.dims))}")
        found = {dimension: said.get(str(dimension)) or _guess(data, dimension) for dimension in data.dims}
        for word in set(found.values()) - {"", "level"}:
            same = [str(dimension) for dimension, other in found.items() if other == word]
            if len(same) > 1:
                raise ValueError(
                    f"{self.path}: dimensions {' and '.join(same)} both look like {word}; say what they are in a "
                    "mapping file, under dimensions."
                )
        return found

    def _word(self, dimension: Hashable) -> str:
        return self._dimensions.get(dimension, "")

    def _has(self, array: xr.DataArray, word: str) -> bool:
        return any(self._word(dimension) == word for dimension in array.dims)

    def _help(self, data: xr.Dataset) -> str:
        held = ", ".join(f"{dimension} ({size})" for dimension, size in data.sizes.items()) or "none"
        return (
            f"the dimensions are {held}. Give their coordinates CF attributes, or say in a mapping file NAME{SUFFIX} "
            f"what they are: dimensions: {{NAME: one of {', '.join(_WORDS)}}}."
        )

    def _choice(self, data: xr.Dataset, whole: Section) -> tuple[list[_Channel], list[_Channel], list[str]]:
        """Fields and static fields, named in the mapping file or found, and names of what is left out."""
        bounds = {str(item.attrs["bounds"]) for item in data.variables.values() if "bounds" in item.attrs}
        usable = {
            str(name): item for name, item in data.data_vars.items() if item.dtype.kind in "biuf" and name not in bounds
        }
        spatial = {
            name: [word for word in _SPACE if self._has(item, word)]
            for name, item in usable.items()
            if any(self._has(item, word) for word in _SPACE)
        }
        most = max((len(words) for words in spatial.values()), default=0)
        full = [name for name, words in spatial.items() if len(words) == most]
        moving = [name for name in full if self._has(usable[name], "time")] or full
        fields = self._named(data, whole, "fields")
        static = self._named(data, whole, "static")
        if fields is None:
            taken = {channel.array for channel in static or ()}
            fields = [channel for name in moving if name not in taken for channel in self._levels(data, name, name)]
        if static is None:
            taken = {channel.array for channel in fields}
            rest = [name for name in full if name not in moving and name not in taken]
            static = [channel for name in rest for channel in self._levels(data, name, name)]
        if not fields:
            known = ", ".join(map(str, data.data_vars)) or "none at all (variables inside groups are not looked for)"
            raise ValueError(
                f"{self.path}: no variable over space was found; its variables are {known}, {self._help(data)}"
            )
        chosen = {channel.array for channel in (*fields, *static)}
        names = [channel.field.name for channel in (*fields, *static)]
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{self.path}: two fields would be called {double}; name them in a mapping file.")
        return fields, static, [str(name) for name in data.data_vars if name not in chosen]

    def _named(self, data: xr.Dataset, whole: Section, part: str) -> list[_Channel] | None:
        if whole.take(part, None) is None:
            return None
        entries = whole.section(part)
        found: list[_Channel] = []
        for name in entries.values:
            value = entries.take(name, {}, "the name of a variable, or keys")
            section = Section(whole.path, entries.at(name), {"array": value} if isinstance(value, str) else value)
            array, units = section.text("array", name), section.text("units", None)
            if array not in data.data_vars:
                raise section.wrong("array", f"a variable of the file; there are {', '.join(map(str, data.data_vars))}")
            if data[array].dtype.kind not in "biuf":
                raise section.wrong("array", f"a variable of real numbers; {array} holds {data[array].dtype}")
            found += self._levels(data, array, name, units, section)
            section.finish()
        return found

    def _levels(
        self, data: xr.Dataset, array: str, name: str, units: str | None = None, section: Section | None = None
    ) -> Iterator[_Channel]:
        """A field, or one for each level."""
        units = str(data[array].attrs.get("units", "")) if units is None else units
        units = "" if units == "1" else units
        wanted = None if section is None else section.number("level", None)
        dimension = next((d for d in data[array].dims if self._word(d) == "level" and data.sizes[d] > 1), None)
        if dimension is None:
            if wanted is not None and section is not None:
                raise section.wrong("level", f"none, for {array} has no levels")
            yield _Channel(Field(name, units), array)
            return
        values = data[dimension].values if dimension in data.coords else np.arange(data.sizes[dimension])
        if wanted is not None and section is not None:
            if wanted not in values:
                raise section.wrong("level", f"one of the levels {', '.join(f'{value:g}' for value in values)}")
            yield _Channel(Field(name, units), array, int((values == wanted).argmax()))
            return
        for index, value in enumerate(values):
            yield _Channel(Field(f"{name}_{value:g}", units), array, index)

    def _check(self, data: xr.Dataset, name: str) -> None:
        """A variable has all axes and nothing else that is longer than one."""
        item = data[name]
        for dimension, size in item.sizes.items():
            if not self._word(dimension) and size > 1:
                raise ValueError(
                    f"{self.path}: variable {name}: dimension {dimension} of length {size} is not understood; "
                    f"{self._help(data)}"
                )
        missing = [word for word in self._axes if not self._has(item, word)]
        if missing:
            raise ValueError(
                f"{self.path}: variable {name} has no {missing[0]}, other fields have; leave one of them out."
            )

    def _sizes(self, data: xr.Dataset, first: xr.Dataset) -> dict[str, int]:
        """Trajectories and frames of a file, which otherwise must be like the first."""
        path = data.encoding.get("source", self.path)
        for name in dict.fromkeys(channel.array for channel in (*self._fields, *self._static)):
            if name not in data.data_vars or data[name].dims != first[name].dims:
                raise ValueError(f"{path}: has no variable {name} over {', '.join(map(str, first[name].dims))}.")
        sizes = {"trajectory": 1, "time": 1}
        for dimension, word in self._dimensions.items():
            if word in sizes:
                used = any(dimension in first[channel.array].dims for channel in self._fields)
                sizes[word] = int(data.sizes[dimension]) if used else 1
            other = int(first.sizes[dimension])
            same = word == self._along or int(data.sizes[dimension]) == other
            known = word in (*_SPACE, "level") and dimension in first.coords
            if not same or (known and not np.array_equal(data[dimension].values, first[dimension].values)):
                raise ValueError(f"{path}: its {dimension} is not that of {self._files[0].name}; files must be alike.")
        return sizes

    # Axes, time, parameters

    def _grid(self, data: xr.Dataset, axes: Section) -> tuple[Grid, tuple[slice, ...]]:
        made, keep = [], []
        for word in self._axes:
            [dimension] = [d for d in data.dims if self._word(d) == word]
            section = axes.section(word, {})
            where = f"{self.path}: {dimension}"
            if dimension not in data.coords or data[dimension].dtype.kind not in "iuf":
                raise ValueError(
                    f"{where}: has no coordinate variable of numbers; add one that says where the points lie."
                )
            points = data[dimension].values
            units = section.text("units", str(data[dimension].attrs.get("units", "")))
            whole, repeated = _round(points, units) if word == "longitude" else (None, False)
            kind = Boundary.PERIODIC if whole else Boundary.OPEN
            boundary = Boundary(section.choice("boundary", [str(item) for item in Boundary], str(kind)))
            whole, repeated = (whole, repeated) if boundary is Boundary.PERIODIC else (None, False)
            axis, kept = mapping.placed(
                where,
                word,
                points,
                boundary,
                units=units,
                length=section.number("length", whole, "a number above 0", positive=True),
                repeated=section.flag("repeated", repeated),
            )
            section.finish()
            made.append(_spherical(axis) if word == "latitude" else axis)
            keep.append(kept)
        return Grid(tuple(made)), tuple(keep)

    def _time(self, whole: Section) -> tuple[float, str]:
        said = whole.section("time", {})
        dt, units = said.number("dt", None, "a number above 0", positive=True), said.text("units", None)
        said.finish()
        [dimension] = [d for d, word in self._dimensions.items() if word == "time"] or [None]
        counted, times = [], []
        for file in self._files[: 1 if self._along != "time" else None]:
            data = self._dataset(file)
            if dimension in data.coords:
                counted.append(str(data[dimension].attrs.get("units", "")))
                times.append(data[dimension].values)
        if dt is None and self.frames > 1:
            if len(times) < (len(self._files) if self._along == "time" else 1):
                raise ValueError(
                    f"{self.path}: {'time' if dimension is None else dimension} has no times; give time.dt in a "
                    "mapping file."
                )
            if len(set(counted)) > 1:
                raise ValueError(
                    f"{self.path}: times are counted in {counted[0]!r} and in "
                    f"{sorted(set(counted) - {counted[0]})[0]!r}; make it the same in all files, or give time.dt in a "
                    "mapping file."
                )
            dt = mapping.interval(f"{self.path}: {dimension}", np.concatenate(times))
        found = counted[0].split(" since ")[0].strip() if counted else ""
        return 1.0 if dt is None else dt, found if units is None else units

    def _parameters(self, data: xr.Dataset, whole: Section) -> dict[str, np.ndarray]:
        entries = whole.section("parameters", {})
        numeric = {str(name): item for name, item in data.data_vars.items() if item.dtype.kind in "biuf"}
        found: dict[str, Any] = {}
        if whole.take("parameters", None) is None:
            found = {
                name: self._over_members(name)
                for name, item in numeric.items()
                if item.dims and all(self._word(dimension) == "trajectory" for dimension in item.dims)
            }
        for name in entries.values:
            expected = f"a number, {self.count} numbers, one for each trajectory, or the name of such a variable"
            value = entries.take(name, expected=expected)
            found[name] = entries.numbers(name)
            if found[name] is None:
                if value not in numeric:
                    raise entries.wrong(name, expected)
                found[name] = self._over_members(value)
            if len(found[name]) == 1:
                found[name] = list(found[name]) * self.count
            if len(found[name]) != self.count:
                raise entries.wrong(name, f"{expected}; there are {len(found[name])}")
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{self.path}: parameter {name} holds values that are missing or infinite.")
        return {name: np.asarray(values, np.float64) for name, values in found.items()}

    def _over_members(self, name: str) -> np.ndarray:
        files = self._files if self._along == "trajectory" else self._files[:1]
        return np.concatenate([np.asarray(self._dataset(file)[name].values, np.float64).reshape(-1) for file in files])

    # Reading

    def _dataset(self, file: Path) -> xr.Dataset:
        """The opened file, once in every process."""
        if self._process != os.getpid():
            self._process, self._open = os.getpid(), OrderedDict()
        if file not in self._open:
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[file] = _opened(file)
        return self._open[file]

    def _values(self, channels: list[_Channel], trajectory: int, frames: slice) -> np.ndarray:
        """``(T, *space, C)``, NaN where values are missing."""
        pieces = []
        wanted = frames if self._along == "time" else slice(trajectory, trajectory + 1)
        for part, where in mapping.parts(self._counts, wanted):
            row, times = (trajectory, where) if self._along == "time" else (where.start, frames)
            data = self._dataset(self._files[part])
            read = {name: self._piece(data, name, row, times) for name in dict.fromkeys(c.array for c in channels)}
            columns = [read[c.array][..., c.level or 0] for c in channels]
            pieces.append(np.stack(columns, axis=-1))
        values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return np.ascontiguousarray(values[(slice(None), *self._keep)])

    def _piece(self, data: xr.Dataset, name: str, trajectory: int, frames: slice) -> np.ndarray:
        """``(T, *space, levels)`` of one variable of one file."""
        variable = data.variables[name]
        index: dict[Any, Any] = {}
        left = []
        for dimension, size in variable.sizes.items():
            word = self._word(dimension)
            if word == "trajectory":
                index[dimension] = trajectory
            elif word == "time":
                index[dimension] = frames
                left.append(word)
            elif word in self._axes or (word == "level" and size > 1):
                left.append(word)
            else:
                index[dimension] = 0
        try:
            values = np.asarray(variable.isel(index).values)
        except BROKEN as problem:
            raise ValueError(
                f"{data.encoding.get('source', self.path)}: variable {name}, trajectory {trajectory}, frames "
                f"{frames.start} to {frames.stop - 1} cannot be read ({brief(problem)}); copy or make the file again."
            ) from None
        order = ("time", *self._axes, "level")
        values = values.transpose([left.index(word) for word in order if word in left])
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
            values = values.astype(np.float32)
        return values[tuple(slice(None) if word in left else None for word in order)]

    def storage(self) -> Storage:
        chunks, file = list[Chunks](), self._files[0]
        group = zarr.open_group(file, mode="r") if file.is_dir() else None
        for name in dict.fromkeys(channel.array for channel in (*self._fields, *self._static)):
            variable = self._dataset(file).variables[name]
            words = ["" if self._word(d) == "level" else self._word(d) for d in variable.dims]
            if group is not None:
                chunks += of_zarr(name, group[name], words)  # type: ignore[arg-type]  # a variable is an array
            elif pieces := variable.encoding.get("chunksizes"):
                told = f"gzip {variable.encoding['complevel']}" if variable.encoding.get("zlib") else ""
                kind = np.dtype(variable.encoding.get("dtype", variable.dtype)).itemsize
                chunks.append(Chunks.of(name, variable.shape, pieces, words, kind, compression=told))
        mapped = [self.path] if self.path.endswith(SUFFIX) else []
        return Storage.of([*mapped, *self._files], chunks=tuple(chunks))

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        values = self._values(self._fields, trajectory, frames)
        missing = np.isnan(values)
        if self._holes is None and not missing.any():
            return values
        holes = np.zeros(values.shape[1:], bool) if self._holes is None else self._holes
        wrong = np.argwhere(missing != holes)
        if len(wrong):
            frame, *place, column = wrong[0].tolist()
            now, before = ("is", "is not") if missing[tuple(wrong[0])] else ("is not", "is")
            axes = zip(self.layout.grid.axes, place, strict=True)
            spot = ", ".join(f"{axis.name} {float(axis.points[i]):g}" for axis, i in axes)
            at = frames.start + frame * (frames.step or 1)
            raise NotFinite(
                f"{self.path}: field {self._fields[column].field.name} at {spot} {now} missing (NaN) in frame {at} of "
                f"trajectory {trajectory} and {before} in the first; only what is missing in every frame, such as "
                "land, can be masked. Fill the gaps before using the data.",
                [self._fields[at].field.name for at in np.unique(wrong[:, -1])],
            )
        return values if self._fluid is None else np.where(self._fluid[..., None], values, np.float32(0))

    def _read_static(self, trajectory: int) -> np.ndarray:
        values = self._values(self._static, trajectory, slice(0, 1))[0]
        return values if self._fluid is None else np.where(self._fluid[..., None] | ~np.isnan(values), values, 0)

    @cached_property
    def statistics(self) -> Statistics:  # type: ignore[override]  # an attribute, filled in when it is asked for
        return self.measured()

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        return mapping.fingerprint(self)

    def identify(self, *, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
        if "fingerprint" not in vars(self):
            self.fingerprint = mapping.fingerprint(self, progress)
        return self.fingerprint

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_process": -1}


def _guess(data: xr.Dataset, dimension: Hashable) -> str:
    """The word for a dimension, empty where nothing tells."""
    name = str(dimension).lower()
    attributes = {key: str(value) for key, value in (data[dimension].attrs if dimension in data.coords else {}).items()}
    units = attributes.get("units", "")
    word = _STANDARD.get(attributes.get("standard_name", "")) or _UNITS.get(units.lower())
    if word or " since " in units:
        return word or "time"
    if name in _NAMES:
        return _NAMES[name]
    if "positive" in attributes:
        return "level"
    return {"T": "time", "X": "x", "Y": "y", "Z": "level"}.get(attributes.get("axis", "").upper(), "")


def _round(points: np.ndarray, units: str) -> tuple[float | None, bool]:
    """The period of longitudes that go once round, ``None`` otherwise, and whether the last repeats the first."""
    period = 2 * np.pi if units.lower().startswith("rad") else 360.0
    if len(points) < 3:
        return None, False
    span = abs(float(points[-1]) - float(points[0]))
    step = span / (len(points) - 1)
    for gap, repeated in ((0.0, True), (step, False)):
        if abs(span + gap - period) < 1e-2 * step:
            return period, repeated
    return None, False


def _spherical(axis: Axis) -> Axis:
    """Latitudes with the weights of a sphere, in units of the axis."""
    unit = 1.0 if axis.units.lower().startswith("rad") else np.pi / 180
    points = axis.points.numpy() * unit
    if np.abs(points).max() > np.pi / 2 + 1e-6:
        raise ValueError(f"latitude: got {float(axis.points.abs().max()):g} {axis.units}; expected at most 90 degrees.")
    if len(points) == 1:
        return axis
    middle = 0.5 * (points[1:] + points[:-1])
    ends = 1.5 * points[[0, -1]] - 0.5 * points[[1, -2]]
    edges = np.clip(np.concatenate([ends[:1], middle, ends[1:]]), -np.pi / 2, np.pi / 2)
    weights = torch.from_numpy(np.diff(np.sin(edges)) / unit)
    return Axis(axis.name, axis.points, axis.boundary, axis.length, axis.units, weights)


def _opened(file: Path) -> xr.Dataset:
    engine, more = _engine(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # of a fill value that no number can have
            return xr.open_dataset(
                file, engine=engine, decode_times=False, cache=False, chunks=None, backend_kwargs=more
            )
    except BROKEN as problem:
        raise ValueError(
            f"{file}: truncated, damaged or not labelled ({engine} says: {brief(problem)}); copy or make it again."
        ) from None


def _engine(file: Path) -> tuple[Any, dict[str, Any]]:
    """Which library of xarray reads it, and with what."""
    if file.is_dir():
        return "zarr", {"consolidated": _is_consolidated(file)}
    with open(file, "rb") as raw:
        head = raw.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        if find_spec("h5netcdf") is None:
            raise ImportError(
                f"{file}: netCDF-4 is read with h5netcdf, which is missing; pip install 'physml[formats]'."
            )
        return "h5netcdf", {}
    if head[:4] in (b"CDF\x01", b"CDF\x02"):
        return "scipy", {}
    what = "a 64-bit data netCDF file, which is not read" if head[:4] == b"CDF\x05" else "not a netCDF file, or damaged"
    raise ValueError(f"{file}: {what}; expected netCDF-3 or netCDF-4, write or copy it again.")


def _is_consolidated(folder: Path) -> bool:
    if (folder / ".zmetadata").exists():
        return True
    try:
        return bool(json.loads((folder / "zarr.json").read_text("utf-8")).get("consolidated_metadata"))
    except (OSError, ValueError):
        return False


def _is_foreign_zarr(folder: Path) -> bool:
    """Whether it is a readable zarr group that physml did not write; those are for the store."""
    try:
        if (folder / "zarr.json").is_file():
            plain = json.loads((folder / "zarr.json").read_text("utf-8"))
            state = folder / "state" / "zarr.json"
            words = json.loads(state.read_text("utf-8"))["dimension_names"] if state.is_file() else []
            ours = words[:2] == ["trajectory", "time"] and words[-1:] == ["channel"]  # a store that lost its metadata
            return plain["node_type"] == "group" and not ours and "physml" not in plain.get("attributes", {})
        if (folder / ".zgroup").is_file():
            attributes = folder / ".zattrs"
            return not attributes.is_file() or "physml" not in json.loads(attributes.read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return False


EXPECTED = f"a netCDF file, a zarr archive with named dimensions, or a mapping file (NAME{SUFFIX}) beside one"


def recognises(path: Path) -> bool:
    """By suffix, by the metadata of a zarr folder, or by what a mapping file names."""
    if path.is_dir():
        return _is_foreign_zarr(path)
    if not path.name.endswith(SUFFIX):
        return path.suffix in _SUFFIXES
    try:
        named = mapping.read_mapping(path).files()
    except (ValueError, OSError):
        return False
    return bool(named) and (named[0].suffix in _SUFFIXES or _is_foreign_zarr(named[0]))


def opened(path: Path) -> Labelled:
    """The files, or what a mapping file says of them."""
    return Labelled(path)
