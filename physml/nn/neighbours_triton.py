"""Triton kernel of the neighbour search in single precision; :mod:`physml.nn.neighbours` says when it is used.

Points and centres are sorted along a curve that fills space (Morton order), so that a tile of points, or a block of
centres, lies close together. The distance of the boxes around a tile and a block is a lower bound for all their pairs.
Each program takes one block, visits tiles from the nearest on, and ends where no tile can hold a nearer neighbour for
any of its centres: how many that are depends on the numbers, but nothing is read back, and all shapes are fixed.

The bits of a distance, which is not negative, sort like the number. So distance and index together are one whole number
of 64 bits, whose order is that of the neighbours. Where a tile has a nearer one, it is sorted; of two sorted lists, one
reversed, the smaller of each pair are the smallest of both together, and rise and fall once.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

ROWS, WARPS = 16, 4
"""Centres of a block, and warps that work on it."""
LEAST, MOST = 32, 128
"""Points of a tile: the power of two that holds the neighbours wanted, within these."""
PAIRS = 2**25
"""Pairs of a block and a tile whose distance is held at a time."""
EMPTY = tl.constexpr(0x7F800000 << 32)
"""A place without a neighbour: infinitely far."""


@triton.jit
def _exchange(  # type: ignore[no-untyped-def]
    keys,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, LENGTH: tl.constexpr, STEP: tl.constexpr, FALLING: tl.constexpr,
):  # fmt: skip
    """One step of a bitonic sort: order what is STEP apart; runs of LENGTH rise and fall in turn."""
    pairs = tl.reshape(keys, (ROWS, WIDTH // (2 * STEP), 2, STEP))
    low, high = tl.min(pairs, axis=2), tl.max(pairs, axis=2)
    run = tl.arange(0, WIDTH // (2 * STEP)) * (2 * STEP) // LENGTH + FALLING
    second = (run[None, :, None, None] + tl.arange(0, 2)[None, None, :, None]) % 2 == 1
    return tl.reshape(tl.where(second, high[:, :, None, :], low[:, :, None, :]), (ROWS, WIDTH))


@triton.jit
def _falling(keys, ROWS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each row sorted, largest first."""
    for bit in tl.static_range(1, BITS + 1):
        for step in tl.static_range(1, bit + 1):
            keys = _exchange(keys, ROWS, WIDTH, 2**bit, 2 ** (bit - step), 1)
    return keys


@triton.jit
def _rising(keys, ROWS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Each row sorted, smallest first, where it rises and falls once: half of a sort."""
    for step in tl.static_range(1, BITS + 1):
        keys = _exchange(keys, ROWS, WIDTH, WIDTH, 2 ** (BITS - step), 0)
    return keys


@triton.jit
def _visit(  # type: ignore[no-untyped-def]
    points, index, centres, place, gap, order, result,
    limit, tiles, blocks, most,
    D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The neighbours of one block of centres."""
    block = tl.program_id(1).to(tl.int64) * blocks + tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    rows = block * ROWS + tl.arange(0, ROWS)
    target = tl.load(place + rows)  # row of the result, -1 for padding
    real = target >= 0
    columns = tl.arange(0, WIDTH)
    points += sample * tiles * WIDTH * D
    index += sample * tiles * WIDTH
    gap += block * (tiles + 1)
    order += block * (tiles + 1)
    best = tl.full((ROWS, WIDTH), EMPTY, tl.int64)
    worst = tl.where(real, tl.full((ROWS,), EMPTY, tl.int64), -1)
    reach = tl.max(tl.where(real, limit, -1.0), axis=0)
    nearest = tl.load(gap)
    while nearest <= reach:  # the last is infinite
        here = tl.load(order) * WIDTH + columns
        square = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
        for axis in tl.static_range(D):
            apart = tl.load(points + here * D + axis)[None, :] - tl.load(centres + rows * D + axis)[:, None]
            square += apart * apart
        key = (square.to(tl.int32, bitcast=True).to(tl.int64) << 32) | tl.load(index + here)[None, :]
        key = tl.where((square <= limit) & real[:, None], key, EMPTY)
        if tl.max(tl.max((key < worst[:, None]).to(tl.int32), axis=1), axis=0) > 0:
            best = _rising(tl.minimum(best, _falling(key, ROWS, WIDTH, BITS)), ROWS, WIDTH, BITS)
            last = tl.max(tl.where((columns < most)[None, :], best, -1), axis=1)
            worst = tl.where(real, last, -1)
            far = (last >> 32).to(tl.int32).to(tl.float32, bitcast=True)
            reach = tl.max(tl.where(real, tl.minimum(far, limit), -1.0), axis=0)
        gap += 1
        order += 1
        nearest = tl.load(gap)
    found = tl.where(best < EMPTY, best & 0x7FFFFFFF, -1)
    there = target[:, None] * most + columns[None, :]
    tl.store(result + there, found, mask=real[:, None] & (columns < most)[None, :])


def fits(points: Tensor, most: int) -> bool:
    """Whether the kernel can search them: single precision, lists that fit in registers, indices of 31 bits."""
    return points.dtype == torch.float32 and most <= MOST and points.shape[1] < 2**31


def search(points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int) -> Tensor:
    """As :func:`physml.nn.neighbours.tiled`, to the bit, for what :func:`fits`."""
    (B, N, D), S = points.shape, centres.shape[1]
    result = torch.full((B, S, most), -1, device=points.device)
    if not (B and N and S):
        return result
    width = max(LEAST, triton.next_power_of_2(most))
    points, index = _in_tiles(points, counts, width)
    centres, row = _in_tiles(centres, centre_counts, ROWS)
    low, high = _boxes(points)
    # Without this a tile could be left out by rounding, D + 2 halves of eps for either distance.
    shrink = 1 - 4 * (D + 2) * torch.finfo(torch.float32).eps
    sample = torch.arange(B, device=points.device)[:, None, None]
    place = torch.where(row >= 0, row + S * sample, -1)
    step = max(1, PAIRS // (B * low.shape[1]))
    for start in range(0, centres.shape[1], step):
        here, where = centres[:, start : start + step].contiguous(), place[:, start : start + step].contiguous()
        low_here, high_here = _boxes(here)
        apart = torch.maximum(low[:, None] - high_here[:, :, None], low_here[:, :, None] - high[:, None])
        gap = apart.clamp(min=0).square().sum(dim=-1) * shrink
        gap, order = functional.pad(gap, (0, 1), value=math.inf).sort(dim=-1)
        blocks = here.shape[1]
        _visit[(blocks, B)](
            points, index, here, where, gap, order, result, limit, low.shape[1], blocks, most,
            D=D, ROWS=ROWS, WIDTH=width, BITS=width.bit_length() - 1, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip
    return result


def _in_tiles(values: Tensor, counts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Places ``(B, T, size, D)`` in Morton order and their indices, -1 for padding, which is infinitely far."""
    _, N, D = values.shape
    places = torch.arange(N, device=values.device)
    real = (places < counts[:, None]) & values.isfinite().all(dim=-1)
    low = torch.where(real[..., None], values, math.inf).amin(dim=1, keepdim=True)
    high = torch.where(real[..., None], values, -math.inf).amax(dim=1, keepdim=True)
    edge = (high - low).amax(dim=-1, keepdim=True)
    bits = 30 // D
    cell = torch.where(real[..., None] & (edge > 0), (values - low) / edge, 0.0)
    cell = (cell * (2**bits - 1)).clamp(0, 2**bits - 1).to(torch.int32)
    bit = torch.arange(bits, device=values.device, dtype=torch.int32)
    axis = torch.arange(D, device=values.device, dtype=torch.int32)[:, None]
    code = (((cell[..., None] >> bit) & 1) << (D * bit + axis)).sum(dim=(-2, -1), dtype=torch.int32)
    order = torch.where(real, code, 2**31 - 1).argsort(dim=1, stable=True)
    index = torch.where(real, places, -1).gather(1, order)
    values = torch.where(real[..., None], values, math.inf).gather(1, order[..., None].expand(-1, -1, D))
    extra = -N % size
    values = functional.pad(values, (0, 0, 0, extra), value=math.inf).unflatten(1, (-1, size))
    return values.contiguous(), functional.pad(index, (0, extra), value=-1).unflatten(1, (-1, size)).contiguous()


def _boxes(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper corners ``(B, T, D)`` of what is not padding; infinity and its negative around nothing."""
    return tiles.amin(dim=2), torch.where(tiles == math.inf, -math.inf, tiles).amax(dim=2)
