"""Which change buys what: the FactFormer of an experiment with one thing changed at a time, for equal seconds.

``python experiments/ablation.py`` trains each variant of ``experiments/kolmogorov2d/factformer.yaml`` below with one
seed, rolls out, measures, and writes ``ablation.json``. Compiling is not training and does not count. Interrupted, the
same call continues.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from table import HERE, Measurements, make_data, row, run, write

OPERATOR, NN = "--model.operator.init_args.", "physml.nn."
VARIANTS: dict[str, list[Any]] = {
    "default": [],
    "chained": [OPERATOR + "product", "chained"],
    "no-convolution": [OPERATOR + "convolution", 0],
    "no-feedforward": [OPERATOR + "feedforward", 0],
    "published-kernels": [OPERATOR + "kernels", f"{{class_path: {NN}factorised.PublishedKernels}}"],
    "plane-norm": [OPERATOR + "norm", f"{{class_path: {NN}factorised.PlaneNorm}}"],
    "no-layer-norm": [OPERATOR + "layer_norm", "false"],
    "rms-norm": [OPERATOR + "norm", f"{{class_path: {NN}factorised.RMSNorm}}"],
    "fourier-features": [OPERATOR + "positions", f"{{class_path: {NN}positional.FourierFeatures}}"],
    "no-positions": [OPERATOR + "positions", "null"],
    "states": ["--model.normaliser", "{class_path: physml.normalise.Standardise}"],
    "no-patches": [OPERATOR + "patch", 1, OPERATOR + "width", 96, OPERATOR + "heads", 3],
    "patch-2": [OPERATOR + "patch", 2],
    "patch-2-width-192": [OPERATOR + "patch", 2, OPERATOR + "width", 192, OPERATOR + "heads", 6],
    "width-256": [OPERATOR + "width", 256, OPERATOR + "heads", 8],
    "width-512": [OPERATOR + "width", 512, OPERATOR + "heads", 16],
    "no-blend": [OPERATOR + "blend", 0],
    "depth-6": [OPERATOR + "depth", 6],
    "half-rate": ["--model.optimizer.init_args.lr", 1e-3],
    "double-rate": ["--model.optimizer.init_args.lr", 4e-3],
    "batch-16": ["--data.init_args.batch_size", 16],
    "noise": ["--model.objective.init_args.noise", 0.01],
    "one-call": ["--model.objective.init_args.calls", 1],
    "two-calls-throughout": ["--model.objective.init_args.chained_from", 0.0],
    "four-calls": ["--model.objective.init_args.calls", 4],
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), help="some of the variants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=25, help="seconds of training each")
    parser.add_argument("--steps", type=int, default=64, help="frames to roll out")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of all results")
    given = parser.parse_args()
    file = HERE / "kolmogorov2d" / "factformer.yaml"
    named = Path(yaml.safe_load(file.read_text())["data"]["init_args"]["store"])
    store = given.data / named
    make_data(store, named)
    measurements, rows = Measurements(), {}
    rolled = ["--steps", given.steps, "--starts", 1]
    for name in given.only or VARIANTS:
        fit = ["-c", file, "--seed_everything", given.seed, "--model.budget", given.budget]
        run(name, [*fit, *VARIANTS[name]], given.out, store, rolled, measurements)
    measurements.finish()
    for name in given.only or VARIANTS:
        rows[name] = row(given.out / name / "last.ckpt", given.out / "results" / name)
    write("kolmogorov2d ablation", rows, given.out / "ablation.json")
