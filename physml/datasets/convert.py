"""Any data set to the canonical store: in pieces, continued after a kill, and read back.

Beside the store, while it is not complete, lies a folder ``.NAME.zarr.converting`` with a line for each block that was
written: trajectory, first frame, SHA-256 of the values as the source gave them; and with the size and the time of
change of every file of the source. A run writes what no line tells of, so that a killed one is continued and the result
is the same, bit for bit, as long as the source stays as it is: one whose files have changed is refused. When all is
written, every block is read back and held against its line, and the same pass gathers the statistics. A block that
differs loses its line.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from physml.datasets.journal import Journal, State, change, claimed, forget, keep, state_of
from physml.datasets.places import local
from physml.datasets.plain import plain
from physml.datasets.store import StoreWriter, TrajectoryStore, consolidate, open_group
from physml.datasets.trajectories import Accumulator, Segment, Trajectories
from physml.datasets.workers import Workers
from physml.datasets.writing import first_difference

_PIECE_BYTES = 1 << 25  # of single precision, read from the source at once
_STATIC = -1  # in place of a first frame


def convert(
    data: Trajectories,
    out: str | Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    identifying: Callable[[int, int], None] = lambda done, total: None,
) -> TrajectoryStore:
    """Write a data set to a store: values, layout, segments, parameters, static fields, lengths and provenance.

    Memory holds a piece of 32 MiB in each process, or one frame where that is more.

    Args:
        data: what to write, in single precision.
        out: the zarr folder. One that was begun from the same data is continued; one that is complete is only opened.
        workers: processes that write (see :class:`physml.datasets.workers.Workers`); the store is the same.
        progress: called with frames done and to do; each is written and read back.
        identifying: the same before that, for a data set whose fingerprint is found by reading all of it: mapped
            arrays, netCDF, zarr of other programs.

    Returns:
        The finished store, open.

    Raises:
        ValueError: where ``out`` is a URL, holds something else, was begun from data that have changed since, or is
            being written by another process; where the source changes meanwhile; where a value is not finite; where a
            block that is read back is not what was written: it names trajectory and frames.
        OSError: where the disk has no room, before anything is written.
    """
    out = local(out, "out")
    if out.suffix != ".zarr":
        raise ValueError(f"out: got {str(out)!r}, expected a name that ends in .zarr.")
    if not data.segments.get("train"):
        raise ValueError(
            f"{data.path}: has splits {', '.join(data.segments) or 'none'}; a store needs a split 'train' to measure "
            "statistics. Convert the folder that holds all splits, or name them in a mapping file."
        )
    folder = out.with_name(f".{out.name}.converting")
    look = partial(state_of, data.storage().files, besides=[out, folder])
    state = look()  # before anything is read
    data.identify(progress=identifying)
    origin = plain(data.origin(), data.path)
    if _is_made(out, origin) and not folder.exists():
        return TrajectoryStore(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        if _is_made(out, origin):  # it was killed after the last step but one
            consolidate(out)
            shutil.rmtree(folder)
            return TrajectoryStore(out)
        return _continued(data, origin, (state, look), out, folder, workers, progress)


def _continued(
    data: Trajectories,
    origin: Mapping[str, Any],
    source: tuple[State, Callable[[], State]],
    out: Path,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None],
) -> TrajectoryStore:
    """What is still to be done, by the only process that does it; ``source`` is how it was, and what looks anew."""
    state, look = source
    lengths = [data.length(row) for row in range(data.count)]
    if not (out.exists() and any(out.iterdir())):
        forget(folder)
    done, stage = Journal.read(folder)
    _check_room(data, lengths, out, done)
    begun = keep(folder, state)
    if differs := change(begun, state):
        raise ValueError(
            f"{out}: the source has changed since this was begun: {differs}. Delete {out} to begin anew, or give "
            "another name."
        )
    writer = StoreWriter(
        out,
        name=data.name,
        layout=data.layout,
        count=data.count,
        frames=max(lengths),
        parameters={name: [float(value) for value in values] for name, values in data.parameters.items()},
        segments=data.segments,
        provenance={"converted": origin},
        lengths=lengths,
    )
    if done or not writer.created:
        for torn in out.rglob("*.partial"):  # of a block that was being written
            torn.unlink()
    total = 2 * sum(lengths)
    so_far = sum(_frames(lengths, writer.chunk_frames, key) for key in done)
    progress(so_far, total)
    with Workers(_Job(data, writer, Journal(folder, stage)), workers) as pool:
        for frames in pool.each(_write, list(_pieces(writer, lengths, done))):
            so_far += frames
            progress(so_far, total)
        done, _ = Journal.read(folder)
        rows = [_Row(row, length, _digests(done, writer, row, length)) for row, length in enumerate(lengths)]
        whole = Accumulator(data.layout)
        for row, gathered in zip(rows, pool.each(_verify, rows), strict=True):
            whole.merge(gathered)
            so_far += row.frames
            progress(so_far, total)
    if differs := change(begun, look()):
        raise ValueError(
            f"{out}: the source has changed while it was read: {differs}. Blocks of two versions may be in the store; "
            f"delete {out}, and give the same command again when nothing writes to the source."
        )
    digests = [hashlib.sha256("".join(row.digests.values()).encode()).hexdigest() for row in rows]
    store = writer.finish(digests, whole)
    shutil.rmtree(folder)
    return store


def _is_made(out: Path, origin: Mapping[str, Any]) -> bool:
    """Whether the store is complete, and made from these data.

    Raises:
        ValueError: where something else is there.
    """
    if not (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        return False
    _, told = open_group(out, "trajectories")
    found = told.get("provenance", {}).get("converted")
    if not isinstance(found, Mapping):
        raise ValueError(f"{out}: holds a store that was not converted; give another name, or delete it.")
    if found == origin:
        return bool(told["complete"])
    both = first_difference(found, origin, "")
    if told["complete"]:
        raise ValueError(f"{out}: holds a store of other data ({both}); give another name, or delete it.")
    raise ValueError(
        f"{out}: was begun from other data, or they have changed since ({both}); delete it to begin anew, or give "
        "another name."
    )


def _check_room(data: Trajectories, lengths: list[int], out: Path, done: Mapping[tuple[int, int], str]) -> None:
    """Refuse to begin what may not fit, reckoned without compression: how far that goes is known afterwards only."""
    points = 4 * int(np.prod(data.layout.grid.shape))
    needed = points * (len(data.layout.fields) * sum(lengths) + len(data.layout.static) * data.count)
    if done:
        needed -= min(needed, sum(file.stat().st_size for file in out.rglob("*") if file.is_file()))
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise OSError(
            f"{out}: needs up to {needed / 2**30:,.2f} GiB more, its disk has {free / 2**30:,.2f} GiB free; make room, "
            "or write to another disk"
        )


# ------------------------------------------------------------------------------------------------------------- blocks


@dataclass(frozen=True)
class _Job:
    """What every process is sent: the source, where it is read, what writes, and where that is noted."""

    data: Trajectories
    writer: StoreWriter
    journal: Journal


class _Piece(NamedTuple):
    """Whole blocks of a trajectory, ``start`` to ``stop``; or its static fields."""

    row: int
    start: int
    stop: int


class _Row(NamedTuple):
    """A trajectory that was written: its frames, and digests of its blocks by first frame, static fields last."""

    row: int
    frames: int
    digests: dict[int, str]


def _frames(lengths: list[int], block: int, key: tuple[int, int]) -> int:
    row, start = key
    return 0 if start == _STATIC else min(block, lengths[row] - start)


def _pieces(writer: StoreWriter, lengths: list[int], done: Mapping[tuple[int, int], str]) -> Iterator[_Piece]:
    """What is still to be written, in the order of the source."""
    layout, block = writer.plan.layout, writer.chunk_frames
    frame = 4 * len(layout.fields) * int(np.prod(layout.grid.shape))
    most = max(1, _PIECE_BYTES // (frame * block))  # blocks of a piece
    for row, length in enumerate(lengths):
        if layout.static and (row, _STATIC) not in done:
            yield _Piece(row, _STATIC, _STATIC)
        begin = 0
        for start in range(0, length + block, block):
            absent = start < length and (row, start) not in done
            if start > begin and (not absent or start - begin == most * block):
                yield _Piece(row, begin, min(start, length))
                begin = start
            if not absent:
                begin = start + block


def _write(job: _Job, piece: _Piece) -> int:
    """Write a piece; returns its frames."""
    data, writer, (row, start, stop) = job.data, job.writer, piece
    if start == _STATIC:
        still = data.read_static(row)
        writer.write_static(row, still)
        job.journal.add(row, _STATIC, _digest(still))
        return 0
    values = data.read(row, start, stop)
    for first in range(start, stop, writer.chunk_frames):
        digest = writer.write(row, first, values[first - start : first - start + writer.chunk_frames])
        job.journal.add(row, first, digest)
    return stop - start


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()


def _digests(done: Mapping[tuple[int, int], str], writer: StoreWriter, row: int, length: int) -> dict[int, str]:
    keys = [*range(0, length, writer.chunk_frames), *([_STATIC] if writer.plan.layout.static else [])]
    return {start: done[row, start] for start in keys}


def _verify(job: _Job, wanted: _Row) -> Accumulator:
    """Read a trajectory back, refuse what differs, and gather what it gives to the statistics."""
    writer, row = job.writer, wanted.row
    found = Accumulator(writer.plan.layout)
    train: list[Segment] = [s for s in writer.plan.segments["train"] if s.trajectory == row]
    last: dict[int, np.ndarray] = {}
    for start, digest in wanted.digests.items():
        if start == _STATIC:
            still = _checked(job, row, start, digest, partial(writer.read_static_back, row), "static fields")
            if train:
                found.add_static(still)
            continue
        stop = min(start + writer.chunk_frames, wanted.frames)
        reading = partial(writer.read_back, row, start, stop)
        values = _checked(job, row, start, digest, reading, f"frames {start} to {stop - 1}")
        for number, s in enumerate(train):
            part = values[max(s.start - start, 0) : max(s.stop - start, 0)]
            if len(part):
                found.add(row, part, last.get(number))
                last[number] = part[-1:]
    return found


def _checked(job: _Job, row: int, start: int, digest: str, read: Callable[[], np.ndarray], what: str) -> np.ndarray:
    """What was written, which must be what the source gave."""
    problem = "its digest differs"
    try:
        values = read()
        if _digest(values) == digest:
            return values
    except ValueError as error:
        problem = str(error)
    job.journal.strike(row, start)
    raise ValueError(
        f"{job.writer.path}: trajectory {row}, {what}: read back, it is not what was written ({problem}). The same "
        "command again writes this block anew; where that does not last, the disk or the memory is faulty."
    )
