"""Convolution over a whole domain by a learned kernel of few wavenumbers: Li et al. 2021, arXiv:2010.08895, equation 5."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SpectralConvolution(nn.Module):
    r"""Multiplies the low Fourier coefficients of a field by learned matrices, in any number of dimensions.

    .. math:: y = \mathcal{F}^{-1}\bigl(R_k \cdot (\mathcal{F} x)_k\bigr), \qquad R_k \in \mathbb{C}^{\mathrm{in} \times \mathrm{out}}

    With ``modes`` :math:`m_1 \ldots m_D`, kept are the wavenumbers :math:`-m_d \le k_d < m_d` of every axis but the last, and
    :math:`0 \le k_D \le m_D` of the last, whose negative half follows because fields are real. All other coefficients of
    the result are zero. As :math:`R_k` belongs to a wavenumber and not to a grid point, the same weights act on every grid
    that resolves them.

    The computation runs in the precision of the weights, or in float32 where they are smaller, also under autocast. The
    axes are transformed one after the other, the last first, and each is cut to its kept wavenumbers before the next.

    Args:
        inputs: channels read.
        outputs: channels returned.
        modes: highest wavenumber kept, one for each space axis.

    Attributes:
        weight: :math:`R` as real and imaginary part, ``(2 m_1, ..., 2 m_{D-1}, m_D + 1, inputs, outputs, 2)``; all axes but
            the last in the order of the discrete Fourier transform, ``0 ... m-1, -m ... -1``. Complex variance
            ``2 / (inputs + outputs)`` at the start.
    """

    def __init__(self, *, inputs: int, outputs: int, modes: Sequence[int]) -> None:
        super().__init__()
        if not modes or min(modes) < 1:
            raise ValueError(f"modes: got {list(modes)}, expected a highest wavenumber of at least 1 for each axis.")
        self.modes = tuple(modes)
        self.kept = (*(2 * m for m in self.modes[:-1]), self.modes[-1] + 1)
        self.weight = nn.Parameter(torch.randn(*self.kept, inputs, outputs, 2) / math.sqrt(inputs + outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: ``(B, *space, inputs)``.

        Returns:
            ``(B, *space, outputs)``, in the precision of the computation.

        Raises:
            ValueError: where the grid is too coarse to hold the modes.
        """
        space = x.shape[1:-1]
        self._check(space)
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        matrices = torch.view_as_complex(weight).flatten(0, len(space) - 1)
        spectrum = self._analyse(x.to(weight.dtype))
        # One matrix product for each wavenumber, (modes, B, inputs) by (modes, inputs, outputs); autocast leaves complex
        # numbers as they are.
        product = torch.bmm(spectrum.flatten(1, -2).transpose(0, 1), matrices)
        return self._synthesise(product.transpose(0, 1).unflatten(1, self.kept), space)

    def _analyse(self, x: Tensor) -> Tensor:
        last = len(self.modes)
        spectrum = torch.fft.rfft(x, dim=last, norm="forward").narrow(last, 0, self.modes[-1] + 1)
        for axis, m in enumerate(self.modes[:-1], start=1):
            n = x.shape[axis]
            spectrum = torch.fft.fft(spectrum, dim=axis, norm="forward")
            if n > 2 * m:
                spectrum = torch.cat([spectrum.narrow(axis, 0, m), spectrum.narrow(axis, n - m, m)], axis)
        return spectrum

    def _synthesise(self, spectrum: Tensor, space: Sequence[int]) -> Tensor:
        for axis, (m, n) in enumerate(zip(self.modes[:-1], space, strict=False), start=1):
            if n > 2 * m:
                zeros = spectrum.new_zeros(*spectrum.shape[:axis], n - 2 * m, *spectrum.shape[axis + 1 :])
                spectrum = torch.cat([spectrum.narrow(axis, 0, m), zeros, spectrum.narrow(axis, m, m)], axis)
            spectrum = torch.fft.ifft(spectrum, dim=axis, norm="forward")
        return torch.fft.irfft(spectrum, n=space[-1], dim=len(space), norm="forward")

    def _check(self, space: Sequence[int]) -> None:
        if len(space) != len(self.modes):
            raise ValueError(f"x: got {len(space)} space axes, modes={list(self.modes)} were given for {len(self.modes)}.")
        for axis, (m, n) in enumerate(zip(self.modes, space, strict=True)):
            if m > n // 2:
                raise ValueError(
                    f"modes: got {m} for space axis {axis}, the grid of {n} points there has wavenumbers 0 to {n // 2}; "
                    f"keep at most {n // 2} modes or give a finer grid."
                )
