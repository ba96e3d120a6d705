"""What every data set of trajectories offers, whatever its files look like."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from physml.datasets.moments import FrameMoments, Moments, joined, of_block, of_frames, quadrature
from physml.datasets.storage import Storage
from physml.datasets.workers import Workers
from physml.fields import Layout

_READ_BYTES = 1 << 25  # of single precision, read at once while measuring
_BLOCK_BYTES = 1 << 19  # and reckoned with at once, so that deviations stay in the cache
_ROUNDING = 2.0**-24
"""Of single precision: a deviation below this part of the mean is that of two neighbouring numbers."""


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of one trajectory; windows never cross its ends."""

    trajectory: int
    start: int
    stop: int


@dataclass(frozen=True)
class Statistics:
    """Moments of the training split, in physical units, over fluid points.

    Points count by their quadrature weights, as they do in the metrics, and equally on a uniform grid:

        mean = sum_{f,i} w_i u_{f,i} / sum_{f,i} w_i,   std^2 = sum_{f,i} w_i (u_{f,i} - mean)^2 / sum_{f,i} w_i

    over frames f and fluid points i, so that a region is not more important for being resolved better. Moments that are
    published beside the data, as those of The Well are, are taken as they are: there all points count equally, whatever
    the grid.

    Args:
        mean, std: of each field, ``(C,)``.
        increment_std: standard deviation of the difference of two consecutive frames, ``(C,)``.
        energy: largest ``<((u - mean)/std)^2>`` of any training frame, a plain average over fluid points and fields,
            which is what a rollout is held against: it may blow up where the grid is fine.
        static_mean, static_std: of each static field, ``(S,)``, over trajectories and all points, solid ones included.
        number_mean, number_std: of each parameter by name, over trajectories; the deviation of a constant is 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    increment_std: tuple[float, ...]
    energy: float
    static_mean: tuple[float, ...] = ()
    static_std: tuple[float, ...] = ()
    number_mean: Mapping[str, float] = field(default_factory=dict)
    number_std: Mapping[str, float] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Statistics:
        """Moments of static fields and parameters may be missing: those of a store that was measured without."""
        return cls(
            tuple(plain["mean"]),
            tuple(plain["std"]),
            tuple(plain["increment_std"]),
            float(plain["energy"]),
            static_mean=tuple(plain.get("static_mean", ())),
            static_std=tuple(plain.get("static_std", ())),
            number_mean=dict(plain.get("number_mean", {})),
            number_std=dict(plain.get("number_std", {})),
        )


class NotFinite(ValueError):
    """Values that are NaN or infinite where numbers must be.

    Args:
        text: the message.
        fields: names of the fields that have some.
    """

    def __init__(self, text: str, fields: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.fields = tuple(fields)


class Trajectories(ABC):
    """A data set: trajectories of equally long, equally spaced states on one grid.

    Attributes:
        name: for people.
        path: where it was opened, as text.
        layout: fields, grid, frame interval, static fields.
        count: number of trajectories.
        frames: frames of each; of the longest, where they differ (see :meth:`length`).
        parameters: numbers that hold for a whole trajectory (``viscosity``, ``reynolds``), ``(count,)`` each.
        segments: of each split.
        statistics: of the split ``train``.
        fingerprint: changes when the data change.
        provenance: how the data came to be, plain values.
    """

    name: str
    path: str
    layout: Layout
    count: int
    frames: int
    parameters: Mapping[str, np.ndarray]
    segments: Mapping[str, tuple[Segment, ...]]
    statistics: Statistics
    fingerprint: str
    provenance: Mapping[str, Any]

    def length(self, trajectory: int) -> int:
        """Frames of one trajectory: :attr:`frames`, or fewer where they are not all as long."""
        return self.frames

    def identify(self, *, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
        """The fingerprint; ``progress`` is told frames done and to do where all is read to find it."""
        return self.fingerprint

    def origin(self) -> dict[str, Any]:
        """Where the data come from, for what is made of them: nothing in it depends on the machine."""
        kind = type(self)
        return {
            "adapter": f"{kind.__module__}.{kind.__qualname__}",
            "name": self.name,
            "fingerprint": self.fingerprint,
            "provenance": dict(self.provenance),
        }

    def times(self) -> np.ndarray | None:
        """The time of each frame as stored, ``(frames,)``; ``None`` where none is, or opening has checked it."""
        return None

    def storage(self) -> Storage:
        """What lies on the disk, as far as it is known without reading arrays; all files below the path by default."""
        return Storage.of([self.path])

    @abstractmethod
    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        """Frames of one trajectory, ``(T, *space, C)`` float32; bounds were checked."""

    def _fill(self, trajectory: int, frames: slice, out: np.ndarray) -> None:
        """The same, put into ``out``; to be defined beside :meth:`_read` where that saves a copy."""
        out[...] = self._read(trajectory, frames)

    def _room(self, frames: slice) -> np.ndarray:
        """An array for these frames, not filled."""
        length = len(range(frames.start, frames.stop, frames.step or 1))
        return np.empty((length, *self.layout.grid.shape, len(self.layout.fields)), dtype=np.float32)

    def _not_finite(self, trajectory: int, frames: slice, values: np.ndarray) -> None:
        """Called for values that are not all finite: puts right in place what it may, and refuses the rest."""
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim - 1)))
        if bad.any():
            frame = frames.start + (frames.step or 1) * int(bad.any(axis=1).argmax())
            raise NotFinite(
                f"{self.path}: trajectory {trajectory}, frame {frame} holds NaN or infinite values, or its chunk is "
                "missing; repair or regenerate the data before using it.",
                [name for name, wrong in zip(self.layout.names, bad.any(axis=0), strict=True) if wrong],
            )

    def read(self, trajectory: int, start: int, stop: int, step: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        """Frames ``start, start + step, ...`` before ``stop`` of one trajectory.

        Args:
            trajectory: its number.
            start, stop, step: which frames.
            out: where to put them, ``(T, *space, C)`` float32 and contiguous, which saves a copy; a new array if not
                given.

        Returns:
            ``(T, *space, C)`` float32, physical units, finite; zero inside obstacles.

        Raises:
            ValueError: outside the data, or where a value is not finite.
        """
        known = 0 <= trajectory < self.count
        if not (known and 0 <= start < stop <= self.length(trajectory) and step >= 1):
            raise ValueError(
                f"{self.path}: asked for frames {start}:{stop}:{step} of trajectory {trajectory}; it holds "
                f"{self.count} trajectories{f', and {self.length(trajectory)} frames of this one' if known else ''}."
            )
        frames = slice(start, stop, step)
        if out is None:
            values = self._read(trajectory, frames)
        else:
            values = out
            self._fill(trajectory, frames, values)
        if not np.isfinite(values).all():
            self._not_finite(trajectory, frames, values)
        mask = self.layout.grid.mask
        return values if mask is None else np.multiply(values, mask.numpy()[..., None], out=out)

    def _read_static(self, trajectory: int) -> np.ndarray:
        """Static fields of one trajectory, ``(*space, S)`` float32; to be defined where the layout names some."""
        raise NotImplementedError(f"{type(self).__name__} has static fields and must define _read_static.")

    def read_static(self, trajectory: int) -> np.ndarray:
        """The fields of one trajectory that do not change in time.

        Returns:
            ``(*space, S)`` float32, physical units, finite, as stored inside obstacles too; ``S = 0`` where the data
            have none.

        Raises:
            ValueError: outside the data, or where a value is not finite.
        """
        if not 0 <= trajectory < self.count:
            raise ValueError(
                f"{self.path}: asked for static fields of trajectory {trajectory}; it holds {self.count} trajectories."
            )
        if not self.layout.static:
            return np.zeros((*self.layout.grid.shape, 0), dtype=np.float32)
        values = self._read_static(trajectory)
        bad = ~np.isfinite(values).all(axis=tuple(range(values.ndim - 1)))
        if bad.any():
            raise NotFinite(
                f"{self.path}: trajectory {trajectory}, static field {self.layout.static[int(bad.argmax())].name!r} "
                "holds NaN or infinite values, or its chunk is missing; repair or regenerate the data before using it.",
                [item.name for item, wrong in zip(self.layout.static, bad, strict=True) if wrong],
            )
        return values

    def measured(self) -> Statistics:
        """The statistics, found by reading the training split once."""
        return self.gathered().statistics(self.parameters)

    def gathered(
        self, split: str = "train", *, workers: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Accumulator:
        """What :class:`Statistics` are made of, found by reading a split once.

        Args:
            split: its name.
            workers: processes that read, each whole trajectories; the result is the same, bit for bit.
            progress: called with frames done and to do.
        """
        rows = _by_trajectory(self.segments_of(split))
        frames = {row: sum(s.stop - s.start for s in found) for row, found in rows.items()}
        whole, done = Accumulator(self.layout), 0
        with Workers(self, workers) as pool:
            for row, part in zip(rows, pool.each(_gather_from, [*rows.items()]), strict=True):
                whole.merge(part)
                done += frames[row]
                progress(done, sum(frames.values()))
        return whole

    def segments_of(self, split: str) -> tuple[Segment, ...]:
        """The segments of a split; a misspelt split is one clear error."""
        if split not in self.segments:
            raise ValueError(f"split: got {split!r}, {self.path} has {', '.join(self.segments)}.")
        return self.segments[split]


class Accumulator:
    """Gathers statistics frame by frame; what two of them gathered merges into what one would have.

    Holds the mean and the variance of every frame, from which the largest energy follows once the moments of all are
    known: two numbers for each field.

    Args:
        layout: of the states; only fluid points count, by their quadrature weights.

    Attributes:
        states, increments: moments of frames, and of differences of consecutive ones; ``None`` before there are any.
        static: moments of static fields.
        frames: how many were added.
    """

    def __init__(self, layout: Layout) -> None:
        self.states: Moments | None = None
        self.increments: Moments | None = None
        self.static: Moments | None = None
        self.frames = 0
        self._trajectories: set[int] = set()
        self._layout = layout
        self._energies: list[FrameMoments] = []
        mask, weights = layout.grid.mask, quadrature(layout.grid)
        self._fluid = None if mask is None else mask.numpy()
        self._everywhere = None if weights is None else weights.ravel()
        self._weights = self._everywhere if weights is None or mask is None else weights[self._fluid]

    def add(self, trajectory: int, values: np.ndarray, before: np.ndarray | None = None) -> None:
        """Take frames that follow each other, ``(T, *space, C)``, and the one ``before`` them, ``(1, *space, C)``."""
        flat = _by_field(values if before is None else np.concatenate([before, values]), self._fluid)
        rise = np.diff(flat, axis=1)
        flat = flat if before is None else flat[:, 1:]
        weight = flat.shape[2] if self._weights is None else float(self._weights.sum())
        each = of_frames(flat, self._weights)
        self.states = joined(self.states, of_block(flat, each, weight))
        self._energies.append(each if self._weights is None else of_frames(flat, None))
        if rise.shape[1]:
            self.increments = joined(self.increments, of_block(rise, of_frames(rise, self._weights), weight))
        self.frames += len(values)
        self._trajectories.add(trajectory)

    def add_static(self, values: np.ndarray) -> None:
        """Take the static fields of one trajectory, ``(*space, S)``."""
        flat = _by_field(values[None], None)
        weight = flat.shape[2] if self._everywhere is None else float(self._everywhere.sum())
        self.static = joined(self.static, of_block(flat, of_frames(flat, self._everywhere), weight))

    def merge(self, other: Accumulator) -> None:
        """Take what another one gathered; its frames do not follow ours."""
        for name in ("states", "increments", "static"):
            setattr(self, name, joined(getattr(self, name), getattr(other, name)))
        self.frames += other.frames
        self._trajectories |= other._trajectories
        self._energies += other._energies

    def statistics(self, parameters: Mapping[str, Sequence[float] | np.ndarray] | None = None) -> Statistics:
        """The statistics of all that was added.

        Args:
            parameters: of the data, a number for each trajectory; those of trajectories that were added count.

        Raises:
            ValueError: where nothing was added.
        """
        if self.states is None:
            raise ValueError("segments: the split holds no frames; statistics need some.")
        mean, std = self.states.mean, self.states.std
        for index, name in enumerate(self._layout.names):
            if std[index] <= _ROUNDING * abs(mean[index]):
                warnings.warn(f"field {name!r} is constant in the split; its scale is taken as 1.", stacklevel=2)
                std[index] = 1.0
        rise = std if self.increments is None else self.increments.std
        rows = sorted(self._trajectories)
        numbers = {name: np.asarray(values, np.float64)[rows] for name, values in (parameters or {}).items()}
        return Statistics(
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            increment_std=tuple(np.where(rise > 1e-7 * std, rise, std).tolist()),
            energy=max(self._energy(each, self.states, std) for each in self._energies),
            static_mean=() if self.static is None else tuple(self.static.mean.tolist()),
            static_std=() if self.static is None else tuple(self.static.std.tolist()),
            number_mean={name: float(values.mean()) for name, values in numbers.items()},
            number_std={name: float(values.std()) for name, values in numbers.items()},
        )

    @staticmethod
    def _energy(frames: FrameMoments, of: Moments, std: np.ndarray) -> float:
        """The largest of some frames, ``<(u - m)^2> = <(u - <u>)^2> + (<u> - m)^2``."""
        apart = (frames.head - of.head)[:, None] + (frames.tail - of.tail[:, None])
        return float(((frames.variance + np.square(apart)) / np.square(std)[:, None]).mean(axis=0).max())


def _by_field(values: np.ndarray, fluid: np.ndarray | None) -> np.ndarray:
    """``(T, *space, C)`` to ``(C, T, N)`` in float64, without solid points."""
    flat = values.reshape(len(values), -1, values.shape[-1]) if fluid is None else values[:, fluid]
    return np.ascontiguousarray(np.moveaxis(flat, -1, 0), dtype=np.float64)


def measure(
    layout: Layout,
    segments: Sequence[Segment],
    read: Callable[[int, int, int], np.ndarray],
    *,
    parameters: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    read_static: Callable[[int], np.ndarray] | None = None,
) -> Statistics:
    """Statistics in one pass over segments, trajectory by trajectory.

    Args:
        layout: of the states; only fluid points count.
        segments: what to measure, normally the split ``train``.
        read: ``(trajectory, start, stop) -> (T, *space, C)``.
        parameters: of the data, a number for each trajectory.
        read_static: ``trajectory -> (*space, S)``; needed where the layout has static fields.
    """
    whole = Accumulator(layout)
    for row, found in _by_trajectory(segments).items():
        whole.merge(_gather(layout, row, found, read, read_static))
    return whole.statistics(parameters)


def _by_trajectory(segments: Sequence[Segment]) -> dict[int, list[Segment]]:
    rows = sorted({segment.trajectory for segment in segments})
    return {row: [segment for segment in segments if segment.trajectory == row] for row in rows}


def _gather(
    layout: Layout,
    row: int,
    segments: Sequence[Segment],
    read: Callable[[int, int, int], np.ndarray],
    read_static: Callable[[int], np.ndarray] | None,
) -> Accumulator:
    """What the segments of one trajectory give."""
    found = Accumulator(layout)
    frame = 4 * len(layout.fields) * int(np.prod(layout.grid.shape))
    read_at_once, block = (max(1, size // frame) for size in (_READ_BYTES, _BLOCK_BYTES))
    for segment in segments:
        before = None
        for start in range(segment.start, segment.stop, read_at_once):
            values = read(row, start, min(start + read_at_once, segment.stop))
            for first in range(0, len(values), block):
                part = values[first : first + block]
                found.add(row, part, before)
                before = part[-1:]
    if layout.static:
        if read_static is None:
            raise ValueError("read_static: not given, but the layout has static fields; pass what reads them.")
        found.add_static(read_static(row))
    return found


def _gather_from(data: Trajectories, part: tuple[int, Sequence[Segment]]) -> Accumulator:
    return _gather(data.layout, *part, data.read, data.read_static)
