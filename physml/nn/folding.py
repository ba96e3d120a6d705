"""Linear maps of normalised fields that do not write the normalised field: the norm moves into the weights.

A field is read and written far slower than it is multiplied. These functions give what a norm followed by a linear map
gives, to rounding, and save a copy of the field in time and, for the backward pass, in memory. The mean is taken off
with the product, not before it, so that rounding errors grow with the mean over the spread: in half precision the two
should be of one size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def scaled_map(x: Tensor, scale: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """``W (scale x + offset)`` with numbers that hold for a whole sample.

    Args:
        x: ``(B, *space, C)``.
        scale, offset: ``(B, C)``.
        weight: W, ``(O, C)``.

    Returns:
        ``(B, *space, O)``, of the type of ``x``.
    """
    weight = widened(weight)
    weights = (weight * widened(scale)[:, None]).to(x.dtype)
    constant = (weight * widened(offset)[:, None]).sum(dim=-1)[:, None].to(x.dtype)
    product = torch.bmm(x.flatten(1, -2), weights.transpose(1, 2))
    return (product + constant).unflatten(1, x.shape[1:-1])


def layer_norm_map(x: Tensor, norm: nn.LayerNorm, layer: nn.Linear) -> Tensor:
    """``layer(norm(x))``: centring and the norm's weights move into the matrix, the scale of each point behind it.

    Args:
        x: ``(..., C)``.
        norm: over C, with weights.
        layer: C to O, with bias or without.

    Returns:
        ``(..., O)``, of the type that the layer gives.
    """
    full = widened(x)
    scale = torch.rsqrt(full.var(dim=-1, correction=0, keepdim=True) + norm.eps)
    weight = widened(layer.weight) * norm.weight
    constant = (widened(layer.weight) * norm.bias).sum(dim=-1)
    if layer.bias is not None:
        constant = constant + layer.bias
    product = functional.linear(x, (weight - weight.mean(dim=1, keepdim=True)).to(x.dtype))
    return (product * scale + constant).to(product.dtype)


def widened(x: Tensor) -> Tensor:
    """At least fp32: half-precision numbers are widened, doubles are kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
