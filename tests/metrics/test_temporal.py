"""Correlation times and window means on series that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physml.metrics.temporal import WELL_WINDOWS, correlation_time, logarithmic_windows, window_means


def test_correlation_time_of_an_exponential() -> None:
    """``r(t) = exp(-t/tau)`` falls below 0.8 at ``t = tau ln 1.25``: the first whole frame after it."""
    dt, tau = 0.25, 3.1
    r = np.exp(-dt * np.arange(1, 41) / tau)[None]
    exact = tau * np.log(1.25)
    found = correlation_time(r, dt)
    assert found.reached
    assert found.time == np.ceil(exact / dt) * dt
    between = correlation_time(r, dt, interpolate=True)
    # Linear interpolation of a curve with second derivative 1/tau^2 is off by at most dt^2/(8 tau^2) in r, divided by
    # the slope 0.8/tau.
    assert abs(between.time - exact) < dt**2 / (8 * tau**2) / (0.75 / tau)


def test_a_curve_that_never_drops_is_marked() -> None:
    found = correlation_time(np.full((3, 20), 0.9), 0.5)
    assert not found.reached and found.time == 10.0
    assert not correlation_time(np.full((3, 20), 0.8), 0.5).reached  # equal is not below
    last = np.ones((1, 20))
    last[0, -1] = 0.1
    found = correlation_time(last, 0.5)
    assert found.reached and found.time == 10.0


def test_mean_of_samples_against_each_sample() -> None:
    """One sample drops at lead 2 to 0.5, the other never: the mean is 0.75 there."""
    r = np.ones((2, 5))
    r[0, 1:] = 0.5
    assert correlation_time(r, 1.0).time == 2
    each = correlation_time(r, 1.0, per_sample=True)
    assert each.time.tolist() == [2, 5] and each.reached.tolist() == [True, False]


def test_drop_at_the_first_lead_interpolates_from_one() -> None:
    found = correlation_time(np.array([[0.6, 0.2]]), 2.0, interpolate=True)
    assert found.time == pytest.approx(2.0 * 0.5)  # from 1 to 0.6 the value 0.8 lies half-way


def test_undefined_values_are_left_out() -> None:
    r = np.array([[np.nan, 0.9, 0.3], [0.9, np.nan, 0.3]])
    assert correlation_time(r, 1.0).time == 3
    nothing = correlation_time(np.full((2, 3), np.nan), 1.0)
    assert not nothing.reached and np.isnan(nothing.time)
    # Three leads were compared: the curve is known to stay above the threshold that long, not longer.
    ended = correlation_time(np.array([[0.99, 0.98, 0.97, np.nan, np.nan]]), 0.5)
    assert not ended.reached and ended.time == 1.5


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=30),
    low=st.floats(-0.9, 0.5),
    gap=st.floats(0, 0.5),
)
def test_a_lower_threshold_is_reached_no_sooner(values: list[float], low: float, gap: float) -> None:
    r = np.array([values])
    for interpolate in (False, True):
        early = correlation_time(r, 0.1, threshold=low + gap, interpolate=interpolate).time
        late = correlation_time(r, 0.1, threshold=low, interpolate=interpolate).time
        assert early <= late + 1e-12
        assert 0 <= early <= 0.1 * len(values) + 1e-12


def test_fields_are_columns() -> None:
    r = np.ones((4, 6, 2))
    r[:, 3:, 1] = 0
    found = correlation_time(r, 1.0)
    assert found.time.tolist() == [6, 4] and found.reached.tolist() == [False, True]


def test_window_means_include_both_ends() -> None:
    leads = np.arange(1, 31, dtype=float)[None]
    means = window_means(leads, WELL_WINDOWS)
    assert means.tolist() == [[9.0, 21.5]]  # 7 values around 9, 18 values around 21.5
    assert np.isnan(window_means(leads[:, :29], WELL_WINDOWS)[0, 1])
    assert window_means(leads[:, :29], WELL_WINDOWS)[0, 0] == 9
    with pytest.raises(ValueError, match="windows: got 0:3"):
        window_means(leads, ((0, 3),))


def test_logarithmic_windows_of_the_well() -> None:
    assert logarithmic_windows(97) == ((1, 1), (2, 3), (4, 9), (10, 30), (31, 97))


@pytest.mark.parametrize("leads", [1, 2, 5, 30, 96, 97, 1000])
def test_logarithmic_windows_cover_every_lead_once(leads: int) -> None:
    covered = [lead for first, last in logarithmic_windows(leads) for lead in range(first, last + 1)]
    assert covered == list(range(1, leads + 1))
    means = window_means(np.arange(1, leads + 1, dtype=float)[None], logarithmic_windows(leads))
    assert np.isfinite(means).all()


def test_clear_refusals() -> None:
    with pytest.raises(ValueError, match=r"correlation: got shape \(5,\)"):
        correlation_time(np.ones(5), 1.0)
    with pytest.raises(ValueError, match="threshold: got 80"):
        correlation_time(np.ones((1, 5)), 1.0, threshold=80)
    with pytest.raises(ValueError, match="dt: got 0"):
        correlation_time(np.ones((1, 5)), 0)
