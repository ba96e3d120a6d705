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
from physml.objectives.objective import Objective, Predict, Progress


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

    A window without frames, that of a steady problem, is followed by what one call predicts: calls are not chained.

    Args:
        frames: frames predicted and trained by one call, K.
        calls: calls chained with gradient; each reads the frames that the one before predicted.
        chained_from: part of the run (0 to 1) before which one call is trained: first the next frames, then what
            becomes of their errors.
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
        chained_from: float = 0.0,
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
        if not 0 <= chained_from < 1:
            raise ValueError(f"chained_from: got {chained_from}, expected a part of the run, 0 or more and below 1.")
        self.frames, self.calls, self.chained_from, self.noise = frames, calls, chained_from, noise
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
    def heaviest(self) -> Progress:
        step = self.curriculum.over if self.curriculum else 0
        if self.pushforward:
            step = max(step, self.pushforward.after)
            step += -step % self.pushforward.every
        return Progress(step, 1.0)

    def phase(self, progress: Progress) -> tuple[int, ...]:
        """Frames trained, calls without gradient, calls with gradient."""
        frames = self.curriculum.frames(self.frames, progress.step) if self.curriculum else self.frames
        ahead = self.pushforward.calls(progress.step) if self.pushforward else 0
        return frames, ahead, self.calls if progress.part >= self.chained_from else 1

    def forward(self, predict: Predict, batch: Batch, progress: Progress) -> Mapping[str, Tensor]:
        state, target = batch.inputs["state"], batch.targets["state"]
        window, wanted, grid, setting = state.values, target.values, state.grid, batch.setting
        if not window.shape[1] and self.horizon > self.frames:
            raise ValueError(
                f"objective: got calls={self.calls} and {'a' if self.pushforward else 'no'} pushforward; the operator "
                "reads no frame, so a later call would repeat the first. Use calls=1 without pushforward."
            )
        if wanted.shape[1] < self.horizon:
            raise ValueError(f"targets: got {wanted.shape[1]} frames, the objective needs {self.horizon}.")
        if self.noise:
            window = window + self.noise * torch.randn_like(window)
        frames, ahead, calls = self.phase(progress)
        with torch.no_grad():
            for _ in range(ahead):
                window = _shift(window, predict(window, grid, self.frames, setting))
        wanted = wanted[:, ahead * self.frames :]
        predicted = []
        for call in range(calls):
            last = call == calls - 1
            made = predict(window, grid, frames if last else self.frames, setting)
            predicted.append(made)
            if not last:
                window = _shift(window, made)
        prediction = predicted[0] if calls == 1 else torch.cat(predicted, dim=1)
        return {"state": self.loss(prediction, wanted[:, : prediction.shape[1]], grid)}


def _shift(window: Tensor, frames: Tensor) -> Tensor:
    """Append frames and drop as many of the oldest."""
    return torch.cat([window, frames.to(window.dtype)], dim=1)[:, frames.shape[1] :]
