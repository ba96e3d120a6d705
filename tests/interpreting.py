"""Kernels on the CPU: a test file run as a program under Triton's interpreter, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def interpreted(file: str) -> Any:
    """What the file prints last, as JSON; the test is skipped where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: its kernels cannot be interpreted")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, file],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
