"""The canonical trajectory store: one zarr v3 group, ``state[trajectory, time, *space, channel]``, and for fields that
do not change in time ``static[trajectory, *space, static_field]``.

``xarray.open_zarr`` opens it with named coordinates. Statistics, splits, units and provenance live in the group
attribute ``physml``. Chunks hold a few whole frames, are compressed by Blosc-LZ4 with byte shuffle and end with a
CRC32C checksum; the fill value is NaN, so a lost chunk cannot pass for data.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from physml.configured import version_of
from physml.datasets.trajectories import Segment, Statistics, Trajectories, measure
from physml.fields import Field, Layout

FORMAT = 1
_CHUNK_BYTES = 1 << 20


def frames_per_chunk(layout: Layout, frames: int) -> int:
    """Whole frames that fit in a mebibyte: at least 1, at most 16, so that a short window reads little beside
    itself.
    """
    frame = 4 * len(layout.fields) * int(np.prod(layout.grid.shape))
    return max(1, min(16, frames, _CHUNK_BYTES // frame))


def create_state(
    group: zarr.Group, lead: tuple[str, str], shape: tuple[int, int], layout: Layout, multiple: int = 1
) -> zarr.Array:
    """Create ``state`` and the coordinate arrays of a layout in an empty group; shared with rollout stores.

    A chunk holds a ``multiple`` of frames.
    """
    names = layout.grid.names
    frames = max(multiple, frames_per_chunk(layout, shape[1]) // multiple * multiple)
    chunk = (1, frames, *layout.grid.shape, len(layout.fields))
    whole = (*shape, *layout.grid.shape, len(layout.fields))
    state = _create_fields(group, "state", whole, chunk, [*lead, *names, "channel"])
    for axis in layout.grid.axes:
        add_coordinate(group, axis.name, axis.points.numpy(), axis.name, units=axis.units, boundary=str(axis.boundary))
    _add_names(group, "channel", layout.fields)
    if layout.grid.mask is not None:
        mask = layout.grid.mask.numpy()
        array = group.create_array("mask", shape=mask.shape, dtype="bool", dimension_names=list(names))
        array[...] = mask
        array.attrs["long_name"] = "true where there is fluid"
    return state


def _create_static(group: zarr.Group, count: int, layout: Layout) -> None:
    """Create ``static`` for a layout with static fields; a chunk holds those of one trajectory."""
    shape = (*layout.grid.shape, len(layout.static))
    names = ["trajectory", *layout.grid.names, "static_field"]
    _create_fields(group, "static", (count, *shape), (1, *shape), names)
    _add_names(group, "static_field", layout.static)


def _create_fields(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dimensions: Sequence[str]
) -> zarr.Array:
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="float32",
        compressors=[BloscCodec(cname="lz4", shuffle=BloscShuffle.shuffle), Crc32cCodec()],
        fill_value=float("nan"),
        dimension_names=list(dimensions),
    )


def _add_names(group: zarr.Group, name: str, fields: Sequence[Field]) -> None:
    units = ", ".join(item.units or "1" for item in fields)
    add_coordinate(group, name, np.array([item.name for item in fields]), name, units=units)


def consolidate(path: str | Path) -> None:
    """Gather all metadata in one file, so that opening the store is one read."""
    with warnings.catch_warnings():
        # the reading libraries we name all understand it; the zarr v3 text does not list it yet
        warnings.filterwarnings("ignore", message=".*onsolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(str(path))


def add_coordinate(group: zarr.Group, name: str, values: np.ndarray, dimension: str, **attributes: Any) -> None:
    """A one-dimensional array along ``dimension``, in one chunk."""
    kind: Any = str if values.dtype.kind == "U" else values.dtype
    array = group.create_array(
        name, shape=values.shape, chunks=(max(1, len(values)),), dtype=kind, dimension_names=[dimension]
    )
    array[...] = values.astype(object) if kind is str else values
    array.attrs.update({key: value for key, value in attributes.items() if value != ""})


def open_group(path: str | Path, kind: str) -> tuple[zarr.Group, dict[str, Any]]:
    """Open a zarr group of ours for reading, with its ``physml`` attribute.

    Raises:
        ValueError: where the folder is no zarr group of this kind, in words that name the file to look at.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    try:
        group = zarr.open_group(path, mode="r")
        plain: Any = dict(group.attrs)["physml"]
        found, version = plain["kind"], plain["format"]
    except KeyError:
        raise ValueError(f"{path}: a zarr group without physml metadata; it was not written by physml.") from None
    except (FileNotFoundError, json.JSONDecodeError, ValueError, TypeError) as problem:
        raise ValueError(
            f"{path}: not a readable zarr group ({type(problem).__name__}); zarr.json is missing or damaged."
        ) from None
    if found != kind:
        raise ValueError(f"{path}: holds {found}, {kind} was expected; is it the right folder?")
    if version != FORMAT:
        raise ValueError(f"{path}: format {version}, this version of physml reads {FORMAT}; write it again.")
    return group, plain


def read_state(path: str, array: zarr.Array, where: tuple[int, slice]) -> np.ndarray:
    """Read whole frames; a damaged chunk becomes one clear ``ValueError``."""
    row, frames = where
    first = array.metadata.dimension_names[0]  # type: ignore[union-attr,index]
    return _decoded(path, array, where, f"{first} {row}, frames {frames.start} to {frames.stop - 1}")


def _decoded(path: str, array: zarr.Array, where: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(array[where])
    except (ValueError, RuntimeError, OSError) as problem:
        raise ValueError(
            f"{path}: {what} cannot be decoded; a chunk is truncated or corrupt ({problem}). Copy or make the store "
            "again."
        ) from None


class TrajectoryStore(Trajectories):
    """A finished store, open for reading; safe to hand to worker processes (each opens the files itself).

    Args:
        path: the zarr folder.

    Raises:
        ValueError: where it is not a finished store, or chunk files are missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        group, plain = open_group(path, "trajectories")
        if not plain["complete"]:
            raise ValueError(
                f"{path}: writing was interrupted; run the command that makes it once more and it continues "
                "where it stopped."
            )
        try:
            self.name = plain["name"]
            self.layout = Layout.from_plain(plain["layout"])
            self.segments = {split: tuple(Segment(*row) for row in rows) for split, rows in plain["segments"].items()}
            self.statistics = Statistics.from_plain(plain["statistics"])
            self.fingerprint = plain["fingerprint"]
            self.provenance = plain["provenance"]
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(
                f"{path}: its physml metadata are damaged ({type(problem).__name__}: {problem}); copy or make it again."
            ) from None
        self._process = -1
        self._arrays: dict[str, zarr.Array] = {}
        state = self._array("state")
        self.count, self.frames = state.shape[:2]
        self.parameters = {name: np.asarray(group[name]) for name in plain["parameters"]}
        shapes = {"state": (self.count, self.frames, *self.layout.grid.shape, len(self.layout.fields))}
        if self.layout.static:
            shapes["static"] = (self.count, *self.layout.grid.shape, len(self.layout.static))
        for name, expected in shapes.items():
            array = self._array(name)
            if array.shape != expected:
                raise ValueError(
                    f"{path}: {name} has shape {array.shape}, its layout says {expected}; the store is damaged."
                )
            present = array.nchunks_initialized
            if present < array.nchunks:
                raise ValueError(
                    f"{path}: {array.nchunks - present} of {array.nchunks} chunk files of {name} are missing; copy or "
                    "make the store again."
                )

    def _array(self, name: str) -> zarr.Array:
        if self._process != os.getpid():  # opened anew in every process
            self._process, self._arrays = os.getpid(), {}
        if name not in self._arrays:
            found = zarr.open_group(self.path, mode="r").get(name)
            if not isinstance(found, zarr.Array):
                raise ValueError(f"{self.path}: has no array {name!r}; copy or make the store again.")
            self._arrays[name] = found
        return self._arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}, "_process": -1}

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        dense = read_state(self.path, self._array("state"), (trajectory, slice(frames.start, frames.stop)))
        return dense[:: frames.step]

    def _read_static(self, trajectory: int) -> np.ndarray:
        return _decoded(self.path, self._array("static"), trajectory, f"static fields of trajectory {trajectory}")


class StoreWriter:
    """Writes a store chunk by chunk and finishes it; picks up an interrupted one where it stopped.

    States go in by :meth:`write`, static fields, where the layout has some, by :meth:`write_static`.

    Args:
        path: the zarr folder; made if missing.
        name: of the data set.
        layout: of its states.
        count, frames: trajectories and frames of each.
        parameters: per trajectory.
        segments: of each split, a ``train`` among them.
        provenance: all that determines the data; an interrupted store is continued only if this is equal.

    Raises:
        ValueError: where the folder holds something else.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        layout: Layout,
        count: int,
        frames: int,
        parameters: Mapping[str, Sequence[float]],
        segments: Mapping[str, Sequence[Segment]],
        provenance: Mapping[str, Any],
    ) -> None:
        self.path = Path(path)
        _check_segments(segments, count, frames)
        for key, values in parameters.items():
            if len(values) != count:
                raise ValueError(
                    f"parameters: {key!r} has {len(values)} values for {count} trajectories; give one each."
                )
        self._plain: dict[str, Any] = {
            "kind": "trajectories",
            "format": FORMAT,
            "complete": False,
            "name": name,
            "layout": layout.to_plain(),
            "parameters": {key: [float(value) for value in parameters[key]] for key in sorted(parameters)},
            "segments": {split: [[s.trajectory, s.start, s.stop] for s in rows] for split, rows in segments.items()},
            "provenance": json.loads(json.dumps(dict(provenance))),
            "written_by": f"physml {version_of('physml')}",
        }
        self.created = not (self.path.exists() and any(self.path.iterdir()))
        if not self.created:
            _, found = open_group(self.path, "trajectories")
            for key in ("provenance", "segments", "layout", "parameters"):
                if found.get(key) != self._plain[key]:
                    difference = _first_difference(found.get(key), self._plain[key], key)
                    raise ValueError(
                        f"{path}: already holds other data ({difference}); give another --out, or delete it."
                    )
            self.complete = bool(found["complete"])
            self._group = zarr.open_group(self.path, mode="r+")
        else:
            # written beside and renamed, so that a store that exists always has all of its arrays
            beside = self.path.with_name(f".{self.path.name}.new")
            group = zarr.open_group(beside, mode="w")
            group.attrs["physml"] = self._plain
            create_state(group, ("trajectory", "time"), (count, frames), layout)
            if layout.static:
                _create_static(group, count, layout)
            times = np.arange(frames) * layout.dt
            add_coordinate(
                group, "time", times, "time", units=layout.time_units, long_name="time since the first frame"
            )
            add_coordinate(group, "trajectory", np.arange(count), "trajectory")
            for key, values in sorted(parameters.items()):
                add_coordinate(group, key, np.asarray(values, dtype=np.float64), "trajectory")
            os.replace(beside, self.path)
            self.complete = False
            self._group = zarr.open_group(self.path, mode="r+")
        self._layout = layout
        self._state: zarr.Array = self._group["state"]  # type: ignore[assignment]
        self._static: zarr.Array | None = self._group["static"] if layout.static else None  # type: ignore[assignment]

    @property
    def chunk_frames(self) -> int:
        """Frames to pass to :meth:`write` at once; the last block may be shorter."""
        return self._state.chunks[1]

    def write(self, trajectory: int, start: int, values: np.ndarray) -> str:
        """Write a block ``(T, *space, C)`` that begins at a chunk border; returns its digest.

        Raises:
            ValueError: where a value is not finite.
        """
        self._refuse_complete()
        count, frames, *shape = self._state.shape
        if values.shape[1:] != tuple(shape) or not len(values):
            raise ValueError(f"values: got shape {values.shape}, expected (T, {', '.join(map(str, shape))}).")
        whole = len(values) == self.chunk_frames or start + len(values) == frames
        if not 0 <= trajectory < count or start % self.chunk_frames or start + len(values) > frames or not whole:
            raise ValueError(
                f"write: got {len(values)} frames from frame {start} of trajectory {trajectory}; blocks hold "
                f"{self.chunk_frames} "
                f"frames from a multiple of it on (the last may be shorter), in {count} trajectories of "
                f"{frames} frames."
            )
        values = _single(values)
        if not np.isfinite(values).all():
            raise ValueError(
                f"values: trajectory {trajectory} is not finite near frame {start}; if a solver made it, reduce "
                "its step."
            )
        self._state[trajectory, start : start + len(values)] = values
        return hashlib.sha256(values.tobytes()).hexdigest()

    def write_static(self, trajectory: int, values: np.ndarray) -> None:
        """Write the fields of one trajectory that do not change in time, ``(*space, S)``.

        Raises:
            ValueError: where the layout has none, or a value is not finite.
        """
        self._refuse_complete()
        if self._static is None:
            raise ValueError("write_static: the layout has no static fields; name them in Layout(static=...).")
        count, *shape = self._static.shape
        if not 0 <= trajectory < count or values.shape != tuple(shape):
            raise ValueError(
                f"values: got shape {values.shape} for trajectory {trajectory}, expected "
                f"({', '.join(map(str, shape))}) for one of {count} trajectories."
            )
        values = _single(values)
        if not np.isfinite(values).all():
            raise ValueError(f"values: the static fields of trajectory {trajectory} are not finite; repair them.")
        self._static[trajectory] = values

    def _refuse_complete(self) -> None:
        if self.complete:
            raise ValueError(f"{self.path}: is complete; delete it to write it anew.")

    def _read_back(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        return read_state(str(self.path), self._state, (trajectory, slice(start, stop)))

    def _read_static_back(self, trajectory: int) -> np.ndarray:
        assert self._static is not None
        return _decoded(str(self.path), self._static, trajectory, f"static fields of trajectory {trajectory}")

    def finish(self, digests: Sequence[str]) -> TrajectoryStore:
        """Compute the statistics, mark the store complete, open it.

        Args:
            digests: one for each trajectory, made from what :meth:`write` returned.
        """
        if not self.complete:
            for array, what in ((self._state, "blocks"), (self._static, "static fields")):
                missing = 0 if array is None else array.nchunks - array.nchunks_initialized
                if array is not None and missing:
                    raise ValueError(
                        f"{self.path}: {missing} of {array.nchunks} {what} were not written; write them first."
                    )
            identity: list[Any] = [self._plain["layout"], self._plain["segments"], list(digests)]
            if self._static is not None:
                rows = range(self._static.shape[0])
                identity += [hashlib.sha256(self._read_static_back(row).tobytes()).hexdigest() for row in rows]
            train = [Segment(*bounds) for bounds in self._plain["segments"]["train"]]
            statistics = measure(
                self._layout,
                train,
                self._read_back,
                parameters=self._plain["parameters"],
                read_static=self._read_static_back,
            )
            plain = {
                **self._plain,
                "complete": True,
                "statistics": statistics.to_plain(),
                "digests": list(digests),
                "fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
            }
            self._group.attrs["physml"] = plain
            consolidate(self.path)
            self.complete = True
        return TrajectoryStore(self.path)


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large for fp32 becomes infinite, which is refused
        return np.ascontiguousarray(values, dtype=np.float32)


def _check_segments(segments: Mapping[str, Sequence[Segment]], count: int, frames: int) -> None:
    if not segments.get("train"):
        raise ValueError(
            f"segments: got splits {', '.join(segments) or 'none'}; a split 'train' with frames is needed."
        )
    for split, rows in segments.items():
        for s in rows:
            if not (0 <= s.trajectory < count and 0 <= s.start < s.stop <= frames):
                raise ValueError(
                    f"segments: {split} has frames {s.start}:{s.stop} of trajectory {s.trajectory}; there are {count} "
                    f"trajectories of {frames} frames."
                )


def _first_difference(found: Any, wanted: Any, key: str) -> str:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                return _first_difference(found.get(name), wanted.get(name), f"{key}.{name}")
    return f"{key}: {str(found)[:60]} there, {str(wanted)[:60]} asked"


EXPECTED = "a zarr store (a folder with zarr.json, from `physml data make`)"


def recognises(path: Path) -> bool:
    """Whether this adapter opens the path."""
    return (path / "zarr.json").exists() or path.suffix == ".zarr"


def opened(path: Path) -> TrajectoryStore:
    """The data set at the path."""
    return TrajectoryStore(path)
