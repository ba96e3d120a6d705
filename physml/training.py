"""Training of any operator on any batch family, with Lightning: normalise, call the objective, optimise."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from physml import checkpoint
from physml.assessment import Assessment, RolloutAssessment
from physml.configured import Configured
from physml.emulator import Emulator, Origin
from physml.fields import Batch
from physml.normalise import Normaliser
from physml.objectives import Objective
from physml.operators import Operator


class Diverged(ValueError):
    """The loss stopped being a finite number."""


class Schedule(Configured):
    """A learning rate that depends on the step."""

    @abstractmethod
    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """The torch scheduler for a run of ``steps`` optimiser steps."""


class OneCycle(Schedule):
    """Rise to the optimiser's learning rate, then fall, both along a cosine (Smith & Topin 2019, arXiv 1708.07120).

    Args:
        warmup: part of the run that rises.
        start: first learning rate over the largest.
        end: last learning rate over the first.
        cycle_momentum: also let the first beta fall and rise between 0.95 and 0.85.
    """

    def __init__(
        self, *, warmup: float = 0.2, start: float = 0.04, end: float = 1e-3, cycle_momentum: bool = True
    ) -> None:
        if not (0 < warmup < 1 and 0 < start <= 1 and 0 < end <= 1):
            raise ValueError(
                f"schedule: got warmup={warmup}, start={start}, end={end}; expected numbers between 0 and 1."
            )
        self.warmup, self.start, self.end, self.cycle_momentum = warmup, start, end, cycle_momentum

    def build(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        if steps < 4:  # too few to rise and fall
            return LambdaLR(optimizer, lambda _: 1.0)
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=max(self.warmup, 1.5 / steps),  # torch divides by the steps of the rise, less one
            div_factor=1 / self.start,
            final_div_factor=1 / self.end,
            cycle_momentum=self.cycle_momentum,
        )


class Training(LightningModule):
    """One module for every family of operators.

    A run is one pass of ``trainer.max_steps`` optimiser steps. Each step seeds itself from the run's seed, its number
    and the process, so that a resumed run draws what it would have drawn.

    Args:
        operator: what is trained.
        normaliser: units of its inputs and outputs.
        objective: what is minimised.
        optimizer: makes the optimiser from the parameters.
        schedule: of the learning rate; constant if ``None``.
        assessment: what validation and test compute; a rollout of 16 frames if not given.
        compile: compile the operator with ``torch.compile``.
    """

    def __init__(
        self,
        *,
        operator: Operator,
        normaliser: Normaliser,
        objective: Objective,
        optimizer: OptimizerCallable,
        schedule: Schedule | None = None,
        assessment: Assessment | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.emulator = Emulator(operator, normaliser)
        self.objective = objective
        self._make_optimizer, self._schedule = optimizer, schedule
        self.assessment = assessment or RolloutAssessment()
        self.config: dict[str, Any] = {}
        if compile:
            operator.compile()
        self._not_finite: Tensor | None = None
        self._data_origin: Origin | None = None

    # what the data module asks

    @property
    def frames(self) -> int:
        """Known frames of a window."""
        return self.emulator.frames

    @property
    def horizon(self) -> int:
        """Frames after the known ones that the objective needs."""
        return self.objective.horizon

    @property
    def assessed(self) -> int:
        """Frames after the known ones that validation and test need."""
        return self.assessment.horizon

    @property
    def seed(self) -> int:
        """Of the run: ``seed_everything`` of the experiment."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def total_batches(self) -> int:
        """Batches of the whole run."""
        if self.trainer.max_steps < 1:
            raise ValueError(
                "trainer.max_steps: not given; a run is a number of optimiser steps (`physml info` says how "
                "many make a pass)."
            )
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    @property
    def _every(self) -> int:
        """Steps between two lines of the log."""
        trainer: Any = self.trainer
        return int(trainer.log_every_n_steps)

    @property
    def batches_done(self) -> int:
        """Batches trained on so far, over all sessions of the run."""
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(total.processed)

    # the run

    def setup(self, stage: str) -> None:
        datamodule = getattr(self.trainer, "datamodule")  # noqa: B009  # set by Lightning, unknown to its annotations
        data = datamodule.data
        origin = Origin(data.layout, data.statistics.to_plain(), datamodule.stride, data.fingerprint)
        if stage == "fit":
            self.objective.check(self.emulator.steps)
            self.emulator.learn(origin)
        self._data_origin = origin
        self.assessment.prepare(self.emulator)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # three numbers to one seed by a fixed mixing, so that neighbouring steps share nothing
        mixed = (self.seed * 0x9E3779B97F4A7C15 + self.batches_done * 0xBF58476D1CE4E5B9 + self.global_rank) % 2**63
        torch.manual_seed(mixed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.emulator.normaliser(batch)
        terms = self.objective(self.emulator.predict, batch, self.global_step)
        loss = torch.stack(list(terms.values())).sum()
        bad = ~torch.isfinite(loss.detach())
        self._not_finite = bad if self._not_finite is None else self._not_finite | bad
        self.log("train/loss", loss, prog_bar=True, batch_size=batch.size)
        if len(terms) > 1:
            self.log_dict({f"train/{name}": term for name, term in terms.items()}, batch_size=batch.size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self._every == 0:  # a read-out makes the CPU wait for the GPU
            self._refuse_divergence()

    def _refuse_divergence(self, *more: Tensor) -> None:
        """Raise on every process if a number is not finite on any."""
        flags = [~torch.isfinite(value).all() for value in more]
        if self._not_finite is not None:
            flags.append(self._not_finite)
        bad = bool(torch.stack(flags).any()) if flags else False
        if self.trainer.strategy.reduce_boolean_decision(bad, all=False):
            raise Diverged(
                f"train/loss: became NaN or infinite before step {self.global_step}; lower "
                "model.optimizer.init_args.lr, "
                "or set trainer.gradient_clip_val."
            )

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        self._refuse_divergence(*(parameter.detach() for parameter in self.parameters()))
        checkpoint_["physml"] = checkpoint.describe(self.emulator, self.config)

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        about = checkpoint_.get("physml", {})
        ours = {"operator": self.emulator.operator.describe(), "normaliser": self.emulator.normaliser.describe()}
        for name, described in ours.items():
            found = about.get(name, {})
            if found.get("class_path") != described["class_path"]:
                raise ValueError(
                    f"checkpoint: holds the {name} {found.get('class_path')}, the experiment trains "
                    f"{described['class_path']}; give the checkpoint of this experiment."
                )
        origin = checkpoint.origin_of(about)
        if origin is None or self._data_origin is None:
            return
        data = self._data_origin
        apart = origin.layout.difference(data.layout)
        if apart is None and origin.stride != data.stride:
            apart = f"stride {origin.stride} against {data.stride}"
        if apart is None and self.trainer.training and origin.fingerprint != data.fingerprint:
            apart = f"fingerprint {origin.fingerprint} against {data.fingerprint}: the data were made anew"
        if apart:
            raise ValueError(f"checkpoint: was trained on other data ({apart}); give the data it was trained on.")
        self.emulator.origin = origin

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.parameters())
        if self._schedule is None:
            return optimizer
        scheduler = self._schedule.build(optimizer, self.total_batches // self.trainer.accumulate_grad_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.assessment.update(self.emulator, batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.assessment.update(self.emulator, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, prefix: str) -> None:
        for place, (name, value) in enumerate(self.assessment.compute().items()):
            # the same number on every process already
            self.log(f"{prefix}/{name}", value, prog_bar=place == 0, sync_dist=True)
