"""Means, intervals, the summary and the files of results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rollouts import Memory, layout_of, rolled, turbulence

from physml.evaluate import evaluate
from physml.results import Unstable, load, over_samples, save, squared, summary


def test_intervals_are_over_trajectories_or_over_windows_of_one() -> None:
    states = turbulence(3, 25, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))

    def told(trajectory: list[int], frame: list[int]) -> dict[str, Any]:
        truth = np.stack([states[row, begin : begin + 4] for row, begin in zip(trajectory, frame, strict=True)])
        noise = 0.1 * turbulence(len(frame), 4, (24,), 1, seed=1)
        return summary(evaluate(rolled(data, truth + noise, trajectory, frame), data, confidence=0.9))

    several = told([0, 0, 1, 1, 2], [1, 9, 1, 9, 1])
    assert several["interval"] == {
        "confidence": 0.9,
        "resamples": 2000,
        "seed": 0,
        "over": "trajectories",
        "units": 3,
    }
    assert (several["samples"], several["trajectories"]) == (5, 3)
    single = told([1, 1, 1, 1], [1, 9, 11, 20])
    assert single["interval"]["over"] == "non-overlapping windows of one trajectory"
    assert single["interval"]["units"] == 3  # the windows from frames 9 and 11 overlap
    row = single["metrics"]["nrmse"]["rows"][0]
    assert row["low"] < row["mean"] < row["high"]
    assert told([1], [1])["metrics"]["nrmse"]["rows"][0]["low"] is None


def test_windows_of_the_summary() -> None:
    states = turbulence(2, 31, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    results = evaluate(rolled(data, states[:, 1:] * 1.1, [0, 1], [1, 1]), data)
    told = summary(results)["metrics"]
    rows = {row["window"]: row["mean"] for row in told["vrmse_windows"]["rows"]}
    assert set(rows) == {"6:12", "13:30"}
    assert rows["6:12"] == pytest.approx(float(results["vrmse"].sel(lead=slice(6, 12)).mean()), rel=1e-12)
    assert rows["13:30"] == pytest.approx(float(results["vrmse"].sel(lead=slice(13, 30)).mean()), rel=1e-12)
    logarithmic = [row["window"] for row in told["vrmse_log_windows"]["rows"]]
    assert logarithmic[0] == "1:1" and logarithmic[-1].endswith(":30")


def test_a_part_of_the_results_keeps_its_intervals() -> None:
    states = turbulence(5, 9, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    predicted = states[:, 1:] + np.linspace(0.1, 0.5, 5)[:, None, None, None] * turbulence(5, 8, (24,), 1, seed=1)
    results = evaluate(rolled(data, predicted, [0, 1, 2, 3, 4], [1] * 5), data)
    whole, part = over_samples(results, "nrmse"), over_samples(results.sel(lead=[1, 8], horizon=[1, 8]), "nrmse")
    xr.testing.assert_allclose(part, whole.sel(lead=[1, 8]))  # sums of other columns may be ordered otherwise
    np.testing.assert_array_equal(whole["median"], np.median(results["nrmse"], axis=0))
    assert whole.attrs["over"] == "trajectories" and whole.attrs["definition"] == results["nrmse"].attrs["definition"]
    assert ((whole["low"] < whole["mean"]) & (whole["mean"] < whole["high"])).all()


def test_save_and_load(tmp_path: Path) -> None:
    states = turbulence(2, 9, (12, 16), 1)
    data = Memory(states, layout_of((12, 16), ("vorticity",)), viscosity=0.1)
    predicted = states[:, 1:] + 0.1 * turbulence(2, 8, (12, 16), 1, seed=1)
    predicted[1, 5:] = np.nan
    results = evaluate(rolled(data, predicted, [0, 1], [1, 1]), data)
    folder = save(results, tmp_path / "run")
    assert sorted(os.listdir(folder)) == ["metrics.json", "results.zarr"]
    again = load(folder)
    xr.testing.assert_identical(again, results)
    assert json.loads((folder / "metrics.json").read_text()) == summary(results) == summary(again)
    other = evaluate(rolled(data, states[:, 1:], [0, 1], [1, 1]), data)
    save(other, folder)
    xr.testing.assert_identical(load(folder), other)
    assert sorted(os.listdir(folder)) == ["metrics.json", "results.zarr"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    states = turbulence(2, 5, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    results = evaluate(rolled(data, states[:, 1:], [0, 1], [1, 1]), data)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write the results .* choose another folder") as caught:
        save(results, tmp_path / "file" / "run")
    assert caught.value.filename == str(tmp_path / "file" / "run")
    with pytest.raises(FileNotFoundError, match="no results there"):
        load(tmp_path)


@pytest.mark.parametrize("fails", ["writing", "renaming"])
def test_a_failed_save_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    states = turbulence(2, 5, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    results = evaluate(rolled(data, states[:, 1:], [0, 1], [1, 1]), data)
    save(results, tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def refuse(source: Path, target: Path) -> None:
        if str(source).endswith(".new"):
            full()
        rename(source, target)

    rename = os.replace
    if fails == "writing":
        monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        save(results.isel(sample=[0]), tmp_path)
    monkeypatch.undo()
    xr.testing.assert_identical(load(tmp_path), results)
    assert sorted(os.listdir(tmp_path)) == ["metrics.json", "results.zarr"]


def test_what_becomes_of_an_unstable_sample() -> None:
    """Frames 0 to 6 are known, so leads 1 to 5 of 7 have a truth; sample 2 is lost from lead 4 on."""
    states = turbulence(3, 7, (24,), 1)
    data = Memory(states, layout_of((24,), ("velocity_x",)))
    predicted = np.concatenate([states[:, 2:], states[:, :2]], axis=1)
    predicted[2, 3:] *= 10
    results = evaluate(rolled(data, predicted, [0, 1, 2], [2] * 3), data)
    assert results["unstable_from"].values.tolist() == [0, 0, 4]
    correlation, energy = results["correlation"].values[..., 0], results["kinetic_energy"].values

    def mean(name: str, unstable: Unstable) -> np.ndarray:
        return over_samples(results, name, unstable=unstable)["mean"].values.reshape(7)

    exact = {"rtol": 1e-12}  # sums in another order
    np.testing.assert_allclose(mean("correlation", "leave out")[3:5], correlation[:2, 3:5].mean(0), **exact)
    np.testing.assert_allclose(mean("correlation", "count as zero")[3:5], correlation[:2, 3:5].sum(0) / 3, **exact)
    np.testing.assert_allclose(mean("kinetic_energy", "keep"), energy.mean(0), **exact)
    np.testing.assert_allclose(mean("kinetic_energy", "leave out")[3:], energy[:2, 3:].mean(0), **exact)
    # Without a truth there is nothing to be wrong about.
    np.testing.assert_allclose(mean("kinetic_energy", "count as zero")[5:], energy[:2, 5:].mean(0), **exact)
    assert np.isnan(mean("correlation", "count as zero")[5:]).all()
    # The order in which a table names its dimensions says nothing.
    turned = over_samples(results.transpose("field", "lead", ...), "correlation").transpose("lead", "field")
    xr.testing.assert_allclose(turned, over_samples(results, "correlation"))


def test_an_unknown_name() -> None:
    states = turbulence(1, 3, (24,), 1)
    data = Memory(states, layout_of((24,), ("height",)))
    results = evaluate(rolled(data, states[:, 1:], [0], [1]), data)
    for name in ("mse", "stable", "variance_spectrum"):
        with pytest.raises(ValueError, match=f"name: got '{name}', expected one of .*nrmse"):
            over_samples(results, name)


def test_squares_of_units() -> None:
    assert [squared(units) for units in ("", "U", "kg", "m/s", "1/s", "m s")] == [
        "", "U^2", "kg^2", "(m/s)^2", "(1/s)^2", "(m s)^2",
    ]  # fmt: skip
