"""Ghost points around a field, each axis extended in the way its boundary kind allows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from physml.fields import Boundary


def pad(x: Tensor, width: int, boundaries: Sequence[Boundary]) -> Tensor:
    """Add ``width`` points at both ends of every space axis.

    A periodic axis continues with the values of its other end. At a wall or an open end the last value is repeated:
    that needs no symmetry of the field and, unlike reflection, works for an axis of any size down to one point.

    Args:
        x: ``(B, C, *space)``, channels first as convolutions want it, with one to three space axes.
        width: points added at each end; at most the size of the axis where it is periodic.
        boundaries: one for each space axis.

    Returns:
        ``(B, C, *space)`` with each axis ``2 width`` longer.

    Raises:
        ValueError: where the number of boundaries is not the number of space axes.
    """
    if len(boundaries) != x.ndim - 2:
        raise ValueError(
            f"boundaries: got {len(boundaries)} for the {x.ndim - 2} space axes of shape {tuple(x.shape)}; "
            "give one for each."
        )
    # functional.pad counts from the last axis back, two numbers an axis.
    last_first = [boundary is Boundary.PERIODIC for boundary in reversed(boundaries)]
    if any(last_first):
        x = functional.pad(x, [width * periodic for periodic in last_first for _ in range(2)], mode="circular")
    if not all(last_first):
        x = functional.pad(x, [width * (not periodic) for periodic in last_first for _ in range(2)], mode="replicate")
    return x
