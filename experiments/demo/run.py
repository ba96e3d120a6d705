"""The demonstration: every command from nothing to a report, in one process.

``make demo`` runs it; ``--smallest`` runs the same commands at a size for tests. Each command is printed before it runs
and can be typed by itself. Interrupted, the same call continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from physml.cli.main import main

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "data" / "kolmogorov2d" / "demo.yaml"
SMALLEST = {
    "make": "--trajectories 4 --frames 24 --grid 32 --solve_grid 32 --step 0.03125 --warmup_time 0.5"
    " --test 0.25 --validation 0.25",
    "fit": "--trainer.max_steps 4 --data.init_args.shape [32,32]",
    "steps": "8",
}
FULL = {"make": "", "fit": "", "steps": "32"}


def run(line: str) -> None:
    """Run one command; leave with its exit code where it fails."""
    print(f"\n$ physml {line}", flush=True)
    started = time.perf_counter()
    code = main(line.split())
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)
    if code:
        sys.exit(code)


def demonstrate(size: dict[str, str], data: Path, folder: Path) -> Path:
    """Make data, train two operators, roll out beside persistence, measure, report."""
    store = data / "demo.zarr"
    run(f"data make kolmogorov2d -c {RECIPE} --out {store} {size['make']}")
    for name in ("factformer", "fno"):
        places = f"--data.init_args.store {store} --trainer.default_root_dir {folder / name}"
        run(f"fit -c {HERE / name}.yaml {places} {size['fit']}")
    for name in ("factformer", "fno", "persistence"):
        checkpoint = name if name == "persistence" else folder / name / "best.ckpt"
        rollout = folder / "rollouts" / f"{name}.zarr"
        run(f"rollout {checkpoint} --data {store} --starts 1 --history 2 --steps {size['steps']} --out {rollout}")
        run(f"evaluate {rollout} --out {folder / 'results' / name}")
    results = " ".join(str(folder / "results" / name) for name in ("factformer", "fno", "persistence"))
    run(f"compare {results} --out {folder / 'report'}")
    return folder / "report" / "index.html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", action="store_true", help="a size for tests: it shows nothing but that it runs")
    parser.add_argument("--data", type=Path, default=Path("data/kolmogorov2d"), help="folder of the data set")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="folder of all results")
    given = parser.parse_args()
    begun = time.perf_counter()
    page = demonstrate(SMALLEST if given.smallest else FULL, given.data, given.runs)
    print(f"\nall in {time.perf_counter() - begun:.0f} s; open {page}")
