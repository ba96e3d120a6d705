"""Folded norms against the norm followed by the map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.nn.folding import layer_norm_map, scaled_map

C, OUT = 12, 7


def close_with_gradients(
    folded: Callable[[], Tensor], plain: Callable[[], Tensor], variables: list[Tensor], tolerance: float
) -> None:
    slopes = torch.randn_like(plain())
    for found, expected in zip(
        (folded(), *torch.autograd.grad(folded(), variables, slopes)),
        (plain(), *torch.autograd.grad(plain(), variables, slopes)),
        strict=True,
    ):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("space", [(5,), (4, 3), (2, 3, 4)])
def test_a_scaled_map_is_the_map_of_the_scaled_field(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, *space, C, dtype=torch.float64, requires_grad=True)
    scale, offset = (torch.randn(3, C, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(OUT, C, dtype=torch.float64, requires_grad=True)

    def plain() -> Tensor:
        lone = (slice(None), *[None] * len(space))
        return functional.linear(scale[lone] * x + offset[lone], weight)

    # sums of up to 72 numbers of order one, in double
    close_with_gradients(lambda: scaled_map(x, scale, offset, weight), plain, [x, scale, offset, weight], 1e-12)


def modules(bias: bool = True, kind: torch.dtype = torch.float64) -> tuple[nn.LayerNorm, nn.Linear]:
    norm, layer = nn.LayerNorm(C).to(kind), nn.Linear(C, OUT, bias=bias).to(kind)
    with torch.no_grad():
        norm.weight.add_(0.3 * torch.randn(C))
        norm.bias.add_(torch.randn(C))
    return norm, layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 3, 4, 2)])
def test_a_layer_norm_map_is_the_map_of_the_norm(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    norm, layer = modules(bias)
    x = (3 + torch.randn(*shape, C, dtype=torch.float64)).requires_grad_()
    variables = [x, *norm.parameters(), *layer.parameters()]
    close_with_gradients(lambda: layer_norm_map(x, norm, layer), lambda: layer(norm(x)), variables, 1e-12)


def test_a_point_without_spread_gives_the_constant() -> None:
    norm, layer = modules()
    x = torch.full((2, C), 5.0, dtype=torch.float64, requires_grad=True)
    out = layer_norm_map(x, norm, layer)
    # eps keeps the scale at 316, which multiplies the rounding errors of the centred weights
    torch.testing.assert_close(out, layer(norm.bias).expand(2, OUT), rtol=0, atol=1e-11)
    assert bool(torch.autograd.grad(out.sum(), x)[0].isfinite().all())


def test_a_large_offset_costs_no_more_than_its_rounding() -> None:
    """1000 spreads away from zero; the same float32 numbers in double are the truth."""
    torch.manual_seed(2)
    norm, layer = modules()
    x = (1e3 + torch.randn(200, C)).requires_grad_()
    exact = layer(norm(x.double()))
    slopes = torch.randn_like(exact)
    expected = torch.autograd.grad(exact, x, slopes)[0]
    norm, layer = norm.float(), layer.float()
    found = layer_norm_map(x, norm, layer)
    slope = torch.autograd.grad(found, x, slopes.float())[0]
    # 12 products of numbers of 1000 with weights below 0.5, each rounded by up to eps / 2 (6e-8) and added at random:
    # 1e-4, and the largest of 1400 of them; a variance from the mean square would be wrong by 1000^2 eps = 0.1
    assert float((found - exact).detach().abs().max()) < 4e-4
    assert float((slope - expected).abs().max()) < 4e-4


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept_and_costs_its_rounding(kind: torch.dtype) -> None:
    torch.manual_seed(3)
    norm, layer = modules(kind=torch.float32)
    x = torch.randn(50, 3, C).to(kind)
    scale, offset = torch.rand(50, C), torch.randn(50, C)
    pairs = [
        (layer_norm_map(x, norm, layer), layer(norm(x.float()))),
        (
            scaled_map(x, scale, offset, layer.weight),
            functional.linear(scale[:, None] * x.float() + offset[:, None], layer.weight),
        ),
    ]
    for found, expected in ((a.detach(), b.detach()) for a, b in pairs):
        assert found.dtype == kind
        # weights, products and constants are rounded once each, to half an eps of their size
        assert float((found.float() - expected).abs().max()) < 2 * torch.finfo(kind).eps * float(expected.abs().max())
