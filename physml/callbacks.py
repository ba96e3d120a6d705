"""What keeps a run safe: whole checkpoints, regular ones, and an orderly end on Ctrl-C."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, TQDMProgressBar

from physml import checkpoint

LAST, BEST = "last", "best"

BUDGETED = 1_000_000_000
"""``trainer.max_steps`` of a run that ends by its budget: more than any budget holds."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside and renames: a kill or a full disk leaves the previous checkpoint intact."""

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoint.save(checkpoint_, path)


class Interrupted(Exception):
    """The user asked to stop, and the run was saved."""


class OrderlyStop(Checkpoint):
    """On Ctrl-C or SIGTERM: finish the step, save ``last.ckpt``, stop. A second Ctrl-C stops at once.

    A checkpoint callback, so that it acts after all others (weight averaging among them) have seen the step.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / f"{LAST}.ckpt"
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for kind in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[kind] = signal.signal(kind, self._ask)
            except ValueError:  # not the main thread, for instance in a notebook server: the default applies
                return

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer.save_checkpoint(self.path)
            raise Interrupted

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


class RunProgress(TQDMProgressBar):
    """Lightning's bar, for a run that is one pass: no epochs, no version number."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer, *_)
        self.train_progress_bar.set_description("training")

    @property
    def total_train_batches(self) -> int | float:
        total = super().total_train_batches
        return total if total < BUDGETED else float("inf")  # a run that ends by its budget has no known last step

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


def run_callbacks(folder: str | Path, max_steps: int, every: timedelta = timedelta(seconds=20)) -> list[Callback]:
    """The callbacks of every run: ``last.ckpt`` regularly and at the end,
    ``best.ckpt`` by validation rollout error.
    """

    def keep(name: str, **when: Any) -> ModelCheckpoint:
        return ModelCheckpoint(
            folder, filename=name, auto_insert_metric_name=False, enable_version_counter=False, **when
        )

    return [
        keep(LAST, train_time_interval=every),
        keep(LAST, every_n_train_steps=max_steps),
        keep(LAST, every_n_epochs=1, save_on_train_epoch_end=False),  # after each validation
        keep(BEST, monitor="val/rollout", mode="min", save_on_train_epoch_end=False),
        OrderlyStop(folder),
    ]
