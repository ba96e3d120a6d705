from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from settings import make_steady_store
from waves import make_store

from physml.cli.main import main
from physml.datasets import TrajectoryStore


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrays(here: Path) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((3, 5, 8)).astype(np.float32)
    np.save(here / "runs.npy", values)
    mapping = {
        "fields": {"u": {"units": "m/s"}},
        "dimensions": ["trajectory", "time", "x"],
        "axes": {"x": {"start": 0, "stop": 1, "endpoint": False, "boundary": "periodic"}},
        "time": {"dt": 0.5},
        "split": {"along": "trajectory", "train": [0, 2], "test": [2, 3]},
    }
    (here / "meaning.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False))
    return values


def test_arrays_become_a_store_by_a_mapping_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = arrays(here)
    line = ["data", "convert", "runs.npy", "folder/x.zarr", "--map", "meaning.yaml"]
    assert main(line) == 0
    store = TrajectoryStore(here / "folder/x.zarr")
    said = capsys.readouterr().out
    assert said.strip() == f"folder/x.zarr: 3 trajectories, 15 frames, verified, fingerprint {store.fingerprint}"
    np.testing.assert_array_equal(store.read(2, 0, 5)[..., 0], values[2])
    assert store.layout.fields[0].units == "m/s" and store.layout.dt == 0.5
    assert main(line) == 0 and capsys.readouterr().out == said  # nothing to do
    np.save(here / "runs.npy", values + 1)
    assert main(line) == 2
    assert "holds a store of other data" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("runs.npy x", "data convert: DST is x expected: a name that ends in .zarr"),
        ("runs.npy x.zarr", "nothing says which dimension is which"),
        ("runs.npy x.zarr --map meening.yaml", "no file meening.yaml did you mean meaning.yaml?"),
        ("rums.npy x.zarr --map meaning.yaml", "no data set rums.npy"),
        ("runs.npy runs.npy/x.zarr --map meaning.yaml", "DST runs.npy/x.zarr: runs.npy is no folder"),
        ("runs.npy x.zarr --map meaning.yaml --workers 0", "expected a whole number, 1 or more"),
        ("runs.npy", "missing: DST"),
    ],
)
def test_mistakes_are_told(here: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    arrays(here)
    assert main(["data", "convert", *line.split()]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (here / "x.zarr").exists()


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
