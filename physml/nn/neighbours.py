r"""The nearest points of a cloud, exactly, for ragged batches in two or three dimensions.

.. math:: d^2(x, c) = \sum_a (x_a - c_a)^2

is computed by differences, in the precision of the points. The expanded form :math:`|x|^2 - 2 x \cdot c + |c|^2`, which
is faster by matrix products, loses small distances to rounding and is not used. Neighbours are sorted by
:math:`d^2` and then by index, so that they are the same whatever computes them:

* on the CPU a k-d tree proposes candidates until no other point can be nearer;
* on a GPU in single precision a Triton kernel (:mod:`physml.nn.neighbours_triton`) visits those parts of the cloud that
  are near enough;
* elsewhere all distances are taken, tile by tile (:func:`tiled`).

On a GPU nothing is read back to the host and all shapes follow from those of the arguments: a search can be recorded in
a CUDA graph. Indices have no gradient; what is gathered with them has.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

triton_kernels: ModuleType | None
try:
    from physml.nn import neighbours_triton as triton_kernels
except ImportError:  # Triton comes with the GPU builds of torch only
    triton_kernels = None

AT_ONCE = 2**24
"""About how many distances are held in memory at a time."""


class Neighbours(NamedTuple):
    """For each centre its neighbours, nearest first; empty places come last."""

    indices: Tensor
    """``(B, S, most)`` int64, into the points of the same sample; 0 in an empty place, so that it can be gathered."""
    mask: Tensor
    """``(B, S, most)`` bool, whether there is a neighbour."""


def radius_neighbours(
    points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, radius: float, most: int
) -> Neighbours:
    """The nearest ``most`` of the points with ``d <= radius``; of equally near ones those of lower index.

    A point that is also a centre is its own first neighbour, at distance zero.

    Args:
        points: ``(B, N, D)``, float32 or float64, D = 2 or 3, in any one unit of length; squares must not overflow.
        counts: ``(B,)``, integers; points of a sample beyond its count are padding and never neighbours.
        centres: ``(B, S, D)``, of the type of the points.
        centre_counts: ``(B,)``; centres beyond it have no neighbours.
        radius: in the unit of the points, rounded to their precision.
        most: the largest number of neighbours of a centre.

    Raises:
        ValueError: where shapes, types or numbers do not fit. On a CPU also where a point or centre is not finite or a
            count is out of range; on a GPU, where looking would mean to wait for it, what is not finite has no
            neighbours and is none.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"radius: got {radius}, expected a positive length in the unit of the points.")
    _check(points, centres, most, counts=counts, centre_counts=centre_counts)
    rounded = torch.tensor(radius, dtype=points.dtype, device="cpu")
    limit = min(float(rounded * rounded), torch.finfo(points.dtype).max)
    return _neighbours(points, counts, centres, centre_counts, limit, most)


def nearest_neighbours(points: Tensor, counts: Tensor, queries: Tensor, k: int) -> Neighbours:
    """The ``k`` nearest points of each query; of equally near ones those of lower index.

    Args:
        points: ``(B, N, D)``, float32 or float64, D = 2 or 3; their squares must not overflow.
        counts: ``(B,)``, integers; points of a sample beyond its count are padding and never neighbours.
        queries: ``(B, S, D)``, of the type of the points. All are answered: give padding some finite number.
        k: how many; where a sample has fewer points, the last places are empty.

    Raises:
        ValueError: as :func:`radius_neighbours`.
    """
    _check(points, queries, k, counts=counts)
    all_of_them = counts.new_full(counts.shape, queries.shape[1])
    return _neighbours(points, counts, queries, all_of_them, torch.finfo(points.dtype).max, k)


def _neighbours(
    points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int
) -> Neighbours:
    found = _search(points.detach(), counts, centres.detach(), centre_counts, limit, most)
    return Neighbours(found.clamp(min=0), found >= 0)


# Opaque to the compiler: it can neither look into a tree nor into a kernel's launch.
@torch.library.custom_op("physml::neighbours", mutates_args=())
def _search(points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int) -> Tensor:
    """Indices ``(B, S, most)`` of the points with ``d^2 <= limit``; -1 in empty places."""
    if points.device.type == "cpu":
        return by_tree(points, counts, centres, centre_counts, limit, most)
    if triton_kernels is not None and points.is_cuda and triton_kernels.fits(points, most):
        found: Tensor = triton_kernels.search(points, counts, centres, centre_counts, limit, most)
        return found
    return tiled(points, counts, centres, centre_counts, limit, most)


@_search.register_fake
def _like_centres(
    points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int
) -> Tensor:
    return centres.new_empty((*centres.shape[:2], most), dtype=torch.int64)


def tiled(points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int) -> Tensor:
    """All distances, a tile of points at a time, each merged into the nearest so far. Any device; fixed shapes.

    A stable sort keeps lower indices first, because the points of a tile come after those before it.
    """
    B, N, _ = points.shape
    S = centres.shape[1]
    best = points.new_full((B, S, most), math.inf)
    index = torch.full((B, S, most), -1, device=points.device)
    size = max(most, AT_ONCE // max(1, B * S))
    for start in range(0, N, size):
        here = torch.arange(start, min(start + size, N), device=points.device)
        square = squared_distances(points[:, None, start : start + size], centres[:, :, None])
        near = (here < counts[:, None])[:, None] & (square <= limit)
        square = torch.where(near, square, math.inf)
        square, order = torch.cat([best, square], dim=-1).sort(dim=-1, stable=True)
        best = square[..., :most]
        index = torch.cat([index, here.expand(B, S, -1)], dim=-1).gather(-1, order[..., :most])
    real = torch.arange(S, device=points.device) < centre_counts[:, None]
    return torch.where((best < math.inf) & real[..., None], index, -1)


def by_tree(points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, limit: float, most: int) -> Tensor:
    """The same numbers from a k-d tree of each sample, on the CPU."""
    for name, number, size in (("counts", counts, points.shape[1]), ("centre_counts", centre_counts, centres.shape[1])):
        if number.numel() and not 0 <= int(number.min()) <= int(number.max()) <= size:
            raise ValueError(f"{name}: got {number.tolist()}, expected from 0 to {size}, the size that was padded to.")
    index = torch.full((*centres.shape[:2], most), -1)
    for b, (n, s) in enumerate(zip(counts.tolist(), centre_counts.tolist(), strict=True)):
        for name, values in (("points", points[b, :n]), ("centres", centres[b, :s])):
            if not bool(values.isfinite().all()):
                raise ValueError(f"{name}: got numbers that are not finite in sample {b}; leave those points out.")
        if n and s:
            index[b, :s] = _of_one(points[b, :n], centres[b, :s], limit, most)
    return index


def _of_one(points: Tensor, centres: Tensor, limit: float, most: int) -> Tensor:
    """Neighbours of one sample without padding.

    The tree measures in double and does not order what is equally near. So it is asked for more candidates than wanted,
    which are measured and ordered as everywhere else, until the last candidate is farther by more than rounding than
    the last neighbour: then no other point can be one. Rows where this is not so are asked again for twice as many.
    """
    n, d = points.shape
    kind = torch.finfo(points.dtype)
    # A difference, its square and each sum round once: D + 2 halves of eps for d^2 here, as many at most in the tree.
    slack = 4 * (d + 2) * kind.eps
    reach = math.sqrt(limit) * (1 + slack) + math.sqrt(kind.tiny)
    tree = cKDTree(points.double().numpy())
    index = torch.full((len(centres), most), -1)
    rows, wanted = torch.arange(len(centres)), most + 1
    while len(rows):
        wanted = min(wanted, n)
        uncertain = []
        for part in rows.split(max(1, AT_ONCE // (8 * wanted))):
            centre = centres[part]
            distance, found = tree.query(
                centre.double().numpy(), k=np.arange(1, wanted + 1), distance_upper_bound=reach,
                workers=torch.get_num_threads(),
            )  # fmt: skip
            candidate = torch.from_numpy(found).sort(dim=-1).values  # n, which is no point, comes last
            square = squared_distances(points[candidate.clamp(max=n - 1)], centre[:, None])
            square = torch.where((candidate < n) & (square <= limit), square, math.inf)
            square, order = square.sort(dim=-1, stable=True)
            square, order = square[:, :most], order[:, :most]
            chosen = torch.where(square < math.inf, candidate.gather(-1, order), -1)
            index[part, : chosen.shape[1]] = chosen
            if wanted < n:
                last = torch.from_numpy(distance[:, -1]).square() * (1 - slack) - kind.tiny
                uncertain.append(part[last <= square[:, -1].double().clamp(max=limit)])
        rows = torch.cat(uncertain) if uncertain else rows[:0]
        wanted *= 2
    return index


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """``d^2`` of points and centres ``(..., D)`` that broadcast; summed in the order of the axes."""
    square = (points[..., 0] - centres[..., 0]).square()
    for axis in range(1, points.shape[-1]):
        square = square + (points[..., axis] - centres[..., axis]).square()
    return square


def _check(points: Tensor, centres: Tensor, most: int, **counts: Tensor) -> None:
    """What can be said without reading a number from the device."""
    if points.ndim != 3 or points.shape[-1] not in (2, 3):
        raise ValueError(f"points: got shape {tuple(points.shape)}, expected (B, N, D) with D = 2 or 3.")
    if centres.ndim != 3 or centres.shape[0] != points.shape[0] or centres.shape[-1] != points.shape[-1]:
        raise ValueError(
            f"centres or queries: got shape {tuple(centres.shape)}, expected ({points.shape[0]}, S, "
            f"{points.shape[-1]}) beside points {tuple(points.shape)}."
        )
    if points.dtype not in (torch.float32, torch.float64) or centres.dtype != points.dtype:
        raise ValueError(
            f"points and centres: got {points.dtype} and {centres.dtype}, expected both float32 or both float64; "
            "positions in half precision are too coarse to tell neighbours apart."
        )
    for name, number in counts.items():
        whole = not (number.is_floating_point() or number.is_complex() or number.dtype == torch.bool)
        if tuple(number.shape) != (points.shape[0],) or not whole:
            raise ValueError(
                f"{name}: got shape {tuple(number.shape)} of {number.dtype}, expected one integer for each of "
                f"{points.shape[0]} samples."
            )
    if len({value.device for value in (points, centres, *counts.values())}) > 1:
        raise ValueError(
            f"points are on {points.device}, centres on {centres.device}, counts on "
            f"{[str(value.device) for value in counts.values()]}; expected one device, move them there."
        )
    if most < 1:
        raise ValueError(f"most or k: got {most}, expected at least 1.")


def gather_neighbours(values: Tensor, indices: Tensor) -> Tensor:
    """``(B, N, C)`` at the neighbours ``(B, S, K)``: ``(B, S, K, C)``."""
    flat = indices.flatten(1)[..., None].expand(-1, -1, values.shape[-1])
    return values.gather(1, flat).unflatten(1, indices.shape[1:])
