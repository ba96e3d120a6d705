from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from physml.clouds import Packed, PointCloud


def cloud(sizes: Sequence[int], axes: int = 3, filling: float = 7.0) -> PointCloud:
    generator = torch.Generator().manual_seed(sum(sizes))
    most = max(sizes)
    points = torch.rand(len(sizes), most, axes, generator=generator)
    features = {
        "normal": torch.rand(len(sizes), most, axes, generator=generator),
        "distance": torch.rand(len(sizes), most, 1, generator=generator),
    }
    real = torch.arange(most) < torch.tensor(sizes)[:, None]
    points[~real] = filling
    for values in features.values():
        values[~real] = filling
    return PointCloud(points, features, torch.tensor(sizes))


def same(a: PointCloud, b: PointCloud) -> bool:
    return (
        torch.equal(a.points, b.points)
        and list(a.features) == list(b.features)
        and all(torch.equal(a.features[name], b.features[name]) for name in a.features)
        and torch.equal(a.sizes, b.sizes)
        and (a.counts is None) == (b.counts is None)
    )


def test_filling_is_zero_whatever_it_was() -> None:
    ragged = cloud([2, 5], filling=float("nan"))
    assert ragged.mask is not None and ragged.mask.sum(dim=1).tolist() == [2, 5]
    for values in (ragged.points, *ragged.features.values()):
        assert bool((values[0, 2:] == 0).all()) and bool((values[0, :2] != 0).any())


def test_full_clouds_have_no_mask() -> None:
    full = cloud([4, 4])
    assert full.counts is None and full.mask is None
    assert full.sizes.tolist() == [4, 4]


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4), axes=st.integers(1, 3))
@settings(max_examples=30)
def test_round_trips(sizes: list[int], axes: int) -> None:
    """Split and collate, pack and unpack, and torch_geometric all give the same clouds back."""
    ragged = cloud(sizes, axes)
    assert same(PointCloud.collate(ragged.split()), ragged)
    packed = ragged.pack()
    assert packed.offsets.tolist() == [sum(sizes[:b]) for b in range(len(sizes) + 1)]
    assert packed.points.shape == (sum(sizes), axes)
    assert same(PointCloud.unpack(packed), ragged)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4))
@settings(max_examples=10)
def test_torch_geometric_and_back(sizes: list[int]) -> None:
    ragged = cloud(sizes)
    data = ragged.to_geometric()
    assert isinstance(data, Batch)
    assert data.ptr.tolist() == ragged.pack().offsets.tolist()
    assert torch.equal(data.pos, ragged.pack().points)
    assert same(PointCloud.from_geometric(data), ragged)


def test_one_graph_is_one_cloud() -> None:
    data = Data(pos=torch.rand(5, 2), pressure=torch.rand(5), edge_index=torch.zeros(2, 3, dtype=torch.long))
    alone = PointCloud.from_geometric(data)
    assert alone.points.shape == (1, 5, 2)
    assert list(alone.features) == ["pressure"] and alone.features["pressure"].shape == (1, 5, 1)
    assert list(PointCloud.from_geometric(data, []).features) == []
    with pytest.raises(ValueError, match=r"\['shear'\] are not in the data"):
        PointCloud.from_geometric(data, ["shear"])
    with pytest.raises(ValueError, match=r"set data\.pos"):
        PointCloud.from_geometric(Data(x=torch.rand(3, 1)))


@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=3), chunk=st.integers(1, 8))
@settings(max_examples=30)
def test_chunks_are_the_whole(sizes: list[int], chunk: int) -> None:
    ragged = cloud(sizes)
    parts = list(ragged.chunks(chunk))
    assert torch.equal(torch.cat([part.points for part in parts], dim=1), ragged.points)
    assert torch.equal(sum(part.sizes for part in parts), ragged.sizes)  # type: ignore[arg-type]
    assert torch.equal(torch.cat([part.features["normal"] for part in parts], dim=1), ragged.features["normal"])


def test_moving_to_another_precision_leaves_counts_alone() -> None:
    moved = cloud([2, 5]).to(torch.float64)
    assert moved.points.dtype == moved.features["normal"].dtype == torch.float64
    assert moved.counts is not None and moved.counts.dtype == torch.long and moved.counts.tolist() == [2, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(4, 3)}, r"a single cloud is points\[None\]"),
        ({"points": torch.zeros(2, 4, 3, dtype=torch.bfloat16)}, "single or double"),
        ({"features": {"normal": torch.zeros(2, 5, 3)}}, r"expected \(2, 4, channels\)"),
        ({"features": {"pressure": torch.zeros(2, 4)}}, r"values\[\.\.\., None\]"),
        ({"counts": torch.tensor([4, 5])}, "expected 0 to 4"),
        ({"counts": torch.tensor([4])}, "each of the 2 clouds"),
        ({"counts": torch.tensor([4.0, 3.0])}, "an integer"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    arguments: dict = {"points": torch.zeros(2, 4, 3)}
    PointCloud(**arguments)
    with pytest.raises(ValueError, match=message):
        PointCloud(**arguments | change)


def test_clouds_that_differ_do_not_make_a_batch() -> None:
    one = PointCloud(torch.zeros(1, 2, 3), {"normal": torch.zeros(1, 2, 3)})
    with pytest.raises(ValueError, match="same features"):
        PointCloud.collate([one, PointCloud(torch.zeros(1, 2, 3))])
    with pytest.raises(ValueError, match="no clouds"):
        PointCloud.collate([])
    with pytest.raises(ValueError, match="rising sequence from 0 to 3"):
        PointCloud.unpack(Packed(torch.zeros(3, 2), {}, torch.tensor([0, 2])))
    with pytest.raises(ValueError, match="taken in torch_geometric"):
        PointCloud(torch.zeros(1, 2, 3), {"pos": torch.zeros(1, 2, 3)}).to_geometric()
