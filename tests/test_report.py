"""The report: a page that stands alone, numbers that agree with each other, and honest marks."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from settings import exact, make_steady_store

from physml import report
from physml.datasets.store import StoreWriter, TrajectoryStore
from physml.datasets.trajectories import Segment
from physml.emulator import Emulator, Origin
from physml.evaluate import evaluate
from physml.fields import Axis, Boundary, Field, Grid, Layout
from physml.normalise import Standardise
from physml.operators import Persistence
from physml.plot import style
from physml.results import save, summary
from physml.rollout import write_rollout

NASTY = "<script>alert('x')</script>"
LEADS = 6


def make_data(path: Path, layout: Layout, count: int = 4, frames: int = LEADS + 2) -> TrajectoryStore:
    """Random smooth-in-time states; all trajectories but the first are for testing."""
    generator = np.random.default_rng(0)
    shape = (count, frames, *layout.grid.shape, len(layout.fields))
    states = generator.normal(size=(count, 1, *shape[2:])) + 0.1 * generator.normal(size=shape).cumsum(axis=1)
    if layout.grid.mask is not None:
        states *= layout.grid.mask.numpy()[..., None]
    segments = {
        "train": [Segment(0, 0, frames)],
        "validation": [Segment(0, 0, frames)],
        "test": [Segment(row, 0, frames) for row in range(1, count)],
    }
    writer = StoreWriter(
        path,
        name="noise",
        layout=layout,
        count=count,
        frames=frames,
        parameters={"viscosity": [0.01] * count},
        segments=segments,
        provenance={"seed": 0},
    )
    digests = []
    for row in range(count):
        block = writer.chunk_frames
        digests.append("".join(writer.write(row, t, states[row, t : t + block]) for t in range(0, frames, block)))
    return writer.finish(digests)


def persistence(data: TrajectoryStore, out: Path) -> Path:
    emulator = Emulator(Persistence(channels=len(data.layout.fields), axes=len(data.layout.grid.axes)), Standardise())
    emulator.learn(Origin(data.layout, data.statistics.to_plain(), 1, data.fingerprint))
    return write_rollout(
        emulator, data, out, steps=LEADS, starts=1, model={"operator": "Persistence", "sha256": "ab" * 32}
    )


def doctored(data: TrajectoryStore, out: Path, error: float, lost: Sequence[int] = ()) -> Path:
    """A rollout as good as we like: the truth and ``error`` times noise."""
    group = zarr.open_group(persistence(data, out), mode="r+")
    generator = np.random.default_rng(1)
    for row, (trajectory, frame) in enumerate(zip(group["trajectory"][:], group["frame"][:], strict=True)):
        truth = data.read(int(trajectory), int(frame), int(frame) + LEADS)
        guess = truth + error * generator.normal(size=truth.shape).astype(np.float32)
        if row in lost:
            guess[3:] = np.nan
            group["blowup"][row] = 4
        group["state"][row] = guess
    return out


def layout_of(
    shape: tuple[int, ...] = (12, 12), fields: tuple[Field, ...] = (Field("vorticity", "1/s"),), mask: bool = False
) -> Layout:
    axes = tuple(Axis.periodic_uniform(name, n, 6.0, "m") for name, n in zip("xyz", shape, strict=False))
    solid = torch.ones(shape, dtype=torch.bool)
    solid[:2] = False
    return Layout(fields, Grid(axes, solid if mask else None), 0.5, "s")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryStore:
    return make_data(tmp_path_factory.mktemp("data") / "noise.zarr", layout_of())


@pytest.fixture(scope="module")
def results(data: TrajectoryStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    """In an order that is not that of their errors."""
    folder = tmp_path_factory.mktemp("rollouts")
    made = {
        "persistence": persistence(data, folder / "persistence.zarr"),
        NASTY: doctored(data, folder / "good.zarr", 0.01),
        "lossy": doctored(data, folder / "lossy.zarr", 0.001, lost=[1]),
    }
    return {name: evaluate(path, data) for name, path in made.items()}


@pytest.fixture(scope="module")
def page(results: dict[str, xr.Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    return report.write_report(folder, results, title=f"Title {NASTY}", notes=[f"Note {NASTY}"])


# --------------------------------------------------------------------------------------------------------------- page


def test_the_page_stands_alone(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r"https?:|<script|<link|<iframe|url\(|@import|\bhref=|\bon\w+=", text)
    sources = re.findall(r"\bsrc=(.{0,40})", text)
    assert len(sources) == 6 and all(source.startswith('"data:image/') for source in sources)
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text


def test_the_pictures_on_the_page_are_those_beside_it(page: Path) -> None:
    inside = {base64.b64decode(found) for found in re.findall(r"data:image/\w+;base64,([\w+/=]+)", page.read_text())}
    beside = {path.read_bytes() for path in [*page.parent.glob("figures/*.png"), page.parent / "animation.gif"]}
    assert inside == beside and len(beside) == 6
    names = {path.stem for path in page.parent.glob("figures/*")}
    assert names == {"errors", "correlation", "balances", "spectra", "fields_vorticity"}
    assert not list(page.parent.rglob("*.new"))


def test_names_are_escaped(page: Path) -> None:
    text = page.read_text()
    assert html.escape(NASTY) in text and NASTY not in text
    assert f"<h1>Title {html.escape(NASTY)}</h1>" in text and f"<p>Note {html.escape(NASTY)}</p>" in text


def test_every_number_has_its_definition_and_the_page_its_origin(page: Path, results: dict[str, xr.Dataset]) -> None:
    text = html.unescape(page.read_text())
    for column in report.tabulate(results).columns:
        assert f"<li>{column.definition}</li>" in text
    table = results["persistence"]
    for name in ("nrmse", "kinetic_energy", "enstrophy", "energy_spectrum"):
        assert table[name].attrs["definition"] in text
    source = table.attrs["physml"]["source"]
    for origin in (source["fingerprint"], source["path"], "viscosity 0.01", "ab" * 8, "python 3", torch.__version__):
        assert origin in text


def test_metrics_json_is_the_table(page: Path, results: dict[str, xr.Dataset]) -> None:
    told = json.loads((page.parent / "metrics.json").read_text())
    made = report.tabulate(results)
    assert [model["name"] for model in told["models"]] == list(made.rows)
    assert [column["key"] for column in told["columns"]] == [column.key for column in made.columns]
    body = page.read_text().partition("<tbody>")[2].partition("</tbody>")[0]
    shown = [re.findall(r"<td>(.*?)</td>", row) for row in body.split("\n")]
    for model, cells in zip(told["models"], shown, strict=True):
        assert model["summary"] == summary(results[model["name"]])
        for column, cell in zip(told["columns"], cells, strict=True):
            entry = model["row"][column["key"]]
            value = float(re.sub(r"<small>.*|</?strong>|≈&nbsp;|&gt; |†| %| of \d+", "", cell))
            scale = 0.01 if " %" in cell else 1
            # Two significant digits are printed at least, so half a unit of the second.
            assert scale * value == pytest.approx(entry["value"], rel=0.05, abs=1e-12)
            assert (entry["mark"] == "best") == ("<strong>" in cell) and (entry["mark"] == "tie") == ("≈" in cell)
            assert bool(entry["lost"]) == ("†" in cell)
            assert (entry["low"] is None) == ("[" not in cell)


# -------------------------------------------------------------------------------------------------------------- table


def test_rows_hold_the_evaluated_numbers(results: dict[str, xr.Dataset]) -> None:
    made = report.tabulate(results)
    cells = made.rows["persistence"]
    table = results["persistence"]
    for horizon in (1, 4, LEADS):
        expected = table["relative_l2"].sel(horizon=horizon).mean().item()
        assert cells[f"relative_l2_{horizon}"].value == pytest.approx(expected)
    last = table.isel(lead=-1)
    drift = (last["kinetic_energy"] / last["kinetic_energy_truth"] - 1).mean().item()
    assert cells["energy_drift"].value == pytest.approx(drift)
    assert cells["log_spectral_error"].value == pytest.approx(last["log_spectral_error"].item())
    assert cells["unstable"].text == "0 of 3" and made.rows["lossy"]["unstable"].text == "1 of 3"
    assert made.rows["lossy"]["unstable"].below == "from t = 2 s"
    assert {column.key: column.units for column in made.columns}["correlation_time_0.8"] == "s"


def test_the_best_is_marked_where_no_interval_overlaps(results: dict[str, xr.Dataset]) -> None:
    pair = {name: results[name] for name in ("persistence", NASTY)}
    made = report.tabulate(pair)
    assert list(made.rows) == [NASTY, "persistence"]
    assert made.rows[NASTY][f"relative_l2_{LEADS}"].mark == "best"
    assert made.rows["persistence"][f"relative_l2_{LEADS}"].mark == ""
    alone = report.tabulate({NASTY: results[NASTY]})
    assert {cell.mark for row in alone.rows.values() for cell in row.values()} == {""}


def test_equal_models_are_tied(results: dict[str, xr.Dataset]) -> None:
    made = report.tabulate({"a": results[NASTY], "b": results[NASTY]})
    for name in ("a", "b"):
        assert made.rows[name][f"relative_l2_{LEADS}"].mark == made.rows[name]["energy_drift"].mark == "tie"


def test_a_mean_without_its_lost_samples_is_never_the_best(results: dict[str, xr.Dataset]) -> None:
    made = report.tabulate(results)
    assert next(iter(made.rows)) == "lossy"  # its remaining samples are ten times better
    cell = made.rows["lossy"][f"relative_l2_{LEADS}"]
    assert cell.lost == 1 and cell.text.endswith("†") and cell.mark == ""
    assert made.rows[NASTY][f"relative_l2_{LEADS}"].mark == ""  # it has not beaten them
    assert made.rows["lossy"]["relative_l2_1"].lost == 0  # it blew up later
    assert made.rows["lossy"]["relative_l2_1"].mark == "best"
    assert any(note.startswith("†") for note in made.notes)


@pytest.mark.parametrize(
    ("better", "ours", "theirs", "expected"),
    [
        ("low", (1, 0.9, 1.1), (2, 1.2, 2.5), ("best", "")),
        ("low", (1, 0.9, 1.1), (2, 1.1, 2.5), ("tie", "tie")),
        ("high", (2, 1.8, 2.2), (1, 0.5, 1.7), ("best", "")),
        ("high", (2, 1.5, 2.2), (1, 0.5, 1.7), ("tie", "tie")),
        ("near zero", (-0.1, -0.2, 0.1), (0.5, 0.3, 0.6), ("best", "")),
        ("near zero", (-0.1, -0.2, -0.05), (0.2, 0.15, 0.3), ("tie", "tie")),
        ("near zero", (-0.1, -0.2, 0.1), (-0.5, -0.9, 0.4), ("tie", "tie")),
        ("low", (1, None, None), (2, 1.2, 2.5), ("", "")),
        (None, (1, 0.9, 1.1), (2, 1.2, 2.5), ("", "")),
        ("low", (1, 0.9, 1.1), (2, 1.2, 2.5, "", "", 1), ("best", "")),
        ("low", (1, 0.9, 1.1), (0.5, 0.4, 0.6, "", "", 1), ("", "")),
        ("low", (1, 0.9, 1.1), (None,), ("best", "")),
    ],
)
def test_marks(
    better: report.tables.Better | None, ours: tuple[Any, ...], theirs: tuple[Any, ...], expected: tuple[str, str]
) -> None:
    """Value, low and high end, texts, lost samples of two models; the marks they get."""
    cells = {"ours": report.tables.Cell(*ours), "theirs": report.tables.Cell(*theirs)}
    marked = report.tables.mark(cells, better)
    assert (marked["ours"].mark, marked["theirs"].mark) == expected


def test_other_data_are_refused_and_other_starts_are_said(results: dict[str, xr.Dataset]) -> None:
    other = results[NASTY].copy()
    other.attrs = json.loads(json.dumps(other.attrs))
    other.attrs["physml"]["source"]["fingerprint"] = "beef"
    with pytest.raises(ValueError, match=r"other was measured on the data .*beef.*compare models on the same data"):
        report.tabulate({"persistence": results["persistence"], "other": other})
    other.attrs["physml"]["source"] = {**results["persistence"].attrs["physml"]["source"], "split": "elsewhere"}
    with pytest.raises(ValueError, match=r"split 'elsewhere'.*compare models on the same split"):
        report.tabulate({"persistence": results["persistence"], "other": other})
    with pytest.raises(ValueError, match="results: got none"):
        report.tabulate({})
    later = results[NASTY].assign_coords(frame=results[NASTY]["frame"] + 1)
    made = report.tabulate({"persistence": results["persistence"], "later": later})
    assert any("did not start from the same frames" in note for note in made.notes)
    assert not any("did not start" in note for note in report.tabulate(results).notes)


@pytest.mark.parametrize("width", [200, 80, 60])
def test_the_text_fits_the_terminal(results: dict[str, xr.Dataset], width: int) -> None:
    lines = report.table(results, width=width).split("\n")
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert NASTY in text and "persistence" in text and "0 of 3" in text
    assert " ".join(text.split()).count("Relative L2 = sqrt") == 1
    assert "Relative L2 =" not in report.table(results, width=width, definitions=False)


def test_rows_of_the_text_are_models_where_there_is_room(results: dict[str, xr.Dataset]) -> None:
    wide = report.table(results, width=200).split("\n")
    row = next(line for line in wide if line.startswith("persistence"))
    cells = report.tabulate(results).rows["persistence"].values()
    assert all(cell.text in row for cell in cells)
    narrow = report.table({"a": results[NASTY], "b": results["persistence"]}, width=80).split("\n")
    assert narrow[0].split() == ["a", "b"] and narrow[1].startswith("relative L2, 1 frame")


# ---------------------------------------------------------------------------------------------------- all that is drawn


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pixels and frames, where only the choice of figures matters."""
    monkeypatch.setattr(report, "png", partial(style.png, dpi=30))
    monkeypatch.setattr(report, "_FILM_FRAMES", 2)


@pytest.mark.parametrize(
    "layout",
    [
        layout_of((16,), (Field("height", "m"), Field("tracer", ""))),
        layout_of((8, 10), (Field("velocity_x", "m/s"), Field("velocity_y", "m/s")), mask=True),
        layout_of((6, 4, 4), (Field("density", "kg"),)),
        Layout(
            (Field("f"),),
            Grid((Axis("y", torch.tensor([0.0, 0.1, 0.4, 0.9, 1.0], dtype=torch.float64), Boundary.WALL, 1.0),)),
            1.0,
        ),
    ],
    ids=["1-D", "obstacle", "3-D", "no spectrum"],
)
@pytest.mark.usefixtures("quick")
def test_other_states(layout: Layout, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data.zarr", layout, count=2)
    results = evaluate(persistence(data, tmp_path / "r.zarr"), data)
    page = report.write_report(tmp_path / "report", {"persistence": results})
    names = {path.stem for path in page.parent.glob("figures/*")}
    drawn = {f"fields_{field}" for field in layout.names}
    assert names == drawn | {"errors", "correlation", "balances"} | (
        {"spectra"} if layout.grid.axes[0].uniform else set()
    )
    made = report.tabulate({"persistence": results})
    assert [cell.low for cell in made.rows["persistence"].values()] == [None] * len(made.columns)
    assert any(note.startswith("No intervals") for note in made.notes)  # there is one test trajectory


@pytest.mark.usefixtures("quick")
def test_all_samples_lost(data: TrajectoryStore, tmp_path: Path) -> None:
    results = evaluate(doctored(data, tmp_path / "r.zarr", 0.01, lost=[0, 1, 2]), data)
    page = report.write_report(tmp_path / "report", {"gone": results})
    row = json.loads((page.parent / "metrics.json").read_text())["models"][0]["row"]
    assert row[f"relative_l2_{LEADS}"]["value"] is None and row["unstable"]["value"] == 3
    assert "<td>–</td>" in page.read_text()


@pytest.mark.usefixtures("quick")
def test_rollouts_that_are_gone_are_said(data: TrajectoryStore, tmp_path: Path) -> None:
    path = persistence(data, tmp_path / "r.zarr")
    folder = save(evaluate(path, data), tmp_path / "results")
    path.rename(tmp_path / "moved.zarr")
    page = report.write_report(tmp_path / "report", {"persistence": folder})
    assert f"The rollout of persistence is no longer at {path}" in page.read_text()
    assert "two thirds of the smallest Nyquist wavenumber" in page.read_text()  # the spectra are still there
    assert not (page.parent / "animation.gif").exists()
    given = report.write_report(
        tmp_path / "report", {"persistence": folder}, rollouts={"persistence": tmp_path / "moved.zarr"}
    )
    assert (given.parent / "animation.gif").exists() and "no longer" not in given.read_text()
    with pytest.raises(ValueError, match="rollouts: got other, expected names of results: persistence"):
        report.write_report(tmp_path / "report", {"persistence": folder}, rollouts={"other": path})


# -------------------------------------------------------------------------------------------------------------- files


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    results: dict[str, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"a": tmp_path / "nothing is here"}
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="no report can be written"):
        report.write_report(tmp_path / "file" / "report", missing)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(PermissionError, match="no permission to write a report there; choose another folder"):
        report.write_report(tmp_path / "deep" / "report", missing)


def test_the_results_of_an_evaluation_are_not_overwritten(results: dict[str, xr.Dataset], tmp_path: Path) -> None:
    folder = save(results["persistence"], tmp_path / "results")
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="holds the results of an evaluation"):
        report.write_report(folder, {"persistence": folder})
    assert (folder / "metrics.json").read_bytes() == before


def test_a_failed_write_leaves_the_old_page(
    results: dict[str, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("old")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"cannot write the report .No space left on device.") as caught:
        report.write_report(tmp_path, {"a": results[NASTY]}, rollouts={})
    assert caught.value.filename == str(tmp_path)
    assert (tmp_path / "index.html").read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["index.html"]


# ------------------------------------------------------------------------------------------------------------- sample


def test_a_sample_is_read_frame_by_frame(data: TrajectoryStore, tmp_path: Path) -> None:
    sample = report.Sample.open(persistence(data, tmp_path / "r.zarr"), 1)
    assert sample.truth is not None and len(sample.prediction) == len(sample.truth) == LEADS
    stored = zarr.open_group(tmp_path / "r.zarr", mode="r")["state"]
    for lead in (1, LEADS):
        np.testing.assert_array_equal(sample.prediction[lead - 1], stored[1, lead - 1])
        # sample 1 is the second trajectory of the split
        np.testing.assert_array_equal(sample.truth[lead - 1], data.read(2, lead, lead + 1)[0])
    assert sample.origin == (data.fingerprint, 2, 1, 1)


def test_samples_that_cannot_be_shown(data: TrajectoryStore, tmp_path: Path) -> None:
    path = persistence(data, tmp_path / "r.zarr")
    with pytest.raises(ValueError, match=r"sample: got 3, .* has the samples 0 to 2"):
        report.Sample.open(path, 3)
    other = make_data(tmp_path / "other.zarr", layout_of((6, 6)))
    with pytest.raises(ValueError, match=f"truth: .* has fingerprint {other.fingerprint}"):
        report.Sample.open(path, 0, other)
    with pytest.raises(FileNotFoundError):
        report.Sample.open(path, 0, tmp_path / "nowhere.zarr")
    group = zarr.open_group(path, mode="r+")
    about = dict(group.attrs["physml"])
    group.attrs["physml"] = about | {"source": about["source"] | {"path": str(tmp_path / "gone.zarr")}}
    assert report.Sample.open(path).truth is None
    group.attrs["physml"] = about | {"complete": False}
    with pytest.raises(ValueError, match="was interrupted"):
        report.Sample.open(path)


def test_a_steady_rollout_has_no_time_to_report(tmp_path: Path) -> None:
    steady = make_steady_store(tmp_path / "steady.zarr")
    rolled = write_rollout(exact(steady), steady, tmp_path / "x.zarr", steps=1)
    measured = evaluate(rolled)
    made = report.tabulate({"exact": measured})
    keys = [column.key for column in made.columns]
    assert "relative_l2_1" in keys and not any(key.startswith("correlation_time") for key in keys)
    page = report.write_report(tmp_path / "page", {"exact": measured}, rollouts={"exact": rolled})
    assert "<html" in page.read_text()[:200]
