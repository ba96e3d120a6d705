"""The distance between two spectra: does a prediction have its energy at the right scales?

The spectra themselves come from :mod:`physml.physics.spectra`; average them over samples before comparing, because one
sample's spectrum scatters and the logarithm of a mean is not the mean of logarithms.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from physml.metrics.pointwise import UndefinedMetric

FLOOR = 1e-12
"""Shells in which the reference holds less than this part of its maximum are rounding noise and left out."""

DEFINITIONS: Mapping[str, str] = {
    "log_spectral_error": "Log-spectral error = sqrt(mean_k (ln E(k) - ln E_ref(k))^2) over the shells "
    "1..floor(2/3 k_max) with E_ref > 1e-12 of its maximum, of spectra averaged over the stable samples, per frame; "
    "known frames do not count.",
}


def log_spectral_error(spectrum: Tensor, reference: Tensor, limit: int) -> Tensor:
    """``sqrt(mean_k (ln E(k) - ln E_ref(k))^2)`` over the shells ``1 .. limit``.

    An error of ``ln 2 = 0.69`` means a factor of two at a typical shell.

    Args:
        spectrum: ``E``, ``(..., n)``, averaged over samples; the last axis counts shells from 0.
        reference: ``E_ref``, the same shape.
        limit: the last shell that counts, :func:`physml.physics.spectra.shell_limit`: two thirds of the smallest
            Nyquist wavenumber, beyond which dealiasing has emptied the shells.

    Returns:
        ``(...)``. Infinite where the prediction has no energy at all in a shell that the reference fills; NaN, with a
        warning, where no shell is left.
    """
    if spectrum.shape != reference.shape:
        raise ValueError(
            f"spectrum: got shape {tuple(spectrum.shape)}, the reference has {tuple(reference.shape)}; compute both on "
            "the same grid."
        )
    if not 1 <= limit < spectrum.shape[-1]:
        raise ValueError(
            f"limit: got shell {limit}, the spectra have shells 0 to {spectrum.shape[-1] - 1}; give one from 1 on, "
            "or skip spectra on so coarse a grid."
        )
    kind = torch.promote_types(torch.promote_types(spectrum.dtype, reference.dtype), torch.float32)
    ours, theirs = spectrum.to(kind), reference.to(kind)
    kept = (theirs > FLOOR * theirs.amax(dim=-1, keepdim=True))[..., 1 : limit + 1]
    ours, theirs = ours[..., 1 : limit + 1], theirs[..., 1 : limit + 1]
    difference = torch.where(kept, ours.log() - theirs.log(), 0)
    count = kept.sum(dim=-1)
    if bool((count == 0).any()):
        warnings.warn(
            "reference: a spectrum has no energy in any shell; the error is NaN.", UndefinedMetric, stacklevel=2
        )
    return torch.where(count > 0, (difference.square().sum(dim=-1) / count).sqrt(), math.nan)
