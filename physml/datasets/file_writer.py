"""Data sets in the files of other programs, written block by block.

:class:`FileWriter` knows nothing of a format; a :class:`FileLayout` says which arrays there are and where in its files
each frame goes: :class:`physml.datasets.write_well.WellFiles`,
:class:`physml.datasets.write_pdebench.PDEBenchFiles` and :class:`physml.datasets.write_npy.NpyFiles`.

All arrays are allocated when the files are made, uncompressed and in one piece, and full of NaN. A block is then a run
of bytes at a known place of each array, and is written as such, past the library of the format: a process that is
killed at any moment leaves whole files, a full disk is noticed before anything is solved, and what was not written is
found out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from physml.datasets.places import local
from physml.datasets.store import frames_per_chunk
from physml.datasets.trajectories import Trajectories
from physml.datasets.writing import Plan, TrajectoryWriter
from physml.fields import Axis, Layout

_SINGLE = np.dtype("<f4")
_ALLOCATED = 1 << 18  # numbers written at once where an array is allocated


@dataclass(frozen=True)
class Placed:
    """An array ``(rows, frames, *space, channels)`` of a file, in one piece, single precision, lowest byte first.

    Args:
        file: that holds it.
        offset: of its first byte.
        rows: the trajectory of each row.
        channels: of the state, or of the static fields, in the order in which it holds them.
        static: whether its channels are static fields; it then has no axis of time.
    """

    file: Path
    offset: int
    rows: tuple[int, ...]
    channels: tuple[int, ...]
    static: bool = False


class FileLayout(ABC):
    """Where the numbers of a data set go in the files of a format. An object without a state.

    ``path`` is where the data set will lie in the end; ``folder`` is where its files lie until then, with the names
    that they will have.
    """

    ending: ClassVar[tuple[str, ...]]
    """What the path must end in, the usual one first; an empty text for a folder."""

    @abstractmethod
    def check(self, path: Path, plan: Plan) -> None:
        """Refuse, with a ``ValueError``, what the format cannot hold."""

    @abstractmethod
    def lost(self, plan: Plan) -> tuple[str, ...]:
        """What of a plan the files will not say, in words: ``units (velocity_x in m/s)``."""

    @abstractmethod
    def allocate(self, folder: Path, path: Path, plan: Plan) -> tuple[Placed, ...]:
        """Make all files, their arrays full of NaN."""

    @abstractmethod
    def conclude(self, folder: Path, path: Path, plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> None:
        """Add what follows from the values; ``read`` is ``(trajectory, start, stop) -> (T, *space, C)``."""

    @abstractmethod
    def names(self, path: Path) -> tuple[str, ...]:
        """Of the files or folders without which there is no data set, in the order in which they may appear."""

    @abstractmethod
    def provenance(self, path: Path) -> Mapping[str, Any]:
        """What :func:`told` gave of the plan, read from a finished data set; any ``Exception`` where there is none."""

    @abstractmethod
    def opened(self, path: Path) -> Trajectories:
        """The finished data set."""


class FileWriter(TrajectoryWriter):
    """Writes a data set in the files of another program, frame by frame, and continues after any interruption.

    Until it is finished a data set lies in the folder ``.NAME.part`` beside its path; it is then moved there, so that
    no other program takes it for complete. What was written before an interruption is kept, block by block, as in a
    store.

    Args:
        path: of the data set; a file or a folder, as the format has it.
        files: the format.
        plan: what it is going to hold; trajectories of different length are refused.

    Raises:
        ValueError: where the format cannot hold the data, or something else lies there.
    """

    def __init__(self, path: str | Path, *, files: FileLayout, plan: Plan) -> None:
        self.path, self.plan, self._files = local(path, "path"), plan, files
        if not self.path.name.endswith(files.ending):
            raise ValueError(f"path: got {path}; expected a name that ends in {' or '.join(files.ending)}.")
        if plan.lengths and min(plan.lengths) < plan.frames:
            raise ValueError(f"lengths: got {min(plan.lengths)} to {plan.frames}; these files hold one, write a store.")
        files.check(self.path, plan)
        self.chunk_frames = frames_per_chunk(plan.layout, plan.frames)
        self._part = self.path.with_name(f".{self.path.name}.part")
        self._inside = self._part / "files"
        noted = self._part / "plan.json"
        beside = [self.path.with_name(item) for item in files.names(self.path)]
        self.complete = all(item.exists() and not _empty(item) for item in beside)
        self.created = not self.complete and not noted.exists()
        if self.complete:
            self._refuse_finished_other()
            shutil.rmtree(self._part, ignore_errors=True)
            return
        if self.created:
            if there := [item for item in beside if item.exists() and not _empty(item)]:
                raise ValueError(f"{there[0]}: is there already; give another --out, or delete it.")
            shutil.rmtree(self._part, ignore_errors=True)
            self._inside.mkdir(parents=True)
            self._placed = files.allocate(self._inside, self.path, plan)
            plain = {
                "plan": plan.to_plain(),
                "placed": [{**vars(item), "file": str(item.file.relative_to(self._inside))} for item in self._placed],
            }
            new = noted.with_suffix(".new")  # the plan is there once all files are
            new.write_text(json.dumps(plain), "utf-8")
            os.replace(new, noted)
        else:
            found = json.loads(noted.read_text("utf-8"))
            self._refuse_other(found["plan"])
            self._placed = tuple(
                Placed(
                    self._inside / item["file"],
                    item["offset"],
                    tuple(item["rows"]),
                    tuple(item["channels"]),
                    item["static"],
                )
                for item in found["placed"]
            )
        self._points = int(np.prod(plan.layout.grid.shape))
        self._rows: list[list[tuple[Placed, int]]] = [[] for _ in range(plan.count)]
        for placed in self._placed:
            for row, trajectory in enumerate(placed.rows):
                self._rows[trajectory].append((placed, row))

    def _refuse_finished_other(self) -> None:
        try:
            found = self._files.provenance(self.path)
        except Exception:  # whatever a library says of a file of somebody else
            found = {}
        if "plan" not in found:
            raise ValueError(f"{self.path}: is there already, and was not made here; give another --out, or delete it.")
        if found != told(self.plan):
            provenance = {key: value for key, value in found.items() if key != "plan"}
            self._refuse_other({**self.plan.to_plain(), "provenance": provenance})
            raise ValueError(
                f"{self.path}: already holds other data (layout, splits or parameters); give another --out, or "
                "delete it."
            )

    def _at(self, placed: Placed, row: int, frame: int) -> int:
        """The byte at which a frame of a row begins."""
        frames = 1 if placed.static else self.plan.frames
        return placed.offset + _SINGLE.itemsize * self._points * len(placed.channels) * (row * frames + frame)

    def _put(self, trajectory: int, start: int, values: np.ndarray, static: bool) -> None:
        for placed, row in self._rows[trajectory]:
            if placed.static is static:
                with open(placed.file, "r+b") as raw:
                    raw.seek(self._at(placed, row, start))
                    raw.write(np.ascontiguousarray(values[..., list(placed.channels)], dtype=_SINGLE).data)

    def _write(self, trajectory: int, start: int, values: np.ndarray) -> None:
        self._put(trajectory, start, values, static=False)

    def _write_static(self, trajectory: int, values: np.ndarray) -> None:
        self._put(trajectory, 0, values, static=True)

    def _read_back(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        layout = self.plan.layout
        out = np.empty((stop - start, *layout.grid.shape, len(layout.fields)), np.float32)
        for placed, row in self._rows[trajectory]:
            if not placed.static:
                shape = (stop - start, *layout.grid.shape, len(placed.channels))
                found = np.fromfile(placed.file, _SINGLE, int(np.prod(shape)), offset=self._at(placed, row, start))
                out[..., list(placed.channels)] = found.reshape(shape)
        return out

    def _missing(self) -> int:
        """Blocks that were not written, or not to their end: they end with NaN, which no block does that was."""
        missing = 0
        for held in self._rows:
            for placed, row in held:
                frames = 1 if placed.static else self.plan.frames
                for start in range(0, frames, self.chunk_frames):
                    end = self._at(placed, row, min(start + self.chunk_frames, frames))
                    [last] = np.fromfile(placed.file, _SINGLE, 1, offset=end - _SINGLE.itemsize)
                    missing += bool(np.isnan(last))
        return missing

    def finish(self, digests: Sequence[str]) -> Trajectories:
        """Add what follows from the values, and move the files to their place. The digests are not kept.

        Raises:
            ValueError: where blocks are missing.
        """
        if not self.complete:
            concluded = self._part / "concluded"  # from here on files may be in their place already
            if not concluded.exists():
                if missing := self._missing():
                    raise ValueError(f"{self.path}: {missing} blocks were not written; write them first.")
                self._files.conclude(self._inside, self.path, self.plan, self._read_back)
                concluded.touch()
            last = self._files.names(self.path)
            rest = [item.name for item in self._inside.iterdir() if item.name not in last]
            for item in (*rest, *last):
                if (self._inside / item).exists():
                    os.replace(self._inside / item, self.path.with_name(item))
            shutil.rmtree(self._part)
            self.complete = True
        return self._files.opened(self.path)


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


# ------------------------------------------------------------------------------------------- what several layouts need


def told(plan: Plan) -> dict[str, Any]:
    """What a finished data set says of its origin: the provenance, and as ``plan`` a hash of all that was planned."""
    plain = plan.to_plain()
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
    return {**plain["provenance"], "plan": digest}


def tensors(names: Sequence[str], axes: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """Scalars, and the vectors and tensors of second order that fields named by components make up.

    Args:
        names: of the fields: ``pressure``, ``velocity_x``, ``velocity_y``, ``stress_xx``, ``stress_xy`` ...
        axes: ``x``, ``y``.

    Returns:
        For each order the places of the components among the fields, by row, by name: ``velocity``, ``stress``. Where a
        component is missing, or the name is that of a field too, each is a scalar.
    """
    found: tuple[dict[str, tuple[int, ...]], ...] = ({}, {}, {})
    for place, name in enumerate(names):
        base, _, end = name.rpartition("_")
        for order in (1, 2):
            ends = ["".join(part) for part in product(axes, repeat=order)]
            parts = [f"{base}_{item}" for item in ends]
            if base and end in ends and base not in names and set(parts) <= set(names):
                found[order][base] = tuple(names.index(part) for part in parts)
                break
        else:
            found[0][name] = (place,)
    return found


def units_of(layout: Layout) -> str:
    """All units of a layout in words, empty where there are none."""
    found = {item.name: item.units for item in (*layout.fields, *layout.static)}
    found |= {axis.name: axis.units for axis in layout.grid.axes} | {"time": layout.time_units}
    return ", ".join(f"{name} in {units}" for name, units in found.items() if units)


def ends_lost(layout: Layout) -> tuple[str, ...]:
    """Axes whose length or weights do not follow from their points, in words."""
    found = []
    for axis in layout.grid.axes:
        points = axis.points.double()
        steps = points.diff()
        extent = float(points[-1] - points[0]) + (0.5 * float(steps[0] + steps[-1]) if axis.periodic else 0.0)
        if len(points) == 1 or abs(extent - axis.length) > 1e-6 * axis.length:
            found.append(f"the length {axis.length:g} of {axis.name} (from first to last point it is {extent:g})")
        elif not np.allclose(
            Axis(axis.name, points, axis.boundary, axis.length).weights, axis.weights, rtol=1e-6, atol=0
        ):
            found.append(f"the quadrature weights of {axis.name}")
    return tuple(found)


def allocated(group: h5py.Group, name: str, shape: Sequence[int]) -> int:
    """Make an array full of NaN, in one piece; gives the byte of the file at which it begins."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.CONTIGUOUS)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    how.set_fill_value(np.array(np.nan, _SINGLE))
    how.set_obj_track_times(False)  # the same data make the same file
    space = h5py.h5s.create_simple(tuple(shape))
    made = h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, how)
    offset = made.get_offset()
    assert offset is not None, "allocated early, in a file without a driver of its own"
    return int(offset)


def allocated_npy(path: Path, shape: Sequence[int]) -> int:
    """Make a ``.npy`` file full of NaN; gives the byte at which its numbers begin."""
    with open(path, "wb") as raw:
        described = {"descr": _SINGLE.str, "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(raw, described)
        offset = raw.tell()
        left = int(np.prod(shape))
        full = np.full(min(left, _ALLOCATED), np.nan, _SINGLE)
        while left:
            left -= raw.write(full[:left].data) // _SINGLE.itemsize
    return offset
