"""The solver of Kolmogorov flow against exact solutions, its own convergence, balances and symmetries."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from physml.configured import rebuild
from physml.physics import (
    energy_budget,
    kinetic_energy,
    velocity_from_vorticity,
    vorticity_transport_residual,
    vorticity_transport_terms,
)
from physml.solvers import Kolmogorov2D, Solver
from physml.solvers.kolmogorov2d import etdrk4

SMALL: dict[str, Any] = {
    "trajectories": 3,
    "frames": 3,
    "grid": 32,
    "solve_grid": 48,
    "reynolds": 100.0,
    "forcing_wavenumber": 4,
    "frame_interval": 0.25,
    "step": 1 / 64,
    "warmup_time": 0.0,
}


def make(**changes: Any) -> Kolmogorov2D:
    return Kolmogorov2D(**(SMALL | changes))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().norm() / expected.abs().norm())


def quiet(solver: Kolmogorov2D) -> dict[str, Tensor]:
    state = solver.initial([0])
    return {**state, "vorticity": torch.zeros_like(state["vorticity"])}


def coordinates(solver: Solver) -> tuple[Tensor, Tensor]:
    x, y = torch.meshgrid(*(axis.points for axis in solver.layout.grid.axes), indexing="ij")
    return x, y


def developed(solver: Kolmogorov2D, frames: int = 8) -> dict[str, Tensor]:
    """A state two time units after the start, computed with long steps."""
    state = solver.initial([0, 1])
    for _ in range(frames):
        state = solver.advance(state)
    return state


@pytest.mark.parametrize("drag", [0.1, 0.5])
def test_laminar_flow(drag: float) -> None:
    """From rest, at a small Reynolds number, the flow tends to w = -n cos(ny) / (n^2/Re + drag)."""
    n, reynolds = 2, 5.0
    solver = make(
        grid=16, solve_grid=24, reynolds=reynolds, forcing_wavenumber=n, drag=drag, frame_interval=2.0, step=0.25
    )
    state = quiet(solver)
    for _ in range(12):
        state = solver.advance(state)
    _, y = coordinates(solver)
    expected = -n * torch.cos(n * y) / (n**2 / reynolds + drag)
    # exp(-24 * 0.9) = 4e-10 of the transient is left; float32 has 6e-8 of 2.2. The step of 0.25 leaves no error.
    torch.testing.assert_close(solver.observe(state)[0, ..., 0].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wave", [(1, 1), (3, 2)])
def test_taylor_green_vortices_decay_exactly(wave: tuple[int, int]) -> None:
    """Without forcing, cos(kx) cos(ly) keeps its shape and decays at the rate |k|^2/Re + drag, whatever the step."""
    solver = make(forcing_amplitude=0.0, reynolds=20.0, frame_interval=1.0, step=0.25)
    k, m = wave
    state = quiet(solver)
    for kx in (k, -k):
        state["vorticity"][0, m, kx] = 0.25  # a half of each cosine; the negative waves along y are implied
    x, y = coordinates(solver)
    shape = torch.cos(k * x) * torch.cos(m * y)
    torch.testing.assert_close(solver.observe(state)[0, ..., 0].double(), shape, rtol=0, atol=1e-7)
    later = solver.observe(solver.advance(state))[0, ..., 0].double()
    expected = math.exp(-((k**2 + m**2) / 20 + 0.1)) * shape
    torch.testing.assert_close(later, expected, rtol=0, atol=1e-7)  # what float32 holds


def test_coefficients_of_the_time_scheme() -> None:
    z = torch.tensor([0.0, -1e-8, -1e-3, -0.5, -20.0, -5e3], dtype=torch.float64)
    h = 0.1
    decay, half, stage, first, middle, last = etdrk4(z / h, h)
    torch.testing.assert_close(decay, z.exp())
    torch.testing.assert_close(half, (z / 2).exp())
    # Series of the phi functions up to z^2 where they converge fast, closed forms elsewhere.
    small, large = z[:3], z[3:]
    torch.testing.assert_close(stage[:3], h * (1 / 2 + small / 8 + small**2 / 48), rtol=1e-11, atol=0)
    torch.testing.assert_close(first[:3], h * (1 / 6 + small / 6 + 3 * small**2 / 40), rtol=1e-9, atol=0)
    torch.testing.assert_close(middle[:3], h * (1 / 3 + small / 6 + small**2 / 20), rtol=1e-9, atol=0)
    torch.testing.assert_close(last[:3], h * (1 / 6 - small**2 / 120), rtol=1e-9, atol=0)
    e = large.exp()
    torch.testing.assert_close(stage[3:], h * ((large / 2).exp() - 1) / large, rtol=1e-12, atol=0)
    closed = {
        "first": (-4 - large + e * (4 - 3 * large + large**2)) / large**3,
        "middle": 2 * (2 + large + e * (large - 2)) / large**3,
        "last": (-4 - 3 * large - large**2 + e * (4 - large)) / large**3,
    }
    for found, expected in zip((first, middle, last), closed.values(), strict=True):
        torch.testing.assert_close(found[3:], h * expected, rtol=1e-11, atol=0)  # closed forms lose digits at 0.5


def test_time_integration_is_of_fourth_order() -> None:
    state = developed(make(step=1 / 32))
    exact = make(step=1 / 256).advance(state)["vorticity"]
    errors = [relative(make(step=step).advance(state)["vorticity"], exact) for step in (1 / 16, 1 / 32, 1 / 64)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    # Measured 3.9 to 4.1; order three would be far outside.
    assert orders == pytest.approx([4, 4], abs=0.25)


def test_energy_balance() -> None:
    """dE/dt = input - drag - dissipation, each as large as the rate or larger."""
    solver = make(grid=48, reynolds=200.0, frame_interval=1 / 32)
    state = solver.initial([0, 1, 2])
    for _ in range(32):
        state = solver.advance(state)
    frames = []
    for _ in range(3):
        frames.append(solver.observe(state).double())
        state = solver.advance(state)
    grid, names = solver.layout.grid, solver.layout.names
    parameters = {key: torch.tensor(value) for key, value in solver.parameters().items() if key != "reynolds"}
    energy = [kinetic_energy(frame, names, grid) for frame in frames]
    rate = (energy[2] - energy[0]) / (2 * solver.layout.dt)
    budget = energy_budget(frames[1], names, grid, **parameters)
    # One per cent of the rate is asked for; the central difference over 1/32 leaves about 1e-4.
    torch.testing.assert_close(budget.rate, rate, rtol=1e-2, atol=0)
    for term in (budget.input, budget.drag, budget.dissipation):
        assert (term > 0.05 * rate.abs()).all(), "a term this small would not be tested"


def test_frames_obey_the_equation() -> None:
    """The residual of frames, which has its own derivatives and sign conventions, goes to zero at second order."""
    solver = make(grid=48, reynolds=10.0, frame_interval=1 / 128, step=1 / 128)
    state = solver.initial([0, 1])
    frames = []
    for interval in range(73):
        if interval >= 56:
            frames.append(solver.observe(state).double())
        state = solver.advance(state)
    parameters = {key: torch.tensor(value)[:2] for key, value in solver.parameters().items() if key != "reynolds"}

    def residual(stride: int) -> Tensor:
        three = torch.stack(frames, 1)[:, 8 - stride : 9 + stride : stride]
        dt = stride * solver.layout.dt
        return vorticity_transport_residual(three, solver.layout.names, solver.layout.grid, dt, **parameters)[:, 0]

    # Around one moment; at this Reynolds number the waves that the solver leaves out of the product are below 1e-4.
    coarse, fine = residual(8), residual(4)
    torch.testing.assert_close((coarse / fine).log2(), torch.full((2,), 2.0).double(), rtol=0, atol=0.1)
    middle = torch.stack(frames, 1)[:, 7:10]
    terms = vorticity_transport_terms(middle, solver.layout.names, solver.layout.grid, solver.layout.dt, **parameters)
    size = {name: term.expand_as(terms["change"]).square().mean((-2, -1)).sqrt() for name, term in terms.items()}
    for name, rms in size.items():
        assert (rms > (0.01 if name == "drag" else 0.1) * size["viscosity"]).all(), f"{name} would not be tested"


def test_shifts_commute_with_the_flow() -> None:
    """Any shift along x, and a period of the force along y."""
    solver = make()
    state = developed(solver)
    n = solver.solve_grid
    ky = torch.arange(state["vorticity"].shape[1], dtype=torch.float64)[:, None]
    kx = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[None]
    shift = torch.exp(-1j * (kx * 0.3 + ky * 2 * math.pi / 4))
    moved = {**state, "vorticity": state["vorticity"] * shift}
    ours, theirs = solver.advance(moved)["vorticity"], solver.advance(state)["vorticity"] * shift
    assert relative(ours, theirs) < 1e-12  # rounding, a little amplified by the flow
    assert relative(solver.advance(state)["vorticity"], state["vorticity"]) > 0.1


def test_truncation_keeps_resolved_waves_exactly() -> None:
    fine = make(grid=48)
    state = developed(fine, 2)
    full = torch.fft.rfft2(fine.observe(state)[..., 0].double()) / 48**2
    for grid in (8, 20, 32, 46):
        coarse = make(grid=grid, forcing_wavenumber=3)
        found = torch.fft.rfft2(coarse.observe(state)[..., 0].double()) / grid**2
        kept = grid // 2
        # Rounding of the stored float32.
        torch.testing.assert_close(found[:, :kept, :kept], full[:, :kept, :kept], rtol=0, atol=1e-7)
        torch.testing.assert_close(found[:, -kept + 1 :, :kept], full[:, -kept + 1 :, :kept], rtol=0, atol=1e-7)
        assert found[..., kept].abs().max() < 1e-7, "the Nyquist wave has no sign of its own and is left out"


def test_the_product_is_free_of_aliases() -> None:
    """The rate of change of the kept waves is the same on a grid twice as fine, where no product can alias."""
    tiny = 1e-6  # so short that the waves which only the finer grid has cannot act back
    coarse, fine = (make(solve_grid=size, frame_interval=tiny, step=tiny) for size in (48, 96))
    state = developed(make(reynolds=1e4), 4)
    w = state["vorticity"]
    wide = torch.zeros(2, 32, 96, dtype=w.dtype)
    wide[:, :16, :16], wide[:, :16, -15:] = w[..., :16], w[..., -15:]
    ours = coarse.advance(state)["vorticity"] - w
    theirs = fine.advance({**state, "vorticity": wide})["vorticity"] - wide
    kept = ours[:, :, [*range(16), *range(-15, 0)]] != 0
    difference = (theirs[:, :16, [*range(16), *range(-15, 0)]] - ours[:, :, [*range(16), *range(-15, 0)]])[kept]
    # What the finer waves act back within a step is of the order of the step itself; an alias is of order one.
    assert difference.abs().norm() < 1e-5 * ours.abs().norm()
    assert kept.sum() > 2 * 300


def test_a_finer_solve_grid_starts_from_the_same_field() -> None:
    coarse, fine = (make(solve_grid=size).initial([1])["vorticity"][0] for size in (48, 64))
    waves = [*range(16), *range(-15, 0)]
    there = coarse[:, waves] != 0
    assert there.sum() > 300
    assert torch.equal(coarse[:, waves][there], fine[:16, waves][there])


def test_the_initial_field_has_its_spectrum() -> None:
    solver = make(trajectories=40, grid=64, solve_grid=128)
    state = solver.initial(range(40))["vorticity"]
    ky, kx = torch.arange(state.shape[1])[:, None], torch.fft.fftfreq(128, 1 / 128)[None]
    squared = kx**2 + ky**2
    expected = 2 * 7.0**3 * (squared + 49) ** -2.5
    inside = (squared > 0) & (9 * squared < 128**2)
    ratio = (state.abs().square() / expected)[:, inside]
    assert ratio.mean().item() == pytest.approx(1, abs=0.01)  # 40 x 3000 exponential variates: one sigma is 0.003
    assert ratio.var().item() == pytest.approx(1, abs=0.05)  # |c|^2 of a complex normal is exponential
    assert state[:, ~inside].abs().max() == 0
    omega = solver.observe({"vorticity": state})
    assert omega.std().item() == pytest.approx(2.0, abs=0.1)  # a published generator gives about 2.0
    assert omega.mean((1, 2, 3)).abs().max() < 1e-6
    # The conjugate pairs of ky = 0 are conjugate: what is transformed is a real field.
    torch.testing.assert_close(state[:, 0, 1:], state[:, 0, 1:].flip(-1).conj(), rtol=0, atol=0)


def test_seeds() -> None:
    batch = make().initial([0, 1, 2])["vorticity"]
    assert torch.equal(make(trajectories=9).initial([2, 0])["vorticity"], batch[[2, 0]])
    assert torch.equal(make(precision="float32").initial([1])["vorticity"][0], batch[1].to(torch.complex64))
    assert relative(batch[0], batch[1]) > 1
    assert relative(make(seed=1).initial([0])["vorticity"][0], batch[0]) > 1


def test_trajectories_do_not_depend_on_the_batch() -> None:
    solver = make(reynolds=[50.0, 100.0, 200.0])
    together = solver.advance(solver.initial([0, 1, 2]))
    for index in range(3):
        alone = solver.advance(solver.initial([index]))["vorticity"]
        assert (
            relative(alone[0], together["vorticity"][index]) < 1e-12
        )  # transforms of other lengths may round elsewhere
        other = make(reynolds=[50.0, 100.0, 200.0][index]).advance(solver.initial([index]))["vorticity"]
        assert relative(other[0], together["vorticity"][index]) < 1e-12
    # Repeated in turn, and said so.
    solver = make(trajectories=5, reynolds=[50.0, 100.0])
    assert solver.parameters()["reynolds"] == [50.0, 100.0, 50.0, 100.0, 50.0]
    assert solver.parameters()["viscosity"] == [0.02, 0.01, 0.02, 0.01, 0.02]
    assert {len(values) for values in solver.parameters().values()} == {5}


def test_single_precision_follows_double() -> None:
    double, single = make(), make(precision="float32")
    states = {"d": double.initial([0, 1]), "s": single.initial([0, 1])}
    for _ in range(4):
        states = {"d": double.advance(states["d"]), "s": single.advance(states["s"])}
    assert states["s"]["vorticity"].dtype == torch.complex64
    # 64 steps of rounding at 6e-8, amplified by a flow that doubles errors in about a time unit.
    assert relative(states["s"]["vorticity"].to(torch.complex128), states["d"]["vorticity"]) < 1e-5


def test_a_saved_state_continues_bit_for_bit(tmp_path: Path) -> None:
    solver = make(reynolds=[50.0, 100.0])
    state = solver.advance(solver.initial([1, 2]))
    before = state["vorticity"].clone()
    torch.save(state, tmp_path / "state.pt")
    uninterrupted = solver.advance(state)["vorticity"]
    assert torch.equal(state["vorticity"], before), "advance must not change the state it is given"
    again = rebuild(solver.describe(), Solver)
    resumed = again.advance(torch.load(tmp_path / "state.pt", weights_only=True))["vorticity"]
    assert torch.equal(resumed, uninterrupted)


def test_run_warms_up_and_yields_the_frames() -> None:
    solver = make(warmup_time=0.5, forcing_wavenumber=3)
    assert solver.warmup == 2
    frames = list(solver.run([0, 2]))
    assert len(frames) == 3
    assert frames[0].shape == (2, *solver.layout.grid.shape, len(solver.layout.fields))
    assert frames[0].dtype == torch.float32
    state = solver.initial([0, 2])
    for _ in range(4):
        state = solver.advance(state)
    assert torch.equal(frames[2], solver.observe(state))


def test_too_long_a_step_is_an_error_that_names_the_trajectories() -> None:
    solver = make(trajectories=5, step=1 / 16)
    state = solver.initial([4, 0])
    state["vorticity"][1] *= 30
    with pytest.raises(
        ValueError, match=r"step: got 0.0625, with which trajectories \[0\] \(positions \[1\].*reduce step"
    ):
        solver.advance(state)
    state["vorticity"][0, 1, 1] = math.nan
    with pytest.raises(ValueError, match=r"trajectories \[4, 0\].*nan.*reduce step"):
        solver.advance(state)


def test_the_courant_number_is_that_of_the_flow() -> None:
    """Shear u = U sin(2y), decaying at the rate 4/Re + drag: |u| step s/3 is known."""
    solver = make(forcing_amplitude=0.0, reynolds=40.0, drag=0.1, step=1 / 16)
    state = quiet(solver)
    state["vorticity"][0, 2, 0] = -2 * 10 / 2  # -2 U cos(2y), half of it in the wave that is not stored
    expected = 10 * math.exp(-0.2 * 0.25) / 16 * 48 / 3
    with pytest.raises(ValueError, match=rf"reach \|u\| step s/3 = \[{expected:.2f}\]"):
        solver.advance(state)


def test_what_is_called_stable_is() -> None:
    """At nine tenths of the limit, flow without viscosity, drag and force keeps its enstrophy or loses some."""
    solver = make(grid=48, forcing_amplitude=0.0, reynolds=1e9, drag=0.0, step=1 / 16)
    state = solver.initial([0, 1])
    speed = (
        velocity_from_vorticity(solver.observe(state)[..., 0], solver.layout.grid).square().sum(-1).amax((1, 2)).sqrt()
    )
    state["vorticity"] *= (0.9 * 2 * math.sqrt(2) / (speed / 16 * 48 / 3))[:, None, None]
    before = solver.observe(state).square().mean((1, 2, 3))
    for _ in range(8):
        state = solver.advance(state)
    after = solver.observe(state).square().mean((1, 2, 3))
    # Fourth-order Runge-Kutta damps what it does not resolve in time; an unstable wave would have grown a thousandfold.
    assert (after < before).all() and (after > 0.5 * before).all()


WRONG = [
    ({"grid": 64}, "grid: got 64, finer than solve_grid 48"),
    ({"grid": 31}, "grid: got 31, expected an even"),
    ({"solve_grid": 49}, "solve_grid: got 49, expected an even"),
    ({"forcing_wavenumber": 16}, r"forcing_wavenumber: got 16, too many for grid 32"),
    ({"forcing_wavenumber": 2.5}, "forcing_wavenumber: got 2.5, expected a whole number"),
    ({"frame_interval": 0.1}, "frame_interval: got 0.1, which is 6.4 times step"),
    ({"step": 0.0}, "step: got 0.25, 0.0"),
    ({"warmup_time": 0.3}, "warmup_time: got 0.3, which is 1.2 times frame_interval"),
    ({"reynolds": [100.0, -1.0]}, "reynolds: got"),
    ({"reynolds": []}, "reynolds: got"),
    ({"drag": -0.1}, "drag"),
    ({"trajectories": 0}, "trajectories: got 0"),
    ({"precision": "float16"}, "precision: got 'float16'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_arguments_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_unforced_flow_needs_no_resolved_force() -> None:
    assert make(forcing_amplitude=0.0, forcing_wavenumber=40).parameters()["forcing_amplitude"] == [0.0] * 3
    with pytest.raises(ValueError, match=r"trajectories: got \[3\], expected one or more of 0 to 2"):
        make().initial([3])
