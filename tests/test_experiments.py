"""Every experiment: parsed, made on the device meta, counted; the small ones trained for a step; the demonstration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from waves import make_store

from physml.cli.main import main

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/*.yaml"))
COUNTS = {
    "kolmogorov2d/factformer_published": (3_463_489, 3_464_001),  # arXiv 2305.17560 and its published code
}


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_there_are_experiments() -> None:
    assert len(EXPERIMENTS) >= 8


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_an_experiment_is_counted_without_data(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "-c", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    tree = yaml.safe_load(path.read_text())
    operator = tree["model"]["operator"]["init_args"]
    shape = tree["data"]["init_args"]["shape"]
    assert told["input_shape"] == [operator["frames"], *shape, operator["channels"]]
    assert told["output_shape"] == [operator["steps"], *shape, operator["channels"]]
    assert told["forward_flops"] > 1e6
    if name_of(path) in COUNTS:
        assert (told["parameters"]["trainable"], told["parameters"]["total"]) == COUNTS[name_of(path)]
    assert told["parameters"]["trainable"] <= told["parameters"]["total"]


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in EXPERIMENTS
        if path.parent.name in ("demo", "cylinder_wake", "real") or name_of(path) == "darcy/fno"
    ],
    ids=name_of,
)
def test_a_small_experiment_takes_a_step(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(path.read_text())
    channels, data = tree["model"]["operator"]["init_args"]["channels"], tree["data"]["init_args"]
    if channels == 1 and path.parent.name == "demo":
        data |= {"store": make_store(tmp_path / "tiny.zarr", frames=24, shape=(32, 32)).path, "shape": [32, 32]}
    elif path.parent.name == "real":  # the store is a mapping file of this repository, and names a file of the data
        data["store"] = str(ROOT / data["store"])
        needed = yaml.safe_load(Path(data["store"]).read_text())["file"]
        if not (Path(os.environ.get("PHYSML_DATA") or "data") / needed).is_file():
            pytest.skip(f"PHYSML_DATA is not set to a folder with {needed}")
    elif not (Path(os.environ.get("PHYSML_DATA") or "data") / data["store"]).is_dir():
        pytest.skip(f"PHYSML_DATA is not set to a folder with {data['store']}")
    tree["trainer"] |= {"max_steps": 1, "limit_val_batches": 1, "val_check_interval": 1, "enable_progress_bar": False}
    tree["trainer"] |= {"num_sanity_val_steps": 0, "accelerator": "cpu"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    assert main(["fit", "-c", "run.yaml", "--trainer.default_root_dir", "run"]) == 0
    assert (tmp_path / "run" / "last.ckpt").exists()


def test_the_demonstration_runs_at_its_smallest(tmp_path: Path) -> None:
    line = [sys.executable, str(ROOT / "experiments/demo/run.py"), "--smallest"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    report = tmp_path / "runs/demo/report"
    assert "<html" in (report / "index.html").read_text()[:200]
    told = json.loads((report / "metrics.json").read_text())
    assert {"factformer", "fno", "persistence"} <= set(json.dumps(told).replace('"', " ").split())
    assert (report / "animation.gif").stat().st_size > 1000
