"""The FNO gives what the FNO of the ``neuraloperator`` package gives, weight for weight."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from physml.fields import Axis, Boundary, Grid
from physml.operators.fno import FNO, Coordinates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        return pytest.importorskip("neuralop.models", reason="needs `pip install neuraloperator`; `make verify` has it")


def box(*shape: int, walls: bool) -> Grid:
    """Points ``j / n``: the coordinates which that package takes for every axis."""
    boundary = Boundary.WALL if walls else Boundary.PERIODIC
    points = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    return Grid(tuple(Axis(name, x, boundary, 1.0) for name, x in zip("xyz", points, strict=False)))


def take(linear: nn.Linear, convolution: nn.Conv1d, columns: slice = slice(None)) -> None:
    linear.weight.copy_(convolution.weight[:, columns, 0])
    if linear.bias is not None and convolution.bias is not None:
        linear.bias.copy_(convolution.bias)


@torch.no_grad()
def copy_weights(ours: FNO, theirs: Any) -> None:
    fields = ours.read.in_features
    take(ours.read, theirs.lifting.fcs[0], slice(fields))
    take(ours.positions.embed, theirs.lifting.fcs[0], slice(fields, None))
    if isinstance(ours.lift, nn.Sequential):
        take(ours.lift[1], theirs.lifting.fcs[1])
    take(ours.project.first, theirs.projection.fcs[0])
    take(ours.project.second, theirs.projection.fcs[1])
    blocks = theirs.fno_blocks
    for number, layer in enumerate(ours.layers):
        kernel = blocks.convs[number].weight.to_tensor()
        # Theirs is channels first and has wavenumber 0 in the middle of every axis but the last.
        for axis in range(2, kernel.ndim - 1):
            kernel = torch.fft.ifftshift(kernel, dim=axis)
        kernel = kernel.movedim((0, 1), (-2, -1))
        layer.kernel.weight.copy_(torch.view_as_real(kernel.resolve_conj()))
        take(layer.skip, blocks.fno_skips[number].conv)
        layer.skip.bias.copy_(blocks.convs[number].bias.flatten())
        take(layer.mlp.first, blocks.channel_mlp[number].fcs[0])
        take(layer.mlp.second, blocks.channel_mlp[number].fcs[1])
        layer.gate.copy_(blocks.channel_mlp_skips[number].weight.flatten())


@pytest.mark.parametrize(
    ("shape", "modes", "padding"),
    [
        ((32,), [8], 0.0),
        ((16, 24), [4, 6], 0.0),
        ((16, 16), [8, 8], 0.0),  # all the wavenumbers of the grid
        ((8, 12, 10), [3, 4, 2], 0.0),
        ((16, 24), [4, 6], 0.125),
    ],
)
@pytest.mark.parametrize("lifting", [0.0, 2.0])
def test_same_output_and_number_of_parameters(
    models: ModuleType, shape: tuple[int, ...], modes: list[int], padding: float, lifting: float
) -> None:
    torch.manual_seed(0)
    theirs = models.FNO(
        n_modes=tuple(2 * m for m in modes),
        in_channels=6,
        out_channels=4,
        hidden_channels=12,
        n_layers=3,
        domain_padding=padding or None,
        lifting_channel_ratio=lifting,
    )
    ours = FNO(
        channels=2,
        frames=3,
        steps=2,
        axes=len(shape),
        modes=modes,
        width=12,
        depth=3,
        positions=Coordinates(),
        padding=padding,
        lifting=lifting,
    )
    assert count(ours) == count(theirs)
    copy_weights(ours, theirs)
    window = torch.randn(2, 3, *shape, 2)
    frames = ours(window, box(*shape, walls=padding > 0), 2)
    expected = theirs(window.movedim(-1, 2).flatten(1, 2)).unflatten(1, (2, 2)).movedim(2, -1)
    # Both round in float32, in a different order; outputs are of size 1 or less.
    torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-2


def test_number_of_parameters_of_a_usual_size(models: ModuleType) -> None:
    theirs = models.FNO(n_modes=(32, 32), in_channels=1, out_channels=1, hidden_channels=64, n_layers=4)
    assert sum(p.numel() for p in theirs.parameters()) == 8_963_777  # a complex number counts as one
    ours = FNO(channels=1, axes=2, modes=[16, 16], width=64, depth=4, positions=Coordinates())
    assert count(ours) == count(theirs) == 17_876_673


def count(module: nn.Module) -> int:
    """Real numbers among the parameters."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters())
