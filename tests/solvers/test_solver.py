from __future__ import annotations

import math

import pytest
import torch

from physml.solvers.solver import ADVECTION_LIMIT, whole_multiple


@pytest.mark.parametrize(
    ("value", "unit", "count"),
    [(0.3, 0.1, 3), (1.0, 1 / 3, 3), (0.75, 0.75, 1), (0.0, 0.5, 0), (100.0, 0.001, 100_000)],
)
def test_units_in_a_value_are_counted_past_rounding(value: float, unit: float, count: int) -> None:
    assert whole_multiple("frame_interval", value, "step", unit, least=0) == count


@pytest.mark.parametrize("off", [-1e-5, 1e-5])
def test_what_is_no_whole_number_is_refused_with_both_names(off: float) -> None:
    """Off by ten times the allowance, a millionth; a hundredth of it passes."""
    with pytest.raises(ValueError, match=r"frame_interval: got .*, which is (2\.99997|3\.00003) times step 0\.1; "):
        whole_multiple("frame_interval", 0.3 * (1 + off), "step", 0.1, least=1)
    assert whole_multiple("frame_interval", 0.3 * (1 + off / 1000), "step", 0.1, least=1) == 3


def test_too_few_units_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a whole number from 1 up"):
        whole_multiple("frame_interval", 0.0, "step", 0.1, least=1)


@pytest.mark.parametrize(("value", "unit"), [(1.0, 0.0), (1.0, -1.0), (-1.0, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_values_without_a_quotient_are_refused(value: float, unit: float) -> None:
    with pytest.raises(ValueError, match="warmup_time, frame_interval: got"):
        whole_multiple("warmup_time", value, "frame_interval", unit, least=0)


def test_the_advection_limit_is_where_a_runge_kutta_step_begins_to_amplify() -> None:
    """One step of an oscillation multiplies it by the Taylor polynomial of degree four of exp(iz)."""

    def factor(z: float) -> float:
        powers = torch.tensor([(1j * z) ** n / math.factorial(n) for n in range(5)])
        return float(powers.sum().abs())

    z = ADVECTION_LIMIT
    assert factor(z) == pytest.approx(1, abs=1e-6)  # single-precision sum of terms of up to 4
    assert factor(0.99 * z) < 1 < factor(1.01 * z)
