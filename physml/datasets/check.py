"""What is wrong with a data set, all of it: one pass over the data, and findings that say what to do.

========================  ========  ================================================================================
kind                      severity  found where
========================  ========  ================================================================================
``opening``               error     the path cannot be opened: files are truncated, corrupt, of a wrong type, without a
                                    needed attribute, pickled; the words are those of the adapter that refused it; or
                                    reading crashes or hangs, as ``physml data check`` finds from another process
``remark``                warning   an adapter warned while it opened the files
``unreadable``            error     frames or static fields cannot be decoded, or their checksum is wrong
``not finite``            error     values are NaN or infinite
``times``                 error     stored times repeat, fall, are uneven or contradict the interval of the layout
``statistics``            error     stored statistics are not those of the data
``statistics``            warning   published statistics are far from those of the data, which may be a part only
``statistics``            note      published statistics, which weigh all points equally, are not held against the data
                                    where an axis is not uniform
``leak``                  error     splits share frames of a trajectory, or hold trajectories that are equal throughout
``leak``                  warning   splits touch without a gap, or hold trajectories that begin alike
``repeated``              warning   a frame equals the one before; a trajectory or a span of one is there twice
``constant``              warning   a field has one value in the whole split ``train``
``constant``              note      a static field does
``chunks``                warning   a window costs many bytes beside its own, or many pieces; pieces are not stored
``unused``                note      trajectories belong to no split
========================  ========  ================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from physml.datasets import hdf5, mapping
from physml.datasets.moments import Moments, quadrature
from physml.datasets.opening import locate, open_trajectories
from physml.datasets.remote import Place
from physml.datasets.storage import Storage
from physml.datasets.trajectories import Accumulator, NotFinite, Segment, Statistics, Trajectories
from physml.fields import Field

Severity = Literal["error", "warning", "note"]
Kind = Literal[
    "opening", "remark", "unreadable", "not finite", "times", "statistics", "leak", "repeated", "constant", "chunks",
    "unused",
]  # fmt: skip

_BROKEN = (ValueError, OSError, RuntimeError, KeyError, MemoryError, SystemError)  # as libraries of C raise them
_BLOCK_BYTES = 1 << 24  # of frames held in memory at once, unless one chunk has more
_LARGEST_CHUNK = 1 << 28  # beyond this a chunk is read in parts, each of which decodes all of it
_HEAD = 4  # frames by which trajectories are held against each other
_STORED = 1e-3  # of the deviation: the same float64 formulas on the same numbers, in another order, agree far better
_PUBLISHED = 0.1  # of the deviation: a part of a published set has moments of its own, other data are further off
_SLACK = 1e-3  # of the frame interval: what adapters allow between a clock and the interval of the layout

AMPLIFICATION, IN_VAIN, PIECES = 4.0, 4 << 20, 256
"""Chunks are reported where a window costs more than so many times its own bytes, and so many bytes in vain; or so many
pieces. 4 MiB in vain are 4 ms at 1 GB/s, which hide behind a training step; a piece of 1 KiB was measured to cost
0.15 ms with zarr and 0.04 ms with HDF5 on a local disk, so that 256 of them are 10 to 40 ms."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be.

    Args:
        severity: ``error``, where the data must not be used as they are; ``warning``, where somebody should look;
            ``note`` otherwise.
        kind: which check, see the table of this module.
        what: what was found.
        remedy: what to do.
        file: or folder.
        field: its name; empty where it is not about one.
        trajectory, frame: the first that it is about; ``None`` where it is not about one.
    """

    severity: Severity
    kind: Kind
    what: str
    remedy: str
    file: str = ""
    field: str = ""
    trajectory: int | None = None
    frame: int | None = None

    @property
    def place(self) -> str:
        """``data/x.zarr, trajectory 3, frame 12, field u``."""
        rows = (("trajectory", self.trajectory), ("frame", self.frame), ("field", self.field or None))
        parts = [f"{word} {value}" for word, value in rows if value is not None]
        return ", ".join(filter(None, [self.file, *parts]))


def check_path(
    path: str | Place,
    *,
    window: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    reading: Callable[[int, int], None] = lambda trajectory, frame: None,
) -> list[Finding]:
    """Everything that is wrong with what lies at a path; what cannot be opened is an error like others.

    Args:
        path: as for :func:`physml.datasets.open_trajectories`.
        window, progress, reading: as for :func:`check`.

    Raises:
        FileNotFoundError: where nothing is there.
    """
    found = locate(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            data = open_trajectories(found)
        except (*_BROKEN, ImportError) as problem:
            refusals = dict.fromkeys([_text(problem), *_broken_files(found)])
            return [_refusal("opening", refusal, str(found)) for refusal in refusals]
    remarks = dict.fromkeys(str(item.message) for item in said if item.category is UserWarning)
    opened = [replace(_refusal("remark", text, str(found)), severity="warning") for text in remarks]
    return _ordered([*opened, *check(data, window=window, progress=progress, reading=reading)])


def check(
    data: Trajectories,
    *,
    window: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    reading: Callable[[int, int], None] = lambda trajectory, frame: None,
) -> list[Finding]:
    """Everything that is wrong with a data set, errors first.

    All frames are read once, a few at a time: memory is that of some blocks of frames, and some numbers for each frame
    and trajectory.

    Args:
        data: any data set that could be opened.
        window: frames that a training step reads together, for the cost of chunks.
        progress: called with frames done and to do.
        reading: called with trajectory and first frame of what is read next.
    """
    if window < 1:
        raise ValueError(f"window: got {window}, expected 1 frame or more.")
    storage = data.storage()
    whole = _Reading(data, storage, reading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what becomes a finding
        whole.run(progress)
        found = [
            *_times(data),
            *_splits(data),
            *_cut_short(storage),
            *_chunks(data, storage, window),
            *whole.findings(),
        ]
    return _ordered(found)


def _ordered(found: list[Finding]) -> list[Finding]:
    ranks = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda item: ranks[item.severity])


def _text(problem: Exception) -> str:
    """What an adapter said, or a library, where it was not expected to."""
    expected = isinstance(problem, (ValueError, OSError, ImportError))
    return str(problem) if expected else f"{type(problem).__name__}: {problem}"


def _refusal(kind: Kind, text: str, path: str) -> Finding:
    """An error from the words of an adapter: ``FILE: what was found; what to do.``"""
    text = " ".join(text.split())
    head, _, rest = text.partition(": ")
    file, what = (head, rest) if rest and os.path.exists(head) else (path, text)
    ends = [what.find(". Expected ")] if ". Expected " in what else [what.rfind("; "), what.rfind(". ")]
    told, remedy = what[: max(ends)], what[max(ends) + 2 :]
    if max(ends) < 0 or remedy.count("(") != remedy.count(")"):  # not inside of what a library said
        told, remedy = what, "repair it, or fetch or make it again"
    return Finding("error", kind, told.rstrip("."), remedy.rstrip("."), file)


def _broken_files(path: Place) -> Iterator[str]:
    """What is wrong with each HDF5 file of a folder that could not be opened as a whole."""
    for file in sorted(path.rglob("*")) if isinstance(path, Path) and path.is_dir() else ():
        if file.suffix in hdf5.SUFFIXES and file.is_file():
            try:
                hdf5.open_file(file).close()
            except _BROKEN as problem:
                yield _text(problem)


# ---------------------------------------------------------------------------------------------- without reading frames


def _times(data: Trajectories) -> Iterator[Finding]:
    where = f"{data.path}: time"
    try:
        times, expected = data.times(), data.layout.dt
        dt = expected if times is None or len(times) < 2 else mapping.interval(where, times)
        if abs(dt - expected) > _SLACK * expected:
            raise ValueError(f"{where}: frames lie {dt:g} apart, the layout says {expected:g}; write one of them anew.")
    except _BROKEN as problem:
        yield _refusal("times", _text(problem), data.path)


def _splits(data: Trajectories) -> Iterator[Finding]:
    """Segments that overlap or touch, and trajectories without any."""
    rows: dict[int, list[tuple[int, int, str]]] = {}
    for split, segments in data.segments.items():
        for s in segments:
            rows.setdefault(s.trajectory, []).append((s.start, s.stop, split))
    for row, spans in sorted(rows.items()):
        last: dict[str, int] = {}  # of each split, how far it has come
        for start, stop, split in sorted(spans):
            for other, end in sorted(last.items()):
                shared = min(end, stop) - start
                place: dict[str, Any] = {"file": data.path, "trajectory": row, "frame": start}
                if shared > 0 and other == split:
                    what, remedy = f"{shared} frames of the split {split} are there twice", "name every frame once"
                    yield Finding("warning", "repeated", what, remedy, **place)
                elif shared > 0:
                    what = f"the splits {other} and {split} share {shared} frames"
                    yield Finding("error", "leak", what, "part them, or what is tested was trained on", **place)
                elif shared == 0 and other != split:
                    what = f"the splits {other} and {split} touch"
                    yield Finding("warning", "leak", what, "leave a gap, longer than the flow remembers", **place)
            last[split] = max(stop, last.get(split, 0))
    if idle := [row for row in range(data.count) if row not in rows]:
        what = f"{len(idle)} of {data.count} trajectories belong to no split"
        yield Finding("note", "unused", what, "name them in a split if they are wanted", data.path, trajectory=idle[0])


def _cut_short(storage: Storage) -> Iterator[Finding]:
    """Chunks of zarr arrays that Blosc compressed and that are not as long as they say.

    Blosc decompresses such a chunk to whatever follows it in memory, and no error comes of it unless a checksum is
    stored too. A chunk begins with a header of sixteen bytes, of which the last four are its length
    (README_CHUNK_FORMAT of c-blosc 1).
    """
    folders = {path for path in map(Path, storage.files) if path.name in (".zarray", "zarr.json")}
    arrays = {path.parent for path in folders if _ends_in_blosc(path)}
    for file in storage.files if arrays else ():
        path = Path(file)
        if path.name.startswith(".") or path.name == "zarr.json" or arrays.isdisjoint(path.parents):
            continue
        with open(path, "rb") as raw:
            head = raw.read(16)
        size, told = path.stat().st_size, int.from_bytes(head[12:], "little")
        if len(head) < 16 or size != told:
            what = f"a chunk of {max(16, told)} bytes is {size} bytes long; what is read of it is not what was written"
            yield Finding("error", "unreadable", what, "copy or make the file again", file)


def _ends_in_blosc(metadata: Path) -> bool:
    """Whether Blosc is the last thing done to a chunk of this array."""
    try:
        plain = json.loads(metadata.read_text("utf-8"))
        if metadata.name == ".zarray":
            return bool(plain["compressor"]["id"] == "blosc")
        return bool(plain["node_type"] == "array" and plain["codecs"][-1]["name"] == "blosc")
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


def _chunks(data: Trajectories, storage: Storage, window: int) -> Iterator[Finding]:
    """Chunks that make windows dear, and chunks that are not there."""
    frames = min(window, data.frames)
    rewrite = "write the data anew with chunks of a few whole frames, as physml's own store has"
    for chunks in storage.chunks:
        place: dict[str, Any] = {"file": data.path, "field": chunks.array}
        times, reads = chunks.amplification(frames, data.frames), chunks.reads(frames, data.frames)
        wasted = (times - 1) * frames * chunks.frame_bytes
        if times > AMPLIFICATION and wasted > IN_VAIN:
            what = f"a window of {frames} frames reads {times:.1f} times its bytes, {wasted / 2**20:.1f} MiB in vain"
            yield Finding("warning", "chunks", f"{what}: chunks have {chunks.shape}", rewrite, **place)
        if reads > PIECES:
            what = f"a window of {frames} frames is made of {reads:.0f} chunks"
            yield Finding("warning", "chunks", f"{what}: they have {chunks.shape}", rewrite, **place)
        if chunks.missing:
            what = f"{chunks.missing} of {chunks.total} chunks are not stored and read as {chunks.fill}"
            remedy = "copy the data again, unless they were left out because they hold nothing else"
            yield Finding("warning", "chunks", what, remedy, **place)


# ------------------------------------------------------------------------------------------------------- reading once


@dataclass
class _Run:
    """Frames of one trajectory that cannot be used for the same reason."""

    first: int
    count: int
    problem: Exception


@dataclass
class _Trajectory:
    """What a trajectory is recognised by."""

    head: bytes = b""
    whole: bytes = b""
    at_rest: bool = True
    repeated: int = 0  # frames that equal the one before
    first_repeated: int = 0
    zero: bool = True  # whether all of those are zero


class _Reading:
    """One pass over all frames."""

    def __init__(self, data: Trajectories, storage: Storage, reading: Callable[[int, int], None]) -> None:
        self._data, self._storage, self._at = data, storage, reading
        self._train = Accumulator(data.layout)
        self._rows: list[_Trajectory] = []
        self._runs: list[tuple[int, _Run]] = []
        self._static: list[tuple[int, Exception]] = []
        self._whole_train = True
        self._energy = 0.0
        self._block = _block(data, storage)

    def run(self, progress: Callable[[int, int], None]) -> None:
        data = self._data
        total, done = sum(data.length(row) for row in range(data.count)), 0
        train: dict[int, list[Segment]] = {}
        for s in data.segments.get("train", ()):
            train.setdefault(s.trajectory, []).append(s)
        for row in range(data.count):
            still = self._read_static(row)
            if still is not None and row in train and data.layout.static:
                self._train.add_static(still)
            self._read(
                row, b"" if still is None else still.tobytes(), train.get(row, ()), lambda n: progress(n, total), done
            )
            done += data.length(row)

    def _read_static(self, row: int) -> np.ndarray | None:
        self._at(row, 0)
        try:
            return self._data.read_static(row)
        except _BROKEN as problem:
            self._static.append((row, problem))
            self._whole_train = False
            return None

    def _read(
        self, row: int, still: bytes, train: Sequence[Segment], progress: Callable[[int], None], done: int
    ) -> None:
        found, head, whole = (
            _Trajectory(),
            hashlib.blake2b(still, digest_size=16),
            hashlib.blake2b(still, digest_size=16),
        )
        last: np.ndarray | None = None
        expected, usable = 0, True
        for start, values in self._blocks(row):
            if isinstance(values, Exception):
                self._note(row, start, values)
                last, usable = None, False
                self._whole_train &= not any(s.start <= start < s.stop for s in train)
                continue
            if start != expected:
                last = None
            expected = start + len(values)
            if start < _HEAD:
                part = values[: _HEAD - start]
                head.update(part.tobytes())
                flat = part.reshape(len(part), -1, part.shape[-1])
                found.at_rest &= bool((np.ptp(flat, axis=1) == 0).all())
            whole.update(values.tobytes())
            self._compare(found, start, values, last)
            self._measure(row, start, values, last, train)
            last = values[-1:]
            progress(done + expected)
        if usable:
            found.head, found.whole = head.digest(), whole.digest()
        self._rows.append(found)

    def _blocks(self, row: int) -> Iterator[tuple[int, np.ndarray | Exception]]:
        """Blocks of frames; where one cannot be read, its frames one by one, or why not."""
        length = self._data.length(row)
        for start in range(0, length, self._block):
            stop = min(start + self._block, length)
            self._at(row, start)
            try:
                yield start, self._data.read(row, start, stop)
                continue
            except _BROKEN as problem:
                if stop == start + 1:
                    yield start, problem
                    continue
            for frame in range(start, stop):
                self._at(row, frame)
                try:
                    yield frame, self._data.read(row, frame, frame + 1)
                except _BROKEN as problem:
                    yield frame, problem

    def _note(self, row: int, frame: int, problem: Exception) -> None:
        if self._runs and self._runs[-1][0] == row:
            run = self._runs[-1][1]
            same = type(run.problem) is type(problem) and _fields(run.problem) == _fields(problem)
            if same and run.first + run.count == frame:
                run.count += 1
                return
        self._runs.append((row, _Run(frame, 1, problem)))

    @staticmethod
    def _compare(found: _Trajectory, start: int, values: np.ndarray, last: np.ndarray | None) -> None:
        """Frames that equal the one before."""
        chain = values if last is None else np.concatenate([last, values])
        first = start if last is not None else start + 1
        same = (chain[1:] == chain[:-1]).all(axis=tuple(range(1, chain.ndim)))
        for at in np.flatnonzero(same).tolist():
            found.first_repeated = found.first_repeated or first + at
            found.repeated += 1
            found.zero &= not chain[at + 1].any()

    def _measure(
        self, row: int, start: int, values: np.ndarray, last: np.ndarray | None, train: Sequence[Segment]
    ) -> None:
        """Gather the statistics of what the block has of the split ``train``."""
        for s in train:
            begin, end = max(s.start, start), min(s.stop, start + len(values))
            if begin >= end:
                continue
            before = values[begin - 1 - start : begin - start] if begin > start else last
            self._train.add(row, values[begin - start : end - start], before if begin > s.start else None)

    # what came of it

    def findings(self) -> Iterator[Finding]:
        yield from self._unusable()
        yield from self._repeated()
        yield from self._alike()
        yield from self._constant()
        if self._storage.statistics == "published" and quadrature(self._data.layout.grid) is not None:
            what = "points count the same in published statistics, and axes are not uniform: they were not compared"
            yield Finding("note", "statistics", what, "'physml data stats' measures weighted ones", self._data.path)
        elif self._storage.statistics != "measured" and self._whole_train and self._train.frames:
            yield from self._contradictions()

    def _unusable(self) -> Iterator[Finding]:
        for row, run in self._runs:
            told = _refusal("unreadable", _text(run.problem), self._data.path)
            more = f" (and {run.count - 1} frames after it)" if run.count > 1 else ""
            found = replace(told, trajectory=row, frame=run.first, what=f"{told.what}{more}")
            fields = _fields(run.problem)
            if isinstance(run.problem, NotFinite):
                found = replace(found, kind="not finite")
            for name in fields or ("",):
                yield replace(found, field=name)
        for row, problem in self._static:
            told = replace(_refusal("unreadable", _text(problem), self._data.path), trajectory=row)
            if isinstance(problem, NotFinite):
                told = replace(told, kind="not finite")
            for name in _fields(problem) or ("",):
                yield replace(told, field=name)

    def _repeated(self) -> Iterator[Finding]:
        for row, found in enumerate(self._rows):
            if found.repeated:
                zero = ", and are zero" if found.zero else ""
                yield Finding(
                    "warning",
                    "repeated",
                    f"{found.repeated} of {self._data.length(row)} frames equal the one before{zero}",
                    "keep them out of the splits if the simulation failed or was restarted; a steady state is fine",
                    file=self._data.path,
                    trajectory=row,
                    frame=found.first_repeated,
                )

    def _alike(self) -> Iterator[Finding]:
        """Trajectories that begin with the same frames, unless these are uniform: a fluid at rest tells nothing."""
        splits: dict[int, set[str]] = {}
        for split, segments in self._data.segments.items():
            for s in segments:
                splits.setdefault(s.trajectory, set()).add(split)
        firsts: dict[bytes, int] = {}
        for row, found in enumerate(self._rows):
            if not found.head or found.at_rest or row not in splits:
                continue
            first = firsts.setdefault(found.head, row)
            if first == row:
                continue
            equal = self._rows[first].whole == found.whole
            what = f"is trajectory {first} again" if equal else f"begins with the same frames as trajectory {first}"
            place: dict[str, Any] = {"file": self._data.path, "trajectory": row}
            if len(splits[first] | splits[row]) == 1:
                yield Finding("warning", "repeated", f"{what}, in the same split", "keep one of them", **place)
            else:
                what += f"; they are in {', '.join(sorted(splits[first]))} and {', '.join(sorted(splits[row]))}"
                severity: Severity = "error" if equal else "warning"
                yield Finding(severity, "leak", what, "keep both in one split, or drop one", **place)

    def _constant(self) -> Iterator[Finding]:
        kinds: tuple[tuple[Moments | None, Sequence[Field], Severity], ...] = (
            (self._train.states, self._data.layout.fields, "warning"),
            (self._train.static, self._data.layout.static, "note"),
        )
        for moments, fields, severity in kinds:
            for low, high, item in () if moments is None else zip(moments.low, moments.high, fields, strict=True):
                if low == high:
                    what, remedy = f"is {low:g} everywhere in the split train", "leave it out, or find out why it is"
                    yield Finding(severity, "constant", what, remedy, self._data.path, item.name)

    def _contradictions(self) -> Iterator[Finding]:
        """Stored statistics against those of the data."""
        data = self._data
        try:
            told, true = data.statistics, self._train.statistics(data.parameters)
        except _BROKEN as problem:
            yield _refusal("statistics", _text(problem), data.path)
            return
        stored = self._storage.statistics == "stored"
        remedy = (
            "write the store anew" if stored else "see whether they belong to these files, or to more than are here"
        )
        static = [item.name for item in data.layout.static]
        for name, quantity, got, expected in _differences(told, true, data.layout.names, static, stored):
            what = f"{quantity} is said to be {got:.6g}, that of the data is {expected:.6g}"
            yield Finding("error" if stored else "warning", "statistics", what, remedy, data.path, name)


def _fields(problem: Exception) -> tuple[str, ...]:
    return problem.fields if isinstance(problem, NotFinite) else ()


def _differences(
    told: Statistics, true: Statistics, fields: tuple[str, ...], static: list[str], stored: bool
) -> Iterator[tuple[str, str, float, float]]:
    """What differs: the field, the quantity, and both of its values."""
    limit = _STORED if stored else _PUBLISHED
    rows: list[tuple[str, str, float, float, float]] = []
    for at, name in enumerate(fields):
        rows.append((name, "mean", told.mean[at], true.mean[at], true.std[at]))
        rows.append((name, "std", told.std[at], true.std[at], true.std[at]))
        rows.append((name, "increment_std", told.increment_std[at], true.increment_std[at], true.increment_std[at]))
    if stored:  # others are measured from a sample when they are asked for
        for at, (name, *numbers) in enumerate(zip(static, told.static_mean, told.static_std, strict=False)):
            scale = true.static_std[at] or abs(true.static_mean[at])
            rows.append((name, "static_mean", numbers[0], true.static_mean[at], scale))
            rows.append((name, "static_std", numbers[1], true.static_std[at], scale))
        for name, mean in told.number_mean.items():
            scale = true.number_std.get(name) or abs(true.number_mean.get(name, 0.0))
            rows.append((name, "number_mean", mean, true.number_mean.get(name, np.nan), scale))
            deviation = true.number_std.get(name, np.nan)
            rows.append((name, "number_std", told.number_std.get(name, np.nan), deviation, scale))
        if not any(_apart(*row[2:], limit) for row in rows):
            rows.append(("", "energy", told.energy, true.energy, true.energy))
    for name, quantity, got, expected, scale in rows:
        if _apart(got, expected, scale, limit):
            yield name, quantity, got, expected


def _apart(got: float, expected: float, scale: float, limit: float) -> bool:
    return not abs(got - expected) <= limit * scale


def _block(data: Trajectories, storage: Storage) -> int:
    """Frames to read at once: whole chunks, some MiB."""
    frame = 4 * len(data.layout.fields) * int(np.prod(data.layout.grid.shape))
    most = max(1, _BLOCK_BYTES // frame)
    chunk = max((chunks.frames for chunks in storage.chunks), default=1)
    if chunk > most:
        return min(chunk, max(1, _LARGEST_CHUNK // frame))
    return most // chunk * chunk
