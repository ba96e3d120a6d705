"""Ghost points by boundary kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from physml.fields import Boundary
from physml.nn.padding import pad

PERIODIC, WALL, OPEN = Boundary.PERIODIC, Boundary.WALL, Boundary.OPEN


@pytest.mark.parametrize(
    "boundaries",
    [[PERIODIC], [WALL], [PERIODIC, WALL], [WALL, PERIODIC], [OPEN, OPEN], [PERIODIC] * 3, [WALL, PERIODIC, OPEN]],
)
@pytest.mark.parametrize("width", [1, 2])
def test_equals_padding_axis_by_axis(boundaries: list[Boundary], width: int) -> None:
    x = torch.randn(2, 3, *[4, 5, 3][: len(boundaries)])
    expected = x.numpy()
    for axis, boundary in enumerate(boundaries, start=2):
        widths = [(width, width) if i == axis else (0, 0) for i in range(x.ndim)]
        expected = np.pad(expected, widths, mode="wrap" if boundary is PERIODIC else "edge")
    np.testing.assert_array_equal(pad(x, width, boundaries).numpy(), expected)


def test_a_single_point_can_be_padded() -> None:
    assert pad(torch.full((1, 1, 1, 1), 7.0), 1, [PERIODIC, WALL]).equal(torch.full((1, 1, 3, 3), 7.0))


def test_number_of_boundaries() -> None:
    with pytest.raises(ValueError, match="boundaries: got 1 for the 2 space axes"):
        pad(torch.zeros(1, 1, 4, 4), 1, [PERIODIC])


@pytest.mark.parametrize("boundaries", [[PERIODIC], [WALL, PERIODIC], [OPEN, WALL, PERIODIC]])
def test_one_axis_alone(boundaries: list[Boundary]) -> None:
    x = torch.randn(2, 3, *[4, 5, 3][: len(boundaries)])
    for axis, boundary in enumerate(boundaries):
        widths = [(2, 2) if i == axis + 2 else (0, 0) for i in range(x.ndim)]
        expected = np.pad(x.numpy(), widths, mode="wrap" if boundary is PERIODIC else "edge")
        np.testing.assert_array_equal(pad(x, 2, boundaries, only=axis).numpy(), expected)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_one_axis_after_the_other_in_any_order_is_all_of_them(order: list[int]) -> None:
    x = once = torch.randn(2, 3, 4, 5, 3)
    for axis in order:
        x = pad(x, 2, [WALL, PERIODIC, OPEN], only=axis)
    assert x.equal(pad(once, 2, [WALL, PERIODIC, OPEN]))


@pytest.mark.parametrize("only", [-1, 2])
def test_an_axis_that_is_not_there(only: int) -> None:
    with pytest.raises(ValueError, match=f"only: got {only}, expected a space axis from 0 to 1"):
        pad(torch.zeros(1, 1, 4, 4), 1, [PERIODIC, WALL], only=only)


def test_a_periodic_axis_continues_for_one_period_at_most() -> None:
    assert pad(torch.arange(3.0).reshape(1, 1, 3), 3, [PERIODIC]).flatten().tolist() == [0, 1, 2] * 3
    with pytest.raises(ValueError, match="width: got 4 for a periodic axis of 3 points"):
        pad(torch.zeros(1, 1, 3), 4, [PERIODIC])
