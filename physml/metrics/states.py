"""Errors accumulated over the batches and processes of a validation or test run.

Every state is a sum, and every sum is over samples: a last batch of another size, or processes with unequal shares,
change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from physml.fields import Grid
from physml.metrics.pointwise import nrmse, relative_l2


class RolloutError(Metric):
    """Mean over samples of the relative L2 error of a rollout, and of its nRMSE at each lead and field.

    A sample that is not finite in some frame is no number to average: it is left out of the means from then on and
    counted in ``unstable``.

    Args:
        leads: number of predicted frames T.
        channels: number of fields C.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    error: Tensor
    stable: Tensor
    frame_error: Tensor
    frame_count: Tensor
    samples: Tensor

    def __init__(self, *, leads: int, channels: int) -> None:
        super().__init__()
        if leads < 1 or channels < 1:
            raise ValueError(f"leads, channels: got {leads} and {channels}, expected at least one of each.")
        self.leads, self.channels = leads, channels
        self.add_state("error", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("stable", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("frame_error", torch.zeros(leads, channels), dist_reduce_fx="sum")
        self.add_state("frame_count", torch.zeros(leads, channels), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor, grid: Grid) -> None:
        """Add a batch.

        Args:
            prediction: ``(B, T, *space, C)``, physical units.
            truth: the same shape.
            grid: where they live.
        """
        if prediction.shape[1] != self.leads or prediction.shape[-1] != self.channels:
            raise ValueError(
                f"prediction: got {prediction.shape[1]} frames of {prediction.shape[-1]} fields, expected {self.leads} "
                f"of {self.channels}; make the metric with the numbers of the rollout."
            )
        whole = relative_l2(prediction, truth, grid)
        frames = nrmse(prediction, truth, grid)
        self.error += torch.where(whole.isfinite(), whole, 0).sum()
        self.stable += whole.isfinite().sum()
        self.frame_error += torch.where(frames.isfinite(), frames, 0).sum(dim=0)
        self.frame_count += frames.isfinite().sum(dim=0)
        self.samples += len(prediction)

    def compute(self) -> dict[str, Tensor]:
        """``relative_l2`` ``()``, ``nrmse`` ``(T, C)``, and ``unstable``, the part of the samples left out, ``()``.

        NaN where no sample was left.
        """
        return {
            "relative_l2": self.error / self.stable,
            "nrmse": self.frame_error / self.frame_count,
            "unstable": 1 - self.stable / self.samples,
        }
