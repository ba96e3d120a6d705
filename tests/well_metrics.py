"""What our metrics of a state have to do with those of the package the-well."""

from __future__ import annotations

import math
from typing import Any

import torch

from physml.fields import Axis, Grid
from physml.metrics.pointwise import average, correlation, linf, mae, nrmse, rmse, variance, vrmse


def compare(case: dict[str, Any]) -> None:
    """Assert that a case of ``tests/verify/make_golden_the_well.py`` has our numbers.

    For nRMSE and r there is a factor: its nRMSE adds 1e-7 to <y^2>; its r divides a biased covariance by unbiased
    deviations, hence S/(S-1).
    """
    x, y = (torch.tensor(case[name], dtype=torch.float64) for name in ("prediction", "truth"))
    well = {name: torch.tensor(case[name], dtype=torch.float64) for name in case.keys() - {"space"}}
    space = case["space"]
    grid = Grid(tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name, n in zip("xyz", space, strict=False)))
    points = math.prod(space)
    exact = {"rtol": 1e-12, "atol": 0.0}  # sums of a few dozen numbers in double precision, in another order
    for metric in (rmse, mae, linf, vrmse):
        torch.testing.assert_close(metric(x, y, grid), well[metric.__name__], **exact)
    torch.testing.assert_close(nrmse(x, y, grid), well["nrmse_without_epsilon"], **exact)
    power = average(y.square(), grid)
    torch.testing.assert_close(nrmse(x, y, grid) * (power / (power + 1e-7)).sqrt(), well["nrmse"], **exact)
    r = correlation(x, y, grid)
    torch.testing.assert_close(r * (points - 1) / points, well["pearson_without_epsilon"], **exact)
    spread = (variance(x, grid) * variance(y, grid)).sqrt()
    torch.testing.assert_close(r * (points - 1) / points * spread / (spread + 1e-7), well["pearson"], **exact)
