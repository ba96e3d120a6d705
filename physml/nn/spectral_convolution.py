"""Convolution over a whole domain by a learned kernel of few wavenumbers: Li et al. 2021, arXiv 2010.08895."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn


class FourierBasis:
    """Cosines and sines of the kept wavenumbers on a grid, which all layers of one call share.

    A transform is a product with these matrices rather than a fast Fourier transform. For the few wavenumbers that a
    spectral convolution keeps it costs about as much, and all of it is real arithmetic that ``torch.compile`` can fuse.
    Above all, the result is defined for any coefficients. A layer makes some that no real field has, such as an
    imaginary part at wavenumber 0. They drop out here and in FFTs on a CPU; the inverse real FFT on a GPU assumes that
    there are none, and on some grids its result depends on them.

    Args:
        modes: highest wavenumber kept, one for each space axis.
        space: points of each axis.
        device: of the fields.
        dtype: precision of the computation; the matrices are exact to its rounding. Products of float32 matrices follow
            ``torch.set_float32_matmul_precision`` like any other.

    Raises:
        ValueError: where the grid is too coarse to hold the modes.
    """

    def __init__(self, *, modes: Sequence[int], space: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        check_resolution(modes, space)
        self.axes = len(modes)
        self.forward: list[Tensor] = []
        self.backward: list[Tensor] = []
        for axis, (m, n) in enumerate(zip(modes, space, strict=True)):
            last = axis == self.axes - 1
            k = torch.arange(m + 1 if last else 2 * m, device=device)
            k = k if last else torch.where(k < m, k, k - 2 * m)
            # Whole turns are taken off in integers, so that large products k j cost no digits.
            angle = (torch.outer(k, torch.arange(n, device=device)) % n).double() * (2 * math.pi / n)
            cosine, sine = angle.cos(), angle.sin()
            # On the last axis a wavenumber stands for its negative too, unless the two are the same.
            share = 1 + (2 * k % n != 0).double()[:, None] if last else 1
            self.forward.append((torch.cat([share * cosine, share * sine]) / n).to(dtype))
            backward = torch.cat([cosine.mT, -sine.mT], 1) if last else torch.cat([cosine.mT, sine.mT])
            self.backward.append(backward.to(dtype))

    def analyse(self, x: Tensor) -> Tensor:
        """Fourier coefficients of ``(B, *space, C)``: real and imaginary part ``(2, B, *kept, C)``.

        Those of the last axis include their conjugates, so they are twice the usual except at wavenumber 0 and n/2.
        """
        cosine, sine = _along(self.forward[-1], x, self.axes).chunk(2, self.axes)
        spectrum = torch.stack([cosine, -sine])
        for axis in reversed(range(self.axes - 1)):
            cosine, sine = _along(self.forward[axis], spectrum, axis + 2).chunk(2, axis + 2)
            spectrum = cosine + _quarter_turn(sine)
        return spectrum

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """The field ``(B, *space, C)`` that has coefficients ``(2, B, *kept, C)`` and no others."""
        for axis in range(self.axes - 1):
            cosine, sine = _along(self.backward[axis], spectrum, axis + 2).chunk(2, axis + 2)
            spectrum = cosine - _quarter_turn(sine)
        return _along(self.backward[-1], torch.cat(spectrum.unbind(), self.axes), self.axes)


class SpectralConvolution(nn.Module):
    r"""Multiplies the low Fourier coefficients of a field by learned matrices, in any number of dimensions.

    .. math::

        y = \mathcal{F}^{-1}\bigl((\mathcal{F} x)_k\, R_k\bigr), \qquad
        R_k \in \mathbb{C}^{\mathrm{inputs} \times \mathrm{outputs}}

    With ``modes`` :math:`m_1 \ldots m_D`, kept are the wavenumbers :math:`-m_d \le k_d < m_d` of every axis but the
    last, and :math:`0 \le k_D \le m_D` of the last, whose negative half follows because fields are real. All other
    coefficients of the result are zero. As :math:`R_k` belongs to a wavenumber and not to a grid point, the same
    weights act on every grid that resolves them.

    The computation runs in the precision of the weights, and at least in float32, also under autocast.

    Args:
        inputs: channels read.
        outputs: channels returned.
        modes: highest wavenumber kept, one for each space axis.

    Attributes:
        weight: real and imaginary part of :math:`R`, ``(2 m_1, ..., 2 m_{D-1}, m_D + 1, inputs, outputs, 2)``; all axes
            but the last in the order ``0 ... m-1, -m ... -1``. Starts with ``|R|^2`` of mean
            ``2 / (inputs + outputs)``.
    """

    def __init__(self, *, inputs: int, outputs: int, modes: Sequence[int]) -> None:
        super().__init__()
        if not modes or min(modes) < 1:
            raise ValueError(f"modes: got {list(modes)}, expected a highest wavenumber of at least 1 for each axis.")
        self.modes = tuple(modes)
        kept = (*(2 * m for m in self.modes[:-1]), self.modes[-1] + 1)
        self.weight = nn.Parameter(torch.randn(*kept, inputs, outputs, 2) / math.sqrt(inputs + outputs))

    def forward(self, x: Tensor, basis: FourierBasis | None = None) -> Tensor:
        """Convolve.

        Args:
            x: ``(B, *space, inputs)``.
            basis: of these modes on the grid of ``x``; made here if not given.

        Returns:
            ``(B, *space, outputs)``, in the precision of the computation.

        Raises:
            ValueError: where the grid is too coarse to hold the modes.
        """
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            if basis is None:
                basis = FourierBasis(modes=self.modes, space=x.shape[1:-1], device=x.device, dtype=weight.dtype)
            spectrum = basis.analyse(x.to(weight.dtype))
            batch, kept = spectrum.shape[1], spectrum.shape[2:-1]
            # One matrix product a wavenumber, (modes, 2 B, inputs) by (modes, inputs, 2 outputs), holds the four
            # products of real and imaginary parts.
            rows = spectrum.flatten(0, 1).flatten(1, -2).transpose(0, 1)
            products = torch.bmm(rows, weight.flatten(0, len(kept) - 1).flatten(2))
            real, imaginary = products.unflatten(-1, (-1, 2)).unflatten(1, (2, batch)).unbind(1)
            result = torch.stack([real[..., 0] - imaginary[..., 1], real[..., 1] + imaginary[..., 0]])
            return basis.synthesise(result.transpose(1, 2).unflatten(2, kept))


def check_resolution(modes: Sequence[int], space: Sequence[int]) -> None:
    """Raise ``ValueError`` where a grid with these points on its axes is too coarse to hold the modes."""
    if len(space) != len(modes):
        raise ValueError(
            f"modes: got {len(modes)} numbers {list(modes)} for {len(space)} space axes; give one for each."
        )
    for axis, (m, n) in enumerate(zip(modes, space, strict=True)):
        if m > n // 2:
            raise ValueError(
                f"modes: got {m} for space axis {axis}, the grid of {n} points there has wavenumbers 0 to "
                f"{n // 2}; keep at most {n // 2} modes or give a finer grid."
            )


def _along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """Matrix product along one axis of a tensor."""
    return torch.matmul(matrix, x.flatten(axis + 1)).unflatten(-1, x.shape[axis + 1 :])


def _quarter_turn(spectrum: Tensor) -> Tensor:
    """Multiply by -i, where the first axis holds real and imaginary part."""
    real, imaginary = spectrum.unbind()
    return torch.stack([imaginary, -real])
