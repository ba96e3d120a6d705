"""A part of a data set: some fields, some trajectories, and every n-th frame of a span."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from physml.datasets.storage import Storage
from physml.datasets.trajectories import NotFinite, Segment, Statistics, Trajectories
from physml.fields import Field


class Selection(Trajectories):
    """A view of another data set, which is read when this is; give it to training, ``check`` or ``convert``.

    The frame interval is that of the source times the step. Splits keep the frames of theirs that are chosen; one that
    keeps none is left out. Statistics are measured when they are first asked for. Every field of the frames that are
    asked for is read from the source, and the chosen ones are kept: ``TheWell`` and ``PDEBench`` with ``fields`` read
    no others.

    Args:
        data: the source.
        fields: names of those to keep, in their order here; all if not given.
        static: the same of the fields that do not change in time; an empty list keeps none.
        frames: of each trajectory, as of a list, without negative numbers: ``slice(0, 100, 2)``.
        trajectories: the same of their numbers.

    Raises:
        ValueError: where a name is not known, or nothing is left of a trajectory.
    """

    def __init__(
        self,
        data: Trajectories,
        *,
        fields: Sequence[str] | None = None,
        static: Sequence[str] | None = None,
        frames: slice = slice(None),
        trajectories: slice = slice(None),
    ) -> None:
        self._data, self.path, self.name = data, data.path, data.name
        layout = data.layout
        self._columns = _columns("fields", fields, layout.fields, data.path)
        self._still = _columns("static", static, layout.static, data.path)
        if not self._columns:
            raise ValueError(f"fields: got none; name at least one of {', '.join(layout.names)}.")
        self._rows = _chosen("trajectories", trajectories, data.count, f"{data.path}, which has trajectories")
        self._frames = {
            row: _chosen("frames", frames, data.length(row), f"trajectory {row} of {data.path}, which has frames")
            for row in self._rows
        }
        self._first, self._step = frames.start or 0, frames.step or 1
        self.count = len(self._rows)
        self._lengths = [len(self._frames[row]) for row in self._rows]
        self.frames = max(self._lengths)
        self.layout = replace(
            layout,
            fields=tuple(layout.fields[at] for at in self._columns),
            static=tuple(layout.static[at] for at in self._still),
            dt=layout.dt * self._step,
        )
        self.parameters = {name: np.asarray(values)[list(self._rows)] for name, values in data.parameters.items()}
        self.segments = {split: found for split, rows in data.segments.items() if (found := self._parts(rows))}

    def _parts(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """What is chosen of some segments."""
        found = []
        for s in segments:
            if s.trajectory in self._frames:
                row = self._rows.index(s.trajectory)
                start, stop = (-(-max(0, end - self._first) // self._step) for end in (s.start, s.stop))
                part = Segment(row, start, min(stop, self._lengths[row]))
                if part.start < part.stop:
                    found.append(part)
        return tuple(found)

    @property
    def _selected(self) -> dict[str, Any]:
        """What was chosen, in plain values."""
        last = max(found[-1] for found in self._frames.values())
        return {
            "fields": list(self.layout.names),
            "static": [item.name for item in self.layout.static],
            "frames": [self._first, last + 1, self._step],
            "trajectories": [self._rows.start, self._rows[-1] + 1, self._rows.step],
        }

    @property
    def provenance(self) -> Mapping[str, Any]:  # type: ignore[override]  # the source may have to be read for it
        return {"selected": self._selected, "of": self._data.origin()}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        identity = json.dumps([self._data.fingerprint, self._selected])
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def identify(self, *, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
        self._data.identify(progress=progress)
        return self.fingerprint

    @cached_property
    def statistics(self) -> Statistics:  # type: ignore[override]
        return self.measured()

    def length(self, trajectory: int) -> int:
        return self._lengths[trajectory]

    def times(self) -> np.ndarray | None:
        times = self._data.times()
        return None if times is None else times[self._first :: self._step][: self.frames]

    def storage(self) -> Storage:
        return replace(self._data.storage(), statistics="measured")

    def _source(self, trajectory: int, frames: slice) -> tuple[int, slice]:
        found = self._frames[self._rows[trajectory]][frames]
        return self._rows[trajectory], slice(found[0], found[-1] + 1, found.step)

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        return np.ascontiguousarray(self._data._read(*self._source(trajectory, frames))[..., self._columns])

    def _not_finite(self, trajectory: int, frames: slice, values: np.ndarray) -> None:
        """The source may know what to do with such values, such as those inside of obstacles."""
        row, where = self._source(trajectory, frames)
        whole = self._data._read(row, where)
        try:
            self._data._not_finite(row, where, whole)
        except NotFinite as problem:
            if set(problem.fields) & set(self.layout.names):
                raise
        values[...] = whole[..., self._columns]
        super()._not_finite(trajectory, frames, values)

    def _read_static(self, trajectory: int) -> np.ndarray:
        return np.ascontiguousarray(self._data._read_static(self._rows[trajectory])[..., self._still])


def _columns(what: str, names: Sequence[str] | None, known: Sequence[Field], where: str) -> list[int]:
    """Where the named fields are among the known ones."""
    have = [item.name for item in known]
    for name in names or ():
        if name not in have:
            raise ValueError(f"{what}: got {name!r}; {where} has {', '.join(have) or 'none'}.")
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"{what}: got {', '.join(names)}; name each once.")
    return list(range(len(have))) if names is None else [have.index(name) for name in names]


def _chosen(what: str, wanted: slice, total: int, of: str) -> range:
    """The numbers that a slice means, some at least."""
    parts = [part for part in (wanted.start, wanted.stop, wanted.step) if part is not None]
    text = f"{'' if wanted.start is None else wanted.start}:{'' if wanted.stop is None else wanted.stop}"
    text += "" if wanted.step is None else f":{wanted.step}"
    if any(part < 0 for part in parts) or wanted.step == 0:
        raise ValueError(f"{what}: got {text}; expected START:STOP:STEP from 0 on, with a step of 1 or more.")
    found = range(total)[wanted]
    if not found:
        raise ValueError(f"{what}: got {text}, which leaves none of {of} 0 to {total - 1}.")
    return found
