from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import totals
from wells import NAMES, NX, NY, add, condition, ends, numbers, tree, truth, write

from physml.datasets import Segment, TheWell, Windows, hdf5, open_trajectories
from physml.datasets.trajectories import measure
from physml.fields import Boundary


def test_every_value_is_where_the_file_has_it(tmp_path: Path) -> None:
    data = open_trajectories(tree(tmp_path))
    assert isinstance(data, TheWell) and data.name == "tiny"
    assert data.layout.names == NAMES and [item.name for item in data.layout.static] == ["still", "rock"]
    assert (data.count, data.frames, data.layout.grid.shape) == (5, 5, (NX, NY))
    assert data.segments == {
        "train": (Segment(0, 0, 5), Segment(1, 0, 5), Segment(2, 0, 3)),
        "validation": (Segment(3, 0, 4),),
        "test": (Segment(4, 0, 4),),
    }
    for rows in data.segments.values():
        for row in rows:
            expected = truth(row.trajectory, row.stop)
            for start in range(row.stop):
                for stop in range(start + 1, row.stop + 1):
                    for step in (1, 2, 3):
                        found = data.read(row.trajectory, start, stop, step)
                        assert found.dtype == np.float32
                        np.testing.assert_array_equal(found, expected[start:stop:step])
            u, first = (
                numbers(1, 1, index)[0, 0] for index in (row.trajectory, {1: 0}.get(row.trajectory, row.trajectory))
            )
            np.testing.assert_array_equal(data.read_static(row.trajectory), np.stack([u, first], -1))
    assert {name: values.tolist() for name, values in data.parameters.items()} == {
        "a": [2, 2, 1, 1, 1],
        "b": [2, 2, 2, 2, 2],
        "s": [0, 1, 2, 3, 4],
    }
    assert data.provenance["left_out"] == ["scalars/clock: changes in time"]
    assert data.layout.dt == 0.5


def test_windows_are_those_of_the_segments(tmp_path: Path) -> None:
    data = TheWell(tree(tmp_path))
    for length, stride in ((2, 1), (3, 1), (2, 2)):
        windows = Windows(data, data.segments["train"], length, stride)
        room = [max(0, frames - stride * (length - 1)) for frames in (5, 5, 3)]
        assert len(windows) == sum(room)
        for index in range(len(windows)):
            values, trajectory = windows[index]
            _, start = windows.place(index)
            expected = truth(trajectory, 5)[start : start + stride * (length - 1) + 1 : stride]
            np.testing.assert_array_equal(values.numpy(), expected)


def test_a_short_trajectory_ends_where_it_ends(tmp_path: Path) -> None:
    data = TheWell(tree(tmp_path))
    with pytest.raises(ValueError, match=r"asked for frames 0:4:1 of trajectory \d+; .* 3 frames of this one"):
        data.read(2, 0, 4)
    with pytest.raises(ValueError, match="5 trajectories, and 5 frames of this one"):
        data.read(0, 0, 6)


@settings(max_examples=30)
@given(names=st.lists(st.sampled_from((*NAMES, "velocity", "stress")), min_size=1, unique=True))
def test_chosen_fields_are_channels_of_all(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp() / "chosen"
    data = TheWell(folder if folder.exists() else tree(folder), fields=names)
    expected = [name for name in NAMES if name in names or name.rpartition("_")[0] in names]
    assert list(data.layout.names) == expected
    kept = [NAMES.index(name) for name in expected]
    np.testing.assert_array_equal(data.read(1, 1, 4), truth(1, 5)[1:4][..., kept])


def test_static_fields_are_chosen_by_name(tmp_path: Path) -> None:
    data = TheWell(tree(tmp_path), fields=["pressure", "rock"])
    assert data.layout.names == ("pressure",) and [item.name for item in data.layout.static] == ["rock"]
    np.testing.assert_array_equal(data.read_static(1)[..., 0], numbers(1, 1)[0, 0])
    for names, message in (
        (["speed"], "got 'speed'; .* has pressure, stripe"),
        (["rock"], "at least one that changes"),
    ):
        with pytest.raises(ValueError, match=message):
            TheWell(tmp_path, fields=names)


def test_axes_say_what_lies_beyond_them(tmp_path: Path) -> None:
    x, y = TheWell(tree(tmp_path)).layout.grid.axes
    assert (x.name, y.name) == ("x", "y")
    assert (x.boundary, y.boundary) == (Boundary.PERIODIC, Boundary.WALL)
    assert x.length == pytest.approx(1.0, rel=1e-6) and y.length == 2.0  # the coordinates of x are single precision
    np.testing.assert_allclose(y.points.numpy(), np.linspace(-1, 1, NY), atol=1e-15)


LOW, HIGH = (np.arange(NY) == 0), (np.arange(NY) == NY - 1)
CASES: list[tuple[list[tuple[str, object]], Boundary]] = [
    ([("WALL", LOW | HIGH)], Boundary.WALL),
    ([("wall", None)], Boundary.WALL),
    ([("SYMMETRIC", LOW), ("WALL", HIGH)], Boundary.WALL),
    ([("WALL", LOW)], Boundary.OPEN),
    ([("OPEN", LOW | HIGH)], Boundary.OPEN),
    ([("PERIODIC", LOW | HIGH)], Boundary.PERIODIC),
    ([("PERIODIC", LOW)], Boundary.PERIODIC),
    ([("PERIODIC", LOW), ("WALL", HIGH)], Boundary.OPEN),
    ([("PERIODIC", LOW & HIGH)], Boundary.OPEN),  # a mask that holds nowhere
    ([("NONE", LOW | HIGH)], Boundary.OPEN),
    ([], Boundary.OPEN),
]


@pytest.mark.parametrize(("kinds", "expected"), CASES)
def test_two_ends_make_one_boundary(tmp_path: Path, kinds: list[tuple[str, object]], expected: Boundary) -> None:
    def change(file: h5py.File) -> None:
        del file["boundary_conditions"]
        for index, (kind, mask) in enumerate(kinds):
            condition(file, f"c{index}", kind, "y", mask)  # type: ignore[arg-type]

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert data.layout.grid.boundaries == (Boundary.OPEN, expected)


def test_a_wall_over_two_axes_needs_the_whole_edge(tmp_path: Path) -> None:
    """Three edges of a box, and the fourth but for one point."""
    mask = ends(NX)[:, None] | ends(NY)
    mask[2, -1] = False

    def change(file: h5py.File) -> None:
        del file["boundary_conditions"]
        condition(file, "box", "WALL", ["x", "y"], mask)

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert data.layout.grid.boundaries == (Boundary.WALL, Boundary.OPEN)
    assert [item.name for item in data.layout.static] == ["still", "rock"]  # nothing inside that edges do not tell


def obstacle(shift: int = 0) -> np.ndarray:
    solid = np.zeros((NX, NY), dtype=bool)
    solid[2 + shift : 4 + shift, 1:3] = True
    return solid


def with_obstacle(solid: np.ndarray, fill: float, fluid_is_true: bool = False) -> Callable[[h5py.File], None]:
    """Replace the fields by a pressure that is ``fill`` in the obstacle, and a field ``mask`` that marks it."""

    def change(file: h5py.File) -> None:
        for key in ("t0_fields", "t1_fields", "t2_fields"):
            file[key].attrs["field_names"] = ["pressure", "mask"] if key == "t0_fields" else np.array([], dtype="S1")
        values = 1.0 + file["t0_fields/pressure"][:]
        values[..., solid] = fill
        file["t0_fields/pressure"][:] = values
        add(file["t0_fields"], "mask", solid ^ fluid_is_true, "")

    return change


@pytest.mark.parametrize("fluid_is_true", [False, True])
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_one_obstacle_is_the_mask_of_the_grid(tmp_path: Path, fill: float, fluid_is_true: bool) -> None:
    data = TheWell(tree(tmp_path, change=with_obstacle(obstacle(), fill, fluid_is_true)))
    mask = data.layout.grid.mask
    assert mask is not None
    np.testing.assert_array_equal(mask.numpy(), ~obstacle())
    np.testing.assert_array_equal(data.read_static(0)[..., 0] > 0.5, obstacle() ^ fluid_is_true)
    expected = np.where(obstacle(), 0.0, 1.0 + numbers(1, 5, 1)[0])
    np.testing.assert_array_equal(data.read(1, 0, 5)[..., 0], expected)
    fluid = np.concatenate(
        [1.0 + numbers(1, n, row)[0][:, ~obstacle()].ravel() for row, n in ((0, 5), (1, 5), (2, 3))], dtype=float
    )
    assert data.statistics.mean[0] == pytest.approx(fluid.mean(), rel=1e-6)  # single precision


def test_obstacles_that_differ_are_a_static_field(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path / f"{index}.hdf5", first=2 * index, change=with_obstacle(obstacle(index), np.nan))
    data = TheWell(tmp_path)
    assert data.layout.grid.mask is None and [item.name for item in data.layout.static] == ["mask"]
    for row in range(4):
        np.testing.assert_array_equal(data.read_static(row)[..., 0] > 0.5, obstacle(row // 2))
        expected = np.where(obstacle(row // 2), 0.0, 1.0 + numbers(1, 4, row)[0])
        np.testing.assert_array_equal(data.read(row, 0, 4)[..., 0], expected)


def test_static_fields_may_be_undefined_inside_an_obstacle(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        with_obstacle(obstacle(), np.nan)(file)
        names = ["pressure", "mask", "rock"]
        file["t0_fields"].attrs["field_names"] = names
        file["t0_fields/rock"][2, 1] = np.nan

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert data.read_static(0)[2, 1, 1] == 0.0 and data.read_static(0)[0, 1, 1] == np.float32(0.01)
    with h5py.File(tmp_path / "two.hdf5", "w") as copy, h5py.File(tmp_path / "one.hdf5") as file:
        for name in file:
            file.copy(name, copy)
        copy.attrs.update(dict(file.attrs))
        copy["t0_fields/rock"][0, 0] = np.nan
    with pytest.raises(ValueError, match="static field 'rock' holds NaN"):
        TheWell(tmp_path / "two.hdf5").read_static(0)


def test_a_mask_with_flow_on_both_sides_is_no_obstacle(tmp_path: Path) -> None:
    data = TheWell(write(tmp_path / "one.hdf5", change=with_obstacle(obstacle(), 7.0)))
    assert data.layout.grid.mask is None
    assert (data.read(0, 0, 1)[0, ..., 0][obstacle()] == 7.0).all()


def test_a_field_at_rest_everywhere_has_no_obstacle(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        with_obstacle(obstacle(), 0.0)(file)
        file["t0_fields/pressure"][:] = 0.0

    assert TheWell(write(tmp_path / "one.hdf5", change=change)).layout.grid.mask is None


def test_a_condition_inside_the_domain_is_a_static_field(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        condition(file, "stair", "WALL", ["x", "y"], obstacle().astype(np.float32))

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert [item.name for item in data.layout.static] == ["still", "rock", "stair_mask"]
    np.testing.assert_array_equal(data.read_static(1)[..., 2], obstacle().astype(np.float32))
    assert data.layout.grid.boundaries == (Boundary.PERIODIC, Boundary.WALL)  # the domain's own


def test_nan_outside_every_mask_is_named(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["t1_fields/velocity"][1, 2, 3, 4, 1] = np.nan

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert np.isfinite(data.read(1, 0, 2)).all() and np.isfinite(data.read(0, 0, 4)).all()
    with pytest.raises(ValueError, match=r"one.hdf5: velocity_y, trajectory 1, frame 2 holds NaN"):
        data.read(1, 0, 4, 2)
    assert np.isfinite(TheWell(tmp_path / "one.hdf5", fields=["pressure"]).read(1, 0, 4)).all()


def test_falling_coordinates_are_turned_with_their_fields(tmp_path: Path) -> None:
    straight = TheWell(write(tmp_path / "up.hdf5"))

    def change(file: h5py.File) -> None:
        file["dimensions/y"][:] = np.linspace(1, -1, NY)

    turned = TheWell(write(tmp_path / "down.hdf5", change=change))
    assert torch.equal(turned.layout.grid.axes[1].points, straight.layout.grid.axes[1].points)
    varying = [index for index, name in enumerate(NAMES) if name != "stripe"]
    np.testing.assert_array_equal(turned.read(1, 0, 4)[..., varying], straight.read(1, 0, 4)[:, :, ::-1][..., varying])
    np.testing.assert_array_equal(turned.read_static(1), straight.read_static(1)[:, ::-1])


def test_stored_types_do_not_matter(tmp_path: Path) -> None:
    """Big-endian doubles, an axis kept with size one, and tensors with one axis for all components."""

    def change(file: h5py.File) -> None:
        for path in ("t0_fields/pressure", "t0_fields/stripe", "t2_fields/stress", "dimensions/x", "dimensions/time"):
            values, attributes = file[path][:], dict(file[path].attrs)
            if path.endswith("stripe"):
                values = values[..., None]
            if path.endswith("stress"):
                values = values.reshape(*values.shape[:-2], 4)
            del file[path]
            file[path] = values.astype(">f8")
            file[path].attrs.update(attributes)

    plain, other = (TheWell(write(tmp_path / f"{name}.h5", change=c)) for name, c in (("a", None), ("b", change)))
    np.testing.assert_array_equal(plain.read(1, 0, 4), other.read(1, 0, 4))
    assert plain.layout.difference(other.layout) is None


@pytest.mark.parametrize(
    "spelling",
    [
        ["x", "yz"],
        np.array([b"x", b"yz"]),
        np.array(["x", "yz"], dtype=object),
        np.array(["x", "yz"], dtype=h5py.string_dtype("ascii")),
        ("x", "yz"),
    ],
)
def test_text_is_read_in_every_spelling(tmp_path: Path, spelling: Sequence[str]) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["list"], file.attrs["none"], file.attrs["void"] = spelling, [], h5py.Empty("S1")
        file.attrs["bare"], file.attrs["bytes"], file.attrs["one"] = "yz", np.bytes_("yz"), np.array([b"yz"])
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert hdf5.texts(file.attrs["list"]) == ("x", "yz")
        for name in ("bare", "bytes", "one"):
            assert hdf5.texts(file.attrs[name]) == ("yz",) and hdf5.text(file.attrs[name]) == "yz"
        assert hdf5.texts(file.attrs["none"]) == hdf5.texts(file.attrs["void"]) == ()


@pytest.mark.parametrize(("value", "expected"), [(np.bool_(True), True), (1, True), (np.array([False]), False)])
def test_flags_are_read_in_every_spelling(value: object, expected: bool) -> None:
    assert hdf5.flag({"a": value}, "a") is expected and hdf5.flag({}, "a") is False


@given(d=st.integers(1, 3), data=st.data())
def test_any_dimension_and_any_missing_axes(
    tmp_path_factory: pytest.TempPathFactory, d: int, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(2, 4), min_size=d, max_size=d)))
    sampled, kept = data.draw(st.booleans()), data.draw(st.booleans())
    varying = data.draw(st.lists(st.booleans(), min_size=d, max_size=d))
    sizes = [n if v else 1 for n, v in zip(shape, varying, strict=True)]
    stored = sizes if kept else [n for n, v in zip(shape, varying, strict=True) if v]
    rng = np.random.default_rng(0)
    full = rng.standard_normal(((2,) if sampled else (1,)) + (3, *sizes, d)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "any.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["n_trajectories"] = 2
        file.create_group("dimensions").attrs["spatial_dims"] = list("xyz"[:d])
        file["dimensions/time"] = np.arange(3.0)
        for name, n in zip("xyz", shape, strict=False):
            file[f"dimensions/{name}"] = np.arange(n)
        for order in range(3):
            file.create_group(f"t{order}_fields").attrs["field_names"] = ["velocity"] if order == 1 else []
        array = full.reshape((*((2,) if sampled else ()), 3, *stored, d))
        add(file["t1_fields"], "velocity", array, "st" if sampled else "t", varying)
    found = TheWell(path)
    assert found.layout.names == tuple(f"velocity_{name}" for name in "xyz"[:d])
    for row in range(2):
        expected = np.broadcast_to(full[row if sampled else 0], (3, *shape, d))
        np.testing.assert_array_equal(found.read(row, 0, 3), expected)
    found._files.close()  # the next example writes the file anew


def test_files_without_folders_are_split_by_trajectory(tmp_path: Path) -> None:
    data = TheWell(write(tmp_path / "one.hdf5", n=20))
    rows = {split: [s.trajectory for s in found] for split, found in data.segments.items()}
    assert rows == {"train": list(range(16)), "validation": [16, 17], "test": [18, 19]}
    for counts in ([20, 10], [1], [2], [3], [4, 4, 4]):
        split = hdf5.tenths(counts)
        assert sorted(row for found in split.values() for row in found) == list(range(sum(counts)))
        assert set(split) == ({"train", "validation", "test"} if sum(counts) > 2 else {"train"})
    assert hdf5.tenths([20, 10])["test"] == [18, 19, 29] and hdf5.tenths([20, 10], test_first=True)["test"] == [
        0,
        1,
        20,
    ]


def test_statistics_are_measured_when_asked_for_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TheWell(tree(tmp_path))
    read, calls = data._read, []
    monkeypatch.setattr(data, "_read", lambda *where: (calls.append(where), read(*where))[1])
    assert not calls
    whole = np.concatenate(
        [truth(row, n).reshape(-1, len(NAMES)) for row, n in ((0, 5), (1, 5), (2, 3))], dtype=np.float64
    )
    np.testing.assert_allclose(data.statistics.mean, whole.mean(axis=0), rtol=1e-6)  # single precision
    np.testing.assert_allclose(data.statistics.std, whole.std(axis=0), rtol=1e-6)
    assert data.statistics.number_mean["s"] == 1.0
    count = len(calls)
    assert count and data.statistics.mean and len(calls) == count


def published(folder: Path, **changes: object) -> None:
    plain = {
        key: {"pressure": value, "velocity": [value + 1, value + 2], "rock": value}
        for key, value in (("mean", 10.0), ("std", 20.0), ("std_delta", 3.0))
    }
    (folder / "stats.yaml").write_text(yaml.safe_dump(plain | changes))


def test_statistics_are_those_of_stats_yaml_where_it_fits(tmp_path: Path) -> None:
    published(tree(tmp_path))
    for path in (tmp_path, tmp_path / "data", tmp_path / "data" / "train", tmp_path / "data" / "train" / "a.hdf5"):
        data = TheWell(path, fields=["velocity_y", "pressure"])
        s = data.statistics
        assert data.layout.names == ("pressure", "velocity_y")
        assert (s.mean, s.std, s.increment_std) == ((10.0, 12.0), (20.0, 22.0), (3.0, 5.0))
    data = TheWell(tmp_path, fields=["pressure", "velocity_y"])
    s, measured = (
        data.statistics,
        measure(
            data.layout, data.segments["train"], data.read, parameters=data.parameters, read_static=data.read_static
        ),
    )
    assert (s.static_mean, s.static_std) == (measured.static_mean, measured.static_std)
    assert (s.number_mean, s.number_std) == (measured.number_mean, measured.number_std)
    u = numbers(1, 5, 1)[0, 4]  # the frame that is farthest from the mean; 13 frames are fewer than the sample
    far = max(np.mean([((u - 10) / 20) ** 2, ((-u - 12) / 22) ** 2]) for u in (numbers(1, 3, 2)[0, 2], u))
    assert s.energy == pytest.approx(far, rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"std_delta": {}},
        {"std": {"pressure": 0.0, "velocity": [1.0, 1.0]}},
        {"std": {"pressure": 1.0, "velocity": [1.0]}},
        {"std": {"pressure": float("nan"), "velocity": [1.0, 1.0]}},
        {"mean": {"pressure": 1e9, "velocity": [1.0, 1.0]}},  # its deviation would be rounding
        {"mean": "lost"},
    ],
)
def test_statistics_are_measured_where_stats_yaml_does_not_fit(tmp_path: Path, changes: dict[str, object]) -> None:
    published(tree(tmp_path), **changes)
    data = TheWell(tmp_path, fields=["pressure", "velocity"])
    expected = measure(data.layout, data.segments["train"], data.read, read_static=data.read_static)
    assert data.statistics.std == expected.std and data.statistics.mean == expected.mean


def test_the_clock_must_be_even(tmp_path: Path) -> None:
    def late(by: float, kind: type = np.float64) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            times = 1000.0 + 0.01 * np.arange(4)
            times[2] += by
            del file["dimensions/time"]
            file["dimensions/time"] = times.astype(kind)

        return change

    assert TheWell(write(tmp_path / "a.hdf5", change=late(4e-7))).layout.dt == pytest.approx(0.01)
    with pytest.raises(ValueError, match=r"time: frames 1 and 2 lie 0.01\d+ apart, on average they lie 0.01 apart"):
        TheWell(write(tmp_path / "a.hdf5", change=late(4e-6)))
    # single precision holds 1000.01 to 6e-5, more than half a hundredth of the interval: no fault of the clock
    assert TheWell(write(tmp_path / "a.hdf5", change=late(0, np.float32))).layout.dt == pytest.approx(0.01, rel=5e-3)

    def two(factor: float) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            del file["dimensions/time"]
            file["dimensions/time"] = np.stack([np.arange(4.0), 5 + factor * np.arange(4.0)])

        return change

    assert TheWell(write(tmp_path / "a.hdf5", change=two(1.0))).layout.dt == 1.0
    with pytest.raises(ValueError, match=r"row 1: frames lie 1.1 apart, those of .* 1; open them apart"):
        TheWell(write(tmp_path / "a.hdf5", change=two(1.1)))


def erase(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(path)


def replaced(path: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attributes = dict(file[path].attrs)
        del file[path]
        file[path] = values
        file[path].attrs.update(attributes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (erase("t2_fields"), "group /t2_fields is missing; there are boundary_conditions, dimensions"),
        (erase("dimensions"), "group /dimensions is missing"),
        (erase("dimensions/y"), "/dimensions/y is missing"),
        (erase("t1_fields/velocity"), "/t1_fields/velocity is missing or not an array"),
        (replaced("t0_fields/rock", np.ones((NX, NY + 1))), r"rock has shape \(6, 6\), but its flags"),
        (replaced("t0_fields/rock", np.array([b"a"])), r"/t0_fields/rock holds \|S1, expected real numbers"),
        (replaced("t0_fields/rock", np.ones((NX, NY), complex)), "holds complex128, expected real numbers"),
        (replaced("dimensions/y", np.zeros(NY)), "axis 'y': coordinates must rise or fall strictly"),
        (replaced("dimensions/y", np.zeros((NY, 1, 1))), "only grids that stay as they are"),
        (replaced("dimensions/y", np.arange(2.0 * NY).reshape(2, NY)), "differs between trajectories"),
        (replaced("dimensions/time", np.zeros((3, 4))), "holds 2 trajectories, but dimensions/time has shape"),
        (lambda f: f["t0_fields"].attrs.__delitem__("field_names"), "t0_fields has no attribute field_names"),
        (lambda f: f["dimensions"].attrs.__setitem__("spatial_dims", ["x"]), "n_spatial_dims 2; expected as many"),
        (lambda f: condition(f, "z", "WALL", "z", None), "boundary_conditions/z is about 'z', the axes are x, y"),
        (lambda f: condition(f, "z", "WALL", "y", np.ones(3)), r"z/mask has shape \(3,\), expected \(5,\)"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    with pytest.raises(ValueError, match=f"one.hdf5.*{message}"):
        open_trajectories(write(tmp_path / "one.hdf5", change=change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.__setitem__("dataset_name", "other"), "dataset_name is 'other' and 'tiny'"),
        (replaced("dimensions/y", np.linspace(0, 1, NY)), "coordinates of y"),
        (replaced("dimensions/time", np.arange(4.0)), "frames lie 1 apart, those of .*a.hdf5 0.5"),
        (lambda f: f["t0_fields"].attrs.__setitem__("field_names", ["pressure"]), "or their flags, differ"),
        (lambda f: f["scalars"].attrs.__setitem__("field_names", ["a", "b"]), "b.hdf5: has no parameter 's'"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    write(tmp_path / "a.hdf5")
    write(tmp_path / "b.hdf5", change=change)
    with pytest.raises(ValueError, match=message):
        TheWell(tmp_path)


def test_numbers_that_cannot_condition_are_left_out(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file.attrs["simulation_parameters"] = ["a", "b", "gas", "absent"]
        file.attrs["gas"] = "C2H6"
        file["scalars/s"][:] = [1.0, np.inf]

    data = TheWell(write(tmp_path / "one.hdf5", change=change))
    assert sorted(data.parameters) == ["a", "b"]
    assert data.provenance["left_out"] == [
        "s: not finite",
        "scalars/clock: changes in time",
        "simulation parameter absent: missing, or not a number",
        "simulation parameter gas: missing, or not a number",
    ]


def test_curvilinear_grids_are_warned_about(tmp_path: Path) -> None:
    path = write(tmp_path / "one.hdf5", change=lambda f: f.attrs.__setitem__("grid_type", "spherical"))
    with pytest.warns(UserWarning, match="without the Jacobian"):
        TheWell(path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    file = tree(tmp_path) / "data" / "train" / "a.hdf5"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a.hdf5: cannot be opened as HDF5; it is truncated"):
        open_trajectories(tmp_path)
    file.write_text("not found")
    with pytest.raises(ValueError, match=r"a.hdf5: cannot be opened as HDF5"):
        open_trajectories(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        TheWell(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no files"):
        TheWell(tmp_path / "empty")


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        values, attributes = file["t0_fields/pressure"][:], dict(file["t0_fields/pressure"].attrs)
        del file["t0_fields/pressure"]
        file.create_dataset("t0_fields/pressure", data=values, chunks=(1, 1, NX, NY), fletcher32=True)
        file["t0_fields/pressure"].attrs.update(attributes)

    path = write(tmp_path / "one.hdf5", change=change)
    with h5py.File(path) as file:
        place = file["t0_fields/pressure"].id.get_chunk_info_by_coord((1, 2, 0, 0)).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff")
    data = TheWell(path)
    assert data.read(1, 0, 2).shape[0] == 2
    with pytest.raises(ValueError, match=r"one.hdf5: /t0_fields/pressure cannot be read at"):
        data.read(1, 2, 3)


def test_the_fingerprint_follows_data_and_choice(tmp_path: Path) -> None:
    before = TheWell(tree(tmp_path)).fingerprint
    assert TheWell(tmp_path).fingerprint == before
    assert TheWell(tmp_path, fields=["pressure"]).fingerprint != before
    with h5py.File(tmp_path / "data" / "test" / "a.hdf5", "r+") as file:
        file["t1_fields/velocity"][0, 3, 1, 1, 0] += 1
    assert TheWell(tmp_path).fingerprint != before


def test_only_what_is_asked_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TheWell(tree(tmp_path), fields=["pressure", "velocity_x"])
    read, sizes = hdf5.values, []

    def counted(*arguments: object, **options: object) -> np.ndarray:
        found = read(*arguments, **options)  # type: ignore[arg-type]
        sizes.append(found.size)
        return found

    monkeypatch.setattr(hdf5, "values", counted)
    data.read(0, 1, 5, 2)
    assert sum(sizes) == 2 * NX * NY * (1 + 2)  # two frames of a scalar and a vector


def test_a_forked_process_opens_its_own_files(tmp_path: Path) -> None:
    data = TheWell(tree(tmp_path))
    here = float(data.read(1, 0, 5).sum(dtype=np.float64))
    assert totals(data, (1, 0, 5), "fork", tmp_path) == [here] * 3


def test_a_pickled_data_set_holds_no_files(tmp_path: Path) -> None:
    data = TheWell(tree(tmp_path))
    data.read(0, 0, 1)
    again = pickle.loads(pickle.dumps(data))  # our own bytes: what a spawned worker is sent
    assert not again._files._handles and not again._files._arrays and data._files._handles
    np.testing.assert_array_equal(again.read(1, 0, 5), data.read(1, 0, 5))
    assert again.statistics == data.statistics


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_OPEN", 2)
    monkeypatch.setattr(hdf5, "_ARRAYS", 3)
    data = TheWell(tree(tmp_path))
    for _ in range(2):
        for row in range(data.count):
            assert data.read(row, 0, 1)[0, 0, 0, 0] == 1000 * row
            assert len(data._files._handles) <= 2 and len(data._files._arrays) <= 3
            assert {file for file, _ in data._files._arrays} <= set(data._files._handles)
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    data._files.close()
    assert not descriptors or len(os.listdir("/proc/self/fd")) == descriptors - 2
