"""What a surrogate's frame costs beside the solver's, for 2-D Kolmogorov flow at Re = 1000.

``python experiments/speed/rollout.py [--checkpoint CKPT] [--json]`` rolls the operator of
``experiments/kolmogorov2d/factformer.yaml`` out, one call recorded as a CUDA graph on a GPU, and times the solver for
the same physical time: at the surrogate's resolution and, where a trained checkpoint is given, at coarser ones with
their errors, so that the two can be compared at equal accuracy. The solver launches its kernels one by one, which takes
longer than running them at one trajectory: look at larger batches too. Errors are relative L2 after ``--frames`` frames
against the solver at ``--truth`` points per axis, from the same developed states; both start from exact data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import physml
from physml import cost
from physml.configured import rebuild
from physml.emulator import Emulator, Origin
from physml.fields import Boundary, Field, Layout
from physml.normalise import Increments
from physml.operators import Operator
from physml.rollout import rollout
from physml.solvers import Kolmogorov2D

YAML = Path(__file__).parents[1] / "kolmogorov2d" / "factformer.yaml"
INTERVAL = 1 / 16
STEPS = {512: 1 / 512, 256: 1 / 256, 192: 1 / 192, 128: 1 / 128, 96: 1 / 96, 64: 1 / 64, 48: 1 / 48, 32: 1 / 32}
"""A stable time step for each number of points per axis."""


def solver(points: int, batch: int, stored: int) -> Kolmogorov2D:
    """The flow at ``points`` per axis, stored at ``stored``."""
    return Kolmogorov2D(
        trajectories=batch, frames=1, grid=min(stored, points), solve_grid=points, frame_interval=INTERVAL,
        step=STEPS[points], precision="float32",
    )  # fmt: skip


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median time of a call, after one that is not counted."""
    spent = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])


def untrained(points: int, device: torch.device) -> Emulator:
    """The operator with its first weights: its speed does not depend on them."""
    operator = rebuild(yaml.safe_load(YAML.read_text())["model"]["operator"], Operator)
    emulator = Emulator(operator, Increments())
    grid = cost.example_grid((points, points), (Boundary.PERIODIC,) * 2, "cpu")
    moments = {"mean": [0.0], "std": [6.0], "increment_std": [1.0], "energy": 1.0}
    emulator.learn(Origin(Layout((Field("vorticity"),), grid, INTERVAL), moments))
    return emulator.to(device).eval()


def surrogate_cost(emulator: Emulator, points: int, batch: int, frames: int, device: torch.device) -> float:
    """Seconds per frame of all samples, over a rollout of ``frames``."""
    grid = cost.example_grid((points, points), (Boundary.PERIODIC,) * 2, str(device))
    window = torch.randn(batch, emulator.frames, points, points, 1, device=device)

    def work() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for _ in rollout(emulator, window, frames, grid):
                pass

    return seconds(work, device, repeats=2) / frames


def cut(state: dict[str, Tensor], points: int) -> dict[str, Tensor]:
    """The state of a finer solver as that of one with ``points`` per axis."""
    waves, kept = state["vorticity"], -(-points // 3)
    half = points // 2
    waves = torch.cat([waves[:, :kept, :half], waves[:, :kept, waves.shape[-1] - (points - half) :]], dim=-1)
    k = torch.fft.fftfreq(points, 1 / points, device=waves.device)
    circle = 9 * (torch.arange(kept, device=waves.device)[:, None] ** 2 + k[None] ** 2) < points**2
    return {**state, "vorticity": waves * circle}


def compare(
    emulator: Emulator, truth: int, points: int, frames: int, batch: int, device: torch.device
) -> dict[str, Any]:
    """Errors after ``frames`` frames of the surrogate and of coarser solvers, from the same states."""
    fine = solver(truth, batch, points)
    state = fine.initial(range(batch), device)
    for _ in range(round(2.0 / INTERVAL)):
        state = fine.advance(state)
    known = []
    for _ in range(emulator.frames):
        state = fine.advance(state)
        known.append(fine.observe(state))
    start, wanted = state, state
    for _ in range(frames):
        wanted = fine.advance(wanted)
    target = fine.observe(wanted)

    def error(found: Tensor) -> float:
        return float(((found - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean())

    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # as it is timed
        *_, last = rollout(emulator, torch.stack(known, dim=1), frames)
    found = {"surrogate": error(last)}
    for coarse in [n for n in STEPS if n < truth]:
        rough, now = solver(coarse, batch, points), cut(start, coarse)
        for _ in range(frames):
            now = rough.advance(now)
        # waves that the coarse grid cannot hold are zero, as in its truth
        spread = Kolmogorov2D(trajectories=batch, frames=1, grid=points, solve_grid=max(points, coarse))
        full = torch.zeros_like(start["vorticity"][:, : -(-max(points, coarse) // 3)])[..., : max(points, coarse)]
        waves, half = now["vorticity"], now["vorticity"].shape[-1] // 2
        full[:, : waves.shape[1], :half] = waves[..., :half]
        full[:, : waves.shape[1], full.shape[-1] - half :] = waves[..., half:]
        found[str(coarse)] = error(spread.observe({"vorticity": full}))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="a trained surrogate, for the comparison at equal accuracy")
    parser.add_argument("--points", type=int, nargs="+", default=[128, 256], help="per axis")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 20], help="trajectories at once")
    parser.add_argument("--length", type=int, default=1000, help="frames of a timed rollout")
    parser.add_argument("--frames", type=int, default=16, help="frames after which errors are compared")
    parser.add_argument("--truth", type=int, default=512, choices=list(STEPS), help="points of the reference")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for points in given.points:
        for batch in given.batch:
            fine = solver(points, batch, points)
            state = fine.initial(range(batch), device)
            rows.append(
                {
                    "points": points,
                    "batch": batch,
                    "surrogate_ms": 1e3
                    * surrogate_cost(untrained(points, device), points, batch, given.length, device),
                    "solver_ms": 1e3 * seconds(lambda: fine.advance(state), device),  # noqa: B023  # called at once
                }
            )
    result: dict[str, Any] = {
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "rows": rows,
    }
    if given.checkpoint:
        emulator = physml.load(given.checkpoint).to(device)
        assert emulator.origin is not None
        points = emulator.origin.layout.grid.shape[0]
        result["errors"] = compare(emulator, given.truth, points, given.frames, max(given.batch), device)
        result["solvers_ms"] = {}
        for coarse in [n for n in STEPS if n < given.truth]:
            rough = solver(coarse, max(given.batch), points)
            state = rough.initial(range(max(given.batch)), device)
            result["solvers_ms"][coarse] = 1e3 * seconds(lambda: rough.advance(state), device)  # noqa: B023
    print(json.dumps(result, indent=None if given.json else 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
