"""On a GPU, every way of running a step gives the numbers of the plain one: compiled, recorded, both, in bf16.

These tests need a GPU and are skipped elsewhere; what can be compared without one is compared in ``tests/nn``.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from physml.capture import Captured
from physml.configured import rebuild
from physml.emulator import Emulator, Origin
from physml.fields import Axis, Field, Grid, Layout
from physml.normalise import Standardise
from physml.objectives import RelativeL2
from physml.operators import Operator
from physml.rollout import rollout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NAMES = ["kolmogorov2d/factformer", "kolmogorov2d/factformer_published", "kolmogorov2d/fno", "kolmogorov2d/ffno",
         "kolmogorov2d/unet", "smoke3d/factformer"]  # fmt: skip


def box(n: int, axes: int, device: str) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(a, n, 2 * math.pi) for a in "xyz"[:axes])).to(torch.float32).to(device)


def made(name: str) -> Operator:
    torch.manual_seed(0)
    return rebuild(yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text())["model"]["operator"], Operator)


def numbers(operator: Operator, n: int, batch: int, count: int) -> Tensor:
    """Smooth random frames ``(batch, count, *space, C)``."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(batch, count, *[n] * operator.axes, operator.channels, generator=generator)
    space = tuple(range(2, 2 + operator.axes))
    waves = torch.fft.fftn(noise, dim=space)
    for axis in space:
        shape = [1] * noise.ndim
        shape[axis] = n
        waves = waves * (torch.fft.fftfreq(n, 1 / n).abs() <= 3).reshape(shape)
    smooth = torch.fft.ifftn(waves, dim=space).real
    return smooth / smooth.std()


def size(operator: Operator) -> int:
    return 64 if operator.axes == 2 else 32


def gradients(name: str, device: str, *, half: bool = False, compiled: bool = False, recorded: bool = False) -> Tensor:
    """All gradients of one step, in one vector, on the CPU."""
    operator = made(name).to(device)
    n = size(operator)
    grid, frames = box(n, operator.axes, device), numbers(operator, n, 2, operator.frames + operator.steps).to(device)
    window, target = frames[:, : operator.frames], frames[:, operator.frames :]
    if compiled:
        operator.compile()

    def work() -> None:
        for parameter in operator.parameters():
            parameter.grad = None
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = RelativeL2()(operator(window, grid, operator.steps), target, grid)
        loss.backward()

    Captured(work, torch.device(device))() if recorded else work()
    torch.compiler.reset()
    return torch.cat([p.grad.flatten().float().cpu() for p in operator.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree(name: str) -> None:
    plain = gradients(name, "cuda")
    half = gradients(name, "cuda", half=True)
    found = {
        "cpu": (gradients(name, "cpu"), plain, 1e-3),  # TF32 is off; sums in other order through ten layers
        "bf16": (half, plain, 0.1),  # eight bits of mantissa, each layer rounds
        "recorded": (gradients(name, "cuda", half=True, recorded=True), half, 1e-2),
        "compiled": (gradients(name, "cuda", half=True, compiled=True), plain, 0.1),
        "both": (gradients(name, "cuda", half=True, compiled=True, recorded=True), plain, 0.1),
        "compiled fp32": (gradients(name, "cuda", compiled=True), plain, 1e-3),
    }
    apart = {key: float((a - b).norm() / b.norm()) for key, (a, b, _) in found.items()}
    print(name, {key: f"{value:.1e}" for key, value in apart.items()})
    assert all(apart[key] < found[key][2] for key in found), apart


def losses(name: str, *, compiled: bool, recorded: bool, steps: int = 60) -> list[float]:
    operator = made(name).cuda()
    n = size(operator)
    grid, frames = box(n, operator.axes, "cuda"), numbers(operator, n, 4, operator.frames + operator.steps).cuda()
    optimizer = torch.optim.AdamW(operator.parameters(), lr=1e-3, fused=True)
    if compiled:
        operator.compile()

    def work() -> Tensor:
        for parameter in operator.parameters():
            parameter.grad = None
        with torch.autocast("cuda", torch.bfloat16):
            loss = RelativeL2()(operator(frames[:, : operator.frames], grid, operator.steps),
                                frames[:, operator.frames :], grid)  # fmt: skip
        loss.backward()
        return loss.detach()

    call = Captured(work, torch.device("cuda")) if recorded else work
    found = []
    for _ in range(steps):
        found.append(float(call()))
        torch.nn.utils.clip_grad_norm_(operator.parameters(), 1.0)
        optimizer.step()
    torch.compiler.reset()
    return found


@pytest.mark.parametrize("name", NAMES[:3])
def test_training_takes_the_same_course(name: str) -> None:
    """Sixty steps on one batch: every way learns it as well as the plain one."""
    plain = losses(name, compiled=False, recorded=False)
    ways = {(c, r): losses(name, compiled=c, recorded=r) for c, r in ((False, True), (True, False), (True, True))}
    print(name, f"plain {plain[0]:.3f} {plain[20]:.3f} {plain[-1]:.3f}",
          {key: f"{w[0]:.3f} {w[20]:.3f} {w[-1]:.3f}" for key, w in ways.items()})  # fmt: skip
    assert plain[-1] < 0.7 * plain[0]
    for way in ways.values():
        assert abs(way[-1] - plain[-1]) < 0.1 * plain[0]


def test_a_recorded_rollout_is_the_same_rollout() -> None:
    operator = made("kolmogorov2d/factformer")
    emulator = Emulator(operator, Standardise()).cuda().eval()
    grid = box(64, 2, "cpu")
    moments = {"mean": [0.0], "std": [1.0], "increment_std": [1.0], "energy": 1.0}
    emulator.learn(Origin(Layout((Field("vorticity"),), grid, 0.1), moments))
    window = numbers(operator, 64, 2, operator.frames)
    long = list(rollout(emulator, window, 64 * operator.steps))  # recorded
    short = list(rollout(emulator, window, 8))  # not
    for a, b in zip(short, long, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # libraries may choose other algorithms when recorded
