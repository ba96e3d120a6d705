r"""Attention in which some tokens are looked at and all tokens look.

The anchors of a set leave their keys and values behind, its :class:`Memory`; any token may then ask it,

.. math:: y = W_o\, \mathrm{softmax}\big(R(x) q \, (R(x_j) k_j)^T / \sqrt{d}\big)\, v_j ,

with R the rotation by the place (:mod:`physml.nn.continuous`). A token that only asks is in nobody's memory, so it
changes nothing for any other token: its result is a function of its place, whoever else is asked, in any order, at once
or later. Alkin et al. 2025, "AB-UPT" (arXiv 2502.09692).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.nn.continuous import Rotation, turn
from physml.nn.mlp import MLP


class Tokens(NamedTuple):
    """What stands for a cloud inside the network."""

    values: Tensor
    """``(B, N, C)``."""
    rotation: Rotation
    """Of their places."""
    mask: Tensor | None
    """``(B, N)``, true where there is a token; ``None`` where there is one everywhere."""


class Memory(NamedTuple):
    """Keys, rotated already, and values of the tokens that may be looked at."""

    keys: Tensor
    """``(B, H, N, d)``."""
    values: Tensor
    """``(B, H, N, d)``."""
    mask: Tensor | None
    """``(B, N)``, true where there is a token; ``None`` where there is one everywhere."""

    @staticmethod
    def join(parts: Sequence[Memory]) -> Memory | None:
        """One memory of all parts; ``None`` of none."""
        if len(parts) < 2:
            return parts[0] if parts else None
        keys = torch.cat([part.keys for part in parts], dim=2)
        values = torch.cat([part.values for part in parts], dim=2)
        if all(part.mask is None for part in parts):
            return Memory(keys, values, None)
        masks = [
            part.keys.new_ones(part.keys.shape[::2], dtype=torch.bool) if part.mask is None else part.mask
            for part in parts
        ]
        return Memory(keys, values, torch.cat(masks, dim=1))

    def map(self, change: Callable[[Tensor], Tensor]) -> Memory:
        """Every tensor changed."""
        return Memory(change(self.keys), change(self.values), None if self.mask is None else change(self.mask))


def attend(queries: Tensor, memory: Memory | None) -> Tensor:
    """What queries ``(B, H, M, d)`` find in a memory, of the same shape; zero where there is nothing to look at.

    The call has no mask where every cloud of the batch is full, so that fused kernels can take it.
    """
    if memory is None or not memory.keys.shape[2]:
        return torch.zeros_like(queries)
    keys, values = memory.keys.to(queries.dtype), memory.values.to(queries.dtype)
    if memory.mask is None:
        return functional.scaled_dot_product_attention(queries, keys, values)
    there = memory.mask[:, None, None]
    some = there.any(dim=-1, keepdim=True)  # of an empty cloud the softmax is undefined, and with it the gradient
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=there | ~some)
    return found.where(some, 0.0)


class AnchoredBlock(nn.Module):
    """Attention to a memory, then a perceptron, each of the normalised tokens and added to them.

    Numbers that hold for a whole case, if there are any, modulate both: ``norm(x) (1 + a) + b`` goes in and ``1 + c``
    times the result is added, a, b and c linear in the numbers (adaLN, Peebles & Xie 2023, arXiv 2212.09748). They
    start from no effect, where the source's factor is c alone and blocks start as the identity.

    Args:
        width: channels C.
        heads: H, of C/H channels each.
        hidden: channels inside the perceptron.
        other: whether the memory is of tokens of another kind, which then have a norm of their own.
        condition: P, numbers that modulate the block.
    """

    def __init__(self, *, width: int, heads: int, hidden: int, other: bool = False, condition: int = 0) -> None:
        super().__init__()
        self.heads, self.other = heads, other
        affine = not condition
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.memory_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine) if other else None
        self.query = nn.Linear(width, width)
        self.memory = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=affine)
        self.mlp = MLP(inputs=width, hidden=hidden, outputs=width)
        self.modulate = Modulation(condition, (8 if other else 6) * width) if condition else None

    def remember(self, tokens: Tokens, condition: Tensor | None = None) -> Memory:
        """What other tokens can look at, of numbers ``(B, P)``."""
        factors = self._factors(condition)
        x = self.norm(tokens.values) if self.memory_norm is None else self.memory_norm(tokens.values)
        keys, values = self.memory(_modulated(x, factors[6:] if self.other else factors[:2])).chunk(2, dim=-1)
        return Memory(turn(self._apart(keys), tokens.rotation), self._apart(values), tokens.mask)

    def forward(self, tokens: Tokens, memory: Memory | None, condition: Tensor | None = None) -> Tokens:
        """The tokens after they looked at the memory, of numbers ``(B, P)``."""
        x, factors = tokens.values, self._factors(condition)
        queries = turn(self._apart(self.query(_modulated(self.norm(x), factors[:2]))), tokens.rotation)
        found = self.out(attend(queries, memory).transpose(1, 2).flatten(-2))
        x = x + (found * factors[2] if factors else found)
        passed = self.mlp(_modulated(self.mlp_norm(x), factors[3:5]))
        return tokens._replace(values=x + (passed * factors[5] if factors else passed))

    def _apart(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _factors(self, condition: Tensor | None) -> Sequence[Tensor]:
        """Factor, shift and gate of the attention, the same of the perceptron, factor and shift of the memory."""
        if self.modulate is None:
            return ()
        assert condition is not None
        parts = self.modulate(condition.to(self.modulate.weight.dtype))[:, None].chunk(8 if self.other else 6, dim=-1)
        return [part if m in (1, 4, 7) else 1 + part for m, part in enumerate(parts)]


class Blocks(nn.ModuleList):
    """Some blocks, one after the other."""

    def __iter__(self) -> Iterator[AnchoredBlock]:
        for block in super().__iter__():
            assert isinstance(block, AnchoredBlock)
            yield block


class Modulation(nn.Linear):
    """A linear map that starts as zero."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def _modulated(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    return x * factors[0] + factors[1] if factors else x
