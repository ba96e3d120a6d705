r"""FactFormer: a transformer whose attention is factorised over the axes of the grid.

Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling", NeurIPS 2023, arXiv 2305.17560. Each
layer turns the field into one kernel per axis (:mod:`physml.nn.factorised`), applies the kernels to values, and mixes
channels point by point. Several frames are predicted per call by marching in the latent space of the last layer.

The published networks and a corrected one are made from this class; the files ``*_published.yaml`` of
``experiments/kolmogorov2d``, ``smoke3d``, ``isotropic3d`` and ``darcy`` hold the arguments of the former. The corrected
form, in the files ``factformer.yaml`` beside them, differs from the paper in these points (all but patches, positions
and blending are the constructor's defaults):

* the kernels are quadratures with unit-size queries and keys (:class:`ScaledKernels`), because the published start
  leaves the block's output to the epsilon of the norm, which depends on the resolution and, in three dimensions,
  stops learning;
* rotary and position features fit the period (:class:`ScaledKernels`, :class:`Harmonics`), because the published ones
  break translation symmetry and alias;
* the kernels act in parallel on the same values instead of one after the other, as in IFactFormer-m (Yang et al.
  2024, arXiv 2412.18840), each result with a norm and an output map of its own;
* a depthwise convolution beside the attention carries small scales: a kernel made of averages over planes cannot;
* a feed-forward layer follows;
* points are read and written in patches, which trades resolution inside the network for width, and a small convolution
  blends the borders of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from physml.fields import Axis, Grid, Setting
from physml.nn.factorised import InstanceNorm, KernelNorm, Kernels, ScaledKernels
from physml.nn.folding import layer_norm_map, widened
from physml.nn.mlp import MLP
from physml.nn.patching import coarse, gather, scatter
from physml.nn.positional import Positions
from physml.operators.factformer.attention import AxisFunctions, FactorisedAttention, LocalConvolution
from physml.operators.factformer.ends import (
    Blend,
    CoarseBranch,
    Decoder,
    Head,
    Lift,
    LinearLift,
    Marching,
    PointHead,
    PublishedHead,
    SteadyDecoder,
    TimeLift,
)
from physml.operators.operator import Operator

__all__ = [
    "AxisFunctions",
    "Blend",
    "CoarseBranch",
    "Decoder",
    "FactFormer",
    "FactorisedAttention",
    "Head",
    "Lift",
    "LinearLift",
    "LocalConvolution",
    "Marching",
    "PointHead",
    "PublishedHead",
    "SteadyDecoder",
    "TimeLift",
]


class FactFormer(Operator):
    """Factorised transformer on grids of any dimension.

    Shapes: window ``(B, T, *space, C)``, ``T = frames``, ``C = channels``; the result ``(B, steps, *space, C)``.

    Args:
        axes: space dimensions D.
        channels: fields C.
        frames: frames read T.
        steps: most frames predicted by one call K.
        static: fields read that do not change in time.
        condition: names of the numbers read that hold for a whole trajectory. They scale and shift the input of every
            branch (as adaLN does, Peebles & Xie 2023, arXiv 2212.09748), starting from no effect.
        width: channels inside the network.
        depth: layers.
        heads, head_width: H and V of the values.
        kernel_multiplier: width of queries and keys over ``head_width``.
        patch: points per axis that form one token.
        margin: points of value zero added at the high end of every axis while the layers act (published for walls: 2).
        product: ``parallel`` kernels on the same values, or ``chained`` one after the other (published).
        kernels: how kernels are made; :class:`ScaledKernels` if not given, :class:`PublishedKernels` for the paper's.
        norm: after the mode products; :class:`InstanceNorm` if not given.
        layer_norm: bring the channels of each point to zero mean and unit variance before each branch. Without it the
            branches know how strong the field is at a point, and the sum of the layers is kept in single precision at
            least.
        positions: position features added before each layer, none if ``None``. Needed where the physics depends on
            the place (forcing, walls); without them and with ``patch=1`` the network commutes with shifts on periodic
            axes.
        convolution: points per axis of the local branch, 0 for none (published).
        feedforward: width of the feed-forward layer over ``width``, 0 for none (published).
        layer_scale: initial factor of every branch, learnt per channel; none if ``None``. For very deep networks; a
            start of 0.01 slowed the short runs it was tried on.
        lift: first layer; :class:`LinearLift` if not given.
        branch: convolutions beside the output of the last layer; none if ``None``.
        decoder: last layers; :class:`Marching` if not given.
        blend: features of each point from which a convolution of three points makes the fields, across the borders of
            patches; 0 makes the fields patch by patch, which leaves a checkerboard in long rollouts.
        recompute: what the backward pass computes again instead of keeping it: ``nothing``; ``products``, the values
            of chained kernels and their products but for the last (parallel kernels have nothing to gain from it); or
            ``layers``, all but the inputs of layers and latent frames.

    A good start for 2-D flows of 128^2 points: ``width=384, depth=4, heads=12, head_width=32, patch=4``.
    """

    def __init__(
        self,
        *,
        axes: int,
        channels: int = 1,
        frames: int = 10,
        steps: int = 4,
        static: int = 0,
        condition: Sequence[str] = (),
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        head_width: int = 32,
        kernel_multiplier: int = 2,
        patch: int = 1,
        margin: int = 0,
        product: Literal["chained", "parallel"] = "parallel",
        kernels: Kernels | None = None,
        norm: KernelNorm | None = None,
        layer_norm: bool = True,
        positions: Positions | None = None,
        convolution: int = 5,
        feedforward: float = 2.0,
        layer_scale: float | None = None,
        lift: Lift | None = None,
        branch: CoarseBranch | None = None,
        decoder: Decoder | None = None,
        blend: int = 0,
        recompute: Literal["nothing", "products", "layers"] = "nothing",
    ) -> None:
        super().__init__()
        for name in ("axes", "channels", "steps", "width", "depth", "heads", "head_width", "patch"):
            if self.arguments.get(name, 1) < 1:
                raise ValueError(f"{name}: got {self.arguments[name]}, expected at least 1.")
        if min(frames, static, margin) < 0 or frames + static == 0:
            raise ValueError(
                f"frames, static, margin: got {frames}, {static}, {margin}; expected 0 or more, and a frame or a "
                "static field to read."
            )
        if kernel_multiplier * head_width % 2:
            raise ValueError(
                f"kernel_multiplier, head_width: got {kernel_multiplier} and {head_width}; their product, the width of "
                "queries and keys, must be even for the rotary encoding."
            )
        self.axes, self.channels, self.frames, self.steps = axes, channels, frames, steps
        self.static, self.condition = static, tuple(condition)
        self.patch, self.margin, self.layer_norm, self.recompute = patch, margin, layer_norm, recompute
        kernels, norm = kernels or ScaledKernels(), norm or InstanceNorm()
        inside = patch**axes
        self.lift = (lift or LinearLift()).build(frames, channels * inside, static * inside, width)
        self.embed = MLP(inputs=len(self.condition), hidden=width, outputs=width) if self.condition else None
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
                    recompute=recompute == "products",
                ),
                None if positions is None else positions.build(axes, width),
                int(feedforward * width),
                width,
                layer_norm,
                layer_scale,
                bool(self.condition),
            )
            for _ in range(depth)
        )
        self.branch = None if branch is None else branch.build(width, axes)
        outputs = width if branch is None else 2 * width
        decode = decoder or Marching()
        self.decoder = decode.build(outputs, width, steps, (blend or channels) * inside, recompute == "layers")
        self.blend = Blend(blend, channels, axes) if blend else None

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``."""
        self.check(window, steps, setting)
        fields = None if setting is None or not self.static else setting.fields
        numbers = None if setting is None or self.embed is None else setting.numbers
        points = window.movedim(1, -2).flatten(-2)
        inside = self.patch**self.axes
        x = gather(points, self.patch).unflatten(-1, (inside, self.frames, self.channels)).movedim(-3, -2).flatten(-2)
        still = None if fields is None else gather(fields, self.patch)
        u = self.lift(x, still)
        tokens = coarse(grid, self.patch)
        if self.margin:
            u = functional.pad(u, [0, 0] + [0, self.margin] * self.axes)
            tokens = Grid(tuple(_extended(axis, self.margin) for axis in tokens.axes))
        mood = None if self.embed is None else self.embed(numbers)
        kind = u.dtype
        u = u if self.layer_norm else widened(u)
        for layer in self.layers:
            if self.recompute == "layers" and torch.is_grad_enabled():
                u = checkpoint(layer, u, tokens, mood, kind, use_reentrant=False, preserve_rng_state=False)
            else:
                u = layer(u, tokens, mood, kind)
        for axis in range(1, self.axes + 1) if self.margin else ():
            u = u.narrow(axis, 0, u.shape[axis] - self.margin)
        if self.branch is not None:
            u = torch.cat([u, self.branch(u)], dim=-1)
        frames = [scatter(frame, self.patch) for frame in self.decoder(u, steps)]
        if self.blend is not None:
            frames = list(self.blend(torch.cat(frames), grid).chunk(steps))
        return torch.stack(frames, dim=1)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the layers and the decoder one by one: the layers share one graph, so it takes a fraction of the
        time that the whole would.
        """
        for part in [*self.layers, self.decoder, *([self.blend] if self.blend else [])]:
            part.compile(*args, **options)


def _extended(axis: Axis, points: int) -> Axis:
    """More points at the high end, at the distance of the last two."""
    step = axis.points[-1] - axis.points[-2]
    more = axis.points[-1] + step * torch.arange(1, points + 1, device=step.device, dtype=step.dtype)
    weights = torch.cat([axis.weights, axis.weights[-1:].expand(points)])
    return replace(
        axis,
        points=torch.cat([axis.points, more]),
        weights=weights,
        length=axis.length * (len(axis.points) + points) / len(axis.points),
        uniform=axis.uniform,
    )


class _Layer(nn.Module):
    """Positions, attention and feed-forward, each added to the field."""

    def __init__(
        self,
        attention: FactorisedAttention,
        positions: nn.Module | None,
        feedforward: int,
        width: int,
        layer_norm: bool,
        layer_scale: float | None,
        conditioned: bool,
    ) -> None:
        super().__init__()
        self.positions, self.attention = positions, attention
        self.norm = nn.LayerNorm(width) if layer_norm else None
        self.feedforward_norm = nn.LayerNorm(width) if feedforward and layer_norm else None
        self.feedforward = MLP(inputs=width, hidden=feedforward, outputs=width) if feedforward else None
        branches = 1 + bool(feedforward)
        self.scales = None if layer_scale is None else nn.Parameter(layer_scale * torch.ones(branches, width))
        self.modulate = nn.Linear(width, 2 * branches * width) if conditioned else None
        if self.modulate is not None:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def forward(self, u: Tensor, grid: Grid, mood: Tensor | None, kind: torch.dtype) -> Tensor:
        """``kind`` is the type that the branches compute in."""
        factors: Sequence[Tensor] = ()
        if self.modulate is not None and mood is not None:
            parts = self.modulate(functional.silu(mood)).unflatten(-1, (-1, u.shape[-1]))
            factors = parts.reshape(len(u), -1, *[1] * (u.ndim - 2), u.shape[-1]).unbind(1)
        if self.positions is not None:
            u = u + self.positions(grid).to(u.dtype)
        h = u if self.norm is None else self.norm(u)
        attended = self.attention(_modulated(h, factors[:2]).to(kind), grid)
        u = u + (attended if self.scales is None else self.scales[0] * attended)
        if self.feedforward is not None:
            if factors or self.feedforward_norm is None:
                h = u if self.feedforward_norm is None else self.feedforward_norm(u)
                passed = self.feedforward(_modulated(h, factors[2:]).to(kind))
            else:
                hidden = layer_norm_map(u, self.feedforward_norm, self.feedforward.first)
                passed = self.feedforward.second(functional.gelu(hidden))
            u = u + (passed if self.scales is None else self.scales[1] * passed)
        return u


def _modulated(h: Tensor, factors: Sequence[Tensor]) -> Tensor:
    return h * (1 + factors[0]) + factors[1] if factors else h
