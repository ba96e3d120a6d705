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
from physml.callbacks import BUDGETED
from physml.capture import RecordedStep
from physml.clock import Clock
from physml.configured import Configured
from physml.emulator import Emulator, Origin
from physml.fields import Batch
from physml.normalise import Normaliser
from physml.objectives import Objective, Progress
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


_TICKS = 10_000  # of the schedule of a budgeted run


class Training(LightningModule):
    """One module for every family of operators.

    A run is one pass of ``trainer.max_steps`` optimiser steps, or of as many as fit a budget of seconds. Each step
    seeds itself from the run's seed, its number and the process, so that a resumed run draws what it would have drawn.

    Args:
        operator: what is trained.
        normaliser: units of its inputs and outputs.
        objective: what is minimised.
        optimizer: makes the optimiser from the parameters.
        schedule: of the learning rate; constant if ``None``.
        assessment: what validation and test compute; a rollout of 16 frames if not given.
        compile: compile the operator with ``torch.compile`` for training; validation and test run as written, because
            each part would have to be compiled once more for them.
        capture: record forward and backward pass as a CUDA graph and replay it: for networks whose kernels are shorter
            than their launches. On one GPU, without ``accumulate_grad_batches``; without effect on a CPU.
        budget: seconds of training, in place of ``trainer.max_steps``. Counted are the steps and the waiting for data;
            validation, checkpoints, recording and the first step, which compiles, are not. The schedule follows the
            time spent. In one process only. Such a run is not the same twice: a faster machine takes more steps.
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
        capture: bool = False,
        budget: float | None = None,
    ) -> None:
        super().__init__()
        if budget is not None and budget <= 0:
            raise ValueError(f"budget: got {budget}, expected seconds, more than none.")
        self.emulator = Emulator(operator, normaliser)
        self.objective = objective
        self._make_optimizer, self._schedule = optimizer, schedule
        self.assessment = assessment or RolloutAssessment()
        self.config: dict[str, Any] = {}
        if compile:
            operator.compile()
        self.capture, self.budget = capture, budget
        self._captures = False
        self.clock = Clock()
        self._warming = True  # until the first step of this session, which compiles
        self._recorded: dict[tuple[int, ...], RecordedStep] = {}
        self._gradients: list[Tensor | None] = []  # of the last replay
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
        """Batches of the whole run; of a budgeted one, more than it will take."""
        if self.budget is not None:
            return BUDGETED
        if self.trainer.max_steps < 1:
            raise ValueError(
                "trainer.max_steps: not given; a run is a number of optimiser steps (`physml info` says how "
                "many make a pass)."
            )
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    @property
    def progress(self) -> Progress:
        """Of the run: optimiser steps taken, and the part of its steps or of its budget."""
        part = self.global_step / self.trainer.max_steps if self.budget is None else self.clock.seconds / self.budget
        return Progress(self.global_step, min(part, 1.0))

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

    def on_train_start(self) -> None:
        self._forget_recordings()
        self._warming = True
        self._captures = self.capture and self._can_record
        if self._captures and (self.trainer.world_size > 1 or self.trainer.accumulate_grad_batches > 1):
            raise ValueError(
                f"model.capture: got true for {self.trainer.world_size} processes and accumulate_grad_batches="
                f"{self.trainer.accumulate_grad_batches}; a recorded step needs one of each: set it to false."
            )
        if self.budget is not None and self.trainer.world_size > 1:
            raise ValueError(
                f"model.budget: got {self.budget} for {self.trainer.world_size} processes, whose clocks differ; give "
                "trainer.max_steps instead."
            )
        if self._captures and self.trainer.precision == "16-mixed":
            raise ValueError("model.capture: got true with 16-mixed, whose loss scale changes; use bf16-mixed.")

    @property
    def _can_record(self) -> bool:
        return self.device.type == "cuda"

    def on_train_end(self) -> None:
        self._forget_recordings()

    def _forget_recordings(self) -> None:
        """They hold the places of weights and much memory."""
        self._recorded, self._gradients, self._captures = {}, [], False

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.clock.start()
        self._reseed()

    def _reseed(self) -> None:
        # three numbers to one seed by a fixed mixing; torch.manual_seed takes a millisecond for devices not there
        mixed = (self.seed * 0x9E3779B97F4A7C15 + self.batches_done * 0xBF58476D1CE4E5B9 + self.global_rank) % 2**63
        torch.default_generator.manual_seed(mixed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(mixed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self._replayed(batch) if self._captures else self._terms(batch, self.progress)
        loss = terms["loss"]
        bad = ~torch.isfinite(loss.detach())
        self._not_finite = bad if self._not_finite is None else self._not_finite | bad
        if (batch_idx + 1) % self._every == 0:
            self.log("train/loss", loss, prog_bar=True, batch_size=batch.size)
            if len(terms) > 2:
                parts = {f"train/{name}": term for name, term in terms.items() if name != "loss"}
                self.log_dict(parts, batch_size=batch.size)
        return loss

    def _terms(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """Loss terms and their sum."""
        terms = dict(self.objective(self.emulator.predict, self.emulator.normaliser(batch), progress))
        return {**terms, "loss": torch.stack(list(terms.values())).sum()}

    def _replayed(self, batch: Batch) -> dict[str, Tensor]:
        """The same from a recording, of which there is one for each phase of the objective."""
        progress = self.progress
        phase = self.objective.phase(progress)
        if phase not in self._recorded:
            self.clock.stop(self.device)  # recording and compiling are not training
            if not self._recorded:
                self._pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
            self._recorded[phase] = RecordedStep(
                lambda batch: self._terms(batch, progress), batch, list(self.parameters()), self.device, self._pool
            )
            self._reseed()
            self.clock.start()
        terms, self._gradients = self._recorded[phase](batch)
        return terms

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if not self._captures:
            super().backward(loss, *args, **kwargs)
            return
        for parameter, gradient in zip(self.parameters(), self._gradients, strict=True):
            parameter.grad = gradient

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning refuses fused optimisers here, because of a loss scale that only 16-mixed has
        if gradient_clip_val and gradient_clip_algorithm != "value" and self.trainer.precision != "16-mixed":
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            if self._captures and all(p.grad is None for p in parameters):
                raise RuntimeError("no parameter has a gradient after a replay: a defect of physml, please report it.")
            size = torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
            if (self.batches_done + 1) % self._every == 0:
                self.log("train/gradient_norm", size)
            return
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.budget is not None:
            scheduler.last_epoch = max(int(self.progress.part * (_TICKS - 1)) - 1, -1)
        scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if (batch_idx + 1) % self._every == 0:  # a read-out makes the CPU wait for the GPU
            self._refuse_divergence()
        if self._warming:
            self.clock.drop()
            self._warming = False
        if self.budget is not None:
            self.trainer.should_stop = self.trainer.should_stop or self.progress.part >= 1.0

    def on_validation_start(self) -> None:
        self.clock.stop(self.device)

    def _refuse_divergence(self, *more: Tensor) -> None:
        """Raise on every process if a number is not finite on any."""
        flags = [~torch.isfinite(value).all() for value in more]
        if self._not_finite is not None:
            flags.append(self._not_finite)
        bad = bool(torch.stack(flags).any()) if flags else False
        if self.trainer.strategy.reduce_boolean_decision(bad, all=False):
            raise Diverged(
                f"train/loss: became NaN or infinite before step {self.global_step}; lower "
                "model.optimizer.init_args.lr, or set trainer.gradient_clip_val."
            )

    def on_save_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        self._refuse_divergence(*(parameter.detach() for parameter in self.parameters()))
        checkpoint_["physml"] = checkpoint.describe(self.emulator, self.config)
        self.clock.stop(self.device)
        checkpoint_["training_seconds"] = self.clock.seconds

    def on_load_checkpoint(self, checkpoint_: dict[str, Any]) -> None:
        about = checkpoint_.get("physml", {})
        self.clock = Clock(float(checkpoint_.get("training_seconds", 0.0)))
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
        steps = _TICKS if self.budget is not None else self.total_batches // self.trainer.accumulate_grad_batches
        scheduler = self._schedule.build(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._assess(batch)

    def on_validation_epoch_end(self) -> None:
        self._report("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._assess(batch)

    def _assess(self, batch: Batch) -> None:
        with torch.compiler.set_stance("force_eager"):
            self.assessment.update(self.emulator, batch)

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def _report(self, prefix: str) -> None:
        for place, (name, value) in enumerate(self.assessment.compute().items()):
            # the same number on every process already
            self.log(f"{prefix}/{name}", value, prog_bar=place == 0, sync_dist=True)
