"""What a forward pass and a training step cost: parameters, operations, memory, time; counted before anything is
trained.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from physml.emulator import Emulator
from physml.fields import Axis, Batch, Boundary, Grid, GridField, Setting
from physml.objectives import Objective


def example_grid(shape: tuple[int, ...], boundaries: tuple[Boundary, ...], device: str) -> Grid:
    """A grid ``[0, 2 pi)^D`` of this shape; on the device ``meta`` without numbers."""
    axes = []
    for name, n, kind in zip("xyzw", shape, boundaries, strict=False):
        axis = Axis.periodic_uniform(name, n, 2 * math.pi)
        axes.append(Axis(name, axis.points.to(device), kind, axis.length, "", axis.weights.to(device), True))
    return Grid(tuple(axes)).to(torch.float32)


def forward_flops(emulator: Emulator, grid: Grid) -> int:
    """Operations of one call for one sample: two for each multiply-add of matrix products and convolutions, and
    ``5 N log2 N`` for each complex Fourier transform of N points (half of it for a real one).

    The emulator must be on the device ``meta``. Pointwise operations and norms are not counted.
    """
    operator = emulator.operator
    window = torch.empty(1, operator.frames, *grid.shape, operator.channels, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping=_FOURIER)
    setting = Setting(
        torch.empty(1, len(operator.condition), device="meta") if operator.condition else None,
        torch.empty(1, *grid.shape, operator.static, device="meta") if operator.static else None,
    )
    with torch.no_grad(), counter:
        operator(window, grid, operator.steps, setting)
    return int(counter.get_total_flops())


def _real_to_complex(shape: Any, dim: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2.5 * _transform(shape, dim))


def _complex_to_real(shape: Any, dim: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(2.5 * _transform(out_shape, dim))


def _complex_to_complex(shape: Any, dim: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(5 * _transform(shape, dim))


def _transform(shape: Any, dim: Any) -> float:
    points = math.prod(shape[d] for d in dim)
    return math.prod(shape) * math.log2(max(points, 2))


_aten = torch.ops.aten
_FOURIER = {
    _aten._fft_r2c: _real_to_complex,
    _aten._fft_c2r: _complex_to_real,
    _aten._fft_c2c: _complex_to_complex,
}


@dataclass(frozen=True)
class StepCost:
    """One training step.

    Args:
        memory: bytes at the peak: weights, gradients, optimiser moments and what the backward pass keeps.
        seconds: of one step; ``None`` where only an estimate was made.
        device: where.
    """

    memory: int
    seconds: float | None
    device: str


def estimate_memory(emulator: Emulator, objective: Objective, grid: Grid, batch: int) -> int:
    """Bytes that one step at the largest unroll will need, found on the device ``meta`` in full precision.

    Counts each stored tensor of the graph once, four times the weights (value, gradient, two moments), and as much
    again as the largest stored tensor for temporaries.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(emulator, objective, _random_batch(emulator, objective, grid, batch, "meta"))
    weights = sum(p.numel() * p.element_size() for p in emulator.parameters())
    for parameter in emulator.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return 4 * weights + sum(kept.values()) + 2 * max(kept.values(), default=0)


def measure_step(
    emulator: Emulator, objective: Objective, grid: Grid, batch: int, precision: str, repeats: int = 2
) -> StepCost:
    """Run real steps at the largest unroll on random numbers, on the device the emulator is on."""
    device = next(emulator.parameters()).device
    samples = _random_batch(emulator, objective, grid, batch, device)
    optimizer = torch.optim.AdamW(emulator.parameters(), lr=0.0)
    on_gpu = device.type == "cuda"
    before = _resident()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    spent = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.startswith("bf16")):
            loss = _loss(emulator, objective, samples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - start)
    weights = sum(p.numel() * p.element_size() for p in emulator.parameters())
    memory = torch.cuda.max_memory_allocated(device) if on_gpu else max(_resident() - before, 0) + weights
    return StepCost(int(memory), min(spent[1:]), str(device))


def _loss(emulator: Emulator, objective: Objective, batch: Batch) -> Tensor:
    terms = objective(emulator.predict, emulator.normaliser(batch), objective.heaviest)
    return torch.stack(list(terms.values())).sum()


def _random_batch(emulator: Emulator, objective: Objective, grid: Grid, batch: int, device: Any) -> Batch:
    operator = emulator.operator

    def frames(count: int, channels: int) -> GridField:
        names = tuple(f"field_{index}" for index in range(channels))
        return GridField(torch.randn(batch, count, *grid.shape, channels, device=device), grid, names)

    inputs = {"state": frames(operator.frames, operator.channels)}
    if operator.static:
        inputs["static"] = frames(1, operator.static)
    targets = {"state": frames(objective.horizon, operator.channels)}
    return Batch(batch, inputs, targets, {name: torch.randn(batch, device=device) for name in operator.condition})


def _resident() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
