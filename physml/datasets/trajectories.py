"""What every data set of trajectories offers, whatever its files look like."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    increment_std: tuple[float, ...]
    energy: float

    def to_plain(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Statistics:
        return cls(tuple(plain["mean"]), tuple(plain["std"]), tuple(plain["increment_std"]), float(plain["energy"]))


class Trajectories(ABC):
    """A data set: trajectories of equally long, equally spaced states on one grid.

    Attributes:
        name: for people.
        path: where it was opened, as text.
        layout: fields, grid, frame interval.
        count: number of trajectories.
        frames: frames of each.
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
        if not (0 <= trajectory < self.count and 0 <= start < stop <= self.frames and step >= 1):
            raise ValueError(
                f"{self.path}: asked for frames {start}:{stop}:{step} of trajectory {trajectory}; "
                f"it holds {self.count} trajectories of {self.frames} frames."
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

    def segments_of(self, split: str) -> tuple[Segment, ...]:
        """The segments of a split; a misspelt split is one clear error."""
        if split not in self.segments:
            raise ValueError(f"split: got {split!r}, {self.path} has {', '.join(self.segments)}.")
        return self.segments[split]


def measure(layout: Layout, segments: Sequence[Segment], read: Callable[[int, int, int], np.ndarray]) -> Statistics:
    """Statistics in one pass, in float64, by merging block moments (Chan et al. 1983).

    Args:
        layout: of the states; only fluid points count.
        segments: what to measure, normally the split ``train``.
        read: ``(trajectory, start, stop) -> (T, *space, C)``.
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
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()), tuple(rise.tolist()), float(energy))


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
