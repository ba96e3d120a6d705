r"""The nearest place of a surface for many query points, exactly: wall distance, direction, facet and normal.

A surface in D dimensions is made of facets with D corners (segments in 2-D, triangles in 3-D), or of points alone.
Candidates come from a k-d tree of the corners, and this bound says which facets cannot be left out. Let :math:`x` be
the nearest place of the surface to :math:`q`, inside a face (facet, edge or corner) with corners :math:`v`. The line
from :math:`q` to :math:`x` is at right angles to that face, hence

.. math:: |q - v|^2 = |q - x|^2 + |x - v|^2 \quad\text{and so}\quad \min_v |q - v|^2 \le U^2 + \rho^2

with any upper bound :math:`U` of the distance and :math:`\rho` the largest distance of a place of the facet to the
nearest corner: half a segment; of a triangle with longest edge :math:`L` at most :math:`L/\sqrt 3`, which the
equilateral one attains. Only facets with a corner that near are measured, however far the query is: the margin is
:math:`\rho^2 / 2U` in distance, where bounding spheres would need :math:`2\rho`. Facets are taken in classes of size,
each with its own tree, so that a few large ones do not widen the bound of the many small ones.

Distances are taken from differences with a corner, so they are as good far from the origin as near it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

AT_ONCE = 2**19
"""About how many pairs of a query and a corner, or facet, are held in memory at a time: some 100 MB."""
SLACK = 64 * float(np.finfo(np.float64).eps)
"""Relative rounding of squared distances, generously: each takes some ten operations."""
FIRST = 4
"""Corners that the tree is asked for first: facets of equal size have two or three within the bound."""
ALIKE = 2**13
"""Queries that a tree is asked together. They are sorted by what is known of their distance, and the tree looks no
farther than the worst of them needs."""


@dataclass(frozen=True)
class Nearest:
    """For each query the nearest place of a surface."""

    distance: Reals
    """``(Q,)``, in the unit of the surface, never negative: which side a query is on is not asked."""
    direction: Reals
    """``(Q, D)``, unit vector from the query to the nearest place; zero where the query lies on it."""
    facet: Integers
    """``(Q,)``, the facet or point it is on; of several as near to the last bit, the one of lowest index."""
    normal: Reals | None
    """``(Q, D)``, unit normal of that facet; None for points that came without."""


class Surface(ABC):
    """What has a nearest place; see :class:`MeshSurface` and :class:`PointSurface`."""

    @abstractmethod
    def nearest(self, queries: ArrayLike, *, workers: int = 1) -> Nearest:
        """The nearest place of each query.

        Args:
            queries: ``(Q, D)``, in the unit of the surface. Memory beyond that of the result does not grow with Q.
            workers: threads that search trees; the result does not depend on it.

        Raises:
            ValueError: where a query has another number of dimensions or is not finite.
        """


class MeshSurface(Surface):
    """A polyline in 2-D or triangles in 3-D; facets need neither be connected nor share their corners.

    Where the nearest place is on an edge or a corner, all facets there are equally near and the lowest index is named;
    its normal is that of one side.

    Args:
        vertices: ``(V, D)``, D = 2 or 3, in any one unit of length.
        facets: ``(F, D)``, integers: the corners of each segment or triangle. The normal of a triangle follows its
            corners by the right hand; that of a segment is on its right, so outward where a closed line runs
            counter-clockwise.

    Raises:
        ValueError: where shapes do not fit, a vertex that is used is not finite, an index is out of range, or a facet
            is :func:`degenerate`: it has no normal, and most often it is a defect of the mesh.
    """

    def __init__(self, vertices: ArrayLike, facets: ArrayLike) -> None:
        corners, index = _mesh(vertices, facets)
        bad = _degenerate(corners[index])
        if bad.any():
            raise ValueError(
                f"facets: got {int(bad.sum())} of {len(index)} without area, first {int(bad.argmax())} with corners "
                f"{corners[index[bad.argmax()]].tolist()}; expected distinct corners that are not in line. Mend the "
                "mesh, or leave these facets out: `facets[~physml.geometry.degenerate(vertices, facets)]`."
            )
        self.normals: Reals = _normals(corners[index])
        """``(F, D)``, unit normals."""
        self._search = _Search(corners, index)

    def nearest(self, queries: ArrayLike, *, workers: int = 1) -> Nearest:
        return _with_normals(self._search(queries, workers), self.normals)


class PointSurface(Surface):
    """A surface of which only points are known; the nearest point is taken for the nearest place.

    With points that are at most h from any place of the true surface, the distance d is too large by at most
    h, and far from it by about :math:`h^2 / 2d`.

    Args:
        points: ``(F, D)``, D = 2 or 3.
        normals: ``(F, D)`` where they are known; given back as they are.

    Raises:
        ValueError: where shapes do not fit, or a point is not finite.
    """

    def __init__(self, points: ArrayLike, normals: ArrayLike | None = None) -> None:
        corners = _places(points, "points")
        if not len(corners):
            raise ValueError("points: got none, expected at least one.")
        self.normals: Reals | None = None
        """``(F, D)``, or None."""
        if normals is not None:
            self.normals = np.asarray(normals, dtype=np.float64)
            if self.normals.shape != corners.shape:
                raise ValueError(f"normals: got shape {self.normals.shape}, expected {corners.shape}, that of points.")
        self._search = _Search(corners, np.arange(len(corners))[:, None])

    def nearest(self, queries: ArrayLike, *, workers: int = 1) -> Nearest:
        return _with_normals(self._search(queries, workers), self.normals)


def degenerate(vertices: ArrayLike, facets: ArrayLike) -> NDArray[np.bool_]:
    """``(F,)``, which facets have no direction: corners that coincide or are in line, up to rounding in double.

    Arguments and errors are those of :class:`MeshSurface`. A triangle counts where its height over the longest edge is
    below 4e-15 of that edge, a segment only where its ends coincide.
    """
    corners, index = _mesh(vertices, facets)
    return _degenerate(corners[index])


def _degenerate(corners: Reals) -> NDArray[np.bool_]:
    """Of facets ``(F, m, D)``."""
    edges = corners[:, 1:] - corners[:, :1]
    if edges.shape[1] == 1:
        return np.asarray(~edges.any(axis=(1, 2)))
    double_area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
    return np.asarray(double_area <= 16 * np.finfo(np.float64).eps * _longest(corners) ** 2)


def _normals(corners: Reals) -> Reals:
    edges = corners[:, 1:] - corners[:, :1]
    if edges.shape[1] == 1:
        normals = np.stack([edges[:, 0, 1], -edges[:, 0, 0]], axis=-1)
    else:
        normals = np.cross(edges[:, 0], edges[:, 1])
    return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True))


def _longest(corners: Reals) -> Reals:
    """The longest edge of each facet ``(F, m, D)``."""
    return np.asarray(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max(axis=-1))


def _with_normals(found: tuple[Reals, Reals, Integers], normals: Reals | None) -> Nearest:
    return Nearest(*found, None if normals is None else normals[found[2]])


class _Search:
    """Nearest places on facets ``(F, m)`` with m corners among ``(V, D)``; all are used as they are."""

    def __init__(self, vertices: Reals, facets: Integers) -> None:
        # Equal corners become one, in the order of their coordinates. A facet then begins at the same corner as its
        # neighbour, and an edge that two share is measured from the same end: to the last bit the same.
        used, inverse = np.unique(vertices[facets.ravel()] + 0.0, axis=0, return_inverse=True)
        self._facets = np.sort(inverse.reshape(facets.shape), axis=1)
        self._corners = used
        size = facets.shape[1]
        rho = _longest(used[self._facets]) / (2.0 if size == 2 else 3.0**0.5)
        _, power = np.frexp(rho)  # rho < 2^power <= 2 rho; all points have 0
        self._classes = [
            _Class(used, self._facets, np.flatnonzero(power == p), float(rho[power == p].max()) ** 2)
            for p in np.unique(power)
        ]

    def __call__(self, queries: ArrayLike, workers: int) -> tuple[Reals, Reals, Integers]:
        places = _places(queries, "queries")
        if places.shape[1] != self._corners.shape[1]:
            raise ValueError(
                f"queries: got {places.shape[1]} dimensions, expected {self._corners.shape[1]} as the surface has."
            )
        distance, direction = np.empty(len(places)), np.empty_like(places)
        facet = np.empty(len(places), dtype=np.int64)
        for start in range(0, len(places), AT_ONCE // FIRST):
            part = slice(start, start + AT_ONCE // FIRST)
            distance[part], direction[part], facet[part] = self._some(places[part], workers)
        return distance, direction, facet

    def _some(self, queries: Reals, workers: int) -> tuple[Reals, Reals, Integers]:
        best = _Best(queries, self._corners, self._facets)
        for group in self._classes:
            group.search(queries, best, workers)
        away = _away(queries, self._corners, self._facets, np.arange(len(queries)), best.facet)
        distance = np.linalg.norm(away, axis=-1)
        direction = np.divide(away, distance[:, None], out=np.zeros_like(away), where=distance[:, None] > 0)
        return distance, direction, best.facet


class _Best:
    """The nearest facet of each query so far."""

    def __init__(self, queries: Reals, corners: Reals, facets: Integers) -> None:
        self._queries, self._corners, self._facets = queries, corners, facets
        self.square: Reals = np.full(len(queries), np.inf)
        self.facet: Integers = np.full(len(queries), len(facets), dtype=np.int64)

    def measure(self, row: Integers, facet: Integers) -> None:
        """Take pairs of query and facet into account; those of a row follow each other."""
        for start in range(0, len(row), AT_ONCE):
            self._measure(row[start : start + AT_ONCE], facet[start : start + AT_ONCE])

    def _measure(self, row: Integers, facet: Integers) -> None:
        away = _away(self._queries, self._corners, self._facets, row, facet)
        square = _dot(away, away)
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        here = row[starts]
        least = np.minimum.reduceat(square, starts)
        lengths = np.diff(starts, append=len(row))
        ties = np.where(square == np.repeat(least, lengths), facet, len(self._facets))
        lowest = np.minimum.reduceat(ties, starts)
        old, old_facet = self.square[here], self.facet[here]
        better = (least < old) | ((least == old) & (lowest < old_facet))
        self.square[here] = np.where(better, least, old)
        self.facet[here] = np.where(better, lowest, old_facet)


class _Class:
    """Facets of about one size, found by their corners; ``rho_square`` is the largest of them."""

    def __init__(self, corners: Reals, facets: Integers, members: Integers, rho_square: float) -> None:
        own, inverse = np.unique(facets[members], return_inverse=True)
        self._tree = cKDTree(corners[own], leafsize=32)  # the fastest of 8 to 32 for queries far from a surface
        self._rho_square = rho_square
        # facets around each corner, ascending
        flat = inverse.reshape(-1)
        order = np.argsort(flat, kind="stable")
        self._around = np.repeat(members, facets.shape[1])[order]
        self._begin = np.searchsorted(flat[order], np.arange(len(own) + 1))

    def search(self, queries: Reals, best: _Best, workers: int) -> None:
        """Measure all facets of the class that may be nearest."""
        rows = np.argsort(best.square, kind="stable")
        wanted, total, new = FIRST, self._tree.n, True
        while len(rows):
            wanted = min(wanted, total)
            left = []
            size = min(ALIKE, max(1, AT_ONCE // wanted))
            for part in (rows[start : start + size] for start in range(0, len(rows), size)):
                # no corner can matter beyond this; what the tree leaves out is infinitely far
                bound = float(np.sqrt((best.square[part].max() + self._rho_square) * (1 + SLACK)))
                distance, corner = self._tree.query(
                    queries[part], k=np.arange(1, wanted + 1), distance_upper_bound=bound * (1 + SLACK), workers=workers
                )
                square = distance**2
                near = np.isfinite(distance)
                if new:
                    self._measure(part[near[:, 0]], corner[near[:, 0], 0], best)
                near &= square <= ((best.square[part] + self._rho_square) * (1 + SLACK))[:, None]
                if wanted < total:
                    left.append(part[near[:, -1]])  # corners beyond the last may be near enough, too
                # later all are measured again: of equally near corners the tree may have named others before
                near[:, 0] &= not new
                at, place = np.nonzero(near)
                self._measure(part[at], corner[at, place], best)
            rows = np.concatenate(left) if left else rows[:0]
            wanted, new = 2 * wanted, False

    def _measure(self, row: Integers, corner: Integers, best: _Best) -> None:
        """The facets around each corner; as many pairs at a time as memory allows."""
        number = self._begin[corner + 1] - self._begin[corner]
        ends = np.cumsum(number)
        start = 0
        while start < len(row):
            before = ends[start] - number[start]
            stop = max(start + 1, int(np.searchsorted(ends, before + AT_ONCE, side="right")))
            count = number[start:stop]
            offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            facet = self._around[np.repeat(self._begin[corner[start:stop]], count) + offset]
            best.measure(np.repeat(row[start:stop], count), facet)
            start = stop


def _away(queries: Reals, corners: Reals, facets: Integers, row: Integers, facet: Integers) -> Reals:
    """From each query to the nearest place of its facet, ``(P, D)``.

    The nearest place of a triangle is the foot of the perpendicular where that is inside, else it is on an edge. All
    are places of the triangle up to rounding, so that taking the nearest of them is never wrong.
    """
    corner = corners[facets[facet]]
    first = corner[:, 0] - queries[row]
    if corner.shape[1] == 1:
        return first
    edges = [corner[:, k] - corner[:, 0] for k in range(1, corner.shape[1])]
    away = _to_segment(first, edges[0])
    if len(edges) == 1:
        return away
    a, b = edges
    square = _dot(away, away)
    candidates = [_to_segment(first, b), _to_segment(first + a, corner[:, 2] - corner[:, 1])]
    across = np.cross(a, b)
    area = _dot(across, across)
    along_a, along_b = _dot(np.cross(b, first), across), _dot(np.cross(first, a), across)
    inside = (along_a >= 0) & (along_b >= 0) & (along_a + along_b <= area)
    weight = np.where(inside, area, 1.0)
    foot = first + (along_a / weight)[:, None] * a + (along_b / weight)[:, None] * b
    candidates.append(np.where(inside[:, None], foot, np.inf))
    for candidate in candidates:
        other = _dot(candidate, candidate)
        nearer = other < square
        away = np.where(nearer[:, None], candidate, away)
        square = np.where(nearer, other, square)
    return away


def _to_segment(start: Reals, edge: Reals) -> Reals:
    """The shortest of ``start + t edge`` with 0 <= t <= 1."""
    part = np.clip(-_dot(start, edge) / np.maximum(_dot(edge, edge), np.finfo(np.float64).tiny), 0.0, 1.0)
    return np.asarray(start + part[:, None] * edge)


def _dot(a: Reals, b: Reals) -> Reals:
    """Of each row, added in the order of the axes: faster than a sum along so short an axis."""
    total = a[:, 0] * b[:, 0]
    for axis in range(1, a.shape[1]):
        total += a[:, axis] * b[:, axis]
    return np.asarray(total)


def _places(values: ArrayLike, name: str) -> Reals:
    places = np.asarray(values, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        raise ValueError(f"{name}: got shape {places.shape}, expected (N, D) with D = 2 or 3.")
    finite = np.isfinite(places).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name}: got {int((~finite).sum())} of {len(places)} that are not finite, first row "
            f"{int(finite.argmin())}; leave them out."
        )
    return places


def _mesh(vertices: ArrayLike, facets: ArrayLike) -> tuple[Reals, Integers]:
    given: NDArray[Any] = np.asarray(facets)
    corners = np.asarray(vertices, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] not in (2, 3):
        raise ValueError(f"vertices: got shape {corners.shape}, expected (V, D) with D = 2 or 3.")
    d = corners.shape[1]
    if given.ndim != 2 or given.shape[1] != d or not len(given) or given.dtype.kind not in "iu":
        raise ValueError(
            f"facets: got shape {given.shape} of {given.dtype}, expected at least one row of {d} integers: "
            f"{'the ends of a segment' if d == 2 else 'the corners of a triangle'}; cut polygons into such."
        )
    index = given.astype(np.int64)
    if index.min() < 0 or index.max() >= len(corners):
        raise ValueError(
            f"facets: got indices from {index.min()} to {index.max()}, expected from 0 to {len(corners) - 1}; files "
            "that count from 1 need 1 taken away."
        )
    _places(corners[np.unique(index)], "vertices in use")
    return corners, index
