r"""Attention factorised over the axes of a grid: one small kernel for each axis instead of one for all pairs of points.

A field ``h`` on ``S_1 x ... x S_D`` points is averaged over all axes but one, which gives a function ``phi_m`` of one
coordinate. Its queries and keys make the kernel ``A_m`` of ``S_m x S_m`` numbers, and the kernels act on the values
along their axis. Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling", NeurIPS 2023, arXiv
2305.17560.

Legend of shape suffixes: D axes, B batch, S points of an axis, H heads, K key width, V value width, C channels; 2 for
queries and keys.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.configured import Configured
from physml.fields import Grid
from physml.nn.folding import scaled_map, widened
from physml.nn.positional import rotate, stretched


def axis_mean(h: Tensor, grid: Grid, keep: int) -> Tensor:
    """The average of ``(B, *space, C)`` over every space axis but ``keep``, with quadrature weights: ``(B, S, C)``."""
    for m in reversed(range(len(grid.axes))):
        if m == keep:
            continue
        axis = grid.axes[m]
        if axis.uniform:
            h = h.mean(dim=1 + m)
        else:
            weights = (axis.weights / axis.weights.sum()).to(h.dtype)
            h = torch.tensordot(h, weights, dims=([1 + m], [0]))
    return h


def axis_means(h: Tensor, grid: Grid) -> Tensor:
    """:func:`axis_mean` of every axis, ``(D, B, S, C)``: S is of the axis with most points, the others end in zeros.

    What follows is small for each axis and is done for all at once: on a GPU, starting a small product takes longer
    than the product.
    """
    most = max(grid.shape)
    means = [axis_mean(h, grid, m) for m in range(len(grid.axes))]
    return torch.stack([functional.pad(mean, (0, 0, 0, most - mean.shape[1])) for mean in means])


class AxisLinear(nn.Module):
    """A linear map for each axis, ``y_m = W_m x_m + b_m``, all in one product.

    Args:
        axes: their number D.
        inputs, outputs: channels.
        bias: whether there is one.
    """

    def __init__(self, axes: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5  # that of nn.Linear
        self.weight = nn.Parameter(torch.empty(axes, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(axes, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """``(D, ..., inputs)`` to ``(D, ..., outputs)``."""
        rows, weight = x.flatten(1, -2), self.weight.transpose(1, 2)
        y = torch.bmm(rows, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], rows, weight)
        return y.unflatten(1, x.shape[1:-1])


class Kernels(Configured):
    """How the kernels of the axes are made from their functions; :meth:`build` makes the layer."""

    @abstractmethod
    def build(self, axes: int, latent: int, heads: int, key_width: int, multiplier: int) -> nn.Module:
        """A module ``(phi (D, B, S, latent), grid) -> [A_m (B, H, S_m, S_m)]``; rows of ``phi`` beyond ``S_m`` are of
        no account.
        """


class PublishedKernels(Kernels):
    """``A = s q k^T`` as published: rotary phase ``scale x theta_i``, ``theta_i = 10000^{-2i/K}``, no quadrature
    weights.

    ``s = 1`` up to a kernel multiplier of 4 and ``K^{-1/2}`` above. Coordinates include the end point on periodic
    axes too. The phase advances by more than pi from point to point on most grids, so the leading components alias;
    and with the published initial gain the kernel is so small that the epsilon of the norm after it decides the
    block's output at first.

    Args:
        scale: radians per unit length of the fastest component.
        gain: of the Xavier-uniform initialisation of queries and keys.
    """

    def __init__(self, *, scale: float = 64.0, gain: float = 0.02) -> None:
        self.scale, self.gain = scale, gain

    def build(self, axes: int, latent: int, heads: int, key_width: int, multiplier: int) -> nn.Module:
        return _PublishedKernels(self.scale, self.gain, axes, latent, heads, key_width, multiplier)


class _PublishedKernels(nn.Module):
    def __init__(
        self, scale: float, gain: float, axes: int, latent: int, heads: int, key_width: int, multiplier: int
    ) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.size = 1.0 if multiplier <= 4 else key_width**-0.5
        self.queries_and_keys = AxisLinear(axes, latent, 2 * heads * key_width, bias=False)
        bound = gain * (6 / (latent + heads * key_width)) ** 0.5  # Xavier's, for queries and keys apart
        nn.init.uniform_(self.queries_and_keys.weight, -bound, bound)

    def forward(self, phi_DBSC: Tensor, grid: Grid) -> list[Tensor]:
        x_DB2HSK = _heads(self.queries_and_keys(phi_DBSC), self.heads)
        half = x_DB2HSK.shape[-1] // 2
        theta = 10000.0 ** (-torch.arange(half, device=phi_DBSC.device, dtype=torch.float64) / half)
        phases = [self.scale * stretched(axis)[:, None] * theta.to(axis.points.dtype) for axis in grid.axes]
        q, k = rotate(x_DB2HSK, _stacked(phases)[:, None, None, None]).unbind(2)
        return _cut(self.size * q @ k.transpose(-1, -2), grid)


class ScaledKernels(Kernels):
    """``A = K^{-1/2} q k^T diag(w / sum w)``: a quadrature of an integral over the axis, at any resolution.

    Queries and keys are normalised to unit root mean square, so that entries of ``q k^T / sqrt(K)`` are of order one
    from the first step; their size would be lost in the norm that follows. The rotary phase turns ``2 pi n / L`` per
    unit length with whole numbers ``n`` from 1 to ``most`` on a geometric ladder, so that on a periodic axis the kernel
    depends on the distance around the circle alone: shifting the input shifts the output. Other axes use the same
    ladder over half-turns, without rounding.

    Args:
        most: highest wavenumber of the ladder; should stay below half the points (patches) of an axis.
    """

    def __init__(self, *, most: int = 12) -> None:
        if most < 1:
            raise ValueError(f"most: got {most}, expected at least 1.")
        self.most = most

    def build(self, axes: int, latent: int, heads: int, key_width: int, multiplier: int) -> nn.Module:
        return _ScaledKernels(self.most, axes, latent, heads, key_width)


class _ScaledKernels(nn.Module):
    def __init__(self, most: int, axes: int, latent: int, heads: int, key_width: int) -> None:
        super().__init__()
        self.heads, self.most = heads, most
        self.queries_and_keys = AxisLinear(axes, latent, 2 * heads * key_width, bias=False)

    def forward(self, phi_DBSC: Tensor, grid: Grid) -> list[Tensor]:
        x_DB2HSK = widened(_heads(self.queries_and_keys(phi_DBSC), self.heads))
        width = x_DB2HSK.shape[-1]
        ladder = self.most ** (torch.arange(width // 2, device=phi_DBSC.device) / max(width // 2 - 1, 1))
        phases = []
        for axis in grid.axes:
            turns = ladder.round() if axis.periodic else 0.5 * ladder
            phases.append(2 * torch.pi * (axis.points / axis.length).to(x_DB2HSK.dtype)[:, None] * turns)
        unit = functional.rms_norm(x_DB2HSK, (width,))
        q, k = rotate(unit, _stacked(phases)[:, None, None, None]).unbind(2)
        weights = _stacked([(axis.weights / axis.weights.sum()).to(k.dtype)[:, None] for axis in grid.axes])
        kernels = (q * width**-0.5) @ (k * weights[:, None, None]).transpose(-1, -2)
        return _cut(kernels.to(phi_DBSC.dtype), grid)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Queries and keys ``(D, B, S, 2 H K)`` to ``(D, B, 2, H, S, K)``."""
    return x.unflatten(-1, (2, heads, -1)).movedim(2, -2)


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """``(S_m, N)`` of each axis to ``(D, S, N)``, with zeros at the ends of the shorter ones."""
    most = max(len(x) for x in rows)
    return torch.stack([functional.pad(x, (0, 0, 0, most - len(x))) for x in rows])


def _cut(kernels: Tensor, grid: Grid) -> list[Tensor]:
    """``(D, B, H, S, S)`` to what each axis has of it."""
    return [kernel[..., :n, :n] for kernel, n in zip(kernels.unbind(0), grid.shape, strict=True)]


class KernelNorm(Configured):
    """What brings the sum over an axis back to unit size, ``(z - mean) scale``, without learnt parameters.

    Statistics are computed in fp32.
    """

    @abstractmethod
    def statistics(self, z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Mean and scale of ``(B, *space, H, V)``, each broadcastable to it."""

    def __call__(self, z: Tensor, grid: Grid) -> Tensor:
        """``(B, *space, H, V)`` to the same shape."""
        mean, scale = self.statistics(z, grid)
        return (widened(z) - mean) * scale


class InstanceNorm(KernelNorm):
    """Zero mean and unit variance over space, for each sample and channel, with quadrature weights: the published text.

    Args:
        eps: added to the variance.
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = eps

    def statistics(self, z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        z = widened(z)
        mean = _space_mean(z, grid)
        return mean, torch.rsqrt(_space_mean((z - mean).square(), grid) + self.eps)


class RMSNorm(KernelNorm):
    """Unit mean square over space, for each sample and channel; the mean is kept.

    Args:
        eps: added to the mean square.
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = eps

    def statistics(self, z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        scale = torch.rsqrt(_space_mean(widened(z).square(), grid) + self.eps)
        return torch.zeros_like(scale), scale


class HeadGroupNorm(KernelNorm):
    """Zero mean and unit unbiased variance over space and the channels of a head: the published code of 2024.

    Args:
        eps: added to the variance.
    """

    def __init__(self, *, eps: float = 1e-8) -> None:
        self.eps = eps

    def statistics(self, z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        over = (*range(1, z.ndim - 2), z.ndim - 1)
        variance, mean = torch.var_mean(widened(z), dim=over, correction=1, keepdim=True)
        return mean, torch.rsqrt(variance + self.eps)


class PlaneNorm(KernelNorm):
    """Zero mean and unit variance over the other axes and all channels, for each sample and point of the *first* axis.

    The published code before 2024, in which an instance norm for channels-first tensors met a channels-last one; most
    likely what the published results used. Breaks the symmetry between axes; here for comparison.

    Args:
        eps: added to the variance.
    """

    def __init__(self, *, eps: float = 1e-5) -> None:
        self.eps = eps

    def statistics(self, z: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(widened(z), dim=tuple(range(2, z.ndim)), correction=0, keepdim=True)
        return mean, torch.rsqrt(variance + self.eps)


def normalised_map(z: Tensor, norm: KernelNorm, grid: Grid, weight: Tensor) -> Tensor:
    """``W ((z - mean) scale)`` without a normalised copy of ``z``: the statistics move into the weights or behind them.

    Args:
        z: ``(B, *space, H, V)``.
        norm: gives mean and scale, which vary over the samples and either over channels or over space, not both.
        grid: where ``z`` lives.
        weight: W, ``(C, H V)``.

    Returns:
        ``(B, *space, C)``, of the type of ``z``.
    """
    mean, scale = norm.statistics(z, grid)
    flat = z.flatten(-2)
    if scale.shape[1:-2].numel() == 1:  # the same everywhere: a matrix and an offset for each sample
        mean, scale = (x.expand(len(z), *x.shape[1:-2], *z.shape[-2:]).reshape(len(z), -1) for x in (mean, scale))
        return scaled_map(flat, scale, -mean * scale, weight)
    assert scale.shape[-2:].numel() == 1
    product = functional.linear(flat, weight.to(z.dtype))
    mean, scale = mean.flatten(-2), scale.flatten(-2)
    return ((product - mean * widened(weight).sum(dim=1)) * scale).to(z.dtype)


def _space_mean(z: Tensor, grid: Grid) -> Tensor:
    """Average of ``(B, *space, H, V)`` over space, dimensions kept."""
    if all(axis.uniform for axis in grid.axes):
        return z.mean(dim=tuple(range(1, z.ndim - 2)), keepdim=True)
    for m, axis in enumerate(grid.axes):
        weights = (axis.weights / axis.weights.sum()).to(z.dtype)
        z = torch.tensordot(z, weights, dims=([1 + m], [0])).unsqueeze(1 + m)
    return z
