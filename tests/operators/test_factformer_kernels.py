"""The whole FactFormer with the GPU's kernels, run by Triton's interpreter on the CPU, against the plain path.

Run as a program, with ``TRITON_INTERPRET=1``, it compares outputs and gradients, eager and traced as for compilation.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import interpreting
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
WAYS = ("eager", "traced")


def gradients(fast: bool, traced: bool, periodic: bool) -> dict[str, Tensor]:
    from physml.fields import Axis, Boundary, Grid
    from physml.nn import depthwise, depthwise_triton, mode_product_triton
    from physml.nn.positional import Harmonics
    from physml.objectives import RelativeL2
    from physml.operators import FactFormer
    from physml.operators.factformer import attention

    kind = Boundary.PERIODIC if periodic else Boundary.WALL
    axes = tuple(Axis(n, torch.arange(k) * (2 * math.pi / k), kind, 2 * math.pi) for n, k in (("x", 12), ("y", 8)))
    grid = Grid(axes).to(torch.float32)
    torch.manual_seed(0)
    model = FactFormer(
        axes=2, frames=3, steps=2, width=16, depth=2, heads=2, head_width=8, patch=2, positions=Harmonics(most=3),
        blend=4, recompute="products",
    )  # fmt: skip
    if fast:
        attention.mode_product = lambda kernel, v, m: mode_product_triton.mode_product(kernel, v, m)
        depthwise.DepthwiseConvolution.forward = lambda self, x, grid: (  # type: ignore[method-assign]
            depthwise_triton.convolve(x, self.kernel.weight, grid.boundaries) + self.kernel.bias
        )
    if traced:
        model.compile(backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    window, target = torch.randn(2, 3, 12, 8, 1), torch.randn(2, 2, 12, 8, 1)
    out = model(window, grid, 2)
    RelativeL2()(out, target, grid).backward()
    torch.compiler.reset()
    return {"out": out.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def main() -> None:
    told = {}
    plain = {periodic: gradients(False, False, periodic) for periodic in (True, False)}  # before functions are replaced
    for periodic, expected in plain.items():
        for way in WAYS:
            found = gradients(True, way == "traced", periodic)
            apart = [float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected]
            told[f"{way} {'periodic' if periodic else 'walls'}"] = max(apart)
    print(json.dumps(told))


@pytest.fixture(scope="module")
def compared() -> dict[str, float]:
    return interpreting.interpreted(__file__)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ends", ["periodic", "walls"])
def test_kernels_give_the_gradients_of_the_plain_path(compared: dict[str, float], way: str, ends: str) -> None:
    assert compared[f"{way} {ends}"] < 1e-4  # float32 sums in other orders, through two layers and back


if __name__ == "__main__":
    main()
