"""U-Net with residual blocks: Ronneberger et al. 2015, in the form of Gupta and Brandstetter 2022, arXiv 2209.15616."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.fields import Boundary, Grid, Setting
from physml.nn.padding import pad
from physml.operators.operator import Operator


class UNet(Operator):
    r"""Residual convolutions on a ladder of grids, each half as fine as the one before, in one to three dimensions.

    On the way down, every stage has ``blocks`` residual blocks and then a convolution of stride two. Two blocks act
    on the coarsest grid. On the way up, every stage has ``blocks + 1`` residual blocks, each of which also reads the
    output of its counterpart on the way down, and then repeats each point twice along every axis and convolves. A
    residual block is

    .. math:: v' = S v + K_2 * \sigma(N_2 (K_1 * \sigma(N_1 v)))

    with :math:`K` kernels of three points along each axis, :math:`N` group normalisation, :math:`\sigma` the SiLU and
    :math:`S` the identity, or a linear map where the number of channels changes. Ghost points of every convolution
    follow the boundary kinds of the grid (see :mod:`physml.nn.padding`), so on a periodic grid the operator commutes
    with translations by multiples of ``2 ** (len(multipliers) - 1)`` points.

    It has the layout of the modern U-Net of Gupta and Brandstetter. Their ``Unetmod-64``, 144 million parameters, has
    ``multipliers=(1, 2, 4, 16)``: its code multiplies the published (1, 2, 2, 4) up. Differences: ghost points by
    boundary instead of zeros; repetition and convolution instead of transposed convolution; SiLU instead of GELU;
    residual blocks that start as :math:`S`.

    Args:
        channels: number of fields C.
        frames: frames read, T; 0 for a steady problem.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D, 1 to 3.
        static: fields read that do not change in time, S: further input channels.
        width: channels of the finest stage.
        multipliers: channels of each stage, in units of ``width``, finest first.
        blocks: residual blocks of each stage on the way down.
        groups: channel groups that are normalised together; divides ``width``.

    Raises:
        ValueError: where an argument is out of its range; in :meth:`forward`, where the window does not fit, or an axis
            cannot be halved ``len(multipliers) - 1`` times.
    """

    def __init__(
        self,
        *,
        channels: int,
        frames: int = 1,
        steps: int = 1,
        axes: int,
        static: int = 0,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 2,
        groups: int = 8,
    ) -> None:
        super().__init__()
        if axes not in (1, 2, 3):
            raise ValueError(f"axes: got {axes}, a U-Net convolves along 1, 2 or 3.")
        if not multipliers or min(multipliers) < 1 or blocks < 1:
            raise ValueError(
                f"multipliers, blocks: got {list(multipliers)}, {blocks}; expected a positive number for each stage "
                "and at least one block."
            )
        if width % groups:
            raise ValueError(f"groups: got {groups}, which does not divide width={width}; change either.")
        if min(frames, static) < 0 or frames + static == 0:
            raise ValueError(
                f"frames, static: got {frames} and {static}, expected 0 or more and something to read: a frame or a "
                "static field."
            )
        self.channels, self.frames, self.steps, self.axes, self.static = channels, frames, steps, axes, static
        self.factor = 2 ** (len(multipliers) - 1)
        widths = [width * multiplier for multiplier in multipliers]

        self.first = Convolution(axes=axes, inputs=frames * channels + static, outputs=width)
        kept = [width]  # channels of the outputs that the way up reads
        self.down = nn.ModuleList()
        now = width
        for stage, outputs in enumerate(widths):
            for _ in range(blocks):
                self.down.append(ResidualBlock(axes=axes, inputs=now, outputs=outputs, groups=groups))
                now = outputs
                kept.append(now)
            if stage < len(widths) - 1:
                self.down.append(Convolution(axes=axes, inputs=now, outputs=now, stride=2))
                kept.append(now)
        self.middle = nn.ModuleList(ResidualBlock(axes=axes, inputs=now, outputs=now, groups=groups) for _ in range(2))
        self.up = nn.ModuleList()
        for stage in reversed(range(len(widths))):
            finer = widths[max(stage - 1, 0)]
            for outputs in [widths[stage]] * blocks + [finer]:
                self.up.append(ResidualBlock(axes=axes, inputs=now + kept.pop(), outputs=outputs, groups=groups))
                now = outputs
            if stage > 0:
                self.up.append(Refinement(axes=axes, channels=now))
        self.norm = nn.GroupNorm(groups, now)
        self.last = Convolution(axes=axes, inputs=now, outputs=steps * channels)
        # Small, so that training starts near zero: the mean of the data, or persistence where increments are predicted.
        nn.init.normal_(self.last.kernel.weight, std=0.02)

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``."""
        self.check(window, steps, setting)
        self._check_size(window.shape[2:-1])
        boundaries = grid.boundaries
        v = self.first(self.inputs(window, setting).movedim(-1, 1), boundaries)
        kept = [v]
        for part in self.down:
            v = part(v, boundaries)
            kept.append(v)
        for part in self.middle:
            v = part(v, boundaries)
        for part in self.up:
            v = part(torch.cat([v, kept.pop()], 1) if isinstance(part, ResidualBlock) else v, boundaries)
        v = self.last(functional.silu(self.norm(v)), boundaries)
        return v.movedim(1, -1).unflatten(-1, (self.steps, self.channels))[..., :steps, :].movedim(-2, 1)

    def _check_size(self, space: Sequence[int]) -> None:
        for axis, n in enumerate(space):
            if n % self.factor:
                below = n // self.factor * self.factor
                fitting = f"{below} or {below + self.factor}" if below else f"{self.factor}"
                raise ValueError(
                    f"window: got {n} points on space axis {axis}, which this U-Net halves "
                    f"{self.factor.bit_length() - 1} times; give a multiple of {self.factor}, such as {fitting}, "
                    "or fewer multipliers."
                )


class Convolution(nn.Module):
    """Kernel of three points along each axis, with ghost points that follow the boundary kinds.

    Args:
        axes: number of space dimensions.
        inputs: channels read.
        outputs: channels returned.
        stride: 2 keeps every second point along each axis, the first included.
    """

    def __init__(self, *, axes: int, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](inputs, outputs, 3, stride)

    def forward(self, v: Tensor, boundaries: Sequence[Boundary]) -> Tensor:
        """``(B, inputs, *space)`` to ``(B, outputs, *space)``."""
        return self.kernel(pad(v, 1, boundaries))


class Refinement(nn.Module):
    """Twice as many points along each axis: repetition, then a convolution."""

    def __init__(self, *, axes: int, channels: int) -> None:
        super().__init__()
        self.convolution = Convolution(axes=axes, inputs=channels, outputs=channels)

    def forward(self, v: Tensor, boundaries: Sequence[Boundary]) -> Tensor:
        """``(B, channels, *space)`` to ``(B, channels, *2 space)``."""
        return self.convolution(functional.interpolate(v, scale_factor=2, mode="nearest"), boundaries)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut, which is all there is before training."""

    def __init__(self, *, axes: int, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.convolution1 = Convolution(axes=axes, inputs=inputs, outputs=outputs)
        self.convolution2 = Convolution(axes=axes, inputs=outputs, outputs=outputs)
        for parameter in self.convolution2.parameters():
            nn.init.zeros_(parameter)
        pointwise = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.shortcut = nn.Identity() if inputs == outputs else pointwise(inputs, outputs, 1)

    def forward(self, v: Tensor, boundaries: Sequence[Boundary]) -> Tensor:
        """``(B, inputs, *space)`` to ``(B, outputs, *space)``."""
        h = self.convolution1(functional.silu(self.norm1(v)), boundaries)
        return self.shortcut(v) + self.convolution2(functional.silu(self.norm2(h)), boundaries)
