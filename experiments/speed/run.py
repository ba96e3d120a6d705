"""Time and memory of training steps, inference and rollouts, beside what the hardware can do.

``python experiments/speed/run.py NAME... [--json]`` measures the named cases on the GPU, or on the CPU at a size that a
CPU can do. A training step is forward, loss, backward and AdamW. Times are medians of repeated steps after a warm-up,
by CUDA events on a GPU; memory is the peak the allocator handed out. The two ceilings, a large matrix product and a
large copy, are measured in the same run. The name ``loader`` measures reading instead: see ``loader.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from physml import cost
from physml.capture import Captured
from physml.configured import rebuild
from physml.emulator import Emulator
from physml.fields import Boundary, Grid
from physml.normalise import Standardise
from physml.objectives import RelativeL2
from physml.operators import Operator

EXPERIMENTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """What is measured.

    Args:
        experiment: YAML whose operator is built.
        points: of every axis.
        batch: windows of a step.
        changes: to the operator's arguments.
        walls: whether the axes end; periodic otherwise.
        layer: measure one layer of the operator alone.
    """

    experiment: str
    points: int
    batch: int
    changes: dict[str, Any]
    walls: bool = False
    layer: bool = False


CASES = {
    "published-256": Case("kolmogorov2d/factformer_published", 256, 4, {"recompute": "products"}),
    "published-128": Case("kolmogorov2d/factformer_published", 128, 8, {}),
    "default-256": Case("kolmogorov2d/factformer", 256, 4, {}),
    "default-128": Case("kolmogorov2d/factformer", 128, 8, {}),
    "block-64": Case("smoke3d/factformer_published", 64, 2, {}, walls=True, layer=True),
    "smoke-64": Case("smoke3d/factformer_published", 64, 2, {"recompute": "products"}, walls=True),
    "smoke-default-64": Case("smoke3d/factformer", 64, 2, {}, walls=True),
    "fno-128": Case("kolmogorov2d/fno", 128, 8, {}),
    "ffno-128": Case("kolmogorov2d/ffno", 128, 8, {}),
    "unet-128": Case("kolmogorov2d/unet", 128, 8, {}),
}


def operator_of(case: Case) -> Operator:
    """The operator of the case's experiment, with its changes."""
    path = EXPERIMENTS / f"{case.experiment}.yaml"
    described = yaml.safe_load(path.read_text())["model"]["operator"]
    arguments = described["init_args"] | case.changes
    return rebuild({"class_path": described["class_path"], "init_args": arguments}, Operator)


def timed(step: Callable[[], object], device: torch.device, repeats: int, warmup: int = 3) -> list[float]:
    """Milliseconds of each of ``repeats`` calls after ``warmup``."""
    for _ in range(warmup):
        step()
    if device.type != "cuda":
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            step()
            spent.append(1e3 * (time.perf_counter() - start))
        return spent
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in pairwise(marks)]


def ceilings(device: torch.device) -> dict[str, float]:
    """Rate of a large bf16 matrix product, TFLOP/s, and of a large copy, read and write, TB/s."""
    n, size = (8192, 2**30) if device.type == "cuda" else (1024, 2**24)
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    b = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    product = statistics.median(timed(lambda: a @ b, device, 10))
    source = torch.empty(size, device=device, dtype=torch.float32)
    target = torch.empty_like(source)
    copy = statistics.median(timed(lambda: target.copy_(source), device, 10))
    return {"matrix_tflops": 2 * n**3 / product / 1e9, "copy_tbps": 2 * 4 * size / copy / 1e9}


class Step:
    """Training and inference of one case on random numbers."""

    def __init__(self, case: Case, device: torch.device, precision: str, compiled: bool) -> None:
        torch.manual_seed(0)
        self.case, self.device, self.precision = case, device, precision
        self.operator = operator_of(case).to(device)
        kinds = (Boundary.WALL if case.walls else Boundary.PERIODIC,) * self.operator.axes
        self.grid: Grid = cost.example_grid((case.points,) * self.operator.axes, kinds, str(device))
        shape = (case.batch, self.operator.frames, *self.grid.shape, self.operator.channels)
        self.window = torch.randn(shape, device=device)
        self.target = torch.randn(case.batch, self.operator.steps, *shape[2:], device=device)
        self.loss = RelativeL2()
        if case.layer:
            width = self.operator.arguments["width"]
            self.module: torch.nn.Module = self.operator.layers[0]  # type: ignore[assignment,index]
            self.field = torch.randn(case.batch, *self.grid.shape, width, device=device).to(self.dtype)
        else:
            self.module = self.operator
        on_gpu = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4, fused=on_gpu, capturable=on_gpu)
        if compiled:
            self.module.compile()
        self.run_train, self.run_infer = self.train, self.infer

    def capture(self) -> None:
        """Record both as CUDA graphs."""
        self.run_infer = Captured(self.infer, self.device)
        self.run_train = Captured(self.train, self.device)

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def forward(self) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            if self.case.layer:
                return self.module(self.field, self.grid, None, self.dtype)
            return self.module(self.window, self.grid, self.operator.steps)

    def train(self) -> None:
        self.optimizer.zero_grad()
        out = self.forward()
        loss = out.float().square().mean() if self.case.layer else self.loss(out, self.target, self.grid)
        loss.backward()
        self.optimizer.step()

    def infer(self) -> None:
        with torch.no_grad():
            self.forward()

    def flops(self) -> float:
        """Operations of a forward pass of the whole batch; zero for a single layer."""
        if self.case.layer:
            return 0.0
        with torch.device("meta"):
            emulator = Emulator(operator_of(self.case), Standardise())
        kinds = tuple(axis.boundary for axis in self.grid.axes)
        return self.case.batch * float(cost.forward_flops(emulator, cost.example_grid(self.grid.shape, kinds, "meta")))


def measure(
    name: str, case: Case, device: torch.device, precision: str, compiled: bool, repeats: int
) -> dict[str, Any]:
    """One row of the table."""
    began = time.perf_counter()
    step = Step(case, device, precision, compiled)
    on_gpu = device.type == "cuda"
    step.train()
    if on_gpu:
        torch.cuda.synchronize()
    first = time.perf_counter() - began
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step.capture()
    train = timed(step.run_train, device, repeats)
    memory = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else math.nan
    infer = timed(step.run_infer, device, repeats)
    flops = step.flops()
    row = {
        "case": name,
        "precision": precision,
        "compiled": compiled,
        "points": case.points,
        "batch": case.batch,
        "parameters": sum(p.numel() for p in step.module.parameters()),
        "first_step_s": first,
        "train_ms": statistics.median(train),
        "train_ms_range": [min(train), max(train)],
        "infer_ms": statistics.median(infer),
        "memory_gib": memory,
        "train_tflop": 3 * flops / 1e12,
    }
    del step
    if on_gpu:
        torch.cuda.empty_cache()
    torch.compiler.reset()
    return row


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["published-256"], help=f"of {', '.join(CASES)}; or loader")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--eager", action="store_true", help="without torch.compile; a GPU replays CUDA graphs anyway")
    parser.add_argument("--repeats", type=int, default=20)
    reading = parser.add_argument_group("of the case loader")
    reading.add_argument("--points", type=int, nargs="+", default=[64, 256], help="of each axis of a frame")
    reading.add_argument("--windows", type=int, default=160, help="that are read for each figure of the largest frame")
    reading.add_argument("--soak", type=int, default=10_000, help="windows of the memory curve")
    given = parser.parse_args()
    if given.names == ["loader"]:
        import loader  # needs packages that the other cases do not

        told = loader.run(given.points, given.windows, given.soak)
        print(json.dumps(told) if given.json else loader.table(told))
        return 0
    unknown = [name for name in given.names if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}, and loader, alone")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name in given.names:
        case = CASES[name]
        if device.type == "cpu":  # the same code at a size that a CPU can do
            case = replace(case, points=min(case.points, 32 if "3d" not in case.experiment else 12), batch=1)
        rows.append(measure(name, case, device, given.precision, not given.eager, given.repeats))
    top = ceilings(device)
    for row in rows:
        row["of_matrix_ceiling"] = row["train_tflop"] / (row["train_ms"] / 1e3) / top["matrix_tflops"]
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    result = {"hardware": hardware, "torch": torch.__version__, **top, "rows": rows}
    if given.json:
        print(json.dumps(result))
        return 0
    print(f"{hardware}, torch {torch.__version__}: {top['matrix_tflops']:.0f} TFLOP/s, {top['copy_tbps']:.2f} TB/s")
    print(f"{'case':18} {'train ms':>9} {'infer ms':>9} {'GiB':>6} {'first s':>8} {'of ceiling':>10}")
    for row in rows:
        print(
            f"{row['case']:18} {row['train_ms']:9.2f} {row['infer_ms']:9.2f} {row['memory_gib']:6.2f} "
            f"{row['first_step_s']:8.1f} {row['of_matrix_ceiling']:10.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
