r"""The sinusoidal body force of Kolmogorov flow, :math:`f = A\sin(ny)\,e_x`, whose curl is :math:`-nA\cos(ny)`.

(Meshalkin & Sinai, J. Appl. Math. Mech. 25, 1961.) The second array axis is y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from physml.fields import Grid


def kolmogorov_velocity_forcing(
    grid: Grid, amplitude: Tensor | float, wavenumber: Tensor | float, like: Tensor
) -> Tensor:
    r""":math:`A\sin(ny)`, the x component of the force per unit mass, to broadcast with ``like (B, ..., nx, ny)``.

    Args:
        grid: its second axis is y.
        amplitude: ``A``, a number or one per sample ``(B,)``, an acceleration.
        wavenumber: ``n``, a number or one per sample ``(B,)``, in units of one over those of y.
        like: gives number of axes, type and device.
    """
    n = per_sample(wavenumber, like)
    return per_sample(amplitude, like) * torch.sin(n * _height(grid, like))


def kolmogorov_vorticity_forcing(
    grid: Grid, amplitude: Tensor | float, wavenumber: Tensor | float, like: Tensor
) -> Tensor:
    r""":math:`-nA\cos(ny)`, the curl of :func:`kolmogorov_velocity_forcing`; same arguments."""
    n = per_sample(wavenumber, like)
    return -n * per_sample(amplitude, like) * torch.cos(n * _height(grid, like))


def per_sample(parameter: Tensor | float, like: Tensor) -> Tensor:
    """A number, or one per sample ``(B,)``, shaped to broadcast with ``like (B, ...)``."""
    value = torch.as_tensor(parameter, dtype=like.dtype, device=like.device)
    if value.ndim == 0:
        return value
    if value.ndim != 1 or like.ndim == 0 or len(value) not in (1, like.shape[0]):
        raise ValueError(
            f"parameter: got shape {tuple(value.shape)} for {like.shape[0] if like.ndim else 0} samples; "
            "pass a number or one per sample, (B,)."
        )
    return value.reshape(-1, *[1] * (like.ndim - 1))


def _height(grid: Grid, like: Tensor) -> Tensor:
    return grid.axes[1].points.to(device=like.device, dtype=like.dtype)
