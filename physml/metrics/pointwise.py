"""Errors of a predicted state, frame by frame.

``x`` is the prediction, ``y`` the truth, both ``(..., *space, C)`` in physical units. ``<.>`` is the mean over the
fluid, weighted with the quadrature weights of the grid (a plain mean on a uniform grid without obstacles):

    <q> = sum_i w_i m_i q_i / sum_i w_i m_i.

The names and formulas follow the benchmark "The Well" (Ohana et al. 2024, arXiv 2412.00568). Three things differ: nRMSE
has no epsilon, the Pearson correlation divides a biased covariance by biased deviations (so that r(y, y) = 1), and a
target that makes a metric undefined is announced with an :class:`UndefinedMetric` warning instead of passing for a
number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from physml.fields import Grid
from physml.physics import balances, derivatives, kinematics

VARIANCE_EPSILON = 1e-7
"""Added to the variance of the truth in VRMSE, in the squared units of the field, as The Well does."""

VARIANCE_FLOOR = 99 * VARIANCE_EPSILON
"""Below this variance of the truth the epsilon is more than a hundredth of VRMSE's denominator."""

_FRAME = "per frame and field; <.> is the quadrature-weighted mean over fluid points; known frames do not count"

DEFINITIONS: Mapping[str, str] = {
    "nrmse": f"nRMSE = sqrt(<(x-y)^2> / <y^2>), no epsilon, {_FRAME}.",
    "vrmse": f"VRMSE = sqrt(<(x-y)^2> / (var(y) + 1e-7)), var(y) = S/(S-1) <(y-<y>)^2> over the S points, {_FRAME}.",
    "rmse": f"RMSE = sqrt(<(x-y)^2>), in the units of the field, {_FRAME}.",
    "mae": f"MAE = <|x-y|>, in the units of the field, {_FRAME}.",
    "linf": "L-infinity = max |x-y| over fluid points, in the units of the field, per frame and field; known frames do "
    "not count.",
    "correlation": "Pearson r = <x'y'> / sqrt(<x'^2> <y'^2>) with x' = x-<x>, y' = y-<y>, no epsilon, "
    f"{_FRAME}; undefined where a field is constant.",
    "relative_l2": "Relative L2 = sqrt(sum (x-y)^2 / sum y^2), sums over the frames 1..h of the horizon, all fluid "
    "points (quadrature-weighted) and all fields in physical units, per sample; no epsilon; known frames do not count.",
    "relative_l1": "Relative L1 = sum |x-y| / sum |y|, sums over the frames 1..h of the horizon, all fluid points "
    "(quadrature-weighted) and all fields in physical units, per sample; no epsilon; known frames do not count.",
    "relative_linf": "Relative L-infinity = max |x-y| / max |y|, maxima over the frames 1..h of the horizon, all fluid "
    "points and all fields in physical units, per sample; no epsilon; known frames do not count.",
    "divergence": "Divergence = sqrt(<(div u)^2> / <|grad u|^2>) per frame, <.> over points whose neighbours are "
    "fluid, no epsilon; zero for an incompressible flow up to the error of the derivatives; known frames do not count.",
}
"""One printable sentence for each metric, to be shown beside its numbers."""


class UndefinedMetric(UserWarning):
    """A target leaves a metric without a meaning: a field of zeros, a constant field, or no fluid at all."""


def average(values: Tensor, grid: Grid) -> Tensor:
    """The mean over the fluid, ``<q> = sum w m q / sum w m``.

    Args:
        values: ``(..., *space, C)``. What stands on solid points is not looked at, not even a NaN.
        grid: quadrature weights and mask.

    Returns:
        ``(..., C)`` in float32 or higher; NaN with a warning where the mask leaves no fluid.
    """
    _expect(values, grid, "values")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if grid.mask is not None and not bool(grid.mask.any()):
        warnings.warn("grid: the mask leaves no fluid point; the mean is NaN.", UndefinedMetric, stacklevel=2)
    return balances.mean(values.movedim(-1, -1 - len(grid.axes)), grid)


def variance(values: Tensor, grid: Grid) -> Tensor:
    """The unbiased variance over space, ``S/(S-1) <(q - <q>)^2>`` for S fluid points.

    Args:
        values: ``q``, ``(..., *space, C)``.
        grid: where they live.

    Returns:
        ``(..., C)`` in float32 or higher; NaN for fewer than two points.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    points = math.prod(grid.shape) if grid.mask is None else int(grid.mask.sum())
    return _moment(values, grid) * (points / (points - 1) if points > 1 else math.nan)


def difference(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``x - y`` with zero on solid points: ``(..., *space, C)`` twice gives the same shape in float32 or higher.

    Raises:
        ValueError: where the two have not the same shape, or it is not that of the grid.
    """
    x, y = _pair(prediction, truth, grid)
    error = x - y
    return error if grid.mask is None else torch.where(grid.mask.to(error.device)[..., None], error, 0)


def nrmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error relative to the size of the truth, ``sqrt(<(x-y)^2> / <y^2>)``; 1 for a prediction of zero.

    Args:
        prediction: ``x``, ``(..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(..., C)``. Inf or NaN, with a warning, where the truth is zero everywhere.
    """
    x, y = _pair(prediction, truth, grid)
    power = average(y.square(), grid)
    _announce("nrmse", power == 0, "the truth is zero everywhere")
    return (average((x - y).square(), grid) / power).sqrt()


def vrmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error relative to the spread of the truth, ``sqrt(<(x-y)^2> / (var(y) + 1e-7))``.

    The variance is unbiased: ``S/(S-1) <(y - <y>)^2>`` for S fluid points, so that predicting the mean of the truth
    gives ``sqrt((S-1)/S)``. The epsilon makes the metric depend on the units once the variance is not far above it; a
    warning says so where the epsilon is more than a hundredth of the denominator.

    Args:
        prediction: ``x``, ``(..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(..., C)``.
    """
    x, y = _pair(prediction, truth, grid)
    spread = variance(y, grid)
    _announce("vrmse", ~(spread >= VARIANCE_FLOOR), "the variance of the truth does not stand clear of 1e-7")
    return (average((x - y).square(), grid) / (spread + VARIANCE_EPSILON)).sqrt()


def rmse(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``sqrt(<(x-y)^2>)`` in the units of the field: ``(..., *space, C)`` twice gives ``(..., C)``."""
    x, y = _pair(prediction, truth, grid)
    return average((x - y).square(), grid).sqrt()


def mae(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``<|x-y|>`` in the units of the field: ``(..., *space, C)`` twice gives ``(..., C)``."""
    x, y = _pair(prediction, truth, grid)
    return average((x - y).abs(), grid)


def linf(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """``max |x-y|`` over the fluid, in the units of the field: ``(..., *space, C)`` twice gives ``(..., C)``."""
    x, y = _pair(prediction, truth, grid)
    error = (x - y).abs()
    if grid.mask is not None:
        mask = grid.mask.to(error.device)[..., None]
        if not bool(mask.any()):
            warnings.warn("grid: the mask leaves no fluid point; the maximum is NaN.", UndefinedMetric, stacklevel=2)
            error = torch.full_like(error, math.nan)
        else:
            error = torch.where(mask, error, 0)
    return error.amax(dim=_space(grid))


def correlation(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Pearson correlation over space, ``<x'y'> / sqrt(<x'^2> <y'^2>)``.

    The covariance and both variances are the same kind of moment, hence ``r(y, y) = 1`` exactly up to rounding (The
    Well mixes a biased covariance with unbiased deviations and gets (S-1)/S).

    Args:
        prediction: ``x``, ``(..., *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(..., C)`` in [-1, 1]. NaN, with a warning, where one of the two is constant up to rounding.
    """
    x, y = _pair(prediction, truth, grid)
    deviation_x, deviation_y = _moment(x, grid).sqrt(), _moment(y, grid).sqrt()
    covariance = average(_fluctuation(x, grid) * _fluctuation(y, grid), grid)
    # A constant field has a deviation of a few units of rounding of its own size, which would give an arbitrary r.
    rounding = 8 * torch.finfo(x.dtype).eps
    constant = (deviation_x <= rounding * average(x.square(), grid).sqrt()) | (
        deviation_y <= rounding * average(y.square(), grid).sqrt()
    )
    _announce("correlation", constant, "the prediction or the truth is constant")
    return torch.where(constant, math.nan, covariance / (deviation_x * deviation_y)).clamp(-1, 1)


def relative_l2(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error of a whole horizon, ``sqrt(sum (x-y)^2 / sum y^2)`` with sums over frames, space and fields.

    The fields enter with their physical units, so the largest dominates; look at :func:`nrmse` for each of them.

    Args:
        prediction: ``x``, ``(..., T, *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(...)``, one number for each sample. Inf or NaN, with a warning, where the truth is zero everywhere.

    Source:
        Li et al. 2020 (arXiv 2010.08895), and Li, Shu & Barati Farimani 2023 (arXiv 2305.17560), whose denominator has
        a floor of 1e-5 that is left out here.
    """
    x, y = _pair(prediction, truth, grid)
    power = average(y.square(), grid).sum(dim=(-2, -1))
    _announce("relative_l2", power == 0, "the truth is zero everywhere")
    return (average((x - y).square(), grid).sum(dim=(-2, -1)) / power).sqrt()


def relative_l1(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error of a whole horizon, ``sum |x-y| / sum |y|`` with sums over frames, space and fields.

    The fields enter with their physical units, as in :func:`relative_l2`; a few large errors weigh less than there.

    Args:
        prediction: ``x``, ``(..., T, *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(...)``, one number for each sample. Inf or NaN, with a warning, where the truth is zero everywhere.

    Source:
        Herde et al. 2024, Poseidon (arXiv 2405.19101), who take one frame and the fields of one kind (the components of
        a velocity), 1e-10 in place of a truth of zero, then the median over samples in per cent and a mean over kinds.
    """
    x, y = _pair(prediction, truth, grid)
    size = average(y.abs(), grid).sum(dim=(-2, -1))
    _announce("relative_l1", size == 0, "the truth is zero everywhere")
    return average((x - y).abs(), grid).sum(dim=(-2, -1)) / size


def relative_linf(prediction: Tensor, truth: Tensor, grid: Grid) -> Tensor:
    """Error of a whole horizon, ``max |x-y| / max |y|`` with maxima over frames, fluid points and fields.

    Args:
        prediction: ``x``, ``(..., T, *space, C)``; low precision is raised to float32.
        truth: ``y``, the same shape.
        grid: where they live.

    Returns:
        ``(...)``, one number for each sample. Inf or NaN, with a warning, where the truth is zero everywhere.
    """
    size = linf(torch.zeros_like(truth), truth, grid).amax(dim=(-2, -1))
    _announce("relative_linf", size == 0, "the truth is zero everywhere")
    return linf(prediction, truth, grid).amax(dim=(-2, -1)) / size


def divergence(values: Tensor, names: Sequence[str], grid: Grid) -> Tensor:
    """How far a velocity is from divergence-free, ``sqrt(<(div u)^2> / <|grad u|^2>)``: between 0 and ``sqrt(D)``.

    The mean is over the points where the derivative rests on fluid only, away from walls (see
    :func:`physml.physics.derivatives.interior`). Random, unrelated components give 1.

    Args:
        values: ``(..., *space, C)``, a state with all components of a velocity.
        names: one for each channel.
        grid: where the values live.

    Returns:
        ``(...)``, dimensionless. NaN, with a warning, where the velocity is the same everywhere.

    Raises:
        ValueError: where the fields hold no velocity. The velocity that a vorticity implies is divergence-free by
            construction, and its divergence says nothing about a prediction.
    """
    if not kinematics.holds_velocity(names, grid):
        raise ValueError(
            f"names: got {list(names)}, expected all of {list(kinematics.velocity_names(grid))}; a divergence needs a "
            "velocity."
        )
    velocity = kinematics.velocity(values, names, grid)
    slopes = torch.stack([derivatives.gradient(component, grid) for component in velocity.unbind(-1)], dim=-2)
    compression = slopes.diagonal(dim1=-2, dim2=-1).sum(dim=-1).square()
    inside = Grid(grid.axes, derivatives.interior(grid))
    squares = torch.stack([compression, slopes.square().sum(dim=(-2, -1)), velocity.square().sum(dim=-1)], dim=-1)
    compressed, sheared, speed = average(squares, inside).sqrt().unbind(-1)
    # Below the rounding of a difference of two neighbours the quotient would be one of noise by noise.
    spacing = min(float(axis.points.diff().min()) for axis in grid.axes if len(axis.points) > 1)
    uniform = sheared <= 8 * torch.finfo(sheared.dtype).eps * speed / spacing
    _announce("divergence", uniform, "the velocity is the same everywhere")
    return torch.where(uniform, math.nan, compressed / sheared)


def _expect(values: Tensor, grid: Grid, argument: str) -> None:
    axes = len(grid.axes)
    if values.ndim < axes + 1 or tuple(values.shape[-1 - axes : -1]) != grid.shape:
        raise ValueError(
            f"{argument}: got shape {tuple(values.shape)}, expected (..., {', '.join(map(str, grid.shape))}, C) "
            f"on the axes {', '.join(grid.names)}; channels come last."
        )


def _pair(prediction: Tensor, truth: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    _expect(truth, grid, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction: got shape {tuple(prediction.shape)}, the truth has {tuple(truth.shape)}; give the same "
            "frames and fields to both."
        )
    kind = torch.promote_types(torch.promote_types(prediction.dtype, truth.dtype), torch.float32)
    return prediction.to(kind), truth.to(kind)


def _space(grid: Grid) -> tuple[int, ...]:
    return tuple(range(-1 - len(grid.axes), -1))


def _fluctuation(values: Tensor, grid: Grid) -> Tensor:
    mean = average(values, grid)
    return values - mean.reshape(*mean.shape[:-1], *(1 for _ in grid.axes), mean.shape[-1])


def _moment(values: Tensor, grid: Grid) -> Tensor:
    return average(_fluctuation(values, grid).square(), grid)


def _announce(metric: str, undefined: Tensor, reason: str) -> None:
    count = int(undefined.sum())
    if count:
        warnings.warn(
            f"{metric}: {count} of {undefined.numel()} values say nothing, because {reason}.",
            UndefinedMetric,
            stacklevel=3,
        )
