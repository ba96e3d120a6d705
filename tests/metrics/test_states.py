"""Accumulation over batches and processes equals one shot."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from physml.fields import Axis, Grid
from physml.metrics.pointwise import nrmse, relative_l2
from physml.metrics.states import RolloutError

GRID = Grid((Axis.periodic_uniform("x", 8, 1.0), Axis.periodic_uniform("y", 6, 1.0)))
# Sums of some ten numbers of order one in single precision.
CLOSE = {"rtol": 1e-5, "atol": 0}


def samples(count: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # Errors that differ from sample to sample, so that a mean of batch means would be wrong.
    scale = torch.arange(1, count + 1).reshape(-1, 1, 1, 1, 1)
    truth = torch.randn(count, 4, 8, 6, 2, generator=generator)
    return truth + 0.1 * scale * torch.randn(truth.shape, generator=generator), truth


def accumulate(x: torch.Tensor, y: torch.Tensor, sizes: list[int]) -> RolloutError:
    metric = RolloutError(leads=4, channels=2)
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        metric.update(a, b, GRID)
    return metric


def test_uneven_batches_equal_one_shot() -> None:
    x, y = samples()
    found = accumulate(x, y, [4, 4, 3]).compute()
    torch.testing.assert_close(found["relative_l2"], relative_l2(x, y, GRID).mean(), **CLOSE)
    torch.testing.assert_close(found["nrmse"], nrmse(x, y, GRID).mean(dim=0), **CLOSE)
    assert found["unstable"] == 0
    batch_means = torch.stack(
        [relative_l2(a, b, GRID).mean() for a, b in zip(x.split(4), y.split(4), strict=True)]
    ).mean()
    assert abs(batch_means - found["relative_l2"]) > 0.01  # the two means are told apart by this test


def test_two_ranks_with_unequal_shares_equal_one_process() -> None:
    x, y = samples()
    x[3, 2:] = math.nan
    one = accumulate(x, y, [11]).compute()
    ranks = [accumulate(x[:8], y[:8], [5, 3]), accumulate(x[8:], y[8:], [3])]
    merged = copy.deepcopy(ranks[0])
    for name, reduce in merged._reductions.items():
        # What torchmetrics does when it gathers the states of all processes.
        setattr(merged, name, reduce(torch.stack([getattr(rank, name) for rank in ranks])))
    merged._computed = None
    for name, value in merged.compute().items():
        torch.testing.assert_close(value, one[name], **CLOSE)


def test_unstable_samples_are_counted_not_averaged() -> None:
    x, y = samples()
    x[3, 2:] = math.nan
    found = accumulate(x, y, [6, 5]).compute()
    keep = torch.arange(11) != 3
    torch.testing.assert_close(found["relative_l2"], relative_l2(x, y, GRID)[keep].mean(), **CLOSE)
    torch.testing.assert_close(found["nrmse"][:2], nrmse(x, y, GRID)[:, :2].mean(dim=0), **CLOSE)
    torch.testing.assert_close(found["nrmse"][2:], nrmse(x, y, GRID)[keep, 2:].mean(dim=0), **CLOSE)
    assert found["unstable"].item() == pytest.approx(1 / 11)


def test_reset_and_refusal() -> None:
    x, y = samples()
    metric = accumulate(x, y, [11])
    first = metric.compute()
    metric.reset()
    metric.update(x[:2], y[:2], GRID)
    assert metric.compute()["relative_l2"] < first["relative_l2"]
    with pytest.raises(ValueError, match="got 3 frames of 2 fields, expected 4 of 2"):
        metric.update(x[:, :3], y[:, :3], GRID)
