"""The figures of the results card, from what ``experiments/table.py`` left in ``runs/table``."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from physml.datasets import open_trajectories
from physml.plot import fields, save, trajectories
from physml.results import load

RUNS, IMAGES = Path("runs/table"), Path("docs/images")
NAMES = {
    f"{run}-{seed}": f"{name}, seed {seed}"
    for run, name in (("factformer", "FactFormer"), ("fno", "FNO"))
    for seed in (0, 1)
}


def errors(problem: str) -> None:
    """The error of both operators, each seed, and of persistence over the lead time."""
    results = {name: load(RUNS / problem / "results" / f"{problem}_{run}") for run, name in NAMES.items()}
    results["persistence"] = load(RUNS / problem / "results" / "persistence")
    save(trajectories.error_growth(results), IMAGES / f"real_{problem}.png")


def states(problem: str, store: str, leads: tuple[int, ...]) -> None:
    """Truth and predictions of the first seeds, for one sample."""
    runs = {"FactFormer": f"{problem}_factformer-0", "FNO": f"{problem}_fno-0", "persistence": "persistence"}
    rollouts = {name: xr.open_zarr(RUNS / problem / f"{run}.zarr") for name, run in runs.items()}
    one, data = rollouts["FNO"], open_trajectories(store)
    row, first = int(one.trajectory[0]), int(one.frame[0])
    truth = data.read(row, first, first + one.sizes["lead"])
    guesses = {name: rollout.state[0].values for name, rollout in rollouts.items()}
    save(fields.compare(truth, guesses, data.layout, leads=leads), IMAGES / f"real_{problem}_states.png", dpi=110)


if __name__ == "__main__":
    for named in ("kuramoto_sivashinsky", "allen_cahn", "burgers"):
        errors(named)
    states("kuramoto_sivashinsky", "data/pde1d/kuramoto_sivashinsky.physml.yaml", (8, 16, 46))
