"""Triton kernels of the depthwise convolution and its gradients; :mod:`physml.nn.depthwise` says when they are used.

Fields are ``(B, X, Y, Z, C)`` with leading space axes of one point where there are fewer than three. The index of a tap
wraps around on a periodic axis; elsewhere the field was extended beforehand, or what lies outside counts as zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from physml.fields import Boundary
from physml.nn.padding import pad

_POINTS, _CHANNELS = 64, 64


@triton.jit
def _along(index, tap, shift, n, WRAP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where a tap reads on one axis, and whether that is inside."""
    place = index + tap - shift
    if WRAP:
        place = tl.where(place < 0, place + n, place)
        place = tl.where(place >= n, place - n, place)
    return place, (place >= 0) & (place < n)


@triton.jit
def _convolve(  # type: ignore[no-untyped-def]
    field, weight, result,
    C, N, X, Y, Z, IX, IY, IZ, SX, SY, SZ,
    WX: tl.constexpr, WY: tl.constexpr, WZ: tl.constexpr,
    KX: tl.constexpr, KY: tl.constexpr, KZ: tl.constexpr,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Result of ``(X, Y, Z)`` points from a field of ``(IX, IY, IZ)``; ``weight`` is ``(taps, C)``."""
    points = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    z, rest = points % Z, points // Z
    y, rest = rest % Y, rest // Y
    x, sample = rest % X, (rest // X).to(tl.int64)
    valid, held = points < N, channels < C
    total = tl.zeros((POINTS, CHANNELS), dtype=tl.float32)
    for tap in range(KX * KY * KZ):
        px, in_x = _along(x, tap // (KY * KZ), SX, IX, WX)
        py, in_y = _along(y, (tap // KZ) % KY, SY, IY, WY)
        pz, in_z = _along(z, tap % KZ, SZ, IZ, WZ)
        place = ((sample * IX + px) * IY + py) * IZ + pz
        inside = valid & in_x & in_y & in_z
        value = tl.load(field + place[:, None] * C + channels[None, :], mask=inside[:, None] & held[None, :], other=0.0)
        factor = tl.load(weight + tap * C + channels, mask=held, other=0.0)
        total += value.to(tl.float32) * factor.to(tl.float32)[None, :]
    place = points.to(tl.int64)[:, None] * C + channels[None, :]
    tl.store(result + place, total.to(result.dtype.element_ty), mask=valid[:, None] & held[None, :])


@triton.jit
def _weigh(  # type: ignore[no-untyped-def]
    gradient, field, result,
    C, N, X, Y, Z, IX, IY, IZ, SX, SY, SZ, share,
    WX: tl.constexpr, WY: tl.constexpr, WZ: tl.constexpr,
    KX: tl.constexpr, KY: tl.constexpr, KZ: tl.constexpr,
    POINTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``sum_i gradient[i] field[i + tap]`` over one share of the points; ``result`` is ``(parts, taps, C)``."""
    tap, part = tl.program_id(0), tl.program_id(2)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    held = channels < C
    total = tl.zeros((POINTS, CHANNELS), dtype=tl.float32)
    stop = tl.minimum((part + 1) * share, N)
    for first in range(part * share, stop, POINTS):
        points = first + tl.arange(0, POINTS)
        z, rest = points % Z, points // Z
        y, rest = rest % Y, rest // Y
        x, sample = rest % X, (rest // X).to(tl.int64)
        valid = points < stop
        px, in_x = _along(x, tap // (KY * KZ), SX, IX, WX)
        py, in_y = _along(y, (tap // KZ) % KY, SY, IY, WY)
        pz, in_z = _along(z, tap % KZ, SZ, IZ, WZ)
        place = ((sample * IX + px) * IY + py) * IZ + pz
        inside = valid & in_x & in_y & in_z
        value = tl.load(field + place[:, None] * C + channels[None, :], mask=inside[:, None] & held[None, :], other=0.0)
        slope = tl.load(
            gradient + points.to(tl.int64)[:, None] * C + channels[None, :],
            mask=valid[:, None] & held[None, :],
            other=0.0,
        )
        total += value.to(tl.float32) * slope.to(tl.float32)
    taps = KX * KY * KZ
    tl.store(result + (part * taps + tap) * C + channels, tl.sum(total, axis=0), mask=held)


def apply(
    field: Tensor,
    weight: Tensor,
    shape: Sequence[int],
    shift: Sequence[int],
    wrap: Sequence[bool],
) -> Tensor:
    """Convolve ``(B, IX, IY, IZ, C)`` with ``weight (KX, KY, KZ, C)``; the result has ``shape`` points."""
    field, weight = field.contiguous(), weight.contiguous()
    C = field.shape[-1]
    result = field.new_empty(field.shape[0], *shape, C)
    N = result.numel() // C
    grid = (triton.cdiv(N, _POINTS), triton.cdiv(C, _CHANNELS))
    _convolve[grid](
        field, weight, result, C, N, *shape, *field.shape[1:4], *shift,
        WX=wrap[0], WY=wrap[1], WZ=wrap[2], KX=weight.shape[0], KY=weight.shape[1], KZ=weight.shape[2],
        POINTS=_POINTS, CHANNELS=_CHANNELS, num_warps=4,
    )  # fmt: skip
    return result


def weigh(
    gradient: Tensor,
    field: Tensor,
    size: Sequence[int],
    shift: Sequence[int],
    wrap: Sequence[bool],
) -> Tensor:
    """The gradient of the weights, ``(KX, KY, KZ, C)`` float32, with shares of points added in a fixed order."""
    gradient, field = gradient.contiguous(), field.contiguous()
    C = field.shape[-1]
    N, taps = gradient.numel() // C, size[0] * size[1] * size[2]
    blocks = triton.cdiv(C, _CHANNELS)
    parts = max(1, min(triton.cdiv(N, 4 * _POINTS), 2112 // (taps * blocks) + 1))
    share = triton.cdiv(triton.cdiv(N, parts), _POINTS) * _POINTS
    result = torch.empty((parts, taps, C), dtype=torch.float32, device=field.device)
    _weigh[(taps, blocks, parts)](
        gradient, field, result, C, N, *gradient.shape[1:4], *field.shape[1:4], *shift, share,
        WX=wrap[0], WY=wrap[1], WZ=wrap[2], KX=size[0], KY=size[1], KZ=size[2],
        POINTS=_POINTS, CHANNELS=_CHANNELS, num_warps=4,
    )  # fmt: skip
    return result.sum(dim=0).reshape(*size, C)


# opaque to the compiler, as in mode_product_triton
@torch.library.custom_op("physml::depthwise", mutates_args=())
def depthwise(field: Tensor, weight: Tensor, shape: list[int], shift: list[int], wrap: list[bool]) -> Tensor:
    """:func:`apply` with gradients."""
    return apply(field, weight, shape, shift, wrap)


@torch.library.custom_op("physml::depthwise_weight", mutates_args=())
def _weight_gradient(gradient: Tensor, field: Tensor, size: list[int], shift: list[int], wrap: list[bool]) -> Tensor:
    return weigh(gradient, field, size, shift, wrap)


@depthwise.register_fake
def _like_result(field: Tensor, weight: Tensor, shape: list[int], shift: list[int], wrap: list[bool]) -> Tensor:
    return field.new_empty((field.shape[0], *shape, field.shape[-1]))


@_weight_gradient.register_fake
def _like_weight(gradient: Tensor, field: Tensor, size: list[int], shift: list[int], wrap: list[bool]) -> Tensor:
    return field.new_empty((*size, field.shape[-1]), dtype=torch.float32)


def _keep(ctx: object, inputs: tuple[Tensor, Tensor, list[int], list[int], list[bool]], output: Tensor) -> None:
    field, weight, _, ctx.shift, ctx.wrap = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(field, weight)  # type: ignore[attr-defined]


def _backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    field, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    shift, wrap = ctx.shift, ctx.wrap  # type: ignore[attr-defined]
    size = list(weight.shape[:3])
    slopes = _weight_gradient(gradient, field, size, shift, wrap).to(weight.dtype)
    # point i is read by the results i - tap + shift: the same sum with the taps in reverse
    back = [k - 1 - s for k, s in zip(size, shift, strict=True)]
    return depthwise(gradient, weight.flip(0, 1, 2), list(field.shape[1:4]), back, wrap), slopes, None, None, None


depthwise.register_autograd(_backward, setup_context=_keep)


def convolve(x: Tensor, weight: Tensor, boundaries: Sequence[Boundary]) -> Tensor:
    """``(B, *space, C)`` with the weight of a depthwise torch convolution, ``(C, 1, *taps)``: same shape as x."""
    lead = 3 - len(boundaries)
    space, wrap = x.shape[1:-1], [kind is Boundary.PERIODIC for kind in boundaries]
    reach = [k // 2 for k in weight.shape[2:]]
    if not all(wrap):
        # an axis that ends is extended first; the others are not, and wrap in the kernel
        x = x.movedim(-1, 1)
        for axis, (kind, r) in enumerate(zip(boundaries, reach, strict=True)):
            if kind is not Boundary.PERIODIC:
                x = pad(x, r, boundaries, only=axis)
        x = x.movedim(1, -1)
    shift = [0] * lead + [r if closed else 0 for r, closed in zip(reach, wrap, strict=True)]
    field = x.reshape(x.shape[0], *[1] * lead, *x.shape[1:])
    taps = weight[:, 0].movedim(0, -1).to(x.dtype)
    taps = taps.reshape(*[1] * lead, *taps.shape)
    shape = [1] * lead + list(space)
    return depthwise(field, taps, shape, shift, [False] * lead + wrap).reshape(x.shape[0], *space, x.shape[-1])
