"""Run a solver and stream what it makes into a data set; a killed run continues where it stopped."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physml.datasets.file_writer import FileLayout, FileWriter
from physml.datasets.places import local
from physml.datasets.store import StoreWriter
from physml.datasets.trajectories import Segment, Trajectories
from physml.datasets.writing import Plan, TrajectoryWriter
from physml.solvers import Solver

_BATCH = 8


def split_by_trajectory(count: int, frames: int, validation: float, test: float) -> dict[str, list[Segment]]:
    """Whole trajectories to splits: the last go to ``test``, those before to ``validation``, at least one to each.

    Args:
        count, frames: trajectories and frames of each.
        validation, test: parts of the count.
    """
    ends = [max(1, math.floor(part * count + 0.5)) for part in (validation, test)]
    train = count - sum(ends)
    if train < 1 or min(validation, test) < 0:
        raise ValueError(
            f"trajectories: got {count}, of which validation={validation:g} and test={test:g} leave none to "
            "train on; make more."
        )
    bounds = {"train": (0, train), "validation": (train, train + ends[0]), "test": (train + ends[0], count)}
    return {split: [Segment(row, 0, frames) for row in range(*span)] for split, span in bounds.items()}


def plan_of(solver: Solver, *, validation: float = 0.1, test: float = 0.2) -> Plan:
    """What a solver is going to make; the last trajectories are for validation and testing."""
    return Plan(
        name=solver.name,
        layout=solver.layout,
        count=solver.trajectories,
        frames=solver.frames,
        parameters=solver.parameters(),
        segments=split_by_trajectory(solver.trajectories, solver.frames, validation, test),
        provenance={"solver": solver.describe()},
    )


def generate(
    solver: Solver,
    out: str | Path,
    *,
    files: FileLayout | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    batch: int | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trajectories:
    """Solve all trajectories and store them.

    Args:
        solver: what to solve.
        out: folder or file to write; an interrupted one is continued, bit for bit what it would have been.
        files: the format of the files of another program, for instance ``WellFiles()``; the canonical store if not
            given.
        validation, test: parts of the trajectories kept for these splits.
        batch: trajectories solved at once; 8 on the CPU, where more leave the cache, and 64 on a GPU if not given.
        device: where to solve.
        progress: called with frame intervals done and to do, over all trajectories.

    Returns:
        The finished data set, open.

    Raises:
        ValueError: where the format cannot hold what the solver makes.
    """
    out = local(out, "out")
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = plan_of(solver, validation=validation, test=test)
    writer: TrajectoryWriter = (
        StoreWriter(out, **vars(plan)) if files is None else FileWriter(out, files=files, plan=plan)
    )
    progress_file = out.with_name(f".{out.name}.progress")
    if writer.created or writer.complete:
        progress_file.unlink(missing_ok=True)  # of a store that was deleted, or is finished
    if writer.complete:
        return writer.finish([])
    batch = min(batch or (_BATCH if torch.device(device).type == "cpu" else 8 * _BATCH), solver.trajectories)
    position = _Position.load(progress_file, solver.trajectories, batch)
    each = solver.warmup + solver.frames
    for first in range(position.first, solver.trajectories, position.batch):
        rows = range(first, min(first + position.batch, solver.trajectories))
        if position.state is None:
            position.first, position.interval = first, -solver.warmup
            position.state = solver.initial(rows, device)
        state = {name: value.to(device) for name, value in position.state.items()}
        block: list[np.ndarray] = []
        for interval in range(position.interval, solver.frames):
            if interval >= 0:
                block.append(solver.observe(state).float().cpu().numpy())
            last = interval == solver.frames - 1
            if not last:
                state = solver.advance(state)
            progress(first * each + len(rows) * (interval + 1 + solver.warmup), solver.trajectories * each)
            if (interval + 1) % writer.chunk_frames == 0 or last:
                if block:
                    for row, values in zip(rows, np.stack(block, axis=1), strict=True):
                        digest = writer.write(row, interval + 1 - len(block), values)
                        position.digests[row] = hashlib.sha256((position.digests[row] + digest).encode()).hexdigest()
                block = []
                position.interval, position.state = interval + 1, state
                position.save(progress_file)
        position.first, position.state = rows.stop, None
        position.save(progress_file)
    store = writer.finish(position.digests)
    progress_file.unlink(missing_ok=True)
    return store


class _Position:
    """How far a generation has come: enough to continue it exactly."""

    def __init__(
        self,
        digests: Sequence[str],
        batch: int,
        first: int = 0,
        interval: int = 0,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.digests, self.batch, self.first, self.interval, self.state = list(digests), batch, first, interval, state

    @classmethod
    def load(cls, path: Path, count: int, batch: int) -> _Position:
        if not path.exists():
            return cls([""] * count, batch)
        plain: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return cls(**plain)

    def save(self, path: Path) -> None:
        beside = path.with_name(f"{path.name}.new")
        torch.save(dict(self.__dict__), beside)
        os.replace(beside, path)
