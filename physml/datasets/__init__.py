"""Data sets: one adapter per source, the canonical store, windows and batches."""

from typing import Any

from physml.datasets.cylinder_wake import CylinderWake
from physml.datasets.opening import data_root, open_trajectories
from physml.datasets.store import StoreWriter, TrajectoryStore
from physml.datasets.trajectories import Segment, Statistics, Trajectories
from physml.datasets.windows import Windows

__all__ = [
    "CylinderWake",
    "Segment",
    "Statistics",
    "StoreWriter",
    "Trajectories",
    "TrajectoryData",
    "TrajectoryStore",
    "Windows",
    "data_root",
    "open_trajectories",
]


def __getattr__(name: str) -> Any:
    if name == "TrajectoryData":  # the only one that needs Lightning, which takes seconds to import
        from physml.datasets.datamodule import TrajectoryData

        return TrajectoryData
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
