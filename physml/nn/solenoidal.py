r"""Fields without divergence: the curl of a potential that a network gives at any place.

For an antisymmetric potential :math:`A_{ij}`, which has D(D - 1)/2 entries, the field

.. math:: u_i = \sum_j \partial_j A_{ij}

has :math:`\sum_i \partial_i u_i = 0` because derivatives commute. In two dimensions the entry :math:`A_{12}` is a
stream function, :math:`u = (\partial_2 A_{12}, -\partial_1 A_{12})`; in three, :math:`(A_{23}, A_{31}, A_{12})` is a
vector potential and u its curl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from physml.nn.precision import full

ENTRIES = {2: ((0, 1),), 3: ((1, 2), (2, 0), (0, 1))}  # i and j of each entry, by dimension


def with_curl(fields: Callable[[Tensor], Tensor], points: Tensor, unit: float = 1.0) -> Tensor:
    """The fields at the points, their last D(D - 1)/2 channels, a potential, replaced by its curl.

    Forward mode: all D derivatives at once, beside the values, which can be differentiated again. Attention is computed
    by its formula meanwhile (:class:`Formulas`), so memory grows with points times keys: ask some points at a time.

    Args:
        fields: ``(B, N, D)`` to ``(B, N, C + D(D - 1)/2)``, each point by itself.
        points: ``(B, N, D)``, D 2 or 3.
        unit: length, in the unit of the points, that derivatives are taken per.

    Returns:
        ``(B, N, C + D)``.
    """
    axes = points.shape[-1]
    entries = ENTRIES[axes]

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = torch.func.jvp(fields, (points,), (direction.expand_as(points),))[:2]
        return values, slopes

    directions = unit * torch.eye(axes, device=points.device, dtype=points.dtype)
    with Formulas():
        (values, *_), slopes = torch.func.vmap(along)(directions)  # the same values along each direction
    direct = values[..., : -len(entries)]
    curl = [torch.zeros_like(values[..., 0]) for _ in range(axes)]
    for entry, (i, j) in enumerate(entries, start=values.shape[-1] - len(entries)):
        curl[i] = curl[i] + slopes[j, ..., entry]
        curl[j] = curl[j] - slopes[i, ..., entry]
    return torch.cat([direct, torch.stack(curl, dim=-1)], dim=-1)


class Formulas(TorchFunctionMode):
    """While it is entered, attention and layer norm are computed by their formulas, not by kernels of their own.

    Fused attention has no forward mode. Layer norm has one whose own derivative is silently wrong (issue 196700 of
    PyTorch, seen in 2.13): the curl of a network would be right, and the gradient of a loss of it would not.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.layer_norm:
            func = _layer_norm
        elif func is functional.scaled_dot_product_attention:
            func = _attention
        return func(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    away = full(x) - full(x).mean(dim=axes, keepdim=True)
    y = away * (away.square().mean(dim=axes, keepdim=True) + eps).rsqrt()
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias).to(x.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if attn_mask is None else scores.masked_fill(~attn_mask, -torch.inf)).softmax(dim=-1) @ v
