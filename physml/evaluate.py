"""Measure a stored rollout against the truth: one tidy table of numbers, for :mod:`physml.results`.

A rollout is read sample by sample and block by block, so the memory needed depends on neither its length nor the number
of samples, apart from the results. Everything is computed in float64 and in physical units.

A sample counts as long as it is stable. It stops being so with the first frame that the rollout marked as unphysical,
or with the first whose kinetic energy (the variance of each field, where the state has no velocity) lies outside twice
the range that the truth covers, ``[min/2, 2 max]`` over all samples and leads. Means leave out a sample from then on;
how many samples are left is printed beside every mean.
"""

from __future__ import annotations

import math
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
from physml.metrics import pointwise
from physml.metrics.pointwise import UndefinedMetric, average
from physml.metrics.spectral import log_spectral_error
from physml.physics import balances, derivatives, kinematics, residuals, spectra
from physml.results import DEFINITIONS, FORMAT, squared

HORIZONS = (1, 4, 8, 16, 32, 64)
"""Leads at which the summary reports, with the last; those a rollout does not reach are left out."""

BAND = 2.0
"""A sample is unstable outside ``[min/BAND, max*BAND]`` of the truth's energy."""

_TEXT = np.dtypes.StringDType()  # the one that zarr v3 has a specification for
_BLOCK_BYTES = 1 << 25  # of one state block in float64

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
        confidence: of the intervals in :func:`physml.results.summary` and :func:`physml.results.over_samples`.
        resamples: bootstrap draws of these intervals.
        seed: of the draws.
        device: where to compute; it must know float64.
        progress: called with samples done and samples in total.

    Returns:
        Variables along ``sample``, ``lead``, ``field``, ``horizon`` and ``wavenumber``, each with ``units``,
        ``long_name`` and ``definition``: nrmse, vrmse, rmse, correlation; relative_l2; kinetic_energy, enstrophy,
        divergence, residual, variance and their ``_truth``, as far as the fields and parameters of the data define
        them; spectra of prediction and truth and their log_spectral_error; stable. What the rollout predicts beyond the
        last stored frame of the data is compared with nothing and NaN. The attribute ``physml`` says where all this
        comes from, and as ``shell_limit`` the largest wavenumber of the log-spectral error (``None`` without one).

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
        self.known = ends < np.array([data.length(int(row)) for row in rolled.trajectory])[:, None]
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
        about, limit = self.rolled.about, self._last_shell()
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
            "shell_limit": None if limit is None or self.wavenumbers is None else float(self.wavenumbers[limit]),
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

    def _last_shell(self) -> int | None:
        """Up to which shell spectra are compared; ``None`` where the grid has no such shell."""
        if self.wavenumbers is None:
            return None
        limit = spectra.shell_limit(self.grid)
        return limit if 1 <= limit < len(self.wavenumbers) else None

    def _spectral_error(
        self, table: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]]
    ) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        name = "energy_spectrum" if "energy_spectrum" in table else "variance_spectrum"
        limit = self._last_shell()
        if f"{name}_truth" not in table or limit is None:
            return {}
        dims, ours = table[name]
        theirs = table[f"{name}_truth"][1]
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
            self.velocity = _product(self.vorticity, self.length) if self.vorticity and self.length else ""
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
        return f"{base}, squared" if base == "of each field" else squared(base)


def _product(rate: str, length: str) -> str:
    """Units of a vorticity times those of a length: ``1/s`` and ``m`` give ``m/s``, ``U/D`` and ``D`` give ``U``."""
    above, _, below = rate.partition("/")
    if below == length:
        return "" if above == "1" else above
    return f"{length}/{below}" if above == "1" and below else f"{rate} {length}"
