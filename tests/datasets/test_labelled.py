from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import totals
from waves import make_store

from physml.datasets import Labelled, Segment, TrajectoryStore, labelled, open_trajectories
from physml.datasets.trajectories import Trajectories
from physml.fields import Boundary

pytest.importorskip("h5netcdf")

KINDS = ("netcdf3", "netcdf4", "zarr2", "zarr3", "zarr3 consolidated")
DIMENSIONS = ("number", "time", "level", "longitude", "latitude")
SHAPE = (2, 6, 3, 8, 5)


def numbers() -> np.ndarray:
    """``1000 n + 100 t + 10 l + i + 0.1 j``: every mistake of an index shows."""
    parts = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij", sparse=True)
    return sum(scale * part for scale, part in zip((1000, 100, 10, 1, 0.1), parts, strict=True)).astype(np.float32)


def weather(u: np.ndarray | None = None, **changes: Any) -> xr.Dataset:
    coordinates = {
        "number": ("number", [1, 2]),
        "time": ("time", 6.0 * np.arange(6), {"units": "hours since 2001-02-03"}),
        "level": ("level", [850.0, 500.0, 200.0], {"units": "hPa"}),
        "longitude": ("longitude", 45.0 * np.arange(8), {"units": "degrees_east"}),
        "latitude": ("latitude", [-60.0, -30.0, 0.0, 30.0, 60.0], {"units": "degrees_north"}),
    }
    data = numbers() if u is None else u
    return xr.Dataset({"u": (DIMENSIONS, data, {"units": "m/s"})}, coords=coordinates | changes)


def written(folder: Path, kind: str, data: xr.Dataset, name: str = "data") -> Path:
    file = folder / f"{name}.{'zarr' if kind.startswith('zarr') else 'nc'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names and metadata that zarr does not list yet
        if kind == "netcdf3":
            data.to_netcdf(file, engine="scipy", format="NETCDF3_64BIT")
        elif kind == "netcdf4":
            data.to_netcdf(file, engine="h5netcdf")
        else:
            data.to_zarr(file, zarr_format=int(kind[4]), consolidated=kind.endswith("consolidated"), mode="w")
    return file


def mapped(file: Path | str, **keys: Any) -> Path:
    made = (file if isinstance(file, Path) else Path(file)).parent / "mine.physml.yaml"
    made.write_text(yaml.safe_dump({"file": Path(file).name, **keys}, sort_keys=False))
    return made


def everything(data: Trajectories) -> np.ndarray:
    return np.stack([data.read(row, 0, data.frames) for row in range(data.count)])


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_attributes_say_what_the_data_are(kind: str, tmp_path: Path) -> None:
    data = open_trajectories(written(tmp_path, kind, weather()))
    assert isinstance(data, Labelled) and (data.count, data.frames) == (2, 6)
    assert [(f.name, f.units) for f in data.layout.fields] == [
        ("u_850", "m/s"),
        ("u_500", "m/s"),
        ("u_200", "m/s"),
    ]
    assert (data.layout.dt, data.layout.time_units) == (6.0, "hours")
    longitude, latitude = data.layout.grid.axes
    assert (longitude.name, longitude.boundary, longitude.length) == ("longitude", Boundary.PERIODIC, 360.0)
    assert (latitude.name, latitude.boundary, latitude.length) == ("latitude", Boundary.OPEN, 120.0)
    np.testing.assert_array_equal(everything(data), np.moveaxis(numbers(), 2, -1))
    np.testing.assert_array_equal(data.read(1, 1, 6, 3), np.moveaxis(numbers(), 2, -1)[1, 1:6:3])
    assert data.layout.grid.mask is None


@settings(max_examples=15)
@given(
    order=st.permutations(DIMENSIONS),
    falling=st.sets(st.sampled_from(("longitude", "latitude"))),
    short=st.sets(st.sampled_from(("number", "time", "level"))),
    kind=st.sampled_from(("netcdf3", "zarr3")),
)
def test_dimensions_may_come_in_any_order_and_fall(
    order: list[str], falling: set[str], short: set[str], kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = weather().isel(dict.fromkeys(short, slice(0, 1))).transpose(*order)
    data = data.isel(dict.fromkeys(falling, slice(None, None, -1)))
    found = Labelled(written(tmp_path_factory.mktemp("any"), kind, data))
    expected = np.moveaxis(numbers(), 2, -1)
    pick = tuple(slice(0, 1) if name in short else slice(None) for name in ("number", "time", "", "", "level"))
    np.testing.assert_array_equal(everything(found), expected[pick])
    assert found.layout.names == (("u",) if "level" in short else ("u_850", "u_500", "u_200"))


@pytest.mark.parametrize("poles", [True, False])
def test_latitudes_have_the_weights_of_a_sphere(poles: bool, tmp_path: Path) -> None:
    n = 37
    phi = np.linspace(-90, 90, n) if poles else -90 + 180 / n * (np.arange(n) + 0.5)
    values = np.ones((3, n, 8), np.float32) * np.arange(3)[:, None, None]
    data = xr.Dataset(
        {"t": (("time", "lat", "lon"), values)},
        coords={"time": [0.0, 1, 2], "lat": ("lat", phi), "lon": ("lon", 45.0 * np.arange(8))},
    )
    axis = Labelled(written(tmp_path, "netcdf3", data)).layout.grid.axes[1]
    weights, phi = axis.weights.numpy(), np.deg2rad(axis.points.numpy())
    # the cells tile the sphere: exact
    np.testing.assert_allclose(weights.sum(), 2 * np.rad2deg(1), rtol=1e-12)
    # mean of sin^2 over a sphere is 1/3; the rule is of second order in the spacing
    assert abs((weights * np.sin(phi) ** 2).sum() / weights.sum() - 1 / 3) < np.deg2rad(180 / n) ** 2
    inner = slice(1, -1)
    step = phi[1] - phi[0]
    np.testing.assert_allclose(weights[inner], np.rad2deg(np.cos(phi[inner]) * step), rtol=step**2)
    assert not axis.uniform


@pytest.mark.parametrize(
    ("points", "periodic", "kept"),
    [
        (np.arange(0, 360, 30.0), True, 12),
        (np.arange(-180, 180, 30.0), True, 12),
        (np.arange(15, 360, 30.0), True, 12),
        (np.arange(0, 361, 30.0), True, 12),  # the end point repeats the first
        (np.arange(0, 331, 30.0)[::-1], True, 12),
        (np.arange(0, 270, 30.0), False, 9),
        (np.arange(0, 360, 0.7), False, 515),  # ends 0.2 short: no whole number of steps goes round
    ],
)
def test_a_longitude_that_goes_round_is_periodic(points: np.ndarray, periodic: bool, kept: int, tmp_path: Path) -> None:
    values = np.cos(np.deg2rad(points)) * np.arange(1, 4)[:, None]
    data = xr.Dataset({"t": (("time", "lon"), values)}, coords={"time": [0, 1, 2], "lon": points})
    axis = Labelled(written(tmp_path, "netcdf3", data)).layout.grid.axes[0]
    assert (axis.boundary is Boundary.PERIODIC) == periodic and len(axis.points) == kept
    assert axis.length == (360.0 if periodic else points.max() - points.min())


def test_packed_numbers_are_unpacked_and_gaps_found(tmp_path: Path) -> None:
    u = numbers()
    u[..., 3, 2] = np.nan
    data = weather(u)
    data["u"].encoding = {"dtype": "int16", "scale_factor": 0.1, "add_offset": 5.0, "_FillValue": -999}
    found = Labelled(written(tmp_path, "netcdf3", data))
    mask = found.layout.grid.mask
    assert mask is not None and np.argwhere(~mask.numpy()).tolist() == [[3, 2]]
    expected = np.moveaxis(np.nan_to_num(u), 2, -1)
    np.testing.assert_allclose(everything(found), expected, atol=0.051)  # half the smallest step, and rounding


def test_land_is_masked_and_gaps_are_refused(tmp_path: Path) -> None:
    u, v = numbers(), numbers() + 1
    u[..., 0, 0] = np.nan
    v[..., 5, 1] = np.nan
    data = weather(u).assign(v=(DIMENSIONS, v), depth=(("latitude", "longitude"), np.full((5, 8), 2.0, np.float32)))
    data["depth"][0, 0] = np.nan
    found = Labelled(written(tmp_path, "netcdf4", data))
    mask = found.layout.grid.mask
    assert mask is not None and np.argwhere(~mask.numpy()).tolist() == [[0, 0], [5, 1]]
    values = everything(found)
    assert not values[:, :, ~mask.numpy()].any() and np.isfinite(values).all()
    assert [field.name for field in found.layout.static] == ["depth"]
    assert found.read_static(0)[0, 0, 0] == 0 and found.read_static(1)[5, 1, 0] == 2
    for place, message in (((0, 4, 1, 2, 3), "v_500 at longitude 90, latitude 30 is missing"),):
        data["v"].values[place] = np.nan
        gap = Labelled(written(tmp_path, "netcdf4", data, "gap"))
        gap.read(0, 0, 4)
        with pytest.raises(ValueError, match=rf"{message} \(NaN\) in frame 4 of trajectory 0 and is not in the first"):
            gap.read(0, 2, 6, 2)
    u[1, 2, 0, 0, 0] = 1.0
    filled = Labelled(written(tmp_path, "netcdf4", weather(u), "filled"))
    with pytest.raises(ValueError, match=r"is not missing \(NaN\) in frame 2 of trajectory 1 and is in the first"):
        filled.read(1, 0, 6)


def test_variables_are_fields_static_fields_and_parameters(tmp_path: Path) -> None:
    x, y = np.linspace(0, 1, 4), np.array([0.0, 1, 4])
    data = xr.Dataset(
        {
            "c": (("run", "t", "y", "x"), np.random.default_rng(0).random((3, 4, 3, 4)), {"units": "1"}),
            "porosity": (("run", "x", "y"), np.arange(36.0).reshape(3, 4, 3)),
            "viscosity": (("run",), [0.1, 0.2, 0.3]),
            "mean": (("run", "t"), np.zeros((3, 4))),
            "x_edges": (("x", "edge"), np.zeros((4, 2))),
            "crs": ((), 0),
        },
        coords={"t": [0.0, 0.5, 1, 1.5], "x": ("x", x, {"units": "m", "bounds": "x_edges"}), "y": y},
    )
    found = Labelled(written(tmp_path, "netcdf3", data))
    assert found.layout.names == ("c",) and found.layout.fields[0].units == ""
    assert found.layout.grid.names == ("x", "y") and found.layout.dt == 0.5
    np.testing.assert_array_equal(found.read_static(2)[..., 0], data["porosity"][2])
    assert found.parameters["viscosity"].tolist() == [0.1, 0.2, 0.3] and list(found.parameters) == ["viscosity"]
    assert found.provenance["left_out"] == ["crs", "mean", "x_edges"]
    np.testing.assert_array_equal(found.layout.grid.axes[1].weights, [1, 2, 3])  # cells around 0, 1, 4
    assert found.segments == {
        "train": (Segment(0, 0, 4),),
        "validation": (Segment(1, 0, 4),),
        "test": (Segment(2, 0, 4),),
    }


def test_a_mapping_file_has_the_last_word(tmp_path: Path) -> None:
    data = weather().rename(time="month", level="layer").drop_vars(["month"])
    data = data.assign_coords(month=[1, 2, 4, 7, 8, 9], layer=("layer", [850.0, 500, 200]))
    file = written(tmp_path, "netcdf4", data)
    with pytest.raises(ValueError, match=r"variable u: dimension month of length 6 is not understood.*month \(6\)"):
        open_trajectories(file)
    found = open_trajectories(
        mapped(
            file,
            name="weather",
            dimensions={"month": "time", "layer": "level"},
            fields={"velocity_x": {"array": "u", "level": 500, "units": "knots"}},
            parameters={"drag": [1, 2]},
            axes={"longitude": {"boundary": "open", "units": "deg"}},
            time={"dt": 1, "units": "months"},
            split={"along": "time", "gap": 1, "train": 0.8, "test": 0.2},
        )
    )
    assert found.name == "weather" and [(f.name, f.units) for f in found.layout.fields] == [("velocity_x", "knots")]
    assert (found.layout.dt, found.layout.time_units) == (1.0, "months")
    assert found.layout.grid.boundaries == (Boundary.OPEN, Boundary.OPEN)
    assert found.layout.grid.axes[0].units == "deg" and found.parameters["drag"].tolist() == [1, 2]
    np.testing.assert_array_equal(everything(found)[..., 0], numbers()[:, :, 1])
    assert found.segments["train"] == (Segment(0, 0, 4), Segment(1, 0, 4)) and found.segments["test"][0].start == 5
    for keys, message in (
        ({"dimensions": {"month": "times"}}, r"dimensions\.month: got 'times'; expected one of time, trajectory"),
        ({"dimensions": {"week": "time"}}, r"dimensions\.week: .*expected a dimension of the file; there are number"),
        ({"fields": {"w": {}}}, r"fields\.w\.array: is missing; expected a variable of the file; there are u"),
        ({"fields": {"u": {"level": 300}}}, r"fields\.u\.level: got 300; expected one of the levels 850, 500, 200"),
        ({"axes": {"x": {}}}, r"axes\.x: unknown key; axes takes latitude, longitude"),
        ({"parameters": {"nu": [1, 2, 3]}}, r"parameters\.nu: .*expected a number, 2 numbers"),
        (
            {"fields": {"u": {"level": 850}}, "static": {"w": {"array": "u", "level": 500}}},
            "static: .*expected variables without time",
        ),
        ({"splits": {}}, "splits: unknown key"),
        ({"time": {"dt": 0}}, r"time\.dt: got 0; expected a number above 0"),
    ):
        plain = {"dimensions": {"month": "time", "layer": "level"}, "time": {"dt": 1}}
        made = mapped(file, **(plain | keys))
        with pytest.raises(ValueError, match=message):
            Labelled(made)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 6, 12, 12, 18, 24], "time repeats: frame 2 is at 12 and frame 3 at 12"),
        ([0, 6, 18, 12, 24, 30], "time is out of order: frame 2 is at 18 and frame 3 at 12"),
        ([0, 6, 12, 18, 48, 54], "unevenly spaced: from frame 3 to frame 4 it is 30, elsewhere 6"),
    ],
)
def test_uneven_time_is_an_error_that_names_the_place(times: list[float], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Labelled(written(tmp_path, "netcdf3", weather(time=np.array(times))))


def test_many_times_in_single_precision_are_even(tmp_path: Path) -> None:
    # hours since 1900, a record of 2020: spacing of single-precision numbers there is 1/8 hour
    times = (1051896 + 1.0 * np.arange(6)).astype(np.float32)
    assert Labelled(written(tmp_path, "netcdf3", weather(time=times))).layout.dt == 1.0


def test_dimensions_that_say_too_little_are_an_error(tmp_path: Path) -> None:
    data = weather().isel(number=0, level=0, drop=True)
    for case, (changed, message) in enumerate(
        (
            (data.drop_vars("latitude"), "latitude: has no coordinate variable of numbers"),
            (data.drop_vars("time"), r"time has no times; give time\.dt"),
            (
                data.rename(latitude="rows", longitude="columns").drop_vars(["rows", "columns"]),
                "no variable over space",
            ),
            (data.assign_coords(latitude=("latitude", [0.0, 1, 1, 2, 3])), "latitude are out of order: point 1"),
            (data.assign_coords(latitude=("latitude", [0.0, 30, 60, 90, 120])), "expected at most 90 degrees"),
            (
                data.rename(longitude="lon2").assign_coords(lon2=("lon2", np.arange(8.0), {"units": "degrees_north"})),
                "lon2 and latitude both look like latitude|latitude and lon2 both look like latitude",
            ),
            (data.assign(u=data["u"] * np.nan), r"every point misses a field \(NaN\)"),
            (xr.Dataset(coords=data.coords), "no variable over space was found; its variables are none"),
        )
    ):
        file = written(tmp_path, "netcdf4", changed, f"case{case}")
        with pytest.raises(ValueError, match=message):
            Labelled(file)


def test_several_files_go_together(tmp_path: Path) -> None:
    data = weather()
    for name, part in (("a", slice(0, 2)), ("b", slice(2, 5)), ("c", slice(5, 6))):
        written(tmp_path, "netcdf3", data.isel(time=part), f"part_{name}")
    found = Labelled(mapped(tmp_path / "part_*.nc"))
    np.testing.assert_array_equal(everything(found), np.moveaxis(numbers(), 2, -1))
    np.testing.assert_array_equal(found.read(1, 1, 6, 2), np.moveaxis(numbers(), 2, -1)[1, 1:6:2])
    for row in range(2):
        written(tmp_path, "zarr2", data.isel(number=slice(row, row + 1)), f"run_{row}")
    found = open_trajectories(mapped(tmp_path / "run_*.zarr", along="trajectory"))
    np.testing.assert_array_equal(everything(found), np.moveaxis(numbers(), 2, -1))
    written(tmp_path, "netcdf3", data.isel(time=slice(2, 5), longitude=slice(0, 4)), "part_b")
    with pytest.raises(ValueError, match=r"part_b\.nc: its longitude is not that of part_a\.nc"):
        Labelled(mapped(tmp_path / "part_*.nc"))


@pytest.mark.parametrize("kind", ["netcdf3", "netcdf4"])
def test_a_truncated_file_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    file = written(tmp_path, kind, weather(np.random.default_rng(0).random(SHAPE).astype(np.float32)))
    content = file.read_bytes()
    for part in (0, 6, 200, len(content) // 2, len(content) - 600):
        file.write_bytes(content[:part])
        with pytest.raises(ValueError, match=r"data\.nc: .*(damaged|cannot be read)"):
            open_trajectories(file)


def test_a_damaged_zarr_chunk_is_one_clear_error(tmp_path: Path) -> None:
    file = written(tmp_path, "zarr3", weather())
    [chunk] = [item for item in (file / "u" / "c").rglob("*") if item.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(ValueError, match="variable u, trajectory 0, frames 0 to 0 cannot be read"):
        Labelled(file)


def test_stores_of_physml_are_left_to_the_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "waves.zarr")
    assert not labelled.recognises(Path(store.path))
    assert isinstance(open_trajectories(store.path), TrajectoryStore)
    (Path(store.path) / "zarr.json").write_text("{")  # damaged: the store says what to do
    assert not labelled.recognises(Path(store.path))
    assert labelled.recognises(written(tmp_path, "zarr3", weather()))
    assert labelled.recognises(written(tmp_path, "zarr2", weather(), "two"))


@pytest.mark.parametrize(
    ("method", "kind"), [("fork", "netcdf4"), ("fork", "netcdf3"), ("fork", "zarr3"), ("spawn", "netcdf4")]
)
def test_processes_open_the_files_themselves(method: str, kind: str, tmp_path: Path) -> None:
    data = Labelled(written(tmp_path, kind, weather()))
    here = float(data.read(1, 2, 5).sum(dtype=np.float64))
    assert b"xarray" not in pickle.dumps(data)
    assert totals(data, (1, 2, 5), method, tmp_path) == [here] * 3


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "netcdf4", weather())
    monkeypatch.setattr(labelled, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"which is missing; pip install 'physml\[formats\]'"):
        Labelled(file)


def test_a_field_that_does_not_change_is_no_field_beside_others(tmp_path: Path) -> None:
    data = weather().assign(k=(("latitude", "longitude"), np.zeros((5, 8))))
    with pytest.raises(ValueError, match=r"fields: .*expected variables that all have time"):
        Labelled(mapped(written(tmp_path, "netcdf3", data), fields={"u": {"level": 500}, "k": {}}))


def test_statistics_and_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Labelled(written(tmp_path, "netcdf3", weather()))
    flat = np.moveaxis(numbers(), 2, -1).reshape(-1, 5, 3).astype(np.float64)  # all is for training: two short runs
    assert list(data.segments) == ["train"]
    latitudes = flat.mean(0)  # which count by their area
    expected = np.average(latitudes, axis=0, weights=data.layout.grid.axes[1].weights)
    np.testing.assert_allclose(data.statistics.mean, expected, rtol=1e-12)  # float64 both ways
    prints = {Labelled(written(tmp_path, kind, weather(), kind[:5])).fingerprint for kind in KINDS}
    assert prints == {data.fingerprint}
    changed = numbers()
    changed[1, 5, 2, 7, 4] += 1
    assert Labelled(written(tmp_path, "netcdf3", weather(changed), "changed")).fingerprint != data.fingerprint
    monkeypatch.setattr(Labelled, "_read", None)  # nothing is read again
    assert data.statistics is data.statistics


def test_era_interim(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "eraint_uvz.nc").symlink_to((real_data / "climate" / "eraint_uvz.nc").resolve())
    data = open_trajectories(
        mapped(
            tmp_path / "eraint_uvz.nc",
            dimensions={"month": "time"},
            time={"dt": 6, "units": "months"},
            split={"along": "time", "train": [0, 1], "test": [1, 2]},
        )
    )
    longitude, latitude = data.layout.grid.axes
    assert (data.frames, data.layout.grid.shape) == (2, (480, 241))
    assert longitude.boundary is Boundary.PERIODIC and longitude.length == 360.0
    assert (float(latitude.points[0]), float(latitude.points[-1])) == (-90.0, 90.0)  # the file begins at the north pole
    assert data.layout.fields[0].units == "m**2 s**-2" and data.layout.names[3:6] == ("u_200", "u_500", "u_850")
    january = data.read(0, 0, 1)[0].astype(np.float64)
    z = january[..., :3].mean(axis=(0, 1)) / 9.80665
    assert (np.diff(z) < 0).all() and 11_000 < z[0] < 12_500  # 200 hPa lies near 11.8 km, the highest of the three
    zonal = january[..., 3].mean(axis=0)
    jet = float(latitude.points[int(zonal.argmax())])
    assert 20 < jet < 45  # the subtropical jet of the winter hemisphere is the stronger
