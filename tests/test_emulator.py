from __future__ import annotations

import pytest
import torch
from waves import wave_layout

from physml.emulator import Emulator, Origin
from physml.fields import Grid, Layout
from physml.normalise import Increments, Standardise
from physml.operators import FactFormer, Persistence

STATISTICS = {"mean": [3.0], "std": [2.0], "increment_std": [0.5], "energy": 2.0}


def test_persistence_returns_the_last_state_in_physical_units() -> None:
    emulator = Emulator(Persistence(channels=1, axes=2, steps=3), Standardise())
    emulator.learn(Origin(wave_layout(), STATISTICS))
    window = 100 + torch.randn(2, 1, 16, 16, 1)
    torch.testing.assert_close(emulator(window), window.expand(2, 3, 16, 16, 1))


def test_obstacles_stay_empty() -> None:
    layout = wave_layout()
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[3:5, 7] = False
    layout = Layout(layout.fields, Grid(layout.grid.axes, mask), layout.dt)
    operator = FactFormer(axes=2, frames=1, steps=2, width=8, depth=1, heads=2, head_width=4)
    emulator = Emulator(operator, Increments())
    emulator.learn(Origin(layout, STATISTICS))
    frames = emulator(torch.randn(1, 1, 16, 16, 1))
    assert float(frames.detach()[:, :, ~mask].abs().max()) < 1e-6  # mean - mean in fp32
    assert float(frames.detach()[:, :, mask].abs().min()) > 0


def test_data_of_another_kind_are_refused() -> None:
    emulator = Emulator(Persistence(channels=2, axes=2), Standardise())
    with pytest.raises(ValueError, match=r"channels=2, axes=2; the data have 1 fields \(vorticity\)"):
        emulator.learn(Origin(wave_layout(), STATISTICS))


def test_windows_of_another_shape_are_refused() -> None:
    emulator = Emulator(Persistence(channels=1, axes=2), Standardise())
    with pytest.raises(ValueError, match="knows no grid"):
        emulator(torch.zeros(1, 1, 4, 4, 1))
    emulator.learn(Origin(wave_layout(), STATISTICS))
    with pytest.raises(ValueError, match=r"coordinates describe \(16, 16\)"):
        emulator(torch.zeros(1, 1, 8, 8, 1))
