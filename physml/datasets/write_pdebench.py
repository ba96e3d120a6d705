"""A data set as a file of PDEBench: the HDF5 layouts of Takamoto et al. (2022), arXiv 2210.07182.

Which layout it is follows from the fields and the boundaries, as readers take both from the layout:

===============================================  ==============================  ====================================
fields                                           axes                            arrays
===============================================  ==============================  ====================================
``density``, ``pressure``, ``velocity_x`` ...    all periodic, and the name of   ``density``, ``pressure``, ``Vx``
                                                 the file says ``periodic``; or  ..., ``(n, T, *space)``
                                                 all open, and it does not
one, whatever its name                           all periodic                    ``tensor (n, T, *space)``
one                                              one or two, all open            ``0000/data (T, *space, 1)`` ...
two                                              two, both walls                 ``0000/data (T, x, y, 2)`` ...
===============================================  ==============================  ====================================

Anything else is refused, as are other axes than ``x``, ``y``, ``z``, obstacles and static fields. Arrays ``(n, ...)``
have ``x-coordinate`` ... and ``t-coordinate`` beside them, which as published has one time more than there are frames;
groups have ``grid/x`` ... and ``grid/t``. All is single precision, neither chunked nor compressed.

Not stored: splits (there are none: physml's reader tests on the first tenth of the samples, and on the last tenth of
groups), units, names of fields but those of gas, parameters that differ between trajectories, and all of them but
``beta``, ``nu``, ``rho``, ``eta``, ``zeta`` and ``mach``, which become attributes of the root. The root attribute
``provenance`` says how the data came to be, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from physml.datasets import hdf5
from physml.datasets.file_writer import FileLayout, Placed, allocated, ends_lost, told, units_of
from physml.datasets.pdebench import PDEBench
from physml.datasets.writing import Plan
from physml.fields import Boundary, Layout

_NUMBERS = {"beta": "beta", "nu": "nu", "rho": "rho", "eta": "eta", "zeta": "zeta", "mach": "M"}
_GROUPS = {
    (1, 1, Boundary.OPEN): ("concentration",),
    (2, 1, Boundary.OPEN): ("height",),
    (2, 2, Boundary.WALL): ("activator", "inhibitor"),
}


@dataclass(frozen=True)
class _Kind:
    """A layout: arrays with the channel of each, or groups with all channels; and the names that readers give them."""

    arrays: Mapping[str, int]
    names: tuple[str, ...]
    grouped: bool = False


class PDEBenchFiles(FileLayout):
    """One file of PDEBench."""

    ending = (".hdf5", ".h5")

    def check(self, path: Path, plan: Plan) -> None:
        layout = plan.layout
        if layout.grid.mask is not None or layout.static:
            raise ValueError(
                "layout: has an obstacle or static fields, for which PDEBench has no place; write a store."
            )
        if layout.grid.names != tuple("xyz"[: len(layout.grid.axes)]):
            raise ValueError(f"layout: got axes {', '.join(layout.grid.names)}; those of PDEBench are x, y, z.")
        _kind(path, layout)

    def lost(self, plan: Plan) -> tuple[str, ...]:
        layout, found = plan.layout, ["splits (readers make their own)"]
        if units := units_of(layout):
            found.append(f"units ({units})")
        kind = _kind(Path("periodic" if layout.grid.axes[0].periodic else ""), layout)
        if set(kind.names) != set(layout.names):
            found.append(f"names of fields ({', '.join(layout.names)} will be read as {', '.join(kind.names)})")
        if left := sorted(set(plan.parameters) - set(_common(plan))):
            found.append(f"the parameters {', '.join(left)}")
        return (*found, *ends_lost(layout))

    def allocate(self, folder: Path, path: Path, plan: Plan) -> tuple[Placed, ...]:
        layout, axes = plan.layout, plan.layout.grid.axes
        kind, every = _kind(path, layout), tuple(range(plan.count))
        times = (np.arange(plan.frames + 1) * layout.dt).astype(np.float32)
        points = {axis.name: axis.points.numpy().astype(np.float32) for axis in axes}
        inside, placed = folder / path.name, []
        with h5py.File(inside, "w") as file:
            file.attrs["provenance"] = json.dumps(told(plan))
            file.attrs.update({_NUMBERS[name]: value for name, value in _common(plan).items()})
            if kind.grouped:
                shape = (plan.frames, *layout.grid.shape, len(layout.fields))
                channels = tuple(range(len(layout.fields)))
                for row in every:
                    group = file.create_group(f"{row:04d}")
                    placed.append(Placed(inside, allocated(group, "data", shape), (row,), channels))
                    for name, values in {**points, "t": times[:-1]}.items():
                        group[f"grid/{name}"] = values
            else:
                for name, values in {**points, "t": times}.items():
                    file[f"{name}-coordinate"] = values
                for name, channel in kind.arrays.items():
                    offset = allocated(file, name, (plan.count, plan.frames, *layout.grid.shape))
                    placed.append(Placed(inside, offset, every, (channel,)))
        return tuple(placed)

    def conclude(self, folder: Path, path: Path, plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> None:
        """Nothing follows from the values."""

    def names(self, path: Path) -> tuple[str, ...]:
        return (path.name,)

    def provenance(self, path: Path) -> Mapping[str, Any]:
        with hdf5.open_file(path) as file:
            found: dict[str, Any] = json.loads(hdf5.text(file.attrs["provenance"]))
        return found

    def opened(self, path: Path) -> PDEBench:
        return PDEBench(path)


def _common(plan: Plan) -> dict[str, float]:
    """The parameters that the file can hold."""
    known = {name: plan.parameters[name] for name in _NUMBERS if name in plan.parameters}
    return {name: float(values[0]) for name, values in known.items() if len(set(values)) == 1}


def _kind(path: Path, layout: Layout) -> _Kind:
    """The layout that fits.

    Raises:
        ValueError: where none does.
    """
    axes = layout.grid.axes
    alike = len(set(layout.grid.boundaries)) == 1
    boundary = axes[0].boundary if alike else None
    gas = {"density": "density", "pressure": "pressure"} | {f"velocity_{axis.name}": f"V{axis.name}" for axis in axes}
    if set(layout.names) == set(gas) and boundary in (Boundary.PERIODIC, Boundary.OPEN):
        if (boundary is Boundary.PERIODIC) != ("periodic" in path.stem.lower()):
            wanted = f"{path.stem}_periodic{path.suffix}" if boundary is Boundary.PERIODIC else "another name"
            raise ValueError(
                f"path: got {path.name} for gas with {boundary} axes; of a file of PDEBench the name says whether it "
                f"is periodic, give {wanted}."
            )
        return _Kind({gas[name]: layout.names.index(name) for name in gas}, tuple(gas))
    if len(layout.names) == 1 and boundary is Boundary.PERIODIC:
        return _Kind({"tensor": 0}, ("u",))
    if alike and (names := _GROUPS.get((len(axes), len(layout.names), axes[0].boundary))):
        return _Kind({}, names, grouped=True)
    described = ", ".join(f"{axis.name} {axis.boundary}" for axis in axes)
    raise ValueError(
        f"layout: got fields {', '.join(layout.names)} on axes {described}, for which PDEBench has no layout; it has "
        "one for density, pressure and velocity (all axes periodic, or all open), for one field (all periodic, or one "
        "or two open axes) and for two fields (two walls). Write a store."
    )
