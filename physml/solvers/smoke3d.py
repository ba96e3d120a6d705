r"""Three-dimensional buoyant smoke: a density that is carried by the flow it lifts, in a closed box.

.. math:: \partial_t s + u\cdot\nabla s = 0, \qquad
    \partial_t u + u\cdot\nabla u = -\nabla p + \nu\nabla^2 u + \beta s\,e_z, \qquad \nabla\cdot u = 0

The flow and its initial field are those of Li, Shu & Barati Farimani, "Scalable Transformer for PDE Surrogate Modeling"
(NeurIPS 2023): :math:`\nu = 0.003`, :math:`\beta = 0.5`, on :math:`[0, 8]^3`; all quantities are dimensionless. The
scheme is that of Stam, "Stable Fluids" (SIGGRAPH 1999), on the staggered grid of Harlow & Welch (Phys. Fluids 8, 1965).
What differs from the paper's is said at the class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from physml.fields import Axis, Boundary, Field, Grid, Layout
from physml.solvers.solver import Solver, whole_multiple

DIFFUSION_LIMIT = 1 / 6
r"""Largest :math:`\nu\,\Delta t/\Delta x^2` for which explicit diffusion in three dimensions is stable."""


class Smoke3D(Solver):
    r"""Semi-Lagrangian solver of 3-D buoyant smoke in a closed box that stores density and velocity.

    **Space.** n cells along each axis, of width :math:`\Delta x = L/n`: the density at their centres, each component of
    the velocity at the faces it crosses. A state holds the faces between cells; those in the walls have no flow and are
    not kept.

    **Step.** With the velocity of the step before, in this order,

    .. math::
        s' &= A_u s, \qquad u^* = (1 + \nu\Delta t\,\nabla_h^2) A_u u + \Delta t\,\beta\,\overline{s'}^z e_z, \\
        u' &= u^* - \nabla_h\varphi, \qquad \nabla_h^2\varphi = \nabla_h\cdot u^*.

    A reads the value at :math:`x - u(x)\Delta t`, one Euler step back, from the eight points around it, see
    :func:`advect`; :math:`\overline{s'}^z` is the mean of the two cells of a face. The Poisson equation with
    :math:`\partial_n\varphi = 0` is solved exactly by cosine transforms (DCT-II), as products with one small dense
    matrix for each axis, see :class:`Projection`.

    **Walls.** Outside, the velocity is zero and the density is that of the nearest cell, as in the source. The first
    points without tangential velocity therefore lie half a cell behind the wall.

    **Stability.** Advection takes no value from outside the range of its neighbours, for every step; the limit is
    :math:`\nu\Delta t/\Delta x^2 \le 1/6`, of diffusion (0.144 with the default arguments).

    **Start.** :math:`u = 0` and :math:`s = |\eta|`, not negative, of :func:`spectral_noise`, with mean square one. A
    finer grid starts from the same field with more waves.

    **What is stored.** ``density`` at cell centres, and ``velocity_x``, ``velocity_y``, ``velocity_z`` on the *lower*
    face of each cell: the first layer of a component along its own axis is a wall, and zero; the last face, zero too,
    is dropped. The layout has the centres as points and cannot say that a component lies half a cell below. The
    discrete divergence of a stored frame, which is zero, is the sum of forward differences, with a zero behind the last
    value; central differences on the points of the layout find another.

    **Differences from the source.** Its step diffuses the buoyancy too, before the pressure has balanced it: zero
    velocity outside then makes a wall shear of the weight of the smoke, and a uniform density of 0.8, which should
    rest, moves at 0.27 after 28 steps. Here the buoyancy comes after diffusion, and layers rest exactly. The pressure
    is solved exactly, not by iteration. The source discards the first 8 of 28 steps, read here as: the frames after
    steps 9 to 28 are stored, a warm-up of nine intervals. Waves of the noise with :math:`|k| \ge n/2`, below 1e-11 of
    the first at n = 64, are left out. The seed of a trajectory decides its initial field.

    **Good values.** The default arguments are the source's flow. Its steps are long: the smoke crosses ten cells in
    one, which is stable but not accurate in time, and such advection does not conserve mass: over the 28 steps, 5 to
    27 % of the smoke of the first four trajectories is lost. ``substeps=8`` leaves 2.5 % of the 27. With
    ``advection="maccormack"`` edges stay sharper at 1.6 times the cost.

    **Cost.** On one processor core 35 ms per trajectory and step at n = 64 in float32, 55 ms in float64, and 4 ms at
    n = 32, one trajectory at a time; a third of it is the pressure. Batches of four or more take a fifth longer. A step
    needs 28 MB of memory for each trajectory of the batch at n = 64 in float32, 32 MB with MacCormack.

    Args:
        trajectories: how many.
        frames: stored frames of each.
        grid: n, cells per axis.
        length: L, edge of the box.
        viscosity: :math:`\nu`; zero for none.
        buoyancy: :math:`\beta`, upward acceleration (along z) for each unit of density.
        frame_interval: time between stored frames.
        substeps: steps in a frame interval; :math:`\Delta t` is the interval over their number.
        advection: A, of density and velocity.
        warmup_time: time before the first stored frame, a whole number of frame intervals.
        precision: of the computation; what is stored is float32 in any case.
        seed: of the initial fields.

    Raises:
        ValueError: where an argument is out of its range or two do not fit each other.
    """

    name: ClassVar[str] = "smoke3d"

    def __init__(
        self,
        *,
        trajectories: int,
        frames: int = 20,
        grid: int = 64,
        length: float = 8.0,
        viscosity: float = 0.003,
        buoyancy: float = 0.5,
        frame_interval: float = 0.75,
        substeps: int = 1,
        advection: Literal["semi_lagrangian", "maccormack"] = "semi_lagrangian",
        warmup_time: float = 6.75,
        precision: Literal["float64", "float32"] = "float32",
        seed: int = 0,
    ) -> None:
        for label, value, least in (
            ("trajectories", trajectories, 1),
            ("frames", frames, 1),
            ("grid", grid, 4),
            ("substeps", substeps, 1),
        ):
            if value < least or value != int(value):
                raise ValueError(f"{label}: got {value}, expected a whole number from {least} up.")
        if not 0 < length < math.inf:
            raise ValueError(f"length: got {length}, expected a positive number.")
        if not (0 <= viscosity < math.inf and math.isfinite(buoyancy)):
            raise ValueError(f"viscosity, buoyancy: got {viscosity}, {buoyancy}; both finite, viscosity not negative.")
        if advection not in ("semi_lagrangian", "maccormack"):
            raise ValueError(f"advection: got {advection!r}, expected 'semi_lagrangian' or 'maccormack'.")
        if precision not in ("float64", "float32"):
            raise ValueError(f"precision: got {precision!r}, expected 'float64' or 'float32'.")
        self.warmup = whole_multiple("warmup_time", warmup_time, "frame_interval", frame_interval, least=0)
        self.trajectories, self.frames = trajectories, frames
        self.grid, self.spacing, self.steps, self.step = grid, length / grid, substeps, frame_interval / substeps
        self.diffusion = viscosity * self.step / self.spacing**2
        if self.diffusion > DIFFUSION_LIMIT * (1 + 1e-9):
            least = math.ceil(substeps * self.diffusion / DIFFUSION_LIMIT)
            raise ValueError(
                f"substeps: got {substeps}, with which viscosity step / spacing^2 is {self.diffusion:.3g}; explicit "
                f"diffusion is stable up to 1/6: take {least}, or a coarser grid."
            )
        self.viscosity, self.buoyancy, self.seed = float(viscosity), float(buoyancy), seed
        self.advection: Literal["semi_lagrangian", "maccormack"] = advection
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        centres = (torch.arange(grid, dtype=torch.float64) + 0.5) * self.spacing
        axes = tuple(Axis(label, centres, Boundary.WALL, float(length)) for label in ("x", "y", "z"))
        fields = tuple(Field(label) for label in ("density", "velocity_x", "velocity_y", "velocity_z"))
        self.layout = Layout(fields, Grid(axes), frame_interval)
        self._projections: dict[torch.device, Projection] = {}

    def parameters(self) -> dict[str, list[float]]:
        count = self.trajectories
        return {"viscosity": [self.viscosity] * count, "buoyancy": [self.buoyancy] * count}

    def initial(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        outside = [index for index in trajectories if not 0 <= index < self.trajectories]
        if outside or not trajectories:
            raise ValueError(
                f"trajectories: got {list(trajectories)}, expected one or more of 0 to {self.trajectories - 1}; "
                "raise `trajectories` of the solver."
            )
        n = self.grid
        density = torch.empty(len(trajectories), n, n, n, dtype=torch.float64)
        for position, index in enumerate(trajectories):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, index])))
            density[position] = spectral_noise(n, generator).abs()
        density = density.to(device=device, dtype=self.dtype)
        shapes = {f"velocity_{axis}": [n - (axis == other) for other in "xyz"] for axis in "xyz"}
        return {
            "density": density,
            **{label: density.new_zeros(len(trajectories), *shape) for label, shape in shapes.items()},
            "trajectory": torch.tensor(list(trajectories), dtype=torch.int64, device=device),
        }

    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        density, faces = state["density"], tuple(state[f"velocity_{axis}"] for axis in "xyz")
        for _ in range(self.steps):
            density, faces = self._step(density, faces)
        self._check(density, faces, state["trajectory"])
        velocity = {f"velocity_{axis}": face for axis, face in zip("xyz", faces, strict=True)}
        return {"density": density, **velocity, "trajectory": state["trajectory"]}

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        lower = [F.pad(state[f"velocity_{label}"], _padding(axis, 1, 0)) for axis, label in enumerate("xyz")]
        return torch.stack([state["density"], *lower], -1).to(torch.float32)

    def _step(self, density: Tensor, faces: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        courant = self.step / self.spacing
        centred = [_between(F.pad(face, _padding(axis, 1, 1)), axis) * courant for axis, face in enumerate(faces)]
        later = advect(density, centred, outside="nearest", scheme=self.advection)
        moved = []
        for axis, face in enumerate(faces):
            crossing = [
                face * courant if axis == other else _between(cells, axis) for other, cells in enumerate(centred)
            ]
            moved.append(advect(face, crossing, outside="zero", scheme=self.advection))
        moved = [diffuse(face, self.diffusion) for face in moved]
        moved[2].add_(_between(later, 2), alpha=self.step * self.buoyancy)
        return later, self._on(density.device)(tuple(moved))

    def _check(self, density: Tensor, faces: tuple[Tensor, ...], trajectory: Tensor) -> None:
        finite = density.isfinite().all(-1).all(-1).all(-1)
        for face in faces:
            finite = finite & face.isfinite().all(-1).all(-1).all(-1)
        failed = (~finite).nonzero().flatten().tolist()
        if failed:
            raise ValueError(
                f"state: trajectories {trajectory[failed].tolist()} (positions {failed} of the batch) are no longer "
                "finite. The scheme is bounded for every step: what was given was not finite or was too large; "
                "start from `initial`."
            )

    def _on(self, device: torch.device) -> Projection:
        if device not in self._projections:
            self._projections[device] = Projection.of(self.grid).to(device)
        return self._projections[device]


def net_flux(faces: tuple[Tensor, ...]) -> Tensor:
    r"""What leaves each cell of a closed box, :math:`\Delta x\,\nabla_h\cdot u`.

    Args:
        faces: velocity on the faces between cells, ``(B, *space)``, one fewer along its own axis for each component.

    Returns:
        ``(B, n, n, n)``, in units of the velocity.
    """
    total = F.pad(faces[0], _padding(0, 1, 1)).diff(dim=1)
    for axis, face in enumerate(faces[1:], 1):
        total += F.pad(face, _padding(axis, 1, 1)).diff(dim=1 + axis)
    return total


@dataclass(frozen=True)
class Projection:
    r"""The part of a velocity without divergence, :math:`u - \nabla_h\varphi`, with no flow through walls.

    The Laplacian of cells whose walls have no gradient is diagonal in cosines,

    .. math:: C_{kj} = \sqrt{(2 - \delta_{k0})/n}\,\cos\tfrac{\pi k (j + 1/2)}{n}, \qquad
        \lambda_k = -4\sum_i\sin^2\tfrac{\pi k_i}{2n},

    in units where the cells have width one. Products with C are as exact as the arithmetic and, up to a few hundred
    cells, quicker than a transform. They are made in float64 whatever the velocity is: the pressure that carries the
    weight of the smoke is so much larger than the velocity that, in float32, its rounding would leave a divergence some
    hundred times larger (5e-4 against 2e-6, with the default arguments).

    Args:
        cosines: C, ``(n, n)``, orthogonal.
        inverse: :math:`1/\lambda_k`, ``(n, n, n)``; zero for the mean, which has no gradient.
    """

    cosines: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, n: int) -> Projection:
        k = torch.arange(n, dtype=torch.float64)
        cosines = torch.cos(math.pi / n * k[:, None] * (k + 0.5)) * math.sqrt(2 / n)
        cosines[0] = math.sqrt(1 / n)
        line = -4 * torch.sin(math.pi * k / (2 * n)) ** 2
        eigenvalues = line[:, None, None] + line[:, None] + line
        eigenvalues[0, 0, 0] = math.inf
        return cls(cosines, 1 / eigenvalues)

    def to(self, device: torch.device) -> Projection:
        return Projection(self.cosines.to(device), self.inverse.to(device))

    def __call__(self, faces: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Velocity on the faces between cells to velocity on the faces between cells, see :func:`net_flux`."""
        exact = tuple(face.double() for face in faces)
        potential = self._transform(self._transform(net_flux(exact), 1).mul_(self.inverse), 0)
        return tuple(
            (face - potential.diff(dim=1 + axis)).to(given.dtype)
            for axis, (face, given) in enumerate(zip(exact, faces, strict=True))
        )

    def _transform(self, values: Tensor, side: int) -> Tensor:
        """To cosines (1) or back (0). Each product moves its axis behind the others; three restore the order."""
        for _ in range(3):
            values = torch.tensordot(values, self.cosines, dims=([1], [side]))
        return values


def diffuse(face: Tensor, number: float) -> Tensor:
    r"""One explicit step of diffusion, :math:`u + r\,\Delta x^2\nabla_h^2 u`, with zeros around.

    Args:
        face: u, ``(B, *space)``.
        number: :math:`r = \nu\Delta t/\Delta x^2`, at most 1/6.
    """
    around = F.pad(face, (1, 1) * 3)
    later = face * (1 - 6 * number)
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(start, start + face.shape[1 + axis])
            later.add_(around[:, *window], alpha=number)
    return later


def advect(
    values: Tensor,
    courant: Sequence[Tensor],
    *,
    outside: Literal["nearest", "zero"],
    scheme: Literal["semi_lagrangian", "maccormack"] = "semi_lagrangian",
) -> Tensor:
    r"""Values carried along a velocity for one step.

    .. math:: A f(x) = f(x - u(x)\Delta t), \qquad A_M f = \hat f + \tfrac12(f - A^-\hat f), \quad \hat f = Af

    with trilinear interpolation and, in :math:`A^-`, the velocity reversed. The second form is MacCormack's (Selle et
    al., J. Sci. Comput. 35, 2008): half of what forth and back again changes is taken as the error. It is limited to
    the range of the eight values that :math:`\hat f` was read from.

    Args:
        values: f, ``(B, *space)``.
        courant: :math:`u\Delta t/\Delta x` at the points of f, one component for each axis, ``(B, *space)`` each.
        outside: beyond the outermost points f has the value of the ``nearest`` one, or falls to ``zero`` one spacing
            further.
        scheme: ``semi_lagrangian`` for A, ``maccormack`` for the other.

    Returns:
        ``(B, *space)``. No value is outside the range of f (and zero), not by rounding either.
    """
    wide = values if outside == "nearest" else F.pad(values, (1, 1) * 3)
    stencil = _Stencil(wide.shape, [-component for component in courant])
    there = stencil.interpolate(wide)
    if scheme == "semi_lagrangian":
        return there
    forth = there if outside == "nearest" else F.pad(there, (1, 1) * 3)
    back = _Stencil(forth.shape, courant).interpolate(forth)
    least, most = stencil.bounds(wide)
    return there.add_(values - back, alpha=0.5).clamp_(least, most)


class _Stencil:
    """Which eight points surround each point of departure, and how near it is to them.

    The integer and the fractional part are taken of the displacement, not of the position: the weights are exact, and a
    shift of everything by whole cells changes nothing. A flat gather whose index serves all eight points, from views
    shifted by one along an axis, is on one core in the cache over twice as quick as ``grid_sample``, whose normalised
    coordinates also lose two digits (1e-5 of a value at 64 cells); and an interpolation by ``lerp`` stays between its
    neighbours exactly.

    Args:
        shape: ``(B, *space)`` of the values to read: as many as points, or one layer more on every side.
        shift: from a point to its point of departure, in cells, one component for each axis.
    """

    def __init__(self, shape: Sequence[int], shift: Sequence[Tensor]) -> None:
        self.shape = shift[0].shape
        self.strides = (shape[2] * shape[3], shape[3], 1)
        self.weights = []
        index: Tensor | None = None
        for axis, component in enumerate(shift):
            first = (shape[1 + axis] - component.shape[1 + axis]) // 2
            here = torch.arange(first, first + component.shape[1 + axis], device=component.device)
            here = here.view(-1, *[1] * (2 - axis))
            # Whole numbers are bounded after the conversion, so that NaN reads something and stays NaN by its weight.
            lower = component.floor().long().add_(here).clamp_(0, shape[1 + axis] - 2)
            self.weights.append((component - (lower - here)).clamp_(0, 1).flatten(1))
            index = lower if index is None else index.mul_(shape[1 + axis]).add_(lower)
        assert index is not None
        self.index = index.flatten(1)

    def interpolate(self, values: Tensor) -> Tensor:
        return self._read(values.flatten(1), 0, 0).view(self.shape)

    def _read(self, flat: Tensor, axis: int, offset: int) -> Tensor:
        """Interpolated along this axis and those after it, so that few of the eight values exist at a time."""
        if axis == 3:
            return flat[:, offset:].gather(1, self.index)
        upper = self._read(flat, axis + 1, offset + self.strides[axis])
        return self._read(flat, axis + 1, offset).lerp_(upper, self.weights[axis])

    def bounds(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest of the eight."""
        least = most = values.flatten(1)
        for stride in self.strides:
            least = torch.minimum(least[:, :-stride], least[:, stride:])
            most = torch.maximum(most[:, :-stride], most[:, stride:])
        # An entry whose neighbour is in the next row is never read: the index stays below the last point of each axis.
        return least.gather(1, self.index).view(self.shape), most.gather(1, self.index).view(self.shape)


def spectral_noise(n: int, generator: np.random.Generator) -> Tensor:
    r"""A smooth random field on a cube, :math:`\eta(x) \propto \mathrm{Re}\sum_k |k|^{-8} c_k e^{2\pi i k\cdot x/L}`.

    Args:
        n: cells per axis.
        generator: of the complex normal :math:`c_k`, drawn from low to high :math:`|k|`; ties are in a fixed order that
            does not depend on n.

    Returns:
        Values at cell centres, ``(n, n, n)``, float64, of mean zero and variance one. The waves are those with
        :math:`0 < |k| < n/2`.
    """
    line = torch.arange(-((n - 1) // 2), (n - 1) // 2 + 1)
    k = torch.cartesian_prod(line, line, line).T
    squared = k.square().sum(0)
    # One of each pair k, -k: the real part of a sum over half of the waves.
    free = (k[2] > 0) | ((k[2] == 0) & ((k[1] > 0) | ((k[1] == 0) & (k[0] > 0))))
    keep = free & (4 * squared < n**2)
    k, squared = k[:, keep], squared[keep]
    order = torch.from_numpy(np.lexsort((*k.numpy(), squared.numpy())))
    k, squared = k[:, order], squared[order]
    normal = torch.view_as_complex(torch.from_numpy(generator.standard_normal((len(squared), 2))))
    waves = squared.double() ** -4 * normal
    waves *= math.sqrt(2) / waves.abs().square().sum().sqrt()  # the variance is half of the squared amplitudes
    coefficients = torch.zeros(n, n, n, dtype=torch.complex128)
    # The first centre is half a cell from the corner.
    coefficients[tuple(k)] = waves * torch.exp(1j * math.pi / n * k.sum(0).double())
    return torch.fft.ifftn(coefficients, norm="forward").real


def _between(values: Tensor, axis: int) -> Tensor:
    """Means of neighbours along an axis of ``(B, *space)``: one fewer."""
    count = values.shape[1 + axis] - 1
    return (values.narrow(1 + axis, 0, count) + values.narrow(1 + axis, 1, count)).mul_(0.5)


def _padding(axis: int, before: int, after: int) -> tuple[int, ...]:
    """Padding of one axis of ``(B, *space)``, in the order of ``torch.nn.functional.pad``."""
    return (0, 0) * (2 - axis) + (before, after)
