"""The velocity and the vorticity of a state, whichever of the two it holds.

States are laid out channels last, ``(..., *space, C)``, and name their channels: a velocity is the fields
``velocity_x``, ``velocity_y`` and, in 3-D, ``velocity_z``; a 2-D vorticity is the field ``vorticity``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from physml.fields import Grid
from physml.physics import derivatives


def velocity_names(grid: Grid) -> tuple[str, ...]:
    """The names of the velocity components on this grid: ``velocity_`` and the letters x, y, z in the axes' order."""
    return tuple(f"velocity_{letter}" for letter in "xyz"[: len(grid.axes)])


def holds_velocity(names: Sequence[str], grid: Grid) -> bool:
    """Whether the state has all components of a velocity among its fields."""
    return set(velocity_names(grid)) <= set(names)


def holds_vorticity(names: Sequence[str], grid: Grid) -> bool:
    """Whether the state has a scalar vorticity, which means one in two dimensions."""
    return len(grid.axes) == 2 and "vorticity" in names


def velocity(values: Tensor, names: Sequence[str], grid: Grid) -> Tensor:
    """The velocity fields of a state, or the velocity that follows from its 2-D vorticity.

    Args:
        values: ``(..., *space, C)``.
        names: one for each channel.
        grid: where the values live.

    Returns:
        ``u``, ``(..., *space, D)``. Where it follows from a vorticity its mean is zero.

    Raises:
        ValueError: where the fields imply no velocity, or the grid does not allow to invert the vorticity.
    """
    if holds_velocity(names, grid):
        wanted = torch.tensor([list(names).index(name) for name in velocity_names(grid)], device=values.device)
        return values.index_select(-1, wanted)
    if holds_vorticity(names, grid):
        return derivatives.velocity_from_vorticity(values[..., list(names).index("vorticity")], grid)
    raise ValueError(_nothing(names, grid))


def vorticity(values: Tensor, names: Sequence[str], grid: Grid) -> Tensor:
    """The 2-D vorticity field of a state, or the curl of its velocity.

    Args:
        values: ``(..., *space, C)``.
        names: one for each channel.
        grid: where the values live.

    Returns:
        ``(..., *space)`` in 2-D, ``(..., *space, 3)`` in 3-D.

    Raises:
        ValueError: where the fields imply no vorticity.
    """
    if holds_vorticity(names, grid):
        return values[..., list(names).index("vorticity")]
    if holds_velocity(names, grid):
        return derivatives.vorticity(velocity(values, names, grid), grid)
    raise ValueError(_nothing(names, grid))


def _nothing(names: Sequence[str], grid: Grid) -> str:
    return (
        f"names: got {list(names)} on {len(grid.axes)} axes; a velocity or vorticity needs the fields "
        f"{list(velocity_names(grid))}, or 'vorticity' in two dimensions. Rename the fields, or skip this quantity."
    )
