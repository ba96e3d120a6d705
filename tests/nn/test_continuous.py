from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from physml.nn.continuous import Waves, turn


def by_hand(x: list[float], width: int, spread: float) -> list[float]:
    """The embedding of one point, number by number."""
    each = width // len(x) // 2 * 2
    found: list[float] = []
    for coordinate in x:
        angles = [coordinate * spread ** (-2 * k / each) for k in range(each // 2)]
        found += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return found + [0.0] * (width - len(found))


@given(axes=st.integers(1, 4), width=st.integers(8, 40), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_features_are_those_of_the_formula(axes: int, width: int, seed: int) -> None:
    x = 100 * torch.rand(axes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = Waves(scale=1.0, spread=50.0).embed(x, width)
    torch.testing.assert_close(found.tolist(), by_hand(x.tolist(), width, 50.0), rtol=0, atol=1e-12)  # angles of 100


@pytest.mark.parametrize(("axes", "waves"), [(3, 32), (4, 24)])
def test_published_numbers_of_waves(axes: int, waves: int) -> None:
    """At width 192: 32 frequencies an axis in three dimensions, 24 in four, and no channel left over."""
    zero = Waves().embed(torch.zeros(axes), 192)
    assert zero.tolist() == ([0.0] * waves + [1.0] * waves) * axes


def test_published_rotation() -> None:
    """Ten frequencies an axis in heads of 64 channels; the last two pairs stand still."""
    cos, sin = Waves(scale=1.0).rotation(torch.ones(1, 1, 3, dtype=torch.float64), 64)
    angles = torch.atan2(sin, cos).flatten()
    expected = [10_000 ** (-2 * k / 20) for k in range(10)] * 3 + [0.0, 0.0]
    torch.testing.assert_close(angles.tolist(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("axes", [2, 3])
def test_products_of_turned_pairs_depend_on_differences_only(axes: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 5, 16, dtype=torch.float64)
    x, y, shift = (torch.rand(1, n, axes, dtype=torch.float64) for n in (5, 5, 1))
    waves = Waves(scale=100.0)

    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (turn(q, waves.rotation(x, 16)) * turn(k, waves.rotation(y, 16))).sum(dim=-1)

    torch.testing.assert_close(product(x + shift, y + shift), product(x, y), rtol=0, atol=1e-12)  # angles of 200
    assert (product(x + shift, y) - product(x, y)).abs().max() > 0.1
    torch.testing.assert_close(turn(q, waves.rotation(x, 16)).norm(dim=-1), q.norm(dim=-1))


def test_scale_is_a_unit_of_length() -> None:
    x = torch.rand(2, 7, 3, dtype=torch.float64)
    assert torch.equal(Waves(scale=8.0).embed(x, 24), Waves(scale=1.0).embed(8 * x, 24))


def test_angles_are_never_rounded_to_half() -> None:
    x, q = torch.rand(1, 9, 3), torch.randn(1, 2, 9, 16)
    waves = Waves()
    features, rotation = waves.embed(x, 48), waves.rotation(x, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(waves.embed(x, 48), features)
        assert torch.equal(waves.rotation(x, 16).cos, rotation.cos)
    assert features.dtype == rotation.sin.dtype == torch.float32
    exact = waves.embed(x.double(), 48)
    assert (features - exact).abs().max() < 5e-4  # angles of 1000 in single precision; half would be off by 1
    assert torch.equal(turn(q.bfloat16(), rotation), turn(q.bfloat16().float(), rotation).bfloat16())


def test_bad_waves_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0 and above 1"):
        Waves(scale=0.0)
    with pytest.raises(ValueError, match="at least 2 channels for each"):
        Waves().embed(torch.zeros(3), 5)
