"""Ghost points around a field, each axis extended in the way its boundary kind allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from physml.fields import Boundary


def pad(x: Tensor, width: int, boundaries: Sequence[Boundary], only: int | None = None) -> Tensor:
    """Add ``width`` points at both ends of every space axis.

    A periodic axis continues with the values of its other end. At a wall or an open end the last value is repeated:
    that needs no symmetry of the field and, unlike reflection, works for an axis of any size down to one point.

    Args:
        x: ``(B, C, *space)``, channels first as convolutions want it, with any number of space axes.
        width: points added at each end; at most the size of the axis where it is periodic.
        boundaries: one for each space axis.
        only: extend this space axis alone, counted from 0; all of them if ``None``.

    Returns:
        ``(B, C, *space)`` with each extended axis ``2 width`` longer.

    Raises:
        ValueError: where the number of boundaries is not the number of space axes, ``only`` is none of them, or a
            periodic axis is shorter than ``width``.
    """
    if len(boundaries) != x.ndim - 2:
        raise ValueError(
            f"boundaries: got {len(boundaries)} for the {x.ndim - 2} space axes of shape {tuple(x.shape)}; "
            "give one for each."
        )
    if only is not None and not 0 <= only < len(boundaries):
        raise ValueError(f"only: got {only}, expected a space axis from 0 to {len(boundaries) - 1}, or None for all.")
    for axis, boundary in enumerate(boundaries, start=2):
        if only is not None and axis != only + 2:
            continue
        n = x.shape[axis]
        if boundary is Boundary.PERIODIC:
            if width > n:
                raise ValueError(
                    f"width: got {width} for a periodic axis of {n} points; expected at most {n}: use a smaller kernel."
                )
            before, after = x.narrow(axis, n - width, width), x.narrow(axis, 0, width)
        else:
            before, after = (x.narrow(axis, j, 1).repeat_interleave(width, axis) for j in (0, n - 1))
        x = torch.cat([before, x, after], axis)
    return x
