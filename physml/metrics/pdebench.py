r"""The errors of the benchmark PDEBench: boundaries, conserved quantities, bands of wavenumbers, the worst point.

Takamoto et al. 2022, "PDEBench: An extensive benchmark for scientific machine learning" (arXiv 2210.07182). The
formulas are those of the program published with the paper. ``x`` is the prediction, ``y`` the truth, both
``(B, ..., *space, C)`` in physical units. Every function reduces over the samples ``B`` itself, because a mean and a
root cannot be exchanged; its result is ``(..., C)``, one number for each frame and field. PDEBench then takes the plain
mean over frames and fields. A single sample, ``x[:1]``, gives the error of that sample.

The two others of the benchmark are ``rmse(x, y, grid).mean(0)`` and ``nrmse(x, y, grid).mean(0)`` of
:mod:`physml.metrics.pointwise`.

What differs from the program: samples are averaged at once and not over batches, whose sums it divides by the index of
the last batch; the boundary error in three dimensions is taken for each field, with the mean over samples outside the
root as in one and two dimensions; means over space know quadrature weights and solid points. Known frames are not part
of the arguments.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from physml.fields import Grid
from physml.metrics.pointwise import UndefinedMetric, average, difference, linf

MID = 4
"""The first wavenumber, in waves for each length of an axis, of the middle band."""

HIGH = 12
"""The first wavenumber of the high band."""

_SAMPLES = "per frame and field, reduced over samples within; known frames do not count"

DEFINITIONS: Mapping[str, str] = {
    "maximum_error": f"Maximum error = max |x-y| over samples and fluid points, in the units of the field, {_SAMPLES}.",
    "conserved_rmse": "Conserved-quantity RMSE = sqrt(mean over samples of (<x>-<y>)^2), <.> the quadrature-weighted "
    f"mean over fluid points, in the units of the field, {_SAMPLES}.",
    "boundary_rmse": "Boundary RMSE = mean over samples of sqrt(mean of (x-y)^2 over the points of the first and last "
    "slice of every axis), unweighted, solid points left out, a point counted once for each slice it is in, in the "
    f"units of the field, {_SAMPLES}.",
    "fourier_rmse": "Fourier RMSE = mean over the shells floor(|n|) of a band of sqrt(mean over samples of sum "
    "|F(x-y)|^2) / S, bands low 0..3, mid 4..11, high 12.. waves for each axis length; in 1-D all waves 0..N/2, "
    "otherwise the waves 0 <= n_i < floor(N_i/2) in the shells below min floor(N_i/2); no window, in the units of the "
    f"field, {_SAMPLES}.",
    "band_rmse": "Band RMSE = sqrt(mean over samples of sum |F(x-y)|^2) / S over all waves of a band, bands low "
    "|n| < 4, mid 4 <= |n| < 12, high |n| >= 12 waves for each axis length; squares add up to the mean square error; "
    f"no window, in the units of the field, {_SAMPLES}.",
}
"""One printable sentence for each metric, to be shown beside its numbers."""


class Bands(NamedTuple):
    """An error for each band of wavenumbers, ``(..., C)`` each, in the units of the field."""

    low: Tensor
    mid: Tensor
    high: Tensor


def maximum_error(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``max |x-y|`` over samples and fluid points, ``(B, ..., *space, C)`` twice to ``(..., C)``.

    It can only grow with the number of samples: compare it over the same ones.
    """
    _expect_samples(prediction, grid)
    return linf(prediction, truth, grid).amax(dim=0)


def conserved_rmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """How far the means over space are apart, ``sqrt(mean_b (<x> - <y>)^2)``.

    ``<q>`` times the volume is the conserved quantity of a field ``q``: mass for a density, momentum for its flux. The
    truth need not conserve it (open boundaries, sources); compared is the prediction with the truth of the same frame.

    Args:
        prediction: ``x``, ``(B, ..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(..., C)`` in the units of the field.
    """
    _expect_samples(prediction, grid)
    return average(difference(prediction, truth, grid), grid).square().mean(dim=0).sqrt()


def boundary_rmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error on the first and last slice of every axis, ``mean_b sqrt(sum_faces (x-y)^2 / points of the faces)``.

    In two dimensions the number of points is ``2 nx + 2 ny``: a corner lies on two faces and counts twice, as in
    PDEBench. The mean is over points, not weighted with areas. The slices of a periodic axis count like any others.

    Args:
        prediction: ``x``, ``(B, ..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live. Solid points on a face are left out.

    Returns:
        ``(..., C)`` in the units of the field; NaN, with a warning, where all points of the faces are solid.
    """
    _expect_samples(prediction, grid)
    squared = difference(prediction, truth, grid).square()
    axes = len(grid.axes)
    fluid = torch.ones(grid.shape, dtype=torch.bool) if grid.mask is None else grid.mask
    total, points = squared.new_zeros(()), 0
    for axis in range(axes):
        slices = squared.movedim(axis - axes - 1, 0)
        faces = slices[0] + slices[-1]  # of an axis with one point, that point twice
        total = total + (faces.sum(dim=tuple(range(-axes, -1))) if axes > 1 else faces)
        ends = fluid.movedim(axis, 0)
        points += int(ends[0].sum()) + int(ends[-1].sum())
    if not points:
        warnings.warn("grid: the boundary has no fluid point; its error is NaN.", UndefinedMetric, stacklevel=2)
        return torch.full_like(total.mean(dim=0), math.nan)
    return (total / points).sqrt().mean(dim=0)


def fourier_rmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Bands:
    r"""PDEBench's error in three bands of wavenumbers: the mean over the shells of a band of

    .. math:: \frac1S \Big[\frac1B \sum_b \sum_{\mathbf n:\ \lfloor|\mathbf n|\rfloor = k}
        |\hat e_b(\mathbf n)|^2\Big]^{1/2}, \qquad e = x - y,

    with the unnormalised transform and :math:`n_i` in waves for each length of an axis. In one dimension all
    :math:`0 \le n \le N/2` count, each once; in more, only :math:`0 \le n_i < \lfloor N_i/2\rfloor` and shells below
    :math:`\min_i \lfloor N_i/2\rfloor`. Half of the independent waves in two dimensions, and three quarters of them in
    three, do not count at all, and a mean of roots has no Parseval identity: to see where the error is, take
    :func:`band_rmse`.

    Axes that are not periodic are transformed like periodic ones, without a window, so that a jump between their ends
    appears in all bands. PDEBench multiplies by the lengths of the domain, whose default there is 1; this does not.

    Args:
        prediction: ``x``, ``(B, ..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live, on equally spaced points. The error in solid points is zero.

    Returns:
        ``low`` (k < 4), ``mid`` (4 <= k < 12) and ``high`` (k >= 12), ``(..., C)`` each in the units of the field. NaN,
        with a warning, for a band that the grid does not resolve: ``high`` below 24 points in one dimension, 26 on the
        shortest axis in more.
    """
    _expect_samples(prediction, grid)
    power = _power(prediction, truth, grid)
    one = len(grid.axes) == 1
    power = power[tuple(slice(0, n // 2 + one) for n in grid.shape)]
    shells = _norm(tuple(torch.arange(n) for n in power.shape[: len(grid.axes)])).floor().long()
    count = power.shape[0] if one else min(grid.shape) // 2
    summed = power.new_zeros(max(count, int(shells.max()) + 1), *power.shape[len(grid.axes) :])
    summed.index_add_(0, shells.flatten().to(power.device), power.flatten(0, len(grid.axes) - 1))
    roots = summed[:count].sqrt()
    low, mid, high = roots[:MID], roots[MID:HIGH], roots[HIGH:]
    _announce("fourier_rmse", grid, [len(band) for band in (low, mid, high)])
    return Bands(low.mean(dim=0), mid.mean(dim=0), high.mean(dim=0))  # the mean of nothing is NaN


def band_rmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Bands:
    r"""The part of the error in each of three bands of wavenumbers, all waves of the grid taken,

    .. math:: \frac1S \Big[\frac1B \sum_b \sum_{\mathbf n \in \text{band}} |\hat e_b(\mathbf n)|^2\Big]^{1/2},
        \qquad e = x - y.

    The squares of the bands add up to the mean square error over samples and space (Parseval), for odd sizes and
    rectangular grids too. The bands are those of :func:`fourier_rmse`, and so are its words on axes that are not
    periodic. Where there are solid points, their error is zero and S^2 is replaced by S times the number of fluid
    points, which keeps the identity with the mean over the fluid.

    Args:
        prediction: ``x``, ``(B, ..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live, on equally spaced points.

    Returns:
        ``low`` (|n| < 4), ``mid`` (4 <= |n| < 12) and ``high`` (|n| >= 12), ``(..., C)`` each in the units of the
        field. NaN, with a warning, for a band that the grid does not resolve.
    """
    _expect_samples(prediction, grid)
    power = _power(prediction, truth, grid)
    if grid.mask is not None:
        fluid = int(grid.mask.sum())
        power = power * (math.prod(grid.shape) / fluid if fluid else math.nan)
        if not fluid:
            warnings.warn("grid: the mask leaves no fluid point; the error is NaN.", UndefinedMetric, stacklevel=2)
    waves = _norm(tuple(torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in grid.shape))
    waves = waves.flatten().to(power.device)
    flat = power.flatten(0, len(grid.axes) - 1)
    bands = (waves < MID, (waves >= MID) & (waves < HIGH), waves >= HIGH)
    _announce("band_rmse", grid, [int(band.sum()) for band in bands])
    low, mid, high = (flat[band].sum(dim=0).sqrt() if bool(band.any()) else flat[0] * math.nan for band in bands)
    return Bands(low, mid, high)


def _power(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``mean_b |F(x-y)|^2 / S^2``, ``(*space, ..., C)`` over all waves."""
    stretched = [axis.name for axis in grid.axes if not axis.uniform]
    if stretched:
        raise ValueError(
            f"grid: got axes {', '.join(stretched)} with points that are not equally spaced, expected equal spacing on "
            "all of them; interpolate to a uniform grid, or leave this metric out."
        )
    axes = len(grid.axes)
    space = tuple(range(-1 - axes, -1))
    waves = torch.fft.fftn(difference(prediction, truth, grid), dim=space, norm="forward")
    return (waves.real.square() + waves.imag.square()).mean(dim=0).movedim(space, tuple(range(axes)))


def _norm(numbers: tuple[Tensor, ...]) -> Tensor:
    """``|n|``, ``(*space)``; the squares are whole, so that the root of a whole square is exact."""
    squared = [number.double().square() for number in torch.meshgrid(*numbers, indexing="ij")]
    return torch.stack(squared).sum(dim=0).sqrt()


def _announce(metric: str, grid: Grid, waves: list[int]) -> None:
    empty = [band for band, count in zip(Bands._fields, waves, strict=True) if not count]
    if empty:
        warnings.warn(
            f"{metric}: no wave of a grid of {' x '.join(map(str, grid.shape))} points is in the band "
            f"{' and '.join(empty)}; its error is NaN.",
            UndefinedMetric,
            stacklevel=3,
        )


def _expect_samples(prediction: Tensor, grid: Grid) -> None:
    axes = len(grid.axes)
    if prediction.ndim < axes + 2 or not len(prediction):
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, expected (B, ..., {', '.join(map(str, grid.shape))}, C) "
            "with at least one sample; add an axis of length one for a single state."
        )
