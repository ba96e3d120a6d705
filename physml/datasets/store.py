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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from physml.configured import version_of
from physml.datasets.chunk_files import ChunkFiles
from physml.datasets.places import local
from physml.datasets.remote import Place, Remote, place
from physml.datasets.storage import Storage, of_zarr
from physml.datasets.trajectories import Accumulator, Segment, Statistics, Trajectories, measure
from physml.datasets.writing import Plan, TrajectoryWriter
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


def open_group(path: str | Place, kind: str) -> tuple[zarr.Group, dict[str, Any]]:
    """Open a zarr group of ours for reading, with its ``physml`` attribute.

    Raises:
        ValueError: where the folder is no zarr group of this kind, in words that name the file to look at.
    """
    path = place(path)
    if not ((path / "zarr.json").exists() or path.exists()):
        raise FileNotFoundError(f"{path}: no such file or folder.")
    try:
        group = zarr.open_group(str(path), mode="r")
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
    with _named(path, what):
        return np.asarray(array[where])


@contextmanager
def _named(path: str, what: str) -> Iterator[None]:
    """Say which part of which store cannot be decoded."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as problem:
        raise ValueError(
            f"{path}: {what} cannot be decoded; a chunk is truncated or corrupt ({problem}). Copy or make the store "
            "again."
        ) from None


class TrajectoryStore(Trajectories):
    """A finished store, open for reading; safe to hand to worker processes (each opens the files itself).

    Args:
        path: the zarr folder, or its URL.

    Raises:
        ValueError: where it is not a finished store, or chunk files are missing.
    """

    def __init__(self, path: str | Place) -> None:
        self.path = str(path)
        where = place(path)
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
            self._lengths: list[int] | None = plain.get("lengths")
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(
                f"{path}: its physml metadata are damaged ({type(problem).__name__}: {problem}); copy or make it again."
            ) from None
        self._process = -1
        self._arrays: dict[str, zarr.Array] = {}
        state = self._array("state")
        self.count, self.frames = state.shape[:2]
        self.parameters = {name: np.asarray(group[name]) for name in plain["parameters"]}
        for name, values in self.parameters.items():  # which are stored twice, and without a checksum
            if not np.array_equal(values, np.asarray(plain["parameters"][name], values.dtype), equal_nan=True):
                raise ValueError(
                    f"{path}: the array of the parameter {name!r} holds other numbers than the metadata say; the store "
                    "is damaged. Copy or make it again."
                )
        shapes = {"state": (self.count, self.frames, *self.layout.grid.shape, len(self.layout.fields))}
        if self.layout.static:
            shapes["static"] = (self.count, *self.layout.grid.shape, len(self.layout.static))
        self._direct: dict[str, ChunkFiles | None] = {}
        for name, expected in shapes.items():
            array = self._array(name)
            if array.shape != expected:
                raise ValueError(
                    f"{path}: {name} has shape {array.shape}, its layout says {expected}; the store is damaged."
                )
            wanted = _chunks(array, self._lengths if name == "state" else None)
            listed = not isinstance(where, Remote) or where.lists
            missing = wanted - array.nchunks_initialized if listed else 0  # a lost chunk is then found by reading it
            if missing > 0:
                raise ValueError(
                    f"{path}: {missing} of {wanted} chunk files of {name} are missing; copy or make the store again."
                )
            self._direct[name] = ChunkFiles.of(array, moving=name == "state")

    def length(self, trajectory: int) -> int:
        return self.frames if self._lengths is None else self._lengths[trajectory]

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

    def times(self) -> np.ndarray:
        return np.asarray(self._array("time")[...])

    def storage(self) -> Storage:
        space = self.layout.grid.names
        array, words = self._array("state"), ("trajectory", "time", *space, "channel")
        state = of_zarr("state", array, words, total=_chunks(array, self._lengths))
        still = (
            of_zarr("static", self._array("static"), ("trajectory", *space, "channel")) if self.layout.static else ()
        )
        where = place(self.path)
        file = where / "zarr.json" if isinstance(where, Remote) else where  # which says what the chunks hold
        return Storage.of([str(file)], chunks=(*state, *still), statistics="stored")

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        out = self._room(frames)
        self._fill(trajectory, frames, out)
        return out

    def _fill(self, trajectory: int, frames: slice, out: np.ndarray) -> None:
        chunks = self._direct["state"]
        if chunks is None or not out.flags.c_contiguous:
            dense = read_state(self.path, self._array("state"), (trajectory, slice(frames.start, frames.stop)))
            out[...] = dense[:: frames.step]
        else:
            with _named(self.path, f"trajectory {trajectory}, frames {frames.start} to {frames.stop - 1}"):
                chunks.read(trajectory, frames, out)

    def _read_static(self, trajectory: int) -> np.ndarray:
        chunks, what = self._direct["static"], f"static fields of trajectory {trajectory}"
        if chunks is None:
            return _decoded(self.path, self._array("static"), trajectory, what)
        out = np.empty((1, *chunks.shape[1:]), dtype=np.float32)
        with _named(self.path, what):
            chunks.read(trajectory, slice(0, 1), out)
        return out[0]


class StoreWriter(TrajectoryWriter):
    """Writes a store chunk by chunk and finishes it; picks up an interrupted one where it stopped.

    Args:
        path: the zarr folder; made if missing.
        name: of the data set.
        layout: of its states.
        count, frames: trajectories and frames of each.
        parameters: per trajectory.
        segments: of each split, a ``train`` among them.
        provenance: all that determines the data; an interrupted store is continued only if this is equal.
        lengths: frames of each trajectory, where some have fewer than ``frames``.

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
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.path = local(path, "path")
        self.plan = Plan(name, layout, count, frames, parameters, segments, provenance, lengths)
        self._plain: dict[str, Any] = {
            "kind": "trajectories",
            "format": FORMAT,
            "complete": False,
            **self.plan.to_plain(),
            "written_by": f"physml {version_of('physml')}",
        }
        self.created = not (self.path.exists() and any(self.path.iterdir()))
        if not self.created:
            _, found = open_group(self.path, "trajectories")
            self._refuse_other(found)
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
                if key in group:
                    raise ValueError(f"parameters: {key!r} is an array of the store already; give it another name.")
                add_coordinate(group, key, np.asarray(values, dtype=np.float64), "trajectory")
            os.replace(beside, self.path)
            self.complete = False
            self._group = zarr.open_group(self.path, mode="r+")
        self._state: zarr.Array = self._group["state"]  # type: ignore[assignment]
        self._static: zarr.Array | None = self._group["static"] if layout.static else None  # type: ignore[assignment]
        self.chunk_frames = self._state.chunks[1]

    def _write(self, trajectory: int, start: int, values: np.ndarray) -> None:
        if len(values) < self.chunk_frames:  # zarr would read what is there to fill the rest, and it may be damaged
            place = (trajectory, start // self.chunk_frames, *(0 for _ in values.shape[1:]))
            (self.path / "state" / self._state.metadata.encode_chunk_key(place)).unlink(missing_ok=True)
        self._state[trajectory, start : start + len(values)] = values

    def _write_static(self, trajectory: int, values: np.ndarray) -> None:
        assert self._static is not None
        self._static[trajectory] = values

    def read_back(self, trajectory: int, start: int, stop: int) -> np.ndarray:
        """Frames as they were written; NaN where they were not."""
        return read_state(str(self.path), self._state, (trajectory, slice(start, stop)))

    def read_static_back(self, trajectory: int) -> np.ndarray:
        """Static fields as they were written."""
        assert self._static is not None
        return _decoded(str(self.path), self._static, trajectory, f"static fields of trajectory {trajectory}")

    def finish(self, digests: Sequence[str], gathered: Accumulator | None = None) -> TrajectoryStore:
        """Compute the statistics, mark the store complete, open it.

        Args:
            digests: one for each trajectory, made from what :meth:`write` returned.
            gathered: what the split ``train`` gave, if it was read back already.
        """
        if not self.complete:
            lengths = self.plan.lengths
            for array, what, each in ((self._state, "blocks", lengths), (self._static, "static fields", None)):
                wanted = 0 if array is None else _chunks(array, each)
                missing = 0 if array is None else wanted - array.nchunks_initialized
                if missing > 0:
                    raise ValueError(f"{self.path}: {missing} of {wanted} {what} were not written; write them first.")
            identity: list[Any] = [self._plain["layout"], self._plain["segments"], list(digests)]
            if self._static is not None:
                rows = range(self._static.shape[0])
                identity += [hashlib.sha256(self.read_static_back(row).tobytes()).hexdigest() for row in rows]
            numbers, train = self.plan.parameters, self.plan.segments["train"]
            statistics = (
                gathered.statistics(numbers)
                if gathered is not None
                else measure(
                    self.plan.layout, train, self.read_back, parameters=numbers, read_static=self.read_static_back
                )
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


def _chunks(array: zarr.Array, lengths: Sequence[int] | None) -> int:
    """Chunk files that an array should have: all, or those with frames of trajectories of these lengths."""
    return array.nchunks if not lengths else sum(-(-length // array.chunks[1]) for length in lengths)


EXPECTED = "a zarr store (a folder with zarr.json, from `physml data make`)"


def recognises(path: Place) -> bool:
    """Whether this adapter opens the path."""
    return (path / "zarr.json").exists() or path.suffix == ".zarr"


def opened(path: Place) -> TrajectoryStore:
    """The data set at the path."""
    return TrajectoryStore(path)
