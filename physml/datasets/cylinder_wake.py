"""The wake of a circular cylinder at Re = 100: a direct numerical simulation, kept as nine modes on a regular grid.

The velocity is ``u(t) = u_base + sum_i a_i(t) m_i`` with ``D = U = 1``, from the unstable steady state into the limit
cycle of vortex shedding (Nek5000 simulation distributed with the package pysindy, MIT licence; resampled). There is
one trajectory, so the splits are spans of time with a gap between them:

==========  ==================  ==============================================
split       time                use
==========  ==================  ==============================================
growth      0 to 60             the transient, never trained on
train       60 to 170           limit cycle
validation  172 to 185          limit cycle
test        187 to the end      limit cycle
==========  ==================  ==============================================
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import torch

from physml.datasets.storage import Storage
from physml.datasets.trajectories import Segment, Trajectories, measure
from physml.fields import Axis, Boundary, Field, Grid, Layout

FILE = "wake_re100_grid.npz"
_SPANS = {"growth": (0.0, 60.0), "train": (60.0, 170.0), "validation": (172.0, 185.0), "test": (187.0, np.inf)}
_SHAPES = {
    "x": 1,
    "y": 1,
    "body_mask": 2,
    "base_velocity": 3,
    "mode_velocity": 4,
    "time": 1,
    "coefficients": 2,
    "viscosity": 0,
}


class CylinderWake(Trajectories):
    """The wake, opened from the folder that holds ``wake_re100_grid.npz``; frames are made when they are read.

    Args:
        path: that folder, or the file.
        stride: stored instants (0.1 apart) between two frames; 5 gives frames 0.5 apart.

    Raises:
        ValueError: where the file lacks an array or an array has the wrong shape.
    """

    def __init__(self, path: str | Path, stride: int = 5) -> None:
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        self.path, self.name, self._file = str(path), "cylinder_wake", file
        try:
            with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as archive:
                data = {name: archive[name] for name in _SHAPES}
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as problem:
            raise ValueError(f"{file}: not the expected wake archive ({problem}); fetch it again.") from None
        for name, dimensions in _SHAPES.items():
            if data[name].ndim != dimensions:
                raise ValueError(f"{file}: {name} has shape {data[name].shape}, expected {dimensions} dimensions.")
        self._times = times = data["time"][::stride].astype(np.float64)
        solid = data["body_mask"].astype(bool)
        axes = tuple(
            Axis(name, points, Boundary.OPEN, float(points[-1] - points[0]), "D")
            for name, points in ((name, torch.from_numpy(data[name].astype(np.float64))) for name in ("x", "y"))
        )
        self.layout = Layout(
            (Field("velocity_x", "U"), Field("velocity_y", "U")),
            Grid(axes, torch.from_numpy(~solid)),
            dt=float(np.round(times[1] - times[0], 6)),
            time_units="D/U",
        )
        self._coefficients = data["coefficients"][::stride].astype(np.float32)
        self._base, self._modes = data["base_velocity"], data["mode_velocity"]
        self._fluid = (~solid)[..., None].astype(np.float32)
        self.count, self.frames = 1, len(times)
        self.parameters = {"viscosity": np.array([float(data["viscosity"])])}
        self.segments = {}
        for split, (begin, end) in _SPANS.items():
            inside = np.flatnonzero((times >= begin - 1e-6) & (times < end - 1e-6))
            if len(inside):
                self.segments[split] = (Segment(0, int(inside[0]), int(inside[-1]) + 1),)
        digest = hashlib.sha256(repr(stride).encode())
        for name in sorted(data):
            digest.update(np.ascontiguousarray(data[name]).tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.provenance = {"source": FILE, "stride": stride, "solver": "Nek5000 modes distributed with pysindy (MIT)"}
        self.statistics = measure(self.layout, self.segments["train"], self.read, parameters=self.parameters)

    def times(self) -> np.ndarray:
        return self._times

    def storage(self) -> Storage:
        return Storage.of([self._file])

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        values = self._base + np.tensordot(self._coefficients[frames], self._modes, axes=1)
        return (values * self._fluid).astype(np.float32)


EXPECTED = f"a folder with {FILE}"


def recognises(path: Path) -> bool:
    """Whether this adapter opens the path."""
    return path.name == FILE or (path / FILE).exists()


def opened(path: Path) -> CylinderWake:
    """The data set at the path."""
    return CylinderWake(path)
