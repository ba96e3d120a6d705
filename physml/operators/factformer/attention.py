"""One block of factorised attention: kernels from axis functions, mode products of the values, norm, output map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from physml.fields import Grid
from physml.nn.depthwise import DepthwiseConvolution
from physml.nn.factorised import AxisLinear, KernelNorm, Kernels, axis_means, normalised_map
from physml.nn.mode_product import mode_product


class AxisFunctions(nn.Module):
    """``phi_m``, a function of each coordinate: a linear map of the average over the other axes, layer norm, and a
    gated perceptron.
    """

    def __init__(self, axes: int, width: int) -> None:
        super().__init__()
        self.project = AxisLinear(axes, width, width, bias=False)
        self.scale, self.offset = nn.Parameter(torch.ones(axes, width)), nn.Parameter(torch.zeros(axes, width))
        self.gate = AxisLinear(axes, width, 2 * width)
        self.out = AxisLinear(axes, width, width)

    def forward(self, means: Tensor) -> Tensor:
        """``(D, B, S, C)``, averaged already, to the same shape."""
        phi = functional.layer_norm(self.project(means), means.shape[-1:])
        a, b = self.gate(phi * self.scale[:, None, None] + self.offset[:, None, None]).chunk(2, dim=-1)
        return self.out(functional.gelu(a) * b)


class FactorisedAttention(nn.Module):
    """The block, from normalised channels to what is added to the field.

    Args:
        axes: space dimensions D.
        width: channels C.
        heads, head_width: H and V of the values.
        kernel_multiplier: width of queries and keys over ``head_width``.
        product: kernels ``parallel`` on the same values, each result with a norm and map of its own, or ``chained``.
        kernels: how they are made.
        norm: after the mode products.
        convolution: points per axis of the local branch, 0 for none.
        recompute: make the values, and products of them that are not normalised, anew in the backward pass.
    """

    def __init__(
        self,
        *,
        axes: int,
        width: int,
        heads: int,
        head_width: int,
        kernel_multiplier: int,
        product: Literal["chained", "parallel"],
        kernels: Kernels,
        norm: KernelNorm,
        convolution: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.product, self.kernel_norm, self.recompute = heads, product, norm, recompute
        self.values = nn.Linear(width, heads * head_width, bias=False)
        self.common = nn.Linear(width, width, bias=False)
        self.functions = AxisFunctions(axes, width)
        self.kernels = kernels.build(axes, width, heads, kernel_multiplier * head_width, kernel_multiplier)
        parts = 1 if product == "chained" else axes
        self.merge = nn.ModuleList(nn.Linear(heads * head_width, width, bias=False) for _ in range(parts))
        self.local = LocalConvolution(width, axes, convolution) if convolution else None
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor, grid: Grid) -> Tensor:
        """``(B, *space, C)`` to the same."""
        # the linear maps before the average commute with it: averaging first saves the size of the other axes
        kernels = self.kernels(self.functions(self.common(axis_means(h, grid))), grid)
        last = len(kernels) - 1
        if self.recompute and torch.is_grad_enabled():
            v = checkpoint(self._values, h, *kernels[:last], use_reentrant=False, preserve_rng_state=False)
        else:
            v = self._values(h, *kernels[:last])
        if self.product == "parallel":
            parts = [mode_product(kernel, v, m) for m, kernel in enumerate(kernels)]
        else:
            parts = [mode_product(kernels[last], v, last)]
        total: Tensor | float = 0.0
        for z, merge in zip(parts, self.merge, strict=True):
            weight = merge.weight
            assert isinstance(weight, Tensor)
            total = total + normalised_map(z, self.kernel_norm, grid, weight)
        if self.local is not None:
            total = total + self.local(h, grid)
        assert isinstance(total, Tensor)
        return self.out(functional.gelu(total))

    def _values(self, h: Tensor, *kernels: Tensor) -> Tensor:
        """The values and, where kernels are chained, their products with all but the last."""
        v = self.values(h).unflatten(-1, (self.heads, -1))
        for m, kernel in enumerate(kernels if self.product == "chained" else ()):
            v = mode_product(kernel, v, m)
        return v


class LocalConvolution(nn.Module):
    """A depthwise convolution of ``size^D`` points, then a linear map of the channels."""

    def __init__(self, width: int, axes: int, size: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConvolution(channels=width, axes=axes, size=size)
        self.mix = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor, grid: Grid) -> Tensor:
        return self.mix(self.depthwise(h, grid))
