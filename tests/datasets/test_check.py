from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import torch
import xarray as xr
import yaml
import zarr
from mappings import mapped
from waves import make_store, wave, wave_layout

from physml.datasets import Segment, StoreWriter, TrajectoryStore, data_root
from physml.datasets.check import PIECES, Finding, check, check_path
from physml.datasets.storage import Chunks, Storage
from physml.datasets.trajectories import Trajectories
from physml.fields import Field

FRAMES = 24
CARDS = Path(__file__).parents[2] / "data"


class Memory(Trajectories):
    """Waves in memory, two fields, one of them twice the other; whatever is changed is wrong on purpose."""

    def __init__(self, count: int = 4, frames: int = FRAMES) -> None:
        one = wave_layout((8, 6))
        self.layout = replace(one, fields=(Field("u", "m/s"), Field("v", "m/s")))
        values = np.stack([wave(one, row, frames) for row in range(count)])
        self.states = np.concatenate([values, 2 * values], axis=-1)
        self.name = self.path = "memory"
        self.count, self.frames, self.parameters = count, frames, {"nu": np.arange(count) + 1.0}
        self.segments = {
            split: (Segment(row, 0, frames),) for row, split in enumerate(("train", "validation", "test", "spare"))
        }
        self.provenance, self.fingerprint = {}, "f00d"
        self.disk, self.clock = Storage(("memory",), 0), None

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        return self.states[trajectory, frames]

    def _read_static(self, trajectory: int) -> np.ndarray:
        return np.full((8, 6, 1), 2.0 + trajectory * (self.name == "memory"), np.float32)

    def storage(self) -> Storage:
        return self.disk

    def times(self) -> np.ndarray | None:
        return self.clock


def told(found: list[Finding]) -> list[tuple[str, str]]:
    return [(item.severity, item.kind) for item in found]


def rewrite(path: str | Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the attribute ``physml`` of a store."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    plain: Any = dict(group.attrs)["physml"]
    change(plain)
    group.attrs["physml"] = plain
    (Path(path) / "zarr.json").write_text(
        json.dumps(json.loads((Path(path) / "zarr.json").read_text()) | {"consolidated_metadata": None})
    )


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return make_store(tmp_path / "waves.zarr", count=4, shape=(8, 6))


# ------------------------------------------------------------------------------------------------------ sound data


def test_nothing_is_wrong_with_what_is_right(store: TrajectoryStore) -> None:
    assert check_path(store.path) == check(store) == check(Memory()) == []


@pytest.mark.parametrize(
    ("path", "file", "expected"),
    [
        # the transient before the training split touches it; it is never trained on, as the adapter says
        ("cylinder_wake_re100", "wake_re100_grid.npz", [("warning", "leak")]),
        ("darcy_neuralop", "darcy_test_16.pt", []),
        ("climate/era_interim.physml.yaml", "eraint_uvz.nc", []),
        ("pde1d/kuramoto_sivashinsky.physml.yaml", "KS.mat", []),
        ("pde1d/allen_cahn.physml.yaml", "AC.mat", []),
        ("burgers_neuralop/burgers.physml.yaml", "burgers_train_16.pt", []),
    ],
)
def test_published_data(path: str, file: str, expected: list[tuple[str, str]]) -> None:
    if not (data_root() / path.partition("/")[0] / file).exists():
        pytest.skip(f"{file} is not here")
    assert told(check_path(CARDS / path if path.endswith(".yaml") else path)) == expected


# ---------------------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_by_field_trajectory_and_frame(bad: float) -> None:
    data = Memory()
    data.states[1, 7, 3, 2, 1] = bad
    data.states[2, 4:7, 0, 0] = bad
    found = check(data)
    assert [(f.severity, f.kind, f.trajectory, f.frame, f.field) for f in found] == [
        ("error", "not finite", 1, 7, "v"),
        ("error", "not finite", 2, 4, "u"),
        ("error", "not finite", 2, 4, "v"),
    ]
    assert "2 frames after it" in found[1].what and "repair or regenerate" in found[0].remedy


def test_static_fields_are_looked_at() -> None:
    data = Memory()
    data.layout = replace(data.layout, static=(Field("k"),))
    # one trajectory of train has one value of it: that is worth a note, and no more
    assert [(f.severity, f.kind, f.field) for f in check(data)] == [("note", "constant", "k")]
    read = data._read_static
    data._read_static = lambda row: read(row) * (np.nan if row == 2 else 1)  # type: ignore[method-assign]
    assert next((f.kind, f.trajectory, f.field) for f in check(data)) == ("not finite", 2, "k")


def test_a_constant_field_is_told_where_it_is_constant_in_train() -> None:
    data = Memory()
    data.states[0, ..., 1] = 3.0
    (found,) = check(data)
    assert (found.severity, found.kind, found.field) == ("warning", "constant", "v") and "is 3 every" in found.what
    data.states[0, 5, 0, 0, 1] = 3.5
    assert check(data) == []


def test_frames_that_stand_still_are_counted_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("physml.datasets.check._BLOCK_BYTES", 4 * 4 * 8 * 6 * 2)  # four frames
    data = Memory()
    data.states[1, 8] = data.states[1, 7]  # 8 begins a block
    data.states[1, 14:] = data.states[1, 13]
    (found,) = check(data)
    assert (found.severity, found.kind, found.trajectory, found.frame) == ("warning", "repeated", 1, 8)
    assert "11 of 24 frames" in found.what and "zero" not in found.what
    data.states[1, 8:] += 1e-3 * np.arange(1, 17).reshape(-1, 1, 1, 1)
    assert check(data) == []


def test_a_failed_simulation_of_zeros_is_called_so() -> None:
    data = Memory()
    data.states[3, 10:] = 0
    (found,) = check(data)
    assert found.frame == 11 and "13 of 24 frames" in found.what and "are zero" in found.what


# ---------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: np.where(np.arange(FRAMES) == 9, t[8], t), "time repeats: frame 8 is at 2 and frame 9 at 2"),
        (lambda t: np.where(np.arange(FRAMES) > 9, t + 1, t), "from frame 9 to frame 10 it is 1.25, elsewhere 0.25"),
        (lambda t: t[::-1], "out of order: frame 0"),
        (lambda t: 2 * t, "the layout says 0.25"),
    ],
)
def test_times_are_held_against_the_interval(change: Callable[[np.ndarray], np.ndarray], what: str) -> None:
    data = Memory()
    data.clock = 0.25 * np.arange(FRAMES)
    assert check(data) == []
    data.clock = change(data.clock)
    (found,) = check(data)
    assert (found.severity, found.kind) == ("error", "times") and what in f"{found.what}; {found.remedy}"


def test_times_of_a_store_are_read(store: TrajectoryStore) -> None:
    times: Any = zarr.open_group(store.path, mode="r+")["time"]
    times[3] = times[2]
    (found,) = check_path(store.path)
    assert found.kind == "times" and "time repeats: frame 2 is at 0.5" in found.what


# ----------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("name", "wrong"), [("mean", [0.02]), ("std", [1.1]), ("increment_std", [0.5]), ("energy", 5.0)]
)
def test_stored_statistics_are_held_against_the_data(name: str, wrong: Any, store: TrajectoryStore) -> None:
    rewrite(store.path, lambda plain: plain["statistics"].update({name: wrong}))
    (found,) = check_path(store.path)
    assert (found.severity, found.kind) == ("error", "statistics")
    assert name in found.what and found.field == ("" if name == "energy" else "vorticity")


@pytest.mark.parametrize("name", ["number_mean", "number_std"])
def test_moments_of_parameters_are_held_against_them(name: str, store: TrajectoryStore) -> None:
    rewrite(store.path, lambda plain: plain["statistics"][name].update(viscosity=1.0))
    (found,) = check_path(store.path)
    assert (found.kind, found.field) == ("statistics", "viscosity") and name in found.what
    rewrite(store.path, lambda plain: plain["statistics"][name].clear())
    assert told(check_path(store.path)) == ([("error", "statistics")] if name == "number_std" else [])


def well(path: Path, u: np.ndarray, chunks: tuple[int, ...] | None = None, **times: np.ndarray) -> Path:
    """A file of The Well with one scalar ``u``, ``(n, T, x)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "tiny", "grid_type": "cartesian", "n_spatial_dims": 1})
        file.attrs.update({"n_trajectories": len(u), "simulation_parameters": []})
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x"]
        dimensions["time"] = times.get("time", 0.5 * np.arange(u.shape[1]))
        dimensions["x"] = np.arange(u.shape[2]) / u.shape[2]
        for order in range(3):
            file.create_group(f"t{order}_fields").attrs["field_names"] = ["u"] if order == 0 else np.array([], "S1")
        array = file["t0_fields"].create_dataset("u", data=u, chunks=chunks, compression="gzip" if chunks else None)
        array.attrs.update({"sample_varying": True, "time_varying": True, "dim_varying": [True]})
    return path


def lines(count: int, frames: int = 6, points: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, frames, points)).astype(np.float32)


def well_folder(folder: Path, **times: np.ndarray) -> Path:
    for seed, name in enumerate(("train", "valid", "test")):
        well(folder / "data" / name / "a.hdf5", lines(3, seed=seed), **times)
    return folder


def test_published_statistics_are_held_against_the_data(tmp_path: Path) -> None:
    folder = well_folder(tmp_path)
    assert check_path(folder) == []
    u = lines(3).astype(np.float64)
    right = {"mean": float(u.mean()), "std": float(u.std()), "std_delta": float(np.diff(u, axis=1).std())}
    # a part of a published set differs a little from all of it: 5 % of the deviation is no finding
    for factor, expected in ((1.0, []), (1.05, []), (1.5, [("warning", "statistics")])):
        plain = {key: {"u": value * (factor if key == "std" else 1)} for key, value in right.items()}
        (folder / "stats.yaml").write_text(yaml.safe_dump(plain))
        found = check_path(folder)
        assert told(found) == expected
        assert all("std" in item.what and item.field == "u" for item in found)


def test_published_statistics_are_not_held_against_weighted_ones(tmp_path: Path) -> None:
    """On a stretched axis the two differ, rightly: here u = x at x = s^3, unweighted 1/7 in the mean square."""
    folder = well_folder(tmp_path)
    s = np.linspace(-1, 1, 16)
    for name in ("train", "valid", "test"):
        with h5py.File(folder / "data" / name / "a.hdf5", "r+") as file:
            file["dimensions/x"][...] = s**3
            file["t0_fields/u"][...] += s**3
    u = lines(3).astype(np.float64) + s**3
    plain = {"mean": {"u": float(u.mean())}, "std": {"u": 2 * float(u.std())}, "std_delta": {"u": 1.0}}
    (folder / "stats.yaml").write_text(yaml.safe_dump(plain))
    (found,) = check_path(folder)
    assert (found.severity, found.kind) == ("note", "statistics") and "were not compared" in found.what
    assert "data stats" in found.remedy


# ---------------------------------------------------------------------------------------------------------- chunks


def test_amplification_is_what_counting_gives() -> None:
    for total, c, window, rows in product((7, 12), (1, 3, 5, 12), (1, 4, 7), (1, 2)):
        chunks = Chunks.of("u", (4, total, 9), (rows, c, 4), ("trajectory", "time", "x"), 4)
        read, touched = [], []
        for start in range(total - window + 1):
            whole = {frame // c for frame in range(start, start + window)}
            touched.append(3 * len(whole))  # nine points in chunks of four
            read.append(rows * sum(min(c, total - piece * c) for piece in whole))
        assert chunks.amplification(window, total) == pytest.approx(np.mean(read) / window, rel=1e-12)
        assert chunks.reads(window, total) == pytest.approx(np.mean(touched), rel=1e-12)
        assert (chunks.frames, chunks.space, chunks.frame_bytes) == (min(c, total), (4,), 36)


@pytest.mark.parametrize("kind", ["well", "pdebench", "zarr", "mapped"])
def test_chunks_that_make_windows_dear_are_told(kind: str, tmp_path: Path) -> None:
    """Windows of 4 frames: from chunks of 2 frames nothing is said, from chunks of all 300 frames much."""
    shape, found = (3, 300, 4096), {}
    u = (np.arange(300)[:, None] + np.zeros(shape)).astype(np.float32)  # compresses well
    u[:, 0] = np.arange(3)[:, None] + np.arange(4096) % 2
    for frames in (2, 300):
        chunks = (1, frames, 4096)
        if kind == "well":
            path = well(tmp_path / f"{frames}" / "a.hdf5", u, chunks)
        elif kind in ("pdebench", "mapped"):
            path = tmp_path / f"{kind}{frames}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset("tensor", data=u, chunks=chunks, compression="gzip")
                file["x-coordinate"], file["t-coordinate"] = np.arange(4096) / 4096, 0.5 * np.arange(300)
            if kind == "mapped":
                path = mapped(tmp_path, path.name, array="tensor")
        else:
            path = tmp_path / f"{frames}.zarr"
            axes = {"number": [0, 1, 2], "time": 0.5 * np.arange(300), "x": np.arange(4096.0)}
            data = xr.Dataset({"u": (("number", "time", "x"), u)}, coords=axes)
            data.to_zarr(path, zarr_format=2, encoding={"u": {"chunks": chunks}})
        found[frames] = check_path(path, window=4)
    assert found[2] == []
    (dear,) = found[300]
    # the whole trajectory, 300 frames of 16 KiB, for four of them
    assert (dear.severity, dear.kind) == ("warning", "chunks") and dear.field.endswith(("u", "tensor"))
    assert "reads 75.0 times its bytes" in dear.what and f"{296 * 16 / 1024:.1f} MiB in vain" in dear.what
    assert "300 frames of 4096 points" in dear.what


def test_a_window_of_many_pieces_is_told() -> None:
    data = Memory()
    for pieces, expected in ((PIECES // 8, []), (PIECES, [("warning", "chunks")])):
        data.disk = Storage(("memory",), 0, (Chunks("u", 1, 1, (1, 1), pieces, 4 * 48),))
        assert told(check(data, window=8)) == expected


def test_trajectories_of_different_length_miss_no_chunks(tmp_path: Path) -> None:
    """Beyond the end of a short one there are none; one that is lost is found, by the store or by its name."""
    layout = wave_layout((8, 6))
    plan: dict[str, Any] = {"name": "x", "parameters": {}, "provenance": {}, "segments": {"train": [Segment(0, 0, 40)]}}
    writer = StoreWriter(tmp_path / "x.zarr", layout=layout, count=2, frames=40, lengths=[40, 5], **plan)
    for row, length in ((0, 40), (1, 5)):
        values = wave(layout, row, length)
        for start in range(0, length, 16):
            writer.write(row, start, values[start : start + 16])
    store = writer.finish(["a", "b"])
    assert [(c.missing, c.total) for c in store.storage().chunks] == [(0, 3 + 1)]  # of 16 frames
    assert told(check_path(store.path)) == [("note", "unused")]
    (Path(store.path) / "state/c/0/1/0/0/0").unlink()
    assert [(c.missing, c.total) for c in store.storage().chunks] == [(1, 4)]


def test_chunks_that_are_not_there(tmp_path: Path) -> None:
    axes = {"number": [0, 1, 2], "time": 0.5 * np.arange(6), "x": np.arange(16.0)}
    xr.Dataset({"u": (("number", "time", "x"), lines(3) + 9)}, coords=axes).to_zarr(
        tmp_path / "a.zarr", zarr_format=2, encoding={"u": {"chunks": (1, 6, 16), "_FillValue": None}}
    )
    assert check_path(tmp_path / "a.zarr") == []
    (tmp_path / "a.zarr/u/1.0.0").unlink()  # which is read as zeros
    found = check_path(tmp_path / "a.zarr")
    assert told(found) == [("warning", "chunks"), ("warning", "repeated")]
    assert "1 of 3 chunks are not stored and read as an undefined value" in found[0].what and found[1].trajectory == 1


# ---------------------------------------------------------------------------------------------------------- leaks


def test_splits_that_share_frames_or_touch() -> None:
    data = Memory()
    data.segments = {
        "train": (Segment(0, 0, 10), Segment(1, 0, 24), Segment(2, 0, 8)),
        "validation": (Segment(0, 10, 16), Segment(2, 9, 12)),
        "test": (Segment(0, 14, 24), Segment(1, 20, 24), Segment(2, 13, 24)),
    }
    found = check(data)
    assert [(f.severity, f.kind, f.trajectory, f.frame) for f in found] == [
        ("error", "leak", 0, 14),  # validation 10:16 and test 14:24
        ("error", "leak", 1, 20),
        ("warning", "leak", 0, 10),  # train ends where validation begins
        ("note", "unused", 3, None),  # trajectory 2 has gaps, and is not among these
    ]
    assert "share 2 frames" in found[0].what and "share 4 frames" in found[1].what and "touch" in found[2].what


def test_frames_that_a_split_names_twice() -> None:
    data = Memory()
    data.segments |= {"train": (Segment(0, 0, 12), Segment(0, 8, 24))}
    (found,) = check(data)
    assert (found.severity, found.kind, found.frame) == ("warning", "repeated", 8) and "4 frames" in found.what


def test_trajectories_that_are_there_twice() -> None:
    data = Memory()
    data.states[2] = data.states[0]
    (found,) = check(data)
    assert (found.severity, found.kind, found.trajectory) == ("error", "leak", 2)
    assert "is trajectory 0 again" in found.what and "train and test" in found.what
    data.states[2, 10:] += 1  # the beginning is the same, the rest is not
    assert told(check(data)) == [("warning", "leak")]
    data.states[2, 3] += 1  # the first three frames are
    assert check(data) == []
    data.states[2] = data.states[0]
    data.segments = {"train": tuple(Segment(row, 0, FRAMES) for row in range(4))}
    assert told(check(data)) == [("warning", "repeated")]


def test_a_fluid_at_rest_is_no_leak() -> None:
    data = Memory()
    data.states[:, :4] = np.arange(4, dtype=np.float32).reshape(-1, 1, 1, 1)
    assert check(data) == []


def test_trajectories_that_two_files_share(tmp_path: Path) -> None:
    folder = well_folder(tmp_path)
    u = lines(3, seed=2)
    u[1] = lines(3)[2]
    well(folder / "data/test/a.hdf5", u)
    (found,) = check_path(folder)
    assert (found.severity, found.kind, found.trajectory) == ("error", "leak", 7)
    assert "is trajectory 2 again" in found.what and "train and test" in found.what


# --------------------------------------------------------------------------------------------------- damaged files


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def refused(path: Path) -> Finding:
    (found,) = check_path(path)
    assert (found.severity, found.kind) == ("error", "opening") and found.remedy
    return found


def test_truncated_files(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", lines(3))
    assert check_path(mapped(tmp_path, "u.npy")) == []
    whole = (tmp_path / "u.npy").read_bytes()
    (tmp_path / "u.npy").write_bytes(whole[:-100])
    found = refused(tmp_path / "mine.physml.yaml")
    assert found.file == str(tmp_path / "u.npy") and "truncated" in found.what and "again" in found.remedy
    file = well(tmp_path / "well/a.hdf5", lines(3))
    file.write_bytes(file.read_bytes()[:-2000])
    found = refused(file)
    assert found.file == str(file) and "truncated" in found.what and found.remedy == "Fetch it again"


def test_all_files_that_are_truncated_are_told(tmp_path: Path) -> None:
    folder = well_folder(tmp_path)
    bad = [folder / "data" / name / "a.hdf5" for name in ("train", "test")]
    for file in bad:
        file.write_bytes(file.read_bytes()[:-2000])
    found = check_path(folder)
    assert told(found) == [("error", "opening")] * 2 and {item.file for item in found} == set(map(str, bad))


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    np.save(tmp_path / "u.npy", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    torch.save({"u": Trap(mark)}, tmp_path / "u.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap(mark)))
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Trap(mark)))
    with np.errstate(all="ignore"):
        for name in ("u.npy", "u.pt", "raw.pt", "raw.npy"):
            found = refused(mapped(tmp_path, name))
            assert found.file == str(tmp_path / name)
    for name in ("u.npy", "raw.npy"):
        refused(tmp_path / name)
    assert not mark.exists()
    pickle.loads((tmp_path / "raw.pt").read_bytes())
    assert mark.exists()  # so that the trap would have shown


def test_wrong_types_and_missing_attributes(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", lines(3) + 1j)
    assert "complex" in refused(mapped(tmp_path, "u.npy")).what
    file = well(tmp_path / "well/a.hdf5", lines(3))
    with h5py.File(file, "r+") as opened:
        del opened["t0_fields"].attrs["field_names"]
    found = refused(file)
    assert "t0_fields has no attribute field_names" in found.what and found.file == str(file)
    assert found.remedy == "it lists the fields in order"


def test_times_that_an_adapter_refuses_keep_its_words(tmp_path: Path) -> None:
    times = 0.5 * np.arange(6)
    times[3] = times[2]
    found = refused(well(tmp_path / "a.hdf5", lines(3), time=times))
    assert "dimensions/time: frames 2 and 3 lie 0 apart" in found.what and found.remedy == "Resample in time"
    np.savez(tmp_path / "u.npz", u=lines(3), t=times)
    found = refused(mapped(tmp_path, "u.npz", "u", time={"array": "t"}))
    assert "time repeats: frame 2 is at 1 and frame 3 at 1" in found.what and "drop repeated" in found.remedy


def test_a_flipped_byte_is_told_by_trajectory_and_frame(store: TrajectoryStore) -> None:
    chunk = Path(store.path) / "state/c/2/1/0/0/0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    (found,) = check_path(store.path)
    # the second chunk of 16 frames has the last four
    assert (found.severity, found.kind, found.trajectory, found.frame) == ("error", "unreadable", 2, 16)
    assert "cannot be decoded" in found.what and "3 frames after it" in found.what and "again" in found.remedy


def test_a_broken_chunk_of_hdf5_is_told_by_trajectory_and_frame(tmp_path: Path) -> None:
    file = well(tmp_path / "a.hdf5", lines(3), (1, 2, 16))
    assert check_path(file) == []
    with h5py.File(file) as opened:
        place = opened["t0_fields/u"].id.get_chunk_info_by_coord((1, 2, 0))
    with open(file, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    (found,) = check_path(file)
    assert (found.severity, found.kind, found.trajectory, found.frame) == ("error", "unreadable", 1, 2)
    assert found.file == str(file) and "1 frames after it" in found.what


@pytest.mark.parametrize("version", [2, 3])
def test_a_chunk_cut_short_is_told_where_the_library_says_nothing(version: Any, tmp_path: Path) -> None:
    """Blosc without a checksum, the usual choice of zarr 2: such a chunk is read as what is in memory after it."""
    axes = {"number": [0, 1, 2], "time": 0.5 * np.arange(6), "x": np.arange(16.0)}
    blosc = numcodecs.Blosc() if version == 2 else zarr.codecs.BloscCodec()
    how = {"u": {"chunks": (1, 6, 16), "compressors": [blosc]}}
    data = xr.Dataset({"u": (("number", "time", "x"), lines(3))}, coords=axes)
    data.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False, encoding=how)
    assert check_path(tmp_path / "a.zarr") == []
    chunk = tmp_path / "a.zarr/u" / ("1.0.0" if version == 2 else "c/1/0/0")
    size = chunk.stat().st_size
    chunk.write_bytes(chunk.read_bytes()[:-5])
    (found,) = [item for item in check_path(tmp_path / "a.zarr") if item.file == str(chunk)]
    assert (found.severity, found.kind) == ("error", "unreadable")
    assert f"a chunk of {size} bytes is {size - 5} bytes long" in found.what


def test_a_deleted_chunk_of_a_store_is_refused(store: TrajectoryStore) -> None:
    (Path(store.path) / "state/c/2/1/0/0/0").unlink()
    found = refused(Path(store.path))
    assert "1 of 8 chunk files of state are missing" in found.what and found.remedy == "copy or make the store again"


def test_several_problems_are_all_told(store: TrajectoryStore) -> None:
    """A store with a broken chunk, NaN, uneven times, splits that overlap and a frame that is there twice."""
    group = zarr.open_group(store.path, mode="r+")
    state: Any = group["state"]
    state[1, 3, 2, 2, 0], state[3, 9] = np.nan, state[3, 8]
    times: Any = group["time"]
    times[5] += 0.1
    chunk = Path(store.path) / "state/c/0/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    rewrite(store.path, lambda plain: plain["segments"].update(test=[[3, 0, 20], [1, 0, 5]]))
    found = check_path(store.path)
    assert {(f.severity, f.kind, f.trajectory, f.frame) for f in found} == {
        ("error", "unreadable", 0, 0),
        ("error", "not finite", 1, 3),
        ("error", "times", None, None),
        ("error", "leak", 1, 0),
        ("warning", "repeated", 3, 9),
    }
    assert [f.severity for f in found] == sorted(f.severity for f in found)  # errors first


def test_warnings_of_adapters_become_findings(tmp_path: Path) -> None:
    file = well(tmp_path / "a.hdf5", lines(3))
    with h5py.File(file, "r+") as opened:
        opened.attrs["grid_type"] = "spherical"
    (found,) = check_path(file)
    assert (found.severity, found.kind) == ("warning", "remark") and "grid_type is 'spherical'" in found.what


def test_memory_is_bounded_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read asks for more than a block; every frame is read once."""
    data, asked = Memory(), list[tuple[int, int, int]]()
    monkeypatch.setattr("physml.datasets.check._BLOCK_BYTES", 5 * 4 * 8 * 6 * 2)
    read = data._read

    def watched(trajectory: int, frames: slice) -> np.ndarray:
        asked.append((trajectory, frames.start, frames.stop))
        return read(trajectory, frames)

    data._read = watched  # type: ignore[method-assign]
    assert check(data) == []
    assert max(stop - start for _, start, stop in asked) == 5
    assert sorted((row, frame) for row, start, stop in asked for frame in range(start, stop)) == [
        (row, frame) for row in range(4) for frame in range(FRAMES)
    ]


def test_progress_and_window(store: TrajectoryStore) -> None:
    seen = list[tuple[int, int]]()
    check(store, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    with pytest.raises(ValueError, match="window: got 0"):
        check(store, window=0)


def test_a_store_writer_leaves_nothing_to_find(tmp_path: Path) -> None:
    layout = wave_layout((8, 6))
    writer = StoreWriter(
        tmp_path / "one.zarr",
        name="one",
        layout=layout,
        count=1,
        frames=30,
        parameters={},
        segments={"train": [Segment(0, 0, 16)], "test": [Segment(0, 20, 30)]},
        provenance={},
    )
    values = wave(layout, 0, 30)
    writer.finish([writer.write(0, start, values[start : start + 16]) for start in (0, 16)])
    assert check_path(tmp_path / "one.zarr") == []
