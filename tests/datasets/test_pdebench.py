from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physml.datasets import PDEBench, Segment, hdf5, open_trajectories
from physml.fields import Boundary

N, T, NX, NY, NZ = 3, 4, 6, 5, 2  # all unlike each other, so that exchanged axes are seen


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A file as it is published, and what it must become."""

    file: str
    arrays: Mapping[str, np.ndarray]
    state: np.ndarray
    names: tuple[str, ...]
    boundary: Boundary
    parameters: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)
    dt: float = 0.05
    static: np.ndarray | None = None
    static_names: tuple[str, ...] = ()

    def write(self, folder: Path, name: str = "") -> Path:
        path = folder / (name or self.file)
        with h5py.File(path, "w") as file:
            for key, values in self.arrays.items():
                file[key] = values
            file.attrs.update(dict(self.attributes))
        return path


def line(n: int, first: float = 0.0, last: float = 1.0) -> np.ndarray:
    """Centres of ``n`` cells between two ends."""
    return (first + (last - first) * (np.arange(n) + 0.5) / n).astype(np.float32)


def clock(entries: int) -> np.ndarray:
    return (0.05 * np.arange(entries)).astype(np.float32)


def coordinates(*sizes: int, entries: int = T + 1) -> dict[str, np.ndarray]:
    """As solvers write them: one time more than there are frames."""
    return {f"{name}-coordinate": line(n) for name, n in zip("xyz", sizes, strict=False)} | {
        "t-coordinate": clock(entries)
    }


def scalar(file: str, parameters: Mapping[str, float], **more: object) -> Case:
    u = numbers(N, T, NX)
    arrays = {"tensor": u, **coordinates(NX)}
    return Case(file, arrays, u[..., None], ("u",), Boundary.PERIODIC, parameters, **more)  # type: ignore[arg-type]


def gas(file: str, sizes: tuple[int, ...], boundary: Boundary, parameters: Mapping[str, float]) -> Case:
    keys = ("density", "pressure", *(f"V{name}" for name in "xyz"[: len(sizes)]))
    state = numbers(N, T, *sizes, len(keys))
    arrays = {key: state[..., index] for index, key in enumerate(keys)}
    names = tuple(key.replace("V", "velocity_") for key in keys)
    return Case(file, arrays | coordinates(*sizes), state, names, boundary, parameters)


def groups(file: str, sizes: tuple[int, ...], names: tuple[str, ...], boundary: Boundary, first: int = 0) -> Case:
    state = numbers(N, T, *sizes, len(names))
    arrays = {}
    for row in range(N):
        arrays[f"{first + row:04d}/data"] = state[row]
        arrays[f"{first + row:04d}/grid/t"] = clock(T)
        for name, n in zip("xyz", sizes, strict=False):
            arrays[f"{first + row:04d}/grid/{name}"] = line(n)
    return Case(file, arrays, state, names, boundary)


def plane() -> Case:
    u = numbers(N, T, NX, NY)
    return Case("u.hdf5", {"tensor": u, **coordinates(NX, NY)}, u[..., None], ("u",), Boundary.PERIODIC)


def incompressible() -> Case:
    u, smoke, force = (numbers(N, T, NX, NY, c, seed=c) for c in (2, 1, 3))
    force = force[:, 0, ..., :2]
    arrays = {"velocity": u, "particles": smoke, "force": force, "t": np.tile(clock(T), (N, 1))}
    names = ("velocity_x", "velocity_y", "particles")
    return Case(
        "ns_incom_inhom_2d_512-7.h5",
        arrays,
        np.concatenate([u, smoke], axis=-1),
        names,
        Boundary.WALL,
        attributes={"latestIndex": 3, "config": "sim: {}"},
        static=force,
        static_names=("force_x", "force_y"),
    )


def darcy() -> Case:
    p, a = numbers(N, 1, NX, NY), numbers(N, NX, NY, seed=1)
    return Case(
        "2D_DarcyFlow_beta1.0_Train.hdf5",
        {"tensor": p, "nu": a} | {key: v for key, v in coordinates(NX, NY).items() if key != "t-coordinate"},
        p[..., None],
        ("pressure",),
        Boundary.WALL,
        {"beta": 1.0},
        dt=1.0,
        static=a[..., None],
        static_names=("permeability",),
    )


def nested() -> Case:
    u = numbers(1, N, T, NX)
    arrays = {"tensor": u, **coordinates(NX)}
    return Case("1D_Advection_Sols_beta4.0.hdf5", arrays, u[0, ..., None], ("u",), Boundary.PERIODIC, {"beta": 4.0})


CFD = {"mach": 0.1, "eta": 1e-8, "zeta": 0.01}
CASES = [
    scalar("1D_Advection_Sols_beta0.4.hdf5", {"beta": 0.4}),
    scalar("1D_Burgers_Sols_Nu0.01.hdf5", {"nu": 0.01}),
    scalar("ReacDiff_Nu0.5_Rho1.0.hdf5", {"nu": 0.5, "rho": 1.0}),
    scalar("renamed.hdf5", {"nu": 0.5, "rho": 1.0}, attributes={"Nu": 0.5, "rho": np.array([1.0]), "other": 3.0}),
    scalar(
        "1D_Burgers_Sols_Nu0.01.h5", {"nu": 0.01}, attributes={"Nu": 7.0}
    ),  # the name wins; nor does the ending count
    nested(),
    gas("1D_CFD_Rand_Eta1e-08_Zeta0.01_trans_Train.hdf5", (NX,), Boundary.OPEN, {"eta": 1e-8, "zeta": 0.01}),
    gas("2D_CFD_Rand_M0.1_Eta1e-08_Zeta0.01_periodic_128_Train.hdf5", (NX, NY), Boundary.PERIODIC, CFD),
    gas("3D_CFD_Turb_M0.1_Eta1e-08_Zeta0.01_periodic_Train.hdf5", (NX, NY, NZ), Boundary.PERIODIC, CFD),
    gas("2D_shock.hdf5", (NX, NY), Boundary.OPEN, {}),
    darcy(),
    groups("1D_diff-sorp_NA_NA.h5", (NX,), ("concentration",), Boundary.OPEN),
    groups("2D_diff-react_NA_NA.h5", (NX, NY), ("activator", "inhibitor"), Boundary.WALL, first=17),
    groups("2D_rdb_NA_NA.h5", (NX, NY), ("height",), Boundary.OPEN, first=998),
    incompressible(),
    plane(),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_every_layout_is_read_as_it_is_stored(tmp_path: Path, case: Case) -> None:
    data = open_trajectories(case.write(tmp_path))
    assert isinstance(data, PDEBench)
    assert (data.count, data.frames) == case.state.shape[:2] and data.layout.names == case.names
    assert data.layout.grid.shape == case.state.shape[2:-1]
    assert set(data.layout.grid.boundaries) == {case.boundary}
    assert data.layout.dt == pytest.approx(case.dt, rel=1e-6)  # the clock is single precision
    assert {name: set(values) for name, values in data.parameters.items()} == {
        name: {value} for name, value in case.parameters.items()
    }
    for axis in data.layout.grid.axes:
        n = len(axis.points)
        np.testing.assert_allclose(axis.points.numpy(), (np.arange(n) + 0.5) / n, atol=1e-7)  # single precision
        assert axis.uniform
        assert axis.length == pytest.approx(1.0 if axis.periodic else 1 - 1 / n, rel=1e-6)
    frames = case.state.shape[1]
    for row in range(N):
        for start in range(frames):
            for step in (1, 2, 3):
                found = data.read(row, start, frames, step)
                np.testing.assert_array_equal(found, case.state[row, start::step])
                assert found.dtype == np.float32
        if case.static is not None:
            np.testing.assert_array_equal(data.read_static(row), case.static[row])
    assert tuple(item.name for item in data.layout.static) == case.static_names
    assert {s.stop - s.start for rows in data.segments.values() for s in rows} == {frames}


@pytest.mark.parametrize("entries", [T, T + 1])
def test_the_clock_may_have_an_entry_too_many(tmp_path: Path, entries: int) -> None:
    """The surplus entry does not count, even where it lies elsewhere."""
    case = scalar("a.hdf5", {})
    times = clock(entries)
    times[T:] = 9.0
    data = PDEBench(
        Case("a.hdf5", case.arrays | {"t-coordinate": times}, case.state, (), Boundary.OPEN).write(tmp_path)
    )
    assert data.layout.dt == pytest.approx(0.05, rel=1e-6)


def test_tests_are_the_published_ones(tmp_path: Path) -> None:
    """The first tenth of a file of arrays, the last tenth of the groups, in the order of their numbers."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"] = numbers(20, 2, NX)
    arrays = PDEBench(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for row in range(20):
            file[f"{row}/data"] = np.full((2, NX, 1), row, np.float32)
    grouped = PDEBench(tmp_path / "b.h5")
    rows = [
        {name: [s.trajectory for s in found] for name, found in data.segments.items()} for data in (arrays, grouped)
    ]
    assert rows[0] == {"train": list(range(4, 20)), "validation": [2, 3], "test": [0, 1]}
    assert rows[1] == {"train": list(range(16)), "validation": [16, 17], "test": [18, 19]}
    assert [grouped.read(row, 0, 1)[0, 0, 0] for row in range(20)] == list(range(20))  # "10" comes after "9"


@given(counts=st.lists(st.integers(1, 45), min_size=1, max_size=4), test_first=st.booleans())
def test_a_split_has_every_trajectory_once(counts: list[int], test_first: bool) -> None:
    split = hdf5.tenths(counts, test_first)
    assert sorted(row for rows in split.values() for row in rows) == list(range(sum(counts)))
    assert all(rows == sorted(rows) and rows for rows in split.values())
    if sum(counts) >= 3:
        assert len(split["validation"]) == len(split["test"]) <= len(split["train"])
    if min(counts) >= 10:  # within a trajectory a file
        assert abs(len(split["test"]) - sum(counts) / 10) < len(counts)


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    values = {}
    for nu, n, frames in ((0.01, 10, 4), (0.1, 20, 3)):
        values[nu] = numbers(n, frames, NX)
        with h5py.File(tmp_path / f"1D_Burgers_Sols_Nu{nu}.hdf5", "w") as file:
            file["tensor"], file["t-coordinate"] = values[nu], clock(frames + 1)
    data = open_trajectories(tmp_path)
    assert (data.count, data.frames) == (30, 4)
    np.testing.assert_array_equal(data.parameters["nu"], [0.01] * 10 + [0.1] * 20)
    assert data.segments["test"] == (Segment(0, 0, 4), Segment(10, 0, 3), Segment(11, 0, 3))
    np.testing.assert_array_equal(data.read(9, 1, 4)[..., 0], values[0.01][9, 1:])
    np.testing.assert_array_equal(data.read(10, 1, 3)[..., 0], values[0.1][0, 1:])
    with pytest.raises(ValueError, match=r"asked for frames 0:4:1 of trajectory \d+; .* 3 frames of this one"):
        data.read(10, 0, 4)
    train = np.concatenate([values[nu][rows:].ravel() for nu, rows in ((0.01, 2), (0.1, 4))]).astype(np.float64)
    assert data.statistics.mean[0] == pytest.approx(train.mean(), rel=1e-6)
    assert data.statistics.std[0] == pytest.approx(train.std(), rel=1e-6)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    def refused(first: Case, second: Case, message: str) -> None:
        for old in tmp_path.iterdir():
            old.unlink()
        first.write(tmp_path, f"a_{first.file}")
        second.write(tmp_path, f"b_{second.file}")
        with pytest.raises(ValueError, match=message):
            PDEBench(tmp_path)

    burgers, advection = CASES[1], CASES[0]
    refused(burgers, advection, r"b_1D_Advection.*: has no parameter 'nu', .*a_1D_Burgers")
    refused(burgers, CASES[6], r"b_.* and .*a_.* do not belong together: arrays \['density', 'pressure', 'Vx'\] and")
    moved = Case(burgers.file, burgers.arrays | {"x-coordinate": line(NX, 0, 2)}, burgers.state, (), Boundary.OPEN)
    refused(burgers, moved, "coordinates of x")
    slow = Case(burgers.file, burgers.arrays | {"t-coordinate": 2 * clock(T)}, burgers.state, (), Boundary.OPEN)
    refused(burgers, slow, r"frames lie 0.1 apart, those of .* 0.05")


def test_fields_and_boundary_can_be_chosen(tmp_path: Path) -> None:
    case = CASES[9]
    data = PDEBench(case.write(tmp_path), fields=["velocity", "density"], boundary="periodic")
    assert data.layout.names == ("density", "velocity_x", "velocity_y")
    assert set(data.layout.grid.boundaries) == {Boundary.PERIODIC}
    np.testing.assert_array_equal(data.read(1, 1, 3), case.state[1, 1:3][..., [0, 2, 3]])
    flow = incompressible()
    one = PDEBench(flow.write(tmp_path), fields=["velocity_y", "force_y"])
    np.testing.assert_array_equal(one.read(2, 0, T), flow.state[2][..., 1:2])
    assert flow.static is not None
    np.testing.assert_array_equal(one.read_static(2), flow.static[2][..., 1:])
    with pytest.raises(
        ValueError, match=r"fields: got 'w'; .* has velocity_x, velocity_y, particles, force_x, force_y"
    ):
        PDEBench(tmp_path / flow.file, fields=["w"])


def test_coordinates_may_be_missing_and_byte_order_is_free(tmp_path: Path) -> None:
    u = numbers(N, T, NX)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["tensor"], file["unknown"] = u.astype(">f8"), [b"text"]
    data = PDEBench(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(data.read(1, 0, T)[..., 0], u[1])
    np.testing.assert_allclose(data.layout.grid.axes[0].points, (np.arange(NX) + 0.5) / NX, rtol=1e-15)
    assert data.layout.grid.axes[0].length == pytest.approx(1.0) and data.layout.dt == 1.0


def put(key: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if key in file:
            del file[key]
        if values is not None:
            file[key] = values

    return change


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        (CASES[7], put("pressure", None), "/pressure is missing or not an array; there are Vx, Vy, density"),
        (CASES[7], put("Vy", numbers(N, T, NX, NY + 1)), r"Vy has shape \(3, 4, 6, 6\), expected \(3, 4, 6, 5\)"),
        (CASES[7], put("Vy", np.zeros((N, T, NX, NY), complex)), "/Vy holds complex128, expected real numbers"),
        (CASES[7], put("density", numbers(N, T)), r"density has shape \(3, 4\); expected samples, times"),
        (
            CASES[7],
            put("y-coordinate", line(NY + 1)),
            r"y-coordinate has shape \(6,\), the fields have 5 points along y",
        ),
        (CASES[7], put("y-coordinate", np.ones(NY)), "axis 'y': coordinates must rise or fall strictly"),
        (CASES[0], put("t-coordinate", clock(T + 2)), r"t-coordinate has shape \(6,\); 4 frames have 4 or 5 times"),
        (CASES[0], put("t-coordinate", clock(T) ** 2), "frames 0 and 1 lie 0.0025 apart, on average"),
        (CASES[0], put("t-coordinate", -clock(T)), "they must rise"),
        (CASES[0], put("tensor", numbers(N, T, NX, NY)), r"there is no y-coordinate; expected \(n, T, x\)"),
        (CASES[10], put("tensor", numbers(N, T, NX, NY)), r"beside nu, \(n, 1, x, y\) was expected"),
        (CASES[10], put("nu", numbers(N, NX)), r"nu has shape \(3, 6\), expected \(3, 6, 5\) beside tensor"),
        (CASES[11], put("0000/data", None), "/0000/data is missing"),
        (CASES[11], put("0000/data", numbers(T, NX, 3)), r"0000/data has shape \(4, 6, 3\); expected \(T, x, 1\)"),
        (incompressible(), put("force", numbers(N, NX, NY, 3)), r"force has shape \(3, 6, 5, 3\), expected"),
        (incompressible(), put("velocity", numbers(N, T, NX)), "velocity has shape"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, case: Case, change: Callable[[h5py.File], None], message: str
) -> None:
    path = case.write(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
        open_trajectories(path)


def test_later_groups_are_checked_when_they_are_read(tmp_path: Path) -> None:
    path = CASES[11].write(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["0001/data"], file["0002"]
        file["0001/data"], file["0002/grid/x"] = numbers(T - 1, NX, 1), line(NX)
    data = PDEBench(path)
    assert data.read(0, 0, T).shape == (T, NX, 1)
    with pytest.raises(ValueError, match=r"/0001/data has shape \(3, 6, 1\), that of group 0000 is \(4, 6, 1\)"):
        data.read(1, 0, 1)
    with pytest.raises(ValueError, match="/0002/data is missing"):
        data.read(2, 0, 1)


def test_other_and_damaged_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["something"] = [1.0]
    with pytest.raises(ValueError, match="not a data set physml can read"):
        open_trajectories(tmp_path / "other.hdf5")
    with pytest.raises(
        ValueError, match=r"holds something; expected tensor, density, velocity and particles, or groups"
    ):
        PDEBench(tmp_path / "other.hdf5")
    content = CASES[0].write(tmp_path).read_bytes()
    (tmp_path / "half.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half.hdf5: cannot be opened as HDF5; it is truncated"):
        open_trajectories(tmp_path / "half.hdf5")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        PDEBench(tmp_path / "nothing.hdf5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no files"):
        PDEBench(tmp_path / "empty")


def test_nan_is_an_error(tmp_path: Path) -> None:
    path = CASES[0].write(tmp_path)
    with h5py.File(path, "r+") as file:
        file["tensor"][1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"beta0.4.hdf5: trajectory 1, frame 2 holds NaN"):
        PDEBench(path).read(1, 0, T)


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PDEBench(CASES[7].write(tmp_path), fields=["velocity_x"])
    read, sizes = hdf5.values, []

    def counted(*arguments: object, **options: object) -> np.ndarray:
        found = read(*arguments, **options)  # type: ignore[arg-type]
        sizes.append(found.size)
        return found

    monkeypatch.setattr(hdf5, "values", counted)
    data.read(0, 0, 3, 2)
    assert sum(sizes) == 2 * NX * NY


def test_a_pickled_data_set_holds_no_files(tmp_path: Path) -> None:
    data = PDEBench(CASES[7].write(tmp_path))
    data.read(0, 0, 1)
    again = pickle.loads(pickle.dumps(data))  # our own bytes: what a spawned worker is sent
    assert again._files._handles == {} and data._files._handles
    np.testing.assert_array_equal(again.read(1, 0, T), data.read(1, 0, T))


def test_statistics_of_a_steady_problem(tmp_path: Path) -> None:
    case = darcy()
    data = PDEBench(case.write(tmp_path))
    assert case.static is not None
    assert data.segments == {
        "test": (Segment(0, 0, 1),),
        "validation": (Segment(1, 0, 1),),
        "train": (Segment(2, 0, 1),),
    }
    p, a = case.state[2].astype(np.float64), case.static[2].astype(np.float64)
    s = data.statistics
    assert (s.mean, s.std) == (pytest.approx((p.mean(),)), pytest.approx((p.std(),)))
    assert (s.static_mean, s.static_std) == (pytest.approx((a.mean(),)), pytest.approx((a.std(),)))
    assert (s.number_mean, s.number_std) == ({"beta": 1.0}, {"beta": 0.0})
    assert data.statistics is s  # measured once


def test_the_fingerprint_follows_data_and_choice(tmp_path: Path) -> None:
    path = CASES[7].write(tmp_path)
    before = PDEBench(path).fingerprint
    assert PDEBench(path).fingerprint == before
    for other in (PDEBench(path, fields=["density"]), PDEBench(path, boundary=Boundary.OPEN)):
        assert other.fingerprint != before
    with h5py.File(path, "r+") as file:
        file["Vx"][2, 1, 3, 1] += 1
    assert PDEBench(path).fingerprint != before


def test_large_files_are_sampled_for_the_fingerprint(tmp_path: Path) -> None:
    """Head, tail and size count; the cost does not grow with the file."""
    path = tmp_path / "large.hdf5"
    content = bytearray(3 << 20)
    seen = set()
    for change in (
        lambda: None,
        lambda: content.__setitem__(0, 1),
        lambda: content.__setitem__(-1, 1),
        lambda: content.append(0),
    ):
        change()
        path.write_bytes(content)
        seen.add(hdf5.fingerprint([path]))
    assert len(seen) == 4
