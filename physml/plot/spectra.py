"""Energy at each scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from physml.plot.fields import chosen_leads
from physml.plot.style import TRUTH, blank, label, lines, quantity, styled

SPECTRA = ("energy_spectrum", "variance_spectrum")
"""What is drawn: the first of these that the results hold."""


@styled
def energy(results: Mapping[str, xr.Dataset], leads: Sequence[int] | None = None) -> Figure:
    """Energy spectra at several leads, one panel each, both axes logarithmic; the truth in black.

    States without a velocity have no energy; the variance spectrum of their first field is shown. The wavenumber 0 has
    no place on a logarithmic axis and is left out. A dashed line marks two thirds of the smallest Nyquist wavenumber,
    the last shell of the log-spectral error, where the results know it.

    Args:
        results: of :func:`physml.evaluate.evaluate`, by the name to show.
        leads: from 1; three between the first and the last if not given.

    Raises:
        ValueError: where the results hold no spectrum, as on grids without a uniform axis.
    """
    name = next((name for name in SPECTRA if all(name in table for table in results.values())), None)
    if name is None or not results:
        raise ValueError(
            "results: got no spectra, expected tables of physml.evaluate for states on a grid with a uniform axis."
        )
    shown = chosen_leads(leads, min(table.sizes["lead"] for table in results.values()), 3)
    figure = blank(max(4.5, 2.3 * len(shown) + 0.6), 2.9)
    axes: list[Axes] = figure.subplots(1, len(shown), squeeze=False, sharex=True, sharey=True).ravel().tolist()
    look, first = lines(results), next(iter(results.values()))
    for ax, lead in zip(axes, shown, strict=True):
        k, truth = _curve(first, f"{name}_truth", lead)
        ax.loglog(k, truth, color=TRUTH, label="truth", linewidth=2.0)
        for model, table in results.items():
            ax.loglog(*_curve(table, name, lead), label=model, **look[model])
        about = first.attrs["physml"]
        ax.set_title(f"t = {quantity(lead * about['dt'], about['time_units'])} (lead {lead})")
        ax.set_xlabel(label("wavenumber", str(first["wavenumber"].attrs.get("units", ""))))
    _limit(axes, first, name)
    long_name = str(first[name].attrs.get("long_name", name))
    units = str(first[name].attrs.get("units", ""))
    axes[0].set_ylabel(label(long_name, units))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, len(names)))
    return figure


def _curve(table: xr.Dataset, name: str, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Wavenumbers and values without the shell 0; NaN where a shell is empty."""
    spectrum = table[name].sel(lead=lead)
    if "field" in spectrum.dims:
        spectrum = spectrum.isel(field=0)
    values = spectrum.values[1:]
    return table["wavenumber"].values[1:], np.where(values > 0, values, np.nan)


def _limit(axes: Sequence[Axes], table: xr.Dataset, name: str) -> None:
    """The 2/3 cut, and an axis that ends six decades below the shells that count, not at rounding noise."""
    k, limit = table["wavenumber"].values, table.attrs["physml"].get("shell_limit")
    truth = table[f"{name}_truth"]
    if "field" in truth.dims:
        truth = truth.isel(field=0)
    counted = truth.values[:, (k > 0) & (k <= (math.inf if limit is None else limit))]
    counted = counted[np.isfinite(counted) & (counted > 0)]
    for ax in axes:
        if limit is not None:
            ax.axvline(limit, color="0.4", linewidth=0.8, linestyle="--")
            ax.set_xlim(right=1.5 * limit)
            ax.annotate(
                "2/3",
                (limit, 0),
                (-3, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                color="0.4",
                fontsize=8,
            )
        if counted.size:
            bottom, top = ax.get_ylim()
            ax.set_ylim(max(bottom, counted.min() * 1e-2, counted.max() * 1e-12), min(top, counted.max() * 1e2))
