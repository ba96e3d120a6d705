"""The results of an evaluation: means over samples with intervals, their summary, and the files that hold them.

A table of results is made by :func:`physml.evaluate.evaluate`. It holds what each number is, in which units, how the
samples were drawn and with which confidence intervals are made, so that nothing here asks for the rollout or the data.
Means leave out a sample from the lead on at which it stopped being stable.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from physml.metrics import DEFINITIONS as METRICS
from physml.metrics.bootstrap import Units, bootstrap_interval, percentiles, resampled_means
from physml.metrics.temporal import WELL_WINDOWS, correlation_time, logarithmic_windows, window_means

FORMAT = 1

CORRELATIONS = (0.8, 0.95)
"""Thresholds of the correlation times."""

Unstable = Literal["leave out", "count as zero", "keep"]
"""What becomes of the values of a sample that is no longer stable."""

_MEAN = "(mean over fluid points, quadrature-weighted), per frame"
_AVERAGED = "mean over the samples that are stable at this lead (and have a truth there)"

DEFINITIONS: Mapping[str, str] = {
    **METRICS,
    "kinetic_energy": f"Kinetic energy = 1/2 <|u|^2> {_MEAN}; u from the velocity fields, or from the 2-D vorticity "
    "with zero mean.",
    "enstrophy": f"Enstrophy = 1/2 <|omega|^2> {_MEAN}; omega from the vorticity field, or the curl of the velocity.",
    "variance": f"Variance = S/(S-1) <(q-<q>)^2> over the S points {_MEAN} and field.",
    "residual": "Residual = rms of d(omega)/dt + u.grad(omega) - nu lap(omega) + mu omega - f over the rms of its "
    "largest term, per frame with a neighbour on either side, central difference in time; 0 is exact, 1 no better "
    "than noise; the truth has one too, from time step and resolution, which is the level to compare with.",
    "energy_spectrum": f"Energy spectrum E(k) = 1/2 sum of |u_hat|^2 over the shell round(|k|/dk), {_AVERAGED}; sums "
    "over k to the kinetic energy on periodic axes, Hann window on others.",
    "enstrophy_spectrum": f"Enstrophy spectrum Z(k) = 1/2 sum of |omega_hat|^2 over the shell round(|k|/dk), "
    f"{_AVERAGED}; Hann window on axes that are not periodic.",
    "variance_spectrum": "Variance spectrum P(k) = sum of |q_hat|^2 over the shell round(|k|/dk), without the mean of "
    f"q, {_AVERAGED}; Hann window on axes that are not periodic.",
    "stable": "Stable = no frame up to this one is marked as unphysical by the rollout or has a kinetic energy "
    "(variance of a field, where there is no velocity) outside [min/2, 2 max] of the truth over all samples and leads.",
    "compared": "Compared = the data hold the true frame of this lead.",
}
"""One printable sentence for each variable of the results; a ``_truth`` twin shares the sentence of its prediction."""


def over_samples(results: xr.Dataset, name: str, *, unstable: Unstable = "leave out") -> xr.Dataset:
    """The mean over samples of one variable with its confidence interval.

    Args:
        results: from :func:`physml.evaluate.evaluate`, or a part of them.
        name: of a variable along ``sample``.
        unstable: whether a sample that is no longer stable is left out, counts as zero as long as it has a truth (as in
            the correlation time), or stays what it is.

    Returns:
        ``mean``, ``low``, ``high``, ``median`` and ``samples`` (how many are in the mean) along the remaining
        dimensions. Values that are infinite or undefined are left out; ``results[name].attrs["undefined"]`` counts
        them. The median stands beside the mean because a frame with hardly any variance can make one sample's relative
        error huge.
    """
    known = [str(found) for found, variable in results.items() if "sample" in variable.dims and variable.dtype != bool]
    if name not in known:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(known)}.")
    rest = _sample_first(results[name]).isel(sample=0, drop=True)
    table = _averaged(results, _values(results, name, unstable), tuple(map(str, rest.dims)), rest.coords)
    return table.assign_attrs({**results[name].attrs, **table.attrs})


def independent_units(results: xr.Dataset) -> Units:
    """What the bootstrap draws; a sample covers the same stored frames whichever leads of it are looked at."""
    return Units.of(results["trajectory"].values, results["frame"].values, int(results.attrs["physml"]["span"]))


def squared(units: str) -> str:
    """``U^2`` for a single symbol, ``(m/s)^2`` for what is composed of several, nothing for nothing."""
    return units and (f"{units}^2" if units.isalpha() else f"({units})^2")


def summary(results: xr.Dataset) -> dict[str, Any]:
    """What a report prints: means over samples with intervals at chosen leads, correlation times, counts, definitions.

    Args:
        results: from :func:`physml.evaluate.evaluate`.

    Returns:
        Plain values, fit for JSON; ``None`` stands for a number that is not defined. ``metrics`` holds for each
        variable its definition, units, the number of undefined values and a list of rows; ``correlation_time`` a list
        of rows.
    """
    about = results.attrs["physml"]
    reported = results.sel(lead=results["horizon"].values)
    units = independent_units(results)
    metrics: dict[str, Any] = {}
    for name, variable in results.items():
        if name in ("stable", "compared") or "wavenumber" in variable.dims:
            continue
        sampled = "sample" in variable.dims
        table = over_samples(reported, str(name)) if sampled else xr.Dataset({"mean": reported[name]})
        metrics[str(name)] = {**_about(variable), "rows": list(_rows(table, float(about["dt"])))}
    for label, windows in (
        ("vrmse_windows", WELL_WINDOWS),
        ("vrmse_log_windows", logarithmic_windows(results.sizes["lead"])),
    ):
        fitting = tuple(window for window in windows if window[1] <= results.sizes["lead"])
        if not fitting:
            continue
        means = window_means(_values(results, "vrmse"), fitting)
        names = [f"{first}:{last}" for first, last in fitting]
        table = _averaged(results, means, ("window", "field"), {"window": names, "field": results["field"].values})
        metrics[label] = {
            **_about(results["vrmse"]),
            "definition": f"{DEFINITIONS['window_mean']} Here of VRMSE. {DEFINITIONS['vrmse']}",
            "rows": list(_rows(table, float(about["dt"]))),
        }
    unstable = results["unstable_from"].values
    return _plain(
        {
            "model": about["model"],
            "source": about["source"],
            "stride": about["stride"],
            "time_units": about["time_units"],
            "samples": results.sizes["sample"],
            "trajectories": len(np.unique(results["trajectory"].values)),
            "leads": results.sizes["lead"],
            "interval": {**about["interval"], "over": units.over, "units": units.count},
            "blowups": {
                "count": int((unstable > 0).sum()),
                "marked_by_rollout": int((results["blowup"].values > 0).sum()),
                "definition": DEFINITIONS["stable"],
                "rows": [
                    {
                        "sample": index,
                        "lead": int(unstable[index]),
                        "lead_time": float(unstable[index] * about["dt"]),
                    }
                    for index in np.flatnonzero(unstable)
                ],
            },
            "metrics": metrics,
            "correlation_time": {
                "definition": DEFINITIONS["correlation_time"],
                "units": about["time_units"],
                "rows": list(_correlation_times(results)),
            },
        }
    )


def save(results: xr.Dataset, folder: str | Path) -> Path:
    """Write ``results.zarr`` and ``metrics.json`` (the :func:`summary`) into a folder; older ones are replaced whole.

    Raises:
        OSError: where the folder cannot be written, with its path; what was there before is untouched.
    """
    folder = Path(folder)
    text = json.dumps(summary(results), indent=2, allow_nan=False) + "\n"
    store, stale = folder / ".results.zarr.new", folder / ".results.zarr.old"
    note = folder / ".metrics.json.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # consolidated metadata let xarray open it silently; the zarr v3 text does not list them yet
            warnings.filterwarnings("ignore", message=".*onsolidated metadata")
            results.to_zarr(store, mode="w", consolidated=True, zarr_format=3)
        note.write_text(text)
        if (folder / "results.zarr").exists():
            shutil.rmtree(stale, ignore_errors=True)
            os.replace(folder / "results.zarr", stale)
        os.replace(store, folder / "results.zarr")
        os.replace(note, folder / "metrics.json")
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OSError(
            problem.errno, f"cannot write the results ({reason}); choose another folder", str(folder)
        ) from None
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
            if stale.exists() and not (folder / "results.zarr").exists():
                os.replace(stale, folder / "results.zarr")
        for left in (store, stale):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def load(folder: str | Path) -> xr.Dataset:
    """The results that :func:`save` wrote, in memory.

    Raises:
        FileNotFoundError: where there are none.
        ValueError: where they were written by a version that knew other results.
    """
    path = Path(folder) / "results.zarr"
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no results there; make them with `physml evaluate`.")
    with xr.open_zarr(path, chunks=None, consolidated=False) as opened:
        results = opened.load()
    found = results.attrs.get("physml", {})
    if found.get("kind") != "results" or found.get("format") != FORMAT:
        raise ValueError(f"{path}: not results that this version of physml reads (format {FORMAT}); evaluate again.")
    return results


def _averaged(
    results: xr.Dataset, values: NDArray[np.float64], dims: tuple[str, ...], coords: Mapping[Any, Any]
) -> xr.Dataset:
    """Mean, interval, median and number of ``values (sample, *dims)``, NaN left out."""
    found = bootstrap_interval(values, independent_units(results), **results.attrs["physml"]["interval"])
    middle, _ = percentiles(values, 0.0)
    parts = {"mean": found.mean, "low": found.low, "high": found.high, "median": middle, "samples": found.samples}
    return xr.Dataset(
        {part: (dims, numbers) for part, numbers in parts.items()},
        coords=coords,
        attrs={"over": found.over, "units_drawn": found.units, "confidence": found.confidence},
    )


def _sample_first(variable: xr.DataArray) -> xr.DataArray:
    return variable.transpose("sample", "lead", "horizon", ..., missing_dims="ignore")


def _values(results: xr.Dataset, name: str, unstable: Unstable = "leave out") -> NDArray[np.float64]:
    """One variable, sample and lead (or horizon) first, NaN where it is left out or not finite."""
    values = np.asarray(_sample_first(results[name]).values, dtype=np.float64)
    if unstable != "keep":
        masks = results[["stable", "compared"]]
        if "horizon" in results[name].dims:
            masks = masks.sel(lead=results["horizon"])
        stable, compared = (_sample_first(masks[mask]).values for mask in ("stable", "compared"))
        lost = np.where(compared, 0.0 if unstable == "count as zero" else np.nan, np.nan)
        beside = (..., *[None] * (values.ndim - stable.ndim))
        values = np.where(stable[beside], values, lost[beside])
    return np.where(np.isfinite(values), values, np.nan)


def _correlation_times(results: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows for each threshold and field; a sample that is no longer stable counts as uncorrelated."""
    about, dt = results.attrs["physml"]["interval"], float(results.attrs["physml"]["dt"])
    r = _values(results, "correlation", "count as zero")
    units = independent_units(results)
    draws = resampled_means(r, units, resamples=about["resamples"], seed=about["seed"])
    for threshold in CORRELATIONS:
        found = correlation_time(r, dt, threshold=threshold)
        low, high = percentiles(
            correlation_time(draws, dt, threshold=threshold, per_sample=True).time, about["confidence"]
        )
        for index, name in enumerate(results["field"].values):
            yield {
                "threshold": threshold,
                "field": str(name),
                "time": float(found.time[index]),
                "reached": bool(found.reached[index]),
                "low": float(low[index]) if units.count > 1 else None,
                "high": float(high[index]) if units.count > 1 else None,
                "samples": len(r),
            }


def _about(variable: xr.DataArray) -> dict[str, Any]:
    known = variable.attrs
    return {
        "long_name": known["long_name"],
        "units": known["units"],
        "definition": known["definition"],
        "undefined": int(known.get("undefined", 0)),
    }


def _rows(table: xr.Dataset, dt: float) -> Iterator[dict[str, Any]]:
    """One flat row for each combination of coordinates."""
    dims = table["mean"].dims
    for index in np.ndindex(*(table.sizes[dim] for dim in dims)):
        row: dict[str, Any] = {}
        for dim, position in zip(dims, index, strict=True):
            row[str(dim)] = table[dim].values.tolist()[position]
            if dim in ("lead", "horizon"):
                row["lead_time"] = row[str(dim)] * dt
        yield row | {str(name): values.values[index].item() for name, values in table.items()}


def _plain(value: Any) -> Any:
    """Plain values all the way down; ``None`` for what is not a finite number."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
