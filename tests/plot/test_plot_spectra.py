"""Spectra: what is drawn where, and the mark at two thirds."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from physml.plot import spectra, style

Results = dict[str, xr.Dataset]


def test_one_panel_for_each_lead_with_the_truth_in_black(results: Results) -> None:
    figure = spectra.energy(results, [1, 4])
    assert [ax.get_title() for ax in figure.axes] == ["t = 0.5 s (lead 1)", "t = 2 s (lead 4)"]
    for ax, lead in zip(figure.axes, (1, 4), strict=True):
        drawn = {str(line.get_label()): line for line in ax.get_lines() if line.get_label() in ("truth", *results)}
        assert list(drawn) == ["truth", "near", "far"] and drawn["truth"].get_color() == style.TRUTH
        assert ax.get_xscale() == ax.get_yscale() == "log"
        for name, key in (("truth", "energy_spectrum_truth"), ("near", "energy_spectrum")):
            expected = results["near"][key].sel(lead=lead)
            np.testing.assert_array_equal(drawn[name].get_ydata(), expected[1:])
            np.testing.assert_array_equal(drawn[name].get_xdata(), expected["wavenumber"][1:])
        assert ax.get_xlabel() == "wavenumber (1/m)"
    assert figure.axes[0].get_ylabel() == "energy spectrum ((m/s)^2)"
    assert len(spectra.energy(results).axes) == 3


def test_the_cut_is_at_two_thirds_of_nyquist(results: Results) -> None:
    figure = spectra.energy(results, [1])
    (cut,) = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "--"]
    assert set(cut.get_xdata()) == {4.0}  # 2/3 of 6
    assert "2/3" in [text.get_text() for text in figure.axes[0].texts]
    unknown = {
        name: table.assign_attrs(physml=table.attrs["physml"] | {"shell_limit": None})
        for name, table in results.items()
    }
    assert not [line for line in spectra.energy(unknown, [1]).axes[0].get_lines() if line.get_linestyle() == "--"]


def test_the_axis_ends_above_rounding_noise(results: Results) -> None:
    quiet = {name: table.copy() for name, table in results.items()}
    for table in quiet.values():
        for key in ("energy_spectrum", "energy_spectrum_truth"):
            table[key] = table[key].where(table["wavenumber"] <= 4, 1e-30)
    low, _ = spectra.energy(quiet, [1]).axes[0].get_ylim()
    assert low > 1e-20


def test_without_a_velocity_the_variance_spectrum_is_shown(two_fields: Results) -> None:
    figure = spectra.energy(two_fields, [1])
    expected = two_fields["far"]["variance_spectrum"].sel(lead=1).isel(field=0)[1:]
    np.testing.assert_array_equal(figure.axes[0].get_lines()[2].get_ydata(), expected)
    bare = {name: table[["nrmse"]] for name, table in two_fields.items()}
    with pytest.raises(ValueError, match="results: got no spectra"):
        spectra.energy(bare)


def test_letters_are_readable(results: Results) -> None:
    figure = spectra.energy(results)
    style.png(figure)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8
