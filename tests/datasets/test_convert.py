from __future__ import annotations

import datetime
import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import h5py
import killed
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from settings import make_steady_store
from waves import make_store

from physml.datasets import Segment, StoreWriter, Trajectories, TrajectoryStore, journal, open_trajectories
from physml.datasets.convert import convert
from physml.datasets.opening import open_mapped
from physml.datasets.storage import Storage

X, Y = 6, 5
GENERATOR = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


# a small data set of every kind


def well(folder: Path) -> Path:
    """Two files of different length, an obstacle, a static field, a wall, a parameter that differs."""
    solid = np.zeros((X, Y), dtype=bool)
    solid[2:4, 1:3] = True
    for split, count, frames, viscosity in (("train", 2, 11, 0.5), ("train", 1, 4, 0.25), ("test", 1, 7, 0.5)):
        path = folder / "data" / split / f"{frames}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file.attrs.update({"dataset_name": "tiny", "grid_type": "cartesian", "n_spatial_dims": 2})
            file.attrs.update({"n_trajectories": count, "simulation_parameters": ["nu"], "nu": viscosity})
            dimensions = file.create_group("dimensions")
            dimensions.attrs["spatial_dims"] = ["x", "y"]
            dimensions["time"], dimensions["x"] = 0.5 * np.arange(frames), np.arange(X) / X
            dimensions["y"] = np.linspace(-1, 1, Y) ** 3  # stretched
            walls = file.create_group("boundary_conditions/y_wall")
            walls.attrs["bc_type"], walls.attrs["associated_dims"] = "WALL", ["y"]
            walls["mask"] = np.isin(np.arange(Y), (0, Y - 1))
            t0, t1, t2 = (file.create_group(f"t{order}_fields") for order in range(3))
            t0.attrs["field_names"], t1.attrs["field_names"] = ["pressure", "rock", "mask"], ["velocity"]
            t2.attrs["field_names"] = np.array([], dtype="S1")
            for group, name, values, flags in (
                (t0, "pressure", noise(count, frames, X, Y) * ~solid, "st"),
                (t0, "rock", noise(count, X, Y), "s"),
                (t0, "mask", solid, ""),
                (t1, "velocity", noise(count, frames, X, Y, 2) * ~solid[..., None], "st"),
            ):
                array = group.create_dataset(name, data=values)
                array.attrs["sample_varying"], array.attrs["time_varying"] = "s" in flags, "t" in flags
                array.attrs["dim_varying"] = [True, True]
    return folder


def pdebench(folder: Path) -> Path:
    with h5py.File(folder / "1D_Burgers_Sols_Nu0.01.hdf5", "w") as file:
        file["tensor"] = noise(10, 9, X)
        file["x-coordinate"], file["t-coordinate"] = (np.arange(X) + 0.5) / X, 0.1 * np.arange(10)
    return folder / "1D_Burgers_Sols_Nu0.01.hdf5"


def netcdf(folder: Path) -> Path:
    """Weights of a sphere, land, units, a static field, time split."""
    u = noise(8, X, Y)
    u[:, 0, 1] = np.nan
    coordinates = {
        "time": ("time", 6.0 * np.arange(8), {"units": "hours since 2001-02-03"}),
        "lon": ("lon", 60.0 * np.arange(X), {"units": "degrees_east"}),
        "lat": ("lat", np.linspace(-60, 60, Y), {"units": "degrees_north"}),
    }
    data = xr.Dataset({"u": (("time", "lon", "lat"), u, {"units": "m/s"})}, coords=coordinates)
    data.assign(height=(("lon", "lat"), noise(X, Y), {"units": "m"})).to_netcdf(folder / "a.nc", engine="scipy")
    return folder / "a.nc"


def foreign_zarr(folder: Path) -> Path:
    xr.open_dataset(netcdf(folder), decode_times=False).to_zarr(folder / "b.zarr", zarr_format=2, consolidated=False)
    return folder / "b.zarr"


MAPPING: dict[str, Any] = {
    "fields": {"a": {"channel": 0, "units": "m/s"}, "b": {"channel": 1}},
    "dimensions": ["trajectory", "time", "x", "y", "channel"],
    "axes": {
        "x": {"start": 0, "stop": 2, "endpoint": False, "boundary": "periodic", "units": "m"},
        "y": {"start": -1, "stop": 1, "endpoint": True, "boundary": "wall"},
    },
    "time": {"dt": 0.1, "units": "s"},
    "parameters": {"nu": [1.0, 2.0, 3.0]},
    "split": {"along": "trajectory", "train": [0, 2], "test": [2, 3]},
}


def arrays(folder: Path, **keys: Any) -> Path:
    np.save(folder / "a.npy", noise(3, 10, X, Y, 2))
    mapping = folder / "a.physml.yaml"
    mapping.write_text(yaml.safe_dump({"file": "a.npy"} | MAPPING | keys, sort_keys=False))
    return mapping


def darcy(folder: Path) -> Path:
    for name, count in (("darcy_train_16.pt", 20), ("darcy_test_16.pt", 2)):
        torch.save({"x": torch.rand(count, X, X) > 0.5, "y": torch.rand(count, X, X)}, folder / name)
    return folder


def wake(folder: Path) -> Path:
    body = np.zeros((X, Y), dtype=bool)
    body[2, 2] = True
    np.savez(
        folder / "wake_re100_grid.npz",
        x=np.arange(X),
        y=np.arange(Y) - 2.0,
        body_mask=body,
        base_velocity=noise(X, Y, 2),
        mode_velocity=noise(3, X, Y, 2),
        time=0.1 * np.arange(2000),
        coefficients=noise(2000, 3),
        viscosity=0.01,
    )
    return folder


def steady(folder: Path) -> Path:
    return Path(make_steady_store(folder / "steady.zarr").path)


SOURCES = (well, pdebench, netcdf, foreign_zarr, arrays, darcy, wake, steady)


def source(folder: Path, kind: Callable[[Path], Path]) -> Path:
    place = folder / kind.__name__
    place.mkdir()
    return kind(place)


def files(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four frames of two fields a chunk, two chunks a piece: many of both."""
    monkeypatch.setattr("physml.datasets.store._CHUNK_BYTES", 4 * X * Y * 2 * 4)
    monkeypatch.setattr("physml.datasets.convert._PIECE_BYTES", 2 * 4 * X * Y * 2 * 4)


@pytest.mark.parametrize("kind", SOURCES, ids=lambda kind: kind.__name__)
def test_the_store_is_the_source(tmp_path: Path, kind: Callable[[Path], Path], small_blocks: None) -> None:
    data = open_trajectories(source(tmp_path, kind))
    told: list[tuple[int, int]] = []
    store = convert(data, tmp_path / "x.zarr", progress=lambda done, total: told.append((done, total)))
    assert store.layout.to_plain() == data.layout.to_plain()  # fields, units, boundaries, weights, mask, interval
    assert dict(store.segments) == {split: tuple(rows) for split, rows in data.segments.items()}
    assert (store.name, store.count, store.frames) == (data.name, data.count, data.frames)
    for row in range(data.count):
        assert store.length(row) == data.length(row)
        np.testing.assert_array_equal(store.read(row, 0, store.length(row)), data.read(row, 0, data.length(row)))
        np.testing.assert_array_equal(store.read_static(row), data.read_static(row))
    assert {name: list(values) for name, values in store.parameters.items()} == {
        name: list(values) for name, values in data.parameters.items()
    }
    ours, theirs = store.statistics.to_plain(), data.measured().to_plain()
    for name in ("mean", "std", "increment_std", "energy", "static_mean", "static_std"):
        # both float64 sums of at most 1e5 numbers around one, in blocks of their own
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-14)
    assert ours["number_mean"] == theirs["number_mean"] and ours["number_std"] == theirs["number_std"]
    origin = store.provenance["converted"]
    assert origin["fingerprint"] == data.fingerprint and origin["adapter"].startswith("physml.datasets.")
    assert str(tmp_path) not in (tmp_path / "x.zarr" / "zarr.json").read_text()  # nothing of the machine
    assert told[-1][0] == told[-1][1] and told == sorted(told) and not left(tmp_path)


def test_a_store_of_trajectories_of_different_length(tmp_path: Path, small_blocks: None) -> None:
    store = convert(open_trajectories(source(tmp_path, well)), tmp_path / "x.zarr")
    assert [store.length(row) for row in range(store.count)] == [11, 11, 4, 7]
    with pytest.raises(ValueError, match="4 frames of this one"):
        store.read(2, 0, 5)
    assert np.isnan(xr.open_zarr(store.path).state[2, 4:]).all()  # beyond its end there is nothing
    (Path(store.path) / "state/c/3/0/0/0/0").unlink()
    with pytest.raises(ValueError, match="1 of 18 chunk files of state are missing"):
        TrajectoryStore(store.path)


def test_lengths_are_checked(tmp_path: Path) -> None:
    layout = make_store(tmp_path / "a.zarr").layout
    told: dict[str, Any] = {"name": "x", "layout": layout, "count": 2, "frames": 8, "parameters": {}, "provenance": {}}
    for lengths in ([8], [8, 9], [7, 7], [8, 0]):
        with pytest.raises(ValueError, match="lengths: got"):
            StoreWriter(tmp_path / "x.zarr", segments={"train": [Segment(0, 0, 8)]}, lengths=lengths, **told)
    with pytest.raises(ValueError, match="frames 0:8 of trajectory 1; there are 2 trajectories of 5 frames"):
        StoreWriter(tmp_path / "x.zarr", segments={"train": [Segment(1, 0, 8)]}, lengths=[8, 5], **told)
    writer = StoreWriter(tmp_path / "x.zarr", segments={"train": [Segment(1, 0, 5)]}, lengths=[8, 5], **told)
    with pytest.raises(ValueError, match="write: got 8 frames"):
        writer.write(1, 0, np.zeros((8, 16, 16, 1)))


def test_a_parameter_called_as_an_array_of_the_store_is_refused(tmp_path: Path) -> None:
    data = open_trajectories(arrays(tmp_path, parameters={"time": 1.0}))
    with pytest.raises(ValueError, match="'time' is an array of the store already"):
        convert(data, tmp_path / "x.zarr")


def test_a_killed_conversion_continues_where_it_stopped(tmp_path: Path) -> None:
    path = source(tmp_path, darcy)
    whole = convert(open_trajectories(path), tmp_path / "whole.zarr")
    told = killed.conversions(path, tmp_path)
    assert list(told) == list(killed.MOMENTS)
    all_ = [f"{kind} {row} 0" for row in range(whole.count) for kind in ("static", "block")]
    for moment, ((code, before), (again, after)) in told.items():
        assert (code, again) == (-9, 0), moment
        # what was written when it was killed may be written again; what was noted is not
        twice = set(before) & set(after)
        assert len(twice) <= (moment.split()[0] in ("block", "static")), moment
        assert set(before) | set(after) == set(all_) and len(before) + len(after) == len(all_) + len(twice), moment
        assert files(tmp_path / f"{moment}.zarr") == files(Path(whole.path)), moment  # fingerprint and statistics too
    assert not left(tmp_path)


class Stopped(Exception):
    pass


def stop_after(frames: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= frames:
            raise Stopped

    return progress


def test_a_source_that_changed_is_refused(tmp_path: Path, small_blocks: None) -> None:
    mapping = arrays(tmp_path)
    with pytest.raises(Stopped):
        convert(open_trajectories(mapping), tmp_path / "x.zarr", progress=stop_after(8))
    values = np.load(tmp_path / "a.npy")
    values[2, 9, 0, 0, 0] += 1
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"x\.zarr: was begun from other data, or they have changed since"):
        convert(open_trajectories(mapping), tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "x.zarr")  # what the message says; the notes of the other data must not hold
    store = convert(open_trajectories(mapping), tmp_path / "x.zarr")
    np.testing.assert_array_equal(store.read(2, 9, 10)[0], values[2, 9])


def rewrite(file: Path) -> None:
    """Other values, where the samples that the fingerprint is made of do not fall; as long, and later."""
    with open(file, "r+b") as raw:  # as HDF5 would not while it is open for reading
        raw.seek(file.stat().st_size // 2 + 4096)
        raw.write(np.array([1.0], np.float32).tobytes())
    os.utime(file, ns=(0, 1_800_000_000_000_000_000))


def large(folder: Path) -> Path:
    """A file of more than 1 MiB, of which only samples are in the fingerprint."""
    path = folder / "1D_Burgers_Sols_Nu0.01.hdf5"
    with h5py.File(path, "w") as file:
        file["tensor"] = noise(40, 9, 1024)
        file["x-coordinate"], file["t-coordinate"] = (np.arange(1024) + 0.5) / 1024, 0.1 * np.arange(10)
    return path


def test_a_source_that_changed_unseen_by_its_fingerprint_is_refused(tmp_path: Path) -> None:
    path, out = large(tmp_path), tmp_path / "x.zarr"
    before = open_trajectories(path).fingerprint
    with pytest.raises(Stopped):
        convert(open_trajectories(path), out, progress=stop_after(20))
    rewrite(path)
    assert open_trajectories(path).fingerprint == before  # else the next lines would test nothing
    expected = (
        r"x\.zarr: the source has changed since this was begun: 1D_Burgers.* bytes of .*, and now has .* bytes of 2027"
    )
    with pytest.raises(ValueError, match=expected):
        convert(open_trajectories(path), out)
    shutil.rmtree(out)  # what the message says
    store = convert(open_trajectories(path), out)
    np.testing.assert_array_equal(read_whole(store), read_whole(open_trajectories(path)))
    assert not left(tmp_path)


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path, out = large(tmp_path), tmp_path / "x.zarr"

    def progress(done: int, total: int) -> None:
        if done == total:  # all is written and read back
            rewrite(path)

    with pytest.raises(ValueError, match=r"changed while it was read: .* Blocks of two versions may be in the store"):
        convert(open_trajectories(path), out, progress=progress)
    with pytest.raises(ValueError, match="writing was interrupted"):
        TrajectoryStore(out)
    with pytest.raises(ValueError, match="has changed since this was begun"):
        convert(open_trajectories(path), out)
    with pytest.raises(ValueError, match=r"1D_Burgers_Sols_Nu0\.01\.hdf5 is gone"):
        convert(open_trajectories(path), tmp_path / "y.zarr", progress=lambda *seen: path.unlink(missing_ok=True))


def test_a_remote_source_that_changed_is_refused(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    path, url = large(tmp_path), "memory://large/1D_Burgers_Sols_Nu0.01.hdf5"
    system.put(str(path), "/large/1D_Burgers_Sols_Nu0.01.hdf5")
    try:
        with pytest.raises(Stopped):
            convert(open_trajectories(url), tmp_path / "x.zarr", progress=stop_after(20))
        rewrite(path)
        system.put(str(path), "/large/1D_Burgers_Sols_Nu0.01.hdf5")  # created anew, which is all that tells
        with pytest.raises(ValueError, match=r"has changed since this was begun: 1D_Burgers.* of version"):
            convert(open_trajectories(url), tmp_path / "x.zarr")
        shutil.rmtree(tmp_path / "x.zarr")
        convert(open_trajectories(url), tmp_path / "x.zarr")
    finally:
        system.rm("/large", recursive=True)


def test_a_source_may_be_moved_and_lie_around_the_store(tmp_path: Path) -> None:
    """Files are known by their names below what they share; what is written beside them is none of the source."""
    (tmp_path / "here/maps").mkdir(parents=True)
    whole, mapping = convert(open_trajectories(arrays(tmp_path)), tmp_path / "x.zarr"), arrays(tmp_path / "here")
    assert whole.count == 3
    data = open_trajectories(mapping)
    data.storage = lambda: Storage.of([tmp_path / "here"])  # type: ignore[method-assign]  # all below the folder
    with pytest.raises(Stopped):
        convert(data, tmp_path / "here/y.zarr", progress=stop_after(8))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = open_trajectories(tmp_path / "there/a.physml.yaml")
    moved.storage = lambda: Storage.of([tmp_path / "there"])  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        convert(moved, tmp_path / "there/y.zarr", progress=stop_after(16))
    shutil.rmtree(tmp_path / "there/.y.zarr.converting")  # all is written anew, over what a folder's listing holds now
    convert(moved, tmp_path / "there/y.zarr")
    assert not left(tmp_path / "there")


def test_two_conversions_to_one_place_are_refused(tmp_path: Path, small_blocks: None) -> None:
    data, told = open_trajectories(arrays(tmp_path)), list[str]()

    def progress(done: int, total: int) -> None:
        with pytest.raises(ValueError, match=r"\.x\.zarr\.converting: another process is converting to the same place"):
            convert(data, tmp_path / "x.zarr")
        told.append("refused")

    store = convert(data, tmp_path / "x.zarr", progress=progress)
    assert told and not left(tmp_path)
    np.testing.assert_array_equal(read_whole(store), read_whole(data))


def test_where_there_are_no_locks_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*ignored: Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    data = open_trajectories(arrays(tmp_path))
    for name, replacement in (("fcntl", None), ("fcntl", SimpleNamespace(LOCK_EX=2, LOCK_NB=4, flock=refused))):
        monkeypatch.setattr(journal, name, replacement)
        convert(data, tmp_path / "x.zarr")
        shutil.rmtree(tmp_path / "x.zarr")
    assert not left(tmp_path)


def test_a_file_that_is_no_note_is_not_read(tmp_path: Path, small_blocks: None) -> None:
    data = open_trajectories(arrays(tmp_path))
    with pytest.raises(Stopped):
        convert(data, tmp_path / "x.zarr", progress=stop_after(8))
    (tmp_path / ".x.zarr.converting/.nfs0001").write_bytes(b"\xff\x00")
    (tmp_path / ".x.zarr.converting/Thumbs.db").write_bytes(b"\xff\x00")
    convert(data, tmp_path / "x.zarr")
    assert not left(tmp_path)


def test_notes_of_a_generation_are_those_of_nobody_else(tmp_path: Path) -> None:
    """What a killed ``data make`` leaves beside a store of the same name is a file."""
    (tmp_path / ".x.zarr.progress").write_bytes(b"of a solver")
    convert(open_trajectories(arrays(tmp_path)), tmp_path / "x.zarr")
    assert left(tmp_path) == [".x.zarr.progress"]


@pytest.mark.parametrize("change", [{"name": "other"}, {"provenance": {"run": 2}}])
def test_a_finished_store_of_another_name_or_provenance_is_not_taken_for_it(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    mapping = arrays(tmp_path, name="one", provenance={"run": 1})
    convert(open_trajectories(mapping), tmp_path / "x.zarr")
    keys = yaml.safe_load(mapping.read_text()) | change
    mapping.write_text(yaml.safe_dump(keys, sort_keys=False))  # the values, and so the fingerprint, are the same
    (what, value) = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf"holds a store of other data \({what}.*(one there, other|1 there, 2) asked"):
        convert(open_trajectories(mapping), tmp_path / "x.zarr")
    assert value


def test_words_of_the_user_are_kept_and_must_be_plain(tmp_path: Path) -> None:
    told = {"source": "wind tunnel", "date": "2024-01-01", "runs": [1, 2.5, None, {"deep": True}]}
    store = convert(open_trajectories(arrays(tmp_path, provenance=told)), tmp_path / "x.zarr")
    assert store.provenance["converted"]["provenance"] == {"mapping": "a.physml.yaml", **told}
    for wrong, key in (
        ({"date": datetime.date(2024, 1, 1)}, "provenance.date: got datetime.date"),
        ({"a": [{"b": float("nan")}]}, r"provenance\.a\[0\]\.b: got nan"),
        ({"a": {1: 2}}, "provenance.a: got the key 1"),
    ):
        with pytest.raises(ValueError, match=rf"a\.physml\.yaml: {key}.*quotes"):
            open_trajectories(arrays(tmp_path, provenance=wrong))
    data = open_trajectories(arrays(tmp_path))
    data.provenance = {"when": datetime.date(2024, 1, 1)}  # of an adapter of one's own
    with pytest.raises(ValueError, match=r"provenance\.when: got datetime\.date"):
        convert(data, tmp_path / "y.zarr")
    assert not (tmp_path / "y.zarr").exists() and not left(tmp_path)


def test_a_url_is_no_place_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = open_trajectories(arrays(tmp_path))
    for out in ("s3://bucket/x.zarr", Path("s3://bucket/x.zarr"), "memory://x.zarr"):
        with pytest.raises(ValueError, match=r"out: got .*, a URL; expected a path of this machine"):
            convert(data, out)
    with pytest.raises(ValueError, match=r"path: got .*, a URL"):
        StoreWriter("s3://b/x.zarr", **told_of(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.physml.yaml"]


def told_of(data: Trajectories) -> dict[str, Any]:
    names = ("name", "layout", "count", "frames", "parameters", "segments", "provenance")
    return {name: getattr(data, name) for name in names}


def test_a_source_that_is_read_for_its_fingerprint_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for kind in (arrays, netcdf):
        told.clear()
        data = open_trajectories(source(tmp_path, kind))
        frames = data.count * data.frames
        found = data.identify(progress=lambda *seen: told.append(seen))
        assert told == sorted(told) and told[-1] == (frames, frames)
        assert found == data.fingerprint == open_trajectories(data.path).fingerprint
        told.clear()
        assert data.identify(progress=lambda *seen: told.append(seen)) == found and not told  # once is enough
        again = open_trajectories(data.path)
        convert(again, tmp_path / f"{kind.__name__}.zarr", identifying=lambda *seen: told.append(seen))
        assert told[-1] == (frames, frames)
    assert open_trajectories(source(tmp_path, darcy)).identify()


def test_a_finished_store_is_left_alone(tmp_path: Path) -> None:
    data = open_trajectories(arrays(tmp_path))
    store = convert(data, tmp_path / "x.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")}
    assert convert(data, tmp_path / "x.zarr").fingerprint == store.fingerprint
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")}
    arrays(tmp_path)  # other numbers
    with pytest.raises(ValueError, match="holds a store of other data"):
        convert(open_trajectories(tmp_path / "a.physml.yaml"), tmp_path / "x.zarr")
    make_store(tmp_path / "made.zarr")
    with pytest.raises(ValueError, match="holds a store that was not converted"):
        convert(data, tmp_path / "made.zarr")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="not a readable zarr group"):
        convert(data, tmp_path / "folder.zarr")


@pytest.mark.parametrize("damage", ["flip", "swap", "remove"])
def test_a_damaged_block_is_found_and_written_again(tmp_path: Path, damage: str, small_blocks: None) -> None:
    data = open_trajectories(arrays(tmp_path))
    whole = convert(data, tmp_path / "whole.zarr")
    with pytest.raises(Stopped):  # all is written, nothing is read back yet
        convert(data, tmp_path / "x.zarr", progress=stop_after(30))
    chunk, other = (tmp_path / f"x.zarr/state/c/1/{block}/0/0/0" for block in (1, 0))
    content = chunk.read_bytes()
    if damage == "flip":
        chunk.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "swap":  # its own checksum is right
        chunk.write_bytes(other.read_bytes())
    else:
        chunk.unlink()
    with pytest.raises(ValueError, match="trajectory 1, frames 4 to 7: read back, it is not what was written"):
        convert(data, tmp_path / "x.zarr")
    with pytest.raises(ValueError, match="writing was interrupted"):
        TrajectoryStore(tmp_path / "x.zarr")
    untouched = other.stat().st_mtime_ns
    assert convert(data, tmp_path / "x.zarr").fingerprint == whole.fingerprint
    assert files(tmp_path / "x.zarr") == files(tmp_path / "whole.zarr") and other.stat().st_mtime_ns == untouched


def test_a_damaged_block_that_ends_inside_its_chunk_is_written_again(tmp_path: Path, small_blocks: None) -> None:
    data = open_trajectories(source(tmp_path, well))  # the first file ends inside a chunk of the array, others before
    whole = convert(data, tmp_path / "whole.zarr")
    with pytest.raises(Stopped):
        convert(data, tmp_path / "x.zarr", progress=stop_after(33))
    for place in ("0/5", "3/3"):
        chunk = tmp_path / f"x.zarr/state/c/{place}/0/0/0"
        chunk.write_bytes(chunk.read_bytes()[:-3])
        with pytest.raises(ValueError, match=f"trajectory {place[0]}, frames .* is not what was written"):
            convert(data, tmp_path / "x.zarr")
    convert(data, tmp_path / "x.zarr")
    assert files(tmp_path / "x.zarr") == files(Path(whole.path))


def test_damaged_static_fields_are_found(tmp_path: Path) -> None:
    data = open_trajectories(source(tmp_path, darcy))
    with pytest.raises(Stopped):
        convert(data, tmp_path / "x.zarr", progress=stop_after(22))
    place = tmp_path / "x.zarr/static/c"
    shutil.copy(place / "0/0/0/0", place / "3/0/0/0")
    with pytest.raises(ValueError, match="trajectory 3, static fields: read back, it is not what was written"):
        convert(data, tmp_path / "x.zarr")
    np.testing.assert_array_equal(convert(data, tmp_path / "x.zarr").read_static(3), data.read_static(3))


def test_a_torn_note_is_none(tmp_path: Path, small_blocks: None) -> None:
    data = open_trajectories(arrays(tmp_path))
    whole = convert(data, tmp_path / "whole.zarr")
    with pytest.raises(Stopped):
        convert(data, tmp_path / "x.zarr", progress=stop_after(8))
    (notes,) = (tmp_path / ".x.zarr.converting").glob("*-*")
    notes.write_text(notes.read_text().rstrip()[:-1])  # killed while the last line was written
    notes.rename(notes.with_name(f"{notes.name.partition('-')[0]}-{os.getpid()}"))  # and the number is given again
    (tmp_path / "x.zarr/state/c/0/0/0/0/0.ab12.partial").touch()  # and a block
    convert(data, tmp_path / "x.zarr")
    assert files(tmp_path / "x.zarr") == files(Path(whole.path))


def test_values_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    mapping = arrays(tmp_path)
    values = np.load(tmp_path / "a.npy")
    values[1, 3, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", values)
    data = open_trajectories(mapping)
    data.fingerprint = "any"  # which would read, and refuse, all values
    with pytest.raises(ValueError, match="trajectory 1, frame 3 holds NaN"):
        convert(data, tmp_path / "x.zarr")


def test_room_is_reckoned_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_trajectories(arrays(tmp_path))
    size = 4 * 3 * 10 * X * Y * 2
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 0, size - 1))
    with pytest.raises(OSError, match=r"needs up to .* GiB more"):
        convert(data, tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists() and not left(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 0, size))
    convert(data, tmp_path / "x.zarr")


def test_what_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    data = open_trajectories(arrays(tmp_path))
    with pytest.raises(ValueError, match=r"ends in \.zarr"):
        convert(data, tmp_path / "x")
    data.segments = {"test": data.segments["test"]}
    with pytest.raises(ValueError, match="has splits test; a store needs a split 'train'"):
        convert(data, tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


def test_processes_write_the_same_store(tmp_path: Path, small_blocks: None) -> None:
    data = open_trajectories(source(tmp_path, well))
    one, two = convert(data, tmp_path / "one.zarr"), convert(data, tmp_path / "two.zarr", workers=2)
    assert files(Path(one.path)) == files(Path(two.path))
    with pytest.raises(ValueError, match="workers: got 0"):
        convert(data, tmp_path / "x.zarr", workers=0)


def read_whole(data: Trajectories) -> np.ndarray:
    return np.stack([data.read(row, 0, data.frames) for row in range(data.count)])


def test_a_mapping_file_may_lie_elsewhere_and_name_no_file(tmp_path: Path) -> None:
    expected = open_trajectories(arrays(tmp_path))
    (tmp_path / "maps").mkdir()
    mapping = tmp_path / "maps" / "any name.yaml"
    mapping.write_text(yaml.safe_dump(MAPPING, sort_keys=False))
    found = open_mapped(tmp_path / "a.npy", mapping)
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(read_whole(found), read_whole(expected))
    mapping.write_text(yaml.safe_dump(MAPPING | {"file": "gone.npy"}, sort_keys=False))  # what is given comes first
    assert open_mapped(tmp_path / "a.npy", mapping).fingerprint == expected.fingerprint
    weather = netcdf(tmp_path)
    mapping.write_text(yaml.safe_dump({"fields": {"velocity": {"array": "u", "units": "cm/s"}}, "time": {"dt": 3}}))
    labelled = open_mapped(weather, mapping)
    assert labelled.layout.fields[0].units == "cm/s" and labelled.layout.dt == 3
    np.testing.assert_array_equal(read_whole(labelled), read_whole(open_trajectories(weather)))
    with pytest.raises(ValueError, match="is a mapping file itself"):
        open_mapped(tmp_path / "a.physml.yaml", mapping)
