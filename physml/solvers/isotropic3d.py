r"""Three-dimensional isotropic turbulence of constant energy, in a periodic box.

.. math:: \partial_t u + u\cdot\nabla u = -\nabla p + \nu\nabla^2 u + f, \qquad \nabla\cdot u = 0,
    \qquad x \in [0, 2\pi)^3

The force f acts on the waves :math:`|k| \le k_f` along their velocity and puts in what viscosity takes out. The flow is
that of Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling" (NeurIPS 2023): :math:`Re_\lambda =
84`, :math:`k_d = 50`, :math:`k_f = 3`. Its random start is that of Rogallo, "Numerical experiments in homogeneous
turbulence" (NASA TM 81315, 1981). All is dimensionless, with a density of one; :math:`\nu = k_d^{-4/3}` means that the
dissipation of the flow that is aimed at is one. What differs from the source is said at the class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from physml.fields import Axis, Field, Grid, Layout
from physml.solvers.solver import ADVECTION_LIMIT, Solver, whole_multiple


class Isotropic3D(Solver):
    r"""Spectral Galerkin solver of 3-D isotropic turbulence that stores pressure and velocity.

    **It is under-resolved.** At s = 60 and :math:`k_d = 50` the largest wavenumber times the Kolmogorov length is
    :math:`29/50 \approx 0.6`; a direct simulation wants 1.5, ``grid = 3 * dissipation_wavenumber``. Nothing models what
    is left out. The data are right for these truncated equations, which is what an emulator of them has to reproduce;
    their small scales are not those of turbulence at this Reynolds number.

    **Space.** The waves with :math:`|k_i| < s/2` on every axis are solved for, s being the points per axis: all that s
    points carry but the Nyquist waves. Products are formed on 3s/2 points per axis, where none of their aliases falls
    on a wave that is kept. With the trace :math:`w^2\delta_{jl}`, a gradient, left to the pressure, five remain:

    .. math:: \partial_t\hat u_i = -\mathrm i\,\Big(\delta_{ij} - \frac{k_ik_j}{k^2}\Big)\,k_l\,
        \widehat{(u_ju_l - w^2\delta_{jl})} - \nu k^2\,\hat u_i + \hat f_i,

    which take three transforms to physical space and five back, against six and three for :math:`u\times\omega`. Waves
    that are not kept are not transformed.

    **Time.** Fourth-order Runge-Kutta with the integrating factor :math:`e^{-\nu k^2t}`: viscosity is exact for every
    step. It is not stiff here, :math:`\nu k^2\Delta t < 0.03`, so that exponential time differencing gains nothing.

    **Force.** On the waves :math:`0 < |k| \le k_f`, :math:`\hat f = \hat u\,\varepsilon/2E_f`, with the dissipation
    :math:`\varepsilon = \nu\sum k^2|\hat u|^2` and the energy :math:`E_f` of these waves. After each step they are
    multiplied by :math:`\alpha = \sqrt{(K - E + E_f)/E_f}`, so that the energy E of all is, to rounding,

    .. math:: K = Re_\lambda\,(\nu k_d)^2/\sqrt{20/3}.

    Where the other waves hold more than K there is no such number: that is an error, nothing is clamped.

    **Start.** :math:`\hat u = \sqrt{E(k)/2\pi k^2}\,(e^{\mathrm i\theta_1}\cos\phi\,e_1 + e^{\mathrm
    i\theta_2}\sin\phi\,e_2)` with three uniform angles for each wave and unit vectors normal to it and to each other;
    :math:`E(k) \propto k` up to :math:`k_f` and :math:`k^{-5/3}` above; scaled to the energy K. A finer grid starts
    from the same waves, all times the one factor that makes room for the energy of the others.

    **Pressure.** :math:`k^2\hat p = -k_ik_j\,\widehat{u_iu_j}` of the velocity stored beside it; its mean is zero.

    **Differences from the source.** Its force is the multiplication by :math:`\alpha` alone, which leaves an error of
    first order: 0.2 % of the velocity after a time of 0.5 with its step. Here :math:`\alpha` corrects what the scheme
    leaves and the whole is of fourth order. Its Runge-Kutta treats viscosity explicitly. Conjugate waves share their
    angles here from the start. The source solves for a time of one and writes 20 frames: with ``warmup_time=0.05`` the
    first is that at 0.05; by default it is the start itself. The seed of a trajectory decides its start.

    **Good values.** The defaults are the source's flow; ``grid=64`` is its other size. The start has no structure but
    its spectrum: the dissipation falls from 2.8 to 1.2 and the pressure rises from 1.2 to 1.4 (standard deviation)
    until a time of one, both slowly afterwards: ``warmup_time=2`` stores developed turbulence. The step must
    keep :math:`\max_x(|u|+|v|+|w|)\,\Delta t\,(s/2-1)` below 2.8; by default it is 0.6. ``step=0.005`` changes the
    velocity after a time of 0.5 by 1e-4 of itself, float32 by 1e-5 (measured at s = 40).

    **Cost.** On one processor core 0.08 s per trajectory and step at s = 60 in float32, 0.15 s in float64: 40 s
    for the 20 frames of the defaults in float32. On the processor the batch makes no difference, trajectories are
    solved one after another. Where they are solved together, each takes 40 MiB at s = 60 in float32.

    Args:
        trajectories: how many.
        frames: stored frames of each.
        grid: points per axis, s; even, and best a product of 2, 3 and 5.
        dissipation_wavenumber: :math:`k_d`, one over the Kolmogorov length of the flow that is aimed at; it sets
            the viscosity.
        reynolds_lambda: :math:`Re_\lambda`, of Taylor's microscale, of that flow; it sets the energy.
        forcing_wavenumber: :math:`k_f`; zero for decaying turbulence, whose start has its peak at 3.
        frame_interval: time between stored frames.
        step: time step; a frame interval holds a whole number of them.
        warmup_time: time before the first stored frame, a whole number of frame intervals.
        precision: of the computation; what is stored is float32 in any case.
        seed: of the initial fields.

    Raises:
        ValueError: where an argument is out of its range or two do not fit each other.
    """

    name: ClassVar[str] = "isotropic3d"

    def __init__(
        self,
        *,
        trajectories: int,
        frames: int = 20,
        grid: int = 60,
        dissipation_wavenumber: float = 50.0,
        reynolds_lambda: float = 84.0,
        forcing_wavenumber: float = 3.0,
        frame_interval: float = 0.05,
        step: float = 0.002,
        warmup_time: float = 0.0,
        precision: Literal["float64", "float32"] = "float64",
        seed: int = 0,
    ) -> None:
        for label, count in (("trajectories", trajectories), ("frames", frames)):
            if count < 1:
                raise ValueError(f"{label}: got {count}, expected one at least.")
        if grid < 4 or grid % 2:
            raise ValueError(f"grid: got {grid}, expected an even number from 4 up; use a product of 2, 3 and 5.")
        for label, value in (("dissipation_wavenumber", dissipation_wavenumber), ("reynolds_lambda", reynolds_lambda)):
            if not 0 < value < math.inf:
                raise ValueError(f"{label}: got {value}, expected a positive number.")
        if not (forcing_wavenumber == 0 or 1 <= forcing_wavenumber < grid / 2):
            raise ValueError(
                f"forcing_wavenumber: got {forcing_wavenumber}, expected a number from 1 to below {grid // 2}, half of "
                "grid; set it to 0 for a flow without forcing."
            )
        if precision not in ("float64", "float32"):
            raise ValueError(f"precision: got {precision!r}, expected 'float64' or 'float32'.")
        self.trajectories, self.frames = trajectories, frames
        self.steps = whole_multiple("frame_interval", frame_interval, "step", step, least=1)
        self.warmup = whole_multiple("warmup_time", warmup_time, "frame_interval", frame_interval, least=0)
        self.step = frame_interval / self.steps
        self.grid, self.seed = grid, seed
        self.viscosity = dissipation_wavenumber ** (-4 / 3)
        self.dissipation_wavenumber, self.reynolds_lambda = float(dissipation_wavenumber), float(reynolds_lambda)
        self.energy = reynolds_lambda * (self.viscosity * dissipation_wavenumber) ** 2 / math.sqrt(20 / 3)
        self.forcing_wavenumber = float(forcing_wavenumber)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        axes = tuple(Axis.periodic_uniform(label, grid, 2 * math.pi) for label in ("x", "y", "z"))
        fields = tuple(Field(label) for label in ("pressure", "velocity_x", "velocity_y", "velocity_z"))
        self.layout = Layout(fields, Grid(axes), frame_interval)
        self._tables: dict[torch.device, _Tables] = {}

    def parameters(self) -> dict[str, list[float]]:
        numbers = {
            "viscosity": self.viscosity,
            "dissipation_wavenumber": self.dissipation_wavenumber,
            "reynolds_lambda": self.reynolds_lambda,
            "forcing_wavenumber": self.forcing_wavenumber,
        }
        return {name: [value] * self.trajectories for name, value in numbers.items()}

    def initial(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """See :meth:`Solver.initial`; the velocity is ``(B, 3, s - 1, s - 1, s/2)``, laid out as by ``rfftn``."""
        outside = [index for index in trajectories if not 0 <= index < self.trajectories]
        if outside or not trajectories:
            raise ValueError(
                f"trajectories: got {list(trajectories)}, expected one or more of 0 to {self.trajectories - 1}; "
                "raise `trajectories` of the solver."
            )
        shape = (self.grid - 1, self.grid - 1, self.grid // 2)
        kx, ky, kz = (line.expand(shape) for line in _wavenumbers(self.grid))
        # One of each pair of conjugates. The cube of a coarser grid comes first, in an order of its own.
        free = (kz > 0) | ((kz == 0) & ((ky > 0) | ((ky == 0) & (kx > 0))))
        shell = torch.stack([kx, ky, kz]).abs().amax(0)
        order = np.lexsort([line[free].numpy() for line in (kx, ky, kz, shell)])
        x, y, z = free.nonzero()[torch.from_numpy(order)].unbind(1)
        kx, ky, kz = (line[x, y, z] for line in (kx, ky, kz))
        normals = _normals(kx, ky, kz)
        squared = kx**2 + ky**2 + kz**2
        peak = self.forcing_wavenumber or 3.0
        length = squared.sqrt() / peak
        spectrum = torch.where(length <= 1, length, length ** (-5 / 3))
        # Of the spectrum the shape counts; a wave and its conjugate together have the energy |u|^2.
        amplitude = (spectrum / squared).sqrt()
        amplitude = amplitude * (self.energy / amplitude.square().sum()).sqrt()
        velocity = torch.zeros(len(trajectories), 3, *shape, dtype=torch.complex128)
        for position, index in enumerate(trajectories):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, index])))
            first, second, split = torch.from_numpy(2 * math.pi * generator.random((len(squared), 3))).unbind(1)
            both = torch.stack([torch.polar(split.cos(), first), torch.polar(split.sin(), second)])
            velocity[position][:, x, y, z] = amplitude * (both[:, None] * normals).sum(0)
        plane = velocity[..., 0]
        velocity[..., 0] = plane + plane.flip(-2, -1).roll((1, 1), (-2, -1)).conj()
        kind = torch.complex128 if self.dtype == torch.float64 else torch.complex64
        return {
            "velocity": velocity.to(device=device, dtype=kind),
            "trajectory": torch.tensor(list(trajectories), dtype=torch.int64, device=device),
        }

    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        waves = state["velocity"]
        tables = self._on(waves.device)
        advanced = [self._advance(part, tables) for part in _parts(waves)]
        later = {"velocity": torch.cat([part for part, _ in advanced]), "trajectory": state["trajectory"]}
        self._check(state, later, torch.cat([factor for _, factor in advanced]))
        return later

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        waves = state["velocity"]
        tables = self._on(waves.device)
        return torch.cat([self._observe(part, tables) for part in _parts(waves)])

    def _advance(self, waves: Tensor, tables: _Tables) -> tuple[Tensor, Tensor]:
        """The coefficients one frame interval later, and the least factor of the forcing squared, ``(B,)``."""
        least = torch.ones(len(waves), dtype=torch.float64, device=waves.device)
        for _ in range(self.steps):
            waves = self._runge_kutta(waves, tables)
            if self.forcing_wavenumber > 0:
                # fmin passes over NaN, which would hide what led to it.
                least = torch.fmin(least, self._restore(waves, tables))
        return waves, least

    def _runge_kutta(self, waves: Tensor, tables: _Tables) -> Tensor:
        h, half, full = self.step, tables.half, tables.full
        u = torch.view_as_real(waves)
        slope = self._nonlinear(u, tables)
        base = half * u
        later = torch.addcmul(full * u, full, slope, value=h / 6)
        slope = self._nonlinear(torch.addcmul(base, half, slope, value=h / 2), tables)
        later.addcmul_(half, slope, value=h / 3)
        slope = self._nonlinear(torch.add(base, slope, alpha=h / 2), tables)
        later.addcmul_(half, slope, value=h / 3)
        slope = self._nonlinear(base.mul_(half).addcmul_(half, slope, value=h), tables)
        return torch.view_as_complex(later.add_(slope, alpha=h / 6))

    def _nonlinear(self, u: Tensor, tables: _Tables) -> Tensor:
        """Advection, pressure and force of the velocity, both as real and imaginary parts, ``(B, 3, *waves, 2)``."""
        waves = torch.view_as_complex(u)
        rate = _stress(self._points(waves), tables.gradient, self.grid)
        along = _dot(tables.k, rate) * tables.inverse
        # Not stacked by torch.stack, which would change the order in memory.
        result = torch.empty_like(waves)
        for index, line in enumerate(tables.k):
            torch.addcmul(rate[index], line, along, value=-1, out=result[:, index])
        if self.forcing_wavenumber > 0:
            x, y, z = tables.forced
            large = waves[:, :, x, y, z]
            lost = self.viscosity * _sum(tables.squared[..., None] * u.square())
            gain = lost / _sum_of_forced(large, tables)
            result[:, :, x, y, z] += gain.to(self.dtype)[:, None, None] * large
        return torch.view_as_real(result)

    def _points(self, waves: Tensor) -> tuple[Tensor, ...]:
        """The three velocities on the points where products are formed."""
        return tuple(_to_space(component, 3 * self.grid // 2) for component in waves.unbind(1))

    def _restore(self, waves: Tensor, tables: _Tables) -> Tensor:
        """Scale the forced waves to the energy K of all, in place; returns the factor squared, ``(B,)``."""
        x, y, z = tables.forced
        large = waves[:, :, x, y, z]
        missing = self.energy - _sum(torch.view_as_real(waves).square())
        factor = 1 + missing / _sum_of_forced(large, tables)
        waves[:, :, x, y, z] = large * factor.sqrt().to(self.dtype)[:, None, None]
        return factor

    def _observe(self, waves: Tensor, tables: _Tables) -> Tensor:
        velocity = self._points(waves)
        stress = _stress(velocity, tables.k, self.grid)
        # The last term is the trace that the products leave out.
        pressure = -_dot(tables.k, stress) * tables.inverse - _to_waves(velocity[2].square(), self.grid)
        pressure[:, 0, 0, 0] = 0
        fields = [_to_space(field, self.grid) for field in (pressure, *waves.unbind(1))]
        return torch.stack(fields, -1).to(torch.float32)

    def _check(self, before: dict[str, Tensor], after: dict[str, Tensor], least: Tensor) -> None:
        starved = (least <= 0).nonzero().flatten().tolist()
        # A flow that blows up loses its forcing on the way: the step is what to change.
        courant = self._courant(before if starved else after)
        # Written so that NaN fails too.
        failed = (~(courant <= ADVECTION_LIMIT)).nonzero().flatten().tolist()
        if failed:
            numbers = after["trajectory"][failed].tolist()
            reached = [round(value, 2) for value in courant[failed].tolist()]
            raise ValueError(
                f"step: got {self.step:g}, with which trajectories {numbers} (positions {failed} of the batch) reach "
                f"(|u|+|v|+|w|) step (s/2-1) = {reached}; the scheme is stable up to {ADVECTION_LIMIT:.2f}: reduce "
                "step."
            )
        if starved:
            raise ValueError(
                f"forcing_wavenumber: got {self.forcing_wavenumber:g}; in trajectories "
                f"{after['trajectory'][starved].tolist()} (positions {starved} of the batch) the waves beyond it came "
                f"to hold more than the energy {self.energy:g} of all, which no forcing can make up for: reduce "
                "step, or start from a state of this energy."
            )

    def _courant(self, state: dict[str, Tensor]) -> Tensor:
        points = (self._points(part) for part in _parts(state["velocity"]))
        speed = torch.cat([(u.abs() + v.abs()).add_(w.abs()).amax((1, 2, 3)) for u, v, w in points])
        return speed * (self.step * (self.grid / 2 - 1))

    def _on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = self._make_tables().to(device, self.dtype)
        return self._tables[device]

    def _make_tables(self) -> _Tables:
        kx, ky, kz = _wavenumbers(self.grid)
        squared = kx**2 + ky**2 + kz**2
        x, y, z = ((squared > 0) & (squared <= self.forcing_wavenumber**2)).nonzero().unbind(1)
        return _Tables(
            k=(kx, ky, kz),
            gradient=tuple(-1j * line for line in (kx, ky, kz)),
            squared=_as_stored(squared),
            inverse=_as_stored(torch.where(squared > 0, 1 / squared.clamp_min(1.0), 0.0)),
            half=_as_stored(torch.exp(squared * (-self.viscosity * self.step / 2)))[..., None],
            full=_as_stored(torch.exp(squared * (-self.viscosity * self.step)))[..., None],
            forced=(x, y, z),
            weight=torch.where(z > 0, 1.0, 0.5),
        )


@dataclass(frozen=True)
class _Tables:
    """What multiplies the coefficients ``(s - 1, s - 1, s/2)``, and which of them are forced."""

    k: tuple[Tensor, ...]  # three wavenumbers, each along its own axis
    gradient: tuple[Tensor, ...]  # -ik
    squared: Tensor  # k^2
    inverse: Tensor  # 1 / k^2, zero for the mean
    half: Tensor  # (..., 1), what viscosity leaves after half a step
    full: Tensor
    forced: tuple[Tensor, Tensor, Tensor]  # three indices of each forced wave
    weight: Tensor  # of these in the energy

    def to(self, device: torch.device, dtype: torch.dtype) -> _Tables:
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        return _Tables(
            tuple(line.to(device, dtype) for line in self.k),
            tuple(line.to(device, kind) for line in self.gradient),
            self.squared.to(device, dtype),
            self.inverse.to(device, dtype),
            self.half.to(device, dtype),
            self.full.to(device, dtype),
            (self.forced[0].to(device), self.forced[1].to(device), self.forced[2].to(device)),
            self.weight.to(device, dtype),
        )


def _parts(waves: Tensor) -> Sequence[Tensor]:
    """What is solved at once: on the processor one trajectory, whose fields its cache can hold."""
    return waves.split(1 if waves.is_cpu else len(waves))


def _wavenumbers(grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """``kx (s-1, 1, 1)``, ``ky (s-1, 1)`` and ``kz (s/2)``: those of ``rfftn`` on one point fewer, without Nyquist."""
    n = grid - 1
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    return k[:, None, None], k[:, None], torch.arange(grid // 2, dtype=torch.float64)


def _normals(kx: Tensor, ky: Tensor, kz: Tensor) -> Tensor:
    """Two unit vectors normal to each of n waves and to each other: ``(2, 3, n)``."""
    across = torch.hypot(kx, ky)
    length = torch.hypot(across, kz)
    # A wave along z has the normals x and y.
    cos, sin = (torch.where(across > 0, line / across.clamp_min(1.0), plain) for line, plain in ((kx, 0.0), (ky, 1.0)))
    first = torch.stack([sin, -cos, torch.zeros_like(kz)])
    second = torch.stack([cos * kz, sin * kz, -across]) / length
    return torch.stack([first, second])


def _stress(velocity: tuple[Tensor, ...], k: tuple[Tensor, ...], grid: int) -> tuple[Tensor, ...]:
    r""":math:`k_l\,\widehat{(u_ju_l - \delta_{jl}w^2)}` of three fields ``(B, *points)``, three ``(B, *waves)``.

    Of five products, one after another: this takes the least memory and suits the cache of the processor.
    """
    u, v, w = velocity
    kx, ky, kz = k
    product = _to_waves(torch.addcmul(u * u, w, w, value=-1), grid)
    x = kx * product
    product = _to_waves(torch.addcmul(v * v, w, w, value=-1), grid)
    y = ky * product
    product = _to_waves(u * v, grid)
    x.addcmul_(ky, product)
    y.addcmul_(kx, product)
    product = _to_waves(u * w, grid)
    x.addcmul_(kz, product)
    z = kx * product
    product = _to_waves(v * w, grid)
    y.addcmul_(kz, product)
    z.addcmul_(ky, product)
    return x, y, z


def _dot(k: tuple[Tensor, ...], vector: tuple[Tensor, ...]) -> Tensor:
    return (k[0] * vector[0]).addcmul_(k[1], vector[1]).addcmul_(k[2], vector[2])


def _sum(power: Tensor) -> Tensor:
    r""":math:`\tfrac12\sum_k` of squares ``(B, 3, *waves, 2)``: ``(B,)``. A wave with kz > 0 stands for two."""
    plane = power[..., 0, :].sum((1, 2, 3, 4), dtype=torch.float64)
    return power.sum((1, 2, 3, 4, 5), dtype=torch.float64) - plane / 2


def _sum_of_forced(large: Tensor, tables: _Tables) -> Tensor:
    """The energy of the forced waves ``(B, 3, n)``: ``(B,)``."""
    return (tables.weight * torch.view_as_real(large).square().sum(-1)).sum((1, 2), dtype=torch.float64)


def _to_space(waves: Tensor, n: int) -> Tensor:
    """Coefficients ``(..., s-1, s-1, s/2)`` to values ``(..., n, n, n)``, n being s at least.

    Three one-dimensional transforms along the axis that is contiguous, each padded to n on its own: on the processor
    more than twice as fast as ``irfftn`` of the padded coefficients. The axes turn between them.
    """
    for _ in range(2):
        lines = waves.movedim(-3, -1)
        kept = lines.shape[-1] // 2
        gap = lines.new_zeros(*lines.shape[:-1], n - 2 * kept - 1)
        padded = torch.cat([lines[..., : kept + 1], gap, lines[..., kept + 1 :]], -1)
        waves = torch.fft.ifft(padded, dim=-1, norm="forward")
    return torch.fft.irfft(waves.movedim(-3, -1), n=n, dim=-1, norm="forward")


def _to_waves(values: Tensor, grid: int) -> Tensor:
    """Values ``(..., n, n, n)`` to the coefficients that s points carry, ``(..., s-1, s-1, s/2)``; kx is contiguous."""
    kept = grid // 2 - 1
    waves = torch.fft.rfft(values, dim=-1, norm="forward")[..., : kept + 1]
    for _ in range(2):
        lines = torch.fft.fft(waves.movedim(-1, -3), dim=-1, norm="forward")
        waves = torch.cat([lines[..., : kept + 1], lines[..., lines.shape[-1] - kept :]], -1)
    return waves.movedim(-1, -3)


def _as_stored(table: Tensor) -> Tensor:
    """The same numbers in the order in which the transforms leave coefficients in memory."""
    return table.movedim(0, -1).contiguous().movedim(-1, 0)
