"""Windows of consecutive frames: which exist, in which order they are trained on, and how they become a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from physml.datasets.trajectories import Segment, Trajectories
from physml.fields import Batch, GridField


class Block(list[tuple[Tensor, int]]):
    """Windows that lie side by side in memory: a list of them, and all as one tensor ``values`` ``(B, T, *space, C)``.

    A batch made of it needs no copy.
    """

    def __init__(self, values: Tensor, trajectories: Sequence[int]) -> None:
        super().__init__(zip(values, trajectories, strict=True))
        self.values = values


class Windows(Dataset[Any]):
    """Every window of ``length`` frames, ``stride`` stored frames apart, inside the given segments.

    A segment of n frames holds ``n - stride (length - 1)`` windows; windows overlap and never cross a segment's end.

    Args:
        data: where to read.
        segments: where windows may lie.
        length: frames of a window.
        stride: stored frames from one frame of the window to the next.
        starts: keep at most this many windows a segment, spread evenly and not overlapping while there is room.

    Raises:
        ValueError: where no segment is long enough.
    """

    def __init__(
        self, data: Trajectories, segments: Sequence[Segment], length: int, stride: int = 1, starts: int | None = None
    ) -> None:
        self.data, self.length, self.stride = data, length, stride
        span = stride * (length - 1) + 1
        self._places = [(s.trajectory, chosen) for s in segments if (chosen := _starts(s, span, starts))]
        self._ends = np.cumsum([len(chosen) for _, chosen in self._places])
        if not self._places:
            longest = max((s.stop - s.start for s in segments), default=0)
            raise ValueError(
                f"windows: a window of {length} frames at stride {stride} spans {span} stored frames, the "
                "longest segment of "
                f"{data.path} has {longest}; ask for fewer frames or make longer trajectories."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Trajectory and first frame of window ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        row = int(np.searchsorted(self._ends, index, side="right"))
        trajectory, chosen = self._places[row]
        return trajectory, chosen[index - (int(self._ends[row - 1]) if row else 0)]

    @property
    def reach(self) -> list[Segment]:
        """What the windows of each segment touch, from the first frame of any to the last."""
        span = self.stride * (self.length - 1) + 1
        return [Segment(trajectory, chosen[0], chosen[-1] + span) for trajectory, chosen in self._places]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        trajectory, start = self.place(index)
        values = self.data.read(trajectory, start, start + self.stride * (self.length - 1) + 1, self.stride)
        return torch.from_numpy(np.ascontiguousarray(values)), trajectory

    def __getitems__(self, indices: Sequence[int]) -> Block:
        """Several windows, each read to where the batch has it; loaders call this in place of one after another."""
        places = [self.place(index) for index in indices]
        layout = self.data.layout
        values = _room((len(places), self.length, *layout.grid.shape, len(layout.fields)))
        span = self.stride * (self.length - 1) + 1
        for (trajectory, start), out in zip(places, values.numpy(), strict=True):
            self.data.read(trajectory, start, start + span, self.stride, out=out)
        return Block(values, [trajectory for trajectory, _ in places])


def _room(shape: tuple[int, ...]) -> Tensor:
    """An array that is not filled; in a loader's worker, where the training process can see it, which saves a copy."""
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, dtype=np.float32))
    storage = torch.UntypedStorage._new_shared(4 * int(np.prod(shape)))  # as torch's own collation does
    return torch.empty(0, dtype=torch.float32).set_(storage, 0, shape)  # type: ignore[call-overload]


def _starts(segment: Segment, span: int, most: int | None) -> Sequence[int]:
    room = segment.stop - segment.start - span + 1
    if room <= 0:
        return ()
    if most is None:
        return range(segment.start, segment.start + room)
    count = min(most, room)
    # spread from the first possible start to the last; they overlap only where the segment is too short
    chosen = np.floor(np.linspace(0, room - 1, count)).astype(int) if count > 1 else np.zeros(1, int)
    separate = 1 + (room - 1) // span
    if count > separate:  # fewer that do not overlap beat more that do
        chosen = np.arange(separate) * span
    assert all(b > a for a, b in pairwise(chosen))
    return [segment.start + int(start) for start in chosen]


class Collate:
    """Windows ``(T, *space, C)`` to a :class:`Batch` with the branch ``state``, and ``static`` where the data have it.

    Args:
        data: gives grid, names, parameters and static fields.
        known: frames of the input, 0 for a steady problem; the rest are targets.
    """

    def __init__(self, data: Trajectories, known: int) -> None:
        layout = data.layout
        self._grid, self._names, self._known = layout.grid.to(torch.float32), layout.names, known
        self._data, self._static = data, tuple(item.name for item in layout.static)
        self._parameters = {
            name: torch.as_tensor(values, dtype=torch.float32) for name, values in data.parameters.items()
        }

    def __call__(self, samples: Sequence[tuple[Tensor, int]]) -> Batch:
        values = samples.values if isinstance(samples, Block) else torch.stack([window for window, _ in samples])
        rows = torch.tensor([trajectory for _, trajectory in samples])
        inputs = {"state": GridField(values[:, : self._known], self._grid, self._names)}
        if self._static:
            fields = np.stack([self._data.read_static(trajectory) for _, trajectory in samples])
            inputs["static"] = GridField(torch.from_numpy(fields)[:, None], self._grid, self._static)
        return Batch(
            size=len(samples),
            inputs=inputs,
            targets={"state": GridField(values[:, self._known :], self._grid, self._names)},
            condition={name: values[rows] for name, values in self._parameters.items()},
        )


class TrainingBatches(Sampler[list[int]]):
    """Index lists of a whole run: ``total`` batches, in an order that is a function of the seed alone.

    The windows are shuffled anew for each pass over the data, seeded by ``(seed, pass)``; the last, incomplete batch
    of a pass is left out. Iteration starts at the batch that ``position`` names, so a resumed run sees what it would
    have seen.

    Args:
        windows: number of windows.
        batch: windows of one optimiser step, over all processes.
        total: batches of the run.
        seed: of the order.
        position: batches already trained on.
        rank, world: this process takes the ``rank``-th of ``world`` equal parts of every batch.
    """

    def __init__(
        self,
        windows: int,
        *,
        batch: int,
        total: int,
        seed: int,
        position: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % world:
            raise ValueError(
                f"batch_size: got {batch} for {world} processes; it is the batch of all together, make it divisible."
            )
        if windows < batch:
            raise ValueError(
                f"batch_size: got {batch}, the training split holds {windows} windows; use a smaller batch."
            )
        self.windows, self.batch, self.total, self.seed = windows, batch, total, seed
        self.position, self.rank, self.world = position, rank, world

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        per_pass, share = self.windows // self.batch, self.batch // self.world
        turn, order = -1, np.empty(0, int)
        for index in range(self.position(), self.total):
            if index // per_pass != turn:
                turn = index // per_pass
                order = np.random.default_rng([self.seed, turn]).permutation(self.windows)
            first = (index % per_pass) * self.batch + self.rank * share
            yield order[first : first + share].tolist()


class Share(Sampler[int]):
    """Every ``world``-th index from ``rank`` on: all processes together see each window exactly once, none is
    padded.
    """

    def __init__(self, count: int, rank: int, world: int) -> None:
        self._indices = range(rank, count, world)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)
