"""Means, variances and ranges of fields in one pass, in parts that merge.

Two parts A and B of a set merge into the moments of the set (Chan, Golub & LeVeque 1983, doi
10.1080/00031305.1983.10483115; with weights West 1979, doi 10.1145/359146.359153):

    W = W_A + W_B,   d = m_B - m_A,   m = m_A + d W_B / W,   S = S_A + S_B + d^2 W_A W_B / W,

where ``W = sum w``, ``m = sum w u / W`` and ``S = sum w (u - m)^2``. One thing is added: a mean is kept as the sum of
two numbers, and deviations are taken from the larger, so that ``d`` keeps its digits where the mean is large beside the
spread (a pressure, a temperature in kelvin).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from physml.fields import Grid


@dataclass(frozen=True)
class Moments:
    """Of ``C`` fields, in float64.

    Args:
        weight: ``W``, the sum of the weights of all values of a field.
        head, tail: the mean is their sum, ``(C,)`` each.
        square: ``S``, ``(C,)``.
        low, high: smallest and largest value, ``(C,)``.
    """

    weight: float
    head: np.ndarray
    tail: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def merged(self, other: Moments) -> Moments:
        """The moments of both parts together."""
        weight = self.weight + other.weight
        apart = (other.head - self.head) + (other.tail - self.tail)
        head, tail = _sum(self.head, self.tail + apart * (other.weight / weight))
        return Moments(
            weight,
            head,
            tail,
            self.square + other.square + apart**2 * (self.weight * (other.weight / weight)),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def mean(self) -> np.ndarray:
        return self.head + self.tail

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.square / self.weight)

    @property
    def rms(self) -> np.ndarray:
        """``sqrt(m^2 + S/W)``: the root of the mean square."""
        return np.hypot(self.mean, self.std)


def _sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``a + b`` rounded, and what rounding left out (Knuth's two-sum)."""
    whole = a + b
    part = whole - a
    return whole, (a - (whole - part)) + (b - part)


@dataclass(frozen=True)
class FrameMoments:
    """Mean and variance of each of ``T`` frames: ``head + tail`` and ``variance``; ``(C,)``, ``(C, T)``, ``(C, T)``."""

    head: np.ndarray
    tail: np.ndarray
    variance: np.ndarray


def of_frames(values: np.ndarray, weights: np.ndarray | None) -> FrameMoments:
    """The moments over space of each frame.

    Args:
        values: ``(C, T, N)`` float64.
        weights: ``(N,)``; equal ones where they are not given.
    """
    head = values.mean(axis=(1, 2))
    deviation = values - head[:, None, None]
    if weights is None:
        tail = deviation.mean(axis=2)
        variance = np.square(deviation - tail[..., None]).mean(axis=2)
    else:
        parts = weights / weights.sum()
        tail = deviation @ parts
        variance = np.square(deviation - tail[..., None]) @ parts
    return FrameMoments(head, tail, variance)


def of_block(values: np.ndarray, frames: FrameMoments, weight: float) -> Moments:
    """The moments of all frames of a block together.

    Args:
        values: ``(C, T, N)``, for their range.
        frames: their moments, frame by frame.
        weight: of one frame.
    """
    tail = frames.tail.mean(axis=1)
    square = weight * (frames.variance + np.square(frames.tail - tail[:, None])).sum(axis=1)
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    return Moments(weight * values.shape[1], *_sum(frames.head, tail), square, low, high)


def joined(one: Moments | None, other: Moments | None) -> Moments | None:
    """Both together, where there are both."""
    return other if one is None else one if other is None else one.merged(other)


def quadrature(grid: Grid) -> np.ndarray | None:
    """The weight of each point of a grid, ``(*space)``: the product of the weights of the axes, one on average.

    ``None`` where all axes are uniform: then every point counts the same, exactly.
    """
    if all(axis.uniform for axis in grid.axes):
        return None
    weights = [
        torch.ones(len(axis.points)) if axis.uniform else axis.weights / axis.weights.mean() for axis in grid.axes
    ]
    return reduce(np.multiply.outer, [each.double().numpy() for each in weights])
