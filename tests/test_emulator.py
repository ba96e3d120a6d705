from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from waves import wave_layout

from physml.emulator import Emulator, Origin
from physml.fields import Field, Grid, Layout, Setting
from physml.normalise import Increments, Standardise
from physml.operators import FNO, FactFormer, Operator, Persistence

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
    # a single value may be zero by chance, where the mean cancels it
    assert float((frames.detach()[:, :, mask] != 0).float().mean()) > 0.99


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


class Echo(Operator):
    """The static field as a state, or the number everywhere."""

    def __init__(self, *, number: str | None = None) -> None:
        super().__init__()
        self.channels, self.frames, self.steps, self.axes = 1, 0, 1, 2
        self.static, self.condition = (0, (number,)) if number else (1, ())

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        assert setting is not None
        if setting.fields is not None:
            return setting.fields[:, None]
        assert setting.numbers is not None
        return setting.numbers.reshape(-1, 1, 1, 1, 1).expand(-1, 1, *grid.shape, 1)


SETTING = STATISTICS | {
    "static_mean": [3.0],
    "static_std": [2.0],
    "number_mean": {"speed": 3.0, "age": 1.0},
    "number_std": {"speed": 2.0, "age": 0.0},
}


def steady(operator: Operator) -> Emulator:
    layout = replace(wave_layout(), static=(Field("permeability"),))
    emulator = Emulator(operator, Standardise())
    emulator.learn(Origin(layout, SETTING))
    return emulator


def test_a_static_field_comes_back_exactly_in_physical_units() -> None:
    emulator, nothing = steady(Echo()), torch.zeros(3, 0, 16, 16, 1)
    # multiples of 1/8 up to 125: (u - 3) / 2 * 2 + 3 is exact in fp32
    static = torch.randint(-1000, 1000, (3, 16, 16, 1)) / 8
    assert torch.equal(emulator(nothing, static=static), static[:, None])
    assert torch.equal(emulator(nothing, static=static[0]), static[:1, None].expand(3, -1, -1, -1, -1))


def test_numbers_come_back_exactly_and_others_are_ignored() -> None:
    emulator, nothing = steady(Echo(number="speed")), torch.zeros(2, 0, 16, 16, 1)
    speeds = torch.tensor([0.25, 100.0])
    frames = emulator(nothing, condition={"age": 5.0, "speed": speeds}, static=torch.zeros(16, 16, 1))
    assert torch.equal(frames, speeds.reshape(2, 1, 1, 1, 1).expand(2, 1, 16, 16, 1))
    assert torch.equal(emulator(nothing, condition={"speed": 2.5}), torch.full((2, 1, 16, 16, 1), 2.5))
    # an age that never varied is divided by 1, and comes back in the units of a state of spread 2
    aged = steady(Echo(number="age"))(nothing, condition={"age": 2.0})
    assert torch.equal(aged, torch.full_like(aged, (2 - 1) * 2 + 3))


def test_a_setting_that_is_missing_or_of_another_size_is_refused() -> None:
    nothing, static = torch.zeros(2, 0, 16, 16, 1), torch.zeros(2, 16, 16, 1)
    reads = FNO(channels=1, axes=2, frames=0, static=1, modes=[2, 2], width=4)
    with pytest.raises(ValueError, match=r"fields: got none, FNO reads static=1 fields.*\(2, 16, 16, 1\)"):
        steady(reads)(nothing)
    for wrong in (static[:, :8], static.expand(2, 16, 16, 3), static[:1]):
        with pytest.raises(ValueError, match=r"setting\.fields: got shape"):
            steady(reads)(nothing, static=wrong)
    numbered = steady(Echo(number="speed"))
    with pytest.raises(ValueError, match="got age, Echo reads speed; give 'speed' as well"):
        numbered(nothing, condition={"age": 1.0})
    with pytest.raises(ValueError, match=r"got shape \(3,\) for 'speed'.*each of 2 samples"):
        numbered(nothing, condition={"speed": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"numbers: got shape \(2, 2\), Echo reads condition=\['speed'\]"):
        numbered.operator.check(nothing, 1, Setting(torch.zeros(2, 2)))


def test_data_without_what_the_operator_reads_are_refused() -> None:
    two = Emulator(FNO(channels=1, axes=2, static=2, modes=[2, 2], width=4), Standardise())
    with pytest.raises(ValueError, match=r"static=2 static fields; the data have 1 \(permeability\)"):
        two.learn(Origin(replace(wave_layout(), static=(Field("permeability"),)), SETTING))
    with pytest.raises(ValueError, match=r"static=2 static fields; the data have 0 \(none\)"):
        two.learn(Origin(wave_layout(), STATISTICS))
    with pytest.raises(ValueError, match="no 'heat': they have speed, age"):
        steady(Echo(number="heat"))
    with pytest.raises(ValueError, match="they have no numbers"):
        Emulator(Echo(number="heat"), Standardise()).learn(Origin(wave_layout(), STATISTICS))
    with pytest.raises(ValueError, match="Increments"):
        Emulator(Echo(), Increments())
