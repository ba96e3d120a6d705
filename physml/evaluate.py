"""Measure a stored rollout against the truth: one tidy table of numbers, and a summary of it.

A rollout is read sample by sample and block by block, so the memory needed depends on neither its length nor the number
of samples, apart from the results. Everything is computed in float64 and in physical units.

A sample counts as long as it is stable. It stops being so with the first frame that the rollout marked as unphysical,
or with the first whose kinetic energy (the variance of each field, where the state has no velocity) lies outside twice
the range that the truth covers, ``[min/2, 2 max]`` over all samples and leads. Means leave out a sample from then on;
how many samples are left is printed beside every mean.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from physml.datasets.opening import open_trajectories
from physml.datasets.store import open_group
from physml.datasets.trajectories import Trajectories
from physml.fields import Grid, Layout
from physml.metrics import DEFINITIONS as METRICS
from physml.metrics import pointwise
from physml.metrics.bootstrap import Units, bootstrap_interval, percentiles, resampled_means
from physml.metrics.pointwise import UndefinedMetric, average
from physml.metrics.spectral import log_spectral_error
from physml.metrics.temporal import WELL_WINDOWS, correlation_time, logarithmic_windows, window_means
from physml.physics import balances, derivatives, kinematics, residuals, spectra

FORMAT = 1
HORIZONS = (1, 4, 8, 16, 32, 64)
"""Leads at which the summary reports, with the last; those a rollout does not reach are left out."""

BAND = 2.0
"""A sample is unstable outside ``[min/BAND, max*BAND]`` of the truth's energy."""

CORRELATIONS = (0.8, 0.95)
"""Thresholds of the correlation times."""

_TEXT = np.dtypes.StringDType()  # the one that zarr v3 has a specification for
_BLOCK_BYTES = 1 << 25  # of one state block in float64

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

_TRANSPORT = ("viscosity", "drag", "forcing_amplitude", "forcing_wavenumber")

_PAIRED: Mapping[str, Callable[[Tensor, Tensor, Grid], Tensor]] = {
    "nrmse": pointwise.nrmse,
    "vrmse": pointwise.vrmse,
    "rmse": pointwise.rmse,
    "correlation": pointwise.correlation,
}
_LONG_NAMES = {
    "nrmse": "nRMSE",
    "vrmse": "VRMSE",
    "rmse": "RMSE",
    "correlation": "Pearson correlation",
    "relative_l2": "relative L2 error up to the horizon",
    "kinetic_energy": "kinetic energy",
    "enstrophy": "enstrophy",
    "variance": "variance",
    "divergence": "relative divergence",
    "residual": "relative residual of the vorticity equation",
    "energy_spectrum": "energy spectrum",
    "enstrophy_spectrum": "enstrophy spectrum",
    "variance_spectrum": "variance spectrum",
    "log_spectral_error": "log-spectral error",
    "stable": "sample is stable up to this lead",
    "compared": "lead has a truth",
}


def evaluate(
    prediction: str | Path | xr.Dataset,
    truth: Trajectories | str | Path | None = None,
    *,
    horizons: Sequence[int] = HORIZONS,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> xr.Dataset:
    """Compare a rollout with the data it started from.

    Args:
        prediction: a rollout store written by :func:`physml.rollout.write_rollout`, its path or opened with xarray:
            ``state (sample, lead, *space, field)``.
        truth: the data set; where not given, the one that the rollout names as its source is opened.
        horizons: frames over which the relative L2 error is taken; those that fit, and the full length.
        confidence: of the intervals in :func:`summary` and :func:`over_samples`.
        resamples: bootstrap draws of these intervals.
        seed: of the draws.
        device: where to compute; it must know float64.
        progress: called with samples done and samples in total.

    Returns:
        Variables along ``sample``, ``lead``, ``field``, ``horizon`` and ``wavenumber``, each with ``units``,
        ``long_name`` and ``definition``: nrmse, vrmse, rmse, correlation; relative_l2; kinetic_energy, enstrophy,
        divergence, residual, variance and their ``_truth``, as far as the fields and parameters of the data define
        them; spectra of prediction and truth and their log_spectral_error; stable. What the rollout predicts beyond the
        last stored frame of the data is compared with nothing and NaN.

    Raises:
        FileNotFoundError: where rollout or data are not there.
        ValueError: where they do not belong together, the rollout is unfinished or damaged, or no frame has a truth.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence}, expected a number between 0 and 1, such as 0.95.")
    if any(horizon < 1 for horizon in horizons):
        raise ValueError(f"horizons: got {list(horizons)}, expected numbers of frames from 1 up.")
    rolled = _Rollout.open(prediction)
    data = _matching(truth, rolled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetric)  # counted below, and said once
        measured = _Evaluation(rolled, data, torch.device(device)).run(progress)
    kept = sorted({horizon for horizon in horizons if horizon < rolled.leads} | {rolled.leads})
    settings = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return measured.tidy(kept, settings)


def over_samples(results: xr.Dataset, name: str) -> xr.Dataset:
    """The mean over stable samples of one variable with its confidence interval.

    Args:
        results: from :func:`evaluate`.
        name: of a variable along ``sample``.

    Returns:
        ``mean``, ``low``, ``high``, ``median`` and ``samples`` (how many are in the mean) along the remaining
        dimensions. Values that are infinite or undefined are left out; ``results[name].attrs["undefined"]`` counts
        them. The median stands beside the mean because a frame with hardly any variance can make one sample's relative
        error huge.
    """
    known = [str(found) for found, variable in results.items() if "sample" in variable.dims and variable.dtype != bool]
    if name not in known:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(known)}.")
    rest = results[name].isel(sample=0, drop=True)
    table = _averaged(results, _stable_values(results, name), tuple(map(str, rest.dims)), rest.coords)
    return table.assign_attrs({**results[name].attrs, **table.attrs})


def summary(results: xr.Dataset) -> dict[str, Any]:
    """What a report prints: means over samples with intervals at chosen leads, correlation times, counts, definitions.

    Args:
        results: from :func:`evaluate`.

    Returns:
        Plain values, fit for JSON; ``None`` stands for a number that is not defined. ``metrics`` holds for each
        variable its definition, units, the number of undefined values and a list of rows; ``correlation_time`` a list
        of rows.
    """
    about = results.attrs["physml"]
    reported = results.sel(lead=results["horizon"].values)
    units = _units_of(results)
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
        means = window_means(_stable_values(results, "vrmse"), fitting)
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
    store, stale = folder / f".results.zarr.{os.getpid()}.new", folder / f".results.zarr.{os.getpid()}.old"
    note = folder / f".metrics.json.{os.getpid()}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        results.to_zarr(store, mode="w", consolidated=False, zarr_format=3)
        note.write_text(text)
        if (folder / "results.zarr").exists():
            os.replace(folder / "results.zarr", stale)
        try:
            os.replace(store, folder / "results.zarr")
        except OSError:
            if stale.exists():
                os.replace(stale, folder / "results.zarr")
            raise
        os.replace(note, folder / "metrics.json")
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OSError(
            problem.errno, f"cannot write the results ({reason}); choose another folder", str(folder)
        ) from None
    finally:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
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


@dataclass(frozen=True)
class _Rollout:
    """A rollout store, checked.

    Args:
        state: ``(sample, lead, *space, field)``, read when sliced.
        layout: of the predicted states; its interval is that between two leads.
        about: the ``physml`` attribute.
        trajectory, frame, blowup: ``(sample,)``.
        path: where it was opened, for messages.
    """

    state: xr.DataArray
    layout: Layout
    about: Mapping[str, Any]
    trajectory: NDArray[np.intp]
    frame: NDArray[np.intp]
    blowup: NDArray[np.intp]
    path: str

    @property
    def leads(self) -> int:
        return self.state.shape[1]

    @classmethod
    def open(cls, prediction: str | Path | xr.Dataset) -> _Rollout:
        if isinstance(prediction, xr.Dataset):
            store, path = prediction, str(prediction.encoding.get("source", "the rollout"))
        else:
            path = str(prediction)
            open_group(path, "rollout")
            store = xr.open_dataset(path, engine="zarr", chunks=None, cache=False)
        about = store.attrs.get("physml")
        if not isinstance(about, Mapping) or about.get("kind") != "rollout":
            raise ValueError(f"prediction: {path} is no rollout of physml; write one with `physml rollout`.")
        if not about.get("complete", True):
            raise ValueError(
                f"prediction: {path} was interrupted; run the command that writes it once more and it continues where "
                "it stopped."
            )
        missing = [name for name in ("state", "trajectory", "frame", "blowup") if name not in store.variables]
        if missing:
            raise ValueError(f"prediction: {path} lacks {', '.join(missing)}; write the rollout again.")
        layout, state = Layout.from_plain(about["layout"]), store["state"]
        if state.ndim < 3 or tuple(state.shape[2:]) != (*layout.grid.shape, len(layout.fields)):
            raise ValueError(
                f"prediction: the state of {path} has shape {tuple(state.shape)}, its layout says (sample, lead, "
                f"{', '.join(map(str, layout.grid.shape))}, {len(layout.fields)}); the store is damaged."
            )
        rows = [np.asarray(store[name].values).astype(np.intp) for name in ("trajectory", "frame", "blowup")]
        return cls(state, layout, about, rows[0], rows[1], rows[2], path)

    def read(self, sample: int, first: int, last: int) -> NDArray[np.float32]:
        """Leads ``first`` to ``last``, both included, of one sample."""
        try:
            values = np.asarray(self.state[sample, first - 1 : last].values)
        except (ValueError, RuntimeError, OSError) as problem:
            raise ValueError(
                f"{self.path}: sample {sample}, leads {first} to {last} cannot be decoded; a chunk is truncated or "
                f"corrupt ({problem}). Write the rollout again."
            ) from None
        marked = self.blowup[sample]
        sound = values if not marked else values[: max(0, marked - first)]
        if not np.isfinite(sound.sum(dtype=np.float64)):
            bad = ~np.isfinite(sound).all(axis=tuple(range(1, sound.ndim)))
            if bad.any():
                raise ValueError(
                    f"{self.path}: sample {sample}, lead {first + int(bad.argmax())} is not finite though no blow-up "
                    "is marked there; its chunk is missing or damaged. Write the rollout again."
                )
        return values


def _matching(truth: Trajectories | str | Path | None, rolled: _Rollout) -> Trajectories:
    """The data of a rollout; refused where they are other data."""
    source = rolled.about["source"]
    if isinstance(truth, Trajectories):
        data = truth
    else:
        try:
            data = open_trajectories(source["path"] if truth is None else truth)
        except FileNotFoundError as problem:
            if truth is not None:
                raise
            raise FileNotFoundError(
                f"{problem} The rollout {rolled.path} names it as its source; if it has moved, pass its path as truth."
            ) from None
    if data.fingerprint != source["fingerprint"]:
        raise ValueError(
            f"truth: {data.path} has fingerprint {data.fingerprint}, the rollout {rolled.path} started from data with "
            f"{source['fingerprint']} ({source['path']}); pass these data, or roll out again."
        )
    stride = int(rolled.about["stride"])
    differs = replace(data.layout, dt=data.layout.dt * stride).difference(rolled.layout)
    if differs is not None:
        raise ValueError(
            f"truth: {data.path} and the rollout {rolled.path} differ in {differs}; roll out again from these data."
        )
    if (rolled.trajectory < 0).any() or (rolled.trajectory >= data.count).any():
        raise ValueError(
            f"prediction: {rolled.path} names trajectory {int(rolled.trajectory.max())}, {data.path} has {data.count}; "
            "the rollout is damaged."
        )
    return data


class _Evaluation:
    """One pass over the truth for its range of energy, one over both for everything else."""

    def __init__(self, rolled: _Rollout, data: Trajectories, device: torch.device) -> None:
        self.rolled, self.data, self.device = rolled, data, device
        self.layout = rolled.layout
        self.names, self.grid = self.layout.names, self.layout.grid.to(device, torch.float64)
        self.samples, self.leads = rolled.state.shape[:2]
        self.stride = int(rolled.about["stride"])
        frame_bytes = 8 * math.prod(self.grid.shape) * len(self.names)
        self.block = max(1, min(self.leads, _BLOCK_BYTES // frame_bytes))

        ends = rolled.frame[:, None] + np.arange(self.leads) * self.stride
        self.known = ends < data.frames
        if not self.known.any():
            raise ValueError(
                f"prediction: {rolled.path} starts after the last frame of {data.path}; there is nothing to compare."
            )

        self.of_state = self._quantities()
        self.spectra = self._spectra()
        self.residual = self._has_residual()
        self.table: dict[str, NDArray[Any]] = {}
        per_field = [*_PAIRED, "variance", "variance_truth"]
        per_frame = [
            f"{name}{twin}" for name in [*self.of_state, *["residual"] * self.residual] for twin in ("", "_truth")
        ]
        for name in per_field:
            self.table[name] = np.full((self.samples, self.leads, len(self.names)), np.nan)
        for name in per_frame:
            self.table[name] = np.full((self.samples, self.leads), np.nan)
        self.power = np.full((self.samples, self.leads, len(self.names)), np.nan)
        self.stable = np.ones((self.samples, self.leads), dtype=bool)
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, NDArray[np.float64]] = {}
        self.wavenumbers: NDArray[np.float64] | None = None

    # What this state has.

    def _defined(self, quantity: Callable[[Tensor], Any]) -> bool:
        """Whether the physics accepts such a state; it says so itself, and knows the reasons best."""
        blank = torch.zeros((1, *self.grid.shape, len(self.names)), dtype=torch.float64, device=self.device)
        try:
            quantity(blank)
        except ValueError:
            return False
        return True

    def _quantities(self) -> dict[str, Callable[[Tensor], Tensor]]:
        candidates: dict[str, Callable[..., Tensor]] = {
            "kinetic_energy": balances.kinetic_energy,
            "enstrophy": balances.enstrophy,
            "divergence": pointwise.divergence,
        }
        bound = {name: partial(found, names=self.names, grid=self.grid) for name, found in candidates.items()}
        return {name: found for name, found in bound.items() if self._defined(found)}

    def _spectra(self) -> dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        bound: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
            "energy_spectrum": partial(spectra.energy_spectrum, names=self.names, grid=self.grid),
            "enstrophy_spectrum": partial(spectra.enstrophy_spectrum, names=self.names, grid=self.grid),
            "variance_spectrum": partial(spectra.variance_spectrum, grid=self.grid),
        }
        return {name: found for name, found in bound.items() if self._defined(found)}

    def _has_residual(self) -> bool:
        names, grid = self.names, self.grid
        flow = len(grid.axes) == 2 and (
            kinematics.holds_velocity(names, grid) or kinematics.holds_vorticity(names, grid)
        )
        return flow and "viscosity" in self.data.parameters and "kinetic_energy" in self.of_state and self.leads >= 2

    # The passes.

    def run(self, progress: Callable[[int, int], None]) -> _Evaluation:
        for sample in range(self.samples):
            for first, last in self._blocks():
                truth = self._truth(sample, first, last)
                self._measure(sample, first, truth, "_truth")
                power = average(truth.square(), self.grid)
                self.power[sample, first - 1 : last] = power.cpu().numpy()
        low, high = self._band()
        for sample in range(self.samples):
            progress(sample, self.samples)
            sound = True
            for first, last in self._blocks():
                # The residual looks one frame further on either side; lead 0 is the last known frame.
                begin, end = (first - 1, min(last + 1, self.leads)) if self.residual else (first, last)
                truth = self._truth(sample, begin, end)
                rolled = self._tensor(self.rolled.read(sample, max(begin, 1), end))
                if begin == 0:
                    rolled = torch.cat([truth[:1], rolled])
                inner = slice(first - begin, last - begin + 1)
                self._measure(sample, first, rolled[inner], "")
                for name, metric in _PAIRED.items():
                    found = metric(rolled[inner], truth[inner], self.grid)
                    self.table[name][sample, first - 1 : last] = found.cpu().numpy()
                sound = self._judge(sample, first, last, low, high, sound)
                self._collect(sample, first, rolled[inner], truth[inner])
                if self.residual and end - begin >= 2:
                    self._transport(sample, first, rolled, "")
                    self._transport(sample, first, truth, "_truth")
        progress(self.samples, self.samples)
        return self

    def _blocks(self) -> Iterator[tuple[int, int]]:
        for first in range(1, self.leads + 1, self.block):
            yield first, min(first + self.block - 1, self.leads)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device).to(torch.float64)

    def _truth(self, sample: int, first: int, last: int) -> Tensor:
        """Leads ``first`` to ``last`` (lead 0 is the last known frame); NaN where the data have no such frame."""
        shape = (last - first + 1, *self.grid.shape, len(self.names))
        found = torch.full(shape, math.nan, dtype=torch.float64, device=self.device)
        begin = int(self.rolled.frame[sample])
        skipped = int(first == 0 and begin < self.stride)
        there = min(last, int(self.known[sample].sum())) - first + 1
        if there > skipped:
            start = begin + (first + skipped - 1) * self.stride
            stop = begin + (first + there - 2) * self.stride + 1
            frames = self.data.read(int(self.rolled.trajectory[sample]), start, stop, self.stride)
            found[skipped:there] = self._tensor(frames)
        return found

    def _measure(self, sample: int, first: int, values: Tensor, twin: str) -> None:
        span = slice(first - 1, first - 1 + len(values))
        self.table[f"variance{twin}"][sample, span] = pointwise.variance(values, self.grid).cpu().numpy()
        for name, quantity in self.of_state.items():
            self.table[f"{name}{twin}"][sample, span] = quantity(values).cpu().numpy()

    def _energy(self, twin: str) -> NDArray[np.float64]:
        """What decides on stability, ``(sample, lead, ...)``."""
        found = self.table.get(f"kinetic_energy{twin}")
        return self.table[f"variance{twin}"] if found is None else found[..., None]

    def _band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        energy = self._energy("_truth")[self.known]
        low, high = energy.min(axis=0) / BAND, energy.max(axis=0) * BAND
        # A truth at rest, or a field that is constant in space but for rounding, sets no scale.
        size = 0.0 if "kinetic_energy" in self.table else 1e-12 * self.power[self.known].max(axis=0)
        silent = ~(high > size)
        return np.where(silent, -np.inf, low), np.where(silent, np.inf, high)

    def _judge(
        self, sample: int, first: int, last: int, low: NDArray[np.float64], high: NDArray[np.float64], sound: bool
    ) -> bool:
        """Fill in ``stable`` for a block; whether the sample is still stable at its end."""
        span, marked = slice(first - 1, last), self.rolled.blowup[sample]
        energy = self._energy("")[sample, span]
        inside = ((energy >= low) & (energy <= high)).all(axis=-1)
        inside &= (np.arange(first, last + 1) < marked) | (marked == 0)
        self.stable[sample, span] = sound & np.logical_and.accumulate(inside)
        return bool(self.stable[sample, last - 1])

    def _collect(self, sample: int, first: int, x: Tensor, y: Tensor) -> None:
        """Add spectra to the sums over samples: both over the same samples wherever any has a truth."""
        leads = np.arange(first - 1, first - 1 + len(x))
        with_truth = self.stable[sample, leads] & self.known[sample, leads]
        alone = self.stable[sample, leads] & ~self.known[:, leads].any(axis=0)
        for twin, values, counted in (("", x, with_truth | alone), ("_truth", y, with_truth)):
            if not counted.any():
                continue
            chosen = values[torch.from_numpy(counted).to(self.device)]
            for name, spectrum in self.spectra.items():
                k, power = spectrum(chosen)
                self.wavenumbers = k.cpu().numpy()
                key = f"{name}{twin}"
                self.sums.setdefault(key, np.zeros((self.leads, *power.shape[1:])))[leads[counted]] += (
                    power.cpu().numpy()
                )
                self.counts.setdefault(key, np.zeros(self.leads))[leads[counted]] += 1

    def _transport(self, sample: int, first: int, values: Tensor, twin: str) -> None:
        """The residual from lead ``first`` on, of a block that begins one lead before."""
        found = residuals.vorticity_transport_residual(
            values[None],
            self.names,
            self.grid,
            self.layout.dt,
            **{name: self._parameter(name, sample) for name in _TRANSPORT},
        )[0]
        self.table[f"residual{twin}"][sample, first - 1 : first - 1 + len(found)] = found.cpu().numpy()

    def _parameter(self, name: str, sample: int) -> float:
        """A parameter of this sample's trajectory; a term of the equation that the data do not name is absent."""
        values = self.data.parameters.get(name)
        return 0.0 if values is None else float(values[self.rolled.trajectory[sample]])

    # The table.

    def tidy(self, horizons: Sequence[int], settings: Mapping[str, Any]) -> xr.Dataset:
        units = _Units(self.layout)
        table: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
        for name, values in self.table.items():
            table[name] = (("sample", "lead", "field")[: values.ndim], values)
        error = (self.table["rmse"] ** 2).sum(axis=-1).cumsum(axis=1)
        power = self.power.sum(axis=-1).cumsum(axis=1)
        columns = np.asarray(horizons) - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            table["relative_l2"] = (("sample", "horizon"), np.sqrt(error / power)[:, columns])
        for name, sums in self.sums.items():
            count = self.counts[name].reshape(-1, *[1] * (sums.ndim - 1))
            mean = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)
            table[name] = (("lead", "field", "wavenumber") if sums.ndim == 3 else ("lead", "wavenumber"), mean)
        table.update(self._spectral_error(table))
        table["stable"] = (("sample", "lead"), self.stable)
        table["compared"] = (("sample", "lead"), self.known)

        results = xr.Dataset(
            {name: variable for name, variable in sorted(table.items())},
            coords={
                "sample": np.arange(self.samples),
                "lead": np.arange(1, self.leads + 1),
                "lead_time": ("lead", np.arange(1, self.leads + 1) * self.layout.dt),
                "horizon": np.asarray(horizons),
                "field": np.array(self.names, _TEXT),
                "field_units": ("field", np.array([item.units for item in self.layout.fields], _TEXT)),
                "trajectory": ("sample", self.rolled.trajectory),
                "frame": ("sample", self.rolled.frame),
                "blowup": ("sample", self.rolled.blowup),
                "unstable_from": ("sample", np.where(self.stable.all(axis=1), 0, self.stable.argmin(axis=1) + 1)),
            },
        )
        if self.wavenumbers is not None:
            results = results.assign_coords(wavenumber=self.wavenumbers)
            results["wavenumber"].attrs.update(units=units.per_length, long_name="angular wavenumber 2 pi n / L")
        results["lead"].attrs["long_name"] = "frames after the last known one"
        results["lead_time"].attrs.update(units=self.layout.time_units, long_name="time after the last known frame")
        results["horizon"].attrs["long_name"] = "frames 1..h"
        results["blowup"].attrs["long_name"] = "lead of the first frame the rollout marked as unphysical, 0: none"
        results["unstable_from"].attrs["long_name"] = "first lead that is not stable, 0: none"
        for name in table:
            base = name.removesuffix("_truth")
            results[name].attrs.update(
                units=units.of(base),
                long_name=_LONG_NAMES[base] + (" of the truth" if name != base else ""),
                definition=self._sentence(base),
            )
        self._flag(results)
        about = self.rolled.about
        results.attrs["physml"] = {
            "kind": "results",
            "format": FORMAT,
            "model": about.get("model"),
            "source": dict(about["source"]),
            "rollout": self.rolled.path,
            "stride": self.stride,
            "dt": float(self.layout.dt),
            "time_units": self.layout.time_units,
            "span": (self.leads - 1) * self.stride + 1,
            "interval": dict(settings),
        }
        return results

    def _sentence(self, name: str) -> str:
        sentence = DEFINITIONS[name]
        if name == "log_spectral_error":
            sentence += f" Here E is the {'energy' if 'energy_spectrum' in self.sums else 'variance'} spectrum."
        if name in ("enstrophy", "divergence", "residual"):
            sentence += f" Derivatives: {derivatives.stencil(self.grid)}."
        return sentence

    def _spectral_error(
        self, table: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]]
    ) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        name = "energy_spectrum" if "energy_spectrum" in table else "variance_spectrum"
        if f"{name}_truth" not in table:
            return {}
        dims, ours = table[name]
        theirs, limit = table[f"{name}_truth"][1], spectra.shell_limit(self.grid)
        if not 1 <= limit < ours.shape[-1]:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetric)
            error = log_spectral_error(torch.from_numpy(ours), torch.from_numpy(theirs), limit).numpy()
        known = np.isfinite(ours).all(axis=-1) & np.isfinite(theirs).all(axis=-1)
        return {"log_spectral_error": (dims[:-1], np.where(known, error, np.nan))}

    def _flag(self, results: xr.Dataset) -> None:
        """Count the values that say nothing because of the target, and warn once for each metric."""
        there = self.stable & self.known
        silent = {
            "nrmse": self.power == 0,
            "vrmse": ~(self.table["variance_truth"] >= pointwise.VARIANCE_FLOOR),
            "correlation": ~np.isfinite(self.table["correlation"]),
            "relative_l2": ~np.isfinite(results["relative_l2"].values),
        }
        reasons = {
            "nrmse": "the truth is zero everywhere",
            "vrmse": "the variance of the truth does not stand clear of the epsilon 1e-7",
            "correlation": "a field is constant",
            "relative_l2": "the truth is zero everywhere",
        }
        for name, mask in silent.items():
            if name == "relative_l2":
                compared = np.logical_and.accumulate(there, axis=1)[:, results["horizon"].values - 1]
            else:
                compared = np.broadcast_to(there[..., None], mask.shape)
            count = int((mask & compared).sum())
            results[name].attrs["undefined"] = count
            if count:
                warnings.warn(
                    f"{name}: {count} of {int(compared.sum())} values say nothing, because {reasons[name]}.",
                    UndefinedMetric,
                    stacklevel=4,
                )


class _Units:
    """Units of the results, composed from those of fields and axes; an empty string where a part is dimensionless."""

    def __init__(self, layout: Layout) -> None:
        grid, by_name = layout.grid, {item.name: item.units for item in layout.fields}
        lengths = {axis.units for axis in grid.axes}
        self.length = lengths.pop() if len(lengths) == 1 else ""
        self.per_length = f"1/{self.length}" if self.length else ""
        kinds = {item.units for item in layout.fields}
        self.field = kinds.pop() if len(kinds) == 1 else "of each field"
        if kinematics.holds_velocity(layout.names, grid):
            self.velocity = by_name[kinematics.velocity_names(grid)[0]]
            self.vorticity = f"{self.velocity}/{self.length}" if self.velocity and self.length else ""
        else:
            self.vorticity = by_name.get("vorticity", "")
            self.velocity = f"{self.vorticity} {self.length}" if self.vorticity and self.length else ""
        if kinematics.holds_vorticity(layout.names, grid):
            self.vorticity = by_name["vorticity"]

    def of(self, name: str) -> str:
        bases = {
            "rmse": (self.field, 1),
            "kinetic_energy": (self.velocity, 2),
            "energy_spectrum": (self.velocity, 2),
            "enstrophy": (self.vorticity, 2),
            "enstrophy_spectrum": (self.vorticity, 2),
            "variance": (self.field, 2),
            "variance_spectrum": (self.field, 2),
        }
        base, power = bases.get(name, ("", 1))
        if power == 1 or not base:
            return base
        return f"{base}, squared" if base == "of each field" else f"({base})^{power}"


def _units_of(results: xr.Dataset) -> Units:
    """What the bootstrap draws; a sample covers the same stored frames whichever leads of it are looked at."""
    return Units.of(results["trajectory"].values, results["frame"].values, int(results.attrs["physml"]["span"]))


def _averaged(
    results: xr.Dataset, values: NDArray[np.float64], dims: tuple[str, ...], coords: Mapping[Any, Any]
) -> xr.Dataset:
    """Mean, interval, median and number of ``values (sample, *dims)``, NaN left out."""
    found = bootstrap_interval(values, _units_of(results), **results.attrs["physml"]["interval"])
    middle, _ = percentiles(values, 0.0)
    parts = {"mean": found.mean, "low": found.low, "high": found.high, "median": middle, "samples": found.samples}
    return xr.Dataset(
        {part: (dims, numbers) for part, numbers in parts.items()},
        coords=coords,
        attrs={"over": found.over, "units_drawn": found.units, "confidence": found.confidence},
    )


def _stable_values(results: xr.Dataset, name: str) -> NDArray[np.float64]:
    """One variable, sample first, NaN where the sample is not stable or the value not finite."""
    variable = results[name].transpose("sample", ...)
    stable = results["stable"].transpose("sample", "lead")
    if "horizon" in variable.dims:
        stable = stable.sel(lead=results["horizon"]).drop_vars("lead")
    kept = np.asarray(stable.values)
    values = np.asarray(variable.values, dtype=np.float64)
    kept = kept.reshape(*kept.shape, *[1] * (values.ndim - kept.ndim))
    return np.where(kept & np.isfinite(values), values, np.nan)


def _correlation_times(results: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Rows for each threshold and field; a sample that is no longer stable counts as uncorrelated."""
    about, dt = results.attrs["physml"]["interval"], float(results.attrs["physml"]["dt"])
    r = results["correlation"].transpose("sample", "lead", "field").values
    lost = results["compared"] & ~results["stable"]
    r = np.where(lost.transpose("sample", "lead").values[..., None], 0.0, r)
    units = _units_of(results)
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
