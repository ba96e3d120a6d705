"""The results table of an experiment: every operator of a folder, trained for the same time on the same data.

``python experiments/table.py kolmogorov2d --seeds 0 1 --steps 64`` makes the data where they are missing, trains each
``experiments/kolmogorov2d/*.yaml`` with each seed for the seconds that its ``budget`` says (or ``--budget``), rolls out
beside persistence, measures in other processes while the next operator trains (give it more than eight processor cores
for that), and writes ``table.json``.
Interrupted, the same call continues. Every line it runs is printed and can be typed by itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from physml.checkpoint import read
from physml.cli.main import main
from physml.results import load, over_samples

HERE = Path(__file__).parent
WAITING = 3  # measurements at once


def command(*words: Any) -> None:
    """Run one command in this process; leave with its exit code where it fails."""
    line = [str(word) for word in words]
    print(f"\n$ physml {' '.join(line)}", flush=True)
    began = time.perf_counter()
    code = main(line)
    print(f"  ({time.perf_counter() - began:.0f} s)", flush=True)
    if code:
        sys.exit(code)
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Measurements:
    """``physml evaluate`` in processes of their own, a few at once."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, rollout: Path, out: Path) -> None:
        if (out / "metrics.json").exists():
            return
        while len([one for one in self._running if one.poll() is None]) >= WAITING:
            time.sleep(0.2)
        line = [sys.executable, "-m", "physml", "evaluate", str(rollout), "--out", str(out)]
        # few threads each: the next operator trains by the clock meanwhile
        few = os.environ | {"OMP_NUM_THREADS": "2"}
        self._running.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, env=few))

    def finish(self) -> None:
        failed = [" ".join(map(str, one.args)) for one in self._running if one.wait()]  # type: ignore[arg-type]
        if failed:
            sys.exit(f"failed: {'; '.join(failed)}")


def row(checkpoint: Path | None, results: Path) -> dict[str, Any]:
    """What one run took and what came of it."""
    found, table = json.loads((results / "metrics.json").read_text()), load(results)
    told: dict[str, Any] = {"blowups": found["blowups"], "correlation_time": found["correlation_time"]}
    joint = over_samples(table, "relative_l2")
    told["relative_l2"] = {int(h): float(m) for h, m in zip(joint["horizon"].values, joint["mean"].values, strict=True)}
    told["frame_error"] = [float(m) for m in over_samples(table, "nrmse")["mean"].mean("field").values]
    for name in ("divergence", "residual"):
        if name in table:
            told[name] = [float(m) for m in over_samples(table, name)["mean"].values]
    if "log_spectral_error" in table:
        spectral = table["log_spectral_error"]
        told["log_spectral_error"] = [float(m) for m in spectral.values.reshape(spectral.shape[0], -1).mean(axis=1)]
    if checkpoint is not None:
        state = read(checkpoint)
        told["steps"], told["seconds"] = int(state["global_step"]), float(state["training_seconds"])
    return told


def make_data(store: Path, named: Path) -> None:
    """The data set, from the recipe of the same name, where it is missing."""
    if not store.exists():
        recipe = (HERE.parent / "data" / named).with_suffix(".yaml")
        command("data", "make", named.parts[0], "-c", recipe, "--out", store)


def run(name: str, fit: list[Any], out: Path, store: Path, rolled: list[Any], measurements: Measurements) -> None:
    """Train, roll out and begin to measure one row."""
    quiet = ["--trainer.default_root_dir", out / name, "--trainer.enable_progress_bar", "false"]
    command("fit", *fit, "--data.init_args.store", store, *quiet)
    rollout = out / f"{name}.zarr"
    command("rollout", out / name / "last.ckpt", "--data", store, *rolled, "--out", rollout)
    measurements.start(rollout, out / "results" / name)


def write(problem: str, rows: dict[str, Any], path: Path) -> None:
    """The table, with the hardware."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    table = {"problem": problem, "hardware": hardware, "torch": torch.__version__, "rows": rows}
    path.write_text(json.dumps(table, indent=1))
    print(f"wrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem", help="a folder of experiments")
    parser.add_argument("--only", nargs="+", help="operators, by the names of their YAML files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--budget", type=float, help="seconds of training instead of the YAML's")
    parser.add_argument("--steps", type=int, required=True, help="frames to roll out, no more than the data hold")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--out", type=Path, default=None, help="folder of all results (default: runs/table/PROBLEM)")
    given = parser.parse_args()
    files = sorted((HERE / given.problem).glob("*.yaml"))
    files = [file for file in files if not given.only or file.stem in given.only]
    out = given.out or Path("runs/table") / given.problem
    trees = {file.stem: yaml.safe_load(file.read_text()) for file in files}
    history = max(tree["model"]["operator"]["init_args"].get("frames", 0) for tree in trees.values())
    named = Path(next(iter(trees.values()))["data"]["init_args"]["store"])
    store = given.data / named
    make_data(store, named)
    measurements = Measurements()
    rolled = ["--history", history, "--steps", given.steps, "--starts", 1]
    for file in files:
        for seed in given.seeds:
            fit = ["-c", file, "--seed_everything", seed]
            fit += [] if given.budget is None else ["--model.budget", given.budget]
            run(f"{file.stem}-{seed}", fit, out, store, rolled, measurements)
    rollout = out / "persistence.zarr"
    command("rollout", "persistence", "--data", store, *rolled, "--out", rollout)
    measurements.start(rollout, out / "results" / "persistence")
    measurements.finish()
    names = [f"{file.stem}-{seed}" for file in files for seed in given.seeds]
    rows = {name: row(out / name / "last.ckpt", out / "results" / name) for name in names}
    rows["persistence"] = row(None, out / "results" / "persistence")
    write(given.problem, rows, out / "table.json")
