"""What every data set of trajectories offers, whatever its files look like."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from physml.fields import Layout

_BLOCK = 32  # frames held in memory at once while measuring


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of one trajectory; windows never cross its ends."""

    trajectory: int
    start: int
    stop: int


@dataclass(frozen=True)
class Statistics:
    """Moments of the training split, in physical units, over fluid points.

    Args:
        mean, std: of each field, ``(C,)``.
        increment_std: standard deviation of the difference of two consecutive frames, ``(C,)``.
        energy: largest ``<((u - mean)/std)^2>`` of any training frame, averaged over space and fields.
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

    @abstractmethod
    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        """Frames of one trajectory, ``(T, *space, C)`` float32; bounds were checked."""

    def read(self, trajectory: int, start: int, stop: int, step: int = 1) -> np.ndarray:
        """Frames ``start, start + step, ...`` before ``stop`` of one trajectory.

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
        values = self._read(trajectory, slice(start, stop, step))
        if not np.isfinite(values.sum(dtype=np.float64)):
            bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            if bad.any():
                raise ValueError(
                    f"{self.path}: trajectory {trajectory}, frame {start + step * int(bad.argmax())} holds NaN or "
                    "infinite values, or its chunk is missing; repair or regenerate the data before using it."
                )
        mask = self.layout.grid.mask
        return values if mask is None else values * mask.numpy()[..., None]

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
            raise ValueError(
                f"{self.path}: trajectory {trajectory}, static field {self.layout.static[int(bad.argmax())].name!r} "
                "holds NaN or infinite values, or its chunk is missing; repair or regenerate the data before using it."
            )
        return values

    def measured(self) -> Statistics:
        """The statistics, found by reading the training split once."""
        train = self.segments_of("train")
        return measure(self.layout, train, self.read, parameters=self.parameters, read_static=self.read_static)

    def segments_of(self, split: str) -> tuple[Segment, ...]:
        """The segments of a split; a misspelt split is one clear error."""
        if split not in self.segments:
            raise ValueError(f"split: got {split!r}, {self.path} has {', '.join(self.segments)}.")
        return self.segments[split]


def measure(
    layout: Layout,
    segments: Sequence[Segment],
    read: Callable[[int, int, int], np.ndarray],
    *,
    parameters: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    read_static: Callable[[int], np.ndarray] | None = None,
) -> Statistics:
    """Statistics in one pass, in float64, by merging block moments (Chan et al. 1983).

    Args:
        layout: of the states; only fluid points count.
        segments: what to measure, normally the split ``train``.
        read: ``(trajectory, start, stop) -> (T, *space, C)``.
        parameters: of the data, a number for each trajectory.
        read_static: ``trajectory -> (*space, S)``; needed where the layout has static fields.
    """
    fluid = None if layout.grid.mask is None else layout.grid.mask.numpy()
    whole, steps = _Moments(), _Moments()
    means, variances = [], []  # of each frame and field
    for segment in segments:
        last = None
        for start in range(segment.start, segment.stop, _BLOCK):
            values = read(segment.trajectory, start, min(start + _BLOCK, segment.stop))
            flat = values.reshape(len(values), -1, values.shape[-1]) if fluid is None else values[:, fluid]
            flat = flat.astype(np.float64)
            whole.add(flat)
            means.append(flat.mean(axis=1))
            variances.append(flat.var(axis=1))
            chain = flat if last is None else np.concatenate([last, flat])
            if len(chain) > 1:
                steps.add(np.diff(chain, axis=0))
            last = flat[-1:]
    if whole.count == 0:
        raise ValueError("segments: the split 'train' holds no frames; statistics need some.")
    mean, std = whole.mean, whole.std
    for index, name in enumerate(layout.names):
        if std[index] <= 1e-7 * abs(mean[index]):
            warnings.warn(f"field {name!r} is constant in the training split; its scale is taken as 1.", stacklevel=2)
            std[index] = 1.0
    squares = np.concatenate(variances) + (np.concatenate(means) - mean) ** 2
    energy = (squares / std**2).mean(axis=-1).max()
    rise = steps.std if steps.count else std
    rise = np.where(rise > 1e-7 * std, rise, std)
    trajectories = sorted({segment.trajectory for segment in segments})
    still = _Moments()
    if layout.static:
        if read_static is None:
            raise ValueError("read_static: not given, but the layout has static fields; pass what reads them.")
        for trajectory in trajectories:
            still.add(read_static(trajectory).astype(np.float64))
    numbers = {name: np.asarray(values, np.float64)[trajectories] for name, values in (parameters or {}).items()}
    return Statistics(
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        increment_std=tuple(rise.tolist()),
        energy=float(energy),
        static_mean=tuple(still.mean.tolist()) if still.count else (),
        static_std=tuple(still.std.tolist()) if still.count else (),
        number_mean={name: float(values.mean()) for name, values in numbers.items()},
        number_std={name: float(values.std()) for name, values in numbers.items()},
    )


class _Moments:
    """Running mean and variance of ``(..., C)`` arrays."""

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, np.zeros(1), np.zeros(1)

    def add(self, values: np.ndarray) -> None:
        flat = values.reshape(-1, values.shape[-1])
        count, mean = len(flat), flat.mean(axis=0)
        square = ((flat - mean) ** 2).sum(axis=0)
        total = self.count + count
        shift = mean - self.mean
        self.mean = self.mean + shift * (count / total)
        self.square = self.square + square + shift**2 * (self.count * count / total)
        self.count = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.square / self.count)
