"""Errors of one state: exact values, invariances, weights, masks, and targets that leave nothing to say."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from well_metrics import compare

from physml.fields import Axis, Boundary, Grid
from physml.metrics import pointwise
from physml.metrics.pointwise import (
    UndefinedMetric,
    average,
    correlation,
    difference,
    divergence,
    linf,
    mae,
    nrmse,
    relative_l1,
    relative_l2,
    relative_linf,
    rmse,
    variance,
    vrmse,
)

PER_FRAME = (nrmse, vrmse, rmse, mae, linf, correlation)
HORIZON = (relative_l1, relative_l2, relative_linf)
EPS = torch.finfo(torch.float64).eps
WELL = json.loads((Path(__file__).parent / "golden_the_well.json").read_text("utf-8"))
"""Numbers of the package the-well, written by ``tests/verify/make_golden_the_well.py``."""


def grid_of(*shape: int) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name, n in zip("xyz", shape, strict=False)))


def stretched(n: int) -> Axis:
    """Points crowded towards 0 on [0, 1], with the trapezoidal weights of their cells."""
    points = torch.linspace(0, 1, n, dtype=torch.float64) ** 2
    weights = torch.zeros(n, dtype=torch.float64)
    weights[:-1] += 0.5 * points.diff()
    weights[1:] += 0.5 * points.diff()
    return Axis("y", points, Boundary.WALL, 1.0, weights=weights)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("space", [(24,), (6, 8), (4, 5, 6)])
def test_exact_values_in_one_two_and_three_dimensions(space: tuple[int, ...]) -> None:
    grid, y = grid_of(*space), noise(2, 3, *space, 2)
    points = math.prod(space)
    mean = y.mean(dim=tuple(range(2, 2 + len(space))), keepdim=True).expand_as(y)
    # Sums of a few dozen numbers of order one: a hundred units of rounding is ample.
    exact = {"rtol": 100 * EPS, "atol": 100 * EPS}
    one = torch.ones(2, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(nrmse(torch.zeros_like(y), y, grid), one, **exact)
    # The epsilon of 1e-7 beside a variance of about one changes VRMSE by 5e-8 of its value.
    torch.testing.assert_close(vrmse(mean, y, grid), one * math.sqrt((points - 1) / points), rtol=2e-7, atol=0)
    torch.testing.assert_close(correlation(y, y, grid), one, **exact)
    torch.testing.assert_close(correlation(-y, y, grid), -one, **exact)
    torch.testing.assert_close(rmse(y + 3, y, grid), 3 * one, **exact)
    torch.testing.assert_close(mae(y - 3, y, grid), 3 * one, **exact)
    torch.testing.assert_close(relative_l2(1.25 * y, y, grid), 0.25 * one[:, 0, 0], **exact)
    spiked = y.clone()
    spiked[(..., *(1 for _ in space), 0)] += 7
    torch.testing.assert_close(linf(spiked, y, grid)[..., 0], 7 * one[..., 0], **exact)
    assert (linf(spiked, y, grid)[..., 1] == 0).all()


def test_relative_errors_of_a_horizon_by_hand() -> None:
    """Two frames of two points with one field, y = (1, -2), (3, -4) and x - y = (1, 0), (-2, 1).

    sum |x-y| = 4 of sum |y| = 10; sum of squares 6 of 30; the largest 2 of 4.
    """
    grid, y = grid_of(2), torch.tensor([[1.0, -2.0], [3.0, -4.0]], dtype=torch.float64)[..., None]
    x = y + torch.tensor([[1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)[..., None]
    exact = {"rtol": 10 * EPS, "atol": 0.0}
    for metric, number in ((relative_l1, 0.4), (relative_l2, math.sqrt(0.2)), (relative_linf, 0.5)):
        torch.testing.assert_close(metric(x, y, grid).item(), number, **exact)
    # As two fields of one frame the numbers are the same: both are summed over.
    for metric in HORIZON:
        assert metric(x.permute(2, 1, 0), y.permute(2, 1, 0), grid).item() == pytest.approx(
            metric(x, y, grid).item(), rel=10 * EPS
        )


@pytest.mark.parametrize("metric", HORIZON, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("space", [(24,), (6, 8), (4, 5, 6)])
def test_relative_errors_scale_with_the_error_and_not_with_the_units(metric: Any, space: tuple[int, ...]) -> None:
    grid, y, e = grid_of(*space), noise(2, 3, *space, 2), noise(2, 3, *space, 2, seed=1)
    # A norm is homogeneous; a thousand units of rounding cover the sums.
    exact = {"rtol": 1000 * EPS, "atol": 0.0}
    one = metric(y + e, y, grid)
    assert one.shape == (2,)
    torch.testing.assert_close(metric(y - 0.25 * e, y, grid), 0.25 * one, **exact)
    torch.testing.assert_close(metric(-60 * (y + e), -60 * y, grid), one, **exact)
    torch.testing.assert_close(metric(0 * y, y, grid), torch.ones(2, dtype=torch.float64), **exact)


def test_difference_is_checked_and_empty_in_the_solid() -> None:
    mask = torch.tensor([True, True, False, True])
    x, y = noise(2, 4, 3), noise(2, 4, 3, seed=1)
    y[:, 2] = math.nan
    error = difference(x, y, Grid(grid_of(4).axes, mask))
    assert (error[:, 2] == 0).all()
    assert torch.equal(error[:, mask], (x - y)[:, mask])
    assert difference(x.bfloat16(), x.bfloat16(), grid_of(4)).dtype is torch.float32
    with pytest.raises(ValueError, match="prediction: got shape"):
        difference(x[:1], y, grid_of(4))


@pytest.mark.parametrize("case", WELL["cases"], ids=lambda case: f"{len(case['space'])}d")
def test_the_numbers_of_the_well(case: dict[str, Any]) -> None:
    compare(case)


def test_shifted_sine() -> None:
    """``|sin(x + a) - sin(x)|^2`` averages to ``2 (1 - cos a) / 2``, and the correlation is ``cos a``."""
    grid, shift = grid_of(64), 0.3
    x = grid.axes[0].points[:, None]
    exact = {"rtol": 100 * EPS, "atol": 0}
    torch.testing.assert_close(
        nrmse(torch.sin(x + shift), torch.sin(x), grid).item(), math.sqrt(2 * (1 - math.cos(shift))), **exact
    )
    torch.testing.assert_close(correlation(torch.sin(x + shift), torch.sin(x), grid).item(), math.cos(shift), **exact)


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(0.1, 100), sign=st.sampled_from([-1, 1]), shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_invariance_under_a_change_of_units(scale: float, sign: int, shift: float, seed: int) -> None:
    grid, a = grid_of(7, 5), sign * scale
    x, y = noise(7, 5, 2, seed=seed), noise(7, 5, 2, seed=seed + 1000)
    # The variance is above 0.1^2 * 0.1 = 1e-3, so that the epsilon of 1e-7 may change VRMSE by 1e-4 of its value at
    # most; for the other two, the shift costs (50/0.1)^2 units of rounding.
    torch.testing.assert_close(vrmse(a * x + shift, a * y + shift, grid), vrmse(x, y, grid), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        correlation(a * x + shift, a * y + shift, grid), correlation(x, y, grid), rtol=0, atol=1e-9
    )
    torch.testing.assert_close(nrmse(a * x, a * y, grid), nrmse(x, y, grid), rtol=1e-12, atol=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999))
def test_inequalities(seed: int) -> None:
    """Mean below root mean square below maximum; a norm obeys the triangle inequality; |r| <= 1."""
    grid = grid_of(5, 4)
    x, y, z = (noise(5, 4, 3, seed=3 * seed + k) for k in range(3))
    slack = 1 + 1e-12  # rounding
    assert (mae(x, y, grid) <= rmse(x, y, grid) * slack).all()
    assert (rmse(x, y, grid) <= linf(x, y, grid) * slack).all()
    assert (rmse(x, z, grid) <= (rmse(x, y, grid) + rmse(y, z, grid)) * slack).all()
    assert (correlation(x, y, grid).abs() <= 1).all()


def test_mask_equals_the_grid_without_the_solid_part() -> None:
    """A solid slab at the high end of x leaves the grid that ends before it."""
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[5:] = False
    whole, part = Grid(grid_of(8, 6).axes, mask), grid_of(5, 6)
    x, y = noise(2, 8, 6, 3), noise(2, 8, 6, 3, seed=1)
    x[:, 5:], y[:, 5:, :3] = math.nan, math.inf  # what stands in the solid must not matter
    for metric in PER_FRAME:
        torch.testing.assert_close(
            metric(x, y, whole), metric(x[:, :5], y[:, :5], part), rtol=100 * EPS, atol=100 * EPS
        )
    for metric in HORIZON:
        torch.testing.assert_close(metric(x, y, whole), metric(x[:, :5], y[:, :5], part), rtol=100 * EPS, atol=0)


def test_no_fluid_gives_nan_and_a_warning() -> None:
    grid = Grid(grid_of(4, 3).axes, torch.zeros(4, 3, dtype=torch.bool))
    x, y = noise(4, 3, 2), noise(4, 3, 2, seed=1)
    for metric in PER_FRAME:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert metric(x, y, grid).isnan().all(), metric.__name__
        assert any("no fluid" in str(one.message) for one in said), metric.__name__


def test_weights_of_a_stretched_axis() -> None:
    """The trapezoidal rule is exact for a linear function: the mean of y on [0, 1] is 1/2 and of |y - y/2| is 1/4,
    however the points crowd; the plain mean of the points is 0.32."""
    axis = stretched(41)
    grid = Grid((Axis.periodic_uniform("x", 3, 1.0), axis))
    y = axis.points[None, :, None].expand(3, -1, 1)
    torch.testing.assert_close(average(y, grid).item(), 0.5, rtol=100 * EPS, atol=0)
    torch.testing.assert_close(mae(0.5 * y, y, grid).item(), 0.25, rtol=100 * EPS, atol=0)
    # <y^2> = 1/3 up to the trapezoidal error h^2/6 with h < 0.05.
    assert rmse(0 * y, y, grid).item() == pytest.approx(math.sqrt(1 / 3), abs=0.05**2 / 6)
    assert abs(y.mean() - 0.5) > 0.1


def test_a_point_split_in_two_halves_changes_nothing_but_the_number_of_points() -> None:
    points = torch.arange(6, dtype=torch.float64)
    one = Grid((Axis("x", points, Boundary.WALL, 6.0, weights=torch.ones(6, dtype=torch.float64)),))
    twice = Grid(
        (
            Axis(
                "x",
                points.repeat_interleave(2),
                Boundary.WALL,
                6.0,
                weights=torch.full((12,), 0.5, dtype=torch.float64),
            ),
        )
    )
    x, y = noise(6, 2), noise(6, 2, seed=1)
    for metric in (nrmse, rmse, mae, linf, correlation):
        doubled = metric(x.repeat_interleave(2, 0), y.repeat_interleave(2, 0), twice)
        torch.testing.assert_close(doubled, metric(x, y, one), rtol=100 * EPS, atol=100 * EPS)


def test_a_target_that_says_nothing_is_announced() -> None:
    grid, x = grid_of(5, 4), noise(2, 5, 4, 1)
    zero, constant = torch.zeros_like(x), torch.full_like(x, 0.1)
    with pytest.warns(UndefinedMetric, match="nrmse: 2 of 2 values .* zero"):
        assert nrmse(x, zero, grid).isinf().all()
    with pytest.warns(UndefinedMetric, match="nrmse"):
        assert nrmse(zero, zero, grid).isnan().all()
    for metric in HORIZON:
        with pytest.warns(UndefinedMetric, match=f"{metric.__name__}: 1 of 1 values .* zero"):
            assert metric(x, zero, grid).isinf()
    with pytest.warns(UndefinedMetric, match="vrmse"):
        error = vrmse(x, constant, grid)
    # The variance is 0 up to rounding, which leaves the epsilon: a finite number, but not a relative error.
    torch.testing.assert_close(error, rmse(x, constant, grid) / math.sqrt(1e-7), rtol=1e-6, atol=0)
    for pair in ((x, constant), (constant, x)):
        with pytest.warns(UndefinedMetric, match="correlation: 2 of 2 .* constant"):
            assert correlation(*pair, grid).isnan().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in PER_FRAME:
            assert metric(x, x + 1, grid).isfinite().all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_raised_before_anything_is_computed(kind: torch.dtype) -> None:
    grid, x, y = grid_of(16, 16), noise(16, 16, 1).to(kind), noise(16, 16, 1, seed=1).to(kind)
    for metric in PER_FRAME:
        got = metric(x, y, grid)
        assert got.dtype is torch.float32
        torch.testing.assert_close(got, metric(x.float(), y.float(), grid), rtol=0, atol=0)


def test_single_precision_holds_on_a_large_mean() -> None:
    """The correlation of fluctuations of size 1 on a mean of 1e3 needs centred moments: with ``<xy> - <x><y>`` the
    rounding of <xy> would be 1e6 * 6e-8 = 0.06. Centred, only the input's own rounding of 1e3 * 6e-8 remains."""
    grid, x, y = grid_of(64, 64), noise(64, 64, 1), noise(64, 64, 1, seed=1)
    single = correlation((1e3 + x).float(), (1e3 + y).float(), grid).double()
    torch.testing.assert_close(single, correlation(x, y, grid), rtol=0, atol=1e-4)


def test_agreement_with_numpy() -> None:
    grid, x, y = grid_of(9, 7), noise(9, 7, 1), noise(9, 7, 1, seed=1)
    a, b = x.numpy().ravel(), y.numpy().ravel()
    assert correlation(x, y, grid).item() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-13)
    well = math.sqrt(((a - b) ** 2).mean() / (b.var(ddof=1) + 1e-7))  # the formula of The Well
    assert vrmse(x, y, grid).item() == pytest.approx(well, rel=1e-13)


def test_divergence_of_a_curl_a_source_and_noise() -> None:
    """``(-y, x)`` of waves has none; a gradient of ``sin x + sin y`` has ``div^2 = (sx + sy)^2`` beside ``sx^2 +
    sy^2``, which average to the same; in one dimension they are equal; the same velocity everywhere has neither."""
    names = ("velocity_x", "velocity_y")
    for axes in (grid_of(12, 10), Grid(grid_of(12, 10).axes, torch.ones(12, 10, dtype=torch.bool))):
        x, y = axes.axes[0].points[:, None], axes.axes[1].points[None, :]
        curl = torch.stack([torch.cos(x) * torch.sin(2 * y), -torch.sin(x) * torch.cos(2 * y) / 2], dim=-1)
        assert divergence(curl, names, axes).item() < 1e-14
        source = torch.stack([torch.cos(x).expand(12, 10), torch.cos(y).expand(12, 10)], dim=-1)
        assert divergence(source, names, axes).item() == pytest.approx(1, rel=1e-13)
    line = grid_of(16)
    assert divergence(torch.sin(line.axes[0].points)[:, None], names[:1], line).item() == pytest.approx(1, rel=1e-13)
    with pytest.warns(UndefinedMetric, match="divergence: 1 of 1"):
        assert divergence(torch.ones(12, 10, 2, dtype=torch.float64), names, grid_of(12, 10)).isnan()
    with pytest.raises(ValueError, match="a divergence needs a velocity"):
        divergence(noise(12, 10, 1), ("vorticity",), grid_of(12, 10))


def test_variance_is_unbiased() -> None:
    y = noise(2, 6, 5, 3)
    torch.testing.assert_close(variance(y, grid_of(6, 5)), y.flatten(1, 2).var(dim=1), rtol=100 * EPS, atol=0)
    assert variance(noise(1, 2), grid_of(1)).isnan().all()


def test_clear_refusals() -> None:
    grid, y = grid_of(5, 4), noise(2, 5, 4, 1)
    with pytest.raises(ValueError, match=r"prediction: got shape \(1, 5, 4, 1\)"):
        nrmse(y[:1], y, grid)
    with pytest.raises(ValueError, match=r"truth: got shape .* expected \(\.\.\., 5, 4, C\) on the axes x, y"):
        nrmse(y.movedim(-1, 1), y.movedim(-1, 1), grid)


def test_every_metric_has_a_definition() -> None:
    metrics = (*PER_FRAME, *HORIZON, divergence)
    for metric in metrics:
        assert "known frames do not count" in pointwise.DEFINITIONS[metric.__name__]
    assert set(pointwise.DEFINITIONS) == {metric.__name__ for metric in metrics}
