r"""FactFormer: a transformer whose attention is factorised over the axes of the grid.

Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling", NeurIPS 2023, arXiv 2305.17560. Each
layer turns the field into one kernel per axis (:mod:`physml.nn.factorised`), applies the kernels to values, and mixes
channels point by point. Several frames are predicted per call by marching in the latent space of the last layer.

Both the published network and a corrected one are made from this class;
``experiments/kolmogorov2d/factformer_published.yaml`` holds the arguments of the former. The default differs from the
paper in these points:

* the kernels are quadratures with unit-size queries and keys (:class:`ScaledKernels`), because the published start
  leaves the block's output to the epsilon of the norm, which depends on the resolution and, in three dimensions,
  stops learning;
* rotary and position features fit the period (:class:`ScaledKernels`, :class:`Harmonics`), because the published ones
  break translation symmetry and alias;
* the kernels act in parallel on the same values instead of one after the other, as in IFactFormer-m (Yang et al.
  2024, arXiv 2412.18840), each result with a norm and an output map of its own;
* a depthwise convolution beside the attention carries small scales: a kernel made of averages over planes cannot;
* a feed-forward layer follows;
* points are read and written in patches, which trades resolution inside the network for width.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from physml.configured import Configured
from physml.fields import Grid
from physml.nn.factorised import InstanceNorm, KernelNorm, Kernels, ScaledKernels, axis_mean, mode_product
from physml.nn.mlp import MLP
from physml.nn.padding import pad
from physml.nn.patching import coarse, gather, scatter
from physml.nn.positional import Positions
from physml.operators.operator import Operator


class Head(Configured):
    """How latent frames become fields, point by point; :meth:`build` makes the layer."""

    @abstractmethod
    def build(self, latent: int, width: int, outputs: int) -> nn.Module:
        """A module ``(B, *space, latent) -> (B, *space, outputs)``."""


class PointHead(Head):
    """Layer norm and a two-layer perceptron."""

    def build(self, latent: int, width: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(latent), MLP(inputs=latent, hidden=width, outputs=outputs))


class PublishedHead(Head):
    """Group norm over space, a grouped linear map to ``width``, then two more, GELU between them.

    Args:
        norm_groups: of the group norm; its statistics are of one frame, so that frames do not depend on how many are
            decoded.
        groups: of the first linear map.
    """

    def __init__(self, *, norm_groups: int = 16, groups: int = 8) -> None:
        self.norm_groups, self.groups = norm_groups, groups

    def build(self, latent: int, width: int, outputs: int) -> nn.Module:
        return _PublishedHead(self.norm_groups, self.groups, latent, width, outputs)


class _PublishedHead(nn.Module):
    def __init__(self, norm_groups: int, groups: int, latent: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(norm_groups, latent),
            nn.Conv1d(latent, width, 1, groups=groups, bias=False),
            nn.GELU(),
            nn.Conv1d(width, width // 2, 1, bias=False),
            nn.GELU(),
            nn.Conv1d(width // 2, outputs, 1),
        )

    def forward(self, y: Tensor) -> Tensor:
        points = y.flatten(1, -2).transpose(1, 2)
        return self.layers(points).transpose(1, 2).unflatten(1, y.shape[1:-1])


class AxisFunction(nn.Module):
    """``phi_m``, the function of one coordinate: a linear map of the average over the other axes, layer norm, and a
    gated perceptron.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, mean: Tensor) -> Tensor:
        """``(B, S_m, C)``, averaged already, to the same shape."""
        phi = self.norm(self.project(mean))
        a, b = self.gate(phi).chunk(2, dim=-1)
        return self.out(functional.gelu(a) * b)


class FactorisedAttention(nn.Module):
    """One block: kernels from axis functions, mode products of the values, norm, output map."""

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
    ) -> None:
        super().__init__()
        self.heads, self.product, self.kernel_norm = heads, product, norm
        self.norm = nn.LayerNorm(width)
        self.values = nn.Linear(width, heads * head_width, bias=False)
        self.common = nn.Linear(width, width, bias=False)
        self.functions = nn.ModuleList(AxisFunction(width) for _ in range(axes))
        key_width = kernel_multiplier * head_width
        self.kernels = nn.ModuleList(kernels.build(width, heads, key_width, kernel_multiplier) for _ in range(axes))
        parts = 1 if product == "chained" else axes
        self.merge = nn.ModuleList(nn.Linear(heads * head_width, width, bias=False) for _ in range(parts))
        self.local = LocalConvolution(width, axes, convolution) if convolution else None
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, u: Tensor, grid: Grid) -> Tensor:
        h = self.norm(u)
        v = self.values(h).unflatten(-1, (self.heads, -1))
        # the linear maps before the average commute with it: averaging first saves the size of the other axes
        kernels = [
            kernel(function(self.common(axis_mean(h, grid, m))), grid.axes[m])
            for m, (function, kernel) in enumerate(zip(self.functions, self.kernels, strict=True))
        ]
        if self.product == "chained":
            for m, kernel in enumerate(kernels):
                v = mode_product(kernel, v, m)
            parts = [v]
        else:
            parts = [mode_product(kernel, v, m) for m, kernel in enumerate(kernels)]
        total: Tensor | float = 0.0
        for z, merge in zip(parts, self.merge, strict=True):
            total = total + merge(self.kernel_norm(z, grid).to(u.dtype).flatten(-2))
        if self.local is not None:
            total = total + self.local(h, grid)
        assert isinstance(total, Tensor)
        return self.out(functional.gelu(total))


class LocalConvolution(nn.Module):
    """A depthwise convolution of ``size^D`` points, padded as the boundaries ask, then a linear map of the channels."""

    def __init__(self, width: int, axes: int, size: int) -> None:
        super().__init__()
        if size % 2 == 0 or not 1 <= axes <= 3:
            raise ValueError(
                f"convolution: got size {size} on {axes} axes; expected an odd size and one to three axes."
            )
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        self.reach = size // 2
        self.depthwise = kinds[axes - 1](width, width, size, groups=width)
        self.mix = nn.Linear(width, width, bias=False)

    def forward(self, h: Tensor, grid: Grid) -> Tensor:
        x = self.depthwise(pad(h.movedim(-1, 1), self.reach, grid.boundaries))
        return self.mix(x.movedim(1, -1))


class FactFormer(Operator):
    """Factorised transformer on grids of any dimension.

    Shapes: window ``(B, T, *space, C)``, ``T = frames``, ``C = channels``; the result ``(B, steps, *space, C)``.

    Args:
        axes: space dimensions D.
        channels: fields C.
        frames: frames read T.
        steps: most frames predicted by one call K.
        width: channels inside the network.
        depth: layers.
        heads, head_width: H and V of the values.
        kernel_multiplier: width of queries and keys over ``head_width``.
        latent_multiplier: width of the latent space that is marched in, over ``width``.
        patch: points per axis that form one token.
        product: ``parallel`` kernels on the same values, or ``chained`` one after the other (published).
        kernels: how kernels are made; :class:`ScaledKernels` if not given, :class:`PublishedKernels` for the paper's.
        norm: after the mode products; :class:`InstanceNorm` if not given.
        positions: position features added before each layer, none if ``None``. Needed where the physics depends on
            the place (forcing, walls); without them and with ``patch=1`` the network commutes with shifts on periodic
            axes.
        convolution: points per axis of the local branch, 0 for none (published).
        feedforward: width of the feed-forward layer over ``width``, 0 for none (published).
        layer_scale: initial factor of every branch, learnt per channel; none if ``None``. For very deep networks; a
            start of 0.01 slowed the short runs it was tried on.
        head: last layers; :class:`PointHead` if not given.
        checkpointing: recompute each layer in the backward pass instead of storing it.

    A good start for 2-D flows of 128^2 points: ``width=192, depth=4, heads=6, head_width=32, patch=2``.
    """

    def __init__(
        self,
        *,
        axes: int,
        channels: int = 1,
        frames: int = 10,
        steps: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        head_width: int = 32,
        kernel_multiplier: int = 2,
        latent_multiplier: float = 1.0,
        patch: int = 1,
        product: Literal["chained", "parallel"] = "parallel",
        kernels: Kernels | None = None,
        norm: KernelNorm | None = None,
        positions: Positions | None = None,
        convolution: int = 5,
        feedforward: float = 2.0,
        layer_scale: float | None = None,
        head: Head | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name in ("axes", "channels", "frames", "steps", "width", "depth", "heads", "head_width", "patch"):
            if self.arguments.get(name, 1) < 1:
                raise ValueError(f"{name}: got {self.arguments[name]}, expected at least 1.")
        self.axes, self.channels, self.frames, self.steps, self.patch = axes, channels, frames, steps, patch
        self.checkpointing = checkpointing
        kernels, norm = kernels or ScaledKernels(), norm or InstanceNorm()
        inside, latent = patch**axes, int(latent_multiplier * width)
        self.lift = nn.Linear(frames * channels * inside, width)
        self.layers = nn.ModuleList(
            _Layer(
                FactorisedAttention(
                    axes=axes,
                    width=width,
                    heads=heads,
                    head_width=head_width,
                    kernel_multiplier=kernel_multiplier,
                    product=product,
                    kernels=kernels,
                    norm=norm,
                    convolution=convolution,
                ),
                None if positions is None else positions.build(axes, width),
                int(feedforward * width),
                width,
                layer_scale,
            )
            for _ in range(depth)
        )
        self.expand = nn.Linear(width, latent, bias=False)
        self.clock = nn.Parameter(0.02 * torch.randn(steps, latent))
        self.march = nn.Sequential(nn.LayerNorm(latent), MLP(inputs=latent, hidden=width, outputs=latent))
        self.head = (head or PointHead()).build(latent, width, channels * inside)

    def forward(self, window: Tensor, grid: Grid, steps: int) -> Tensor:
        self.check(window, steps)
        u = window.movedim(1, -2).flatten(-2)
        u = self.lift(gather(u, self.patch))
        tokens = coarse(grid, self.patch)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                u = checkpoint(layer, u, tokens, use_reentrant=False)
            else:
                u = layer(u, tokens)
        y = self.expand(u)
        out = []
        for tau in range(steps):
            y = y + self.clock[tau]
            y = y + self.march(y)
            out.append(scatter(self.head(y), self.patch))
        return torch.stack(out, dim=1)


class _Layer(nn.Module):
    """Positions, attention and feed-forward, each added to the field."""

    def __init__(
        self,
        attention: FactorisedAttention,
        positions: nn.Module | None,
        feedforward: int,
        width: int,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        self.positions, self.attention = positions, attention
        self.feedforward = (
            nn.Sequential(nn.LayerNorm(width), MLP(inputs=width, hidden=feedforward, outputs=width))
            if feedforward
            else None
        )
        branches = 1 + bool(feedforward)
        self.scales = None if layer_scale is None else nn.Parameter(layer_scale * torch.ones(branches, width))

    def forward(self, u: Tensor, grid: Grid) -> Tensor:
        if self.positions is not None:
            u = u + self.positions(grid).to(u.dtype)
        attended = self.attention(u, grid)
        u = u + (attended if self.scales is None else self.scales[0] * attended)
        if self.feedforward is not None:
            passed = self.feedforward(u)
            u = u + (passed if self.scales is None else self.scales[1] * passed)
        return u
