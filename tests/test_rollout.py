from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from settings import Response, exact, make_steady_store
from torch import Tensor
from waves import make_store

from physml.datasets import TrajectoryStore
from physml.emulator import Emulator, Origin
from physml.fields import Field, Grid, Setting
from physml.normalise import Standardise
from physml.operators import FactFormer, Operator, Persistence
from physml.rollout import frame_stride, rollout, write_rollout


class Shift(Operator):
    """Knows the exact solution of the waves: frame 0 turned by ``dt`` in the Fourier plane."""

    def __init__(self, *, dt: float, steps: int = 3, frames: int = 2, gain: float = 1.0) -> None:
        super().__init__()
        self.channels, self.axes, self.frames, self.steps, self.dt, self.gain = 1, 2, frames, steps, dt, gain

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        out, last = [], window[:, -1]
        for _ in range(steps):
            hat = torch.fft.fftn(last, dim=(1, 2))
            kx = torch.fft.fftfreq(last.shape[1], 1 / last.shape[1]).reshape(1, -1, 1, 1)
            ky = torch.fft.fftfreq(last.shape[2], 1 / last.shape[2]).reshape(1, 1, -1, 1)
            # sin(x - t) and sin(2 y - t): each mode turns by dt in the direction of its wavenumber
            last = self.gain * torch.fft.ifftn(hat * torch.exp(-1j * self.dt * torch.sign(kx + ky)), dim=(1, 2)).real
            out.append(last)
        return torch.stack(out, dim=1)


def trained(operator: Operator, store: TrajectoryStore, stride: int = 1) -> Emulator:
    emulator = Emulator(operator, Standardise())
    emulator.learn(Origin(store.layout, store.statistics.to_plain(), stride, store.fingerprint))
    return emulator.eval()


def test_an_exact_operator_reproduces_the_truth(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Shift(dt=store.layout.dt), store)
    path = write_rollout(emulator, store, tmp_path / "x.zarr", steps=8, starts=2)
    opened = xarray.open_zarr(path)
    assert opened.state.dims == ("sample", "lead", "x", "y", "channel")
    assert opened.sizes["sample"] == 2
    for sample in range(2):
        row, frame = int(opened.trajectory[sample]), int(opened.frame[sample])
        truth = store.read(row, frame, frame + 8)
        # eight turns in fp32
        np.testing.assert_allclose(opened.state[sample].values, truth, atol=2e-5)
    assert list(opened.lead.values) == list(range(1, 9))
    assert float(opened.lead_time[0]) == store.layout.dt
    about = opened.attrs["physml"]
    assert about["source"]["fingerprint"] == store.fingerprint and about["complete"]


def test_the_stride_of_training_is_kept(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Shift(dt=2 * store.layout.dt), store, stride=2)
    opened = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "x.zarr", steps=3))
    frame = int(opened.frame[0])
    truth = store.read(int(opened.trajectory[0]), frame, frame + 5, 2)
    np.testing.assert_allclose(opened.state[0].values, truth, atol=2e-5)


def test_the_generator_yields_states_one_by_one(store: TrajectoryStore) -> None:
    emulator = trained(Shift(dt=store.layout.dt), store)
    initial = xarray.open_zarr(store.path).state[0, :5]
    frames = list(rollout(emulator, initial, 7))
    assert len(frames) == 7 and frames[0].shape == (1, 16, 16, 1)
    np.testing.assert_allclose(frames[-1][0].numpy(), store.read(0, 11, 12)[0], atol=2e-5)
    with pytest.raises(ValueError, match="T >= 2 known frames"):
        next(rollout(emulator, initial[:1], 7))
    with pytest.raises(ValueError, match="initial: holds NaN"):
        next(rollout(emulator, initial * np.nan, 7))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_rollout_continues_bit_for_bit(
    store: TrajectoryStore, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    operator = FactFormer(axes=2, frames=4, steps=3, width=8, depth=1, heads=2, head_width=4)
    emulator = trained(operator, store)
    arguments: dict = {"steps": 14, "starts": 1, "split": "train", "batch": 2}
    monkeypatch.setattr("physml.datasets.store._CHUNK_BYTES", 3 * 16 * 16 * 4)  # three frames a chunk
    whole = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "whole.zarr", **arguments)).state.values

    class Killed(Exception):
        pass

    seen = []

    def kill(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 2 + after:
            raise Killed

    with pytest.raises(Killed):
        write_rollout(emulator, store, tmp_path / "x.zarr", **arguments, progress=kill)
    reached: list[int] = []
    write_rollout(emulator, store, tmp_path / "x.zarr", **arguments, progress=lambda done, total: reached.append(done))
    assert reached[0] > 0  # it did not begin anew
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "x.zarr").state.values, whole)


def test_blowing_up_is_marked_and_not_written(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Shift(dt=store.layout.dt, gain=2.0), store)
    opened = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "x.zarr", steps=9))
    # amplitude 2^lead, energy 4^lead against ten times the largest, which is the usual one: 4^2 > 10
    assert opened.blowup.values.tolist() == [2]
    assert np.isfinite(opened.state.values[0, :1]).all() and np.isnan(opened.state.values[0, 1:]).all()


def test_a_sample_that_blows_up_leaves_the_others_alone(store: TrajectoryStore, tmp_path: Path) -> None:
    class Selective(Shift):
        def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
            out = super().forward(window, grid, steps, setting)
            return torch.where(window[:, -1:].mean((1, 2, 3, 4), keepdim=True) > 1e3, torch.nan, out)

    emulator = trained(Selective(dt=store.layout.dt), store)
    emulator.normaliser.mean.fill_(0.0)
    clean = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "a.zarr", steps=4, split="train")).state.values
    read = store.read

    def poisoned(row: int, *rest: int) -> np.ndarray:
        return read(row, *rest) + (1e5 if row == 1 else 0)

    store.read = poisoned  # type: ignore[method-assign]
    opened = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "b.zarr", steps=4, split="train"))
    assert opened.blowup.values.tolist() == [0, 1, 0, 0]
    np.testing.assert_array_equal(opened.state.values[[0, 2, 3]], clean[[0, 2, 3]])


def test_another_rollout_is_not_overwritten(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Shift(dt=store.layout.dt), store)
    write_rollout(emulator, store, tmp_path / "x.zarr", steps=4)
    with pytest.raises(ValueError, match="its steps differs"):
        write_rollout(emulator, store, tmp_path / "x.zarr", steps=5)
    for other in ({"history": 3}, {"split": "validation"}):
        with pytest.raises(ValueError, match="already holds"):
            write_rollout(emulator, store, tmp_path / "x.zarr", steps=4, **other)  # type: ignore[arg-type]
    again = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "x.zarr", steps=4))
    assert again.attrs["physml"]["complete"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(ValueError, match="zarr"):
        write_rollout(emulator, store, tmp_path / "notes", steps=5)
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_data_of_another_kind_are_refused(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Persistence(channels=1, axes=2), store)
    other = make_store(tmp_path / "line.zarr", shape=(16,))
    with pytest.raises(ValueError, match=r"on axes x \(periodic\); the emulator was trained on vorticity"):
        write_rollout(emulator, other, tmp_path / "x.zarr", steps=2)
    emulator.origin = Origin(store.layout, emulator.origin.statistics, stride=1)  # type: ignore[union-attr]
    object.__setattr__(emulator.origin.layout, "dt", 0.3)
    with pytest.raises(ValueError, match="no whole number"):
        frame_stride(emulator, make_store(tmp_path / "b.zarr"))


def test_models_with_the_same_history_start_together(store: TrajectoryStore, tmp_path: Path) -> None:
    paths = [
        write_rollout(
            trained(Shift(dt=store.layout.dt, frames=n), store), store, tmp_path / f"{n}.zarr", steps=4, history=3
        )
        for n in (1, 3)
    ]
    one, three = (xarray.open_zarr(path) for path in paths)
    assert one.frame.values.tolist() == three.frame.values.tolist()
    truth = store.read(int(one.trajectory[0]), int(one.frame[0]), int(one.frame[0]) + 4)
    for opened in (one, three):
        np.testing.assert_allclose(opened.state[0].values, truth, atol=2e-5)
    with pytest.raises(ValueError, match="history: got 2, the emulator reads 3"):
        write_rollout(trained(Shift(dt=0.25, frames=3), store), store, tmp_path / "x.zarr", steps=4, history=2)


def test_starts_are_counted_from_the_segment(store: TrajectoryStore, tmp_path: Path) -> None:
    emulator = trained(Shift(dt=store.layout.dt), store)
    opened = xarray.open_zarr(write_rollout(emulator, store, tmp_path / "x.zarr", steps=4, start=[0, 5]))
    assert opened.frame.values.tolist() == [2, 7]
    # beyond the end of the record a rollout may go on, as far as it is asked to
    longer = write_rollout(emulator, store, tmp_path / "y.zarr", steps=200, start=[0])
    assert math.isfinite(float(xarray.open_zarr(longer).state[0, -1].mean()))
    with pytest.raises(ValueError, match="segments of split 'test' have up to 20 frames"):
        write_rollout(emulator, store, tmp_path / "z.zarr", steps=4, start=[19])
    with pytest.raises(ValueError, match="segments of split"):  # one start that fits does not hide one that does not
        write_rollout(emulator, store, tmp_path / "z.zarr", steps=4, start=[0, 500])


def test_a_rollout_of_no_known_frame_reads_each_samples_own_setting(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    opened = xarray.open_zarr(write_rollout(exact(store), store, tmp_path / "x.zarr", steps=1, batch=1))
    assert opened.trajectory.values.tolist() == [5, 0] and opened.frame.values.tolist() == [0, 0]
    for sample, row in enumerate((5, 0)):
        # number times field in fp32, as the store was made
        np.testing.assert_array_equal(opened.state[sample].values, store.read(row, 0, 1))
    together = write_rollout(exact(store), store, tmp_path / "y.zarr", steps=1, start=[0])
    np.testing.assert_array_equal(xarray.open_zarr(together).state.values, opened.state.values)
    assert opened.attrs["physml"]["known_frames"] == 0
    with pytest.raises(ValueError, match="1 must be known"):
        write_rollout(exact(store), store, tmp_path / "z.zarr", steps=1, start=[1])


def test_a_killed_steady_rollout_continues(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    arguments: dict = {"steps": 1, "split": "train", "batch": 3}
    whole = xarray.open_zarr(write_rollout(exact(store), store, tmp_path / "whole.zarr", **arguments)).state.values

    def kill(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rollout(exact(store), store, tmp_path / "x.zarr", **arguments, progress=kill)
    reached: list[int] = []
    write_rollout(
        exact(store), store, tmp_path / "x.zarr", **arguments, progress=lambda done, total: reached.append(done)
    )
    assert reached[0] == 3
    np.testing.assert_array_equal(xarray.open_zarr(tmp_path / "x.zarr").state.values, whole)


def test_a_steady_emulator_predicts_once(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    static = np.stack([store.read_static(row) for row in (1, 3)])
    emulator = exact(store, steps=2)
    condition = {"strength": torch.tensor([2.0, 4.0])}
    for initial in (None, torch.zeros(2, 0, 8, 8, 1), torch.zeros(2, 3, 8, 8, 1)):
        frames = list(rollout(emulator, initial, 2, condition=condition, static=static))
        assert len(frames) == 2
        for frame in frames:
            np.testing.assert_array_equal(frame.numpy(), static * np.array([2.0, 4.0]).reshape(2, 1, 1, 1))
    one = list(rollout(emulator, None, 1, condition={"strength": 3.0}, static=static[0]))
    assert len(one) == 1 and one[0].shape == (1, 8, 8, 1)
    with pytest.raises(ValueError, match="steps: got 3; the emulator reads no frames"):
        next(rollout(emulator, None, 3, condition=condition, static=static))
    with pytest.raises(ValueError, match="steps: got 3; the emulator reads no frames"):
        write_rollout(emulator, store, tmp_path / "x.zarr", steps=3, start=[0])
    with pytest.raises(ValueError, match="initial: got none"):
        next(rollout(emulator, None, 1, condition=condition))


def test_a_rollout_in_time_keeps_its_setting(tmp_path: Path) -> None:
    class Grow(Response):
        def __init__(self) -> None:
            super().__init__()
            self.frames = 1

        def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
            assert setting is not None and setting.numbers is not None and setting.fields is not None
            return window + setting.fields[:, None] * setting.numbers.reshape(-1, 1, 1, 1, 1)

    static = torch.rand(2, 8, 8, 1)
    emulator = Emulator(Grow(), Standardise())
    grid = make_steady_store(tmp_path / "steady.zarr").layout.grid
    start = torch.zeros(2, 1, 8, 8, 1)
    frames = list(rollout(emulator, start, 4, grid, {"strength": torch.tensor([1.0, 2.0])}, static))
    # four additions in fp32 of the same number, 1 or 2 times the static field
    torch.testing.assert_close(frames[-1], 4 * static * torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1), rtol=1e-6, atol=0)


def test_data_that_lack_the_setting_are_refused(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    emulator = exact(store)
    store.parameters = {"age": store.parameters["age"]}
    with pytest.raises(ValueError, match="no 'strength': they have age"):
        write_rollout(emulator, store, tmp_path / "x.zarr", steps=1)
    other = make_steady_store(tmp_path / "other.zarr")
    other.layout = replace(other.layout, static=(Field("coefficient", "ft"),))
    with pytest.raises(ValueError, match=r"static fields coefficient \[ft\]; the emulator was trained on .*\[m\]"):
        write_rollout(emulator, other, tmp_path / "x.zarr", steps=1)
