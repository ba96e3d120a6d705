"""Curves over the lead time, and films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from physml.fields import Axis, Field, Grid, Layout
from physml.plot import save_animation, style, trajectories
from physml.results import over_samples

LOST = 5  # the lead at which a sample of the model "far" blows up

Results = dict[str, xr.Dataset]


def lines(figure: Figure, panel: int = 0) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[panel].get_lines()}


def entries(figure: Figure) -> list[str]:
    return [text.get_text().split("\n")[0] for text in figure.legends[0].get_texts()]


def test_curves_are_means_over_stable_samples_with_their_interval(results: Results) -> None:
    figure = trajectories.error_growth(results)
    drawn = lines(figure)
    for name, table in results.items():
        expected = over_samples(table, "nrmse").isel(field=0)
        np.testing.assert_allclose(drawn[name].get_xdata(), 0.5 * np.arange(1, 9))
        np.testing.assert_allclose(drawn[name].get_ydata(), expected["mean"])
        (band,) = [
            item
            for item in figure.axes[0].collections
            if tuple(item.get_facecolor()[0][:3]) == to_rgba(drawn[name].get_color())[:3]
        ]
        vertices = band.get_paths()[0].vertices
        assert vertices[:, 1].max() == pytest.approx(expected["high"].max().item())
        assert vertices[:, 1].min() == pytest.approx(expected["low"].min().item())
    assert figure.axes[0].get_xlabel() == "lead time (s)" and figure.axes[0].get_ylabel() == "nRMSE"
    assert "95 % interval over 3 trajectories" in figure.get_supxlabel()


def test_no_skill_is_a_line_at_one_where_it_means_something(results: Results) -> None:
    for metric, said in (("nrmse", "prediction of zero"), ("vrmse", "mean of the truth")):
        assert set(lines(trajectories.error_growth(results, metric))[said].get_ydata()) == {1}
    figure = trajectories.error_growth(results, "rmse")
    assert not any(line.get_linestyle() == ":" for line in figure.axes[0].get_lines())
    assert figure.axes[0].get_ylabel() == "RMSE (1/s)"


def test_small_errors_are_not_flattened_by_the_line_of_no_skill(results: Results) -> None:
    figure = trajectories.error_growth({"near": results["near"]})
    assert "prediction of zero" not in lines(figure) and figure.axes[0].get_ylim()[1] < 0.2


def test_the_axis_holds_the_curves_of_all_panels(two_fields: Results) -> None:
    larger = {name: table.copy() for name, table in two_fields.items()}
    for table in larger.values():
        table["nrmse"] = table["nrmse"] * xr.DataArray([1.0, 10.0], {"field": table["field"].values})
        table["correlation"] = table["correlation"] * xr.DataArray([1.0, -1.0], {"field": table["field"].values})
    figure = trajectories.error_growth(larger)
    drawn = np.concatenate([line.get_ydata() for ax in figure.axes for line in ax.get_lines()])
    for ax in figure.axes:
        assert ax.get_ylim()[0] <= drawn.min() and ax.get_ylim()[1] >= drawn.max() and ax.get_yscale() == "log"
    assert trajectories.correlation(larger).axes[0].get_ylim()[0] < -0.9


def test_a_cross_marks_where_a_sample_was_lost(results: Results) -> None:
    figure = trajectories.error_growth(results)
    (cross,) = [line for line in figure.axes[0].get_lines() if line.get_gid() == "unstable"]
    assert list(cross.get_xdata()) == [0.5 * LOST] and cross.get_marker() == "x"
    assert cross.get_color() == lines(figure)["far"].get_color()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "far\n(1 of 3 unstable, ×)" in texts and "near" in texts


def test_the_legend_is_in_the_order_of_the_curves(results: Results) -> None:
    # The largest error is drawn on top, the largest correlation too; colours belong to names, not to ranks.
    for order in (results, dict(reversed(results.items()))):
        figure = trajectories.error_growth(order)
        assert entries(figure) == ["far", "near", "prediction of zero"]
        assert entries(trajectories.correlation(order)) == ["near", "far"]
        assert lines(figure)[next(iter(order))].get_color() == style.PALETTE[0]
    lost = results["far"].copy()
    lost["stable"] = lost["stable"] & (lost["lead"] < 3)
    figure = trajectories.error_growth({"near": results["near"], "gone": lost})
    assert entries(figure)[0] == "gone"  # no sample is left: worse than any error


def test_correlation_counts_lost_samples_as_zero_and_shows_the_thresholds(results: Results) -> None:
    figure = trajectories.correlation(results)
    far = results["far"]
    expected = far["correlation"].isel(field=0).where(far["stable"], 0).mean("sample")
    np.testing.assert_allclose(lines(figure)["far"].get_ydata(), expected)
    levels = {float(line.get_ydata()[0]) for line in figure.axes[0].get_lines() if line.get_linestyle() == ":"}
    assert levels == {0.8, 0.95}
    assert {text.get_text() for text in figure.axes[0].texts} == {"0.8", "0.95"}


def test_balances_show_the_truth_in_black(results: Results) -> None:
    figure = trajectories.conserved(results)
    assert [ax.get_ylabel() for ax in figure.axes] == ["kinetic energy ((m/s)^2)", "enstrophy ((1/s)^2)"]
    for panel, name in enumerate(("kinetic_energy", "enstrophy")):
        drawn = lines(figure, panel)
        assert drawn["truth"].get_color() == style.TRUTH
        np.testing.assert_allclose(drawn["truth"].get_ydata(), results["near"][f"{name}_truth"].mean("sample"))
        np.testing.assert_allclose(drawn["near"].get_ydata(), results["near"][name].mean("sample"))


def test_states_without_velocity_show_variances(two_fields: Results) -> None:
    figure = trajectories.conserved(two_fields)
    assert [ax.get_ylabel() for ax in figure.axes] == ["variance of height (m^2)", "variance of tracer (kg^2)"]


def test_several_fields_have_a_panel_each(two_fields: Results) -> None:
    figure = trajectories.error_growth(two_fields, "rmse")
    assert [ax.get_ylabel() for ax in figure.axes] == ["RMSE of height (m)", "RMSE of tracer (kg)"]
    assert [ax.get_ylabel() for ax in trajectories.error_growth(two_fields, "rmse", "tracer").axes] == ["RMSE (kg)"]
    with pytest.raises(ValueError, match="field: got 'speed', expected one of height, tracer"):
        trajectories.correlation(two_fields, "speed")
    with pytest.raises(ValueError, match="metric: got 'error'"):
        trajectories.error_growth(two_fields, "error")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="results: got none"):
        trajectories.error_growth({})


def test_letters_are_readable(results: Results) -> None:
    for figure in (
        trajectories.error_growth(results),
        trajectories.correlation(results),
        trajectories.conserved(results),
    ):
        style.png(figure)
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8


# -------------------------------------------------------------------------------------------------------------- films

SQUARE = Layout(
    (Field("vorticity", "1/s"),), Grid(tuple(Axis.periodic_uniform(n, 8, 1.0, "m") for n in "xy")), 0.5, "s"
)


def test_a_film_shows_each_frame_with_shared_limits(tmp_path: Path) -> None:
    truth = np.random.default_rng(0).normal(size=(6, 8, 8, 1))
    film = trajectories.animate(truth, {"a": truth + 1, "b": truth}, SQUARE, leads=[1, 4, 6])
    figure = film._fig
    panels = [ax for ax in figure.axes if ax.get_images()]
    assert [ax.get_title() for ax in panels] == ["truth", "a", "b"]
    assert len({ax.get_images()[0].get_clim() for ax in panels}) == 1
    places = [ax.get_position().bounds for ax in panels]
    for lead in (4, 6):
        film._func(lead)
        assert figure.get_suptitle() == f"t = {0.5 * lead:g} s (lead {lead})"
        np.testing.assert_array_equal(panels[1].get_images()[0].get_array().T, truth[lead - 1, ..., 0] + 1)
    path = save_animation(film, tmp_path / "new" / "film.gif", fps=5)
    with Image.open(path) as opened:
        assert opened.n_frames == 3 and opened.info["duration"] == 200
    assert [ax.get_position().bounds for ax in panels] == places
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(8, 8), (32, 12), (12, 32)])
def test_nothing_of_a_film_is_cut_off(shape: tuple[int, int]) -> None:
    axes = tuple(Axis.periodic_uniform(name, n, n / 3, "D") for name, n in zip("xy", shape, strict=True))
    truth = np.random.default_rng(0).normal(size=(2, *shape, 1))
    film = trajectories.animate(truth, {"a": truth, "b": truth}, Layout((Field("u", "U"),), Grid(axes), 0.5, "s"))
    film._draw_was_started = True  # nothing is written here
    figure = film._fig
    FigureCanvasAgg(figure).draw()
    inside = figure.get_tightbbox()  # inches
    width, height = figure.get_size_inches()
    assert inside.x0 >= 0 and inside.y0 >= 0 and inside.x1 <= width and inside.y1 <= height


def test_a_film_of_lines_and_of_slices(tmp_path: Path) -> None:
    line = Layout((Field("height", "m"),), Grid((Axis.periodic_uniform("x", 8, 1.0, "m"),)), 0.5, "s")
    truth = np.random.default_rng(0).normal(size=(3, 8, 1))
    film = trajectories.animate(truth, 2 * truth, line)
    film._func(3)
    drawn = {str(item.get_label()): item for item in film._fig.axes[0].get_lines()}
    np.testing.assert_array_equal(drawn["prediction"].get_ydata(), 2 * truth[2, :, 0])
    save_animation(film, tmp_path / "line.gif", dpi=30)
    cube = Layout((Field("f"),), Grid(tuple(Axis.periodic_uniform(n, 4, 1.0, "m") for n in "xyz")), 0.5, "s")
    truth = np.random.default_rng(0).normal(size=(2, 4, 4, 4, 1))
    film = trajectories.animate(truth[:1], truth, cube)
    film._func(2)
    assert film._fig.get_suptitle() == "t = 1 s (lead 2), slice z = 0.5 m"
    assert [ax.texts[0].get_text() for ax in film._fig.axes if ax.get_images()] == ["no truth", ""]
    save_animation(film, tmp_path / "slice.gif", dpi=30)


def test_a_film_is_refused_where_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.ones((2, 8, 8, 1))
    film = trajectories.animate(truth, truth, SQUARE)
    save_animation(film, tmp_path / "film.gif", dpi=30)
    with pytest.raises(ValueError, match=r"film.avi ends in '.avi', expected .gif or .mp4"):
        save_animation(film, tmp_path / "film.avi")
    monkeypatch.setattr(style.writers, "is_available", lambda name: False)
    with pytest.raises(ValueError, match="needs the program ffmpeg"):
        save_animation(film, tmp_path / "film.mp4")
