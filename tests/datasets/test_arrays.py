from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import totals
from scipy.io import savemat

from physml.datasets import Arrays, Segment, open_trajectories
from physml.datasets.trajectories import Trajectories
from physml.fields import Boundary

ORDER = ("trajectory", "time", "x", "y", "channel")
SHAPE = {"trajectory": 3, "time": 5, "x": 4, "y": 6, "channel": 2}


def numbers(**sizes: int) -> np.ndarray:
    """``1000 n + 100 t + i + 0.01 j + 10 c``: every mistake of an index shows."""
    parts = np.meshgrid(*(np.arange((SHAPE | sizes)[word]) for word in ORDER), indexing="ij", sparse=True)
    return sum(scale * part for scale, part in zip((1000, 100, 1, 0.01, 10), parts, strict=True)).astype(np.float32)


PLAIN: dict[str, Any] = {
    "fields": {"a": {"channel": 0, "units": "m/s"}, "b": {"channel": 1}},
    "dimensions": list(ORDER),
    "axes": {
        "x": {"start": 0, "stop": 2, "endpoint": False, "boundary": "periodic", "units": "m"},
        "y": {"start": -1, "stop": 1, "endpoint": True, "boundary": "wall"},
    },
    "time": {"dt": "1e-1", "units": "s"},  # which YAML 1.1 takes for text
    "split": {"along": "trajectory", "train": [0, 1], "test": [1, 3]},
}


def mapped(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.physml.yaml"
    keys = {key: value for key, value in (PLAIN | changes).items() if value != "leave out"}
    file.write_text(yaml.safe_dump(keys, sort_keys=False))
    return file


def written(folder: Path, suffix: str, **arrays: np.ndarray) -> str:
    """Arrays in a file of that kind; returns its name."""
    file = folder / f"data{suffix}"
    if suffix == ".npy":
        np.save(file, next(iter(arrays.values())))
    elif suffix == ".npz":
        np.savez(file, **arrays)
    elif suffix == ".pt":
        torch.save({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}, file)
    elif suffix == ".mat":
        savemat(file, arrays)
    elif suffix == "73.mat":  # HDF5 behind 512 bytes of text, dimensions reversed
        with h5py.File(file, "w", userblock_size=512) as opened:
            for name, values in arrays.items():
                opened[name] = values.T
        with open(file, "r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(128))
    else:
        with h5py.File(file, "w") as opened:
            for name, values in arrays.items():
                opened[name] = values
    return file.name


def everything(data: Trajectories) -> np.ndarray:
    return np.stack([data.read(row, 0, data.frames) for row in range(data.count)])


def test_what_the_mapping_says_is_what_the_data_are(tmp_path: Path) -> None:
    data = open_trajectories(mapped(tmp_path, file=written(tmp_path, ".npy", u=numbers())))
    assert isinstance(data, Arrays) and data.name == "mine" and (data.count, data.frames) == (3, 5)
    np.testing.assert_array_equal(everything(data), numbers())
    np.testing.assert_array_equal(data.read(2, 1, 5, 2), numbers()[2, 1:5:2])
    layout = data.layout
    assert [(f.name, f.units) for f in layout.fields] == [("a", "m/s"), ("b", "")]
    assert (layout.dt, layout.time_units) == (0.1, "s")
    x, y = layout.grid.axes
    assert (x.boundary, x.length, x.units) == (Boundary.PERIODIC, 2.0, "m") and x.points.tolist() == [0, 0.5, 1, 1.5]
    assert (y.boundary, y.length) == (Boundary.WALL, 2.0) and y.points[-1] == 1.0
    assert data.segments == {"train": (Segment(0, 0, 5),), "test": (Segment(1, 0, 5), Segment(2, 0, 5))}
    flat = numbers()[0].reshape(-1, 2).astype(np.float64)  # one pass in float64 against two: rounding only
    np.testing.assert_allclose(data.statistics.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(data.statistics.std, flat.std(0), rtol=1e-12)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".mat", "73.mat", ".h5"])
@settings(max_examples=12)
@given(order=st.permutations(ORDER), left_out=st.sets(st.sampled_from(ORDER), max_size=4))
def test_dimensions_may_come_in_any_order(
    suffix: str, order: list[str], left_out: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    words = [word for word in order if word not in left_out]
    whole = numbers(**{word: 1 for word in ORDER if word not in words})
    stored = np.transpose(whole, [ORDER.index(word) for word in (*words, *(w for w in ORDER if w not in words))])
    stored = stored.reshape([SHAPE[word] for word in words])
    fields = {"a": {"channel": 0, "array": "u"}, "b": {"channel": 1, "array": "u"}}
    fields = fields if "channel" in words else {"a": {"array": "u"}}
    axes = {name: {"start": 0, "stop": 1, "endpoint": False, "boundary": "open"} for name in ("x", "y")}
    file = mapped(
        folder, file=written(folder, suffix, u=stored), fields=fields, dimensions=words, axes=axes, split="leave out"
    )
    np.testing.assert_array_equal(everything(open_trajectories(file)), whole)


def test_the_fingerprint_follows_numbers_and_meaning_not_files(tmp_path: Path) -> None:
    u = numbers()
    prints = []
    for suffix in (".npz", ".pt", ".h5"):
        fields = {"a": {"array": "u", "channel": 0}, "b": {"array": "u", "channel": 1}}
        prints.append(Arrays(mapped(tmp_path, file=written(tmp_path, suffix, u=u), fields=fields)).fingerprint)
    assert len(set(prints)) == 1
    moved = u.copy()
    moved[2, 4, 3, 5, 1] += 1
    for changes in ({"file": written(tmp_path, ".npz", u=moved)}, {"time": {"dt": 0.2}}):
        made = mapped(tmp_path, fields=fields, **{"file": written(tmp_path, ".pt", u=u), **changes})
        assert Arrays(made).fingerprint != prints[0]


@pytest.mark.parametrize("kind", [">f4", ">f8", "<f2", "i2", ">i4", "u1", "?"])
def test_other_types_become_single_precision(kind: str, tmp_path: Path) -> None:
    stored = (numbers() % 2).round().astype(kind)
    data = Arrays(mapped(tmp_path, file=written(tmp_path, ".npy", u=stored)))
    assert data.read(0, 0, 1).dtype == np.float32
    np.testing.assert_array_equal(everything(data), stored.astype(np.float64))  # small whole numbers are exact


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(numbers() % 8).round().bfloat16(), tmp_path / "data.pt")
    fields = {"a": {"array": "", "channel": 0}}
    np.testing.assert_array_equal(
        everything(Arrays(mapped(tmp_path, file="data.pt", fields=fields))), (numbers() % 8).round()[..., :1]
    )


def test_a_repeated_end_point_is_dropped_and_checked(tmp_path: Path) -> None:
    x = np.linspace(0, 2, 9)
    t = 0.25 * np.arange(24)
    u = np.sin(np.pi * (x[:, None] - t))
    keys: dict[str, Any] = {
        "fields": {"u": "uu"},
        "dimensions": ["x", "time"],
        "axes": {"x": {"array": "x", "boundary": "periodic", "repeated": True}},
        "time": {"array": "tt"},
        "split": {"along": "time", "gap": 2, "train": 0.5, "validation": 0.25, "test": 0.25},
    }
    file = mapped(tmp_path, **keys, file=written(tmp_path, ".npz", uu=u, x=x, tt=t))
    data = Arrays(file)
    axis = data.layout.grid.axes[0]
    assert axis.length == 2.0 and len(axis.points) == 8 and data.layout.dt == 0.25
    np.testing.assert_array_equal(data.read(0, 0, 24)[..., 0], u[:8].T.astype(np.float32))
    assert {name: (s.start, s.stop) for name, (s,) in data.segments.items()} == {
        "train": (0, 10),
        "validation": (12, 17),
        "test": (19, 24),
    }
    # from the far end: the same points with the same values
    np.savez(tmp_path / "data.npz", uu=u[::-1], x=x[::-1], tt=t)
    again = Arrays(file)
    np.testing.assert_array_equal(again.layout.grid.axes[0].points, axis.points)
    np.testing.assert_array_equal(again.read(0, 0, 24), data.read(0, 0, 24))
    np.savez(tmp_path / "data.npz", uu=u + x[:, None], x=x, tt=t)
    with pytest.raises(ValueError, match=r"axes\.x\.repeated: got True; expected last values equal to the first"):
        Arrays(file)


def test_static_fields_parameters_and_mask(tmp_path: Path) -> None:
    u, k = numbers(), numbers(time=1)[:, 0, ..., 0]
    mask = np.ones((6, 4), np.uint8)
    mask[2, 1] = 0
    u[:, :, 1, 2] = np.nan
    written(tmp_path, ".npz", k=k.transpose(2, 0, 1), one=k[1], m=mask, nu=np.array([0.1, 0.2, 0.3]), g=np.array(9.8))
    data = Arrays(
        mapped(
            tmp_path,
            file="data.npz",
            fields={"b": {"file": written(tmp_path, ".npy", u=u), "array": "", "channel": 1}},
            static={
                "permeability": {"array": "k", "dimensions": ["y", "trajectory", "x"], "units": "m^2"},
                "roughness": {"array": "one", "dimensions": ["x", "y"]},
            },
            parameters={"viscosity": "nu", "gravity": {"array": "g"}, "drag": [1, 2, 3], "height": 2},
            mask={"array": "m", "dimensions": ["y", "x"], "marks": "fluid"},
        )
    )
    for row in range(3):
        np.testing.assert_array_equal(data.read_static(row), np.stack([k[row], k[1]], axis=-1))
    found = {name: values.tolist() for name, values in data.parameters.items()}
    assert found == {"viscosity": [0.1, 0.2, 0.3], "gravity": [9.8] * 3, "drag": [1, 2, 3], "height": [2, 2, 2]}
    grid = data.layout.grid
    assert grid.mask is not None and np.argwhere(~grid.mask.numpy()).tolist() == [[1, 2]]
    expected = numbers()[..., 1:]
    expected[:, :, 1, 2] = 0
    np.testing.assert_array_equal(everything(data), expected)
    assert [(f.name, f.units) for f in data.layout.static] == [("permeability", "m^2"), ("roughness", "")]


def test_faces_of_a_staggered_grid_become_centres(tmp_path: Path) -> None:
    """``u`` lies on faces across the periodic x, ``v`` on faces across y between walls, ``p`` at centres."""
    x, y = np.arange(8) / 8, np.arange(7) / 6  # lower faces of 8 cells, all faces of 6
    time = np.arange(5)[:, None, None]
    u = np.sin(2 * np.pi * x)[:, None] + 0 * y[:-1] + time
    v = 0 * x[:, None] + y**2 + time
    p = 0 * x[:, None] + 0 * y[:-1] + time
    file = written(tmp_path, ".npz", u=u, v=v, p=p)
    axes = {
        "x": {"start": 1 / 16, "stop": 17 / 16, "endpoint": False, "boundary": "periodic"},
        "y": {"start": 1 / 12, "stop": 11 / 12, "endpoint": True, "boundary": "wall", "length": 1},
    }
    fields = {"u": {"faces": "x"}, "v": {"faces": "y"}, "p": {}}
    keys = {"file": file, "fields": fields, "dimensions": ["time", "x", "y"], "axes": axes, "split": "leave out"}
    data = Arrays(mapped(tmp_path, **keys))
    assert data.layout.grid.shape == (8, 6) and data.frames == 5
    found = data.read(0, 1, 4)
    # the mean of two faces: sin at the centre times cos of half a cell, and y^2 at the centre plus h^2/4
    centre = np.cos(np.pi / 8) * np.sin(2 * np.pi * (x + 1 / 16))
    np.testing.assert_allclose(found[..., 0], centre[:, None] + 0 * y[:-1] + time[1:4], atol=1e-6)
    middle = 0.5 * (y[1:] + y[:-1])
    np.testing.assert_allclose(found[..., 1], middle**2 + 1 / 144 + 0 * x[:, None] + time[1:4], atol=1e-6)
    np.testing.assert_array_equal(found[..., 2], p[1:4].astype(np.float32))
    with pytest.raises(ValueError, match=r"fields\.v\.faces: got 'z'; expected one of x, y"):
        Arrays(mapped(tmp_path, **keys | {"fields": fields | {"v": {"faces": "z"}}}))
    with pytest.raises(ValueError, match=r"fields\.v: has 7 along y, fields\.u has 6; expected the same"):
        Arrays(mapped(tmp_path, **keys | {"fields": fields | {"v": {}}}))


def test_several_files_go_together(tmp_path: Path) -> None:
    u = numbers()
    for row in range(3):
        np.save(tmp_path / f"run_{row}.npy", u[row])
    data = Arrays(mapped(tmp_path, file="run_*.npy", dimensions=list(ORDER[1:])))
    np.testing.assert_array_equal(everything(data), u)
    np.save(tmp_path / "tail_a.npy", u[:, :2])
    np.save(tmp_path / "tail_b.npy", u[:, 2:])
    data = Arrays(mapped(tmp_path, file=["tail_a.npy", "tail_b.npy"], along="time"))
    np.testing.assert_array_equal(everything(data), u)
    for start, stop, step in ((0, 5, 3), (1, 5, 2), (2, 3, 1), (1, 2, 1), (0, 5, 4)):
        np.testing.assert_array_equal(data.read(1, start, stop, step), u[1, start:stop:step])
    np.save(tmp_path / "tail_b.npy", u[:, 2:, :3])
    with pytest.raises(ValueError, match=r"fields\.a: tail_b\.npy has 3 along x, tail_a\.npy has 4"):
        Arrays(mapped(tmp_path, file=["tail_a.npy", "tail_b.npy"], along="time"))


def test_matlab_vectors_and_lost_dimensions(tmp_path: Path) -> None:
    u = numbers(channel=1)[:1, ..., 0].transpose(2, 3, 1, 0)  # x, y, time, and a last one that MATLAB loses
    x = np.arange(4.0)
    axes = PLAIN["axes"] | {"x": {"array": "x", "boundary": "open"}}
    for suffix in (".mat", "73.mat"):
        for case, vector in enumerate((x[None], x[:, None])):
            folder = tmp_path / f"{case}{suffix}"
            folder.mkdir()
            name = written(folder, suffix, u=u[..., 0], x=vector)
            words = ["x", "y", "time", "trajectory"]
            data = Arrays(mapped(folder, file=name, fields={"a": "u"}, dimensions=words, axes=axes, split="leave out"))
            assert data.layout.grid.axes[0].points.tolist() == x.tolist()
            np.testing.assert_array_equal(data.read(0, 1, 5, 3), u[..., 1:5:3, 0].transpose(2, 0, 1)[..., None])


def wrong(**changes: Any) -> dict[str, Any]:
    return changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (wrong(fields="leave out"), "fields: is missing; expected at least one field"),
        (wrong(fields={"a": {"channel": 0, "unit": "m"}}), r"fields\.a\.unit: unknown key"),
        (wrong(fields={"a": {}}), r"fields\.a\.channel: is missing; expected a number below 2"),
        (wrong(fields={"a": {"channel": 2}}), r"fields\.a\.channel: got 2; expected a number below 2"),
        (wrong(fields={"a": {"channel": 0, "file": "no.npy"}}), r"fields\.a\.file: there is no file"),
        (wrong(dimensions="leave out"), r"fields\.a\.dimensions: is missing"),
        (wrong(dimensions=["time", "x", "z"]), r"dimensions: got .*expected a list of different words out of traj"),
        (wrong(dimensions=["time", "x", "x"]), "dimensions: got .*different words"),
        (wrong(dimensions=["time", "x", "y"]), r"fields\.a\.channel: got 0; expected none"),
        (wrong(dimensions=[*ORDER[1:]]), r"has the shape \(3, 5, 4, 6, 2\), its dimensions are .*a word for each"),
        (wrong(axes={}), "axes: .*at least one axis"),
        (wrong(axes={"time": {}, "x": {}}), r"axes\.time: time is no axis"),
        (wrong(axes=PLAIN["axes"] | {"x": {"boundary": "round"}}), r"boundary: got 'round'; expected one of periodic"),
        (wrong(axes=PLAIN["axes"] | {"x": {"boundary": "wall", "start": 0}}), r"axes\.x\.stop: is missing"),
        (wrong(time="leave out"), "time: is missing; expected dt or an array of times, for there are 5 frames"),
        (wrong(time={"dt": -1}), r"time\.dt: got -1; expected a number above 0"),
        (wrong(parameters={"nu": [1, 2]}), r"parameters\.nu: got \[1, 2\]; expected a number, 3 numbers"),
        (wrong(split={"train": 0.5}), r"split\.along: is missing; expected one of trajectory, time"),
        (wrong(split={"along": "time", "test": 0.5}), r"split\.train: is missing"),
        (wrong(split={"along": "time", "train": 0.5, "test": [0, 1]}), r"split\.test: .*the same for all"),
        (wrong(split={"along": "time", "train": [0, 3], "test": [2, 5]}), "split: train and test overlap"),
        (wrong(split={"along": "trajectory", "gap": 1, "train": 0.5}), r"split\.gap: got 1; expected no gap"),
        (wrong(split={"along": "trajectory", "train": 0.9, "test": 0.1}), r"split\.test: 0\.1 of 3 \(trajectory\)"),
        (wrong(split={"along": "time", "train": 0.9, "test": 0.2}), "fractions sum to 1.1"),
        (wrong(static={"k": {"channel": 0, "dimensions": list(ORDER)}}), r"static\.k\.dimensions: has time"),
        (wrong(colour="red"), "colour: unknown key"),
        (wrong(feilds={}, fields="leave out"), "fields: is missing, but there is 'feilds', which is no key; expected"),
    ],
)
def test_a_wrong_key_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = mapped(tmp_path, **{"file": written(tmp_path, ".npy", u=numbers()), **changes})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Arrays(file)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0, 1, 2, 2, 3], "time repeats: frame 2 is at 2 and frame 3 at 2"),
        ([0, 2, 1, 3, 4], "time is out of order: frame 1 is at 2 and frame 2 at 1"),
        ([0, 1, 2, 4, 5], "unevenly spaced: from frame 2 to frame 3 it is 2, elsewhere 1"),
        ([0, 1, np.nan, 3, 4], "the time of frame 2 is not finite"),
        ([0, 1, 2, 3], "the times of 5 frames; it holds 4"),
    ],
)
def test_uneven_times_are_an_error_that_names_the_place(times: list[float], message: str, tmp_path: Path) -> None:
    name = written(tmp_path, ".npz", a=numbers()[..., 0], t=np.array(times))
    changes = {"file": name, "fields": {"a": {}}, "dimensions": list(ORDER[:-1]), "time": {"array": "t"}}
    with pytest.raises(ValueError, match=message):
        Arrays(mapped(tmp_path, **changes))


def test_uneven_or_unsorted_points_are_an_error(tmp_path: Path) -> None:
    for points, boundary, message in (
        ([0, 1, 1, 2], "open", "point 1 is at 1 and point 2 at 1"),
        ([3, 1, 2, 0], "wall", "point 2 is at 2 and point 1 at 1"),
        ([0, 1, 2, 4], "periodic", "give the length"),
        ([0, 1, 2], "open", "expected 4 coordinates"),
    ):
        name = written(tmp_path, ".npz", a=numbers()[..., 0], x=np.array(points))
        axes = PLAIN["axes"] | {"x": {"array": "x", "boundary": boundary}}
        with pytest.raises(ValueError, match=message):
            Arrays(mapped(tmp_path, file=name, fields={"a": {}}, dimensions=list(ORDER[:-1]), axes=axes))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".mat", "73.mat", ".h5"])
def test_a_truncated_file_is_one_clear_error(suffix: str, tmp_path: Path) -> None:
    rough = np.random.default_rng(0).random(numbers().shape)  # so that compression does not hide what is cut
    name = written(tmp_path, suffix, u=rough)
    array = "" if suffix == ".npy" else "u"
    file = mapped(tmp_path, file=name, fields={"a": {"array": array, "channel": 0}})
    content = (tmp_path / name).read_bytes()
    for part in (0, 100, len(content) // 2, len(content) - 40):
        (tmp_path / name).write_bytes(content[:part])
        with pytest.raises(ValueError, match=f"{name}.*(truncated|not an array|holds)"):
            Arrays(file)


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = np.empty(2, object)
    trap[:] = [Trap(tmp_path / "sprung"), 1]
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "b.npz", u=trap)
    torch.save({"u": Trap(tmp_path / "sprung")}, tmp_path / "c.pt")
    (tmp_path / "d.npy").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name, array in (("a.npy", ""), ("b.npz", "u"), ("c.pt", "u"), ("d.npy", "")):
        with pytest.raises(ValueError, match=rf"{name}: holds .*never loaded"):
            Arrays(mapped(tmp_path, file=name, fields={"a": {"array": array, "channel": 0}}))
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_a_real_number_is_refused(tmp_path: Path) -> None:
    for values, message in (
        (np.zeros(3, np.complex64), "complex numbers; save their real and imaginary parts"),
        (np.zeros(3, [("real", "f8"), ("imag", "f8")]), "complex numbers"),
        (np.array(["a", "b"]), "expected plain numbers"),
        (np.zeros(3, "M8[s]"), "expected plain numbers"),
    ):
        np.savez(tmp_path / "data.npz", u=values)
        with pytest.raises(ValueError, match=message):
            Arrays(mapped(tmp_path, file="data.npz", fields={"a": {"array": "u", "channel": 0}}))
    np.savez(tmp_path / "data.npz", u=np.full(numbers().shape, 1e300))
    with pytest.raises(ValueError, match=r"frame 0 holds NaN or\s+infinite"):  # beyond single precision
        Arrays(mapped(tmp_path, file="data.npz", fields={"a": {"array": "u", "channel": 0}})).read(0, 0, 1)


def test_arrays_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    name = written(tmp_path, ".npz", a=numbers()[..., 0], b=numbers(time=4)[..., 0])
    keys = {"file": name, "dimensions": list(ORDER[:-1])}
    with pytest.raises(ValueError, match=r"fields\.b: has 4 along time, fields\.a has 5"):
        Arrays(mapped(tmp_path, **keys, fields={"a": {}, "b": {}}))
    with pytest.raises(ValueError, match=r"fields\.a: no array 'v'; data\.npz holds a, b"):
        Arrays(mapped(tmp_path, **keys, fields={"a": "v"}))
    (tmp_path / "data.csv").touch()
    with pytest.raises(ValueError, match=r"ends in '\.csv'; expected one of"):
        Arrays(mapped(tmp_path, **(keys | {"file": "data.csv"}), fields={"a": {}}))


def test_arrays_without_a_mapping_are_refused(tmp_path: Path) -> None:
    name = written(tmp_path, ".npy", u=numbers())
    with pytest.raises(ValueError, match=r"shape \(3, 5, 4, 6, 2\).* write data\.physml\.yaml beside it"):
        open_trajectories(tmp_path / name)
    (tmp_path / "data.physml.yaml").write_text("fields: [")
    with pytest.raises(ValueError, match=r"open .*data\.physml\.yaml"):
        open_trajectories(tmp_path / name)
    with pytest.raises(ValueError, match="not a YAML file"):
        open_trajectories(tmp_path / "data.physml.yaml")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_open_the_files_themselves(method: str, tmp_path: Path) -> None:
    fields = {"a": {"array": "u", "channel": 0}, "b": {"array": "u", "channel": 1}}
    data = Arrays(mapped(tmp_path, file=written(tmp_path, ".h5", u=numbers()), fields=fields))
    here = float(data.read(2, 4, 5).sum(dtype=np.float64))
    assert b"h5py" not in pickle.dumps(data)
    assert totals(data, (2, 4, 5), method, tmp_path) == [here] * 3


def test_statistics_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Arrays(mapped(tmp_path, file=written(tmp_path, ".npy", u=numbers())))
    read: list[int] = []
    plain = Arrays._read
    monkeypatch.setattr(Arrays, "_read", lambda self, row, frames: read.append(row) or plain(self, row, frames))
    first = data.statistics
    assert read and set(read) == {0}  # the training split
    read.clear()
    assert data.statistics is first and not read


def test_many_files_do_not_stay_open(tmp_path: Path) -> None:
    for row in range(80):
        with h5py.File(tmp_path / f"run_{row:02d}.h5", "w") as file:
            file["u"] = numbers()[0] + row
    fields = {"a": {"array": "u", "channel": 0}}
    data = Arrays(mapped(tmp_path, file="run_*.h5", dimensions=list(ORDER[1:]), fields=fields))
    assert data.count == 80 and [data.read(row, 0, 1)[0, 0, 0, 0] for row in (0, 79, 3)] == [0, 79, 3]
    assert len(data._arrays) <= 64


def test_kuramoto_sivashinsky_and_allen_cahn(real_data: Path, tmp_path: Path) -> None:
    for name, repeated, n in (("KS", True, 512), ("AC", False, 512)):
        axis = {"array": "x", "boundary": "periodic", "repeated": repeated}
        data = Arrays(
            mapped(
                tmp_path,
                file=str((real_data / "pde1d" / f"{name}.mat").resolve()),
                fields={"u": "uu"},
                dimensions=["x", "time"],
                axes={"x": axis},
                time={"array": "tt"},
                split="leave out",
            )
        )
        assert (data.frames, data.layout.grid.shape, data.layout.dt) == (201, (n,), 0.005)
        assert abs(data.layout.grid.axes[0].length - 2) < 1e-12 and data.layout.grid.axes[0].uniform
        if name == "KS":  # u_t + u u_x + ... in conservation form keeps the mean, which is 0 at first
            mean = data.read(0, 0, 201).astype(np.float64).mean(axis=(1, 2))
            assert np.abs(mean).max() < 1e-6  # single precision of values of order 1


def test_a_density_of_phiflow(real_data: Path, tmp_path: Path) -> None:
    file = (real_data / "phiflow_grids" / "dens_001000.npz").resolve()
    spacing = 200 / 256  # values at the centres of cells of 200 x 100 units
    axes = {
        "x": {"start": spacing / 2, "stop": 100 - spacing / 2, "endpoint": True, "length": 100, "boundary": "open"},
        "y": {"start": spacing / 2, "stop": 200 - spacing / 2, "endpoint": True, "length": 200, "boundary": "open"},
    }
    fields = {"density": {"array": "data"}}
    data = Arrays(mapped(tmp_path, file=str(file), fields=fields, dimensions=["y", "x"], axes=axes, split="leave out"))
    assert (data.count, data.frames, data.layout.grid.shape) == (1, 1, (128, 256))
    for axis in data.layout.grid.axes:
        assert abs(float(axis.weights.sum()) - axis.length) < 1e-9  # the cells tile the domain
    with np.load(file) as plain:
        np.testing.assert_array_equal(data.read(0, 0, 1)[0, ..., 0], plain["data"].T)
    fields = {"density": {"array": "extrapolation", "dimensions": ["y"]}}  # an object, next to numbers
    with pytest.raises(ValueError, match=r"dens_001000\.npz: holds pickled objects, which are never loaded"):
        Arrays(mapped(tmp_path, file=str(file), fields=fields, axes=axes, split="leave out"))


def test_burgers_of_neuraloperator(real_data: Path, tmp_path: Path) -> None:
    data = Arrays(
        mapped(
            tmp_path,
            file=str((real_data / "burgers_neuralop" / "burgers_train_16.pt").resolve()),
            fields={"u": "y"},
            dimensions=["trajectory", "time", "x"],
            axes={"x": {"start": 0, "stop": 1, "endpoint": False, "boundary": "periodic"}},
            parameters={"viscosity": "visc"},
            split={"along": "trajectory", "train": 0.8, "validation": 0.1, "test": 0.1},
        )
    )
    assert (data.count, data.frames, data.layout.grid.shape) == (800, 17, (16,))
    assert len(set(data.parameters["viscosity"])) == 1 and len(data.segments["test"]) == 80
    energy = np.stack([(data.read(row, 0, 17).astype(np.float64) ** 2).mean((1, 2)) for row in range(0, 800, 40)])
    assert (energy[:, -1] < energy[:, 0]).all()  # viscosity takes energy, and nothing gives it
