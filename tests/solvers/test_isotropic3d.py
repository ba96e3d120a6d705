"""The solver of isotropic turbulence against exact solutions, its own convergence, balances and symmetries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from physml.configured import rebuild
from physml.datasets.generate import generate
from physml.physics import energy_spectrum, kinetic_energy
from physml.solvers import Isotropic3D, Solver

SMALL: dict[str, Any] = {
    "trajectories": 3,
    "frames": 3,
    "grid": 16,
    "dissipation_wavenumber": 12.0,
    "reynolds_lambda": 30.0,
    "forcing_wavenumber": 3.0,
    "frame_interval": 0.125,
    "step": 1 / 32,
}
INVISCID = {"dissipation_wavenumber": 1e9, "reynolds_lambda": 2.6e6, "forcing_wavenumber": 0.0}
"""A viscosity of 1e-12 and an energy of one."""


def make(**changes: Any) -> Isotropic3D:
    return Isotropic3D(**(SMALL | changes))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().norm() / expected.abs().norm())


def waves(grid: int) -> Tensor:
    """Wavenumbers ``(3, s-1, s-1, s/2)`` of the coefficients."""
    n = grid - 1
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    return torch.stack(torch.meshgrid(k, k, torch.arange(grid // 2, dtype=torch.float64), indexing="ij"))


def values(coefficients: Tensor) -> Tensor:
    """Coefficients, in float64, on as many points as carry exactly them, one fewer than the grid has."""
    n = coefficients.shape[-2]
    return torch.fft.irfftn(coefficients, s=(n, n, n), norm="forward")


def holding(solver: Isotropic3D, field: Callable[..., Sequence[Tensor]]) -> dict[str, Tensor]:
    """A state with this velocity, a function of x, y and z."""
    x = torch.arange(solver.grid - 1, dtype=torch.float64) * (2 * math.pi / (solver.grid - 1))
    velocity = torch.stack(list(field(*torch.meshgrid(x, x, x, indexing="ij"))))
    state = solver.initial([0])
    return {**state, "velocity": torch.fft.rfftn(velocity, dim=(-3, -2, -1), norm="forward")[None]}


def coordinates(solver: Solver) -> list[Tensor]:
    return list(torch.meshgrid(*(axis.points for axis in solver.layout.grid.axes), indexing="ij"))


def developed(solver: Isotropic3D, frames: int = 4) -> dict[str, Tensor]:
    state = solver.initial([0, 1])
    for _ in range(frames):
        state = solver.advance(state)
    return state


def energy(velocity: Tensor) -> Tensor:
    return values(velocity).square().sum(1).mean((1, 2, 3)) / 2


@pytest.mark.parametrize("plane", [(0, 1), (1, 2), (2, 0)])
def test_taylor_green_vortices_decay_exactly(plane: tuple[int, int]) -> None:
    """In each coordinate plane, the velocity at the rate 2 nu and the pressure at twice that, whatever the step."""
    solver = make(forcing_wavenumber=0.0, dissipation_wavenumber=5.0, frame_interval=1.0, step=0.25)
    first, second = plane

    def field(*x: Tensor) -> list[Tensor]:
        a, b = x[first], x[second]
        parts = [torch.zeros_like(a * b)] * 3
        parts[first], parts[second] = a.cos() * b.sin(), -a.sin() * b.cos()
        return parts

    x = coordinates(solver)
    state = holding(solver, field)
    for decay in (1.0, math.exp(-2 * 5 ** (-4 / 3))):
        found = solver.observe(state)[0].double()
        pressure = -(torch.cos(2 * x[first]) + torch.cos(2 * x[second])) / 4 * decay**2
        torch.testing.assert_close(found[..., 0], pressure, rtol=0, atol=1e-7)  # what float32 holds
        torch.testing.assert_close(found[..., 1:], decay * torch.stack(field(*x), -1), rtol=0, atol=1e-7)
        state = solver.advance(state)


def test_a_beltrami_flow_decays_exactly() -> None:
    """u = curl u: the ABC flow keeps its shape and decays at the rate nu; its pressure is the rest of -|u|^2/2."""
    solver = make(forcing_wavenumber=0.0, dissipation_wavenumber=5.0, frame_interval=1.0, step=0.125)

    def field(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return z.sin() + 0.4 * y.cos(), 0.7 * x.sin() + z.cos(), 0.4 * y.sin() + 0.7 * x.cos()

    state = solver.advance(holding(solver, field))
    velocity = math.exp(-(5 ** (-4 / 3))) * torch.stack(field(*coordinates(solver)), -1)
    bernoulli = -velocity.square().sum(-1) / 2
    found = solver.observe(state)[0].double()
    torch.testing.assert_close(found[..., 1:], velocity, rtol=0, atol=2e-7)  # what float32 holds of 1.7
    torch.testing.assert_close(found[..., 0], bernoulli - bernoulli.mean(), rtol=0, atol=2e-7)


@pytest.mark.parametrize("forcing", [0.0, 3.0])
def test_time_integration_is_of_fourth_order(forcing: float) -> None:
    state = developed(make())
    exact = make(forcing_wavenumber=forcing, step=1 / 512).advance(state)["velocity"]
    errors = [
        relative(make(forcing_wavenumber=forcing, step=step).advance(state)["velocity"], exact)
        for step in (1 / 32, 1 / 64, 1 / 128)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    # Measured 3.98 to 4.00; a force applied once a step would make it one.
    assert orders == pytest.approx([4, 4], abs=0.1)
    assert errors[0] < 1e-3


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_forced_energy_is_constant(precision: str) -> None:
    solver = make(precision=precision, frames=4, reynolds_lambda=40.0)
    k_d = 12.0
    expected = 40.0 * (k_d ** (-4 / 3) * k_d) ** 2 / math.sqrt(20 / 3)
    for frame in solver.run([0, 1]):
        found = kinetic_energy(frame.double(), solver.layout.names, solver.layout.grid)
        torch.testing.assert_close(found, torch.full((2,), expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_the_force_puts_in_what_viscosity_takes_out() -> None:
    """The force is along the large waves, with the power of the dissipation; the others feel none of it."""
    tiny = 1e-5
    forced, free = (make(frame_interval=tiny, step=tiny, forcing_wavenumber=k) for k in (3.0, 0.0))
    state = developed(make())
    u = state["velocity"]
    force = (forced.advance(state)["velocity"] - free.advance(state)["velocity"]) / tiny
    k = waves(16)
    large = (k.square().sum(0) <= 9) & (k.square().sum(0) > 0)
    gradient = values(1j * k[:, None] * u[:, None])  # (B, 3, 3, n, n, n), by way of physical space
    dissipation = forced.viscosity * gradient.square().sum((1, 2)).mean((1, 2, 3))
    rate = dissipation / (2 * energy(u * large))
    expected = rate[:, None, None, None, None] * u * large
    # Of the order of the step: what the force has changed within it.
    assert relative(force, expected) < 1e-3
    assert force[:, :, ~large].abs().norm() < 1e-3 * expected.norm()
    loss = (energy(free.advance(state)["velocity"]) - energy(u)) / tiny
    torch.testing.assert_close(loss, -dissipation, rtol=1e-3, atol=0)


def test_energy_is_conserved_without_viscosity() -> None:
    state = developed(make(**INVISCID), 1)
    before = energy(state["velocity"])
    drift = [
        (energy(make(**INVISCID, step=step).advance(state)["velocity"]) / before - 1).abs().max().item()
        for step in (1 / 32, 1 / 64, 1 / 128)
    ]
    # Per unit of time Runge-Kutta loses energy at fifth order, 32 for each halving; an alias would not become less.
    assert all(coarse > 20 * fine for coarse, fine in itertools.pairwise(drift))
    assert drift[-1] < 1e-8
    assert relative(make(**INVISCID).advance(state)["velocity"], state["velocity"]) > 0.1, "nothing happens"


def test_products_have_no_aliases_and_are_those_of_the_equation() -> None:
    """The rate of change is the projection of u x curl u, formed on so many points that nothing can alias."""
    tiny = 1e-6
    state = make(**INVISCID).initial([0, 1])  # every wave up to the corners of the cube has its share
    u, k = state["velocity"], waves(16)
    found = (make(**INVISCID, frame_interval=tiny, step=tiny).advance(state)["velocity"] - u) / tiny
    curl = torch.linalg.cross(1j * k.expand_as(u), u, dim=1)
    product = kept(torch.linalg.cross(fine(u), fine(curl), dim=1))
    along = (k * product).sum(1, keepdim=True) / k.square().sum(0).clamp_min(1)
    # The step leaves an error of its own order times the rate of the smallest eddies.
    assert relative(found, product - k * along) < 1e-4


def fine(u: Tensor) -> Tensor:
    """Values on 40 points per axis; two waves of 7 make one of 14, those of 40 points go to 19."""
    wide = u.new_zeros(*u.shape[:-3], 40, 40, 21)
    index = torch.cat([torch.arange(8), torch.arange(33, 40)])
    wide[..., index[:, None], index, :8] = u
    return torch.fft.irfftn(wide, s=(40, 40, 40), norm="forward")


def kept(product: Tensor) -> Tensor:
    index = torch.cat([torch.arange(8), torch.arange(33, 40)])
    return torch.fft.rfftn(product, dim=(-3, -2, -1), norm="forward")[..., index[:, None], index, :8]


def test_pressure_solves_its_equation() -> None:
    """Of a turbulent flow: the Laplacian of p is -(d_i u_j)(d_j u_i), formed on a finer grid."""
    solver = make()
    state = developed(solver)
    u, k = state["velocity"], waves(16)
    gradient = fine(1j * k[:, None] * u[:, None])  # index of the derivative, then of the component
    source = -kept((gradient * gradient.transpose(1, 2)).sum((1, 2)))
    pressure = -source / k.square().sum(0).clamp_min(1)
    pressure[..., 0, 0, 0] = 0
    observed = solver.observe(state)[..., 0].double()
    index = torch.cat([torch.arange(8), torch.arange(9, 16)])
    spectrum = torch.fft.rfftn(observed, dim=(-3, -2, -1), norm="forward")
    assert relative(spectrum[..., index[:, None], index, :8], pressure) < 1e-6  # stored as float32
    assert spectrum[..., 8].abs().max() < 1e-6, "the Nyquist wave is left out"


def test_the_flow_has_no_divergence() -> None:
    state = developed(make(), 8)
    u, k = state["velocity"], waves(16)
    # Rounding only: every rate of change is projected.
    assert (k * u).sum(1).abs().norm() < 1e-14 * (k.square().sum(0).sqrt() * u).norm()
    assert u[..., 0, 0, 0].abs().max() == 0, "the mean flow stays zero"
    plane = u[..., 0]
    torch.testing.assert_close(plane, plane.flip(-1, -2).roll((1, 1), (-1, -2)).conj(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_axes_are_alike(order: tuple[int, int, int]) -> None:
    """Swapping and turning axes and components together commutes with the flow, force and pressure included."""
    solver = make()
    state = developed(solver, 1)

    def turned(state: dict[str, Tensor]) -> dict[str, Tensor]:
        field = values(state["velocity"])[:, list(order)].permute(0, 1, *(2 + axis for axis in order))
        return {**state, "velocity": torch.fft.rfftn(field, dim=(-3, -2, -1), norm="forward")}

    ours, theirs = solver.advance(turned(state)), turned(solver.advance(state))
    assert relative(ours["velocity"], theirs["velocity"]) < 1e-13  # rounding
    assert relative(turned(state)["velocity"], state["velocity"]) > 1
    pressure = solver.observe(state)[..., 0].permute(0, *(1 + axis for axis in order))
    torch.testing.assert_close(solver.observe(turned(state))[..., 0], pressure, rtol=0, atol=1e-6)


def test_shifts_and_mirrors_commute_with_the_flow() -> None:
    solver = make()
    state = developed(solver, 1)
    shift = torch.exp(-1j * torch.einsum("i,i...->...", torch.tensor([0.3, 1.1, 2.0]).double(), waves(16)))
    ours = solver.advance({**state, "velocity": state["velocity"] * shift})["velocity"]
    theirs = solver.advance(state)["velocity"]
    assert relative(ours, theirs * shift) < 1e-13  # rounding
    mirrored = solver.advance({**state, "velocity": -state["velocity"].conj().resolve_conj()})["velocity"]
    assert relative(mirrored, -theirs.conj()) < 1e-13
    assert relative(theirs, state["velocity"]) > 0.1


def test_the_start_has_its_spectrum() -> None:
    solver = make(trajectories=30, grid=24, forcing_wavenumber=4.0)
    state = solver.initial(range(30))
    u, k = state["velocity"], waves(24)
    length = k.square().sum(0).sqrt()
    torch.testing.assert_close(energy(u), torch.full((30,), solver.energy, dtype=torch.float64), rtol=1e-13, atol=0)
    assert (k * u).sum(1).abs().max() < 1e-14
    assert u[..., 0, 0, 0].abs().max() == 0
    plane = u[..., 0]
    assert torch.equal(plane, plane.flip(-1, -2).roll((1, 1), (-1, -2)).conj()), "not a real field"
    # E(k) = 2 pi k^2 |u|^2 of every wave, to rounding: proportional to k, then to k^(-5/3).
    spectrum = 2 * math.pi * (length**2 * u.abs().square().sum(1))[:, length > 0]
    shape = torch.where(length <= 4, length / 4, (length.clamp_min(1) / 4) ** (-5 / 3))[length > 0]
    level = spectrum / shape
    torch.testing.assert_close(level, level[0, 0].expand_as(level), rtol=1e-12, atol=0)
    # No component and no direction is favoured: 30 fields with a few hundred energetic waves each.
    parts = values(u).square().mean((0, 2, 3, 4)) / (2 * solver.energy / 3)
    assert parts.tolist() == pytest.approx([1, 1, 1], abs=0.05)
    # Phases are random: the sum over 30 x 6000 waves of unit numbers is about the root of their count.
    phases = (u[:, :, length > 0] / u[:, :, length > 0].abs().clamp_min(1e-30)).mean()
    assert phases.abs() < 5 / math.sqrt(30 * 3 * 6000)


def test_shells_hold_the_spectrum() -> None:
    """What is stored has the slope -5/3 between the peak and the largest whole shell, to the raggedness of shells."""
    solver = make(grid=32)
    k, found = energy_spectrum(solver.observe(solver.initial([0])), solver.layout.names, solver.layout.grid)
    inside = (k >= 4) & (k <= 14)
    slope = torch.cov(torch.stack([k[inside].log(), found[0, inside].log()]).double())
    assert slope[0, 1] / slope[0, 0] == pytest.approx(-5 / 3, abs=0.1)


def test_a_finer_grid_starts_from_the_same_waves() -> None:
    coarse, finer = (make(grid=grid).initial([1])["velocity"][0] for grid in (12, 16))
    index = torch.cat([torch.arange(6), torch.arange(10, 15)])
    ratio = (finer[..., index[:, None], index, :6] / coarse)[coarse.abs() > 1e-12]
    # One factor for all, a little below one: the others need their share of the energy.
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-12, atol=0)
    assert 0.8 < ratio[0].real < 0.99
    assert ratio[0].imag.abs() < 1e-12


def test_seeds() -> None:
    batch = make().initial([0, 1, 2])["velocity"]
    assert torch.equal(make(trajectories=9).initial([2, 0])["velocity"], batch[[2, 0]])
    assert torch.equal(make(precision="float32").initial([1])["velocity"][0], batch[1].to(torch.complex64))
    assert relative(batch[0], batch[1]) > 1
    assert relative(make(seed=1).initial([0])["velocity"][0], batch[0]) > 1


def test_trajectories_do_not_depend_on_the_batch() -> None:
    solver = make()
    together = solver.advance(solver.initial([0, 1, 2]))
    frames = solver.observe(together)
    for index in range(3):
        alone = solver.advance(solver.initial([index]))
        # Transforms of other lengths may round elsewhere.
        assert relative(alone["velocity"][0], together["velocity"][index]) < 1e-13
        torch.testing.assert_close(solver.observe(alone)[0], frames[index], rtol=0, atol=1e-6)


def test_trajectories_solved_together_are_those_solved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator, where a batch is not taken apart."""
    solver = make()
    apart = solver.advance(solver.initial([0, 1, 2]))
    frames = solver.observe(apart)
    monkeypatch.setattr("physml.solvers.isotropic3d._parts", lambda waves: [waves])
    together = solver.advance(solver.initial([0, 1, 2]))
    assert relative(together["velocity"], apart["velocity"]) < 1e-13
    torch.testing.assert_close(solver.observe(apart), frames, rtol=0, atol=1e-6)


def test_single_precision_follows_double() -> None:
    double, single = make(), make(precision="float32")
    states = {"d": double.initial([0, 1]), "s": single.initial([0, 1])}
    for _ in range(4):
        states = {"d": double.advance(states["d"]), "s": single.advance(states["s"])}
    assert states["s"]["velocity"].dtype == torch.complex64
    # 16 steps of rounding at 6e-8, amplified by a flow that doubles errors in a fraction of a time unit.
    assert relative(states["s"]["velocity"].to(torch.complex128), states["d"]["velocity"]) < 1e-5


def test_a_saved_state_continues_bit_for_bit(tmp_path: Path) -> None:
    solver = make()
    state = solver.advance(solver.initial([1, 2]))
    before = state["velocity"].clone()
    torch.save(state, tmp_path / "state.pt")
    uninterrupted = solver.advance(state)["velocity"]
    solver.observe(state)
    assert torch.equal(state["velocity"], before), "no method may change the state it is given"
    again = rebuild(solver.describe(), Solver)
    resumed = again.advance(torch.load(tmp_path / "state.pt", weights_only=True))["velocity"]
    assert torch.equal(resumed, uninterrupted)


def test_run_warms_up_and_yields_the_frames() -> None:
    solver = make(warmup_time=0.25)
    assert solver.warmup == 2
    frames = list(solver.run([0, 2]))
    assert len(frames) == 3
    assert frames[0].shape == (2, *solver.layout.grid.shape, len(solver.layout.fields))
    assert frames[0].dtype == torch.float32
    state = solver.initial([0, 2])
    for _ in range(4):
        state = solver.advance(state)
    assert torch.equal(frames[2], solver.observe(state))
    assert solver.layout.names == ("pressure", "velocity_x", "velocity_y", "velocity_z")


def test_an_interrupted_store_is_finished_as_if_it_had_not_been(tmp_path: Path) -> None:
    solver = make(grid=8, forcing_wavenumber=2.0)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise Stop

    whole = generate(solver, tmp_path / "whole.zarr", batch=2)
    with pytest.raises(Stop):
        generate(solver, tmp_path / "cut.zarr", batch=2, progress=stop)
    assert generate(solver, tmp_path / "cut.zarr", batch=2).fingerprint == whole.fingerprint


def test_too_long_a_step_is_an_error_that_names_the_trajectories() -> None:
    solver = make(trajectories=5)
    state = solver.initial([4, 0])
    state["velocity"][1] *= 30
    with pytest.raises(
        ValueError, match=r"step: got 0.03125, with which trajectories \[0\] \(positions \[1\].*reduce step"
    ):
        solver.advance(state)
    state["velocity"][0, 1, 1] = math.nan
    with pytest.raises(ValueError, match=r"trajectories \[4, 0\].*nan.*reduce step"):
        solver.advance(state)


def test_the_courant_number_is_that_of_the_flow() -> None:
    """Two shears that decay at a known rate: (|u| + |v| + |w|) step (s/2 - 1) is known."""
    solver = make(forcing_wavenumber=0.0, dissipation_wavenumber=8.0, step=1 / 8)
    state = holding(solver, lambda x, y, z: (6 * y.sin(), 0 * y, -4 * y.sin()))
    expected = 10 * math.exp(-(8 ** (-4 / 3)) / 8) / 8 * 7
    with pytest.raises(ValueError, match=rf"step \(s/2-1\) = \[{expected:.2f}\]"):
        solver.advance(state)


def test_what_is_called_stable_is() -> None:
    """At three quarters of the limit, flow without viscosity and force keeps its energy or loses some."""
    solver = make(**INVISCID)
    state = solver.initial([0, 1])
    speed = solver.observe(state)[..., 1:].abs().sum(-1).amax((1, 2, 3)) * SMALL["step"] * 7
    state["velocity"] *= (0.75 * 2 * math.sqrt(2) / speed)[:, None, None, None, None]
    before = energy(state["velocity"])
    # Twelve steps, in which an unstable wave would grow a thousandfold; the flow may come near the limit by itself.
    for _ in range(3):
        state = solver.advance(state)
    after = energy(state["velocity"])
    # Fourth-order Runge-Kutta damps what it does not resolve in time.
    assert (after < before).all() and (after > 0.2 * before).all()


def test_small_scales_with_all_the_energy_cannot_be_forced() -> None:
    solver = make(trajectories=5, frame_interval=1 / 512, step=1 / 512)
    state = solver.initial([4, 0])
    small = waves(16).square().sum(0) > 9
    state["velocity"][1, :, small] *= 4
    with pytest.raises(
        ValueError, match=r"forcing_wavenumber: got 3; in trajectories \[0\] \(positions \[1\].*more than the energy"
    ):
        solver.advance(state)
    free = make(trajectories=5, frame_interval=1 / 512, step=1 / 512, forcing_wavenumber=0.0)
    assert free.advance(state)["velocity"].isfinite().all()


def test_the_recipe_is_the_published_flow() -> None:
    recipe = yaml.safe_load((Path(__file__).parents[2] / "data" / "isotropic3d" / "iso60.yaml").read_text())
    parts = {name: recipe.pop(name) for name in ("validation", "test", "batch")}
    solver = Isotropic3D(**recipe)
    assert solver.layout.grid.shape == (60, 60, 60) and solver.frames == 20 and solver.steps == 25
    numbers = {name: values[0] for name, values in solver.parameters().items()}
    assert numbers["viscosity"] == pytest.approx(0.00543, abs=5e-6)
    # u_rms^2 = 2K/3, lambda^2 = 15 nu u_rms^2 / dissipation and a dissipation of one make Re = u_rms lambda / nu.
    square = 2 * solver.energy / 3
    assert math.sqrt(square) * math.sqrt(15 * numbers["viscosity"] * square) / numbers["viscosity"] == pytest.approx(84)
    assert round(parts["test"] * solver.trajectories) == 20 and parts["batch"] <= solver.trajectories


WRONG = [
    ({"grid": 15}, "grid: got 15, expected an even"),
    ({"grid": 2}, "grid: got 2, expected an even"),
    ({"dissipation_wavenumber": 0.0}, "dissipation_wavenumber: got 0"),
    ({"reynolds_lambda": -1.0}, "reynolds_lambda: got -1"),
    ({"reynolds_lambda": math.inf}, "reynolds_lambda: got inf"),
    ({"forcing_wavenumber": 0.5}, "forcing_wavenumber: got 0.5, expected a number from 1 to below 8"),
    ({"forcing_wavenumber": 8}, "forcing_wavenumber: got 8, expected a number from 1 to below 8"),
    ({"forcing_wavenumber": math.nan}, "forcing_wavenumber: got nan"),
    ({"frame_interval": 0.1}, "frame_interval: got 0.1, which is 3.2 times step"),
    ({"step": 0.0}, "step: got 0.125, 0.0"),
    ({"warmup_time": 0.3}, "warmup_time: got 0.3, which is 2.4 times frame_interval"),
    ({"trajectories": 0}, "trajectories: got 0"),
    ({"frames": 0}, "frames: got 0"),
    ({"precision": "float16"}, "precision: got 'float16'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_arguments_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_only_configured_trajectories_can_be_started() -> None:
    for wrong in ([3], [-1], []):
        with pytest.raises(ValueError, match=r"expected one or more of 0 to 2"):
            make().initial(wrong)
