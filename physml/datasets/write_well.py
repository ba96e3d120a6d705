"""A data set as files of The Well: the HDF5 schema of Ohana et al. (2024), arXiv 2412.00568.

==============================================  ====================================================================
where                                           what
==============================================  ====================================================================
``data/{train,valid,test}/NAME.hdf5``           the trajectories of a split, in their order
root                                            ``dataset_name``, ``grid_type`` (``cartesian``), ``n_spatial_dims``,
                                                ``n_trajectories``, ``simulation_parameters`` and each of them
``dimensions``                                  ``time`` and the axes; ``spatial_dims`` has their order
``boundary_conditions/x_periodic`` ...          kind and mask of each axis: true at its first and last point
``scalars``                                     every parameter
``t0_fields``, ``t1_fields``, ``t2_fields``     scalars, vectors, tensors: ``velocity_x`` and ``velocity_y`` become
                                                ``velocity``, with the components as last axis
``stats.yaml``                                  mean, deviation and root mean square of each field and of its change
                                                from frame to frame, over the split ``train``
==============================================  ====================================================================

Fields, coordinates and times are single precision, as published, and parameters double. Arrays are not chunked and not
compressed. What differs from the published collection: a split is one file, whatever the parameters. Those that differ
between trajectories are scalars with a value for each (``sample_varying``), which the schema allows; they are not among
the ``simulation_parameters``, which a file has once. ``stats.yaml`` has all digits, not four. The root attribute
``provenance`` says how the data came to be, as JSON.

Not stored: units, a length of an axis that its points do not tell, own quadrature weights. Data with an obstacle, or
with splits that are not whole trajectories, are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

from physml.datasets import hdf5
from physml.datasets.file_writer import FileLayout, Placed, allocated, ends_lost, tensors, told, units_of
from physml.datasets.store import frames_per_chunk
from physml.datasets.trajectories import Accumulator
from physml.datasets.well import TheWell
from physml.datasets.writing import Plan
from physml.fields import Field, Grid

_FOLDERS = {"train": "train", "validation": "valid", "test": "test"}


class WellFiles(FileLayout):
    """The folder of a data set of The Well."""

    ending = ("",)

    def check(self, path: Path, plan: Plan) -> None:
        if plan.layout.grid.mask is not None:
            raise ValueError("layout: has an obstacle, which is not written to files of The Well; write a store.")
        if unknown := sorted(set(plan.segments) - set(_FOLDERS)):
            raise ValueError(f"segments: got split {unknown[0]!r}; The Well has {', '.join(_FOLDERS)}.")
        rows = [segment for found in plan.segments.values() for segment in found]
        once = sorted(segment.trajectory for segment in rows) == list(range(plan.count))
        if not once or any((segment.start, segment.stop) != (0, plan.frames) for segment in rows):
            raise ValueError(
                "segments: The Well has a folder for each split, so each trajectory must be whole in one split; write "
                "a store."
            )

    def lost(self, plan: Plan) -> tuple[str, ...]:
        units = units_of(plan.layout)
        return (*((f"units ({units})",) if units else ()), *ends_lost(plan.layout))

    def allocate(self, folder: Path, path: Path, plan: Plan) -> tuple[Placed, ...]:
        placed: list[Placed] = []
        for split, segments in plan.segments.items():
            rows = tuple(segment.trajectory for segment in segments)
            if rows:
                where = folder / path.name / "data" / _FOLDERS[split]
                where.mkdir(parents=True)
                placed += _written(where / f"{plan.name}.hdf5", plan, rows)
        return tuple(placed)

    def conclude(self, folder: Path, path: Path, plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> None:
        (folder / path.name / "stats.yaml").write_text(yaml.safe_dump(_moments(plan, read), sort_keys=False), "utf-8")

    def names(self, path: Path) -> tuple[str, ...]:
        return (path.name,)

    def provenance(self, path: Path) -> Mapping[str, Any]:
        [file] = (path / "data" / "train").glob("*.hdf5")
        with hdf5.open_file(file) as opened:
            found: dict[str, Any] = json.loads(hdf5.text(opened.attrs["provenance"]))
        return found

    def opened(self, path: Path) -> TheWell:
        return TheWell(path)


def _written(path: Path, plan: Plan, rows: tuple[int, ...]) -> list[Placed]:
    """The file of a split."""
    layout, grid = plan.layout, plan.layout.grid
    numbers = {name: np.asarray(plan.parameters[name], np.float64) for name in sorted(plan.parameters)}
    common = {name: float(values[0]) for name, values in numbers.items() if (values == values[0]).all()}
    with h5py.File(path, "w") as file:
        file.attrs["dataset_name"], file.attrs["grid_type"] = plan.name, "cartesian"
        file.attrs["n_spatial_dims"], file.attrs["n_trajectories"] = len(grid.axes), len(rows)
        _put_names(file, "simulation_parameters", list(common))
        file.attrs.update(common)
        file.attrs["provenance"] = json.dumps(told(plan))
        dimensions = file.create_group("dimensions")
        _put_names(dimensions, "spatial_dims", grid.names)
        _put(dimensions, "time", np.arange(plan.frames) * layout.dt, moving=True)
        for axis in grid.axes:
            _put(dimensions, axis.name, axis.points.numpy())
        conditions = file.create_group("boundary_conditions")
        for axis in grid.axes:
            condition = conditions.create_group(f"{axis.name}_{axis.boundary}")
            condition.attrs["bc_type"] = str(axis.boundary).upper()
            _put_names(condition, "associated_dims", [axis.name])
            _put_names(condition, "associated_fields", [])
            _flag(condition, sampled=False, moving=False)
            condition["mask"] = np.isin(np.arange(len(axis.points)), (0, len(axis.points) - 1))
        scalars = file.create_group("scalars")
        _put_names(scalars, "field_names", list(numbers))
        for name, values in numbers.items():
            scalars[name] = common[name] if name in common else values[list(rows)]
            _flag(scalars[name], sampled=name not in common, moving=False)
        placed: list[Placed] = []
        for part, static in ((layout.fields, False), (layout.static, True)):
            placed += _fields(file, path, plan, rows, part, static)
    return placed


def _fields(
    file: h5py.File, path: Path, plan: Plan, rows: tuple[int, ...], fields: Sequence[Field], static: bool
) -> list[Placed]:
    axes = plan.layout.grid.names
    placed = []
    for order, found in enumerate(tensors([field.name for field in fields], axes)):
        group = file.require_group(f"t{order}_fields")
        _put_names(group, "field_names", [*hdf5.texts(group.attrs.get("field_names", ())), *found])
        for name, channels in found.items():
            lead = (len(rows),) if static else (len(rows), plan.frames)
            offset = allocated(group, name, (*lead, *plan.layout.grid.shape, *(len(axes),) * order))
            _flag(group[name], sampled=True, moving=not static)
            group[name].attrs["dim_varying"] = np.ones(len(axes), dtype=bool)
            if order == 2:
                group[name].attrs["symmetric"] = group[name].attrs["antisymmetric"] = False
            placed.append(Placed(path, offset, rows, channels, static))
    return placed


def _put_names(item: h5py.Group, name: str, names: Sequence[str]) -> None:
    item.attrs.create(name, np.array(list(names), dtype=object), dtype=h5py.string_dtype())


def _put(group: h5py.Group, name: str, values: np.ndarray, moving: bool = False) -> None:
    group[name] = values.astype(np.float32)
    _flag(group[name], sampled=False, moving=moving)


def _flag(item: h5py.Group | h5py.Dataset, *, sampled: bool, moving: bool) -> None:
    item.attrs["sample_varying"], item.attrs["time_varying"] = sampled, moving


def _moments(plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> dict[str, dict[str, Any]]:
    """``stats.yaml``: mean, deviation and root mean square of each field and of its change from frame to frame.

    As published, every point counts alike, on stretched axes too.
    """
    axes = tuple(replace(axis, weights=torch.ones_like(axis.points), uniform=True) for axis in plan.layout.grid.axes)
    found, step = Accumulator(replace(plan.layout, grid=Grid(axes))), frames_per_chunk(plan.layout, plan.frames)
    for segment in plan.segments["train"]:
        last = None
        for start in range(segment.start, segment.stop, step):
            values = read(segment.trajectory, start, min(start + step, segment.stop))
            found.add(segment.trajectory, values, last)
            last = values[-1:]
    shapes, d = tensors(plan.layout.names, plan.layout.grid.names), len(plan.layout.grid.axes)
    told: dict[str, dict[str, Any]] = {}
    for end, moments in (("", found.states), ("_delta", found.increments)):
        for key in ("mean", "std", "rms") if moments is not None else ():
            values = getattr(moments, key)
            told[key + end] = {
                name: values[list(channels)].reshape((d,) * order).tolist()
                for order, fields in enumerate(shapes)
                for name, channels in fields.items()
            }
    return told
