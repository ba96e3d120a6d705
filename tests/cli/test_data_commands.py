from __future__ import annotations

from pathlib import Path

import pytest
from settings import make_steady_store

from physml.cli.main import main


def test_static_fields_and_numbers_are_told_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    assert main(["data", "inspect", store.path]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line)
    s = store.statistics
    expected = f"[m] mean {s.static_mean[0]:.4g}, std {s.static_std[0]:.4g}, does not change in time"
    assert told["static coefficient"].strip() == expected
    assert told["parameter strength"].strip() == "0.5 to 5.5" and told["trajectories"].strip() == "6 of one frame"
    assert "change per frame" not in told["field response"]
    chunk = Path(store.path) / "static/c/3/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    assert main(["data", "inspect", store.path]) == 2
    assert "static fields of trajectory 3 cannot be decoded" in " ".join(capsys.readouterr().err.split())
