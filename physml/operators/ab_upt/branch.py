"""What a branch has of its own: from points to tokens, its decoder, and from tokens to fields."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.clouds import PointCloud
from physml.configured import Configured
from physml.nn.anchored_attention import Blocks, Tokens
from physml.nn.continuous import Waves
from physml.nn.mlp import MLP
from physml.nn.precision import full, full_precision
from physml.nn.solenoidal import ENTRIES


class Branch(Configured):
    """One domain around the body: its surface, the volume, a wake.

    Args:
        outputs: fields C at each point.
        depth: blocks of the decoder, in which the branch looks at its own anchors.
        features: channels of each feature of its points that is read, by name (normal, wall distance).
        curl: whether D more fields follow, the curl of a potential (:mod:`physml.nn.solenoidal`), per ``1 / scale`` of
            the waves: vorticity in three dimensions, velocity in two. They have no divergence, as long as whatever
            comes after multiplies all of them by one number.
    """

    def __init__(
        self, *, outputs: int, depth: int, features: Mapping[str, int] | None = None, curl: bool = False
    ) -> None:
        if outputs < 0 or depth < 0 or not (outputs or curl):
            raise ValueError(f"outputs, depth: got {outputs} and {depth}, expected at least 1 field and 0 blocks.")
        if features and curl:
            raise ValueError(
                "features, curl: features vary from place to place in a way that the operator does not know, so it "
                "cannot take a curl through them; leave one of the two out."
            )
        self.outputs, self.depth, self.features, self.curl = outputs, depth, dict(features or {}), curl

    def build(self, axes: int, width: int, heads: int, waves: Waves, blocks: Blocks) -> BranchLayers:
        return BranchLayers(self, axes, width, heads, waves, blocks)


class BranchLayers(nn.Module):
    """The weights of a :class:`Branch`. Its position perceptron is all that tells its tokens from those of others."""

    def __init__(self, how: Branch, axes: int, width: int, heads: int, waves: Waves, blocks: Blocks) -> None:
        super().__init__()
        self.how, self.width, self.head_width, self.waves = how, width, width // heads, waves
        self.place = MLP(inputs=width, hidden=width, outputs=width)
        read = sum(how.features.values())
        self.features = MLP(inputs=read, hidden=width, outputs=width) if read else None
        self.blocks = blocks
        self.head = nn.Linear(width, how.outputs + (len(ENTRIES[axes]) if how.curl else 0))

    def embed(self, cloud: PointCloud) -> Tokens:
        """A token for each point."""
        dtype = self.head.weight.dtype
        values = self.place(self.waves.embed(cloud.points, self.width).to(dtype))
        if self.features is not None:
            read = torch.cat([cloud.features[name].to(dtype) for name in self.how.features], dim=-1)
            values = values + self.features(read)
        return Tokens(values, self.waves.rotation(cloud.points, self.head_width), cloud.mask)

    def fields(self, tokens: Tokens) -> Tensor:
        """``(B, N, width)`` to fields, and a potential where there is a curl, in full precision."""
        x = full(tokens.values)
        with full_precision(x):
            return functional.linear(x, self.head.weight.to(x.dtype), self.head.bias.to(x.dtype))
