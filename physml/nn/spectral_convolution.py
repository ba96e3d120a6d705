"""Convolution over a whole domain by a learned kernel of few wavenumbers: Li et al. 2021, arXiv:2010.08895, equation 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn


class Harmonics:
    r"""Cosines and sines of the kept wavenumbers on a grid, which all layers of one call share.

    Transforms are products with these matrices and not fast Fourier transforms. For the few wavenumbers that a spectral
    convolution keeps they need no more time, compiled on a GPU about half as much; every intermediate is real, so
    ``torch.compile`` sees through them; and the result is defined for any spectrum, whereas the inverse real transform of some
    GPU libraries depends on imaginary parts that cannot belong to a real field.

    Args:
        modes: highest wavenumber kept :math:`m_d`, one for each space axis.
        space: points of each axis.
        like: a tensor of the wanted device and precision.

    Raises:
        ValueError: where the grid is too coarse to hold the modes.
    """

    def __init__(self, *, modes: Sequence[int], space: Sequence[int], like: Tensor) -> None:
        if len(space) != len(modes):
            raise ValueError(f"modes: got {len(modes)} numbers {list(modes)} for {len(space)} space axes; give one for each.")
        for axis, (m, n) in enumerate(zip(modes, space, strict=True)):
            if m > n // 2:
                raise ValueError(
                    f"modes: got {m} for space axis {axis}, the grid of {n} points there has wavenumbers 0 to {n // 2}; "
                    f"keep at most {n // 2} modes or give a finer grid."
                )
        self.cosines: list[Tensor] = []
        self.sines: list[Tensor] = []
        self.shares: list[Tensor] = []
        for axis, (m, n) in enumerate(zip(modes, space, strict=True)):
            last = axis == len(modes) - 1
            k = torch.arange(m + 1, device=like.device) if last else _both_signs(m, like.device)
            # Angles from whole turns taken off in integers, so that large products k j lose no digits.
            angle = (torch.outer(k, torch.arange(n, device=like.device)) % n).double() * (2 * math.pi / n)
            self.cosines.append(angle.cos().to(like.dtype))
            self.sines.append(angle.sin().to(like.dtype))
            # On the last axis, a wavenumber stands for its negative too, unless it is its own negative.
            paired = last & (2 * k % n != 0)
            self.shares.append(((1 + paired.double()) / n).to(like.dtype)[:, None])

    def analyse(self, x: Tensor) -> Tensor:
        """Fourier coefficients of ``(B, *space, C)``: real and imaginary part ``(2, B, *kept, C)``.

        Coefficients of the last axis count their conjugates in: they are twice the usual, except at wavenumber 0 and n/2.
        """
        last = len(self.cosines)
        cosine, sine = (_along(table * self.shares[-1], x, last) for table in (self.cosines[-1], self.sines[-1]))
        spectrum = torch.stack([cosine, -sine])
        for axis in reversed(range(last - 1)):
            tables = torch.cat([self.cosines[axis], self.sines[axis]]) * self.shares[axis].repeat(2, 1)
            cosine, sine = _along(tables, spectrum, axis + 2).chunk(2, axis + 2)
            spectrum = cosine + _quarter_turn(sine)
        return spectrum

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """The inverse of :meth:`analyse` on fields that the kept wavenumbers hold: ``(2, B, *kept, C)`` to ``(B, *space, C)``."""
        last = len(self.cosines)
        for axis in range(last - 1):
            tables = torch.cat([self.cosines[axis].mT, self.sines[axis].mT])
            cosine, sine = _along(tables, spectrum, axis + 2).chunk(2, axis + 2)
            spectrum = cosine - _quarter_turn(sine)
        return _along(torch.cat([self.cosines[-1].mT, -self.sines[-1].mT], 1), torch.cat(list(spectrum), last), last)


class SpectralConvolution(nn.Module):
    r"""Multiplies the low Fourier coefficients of a field by learned matrices, in any number of dimensions.

    .. math:: y = \mathcal{F}^{-1}\bigl(R_k \cdot (\mathcal{F} x)_k\bigr), \qquad R_k \in \mathbb{C}^{\mathrm{in} \times \mathrm{out}}

    With ``modes`` :math:`m_1 \ldots m_D`, kept are the wavenumbers :math:`-m_d \le k_d < m_d` of every axis but the last, and
    :math:`0 \le k_D \le m_D` of the last, whose negative half follows because fields are real. All other coefficients of
    the result are zero. As :math:`R_k` belongs to a wavenumber and not to a grid point, the same weights act on every grid
    that resolves them.

    The computation runs in the precision of the weights, and at least in float32, also under autocast.

    Args:
        inputs: channels read.
        outputs: channels returned.
        modes: highest wavenumber kept, one for each space axis.

    Attributes:
        weight: :math:`R` as real and imaginary part, ``(2 m_1, ..., 2 m_{D-1}, m_D + 1, inputs, outputs, 2)``; all axes but
            the last in the order ``0 ... m-1, -m ... -1``. Mean square ``2 / (inputs + outputs)`` of the modulus at the start.
    """

    def __init__(self, *, inputs: int, outputs: int, modes: Sequence[int]) -> None:
        super().__init__()
        if not modes or min(modes) < 1:
            raise ValueError(f"modes: got {list(modes)}, expected a highest wavenumber of at least 1 for each axis.")
        self.modes = tuple(modes)
        kept = (*(2 * m for m in self.modes[:-1]), self.modes[-1] + 1)
        self.weight = nn.Parameter(torch.randn(*kept, inputs, outputs, 2) / math.sqrt(inputs + outputs))

    def forward(self, x: Tensor, harmonics: Harmonics | None = None) -> Tensor:
        """Convolve.

        Args:
            x: ``(B, *space, inputs)``.
            harmonics: for the grid of ``x`` and these modes; made here if not given.

        Returns:
            ``(B, *space, outputs)``, in the precision of the computation.

        Raises:
            ValueError: where the grid is too coarse to hold the modes.
        """
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
            if harmonics is None:
                harmonics = Harmonics(modes=self.modes, space=x.shape[1:-1], like=weight)
            spectrum = harmonics.analyse(x.to(weight.dtype))
            batch, kept = spectrum.shape[1], spectrum.shape[2:-1]
            # One matrix product a wavenumber, (modes, 2 B, inputs) by (modes, inputs, 2 outputs), holds the four products of
            # real and imaginary parts.
            rows = spectrum.flatten(0, 1).flatten(1, -2).transpose(0, 1)
            products = torch.bmm(rows, weight.flatten(0, len(kept) - 1).flatten(2))
            real, imaginary = products.unflatten(-1, (-1, 2)).unflatten(1, (2, batch)).unbind(1)
            result = torch.stack([real[..., 0] - imaginary[..., 1], real[..., 1] + imaginary[..., 0]])
            return harmonics.synthesise(result.transpose(1, 2).unflatten(2, kept))


def _both_signs(m: int, device: torch.device) -> Tensor:
    return torch.cat([torch.arange(m, device=device), torch.arange(-m, 0, device=device)])


def _along(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """Matrix product along one axis of a tensor."""
    return torch.matmul(matrix, x.flatten(axis + 1)).unflatten(-1, x.shape[axis + 1 :])


def _quarter_turn(spectrum: Tensor) -> Tensor:
    """Multiply by -i, where the first axis holds real and imaginary part."""
    real, imaginary = spectrum.unbind()
    return torch.stack([imaginary, -real])
