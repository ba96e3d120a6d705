"""Write ``tests/metrics/golden_the_well.json``: what the package the-well 1.2.0 gives for small random states.

    pip install the-well==1.2.0 matplotlib
    python tests/verify/make_golden_the_well.py

``make verify`` has it write other states to another file, ``--seed 1 --out FILE``. The states are stored beside the
numbers, in float64, since random numbers of a seed may change with a release of torch.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from the_well.benchmark.metrics.spatial import MAE, NRMSE, RMSE, VRMSE, LInfinity, PearsonR

EXPECTED = "1.2.0"
TARGET = Path(__file__).parent.parent / "metrics" / "golden_the_well.json"


def case(space: tuple[int, ...], generator: torch.Generator) -> dict[str, Any]:
    """A prediction and a truth ``(2, *space, 2)``, with one field fifty times the other."""
    scale = torch.tensor([1.0, 0.02], dtype=torch.float64)
    shape = (2, *space, 2)
    y = scale * (0.5 + torch.randn(shape, generator=generator, dtype=torch.float64))
    x = y + 0.3 * scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    meta: Any = SimpleNamespace(n_spatial_dims=len(space))  # the only thing that the metrics ask of the metadata
    numbers = {
        "rmse": RMSE.eval(x, y, meta),
        "mae": MAE.eval(x, y, meta),
        "linf": LInfinity.eval(x, y, meta),
        "vrmse": VRMSE.eval(x, y, meta),
        "nrmse": NRMSE.eval(x, y, meta),
        "nrmse_without_epsilon": NRMSE.eval(x, y, meta, eps=0.0),
        "pearson": PearsonR.eval(x, y, meta),
        "pearson_without_epsilon": PearsonR.eval(x, y, meta, eps=0.0),
    }
    return {
        "space": list(space),
        "prediction": x.tolist(),
        "truth": y.tolist(),
        **{name: value.tolist() for name, value in numbers.items()},
    }


def main() -> None:
    if version("the_well") != EXPECTED:
        raise ValueError(f"the_well: got version {version('the_well')}, expected {EXPECTED}; install that one.")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(given.seed)
    cases = [case(space, generator) for space in ((9,), (4, 5), (3, 2, 4))]
    lines = ",\n".join(json.dumps(one) for one in cases)
    given.out.write_text(f'{{"the_well": "{EXPECTED}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
