"""Neighbours against all distances written out; the tree, the tiles and the interpreted kernel against each other."""

from __future__ import annotations

import json
import math

import interpreting
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from physml.nn import neighbours
from physml.nn.neighbours import by_tree, nearest_neighbours, radius_neighbours, tiled

KINDS = [torch.float32, torch.float64]

# Points, whether on a lattice (many are equally near), radius, neighbours wanted.
KERNEL_CASES: dict[str, tuple[int, int, bool, float, int]] = {
    "plane": (2, 100, False, 0.3, 5),
    "plane, ties": (2, 100, True, 0.5, 8),
    "space": (3, 100, False, 0.5, 32),
    "space, ties": (3, 100, True, 0.6, 7),
    "more than a tile": (3, 70, False, 1.0, 40),
    "the nearest": (3, 100, True, math.inf, 3),
    "none": (3, 40, False, 1e-6, 2),
}


def cloud(d: int, n: int, lattice: bool, kind: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, ...]:
    """Points, counts, centres and their counts of three samples: a whole one, a short one, one without centres.

    A third of the centres are points, another third lies outside the cloud; padding would be the nearest of all.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(3, n, d, dtype=kind, generator=generator)
    other = 1.5 * torch.rand(3, n // 6, d, dtype=kind, generator=generator)
    if lattice:
        points, other = (points * 5).round() / 4, (other * 5).round() / 4
    centres = torch.cat([points[:, : n // 3 : 2], other], dim=1)
    counts, centre_counts = (
        torch.tensor([n, min(n, 6), n // 2]),
        torch.tensor([centres.shape[1], min(centres.shape[1], 5), 0]),
    )
    points[1, int(counts[1]) :] = centres[1, :1]
    return points, counts, centres, centre_counts


def limit_of(radius: float, kind: torch.dtype) -> float:
    rounded = torch.tensor(radius, dtype=kind)
    return min(float(rounded * rounded), torch.finfo(kind).max)


def by_hand(
    points: Tensor, counts: Tensor, centres: Tensor, centre_counts: Tensor, radius: float, most: int
) -> list[list[list[int]]]:
    """For each centre the sorted list of (distance, index) cut to what is wanted, by Python."""
    limit, found = limit_of(radius, points.dtype), []
    for b in range(len(points)):
        rows = []
        for s in range(int(centre_counts[b])):
            square = ((points[b, : counts[b]] - centres[b, s]) ** 2).unbind(-1)
            total = sum(square[1:], start=square[0]).tolist()
            near = sorted((value, n) for n, value in enumerate(total) if value <= limit)
            rows.append([n for _, n in near[:most]])
        found.append(rows)
    return found


def as_lists(found: neighbours.Neighbours, centre_counts: Tensor) -> list[list[list[int]]]:
    index, mask = found
    assert not mask[torch.arange(mask.shape[1]) >= centre_counts[:, None]].any()
    assert bool((mask.int().diff(dim=-1) <= 0).all()), "empty places come last"
    assert int(index[~mask].abs().sum()) == 0
    return [[index[b, s][mask[b, s]].tolist() for s in range(int(n))] for b, n in enumerate(centre_counts)]


@settings(max_examples=60)
@given(
    d=st.sampled_from([2, 3]), n=st.integers(6, 60), lattice=st.booleans(), kind=st.sampled_from(KINDS),
    radius=st.sampled_from([1e-6, 0.25, 0.5, 1.0, math.inf]), most=st.sampled_from([1, 3, 16, 80]),
    seed=st.integers(0, 1000), size=st.sampled_from([1, 2**12, 2**24]),
)  # fmt: skip
@example(d=3, n=60, lattice=True, kind=torch.float32, radius=1.0, most=3, seed=0, size=1)
def test_tree_and_tiles_are_what_sorting_gives(
    d: int, n: int, lattice: bool, kind: torch.dtype, radius: float, most: int, seed: int, size: int
) -> None:
    points, counts, centres, centre_counts = cloud(d, n, lattice, kind, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "AT_ONCE", size)  # memory changes nothing
        arguments = (points, counts, centres, centre_counts, limit_of(radius, kind), most)
        tree = by_tree(*arguments)
        assert torch.equal(tiled(*arguments), tree)
    found = neighbours.Neighbours(tree.clamp(min=0), tree >= 0)
    assert as_lists(found, centre_counts) == by_hand(points, counts, centres, centre_counts, radius, most)


@pytest.mark.parametrize("kind", KINDS)
def test_equally_near_points_come_in_the_order_of_their_index(kind: torch.dtype) -> None:
    angle = torch.arange(40) * (math.pi / 2)
    ring = torch.stack([angle.cos().round(), angle.sin().round()], dim=-1).to(kind)[None]  # ten times four places
    counts = torch.tensor([40])
    found = radius_neighbours(ring, counts, torch.zeros(1, 1, 2, dtype=kind), torch.tensor([1]), 1.0, 7)
    assert found.indices.tolist() == [[[0, 1, 2, 3, 4, 5, 6]]] and bool(found.mask.all())
    same = torch.ones(1, 300, 3, dtype=kind)  # the tree cannot tell any of them apart
    assert nearest_neighbours(same, torch.tensor([300]), same[:, :2], 3).indices.tolist() == [[[0, 1, 2]] * 2]


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_to_the_precision_of_the_points_makes_ties(kind: torch.dtype) -> None:
    # From 1 a neighbour at 0 is farther than one at eps/4 in real numbers, and as far once the difference is rounded.
    eps = torch.finfo(kind).eps
    points = torch.tensor([[[0.0, 0.0], [eps / 4, 0.0]]], dtype=kind)
    found = nearest_neighbours(points, torch.tensor([2]), torch.tensor([[[1.0, 0.0]]], dtype=kind), 1)
    assert int(found.indices) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_small_distances_far_from_the_origin_are_exact(kind: torch.dtype) -> None:
    # The matrix product form of the distance gives zero, or noise, for all of these.
    step = 1000 * torch.finfo(kind).eps  # next to 1000 the spacing of numbers is at most this
    points = torch.full((1, 8, 3), 1000.0, dtype=kind)
    points[0, :, 0] += torch.arange(8, 0, -1) * step
    found = nearest_neighbours(points, torch.tensor([8]), torch.full((1, 1, 3), 1000.0, dtype=kind), 8)
    assert found.indices[0, 0].tolist() == list(range(7, -1, -1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("radius", [0.1, 0.3, 0.7])
def test_the_radius_itself_is_inside(kind: torch.dtype, radius: float) -> None:
    points = torch.tensor([[[0.0, radius, 0.0], [0.0, radius * (1 + 1e-5), 0.0]]], dtype=kind)
    found = radius_neighbours(points, torch.tensor([2]), torch.zeros(1, 1, 3, dtype=kind), torch.tensor([1]), radius, 2)
    assert found.indices.tolist() == [[[0, 0]]] and found.mask.tolist() == [[[True, False]]]


def test_number_of_neighbours_on_a_lattice() -> None:
    axis = torch.arange(-4.0, 5.0)
    points = torch.cartesian_prod(axis, axis, axis)[None]
    centre, one = torch.zeros(1, 1, 3), torch.tensor([1])
    # numbers of whole vectors of squared length up to 0, 1, 2, 3, 4, 5 (OEIS A117609)
    for square, number in enumerate((1, 7, 19, 27, 33, 57)):
        found = radius_neighbours(points, torch.tensor([729]), centre, one, (square + 0.5) ** 0.5, 64)
        assert int(found.mask.sum()) == number


def test_moved_mirrored_and_renumbered_clouds_have_the_same_neighbours() -> None:
    # Quarters are exact in binary, and so are their differences after a move by whole numbers.
    points, counts, centres, centre_counts = cloud(3, 60, False)
    points, centres = (points * 256).round() / 256, (centres * 256).round() / 256
    expected = radius_neighbours(points, counts, centres, centre_counts, 0.5, 4)
    for change in (lambda x: x + 64.0, lambda x: -x, lambda x: x.flip(-1), lambda x: x.roll(1, -1)):
        found = radius_neighbours(change(points), counts, change(centres), centre_counts, 0.5, 4)
        assert torch.equal(found.indices, expected.indices) and torch.equal(found.mask, expected.mask)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    whole = torch.full((3,), 60)
    before = radius_neighbours(points, whole, centres, centre_counts, 0.5, 100)
    after = radius_neighbours(points[:, order], whole, centres, centre_counts, 0.5, 100)
    assert torch.equal(before.mask, after.mask)
    back = torch.where(after.mask, order[after.indices], 0)
    assert torch.equal(back.sort(dim=-1).values, before.indices.sort(dim=-1).values)


def test_a_ragged_batch_is_each_sample_alone() -> None:
    points, counts, centres, centre_counts = cloud(3, 60, False)
    whole = radius_neighbours(points, counts, centres, centre_counts, 0.4, 6)
    for b, (n, s) in enumerate(zip(counts.tolist(), centre_counts.tolist(), strict=True)):
        lone = radius_neighbours(
            points[b : b + 1, :n], counts[b : b + 1], centres[b : b + 1, :s], centre_counts[b : b + 1], 0.4, 6
        )
        assert torch.equal(whole.indices[b, :s], lone.indices[0]) and torch.equal(whole.mask[b, :s], lone.mask[0])


def test_samples_without_points_or_centres_have_no_neighbours() -> None:
    nothing = torch.tensor([0])
    for search in (by_tree, tiled):
        assert search(torch.zeros(1, 4, 2), nothing, torch.zeros(1, 3, 2), torch.tensor([3]), 1.0, 2).max() == -1
        assert search(torch.zeros(1, 0, 2), nothing, torch.zeros(1, 3, 2), torch.tensor([3]), 1.0, 2).max() == -1
        assert search(torch.zeros(1, 4, 2), nothing, torch.zeros(1, 0, 2), nothing, 1.0, 2).shape == (1, 0, 2)


def test_what_is_gathered_has_a_gradient_and_the_search_compiles() -> None:
    points, counts, centres, centre_counts = cloud(2, 30, False, torch.float64)
    points.requires_grad_()

    def sums(points: Tensor) -> Tensor:
        index, mask = radius_neighbours(points, counts, centres, centre_counts, 0.5, 4)
        here = points.gather(1, index.flatten(1)[..., None].expand(-1, -1, 2)).unflatten(1, index.shape[1:])
        return torch.where(mask[..., None], here, 0.0).sum()

    (gradient,) = torch.autograd.grad(sums(points), points)
    index, mask = radius_neighbours(points, counts, centres, centre_counts, 0.5, 4)
    used = torch.zeros(3, 30, dtype=torch.float64).scatter_add(1, index.flatten(1), mask.flatten(1).double())
    assert torch.equal(gradient, used[..., None].expand(-1, -1, 2)), "how often each point is a neighbour"
    whole = torch.compile(sums, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(whole(points.detach()), sums(points).detach(), rtol=1e-14, atol=0)  # the same sum


def test_what_does_not_fit_is_refused() -> None:
    points, n = torch.zeros(2, 5, 3), torch.tensor([5, 5])
    whole = (points, n, points, n, 1.0, 2)
    cases = {
        r"radius: got 0\.0, expected a positive length": (4, 0.0),
        r"radius: got nan": (4, math.nan),
        r"most or k: got 0, expected at least 1": (5, 0),
        r"points: got shape \(2, 5, 4\), expected \(B, N, D\) with D = 2 or 3": (0, torch.zeros(2, 5, 4)),
        r"centres or queries: got shape \(2, 5, 2\), expected \(2, S, 3\)": (2, torch.zeros(2, 5, 2)),
        r"points and centres: got torch.float32 and torch.float64": (2, points.double()),
        r"points and centres: got torch.bfloat16": (0, points.bfloat16()),
        r"counts: got shape \(3,\)": (1, torch.tensor([5, 5, 5])),
        r"centre_counts: got shape \(2,\) of torch.float32": (3, n.float()),
        r"counts: got \[5, 6\], expected from 0 to 5": (1, torch.tensor([5, 6])),
        r"points: got numbers that are not finite in sample 0": (0, points / 0),
        r"centres: got numbers that are not finite": (2, points / 0),
    }
    for message, (place, wrong) in cases.items():
        with pytest.raises(ValueError, match=message):
            radius_neighbours(*whole[:place], wrong, *whole[place + 1 :])


def test_a_radius_is_finite_and_the_largest_one_finds_all() -> None:
    points, n = torch.rand(1, 9, 3), torch.tensor([9])
    with pytest.raises(ValueError, match="radius: got inf"):
        radius_neighbours(points, n, points, n, math.inf, 2)
    assert bool(radius_neighbours(points, n, points, n, 1e30, 9).mask.all())  # its square is more than float32 holds


# The kernel. Whether Triton interprets it is decided when it is imported: another process runs it, this file.


def main() -> None:
    """For each case how many places differ from the tiles', and how many neighbours there are, as JSON."""
    from physml.nn import neighbours_triton as kernels

    found: dict[str, list[int]] = {}
    for name, (d, n, lattice, radius, most) in KERNEL_CASES.items():
        arguments = (*cloud(d, n, lattice), limit_of(radius, torch.float32), most)
        expected = tiled(*arguments)
        found[name] = [int((kernels.search(*arguments) != expected).sum()), int((expected >= 0).sum())]
    points, counts, centres, centre_counts = cloud(3, 70, False)
    points[0, 3], centres[0, 2] = math.nan, math.inf  # neither a neighbour nor with neighbours
    kernels.PAIRS = 1  # a block at a time
    arguments = (points, counts, centres, centre_counts, 0.25, 3)
    found["not finite"] = [int((kernels.search(*arguments) != tiled(*arguments)).sum()), 1]
    print(json.dumps(found))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[int]]:
    return interpreting.interpreted(__file__)


@pytest.mark.parametrize("name", [*KERNEL_CASES, "not finite"])
def test_the_interpreted_kernel_finds_the_same_to_the_bit(interpreted: dict[str, list[int]], name: str) -> None:
    different, neighbours_there = interpreted[name]
    assert different == 0
    assert neighbours_there > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the compiled kernel needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KERNEL_CASES)
def test_the_gpu_finds_the_same_to_the_bit_and_is_recorded(name: str, kind: torch.dtype) -> None:
    d, n, lattice, radius, most = KERNEL_CASES[name]
    arguments = cloud(d, n, lattice, kind)
    radius = min(radius, 1e15)
    expected = radius_neighbours(*arguments, radius, most)
    there = [value.cuda() for value in arguments]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        radius_neighbours(*there, radius, most)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # refuses what waits for the device
        found = radius_neighbours(*there, radius, most)
    graph.replay()
    assert torch.equal(found.indices.cpu(), expected.indices) and torch.equal(found.mask.cpu(), expected.mask)


if __name__ == "__main__":
    main()
