"""The two-layer perceptron that acts on the channels of each point alone."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    r"""Pointwise network on the last axis.

    .. math:: y = W_2\, \mathrm{GELU}(W_1 x + b_1) + b_2

    Args:
        inputs: channels read.
        hidden: channels between the two layers.
        outputs: channels returned.
    """

    def __init__(self, *, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs)`` to ``(..., outputs)``."""
        return self.second(nn.functional.gelu(self.first(x)))
