"""What every writer of a data set offers, whatever its files look like, and what it is told beforehand.

A writer takes trajectories block by block, so that no more than a block is in memory, and picks up where an interrupted
one stopped. :class:`physml.datasets.store.StoreWriter` makes the canonical store, and
:class:`physml.datasets.file_writer.FileWriter` files in the layouts of other programs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from physml.datasets.plain import plain
from physml.datasets.trajectories import Segment, Trajectories
from physml.fields import Layout


@dataclass(frozen=True)
class Plan:
    """What a data set is going to hold, but for its values.

    Args:
        name: of the data set.
        layout: of its states.
        count, frames: trajectories and frames of each.
        parameters: per trajectory.
        segments: of each split, a ``train`` among them.
        provenance: all that determines the data, plain values.
        lengths: frames of each trajectory, where some have fewer than ``frames``.

    Raises:
        ValueError: where segments leave the data, a parameter has too few or too many values, or the provenance holds
            something else than plain values.
    """

    name: str
    layout: Layout
    count: int
    frames: int
    parameters: Mapping[str, Sequence[float]]
    segments: Mapping[str, Sequence[Segment]]
    provenance: Mapping[str, Any]
    lengths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if (each := self.lengths) and (len(each) != self.count or min(each) < 1 or max(each) != self.frames):
            raise ValueError(
                f"lengths: got {len(each)} from {min(each)} to {max(each)}; expected one for each of {self.count} "
                f"trajectories, from 1 to {self.frames}, the frames of the longest."
            )
        if not self.segments.get("train"):
            raise ValueError(
                f"segments: got splits {', '.join(self.segments) or 'none'}; a split 'train' with frames is needed."
            )
        for split, rows in self.segments.items():
            for s in rows:
                if not (0 <= s.trajectory < self.count and 0 <= s.start < s.stop <= self.length(s.trajectory)):
                    frames = self.length(s.trajectory) if 0 <= s.trajectory < self.count else self.frames
                    raise ValueError(
                        f"segments: {split} has frames {s.start}:{s.stop} of trajectory {s.trajectory}; there are "
                        f"{self.count} trajectories of {frames} frames."
                    )
        for key, values in self.parameters.items():
            if len(values) != self.count:
                raise ValueError(
                    f"parameters: {key!r} has {len(values)} values for {self.count} trajectories; give one each."
                )
        plain(self.provenance, "provenance")

    def length(self, trajectory: int) -> int:
        """Frames of one trajectory."""
        return self.lengths[trajectory] if self.lengths else self.frames

    def to_plain(self) -> dict[str, Any]:
        """Numbers, strings, lists and dictionaries only; not the sizes, which are those of the arrays."""
        return {
            "name": self.name,
            "layout": self.layout.to_plain(),
            "parameters": {key: [float(value) for value in self.parameters[key]] for key in sorted(self.parameters)},
            "segments": {
                split: [[s.trajectory, s.start, s.stop] for s in rows] for split, rows in self.segments.items()
            },
            "provenance": plain(self.provenance, "provenance"),
            **({"lengths": list(self.lengths)} if self.lengths and min(self.lengths) < self.frames else {}),
        }

    def difference(self, found: Mapping[str, Any]) -> str | None:
        """The first thing by which another plan, as plain values, differs, in words; ``None`` where it is the same."""
        wanted = self.to_plain()
        for key in ("provenance", "segments", "layout", "parameters", "lengths"):
            if found.get(key) != wanted.get(key):
                return first_difference(found.get(key), wanted.get(key), key)
        return None


class TrajectoryWriter(ABC):
    """Writes a data set block by block and finishes it; picks up an interrupted one where it stopped.

    States go in by :meth:`write`, static fields, where the layout has some, by :meth:`write_static`. A subclass sets
    the attributes in its constructor.

    Attributes:
        path: of the data set.
        plan: what it is going to hold.
        created: whether nothing was there, so that there is nothing to continue.
        complete: whether it is finished.
        chunk_frames: frames to pass to :meth:`write` at once; the last block may be shorter.
    """

    path: Path
    plan: Plan
    created: bool
    complete: bool
    chunk_frames: int

    @abstractmethod
    def _write(self, trajectory: int, start: int, values: np.ndarray) -> None:
        """Write a block ``(T, *space, C)`` float32 that was checked."""

    @abstractmethod
    def _write_static(self, trajectory: int, values: np.ndarray) -> None:
        """Write static fields ``(*space, S)`` float32 that were checked."""

    @abstractmethod
    def finish(self, digests: Sequence[str]) -> Trajectories:
        """Refuse what is not whole, complete what belongs to the data set, open it; only open what is complete.

        Args:
            digests: one for each trajectory, made from what :meth:`write` returned.
        """

    def write(self, trajectory: int, start: int, values: np.ndarray) -> str:
        """Write a block ``(T, *space, C)`` that begins at a chunk border; returns its digest.

        Raises:
            ValueError: where a value is not finite.
        """
        self._refuse_complete()
        count, layout = self.plan.count, self.plan.layout
        frames = self.plan.length(trajectory) if 0 <= trajectory < count else self.plan.frames
        shape = (*layout.grid.shape, len(layout.fields))
        if values.shape[1:] != shape or not len(values):
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
        self._write(trajectory, start, values)
        return hashlib.sha256(values.tobytes()).hexdigest()

    def write_static(self, trajectory: int, values: np.ndarray) -> None:
        """Write the fields of one trajectory that do not change in time, ``(*space, S)``.

        Raises:
            ValueError: where the layout has none, or a value is not finite.
        """
        self._refuse_complete()
        layout = self.plan.layout
        if not layout.static:
            raise ValueError("write_static: the layout has no static fields; name them in Layout(static=...).")
        shape = (*layout.grid.shape, len(layout.static))
        if not 0 <= trajectory < self.plan.count or values.shape != shape:
            raise ValueError(
                f"values: got shape {values.shape} for trajectory {trajectory}, expected "
                f"({', '.join(map(str, shape))}) for one of {self.plan.count} trajectories."
            )
        values = _single(values)
        if not np.isfinite(values).all():
            raise ValueError(f"values: the static fields of trajectory {trajectory} are not finite; repair them.")
        self._write_static(trajectory, values)

    def _refuse_complete(self) -> None:
        if self.complete:
            raise ValueError(f"{self.path}: is complete; delete it to write it anew.")

    def _refuse_other(self, found: Mapping[str, Any]) -> None:
        """Refuse to continue, or to take for finished, what was planned otherwise."""
        if difference := self.plan.difference(found):
            raise ValueError(f"{self.path}: already holds other data ({difference}); give another --out, or delete it.")


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what is too large for fp32 becomes infinite, which is refused
        return np.ascontiguousarray(values, dtype=np.float32)


def first_difference(found: Any, wanted: Any, key: str) -> str:
    """The first key at which two plain values differ, with both; ``fingerprint: 1f there, 2e asked``."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                return first_difference(found.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    return f"{key}: {str(found)[:60]} there, {str(wanted)[:60]} asked"
