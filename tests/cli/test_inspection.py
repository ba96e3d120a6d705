from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from crashes import crash, fail
from settings import make_steady_store
from waves import make_store

from physml.cli import inspection
from physml.cli.main import main
from physml.datasets.trajectories import Trajectories


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are checked in this process, which saves the start of another."""
    monkeypatch.setattr(inspection, "apart", lambda function, *arguments: function(*arguments))


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


def test_check_says_nothing_of_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "waves.zarr")
    assert main(["data", "check", store.path]) == 0
    assert capsys.readouterr().out == f"{store.path}: nothing is wrong: every frame is readable and finite\n"
    assert main(["data", "check", store.path, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain == {"path": store.path, "errors": 0, "warnings": 0, "notes": 0, "findings": []}


@pytest.mark.usefixtures("here")
def test_check_tells_all_and_fails_for_errors_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "waves.zarr")
    state: Any = zarr.open_group(store.path, mode="r+")["state"]
    state[4, 7] = state[4, 6]
    assert main(["data", "check", store.path]) == 0  # warnings alone
    out = capsys.readouterr().out
    assert f"warning {store.path}, trajectory 4, frame 7: 1 of 20 frames equal the one before" in " ".join(out.split())
    assert out.splitlines()[-1] == f"{store.path}: 0 errors, 1 warning, 0 notes"
    state[5, 11, 3, 2, 0] = np.inf
    assert main(["data", "check", store.path]) == 1
    out = capsys.readouterr().out
    assert f"error {store.path}, trajectory 5, frame 11, field vorticity: " in " ".join(out.split())
    assert out.splitlines()[-1] == f"{store.path}: 1 error, 1 warning, 0 notes"
    assert main(["data", "check", store.path, "--json"]) == 1
    plain = json.loads(capsys.readouterr().out)
    assert (plain["errors"], plain["warnings"]) == (1, 1)
    first = plain["findings"][0]
    assert (first["severity"], first["kind"], first["field"]) == ("error", "not finite", "vorticity")
    assert (first["trajectory"], first["frame"], first["file"]) == (5, 11, store.path) and first["remedy"]


@pytest.mark.usefixtures("here")
def test_check_of_what_cannot_be_opened_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    assert main(["data", "check", str(tmp_path / "a.hdf5"), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["kind"] == "opening" and found["file"] == str(tmp_path / "a.hdf5")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert main(["data", "check", str(tmp_path / "nothing")]) == 2  # a mistake in the line, not in the data


def test_a_crash_of_a_library_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """HDF5 may crash on files whose structure is damaged; what it does not survive is told by another process."""
    progress: list[tuple[int, int]] = []
    store = make_store(tmp_path / "waves.zarr")
    told = inspection.apart(inspection.findings, Path(store.path), 8, lambda *seen: progress.append(seen))
    assert told == [] and progress[-1] == (120, 120)
    (found,) = inspection.apart(crash, tmp_path, 8, lambda done, total: None)
    assert found["severity"] == "error" and "crashed" in found["what"] and found["place"] == str(tmp_path)
    store = make_store(tmp_path / "bad.zarr")
    state: Any = zarr.open_group(store.path, mode="r+")["state"]
    state[0, 0] = np.nan
    (known,) = inspection.findings(Path(store.path), 8, lambda done, total: None)
    assert set(found) == set(known)  # so that programs need not care which it was
    with pytest.raises(ZeroDivisionError, match="by design"):  # a defect stays one
        inspection.apart(fail, tmp_path, 8, lambda done, total: None)


@pytest.mark.usefixtures("here")
def test_a_flood_of_findings_is_cut_on_the_screen_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bench(tmp_path / "u.hdf5")
    with h5py.File(path, "r+") as file:
        file["tensor"][2, ::2] = np.nan  # twenty frames, none beside another
    assert main(["data", "check", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.count("error    ") == 9 and "and 12 more of this kind (not finite)" in out
    assert out.splitlines()[-1].endswith("20 errors, 0 warnings, 0 notes")
    assert main(["data", "check", str(path), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 20
