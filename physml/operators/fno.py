"""Fourier neural operator: Li et al. 2021, arXiv 2010.08895.

The channel MLPs of its layers come from Kossaifi et al. 2024, arXiv 2310.00120.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.fields import Grid, Setting
from physml.nn.mlp import MLP
from physml.nn.positional import Positions
from physml.nn.spectral_convolution import FourierBasis, SpectralConvolution
from physml.operators.operator import Operator


class FNO(Operator):
    r"""Layers that act on the low wavenumbers of the whole domain at once, in one to three dimensions.

    The window's frames and fields, and the static fields, become channels,
    :math:`v_0 = P_2\,\sigma(P_1 u + p)`, with features :math:`p` of the position. Then follow ``depth`` layers

    .. math::

        h = \sigma\bigl(W v + b + \mathcal{F}^{-1}(R\, \mathcal{F} v)\bigr), \qquad
        v' = \sigma\bigl(M(h) + g \odot v\bigr)

    and :math:`\hat u = Q(v_\mathrm{depth})`, whose channels are the predicted frames and fields. :math:`\sigma` is
    the GELU, left out in the last layer; :math:`Q` and :math:`M` are pointwise MLPs with one hidden layer, and
    :math:`g` is one number a channel. Axes that are not periodic are extended by zeros while the layers act, so that
    their ends do not touch. On an axis with unequal spacing, wavenumbers count along the index.

    It is the FNO of the ``neuraloperator`` package (version 2.0), with the same number of parameters and the same
    output on a periodic grid with even numbers of points, for ``positions=Coordinates()`` and ``modes=[n1 / 2, ...]``
    where that package is given even ``n_modes=(n1, ...)``; on other axes, ``padding`` is its ``domain_padding``. With
    ``lifting=0, mlp=0`` besides, it is the form of 2021, whose published code leaves out wavenumber ``modes[-1]`` of
    the last axis (the package applies the activation twice where it is told to leave M out).

    Differences: periodic axes are never extended; an odd number of points keeps the same wavenumbers as an even one; a
    grid too coarse for ``modes`` is an error rather than a silent loss.

    Args:
        channels: number of fields C.
        frames: frames read, T; 0 for a steady problem.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D, 1 to 3.
        static: fields read that do not change in time, S: further input channels.
        modes: highest wavenumber kept, one for each axis; at most half the points of the axis, its padding included.
            An eighth to a quarter of the points is a good start.
        width: channels between the layers.
        depth: number of Fourier layers.
        lifting: hidden channels of P in units of ``width``; 0 leaves :math:`P_2` and the activation before it out.
        mlp: hidden channels of M in units of ``width``; 0 leaves M and g out, ``v' = h``.
        projection: hidden channels of Q in units of ``width``; 0 makes Q linear.
        positions: position features, none if ``None``. Needed where the physics depends on the place, as with forcing
            or walls; without them, the operator commutes with translations of a periodic grid.
        padding: zeros added at each end of an axis that is not periodic, as a fraction of its points.

    Raises:
        ValueError: where an argument is out of its range; in :meth:`forward`, where the window does not fit, or its
            grid is too coarse for ``modes``.
    """

    def __init__(
        self,
        *,
        channels: int,
        frames: int = 1,
        steps: int = 1,
        axes: int,
        static: int = 0,
        modes: Sequence[int],
        width: int = 64,
        depth: int = 4,
        lifting: float = 2.0,
        mlp: float = 0.5,
        projection: float = 2.0,
        positions: Positions | None = None,
        padding: float = 0.0625,
    ) -> None:
        super().__init__()
        if axes not in (1, 2, 3):
            raise ValueError(f"axes: got {axes}, FNO works in 1, 2 or 3 dimensions.")
        if len(modes) != axes:
            raise ValueError(f"modes: got {len(modes)} numbers {list(modes)} for axes={axes}; give one for each axis.")
        if depth < 1:
            raise ValueError(f"depth: got {depth}, expected at least one Fourier layer.")
        if padding < 0:
            raise ValueError(f"padding: got {padding:g}, expected a fraction of the axis, 0 or more.")
        if min(frames, static) < 0 or frames + static == 0:
            raise ValueError(
                f"frames, static: got {frames} and {static}, expected 0 or more and something to read: a frame or a "
                "static field."
            )
        self.channels, self.frames, self.steps, self.axes, self.static = channels, frames, steps, axes, static
        self.modes, self.padding = tuple(modes), padding
        hidden = round(lifting * width)
        self.read = nn.Linear(frames * channels + static, hidden or width)
        self.positions = None if positions is None else positions.build(axes, hidden or width)
        self.lift = nn.Sequential(nn.GELU(), nn.Linear(hidden, width)) if hidden else nn.Identity()
        self.layers = nn.ModuleList(
            FourierLayer(width=width, modes=modes, hidden=round(mlp * width), last=layer == depth - 1)
            for layer in range(depth)
        )
        hidden, outputs = round(projection * width), steps * channels
        self.project = MLP(inputs=width, hidden=hidden, outputs=outputs) if hidden else nn.Linear(width, outputs)

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``."""
        self.check(window, steps, setting)
        v = self.read(self.inputs(window, setting))
        if self.positions is not None:
            v = v + self.positions(grid).to(v.dtype)
        added = [0 if axis.periodic else round(self.padding * len(axis.points)) for axis in grid.axes]
        v = functional.pad(self.lift(v), [0, 0, *(n for n in reversed(added) for _ in range(2))])
        precision = torch.promote_types(self.read.weight.dtype, torch.float32)
        basis = FourierBasis(modes=self.modes, space=v.shape[1:-1], device=v.device, dtype=precision)
        for layer in self.layers:
            v = layer(v, basis)
        for axis, n in enumerate(added, start=1):
            v = v.narrow(axis, n, v.shape[axis] - 2 * n)
        return self.project(v).unflatten(-1, (self.steps, self.channels))[..., :steps, :].movedim(-2, 1)


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

    def forward(self, v: Tensor, basis: FourierBasis) -> Tensor:
        """``(B, *space, width)`` to the same."""
        h = self.activation(self.kernel(v, basis) + self.skip(v))
        if self.mlp is None or self.gate is None:
            return h
        return self.activation(self.mlp(h) + self.gate * v)


class Coordinates(Positions):
    """``(x - x_0) / L`` of each axis and a linear layer: the positions of the published FNO.

    They jump where a periodic axis closes; :class:`physml.nn.positional.Harmonics` do not.
    """

    def build(self, axes: int, width: int) -> nn.Module:
        return _Coordinates(axes, width)


class _Coordinates(nn.Module):
    def __init__(self, axes: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(axes, width, bias=False)

    def forward(self, grid: Grid) -> Tensor:
        points = [((axis.points - axis.points[0]) / axis.length).to(self.embed.weight.dtype) for axis in grid.axes]
        return self.embed(torch.stack(torch.meshgrid(*points, indexing="ij"), dim=-1))
