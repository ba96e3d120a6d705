from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc
from numcodecs.checksum32 import CRC32C
from processes import totals
from waves import make_store, wave, wave_layout

from physml.datasets import Segment, StoreWriter, TrajectoryStore, chunk_files
from physml.datasets.chunk_files import ChunkFiles
from physml.fields import Field, Layout


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryStore:
    """Chunks of sixteen frames, of which the last of a trajectory is not full."""
    return make_store(tmp_path_factory.mktemp("long") / "waves.zarr", count=3, frames=41, shape=(5, 4))


def direct(store: TrajectoryStore) -> ChunkFiles:
    found = store._direct["state"]
    assert found is not None
    return found


def chunk(store: TrajectoryStore, row: int, number: int) -> Path:
    return Path(store.path) / "state" / "c" / str(row) / str(number) / "0/0/0"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_values_are_those_of_zarr(long: TrajectoryStore, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, 2))
    start = data.draw(st.integers(0, 40))
    stop, step = data.draw(st.integers(start + 1, 41)), data.draw(st.integers(1, 40))
    array = zarr.open_group(long.path, mode="r")["state"]
    expected = np.asarray(array[row, start:stop])[::step]  # type: ignore[index]
    assert direct(long).shape[0] == 16
    np.testing.assert_array_equal(long.read(row, start, stop, step), expected)
    np.testing.assert_array_equal(expected, wave(long.layout, row, 41)[start:stop:step])


def test_static_fields_are_those_of_zarr(tmp_path: Path) -> None:
    layout = wave_layout((6, 4))
    layout = Layout(layout.fields, layout.grid, layout.dt, "s", static=(Field("depth"), Field("rock")))
    where, segments = tmp_path / "static.zarr", {"train": [Segment(0, 0, 3), Segment(1, 0, 3)]}
    more = {"name": "static", "count": 2, "frames": 3, "parameters": {}, "provenance": {}, "segments": segments}
    writer = StoreWriter(where, layout=layout, **more)  # type: ignore[arg-type]
    still = np.random.default_rng(0).normal(size=(2, 6, 4, 2)).astype(np.float32)
    for row in range(2):
        writer.write_static(row, still[row])
    store = writer.finish([writer.write(row, 0, wave(layout, row, 3)) for row in range(2)])
    assert store._direct["static"] is not None
    np.testing.assert_array_equal([store.read_static(row) for row in range(2)], still)


@pytest.mark.parametrize("place", [0, 3, 4, 8, 12, 15, 16, 40, -5, -4, -1])
def test_any_changed_byte_is_an_error(tmp_path: Path, long: TrajectoryStore, place: int) -> None:
    """Header, body and checksum: the CRC covers all of them."""
    store = TrajectoryStore(shutil.copytree(long.path, tmp_path / "copy.zarr"))
    file = chunk(store, 1, 1)
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)
    for start, stop in ((16, 32), (20, 22)):  # in place, and by way of a whole chunk
        with pytest.raises(ValueError, match=rf"trajectory 1, frames {start} to {stop - 1} cannot be decoded.*corrupt"):
            store.read(1, start, stop)
    store.read(1, 0, 16)
    store.read(1, 32, 41)


@pytest.mark.parametrize("length", [0, 3, 4, 16, 19, 20, -1])
def test_a_truncated_chunk_is_an_error(tmp_path: Path, long: TrajectoryStore, length: int) -> None:
    store = TrajectoryStore(shutil.copytree(long.path, tmp_path / "copy.zarr"))
    file = chunk(store, 0, 2)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"trajectory 0, frames 30 to 39 cannot be decoded; a chunk is truncated"):
        store.read(0, 30, 40)


def test_a_chunk_of_another_size_is_an_error_though_its_checksum_is_right(
    tmp_path: Path, long: TrajectoryStore
) -> None:
    """Decompressing it would leave part of the memory as it was, or write beyond its end."""
    store = TrajectoryStore(shutil.copytree(long.path, tmp_path / "copy.zarr"))
    for frames in (15, 17):
        small = blosc.compress(np.ones((frames, 5, 4, 1), np.float32), b"lz4", 5, 1)
        chunk(store, 0, 0).write_bytes(CRC32C(location="end").encode(small).tobytes())
        for stop in (3, 16):
            with pytest.raises(ValueError, match=f"it holds {80 * frames} bytes"):
                store.read(0, 0, stop)


def test_a_lost_chunk_is_not_data(tmp_path: Path, long: TrajectoryStore) -> None:
    store = TrajectoryStore(shutil.copytree(long.path, tmp_path / "copy.zarr"))
    chunk(store, 2, 1).unlink()
    with pytest.raises(ValueError, match="trajectory 2, frame 16 holds NaN"):
        store.read(2, 10, 20)
    np.testing.assert_array_equal(store.read(2, 2, 41, 32), wave(store.layout, 2, 41)[2:41:32])  # beside it


def test_what_is_stored_otherwise_is_left_to_zarr(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "other.zarr", mode="w")
    usual = zarr.open_group(make_store(tmp_path / "waves.zarr", count=3, frames=4).path, mode="r")["state"]
    assert isinstance(usual, zarr.Array) and ChunkFiles.of(usual, moving=True) is not None
    kept = {"shape": usual.shape, "chunks": usual.chunks, "compressors": usual.compressors}
    for at, change in enumerate(
        (
            {},
            {"dtype": "float64"},
            {"compressors": None},
            {"compressors": usual.compressors[:1]},
            {"chunks": (1, 2, 8, 16, 1)},
            {"chunks": (2, 2, 16, 16, 1)},
            {"shards": (1, 4, 16, 16, 1), "chunks": (1, 2, 16, 16, 1)},
            {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        )
    ):
        array = group.create_array(f"a{at}", **{"dtype": "float32", **kept, **change})  # type: ignore[arg-type]
        assert (ChunkFiles.of(array, moving=True) is None) == bool(change), change
    elsewhere = zarr.create_array(zarr.storage.MemoryStore(), dtype="float32", **kept)  # type: ignore[arg-type]
    assert ChunkFiles.of(elsewhere, moving=True) is None


def test_no_file_stays_open(long: TrajectoryStore) -> None:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("the system does not list open files")
    long.read(0, 0, 41)
    before = len(list(folder.iterdir()))
    for start in range(0, 33, 8):
        long.read(0, start, start + 8)
    assert len(list(folder.iterdir())) == before


def test_many_chunks_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system lets a process have some thousand files open, a trajectory may have more chunks."""
    store = make_store(tmp_path / "waves.zarr", count=3, frames=90, shape=(5, 4))
    most, opened = [], chunk_files._Files.__enter__

    def counted(files: Any) -> Any:
        most.append(len(files._paths))
        return opened(files)

    monkeypatch.setattr(chunk_files, "_TOGETHER", 2)
    monkeypatch.setattr(chunk_files._Files, "__enter__", counted)
    np.testing.assert_array_equal(store.read(1, 3, 90), wave(store.layout, 1, 90)[3:])
    assert most == [2, 2, 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_same(tmp_path: Path, long: TrajectoryStore, method: str) -> None:
    before, there, after = totals(long, (1, 10, 30), method, tmp_path)
    assert before == there == after == float(long.read(1, 10, 30).sum(dtype="float64"))


def test_frames_are_put_where_they_are_wanted(long: TrajectoryStore) -> None:
    for start, step in itertools.product((0, 7, 16), (1, 2, 3)):
        frames = range(start, 40, step)
        out = np.full((len(frames), 5, 4, 1), np.nan, np.float32)
        assert long.read(1, start, 40, step, out=out) is out
        np.testing.assert_array_equal(out, long.read(1, start, 40, step))
