from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crashes import crash, in_this_process
from settings import make_steady_store
from waves import make_store

from physml.cli import data_stats
from physml.cli.main import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; data are read in this process, which saves the start of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_stats, "apart", in_this_process)
    return tmp_path


def test_stats_are_those_of_the_split(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(here / "waves.zarr")
    assert main(["data", "stats", "waves.zarr", "--json"]) == 0
    said = capsys.readouterr()
    told, s = json.loads(said.out), store.statistics  # the bar goes elsewhere
    values = np.concatenate([store.read(row, 0, store.frames) for row in range(4)]).astype(np.float64)
    expected = {
        "mean": values.mean(),
        "std": values.std(),
        "increment_std": s.increment_std[0],
        "rms": np.sqrt((values**2).mean()),
        "min": values.min(),
        "max": values.max(),
    }
    assert told["fields"]["vorticity"].keys() == {"units", *expected} and told["frames"] == 4 * store.frames
    assert told["fields"]["vorticity"]["units"] == "1/s"
    for name, value in expected.items():
        assert told["fields"]["vorticity"][name] == pytest.approx(value, rel=1e-10, abs=1e-12), name  # float64 sums
    assert told["energy"] == pytest.approx(s.energy, rel=1e-12)
    assert told["parameters"]["viscosity"]["mean"] == pytest.approx(0.025) and told["static"] == {}
    assert main(["data", "stats", "waves.zarr", "--json", "--split", "test"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["fields"]["vorticity"]["max"] == float(store.read(5, 0, store.frames).max())
    assert told["parameters"]["viscosity"] == {"mean": 0.06, "std": 0.0}
    assert main(["data", "stats", "waves.zarr", "--split", "tset"]) == 2
    wrong = " ".join(capsys.readouterr().err.split())
    assert "no split 'tset'" in wrong and "did you mean 'test'?" in wrong


def test_stats_are_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_steady_store(here / "steady.zarr")
    assert main(["data", "stats", "steady.zarr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "steady (steady.zarr), split train, 4 frames"
    assert lines[2].split() == ["units", "mean", "std", "increment_std", "rms", "min", "max"]
    rows = {line[: lines[2].index("units")].strip(): line[lines[2].index("units") :].split() for line in lines[3:-2]}
    still = np.stack([store.read_static(row) for row in range(4)]).astype(np.float64)
    assert list(rows) == ["response", "static coefficient", "parameter age", "parameter strength"]
    assert rows["response"][0] == "1" and rows["static coefficient"][0] == "m"
    assert rows["static coefficient"][1:3] == [f"{still.mean():.6g}", f"{still.std():.6g}"]
    assert rows["parameter strength"] == ["2", f"{np.sqrt(1.25):.6g}"]
    assert lines[-1] == f"largest energy of a frame: {store.statistics.energy:.6g}"


def test_a_crash_of_a_library_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "waves.zarr")
    monkeypatch.setattr(data_stats, "measured", crash)
    assert main(["data", "stats", store.path]) == 2
    assert f"{store.path}: the program crashed while it read this" in " ".join(capsys.readouterr().err.split())


def test_the_process_that_reads_leaves_no_locks_behind(tmp_path: Path) -> None:
    """One that is killed as soon as it has said the last word does, and Python warns of it when it ends."""
    store = make_store(tmp_path / "a.zarr")
    line = [sys.executable, "-m", "physml", "data", "stats", store.path]
    ran = subprocess.run(line, capture_output=True, text=True)
    assert ran.returncode == 0 and "resource_tracker" not in ran.stderr, ran.stderr
