"""Steady states whose every number is known: a coefficient that is a field, times a strength that is a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from physml.datasets import Segment, StoreWriter, TrajectoryStore
from physml.emulator import Emulator, Origin
from physml.fields import Axis, Field, Grid, Layout, Setting
from physml.normalise import Standardise
from physml.operators import Operator


def steady_layout(shape: tuple[int, ...] = (8, 8)) -> Layout:
    axes = tuple(Axis.periodic_uniform(name, n, 2 * np.pi) for name, n in zip("xyz", shape, strict=False))
    return Layout((Field("response"),), Grid(axes), dt=1.0, static=(Field("coefficient", "m"),))


def coefficient(layout: Layout, trajectory: int) -> np.ndarray:
    """``2 + sin(x + trajectory)``, ``(*space, 1)``."""
    x = np.meshgrid(*(axis.points.numpy() for axis in layout.grid.axes), indexing="ij")[0]
    return (2 + np.sin(x + trajectory))[..., None].astype(np.float32)


def strength(trajectory: int) -> float:
    return 0.5 + trajectory


def make_steady_store(path: Path, count: int = 6, **changes: object) -> TrajectoryStore:
    """One frame a trajectory, ``strength * coefficient``; four trajectories to train on, one each for the rest."""
    layout = steady_layout()
    last = count - 2
    arguments: dict = {
        "name": "steady",
        "layout": layout,
        "count": count,
        "frames": 1,
        "parameters": {"age": [7.0] * count, "strength": [strength(row) for row in range(count)]},
        "segments": {
            "train": [Segment(row, 0, 1) for row in range(last)],
            "validation": [Segment(last, 0, 1)],
            "test": [Segment(last + 1, 0, 1), Segment(0, 0, 1)],
        },
        "provenance": {},
    }
    writer = StoreWriter(path, **arguments | changes)
    digests = []
    for row in range(count):
        field = coefficient(layout, row)
        writer.write_static(row, field)
        digests.append(writer.write(row, 0, strength(row) * field[None]))
    return writer.finish(digests)


class Response(Operator):
    """Reads no frame: the number times the static field is every frame, the exact solution in physical units."""

    condition = ("strength",)

    def __init__(self, *, steps: int = 1, axes: int = 2) -> None:
        super().__init__()
        self.channels, self.frames, self.steps, self.axes, self.static = 1, 0, steps, axes, 1

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        self.check(window, steps, setting)
        assert setting is not None and setting.numbers is not None and setting.fields is not None
        number = setting.numbers.reshape(-1, *[1] * (self.axes + 1))
        return (number * setting.fields)[:, None].repeat_interleave(steps, dim=1)


def exact(store: TrajectoryStore, steps: int = 1) -> Emulator:
    """The exact solution as an emulator trained on the store: its network units are the physical ones."""
    emulator = Emulator(Response(steps=steps), Standardise())
    moments = store.statistics.to_plain() | {"energy": 1e6}  # in those units, no state is an explosion
    emulator.learn(Origin(store.layout, moments, 1, store.fingerprint))
    for name, buffer in emulator.normaliser.named_buffers():
        buffer.copy_(torch.zeros(()) if name.endswith("mean") else torch.ones(()))
    return emulator.eval()
