"""How good an emulator is while it is trained: what validation and test compute, and what chooses the best
checkpoint.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.emulator import Emulator
from physml.fields import Batch
from physml.metrics import RolloutError
from physml.rollout import rollout


class Assessment(Configured, nn.Module):
    """Accumulates over the batches and processes of a split; unpacks the branches of a batch as an objective does.

    Attributes:
        horizon: frames after the known ones that a sample must hold.
    """

    horizon: int

    @abstractmethod
    def prepare(self, emulator: Emulator) -> None:
        """Make the accumulators for this emulator."""

    @abstractmethod
    def update(self, emulator: Emulator, batch: Batch) -> None:
        """Add a batch in physical units."""

    @abstractmethod
    def compute(self) -> Mapping[str, Tensor]:
        """Scalars over all processes, by name, and start anew. The first chooses the best checkpoint: lower is
        better.
        """


class RolloutAssessment(Assessment):
    """Relative L2 error of an autoregressive rollout from the window of branch ``state``.

    ``rollout`` is the mean over samples. Where some samples blew up it is at least 1000 and grows with their part, so
    that such a checkpoint loses against any without.

    Args:
        steps: frames to roll out.
    """

    def __init__(self, *, steps: int = 16) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps: got {steps}, expected at least 1.")
        self.horizon = steps

    def prepare(self, emulator: Emulator) -> None:
        self.error = RolloutError(leads=self.horizon, channels=emulator.operator.channels)

    def update(self, emulator: Emulator, batch: Batch) -> None:
        known, truth = batch.inputs["state"], batch.targets["state"]
        static = batch.setting.fields
        frames = list(rollout(emulator, known.values, self.horizon, known.grid, batch.condition, static))
        self.error.update(torch.stack(frames, dim=1), truth.values[:, : self.horizon], known.grid)

    def compute(self) -> Mapping[str, Tensor]:
        found = self.error.compute()
        self.error.reset()
        unstable = found["unstable"]
        score = torch.where(unstable > 0, 1000 * (1 + unstable), found["relative_l2"])
        nrmse = found["nrmse"].reshape(self.horizon, -1)  # torchmetrics gives a table of one number without dimensions
        return {"rollout": score, "first_frame": nrmse[0].mean(), "last_frame": nrmse[-1].mean()}
