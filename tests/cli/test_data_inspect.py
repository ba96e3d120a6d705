from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from crashes import crash, in_this_process, sleep
from settings import make_steady_store
from waves import make_store

from physml.cli import data_inspect
from physml.cli.main import main
from physml.datasets import Segment, StoreWriter
from physml.datasets.trajectories import Trajectories


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are looked at in this process, which saves the start of another."""
    monkeypatch.setattr(data_inspect, "apart", in_this_process)


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    out = capsys.readouterr().out.splitlines()
    return {name: text.strip() for name, _, text in (line.partition("  ") for line in out)}


def bench(path: Path, seed: int = 0) -> Path:
    """A file of PDEBench, which stores no statistics."""
    with h5py.File(path, "w") as file:
        u = np.random.default_rng(seed).standard_normal((4, 40, 8)).astype(np.float32)
        file.create_dataset("tensor", data=u, chunks=(2, 5, 8), compression="gzip", shuffle=True)
        file["x-coordinate"], file["t-coordinate"] = np.arange(8) / 8, 0.5 * np.arange(40)
    return path


@pytest.mark.usefixtures("here")
def test_inspect_tells_what_a_store_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    assert main(["data", "inspect", store.path]) == 0
    told, s = lines(capsys), store.statistics
    expected = f"[m] mean {s.static_mean[0]:.4g}, std {s.static_std[0]:.4g}, does not change in time"
    assert told["static coefficient"] == expected
    assert told["parameter strength"] == "0.5 to 5.5" and told["trajectories"] == "6 of one frame"
    assert "change per frame" not in told["field response"]
    assert told["kind"] == "TrajectoryStore (physml.datasets.store)" and told["moments"] == "of the split train"
    assert told["chunks state"] == "1 frame of 8×8 points, blosc lz4, crc32c"
    files = [file for file in Path(store.path).rglob("*") if file.is_file()]
    assert told["size"].endswith(f"on disk in {len(files)} files")


def test_inspect_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "waves.zarr")
    assert main(["data", "inspect", store.path, "--json", "--window", "3"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["fingerprint"] == store.fingerprint and plain["frames"] == 20 and plain["dt"] == 0.25
    assert plain["fields"][0] == {
        "name": "vorticity",
        "units": "1/s",
        "mean": store.statistics.mean[0],
        "std": store.statistics.std[0],
        "increment_std": store.statistics.increment_std[0],
    }
    size = sum(file.stat().st_size for file in Path(store.path).rglob("*") if file.is_file())
    assert plain["storage"]["bytes"] == size and plain["splits"]["train"]["frames"] == 80
    (chunks,) = plain["storage"]["chunks"]
    # chunks of frames 0:16 and 16:20: of 18 starts, 14 read 16 frames, 2 all 20 and 2 the last 4
    assert chunks["amplification"] == pytest.approx((14 * 16 + 2 * 20 + 2 * 4) / 18 / 3)


@pytest.mark.usefixtures("here")
def test_inspect_reads_a_few_frames_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()
    read = Trajectories.read

    def watched(self: Trajectories, trajectory: int, start: int, stop: int, *more: Any, **named: Any) -> np.ndarray:
        asked.append(stop - start)
        return read(self, trajectory, start, stop, *more, **named)

    monkeypatch.setattr(Trajectories, "read", watched)
    store = make_store(tmp_path / "waves.zarr")
    asked.clear()
    assert main(["data", "inspect", store.path]) == 0
    assert asked == []
    assert main(["data", "inspect", str(bench(tmp_path / "u.hdf5"))]) == 0
    assert sum(asked) == 12  # of 160: two trajectories of train, a pair of frames at three places of each
    told = lines(capsys)
    assert told["moments"] == "of a sample of 12 frames" and "fingerprint" in told
    assert told["chunks tensor"] == (
        "5 frames of 2 trajectories of 8 points, gzip 4, shuffle; a window of 8 frames reads 3 times its bytes"
    )  # of 33 starts, 21 touch two chunks and 12 three: 2 (21 10 + 12 15) / 33 / 8 = 2.95


@pytest.mark.usefixtures("here")
def test_inspect_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, picture = make_steady_store(tmp_path / "steady.zarr"), tmp_path / "made/a.png"
    assert main(["data", "inspect", store.path, "--picture", str(picture), "--trajectory", "5"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and f"wrote {picture}" in capsys.readouterr().out
    assert main(["data", "inspect", store.path, "--picture", str(picture), "--trajectory", "6"]) == 2
    assert "a number from 0 to 5" in capsys.readouterr().err
    assert main(["data", "inspect", store.path, "--picture", str(tmp_path / "a.gif")]) == 2
    said = capsys.readouterr()
    assert ".png" in said.err and said.out == ""
    assert main(["data", "inspect", store.path, "--picture", f"{store.path}/zarr.json/a.png"]) == 2
    assert "--picture" in capsys.readouterr().err


def test_what_is_damaged_neither_crashes_nor_hangs_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "waves.zarr")
    for function, words in ((crash, "the program crashed"), (sleep, "reading hangs: for 0.5 seconds nothing was read")):
        monkeypatch.setattr(data_inspect, "looked_at", function)
        assert main(["data", "inspect", store.path, "--patience", "0.5"]) == 2
        assert f"{store.path}: {words}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("here")
def test_the_size_in_memory_is_that_of_the_frames_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = make_steady_store(tmp_path / "steady.zarr").layout  # 8 x 8 points, a field and a static field
    writer = StoreWriter(
        tmp_path / "x.zarr",
        name="x",
        layout=layout,
        count=2,
        frames=100,
        lengths=[100, 3],
        parameters={},
        segments={"train": [Segment(0, 0, 100)]},
        provenance={},
    )
    values = np.random.default_rng(0).standard_normal((100, 8, 8, 1))
    for row, length in ((0, 100), (1, 3)):
        writer.write_static(row, values[0])
        for start in range(0, length, writer.chunk_frames):
            writer.write(row, start, values[start : min(start + writer.chunk_frames, length)])
    writer.finish(["a", "b"])
    assert main(["data", "inspect", str(tmp_path / "x.zarr"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == 4 * 64 * (103 + 2) and told["shortest"] == 3
    assert told["storage"]["chunks"][0]["missing"] == 0
    assert told["storage"]["chunks"][0]["total"] == 7 + 1  # of 16 frames
