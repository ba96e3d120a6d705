"""Fixtures: a tiny data set with known contents, and the real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch
from waves import make_store

from physml.datasets import TrajectoryStore

torch.set_num_threads(1)
hypothesis.settings.register_profile("machine", deadline=None)  # a busy machine is no defect of the code
hypothesis.settings.load_profile("machine")


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return make_store(tmp_path / "waves.zarr")


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that ``PHYSML_DATA`` names."""
    root = os.environ.get("PHYSML_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("PHYSML_DATA is not set to a folder of real data sets")
    return Path(root)
