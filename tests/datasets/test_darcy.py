from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from physml.datasets import DarcyFlow, open_trajectories
from physml.datasets.darcy import TEST, TRAIN
from physml.fields import Boundary


def written(folder: Path, training: int = 40, test: int = 3, n: int = 5, **changes: Any) -> Path:
    """Files of that kind with other numbers, the pressure of sample ``i`` lying around ``i``."""
    generator = torch.Generator().manual_seed(0)
    for name, first, count in ((TRAIN, 0, training), (TEST, training, test)):
        x = torch.rand(count, n, n, generator=generator) > 0.5
        y = torch.arange(first, first + count).reshape(-1, 1, 1) + 0.1 * torch.rand(count, n, n, generator=generator)
        torch.save({"x": x, "y": y} | changes, folder / name)
    return folder


def test_the_files_are_trajectories_of_one_frame(tmp_path: Path) -> None:
    data = open_trajectories(written(tmp_path))
    assert isinstance(data, DarcyFlow) and (data.count, data.frames) == (43, 1)
    assert [item.name for item in data.layout.static] == ["permeability"]
    train, test = (torch.load(tmp_path / name, weights_only=True) for name in (TRAIN, TEST))
    for row, part, place in ((0, train, 0), (39, train, 39), (40, test, 0), (42, test, 2)):
        np.testing.assert_array_equal(data.read(row, 0, 1)[0, ..., 0], part["y"][place].numpy())
        np.testing.assert_array_equal(data.read_static(row)[..., 0], part["x"][place].numpy().astype(np.float32))
    rows = {split: [segment.trajectory for segment in found] for split, found in data.segments.items()}
    assert rows == {"train": list(range(38)), "validation": [38, 39], "test": [40, 41, 42]}


def test_the_grid_has_one_wall_of_each_axis(tmp_path: Path) -> None:
    data = DarcyFlow(written(tmp_path))
    for axis in data.layout.grid.axes:
        torch.testing.assert_close(axis.points, torch.tensor([0, 0.2, 0.4, 0.6, 0.8], dtype=torch.float64))
        assert axis.boundary is Boundary.WALL and axis.length == 1.0 and axis.uniform


def test_the_fingerprint_follows_every_value(tmp_path: Path) -> None:
    before = DarcyFlow(written(tmp_path)).fingerprint
    assert DarcyFlow(written(tmp_path)).fingerprint == before
    for key in ("x", "y"):
        changed = torch.load(written(tmp_path) / TEST, weights_only=True)
        changed[key][2, 1, 3] = ~changed[key][2, 1, 3] if key == "x" else 0.0
        torch.save(changed, tmp_path / TEST)
        assert DarcyFlow(tmp_path).fingerprint != before


def test_other_files_are_refused(tmp_path: Path) -> None:
    flag, number = torch.ones(4, 3, 3, dtype=torch.bool), torch.rand(4, 3, 3)
    for changes, message in (
        ({"y": None}, "holds x, y; expected a dictionary with the tensors"),
        ({"x": number, "y": number}, r"x is torch.float32 \(4, 3, 3\)"),
        ({"x": flag, "y": number[:3]}, r"y torch.float32 \(3, 3, 3\)"),
        ({"x": flag[:, 0], "y": number[:, 0]}, r"x is torch.bool \(4, 3\)"),
        ({"x": flag[:0], "y": number[:0]}, r"\(0, 3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            DarcyFlow(written(tmp_path, **changes))
    torch.save([number], written(tmp_path) / TEST)
    with pytest.raises(ValueError, match=f"{TEST}: holds list"):
        open_trajectories(tmp_path)
    torch.save({"x": flag, "y": number}, written(tmp_path) / TEST)
    with pytest.raises(ValueError, match="they do not belong together"):
        open_trajectories(tmp_path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    content = (written(tmp_path) / TRAIN).read_bytes()
    (tmp_path / TRAIN).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{TRAIN}: not a file of tensors"):
        open_trajectories(tmp_path)
    (tmp_path / TRAIN).unlink()
    with pytest.raises(FileNotFoundError, match=f"{TRAIN}: no such file"):
        open_trajectories(tmp_path)


def test_the_real_pressure_is_that_of_two_materials_between_walls(real_data: Path, tmp_path: Path) -> None:
    data = open_trajectories(real_data / "darcy_neuralop")
    assert (data.count, data.layout.grid.shape) == (1050, (16, 16))
    assert {split: len(found) for split, found in data.segments.items()} == {
        "train": 950,
        "validation": 50,
        "test": 50,
    }
    p = np.stack([data.read(row, 0, 1)[0, ..., 0] for row in range(1000)]).astype(np.float64)
    a = np.stack([data.read_static(row)[..., 0] for row in range(1000)])
    assert set(np.unique(a)) == {0.0, 1.0}
    # the first point lies at the wall to a twentieth of a spacing; the last as far from the other as the second
    assert np.abs(p[:, 0]).mean() < 0.05 * p[:, 1].mean()
    assert abs(p[:, -1].mean() / p[:, 1].mean() - 1) < 0.05
    middle, around = p[:, 1:-1, 1:-1], (p[:, 2:, 1:-1], p[:, :-2, 1:-1], p[:, 1:-1, 2:], p[:, 1:-1, :-2])
    laplacian = sum(around) - 4 * middle
    centre, beside = a[:, 1:-1, 1:-1], (a[:, 2:, 1:-1], a[:, :-2, 1:-1], a[:, 1:-1, 2:], a[:, 1:-1, :-2])
    alone = np.logical_and.reduce([centre == other for other in beside])
    slow, fast = (np.median(laplacian[alone & (centre == flag)]) for flag in (0, 1))
    # -a lap p = f: the material of flag 1 lets through 18 times as much; the median is good to the digit quoted
    assert slow < fast < 0 and abs(slow / fast - 18) < 0.5
    shutil.copytree(real_data / "darcy_neuralop", tmp_path / "copy")
    assert open_trajectories(tmp_path / "copy").fingerprint == data.fingerprint
