"""A mapping file for arrays of trajectories on one periodic axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def mapped(folder: Path, file: str, array: str = "", **changes: Any) -> Path:
    """Write it for one field u, with other keys where they are given."""
    keys = {
        "file": file,
        "fields": {"u": {"array": array} if array else {}},
        "dimensions": ["trajectory", "time", "x"],
        "axes": {"x": {"start": 0, "stop": 1, "endpoint": False, "boundary": "periodic"}},
        "time": {"dt": 0.5},
    }
    made = folder / "mine.physml.yaml"
    made.write_text(yaml.safe_dump(keys | changes, sort_keys=False))
    return made
