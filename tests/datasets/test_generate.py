from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from physml.datasets import TrajectoryStore
from physml.datasets.generate import generate, split_by_trajectory
from physml.solvers import Kolmogorov2D

SMALL: dict[str, Any] = {
    "trajectories": 5,
    "frames": 10,
    "grid": 16,
    "solve_grid": 16,
    "forcing_wavenumber": 2,
    "reynolds": 50.0,
    "step": 1 / 32,
    "frame_interval": 1 / 16,
    "warmup_time": 0.25,
}


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 5, 17, 30, 40])
def test_an_interrupted_generation_continues_bit_for_bit(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("physml.datasets.store._CHUNK_BYTES", 4 * 16 * 16 * 4)  # four frames a chunk
    whole = generate(Kolmogorov2D(**SMALL), tmp_path / "whole.zarr", batch=2)
    calls = 0

    def kill(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Killed

    with pytest.raises(Killed):
        generate(Kolmogorov2D(**SMALL), tmp_path / "x.zarr", batch=2, progress=kill)
    with pytest.raises(ValueError, match="interrupted"):
        TrajectoryStore(tmp_path / "x.zarr")
    again = generate(Kolmogorov2D(**SMALL), tmp_path / "x.zarr", batch=2)
    assert again.fingerprint == whole.fingerprint
    for row in range(5):
        np.testing.assert_array_equal(again.read(row, 0, 10), whole.read(row, 0, 10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.zarr", "x.zarr"]


def test_progress_of_a_deleted_store_is_not_continued(tmp_path: Path) -> None:
    """The state of one flow must not go on as another."""

    def kill(done: int, total: int) -> None:
        if done >= total // 2:
            raise Killed

    with pytest.raises(Killed):
        generate(Kolmogorov2D(**SMALL), tmp_path / "x.zarr", batch=2, progress=kill)
    shutil.rmtree(tmp_path / "x.zarr")
    other = SMALL | {"reynolds": 20.0, "seed": 7}
    made = generate(Kolmogorov2D(**other), tmp_path / "x.zarr", batch=2)
    assert made.fingerprint == generate(Kolmogorov2D(**other), tmp_path / "y.zarr", batch=2).fingerprint


def test_kill_9_and_the_same_command(tmp_path: Path) -> None:
    options = {**SMALL, "trajectories": 3, "frames": 200, "warmup_time": 0.0}
    line = [sys.executable, "-m", "physml", "data", "make", "kolmogorov2d", "--out", "x.zarr", "--device", "cpu"]
    line += [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / ".x.zarr.progress").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
    assert (tmp_path / ".x.zarr.progress").exists()
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    whole = generate(Kolmogorov2D(**options), tmp_path / "whole.zarr")
    assert TrajectoryStore(tmp_path / "x.zarr").fingerprint == whole.fingerprint


def test_batches_do_not_change_a_trajectory_beyond_rounding(tmp_path: Path) -> None:
    one = generate(Kolmogorov2D(**SMALL), tmp_path / "a.zarr", batch=1)
    all_ = generate(Kolmogorov2D(**SMALL), tmp_path / "b.zarr")
    np.testing.assert_allclose(one.read(3, 0, 10), all_.read(3, 0, 10), rtol=1e-5, atol=1e-5)


def test_a_finished_store_is_not_made_again(tmp_path: Path) -> None:
    first = generate(Kolmogorov2D(**SMALL), tmp_path / "a.zarr")

    def never(done: int, total: int) -> None:
        raise AssertionError

    assert generate(Kolmogorov2D(**SMALL), tmp_path / "a.zarr", progress=never).fingerprint == first.fingerprint
    with pytest.raises(ValueError, match=r"solver\.init_args\.reynolds: 50\.0 there, 60\.0 asked"):
        generate(Kolmogorov2D(**SMALL | {"reynolds": 60.0}), tmp_path / "a.zarr")


def test_splits_are_whole_trajectories_and_leave_some_to_train_on() -> None:
    splits = split_by_trajectory(20, 7, 0.1, 0.2)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 14, "validation": 2, "test": 4}
    rows = [segment.trajectory for segments in splits.values() for segment in segments]
    assert sorted(rows) == list(range(20))
    with pytest.raises(ValueError, match="none to train on"):
        split_by_trajectory(2, 7, 0.1, 0.2)
