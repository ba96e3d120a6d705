r"""Two-dimensional Kolmogorov flow: turbulence of a sinusoidal shear force, on a periodic square.

.. math:: \partial_t\omega + u\cdot\nabla\omega = \tfrac{1}{Re}\nabla^2\omega - \mu\,\omega - nA\cos(ny), \qquad
    \nabla^2\psi = -\omega, \quad u = (\partial_y\psi, -\partial_x\psi)

The flow and its initial field are those of Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling"
(NeurIPS 2023): Re = 1000, n = 8, A = 1, drag 0.1, on :math:`[0, 2\pi)^2`; time is made dimensionless with the force and
the unit length. With A = 0 it is decaying turbulence. What differs from that paper is said at the class.
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


class Kolmogorov2D(Solver):
    r"""Pseudo-spectral solver of 2-D Kolmogorov flow that stores the vorticity.

    **Space.** Fourier coefficients with :math:`|k| < s/3` are kept, s being the points per axis of the solve grid: the
    circle of the two-thirds rule, which removes every alias of the product. Advection is formed from two products,

    .. math:: -u\cdot\nabla\omega = (\partial_y^2 - \partial_x^2)(uv) + \partial_x\partial_y(u^2 - v^2),

    which takes two transforms to physical space and two back, against five for :math:`\nabla\cdot(u\omega)`. Waves that
    the circle removes are neither stored nor, along y, transformed.

    **Time.** Fourth-order exponential time differencing, ETDRK4 (Cox & Matthews, J. Comput. Phys. 176, 2002), with
    coefficients by contour integrals (Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005). Viscosity and drag are exact.
    It is preferred to the integrating factor, which costs the same: a steady flow is a fixed point of ETDRK4 for every
    step, not so of the integrating factor, whose error also grows with the stiffness of the viscosity.

    **Start.** :math:`\hat\omega(k) = \sqrt2\,\sigma\,(|k|^2+\tau^2)^{-\alpha/2}\,c_k` with complex normal :math:`c_k`,
    :math:`\alpha = 2.5`, :math:`\tau = 7`, :math:`\sigma = \tau^{\alpha-1}`; the vorticity has a standard deviation of
    about two. The numbers are drawn from low to high :math:`|k|`: a finer solve grid starts from the same field with
    more waves.

    **Differences from the source.** Its solver is Heun with Crank-Nicolson at 2048 points and masks after the update
    only; it stores every eighth point, which aliases. Here the state is masked throughout, and what is stored is the
    field without the waves that the stored grid cannot carry. The seed of a trajectory decides its initial field.

    **Good values.** ``Kolmogorov2D(trajectories=120, frames=160, grid=256, solve_grid=512, step=1/512)`` is the
    source's flow. With ``reynolds=200, forcing_wavenumber=4, frame_interval=1/8, step=1/96, warmup_time=5`` 64 points
    resolve the flow and solving at 128 is enough: a small data set to learn from. The step must keep
    :math:`|u|_{\max}\,\Delta t\,s/3` below 2.8; with n = 8, :math:`|u|_{\max}` is about 3, with n = 4 about 5.

    **Cost.** On one processor core 0.4 ms per trajectory and step at s = 128 in float32, 0.65 ms in float64, best in
    batches of about five, which stay in its cache. On an H100, 120 trajectories at s = 512 take 10 ms a step in
    float32, 18 ms in float64. At s = 128, float32 changes a frame by 1e-6 of itself after a time of two.

    Args:
        trajectories: how many.
        frames: stored frames of each.
        grid: stored points per axis; even.
        solve_grid: points per axis that are solved on, s; even, at least ``grid``.
        reynolds: Re, one over the viscosity; a list is repeated over the trajectories in turn.
        forcing_wavenumber: n, waves of the force along y in the box.
        forcing_amplitude: A; zero for decaying turbulence.
        drag: :math:`\mu`, the linear drag.
        frame_interval: time between stored frames.
        step: time step; a frame interval holds a whole number of them.
        warmup_time: time before the first stored frame, a whole number of frame intervals.
        precision: of the computation; what is stored is float32 in any case.
        seed: of the initial fields.

    Raises:
        ValueError: where an argument is out of its range or two do not fit each other.
    """

    name: ClassVar[str] = "kolmogorov2d"

    def __init__(
        self,
        *,
        trajectories: int,
        frames: int,
        grid: int = 64,
        solve_grid: int = 128,
        reynolds: float | list[float] = 1000.0,
        forcing_wavenumber: int = 8,
        forcing_amplitude: float = 1.0,
        drag: float = 0.1,
        frame_interval: float = 1 / 16,
        step: float = 1 / 128,
        warmup_time: float = 2.0,
        precision: Literal["float64", "float32"] = "float64",
        seed: int = 0,
    ) -> None:
        reynolds = list(reynolds) if isinstance(reynolds, (list, tuple)) else [reynolds]
        for label, value in (("trajectories", trajectories), ("frames", frames)):
            if value < 1:
                raise ValueError(f"{label}: got {value}, expected one at least.")
        for label, value in (("grid", grid), ("solve_grid", solve_grid)):
            if value < 4 or value % 2:
                raise ValueError(f"{label}: got {value}, expected an even number from 4 up; use a power of two.")
        if grid > solve_grid:
            raise ValueError(f"grid: got {grid}, finer than solve_grid {solve_grid}; raise solve_grid.")
        if not reynolds or not all(0 < value < math.inf for value in reynolds):
            raise ValueError(f"reynolds: got {reynolds}, expected positive numbers.")
        if forcing_wavenumber < 1 or forcing_wavenumber != int(forcing_wavenumber):
            raise ValueError(
                f"forcing_wavenumber: got {forcing_wavenumber}, expected a whole number from 1 up; "
                "set forcing_amplitude to 0 for a flow without forcing."
            )
        if forcing_amplitude != 0 and not (2 * forcing_wavenumber < grid and 3 * forcing_wavenumber < solve_grid):
            raise ValueError(
                f"forcing_wavenumber: got {forcing_wavenumber}, too many for grid {grid} and solve_grid {solve_grid}; "
                f"raise them above {2 * forcing_wavenumber} and {3 * forcing_wavenumber}."
            )
        if not (math.isfinite(forcing_amplitude) and 0 <= drag < math.inf):
            raise ValueError(
                f"forcing_amplitude, drag: got {forcing_amplitude}, {drag}; both finite, drag not negative."
            )
        if precision not in ("float64", "float32"):
            raise ValueError(f"precision: got {precision!r}, expected 'float64' or 'float32'.")
        self.trajectories, self.frames = trajectories, frames
        self.steps = whole_multiple("frame_interval", frame_interval, "step", step, least=1)
        self.warmup = whole_multiple("warmup_time", warmup_time, "frame_interval", frame_interval, least=0)
        self.step = frame_interval / self.steps
        self.grid, self.solve_grid = grid, solve_grid
        self.reynolds, self.drag, self.seed = [float(value) for value in reynolds], float(drag), seed
        self.forcing_wavenumber, self.forcing_amplitude = int(forcing_wavenumber), float(forcing_amplitude)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        axes = tuple(Axis.periodic_uniform(label, grid, 2 * math.pi) for label in ("x", "y"))
        self.layout = Layout((Field("vorticity"),), Grid(axes), frame_interval)
        self._tables: dict[torch.device, _Tables] = {}

    def parameters(self) -> dict[str, list[float]]:
        count = self.trajectories
        reynolds = [self.reynolds[index % len(self.reynolds)] for index in range(count)]
        return {
            "reynolds": reynolds,
            "viscosity": [1 / value for value in reynolds],
            "drag": [self.drag] * count,
            "forcing_wavenumber": [float(self.forcing_wavenumber)] * count,
            "forcing_amplitude": [self.forcing_amplitude] * count,
        }

    def initial(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        outside = [index for index in trajectories if not 0 <= index < self.trajectories]
        if outside or not trajectories:
            raise ValueError(
                f"trajectories: got {list(trajectories)}, expected one or more of 0 to {self.trajectories - 1}; "
                "raise `trajectories` of the solver."
            )
        n = self.solve_grid
        ky, kx = _wavenumbers(n)
        squared = kx**2 + ky**2
        # One of each pair of conjugates, from low to high |k|; ties in a fixed order that does not depend on the grid.
        free = ((ky > 0) | (kx > 0)) & _circle(n)
        order = np.lexsort((kx.expand_as(free)[free], ky.expand_as(free)[free], squared[free]))
        places = free.nonzero()[torch.from_numpy(order)]
        alpha, tau = 2.5, 7.0
        amplitude = math.sqrt(2) * tau ** (alpha - 1) * (squared[places[:, 0], places[:, 1]] + tau**2) ** (-alpha / 2)
        vorticity = torch.zeros(len(trajectories), *squared.shape, dtype=torch.complex128)
        for position, index in enumerate(trajectories):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, index])))
            normal = torch.from_numpy(generator.standard_normal((len(places), 2))) / math.sqrt(2)
            vorticity[position, places[:, 0], places[:, 1]] = amplitude * torch.view_as_complex(normal)
        edge = vorticity[:, 0, 1:]
        vorticity[:, 0, 1:] = edge + edge.flip(-1).conj()
        kind = torch.complex128 if self.dtype == torch.float64 else torch.complex64
        return {
            "vorticity": vorticity.to(device=device, dtype=kind),
            "trajectory": torch.tensor(list(trajectories), dtype=torch.int64, device=device),
        }

    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        trajectory = state["trajectory"]
        tables = self._on(trajectory.device)
        which = trajectory % len(self.reynolds) if len(self.reynolds) > 1 else torch.zeros_like(trajectory[:1])
        decay, half, stage, first, middle, last = (table[which] for table in tables.time)
        w = _real(state["vorticity"])
        # The names of etdrk4; b is written over base and c over a.
        for _ in range(self.steps):
            n1 = self._nonlinear(w, tables)
            base = half * w
            a = torch.addcmul(base, stage, n1)
            n2 = self._nonlinear(a, tables)
            n3 = self._nonlinear(base.addcmul_(stage, n2), tables)
            c = a.mul_(half).addcmul_(stage, torch.sub(n1, n3, alpha=2), value=-1)
            n4 = self._nonlinear(c, tables)
            w = (decay * w).addcmul_(first, n1).addcmul_(middle, n2.add_(n3)).addcmul_(last, n4)
        later = {"vorticity": _complex(w), "trajectory": trajectory}
        self._check(later, tables)
        return later

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        waves = state["vorticity"]
        kept = min(self.grid // 2, waves.shape[1]) - 1
        waves = waves[:, : kept + 1]
        gap = waves.new_zeros(len(waves), kept + 1, self.grid - 2 * kept - 1)
        coarse = torch.cat([waves[..., : kept + 1], gap, waves[..., waves.shape[-1] - kept :]], -1)
        return _to_space(coarse, self.grid).to(torch.float32)[..., None]

    def _nonlinear(self, w: Tensor, tables: _Tables) -> Tensor:
        """Advection and forcing of the vorticity, both as real and imaginary parts side by side, ``(B, m, 2 n)``."""
        u, v = _to_space(tables.velocity * _complex(w), self.solve_grid)
        products = torch.empty(2, *u.shape, dtype=u.dtype, device=u.device)
        torch.mul(u, v, out=products[0])
        torch.mul(v, v, out=products[1]).addcmul_(u, u, value=-1)
        uv, difference = _real(_to_waves(products))
        return torch.addcmul(tables.force, tables.product, uv).addcmul_(tables.difference, difference)

    def _check(self, state: dict[str, Tensor], tables: _Tables) -> None:
        u, v = _to_space(tables.velocity * state["vorticity"], self.solve_grid)
        speed = u.square().addcmul_(v, v).amax((-2, -1)).sqrt()
        courant = speed * (self.step * self.solve_grid / 3)
        # Written so that NaN fails too.
        failed = (~(courant <= ADVECTION_LIMIT)).nonzero().flatten().tolist()
        if failed:
            numbers = state["trajectory"][failed].tolist()
            reached = [round(value, 2) for value in courant[failed].tolist()]
            raise ValueError(
                f"step: got {self.step:g}, with which trajectories {numbers} (positions {failed} of the batch) reach "
                f"|u| step s/3 = {reached}; the scheme is stable up to {ADVECTION_LIMIT:.2f}: reduce step."
            )

    def _on(self, device: torch.device) -> _Tables:
        if device not in self._tables:
            self._tables[device] = self._make_tables().to(device, self.dtype)
        return self._tables[device]

    def _make_tables(self) -> _Tables:
        n = self.solve_grid
        ky, kx = _wavenumbers(n)
        squared = kx**2 + ky**2
        circle = _circle(n).double()
        inverse = torch.where(squared > 0, circle / squared.clamp_min(1.0), 0.0)
        force = torch.zeros(squared.shape, dtype=torch.complex128)
        if self.forcing_amplitude != 0:
            force[self.forcing_wavenumber, 0] = -0.5 * self.forcing_wavenumber * self.forcing_amplitude
        linear = torch.stack([-(squared / reynolds + self.drag) for reynolds in self.reynolds])
        return _Tables(
            velocity=torch.stack([1j * ky * inverse, -1j * kx * inverse])[:, None],
            product=_twice((kx**2 - ky**2) * circle),
            difference=_twice(kx * ky * circle),
            force=_real(force),
            time=tuple(_twice(table) for table in etdrk4(linear, self.step)),
        )


def etdrk4(linear: Tensor, step: float, points: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Coefficients of ETDRK4 for :math:`\dot w = Lw + N(w)` with a real diagonal L.

    .. math::
        a &= e^{Lh/2}w + Q\,N(w), \quad b = e^{Lh/2}w + Q\,N(a), \quad c = e^{Lh/2}a + Q\,(2N(b) - N(w)) \\
        w' &= e^{Lh}w + f_1 N(w) + 2f_2\,(N(a) + N(b)) + f_3 N(c)

    The quotients in Q and f are removable singularities at L = 0. They are averaged over the upper half of a circle of
    radius one around each :math:`Lh`, as Kassam & Trefethen (2005) do, which keeps all digits for every L.

    Args:
        linear: L, any shape, float64, not positive for a stable problem.
        step: h.
        points: on the half circle.

    Returns:
        :math:`e^{Lh}, e^{Lh/2}, Q, f_1, 2f_2, f_3`, shaped as ``linear``.
    """
    z = linear.double() * step
    stage, first, middle, last = (torch.zeros_like(z) for _ in range(4))
    for point in range(points):
        r = z + complex(math.cos(math.pi * (point + 0.5) / points), math.sin(math.pi * (point + 0.5) / points))
        e = torch.exp(r)
        stage += ((torch.exp(r / 2) - 1) / r).real
        first += ((-4 - r + e * (4 - 3 * r + r**2)) / r**3).real
        middle += (2 * (2 + r + e * (r - 2)) / r**3).real
        last += ((-4 - 3 * r - r**2 + e * (4 - r)) / r**3).real
    scale = step / points
    return torch.exp(z), torch.exp(z / 2), scale * stage, scale * first, scale * middle, scale * last


@dataclass(frozen=True)
class _Tables:
    """What multiplies the coefficients ``(m, n)``; complex, or each real number twice."""

    velocity: Tensor  # (2, 1, m, n), complex: from vorticity to u and v
    product: Tensor  # (m, 2 n): of uv
    difference: Tensor  # (m, 2 n): of v^2 - u^2
    force: Tensor  # (m, 2 n)
    time: tuple[Tensor, ...]  # (Reynolds numbers, m, 2 n) each

    def to(self, device: torch.device, dtype: torch.dtype) -> _Tables:
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        return _Tables(
            self.velocity.to(device, kind),
            self.product.to(device, dtype),
            self.difference.to(device, dtype),
            self.force.to(device, dtype),
            tuple(table.to(device, dtype) for table in self.time),
        )


def _wavenumbers(n: int) -> tuple[Tensor, Tensor]:
    """``ky (m, 1)`` from zero to below n/3, and ``kx (1, n)``: coefficients are stored y first, x contiguous."""
    ky = torch.arange(-(-n // 3), dtype=torch.float64)[:, None]
    return ky, torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[None]


def _circle(n: int) -> Tensor:
    """Where :math:`|k| < n/3`: ``(m, n)``. Strictly less: two waves of exactly n/3 alias onto a kept one."""
    ky, kx = _wavenumbers(n)
    return 9 * (kx**2 + ky**2) < n**2


def _to_space(waves: Tensor, n: int) -> Tensor:
    """Coefficients ``(..., m, n)`` to values ``(..., n, n)``, x before y; waves along y that are not there are zero.

    Two one-dimensional transforms along contiguous axes, with a transposition between them that pads along y: on the
    processor a third faster than ``irfft2`` of the padded coefficients.
    """
    return torch.fft.irfft(torch.fft.ifft(waves, dim=-1, norm="forward").mT, n=n, dim=-1, norm="forward")


def _to_waves(values: Tensor) -> Tensor:
    """Values ``(..., n, n)`` to coefficients ``(..., m, n)``: sums over the points divided by their number."""
    m = -(-values.shape[-1] // 3)
    return torch.fft.fft(torch.fft.rfft(values, dim=-1, norm="forward")[..., :m].mT, dim=-1, norm="forward")


def _real(waves: Tensor) -> Tensor:
    """A view of ``(..., n)`` complex as ``(..., 2 n)`` real, for products with real tables."""
    return torch.view_as_real(waves).flatten(-2)


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))


def _twice(table: Tensor) -> Tensor:
    return table.repeat_interleave(2, -1)
