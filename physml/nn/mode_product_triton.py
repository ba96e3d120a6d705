"""Triton kernels of the mode product and its gradients; :mod:`physml.nn.mode_product` says when they are used.

A field ``(B, *space, H, V)`` is, for one sample and head, a matrix with a row for each point of the axis and a column
for each point of the other axes and channel. All columns share the kernel, and a column's place in memory is found from
its number, so that the field is read and written where it lies: once each, against three times with transposed copies.

Sizes: S points of the axis, P points of the axes before it, Q points of the axes after it, N = P Q V columns.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST = 2**31
"""Numbers of a sample that places of 32 bits can tell apart; wider places take two registers each."""


@triton.jit
def _multiply(  # type: ignore[no-untyped-def]
    kernel, field, result,
    S, Q, H, V, N,
    TRANSPOSED: tl.constexpr, WHOLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """``result = A field``, or ``A^T field``, for one block of rows and columns of one sample and head."""
    # heads of the same place run side by side: together they read whole lines of memory
    head, tile, sample = tl.program_id(0) % H, tl.program_id(0) // H, tl.program_id(1).to(tl.int64)
    blocks = tl.cdiv(S, ROWS)
    rows = (tile % blocks) * ROWS + tl.arange(0, ROWS)
    columns = (tile // blocks) * COLUMNS + tl.arange(0, COLUMNS)
    start = sample * S * N * H + head * V
    point, channel = columns // V, columns % V
    place = ((point // Q) * S * Q + point % Q) * H * V + channel
    step = Q * H * V
    kernel += (sample * H + head) * S * S
    field += start
    result += start
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(0, S, DEPTH):
        inner = first + tl.arange(0, DEPTH)
        where = inner[None, :] * S + rows[:, None] if TRANSPOSED else rows[:, None] * S + inner[None, :]
        there = inner[:, None] * step + place[None, :]
        if WHOLE:
            a, v = tl.load(kernel + where), tl.load(field + there)
        else:
            a = tl.load(kernel + where, mask=(rows[:, None] < S) & (inner[None, :] < S), other=0.0)
            v = tl.load(field + there, mask=(inner[:, None] < S) & (columns[None, :] < N), other=0.0)
        total = tl.dot(a, v, total)
    there = rows[:, None] * step + place[None, :]
    if WHOLE:
        tl.store(result + there, total.to(result.dtype.element_ty))
    else:
        tl.store(result + there, total.to(result.dtype.element_ty), mask=(rows[:, None] < S) & (columns[None, :] < N))


@triton.jit
def _correlate(  # type: ignore[no-untyped-def]
    left, right, result,
    S, Q, H, V, N, share, samples,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """``sum_n left[i, n] right[j, n]`` over one share of the columns, for one block of i and j."""
    head, tile = tl.program_id(0) % H, tl.program_id(0) // H
    sample, part = tl.program_id(1).to(tl.int64), tl.program_id(2)
    blocks = tl.cdiv(S, COLUMNS)
    i = (tile // blocks) * ROWS + tl.arange(0, ROWS)
    j = (tile % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    start = sample * S * N * H + head * V
    step = Q * H * V
    left += start
    right += start
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    stop = tl.minimum((part + 1) * share, N)
    for first in range(part * share, stop, DEPTH):
        columns = first + tl.arange(0, DEPTH)
        point, channel = columns // V, columns % V
        place = ((point // Q) * S * Q + point % Q) * H * V + channel
        of_i, of_j = i[:, None] * step + place[None, :], j[:, None] * step + place[None, :]
        if WHOLE:
            a, b = tl.load(left + of_i), tl.load(right + of_j)
        else:
            a = tl.load(left + of_i, mask=(i[:, None] < S) & (columns[None, :] < stop), other=0.0)
            b = tl.load(right + of_j, mask=(j[:, None] < S) & (columns[None, :] < stop), other=0.0)
        total = tl.dot(a, tl.trans(b), total)
    tl.store(
        result + ((part * samples + sample) * H + head) * S * S + i[:, None] * S + j[None, :],
        total,
        mask=(i[:, None] < S) & (j[None, :] < S),
    )


def multiply(kernel: Tensor, values: Tensor, axis: int, transposed: bool) -> Tensor:
    """``A v`` or ``A^T v`` along one axis; a sample of ``v`` has fewer than :data:`MOST` numbers."""
    kernel, values = kernel.contiguous(), values.contiguous()
    result = torch.empty_like(values)
    S, Q, H, V, N = _sizes(values, axis)
    rows, columns, depth, stages = _tile(S)
    grid = (triton.cdiv(S, rows) * triton.cdiv(N, columns) * H, values.shape[0])
    _multiply[grid](
        kernel, values, result, S, Q, H, V, N,
        TRANSPOSED=transposed, WHOLE=not (S % rows or S % depth or N % columns),
        ROWS=rows, COLUMNS=columns, DEPTH=depth, num_warps=4, num_stages=stages,
    )  # fmt: skip
    return result


def correlate(left: Tensor, right: Tensor, axis: int) -> Tensor:
    """``sum over all but the axis of left[i] right[j]`` for each sample and head, ``(B, H, S, S)`` float32.

    The columns are shared out over as many programs as fill a GPU, and the shares added in a fixed order: the same
    numbers every time. A sample has fewer than :data:`MOST` numbers.
    """
    left, right = left.contiguous(), right.contiguous()
    S, Q, H, V, N = _sizes(left, axis)
    rows, columns, depth, warps = (128, 256, 64, 8) if S > 128 else (128, 128, 64, 4) if S > 64 else (64, 64, 128, 4)
    pairs, tiles = left.shape[0] * H, triton.cdiv(S, rows) * triton.cdiv(S, columns)
    parts = max(1, min(triton.cdiv(N, 8 * depth), 264 // (pairs * tiles)))
    share = triton.cdiv(triton.cdiv(N, parts), depth) * depth
    result = torch.empty((parts, left.shape[0], H, S, S), dtype=torch.float32, device=left.device)
    _correlate[(tiles * H, left.shape[0], parts)](
        left, right, result, S, Q, H, V, N, share, left.shape[0],
        WHOLE=not (S % rows or S % columns or N % share),
        ROWS=rows, COLUMNS=columns, DEPTH=depth, num_warps=warps, num_stages=3,
    )  # fmt: skip
    return result.sum(dim=0) if parts > 1 else result[0]


def _sizes(values: Tensor, axis: int) -> tuple[int, int, int, int, int]:
    space, (H, V) = values.shape[1:-2], values.shape[-2:]
    S, Q = space[axis], math.prod(space[axis + 1 :])
    return S, Q, H, V, math.prod(space[:axis]) * Q * V


def _tile(S: int) -> tuple[int, int, int, int]:
    """Rows, columns, depth and stages: the fastest of those tried on an H200 at 64 and 256 points; of other numbers of
    points the rows that waste least, and of equals the most up to 64.
    """
    if S % 128 == 0:
        return 128, 128, 32, 4
    if S % 64 == 0:
        return 64, 128, 64, 3
    return min((64, 32, 16), key=lambda rows: triton.cdiv(S, rows) * rows), 256, 32, 3


# Opaque to the compiler: what it makes of a kernel's launch cannot be seen without a GPU, and an operator of its own is
# the same code compiled or not.
@torch.library.custom_op("physml::mode_product", mutates_args=())
def mode_product(kernel: Tensor, values: Tensor, axis: int) -> Tensor:
    """``A v`` along one axis, with gradients; both of the same type."""
    return multiply(kernel, values, axis, False)


@torch.library.custom_op("physml::mode_product_values", mutates_args=())
def _values_gradient(kernel: Tensor, gradient: Tensor, axis: int) -> Tensor:
    return multiply(kernel, gradient, axis, True)


@torch.library.custom_op("physml::mode_product_kernel", mutates_args=())
def _kernel_gradient(gradient: Tensor, values: Tensor, axis: int) -> Tensor:
    return correlate(gradient, values, axis)


@mode_product.register_fake
@_values_gradient.register_fake
def _like_values(kernel: Tensor, values: Tensor, axis: int) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@_kernel_gradient.register_fake
def _like_kernel(gradient: Tensor, values: Tensor, axis: int) -> Tensor:
    size = values.shape[1 + axis]
    return values.new_empty((values.shape[0], values.shape[-2], size, size), dtype=torch.float32)


def _keep(ctx: object, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    kernel, values, ctx.axis = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(kernel, values)  # type: ignore[attr-defined]


def _backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    kernel, values = ctx.saved_tensors  # type: ignore[attr-defined]
    axis = ctx.axis  # type: ignore[attr-defined]
    return _kernel_gradient(gradient, values, axis).to(kernel.dtype), _values_gradient(kernel, gradient, axis), None


mode_product.register_autograd(_backward, setup_context=_keep)
