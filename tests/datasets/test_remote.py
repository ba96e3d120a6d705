from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from crashes import in_this_process
from processes import totals
from waves import make_store
from wells import tree, write

from physml.cli import data_inspect
from physml.cli.main import main
from physml.datasets import PDEBench, TheWell, Trajectories, TrajectoryStore, hdf5, open_trajectories
from physml.datasets.opening import locate
from physml.datasets.remote import Remote, place
from physml.emulator import Emulator, Origin
from physml.evaluate import evaluate
from physml.normalise import Standardise
from physml.operators import Persistence
from physml.rollout import write_rollout


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def pdebench(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["tensor"] = rng.normal(size=(4, 5, 16)).astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = np.arange(16) / 16, np.arange(6) * 0.1
    return path


def same(a: Trajectories, b: Trajectories) -> None:
    assert (a.fingerprint, a.segments, a.count, a.name) == (b.fingerprint, b.segments, b.count, b.name)
    assert a.layout.difference(b.layout) is None and a.statistics == b.statistics
    assert a.provenance == b.provenance
    for row in range(a.count):
        end = a.length(row)
        for start, stop, step in ((0, end, 1), (1, end, 2), (end - 1, end, 1)):
            np.testing.assert_array_equal(a.read(row, start, stop, step), b.read(row, start, stop, step))
        np.testing.assert_array_equal(a.read_static(row), b.read_static(row))


def test_the_well_is_the_same_from_afar(tmp_path: Path, memory: Any) -> None:
    here = tree(tmp_path / "tiny")
    memory.put(str(here), "/deep/tiny", recursive=True)
    there = open_trajectories("memory://deep/tiny")
    assert isinstance(there, TheWell) and there.path == "memory://deep/tiny"
    same(open_trajectories(here), there)
    one = open_trajectories("memory://deep/tiny/data/train/a.hdf5")
    same(TheWell(here / "data" / "train" / "a.hdf5"), one)
    assert there.storage().files[0] == "memory://deep/tiny/data/train/a.hdf5"


def test_published_statistics_are_found_from_afar(tmp_path: Path, memory: Any) -> None:
    here = tree(tmp_path / "tiny")
    (here / "stats.yaml").write_text("mean: {pressure: 1.5}\nstd: {pressure: 2.5}\nstd_delta: {pressure: 3.5}\n")
    memory.put(str(here), "/tiny", recursive=True)
    for inside in ("", "/data", "/data/train"):
        assert TheWell(f"memory://tiny{inside}", fields=["pressure"]).statistics.std == (2.5,), inside


def test_pdebench_is_the_same_from_afar(tmp_path: Path, memory: Any) -> None:
    here = pdebench(tmp_path / "1D_Advection_beta0.4.hdf5")
    memory.put(str(here), "/1D_Advection_beta0.4.hdf5")
    there = open_trajectories("memory://1D_Advection_beta0.4.hdf5")
    assert isinstance(there, PDEBench) and there.parameters["beta"].tolist() == [0.4] * 4
    same(open_trajectories(here), there)


def test_a_store_is_the_same_from_afar(tmp_path: Path, memory: Any) -> None:
    here = make_store(tmp_path / "waves.zarr", count=3, frames=20)
    memory.put(here.path, "/waves.zarr", recursive=True)
    there = open_trajectories("memory://waves.zarr")
    assert isinstance(there, TrajectoryStore)
    same(here, there)
    memory.rm("/waves.zarr/state/c/1/1/0/0/0")
    with pytest.raises(ValueError, match=r"memory://waves.zarr: 1 of 6 chunk files of state are missing"):
        open_trajectories("memory://waves.zarr")
    with pytest.raises(ValueError, match="holds NaN or infinite values, or its chunk is missing"):
        there.read(1, 10, 20)
    memory.pipe("/waves.zarr/state/c/0/0/0/0/0", b"0" * 50)
    with pytest.raises(ValueError, match=r"memory://waves.zarr: trajectory 0, frames 0 to 3 cannot be decoded"):
        there.read(0, 0, 4)


def test_a_web_server_need_not_list_a_store(tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost chunk is then noticed where it is read."""
    make_store(tmp_path / "waves.zarr", count=3, frames=20)
    memory.put(str(tmp_path / "waves.zarr"), "/waves.zarr", recursive=True)
    memory.rm("/waves.zarr/state/c/1/1/0/0/0")
    monkeypatch.setattr("physml.datasets.remote._WEB", ("memory",))
    there = open_trajectories("memory://waves.zarr")
    with pytest.raises(ValueError, match="holds NaN or infinite values, or its chunk is missing"):
        there.read(1, 10, 20)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_open_it_themselves(tmp_path: Path, method: str) -> None:
    """What is in memory is not seen by a process that starts anew, so the files are local and only the way is not."""
    data = open_trajectories(f"file://{tree(tmp_path / 'tiny')}")
    assert isinstance(data, TheWell) and data.path.startswith("file://")
    before, there, after = totals(data, (1, 0, 4), method, tmp_path)
    assert before == there == after == float(data.read(1, 0, 4).sum(dtype="float64"))


def test_a_forked_process_reads_what_is_in_memory(tmp_path: Path, memory: Any) -> None:
    import os

    memory.put(str(tree(tmp_path / "tiny")), "/tiny", recursive=True)
    data = TheWell("memory://tiny")
    expected = data.read(1, 0, 4)
    inherited = data._files[0]
    child = os.fork()
    if child == 0:  # no test runner in here
        ok = np.array_equal(data.read(1, 0, 4), expected) and data._files[0].id.id != 0
        os._exit(0 if ok and not inherited.id.valid else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(data.read(1, 0, 4), expected)


def test_few_files_are_held_open(tmp_path: Path, memory: Any) -> None:
    """Each keeps what was fetched of it."""
    for at in range(12):
        write(tmp_path / f"f{at:02}.hdf5", first=2 * at)
    memory.put(str(tmp_path), "/many", recursive=True)
    data = TheWell("memory://many")
    for row in [*range(data.count), 0]:
        assert data.read(row, 0, 1)[0, 0, 0, 0] == 1000 * row
    assert len(data._files._handles) == hdf5._OPEN_REMOTE < 12


def test_what_was_fetched_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    monkeypatch.setattr("physml.datasets.remote._BLOCK", 1 << 10)
    fetched: list[tuple[int, int]] = []
    values = np.random.default_rng(0).bytes(1 << 16)

    class Slow(fsspec.spec.AbstractBufferedFile):
        def _fetch_range(self, start: int, end: int) -> bytes:
            fetched.append((start, end))
            return values[start:end]

    class Far(fsspec.AbstractFileSystem):
        protocol = "far"

        def _open(self, path: str, mode: str = "rb", block_size: Any = None, **more: Any) -> Slow:
            return Slow(self, path, mode, block_size, size=len(values), **more)

    fsspec.register_implementation("far", Far, clobber=True)
    with Remote("far://x").open() as file:
        for at in (10, 500, 0, 1023):
            file.seek(at)
            assert file.read(1) == values[at : at + 1]
        assert fetched == [(0, 1024)]
        for at in range(1 << 10, 1 << 14, 1 << 10):
            file.seek(at)
            assert file.read(16) == values[at : at + 16]
        file.seek(0)
        file.read(1)
        assert fetched[-1] == (0, 1024)  # was dropped after eight others


@pytest.mark.parametrize(
    ("url", "name", "suffix", "parent", "below"),
    [
        ("s3://bucket/a/b.hdf5", "b.hdf5", ".hdf5", "s3://bucket/a", "s3://bucket/a/b.hdf5/c"),
        ("s3://bucket/", "bucket", "", "s3://bucket", "s3://bucket/c"),
        ("https://host/a.h5?x=1/2", "a.h5", ".h5", None, None),
        ("memory://a", "a", "", "memory://a", "memory://a/c"),
        ("file:///a/b", "b", "", "file:///a", "file:///a/b/c"),
    ],
)
def test_a_url_has_the_parts_of_a_path(url: str, name: str, suffix: str, parent: str | None, below: str | None) -> None:
    found = Remote(url)
    assert (found.name, found.suffix) == (name, suffix) and found.stem == name.removesuffix(suffix)
    if parent is not None:
        assert str(found.parent) == parent and str(found / "c") == below
        assert (found / "c").parent == found
    assert place(url) == found == place(found) and isinstance(place("a/b"), Path)
    assert isinstance(place(Path("s3://bucket/a")), Path)  # it has lost a slash: no URL any more


def test_what_is_missing_is_said(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data at memory://nothing.hdf5; is the URL right"):
        locate("memory://nothing.hdf5")
    with pytest.raises(ValueError, match=r"nope://x: cannot be read through fsspec \(Protocol not known: nope\)"):
        open_trajectories("nope://x")
    memory.pipe("/text.hdf5", b"no HDF5")
    with pytest.raises(ValueError, match=r"memory://text.hdf5: cannot be opened as HDF5"):
        open_trajectories("memory://text.hdf5")
    memory.pipe("/text.txt", b"words")
    with pytest.raises(ValueError, match=r"memory://text.txt: not a data set physml can read. Expected a zarr store"):
        open_trajectories("memory://text.txt")


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "core", SimpleNamespace(url_to_fs=missing))
    with pytest.raises(ImportError, match=r"s3:// is missing \(Install s3fs.*pip install 'physml\[remote\]'"):
        open_trajectories("s3://bucket/x.hdf5")
    monkeypatch.setattr(data_inspect, "apart", in_this_process)
    assert main(["data", "inspect", "s3://bucket/x.hdf5"]) != 0
    assert "physml[remote]" in capsys.readouterr().err


def test_a_damaged_file_says_where_it_lies(tmp_path: Path, memory: Any) -> None:
    path = tmp_path / "one.hdf5"
    write(path)
    with h5py.File(path, "a") as file:
        file["t0_fields"].attrs["field_names"] = ["pressure", "gone"]
    memory.put(str(path), "/one.hdf5")
    with pytest.raises(ValueError, match=r"memory://one.hdf5: /t0_fields/gone is missing"):
        open_trajectories("memory://one.hdf5")


def test_a_server_that_refuses_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of fsspec raise classes of their own, NoCredentialsError for instance."""

    class NoCredentials(Exception):
        pass

    for problem in (NoCredentials("Unable to locate credentials"), PermissionError("Forbidden")):

        def exists(self: Remote, problem: Exception = problem) -> bool:
            raise problem

        monkeypatch.setattr(Remote, "exists", exists)
        with pytest.raises(ValueError, match=rf"s3://b/x: cannot be looked at \({type(problem).__name__}: {problem}\)"):
            open_trajectories("s3://b/x")


def test_a_rollout_keeps_the_url_of_its_data(tmp_path: Path, memory: Any) -> None:
    here = make_store(tmp_path / "waves.zarr")
    memory.put(here.path, "/waves.zarr", recursive=True)
    emulator = Emulator(Persistence(channels=1, axes=2), Standardise())
    emulator.learn(Origin(here.layout, here.statistics.to_plain(), 1, here.fingerprint))
    rolled = write_rollout(emulator.eval(), open_trajectories("memory://waves.zarr"), tmp_path / "x.zarr", steps=3)
    assert evaluate(rolled).attrs["physml"]["source"]["path"] == "memory://waves.zarr"  # from where the truth was read
    with pytest.raises(ValueError, match="a URL; expected a path of this machine"):
        write_rollout(emulator, here, "memory://x.zarr", steps=3)
