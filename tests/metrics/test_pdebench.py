"""The errors of PDEBench: values worked out by hand, single waves, loops over all waves, and identities."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from physml.fields import Axis, Boundary, Grid
from physml.metrics import pdebench
from physml.metrics.pdebench import (
    Bands,
    band_rmse,
    boundary_rmse,
    conserved_rmse,
    fourier_rmse,
    maximum_error,
)
from physml.metrics.pointwise import UndefinedMetric, rmse

METRICS = (maximum_error, conserved_rmse, boundary_rmse, fourier_rmse, band_rmse)
SPACES = ((31,), (26, 29), (18, 17, 18))
"""At least one wave in the high band of :func:`band_rmse`; sizes odd and even."""

ROUNDING = 1e-12
"""Relative, for sums of up to a few thousand numbers of order one in double precision."""


def grid_of(*shape: int) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(name, n, n / 8) for name, n in zip("xyz", shape, strict=False)))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def errors(*rows: object) -> Tensor:
    """An error ``(B, *space)`` written out, as a prediction beside a truth of zero, with one field."""
    return torch.tensor(rows, dtype=torch.float64)[..., None]


def number(metric: Callable[[Tensor, Tensor, Grid], Tensor], error: Tensor, grid: Grid | None = None) -> float:
    grid = grid_of(*error.shape[1:-1]) if grid is None else grid
    return metric(error, torch.zeros_like(error), grid).item()


def wave(numbers: tuple[int, ...], shape: tuple[int, ...], size: float = 1.0) -> Tensor:
    """``a cos(2 pi n.j/N)``, ``(1, *space, 1)``."""
    phase = torch.zeros(shape, dtype=torch.float64)
    for axis, (n, points) in enumerate(zip(numbers, shape, strict=True)):
        form = [1] * len(shape)
        form[axis] = points
        phase = phase + (2 * math.pi * n / points) * torch.arange(points, dtype=torch.float64).reshape(form)
    return size * phase.cos()[None, ..., None]


def bands(metric: Callable[[Tensor, Tensor, Grid], Bands], error: Tensor) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetric)  # bands that a small grid does not resolve
        found = metric(error, torch.zeros_like(error), grid_of(*error.shape[1:-1]))
    return [found.low.item(), found.mid.item(), found.high.item()]


def close(*expected: float) -> object:
    # Transforms leave a few units of rounding in the bands that are empty.
    return pytest.approx(list(expected), rel=ROUNDING, abs=1e-14, nan_ok=True)


def everything(metric: Callable[..., Tensor | Bands], x: Tensor, y: Tensor, grid: Grid) -> Tensor:
    found = metric(x, y, grid)
    return torch.stack(found) if isinstance(found, Bands) else found


def test_maximum_by_hand() -> None:
    assert number(maximum_error, errors([1, -5, 2], [4, 0, 0])) == 5


def test_conserved_quantity_by_hand() -> None:
    """Means 2 and -1, hence sqrt((4 + 1)/2); as PDEBench writes it, sqrt((6^2 + 3^2)/2)/3."""
    assert number(conserved_rmse, errors([1, 2, 3], [0, 0, -3])) == pytest.approx(math.sqrt(2.5), rel=ROUNDING)
    assert number(conserved_rmse, errors([7, -7, 0])) == 0  # moved from one place to another


def test_conserved_quantity_on_a_stretched_axis() -> None:
    """The trapezoidal rule is exact for ``e = y``: its integral over [0, 1] is 1/2, the mean of the points 0.32."""
    points = torch.linspace(0, 1, 41, dtype=torch.float64) ** 2
    weights = torch.zeros_like(points)
    weights[:-1] += 0.5 * points.diff()
    weights[1:] += 0.5 * points.diff()
    grid = Grid((Axis("y", points, Boundary.WALL, 1.0, weights=weights),))
    assert number(conserved_rmse, points[None, :, None], grid) == pytest.approx(0.5, rel=ROUNDING)


def test_boundary_by_hand() -> None:
    # One dimension: sqrt((9 + 16)/2) and sqrt((1 + 1)/2) = 1, averaged.
    assert number(boundary_rmse, errors([3, 9, 4], [1, 7, -1])) == pytest.approx(
        (math.sqrt(12.5) + 1) / 2, rel=ROUNDING
    )
    # Two: rows 1 + 4 + 9 + 16 = 30 and 81 + 100 + 121 + 144 = 446, columns 1 + 25 + 81 = 107 and 16 + 64 + 144 = 224,
    # together 807, over 2 * 3 + 2 * 4 = 14 points.
    box = errors([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    assert number(boundary_rmse, box) == pytest.approx(math.sqrt(807 / 14), rel=ROUNDING)


@pytest.mark.parametrize(("place", "faces"), [((1, 2, 3), 0), ((0, 2, 3), 1), ((3, 0, 2), 2), ((3, 4, 5), 3)])
def test_a_single_error_counts_once_for_each_face_it_is_on(place: tuple[int, ...], faces: int) -> None:
    """A box of 4 x 5 x 6 has 2 (20 + 24 + 30) = 148 points on its faces."""
    error = torch.zeros(1, 4, 5, 6, 1, dtype=torch.float64)
    error[(0, *place)] = 3
    assert number(boundary_rmse, error) == pytest.approx(3 * math.sqrt(faces / 148), rel=ROUNDING)


def test_boundary_with_solid_points() -> None:
    """Of the 14 places above, the corner of 12 (two of them) and the 10 are solid: 807 - 2 * 144 - 100 over 11."""
    box = errors([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[2, 3] = mask[2, 1] = False
    box[0, 2, 3] = math.nan
    grid = Grid(grid_of(3, 4).axes, mask)
    assert number(boundary_rmse, box, grid) == pytest.approx(math.sqrt(419 / 11), rel=ROUNDING)


def test_fourier_bands_of_single_waves_in_one_dimension() -> None:
    """``a cos`` has |F|/N = a/2 at its n > 0. Of 32 points, low has 4 shells, mid 8, high 12..16 and thus 5."""
    assert bands(fourier_rmse, wave((5,), (32,), 3.0)) == close(0, 1.5 / 8, 0)
    assert bands(fourier_rmse, wave((0,), (32,), 3.0)) == close(3 / 4, 0, 0)
    assert bands(fourier_rmse, wave((3,), (32,), 3.0)) == close(1.5 / 4, 0, 0)
    assert bands(fourier_rmse, wave((12,), (32,), 3.0)) == close(0, 0, 1.5 / 5)
    assert bands(fourier_rmse, wave((16,), (32,), 3.0)) == close(0, 0, 3 / 5)  # the shortest wave has no twin
    # Two samples: the root mean square of the sizes 3 and 4; two waves: the mean over shells adds roots.
    pair = torch.cat([wave((5,), (32,), 3.0), wave((5,), (32,), 4.0)])
    assert bands(fourier_rmse, pair) == close(0, math.sqrt(12.5) / 2 / 8, 0)
    assert bands(fourier_rmse, wave((5,), (32,), 3.0) + wave((6,), (32,), 4.0)) == close(0, (1.5 + 2) / 8, 0)


def test_fourier_bands_of_single_waves_in_two_and_three_dimensions() -> None:
    """The shells of 32 x 40 points end at 15: 4, 8 and 4 of them. What has a negative n_i is not seen."""
    box = (32, 40)
    assert bands(fourier_rmse, wave((3, 4), box, 2.0)) == close(0, 1 / 8, 0)
    assert bands(fourier_rmse, wave((3, -4), box, 2.0)) == close(0, 0, 0)
    assert bands(fourier_rmse, wave((2, 3), box, 2.0)) == close(1 / 4, 0, 0)  # |n| = 3.6 in shell 3
    assert bands(fourier_rmse, wave((0, 12), box, 2.0)) == close(0, 0, 1 / 4)
    assert bands(fourier_rmse, wave((0, 16), box, 2.0)) == close(0, 0, 0)
    assert bands(fourier_rmse, wave((12, 12), box, 2.0)) == close(0, 0, 0)
    # Two waves in the shell 5 add their squares.
    both = wave((3, 4), box, 2.0) + wave((5, 0), box, 4.0)
    assert bands(fourier_rmse, both) == close(0, math.sqrt(1 + 4) / 8, 0)
    # 10 x 12 x 11 points have the shells 0..4: mid has one, high none.
    assert bands(fourier_rmse, wave((2, 2, 3), (10, 12, 11), 2.0)) == close(0, 1, math.nan)
    assert bands(fourier_rmse, wave((1, 2, 2), (10, 12, 11), 2.0)) == close(1 / 4, 0, math.nan)


@pytest.mark.parametrize("space", [(27,), (26, 29), (10, 12, 11)])
def test_fourier_bands_are_those_of_a_loop_over_waves(space: tuple[int, ...]) -> None:
    error = noise(3, *space, 1)
    one = len(space) == 1
    shells = space[0] // 2 + 1 if one else min(space) // 2
    power = torch.fft.fftn(error[..., 0], dim=tuple(range(1, 1 + len(space)))).abs().square()
    total = [[0.0] * shells for _ in error]
    for numbers in itertools.product(*(range(n // 2 + one) for n in space)):
        shell = math.isqrt(sum(n * n for n in numbers))
        if shell < shells:
            for sample, row in enumerate(total):
                row[shell] += power[(sample, *numbers)].item()
    roots = [math.sqrt(sum(row[k] for row in total) / 3) / math.prod(space) for k in range(shells)]
    parts = [roots[:4], roots[4:12], roots[12:]]
    expected = [sum(part) / len(part) if part else math.nan for part in parts]
    assert bands(fourier_rmse, error) == close(*expected)


def test_band_of_a_single_wave() -> None:
    """The root mean square of ``a cos`` is a/sqrt(2), wherever the wave points; a shortest wave has a."""
    a = math.sqrt(2)
    box = (32, 40)
    for numbers, expected in (
        ((3, 2), (1, 0, 0)),
        ((4, 0), (0, 1, 0)),
        ((3, -4), (0, 1, 0)),
        ((-5, 10), (0, 1, 0)),
        ((0, 12), (0, 0, 1)),
        ((12, -12), (0, 0, 1)),
        ((16, 20), (0, 0, a)),
        ((0, 0), (a, 0, 0)),
    ):
        assert bands(band_rmse, wave(numbers, box, a)) == close(*expected), numbers


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("solid", [False, True])
def test_squares_of_the_bands_add_up_to_the_mean_square_error(space: tuple[int, ...], solid: bool) -> None:
    x, y = noise(3, 2, *space, 2), noise(3, 2, *space, 2, seed=1)
    grid = grid_of(*space)
    if solid:
        grid = Grid(grid.axes, noise(*space, seed=2) > -0.5)
        y[..., 0, :] = torch.where(grid.mask[..., 0, None] if len(space) > 1 else grid.mask[0], y[..., 0, :], math.nan)
    found = band_rmse(x, y, grid)
    assert all(bool((band > 0).all()) and band.shape == (2, 2) for band in found)
    total = found.low.square() + found.mid.square() + found.high.square()
    torch.testing.assert_close(total, rmse(x, y, grid).square().mean(dim=0), rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
@pytest.mark.parametrize("space", [(31,), (26, 29)])
def test_laws_of_all(metric: Callable[..., Tensor | Bands], space: tuple[int, ...]) -> None:
    grid, x, y, common = (
        grid_of(*space),
        noise(3, 2, *space, 2),
        noise(3, 2, *space, 2, seed=1),
        noise(*space, 1, seed=2),
    )
    one = everything(metric, x, y, grid)
    assert one.shape[-2:] == (2, 2)
    law = {"rtol": ROUNDING, "atol": 0.0}
    # An error in units of the field, of the difference alone, the same in both directions.
    torch.testing.assert_close(everything(metric, -60 * x, -60 * y, grid), 60 * one, **law)
    torch.testing.assert_close(everything(metric, x + common, y + common, grid), one, rtol=1e-11, atol=0)
    torch.testing.assert_close(everything(metric, y, x, grid), one, **law)
    assert (everything(metric, y, y, grid) == 0).all()
    # Samples enter symmetrically, and a copy of all of them changes nothing.
    torch.testing.assert_close(everything(metric, x.flip(0), y.flip(0), grid), one, **law)
    torch.testing.assert_close(everything(metric, torch.cat([x, x]), torch.cat([y, y]), grid), one, **law)
    # Frames and fields stand beside each other and are not mixed.
    torch.testing.assert_close(everything(metric, x[:, 1:, ..., :1], y[:, 1:, ..., :1], grid), one[..., 1:, :1], **law)
    # Low precision is raised before anything is computed.
    low_x, low_y = x.bfloat16(), y.bfloat16()
    low = everything(metric, low_x, low_y, grid)
    assert low.dtype is torch.float32
    torch.testing.assert_close(low, everything(metric, low_x.float(), low_y.float(), grid), rtol=0, atol=0)


@pytest.mark.parametrize("metric", [maximum_error, conserved_rmse, fourier_rmse, band_rmse])
def test_a_shift_of_a_periodic_box_changes_nothing(metric: Callable[..., Tensor | Bands]) -> None:
    grid, x, y = grid_of(26, 29), noise(3, 26, 29, 2), noise(3, 26, 29, 2, seed=1)
    moved = [values.roll((5, 11), dims=(1, 2)) for values in (x, y)]
    torch.testing.assert_close(
        everything(metric, *moved, grid), everything(metric, x, y, grid), rtol=ROUNDING, atol=ROUNDING
    )


def test_what_has_no_meaning_is_announced() -> None:
    x, y = noise(2, 16, 2), noise(2, 16, 2, seed=1)
    for metric in (fourier_rmse, band_rmse):
        with pytest.warns(
            UndefinedMetric, match=f"{metric.__name__}: no wave of a grid of 16 points is in the band high"
        ):
            found = metric(x, y, grid_of(16))
        assert found.high.isnan().all()
        assert found.high.shape == found.mid.shape == (2,)
        assert found.mid.isfinite().all()
    solid = Grid(grid_of(26).axes, torch.zeros(26, dtype=torch.bool))
    for metric, said in ((maximum_error, "no fluid"), (conserved_rmse, "no fluid"), (band_rmse, "no fluid")):
        with pytest.warns(UndefinedMetric, match=said):
            assert everything(metric, noise(2, 26, 1), noise(2, 26, 1), solid).isnan().all()
    with pytest.warns(UndefinedMetric, match="boundary has no fluid point"):
        assert boundary_rmse(noise(2, 26, 1), noise(2, 26, 1), solid).isnan().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in METRICS:  # 26 points: the fewest that fill all bands of both
            assert (
                everything(metric, noise(2, 26, 26, 1), noise(2, 26, 26, 1, seed=1), grid_of(26, 26)).isfinite().all()
            )


def test_clear_refusals() -> None:
    y = noise(2, 5, 4, 1)
    for metric in METRICS:
        with pytest.raises(ValueError, match=r"prediction: got shape \(5, 4, 1\), expected \(B, \.\.\., 5, 4, C\)"):
            metric(y[0], y[0], grid_of(5, 4))
        with pytest.raises(ValueError, match=r"prediction: got shape \(1, 5, 4, 1\), the truth has"):
            metric(y[:1], y, grid_of(5, 4))
    crowded = Axis("y", torch.linspace(0, 1, 4, dtype=torch.float64) ** 2, Boundary.WALL, 1.0)
    for metric in (fourier_rmse, band_rmse):
        with pytest.raises(ValueError, match="grid: got axes y with points that are not equally spaced"):
            metric(y, y, Grid((grid_of(5).axes[0], crowded)))


def test_every_metric_has_a_definition() -> None:
    assert set(pdebench.DEFINITIONS) == {metric.__name__ for metric in METRICS}
    assert all("known frames do not count" in sentence for sentence in pdebench.DEFINITIONS.values())
