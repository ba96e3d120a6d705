"""The pointwise perceptron."""

from __future__ import annotations

import torch

from physml.nn.mlp import MLP


def test_equals_its_equation_at_every_point() -> None:
    mlp = MLP(inputs=2, hidden=5, outputs=3)
    x = torch.randn(4, 6, 7, 2)
    h = x @ mlp.first.weight.T + mlp.first.bias
    h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    # Rounding of float32.
    torch.testing.assert_close(mlp(x), h @ mlp.second.weight.T + mlp.second.bias, rtol=0, atol=1e-6)
    assert sum(p.numel() for p in mlp.parameters()) == 2 * 5 + 5 + 5 * 3 + 3
