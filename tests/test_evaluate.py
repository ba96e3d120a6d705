"""The evaluator: exact numbers on known states, refusals, blow-ups, and the real stores end to end."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from rollouts import Memory, layout_of, rolled, turbulence
from settings import exact, make_steady_store

from physml import evaluate as module_function
from physml.datasets.store import StoreWriter
from physml.datasets.trajectories import Segment, Trajectories
from physml.evaluate import evaluate
from physml.fields import Axis, Boundary, Field, Grid, Layout
from physml.metrics import UndefinedMetric, relative_l2
from physml.results import DEFINITIONS, over_samples, save, summary
from physml.rollout import write_rollout
from physml.solvers.kolmogorov2d import Kolmogorov2D

EPS = np.finfo(np.float64).eps

CASES = {
    "1-D scalar": ((24,), ("height",)),
    "1-D velocity": ((24,), ("velocity_x",)),
    "2-D vorticity": ((12, 16), ("vorticity",)),
    "2-D velocity and pressure": ((12, 16), ("velocity_x", "velocity_y", "pressure")),
    "3-D velocity and density": ((8, 6, 10), ("velocity_x", "velocity_y", "velocity_z", "density")),
}
FLOW = {"1-D velocity", "2-D vorticity", "2-D velocity and pressure", "3-D velocity and density"}


@pytest.mark.parametrize("case", CASES)
def test_a_perfect_prediction(case: str) -> None:
    space, fields = CASES[case]
    states = turbulence(3, 9, space, len(fields))
    data = Memory(states, layout_of(space, fields), viscosity=0.01)
    results = evaluate(rolled(data, states[:, 2:], [0, 1, 2], [2, 2, 2]), data)
    for name in ("nrmse", "vrmse", "rmse", "relative_l2"):
        assert (results[name] == 0).all(), name
    # A covariance divided by itself: rounding only.
    np.testing.assert_allclose(results["correlation"], 1, rtol=10 * EPS)
    assert (results["log_spectral_error"] == 0).all()
    for name in results:
        if str(name).endswith("_truth"):
            np.testing.assert_array_equal(results[str(name).removesuffix("_truth")], results[name])
    assert results["stable"].all() and results["compared"].all()
    assert list(results["horizon"].values) == [1, 4, 7]
    assert ("kinetic_energy" in results) == (case in FLOW)
    assert ("enstrophy" in results) == (case in FLOW and len(space) > 1)
    assert ("divergence" in results) == ("velocity_x" in fields)
    assert ("residual" in results) == (case in FLOW and len(space) == 2)
    assert ("energy_spectrum" in results) == (case in FLOW)
    assert "variance_spectrum" in results


@pytest.mark.parametrize("case", CASES)
def test_every_number_says_what_it_is(case: str) -> None:
    space, fields = CASES[case]
    states = turbulence(2, 4, space, len(fields))
    data = Memory(states, layout_of(space, fields, units="m/s"), viscosity=0.01)
    results = evaluate(rolled(data, states[:, 1:], [0, 1], [1, 1]), data)
    for name, variable in results.items():
        assert variable.attrs["definition"].startswith(DEFINITIONS[str(name).removesuffix("_truth")])
        assert {"units", "long_name"} <= set(variable.attrs)
    assert results["rmse"].attrs["units"] == "m/s" and results["nrmse"].attrs["units"] == ""
    told = summary(results)
    for name, entry in told["metrics"].items():
        assert len(entry["definition"]) > 20 and entry["rows"], name
    assert told["correlation_time"]["definition"] and told["blowups"]["definition"]


@pytest.mark.parametrize(
    ("field", "length", "energy", "enstrophy"),
    [
        (Field("vorticity", "1/s"), "m", "(m/s)^2", "(1/s)^2"),
        (Field("vorticity", "U/D"), "D", "U^2", "(U/D)^2"),
        (Field("vorticity", "1/s"), "", "", "(1/s)^2"),
        (Field("vorticity"), "m", "", ""),
        (Field("velocity_x", "U"), "D", "U^2", None),
        (Field("velocity_x", "m/s"), "m", "(m/s)^2", None),
    ],
)
def test_units_of_squares(field: Field, length: str, energy: str, enstrophy: str | None) -> None:
    axes = tuple(Axis.periodic_uniform(name, 8, 1.0, length) for name in ("xy" if field.name == "vorticity" else "x"))
    states = turbulence(1, 3, [8] * len(axes), 1)
    data = Memory(states, Layout((field,), Grid(axes), 0.5))
    results = evaluate(rolled(data, states[:, 1:], [0], [1]), data)
    assert results["kinetic_energy"].attrs["units"] == results["energy_spectrum"].attrs["units"] == energy
    assert "enstrophy" not in results if enstrophy is None else results["enstrophy"].attrs["units"] == enstrophy


def test_the_last_wavenumber_of_the_spectral_error_is_told() -> None:
    """64 and 32 points on lengths 2 and 1: both Nyquist wavenumbers are 32 pi, and two thirds of them lie in the 21st
    shell of width pi. Beyond it a spectrum may be as wrong as it likes."""
    axes = (Axis.periodic_uniform("x", 64, 2.0), Axis.periodic_uniform("y", 32, 1.0))
    x = axes[0].points.numpy()
    data = Memory(turbulence(1, 3, (64, 32), 1), Layout((Field("height"),), Grid(axes), 0.5))
    for shell, seen in ((21, True), (22, False)):
        wave = 0.5 * np.cos(math.pi * shell * x)[:, None, None]
        results = evaluate(rolled(data, data.states[:, 1:] + wave, [0], [1]), data)
        assert results.attrs["physml"]["shell_limit"] == pytest.approx(21 * math.pi, rel=1e-12)  # rounding
        # float32 states: shells that are equal differ by 1e-6.
        assert (float(results["log_spectral_error"].max()) > 1e-3) == seen
    stretched = torch.linspace(0, 1, 9, dtype=torch.float64) ** 1.5
    wall = Layout((Field("height"),), Grid((Axis("y", stretched, Boundary.WALL, 1.0),)), 0.5)
    data = Memory(turbulence(1, 3, (9,), 1), wall)
    results = evaluate(rolled(data, data.states[:, 1:], [0], [1]), data)
    assert "wavenumber" not in results.dims and results.attrs["physml"]["shell_limit"] is None


def test_a_shifted_wave() -> None:
    """Truth sin(x - ct), prediction the same wave ahead by a and larger by 5/4. With q = 5/4: mean square of the error
    is (1 + q^2 - 2 q cos a)/2, of the truth 1/2; the correlation is cos a; all energy q^2/4 lies in the first shell."""
    n, leads, speed, ahead, q = 32, 6, 0.7, 0.4, 1.25
    layout = layout_of((n,), ("velocity_x",), dt=0.25)
    x, t = layout.grid.axes[0].points.numpy(), 0.25 * np.arange(leads + 1)
    truth = np.sin(x - speed * t[:, None])[None, ..., None]
    wave = q * np.sin(x - speed * t[1:, None] - ahead)[None, ..., None]
    data = Memory(truth, layout)
    results = evaluate(rolled(data, wave, [0], [1]), data)
    error = math.sqrt(1 + q**2 - 2 * q * math.cos(ahead))
    # Stored states are float32: 6e-8 relative, times a few for the norm of a difference.
    exact = {"rtol": 1e-6, "atol": 0}
    np.testing.assert_allclose(results["nrmse"], error, **exact)
    np.testing.assert_allclose(results["relative_l2"], error, **exact)
    np.testing.assert_allclose(results["rmse"], error / math.sqrt(2), **exact)
    np.testing.assert_allclose(results["vrmse"], error * math.sqrt((n - 1) / n), **exact)
    np.testing.assert_allclose(results["correlation"], math.cos(ahead), **exact)
    np.testing.assert_allclose(results["kinetic_energy"], q**2 / 4, **exact)
    np.testing.assert_allclose(results["energy_spectrum"].sel(wavenumber=1.0), q**2 / 4, **exact)
    np.testing.assert_allclose(results["log_spectral_error"], 2 * math.log(q), **exact)
    np.testing.assert_allclose(results["divergence"], 1, **exact)  # in one dimension the gradient is the divergence
    np.testing.assert_allclose(results["lead_time"], 0.25 * np.arange(1, 7))


def test_residual_of_an_exact_solution() -> None:
    """The decaying vortex ``omega = 2 cos x cos y exp(-2 nu t)`` advects nothing. The central difference turns the rate
    ``2 nu`` into ``sinh(2 nu dt)/dt``, and nothing else is approximated: the residual is known exactly."""
    nu, dt, leads = 0.05, 0.5, 6
    layout = layout_of((16, 16), ("vorticity",), dt=dt)
    x, y = np.meshgrid(*(axis.points.numpy() for axis in layout.grid.axes), indexing="ij")
    t = dt * np.arange(leads + 1)
    truth = (2 * np.cos(x) * np.cos(y) * np.exp(-2 * nu * t[:, None, None]))[None, ..., None]
    data = Memory(truth, layout, viscosity=nu)
    results = evaluate(rolled(data, truth[:, 1:], [0], [1]), data)
    change = math.sinh(2 * nu * dt) / dt
    for name in ("residual", "residual_truth"):
        # float32 states of size 2 differ by 0.1 per frame, so the change has a relative error of 1e-6; the residual is
        # 4e-4 of it.
        np.testing.assert_allclose(results[name][0, :-1], (change - 2 * nu) / change, rtol=1e-2)
        assert np.isnan(results[name][0, -1])  # no frame after the last
    # A prediction that stands still has lost the change, which is the largest term.
    still = evaluate(rolled(data, np.repeat(truth[:, :1], leads, axis=1), [0], [1]), data)
    np.testing.assert_allclose(still["residual"][0, :-1], 1, rtol=1e-5)


def test_frames_of_the_solver_obey_its_equation() -> None:
    """Viscosity, drag and forcing reach the residual from the parameters of the data. What is left in resolved flow is
    the central difference in time, of second order: half the interval, a quarter of the residual. A wrong drag is seen.
    """
    found = {}
    for interval, lead in ((1 / 16, 1), (1 / 32, 2)):  # the same instant
        solver = Kolmogorov2D(
            trajectories=1,
            frames=5,
            grid=48,
            solve_grid=48,
            reynolds=5.0,
            forcing_wavenumber=2,
            frame_interval=interval,
            step=1 / 128,
            warmup_time=1.0,
        )
        states = torch.stack(list(solver.run([0])), 1).numpy()
        data = Memory(states, solver.layout)
        data.parameters = {name: np.array(values) for name, values in solver.parameters().items()}
        store = rolled(data, states[:, 1:], [0], [1])
        found[interval] = evaluate(store, data)["residual_truth"].sel(lead=lead).item()
        data.parameters["drag"] = 2 * data.parameters["drag"]
        found[-interval] = evaluate(store, data)["residual_truth"].sel(lead=lead).item()
    assert found[1 / 16] < 1e-3
    # The next term of the central difference is another (dt/2)^2 of this one; float32 states add 1e-6.
    assert math.log2(found[1 / 16] / found[1 / 32]) == pytest.approx(2, abs=0.02)
    assert found[-1 / 32] > 10 * found[1 / 32]


def test_the_truth_is_taken_from_the_right_frames() -> None:
    """Every frame is a constant that names it: trajectory, frame. With stride 3 lead l of frame f is f + 3 (l - 1)."""
    space = (6,)
    states = np.zeros((2, 20, *space, 1)) + np.arange(1, 21)[:, None, None] + 100 * np.arange(2)[:, None, None, None]
    data = Memory(states, layout_of(space, ("height",)))
    predicted = np.stack([states[1, [4, 7, 10, 13]], states[0, [8, 11, 14, 17]]])
    with pytest.warns(UndefinedMetric):
        results = evaluate(rolled(data, predicted, [1, 0], [4, 8], stride=3), data)
    assert (results["rmse"] == 0).all()
    with pytest.warns(UndefinedMetric):
        results = evaluate(rolled(data, predicted + 1, [1, 0], [4, 8], stride=3), data)
    assert (results["rmse"] == 1).all()
    assert results["lead_time"].values.tolist() == [1.5, 3.0, 4.5, 6.0]


def test_relative_l2_is_that_of_the_metric() -> None:
    states = turbulence(2, 9, (8, 6), 2)
    data = Memory(states, layout_of((8, 6), ("height", "depth")))
    predicted = states[:, 1:] + 0.1 * turbulence(2, 8, (8, 6), 2, seed=1)
    results = evaluate(rolled(data, predicted, [0, 1], [1, 1]), data, horizons=(2, 5))
    assert list(results["horizon"].values) == [2, 5, 8]
    x, y = (torch.from_numpy(values.astype(np.float32)).double() for values in (predicted, states[:, 1:]))
    for horizon in (2, 5, 8):
        wanted = relative_l2(x[:, :horizon], y[:, :horizon], data.layout.grid)
        np.testing.assert_allclose(results["relative_l2"].sel(horizon=horizon), wanted, rtol=100 * EPS)


@pytest.mark.parametrize("case", CASES)
def test_blocks_change_nothing_and_bound_what_is_read(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space, fields = CASES[case]
    states = turbulence(2, 12, space, len(fields))
    data = Memory(states, layout_of(space, fields), viscosity=0.01)
    predicted = states[:, 1:] + 0.1 * turbulence(2, 11, space, len(fields), seed=1)
    predicted[0, 4] *= 10  # leaves the band of energy and comes back
    predicted[1, 7:] = np.nan
    store = rolled(data, predicted, [0, 1], [1, 1])
    whole = evaluate(store, data)
    assert data.longest == (12 if "residual" in whole else 11)
    assert whole["unstable_from"].values.tolist() == [5, 8]
    data.longest = 0
    monkeypatch.setattr(sys.modules["physml.evaluate"], "_BLOCK_BYTES", 3 * 8 * math.prod(space) * len(fields))
    parts = evaluate(store, data)
    assert data.longest == (5 if "residual" in whole else 3)  # a neighbour on either side
    for name in whole:
        # Batched transforms may round in another order.
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12, atol=1e-14, err_msg=str(name))


def test_a_marked_blowup_is_left_out_and_counted() -> None:
    states = turbulence(4, 11, (12, 16), 1)
    data = Memory(states, layout_of((12, 16), ("vorticity",)))
    predicted = states[:, 1:] + 0.1 * turbulence(4, 10, (12, 16), 1, seed=1)
    clean = evaluate(rolled(data, predicted[:3], [0, 1, 2], [1] * 3), data)
    predicted[3, 5:] = np.nan
    results = evaluate(rolled(data, predicted, [0, 1, 2, 3], [1] * 4), data)
    assert results["unstable_from"].values.tolist() == [0, 0, 0, 6]
    assert results["stable"].sum("sample").values.tolist() == [4] * 5 + [3] * 5
    table = over_samples(results, "nrmse")
    assert table["samples"].values[:, 0].tolist() == [4] * 5 + [3] * 5
    np.testing.assert_allclose(table["mean"][5:], clean["nrmse"].mean("sample")[5:], rtol=1e-12)
    np.testing.assert_allclose(results["energy_spectrum"][5:], clean["energy_spectrum"][5:], rtol=1e-12)
    np.testing.assert_allclose(results["energy_spectrum_truth"][5:], clean["energy_spectrum_truth"][5:], rtol=1e-12)
    assert (results["energy_spectrum"][:5] != clean["energy_spectrum"][:5]).all(("lead",)).any()
    told = summary(results)
    assert told["blowups"]["count"] == told["blowups"]["marked_by_rollout"] == 1
    assert told["blowups"]["rows"] == [{"sample": 3, "lead": 6, "lead_time": 3.0}]
    last = next(row for row in told["metrics"]["relative_l2"]["rows"] if row["horizon"] == 10)
    assert last["samples"] == 3
    # It counts as uncorrelated from lead 6 on: 3/4 is below 0.8.
    assert min(clean["correlation"].values.min(), results["correlation"].values[:, :5].min()) > 0.95
    times = {row["threshold"]: row for row in told["correlation_time"]["rows"]}
    assert times[0.8]["time"] == 3.0 and times[0.8]["reached"]
    assert not summary(clean)["correlation_time"]["rows"][0]["reached"]


@pytest.mark.parametrize(("factor", "unstable"), [(0.6, False), (1.3, False), (0.4, True), (2.3, True)])
def test_leaving_the_band_of_energy_is_a_blowup(factor: float, unstable: bool) -> None:
    """The truth's kinetic energy goes from E to 4 E: the band is [E/2, 8 E]. A prediction of the last frame times s has
    4 s^2 E: it is inside for 0.6 (1.4 E) and 1.3 (6.8 E), outside for 0.3 (0.36 E) and 2.3."""
    pattern = turbulence(2, 1, (12, 16), 1)
    states = pattern * np.linspace(1, 2, 6)[:, None, None, None]
    data = Memory(
        np.repeat(pattern[:1], 2, 0) * np.linspace(1, 2, 6)[:, None, None, None], layout_of((12, 16), ("vorticity",))
    )
    predicted = data.states[:, 1:].copy()
    predicted[1, 3] = data.states[1, 5] * (factor if factor > 0.5 or not unstable else 0.3)
    results = evaluate(rolled(data, predicted, [0, 1], [1, 1]), data)
    assert states.shape == data.states.shape
    assert results["unstable_from"].values.tolist() == [0, 4 if unstable else 0]
    assert results["stable"][1].values.tolist() == [True] * 3 + [not unstable] * 2  # it does not come back
    told = summary(results)["blowups"]
    assert (told["count"], told["marked_by_rollout"]) == (int(unstable), 0)


def test_without_a_velocity_the_variance_of_each_field_decides() -> None:
    states = turbulence(1, 6, (24,), 2)
    states[..., 1] = 3.0  # constant in space: its variance sets no scale
    data = Memory(states, layout_of((24,), ("height", "depth")))
    predicted = states[:, 1:].copy()
    predicted[0, 1, :, 1] += np.arange(24)
    predicted[0, 3, :, 0] *= 3
    with pytest.warns(UndefinedMetric):
        results = evaluate(rolled(data, predicted, [0], [1]), data)
    assert results["unstable_from"].values.tolist() == [4]


def test_a_rollout_longer_than_the_data() -> None:
    """Frames 0 to 7 are known; leads 1 to 4 have a truth, leads 5 to 9 have none."""
    states = turbulence(2, 8, (12, 16), 1)
    data = Memory(states, layout_of((12, 16), ("vorticity",)), viscosity=0.1)
    predicted = np.concatenate([states[:, 4:], states[:, :5]], axis=1)
    results = evaluate(rolled(data, predicted, [0, 1], [4, 4]), data)
    assert results["compared"][0].values.tolist() == [True] * 4 + [False] * 5
    assert (results["rmse"][:, :4] == 0).all() and results["rmse"][:, 4:].isnull().all()
    assert results["kinetic_energy"].notnull().all() and results["kinetic_energy_truth"][:, 4:].isnull().all()
    assert results["energy_spectrum"].notnull().all() and results["energy_spectrum_truth"][4:].isnull().all()
    assert (results["log_spectral_error"][:4] == 0).all() and results["log_spectral_error"][4:].isnull().all()
    assert results["residual"][:, :-1].notnull().all() and results["residual_truth"][:, 3:].isnull().all()
    times = summary(results)["correlation_time"]["rows"]
    assert times[0]["time"] == 2.0 and not times[0]["reached"]  # four leads of 0.5 were compared
    alone = results["energy_spectrum"][4:].values
    one = predicted.copy()
    one[1, 6:] = np.nan
    results = evaluate(rolled(data, one, [0, 1], [4, 4]), data)
    np.testing.assert_array_equal(results["energy_spectrum"][4:6], alone[:2])
    assert results["energy_spectrum"][6:].notnull().all() and (results["energy_spectrum"][6:] != alone[2:]).any()
    with pytest.raises(ValueError, match="starts after the last frame"):
        evaluate(rolled(data, predicted, [0, 1], [8, 8]), data)


def test_obstacles_and_stretched_axes() -> None:
    """What stands in the solid does not matter, and numbers are weighted by the width of the cells."""
    mask = torch.ones(12, 9, dtype=torch.bool)
    mask[3:6, 2:5] = False
    y = torch.linspace(0, 1, 9, dtype=torch.float64) ** 1.5
    axes = (Axis.periodic_uniform("x", 12, 1.0), Axis("y", y, Boundary.WALL, 1.0))
    layout = Layout((Field("velocity_x"), Field("velocity_y")), Grid(axes, mask), 0.5)
    states = turbulence(1, 5, (12, 9), 2)
    data = Memory(states, layout)
    predicted = states[:, 1:] + 0.1 * turbulence(1, 4, (12, 9), 2, seed=1)
    first = evaluate(rolled(data, predicted, [0], [1]), data)
    predicted[:, :, ~mask.numpy()] = 99
    second = evaluate(rolled(data, predicted, [0], [1]), data)
    for name in ("nrmse", "vrmse", "rmse", "correlation", "relative_l2", "kinetic_energy", "divergence"):
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    error = (predicted[0, 0] - states[0, 1]) ** 2
    weights = mask.numpy() * axes[1].weights.numpy()
    wanted = np.sqrt((error * weights[..., None]).sum((0, 1)) / weights.sum())
    np.testing.assert_allclose(first["rmse"][0, 0], wanted, rtol=1e-5)  # states are stored in float32


def test_undefined_values_are_counted_and_said_once() -> None:
    states = turbulence(2, 5, (24,), 2)
    states[0, ..., 1] = 0
    data = Memory(states, layout_of((24,), ("height", "depth")))
    predicted = states[:, 1:] + 0.1 * turbulence(2, 4, (24,), 2, seed=1)
    predicted[0, ..., 1] = 1e-3
    with pytest.warns(UndefinedMetric) as said:
        results = evaluate(rolled(data, predicted, [0, 1], [1, 1]), data)
    assert sorted(str(one.message).split(":")[0] for one in said) == ["correlation", "nrmse", "vrmse"]
    assert results["nrmse"].attrs["undefined"] == 4 and np.isinf(results["nrmse"][0, :, 1]).all()
    assert results["correlation"].attrs["undefined"] == 4
    assert results["relative_l2"].attrs["undefined"] == 0
    rows = [row for row in summary(results)["metrics"]["nrmse"]["rows"] if row["field"] == "depth"]
    assert all(row["samples"] == 1 and math.isfinite(row["mean"]) and row["low"] is None for row in rows)


def test_refusals() -> None:
    states = turbulence(2, 5, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    good = rolled(data, states[:, 1:], [0, 1], [1, 1])

    def refuse(message: str, store: xr.Dataset = good, truth: Trajectories = data) -> None:
        with pytest.raises(ValueError, match=message):
            evaluate(store, truth)

    other = Memory(states, layout_of((24,), ("height",)))
    other.fingerprint = "beef"
    refuse("truth: memory has fingerprint beef, the rollout .* started from data with f00d", truth=other)
    refuse("differ in fields", truth=Memory(states, layout_of((24,), ("depth",))))
    refuse("differ in frame interval", truth=Memory(states, layout_of((24,), ("height",), dt=0.25)))
    refuse("was interrupted", rolled(data, states[:, 1:], [0, 1], [1, 1], complete=False))
    refuse("is no rollout", rolled(data, states[:, 1:], [0, 1], [1, 1], kind="trajectories"))
    refuse("lacks blowup", good.drop_vars("blowup"))
    refuse("names trajectory 5", rolled(data, states[:, 1:], [0, 5], [1, 1]))
    refuse("the store is damaged", good.isel(x=slice(0, 20)))
    holed = good.copy(deep=True)
    holed["state"][1, 2] = np.nan
    refuse("sample 1, lead 3 is not finite though no blow-up is marked", holed)
    with pytest.raises(ValueError, match="confidence: got 95"):
        evaluate(good, data, confidence=95)
    with pytest.raises(ValueError, match="horizons"):
        evaluate(good, data, horizons=(0, 4))


def test_a_rollout_from_the_first_frame_has_no_known_frame_before() -> None:
    states = turbulence(1, 5, (12, 16), 1)
    data = Memory(states, layout_of((12, 16), ("vorticity",)), viscosity=0.1)
    results = evaluate(rolled(data, states, [0], [0]), data)
    assert (results["rmse"] == 0).all()
    assert results["residual"].notnull()[0].values.tolist() == [False, True, True, True, False]


def test_progress_is_told() -> None:
    states, seen = turbulence(3, 5, (24,), 1), []
    data = Memory(states, layout_of((24,), ("height",)))
    evaluate(rolled(data, states[:, 1:], [0, 1, 2], [1] * 3), data, progress=lambda *now: seen.append(now))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_real_stores_end_to_end(tmp_path: Path) -> None:
    """Data written by the store writer, rolled out with persistence by the rollout writer, evaluated by path."""
    from physml.emulator import Emulator, Origin
    from physml.normalise import Standardise
    from physml.operators.persistence import Persistence

    layout = layout_of((12, 16), ("vorticity",), dt=0.25)
    states = turbulence(4, 16, (12, 16), 1).astype(np.float32)
    segments = {"train": [Segment(0, 0, 16), Segment(1, 0, 16)], "test": [Segment(2, 0, 16), Segment(3, 0, 16)]}
    writer = StoreWriter(
        tmp_path / "data.zarr",
        name="test",
        layout=layout,
        count=4,
        frames=16,
        parameters={"viscosity": [0.01] * 4},
        segments=segments,
        provenance={"seed": 0},
    )
    step = writer.chunk_frames
    digests = [
        "".join(writer.write(row, begin, states[row, begin : begin + step]) for begin in range(0, 16, step))
        for row in range(4)
    ]
    data = writer.finish(digests)
    emulator = Emulator(Persistence(channels=1, axes=2), Standardise())
    emulator.learn(Origin(layout, data.statistics.to_plain(), 2, data.fingerprint))
    out = write_rollout(emulator, data, tmp_path / "rollout.zarr", steps=4, starts=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetric)
        results = evaluate(out)
    with xr.open_zarr(out) as opened:
        xr.testing.assert_allclose(evaluate(opened, data), results)
    assert results.sizes["sample"] == 2
    begin, row = int(results["frame"][0]), int(results["trajectory"][0])
    known, truth = states[row, begin - 2].astype(float), states[row, begin : begin + 7 : 2].astype(float)
    wanted = np.sqrt(((truth - known) ** 2).mean((1, 2, 3)))
    # The emulator's change of units rounds to float32 twice.
    np.testing.assert_allclose(results["rmse"][0, :, 0], wanted, rtol=1e-5)
    assert results["residual"].notnull()[:, :-1].all()
    assert evaluate is module_function
    folder = save(results, tmp_path / "run")
    assert json.loads((folder / "metrics.json").read_text())["source"]["fingerprint"] == data.fingerprint


def test_a_steady_rollout_is_measured_at_its_only_lead(tmp_path: Path) -> None:
    steady = make_steady_store(tmp_path / "steady.zarr")
    results = evaluate(write_rollout(exact(steady), steady, tmp_path / "x.zarr", steps=1))
    assert results.sizes["lead"] == 1 and results["horizon"].values.tolist() == [1]
    # the prediction is the truth, bit for bit
    assert not results["relative_l2"].any() and not results["rmse"].any() and results["stable"].all()
    np.testing.assert_allclose(results["correlation"], 1.0, rtol=1e-12)
    told = summary(results)
    assert told["leads"] == 1 and [row["mean"] for row in told["metrics"]["relative_l2"]["rows"]] == [0.0]
    save(results, tmp_path / "run")
    twice = evaluate(write_rollout(exact(steady, steps=2), steady, tmp_path / "y.zarr", steps=2, start=[0]))
    # a second frame has no truth: it is compared with nothing
    assert twice["compared"].values.tolist() == [[True, False]] * 2 and twice["rmse"][:, 1].isnull().all()
