from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from crashes import crash, in_this_process
from waves import make_store

from physml.cli import data_convert
from physml.cli.main import main
from physml.datasets import TrajectoryStore


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; data are read in this process, which saves the start of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data_convert, "apart", in_this_process)
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


def test_a_part_of_the_data_becomes_a_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = arrays(here)
    line = "data convert runs.npy x.zarr --map meaning.yaml --frames 1:5:2 --trajectories 1: --fields u"
    assert main(line.split()) == 0
    store = TrajectoryStore(here / "x.zarr")
    assert (store.count, store.frames, store.layout.dt) == (2, 2, 1.0)
    np.testing.assert_array_equal(store.read(1, 0, 2)[..., 0], values[2, 1:5:2])
    assert store.provenance["converted"]["provenance"]["selected"]["frames"] == [1, 4, 2]
    capsys.readouterr()
    assert main(line.split()) == 0  # nothing to do
    for wrong, message in (
        ("--frames :4", "holds a store of other data"),
        ("--fields v", "fields: got 'v'; meaning.yaml has u"),
        ("--static rock", "static: got 'rock'; meaning.yaml has none"),
        ("--frames 5:", "frames: got 5:, which leaves none of trajectory 0"),
    ):
        assert main(f"data convert runs.npy x.zarr --map meaning.yaml {wrong}".split()) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_bar_says_what_is_going_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays are read once more for their fingerprint, before anything is written."""
    arrays(here)
    told: list[str] = []
    monkeypatch.setattr("rich.progress.Progress.reset", lambda *_, description, **__: told.append(description))
    assert main(["data", "convert", "runs.npy", "x.zarr", "--map", "meaning.yaml"]) == 0
    assert told == ["reading runs.npy to identify it", "converting runs.npy"]


def test_a_crash_of_a_library_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "waves.zarr")
    monkeypatch.setattr(data_convert, "written", crash)
    assert main(["data", "convert", store.path, str(tmp_path / "x.zarr")]) == 2
    assert f"{store.path}: the program crashed while it read this" in " ".join(capsys.readouterr().err.split())


def test_processes_of_a_process_are_told_of_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The process that reads starts others, and what goes wrong there is told here."""
    store = make_store(tmp_path / "waves.zarr")
    (tmp_path / "waves.zarr/state/c/0/0/0/0/0").write_bytes(b"0" * 50)
    assert main(["data", "convert", store.path, str(tmp_path / "x.zarr"), "--workers", "2", "--debug"]) == 2
    said = capsys.readouterr().err
    assert "trajectory 0, frames 0 to" in said and "in written" in said  # the place there
