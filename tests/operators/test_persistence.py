from __future__ import annotations

import pytest
import torch

from physml.configured import rebuild
from physml.fields import Axis, Grid
from physml.operators.operator import Operator
from physml.operators.persistence import Persistence


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_repeats_the_last_frame(axes: int) -> None:
    shape = (4, 5, 6)[:axes]
    grid = Grid(tuple(Axis.periodic_uniform(name, n, 1.0) for name, n in zip("xyz", shape, strict=False)))
    operator = Persistence(channels=2, frames=3, steps=4, axes=axes)
    window = torch.randn(2, 3, *shape, 2)
    frames = operator(window, grid, 3)
    assert frames.shape == (2, 3, *shape, 2)
    for step in range(3):
        assert torch.equal(frames[:, step], window[:, -1])
    # A copy: writing into the forecast must not reach the window.
    before = window.clone()
    frames.zero_()
    assert torch.equal(window, before)


def test_has_nothing_to_learn_and_can_be_rebuilt() -> None:
    operator = Persistence(channels=2, frames=3, steps=4, axes=1)
    assert list(operator.parameters()) == []
    again = rebuild(operator.describe(), Operator)
    assert (again.channels, again.frames, again.steps, again.axes) == (2, 3, 4, 1)


def test_wrong_windows_are_refused() -> None:
    grid = Grid((Axis.periodic_uniform("x", 4, 1.0),))
    operator = Persistence(channels=2, axes=1)
    with pytest.raises(ValueError, match=r"1 frames of 3 fields.*frames=1 of channels=2"):
        operator(torch.zeros(1, 1, 4, 3), grid, 1)
    with pytest.raises(ValueError, match=r"2 space axes.*axes=1"):
        operator(torch.zeros(1, 1, 4, 4, 2), grid, 1)
    with pytest.raises(ValueError, match="1 to 1 frames"):
        operator(torch.zeros(1, 1, 4, 2), grid, 2)


def test_nothing_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="frames: got 0"):
        Persistence(channels=1, axes=1, frames=0)
