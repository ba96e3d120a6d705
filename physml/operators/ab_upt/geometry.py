"""The geometry branch: a body as some thousand tokens that everything else looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from physml.clouds import PointCloud
from physml.configured import Configured
from physml.nn.anchored_attention import Blocks, Tokens
from physml.nn.continuous import Waves
from physml.nn.mlp import MLP
from physml.nn.neighbours import Neighbours, gather_neighbours, nearest_neighbours, radius_neighbours


class Supernodes(Configured):
    """How a body becomes tokens: some of its points, the supernodes, gather what is near, then look at each other.

    Args:
        radius: of the neighbourhood, in network units; ``math.inf`` for the nearest points wherever they are. It should
            hold several points of the cloud, or a supernode sees little but itself.
        most: neighbours of a supernode, itself among them; the nearest are taken.
        depth: self-attention blocks over the supernodes.
        features: channels of each feature of the body's points that messages carry, by name (normal).
    """

    def __init__(
        self, *, radius: float, most: int = 32, depth: int = 1, features: Mapping[str, int] | None = None
    ) -> None:
        if radius <= 0 or most < 1 or depth < 0:
            raise ValueError(f"radius, most, depth: got {radius}, {most}, {depth}, expected above 0, at least 1 and 0.")
        self.radius, self.most, self.depth, self.features = radius, most, depth, dict(features or {})

    def build(self, width: int, heads: int, waves: Waves, blocks: Blocks) -> GeometryLayers:
        return GeometryLayers(self, width, heads, waves, blocks)


class GeometryLayers(nn.Module):
    r"""The weights of :class:`Supernodes`: messages from neighbours, averaged, beside the place of the supernode.

    .. math:: h_i = W_2\, \mathrm{mean}_j\, \mathrm{GELU}\big(W_1 [E(x_i - x_j, |x_i - x_j|), f_j]\big), \qquad
        g_i = W_3 [h_i, E(x_i)]

    with E the waves and f the features, if there are any; then the blocks. The published code applies the second map
    before the mean, which is the same, and takes the first neighbours by index where there are too many.
    """

    def __init__(self, how: Supernodes, width: int, heads: int, waves: Waves, blocks: Blocks) -> None:
        super().__init__()
        self.how, self.width, self.head_width, self.waves = how, width, width // heads, waves
        self.message = MLP(inputs=width + sum(how.features.values()), hidden=width, outputs=width)
        self.merge = nn.Linear(2 * width, width)
        self.blocks = blocks

    def forward(
        self, body: PointCloud, centres: PointCloud, neighbours: Neighbours | None, numbers: Tensor | None
    ) -> Tokens:
        """A token for each centre; neighbours are searched for where they are not given."""
        values = self.pool(body, centres.points, neighbours)
        tokens = Tokens(values, self.waves.rotation(centres.points, self.head_width), centres.mask)
        for block in self.blocks:
            tokens = block(tokens, block.remember(tokens, numbers), numbers)
        return tokens

    def pool(self, body: PointCloud, centres: Tensor, neighbours: Neighbours | None = None) -> Tensor:
        """What centres ``(B, S, D)`` gather, ``(B, S, width)``."""
        if neighbours is None:
            neighbours = self._near(body, centres)
        indices, mask = neighbours
        away = centres[:, :, None] - gather_neighbours(body.points, indices)
        distance = torch.linalg.vector_norm(away, dim=-1, keepdim=True)
        dtype = self.merge.weight.dtype
        sent = [self.waves.embed(torch.cat([away, distance], dim=-1), self.width).to(dtype)]
        sent += [gather_neighbours(body.features[name], indices).to(dtype) for name in self.how.features]
        heard = functional.gelu(self.message.first(torch.cat(sent, dim=-1))) * mask[..., None]
        mean = heard.sum(dim=2) / mask.sum(dim=2).clamp(min=1)[..., None]
        place = self.waves.embed(centres, self.width).to(dtype)
        return self.merge(torch.cat([self.message.second(mean).to(dtype), place], dim=-1))

    def _near(self, body: PointCloud, centres: Tensor) -> Neighbours:
        if math.isinf(self.how.radius):
            return nearest_neighbours(body.points, body.sizes, centres, self.how.most)
        every = body.sizes.new_full((len(centres),), centres.shape[1])
        return radius_neighbours(body.points, body.sizes, centres, every, self.how.radius, self.how.most)
