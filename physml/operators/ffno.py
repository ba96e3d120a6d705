"""Factorised Fourier neural operator: Tran, Mathews, Xie and Ong, ICLR 2023, arXiv 2111.13802.

Facts of the published code are those of github.com/alasdairtran/fourierflow at commit 78b9812.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm as normalise_weight

from physml.fields import Grid, Setting
from physml.nn.mlp import MLP
from physml.nn.positional import Positions
from physml.nn.spectral_convolution import FourierBasis, check_resolution
from physml.operators.operator import Operator


class FFNO(Operator):
    r"""Deep residual layers that act on the low wavenumbers of one axis at a time, in one to three dimensions.

    The window's frames and fields become channels, :math:`z_0 = P u + p`, with features :math:`p` of the position.
    Then follow ``depth`` layers

    .. math::

        z' = z + M\Bigl(\sum_{d=1}^{D} \mathcal{F}_d^{-1}\bigl(R_d\, \mathcal{F}_d z\bigr)\Bigr), \qquad
        M(h) = W_2\,\sigma(W_1 h + b_1) + b_2

    and :math:`\hat u = Q(z_\mathrm{depth})`, whose channels are the predicted frames and fields.
    :math:`\mathcal{F}_d` transforms along axis d alone, and :math:`R_d` is a complex matrix for each of the kept
    wavenumbers :math:`0 \ldots m_d` of that axis; :math:`\sigma` is the GELU, and Q a pointwise MLP with one hidden
    layer. The skip goes around the whole layer, its activation included. Axes that are not periodic are extended by
    zeros before the first layer and cut after the last, so that their ends do not touch. On an axis with unequal
    spacing, wavenumbers count along the index.

    The kernels grow with the sum of the modes, not with their product as in :class:`physml.operators.fno.FNO`. With
    :math:`W` = ``width``, :math:`H` = ``mlp * W``, :math:`q` = ``projection * W``, :math:`r = T C` and
    :math:`o = K C`, there are, positions apart,

    .. math::

        (r + 1) W + 2 L_R W^2 \sum_{d=1}^{D} (m_d + 1) + L (2 W H + H + W) + (W + 1) q + (q + 1) o

    parameters, :math:`L` = ``depth`` and :math:`L_R` = 1 where layers share their kernels, else :math:`L`;
    ``weight_norm`` adds :math:`W + L (H + W) + q + o`.

    The network published for the Navier-Stokes data of Li et al. has ``width=64``, ``modes=[15, 15]`` (its code counts
    wavenumber 0), ``depth=24``, ``share=True`` and ``positions=Coordinates()``. Differences: the published code applies
    Q to the last M alone, without the skip around it; its Q has no activation, and its M the ReLU; the weight norm of
    its P includes the coordinates; its kernels start smaller, from a Xavier distribution over all wavenumbers; it
    extends axes that are not periodic by 8 points, at their far end. Here a grid too coarse for ``modes`` is an error,
    and each layer adds to z in float32, also under autocast.

    Args:
        channels: number of fields C.
        frames: frames read, T.
        steps: most frames predicted by one call, K.
        axes: number of space dimensions D, 1 to 3.
        modes: highest wavenumber kept, one for each axis; at most half the points of the axis, its padding included.
            A quarter of the points, as published for 64 x 64, is a good start.
        width: channels between the layers.
        depth: number of layers, 4 to 24 in the published experiments.
        mlp: hidden channels of M in units of ``width``.
        projection: hidden channels of Q in units of ``width``; 0 makes Q linear.
        share: one set of kernels :math:`R_d` for all layers instead of one for each, as published for flows on a torus.
        weight_norm: length and direction of each row of the matrices in P, M and Q as parameters of their own
            (Salimans & Kingma 2016, arXiv 1602.07868), as published.
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
        modes: Sequence[int],
        width: int = 64,
        depth: int = 4,
        mlp: float = 4.0,
        projection: float = 2.0,
        share: bool = False,
        weight_norm: bool = True,
        positions: Positions | None = None,
        padding: float = 0.0625,
    ) -> None:
        super().__init__()
        if axes not in (1, 2, 3):
            raise ValueError(f"axes: got {axes}, FFNO works in 1, 2 or 3 dimensions.")
        if len(modes) != axes:
            raise ValueError(f"modes: got {len(modes)} numbers {list(modes)} for axes={axes}; give one for each axis.")
        if min(modes) < 1:
            raise ValueError(f"modes: got {list(modes)}, expected a highest wavenumber of at least 1 for each axis.")
        if min(frames, steps, channels) < 1:
            raise ValueError(
                f"channels, frames, steps: got {channels}, {frames} and {steps}, expected at least one of each."
            )
        if depth < 1:
            raise ValueError(f"depth: got {depth}, expected at least one layer.")
        if round(mlp * width) < 1:
            raise ValueError(f"mlp: got {mlp:g} for width={width}, expected at least one hidden channel.")
        if padding < 0:
            raise ValueError(f"padding: got {padding:g}, expected a fraction of the axis, 0 or more.")
        self.channels, self.frames, self.steps, self.axes = channels, frames, steps, axes
        self.modes, self.padding = tuple(modes), padding
        self.read = nn.Linear(frames * channels, width)
        self.positions = None if positions is None else positions.build(axes, width)
        self.kernels = nn.ModuleList(AxisKernels(width=width, modes=modes) for _ in range(1 if share else depth))
        self.layers = nn.ModuleList(MLP(inputs=width, hidden=round(mlp * width), outputs=width) for _ in range(depth))
        hidden, outputs = round(projection * width), steps * channels
        self.project = MLP(inputs=width, hidden=hidden, outputs=outputs) if hidden else nn.Linear(width, outputs)
        if weight_norm:
            for part in (self.read, self.layers, self.project):
                for linear in [module for module in part.modules() if isinstance(module, nn.Linear)]:
                    normalise_weight(linear)

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        """``(B, T, *space, C)`` to ``(B, steps, *space, C)``; the setting is not read."""
        self.check(window, steps, setting)
        z = self.read(self.inputs(window, setting))
        if self.positions is not None:
            z = z + self.positions(grid).to(z.dtype)
        added = [0 if axis.periodic else round(self.padding * len(axis.points)) for axis in grid.axes]
        z = functional.pad(z, [0, 0, *(n for n in reversed(added) for _ in range(2))])
        z = z.to(torch.promote_types(self.read.bias.dtype, torch.float32))
        space = z.shape[1:-1]
        check_resolution(self.modes, space)
        bases = [
            FourierBasis(modes=[m], space=[n], device=z.device, dtype=z.dtype)
            for m, n in zip(self.modes, space, strict=True)
        ]
        for index, layer in enumerate(self.layers):
            z = z + layer(self.kernels[index % len(self.kernels)](z, bases))
        for axis, n in enumerate(added, start=1):
            z = z.narrow(axis, n, z.shape[axis] - 2 * n)
        return self.project(z).unflatten(-1, (self.steps, self.channels))[..., :steps, :].movedim(-2, 1)


class AxisKernels(nn.Module):
    r"""One learned convolution along each axis of a field, and their sum.

    .. math:: h = \sum_{d=1}^{D} \mathcal{F}_d^{-1}\bigl((\mathcal{F}_d z)_k\, R_{d,k}\bigr), \qquad 0 \le k \le m_d

    Along one axis it is what :class:`physml.nn.spectral_convolution.SpectralConvolution` is in one dimension, with the
    other axes as a batch. The computation runs in the precision of the weights, and at least in float32, also under
    autocast.

    Args:
        width: channels read and returned.
        modes: highest wavenumber kept, one for each axis.

    Attributes:
        weights: real and imaginary part of :math:`R_d` for each axis, ``(m_d + 1, width, width, 2)``. Starts with
            ``|R|^2`` of mean ``1 / (D width)``: fields of kept wavenumbers keep their size.
    """

    def __init__(self, *, width: int, modes: Sequence[int]) -> None:
        super().__init__()
        scale = 1 / math.sqrt(2 * len(modes) * width)
        self.weights = nn.ParameterList(scale * torch.randn(m + 1, width, width, 2) for m in modes)

    def forward(self, z: Tensor, bases: Sequence[FourierBasis]) -> Tensor:
        """``(B, *space, width)`` to the same, with the basis of each axis."""
        with nullcontext() if z.is_meta else torch.autocast(z.device.type, enabled=False):
            total: Tensor | None = None
            for axis, (weight, basis) in enumerate(zip(self.weights, bases, strict=True)):
                weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
                h = _along(z.to(weight.dtype), weight, basis, axis)
                total = h if total is None else total + h
            assert total is not None
            return total


def _along(z: Tensor, weight: Tensor, basis: FourierBasis, axis: int) -> Tensor:
    """The convolution of one axis; axes before it count as samples."""
    spectrum = basis.analyse(z.flatten(0, axis))  # (2, N, k, ..., C)
    rows = spectrum.movedim(2, 0).movedim(1, -2)  # (k, N, ..., 2, C)
    # One real matrix product a wavenumber: [x y] times [[R I], [-I R]] is the complex (x + iy) (R + iI).
    real, imaginary = weight.unbind(-1)
    block = torch.cat([torch.cat([real, imaginary], -1), torch.cat([-imaginary, real], -1)], -2)
    products = torch.bmm(rows.flatten(-2).flatten(1, -2), block).reshape(rows.shape)
    return basis.synthesise(products.movedim(-2, 1).movedim(0, 2)).unflatten(0, z.shape[: axis + 1])
