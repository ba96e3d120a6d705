"""A training split that is read once and kept on the device: for data that fit, no batch ever waits for a disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from physml.datasets.trajectories import Trajectories
from physml.datasets.windows import Windows
from physml.fields import Batch, GridField


@dataclass(frozen=True)
class Places:
    """Which windows a batch is made of: trajectory and first frame of each."""

    trajectories: Tensor
    starts: Tensor

    @classmethod
    def collate(cls, samples: Sequence[tuple[int, int]]) -> Places:
        rows, starts = torch.tensor(samples).unbind(dim=1)
        return cls(rows, starts)


class PlacesOf(Dataset[tuple[int, int]]):
    """The places of windows, without their numbers."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.windows.place(index)


class Resident:
    """The trajectories of a split on a device, from the first frame of any window to the last, and batches of windows.

    Args:
        data: what is read, once.
        windows: which windows there are.
        known: frames of the input; the rest are targets.
        device: where the numbers are kept.

    Raises:
        ValueError: where the device has too little free memory.
    """

    def __init__(self, data: Trajectories, windows: Windows, known: int, device: torch.device) -> None:
        layout = data.layout
        touched = windows.reach
        numbers = sorted({segment.trajectory for segment in touched})
        # of one long trajectory that is split in time, only the part that the windows touch
        self._first, stop = min(segment.start for segment in touched), max(segment.stop for segment in touched)
        shape = (len(numbers), stop - self._first, *layout.grid.shape, len(layout.fields))
        still = (len(numbers), *layout.grid.shape, len(layout.static))
        size = 4 * (math.prod(shape) + math.prod(still))
        if device.type == "cuda" and size > 0.8 * torch.cuda.mem_get_info(device)[0]:
            raise ValueError(
                f"data.init_args.resident: the training split takes {size / 2**30:.1f} GiB, {device} has "
                f"{torch.cuda.mem_get_info(device)[0] / 2**30:.1f} GiB free; set resident to false."
            )
        self.values = torch.empty(shape, device=device)
        for row, number in enumerate(numbers):
            end = min(stop, data.length(number))
            read = np.ascontiguousarray(data.read(number, self._first, end))
            self.values[row, : len(read)] = torch.from_numpy(read)
        self._row = torch.full((data.count,), -1)
        self._row[numbers] = torch.arange(len(numbers))
        self._row = self._row.to(device)
        self._offsets = windows.stride * torch.arange(windows.length, device=device)
        self._known, self._names = known, layout.names
        self._grid = layout.grid.to(torch.float32).to(device)
        self._parameters = {
            name: torch.as_tensor(values, dtype=torch.float32, device=device)
            for name, values in data.parameters.items()
        }
        self._static_names = tuple(item.name for item in layout.static)
        self._static = (
            torch.from_numpy(np.stack([data.read_static(number) for number in numbers])).to(device)
            if layout.static
            else None
        )

    def batch(self, places: Places) -> Batch:
        """The windows at these places."""
        trajectories = places.trajectories.to(self.values.device, non_blocking=True)
        starts = places.starts.to(self.values.device, non_blocking=True)
        rows = self._row[trajectories]
        values = self.values[rows[:, None], starts[:, None] - self._first + self._offsets]
        inputs = {"state": GridField(values[:, : self._known], self._grid, self._names)}
        if self._static is not None:
            inputs["static"] = GridField(self._static[rows][:, None], self._grid, self._static_names)
        return Batch(
            size=len(rows),
            inputs=inputs,
            targets={"state": GridField(values[:, self._known :], self._grid, self._names)},
            condition={name: numbers[trajectories] for name, numbers in self._parameters.items()},
        )
