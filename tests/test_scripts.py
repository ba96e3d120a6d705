"""The programs in ``experiments/``, at the smallest size that runs all of their code."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from waves import make_store

from physml.cli.main import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def loaded(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str((EXPERIMENTS / path).parent))
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", EXPERIMENTS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_speed_measures_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = loaded("speed/run.py", monkeypatch)
    line = ["run.py", "default-128", "block-64", "--json", "--eager", "--precision", "fp32", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", line)
    assert script.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["case"] for row in told["rows"]] == ["default-128", "block-64"]
    assert all(row["train_ms"] > row["infer_ms"] > 0 for row in told["rows"])
    assert told["matrix_tflops"] > 0 and told["copy_tbps"] > 0


def test_speed_measures_reading(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = loaded("speed/run.py", monkeypatch)
    line = ["run.py", "loader", "--json", "--points", "16", "--windows", "8", "--soak", "160"]
    monkeypatch.setattr(sys, "argv", line)
    assert script.main() == 0
    told = json.loads(capsys.readouterr().out)
    [size] = told["sizes"]
    assert {"physml, The Well", "physml, store"} <= {row["source"] for row in size["rows"]}
    for row in size["rows"]:
        assert row["window_mb"] == 8 * 16 * 16 * 5 * 4 / 1e6
        assert min(row["first_window_ms"], row["warm"]["windows_per_s"], *row["cold"].values()) > 0
        assert len(row["memory"]["curve_mib"]) >= 10 and row["memory"]["spread"] >= 0
    by_well, by_store = (size["rows"][at]["warm"] for at in (0, 1))
    assert by_well["read"] > 0 == by_well["decode"] < by_store["decode"]
    assert loaded("speed/loader.py", monkeypatch).table(told).count("16²") == len(size["rows"])


def test_every_speed_case_can_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    script = loaded("speed/run.py", monkeypatch)
    for name, case in script.CASES.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in script.operator_of(case).parameters()) > 1e5, name


def test_speed_compares_rollouts_with_the_solver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = loaded("speed/rollout.py", monkeypatch)
    line = ["rollout.py", "--points", "32", "--batch", "1", "--length", "4", "--truth", "48", "--json"]
    monkeypatch.setattr(sys, "argv", line)
    assert script.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"][0]["surrogate_ms"] > 0 and told["rows"][0]["solver_ms"] > 0


def test_a_coarse_solver_started_from_a_cut_state_holds_its_low_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting a state to a coarser grid and looking at it there is what the finer solver stores at that size, but for
    the waves beyond a third of the coarse grid.
    """
    import torch

    script = loaded("speed/rollout.py", monkeypatch)
    fine, coarse = script.solver(96, 1, 24), script.solver(48, 1, 24)
    state = fine.initial([0])
    a, b = fine.observe(state), coarse.observe(script.cut(state, 48))
    # 24 points hold waves below 12, the coarse solver those below 16: nothing is missing
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_every_ablation_changes_the_experiment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = loaded("ablation.py", monkeypatch)
    file = EXPERIMENTS / "kolmogorov2d" / "factformer.yaml"
    tree = yaml.safe_load(file.read_text())
    for name, change in script.VARIANTS.items():
        assert main(["info", "-c", str(file), "--json", *map(str, change)]) == 0, name
        assert json.loads(capsys.readouterr().out)["forward_flops"] > 0
        for key, value in zip(change[::2], change[1::2], strict=True):
            place = tree
            for part in key.removeprefix("--").split("."):
                place = place.get(part, {}) if isinstance(place, dict) else {}
            assert place != yaml.safe_load(str(value)), f"{name} sets {key} to what it is"


def test_a_table_trains_rolls_out_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    make_store(tmp_path / "data" / "tiny" / "waves.zarr", frames=24)
    folder = tmp_path / "experiments" / "tiny"
    folder.mkdir(parents=True)
    tree = yaml.safe_load((EXPERIMENTS / "demo" / "factformer.yaml").read_text())
    tree["model"] |= {"budget": 0.2}
    tree["model"]["operator"]["init_args"] |= {"width": 16, "depth": 1, "heads": 2, "head_width": 8}
    tree["data"]["init_args"] |= {"store": "tiny/waves.zarr", "shape": [16, 16], "batch_size": 2, "starts": 1}
    tree["trainer"] = {"val_check_interval": 2, "num_sanity_val_steps": 0, "log_every_n_steps": 2}
    (folder / "factformer.yaml").write_text(yaml.safe_dump(tree))
    copy = tmp_path / "experiments" / "table.py"
    copy.write_text((EXPERIMENTS / "table.py").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py", "tiny", "--seeds", "0", "--steps", "4"])
    runpy.run_path(str(copy), run_name="__main__")
    told = json.loads((tmp_path / "runs" / "table" / "tiny" / "table.json").read_text())
    assert set(told["rows"]) == {"factformer-0", "persistence"}
    assert told["rows"]["factformer-0"]["steps"] >= 1
    assert len(told["rows"]["persistence"]["frame_error"]) == 4
