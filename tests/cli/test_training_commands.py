from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from waves import make_store

from physml.cli.main import main


def experiment(folder: Path, **changes: Any) -> Path:
    make_store(folder / "waves.zarr")
    tree = {
        "seed_everything": 1,
        "model": {
            "operator": {
                "class_path": "physml.operators.FactFormer",
                "init_args": {"axes": 2, "frames": 2, "steps": 1, "width": 8, "depth": 1, "heads": 2, "head_width": 4},
            },
            "normaliser": {"class_path": "physml.normalise.Increments"},
            "objective": {"class_path": "physml.objectives.NextStep", "init_args": {"noise": 0.0}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
            "assessment": {"class_path": "physml.assessment.RolloutAssessment", "init_args": {"steps": 4}},
        },
        "data": {
            "class_path": "physml.datasets.TrajectoryData",
            "init_args": {"store": str(folder / "waves.zarr"), "shape": [16, 16], "batch_size": 4, "starts": 3},
        },
        "trainer": {
            "max_steps": 6,
            "val_check_interval": 3,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
        },
    }
    for key, value in changes.items():
        node: Any = tree
        *path, last = key.split("__")
        for name in path:
            node = node[name]
        node[last] = value
    path_ = folder / "waves.yaml"
    path_.write_text(yaml.safe_dump(tree))
    return path_


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()


def test_fit_then_test_then_fit_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    assert main(["fit", "-c", str(config)]) == 0
    assert {path.name for path in Path("runs/exp/waves").iterdir()} >= {"best.ckpt", "last.ckpt", "experiment.yaml"}
    assert "best weights: runs/exp/waves/best.ckpt" in capsys.readouterr().out
    assert main(["test", "-c", str(config)]) == 0
    assert "test/rollout" in capsys.readouterr().out
    assert main(["validate", "-c", str(config), "runs/exp/waves/last.ckpt"]) == 0
    capsys.readouterr()
    assert main(["fit", "-c", str(config)]) == 0
    assert "is complete (6 steps)" in capsys.readouterr().out
    assert main(["fit", "-c", str(config), "--trainer.max_steps", "8"]) == 0
    assert "continuing runs/exp/waves at step 6 of 8" in capsys.readouterr().out


def test_scoring_random_weights_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    for verb in ("test", "validate"):
        assert main([verb, "-c", str(config)]) == 2
        assert "random weights are never scored" in capsys.readouterr().err


def test_another_run_in_the_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    assert main(["fit", "-c", str(config)]) == 0
    capsys.readouterr()
    assert main(["fit", "-c", str(config), "--model.operator.init_args.width", "16"]) == 2
    error = capsys.readouterr().err
    assert "model.operator.init_args.width: 8 there, 16 here" in " ".join(error.split()) and error.count("\n") <= 6


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    config = experiment(tmp_path / "exp")
    Path("runs/exp/waves").mkdir(parents=True)
    with open("runs/exp/waves/.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["fit", "-c", str(config)]) == 2
    assert "in use by another 'physml fit'" in " ".join(capsys.readouterr().err.split())
    assert main(["fit", "-c", str(config)]) == 0


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("data__init_args__batch_size", -8, "got batch_size=-8"),
        ("model__operator__init_args__depth", 0, "depth: got 0, expected at least 1"),
        ("model__objective__init_args__noise", -1.0, "noise=-1.0"),
        ("model__operator__init_args__channels", 2, "has the fields vorticity"),
        ("data__init_args__shape", [16, 8], "the run is made for [16, 8] points"),
    ],
)
def test_values_that_fit_refuses_are_refused_by_info(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, told: str
) -> None:
    config = experiment(tmp_path / "exp", **{key: value})
    assert main(["info", "-c", str(config)]) == 2
    error = capsys.readouterr().err
    assert told in " ".join(error.split()) and error.count("\n") <= 6


def test_a_checkpoint_of_another_operator_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    assert main(["fit", "-c", str(config)]) == 0
    other = {"class_path": "physml.operators.UNet", "init_args": {"axes": 2, "channels": 1, "frames": 2, "width": 8}}
    changed = experiment(tmp_path / "exp", model__operator=other)
    assert main(["test", "-c", str(changed), "runs/exp/waves/last.ckpt"]) == 2
    assert "FactFormer" in capsys.readouterr().err


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    assert main(["fit", "-c", str(config)]) == 0
    line = ["test", "-c", str(config), "runs/exp/waves/last.ckpt", "--model.operator.init_args.width", "16"]
    assert main(line) == 2
    assert "operator.init_args.width: 8 there, 16 here" in " ".join(capsys.readouterr().err.split())


def test_info_counts_without_data_or_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp", data__init_args__store="nowhere.zarr")
    assert main(["info", "-c", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["input_shape"] == [2, 16, 16, 1] and told["output_shape"] == [1, 16, 16, 1]
    assert told["parameters"]["trainable"] > 0 and told["forward_flops"] > 0
    assert main(["info", "-c", str(config), "--measure"]) == 0
    assert "seconds per step" in capsys.readouterr().out


def test_a_step_that_cannot_fit_is_refused_with_its_estimate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = experiment(tmp_path / "exp", data__init_args__batch_size=10**7)
    assert main(["info", "-c", str(config), "--measure"]) == 2
    error = capsys.readouterr().err
    assert "would need about" in error and "GiB" in error and error.count("\n") <= 6


def test_a_damaged_store_is_one_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = experiment(tmp_path / "exp")
    chunk = next(path for path in (tmp_path / "exp/waves.zarr/state/c/0").rglob("*") if path.is_file())
    chunk.write_bytes(b"")
    assert main(["fit", "-c", str(config)]) == 2
    error = capsys.readouterr().err
    assert "trajectory 0" in error and error.count("\n") <= 6
    capsys.readouterr()
    assert main(["data", "check", str(tmp_path / "exp/waves.zarr")]) == 1
    assert "error    " in capsys.readouterr().out


def test_two_processes_give_the_metrics_of_one(tmp_path: Path) -> None:
    """The same batches, divided: plain SGD makes the weights equal up to the order of sums."""
    config = experiment(tmp_path / "exp")
    results = []
    for devices in (1, 2):
        folder = f"runs/{devices}"
        line = ["fit", "-c", str(config), "--trainer.devices", str(devices), "--trainer.default_root_dir", folder]
        done = subprocess.run([sys.executable, "-m", "physml", *line], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        saved = torch.load(f"{folder}/last.ckpt", weights_only=True)
        rows = Path(folder).rglob("metrics.csv")
        results.append((saved["state_dict"], next(rows).read_text()))
    for name, value in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], value, rtol=1e-5, atol=1e-6)
    scores = []
    for _, text in results:
        head, *rows = (line.split(",") for line in text.splitlines())
        scores.append([float(row[head.index("val/rollout")]) for row in rows if row[head.index("val/rollout")]])
    assert len(scores[0]) == 2  # three samples, which two processes cannot share equally: none is counted twice
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_a_grid_that_is_not_named_is_that_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for shape in ([16, 16], None):
        config = experiment(tmp_path / "exp", data__init_args__shape=shape)
        assert main(["info", "-c", str(config)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] and "(B, 2, 16, 16, 1)" in told[1]
    assert main(["fit", "-c", str(config)]) == 0
    capsys.readouterr()
    assert main(["info", "-c", str(config), "--data.init_args.shape", "[8, 8]"]) == 2
    assert "is made for [8, 8] points" in " ".join(capsys.readouterr().err.split())
    assert main(["info", "-c", str(config), "--data.init_args.boundaries", "[wall, wall]"]) == 2
    assert "made for [16, 16] points, wall, wall" in " ".join(capsys.readouterr().err.split())
    assert main(["info", "-c", str(config), "--data.init_args.store", "nowhere.zarr"]) == 2
    assert "data.init_args.shape: not given, and the data are not there" in " ".join(capsys.readouterr().err.split())
