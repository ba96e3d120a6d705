"""A split that stays on the device gives what the ordinary loader gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer, seed_everything
from settings import Response, make_steady_store
from torch import Tensor
from waves import make_store, wave_layout

from physml.assessment import RolloutAssessment
from physml.datasets import Segment, Trajectories, TrajectoryData, TrajectoryStore, Windows
from physml.datasets.resident import Places, PlacesOf, Resident
from physml.datasets.windows import Collate
from physml.fields import Batch, Field, Grid, Layout, Setting
from physml.normalise import Standardise
from physml.objectives import NextStep
from physml.operators import Operator
from physml.training import Training


class Numbered(Trajectories):
    """Every state, static field and parameter tells its trajectory, the state also its frame, point and field."""

    def __init__(self, count: int, frames: int, shape: tuple[int, ...] = (2, 3), static: int = 2) -> None:
        self.name = self.path = self.fingerprint = "numbered"
        grid = wave_layout(shape).grid
        mask = torch.ones(shape, dtype=torch.bool)
        mask[..., 0] = False
        fields = tuple(Field(name) for name in "ab"[:static])
        self.layout = Layout((Field("u"), Field("v")), Grid(grid.axes, mask), 1.0, static=fields)
        self.count, self.frames = count, frames
        self.parameters = {"age": np.arange(count) * 10.0, "size": -1.0 - np.arange(count)}

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        whole = np.arange(self.frames * self.layout.grid.mask.numel() * 2, dtype=np.float32)
        return (1e4 * trajectory + 1 + whole.reshape(self.frames, *self.layout.grid.shape, 2))[frames]

    def _read_static(self, trajectory: int) -> np.ndarray:
        shape = (*self.layout.grid.shape, len(self.layout.static))
        return np.broadcast_to(np.float32([trajectory, -trajectory][: shape[-1]]), shape)  # cannot be written to


def same(found: Batch, expected: Batch) -> None:
    """Equal to the last bit, and of the same types."""
    assert found.size == expected.size
    for branches, others in ((found.inputs, expected.inputs), (found.targets, expected.targets)):
        assert list(branches) == list(others)
        for name, field in branches.items():
            assert field.names == others[name].names
            assert field.values.dtype == others[name].values.dtype and field.values.equal(others[name].values)
            for axis, other in zip(field.grid.axes, others[name].grid.axes, strict=True):
                assert axis.points.dtype == other.points.dtype and axis.points.equal(other.points)
                assert axis.weights.equal(other.weights)
                assert dataclasses.replace(axis, points=other.points, weights=other.weights) == other
            mask, wanted = field.grid.mask, others[name].grid.mask
            assert (mask is None and wanted is None) or mask.equal(wanted)
    assert list(found.condition) == list(expected.condition)
    for name, numbers in found.condition.items():
        assert numbers.dtype == expected.condition[name].dtype and numbers.equal(expected.condition[name])


@given(
    data=st.data(),
    count=st.integers(1, 5),
    length=st.integers(1, 3),
    stride=st.integers(1, 2),
    static=st.integers(0, 2),
)
def test_batches_are_those_of_the_ordinary_loader(
    data: st.DataObject, count: int, length: int, stride: int, static: int
) -> None:
    numbered = Numbered(count, frames=7, static=static)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))  # in any order, some left out
    begin = data.draw(st.integers(0, 2))
    windows = Windows(numbered, [Segment(row, begin, 7) for row in chosen], length, stride)
    known = data.draw(st.integers(0, length - 1))
    resident = Resident(numbered, windows, known, torch.device("cpu"))
    order = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=8))
    places = PlacesOf(windows)
    assert len(places) == len(windows)
    found = resident.batch(Places.collate([places[index] for index in order]))
    same(found, Collate(numbered, known)([windows[index] for index in order]))


def test_several_segments_of_one_trajectory_are_kept_once() -> None:
    numbered = Numbered(3, frames=6)
    windows = Windows(numbered, [Segment(2, 0, 2), Segment(2, 4, 6), Segment(1, 1, 4)], 2)
    resident = Resident(numbered, windows, 1, torch.device("cpu"))
    assert resident.values.shape == (2, 6, 2, 3, 2)
    places = [windows.place(index) for index in range(len(windows))]
    same(resident.batch(Places.collate(places)), Collate(numbered, 1)([windows[i] for i in range(len(windows))]))


def test_a_batch_is_no_view_of_what_is_kept() -> None:
    numbered = Numbered(2, frames=3)
    windows = Windows(numbered, [Segment(row, 0, 3) for row in range(2)], 2)
    resident = Resident(numbered, windows, 1, torch.device("cpu"))
    before = resident.values.clone()
    batch = resident.batch(Places.collate([windows.place(0), windows.place(3)]))
    for tensor in batch.tensors:
        tensor.add_(1)
    assert resident.values.equal(before)
    same(resident.batch(Places.collate([windows.place(1)])), Collate(numbered, 1)([windows[1]]))


def test_data_that_do_not_fit_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered = Numbered(4, frames=5)
    windows = Windows(numbered, [Segment(row, 0, 5) for row in (0, 2)], 2)
    states, static = 2 * 5 * 6 * 2 * 4, 2 * 6 * 2 * 4  # bytes: trajectories, frames, points, fields, float32

    def read(*_: Any) -> np.ndarray:
        raise InterruptedError("read")

    monkeypatch.setattr(numbered, "read", read)
    for free, problem in (
        ((states + static) / 0.79, (InterruptedError, RuntimeError, AssertionError)),  # on to the device, or to reading
        ((states + static) / 0.81, ValueError),
        (states / 0.79, ValueError),  # room for the states alone
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2 * free))
        with pytest.raises(problem) as found:
            Resident(numbered, windows, 1, torch.device("cuda"))
        assert isinstance(found.value, ValueError) == (problem is ValueError)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 2**30, 80 * 2**30))
    monkeypatch.setattr(numbered, "frames", 10**8)
    long = Windows(numbered, [Segment(row, 0, 10**8) for row in (0, 2)], 2)
    with pytest.raises(ValueError, match=r"resident: .* takes 8\.9 GiB, cuda has 3\.0 GiB free; set resident to false"):
        Resident(numbered, long, 1, torch.device("cuda"))


def test_of_a_split_in_time_only_the_part_of_the_windows_is_kept() -> None:
    numbered = Numbered(2, frames=40)
    windows = Windows(numbered, [Segment(0, 10, 20), Segment(0, 22, 30)], 3)
    kept = Resident(numbered, windows, 1, torch.device("cpu"))
    assert kept.values.shape[:2] == (1, 20)
    for index in (0, len(windows) - 1):
        trajectory, start = windows.place(index)
        batch = kept.batch(Places.collate([(trajectory, start)]))
        expected = torch.from_numpy(numbered.read(trajectory, start, start + 3))
        found = torch.cat([batch.inputs["state"].values[0], batch.targets["state"].values[0]])
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


# training


class Moved(Operator):
    """The last frame times a weight, moved by a point times another."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.frames, self.steps, self.axes = 1, 2, 1, 2
        self.weights = torch.nn.Parameter(torch.tensor([0.9, 0.0]))

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        last = window[:, -1:]
        return self.weights[0] * last + self.weights[1] * last.roll(1, dims=2)


class Weighed(Response):
    """The exact response times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        return self.weight * super().forward(window, grid, steps, setting)


class Losses(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.found.append(float(outputs["loss"]))


def losses(folder: Path, store: TrajectoryStore, operator: type[Operator], **changes: Any) -> list[float]:
    seed_everything(5, verbose=False)
    module = Training(
        operator=operator(),
        normaliser=Standardise(),
        objective=NextStep(noise=0.1 if operator is Moved else 0.0),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        assessment=RolloutAssessment(steps=1),
    )
    arguments = {"store": store.path, "shape": store.layout.grid.shape, "batch_size": 3} | changes
    record = Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=8,
        limit_val_batches=0,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[record],
    )
    trainer.fit(module, datamodule=TrajectoryData(**arguments))
    return record.found


@pytest.mark.parametrize("kind", ["states", "strided", "static"])
def test_training_is_the_same_to_the_last_bit(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same order, noise and numbers; each trajectory is read once and whole."""
    steady = kind == "static"
    store = make_steady_store(tmp_path / "a.zarr") if steady else make_store(tmp_path / "a.zarr", shape=(8, 4))
    operator, changes = (Weighed, {}) if steady else (Moved, {"stride": 3 if kind == "strided" else 1})
    expected = losses(tmp_path, store, operator, **changes)
    assert len(set(expected)) == 8  # of batches that differ

    asked: list[tuple[int, ...]] = []
    read = TrajectoryStore.read

    def noted(self: TrajectoryStore, *places: int) -> np.ndarray:
        asked.append(places)
        return read(self, *places)

    monkeypatch.setattr(TrajectoryStore, "read", noted)
    assert losses(tmp_path, store, operator, resident=True, **changes) == expected
    assert asked == [(row, 0, store.frames) for row in range(4)]
