r"""Convolution of each channel with a small kernel of its own, on fields that lie channels last.

.. math:: y_c[i] = b_c + \sum_{|d_m| \le r} w_c[d]\, x_c[i + d]

Points beyond the end of an axis follow its boundary kind, as in :mod:`physml.nn.padding`. On a GPU in half precision a
Triton kernel (:mod:`physml.nn.depthwise_triton`) does the work, because the library's channels-last gradient takes many
times the time of reading the field; elsewhere it is torch's own convolution. Both give the same numbers up to rounding.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.fields import Grid
from physml.nn.padding import pad

triton_kernels: ModuleType | None
try:
    from physml.nn import depthwise_triton as triton_kernels
except ImportError:  # Triton comes with the GPU builds of torch only
    triton_kernels = None


class DepthwiseConvolution(nn.Module):
    """A kernel of ``size`` points along each axis for every channel.

    Args:
        channels: C.
        axes: number of space dimensions D, 1 to 3.
        size: points of the kernel along each axis, odd.

    Raises:
        ValueError: where an argument is out of its range.
    """

    def __init__(self, *, channels: int, axes: int, size: int) -> None:
        super().__init__()
        if size % 2 == 0 or size < 1 or not 1 <= axes <= 3:
            raise ValueError(
                f"convolution: got size {size} on {axes} axes; expected an odd size and one to three axes."
            )
        self.reach = size // 2
        # torch's convolution owns the weights: its layout and its start
        self.kernel = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](channels, channels, size, groups=channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """``(B, *space, C)`` to the same.

        Raises:
            ValueError: where a periodic axis is shorter than the kernel reaches beyond its end.
        """
        for n, axis in zip(x.shape[1:-1], grid.axes, strict=True):
            if axis.periodic and n < self.reach:
                raise ValueError(
                    f"x: got {n} points along the periodic axis {axis.name!r}, the kernel of {2 * self.reach + 1} "
                    f"points needs at least {self.reach}; use a smaller kernel or a finer grid."
                )
        weight, bias = self.kernel.weight, self.kernel.bias
        assert bias is not None
        if triton_kernels is not None and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16):
            return triton_kernels.convolve(x, weight, grid.boundaries) + bias.to(x.dtype)
        padded = pad(x.movedim(-1, 1), self.reach, grid.boundaries)
        function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(grid.axes) - 1]
        return function(padded, weight.to(x.dtype), bias.to(x.dtype), groups=x.shape[-1]).movedim(1, -1)
