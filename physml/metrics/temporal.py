"""How long a rollout stays right: correlation time, and means over windows of lead times.

These functions read tables of numbers, ``(sample, lead, ...)``, that the pointwise metrics have filled. Leads count
from 1: lead 1 is the first predicted frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFINITIONS: Mapping[str, str] = {
    "correlation_time": "Correlation time = the first lead time at which the mean over samples of the Pearson "
    "correlation is below the threshold (frame number after the last known frame times the frame interval, not "
    "interpolated); a sample that has become unstable counts as r = 0; where the mean never drops, the last lead time "
    "compared and the mark 'not reached'.",
    "window_mean": "Window mean a:b = mean over the leads a..b, both included, of a per-frame metric; lead 1 is the "
    "first predicted frame.",
}

WELL_WINDOWS = ((6, 12), (13, 30))
"""The windows 6:12 and 13:30 of the rollout table of The Well (arXiv 2412.00568), read as first and last lead,
inclusive."""


@dataclass(frozen=True)
class CorrelationTime:
    """When a correlation first falls below a threshold.

    Args:
        time: the lead time, in the units of the frame interval.
        reached: false where it never fell; ``time`` is then the last lead time with a correlation, a lower bound (NaN
            where there is none).
    """

    time: NDArray[np.float64]
    reached: NDArray[np.bool_]


def correlation_time(
    correlation: ArrayLike, dt: float, *, threshold: float = 0.8, per_sample: bool = False, interpolate: bool = False
) -> CorrelationTime:
    """The first lead time at which ``mean over samples r(lead) < threshold``.

    Args:
        correlation: ``r``, ``(N, T, ...)``: sample, lead, and for instance field. NaN (no correlation defined, as for a
            constant field) is left out of the mean and is no drop by itself.
        dt: time between two leads.
        threshold: 0.8 is usual for vorticity; Kochkov et al. 2021 (arXiv 2102.01010) use 0.95.
        per_sample: give one time for each sample instead of one for the mean curve.
        interpolate: linearly between the lead before the drop (``r = 1`` at lead 0) and the lead of the drop. Off by
            default, because published numbers are whole frames.

    Returns:
        times and flags ``(...)``, or ``(N, ...)`` with ``per_sample``.
    """
    table = np.asarray(correlation, dtype=np.float64)
    if table.ndim < 2 or table.shape[1] < 1:
        raise ValueError(
            f"correlation: got shape {table.shape}, expected (samples, leads, ...) with at least one lead."
        )
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold: got {threshold}, expected a correlation above -1 and at most 1, such as 0.8.")
    if not dt > 0:
        raise ValueError(f"dt: got {dt}, expected the positive time between two leads.")
    if per_sample:
        curve = np.moveaxis(table, 1, 0)
    else:
        counted = np.isfinite(table)
        total = np.where(counted, table, 0).sum(axis=0)
        number = counted.sum(axis=0)
        curve = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    below = curve < threshold
    reached = below.any(axis=0)
    defined = np.isfinite(curve)
    last = len(curve) - 1 - defined[::-1].argmax(axis=0)
    first = np.where(reached, below.argmax(axis=0), last)
    lead = np.where(defined.any(axis=0), first + 1.0, np.nan)
    if interpolate:
        known = np.concatenate([np.ones_like(curve[:1]), curve])
        after = np.take_along_axis(known, first[None] + 1, axis=0)[0]
        before = np.take_along_axis(known, first[None], axis=0)[0]
        crossed = reached & (before >= threshold)
        part = np.divide(before - threshold, before - after, out=np.ones_like(lead), where=crossed)
        lead = np.where(crossed, first + part, lead)
    return CorrelationTime(time=np.asarray(lead * dt), reached=np.asarray(reached))


def window_means(values: ArrayLike, windows: tuple[tuple[int, int], ...] = WELL_WINDOWS) -> NDArray[np.float64]:
    """Arithmetic means over windows of leads.

    Args:
        values: ``(N, T, ...)``: sample, lead, and for instance field.
        windows: first and last lead of each, counted from 1, both included.

    Returns:
        ``(N, W, ...)``; NaN for a window that reaches past the last lead, which would be a mean of something else.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim < 2:
        raise ValueError(f"values: got shape {table.shape}, expected (samples, leads, ...).")
    result = np.full((table.shape[0], len(windows), *table.shape[2:]), np.nan)
    for index, (first, last) in enumerate(windows):
        if not 1 <= first <= last:
            raise ValueError(
                f"windows: got {first}:{last}, expected 1 <= first <= last; lead 1 is the first predicted frame."
            )
        if last <= table.shape[1]:
            result[:, index] = table[:, first - 1 : last].mean(axis=1)
    return result


def logarithmic_windows(leads: int, count: int = 5) -> tuple[tuple[int, int], ...]:
    """Windows whose bounds grow geometrically, as the trainer of The Well averages: 1:1, 2:3, 4:9, 10:30, 31:97 for T =
    97.

    The bounds are ``0`` and ``floor(exp(linspace(0, ln T, count)))``; the last is T itself (rounding in the original
    drops the last lead for some T), and windows that would be empty are left out.
    """
    if leads < 1 or count < 2:
        raise ValueError(f"leads, count: got {leads} and {count}, expected at least 1 lead and 2 bounds.")
    # The small excess undoes the rounding of exp(ln n), which may fall just below a whole n.
    bounds = np.floor(np.exp(np.linspace(0, np.log(leads), count)) * (1 + 1e-12)).astype(int)
    bounds[-1] = leads
    return tuple((start + 1, stop) for start, stop in pairwise([0, *bounds.tolist()]) if stop > start)
