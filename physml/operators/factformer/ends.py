"""What comes before and after the layers of FactFormer: how a window becomes channels, how channels become frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from physml.configured import Configured
from physml.fields import Boundary, Grid
from physml.nn.folding import layer_norm_map, scaled_map, widened
from physml.nn.mlp import MLP


class Lift(Configured):
    """How the window becomes the first channels; :meth:`build` makes the layer."""

    @abstractmethod
    def build(self, frames: int, channels: int, static: int, width: int) -> nn.Module:
        """A module ``(window (B, *space, T, C), static (B, *space, S) or None) -> (B, *space, width)``; C and S count
        the points of a patch too.
        """


class LinearLift(Lift):
    """One linear map of all frames and fields."""

    def build(self, frames: int, channels: int, static: int, width: int) -> nn.Module:
        return _LinearLift(frames * channels + static, width)


class _LinearLift(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(inputs, width)

    def forward(self, window: Tensor, static: Tensor | None) -> Tensor:
        x = window.flatten(-2)
        return self.map(x if static is None else torch.cat([x, static.to(x.dtype)], dim=-1))


class TimeLift(Lift):
    """Each frame's fields by a map that keeps them apart, GELU, then one map of all frames: published for 3-D."""

    def build(self, frames: int, channels: int, static: int, width: int) -> nn.Module:
        if static:
            raise ValueError("lift: TimeLift reads no static fields; use LinearLift.")
        if frames < 1 or width % (2 * channels):
            raise ValueError(
                f"lift: got width {width} for {channels} fields and {frames} frames; TimeLift needs one frame and a "
                "width that twice the number of fields divides."
            )
        return _TimeLift(frames, channels, width)


class _TimeLift(nn.Module):
    def __init__(self, frames: int, channels: int, width: int) -> None:
        super().__init__()
        # field c makes its own part of the channels: the grouped 1x1 convolution of the source
        self.apart = nn.Conv1d(channels, width // 2, 1, groups=channels)
        self.map = nn.Linear(frames * (width // 2), width, bias=False)

    def forward(self, window: Tensor, static: Tensor | None) -> Tensor:
        channels = window.shape[-1]
        weight = self.apart.weight.reshape(channels, -1).to(window.dtype)
        bias = None if self.apart.bias is None else self.apart.bias.reshape(channels, -1).to(window.dtype)
        assert bias is not None
        x = (window[..., None] * weight + bias).flatten(-2)  # (B, *space, T, width / 2)
        return self.map(functional.gelu(x).flatten(-2))


class Head(Configured):
    """How latent frames become fields, point by point; :meth:`build` makes the layer."""

    @abstractmethod
    def build(self, latent: int, width: int, outputs: int) -> nn.Module:
        """A module ``(B, *space, latent) -> (B, *space, outputs)``."""


class PointHead(Head):
    """Layer norm and a two-layer perceptron."""

    def build(self, latent: int, width: int, outputs: int) -> nn.Module:
        return _PointHead(latent, width, outputs)


class _PointHead(nn.Module):
    def __init__(self, latent: int, width: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.maps = nn.LayerNorm(latent), MLP(inputs=latent, hidden=width, outputs=outputs)

    def forward(self, y: Tensor) -> Tensor:
        return self.maps.second(functional.gelu(layer_norm_map(y, self.norm, self.maps.first)))


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
        return _PublishedHead(self.norm_groups, [latent, width, width // 2, outputs], self.groups)


class _PublishedHead(nn.Module):
    """Group norm, then linear maps with GELU between them; the first in groups, without bias but for the last."""

    def __init__(self, norm_groups: int, widths: Sequence[int], groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, widths[0])
        self.groups = groups
        last = len(widths) - 2
        self.maps = nn.ModuleList(
            nn.Linear(a // groups if place == 0 else a, b, bias=place == last)
            for place, (a, b) in enumerate(pairwise(widths))
        )

    def forward(self, y: Tensor) -> Tensor:
        groups, over = self.norm.num_groups, tuple(range(1, y.ndim - 1))
        # moments of each channel first: one pass over memory in its order
        full = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
        first_moment = full.mean(dim=over).unflatten(-1, (groups, -1))
        second_moment = full.square().mean(dim=over).unflatten(-1, (groups, -1))
        mean = first_moment.mean(dim=-1, keepdim=True)
        variance = second_moment.mean(dim=-1, keepdim=True) - mean.square()
        scale = (torch.rsqrt(variance + self.norm.eps).expand_as(first_moment)).flatten(1) * self.norm.weight
        offset = self.norm.bias - mean.expand_as(first_moment).flatten(1) * scale
        first, *others = self.maps
        weight = first.weight
        assert isinstance(weight, Tensor)
        if self.groups > 1:  # one dense product of a block-diagonal matrix: it reads and writes the field once
            weight = torch.block_diag(*weight.chunk(self.groups))
        x = scaled_map(y, scale, offset, weight)
        for layer in others:
            x = layer(functional.gelu(x))
        return x


class Decoder(Configured):
    """How the channels after the last layer become frames; :meth:`build` makes the layer."""

    @abstractmethod
    def build(self, inputs: int, width: int, steps: int, outputs: int, recompute: bool) -> nn.Module:
        """A module ``((B, *space, inputs), K) -> [(B, *space, outputs)] * K``."""


class Marching(Decoder):
    """March in a latent space, point by point, and decode each latent frame.

    ``y <- y + e_tau``, ``y <- y + MLP(LN(y))`` for ``tau = 1..K``, with one perceptron for all.

    Args:
        multiplier: width of the latent space over that of the layers.
        head: from latent frame to fields; :class:`PointHead` if not given.
    """

    def __init__(self, *, multiplier: float = 1.0, head: Head | None = None) -> None:
        if multiplier <= 0:
            raise ValueError(f"multiplier: got {multiplier}, expected a positive number.")
        self.multiplier, self.head = multiplier, head or PointHead()

    def build(self, inputs: int, width: int, steps: int, outputs: int, recompute: bool) -> nn.Module:
        latent = int(self.multiplier * width)
        return _Marching(inputs, latent, width, steps, self.head.build(latent, width, outputs), recompute)


class _Marching(nn.Module):
    def __init__(self, inputs: int, latent: int, width: int, steps: int, head: nn.Module, recompute: bool) -> None:
        super().__init__()
        self.recompute = recompute
        self.expand = nn.Linear(inputs, latent, bias=False)
        self.clock = nn.Parameter(0.02 * torch.randn(steps, latent))
        self.step = _Step(latent, width, head)

    def forward(self, u: Tensor, steps: int) -> list[Tensor]:
        y, out = self.expand(u), []
        for tau in range(steps):
            clock = self.clock[tau].clone()  # a view of a weight would claim a gradient under no_grad
            if self.recompute and torch.is_grad_enabled():
                y, frame = checkpoint(self.step, y, clock, use_reentrant=False, preserve_rng_state=False)
            else:
                y, frame = self.step(y, clock)
            out.append(frame)
        return out

    def compile(self, *args: Any, **options: Any) -> None:
        """One graph for all latent frames."""
        self.step.compile(*args, **options)


class _Step(nn.Module):
    """From one latent frame to the next, and to its fields."""

    def __init__(self, latent: int, width: int, head: nn.Module) -> None:
        super().__init__()
        self.norm, self.march, self.head = nn.LayerNorm(latent), MLP(inputs=latent, hidden=width, outputs=latent), head

    def forward(self, y: Tensor, clock: Tensor) -> tuple[Tensor, Tensor]:
        y = y + clock.to(y.dtype)
        hidden = functional.gelu(layer_norm_map(y, self.norm, self.march.first))
        y = y + self.march.second(hidden)
        return y, self.head(y)


class SteadyDecoder(Decoder):
    """Group norm and two linear maps with GELU between them: published for steady problems, one frame.

    Args:
        norm_groups: of the group norm.
    """

    def __init__(self, *, norm_groups: int = 8) -> None:
        self.norm_groups = norm_groups

    def build(self, inputs: int, width: int, steps: int, outputs: int, recompute: bool) -> nn.Module:
        if steps != 1:
            raise ValueError(
                f"decoder: SteadyDecoder gives one frame, the operator is asked for {steps}; use Marching."
            )
        return _SteadyDecoder(_PublishedHead(self.norm_groups, [inputs, width, outputs], 1))


class _SteadyDecoder(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, u: Tensor, steps: int) -> list[Tensor]:
        return [self.head(u)]


class CoarseBranch(Configured):
    """Convolutions on a grid half as fine, beside the last layer's output: published for closed boxes.

    Instance norm, a convolution of stride two to half the channels, GELU, a convolution, each value repeated along
    every axis, a convolution, GELU, a convolution; kernels of three points, ghost points of value zero. The source
    repeats to a fixed size; here it is the size that came in, odd or even.
    """

    def build(self, width: int, axes: int) -> nn.Module:
        """A module ``(B, *space, width) -> (B, *space, width)``."""
        return _CoarseBranch(width, axes)


class _CoarseBranch(nn.Module):
    def __init__(self, width: int, axes: int) -> None:
        super().__init__()
        if not 1 <= axes <= 3:
            raise ValueError(f"branch: got {axes} axes, convolutions exist for one to three.")
        kind, half = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1], width // 2
        self.down = nn.Sequential(kind(width, half, 3, stride=2, padding=1), nn.GELU(), kind(half, half, 3, padding=1))
        self.up = nn.Sequential(kind(half, half, 3, padding=1), nn.GELU(), kind(half, width, 3, padding=1))

    def forward(self, u: Tensor) -> Tensor:
        x = u.movedim(-1, 1)
        over = tuple(range(2, x.ndim))
        variance, mean = torch.var_mean(x.float(), dim=over, correction=0, keepdim=True)
        x = self.down(((x - mean) * torch.rsqrt(variance + 1e-5)).to(u.dtype))
        for axis, n in enumerate(u.shape[1:-1], start=2):
            x = x.repeat_interleave(2, dim=axis).narrow(axis, 0, n)
        return self.up(x).movedim(1, -1)


class Blend(nn.Module):
    """Fields from features of the points around: a convolution of three points along each axis.

    Args:
        features: of each point.
        channels: fields.
        axes: space dimensions, one to three.
    """

    def __init__(self, features: int, channels: int, axes: int) -> None:
        super().__init__()
        if not 1 <= axes <= 3:
            raise ValueError(f"blend: got {axes} axes, convolutions exist for one to three.")
        self.kernel = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](features, channels, 3)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, *space, features)`` to ``(B, *space, channels)``, in single precision at least."""
        weight, bias = widened(self.kernel.weight), self.kernel.bias
        assert bias is not None
        # every point's share in itself and its neighbours by one product, then sums of neighbours: convolutions of few
        # channels take libraries many times as long as reading the field
        taps = weight.movedim((0, 1), (-2, -1))  # (3, .., channels, features)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            y = functional.linear(widened(x), taps.flatten(0, -2)).unflatten(-1, taps.shape[:-1])
        for axis, boundary in enumerate(grid.boundaries, start=1):
            below, here, above = y.unbind(len(grid.axes) + 1)  # the taps of this axis are the first that are left
            n = here.shape[axis]
            ends = (n - 1, 0) if boundary is Boundary.PERIODIC else (0, n - 1)
            first, last = below.narrow(axis, ends[0], 1), above.narrow(axis, ends[1], 1)
            y = here + torch.cat([first, below.narrow(axis, 0, n - 1)], axis)
            y = y + torch.cat([above.narrow(axis, 1, n - 1), last], axis)
        return y + bias
