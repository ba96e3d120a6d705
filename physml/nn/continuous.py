r"""Places in a continuum as features: sines and cosines of coordinates, and rotations of queries and keys.

Both use the same waves. Along each axis a coordinate x turns through the angles :math:`s\,\omega_k x`,

.. math:: \omega_k = L^{-2k/w}, \qquad k = 0, \dots, w/2 - 1,

with s the scale, L the spread and w the channels of one axis: the shortest wavelength is :math:`2\pi/s`, the longest
nearly L times that. Vaswani et al. 2017 (arXiv 1706.03762) for the features, Su et al. 2021 (arXiv 2104.09864) for
rotations; UPT (arXiv 2402.12365) for both on continuous places.

Angles are large, so they are never computed in half precision.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from physml.configured import Configured
from physml.nn.precision import full


class Rotation(NamedTuple):
    """Cosines and sines of the angles by which pairs of channels turn, ``(B, 1, N, d/2)`` each."""

    cos: Tensor
    sin: Tensor


class Waves(Configured):
    """Which wavelengths places are told by.

    Features and rotations depend on the place, not on differences of places alone: a network that has the features is
    not translation equivariant. Nothing is resolved by a single feature below the shortest wavelength, and no
    difference beyond the longest.

    Args:
        scale: s, radians of the fastest wave per unit length. With coordinates in the unit box, the published 1000.
        spread: L, nearly the ratio of the longest wavelength to the shortest.
    """

    def __init__(self, *, scale: float = 1000.0, spread: float = 10_000.0) -> None:
        if scale <= 0 or spread <= 1:
            raise ValueError(f"scale, spread: got {scale} and {spread}, expected above 0 and above 1.")
        self.scale, self.spread = scale, spread

    def embed(self, x: Tensor, width: int) -> Tensor:
        """``[sin, cos]`` of every axis in turn, then zeros: ``(..., D)`` to ``(..., width)``."""
        angles = self._angles(x, width)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return torch.nn.functional.pad(waves, (0, width - waves.shape[-1]))

    def rotation(self, x: Tensor, width: int) -> Rotation:
        """``(B, N, D)`` to the rotation of heads of ``width`` channels; what the axes do not fill does not turn."""
        angles = self._angles(x, width).flatten(-2)
        angles = torch.nn.functional.pad(angles, (0, width // 2 - angles.shape[-1]))[:, None]
        return Rotation(angles.cos(), angles.sin())

    def _angles(self, x: Tensor, width: int) -> Tensor:
        """``(..., D)`` to ``(..., D, w/2)``, w the greatest even number of channels that every axis can have."""
        half = width // x.shape[-1] // 2
        if half < 1:
            raise ValueError(f"width: got {width} for {x.shape[-1]} axes, expected at least 2 channels for each.")
        x = full(x)
        k = torch.arange(half, device=x.device, dtype=x.dtype)
        return x[..., None] * (self.scale * self.spread ** (-k / half))


def turn(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the pairs of channels ``(2i, 2i + 1)`` of ``(B, H, N, d)``; in full precision, returned in that of x."""
    a, b = full(x).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotation
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)
