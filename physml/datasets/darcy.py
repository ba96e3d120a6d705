"""Darcy flow through two materials on the unit square, as distributed with the package neuraloperator (MIT licence).

The pressure solves ``-div(a grad p) = f`` in ``[0, 1]^2`` with constant ``f`` and ``p = 0`` on the walls, for a
permeability ``a`` that takes two values (the data set of Li et al. 2021, arXiv 2010.08895, at 16 x 16 points). A steady
problem is a trajectory of one frame with nothing known before it: the pressure is its frame and the permeability its
static field.

What the files leave open was read off the numbers:

* Points are taken to be ``x_j = j / n``, ``j = 0..n-1``, a selection from a finer grid. In the training file the mean
  pressure at ``j = 0`` is 2 % of that at ``j = 1``, so the first point lies at the wall; at ``j = 15`` it is that at
  ``j = 1`` to 3 %, so the last lies one spacing from the far wall, which itself is left out.
* The permeability is stored as a flag. 0 and 1 stand for the two values, which the files do not tell; they differ by a
  factor of 18, and 1 is the larger (median five-point Laplacians of the pressure away from material borders).
* Pressure cannot be negative, but twelve values at the walls of the training file are, and one of the test file: all
  small but two, -0.43 in sample 767 for training and -0.12 in sample 12 for testing. They are read as they are.

==========  =====================================================
split       samples
==========  =====================================================
train       the training file but for its last twentieth
validation  the last twentieth of the training file
test        the test file
==========  =====================================================
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from physml.datasets.storage import Storage
from physml.datasets.trajectories import Segment, Trajectories, measure
from physml.fields import Axis, Boundary, Field, Grid, Layout

TRAIN, TEST = "darcy_train_16.pt", "darcy_test_16.pt"
_VALIDATION = 0.05


class DarcyFlow(Trajectories):
    """Pressure and permeability of the files ``darcy_train_16.pt`` and ``darcy_test_16.pt``, read whole into memory.

    The frame interval is 1 and means nothing.

    Args:
        path: the folder that holds both.

    Raises:
        FileNotFoundError: where one of them is missing.
        ValueError: where a file does not hold ``x`` (bool) and ``y``, ``(N, n, n)`` each.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.name = str(path), "darcy_flow"
        parts = [_load(Path(path) / name) for name in (TRAIN, TEST)]
        if parts[0][0].shape[1:] != parts[1][0].shape[1:]:
            raise ValueError(
                f"{path}: {TRAIN} has a grid of {tuple(parts[0][0].shape[1:])} points, {TEST} one of "
                f"{tuple(parts[1][0].shape[1:])}; they do not belong together."
            )
        training, test = (len(part[0]) for part in parts)
        self._permeability, self._pressure = (torch.cat(pair).float().numpy() for pair in zip(*parts, strict=True))
        self.count, self.frames = training + test, 1
        axes = tuple(
            Axis(name, torch.arange(n, dtype=torch.float64) / n, Boundary.WALL, 1.0)
            for name, n in zip("xy", self._pressure.shape[1:], strict=True)
        )
        self.layout = Layout((Field("pressure"),), Grid(axes), dt=1.0, static=(Field("permeability"),))
        self.parameters = {}
        held = training - max(1, round(_VALIDATION * training))
        bounds = {"train": (0, held), "validation": (held, training), "test": (training, self.count)}
        self.segments = {split: tuple(Segment(row, 0, 1) for row in range(*span)) for split, span in bounds.items()}
        digest = hashlib.sha256(repr((training, test)).encode())
        for values in (self._permeability, self._pressure):
            digest.update(np.ascontiguousarray(values).tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self.provenance = {"source": [TRAIN, TEST], "distributed_with": "neuraloperator (MIT)"}
        self.statistics = measure(self.layout, self.segments["train"], self.read, read_static=self.read_static)

    def storage(self) -> Storage:
        return Storage.of([Path(self.path) / name for name in (TRAIN, TEST)])

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        return self._pressure[trajectory, None, ..., None][frames]

    def _read_static(self, trajectory: int) -> np.ndarray:
        return self._permeability[trajectory, ..., None]


def _load(file: Path) -> tuple[Tensor, Tensor]:
    """``x`` and ``y`` of one file."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; {TRAIN} and {TEST} are read together, put both in the folder.")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as problem:
        raise ValueError(
            f"{file}: not a file of tensors ({' '.join(str(problem).split())[:80] or type(problem).__name__}); fetch "
            "it again."
        ) from None
    x, y = (found.get(key) if isinstance(found, dict) else None for key in ("x", "y"))
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        holds = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{file}: holds {holds}; expected a dictionary with the tensors x and y.")
    if x.dtype != torch.bool or y.ndim != 3 or x.shape != y.shape or not y.shape[0] or min(y.shape[1:]) < 2:
        raise ValueError(
            f"{file}: x is {x.dtype} {tuple(x.shape)} and y {y.dtype} {tuple(y.shape)}; expected a flag x and a number "
            "y at each of (N, n, n) points."
        )
    return x, y


EXPECTED = f"a folder with {TRAIN} and {TEST}"


def recognises(path: Path) -> bool:
    """Whether this adapter opens the path."""
    return any((path / name).exists() for name in (TRAIN, TEST))


def opened(path: Path) -> DarcyFlow:
    """The data set at the path."""
    return DarcyFlow(path)
