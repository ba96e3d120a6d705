from __future__ import annotations

import math

import pytest
import torch

from physml.normalise import Increments, Normaliser, Standardise


def ready(kind: type[Normaliser]) -> Normaliser:
    normaliser = kind()
    normaliser.allocate(2, 3)
    normaliser.learn(torch.tensor([1.0, -50.0]), torch.tensor([2.0, 1e3]), torch.tensor([0.5, 1e3]), stride=2)
    return normaliser


@pytest.mark.parametrize("kind", [Standardise, Increments])
def test_decode_undoes_encode(kind: type[Normaliser]) -> None:
    normaliser = ready(kind)
    values = 100 * torch.randn(4, 5, 2)
    # two roundings of fp32 numbers of size 1e3
    torch.testing.assert_close(normaliser.decode(normaliser.encode(values)), values, rtol=1e-6, atol=1e-3)


def test_zero_increment_is_persistence() -> None:
    normaliser = ready(Increments)
    window = torch.randn(2, 4, 8, 2)
    frames = normaliser.assemble(window, torch.zeros(2, 3, 8, 2))
    assert torch.equal(frames, window[:, -1:].expand_as(frames))


def test_increment_scales_grow_with_the_lead_and_saturate() -> None:
    normaliser = ready(Increments)
    # stride 2: leads of 2, 4, 6 stored frames at 0.25 a frame for the first field; the second saturates at once
    expected = torch.tensor([[0.5, math.sqrt(2)], [1.0, math.sqrt(2)], [math.sqrt(2), math.sqrt(2)]])
    torch.testing.assert_close(normaliser.scale, expected)
