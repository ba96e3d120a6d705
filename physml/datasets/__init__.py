"""Data sets: one adapter per source, the canonical store, windows and batches."""

from typing import Any

from physml.datasets.arrays import Arrays
from physml.datasets.cylinder_wake import CylinderWake
from physml.datasets.darcy import DarcyFlow
from physml.datasets.labelled import Labelled
from physml.datasets.opening import open_trajectories
from physml.datasets.pdebench import PDEBench
from physml.datasets.places import data_root
from physml.datasets.store import StoreWriter, TrajectoryStore
from physml.datasets.trajectories import Segment, Statistics, Trajectories
from physml.datasets.well import TheWell
from physml.datasets.windows import Windows

__all__ = [
    "Arrays",
    "CylinderWake",
    "DarcyFlow",
    "Labelled",
    "PDEBench",
    "Segment",
    "Statistics",
    "StoreWriter",
    "TheWell",
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
