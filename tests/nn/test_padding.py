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
