"""Data and rollouts in memory, for the tests that measure them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from physml.datasets.trajectories import Segment, Statistics, Trajectories
from physml.fields import Axis, Field, Grid, Layout


class Memory(Trajectories):
    """States in memory that note how many frames were asked for at once."""

    def __init__(self, states: np.ndarray, layout: Layout, **parameters: float) -> None:
        self.states, self.layout = states.astype(np.float32), layout
        self.name, self.path, self.fingerprint = "memory", "memory", "f00d"
        self.count, self.frames = states.shape[:2]
        self.parameters = {name: np.full(self.count, value) for name, value in parameters.items()}
        self.segments = {"test": tuple(Segment(row, 0, self.frames) for row in range(self.count))}
        self.statistics = Statistics((0.0,), (1.0,), (1.0,), 1.0)
        self.provenance: dict[str, Any] = {}
        self.longest = 0

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        found = self.states[trajectory, frames]
        self.longest = max(self.longest, len(found))
        return found


def layout_of(space: Sequence[int], fields: Sequence[str], dt: float = 0.5, units: str = "") -> Layout:
    axes = tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name, n in zip("xyz", space, strict=False))
    return Layout(tuple(Field(name, units) for name in fields), Grid(axes), dt)


def rolled(
    data: Memory, states: np.ndarray, trajectory: Sequence[int], frame: Sequence[int], stride: int = 1, **about: Any
) -> xr.Dataset:
    """A rollout as its store is opened."""
    samples, leads = states.shape[:2]
    layout = Layout(data.layout.fields, data.layout.grid, data.layout.dt * stride, data.layout.time_units)
    dims = ("sample", "lead", *layout.grid.names, "field")
    blowup = np.zeros(samples, int)
    for sample in range(samples):
        bad = ~np.isfinite(states[sample]).all(axis=tuple(range(1, states.ndim - 1)))
        blowup[sample] = bad.argmax() + 1 if bad.any() else 0
    return xr.Dataset(
        {"state": (dims, states.astype(np.float32))},
        coords={
            "lead": np.arange(1, leads + 1),
            "lead_time": ("lead", np.arange(1, leads + 1) * layout.dt),
            "trajectory": ("sample", np.array(trajectory)),
            "frame": ("sample", np.array(frame)),
            "blowup": ("sample", blowup),
            "field": list(layout.names),
        },
        attrs={
            "physml": {
                "kind": "rollout",
                "layout": layout.to_plain(),
                "source": {"path": data.path, "fingerprint": data.fingerprint, "split": "test"},
                "stride": stride,
                "model": {"operator": "a test"},
                **about,
            }
        },
    )


def turbulence(count: int, frames: int, space: Sequence[int], channels: int, seed: int = 0) -> np.ndarray:
    """Smooth random states that change a little from frame to frame."""
    generator = np.random.default_rng(seed)
    start = generator.normal(size=(count, 1, *space, channels))
    drift = 0.1 * generator.normal(size=(count, frames, *space, channels)).cumsum(axis=1)
    return start + drift
