from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from crashes import crash, fail, in_this_process, read_and_sleep, sleep, work
from waves import make_store

from physml.cli import data_check
from physml.cli.apart import Lost, apart
from physml.cli.main import main

TESTS = Path(__file__).parents[1]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are checked in this process, which saves the start of another."""
    monkeypatch.setattr(data_check, "apart", in_this_process)


def bench(path: Path) -> Path:
    """A file of PDEBench."""
    with h5py.File(path, "w") as file:
        u = np.random.default_rng(0).standard_normal((4, 40, 8)).astype(np.float32)
        file.create_dataset("tensor", data=u, chunks=(2, 5, 8), compression="gzip", shuffle=True)
        file["x-coordinate"], file["t-coordinate"] = np.arange(8) / 8, 0.5 * np.arange(40)
    return path


def test_says_nothing_of_what_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "waves.zarr")
    assert main(["data", "check", store.path]) == 0
    assert capsys.readouterr().out == f"{store.path}: nothing is wrong: every frame is readable and finite\n"
    assert main(["data", "check", store.path, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain == {"path": store.path, "errors": 0, "warnings": 0, "notes": 0, "findings": []}


@pytest.mark.usefixtures("here")
def test_tells_all_and_fails_for_errors_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_of_what_cannot_be_opened_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    assert main(["data", "check", str(tmp_path / "a.hdf5"), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["kind"] == "opening" and found["file"] == str(tmp_path / "a.hdf5")
    assert main(["data", "check", str(tmp_path)]) == 1
    assert main(["data", "check", str(tmp_path / "nothing")]) == 2  # a mistake in the line, not in the data


def test_a_crash_of_a_library_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 may crash on files whose structure is damaged; what it does not survive is told by another process."""
    said: list[tuple[Any, ...]] = []
    store = make_store(tmp_path / "waves.zarr")
    assert apart(data_check.findings, Path(store.path), 8, hear=lambda *words: said.append(words)) == []
    assert said[0] == ("reading", 0, 0) and said[-1] == ("done", 120, 120)
    state: Any = zarr.open_group(make_store(tmp_path / "bad.zarr").path, mode="r+")["state"]
    state[0, 0] = np.nan
    (known,) = data_check.findings(tmp_path / "bad.zarr", 8, lambda *words: None)
    monkeypatch.setattr(data_check, "findings", crash)
    assert main(["data", "check", store.path, "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["severity"], found["kind"], found["place"]) == ("error", "opening", store.path)
    assert "crashed" in found["what"] and set(found) == set(known)  # so that programs need not care which it was
    with pytest.raises(ZeroDivisionError, match="by design"):  # a defect stays one
        apart(fail, tmp_path)


def test_reading_that_hangs_is_a_finding_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "waves.zarr")
    for function, kind, trajectory, frame in ((sleep, "opening", None, None), (read_and_sleep, "unreadable", 3, 16)):
        monkeypatch.setattr(data_check, "findings", function)
        assert main(["data", "check", store.path, "--json", "--patience", "0.5"]) == 1
        (found,) = json.loads(capsys.readouterr().out)["findings"]
        assert found["what"] == "reading hangs: for 0.5 seconds nothing was read" and "--patience" in found["remedy"]
        assert (found["severity"], found["kind"]) == ("error", kind)
        assert (found["trajectory"], found["frame"]) == (trajectory, frame)
    assert found["place"] == f"{store.path}, trajectory 3, frame 16"


def test_work_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """Each sign of life, a word or bytes that are read, begins the wait anew: eight of a quarter of a second each."""
    (tmp_path / "file").write_bytes(b"0")
    for kind in ("speaks", "reads"):
        assert apart(work, kind, str(tmp_path / "file"), patience=1.5) == kind
    with pytest.raises(Lost, match="hangs"):
        apart(work, "sleeps", str(tmp_path / "file"), patience=1.5)


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


def test_a_process_ends_with_the_one_that_waits_for_it(tmp_path: Path) -> None:
    """Even where that is killed, and can tell nobody."""
    code = (
        "import crashes, sys; from pathlib import Path; from physml.cli.apart import apart\n"
        "if __name__ == '__main__': apart(crashes.name_and_sleep, sys.argv[1])\n"
    )
    (tmp_path / "run.py").write_text(code)
    path = os.pathsep.join([*map(str, (TESTS, TESTS.parent)), os.environ.get("PYTHONPATH", "")])
    mark = tmp_path / "pid"
    waiting = subprocess.Popen([sys.executable, tmp_path / "run.py", mark], env=os.environ | {"PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(mark.read_text())
    os.kill(child, 0)  # is there
    waiting.kill()
    waiting.wait()
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline and not _is_zombie(child):
        time.sleep(0.05)
    assert time.monotonic() < deadline, "it goes on"


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
