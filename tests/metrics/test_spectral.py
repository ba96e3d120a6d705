"""The distance of two spectra."""

from __future__ import annotations

import math

import pytest
import torch

from physml.metrics.pointwise import UndefinedMetric
from physml.metrics.spectral import DEFINITIONS, log_spectral_error


def power_law(n: int = 33) -> torch.Tensor:
    k = torch.arange(n, dtype=torch.float64)
    return torch.where(k > 0, k.clamp(min=1) ** (-5 / 3), 0)


def test_exact_values() -> None:
    reference = power_law()
    assert log_spectral_error(reference, reference, 21).item() == 0
    # ln(7 E) - ln E = ln 7 in every shell.
    assert log_spectral_error(7 * reference, reference, 21).item() == pytest.approx(math.log(7), rel=1e-14)
    # 21 shells count; one that is a factor e off leaves 1/sqrt(21).
    one = reference.clone()
    one[5] *= math.e
    assert log_spectral_error(one, reference, 21).item() == pytest.approx(1 / math.sqrt(21), rel=1e-13)


def test_only_resolved_and_filled_shells_count() -> None:
    reference = power_law()
    changed = reference.clone()
    changed[0], changed[22:] = 5, 5  # the mean, and all shells above the limit
    assert log_spectral_error(changed, reference, 21).item() == 0
    reference[9] = 1e-13  # rounding noise beside a maximum of 1
    changed = reference.clone()
    changed[9] = 1
    assert log_spectral_error(changed, reference, 21).item() == 0
    reference[9] = changed[9] = 2e-12
    changed[9] *= math.e
    assert log_spectral_error(changed, reference, 21).item() == pytest.approx(1 / math.sqrt(21), rel=1e-12)


def test_nothing_is_hidden() -> None:
    reference, empty = power_law(), power_law()
    empty[3] = 0
    assert log_spectral_error(empty, reference, 21).isinf()
    with pytest.warns(UndefinedMetric, match="no energy"):
        assert log_spectral_error(reference, 0 * reference, 21).isnan()
    leads = log_spectral_error(torch.stack([empty, 2 * reference]), reference.expand(2, -1), 21)
    assert leads.shape == (2,)
    assert leads[0].isinf() and leads[1].item() == pytest.approx(math.log(2), rel=1e-13)


def test_clear_refusals() -> None:
    with pytest.raises(ValueError, match="spectrum: got shape"):
        log_spectral_error(power_law(20), power_law(33), 12)
    for limit in (0, 33):
        with pytest.raises(ValueError, match=f"limit: got shell {limit}, the spectra have shells 0 to 32"):
            log_spectral_error(power_law(), power_law(), limit)
    assert "log_spectral_error" in DEFINITIONS
