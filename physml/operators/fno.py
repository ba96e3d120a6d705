"""Fourier neural operator: Li et al. 2021, arXiv:2010.08895, with the channel MLPs of Kossaifi et al. 2023, arXiv:2310.00120."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.fields import Axis, Grid
from physml.nn.mlp import MLP
from physml.nn.spectral_convolution import SpectralConvolution
from physml.operators.operator import Operator

Positions = Literal["angles", "fractions", "none"]


class FNO(Operator):
    r"""Layers that act on the low wavenumbers of the whole domain at once, in one to three dimensions.

    The window's frames and fields become channels, :math:`v_0 = P(u, x)`; ``depth`` layers follow, then
    :math:`\hat u = Q(v_\mathrm{depth})`, whose channels are the predicted frames and fields:

    .. math::

        h = \sigma\bigl(W v + b + \mathcal{F}^{-1}(R\, \mathcal{F} v)\bigr), \qquad
        v' = \sigma\bigl(M(h) + g \odot v\bigr)

    with :math:`\sigma` the GELU, left out in the last layer; :math:`P, Q, M` pointwise MLPs with one hidden layer; and
    :math:`g` one number a channel. Axes that are not periodic are extended by zeros while the layers act, so that their ends
    do not touch. On an axis with unequal spacing, wavenumbers count along the index.

    It is the FNO of the ``neuraloperator`` package (2.0), with equal parameter count and output on a periodic grid with an
    even number of points, for ``positions="fractions"``, ``modes=[n / 2, ...]`` where that package is given
    ``n_modes=(n, ...)`` with even n, and ``lifting``, ``mlp``, ``projection`` as they are. On other axes, ``padding`` is its
    ``domain_padding``. The form of 2021 has ``lifting=0, mlp=0, positions="fractions"``; its published code leaves out the
    wavenumber ``modes[-1]`` of the last axis.

    Differences: angles for positions unless asked otherwise; periodic axes are never padded; grids with an odd number of
    points keep the same wavenumbers as others; too coarse a grid is an error rather than a silent loss of modes.

    Args:
        channels: number of fields C.
        frames: frames read, T.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D, 1 to 3.
        modes: highest wavenumber kept, one for each axis; at most half the points of the axis. An eighth to a quarter of the
            points is a good start.
        width: channels between the layers.
        depth: number of Fourier layers.
        lifting: hidden channels of P in units of ``width``; 0 makes P linear.
        mlp: hidden channels of M in units of ``width``; 0 leaves M and g out, ``v' = h``.
        projection: hidden channels of Q in units of ``width``; 0 makes Q linear.
        positions: channels added to the input. ``angles``: sine and cosine of :math:`2 \pi x / L` on a periodic axis, which has
            no jump at the seam, and of :math:`\pi \xi` on another, where :math:`\xi` runs from 0 to 1 between its ends.
            ``fractions``: :math:`(x - x_0) / L`. ``none``: nothing, the choice for problems that look alike everywhere; on a
            periodic grid the operator then commutes with translations.
        padding: zeros added at each end of an axis that is not periodic, as a fraction of its points.

    Raises:
        ValueError: where an argument is out of its range; in :meth:`forward`, where the window does not fit, or its grid is
            too coarse for ``modes``.
    """

    def __init__(
        self,
        *,
        channels: int,
        frames: int = 1,
        steps: int = 1,
        axes: int,
        modes: Sequence[int],
        width: int = 64,
        depth: int = 4,
        lifting: float = 2.0,
        mlp: float = 0.5,
        projection: float = 2.0,
        positions: Positions = "angles",
        padding: float = 0.0625,
    ) -> None:
        super().__init__()
        if len(modes) != axes:
            raise ValueError(f"modes: got {len(modes)} numbers {list(modes)} for axes={axes}; give one for each axis.")
        if positions not in get_args(Positions):
            raise ValueError(f"positions: got {positions!r}, expected one of {', '.join(get_args(Positions))}.")
        if padding < 0:
            raise ValueError(f"padding: got {padding:g}, expected a fraction of the axis, 0 or more.")
        self.channels, self.frames, self.steps, self.axes = channels, frames, steps, axes
        self.positions, self.padding = positions, padding
        coordinates = axes * {"angles": 2, "fractions": 1, "none": 0}[positions]
        self.lift = _pointwise(frames * channels + coordinates, round(lifting * width), width)
        self.layers = nn.ModuleList(
            FourierLayer(width=width, modes=modes, hidden=round(mlp * width), last=layer == depth - 1)
            for layer in range(depth)
        )
        self.project = _pointwise(width, round(projection * width), steps * channels)

    def forward(self, window: Tensor, grid: Grid, steps: int) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``."""
        self.check(window, steps)
        v = window.movedim(1, -2).flatten(-2)
        if self.positions != "none":
            where = [_position(axis, index, self.axes, self.positions) for index, axis in enumerate(grid.axes)]
            v = torch.cat([v, *(x.to(v.dtype).expand(*v.shape[:-1], -1) for x in where)], -1)
        v = self._extend(self.lift(v), grid)
        for layer in self.layers:
            v = layer(v)
        v = self.project(self._shorten(v, grid)).unflatten(-1, (self.steps, self.channels))
        return v[..., :steps, :].movedim(-2, 1)

    def _added(self, grid: Grid) -> list[int]:
        """Zeros at each end of each axis."""
        return [0 if axis.periodic else round(self.padding * len(axis.points)) for axis in grid.axes]

    def _extend(self, v: Tensor, grid: Grid) -> Tensor:
        added = self._added(grid)
        if not any(added):
            return v
        return functional.pad(v, [0, 0, *(n for n in reversed(added) for _ in range(2))])

    def _shorten(self, v: Tensor, grid: Grid) -> Tensor:
        for axis, n in enumerate(self._added(grid), start=1):
            v = v.narrow(axis, n, v.shape[axis] - 2 * n)
        return v


class FourierLayer(nn.Module):
    """One layer of :class:`FNO`, channels last.

    Args:
        width: channels.
        modes: highest wavenumber kept, one for each axis.
        hidden: hidden channels of the MLP; without MLP if 0.
        last: whether it is the last layer, which has no activation.
    """

    def __init__(self, *, width: int, modes: Sequence[int], hidden: int, last: bool) -> None:
        super().__init__()
        self.kernel = SpectralConvolution(inputs=width, outputs=width, modes=modes)
        self.skip = nn.Linear(width, width)
        self.mlp = MLP(inputs=width, hidden=hidden, outputs=width) if hidden else None
        self.gate = nn.Parameter(torch.ones(width)) if hidden else None
        self.activation = nn.Identity() if last else nn.GELU()

    def forward(self, v: Tensor) -> Tensor:
        """``(B, *space, width)`` to the same."""
        h = self.activation(self.kernel(v) + self.skip(v))
        if self.mlp is None:
            return h
        return self.activation(self.mlp(h) + self.gate * v)


def _pointwise(inputs: int, hidden: int, outputs: int) -> nn.Module:
    return MLP(inputs=inputs, hidden=hidden, outputs=outputs) if hidden else nn.Linear(inputs, outputs)


def _position(axis: Axis, index: int, axes: int, positions: Positions) -> Tensor:
    """Coordinates of one axis, ``(1, ..., n, ..., 1, channels)``."""
    x = axis.points
    if positions == "fractions":
        channels = [(x - x[0]) / axis.length]
    else:
        # The middle of an axis is known whether its points include the ends of the domain or are centres of cells.
        angle = 2 * math.pi * x / axis.length if axis.periodic else math.pi * (0.5 + (x - 0.5 * (x[0] + x[-1])) / axis.length)
        channels = [angle.sin(), angle.cos()]
    return torch.stack(channels, -1).reshape(*[1] * index, len(x), *[1] * (axes - 1 - index), len(channels))
