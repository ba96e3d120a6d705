"""Tables of errors from states in memory: two models, one of which loses a sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr

from physml.datasets.trajectories import Segment, Statistics, Trajectories
from physml.evaluate import evaluate
from physml.fields import Axis, Field, Grid, Layout

LEADS, LOST = 8, 5
"""Frames predicted, and the lead at which sample 1 of the model ``far`` blows up."""


class Memory(Trajectories):
    """States ``(trajectory, time, *space, C)`` in memory."""

    def __init__(self, states: np.ndarray, layout: Layout) -> None:
        self.states, self.layout = states.astype(np.float32), layout
        self.name, self.path, self.fingerprint = "memory", "memory", "f00d"
        self.count, self.frames = states.shape[:2]
        self.parameters = {}
        self.segments = {"test": tuple(Segment(row, 0, self.frames) for row in range(self.count))}
        self.statistics = Statistics((0.0,), (1.0,), (1.0,), 1.0)
        self.provenance: dict[str, Any] = {}

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        return self.states[trajectory, frames]


def layout_of(space: tuple[int, ...], fields: tuple[Field, ...], dt: float = 0.5) -> Layout:
    axes = tuple(Axis.periodic_uniform(name, n, 2 * math.pi, "m") for name, n in zip("xyz", space, strict=False))
    return Layout(fields, Grid(axes), dt, "s")


def rolled(data: Memory, states: np.ndarray, blowup: list[int]) -> xr.Dataset:
    dims = ("sample", "lead", *data.layout.grid.names, "field")
    about = {
        "kind": "rollout",
        "layout": data.layout.to_plain(),
        "source": {"path": "memory", "name": "memory", "fingerprint": "f00d", "split": "test"},
        "stride": 1,
        "model": None,
    }
    zeros = np.zeros(len(states), int)
    coords = {"trajectory": ("sample", np.arange(len(states))), "frame": ("sample", zeros + 1)}
    return xr.Dataset(
        {"state": (dims, states.astype(np.float32))}, coords | {"blowup": ("sample", blowup)}, {"physml": about}
    )


def evaluated(fields: tuple[Field, ...], space: tuple[int, ...] = (12, 12)) -> dict[str, xr.Dataset]:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(3, LEADS + 1, *space, len(fields)))
    data = Memory(states, layout_of(space, fields))
    truth = states[:, 1:]
    wrong = generator.normal(size=truth.shape) * np.arange(1, LEADS + 1).reshape(-1, *[1] * (len(space) + 1))
    far = truth + 0.05 * wrong
    far[1, LOST - 1 :] = np.nan
    return {
        "near": evaluate(rolled(data, truth + 0.01 * wrong, [0, 0, 0]), data),
        "far": evaluate(rolled(data, far, [0, LOST, 0]), data),
    }


@pytest.fixture(scope="session")
def results() -> dict[str, xr.Dataset]:
    return evaluated((Field("vorticity", "1/s"),))


@pytest.fixture(scope="session")
def two_fields() -> dict[str, xr.Dataset]:
    return evaluated((Field("height", "m"), Field("tracer", "kg")))
