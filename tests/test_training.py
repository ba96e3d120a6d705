from __future__ import annotations

import errno
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from settings import make_steady_store, strength
from torch import Tensor
from waves import make_store

from physml import checkpoint
from physml.assessment import RolloutAssessment
from physml.callbacks import BUDGETED, Interrupted, WholeCheckpoints, run_callbacks
from physml.datasets import TrajectoryData, TrajectoryStore
from physml.fields import Grid, Setting
from physml.normalise import Increments, Standardise
from physml.objectives import NextStep, Pushforward
from physml.operators import FactFormer, Operator
from physml.training import Diverged, OneCycle, Training


def module(**changes: Any) -> Training:
    seed_everything(3, verbose=False)
    arguments: dict[str, Any] = {
        "operator": FactFormer(axes=2, frames=2, steps=1, width=8, depth=1, heads=2, head_width=4),
        "normaliser": Increments(),
        "objective": NextStep(noise=0.1, pushforward=Pushforward(after=3, every=2)),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        "schedule": OneCycle(),
        "assessment": RolloutAssessment(steps=4),
    }
    return Training(**arguments | changes)


def data(store: TrajectoryStore, **changes: Any) -> TrajectoryData:
    return TrajectoryData(**{"store": store.path, "shape": [16, 16], "batch_size": 4, "starts": 2} | changes)


def trainer(folder: Path, steps: int = 12, callbacks: list[Callback] | None = None, **changes: Any) -> Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": steps,
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "val_check_interval": 4,
        "log_every_n_steps": 1,
        "plugins": [WholeCheckpoints()],
        "callbacks": [*(callbacks or []), *run_callbacks(folder, steps)],
    }
    return Trainer(**arguments | changes)


class StopAfter(Callback):
    """Send this process a signal after a step, as a user or a batch system does."""

    def __init__(self, step: int, kind: int = signal.SIGINT) -> None:
        self.step, self.kind = step, kind

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.kind)


def weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_stopping_and_continuing_changes_no_bit(
    store: TrajectoryStore, tmp_path: Path, stop: int, averaged: bool
) -> None:
    """k + k steps equal 2 k: weights, optimiser, order of the data, noise, schedule, averages."""

    def extra() -> list[Callback]:
        return [EMAWeightAveraging(decay=0.9)] if averaged else []

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(whole, callbacks=extra()).fit(module(), datamodule=data(store), weights_only=True)
    with pytest.raises(Interrupted):
        trainer(parts, callbacks=[*extra(), StopAfter(stop)]).fit(module(), datamodule=data(store), weights_only=True)
    assert torch.load(parts / "last.ckpt", weights_only=True)["global_step"] == stop
    trainer(parts, callbacks=extra()).fit(
        module(), datamodule=data(store), ckpt_path=parts / "last.ckpt", weights_only=True
    )
    a, b = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, parts))
    assert a["global_step"] == b["global_step"] == 12
    for key in ("state_dict", "current_model_state") if averaged else ("state_dict",):
        for name, value in a[key].items():
            assert torch.equal(value, b[key][name]), f"{key} {name}"
    for name, moments in a["optimizer_states"][0]["state"].items():
        assert torch.equal(moments["exp_avg"], b["optimizer_states"][0]["state"][name]["exp_avg"])


def test_the_checkpoint_is_enough_to_predict(store: TrajectoryStore, tmp_path: Path) -> None:
    trained = module()
    trainer(tmp_path).fit(trained, datamodule=data(store), weights_only=True)
    loaded = checkpoint.load(tmp_path / "last.ckpt")
    window = torch.from_numpy(store.read(0, 0, 2))[None]
    assert torch.equal(loaded(window), trained.emulator.eval()(window))
    assert loaded.origin is not None and loaded.origin.fingerprint == store.fingerprint


def test_training_lowers_the_rollout_error_and_the_best_is_kept(store: TrajectoryStore, tmp_path: Path) -> None:
    history: list[float] = []

    class Record(Callback):
        def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
            history.append(float(trainer.callback_metrics["val/rollout"]))

    run = trainer(tmp_path, 64, [Record()], val_check_interval=8)
    fast = lambda parameters: torch.optim.AdamW(parameters, lr=5e-3)  # noqa: E731
    run.fit(module(schedule=None, optimizer=fast), datamodule=data(store), weights_only=True)
    assert history[-1] < 0.7 * history[0]
    best = checkpoint.load(tmp_path / "best.ckpt")
    scored = module()
    scored.emulator.load_state_dict(best.state_dict())
    scored.emulator.origin = best.origin
    result = trainer(tmp_path / "again").validate(scored, datamodule=data(store), verbose=False)
    assert result[0]["val/rollout"] == pytest.approx(min(history), rel=1e-6)


class Exploding(Operator):
    """Finite at first, NaN from the fifth call on."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.frames, self.steps, self.axes, self.calls = 1, 1, 1, 2, 0
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        self.calls += self.training
        return self.weight * window[:, -1:] * (torch.nan if self.calls > 4 else 1.0)


def test_a_loss_that_is_no_number_stops_the_run_and_spares_the_checkpoint(
    store: TrajectoryStore, tmp_path: Path
) -> None:
    run = trainer(tmp_path)
    run.callbacks = [c for c in run.callbacks if getattr(c, "_train_time_interval", None) is None]
    from physml.callbacks import run_callbacks as callbacks

    run.callbacks += callbacks(tmp_path, 12, every=timedelta(0))[:1]
    with pytest.raises(Diverged, match=r"lower model\.optimizer"):
        run.fit(
            module(operator=Exploding(), normaliser=Standardise(), objective=NextStep()),
            datamodule=data(store),
            weights_only=True,
        )
    kept = weights(tmp_path / "last.ckpt")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4


class Poisoned(Exploding):
    """A finite loss with a gradient that is no number, at the fifth call."""

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        self.calls += self.training
        bad = torch.sqrt(self.weight * 0) if self.calls == 5 else 0.0
        return (self.weight + bad) * window[:, -1:]


def test_weights_that_are_no_numbers_are_never_saved(store: TrajectoryStore, tmp_path: Path) -> None:
    poisoned = module(operator=Poisoned(), normaliser=Standardise(), objective=NextStep())
    with pytest.raises(Diverged):
        trainer(tmp_path, 5, val_check_interval=4, log_every_n_steps=50).fit(
            poisoned, datamodule=data(store), weights_only=True
        )
    assert all(torch.isfinite(value).all() for path in tmp_path.glob("*.ckpt") for value in weights(path).values())


def test_data_made_anew_are_not_taken_for_the_old(store: TrajectoryStore, tmp_path: Path) -> None:
    trainer(tmp_path, 2, val_check_interval=1).fit(module(), datamodule=data(store), weights_only=True)
    other = make_store(tmp_path / "other.zarr", count=5)
    with pytest.raises(ValueError, match="the data were made anew"):
        trainer(tmp_path, 4, val_check_interval=1).fit(
            module(), datamodule=data(other), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )


def test_a_full_disk_leaves_the_last_checkpoint(
    store: TrajectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = 0

    def fsync(_: int) -> None:
        nonlocal saved
        saved += 1
        if saved > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        trainer(tmp_path).fit(module(), datamodule=data(store), weights_only=True)
    found = [path.name for path in tmp_path.iterdir() if path.suffix == ".ckpt" or path.name.endswith(".new")]
    assert len(found) == 1  # what was whole is whole, what was not is gone
    assert checkpoint.load(tmp_path / found[0]) is not None


def test_a_termination_signal_saves_too(store: TrajectoryStore, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        trainer(tmp_path, callbacks=[StopAfter(2, signal.SIGTERM)]).fit(
            module(), datamodule=data(store), weights_only=True
        )
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_contradictions_are_refused_before_training(store: TrajectoryStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the run is made for \[8, 8\] points"):
        trainer(tmp_path).fit(module(), datamodule=data(store, shape=[8, 8]))
    with pytest.raises(ValueError, match="the operator predicts at most 1"):
        trainer(tmp_path).fit(module(objective=NextStep(frames=2)), datamodule=data(store))
    with pytest.raises(ValueError, match=r"trainer\.max_steps: not given"):
        trainer(tmp_path, 1, max_steps=-1).fit(module(), datamodule=data(store))
    with pytest.raises(ValueError, match="ask for fewer frames"):
        trainer(tmp_path).fit(module(assessment=RolloutAssessment(steps=50)), datamodule=data(store))


def test_a_checkpoint_of_another_operator_is_refused(store: TrajectoryStore, tmp_path: Path) -> None:
    trainer(tmp_path, 2, val_check_interval=1).fit(module(), datamodule=data(store), weights_only=True)
    with pytest.raises(ValueError, match="the experiment trains"):
        trainer(tmp_path).fit(
            module(operator=Exploding()), datamodule=data(store), ckpt_path=tmp_path / "last.ckpt", weights_only=True
        )


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 50])
def test_the_learning_rate_rises_to_its_largest_and_falls(steps: int) -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, rates = OneCycle().build(optimizer, steps), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < steps else None
    assert max(rates) <= 0.5 + 1e-12
    if steps >= 50:
        top = rates.index(max(rates))
        assert max(rates) > 0.49 and rates[0] == pytest.approx(0.5 * 0.04) and top == pytest.approx(10, abs=1)
        assert rates[-1] == pytest.approx(0.5 * 0.04 * 1e-3)


def test_the_seed_decides(store: TrajectoryStore, tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        trainer(tmp_path / name, 3, val_check_interval=1).fit(module(), datamodule=data(store), weights_only=True)
        runs.append(weights(tmp_path / name / "last.ckpt"))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_a_steady_problem_is_trained_and_predicts_from_its_checkpoint(tmp_path: Path) -> None:
    steady = make_steady_store(tmp_path / "steady.zarr")
    operator = FactFormer(
        axes=2, frames=0, steps=1, static=1, condition=["strength"], width=16, depth=1, heads=2, head_width=4
    )
    made = module(
        operator=operator,
        normaliser=Standardise(),
        objective=NextStep(),
        schedule=None,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        assessment=RolloutAssessment(steps=1),
    )
    run = trainer(tmp_path, 60, val_check_interval=1)
    run.fit(made, datamodule=data(steady, shape=[8, 8]), weights_only=True)
    emulator = checkpoint.load(tmp_path / "last.ckpt")
    static = torch.from_numpy(steady.read_static(2))
    truth = torch.from_numpy(steady.read(2, 0, 1))
    nothing = torch.zeros(1, 0, 8, 8, 1)
    with torch.no_grad():
        own, other = (emulator(nothing, condition={"strength": strength(row)}, static=static)[0] for row in (2, 0))
    # four samples learnt by heart; the number tells the strength apart, which is 5 times as large
    assert float((own - truth).norm() / truth.norm()) < 0.2
    assert float((other - truth).norm() / truth.norm()) > 0.4


class Replay:
    """A recording as a GPU replays it, on the CPU: new numbers where the results were left, ``.grad`` untouched."""

    parameters: list[torch.nn.Parameter]

    def __init__(self, function: Any, device: torch.device, pool: Any = None) -> None:
        self.function = function
        for _ in range(4):
            self.terms, self.gradients = function()

    def __call__(self) -> Any:
        kept = [p.grad for p in self.parameters]
        terms, gradients = self.function()
        for name, place in self.terms.items():
            place.copy_(terms[name])
        for place, gradient in zip(self.gradients, gradients, strict=True):
            place.copy_(gradient)
        for parameter, gradient in zip(self.parameters, kept, strict=True):
            parameter.grad = gradient
        return self.terms, self.gradients


class Losses(Callback):
    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.found.append(float(outputs["loss"]))


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize(
    "objective",
    [
        NextStep(calls=2, chained_from=0.5),
        NextStep(noise=0.1, pushforward=Pushforward(after=2, every=2)),
        NextStep(frames=1),
    ],
    ids=["chained", "pushforward", "plain"],
)
def test_a_recorded_run_is_the_same_run(
    objective: NextStep, resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation lets go of the gradients, phases alternate, averages are swapped: the losses stay the same."""
    store, courses = make_store(tmp_path / "waves.zarr"), []
    for recorded in (False, True):
        made = module(objective=objective, capture=recorded)
        if recorded:
            Replay.parameters = list(made.parameters())
            monkeypatch.setattr("physml.capture.Captured", Replay)
            monkeypatch.setattr(Training, "_can_record", True)
        losses = Losses()
        averages = EMAWeightAveraging(decay=0.9, update_every_n_steps=2)
        run = trainer(tmp_path / str(recorded), callbacks=[losses, averages], gradient_clip_val=1.0)
        run.fit(made, datamodule=data(store, resident=resident))
        courses.append((losses.found, [p.detach().clone() for p in made.parameters()]))
    plain, replayed = courses
    assert len(plain[0]) == 12 and plain[0] == replayed[0]
    for a, b in zip(plain[1], replayed[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the tracing
def test_training_compiles_and_validation_does_not(store: TrajectoryStore, tmp_path: Path) -> None:
    compiled: list[bool] = []

    def backend(graph: torch.fx.GraphModule, example: list[Any]) -> Any:
        compiled.append(torch.is_grad_enabled())
        return graph.forward

    made = module(objective=NextStep())
    made.emulator.operator.compile(backend=backend)
    trainer(tmp_path, steps=4, val_check_interval=2).fit(made, datamodule=data(store), weights_only=True)
    torch.compiler.reset()
    assert compiled and all(compiled)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_budget_ends_the_run_and_drives_the_schedule(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step of a false clock takes a second; validation, checkpoints and recording, of which there are two, take a
    thousand and do not count. Nor does what was counted before get lost by them.
    """
    now = [0.0]
    monkeypatch.setattr("physml.clock.time.perf_counter", lambda: now[0])

    class Passing(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            now[0] += 1.0

        def on_validation_end(self, *_: Any) -> None:
            now[0] += 1000.0

        def on_save_checkpoint(self, *_: Any) -> None:
            now[0] += 1000.0

    class SlowToRecord(Replay):
        def __init__(self, *arguments: Any) -> None:
            now[0] += 1000.0
            super().__init__(*arguments)

    made = module(budget=10.0, capture=recorded, objective=NextStep(calls=2, chained_from=0.5))
    Replay.parameters = list(made.parameters())
    monkeypatch.setattr("physml.capture.Captured", SlowToRecord)
    monkeypatch.setattr(Training, "_can_record", recorded)
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_start(self, run: Trainer, *_: Any) -> None:
            rates.append(run.optimizers[0].param_groups[0]["lr"])

    run = trainer(tmp_path / "runs", steps=BUDGETED, callbacks=[Passing(), Rates()])
    run.fit(made, datamodule=data(make_store(tmp_path / "waves.zarr")))
    assert made.global_step == 11  # the first step, which compiles, is not counted
    assert made.clock.seconds == 10.0
    assert max(rates) > 5 * rates[0] and rates[-1] < max(rates) / 5  # up and down again
