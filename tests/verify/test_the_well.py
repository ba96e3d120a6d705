"""What the package the-well gives, live: metrics of new random states, and windows of files in its format.

It lies in a folder of its own, because its pins contradict those of others, and runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from well_metrics import compare

from physml.datasets import TheWell, Windows
from physml.datasets.convert import convert
from physml.datasets.generate import generate
from physml.datasets.write_well import WellFiles
from physml.solvers import Kolmogorov2D

pytestmark = pytest.mark.slow
FOLDER = Path(sys.prefix) / "well"
READ = """
import sys
import numpy as np
from the_well.data import WellDataset
data = WellDataset(path=sys.argv[1], well_split_name="train", n_steps_input=2, n_steps_output=3)
items = [data[place] for place in range(len(data))]
np.savez(sys.argv[2], windows=np.stack([np.concatenate([i["input_fields"], i["output_fields"]]) for i in items]))
"""


def run(*line: object) -> None:
    if not FOLDER.exists():
        pytest.skip("needs the-well in a folder of its own; `make verify` has it")
    ran = subprocess.run(
        [sys.executable, *map(str, line)],
        env=os.environ | {"PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("seed", [1, 2])
def test_metrics_of_new_states(seed: int, tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    run(Path(__file__).with_name("make_golden_the_well.py"), "--seed", seed, "--out", out)
    told = json.loads(out.read_text())
    assert told["the_well"] == "1.2.0" and len(told["cases"]) == 3
    for case in told["cases"]:
        compare(case)


def test_windows_of_its_files(tmp_path: Path) -> None:
    """The same files give the same windows in the same order, and so does the store that is made of them."""
    solver = Kolmogorov2D(
        trajectories=5, frames=9, grid=16, reynolds=100.0, forcing_wavenumber=2, step=0.0125, frame_interval=0.1
    )
    generate(solver, tmp_path / "well", files=WellFiles())
    run("-c", READ, tmp_path / "well", tmp_path / "windows.npz")
    theirs = np.load(tmp_path / "windows.npz")["windows"]
    data = TheWell(tmp_path / "well")
    for ours in (data, convert(data, tmp_path / "back.zarr")):
        windows = Windows(ours, ours.segments["train"], 5, 1)
        assert len(windows) == len(theirs) > 0
        for place, expected in enumerate(theirs):
            np.testing.assert_array_equal(windows[place][0], expected)
