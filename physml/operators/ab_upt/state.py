"""A case that has been solved: what any query needs, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from physml.nn.anchored_attention import Memory


@dataclass(frozen=True)
class State:
    """The memories that queries look at, block by block.

    It is all that remains of body and anchors. As plain values, ``torch.save(state.to_plain(), path)``, it is a file
    that answers queries, loaded with ``weights_only=True``.

    Args:
        shared: for each block of the pattern, the memory of what can be looked at in it, by name: of ``geometry``, or
            of each branch.
        decoders: for each branch, the memory of its anchors in every block of its decoder.
        outputs: fields at the anchors, ``(B, N, C)``, by branch.
        condition: numbers of each case, ``(B, P)``, in network units; ``None`` where the operator reads none.
    """

    shared: tuple[Mapping[str, Memory], ...]
    decoders: Mapping[str, tuple[Memory, ...]] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    condition: Tensor | None = None

    @property
    def batch(self) -> int | None:
        """Number of cases B; ``None`` while nothing is known of them."""
        known = [memory.keys for block in self.shared for memory in block.values()]
        known += [*self.outputs.values()] if self.condition is None else [self.condition]
        return known[0].shape[0] if known else None

    def to(self, *args: Any, **kwargs: Any) -> State:
        """On another device or in another precision: in half, a file is half as large."""
        done: dict[int, Tensor] = {}  # what was one tensor stays one

        def moved(tensor: Tensor) -> Tensor:
            if id(tensor) not in done:
                there = tensor.to(*args, **kwargs)
                done[id(tensor)] = there if tensor.is_floating_point() else there.to(tensor.dtype)
            return done[id(tensor)]

        return self._map(moved)

    def detach(self) -> State:
        """Without the graph that made it."""
        return self._map(Tensor.detach)

    def _map(self, change: Callable[[Tensor], Tensor]) -> State:
        return State(
            tuple({name: memory.map(change) for name, memory in block.items()} for block in self.shared),
            {name: tuple(memory.map(change) for memory in blocks) for name, blocks in self.decoders.items()},
            {name: change(values) for name, values in self.outputs.items()},
            None if self.condition is None else change(self.condition),
        )

    def to_plain(self) -> dict[str, Any]:
        """Tensors, strings, lists and dictionaries only; contiguous, since a file holds all that a view is part of."""
        whole = self._map(Tensor.contiguous)
        return {
            "shared": [{name: memory._asdict() for name, memory in block.items()} for block in whole.shared],
            "decoders": {name: [memory._asdict() for memory in blocks] for name, blocks in whole.decoders.items()},
            "outputs": whole.outputs,
            "condition": whole.condition,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> State:
        return cls(
            tuple({name: Memory(**memory) for name, memory in block.items()} for block in plain["shared"]),
            {name: tuple(Memory(**memory) for memory in blocks) for name, blocks in plain["decoders"].items()},
            dict(plain["outputs"]),
            plain["condition"],
        )
