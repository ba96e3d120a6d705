from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import ROOT
from waves import make_store, wave, wave_layout

from physml.datasets import Segment, Trajectories, TrajectoryStore, Windows
from physml.datasets.windows import Collate, Share, TrainingBatches
from physml.fields import Field, Layout


def counted(lengths: list[int]) -> Any:
    """Data whose value is ``1000 trajectory + frame``, so that any index error shows."""

    def read(trajectory: int, start: int, stop: int, step: int) -> np.ndarray:
        assert 0 <= start < stop <= lengths[trajectory]
        return (1000 * trajectory + np.arange(start, stop, step, dtype=np.float32)).reshape(-1, 1, 1)

    return SimpleNamespace(read=read, path="counted")


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    length=st.integers(1, 6),
    stride=st.integers(1, 3),
    offset=st.integers(0, 5),
)
def test_windows_are_all_that_fit_and_none_crosses_a_segment(
    lengths: list[int], length: int, stride: int, offset: int
) -> None:
    segments = [Segment(row, min(offset, n - 1), n) for row, n in enumerate(lengths)]
    expected = [
        [1000 * s.trajectory + start + stride * k for k in range(length)]
        for s in segments
        for start in range(s.start, s.stop - stride * (length - 1))
    ]
    if not expected:
        with pytest.raises(ValueError, match="the longest segment"):
            Windows(counted(lengths), segments, length, stride)
        return
    windows = Windows(counted(lengths), segments, length, stride)
    found = [windows[index][0].flatten().tolist() for index in range(len(windows))]
    assert found == expected
    with pytest.raises(IndexError):
        windows[len(windows)]


@given(n=st.integers(1, 200), length=st.integers(1, 20), starts=st.integers(1, 12))
def test_evaluation_windows_do_not_overlap(n: int, length: int, starts: int) -> None:
    if n < length:
        return
    windows = Windows(counted([n]), [Segment(0, 0, n)], length, 1, starts)
    begin = [windows.place(index)[1] for index in range(len(windows))]
    assert len(begin) == min(starts, n // length)
    assert all(b - a >= length for a, b in itertools.pairwise(begin))
    assert begin[0] == 0 and begin[-1] + length <= n


@given(
    windows=st.integers(4, 60),
    batch=st.sampled_from([2, 4]),
    total=st.integers(1, 40),
    position=st.integers(0, 40),
    seed=st.integers(0, 3),
)
def test_a_resumed_run_sees_the_batches_it_would_have_seen(
    windows: int, batch: int, total: int, position: int, seed: int
) -> None:
    whole = list(TrainingBatches(windows, batch=batch, total=total, seed=seed))
    rest = list(TrainingBatches(windows, batch=batch, total=total, seed=seed, position=lambda: position))
    assert rest == whole[position:]
    per_pass = windows // batch
    for start in range(0, total - per_pass + 1, per_pass):  # a pass shows no window twice
        seen = [index for indices in whole[start : start + per_pass] for index in indices]
        assert len(set(seen)) == len(seen)


@given(windows=st.integers(4, 30), total=st.integers(1, 10))
def test_processes_share_every_batch(windows: int, total: int) -> None:
    whole = list(TrainingBatches(windows, batch=4, total=total, seed=1))
    parts = [list(TrainingBatches(windows, batch=4, total=total, seed=1, rank=r, world=2)) for r in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


@given(count=st.integers(0, 20), world=st.integers(1, 5))
def test_evaluation_shares_are_disjoint_and_complete(count: int, world: int) -> None:
    shares = [list(Share(count, rank, world)) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == list(range(count))


def test_batches_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ValueError, match="make it divisible"):
        TrainingBatches(10, batch=3, total=1, seed=0, world=2)
    with pytest.raises(ValueError, match="holds 2 windows"):
        TrainingBatches(2, batch=3, total=1, seed=0)


def test_a_batch_knows_its_grid_fields_and_parameters(store: TrajectoryStore) -> None:
    windows = Windows(store, store.segments_of("train"), 5)
    batch = Collate(store, known=3)([windows[0], windows[40]])
    state, target = batch.inputs["state"], batch.targets["state"]
    assert state.values.shape == (2, 3, 16, 16, 1) and target.values.shape == (2, 2, 16, 16, 1)
    np.testing.assert_array_equal(target.values[0], wave(wave_layout(), 0, 5)[3:])
    torch.testing.assert_close(batch.condition["viscosity"], torch.tensor([0.01, 0.03]))
    assert state.names == ("vorticity",) and state.grid.shape == (16, 16)


def test_unknown_splits_are_refused(store: TrajectoryStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train, validation, test"):
        store.segments_of("valid")


class Told(Trajectories):
    """Data whose numbers, static fields and states all tell their trajectory, ``1000 trajectory + frame`` the last."""

    def __init__(self, count: int, frames: int) -> None:
        self.name = self.path = self.fingerprint = "told"
        self.layout = Layout((Field("u"),), wave_layout((3,)).grid, 1.0, static=(Field("a"), Field("b")))
        self.count, self.frames = count, frames
        self.parameters = {"age": np.arange(count) * 10.0}

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        made = 1000 * trajectory + np.arange(self.frames, dtype=np.float32)[frames]
        return np.broadcast_to(made[:, None, None], (len(made), 3, 1))

    def _read_static(self, trajectory: int) -> np.ndarray:
        return np.broadcast_to(np.array([trajectory, -trajectory], np.float32), (3, 2))


@given(data=st.data(), count=st.integers(1, 5), known=st.integers(0, 2))
def test_numbers_and_static_fields_reach_their_own_sample(data: st.DataObject, count: int, known: int) -> None:
    told = Told(count, frames=4)
    windows = Windows(told, [Segment(row, 0, 4) for row in range(count)], known + 1)
    order = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=8))
    batch = Collate(told, known)([windows[index] for index in order])
    places = [windows.place(index) for index in order]
    rows = torch.tensor([float(trajectory) for trajectory, _ in places])
    assert batch.inputs["state"].values.shape == (len(order), known, 3, 1)
    assert batch.targets["state"].values.shape == (len(order), 1, 3, 1)
    assert batch.targets["state"].values[:, 0, 0, 0].tolist() == [1000 * row + begin + known for row, begin in places]
    static = batch.inputs["static"]
    assert static.names == ("a", "b") and static.values.shape == (len(order), 1, 3, 2)
    assert torch.equal(static.values[:, 0, 1], torch.stack([rows, -rows], dim=-1))
    assert torch.equal(batch.condition["age"], 10 * rows)


def test_data_without_static_fields_have_no_such_branch(store: TrajectoryStore) -> None:
    windows = Windows(store, store.segments_of("train"), 2)
    assert list(Collate(store, known=1)([windows[0]]).inputs) == ["state"]
    assert store.read_static(0).shape == (16, 16, 0)


def test_windows_read_together_are_those_read_one_by_one(tmp_path: Path) -> None:
    data = make_store(tmp_path / "waves.zarr", count=4, frames=20)
    for stride in (1, 3):
        windows = Windows(data, data.segments["train"], 5, stride)
        chosen = [3, 0, len(windows) - 1, 3]
        block, singles = windows.__getitems__(chosen), [windows[index] for index in chosen]
        assert len(block) == 4 and block.values.is_contiguous()
        for (found, row), (expected, right) in zip(block, singles, strict=True):
            assert row == right and torch.equal(found, expected)
        together, apart = Collate(data, 2)(block), Collate(data, 2)(singles)
        for branch in ("inputs", "targets"):
            assert torch.equal(getattr(together, branch)["state"].values, getattr(apart, branch)["state"].values)
        assert torch.equal(together.condition["viscosity"], apart.condition["viscosity"])
        # no copy: the batch is the memory that was read into
        assert together.inputs["state"].values.data_ptr() == block.values.data_ptr()
    with pytest.raises(IndexError):
        windows.__getitems__([len(windows)])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_loaders_give_the_same_batches_from_workers(tmp_path: Path, method: str) -> None:
    make_store(tmp_path / "waves.zarr", count=4, frames=20)
    code = """
import sys, torch
from torch.utils.data import DataLoader
from physml.datasets import TrajectoryStore, Windows
from physml.datasets.windows import Collate

if __name__ == "__main__":
    data = TrajectoryStore(sys.argv[1])
    windows = Windows(data, data.segments["train"], 5)
    whole = [torch.cat([b.inputs["state"].values, b.targets["state"].values], 1) for b in (
        *DataLoader(windows, 4, collate_fn=Collate(data, 2)),
        *DataLoader(windows, 4, collate_fn=Collate(data, 2), num_workers=1, multiprocessing_context=sys.argv[2]),
    )]
    half = len(whole) // 2
    assert all(map(torch.equal, whole[:half], whole[half:]))
    plain = list(DataLoader(windows, 4))
    assert all(map(torch.equal, whole, [values for values, _ in plain]))
    print(half)
"""
    (tmp_path / "script.py").write_text(code)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    line = [sys.executable, "-W", "ignore", str(tmp_path / "script.py"), str(tmp_path / "waves.zarr"), method]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=200, env=os.environ | {"PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["8"]
