from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from settings import make_steady_store
from waves import make_store, wave_layout

from physml.datasets import Segment, Statistics
from physml.datasets.moments import Moments, of_block, of_frames, quadrature
from physml.datasets.trajectories import Accumulator, measure
from physml.fields import Axis, Boundary, Field, Grid, Layout

LENGTHS = (7, 1, 12, 5)


def stretched(n: int, m: int, masked: bool = True) -> Layout:
    """Points close to both walls of the second axis, and a solid corner."""
    y = -torch.cos(torch.linspace(0, torch.pi, m, dtype=torch.float64))
    axes = Axis.periodic_uniform("x", n, 2.0), Axis("y", y, Boundary.WALL, 2.0)
    mask = torch.ones(n, m, dtype=torch.bool)
    mask[:2, :1] = False
    return Layout((Field("pressure"), Field("velocity")), Grid(axes, mask if masked else None), 0.1)


def fields(layout: Layout, lengths: Sequence[int] = LENGTHS) -> list[np.ndarray]:
    """A pressure of 10000 that varies by 0.001, and a velocity of the order of one; single precision, as data are."""
    rng = np.random.default_rng(1)
    found = []
    for row, length in enumerate(lengths):
        drift = np.linspace(0, 1, length)[:, None, None]
        noise = rng.standard_normal((length, *layout.grid.shape, 2))
        noise[..., 1] += row + drift
        found.append((np.array([1e4, 0.0]) + np.array([1e-3, 1.0]) * noise).astype(np.float32))
    return found


def two_passes(layout: Layout, data: Sequence[np.ndarray], segments: Sequence[Segment]) -> Statistics:
    """The definition in extended precision: first the mean, then the deviations from it."""
    mask = np.ones(layout.grid.shape, bool) if layout.grid.mask is None else layout.grid.mask.numpy()
    weights = reduce(np.multiply.outer, [axis.weights.numpy().astype(np.longdouble) for axis in layout.grid.axes])[mask]
    pieces = [data[s.trajectory][s.start : s.stop][:, mask].astype(np.longdouble) for s in segments]

    def moments(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        over = len(frames) * weights.sum()
        mean = np.einsum("tnc,n->c", frames, weights) / over
        return mean, np.sqrt(np.einsum("tnc,n->c", (frames - mean) ** 2, weights) / over)

    every = np.concatenate(pieces)
    (mean, std), (_, rise) = moments(every), moments(np.concatenate([np.diff(piece, axis=0) for piece in pieces]))
    energy = (((every - mean) / std) ** 2).mean(axis=(1, 2)).max()
    return Statistics(tuple(map(float, mean)), tuple(map(float, std)), tuple(map(float, rise)), float(energy))


def same(found: Statistics, expected: Statistics, rtol: float) -> None:
    for name in ("mean", "std", "increment_std", "energy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol, err_msg=name)


@pytest.mark.parametrize(("read", "block"), [(1, 1), (5, 3), (5, 5), (100, 100)])
@pytest.mark.parametrize("masked", [True, False])
def test_one_pass_is_two_passes(read: int, block: int, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = stretched(6, 9, masked)
    for name, frames in (("_READ_BYTES", read), ("_BLOCK_BYTES", block)):
        monkeypatch.setattr(f"physml.datasets.trajectories.{name}", frames * 4 * 2 * 6 * 9)
    data = fields(layout)
    segments = [*(Segment(row, 0, n) for row, n in enumerate(LENGTHS[:3])), Segment(3, 0, 2), Segment(3, 2, 5)]
    found = measure(layout, segments, lambda row, a, b: data[row][a:b])
    # deviations of 1e-3 are taken from 1e4, 1e7 times as large: without the second part of the mean 9 digits are left
    same(found, two_passes(layout, data, segments), rtol=1e-13)


def test_the_order_of_trajectories_is_nothing() -> None:
    layout = stretched(6, 9)
    data = fields(layout)
    found = [
        measure(
            layout,
            [Segment(row, 0, len(values)) for row, values in enumerate(rows)],
            lambda row, a, b, rows=rows: rows[row][a:b],  # type: ignore[misc]
        )
        for rows in (data, data[::-1], data[2:] + data[:2])
    ]
    for other in found[1:]:
        same(other, found[0], rtol=1e-13)  # a few roundings of float64


def moments(values: np.ndarray, weights: np.ndarray | None) -> Moments:
    weight = values.shape[2] if weights is None else float(weights.sum())
    return of_block(values, of_frames(values, weights), weight)


@settings(max_examples=60)
@given(
    cuts=st.lists(st.integers(1, 29), max_size=6, unique=True),
    tree=st.randoms(use_true_random=False),
    scale=st.sampled_from([0.0, 1.0, 1e4, 1e8]),
    weighted=st.booleans(),
)
def test_parts_merge_to_the_whole_in_any_order(cuts: list[int], tree: object, scale: float, weighted: bool) -> None:
    rng = np.random.default_rng(len(cuts))
    values = (scale + rng.standard_normal((2, 30, 8))).astype(np.float64)
    weights = rng.uniform(0.1, 3.0, 8) if weighted else None
    bounds = [0, *sorted(cuts), 30]
    parts = [moments(values[:, a:b], weights) for a, b in pairwise(bounds)]
    tree.shuffle(parts)  # type: ignore[attr-defined]
    while len(parts) > 1:  # neighbours or not, few with many
        one = parts.pop(tree.randrange(len(parts)))  # type: ignore[attr-defined]
        other = parts.pop(tree.randrange(len(parts)))  # type: ignore[attr-defined]
        parts.append(one.merged(other))
    whole = moments(values, weights)
    # exact but for roundings of float64: those of the mean, and 240 of deviations of the order of one
    np.testing.assert_allclose(parts[0].mean, whole.mean, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(parts[0].std, whole.std, rtol=1e-13)
    np.testing.assert_allclose(parts[0].weight, whole.weight, rtol=1e-14)
    np.testing.assert_array_equal([parts[0].low, parts[0].high], [values.min((1, 2)), values.max((1, 2))])
    np.testing.assert_allclose(whole.rms**2, whole.mean**2 + whole.std**2, rtol=1e-14)


def test_points_of_a_uniform_grid_count_the_same() -> None:
    layout = wave_layout((4, 6))
    data = np.random.default_rng(2).standard_normal((5, 4, 6, 1)).astype(np.float32)
    segments = [Segment(0, 0, 5)]

    def measured(layout: Layout) -> Statistics:
        return measure(layout, segments, lambda row, a, b: data[a:b])

    assert quadrature(layout.grid) is None
    plain = data.astype(np.float64)
    np.testing.assert_allclose(
        [measured(layout).mean[0], measured(layout).std[0]], [plain.mean(), plain.std()], rtol=1e-14
    )
    axis = layout.grid.axes[0]
    other = replace(axis, weights=7 * axis.weights)
    assert measured(replace(layout, grid=Grid((other, layout.grid.axes[1])))) == measured(layout)  # bit for bit
    # equal weights that nothing recognises as equal give the same, too
    unknown = replace(axis, uniform=False)
    same(measured(replace(layout, grid=Grid((unknown, layout.grid.axes[1])))), measured(layout), rtol=1e-14)


@pytest.mark.parametrize("static", [False, True])
def test_a_region_counts_by_its_size_not_by_its_points(static: bool) -> None:
    """A step from 0 to 1 in the middle, where the right half has eight times the points."""
    edges = np.concatenate([np.linspace(0, 1, 11), np.linspace(1, 2, 81)[1:]])
    centres, widths = torch.from_numpy((edges[1:] + edges[:-1]) / 2), torch.from_numpy(np.diff(edges))
    axis = Axis("x", centres, Boundary.OPEN, 2.0, weights=widths)
    layout = Layout((Field("step"),), Grid((axis,)), 1.0, static=(Field("step"),) if static else ())
    step = (centres > 1).numpy().astype(np.float32)[:, None]
    found = Accumulator(layout)
    found.add(0, step[None])
    if static:
        found.add_static(step)
    s = found.statistics()
    mean, std = (s.static_mean, s.static_std) if static else (s.mean, s.std)
    np.testing.assert_allclose([*mean, *std], [0.5, 0.5], rtol=1e-14)  # halves of the length, not 10 of 90 points
    # a rollout is held against the plain average over points of ((u - 1/2)/(1/2))^2, which is 1 everywhere
    np.testing.assert_allclose(s.energy, 1.0, rtol=1e-14)


def test_the_energy_is_that_of_points_as_a_rollout_reckons_it() -> None:
    layout = stretched(6, 9, masked=False)
    values = np.ones((2, 6, 9, 2), np.float32)
    values[1, :, 0] = 3.0  # a wall, where points are close
    s = measure(layout, [Segment(0, 0, 2)], lambda row, a, b: values[a:b])
    per_point = ((values.astype(np.float64) - s.mean) / s.std) ** 2
    np.testing.assert_allclose(s.energy, per_point.mean((1, 2, 3)).max(), rtol=1e-13)


def test_two_neighbouring_numbers_are_a_constant() -> None:
    layout = replace(wave_layout((4, 4)), fields=(Field("a"), Field("b")))
    values = np.full((3, 4, 4, 2), 1e4, np.float32)
    values[:, ::2, :, 0] = np.nextafter(np.float32(1e4), np.float32(2e4))
    values[..., 1] += 1e-3 * np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match="field 'a' is constant"):
        s = measure(layout, [Segment(0, 0, 3)], lambda row, a, b: values[a:b])
    assert s.std[0] == 1.0 and s.increment_std[0] == 1.0
    np.testing.assert_allclose(s.std[1], values[..., 1].astype(np.float64).std(), rtol=1e-9)  # noise, not a constant


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no frames"):
        measure(wave_layout((4, 4)), [], lambda row, a, b: np.zeros(0))


def test_a_split_is_measured_whatever_its_name(tmp_path: Path) -> None:
    data = make_steady_store(tmp_path / "a.zarr")
    told: list[tuple[int, int]] = []
    found = data.gathered("test", progress=lambda done, total: told.append((done, total)))
    values = np.concatenate([data.read(row, 0, 1) for row in (0, 5)]).astype(np.float64)
    assert found.frames == 2 and told == [(1, 2), (2, 2)]
    np.testing.assert_allclose(found.statistics(data.parameters).mean[0], values.mean(), rtol=1e-14)
    assert found.statistics(data.parameters).number_mean == {"age": 7.0, "strength": 3.0}
    assert found.states is not None and found.states.high[0] == values.max() and found.states.low[0] == values.min()
    with pytest.raises(ValueError, match="split: got 'tset'"):
        data.gathered("tset")


def test_processes_find_the_same(tmp_path: Path) -> None:
    data = make_store(tmp_path / "a.zarr")
    one, two = data.gathered(), data.gathered(workers=2)
    assert one.statistics(data.parameters) == two.statistics(data.parameters)  # bit for bit
    # the store was measured by its own reading of the same frames
    same(one.statistics(data.parameters), data.statistics, rtol=1e-12)
