from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from physml.nn.solenoidal import Formulas, with_curl


def divergence(field, points: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    """Of a field of as many channels as axes, and the norm of its gradient."""
    eye = torch.eye(points.shape[-1], dtype=points.dtype)
    slopes = [torch.func.jvp(field, (points,), (e.expand_as(points),))[1] for e in eye]
    gradient = torch.stack(slopes, dim=-1)
    return gradient.diagonal(dim1=-2, dim2=-1).sum(dim=-1), gradient.flatten(-2).norm(dim=-1)


def test_curl_of_a_known_vector_potential() -> None:
    points = torch.rand(2, 5, 3, dtype=torch.float64)

    def fields(p: Tensor) -> Tensor:
        x, y, z = p.unbind(-1)
        return torch.stack([x + 2, y * z, x * x * z, x * y], dim=-1)

    x, y, z = points.unbind(-1)
    expected = torch.stack([x + 2, x - x * x, y - y, 2 * x * z - z], dim=-1)  # by hand
    torch.testing.assert_close(with_curl(fields, points), expected, rtol=0, atol=1e-14)
    halved = with_curl(fields, points, unit=0.5)
    torch.testing.assert_close(halved, expected * torch.tensor([1, 0.5, 0.5, 0.5]).double(), rtol=0, atol=1e-14)


def test_velocity_of_a_stream_function() -> None:
    """The potential of a plane vortex: it turns the way it should, clockwise for a minimum at the origin."""
    points = torch.rand(1, 6, 2, dtype=torch.float64)
    found = with_curl(lambda p: p.square().sum(dim=-1, keepdim=True) / 2, points)
    torch.testing.assert_close(found, torch.stack([points[..., 1], -points[..., 0]], dim=-1))


def test_curl_through_attention_has_no_divergence() -> None:
    torch.manual_seed(0)
    keys, values = torch.randn(2, 1, 1, 9, 4, dtype=torch.float64)
    lift, head = torch.randn(4, 3, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)

    def fields(p: Tensor) -> Tensor:
        q = functional.linear((3 * p).sin(), lift)[:, None]
        return functional.linear(functional.scaled_dot_product_attention(q, keys, values)[:, 0], head)

    points = torch.rand(1, 50, 3, dtype=torch.float64)
    found, size = divergence(lambda p: with_curl(fields, p), points)
    assert (found.abs() / size).max() < 1e-13  # rounding of sums of nine derivatives
    with Formulas():
        control, size = divergence(fields, points)
    assert (control.abs() / size).max() > 0.1


def network(points: Tensor, weight: Tensor) -> Tensor:
    """Layer norm and attention to fixed keys: three channels of three coordinates."""
    keys = torch.linspace(-1, 1, 15, dtype=points.dtype).reshape(1, 1, 5, 3)
    x = functional.layer_norm(functional.linear((math.pi * points).cos(), weight), (3,), weight[0], weight[1], 1e-6)
    return functional.scaled_dot_product_attention(x[:, None], keys, keys.square())[:, 0]


def test_the_curl_can_be_differentiated() -> None:
    """As training does: a loss of a curl, by the weights that made it. Torch's own layer norm gets this wrong."""
    points = torch.rand(1, 4, 3, dtype=torch.float64)
    weight = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: with_curl(lambda p: network(p, w), points).square().sum(), (weight,))


def test_formulas_are_those_of_the_kernels() -> None:
    points, weight = torch.rand(2, 4, 3, dtype=torch.float64), torch.rand(3, 3, dtype=torch.float64)
    q, mask = points[:, None], torch.tensor([True, False, True, True]).expand(2, 1, 4, 4)

    def both() -> tuple[Tensor, ...]:
        masked = functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        return network(points, weight), masked, functional.layer_norm(points.bfloat16(), (4, 3))

    kernels = both()
    with Formulas():
        formulas = both()
    for kernel, formula in zip(kernels[:2], formulas[:2], strict=True):
        torch.testing.assert_close(kernel, formula, rtol=0, atol=1e-14)
    torch.testing.assert_close(kernels[2], formulas[2], rtol=2**-7, atol=0)  # one unit in the last place
