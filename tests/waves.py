"""Travelling waves: a data set whose every number is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from physml.datasets import Segment, StoreWriter, TrajectoryStore
from physml.fields import Axis, Field, Grid, Layout


def wave_layout(shape: tuple[int, ...] = (16, 16), dt: float = 0.25) -> Layout:
    axes = tuple(Axis.periodic_uniform(name, n, 2 * np.pi) for name, n in zip("xyz", shape, strict=False))
    return Layout((Field("vorticity", "1/s"),), Grid(axes), dt, "s")


def wave(layout: Layout, trajectory: int, frames: int) -> np.ndarray:
    """``sin(x - c t + phase)`` summed over the axes: frame ``t`` is frame 0 shifted by ``c t``."""
    x = np.meshgrid(*(axis.points.numpy() for axis in layout.grid.axes), indexing="ij")
    t = layout.dt * np.arange(frames).reshape(-1, *[1] * len(x))
    values = sum(np.sin((1 + m) * axis[None] - t + trajectory) for m, axis in enumerate(x))
    return np.asarray(values)[..., None].astype(np.float32)


def make_store(path: Path, count: int = 6, frames: int = 20, shape: tuple[int, ...] = (16, 16)) -> TrajectoryStore:
    layout = wave_layout(shape)
    segments = {
        "train": [Segment(row, 0, frames) for row in range(count - 2)],
        "validation": [Segment(count - 2, 0, frames)],
        "test": [Segment(count - 1, 0, frames)],
    }
    writer = StoreWriter(
        path,
        name="waves",
        layout=layout,
        count=count,
        frames=frames,
        parameters={"viscosity": [0.01 * (1 + row) for row in range(count)]},
        segments=segments,
        provenance={"test": [count, frames, *shape]},
    )
    digests: list[str] = []
    for row in range(0 if writer.complete else count):
        values, digest = wave(layout, row, frames), ""
        for start in range(0, frames, writer.chunk_frames):
            digest += writer.write(row, start, values[start : start + writer.chunk_frames])
        digests.append(digest)
    return writer.finish(digests)
