"""HDF5 files read where they lie: handles of each process, attributes of every spelling, clocks, splits, fingerprints.

What the adapters of HDF5 formats share. Nothing here knows a format.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from physml.datasets.remote import Place, Remote, place
from physml.datasets.trajectories import Segment
from physml.fields import Axis, Boundary, Field

SUFFIXES = (".hdf5", ".h5")
_OPEN = 64  # files held open in one process, well below the usual limit of 1024 descriptors
_OPEN_REMOTE = 8  # each keeps up to 32 MiB of what was fetched
_ARRAYS = 32  # arrays held open: each may keep chunks of some MiB
_LISTED = 12  # names in a message
_UNEVEN = 1e-4  # of the frame interval, within one clock
_APART = 1e-3  # of the frame interval, between clocks, each of which may be rounded to single precision
_DIRECT = 1 << 18  # bytes from which reading in place is faster: it takes 20 us longer to begin
BROKEN = (OSError, ValueError, RuntimeError)  # what h5py raises where bytes are missing or damaged
_SAMPLES, _SAMPLE_BYTES = 16, 4096  # pieces of a large file that its fingerprint is made of


def open_file(path: str | Place) -> h5py.File:
    """Open for reading, on this machine or through fsspec.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is not HDF5, or is truncated.
    """
    try:
        found = place(path)
        return h5py.File(found.open() if isinstance(found, Remote) else found, "r")
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise ValueError(
            f"{path}: cannot be opened as HDF5; it is truncated, damaged or something else ({problem}). Fetch it again."
        ) from None


class Files:
    """Handles of files, opened at first use, once in each process; the longest unused is closed beyond 64, and beyond
    8 of those that are not on this machine.

    HDF5 must not share a handle across a fork, so a child opens its own; a pickled object has none. Arrays are held
    open too, at most 32, so that reading a small one costs little more than its bytes.
    """

    def __init__(self, paths: Sequence[Place]) -> None:
        self.paths = tuple(paths)
        self._most = _OPEN_REMOTE if any(isinstance(path, Remote) for path in paths) else _OPEN
        self._process = -1
        self._handles: OrderedDict[int, h5py.File] = OrderedDict()
        self._arrays: OrderedDict[tuple[int, str], h5py.Dataset] = OrderedDict()

    def array(self, index: int, path: str) -> h5py.Dataset:
        """An array of real numbers of one file; errors as those of :func:`dataset`."""
        file, key = self[index], (index, path)
        if key not in self._arrays:
            if len(self._arrays) >= _ARRAYS:
                self._arrays.popitem(last=False)
            self._arrays[key] = dataset(file, path)
        self._arrays.move_to_end(key)
        return self._arrays[key]

    def __getitem__(self, index: int) -> h5py.File:
        if self._process != os.getpid():
            self.close()  # those of the parent: HDF5 would share its descriptor if they stayed open here
            self._process = os.getpid()
        if index not in self._handles:
            if len(self._handles) >= self._most:
                oldest, handle = self._handles.popitem(last=False)
                for key in [key for key in self._arrays if key[0] == oldest]:
                    del self._arrays[key]
                handle.close()
            self._handles[index] = open_file(self.paths[index])
        self._handles.move_to_end(index)
        return self._handles[index]

    def close(self) -> None:
        """Close the handles of this process; the next use opens anew."""
        self._arrays = OrderedDict()
        for handle in self._handles.values():
            with suppress(Exception):  # nothing was written, so nothing can be lost
                handle.close()
        self._handles = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": -1, "_handles": OrderedDict(), "_arrays": OrderedDict()}


def dataset(parent: h5py.Group, name: str) -> h5py.Dataset:
    """An array of real numbers.

    Raises:
        ValueError: where it is missing, a group, empty, or holds no real numbers; where its numbers are in other files
            that are not all there.
    """
    found, where = _member(parent, name), f"{parent.file.filename}: {parent.name.rstrip('/')}/{name}"
    if isinstance(found, h5py.Dataset) and found.dtype.kind in "fiub":
        refuse_elsewhere(found, where)
        return found
    if isinstance(found, h5py.Dataset):
        raise ValueError(f"{where} holds {found.dtype}, expected real numbers; convert it.")
    raise ValueError(f"{where} is missing or not an array; there are {listing(parent)}.")


def _member(parent: h5py.Group, name: str) -> Any:
    """What a group has of this name; ``None`` where it has nothing, or a link that leads nowhere."""
    try:
        return parent.get(name)
    except (RuntimeError, OSError) as problem:
        raise ValueError(
            f"{parent.file.filename}: {parent.name.rstrip('/')}/{name} cannot be looked up ({problem}); a link leads "
            "in a circle, or the file is damaged. Fetch it again."
        ) from None


def refuse_elsewhere(array: h5py.Dataset, where: str) -> None:
    """Refuse an array without a shape, and one whose numbers lie where HDF5 would not miss them.

    HDF5 reads what is missing of a virtual array as its fill value, and of external raw storage as zeros, in silence.

    Raises:
        ValueError: naming what is missing.
    """
    if array.shape is None:
        raise ValueError(f"{where} is empty; the file is incomplete. Fetch it again.")
    if array.external:
        raise ValueError(
            f"{where} has its numbers in the raw file {array.external[0][0]}, which is not read; put them into this "
            "file with h5repack."
        )
    if not array.is_virtual:
        return
    parts = [part for part in array.virtual_sources() if "%" not in part.file_name]  # patterns have no fixed extent
    folder = Path(array.file.filename).parent
    gone = [part.file_name for part in parts if part.file_name != "." and not (folder / part.file_name).exists()]
    held = sum(part.vspace.get_select_npoints() for part in parts)
    if gone:
        raise ValueError(f"{where} is made of other files, and {gone[0]} is not there; copy it beside this one.")
    if parts and held < array.size:
        raise ValueError(
            f"{where} is made of other arrays, which give {held} of its {array.size} numbers; the others would be "
            f"{array.fillvalue}. Complete it."
        )


def listing(parent: h5py.Group) -> str:
    """What a group holds, for messages."""
    names = list(islice(parent, _LISTED + 1))
    return ", ".join(names[:_LISTED] + ["..."] * (len(names) > _LISTED)) or "none"


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """A group; a ``ValueError`` where it is missing."""
    found = _member(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(
            f"{parent.file.filename}: group {parent.name.rstrip('/')}/{name} is missing; there are "
            f"{listing(parent)}. The file is incomplete or of another format."
        )
    return found


def values(source: h5py.Dataset, index: Any = (), kind: Any = np.float32) -> np.ndarray:
    """A part of an array in native byte order.

    Raises:
        ValueError: where it cannot be decoded.
    """
    try:
        with np.errstate(over="ignore"):  # what is too large for fp32 becomes infinite, which is refused
            return np.asarray(source[index]).astype(kind, copy=False)
    except BROKEN as problem:
        raise _unreadable(source, index, problem) from None


def read_into(source: h5py.Dataset, index: Any, out: np.ndarray) -> None:
    """Put a part of an array where it is wanted, as single precision; ``out`` has as many values, in the same order.

    Raises:
        ValueError: where it cannot be decoded.
    """
    if source.dtype == np.float32 and out.nbytes >= _DIRECT and out.flags.c_contiguous:
        shape = tuple(len(range(*item.indices(n))) for item, n in _slices(source, index))
        try:
            source.read_direct(out.reshape(shape), index)
        except BROKEN as problem:
            raise _unreadable(source, index, problem) from None
    else:
        out[...] = values(source, index).reshape(out.shape)


def _slices(source: h5py.Dataset, index: tuple[int | slice, ...]) -> list[tuple[slice, int]]:
    """The slices of an index, with the sizes of their axes; axes that the index leaves out are taken whole."""
    every = (*index, *(slice(None),) * (source.ndim - len(index)))
    return [(item, n) for item, n in zip(every, source.shape, strict=True) if isinstance(item, slice)]


def _unreadable(source: h5py.Dataset, index: Any, problem: Exception) -> ValueError:
    return ValueError(
        f"{source.file.filename}: {source.name} cannot be read at {index}; the file is truncated or corrupt "
        f"({problem}). Fetch it again."
    )


def text(value: Any) -> str:
    """An attribute as text, whether it was stored as bytes, text or an array of one of them."""
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def texts(value: Any) -> tuple[str, ...]:
    """An attribute as a list of text; a bare string is a list of one."""
    if isinstance(value, h5py.Empty):
        return ()
    if isinstance(value, str | bytes):
        return (text(value),)
    return tuple(text(item) for item in np.asarray(value).reshape(-1))


def flag(attributes: Mapping[str, Any], name: str) -> bool:
    """A flag, false where it is missing."""
    return bool(np.asarray(attributes.get(name, False)).reshape(-1)[0])


def interval(times: np.ndarray, where: str) -> float | None:
    """The step of an evenly spaced clock; ``None`` for a single instant.

    Steps may differ by a ten-thousandth of their mean, and by what rounding to the stored type explains.

    Raises:
        ValueError: where they differ by more, naming the first place.
    """
    if len(times) < 2:
        return None
    rounding = 2 * np.finfo(times.dtype).eps * np.abs(times).max() if times.dtype.kind == "f" else 0.0
    steps = np.diff(times.astype(np.float64))
    mean = steps.mean()
    if not mean > 0:
        raise ValueError(f"{where}: times run from {times[0]:g} to {times[-1]:g}; they must rise and be finite.")
    bad = ~(np.abs(steps - mean) <= _UNEVEN * mean + rounding)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"{where}: frames {at} and {at + 1} lie {steps[at]:g} apart, on average they lie {mean:g} apart; the frame "
            "interval must be the same throughout. Resample in time."
        )
    return float(mean)


def axis(name: str, points: np.ndarray, boundary: Boundary, where: str) -> Axis:
    """An axis from ascending coordinates.

    A periodic axis is taken not to repeat its end: its length is the span and the mean of the first and last spacing.
    """
    where = f"{where}: axis {name!r}"
    if points.ndim != 1 or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{where} has coordinates of shape {points.shape}; expected finite numbers, one a point.")
    points = np.ascontiguousarray(points, dtype=np.float64)
    if len(points) == 1:
        return Axis(name, torch.from_numpy(points), boundary, 1.0)
    steps = np.diff(points)
    if not (steps > 0).all():
        raise ValueError(f"{where}: coordinates must rise or fall strictly; repair them.")
    closing = 0.5 * (steps[0] + steps[-1]) if boundary is Boundary.PERIODIC else 0.0
    return Axis(name, torch.from_numpy(points), boundary, float(points[-1] - points[0] + closing))


def common_interval(found: Sequence[tuple[float | None, str]]) -> float:
    """The one frame interval of several files, 1 where none has two frames.

    Raises:
        ValueError: where two differ.
    """
    known = [(dt, where) for dt, where in found if dt is not None]
    for dt, where in known:
        if abs(dt - known[0][0]) > _APART * known[0][0]:
            raise ValueError(
                f"{where}: frames lie {dt:g} apart, those of {known[0][1]} {known[0][0]:g}; open them apart, or "
                "resample in time."
            )
    return known[0][0] if known else 1.0


def chosen(
    moving: Sequence[tuple[str, str]], still: Sequence[tuple[str, str]], fields: Sequence[str] | None, where: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which of the channels that change in time, and of those that do not, ``fields`` asks for; all if ``None``.

    Args:
        moving, still: of each channel the field and its own name, ``("velocity", "velocity_x")``; ``fields`` may hold
            either. Of ``still`` all are kept unless some are named.

    Raises:
        ValueError: where a name is unknown, or no channel is left that changes in time.
    """
    if fields is None:
        return tuple(range(len(moving))), tuple(range(len(still)))
    known = {name for pair in (*moving, *still) for name in pair}
    listing = ", ".join(name for _, name in (*moving, *still))
    for name in fields:
        if name not in known:
            raise ValueError(f"fields: got {name!r}; {where} has {listing}.")
    first, second = (
        tuple(index for index, pair in enumerate(pairs) if set(pair) & set(fields)) for pairs in (moving, still)
    )
    if not first:
        raise ValueError(
            f"fields: got {', '.join(fields) or 'none'}; name at least one that changes in time, of {listing}."
        )
    return first, second or tuple(range(len(still)))


def joined(parts: Sequence[tuple[Place, Mapping[str, np.ndarray]]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Parameters of all trajectories from those of each file; and the names of those that are not finite, left out.

    Raises:
        ValueError: where a file lacks one that another has.
    """
    found, left_out = {}, []
    for name in dict.fromkeys(name for _, numbers in parts for name in numbers):
        for path, numbers in parts:
            if name not in numbers:
                has = next(other for other, given in parts if name in given)
                raise ValueError(f"{path}: has no parameter {name!r}, {has} has; open them apart.")
        whole_column = np.concatenate([numbers[name] for _, numbers in parts])
        if np.isfinite(whole_column).all():
            found[name] = whole_column
        else:
            left_out.append(name)
    return found, left_out


def tenths(counts: Sequence[int], test_first: bool = False) -> dict[str, list[int]]:
    """A fixed split of trajectories, in their order: eight tenths, one tenth, one tenth of each file.

    Where a file has fewer than ten, all are split as if they were one file. Below ten in all, validation and test have
    one each; below three, all train.

    Args:
        counts: trajectories of each file.
        test_first: test, validation, train instead of train, validation, test.
    """
    blocks = list(counts) if min(counts) >= 10 else [sum(counts)]
    split: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    first = 0
    for count in blocks:
        held = max(1, count // 10) if count >= 3 else 0
        rows = list(range(first, first + count))
        if test_first:
            split["test"] += rows[:held]
            split["validation"] += rows[held : 2 * held]
            split["train"] += rows[2 * held :]
        else:
            split["train"] += rows[: count - 2 * held]
            split["validation"] += rows[count - 2 * held : count - held]
            split["test"] += rows[count - held :]
        first += count
    return {name: rows for name, rows in split.items() if rows}


def whole(rows: Mapping[str, Sequence[int]], lengths: Sequence[int]) -> dict[str, tuple[Segment, ...]]:
    """Segments that take each trajectory from its first frame to its last."""
    return {split: tuple(Segment(row, 0, lengths[row]) for row in found) for split, found in rows.items()}


def fingerprint(paths: Sequence[Place], *identity: Any) -> str:
    """Of names, sizes and contents: of all bytes up to 1 MiB, beyond of sixteen pieces of 4 KiB from head to tail.

    Files are too large to be hashed whole each time they are opened; a change of single values in a large one may
    therefore go unseen.
    """
    digest = hashlib.sha256(repr(identity).encode())
    for path in paths:
        size = path.stat().st_size
        digest.update(repr((path.name, size)).encode())
        begins = [(size - _SAMPLE_BYTES) * piece // (_SAMPLES - 1) for piece in range(_SAMPLES)]
        ranges = [(0, size)] if size <= 1 << 20 else [(begin, begin + _SAMPLE_BYTES) for begin in begins]
        for piece in path.pieces(ranges) if isinstance(path, Remote) else _pieces(path, ranges):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _pieces(path: Path, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    with open(path, "rb") as raw:
        for start, stop in ranges:
            raw.seek(start)
            yield raw.read(stop - start)


def named(names: Sequence[str]) -> tuple[Field, ...]:
    """Fields without units, which neither format stores."""
    return tuple(Field(name) for name in names)


def listed(folder: Place) -> list[Place]:
    """The HDF5 files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
