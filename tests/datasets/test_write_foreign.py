"""Data sets in the layouts of other programs: what is written in one and read again is what the store holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from physml.cli.main import main
from physml.datasets import Segment, Trajectories, TrajectoryStore, open_trajectories
from physml.datasets.file_writer import FileLayout, FileWriter, tensors
from physml.datasets.generate import generate, plan_of
from physml.datasets.write_npy import NpyFiles
from physml.datasets.write_pdebench import PDEBenchFiles
from physml.datasets.write_well import WellFiles
from physml.datasets.writing import Plan
from physml.fields import Axis, Boundary, Field, Grid, Layout
from physml.solvers import Solver

SIZES = (6, 5, 4)  # unlike each other, so that exchanged axes are seen
UNITS = {"density": "kg/m^3", "velocity_x": "m/s", "velocity_y": "m/s"}


class Counting(Solver):
    """States that say where they are: ``1000 n + 100 t + 10 c + i + j/10 + k/100``; trajectory n, frame t, field c."""

    name = "counting"

    def __init__(
        self,
        *,
        fields: Sequence[str],
        boundaries: Sequence[str],
        trajectories: int = 5,
        frames: int = 7,
        units: bool = False,
        stretched: bool = False,
        nu: float | list[float] = 0.1,
    ) -> None:
        self.trajectories, self.frames, self.warmup, self.nu = trajectories, frames, 0, nu
        axes = []
        for name, n, kind in zip("xyz", SIZES, boundaries, strict=False):
            axis = Axis.periodic_uniform(name, n, 3.0, "m" if units else "")
            if kind != "periodic":
                points = axis.points ** (2 if stretched else 1)
                axis = replace(axis, points=points, boundary=Boundary(kind), length=float(points[-1]))
                axis = replace(axis, weights=None, uniform=None)  # those of the new points
            axes.append(axis)
        named = tuple(Field(name, UNITS.get(name, "") if units else "") for name in fields)
        self.layout = Layout(named, Grid(tuple(axes)), 0.1, "s" if units else "")

    def parameters(self) -> dict[str, list[float]]:
        values = self.nu if isinstance(self.nu, list) else [self.nu]
        return {"nu": [values[row % len(values)] for row in range(self.trajectories)]}

    def initial(self, trajectories: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        return {"at": 1000.0 * torch.tensor(list(trajectories), dtype=torch.float64)}

    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"at": state["at"] + 100.0}

    def observe(self, state: dict[str, Tensor]) -> Tensor:
        found = state["at"].reshape(-1, *(1,) * len(self.layout.grid.shape), 1)
        for axis, n in enumerate(self.layout.grid.shape):
            where = [1] * found.ndim
            where[1 + axis] = n
            found = found + 10.0**-axis * torch.arange(n).reshape(where)
        return (found + 10.0 * torch.arange(len(self.layout.fields))).to(torch.float32)


FLOW = ("velocity_x", "velocity_y", "density")  # the vector before the scalar: The Well has them the other way round
ALL = {
    "1-D": {"fields": ("u",), "boundaries": ("periodic",)},
    "2-D": {"fields": FLOW, "boundaries": ("periodic", "wall"), "units": True, "nu": [0.1, 0.2]},
    "3-D": {"fields": (*FLOW, "velocity_z"), "boundaries": ("open", "wall", "periodic"), "stretched": True},
    "tensor": {"fields": ("s_xy", "s_xx", "s_yx", "s_yy", "s"), "boundaries": ("wall", "wall")},
}
GAS = ("velocity_x", "pressure", "density")
PUBLISHED = {
    "scalar 1-D": ("a.hdf5", {"fields": ("u",), "boundaries": ("periodic",)}),
    "scalar 2-D": ("a.h5", {"fields": ("vorticity",), "boundaries": ("periodic",) * 2, "nu": [0.1, 0.2]}),
    "scalar 3-D": ("a.hdf5", {"fields": ("u",), "boundaries": ("periodic",) * 3}),
    "gas 1-D": ("a_periodic.hdf5", {"fields": GAS, "boundaries": ("periodic",)}),
    "gas 2-D": ("a.hdf5", {"fields": (*GAS, "velocity_y"), "boundaries": ("open",) * 2, "units": True}),
    "gas 3-D": (
        "Periodic.hdf5",
        {"fields": (*GAS, "velocity_y", "velocity_z"), "boundaries": ("periodic",) * 3},
    ),
    "sorption": ("a.h5", {"fields": ("concentration",), "boundaries": ("open",), "stretched": True}),
    "water": ("a.h5", {"fields": ("height",), "boundaries": ("open", "open")}),
    "reaction": ("a.h5", {"fields": ("u", "v"), "boundaries": ("wall", "wall")}),
}
ROUND_TRIPS = [
    *(pytest.param(WellFiles(), "a", case, id=f"well {name}") for name, case in ALL.items()),
    *(pytest.param(NpyFiles(), "a.npy", case, id=f"npy {name}") for name, case in ALL.items()),
    *(pytest.param(PDEBenchFiles(), file, case, id=f"pdebench {name}") for name, (file, case) in PUBLISHED.items()),
]
FORMATS = [pytest.param(WellFiles(), "a", id="well"), pytest.param(NpyFiles(), "a.npy", id="npy")]
FORMATS.append(pytest.param(PDEBenchFiles(), "a_periodic.hdf5", id="pdebench"))
PERIODIC: dict[str, Any] = {"fields": GAS, "boundaries": ("periodic",)}  # what all formats can hold


def without_units(layout: Layout) -> Layout:
    axes = tuple(replace(axis, units="") for axis in layout.grid.axes)
    return replace(layout, fields=tuple(Field(name) for name in layout.names), grid=Grid(axes), time_units="")


def ordered(layout: Layout, names: Sequence[str]) -> Layout:
    return replace(layout, fields=tuple(next(f for f in layout.fields if f.name == name) for name in names))


@pytest.mark.parametrize(("files", "path", "case"), ROUND_TRIPS)
def test_what_is_not_named_as_lost_is_read_again(
    files: FileLayout, path: str, case: dict[str, Any], tmp_path: Path
) -> None:
    solver = Counting(**case)
    store = generate(solver, tmp_path / "a.zarr")
    generate(solver, tmp_path / path, files=files)
    found = open_trajectories(tmp_path / (path if path != "a.npy" else "a.physml.yaml"))
    lost = {item.split(" (")[0].split(" the ")[0] for item in files.lost(plan_of(solver))}
    assert lost <= {"units", "splits", "names of fields"} | {f"the parameters {name}" for name in store.parameters}

    assert (found.count, found.frames) == (store.count, store.frames)
    names = found.layout.names
    if "names of fields" in lost:  # those of the layout, in the order of the channels
        assert names in (("u",), ("activator", "inhibitor"), ("height",), ("concentration",))
        names = store.layout.names
        found.layout = replace(found.layout, fields=tuple(Field(name) for name in names))
    assert sorted(names) == sorted(store.layout.names)
    wanted = without_units(store.layout) if "units" in lost else store.layout
    assert found.layout.difference(ordered(wanted, names)) is None
    for axis, its in zip(found.layout.grid.axes, wanted.grid.axes, strict=True):
        # coordinates of HDF5 layouts are single precision, in which a length is a few differences of numbers below it
        assert axis.length == pytest.approx(its.length, rel=1e-6) and axis.units == its.units
    assert found.layout.time_units == wanted.time_units
    order = [store.layout.names.index(name) for name in names]
    for row in range(store.count):
        np.testing.assert_array_equal(found.read(row, 0, 7), store.read(row, 0, 7)[..., order])
    if not any("parameters" in item for item in lost):
        assert {name: values.tolist() for name, values in found.parameters.items()} == {
            name: values.tolist() for name, values in store.parameters.items()
        }
    else:
        assert not found.parameters
    if "splits" not in lost:
        assert found.segments == store.segments
    if "splits" not in lost and not (path == "a" and case.get("stretched")):  # where points count alike, see below
        for name in ("mean", "std", "increment_std"):
            its = np.array(getattr(store.statistics, name))[order]
            # one pass in double precision over the same numbers, in the same order
            np.testing.assert_allclose(getattr(found.statistics, name), its, rtol=1e-12)


# interruptions


class Killed(Exception):
    pass


def contents(path: Path) -> dict[str, bytes]:
    """All files of a data set, by their names below its folder."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.suffix != ".zarr"
    }


@pytest.mark.parametrize(("files", "name"), FORMATS)
def test_an_interrupted_generation_continues_bit_for_bit(
    files: FileLayout, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("physml.datasets.store._CHUNK_BYTES", 4 * 6 * 3 * 3)  # three frames a block
    solver = Counting(**PERIODIC)
    generate(solver, tmp_path / "whole" / name, files=files, batch=2)
    for after in (1, 4, 11, 17, 21):  # in the first block, between blocks, between batches, at the end
        calls = 0

        def kill(done: int, total: int, after: int = after) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                raise Killed

        folder = tmp_path / f"cut{after}"
        with pytest.raises(Killed):
            generate(solver, folder / name, files=files, batch=2, progress=kill)
        assert not (folder / name).exists()
        generate(solver, folder / name, files=files, batch=2)
        assert contents(folder) == contents(tmp_path / "whole")  # nor is anything left beside


@pytest.mark.parametrize("moved", [0, 1])
def test_a_data_set_of_two_files_that_was_half_moved_is_completed(
    moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, calls, real = Counting(**PERIODIC), 0, os.replace

    def killed(source: Any, target: Any) -> None:
        nonlocal calls
        if Path(source).parent.name == "files":
            if calls == moved:
                raise Killed
            calls += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        generate(solver, tmp_path / "a.npy", files=NpyFiles())
    assert not (tmp_path / "a.npy").exists()
    monkeypatch.undo()
    data = generate(solver, tmp_path / "a.npy", files=NpyFiles())
    assert data.read(4, 6, 7)[0, 5, 2] == 4000 + 600 + 5 + 20
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.npy", "a.physml.yaml"]


def test_kill_9_and_the_same_command(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "physml", "data", "make", "kolmogorov2d", "--format", "well", "--device", "cpu"]
    line += ["--trajectories=3", "--frames=200", "--grid=16", "--solve_grid=16", "--forcing_wavenumber=2"]
    line += ["--reynolds=50", "--step=0.03125", "--warmup_time=0", "--out"]
    process = subprocess.Popen([*line, "x"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / ".x.progress").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it finished before it could be killed"
    assert (tmp_path / ".x.part").exists() and not (tmp_path / "x").exists()
    for out in ("x", "whole"):
        assert main([*line[3:], str(tmp_path / out)]) == 0
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("files", "name"), FORMATS)
def test_a_finished_data_set_is_not_made_again_and_another_not_overwritten(
    files: FileLayout, name: str, tmp_path: Path
) -> None:
    generate(Counting(**PERIODIC), tmp_path / name, files=files)
    before = contents(tmp_path)

    def never(done: int, total: int) -> None:
        raise AssertionError

    generate(Counting(**PERIODIC), tmp_path / name, files=files, progress=never)
    with pytest.raises(ValueError, match=r"solver\.init_args\.nu: None there, 0\.2 asked"):
        generate(Counting(**PERIODIC, nu=0.2), tmp_path / name, files=files)
    with pytest.raises(ValueError, match=r"other data \(layout, splits or parameters\)"):
        generate(Counting(**PERIODIC), tmp_path / name, files=files, test=0.4)
    assert contents(tmp_path) == before
    foreign = tmp_path / "foreign" / name
    foreign.parent.mkdir()
    if name == "a":
        foreign.mkdir()
        (foreign / "thesis.tex").write_text("years of work")
    else:
        foreign.write_text("years of work")
    with pytest.raises(ValueError, match="is there already"):
        generate(Counting(**PERIODIC), foreign, files=files)
    assert list(contents(foreign.parent).values()) == [b"years of work"]


def test_a_mapping_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.physml.yaml").write_text("file: mine.npy")
    with pytest.raises(ValueError, match=r"a\.physml\.yaml: is there already"):
        generate(Counting(**PERIODIC), tmp_path / "a.npy", files=NpyFiles())
    assert (tmp_path / "a.physml.yaml").read_text() == "file: mine.npy"


@pytest.mark.parametrize(("files", "name"), FORMATS)
def test_missing_blocks_are_found(files: FileLayout, name: str, tmp_path: Path) -> None:
    plan = plan_of(Counting(**PERIODIC))
    writer = FileWriter(tmp_path / name, files=files, plan=plan)
    block = np.zeros((7, 6, 3))
    for row in (0, 1, 2, 4):
        writer.write(row, 0, block)
    arrays = {"a.npy": 1, "a": 3, "a_periodic.hdf5": 3}[name]  # an array each for density, pressure, velocity
    with pytest.raises(ValueError, match=f"{arrays} blocks were not written"):
        writer.finish([])
    block[3, 2, 1] = np.inf
    with pytest.raises(ValueError, match="not finite near frame 0"):
        writer.write(3, 0, block)
    block[3, 2, 1] = 0.0
    writer.write(3, 0, block)
    if name == "a.npy":  # a block that was cut off
        with open(tmp_path / ".a.npy.part" / "files" / "a.npy", "r+b") as raw:
            raw.seek(-4, os.SEEK_END)
            raw.write(np.float32(np.nan).tobytes())
        with pytest.raises(ValueError, match="1 blocks were not written"):
            writer.finish([])
        writer.write(4, 0, block)
    assert writer.finish([]).count == 5
    with pytest.raises(ValueError, match="is complete"):
        writer.write(0, 0, block)


@pytest.mark.parametrize(("files", "name"), FORMATS)
def test_no_more_than_a_block_is_in_memory(files: FileLayout, name: str, tmp_path: Path) -> None:
    axis = Axis.periodic_uniform("x", 1 << 14, 1.0)
    fields = tuple(Field(item) for item in GAS)
    rows = {"train": [Segment(0, 0, 64)], "validation": [Segment(1, 0, 64)], "test": [Segment(2, 0, 64)]}
    plan = Plan("large", Layout(fields, Grid((axis,)), 0.1), 3, 64, {}, rows, {})
    block = np.ones((5, 1 << 14, 3), np.float32)
    tracemalloc.start()
    writer = FileWriter(tmp_path / name, files=files, plan=plan)
    assert writer.chunk_frames == 5
    for row in range(3):
        for start in range(0, 64, 5):
            writer.write(row, start, block[: min(5, 64 - start)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * block.nbytes < 3 * 64 * block[0].nbytes / 2  # some copies of a block, less than half of the whole


# The Well


def test_the_files_of_the_well_follow_its_schema(tmp_path: Path) -> None:
    solver = Counting(**ALL["2-D"])
    generate(solver, tmp_path / "flow", files=WellFiles())
    found = sorted(str(file.relative_to(tmp_path / "flow")) for file in tmp_path.rglob("*") if file.is_file())
    assert found == [*(f"data/{split}/counting.hdf5" for split in ("test", "train", "valid")), "stats.yaml"]
    with h5py.File(tmp_path / "flow" / "data" / "train" / "counting.hdf5") as file:
        assert dict(file.attrs, provenance=0, simulation_parameters=0) == {
            "dataset_name": "counting",
            "grid_type": "cartesian",
            "n_spatial_dims": 2,
            "n_trajectories": 3,
            "simulation_parameters": 0,
            "provenance": 0,
        }
        assert len(file.attrs["simulation_parameters"]) == 0  # nu is not one for all
        assert [*file["dimensions"].attrs["spatial_dims"]] == ["x", "y"]
        for name, shape, moving in (("time", (7,), True), ("x", (6,), False), ("y", (5,), False)):
            item = file["dimensions"][name]
            assert item.shape == shape and item.dtype == np.float32
            assert (item.attrs["sample_varying"], item.attrs["time_varying"]) == (False, moving)
        assert sorted(file["boundary_conditions"]) == ["x_periodic", "y_wall"]
        for name, kind in (("x_periodic", "PERIODIC"), ("y_wall", "WALL")):
            item = file["boundary_conditions"][name]
            assert item.attrs["bc_type"] == kind and [*item.attrs["associated_dims"]] == [name[0]]
            assert len(item.attrs["associated_fields"]) == 0
            assert not item.attrs["sample_varying"] and not item.attrs["time_varying"]
            mask = item["mask"][...]
            assert mask.dtype == bool and np.flatnonzero(mask).tolist() == [0, len(mask) - 1]
        assert [*file["scalars"].attrs["field_names"]] == ["nu"]
        assert file["scalars/nu"][...].tolist() == [0.1, 0.2, 0.1] and file["scalars/nu"].attrs["sample_varying"]
        assert [[*file[f"t{order}_fields"].attrs["field_names"]] for order in range(3)] == [
            ["density"],
            ["velocity"],
            [],
        ]
        for path, shape in (("t0_fields/density", (3, 7, 6, 5)), ("t1_fields/velocity", (3, 7, 6, 5, 2))):
            assert file[path].shape == shape and file[path].dtype == np.float32
            assert file[path].attrs["sample_varying"] and file[path].attrs["time_varying"]
            assert file[path].attrs["dim_varying"].tolist() == [True, True]
        # trajectory 2, frame 3, x 4, y 1: density is channel 2, the components of velocity 0 and 1
        assert file["t0_fields/density"][2, 3, 4, 1] == np.float32(2000 + 300 + 4 + 0.1 + 20)
        assert file["t1_fields/velocity"][2, 3, 4, 1].tolist() == [np.float32(2304.1), np.float32(2314.1)]
    with h5py.File(tmp_path / "flow" / "data" / "valid" / "counting.hdf5") as file:
        assert file["scalars/nu"][...].tolist() == [0.2]


def test_a_parameter_of_all_is_a_simulation_parameter(tmp_path: Path) -> None:
    generate(Counting(**ALL["1-D"]), tmp_path / "a", files=WellFiles())
    with h5py.File(tmp_path / "a" / "data" / "test" / "counting.hdf5") as file:
        assert [*file.attrs["simulation_parameters"]] == ["nu"] and file.attrs["nu"] == 0.1
        assert file["scalars/nu"][()] == 0.1 and not file["scalars/nu"].attrs["sample_varying"]


@pytest.mark.parametrize("case", ["2-D", "3-D"])
def test_stats_are_the_moments_of_the_training_split(case: str, tmp_path: Path) -> None:
    """Of all points alike, as published, also where the axes are stretched."""
    solver = Counting(**ALL[case])
    store = generate(solver, tmp_path / "a.zarr")
    generate(solver, tmp_path / "a", files=WellFiles())
    told = yaml.safe_load((tmp_path / "a" / "stats.yaml").read_text())
    assert list(told) == ["mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"]
    order = [store.layout.names.index(f"velocity_{name}") for name in store.layout.grid.names]
    order.append(store.layout.names.index("density"))
    u = np.stack([store.read(row, 0, 7) for row in range(3)])[..., order].astype(np.float64)
    for suffix, values in (("", u), ("_delta", np.diff(u, axis=1))):
        every = values.reshape(-1, len(order))
        moments = {"mean": every.mean(0), "std": every.std(0), "rms": np.sqrt((every**2).mean(0))}
        for key, expected in moments.items():
            flat = [*told[key + suffix]["velocity"], told[key + suffix]["density"]]
            # double precision; a change of 100 everywhere deviates by the rounding of single numbers only
            np.testing.assert_allclose(flat, expected, rtol=1e-12, atol=1e-12 if suffix else 0)


def test_static_fields_and_obstacles(tmp_path: Path) -> None:
    solver = Counting(**ALL["2-D"])
    plan = plan_of(solver)
    still = (Field("force_x", "N"), Field("rough"), Field("force_y", "N"))
    plan = replace(plan, layout=replace(plan.layout, static=still))
    values = np.random.default_rng(0).standard_normal((5, 6, 5, 3)).astype(np.float32)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[2:4, 1] = False
    masked = replace(plan, layout=replace(plan.layout, grid=Grid(plan.layout.grid.axes, mask)))

    def made(path: Path, files: FileLayout, plan: Plan) -> Trajectories:
        writer = FileWriter(path, files=files, plan=plan)
        for row in range(5):
            writer.write(row, 0, np.full((7, 6, 5, 3), 1.0 + row))
            if row == 0:
                with pytest.raises(ValueError, match=r"\d+ blocks were not written"):
                    writer.finish([])
            writer.write_static(row, values[row])
        return writer.finish([])

    well = made(tmp_path / "a", WellFiles(), plan)
    assert [item.name for item in well.layout.static] == ["rough", "force_x", "force_y"]
    np.testing.assert_array_equal(well.read_static(3), values[3][..., [1, 0, 2]])
    npy = made(tmp_path / "a.npy", NpyFiles(), masked)
    assert npy.layout.difference(masked.layout) is None
    assert npy.layout.grid.mask is not None and bool((npy.layout.grid.mask == mask).all())
    np.testing.assert_array_equal(npy.read_static(3), values[3])
    with pytest.raises(ValueError, match="has an obstacle, which is not written"):
        made(tmp_path / "b", WellFiles(), masked)
    with pytest.raises(ValueError, match="for which PDEBench has no place"):
        made(tmp_path / "b.hdf5", PDEBenchFiles(), plan)


def test_vectors_and_tensors_are_those_whose_components_are_all_there() -> None:
    assert tensors(["p", "u_y", "q_x", "u_x"], ["x", "y"]) == ({"p": (0,), "q_x": (2,)}, {"u": (3, 1)}, {})
    assert tensors(["u", "u_x", "u_y"], ["x", "y"])[1] == {}  # the name is taken
    assert tensors(["_x", "_y"], ["x", "y"])[1] == {}
    assert tensors(["s_xx", "s_xy", "s_yx", "s_yy"], ["x", "y"])[2] == {"s": (0, 1, 2, 3)}
    assert tensors(["s_xx", "s_xy", "s_yy"], ["x", "y"]) == ({"s_xx": (0,), "s_xy": (1,), "s_yy": (2,)}, {}, {})
    assert tensors(["u_x", "u_y"], ["x", "y", "z"])[1] == {}


# what formats cannot hold


def test_what_pdebench_has_no_layout_for_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("a.hdf5", "no layout", ALL["2-D"]),
        ("a.hdf5", "give a_periodic.hdf5", PERIODIC),
        ("periodic.h5", "give another name", {"fields": GAS, "boundaries": ("open",)}),
        ("a.hdf5", "no layout", {"fields": GAS, "boundaries": ("wall",)}),
        ("a.hdf5", "no layout", {"fields": ("u",), "boundaries": ("wall", "periodic")}),
        ("a.hdf5", "no layout", {"fields": ("u",), "boundaries": ("open",) * 3}),
        ("a.npy", "ends in .hdf5 or .h5", ALL["1-D"]),
    ]
    for name, words, case in cases:
        with pytest.raises(ValueError, match=words):
            generate(Counting(**case), tmp_path / name, files=PDEBenchFiles())
    layout = Layout((Field("u"),), Grid((Axis.periodic_uniform("r", 4, 1.0),)), 0.1)
    plan = Plan("a", layout, 1, 1, {}, {"train": [Segment(0, 0, 1)]}, {})
    with pytest.raises(ValueError, match="got axes r"):
        FileWriter(tmp_path / "a.hdf5", files=PDEBenchFiles(), plan=plan)
    assert not any(tmp_path.iterdir())  # before anything is made


def test_times_of_pdebench_have_one_entry_more(tmp_path: Path) -> None:
    generate(Counting(**PERIODIC), tmp_path / "periodic.hdf5", files=PDEBenchFiles())
    with h5py.File(tmp_path / "periodic.hdf5") as file:
        np.testing.assert_allclose(file["t-coordinate"], 0.1 * np.arange(8), rtol=1e-6)  # single precision
        assert file["Vx"].shape == (5, 7, 6) and file["Vx"].dtype == np.float32
        assert file.attrs["nu"] == 0.1


def test_lengths_and_weights_that_points_do_not_tell_are_named() -> None:
    points = torch.arange(4, dtype=torch.float64) + 0.5
    cells = Axis("x", points, Boundary.WALL, 4.0)
    weighted = Axis("x", points, Boundary.WALL, 3.0, weights=torch.tensor([0.1, 1.0, 1.0, 0.1]).double())
    for axis, words in ((cells, "the length 4 of x"), (weighted, "the quadrature weights of x")):
        plan = Plan("a", Layout((Field("u"),), Grid((axis,)), 0.1), 1, 1, {}, {"train": [Segment(0, 0, 1)]}, {})
        assert any(item.startswith(words) for item in WellFiles().lost(plan))
        assert bool(NpyFiles().lost(plan)) is ("weights" in words)


def test_splits_that_are_not_whole_trajectories(tmp_path: Path) -> None:
    plan = plan_of(Counting(**PERIODIC))
    in_time = {"train": [Segment(row, 0, 4) for row in range(5)], "test": [Segment(row, 5, 7) for row in range(5)]}
    mixed = {"train": [Segment(0, 0, 7), Segment(2, 0, 7)], "test": [Segment(1, 0, 7)]}
    for segments in (in_time, mixed):
        with pytest.raises(ValueError, match="each trajectory must be whole in one split"):
            FileWriter(tmp_path / "a", files=WellFiles(), plan=replace(plan, segments=segments))
    with pytest.raises(ValueError, match="consecutive whole trajectories"):
        FileWriter(tmp_path / "a.npy", files=NpyFiles(), plan=replace(plan, segments=mixed))
    writer = FileWriter(tmp_path / "a.npy", files=NpyFiles(), plan=replace(plan, segments=in_time))
    for row in range(5):
        writer.write(row, 0, np.full((7, 6, 3), 1.0))
    assert {split: list(found) for split, found in writer.finish([]).segments.items()} == in_time
    with pytest.raises(ValueError, match="these files hold one"):
        FileWriter(tmp_path / "b.npy", files=NpyFiles(), plan=replace(plan, lengths=[7, 7, 7, 7, 5], segments={
            "train": [Segment(0, 0, 7)]
        }))  # fmt: skip


def test_the_store_stays_the_default(tmp_path: Path) -> None:
    assert isinstance(generate(Counting(**PERIODIC), tmp_path / "a.zarr"), TrajectoryStore)
