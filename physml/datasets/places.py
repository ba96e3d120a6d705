"""Where data lie that are given by relative paths."""

from __future__ import annotations

import os
from pathlib import Path


def data_root() -> Path:
    """The folder that relative data paths are looked up in: ``PHYSML_DATA``, or ``data``."""
    return Path(os.environ.get("PHYSML_DATA") or "data")
