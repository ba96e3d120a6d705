"""Nearest places of surfaces against exact solutions, all facets written out, and what makes a place the nearest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from physml.geometry import MeshSurface, Nearest, PointSurface, degenerate, surfaces
from physml.nn.neighbours import nearest_neighbours

EPS = float(np.finfo(np.float64).eps)

# Corners of a cube of two units around the origin, and triangles of its faces, seen from outside counter-clockwise.
CUBE = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
BOX = np.array([triangle for a, b, c, d in QUADS for triangle in ([a, b, c], [a, c, d])])
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])  # counter-clockwise
SIDES = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])


def box_distance(queries: np.ndarray) -> np.ndarray:
    """From the surface of ``[-1, 1]^D``, inside and outside."""
    beyond = np.abs(queries) - 1
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    return np.where((beyond < 0).all(axis=-1), -beyond.max(axis=-1), outside)


def icosphere(times: int) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere: an octahedron whose triangles are cut in four, and the new corners moved to the sphere."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
    soup = corners[[[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]]
    for _ in range(times):
        a, b, c = soup.swapaxes(0, 1)
        ab, bc, ca = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a + b, b + c, c + a))
        soup = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return soup.reshape(-1, 3), np.arange(3 * len(soup)).reshape(-1, 3)


def faces(corners: np.ndarray) -> Iterator[np.ndarray]:
    """Every corner, edge and interior of one facet ``(m, D)``."""
    for size in range(1, len(corners) + 1):
        for chosen in itertools.combinations(range(len(corners)), size):
            yield corners[list(chosen)]


def by_hand(queries: np.ndarray, vertices: np.ndarray, facets: np.ndarray) -> np.ndarray:
    """Distances ``(Q, F)``: the least over all faces whose plane has its nearest place inside, by least squares."""
    out = np.full((len(queries), len(facets)), np.inf)
    for f, facet in enumerate(facets):
        for face in faces(vertices[facet]):
            edges = (face[1:] - face[0]).T
            away = queries - face[0]
            part = np.linalg.pinv(edges) @ away.T if edges.size else np.zeros((0, len(queries)))
            inside = (part >= 0).all(axis=0) & (part.sum(axis=0) <= 1)
            distance = np.linalg.norm(away - (edges @ part).T, axis=-1)
            out[:, f] = np.where(inside, np.minimum(out[:, f], distance), out[:, f])
    return out


def random_mesh(d: int, vertices: int, facets: int, decades: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Facets that cross each other, of sizes over some decades."""
    draw = np.random.default_rng(seed)
    places = draw.normal(size=(vertices, d)) * 10 ** draw.uniform(-decades, decades, size=(vertices, 1))
    return places, np.array([draw.permutation(vertices)[:d] for _ in range(facets)])


def assert_consistent(found: Nearest, queries: np.ndarray, corners: np.ndarray, size: float) -> None:
    """The place that is named lies on the facet that is named, and no place of that facet is nearer.

    A place x of a convex set is the nearest to q exactly if (q - x).(v - x) <= 0 for all its corners v.
    """
    unit = np.linalg.norm(found.direction, axis=-1)
    np.testing.assert_allclose(unit[found.distance > 0], 1, rtol=4 * EPS)
    assert not found.direction[found.distance == 0].any()
    place = queries + found.distance[:, None] * found.direction
    facet = corners[found.facet]
    rounding = 32 * EPS * (found.distance + size)
    edges = (facet[:, 1:] - facet[:, :1]).swapaxes(1, 2)
    part = (np.linalg.pinv(edges) @ (place - facet[:, 0])[..., None])[..., 0]
    inside = np.clip(part, 0, 1)
    over = np.abs(((edges @ inside[..., None])[..., 0] + facet[:, 0]) - place).max(axis=-1)
    assert (over <= 100 * rounding).all()
    beyond = ((queries - place)[:, None] * (facet - place[:, None])).sum(axis=-1)
    assert (beyond <= 4 * rounding[:, None] * (found.distance + size)[:, None]).all()


@settings(max_examples=40)
@given(
    d=st.sampled_from([2, 3]), vertices=st.integers(3, 20), facets=st.integers(1, 25), queries=st.integers(0, 20),
    decades=st.sampled_from([0.0, 2.0]), seed=st.integers(0, 1000), first=st.sampled_from([1, 4]),
    memory=st.sampled_from([8, 2**19]),
)  # fmt: skip
def test_no_facet_is_nearer(
    d: int, vertices: int, facets: int, queries: int, decades: float, seed: int, first: int, memory: int
) -> None:
    places, index = random_mesh(d, vertices, facets, decades, seed)
    draw = np.random.default_rng(seed + 1)
    wanted = draw.normal(size=(queries, d)) * 10 ** draw.uniform(-3, 3, size=(queries, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surfaces, "FIRST", first)  # how many corners are asked for, and memory, change nothing
        patch.setattr(surfaces, "AT_ONCE", memory)
        found = MeshSurface(places, index).nearest(wanted)
    expected = by_hand(wanted, places, index)
    size = np.abs(places).max()
    # some ten roundings of numbers as large as the distance and the facets
    np.testing.assert_array_less(np.abs(found.distance - expected.min(axis=1)), 32 * EPS * (found.distance + size))
    named = np.take_along_axis(expected, found.facet[:, None], axis=1)[:, 0]
    np.testing.assert_array_less(np.abs(named - found.distance), 32 * EPS * (found.distance + size))


@pytest.mark.parametrize("d", [2, 3])
def test_distances_from_a_box(d: int) -> None:
    surface = MeshSurface(SQUARE, SIDES) if d == 2 else MeshSurface(CUBE, BOX)
    queries = np.random.default_rng(0).uniform(-3, 3, size=(2000, d))
    found = surface.nearest(queries)
    np.testing.assert_allclose(found.distance, box_distance(queries), rtol=0, atol=16 * EPS)
    assert found.normal is not None
    # before a face, where just one coordinate is beyond, the normal points to the query and the direction back
    facing = ((np.abs(queries) > 1).sum(axis=-1)) == 1
    expected = np.where(np.abs(queries) > 1, np.sign(queries), 0.0)[facing]
    np.testing.assert_array_equal(found.normal[facing], expected)
    np.testing.assert_allclose(found.direction[facing], -expected, rtol=0, atol=16 * EPS / found.distance[facing].min())
    assert_consistent(found, queries, (SQUARE[SIDES] if d == 2 else CUBE[BOX]), 2.0)


def test_distances_from_a_sphere() -> None:
    vertices, facets = icosphere(4)
    corners = vertices[facets]
    inner = np.abs((MeshSurface(vertices, facets).normals * corners[:, 0]).sum(axis=-1)).min()  # the sphere inside
    queries = np.random.default_rng(1).normal(size=(500, 3))
    radius = np.linalg.norm(queries, axis=-1)
    found = MeshSurface(vertices, facets).nearest(queries)
    outside = radius > 1
    assert outside.sum() > 100 and (~outside).sum() > 30
    # The surface lies between the two spheres; both bounds hold for every query.
    rounding = 16 * EPS
    assert (found.distance[outside] >= radius[outside] - 1 - rounding).all()
    assert (found.distance[outside] <= radius[outside] - inner + rounding).all()
    inside = radius < inner
    assert (found.distance[inside] <= 1 - radius[inside] + rounding).all()
    assert (found.distance[inside] >= inner - radius[inside] - rounding).all()
    assert found.normal is not None
    outward = queries / radius[:, None]
    # A facet spans an angle of at most 0.09 around its centre, twice that lies between its normal and a query over it.
    assert ((found.normal * outward).sum(axis=-1)[outside] > np.cos(0.18)).all()
    assert_consistent(found, queries, corners, 1.0)


def test_distance_from_a_point_as_near_to_all_facets() -> None:
    vertices, facets = icosphere(3)  # at the centre all 258 corners are equally near, and all are candidates
    found = MeshSurface(vertices, facets).nearest(np.zeros((3, 3)))
    inner = np.abs((MeshSurface(vertices, facets).normals * vertices[facets][:, 0]).sum(axis=-1)).min()
    np.testing.assert_allclose(found.distance, inner, rtol=8 * EPS)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_small_body_over_a_large_floor(scale: float) -> None:
    floor = np.array([[-500.0, -500.0, -3.0], [500.0, -500.0, -3.0], [0.0, 800.0, -3.0]])
    surface = MeshSurface(scale * np.concatenate([CUBE / 100, floor]), np.concatenate([BOX, [[8, 9, 10]]]))
    queries = np.random.default_rng(2).uniform(-2.9, 2.9, size=(1000, 3))
    body = box_distance(queries * 100) / 100
    found = surface.nearest(scale * queries)
    expected = np.minimum(body, queries[:, 2] + 3)
    np.testing.assert_allclose(found.distance / scale, expected, rtol=0, atol=8 * EPS * 1000)  # of the floor's size
    assert ((found.facet == 12) == (queries[:, 2] + 3 < body)).all()
    assert 0 < (found.facet == 12).sum() < 1000


@pytest.mark.parametrize("d", [2, 3])
def test_turned_moved_and_renumbered_surfaces_have_the_same_distances(d: int) -> None:
    draw = np.random.default_rng(3)
    places, index = random_mesh(d, 12, 15, 0.5, 4)
    queries = draw.normal(size=(200, d))
    turn, _ = np.linalg.qr(draw.normal(size=(d, d)))
    before = MeshSurface(places, index).nearest(queries)
    after = MeshSurface(places @ turn + 5, index).nearest(queries @ turn + 5)
    rounding = 64 * EPS * (10 + np.abs(places).max())  # the turn rounds the places themselves
    np.testing.assert_allclose(after.distance, before.distance, rtol=0, atol=rounding)
    clear = before.distance > 1e-3
    np.testing.assert_allclose(after.direction[clear], (before.direction @ turn)[clear], rtol=0, atol=1e3 * rounding)
    order = draw.permutation(15)
    renumbered = MeshSurface(places, index[order]).nearest(queries)
    np.testing.assert_array_equal(renumbered.distance, before.distance)


def test_far_from_the_origin_distances_are_as_good() -> None:
    # a move by a power of two that all quarters survive without rounding
    move = 2.0**30
    queries = np.random.default_rng(5).integers(-12, 12, size=(300, 3)) / 4.0
    near, far = (MeshSurface(CUBE + x, BOX).nearest(queries + x) for x in (0.0, move))
    np.testing.assert_array_equal(far.distance, near.distance)
    np.testing.assert_array_equal(far.facet, near.facet)


def test_on_corners_and_edges_the_lowest_facet_is_named() -> None:
    soup, own = CUBE[BOX].reshape(-1, 3), np.arange(36).reshape(-1, 3)  # corners not shared
    on_edges = (CUBE[BOX] + np.roll(CUBE[BOX], 1, axis=1)).reshape(-1, 3) / 2
    off_edges = 1.5 * on_edges[np.abs(on_edges).max(axis=1) > 0.9]
    queries = np.concatenate([CUBE, on_edges, off_edges, 1.25 * CUBE])
    expected = by_hand(queries, CUBE, BOX)
    lowest = (expected <= expected.min(axis=1, keepdims=True) + 1e-12).argmax(axis=1)
    for surface in (MeshSurface(CUBE, BOX), MeshSurface(soup, own)):
        found = surface.nearest(queries)
        np.testing.assert_array_equal(found.facet, lowest)
        assert (found.distance[:44] == 0).all() and not found.direction[:44].any()


def test_facets_without_area_are_refused_and_can_be_left_out() -> None:
    line = np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [0.0, 1.0, 0.0], [0.1, 0.1, 0.1]])
    facets = np.array([[0, 2, 3], [0, 1, 2], [0, 1, 4], [1, 1, 3]])
    np.testing.assert_array_equal(degenerate(line, facets), [False, True, True, True])
    with pytest.raises(ValueError, match=r"facets: got 3 of 4 without area, first 1 with corners .*leave these"):
        MeshSurface(line, facets)
    kept = facets[~degenerate(line, facets)]
    assert MeshSurface(line, kept).nearest([[0.2, 0.2, 0.2]]).distance[0] <= EPS
    np.testing.assert_array_equal(degenerate(SQUARE, [[0, 0], [0, 1]]), [True, False])
    needle = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 1e-12, 0.0]])  # thin, but with a direction
    assert not degenerate(needle, [[0, 1, 2]]).any()
    np.testing.assert_allclose(MeshSurface(needle, [[0, 1, 2]]).nearest([[0.5, 0, 2.0]]).distance, 2, rtol=2 * EPS)


def test_tiny_surfaces_have_unit_normals() -> None:
    normals = MeshSurface(1e-60 * CUBE, BOX[:1]).normals
    np.testing.assert_array_equal(normals, [[-1, 0, 0]])


@settings(max_examples=40)
@given(
    d=st.sampled_from([2, 3]), points=st.integers(1, 40), queries=st.integers(0, 20), ties=st.booleans(),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_points_without_facets(d: int, points: int, queries: int, ties: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    places, wanted = draw.normal(size=(points, d)), draw.normal(size=(queries, d))
    if ties:
        places, wanted = places.round(), wanted.round()
    normals = draw.normal(size=(points, d))
    found = PointSurface(places, normals).nearest(wanted)
    distance = np.linalg.norm(wanted[:, None] - places, axis=-1)
    np.testing.assert_allclose(found.distance, distance.min(axis=1), rtol=4 * EPS)
    counts = torch.tensor([points])
    index = nearest_neighbours(torch.from_numpy(places)[None], counts, torch.from_numpy(wanted)[None], 1).indices
    np.testing.assert_array_equal(found.facet, index[0, :, 0].numpy())
    np.testing.assert_array_equal(found.normal, normals[found.facet])
    np.testing.assert_allclose(
        wanted + found.distance[:, None] * found.direction, places[found.facet], rtol=0, atol=32 * EPS
    )
    assert PointSurface(places).nearest(wanted).normal is None


def test_points_of_a_surface_are_too_far_by_what_is_promised() -> None:
    vertices, facets = icosphere(4)
    spacing = 0.09  # any place of the sphere has a point within: L / sqrt(3), and the sphere is 0.004 above a facet
    assert np.linalg.norm(vertices[facets] - vertices[np.roll(facets, 1, axis=1)], axis=-1).max() < 0.153
    queries = np.random.default_rng(6).normal(size=(500, 3)) * 3
    exact = np.abs(np.linalg.norm(queries, axis=-1) - 1)
    excess = PointSurface(vertices).nearest(queries).distance - exact
    assert (excess >= -8 * EPS).all() and (excess <= spacing + 8 * EPS).all()
    assert excess.max() > 1e-4, "points are not the surface"


def test_threads_change_nothing() -> None:
    vertices, facets = icosphere(2)
    queries = np.random.default_rng(7).normal(size=(300, 3))
    one, two = (MeshSurface(vertices, facets).nearest(queries, workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.distance, two.distance)
    np.testing.assert_array_equal(one.facet, two.facet)


def test_what_does_not_fit_is_refused() -> None:
    wrong = CUBE.copy()
    wrong[3, 1] = np.nan
    for message, vertices, facets in (
        (r"vertices: got shape \(8, 1\), expected \(V, D\) with D = 2 or 3", CUBE[:, :1], BOX),
        (r"facets: got shape \(6, 4\) of int64, expected at least one row of 3 integers: the corners", CUBE, QUADS),
        (r"facets: got shape \(12, 3\) of int64, expected at least one row of 2 integers: the ends", SQUARE, BOX),
        (r"facets: got shape \(0, 3\)", CUBE, BOX[:0]),
        (r"facets: got shape \(12, 3\) of float64", CUBE, BOX.astype(float)),
        (r"facets: got indices from 1 to 8, expected from 0 to 7; files that count from 1", CUBE, BOX + 1),
        (r"vertices in use: got 1 of 8 that are not finite, first row 3", wrong, BOX),
    ):
        with pytest.raises(ValueError, match=message):
            MeshSurface(vertices, facets)
    assert MeshSurface(np.append(CUBE, [[np.nan] * 3], axis=0), BOX).nearest(CUBE).distance.max() == 0  # not in use
    with pytest.raises(ValueError, match=r"queries: got 2 dimensions, expected 3"):
        MeshSurface(CUBE, BOX).nearest(SQUARE)
    with pytest.raises(ValueError, match=r"queries: got 1 of 8 that are not finite, first row 3; leave them out"):
        MeshSurface(CUBE, BOX).nearest(wrong)
    with pytest.raises(ValueError, match=r"points: got none"):
        PointSurface(CUBE[:0])
    with pytest.raises(ValueError, match=r"normals: got shape \(7, 3\), expected \(8, 3\)"):
        PointSurface(CUBE, CUBE[1:])
