"""Supervised training on the frames that follow a window: one call, or several, with the usual cures for rollout
drift.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from physml.configured import Configured
from physml.fields import Batch
from physml.objectives.losses import Loss, RelativeL2
from physml.objectives.objective import Objective, Predict


class Curriculum(Configured):
    """Train on one frame a call at first and on all K at the end: ``1 + floor((K - 1) step / over)``.

    Args:
        over: steps after which all frames are trained.
    """

    def __init__(self, *, over: int) -> None:
        if over < 1:
            raise ValueError(
                f"over: got {over}, expected at least 1 step; leave the curriculum out to train all frames."
            )
        self.over = over

    def frames(self, most: int, step: int) -> int:
        return min(most, 1 + (most - 1) * step // self.over)


class Pushforward(Configured):
    """Train from the operator's own outputs (Brandstetter et al. 2022, arXiv 2202.03376).

    On every ``every``-th step after step ``after``, the window is first moved ``unrolls`` calls ahead without
    gradient and the
    loss is taken on the frames that follow: the operator learns to correct its own errors.

    Args:
        after: first step at which it acts.
        every: 1 for each step, 3 for each third.
        unrolls: calls without gradient.
    """

    def __init__(self, *, after: int = 0, every: int = 1, unrolls: int = 1) -> None:
        if every < 1 or unrolls < 1 or after < 0:
            raise ValueError(
                f"pushforward: got after={after}, every={every}, unrolls={unrolls}; expected >= 0, >= 1, >= 1."
            )
        self.after, self.every, self.unrolls = after, every, unrolls

    def calls(self, step: int) -> int:
        return self.unrolls if step >= self.after and step % self.every == 0 else 0


class NextStep(Objective):
    """``loss(f(w), y)`` for a window ``w`` of branch ``state`` and the frames ``y`` that follow it.

    Args:
        frames: frames predicted and trained by one call, K.
        calls: calls chained with gradient; each reads the frames that the one before predicted.
        loss: distance between prediction and target.
        curriculum: fewer frames at first; not if ``None``.
        pushforward: start from own outputs now and then; not if ``None``.
        noise: standard deviation of Gaussian noise added to the window, in network units (1 is the spread of the data);
            targets stay clean.
    """

    def __init__(
        self,
        *,
        frames: int = 1,
        calls: int = 1,
        loss: Loss | None = None,
        curriculum: Curriculum | None = None,
        pushforward: Pushforward | None = None,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        if frames < 1 or calls < 1 or noise < 0:
            raise ValueError(
                f"objective: got frames={frames}, calls={calls}, noise={noise}; expected >= 1, >= 1, >= 0."
            )
        self.frames, self.calls, self.noise = frames, calls, noise
        self.loss = RelativeL2() if loss is None else loss
        self.curriculum, self.pushforward = curriculum, pushforward
        self.horizon = frames * (calls + (pushforward.unrolls if pushforward else 0))

    def check(self, steps: int) -> None:
        if self.frames > steps:
            raise ValueError(
                f"model.objective.init_args.frames: got {self.frames}, the operator predicts at most {steps} frames a "
                "call (model.operator.init_args.steps)."
            )

    @property
    def heaviest(self) -> int:
        step = self.curriculum.over if self.curriculum else 0
        if self.pushforward:
            step = max(step, self.pushforward.after)
            step += -step % self.pushforward.every
        return step

    def forward(self, predict: Predict, batch: Batch, step: int) -> Mapping[str, Tensor]:
        state, target = batch.inputs["state"], batch.targets["state"]
        window, wanted, grid = state.values, target.values, state.grid
        if wanted.shape[1] < self.horizon:
            raise ValueError(f"targets: got {wanted.shape[1]} frames, the objective needs {self.horizon}.")
        if self.noise:
            window = window + self.noise * torch.randn_like(window)
        if self.pushforward and (ahead := self.pushforward.calls(step)):
            with torch.no_grad():
                for _ in range(ahead):
                    window = _shift(window, predict(window, grid, self.frames))
            wanted = wanted[:, ahead * self.frames :]
        frames = self.curriculum.frames(self.frames, step) if self.curriculum else self.frames
        predicted = []
        for call in range(self.calls):
            last = call == self.calls - 1
            made = predict(window, grid, frames if last else self.frames)
            predicted.append(made)
            if not last:
                window = _shift(window, made)
        prediction = predicted[0] if self.calls == 1 else torch.cat(predicted, dim=1)
        return {"state": self.loss(prediction, wanted[:, : prediction.shape[1]], grid)}


def _shift(window: Tensor, frames: Tensor) -> Tensor:
    """Append frames and drop as many of the oldest."""
    return torch.cat([window, frames.to(window.dtype)], dim=1)[:, -window.shape[1] :]
