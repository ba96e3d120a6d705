r"""AB-UPT: the anchored-branched universal physics transformer, for fields around a body at any set of points.

Alkin et al. 2025, "AB-UPT: Scaling Neural CFD Surrogates for High-Fidelity Automotive Aerodynamics Simulations via
Anchored-Branched Universal Physics Transformers", arXiv 2502.09692. A body becomes tokens. Each domain around it (its
surface, the volume) is a branch with some thousand anchors, which look at the body, at each other and at other
branches. Whatever else is asked looks at body and anchors alone: they solve a case once, and the fields are then
functions of the place, for as many points as one likes.

The published networks are made from this class. It differs from the published code in these points:

* any number of branches, by name, any of which may be missing from a batch or from a case in it;
* batches of unequal clouds, two or three dimensions, features of points;
* a token that only asks is not projected to keys and values, and anchors need not be computed again;
* of too many neighbours the nearest are taken, and a neighbourhood may be empty (:class:`GeometryLayers`);
* modulation by numbers starts from no effect (:class:`~physml.nn.anchored_attention.AnchoredBlock`);
* heads compute in full precision.

Coordinates, radius, features, numbers and fields are in network units. Coordinates must come to them by one factor for
all axes, or distances and curls lose their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from physml.clouds import PointCloud
from physml.configured import Configured
from physml.nn.anchored_attention import AnchoredBlock, Blocks, Memory
from physml.nn.continuous import Waves
from physml.nn.neighbours import Neighbours
from physml.nn.solenoidal import ENTRIES, with_curl
from physml.operators.ab_upt.branch import Branch, BranchLayers
from physml.operators.ab_upt.geometry import GeometryLayers, Supernodes
from physml.operators.ab_upt.state import State

__all__ = ["ABUPT", "Branch", "BranchLayers", "GeometryLayers", "Prediction", "State", "Supernodes"]

GEOMETRY = "geometry"  # the body, among the names of branches


class Prediction(NamedTuple):
    """Fields by branch."""

    anchors: Mapping[str, Tensor]
    """``(B, N, C)``."""
    queries: Mapping[str, Tensor]
    """``(B, M, C)``."""


class ABUPT(Configured, nn.Module):
    """Fields around a body, on clouds in two or three dimensions.

    :meth:`encode` reads the body, :meth:`anchor` solves the case, :meth:`field` answers queries; calling the operator
    does all three, for training. A query at the place of an anchor, with the same features, gets what the anchor got.

    Args:
        axes: space dimensions D.
        branches: by name; a batch may lack some.
        geometry: how the body is read; ``None`` for an operator that reads none.
        pattern: the blocks that all branches share, a letter each: what tokens of a branch look at. ``p`` (perceiver),
            the body; ``s`` (split), anchors of their own branch; ``c`` (cross), those of all other branches; ``j``
            (joint), those of all. Where what they would look at is missing, they find zero.
        width: channels inside the network.
        heads: of every attention.
        ratio: channels inside the perceptron of a block, over ``width``.
        condition: names of the numbers read that hold for a whole case (inflow speed, angle of attack); they modulate
            every block.
        waves: by which places are told; the published ones if ``None``, for coordinates in the unit box.

    Raises:
        ValueError: where arguments contradict each other.

    The published network for DrivAerML has the defaults, ``geometry=Supernodes(radius=0.00025)``, and two branches,
    surface, ``Branch(outputs=4, depth=6)``, and volume, ``Branch(outputs=7, depth=6)``.
    """

    def __init__(
        self,
        *,
        axes: int,
        branches: Mapping[str, Branch],
        geometry: Supernodes | None,
        pattern: str = "pscscs",
        width: int = 192,
        heads: int = 3,
        ratio: int = 4,
        condition: Sequence[str] = (),
        waves: Waves | None = None,
    ) -> None:
        super().__init__()
        if axes not in ENTRIES:
            raise ValueError(f"axes: got {axes}, expected one of {list(ENTRIES)}.")
        if not branches or GEOMETRY in branches:
            raise ValueError(f"branches: got {list(branches)}, expected at least one, and none called {GEOMETRY!r}.")
        if set(pattern) - set("pscj") or ("p" in pattern) != (geometry is not None):
            raise ValueError(
                f"pattern: got {pattern!r} {'without' if geometry is None else 'with'} a geometry; expected the "
                "letters p, s, c and j, and p where there is a geometry to look at, only there."
            )
        if width % (2 * heads) or width // heads < 2 * axes:
            raise ValueError(
                f"width, heads: got {width} and {heads}, expected heads of an even number of channels, at least "
                f"{2 * axes}."
            )
        self.axes, self.pattern, self.condition = axes, pattern, tuple(condition)
        self.waves = waves or Waves()

        def blocks(kinds: str) -> Blocks:
            numbers = len(self.condition)
            return Blocks(
                AnchoredBlock(width=width, heads=heads, hidden=ratio * width, other=kind == "p", condition=numbers)
                for kind in kinds
            )

        self.geometry = (
            None if geometry is None else geometry.build(width, heads, self.waves, blocks("s" * geometry.depth))
        )
        self.shared = blocks(pattern)
        self.branches = nn.ModuleDict(
            {
                name: branch.build(axes, width, heads, self.waves, blocks("s" * branch.depth))
                for name, branch in branches.items()
            }
        )
        for part in self.modules():
            if type(part) is nn.Linear:  # not modulations, which start as zero
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(
        self,
        anchors: Mapping[str, PointCloud],
        queries: Mapping[str, PointCloud] | None = None,
        *,
        geometry: PointCloud | None = None,
        supernodes: PointCloud | None = None,
        neighbours: Neighbours | None = None,
        condition: Tensor | None = None,
    ) -> Prediction:
        """Encode, anchor and ask in one call: the same values."""
        state = self.encode(geometry, supernodes, neighbours, condition=condition)
        state = self.anchor(state, anchors)
        return Prediction(state.outputs, self.field(state, queries or {}))

    def encode(
        self,
        geometry: PointCloud | None = None,
        supernodes: PointCloud | None = None,
        neighbours: Neighbours | None = None,
        *,
        condition: Tensor | None = None,
    ) -> State:
        """Read the body and the numbers of each case.

        Args:
            geometry: points of the body with the features that are read; ``None`` where there is no body.
            supernodes: where its tokens are, some of its points as a rule; all of them if ``None``.
            neighbours: the points of ``geometry`` near each supernode; searched for if ``None``.
            condition: numbers ``(B, P)``, a column for each name of ``condition`` of the operator.
        """
        expected = len(self.condition)
        if expected and (condition is None or condition.ndim != 2 or condition.shape[1] != expected):
            got = "none" if condition is None else f"shape {tuple(condition.shape)}"
            raise ValueError(f"condition: got {got}, expected (B, {expected}), a column each for {self.condition}.")
        state = State(tuple({} for _ in self.pattern), condition=condition if expected else None)
        if geometry is None or self.geometry is None:
            return state
        centres = geometry if supernodes is None else supernodes
        self._check(state.batch, GEOMETRY, geometry, self.geometry.how.features)
        self._check(geometry.batch, "supernodes", centres, {})
        tokens = self.geometry(geometry, centres, neighbours, state.condition)
        shared = (
            {GEOMETRY: block.remember(tokens, state.condition)} if kind == "p" else {}
            for kind, block in zip(self.pattern, self.shared, strict=True)
        )
        return replace(state, shared=tuple(shared))

    def anchor(self, state: State, anchors: Mapping[str, PointCloud]) -> State:
        """Solve the case: fields at the anchors, and all that queries look at.

        Args:
            state: made by :meth:`encode`; anchors that it has already are replaced.
            anchors: points of each branch with the features that it reads; branches may be left out.
        """
        self._check_branches(state, anchors)
        numbers = state.condition
        tokens = {name: self._branch(name).embed(anchors[name]) for name in self.branches if name in anchors}
        shared: list[Mapping[str, Memory]] = []
        for kind, block, known in zip(self.pattern, self.shared, state.shared, strict=True):
            memories = known if kind == "p" else {name: block.remember(x, numbers) for name, x in tokens.items()}
            tokens = {name: block(x, _looked_at(kind, name, memories), numbers) for name, x in tokens.items()}
            shared.append(memories)
        decoders = {}
        for name, x in tokens.items():
            own = []
            for block in self._branch(name).blocks:
                own.append(block.remember(x, numbers))
                x = block(x, own[-1], numbers)
            tokens[name], decoders[name] = x, tuple(own)
        solved = State(tuple(shared), decoders, condition=numbers)
        outputs = {}
        for name, x in tokens.items():
            layers = self._branch(name)
            outputs[name] = self._ask(solved, name, anchors[name]) if layers.how.curl else layers.fields(x)
        return replace(solved, outputs=outputs)

    def field(self, state: State, queries: Mapping[str, PointCloud], chunk: int | None = None) -> dict[str, Tensor]:
        """Fields ``(B, M, C)`` at any points of any branch. Where a cloud is filled up, they mean nothing.

        Args:
            state: made by :meth:`anchor`.
            queries: points of each branch with the features that it reads.
            chunk: points asked at a time, which changes memory and speed only; all if ``None``.
        """
        self._check_branches(state, queries)
        return {
            name: torch.cat([self._ask(state, name, part) for part in cloud.chunks(chunk)], dim=1)
            for name, cloud in queries.items()
        }

    def _ask(self, state: State, name: str, cloud: PointCloud) -> Tensor:
        if not self._branch(name).how.curl:
            return self._direct(state, name, cloud)
        # points alone decide: a branch with a curl reads no features
        return with_curl(
            lambda points: self._direct(state, name, PointCloud(points)), cloud.points, 1 / self.waves.scale
        )

    def _direct(self, state: State, name: str, cloud: PointCloud) -> Tensor:
        """What the head gives, a potential among it."""
        layers = self._branch(name)
        x = layers.embed(cloud)
        for kind, block, memories in zip(self.pattern, self.shared, state.shared, strict=True):
            x = block(x, _looked_at(kind, name, memories), state.condition)
        own = state.decoders.get(name, (None,) * len(layers.blocks))
        for block, memory in zip(layers.blocks, own, strict=True):
            x = block(x, memory, state.condition)
        return layers.fields(x)

    def _branch(self, name: str) -> BranchLayers:
        layers = self.branches[name]
        assert isinstance(layers, BranchLayers)
        return layers

    def _check_branches(self, state: State, clouds: Mapping[str, PointCloud]) -> None:
        if unknown := set(clouds) - set(self.branches):
            raise ValueError(f"branches: got {sorted(unknown)}, this operator has {list(self.branches)}.")
        batch = state.batch
        for name, cloud in clouds.items():
            batch = self._check(batch, name, cloud, self._branch(name).how.features)

    def _check(self, batch: int | None, name: str, cloud: PointCloud, features: Mapping[str, int]) -> int:
        """The number of clouds; ``ValueError`` where they are too many or too few, or lack what is read."""
        if cloud.axes != self.axes or (batch is not None and cloud.batch != batch):
            raise ValueError(
                f"{name}: got {cloud.batch} clouds in {cloud.axes} dimensions, expected "
                f"{'any number' if batch is None else batch} in {self.axes}."
            )
        found = {key: values.shape[-1] for key, values in cloud.features.items() if key in features}
        if found != dict(features):
            raise ValueError(f"{name}: got features {found}, it reads {dict(features)}: name and channels.")
        return cloud.batch


def _looked_at(kind: str, name: str, memories: Mapping[str, Memory]) -> Memory | None:
    """What a branch looks at in a block of a kind: the body or all anchors, its own, or those of the others."""
    return Memory.join([memory for key, memory in memories.items() if kind in "pj" or (key == name) == (kind == "s")])
