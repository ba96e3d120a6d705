"""The Well: HDF5 files of one schema for many simulations (Ohana et al. 2024, arXiv 2412.00568), read where they lie.

A file holds trajectories of one set of simulation parameters. ``t0_fields``, ``t1_fields`` and ``t2_fields`` are
scalars, vectors and tensors; an array has the axes ``[trajectory][time][space...][component...]``, and leaves out those
along which it does not change. What is read, and how it becomes a state:

* **Channels.** Scalars, then vectors, then tensors, each in the order of its ``field_names``, components by row:
  ``density``, ``velocity_x``, ``stress_xy``. Symmetric tensors keep all components, so that channel counts are the
  published ones; ``fields`` leaves some out. Arrays that no ``field_names`` lists are ignored.
* **Static fields.** Those that do not change in time. Masks of boundary conditions over several axes that hold inside
  the domain are static fields too, named ``<condition>_mask``.
* **Parameters.** Constant scalars and the simulation parameters of the root. Scalars that change in time, that are not
  finite, or that are not numbers are left out; ``provenance["left_out"]`` names them.
* **Boundaries.** A condition is looked at where each of its axes begins and ends, for the first trajectory and frame if
  it varies: ``WALL`` holds there where all of its mask does, other kinds where any of it does. An axis is periodic
  where an end is and none is a wall; where its ends differ, or no condition holds, it is open; ``SYMMETRIC`` is taken
  as a wall and an unknown kind as open.
* **Obstacles.** A static mask, or its complement, is solid where all fields are zero or not finite on it in the first,
  middle and last frame of the first trajectory of every file. One solid for all trajectories becomes the mask of the
  grid; otherwise it stays a static field, and what is not finite there is read as zero. Values that are not finite
  elsewhere are errors.
* **Time** must be even to a ten-thousandth of the frame interval, beyond the rounding of the stored clock. Files may
  differ in length: the segments say which frames there are.
* **Falling coordinates** are read in rising order, the fields with them; components keep their signs.
* **Statistics** are those of ``stats.yaml`` where it has every field and there is no solid, with the bound on a frame's
  energy and the moments of static fields taken from at most 256 frames; otherwise the split ``train`` is measured. Both
  happen when they are first asked for.

Splits are the folders ``train``, ``valid`` (as ``validation``) and ``test``. Files outside such folders are split
80/10/10 by trajectory, in order. Curvilinear grids are read by their coordinates, without the Jacobian.
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import h5py
import numpy as np
import torch
import yaml

from physml.datasets import hdf5
from physml.datasets.remote import Place, place
from physml.datasets.storage import Chunks, Storage, of_hdf5
from physml.datasets.trajectories import NotFinite, Segment, Statistics, Trajectories, measure
from physml.fields import Axis, Boundary, Grid, Layout

_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_ORDERS = ("t0_fields", "t1_fields", "t2_fields")
_SAMPLED = 256  # frames that stand for all where stats.yaml gives the moments
_FAINT = 1e-6  # a published deviation below this part of its mean is lost to the rounding of how it was computed


@dataclass(frozen=True)
class _Source:
    """An array of a file.

    Args:
        name, path: of the field, and of its array.
        components: names of its channels.
        sampled, moving: whether it has a trajectory and a time axis.
        sizes: of its space axes, 1 along those it does not change along.
    """

    name: str
    path: str
    components: tuple[str, ...]
    sampled: bool
    moving: bool
    sizes: tuple[int, ...]

    def read(self, files: hdf5.Files, file: int, row: int, frames: slice) -> np.ndarray:
        """``(T, *sizes, components)``; ``T = 1`` where it does not change in time."""
        found = hdf5.values(files.array(file, self.path), self._index(row, frames))
        return found.reshape(len(found) if self.moving else 1, *self.sizes, len(self.components))

    def fills(self, out: np.ndarray, components: Sequence[int]) -> bool:
        """Whether these components, in this order, are all that ``(T, *space, C)`` holds, as the file has them."""
        whole = self.moving and list(components) == list(range(len(self.components)))
        return whole and out.shape[1:] == (*self.sizes, len(self.components))

    def read_into(self, files: hdf5.Files, file: int, row: int, frames: slice, out: np.ndarray) -> None:
        hdf5.read_into(files.array(file, self.path), self._index(row, frames), out)

    def _index(self, row: int, frames: slice) -> tuple[int | slice, ...]:
        return (row,) * self.sampled + (frames,) * self.moving


@dataclass(frozen=True)
class _Part:
    """What one file holds; ``conditions`` are masks over several axes, with whether they hold inside."""

    path: Place
    name: str
    count: int
    frames: int
    dt: float | None
    axes: tuple[Axis, ...]
    falling: tuple[int, ...]
    moving: tuple[_Source, ...]
    still: tuple[_Source, ...]
    conditions: Mapping[str, tuple[_Source, bool]]
    parameters: Mapping[str, np.ndarray]
    left_out: tuple[str, ...]


class TheWell(Trajectories):
    """A data set of The Well, read lazily: only the frames and fields that are asked for.

    Handles are opened once in each process; see :class:`physml.datasets.hdf5.Files`. A short trajectory has fewer
    frames than ``frames``; reading beyond its end is an error. Units are not stored in the files and stay empty.

    Args:
        path: the folder of a data set (``data/{train,valid,test}/*.hdf5``), a folder with such folders or with files,
            or a file.
        fields: names of fields or channels to read (``velocity``, ``stress_xy``); all by default.

    Raises:
        FileNotFoundError: where there are no files.
        ValueError: where a file does not follow the schema, or files do not belong together; it names the file, and
            what is wrong in it.
    """

    def __init__(self, path: str | Place, *, fields: Sequence[str] | None = None) -> None:
        self.path = str(path)
        paths, folders = _found(place(path))
        self._files = hdf5.Files(paths)
        parts = [_described(self._files[index], file) for index, file in enumerate(paths)]
        inside = {name for part in parts for name, (_, holds) in part.conditions.items() if holds}
        self._parts = [_with_masks(part, sorted(inside)) for part in parts]
        for part in self._parts[1:]:
            _check_alike(self._parts[0], part)
        first = self._parts[0]
        self.name = first.name
        self._ends = np.cumsum([part.count for part in self._parts]).tolist()
        self.count, self.frames = self._ends[-1], max(part.frames for part in self._parts)
        moving, still = (
            [(source.name, component) for source in sources for component in source.components]
            for sources in (first.moving, first.still)
        )
        kept, kept_still = hdf5.chosen(moving, still, fields, self.path)
        self._moving, self._still = _placed(first.moving, kept), _placed(first.still, kept_still)
        self._solid = self._find_solid()
        self.layout = Layout(
            fields=hdf5.named([moving[index][1] for index in kept]),
            grid=Grid(first.axes, self._common_fluid()),
            dt=hdf5.common_interval([(part.dt, str(part.path)) for part in self._parts]),
            static=hdf5.named([still[index][1] for index in kept_still]),
        )
        self.parameters, lost = hdf5.joined([(part.path, part.parameters) for part in self._parts])
        left_out = {note for part in self._parts for note in part.left_out} | {f"{name}: not finite" for name in lost}
        lengths = [part.frames for part in self._parts for _ in range(part.count)]
        if any(folders):
            rows: dict[str, list[int]] = {}
            for folder, part, end in zip(folders, self._parts, self._ends, strict=True):
                rows.setdefault(folder, []).extend(range(end - part.count, end))
        else:
            rows = hdf5.tenths([part.count for part in self._parts])
        self.segments = hdf5.whole(rows, lengths)
        self.fingerprint = hdf5.fingerprint(
            paths, folders, self.layout.names, [item.name for item in self.layout.static], rows
        )
        self.provenance = {
            "source": ["/".join(filter(None, pair)) for pair in zip(folders, (f.name for f in paths), strict=True)],
            "format": "The Well (arXiv 2412.00568)",
            "left_out": sorted(left_out),
        }
        self._files.close()

    @cached_property
    def statistics(self) -> Statistics:  # type: ignore[override]  # an attribute that is found when first asked for
        train = self.segments_of("train")
        published = None if self._solid else self._published()
        return self.measured() if published is None else self._completed(train, *published)

    def _place(self, trajectory: int) -> tuple[int, _Part, int]:
        index = bisect_right(self._ends, trajectory)
        part = self._parts[index]
        return index, part, trajectory - (self._ends[index] - part.count)

    def length(self, trajectory: int) -> int:
        return self._place(trajectory)[1].frames

    def storage(self) -> Storage:
        chunks: tuple[Chunks, ...] = ()
        for source in (*self._parts[0].moving, *self._parts[0].still):
            array = self._files.array(0, source.path)
            lead = ["trajectory"] * source.sampled + ["time"] * source.moving
            words = lead + [f"axis {at}" for at in range(array.ndim - len(lead))]
            chunks += of_hdf5(array, words)
        published = not self._solid and self._published() is not None
        return Storage.of(
            map(str, self._files.paths), chunks=chunks, statistics="published" if published else "measured"
        )

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        out = self._room(frames)
        self._fill(trajectory, frames, out)
        return out

    def _fill(self, trajectory: int, frames: slice, out: np.ndarray) -> None:
        index, _, row = self._place(trajectory)
        self._gather(index, row, frames, self._moving, out)

    def _not_finite(self, trajectory: int, frames: slice, values: np.ndarray) -> None:
        self._clear_solid(values, trajectory)
        finite = np.isfinite(values)
        if not finite.all():
            _, part, row = self._place(trajectory)
            frame, *_, channel = (int(place[0]) for place in np.nonzero(~finite))
            raise NotFinite(
                f"{part.path}: {self.layout.names[channel]}, trajectory {row}, frame "
                f"{frames.start + frame * (frames.step or 1)} holds NaN or infinite values outside every mask of the "
                "file; repair the data, or leave the field out with `fields`.",
                [self.layout.names[at] for at in np.unique(np.nonzero(~finite)[-1])],
            )

    def _read_static(self, trajectory: int) -> np.ndarray:
        index, _, row = self._place(trajectory)
        out = np.empty((1, *self.layout.grid.shape, len(self.layout.static)), dtype=np.float32)
        self._gather(index, row, slice(0, 1), self._still, out)
        if not np.isfinite(out).all():
            self._clear_solid(out, trajectory)
        return out[0]

    def _clear_solid(self, values: np.ndarray, trajectory: int) -> None:
        """Put zero in place of what is not finite inside the obstacle."""
        if self._solid is not None:
            solid = self._solid_of(trajectory)[..., None]
            values[solid & ~np.isfinite(values)] = 0

    def _gather(
        self,
        index: int,
        row: int,
        frames: slice,
        sources: Sequence[tuple[_Source, list[int], list[int]]],
        out: np.ndarray,
    ) -> None:
        """Put channels of several arrays in ``out``, ``(T, *space, C)``, broadcast along axes that they leave out, in
        rising order of coordinates.
        """
        falling = self._parts[index].falling
        turned = np.flip(out, tuple(axis + 1 for axis in falling)) if falling else out
        for source, components, places in sources:
            if not falling and source.fills(out, components):
                source.read_into(self._files, index, row, frames, out)
                continue
            found = source.read(self._files, index, row, frames)
            for channel, component in zip(places, components, strict=True):
                turned[..., channel] = found[..., component]

    # obstacles

    def _find_solid(self) -> tuple[_Source, bool] | None:
        """The static mask that is solid in all files, and the value it has there."""
        first = self._parts[0]
        for source in first.still:
            if len(source.components) > 1 or not source.name.endswith("mask"):
                continue
            for value in (True, False):
                if all(self._is_solid(index, source, value) for index in range(len(self._parts))):
                    return source, value
        return None

    def _is_solid(self, index: int, source: _Source, value: bool) -> bool:
        part = self._parts[index]
        shape = tuple(len(axis.points) for axis in part.axes)
        solid = np.broadcast_to((source.read(self._files, index, 0, slice(0, 1))[0, ..., 0] > 0.5) == value, shape)
        if solid.all() or not solid.any():
            return False
        flows = False
        for frame in {0, part.frames // 2, part.frames - 1}:
            for field in part.moving:
                found = field.read(self._files, index, 0, slice(frame, frame + 1))[0]
                moves = np.broadcast_to((np.isfinite(found) & (found != 0)).any(axis=-1), shape)
                if moves[solid].any():
                    return False
                flows = flows or bool(moves.any())
        return flows

    def _solid_of(self, trajectory: int) -> np.ndarray:
        assert self._solid is not None
        source, value = self._solid
        index, _, row = self._place(trajectory)
        mask = np.empty((1, *(len(axis.points) for axis in self._parts[index].axes), 1), dtype=np.float32)
        self._gather(index, row, slice(0, 1), [(source, [0], [0])], mask)
        return (mask[0, ..., 0] > 0.5) == value

    def _common_fluid(self) -> torch.Tensor | None:
        """The mask of the grid, where one solid holds for all trajectories."""
        if self._solid is None or self._solid[0].sampled:
            return None
        begins = [end - part.count for end, part in zip(self._ends, self._parts, strict=True)]
        solid = self._solid_of(0)
        if any((self._solid_of(row) != solid).any() for row in begins[1:]):
            return None
        return torch.from_numpy(~solid)

    # statistics

    def _published(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Mean, deviation and deviation of increments of each channel from ``stats.yaml``; ``None`` if unfit."""
        where = place(self.path)
        folder = where if where.is_dir() else where.parent
        file = next((f for f in (up / "stats.yaml" for up in (folder, *folder.parents[:2])) if f.is_file()), None)
        if file is None:
            return None
        try:
            plain = yaml.safe_load(file.read_text())
            rows = [
                [np.ravel(np.asarray(plain[key][source.name], np.float64)) for source, *_ in self._moving]
                for key in ("mean", "std", "std_delta")
            ]
        except (yaml.YAMLError, KeyError, TypeError, ValueError, OSError):
            return None
        sizes = [len(source.components) for source, *_ in self._moving]
        if any([len(found) for found in row] != sizes for row in rows):
            return None
        mean, std, rise = (
            np.concatenate([found[parts] for found, (_, parts, _) in zip(row, self._moving, strict=True)])
            for row in rows
        )
        good = np.isfinite(mean) & np.isfinite(std) & np.isfinite(rise) & (std > _FAINT * np.abs(mean))
        return (mean, std, rise) if (good & (rise > _FAINT * std)).all() else None

    def _completed(self, train: Sequence[Segment], mean: np.ndarray, std: np.ndarray, rise: np.ndarray) -> Statistics:
        """Published moments, and from a sample of frames what ``stats.yaml`` lacks."""
        ends = np.cumsum([s.stop - s.start for s in train])
        sample = []
        for chosen in np.unique(np.linspace(0, ends[-1] - 1, _SAMPLED).astype(int)):
            s, end = train[at := int(np.searchsorted(ends, chosen, side="right"))], int(ends[at])
            frame = s.stop - (end - int(chosen))
            sample.append(Segment(s.trajectory, frame, frame + 1))
        energies = []

        def read(trajectory: int, start: int, stop: int) -> np.ndarray:
            frames = self.read(trajectory, start, stop)
            energies.append(float((((frames - mean) / std) ** 2).mean()))
            return frames

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sample may hold one value of what the whole split does not
            rest = measure(self.layout, sample, read, read_static=self.read_static)
        rows = sorted({s.trajectory for s in train})
        numbers = {name: np.asarray(found)[rows] for name, found in self.parameters.items()}
        return replace(
            rest,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            increment_std=tuple(rise.tolist()),
            energy=max(energies),
            number_mean={name: float(found.mean()) for name, found in numbers.items()},
            number_std={name: float(found.std()) for name, found in numbers.items()},
        )


def _found(path: Place) -> tuple[list[Place], list[str]]:
    """Files, and the split that each one's folder names; an empty text where it names none."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    if path.is_file():
        return [path], [_SPLITS.get(path.parent.name, "")]
    for base in (path / "data", path):
        folders = [base / name for name in _SPLITS if (base / name).is_dir()]
        pairs = [(file, _SPLITS[folder.name]) for folder in folders for file in hdf5.listed(folder)]
        if pairs:
            return [file for file, _ in pairs], [split for _, split in pairs]
    files = hdf5.listed(path)
    if not files:
        raise FileNotFoundError(f"{path}: holds no files {' or '.join(hdf5.SUFFIXES)}, nor folders of them.")
    return files, [_SPLITS.get(path.name, "")] * len(files)


def _described(file: h5py.File, path: Place) -> _Part:
    """Everything but values: names, shapes, clock, coordinates, parameters."""
    names = _space(file, path)
    coordinates = [_coordinate(file, name, path) for name in names]
    falling = tuple(index for index, points in enumerate(coordinates) if len(points) > 1 and points[0] > points[-1])
    shape = tuple(len(points) for points in coordinates)
    clocks = hdf5.dataset(hdf5.group(file, "dimensions"), "time")
    times = hdf5.values(clocks, kind=clocks.dtype.newbyteorder("="))
    if times.ndim not in (1, 2) or not times.size:
        raise ValueError(f"{path}: dimensions/time has shape {times.shape}; expected (T) or (trajectory, T).")
    frames = times.shape[-1]
    counted = file.attrs.get("n_trajectories")
    count = int(np.asarray(counted).reshape(-1)[0]) if counted is not None else _count(file)
    if count < 1 or (times.ndim == 2 and len(times) != count):
        raise ValueError(f"{path}: holds {count} trajectories, but dimensions/time has shape {times.shape}.")
    dt = hdf5.common_interval(
        [
            (hdf5.interval(row, f"{path}: dimensions/time"), f"{path}: row {at}")
            for at, row in enumerate(np.atleast_2d(times))
        ]
    )
    sources = _sources(file, path, names, count, frames, shape)
    moving = tuple(source for source in sources if source.moving)
    if not moving:
        raise ValueError(f"{path}: no field changes in time; there is nothing to predict.")
    boundaries, conditions, left_out = _boundaries(file, path, names, count, frames, shape)
    parameters, ignored = _numbers(file, count, frames)
    kind = hdf5.text(file.attrs.get("grid_type", "cartesian"))
    if kind.lower() != "cartesian":
        warnings.warn(
            f"{path}: grid_type is {kind!r}; points are weighted by their coordinates, without the Jacobian.",
            stacklevel=4,
        )
    return _Part(
        path=path,
        name=hdf5.text(file.attrs.get("dataset_name", path.stem)),
        count=count,
        frames=frames,
        dt=dt if frames > 1 else None,
        axes=tuple(
            hdf5.axis(name, points[::-1] if index in falling else points, boundaries[index], str(path))
            for index, (name, points) in enumerate(zip(names, coordinates, strict=True))
        ),
        falling=falling,
        moving=moving,
        still=tuple(source for source in sources if not source.moving),
        conditions=conditions,
        parameters=parameters,
        left_out=(*left_out, *ignored),
    )


def _space(file: h5py.File, path: Place) -> tuple[str, ...]:
    names = hdf5.texts(hdf5.group(file, "dimensions").attrs.get("spatial_dims", ()))
    dimensions = int(np.asarray(file.attrs.get("n_spatial_dims", len(names))).reshape(-1)[0])
    if not names or len(names) != dimensions:
        raise ValueError(
            f"{path}: attribute spatial_dims of dimensions is {list(names)}, n_spatial_dims {dimensions}; expected as "
            "many names."
        )
    return names


def _coordinate(file: h5py.File, name: str, path: Place) -> np.ndarray:
    """The coordinates ``(N,)`` of an axis; those of all trajectories must agree."""
    source = hdf5.dataset(hdf5.group(file, "dimensions"), name)
    points = hdf5.values(source, kind=np.float64)
    if hdf5.flag(source.attrs, "time_varying") or points.ndim not in (1, 2) or not points.size:
        raise ValueError(
            f"{path}: dimensions/{name} has shape {points.shape}; only grids that stay as they are can be read."
        )
    if points.ndim == 2:
        if np.ptp(points, axis=0).max() > 1e-6 * np.ptp(points):
            raise ValueError(f"{path}: dimensions/{name} differs between trajectories; they must share one grid.")
        points = points[0]
    return points


def _count(file: h5py.File) -> int:
    """Trajectories of a file that does not say: the first axis of an array that has one for them."""
    for order in _ORDERS:
        for item in hdf5.group(file, order).values():
            if isinstance(item, h5py.Dataset) and hdf5.flag(item.attrs, "sample_varying"):
                return int(item.shape[0])
    return 1


def _sources(
    file: h5py.File, path: Place, names: tuple[str, ...], count: int, frames: int, shape: tuple[int, ...]
) -> list[_Source]:
    found = []
    for order, key in enumerate(_ORDERS):
        fields = hdf5.group(file, key)
        if "field_names" not in fields.attrs:
            raise ValueError(f"{path}: {key} has no attribute field_names; it lists the fields in order.")
        for name in hdf5.texts(fields.attrs["field_names"]):
            array = hdf5.dataset(fields, name)
            sampled, moving = (hdf5.flag(array.attrs, flag) for flag in ("sample_varying", "time_varying"))
            varies = np.asarray(array.attrs.get("dim_varying", [True] * len(shape)), dtype=bool).reshape(-1)
            sizes = tuple(n if v else 1 for n, v in zip(shape, varies, strict=False))
            lead = (count,) * sampled + (frames,) * moving
            absent = tuple(n for n, v in zip(shape, varies, strict=False) if v)  # the axes that are stored
            tails = ((len(shape),) * order, (len(shape) ** order,))[: 1 + (order > 1)]
            expected = {lead + middle + tail for middle in (absent, sizes) for tail in tails}
            if len(varies) != len(shape) or array.shape not in expected:
                raise ValueError(
                    f"{path}: {key}/{name} has shape {array.shape}, but its flags (sample_varying {sampled}, "
                    f"time_varying {moving}, dim_varying {varies.tolist()}) and the sizes of the file ask for "
                    f"{' or '.join(map(str, sorted(expected)))}; correct the flags or the array."
                )
            parts = product(names, repeat=order)
            components = tuple(f"{name}_{''.join(part)}" if order else name for part in parts)
            found.append(_Source(name, f"{key}/{name}", components, sampled, moving, sizes))
    return found


def _boundaries(
    file: h5py.File, path: Place, names: tuple[str, ...], count: int, frames: int, shape: tuple[int, ...]
) -> tuple[tuple[Boundary, ...], dict[str, tuple[_Source, bool]], list[str]]:
    """The kind of each axis, masks over several axes, and what could not be expressed."""
    ends: list[list[str]] = [["OPEN", "OPEN"] for _ in names]
    masks: dict[str, tuple[_Source, bool]] = {}
    left_out = []
    conditions = file.get("boundary_conditions", {})
    for name in conditions:
        condition = hdf5.group(conditions, name)
        kind = hdf5.text(condition.attrs.get("bc_type", "")).upper()
        dims = hdf5.texts(condition.attrs.get("associated_dims", ()))
        if unknown := [dim for dim in dims if dim not in names]:
            raise ValueError(
                f"{path}: boundary_conditions/{name} is about {unknown[0]!r}, the axes are {', '.join(names)}."
            )
        if kind not in ("WALL", "PERIODIC", "OPEN", "SYMMETRIC"):
            left_out.append(f"boundary_conditions/{name}: kind {kind or 'missing'}")
            continue
        if "mask" not in condition:
            mask = np.ones([shape[names.index(dim)] for dim in dims], dtype=bool)
        else:
            sampled, moving = (hdf5.flag(condition.attrs, key) for key in ("sample_varying", "time_varying"))
            array = hdf5.dataset(condition, "mask")
            sizes = tuple(shape[names.index(dim)] for dim in dims)
            expected = (count,) * sampled + (frames,) * moving + sizes
            if array.shape != expected:
                raise ValueError(
                    f"{path}: boundary_conditions/{name}/mask has shape {array.shape}, expected {expected}."
                )
            mask = hdf5.values(array, (0,) * (sampled + moving)) > 0.5
            if len(dims) > 1:
                inside = bool(mask[(slice(1, -1),) * mask.ndim].any())
                ordered = [names.index(dim) for dim in dims]
                if not moving and ordered == sorted(ordered):
                    kept = tuple(n if dim in dims else 1 for n, dim in zip(shape, names, strict=True))
                    label = name if name.endswith("mask") else f"{name}_mask"
                    source = _Source(label, f"boundary_conditions/{name}/mask", (label,), sampled, False, kept)
                    masks[name] = source, inside
                elif inside:
                    left_out.append(f"boundary_conditions/{name}/mask: changes in time, or has its axes out of order")
        for at, dim in enumerate(dims):
            for side in (0, -1):
                edge = mask.take(side, axis=at)
                if edge.all() if kind == "WALL" else edge.any():
                    ends[names.index(dim)][side] = kind
    return tuple(_kind(*pair) for pair in ends), masks, left_out


def _kind(low: str, high: str) -> Boundary:
    """One kind for both ends of an axis."""
    low, high = ("WALL" if end == "SYMMETRIC" else end for end in (low, high))
    if "PERIODIC" in (low, high) and "WALL" not in (low, high):
        return Boundary.PERIODIC
    return Boundary.WALL if low == high == "WALL" else Boundary.OPEN


def _numbers(file: h5py.File, count: int, frames: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Numbers of each trajectory, and the names of scalars that are none."""
    found: dict[str, np.ndarray] = {}
    left_out = []
    scalars = file.get("scalars", {})
    for name in hdf5.texts(scalars.attrs.get("field_names", ())) if scalars else ():
        item = scalars.get(name)
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub":
            left_out.append(f"scalars/{name}: not a number")
        elif hdf5.flag(item.attrs, "time_varying"):
            left_out.append(f"scalars/{name}: changes in time")
        elif item.size not in (1, count):
            left_out.append(f"scalars/{name}: shape {item.shape}")
        else:
            found[name] = np.broadcast_to(hdf5.values(item, kind=np.float64).reshape(-1), (count,)).copy()
    for name in hdf5.texts(file.attrs.get("simulation_parameters", ())):
        if name in found or any(text.startswith(f"scalars/{name}: changes") for text in left_out):
            continue
        try:
            found[name] = np.full(count, float(np.asarray(file.attrs[name]).reshape(-1)[0]))
        except (KeyError, ValueError, TypeError, IndexError):
            left_out.append(f"simulation parameter {name}: missing, or not a number")
    return found, left_out


def _with_masks(part: _Part, names: Sequence[str]) -> _Part:
    """The part with these conditions among its static fields."""
    if missing := [name for name in names if name not in part.conditions]:
        raise ValueError(f"{part.path}: lacks the mask of boundary_conditions/{missing[0]}, which other files have.")
    return replace(part, still=(*part.still, *(part.conditions[name][0] for name in names)))


def _check_alike(first: _Part, part: _Part) -> None:
    """Files of a data set differ in length, number and parameters only."""
    where = f"{part.path} and {first.path} do not belong together"
    if part.name != first.name:
        raise ValueError(f"{where}: dataset_name is {part.name!r} and {first.name!r}; open them apart.")
    if part.axes and (difference := Layout((), Grid(part.axes), 1.0).difference(Layout((), Grid(first.axes), 1.0))):
        raise ValueError(f"{where}: {difference}; open them apart.")
    if part.falling != first.falling:
        raise ValueError(f"{where}: coordinates rise in one and fall in the other; store them in one order.")
    if (part.moving, part.still) != (first.moving, first.still):
        mine, its = ([source.path for source in (*p.moving, *p.still)] for p in (part, first))
        raise ValueError(f"{where}: fields {mine} and {its}, or their flags, differ; open them apart.")


def _placed(sources: Sequence[_Source], kept: Sequence[int]) -> list[tuple[_Source, list[int], list[int]]]:
    """Of each array that is needed: its components, and their places among the kept channels."""
    found, begin = [], 0
    for source in sources:
        components = [index - begin for index in kept if begin <= index < begin + len(source.components)]
        if components:
            found.append((source, components, [kept.index(begin + component) for component in components]))
        begin += len(source.components)
    return found


EXPECTED = "files of The Well (a folder with data/train/*.hdf5, or such files)"


def recognises(path: Place) -> bool:
    """Whether the folder tree, or the groups of the first file, are those of The Well."""
    if path.is_file() and path.suffix not in hdf5.SUFFIXES:
        return False
    try:
        files, folders = _found(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with hdf5.open_file(files[0]) as file:
            return any(key in file for key in _ORDERS)
    except ValueError:
        return any(folders)


def opened(path: Place) -> TheWell:
    """All fields of the data set."""
    return TheWell(path)
