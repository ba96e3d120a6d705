"""The interval covers the truth as often as it says, and counts what is independent."""

from __future__ import annotations

import numpy as np
import pytest

from physml.metrics.bootstrap import Units, bootstrap_interval, resampled_means


def alone(count: int) -> Units:
    return Units.of(np.arange(count), np.zeros(count, dtype=int), 1)


def test_coverage_of_a_known_mean() -> None:
    """400 experiments of 60 normal samples, as columns of one call."""
    values = np.random.default_rng(0).normal(2.0, 1.0, size=(60, 400))
    found = bootstrap_interval(values, alone(60), confidence=0.9, resamples=1000)
    covered = ((found.low <= 2.0) & (found.high >= 2.0)).mean()
    # Binomial deviation of 400 trials is 0.015; the percentile interval with 60 units is a per cent or so too narrow.
    assert abs(covered - 0.9) < 0.05
    # Its width is that of the normal interval, 2 * 1.645 / sqrt(60), to the scatter of a standard deviation averaged
    # over 400 experiments.
    assert (found.high - found.low).mean() == pytest.approx(2 * 1.645 / np.sqrt(60), rel=0.03)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12)


def test_clusters_are_wider_than_samples() -> None:
    """20 trajectories with 10 nearly equal samples each hold 20 independent numbers, not 200: the interval must be
    about sqrt(10) wider, and only the clustered one covers."""
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(20, 1, 300))
    values = (centres + 0.01 * generator.normal(size=(20, 10, 300))).reshape(200, 300)
    trajectory = np.repeat(np.arange(20), 10)
    clustered = bootstrap_interval(
        values, Units.of(trajectory, np.tile(np.arange(10), 20), 1), confidence=0.9, resamples=500
    )
    naive = bootstrap_interval(values, alone(200), confidence=0.9, resamples=500)
    ratio = (clustered.high - clustered.low).mean() / (naive.high - naive.low).mean()
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)  # both widths average over 300 columns
    covered = ((clustered.low <= 0) & (clustered.high >= 0)).mean()
    assert 0.8 < covered < 0.95  # 20 units make the 0.90 interval about 0.03 too narrow; binomial deviation 0.02
    assert ((naive.low <= 0) & (naive.high >= 0)).mean() < 0.6
    assert clustered.units == 20 and clustered.over == "trajectories"


def test_the_same_seed_gives_the_same_interval_whatever_else_is_in_the_table() -> None:
    values = np.random.default_rng(2).normal(size=(12, 3))
    first, again = bootstrap_interval(values, alone(12)), bootstrap_interval(values, alone(12))
    assert (first.low == again.low).all() and (first.high == again.high).all()
    column = bootstrap_interval(values[:, 1], alone(12))
    np.testing.assert_allclose(column.low, first.low[1], rtol=1e-12)  # the sums may be ordered otherwise
    assert (bootstrap_interval(values, alone(12), seed=1).low != first.low).all()


def test_equal_samples_leave_no_doubt() -> None:
    found = bootstrap_interval(np.full((8, 2), 3.0), alone(8))
    assert (found.low == 3).all() and (found.high == 3).all()


def test_missing_samples_are_left_out_and_counted() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan], [5.0, 2.0]])
    found = bootstrap_interval(values, alone(4))
    assert found.mean.tolist() == [3.0, 2.0]
    assert found.samples.tolist() == [3, 1]
    assert 1 <= found.low[0] < 3 < found.high[0] <= 5
    assert np.isnan(found.low[1]) and np.isnan(found.high[1])  # one unit says nothing about the spread
    none = bootstrap_interval(np.full((4, 1), np.nan), alone(4))
    assert np.isnan(none.mean).all() and none.samples.tolist() == [0]


def test_samples_weigh_the_same_however_they_are_grouped() -> None:
    units = Units.of(np.array([7, 7, 7, 9]), np.arange(4), 1)
    found = bootstrap_interval(np.array([0.0, 0.0, 0.0, 1.0]), units)
    assert found.mean == 0.25 and units.count == 2
    assert set(np.round(resampled_means([0.0, 0.0, 0.0, 1.0], units), 12)) == {0.0, 0.25, 1.0}


def test_one_trajectory_is_cut_in_windows_that_do_not_overlap() -> None:
    frames = np.array([30, 0, 10, 20, 5, 40])
    units = Units.of(np.zeros(6, dtype=int), frames, 10)
    assert units.over == "non-overlapping windows of one trajectory"
    assert units.group.tolist() == [3, 0, 1, 2, 0, 4]
    assert Units.of(np.zeros(6, dtype=int), frames, 20).group.tolist() == [1, 0, 0, 1, 0, 2]
    single = Units.of([0], [3], 10)
    assert np.isnan(bootstrap_interval([1.0], single).low) and bootstrap_interval([1.0], single).mean == 1


def test_clear_refusals() -> None:
    with pytest.raises(ValueError, match="values: got"):
        bootstrap_interval(np.ones(3), alone(4))
    with pytest.raises(ValueError, match="confidence: got 95"):
        bootstrap_interval(np.ones(4), alone(4), confidence=95)
    with pytest.raises(ValueError, match="trajectory, frame"):
        Units.of([0, 1], [0], 1)
    with pytest.raises(ValueError, match="span: got 0"):
        Units.of([0], [0], 0)
