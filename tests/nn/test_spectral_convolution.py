"""Spectral convolutions against hand-computed modes and the fast Fourier transform."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from physml.nn.spectral_convolution import FourierBasis, SpectralConvolution


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def by_fft(layer: SpectralConvolution, x: Tensor) -> Tensor:
    """The same operation written with ``torch.fft``."""
    weight, space = torch.view_as_complex(layer.weight), x.shape[1:-1]
    axes = tuple(range(1, x.ndim - 1))
    places = [torch.cat([torch.arange(m), torch.arange(n - m, n)]) for m, n in zip(layer.modes, space, strict=True)]
    places[-1] = torch.arange(layer.modes[-1] + 1)
    kept = (slice(None), *torch.meshgrid(*places, indexing="ij"))
    spectrum = torch.fft.rfftn(x, dim=axes)
    result = spectrum.new_zeros(*spectrum.shape[:-1], weight.shape[-1])
    result[kept] = torch.einsum("b...i,...io->b...o", spectrum[kept], weight)
    return torch.fft.irfftn(result, s=space, dim=axes)


@pytest.mark.parametrize(
    ("space", "modes"),
    [((16,), [5]), ((16,), [8]), ((15,), [7]), ((8, 6), [4, 3]), ((9, 12), [2, 5]), ((6, 7, 8), [3, 2, 4])],
)
def test_equals_the_fast_fourier_transform(space: tuple[int, ...], modes: list[int]) -> None:
    layer = SpectralConvolution(inputs=3, outputs=2, modes=modes).double()
    x = torch.randn(2, *space, 3, dtype=torch.float64)
    # Rounding of float64, a few hundred terms a sum.
    torch.testing.assert_close(layer(x), by_fft(layer, x), rtol=0, atol=1e-13)


def test_multiplies_one_wavenumber_as_computed_by_hand() -> None:
    # cos(k.x) becomes Re[(a + ib) exp(i k.x)] = a cos(k.x) - b sin(k.x) where the weight of k is a + ib.
    layer = SpectralConvolution(inputs=1, outputs=1, modes=[4, 4]).double()
    a, b = 0.7, -1.3
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[-2, 3, 0, 0] = torch.tensor([a, b], dtype=torch.float64)  # k = (-2, 3)
    turns = [torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in (16, 12)]
    y, x = torch.meshgrid(*turns, indexing="ij")
    phase = 3 * x - 2 * y
    out = layer(phase.cos()[None, ..., None])[0, ..., 0]
    torch.testing.assert_close(out, a * phase.cos() - b * phase.sin(), rtol=0, atol=1e-13)  # rounding of float64
    # The mirrored wavenumber (2, 3) has weight zero.
    assert layer((2 * y + 3 * x).cos()[None, ..., None]).abs().max() < 1e-13


def test_removes_what_it_does_not_keep() -> None:
    layer = SpectralConvolution(inputs=1, outputs=1, modes=[3]).double()
    x = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    assert layer((4 * x).cos()[None, :, None]).abs().max() < 1e-14
    assert layer((3 * x).cos()[None, :, None]).abs().max() > 1e-2


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_fine_and_coarse_grid_agree_on_a_band_limited_field(axes: int) -> None:
    layer = SpectralConvolution(inputs=2, outputs=2, modes=[2] * axes).double()
    coarse = torch.zeros(1, *[8] * axes, 2, dtype=torch.float64)
    fine = torch.zeros(1, *[16] * axes, 2, dtype=torch.float64)
    for field, n in ((coarse, 8), (fine, 16)):
        where = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n] * axes, indexing="ij")).sum(0)
        field[..., 0] = (2 * math.pi * where).sin()
        field[..., 1] = (4 * math.pi * where + 1).cos()
    skip = (slice(None), *[slice(None, None, 2)] * axes)
    torch.testing.assert_close(layer(fine)[skip], layer(coarse), rtol=0, atol=1e-13)


def test_gradient_is_exact() -> None:
    layer = SpectralConvolution(inputs=2, outputs=3, modes=[2, 3]).double()
    x = torch.randn(1, 5, 6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_keeps_the_size_of_noise() -> None:
    layer = SpectralConvolution(inputs=64, outputs=64, modes=[16, 16])
    # All wavenumbers of a 32 x 32 grid are kept, and 64 channels of variance 1 are summed with weights of mean square
    # 2 / (64 + 64). The standard deviation of this estimate is below 1 %.
    assert layer(torch.randn(2, 32, 32, 64)).var().item() == pytest.approx(1, rel=0.05)


def test_runs_in_float32_under_autocast() -> None:
    layer = SpectralConvolution(inputs=2, outputs=2, modes=[3, 3])
    x = torch.randn(1, 8, 8, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.float32
    assert torch.equal(out, layer(x))


def test_half_precision_weights_are_computed_in_float32() -> None:
    layer = SpectralConvolution(inputs=2, outputs=2, modes=[3]).bfloat16()
    assert layer(torch.randn(1, 8, 2).bfloat16()).dtype == torch.float32


def test_a_shared_basis_changes_nothing() -> None:
    layer = SpectralConvolution(inputs=2, outputs=2, modes=[3, 2])
    x = torch.randn(1, 8, 9, 2)
    basis = FourierBasis(modes=[3, 2], space=(8, 9), device=x.device, dtype=x.dtype)
    assert torch.equal(layer(x, basis), layer(x))


def test_says_which_axis_is_too_coarse() -> None:
    layer = SpectralConvolution(inputs=1, outputs=1, modes=[4, 32])
    message = "modes: got 32 for space axis 1, the grid of 32 points there has wavenumbers 0 to 16; keep at most 16"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(1, 64, 32, 1))
    with pytest.raises(ValueError, match=r"modes: got 2 numbers .* for 1 space axes"):
        layer(torch.zeros(1, 64, 1))
    with pytest.raises(ValueError, match=r"modes: got .* expected a highest wavenumber of at least 1"):
        SpectralConvolution(inputs=1, outputs=1, modes=[4, 0])


def test_is_made_and_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer = SpectralConvolution(inputs=3, outputs=5, modes=[4, 4])
        assert layer(torch.empty(2, 8, 8, 3)).shape == (2, 8, 8, 5)
