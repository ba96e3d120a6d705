"""How well a mean over samples is known: the percentile bootstrap over independent units.

Samples cut from one trajectory resemble each other, so drawing them one by one would promise too narrow an interval.
The unit that is drawn is the trajectory with all its samples (cluster bootstrap; Efron & Tibshirani 1993, chapter 8;
Field & Welsh 2007). Where there is one trajectory only, the unit is the stretch of it that no other unit overlaps, and
the result says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Over = Literal["trajectories", "non-overlapping windows of one trajectory"]


@dataclass(frozen=True)
class Units:
    """What is drawn: samples with the same number are drawn together.

    Args:
        group: ``(N,)``, numbers from 0.
        over: what a unit is, in words for tables.
    """

    group: NDArray[np.intp]
    over: Over

    @property
    def count(self) -> int:
        return int(self.group.max()) + 1 if len(self.group) else 0

    @classmethod
    def of(cls, trajectory: ArrayLike, frame: ArrayLike, span: int) -> Units:
        """Trajectories where there are several; otherwise windows of the one.

        Args:
            trajectory: ``(N,)``, which trajectory each sample comes from.
            frame: ``(N,)``, the first frame of each sample.
            span: number of stored frames from a sample's first to its last, both included. A new window starts with the
                first sample that lies at least ``span`` after the start of the window before.
        """
        trajectories, frames = np.asarray(trajectory), np.asarray(frame)
        if trajectories.ndim != 1 or trajectories.shape != frames.shape or len(frames) == 0:
            raise ValueError(
                f"trajectory, frame: got shapes {trajectories.shape} and {frames.shape}, expected one number each for "
                "every sample."
            )
        if span < 1:
            raise ValueError(f"span: got {span}, expected the number of frames of a sample.")
        names, group = np.unique(trajectories, return_inverse=True)
        if len(names) > 1:
            return cls(group, "trajectories")
        group = np.zeros(len(frames), dtype=np.intp)
        start, number = None, -1
        for index in np.argsort(frames, kind="stable"):
            if start is None or frames[index] - start >= span:
                start, number = frames[index], number + 1
            group[index] = number
        return cls(group, "non-overlapping windows of one trajectory")


@dataclass(frozen=True)
class Interval:
    """A mean over samples and the range it is known to.

    Args:
        mean: ``(...)``; every sample weighs the same.
        low: lower end, NaN with fewer than two units.
        high: upper end, NaN with fewer than two units.
        samples: ``(...)``, how many samples are in the mean (NaN is left out).
        confidence: of the interval.
        units: how many independent units were drawn from.
        over: what a unit is.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    samples: NDArray[np.intp]
    confidence: float
    units: int
    over: Over


def resampled_means(values: ArrayLike, units: Units, *, resamples: int = 2000, seed: int = 0) -> NDArray[np.float64]:
    """Means of ``resamples`` draws of as many units as there are, with replacement.

    A draw's mean is ``sum_g n_g S_g / sum_g n_g N_g``: n_g says how often unit g was drawn, S_g and N_g are the sum and
    the number of its samples. The draws depend on the seed and the number of units alone, so that two metrics of the
    same samples, or two models, see the same draws.

    Args:
        values: ``(N, ...)``, one row for each sample; NaN is left out.
        units: which samples are drawn together.
        resamples: number of draws R.
        seed: of the draws.

    Returns:
        ``(R, ...)``; NaN where a draw holds no value.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape[:1] != units.group.shape:
        raise ValueError(f"values: got {table.shape[:1]} rows for {len(units.group)} samples; give one row for each.")
    sums, numbers = _totals(table, units)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(units.count, np.full(units.count, 1 / units.count), size=resamples).astype(np.float64)
    shape = (units.count, -1)
    total, number = drawn @ sums.reshape(shape), drawn @ numbers.reshape(shape)
    means = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return means.reshape(resamples, *table.shape[1:])


def bootstrap_interval(
    values: ArrayLike, units: Units, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean over samples with its percentile bootstrap interval over units.

    The interval reaches from the (1-c)/2 to the (1+c)/2 quantile of the resampled means. It is too narrow for few units
    (for ten, roughly 0.90 instead of 0.95): read it together with ``units``.

    Args:
        values: ``(N, ...)``, one row for each sample; columns are treated alike and at once; NaN is left out.
        units: which samples are drawn together, see :meth:`Units.of`.
        confidence: c, between 0 and 1.
        resamples: number of draws.
        seed: of the draws; the same seed gives the same interval.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence}, expected a number between 0 and 1, such as 0.95.")
    table = np.asarray(values, dtype=np.float64)
    means = resampled_means(table, units, resamples=resamples, seed=seed)
    sums, numbers = _totals(table, units)
    total, number = sums.sum(axis=0), numbers.sum(axis=0)
    low, high = percentiles(means, confidence)
    known = (numbers > 0).sum(axis=0) >= 2
    return Interval(
        mean=np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0),
        low=np.where(known, low, np.nan),
        high=np.where(known, high, np.nan),
        samples=number.astype(np.intp),
        confidence=confidence,
        units=units.count,
        over=units.over,
    )


def percentiles(draws: NDArray[np.float64], confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The (1-c)/2 and (1+c)/2 quantiles over the first axis, NaN left out; NaN where nothing is left."""
    bounds = np.full((2, *draws.shape[1:]), np.nan)
    wanted = [(1 - confidence) / 2, (1 + confidence) / 2]
    missing = np.isnan(draws)
    whole, some = ~missing.any(axis=0), missing.any(axis=0) & ~missing.all(axis=0)
    bounds[:, whole] = np.quantile(draws[:, whole], wanted, axis=0)
    bounds[:, some] = np.nanquantile(draws[:, some], wanted, axis=0)  # slow: one column at a time
    return bounds[0], bounds[1]


def _totals(table: NDArray[np.float64], units: Units) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each unit, ``(G, ...)``."""
    there = ~np.isnan(table)
    sums = np.zeros((units.count, *table.shape[1:]))
    numbers = np.zeros_like(sums)
    np.add.at(sums, units.group, np.where(there, table, 0.0))
    np.add.at(numbers, units.group, there)
    return sums, numbers
