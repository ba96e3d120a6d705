r"""A small matrix applied along one axis of a field, for each sample and head.

.. math:: z_{\dots i \dots} = \sum_j A_{ij}\, v_{\dots j \dots}

On a GPU in half precision a Triton kernel reads the field where it lies (:mod:`physml.nn.mode_product_triton`);
everywhere else it is one ``einsum``, which makes a transposed copy of the field first. Both give the same numbers up
to rounding.
"""

from __future__ import annotations

import string
from types import ModuleType

import torch
from torch import Tensor

triton_kernels: ModuleType | None
try:
    from physml.nn import mode_product_triton as triton_kernels
except ImportError:  # Triton comes with the GPU builds of torch only
    triton_kernels = None


def mode_product(kernel: Tensor, values: Tensor, axis: int) -> Tensor:
    """``z[.., i, ..] = sum_j A[i, j] v[.., j, ..]`` along one space axis.

    Args:
        kernel: ``(B, H, S, S)``.
        values: ``(B, *space, H, V)``.
        axis: which space axis, counted from 0.

    Returns:
        ``(B, *space, H, V)``, of the type of the values.

    Raises:
        ValueError: where the axis is none of the values', or the kernel is not a matrix of its size for each sample and
            head.
    """
    d = values.ndim - 3
    if not 0 <= axis < d:
        raise ValueError(f"axis: got {axis}, expected a space axis from 0 to {d - 1}.")
    expected = (values.shape[0], values.shape[-2], values.shape[1 + axis], values.shape[1 + axis])
    if tuple(kernel.shape) != expected:  # einsum would repeat an axis of one, the Triton kernel would read beyond it
        raise ValueError(
            f"kernel: got shape {tuple(kernel.shape)}, expected {expected} for axis {axis} of values "
            f"{tuple(values.shape)}; expand what is shared."
        )
    kernel = kernel.to(values.dtype)
    half = values.dtype in (torch.bfloat16, torch.float16)
    if triton_kernels is not None and values.is_cuda and half and values[0].numel() < triton_kernels.MOST:
        return triton_kernels.mode_product(kernel, values, axis)
    space = string.ascii_lowercase[:d]
    out = space.replace(space[axis], "z")
    return torch.einsum(f"BHz{space[axis]},B{space}HV->B{out}HV", kernel, values)
