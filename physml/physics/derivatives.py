r"""Space derivatives of tensors along the axes of a grid, in any dimension.

Tensors are laid out ``(..., *space)``: the space axes come last, in the order of the grid, and the caller picks the
channel. What is applied along an axis depends on the axis alone:

* a uniform periodic axis of a grid without obstacle: spectral, :math:`\partial_i f = F^{-1}[\mathrm{i} k_i F f]`, exact
  for every resolved wave;
* any other axis: second-order finite differences on the points as they are, uniform or not. Inside, the three points
  :math:`i-1, i, i+1`; at the two ends of an axis that is not periodic, one-sided over three points (four for the second
  derivative). Beside an obstacle the difference reaches into the solid: :func:`interior` tells where it does not.

Wavenumbers are :math:`k_i = 2\pi n_i / L_i`. The Nyquist wave of an even axis has no first derivative on the grid and
gets zero. Weights of the finite differences are the derivatives of the Lagrange polynomial through the points
(Fornberg, Mathematics of Computation 51, 1988).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from physml.fields import Axis, Grid


def derivative(values: Tensor, axis: int, grid: Grid) -> Tensor:
    r""":math:`\partial f / \partial x_i` along one space axis.

    Args:
        values: ``f``, ``(..., *space)``.
        axis: ``i``, position of the axis among the axes of the grid, from 0.
        grid: where the values live.

    Returns:
        ``(..., *space)``, in units of ``f`` over units of the axis. Half precision is computed and returned in float32.

    Raises:
        ValueError: where shape and grid disagree, or the axis has fewer points than the stencil needs.
    """
    return _along(values, axis, grid, order=1)


def gradient(values: Tensor, grid: Grid) -> Tensor:
    r""":math:`\nabla f` of ``f (..., *space)``: ``(..., *space, D)``, one component for each axis."""
    return torch.stack([derivative(values, axis, grid) for axis in range(len(grid.axes))], -1)


def divergence(velocity: Tensor, grid: Grid) -> Tensor:
    r""":math:`\sum_i \partial_i u_i` of ``u (..., *space, D)``: ``(..., *space)``."""
    components = _components(velocity, grid)
    total = derivative(components[0], 0, grid)
    for axis, component in enumerate(components[1:], 1):
        total = total + derivative(component, axis, grid)
    return total


def vorticity(velocity: Tensor, grid: Grid) -> Tensor:
    r"""Curl of a velocity.

    .. math:: \omega = \partial_x u_y - \partial_y u_x \quad\text{(2-D)}, \qquad
        \omega_i = \varepsilon_{ijk}\,\partial_j u_k \quad\text{(3-D)}.

    Args:
        velocity: ``u``, ``(..., *space, D)`` with D = 2 or 3.
        grid: where it lives.

    Returns:
        ``(..., *space)`` in 2-D, ``(..., *space, 3)`` in 3-D.

    Raises:
        ValueError: in any other dimension.
    """
    u = _components(velocity, grid)
    if len(u) == 2:
        return derivative(u[1], 0, grid) - derivative(u[0], 1, grid)
    if len(u) == 3:
        cyclic = ((1, 2), (2, 0), (0, 1))
        return torch.stack([derivative(u[k], j, grid) - derivative(u[j], k, grid) for j, k in cyclic], -1)
    raise ValueError(f"grid: got {len(u)} axes; a vorticity is defined on 2 or 3.")


def laplacian(values: Tensor, grid: Grid) -> Tensor:
    r""":math:`\sum_i \partial_i^2 f` of ``f (..., *space)``: ``(..., *space)``.

    On a stretched axis the three-point second derivative is of second order where the spacing changes smoothly, and of
    first order where it jumps.
    """
    total = _along(values, 0, grid, order=2)
    for axis in range(1, len(grid.axes)):
        total = total + _along(values, axis, grid, order=2)
    return total


def velocity_from_vorticity(vorticity: Tensor, grid: Grid) -> Tensor:
    r"""The divergence-free velocity of zero mean that has this vorticity, on a 2-D periodic grid.

    .. math:: \nabla^2 \psi = -\omega, \qquad u = (\partial_y \psi,\, -\partial_x \psi)

    Args:
        vorticity: ``omega``, ``(..., nx, ny)``; its mean, which no periodic velocity has, is dropped.
        grid: two uniform periodic axes, the second of which is y; no obstacle.

    Returns:
        ``u``, ``(..., nx, ny, 2)``.

    Raises:
        ValueError: on any other grid.
    """
    values = _checked(vorticity, grid)
    if len(grid.axes) != 2 or not all(spectral(axis, grid) for axis in grid.axes):
        raise ValueError(
            f"grid: got axes {stencil(grid)}; a velocity follows from a vorticity alone on two uniform periodic axes "
            "without obstacle. Store the velocity, or pass it."
        )
    kx = on_axis(wavenumbers(grid.axes[0]), -2, values)
    ky = on_axis(wavenumbers(grid.axes[1], half=True), -1, values)
    squared = kx**2 + ky**2
    squared[0, 0] = 1.0  # the mean of the stream function, whatever it is, has no slope
    stream = torch.fft.rfft2(values) / squared
    u = torch.fft.irfft2(1j * _without_nyquist(ky, grid.shape[1], -1) * stream, s=grid.shape)
    v = torch.fft.irfft2(-1j * _without_nyquist(kx, grid.shape[0], -2) * stream, s=grid.shape)
    return torch.stack([u, v], -1)


def wavenumbers(axis: Axis, half: bool = False) -> Tensor:
    r""":math:`k = 2\pi n/L` of an axis in the order of ``fft``, or the non-negative ones of ``rfft``: float64."""
    n = len(axis.points)
    frequencies = torch.fft.rfftfreq if half else torch.fft.fftfreq
    return frequencies(n, d=axis.length / (2 * math.pi * n), dtype=torch.float64)


def on_axis(line: Tensor, dim: int, like: Tensor) -> Tensor:
    """One number for each point of a line, shaped to broadcast along dimension ``dim < 0``, of the type of ``like``."""
    return line.reshape(-1, *[1] * (-1 - dim)).to(device=like.device, dtype=like.dtype)


def uniform(axis: Axis) -> bool:
    """Whether the points are equally spaced, to a thousandth of a cell.

    Not the same as equal quadrature weights (``axis.uniform``): points in pairs have cells of equal width, and the
    trapezoidal rule has half weights at the ends of equally spaced points.
    """
    points = axis.points.cpu().double()
    steps = points.diff()
    if axis.periodic:
        steps = torch.cat([steps, (points[:1] + axis.length - points[-1:])])
    return len(steps) == 0 or bool((steps - steps.mean()).abs().max() <= 1e-3 * steps.mean())


def spectral(axis: Axis, grid: Grid) -> bool:
    """Whether derivatives along this axis are spectral: it is periodic, uniform, and the grid has no obstacle."""
    return axis.periodic and uniform(axis) and _solid_free(grid)


def stencil(grid: Grid) -> str:
    """In words, what this module applies along each axis: fit to print beside a number that depends on it."""
    words = []
    for axis in grid.axes:
        if spectral(axis, grid):
            words.append(f"{axis.name}: spectral")
        elif axis.periodic:
            words.append(f"{axis.name}: second-order central differences, periodic")
        else:
            words.append(f"{axis.name}: second-order central differences, one-sided at both ends")
    return "; ".join(words)


def interior(grid: Grid, width: int = 1) -> Tensor:
    """Where a derivative rests on fluid points away from the rim only.

    True at the points that are fluid, and whose neighbours along every axis up to ``width`` steps are fluid and do not
    lie on the first or last point of an axis that is not periodic. Averaging a residual over these points keeps
    one-sided differences and differences into a solid out of it.

    Args:
        grid: its obstacle, if any, is the mask.
        width: how many first derivatives are nested: 1 for a derivative or a Laplacian, 2 for a derivative of a curl.

    Returns:
        ``(*space)``, boolean, on the device of the mask or else of the axes.
    """
    device = grid.axes[0].points.device if grid.mask is None else grid.mask.device
    inside = torch.ones(grid.shape, dtype=torch.bool, device=device) if grid.mask is None else grid.mask.clone()
    for position, axis in enumerate(grid.axes):
        if not axis.periodic:
            inside.select(position, 0).fill_(False)
            inside.select(position, -1).fill_(False)
    for _ in range(width):
        eroded = inside.clone()
        for position in range(len(grid.axes)):
            # What the roll carries around the ends of an axis that is not periodic lands on its rim, false already.
            eroded &= inside.roll(1, position) & inside.roll(-1, position)
        inside = eroded
    return inside


def _along(values: Tensor, axis: int, grid: Grid, order: int) -> Tensor:
    values = _checked(values, grid)
    if not 0 <= axis < len(grid.axes):
        raise ValueError(f"axis: got {axis}, the grid has axes 0 to {len(grid.axes) - 1} ({', '.join(grid.names)}).")
    dim = axis - len(grid.axes)
    if spectral(grid.axes[axis], grid):
        return _fourier(values, dim, grid.axes[axis], order)
    return _differences(values, dim, grid.axes[axis], order)


def _fourier(values: Tensor, dim: int, axis: Axis, order: int) -> Tensor:
    n = len(axis.points)
    k = wavenumbers(axis, half=True)
    waves = torch.fft.rfft(values, dim=dim)
    symbol = 1j * _without_nyquist(k, n, -1) if order == 1 else -(k**2)
    return torch.fft.irfft(waves * on_axis(symbol, dim, waves), n=n, dim=dim)


def _differences(values: Tensor, dim: int, axis: Axis, order: int) -> Tensor:
    neighbours, weights = _difference_weights(axis, order)
    terms = zip(neighbours.to(values.device), weights, strict=True)
    return sum(
        (values.index_select(dim, places) * on_axis(weight, dim, values) for places, weight in terms),
        start=torch.zeros((), dtype=values.dtype, device=values.device),
    )


def _difference_weights(axis: Axis, order: int) -> tuple[Tensor, Tensor]:
    """``(p, n)`` neighbours of every point and the weight of each in the derivative of this order at the point."""
    x, n = axis.points.double().cpu(), len(axis.points)
    needed = 3 if order == 1 or axis.periodic else 4
    if n < needed:
        raise ValueError(
            f"axis {axis.name!r}: got {n} points, second-order differences need {needed}; refine the axis."
        )
    index = torch.arange(n)
    if axis.periodic:
        neighbours = torch.stack([index - 1, index, index + 1])
        turns = torch.div(neighbours, n, rounding_mode="floor")
        neighbours = neighbours % n
        offsets = x[neighbours] + turns * axis.length - x
        return neighbours, _lagrange(offsets, order)
    inner = torch.stack([index - 1, index, index + 1]).clamp(0, n - 1)
    inner[:, 0], inner[:, -1] = torch.tensor([0, 1, 2]), torch.tensor([n - 1, n - 2, n - 3])
    weights = _lagrange(x[inner] - x, order)
    if order == 1:
        return inner, weights
    ends = torch.tensor([[0, 1, 2, 3], [n - 1, n - 2, n - 3, n - 4]]).mT
    wide = _lagrange(x[ends] - x[[0, n - 1]], order)
    fourth, extra = inner[1].clone(), torch.zeros(n, dtype=torch.float64)
    fourth[[0, n - 1]], extra[[0, n - 1]] = ends[3], wide[3]
    weights[:, [0, n - 1]] = wide[:3]
    return torch.cat([inner, fourth[None]]), torch.cat([weights, extra[None]])


def _lagrange(offsets: Tensor, order: int) -> Tensor:
    r"""Weights w with :math:`\sum_j w_j f(x + d_j) = f^{(m)}(x)` for polynomials of degree p - 1; both ``(p, n)``."""
    points = len(offsets)
    scale = offsets.abs().amax(0)
    scaled = (offsets / scale).mT
    powers = torch.stack([scaled**degree for degree in range(points)], -2)
    wanted = torch.zeros(len(scaled), points, dtype=torch.float64)
    wanted[:, order] = math.factorial(order)
    return (torch.linalg.solve(powers, wanted) / scale[:, None] ** order).mT


def _without_nyquist(k: Tensor, n: int, dim: int) -> Tensor:
    if n % 2:
        return k
    k = k.clone()
    k.select(dim, n // 2).zero_()
    return k


def _solid_free(grid: Grid) -> bool:
    return grid.mask is None or bool(grid.mask.all())


def _checked(values: Tensor, grid: Grid) -> Tensor:
    dimension = len(grid.axes)
    if values.ndim < dimension or tuple(values.shape[values.ndim - dimension :]) != grid.shape:
        raise ValueError(
            f"values: got shape {tuple(values.shape)}, the grid is {grid.shape}; the space axes come last, and the "
            "channel is picked beforehand."
        )
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _components(velocity: Tensor, grid: Grid) -> tuple[Tensor, ...]:
    if velocity.shape[-1] != len(grid.axes):
        raise ValueError(
            f"velocity: got {velocity.shape[-1]} components for a grid of {len(grid.axes)} axes; pass (..., *space, D)."
        )
    return velocity.unbind(-1)
