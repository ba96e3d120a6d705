"""The commands that need an experiment: ``fit``, ``validate``, ``test``, ``info``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from physml.cli.errors import INTERRUPTED, UserError
from physml.cli.experiment import Experiment, check, translate

_SAME = ("seed_everything", "model", "data")


def run_folder(experiment: Experiment) -> Path:
    """Where a run keeps its checkpoints and logs: ``trainer.default_root_dir``, or ``runs/<folder>/<name>`` of its
    YAML.
    """
    given = (experiment.tree.get("trainer") or {}).get("default_root_dir")
    return Path(given) if given else Path("runs") / experiment.path.resolve().parent.name / experiment.path.stem


def _checked(arguments: argparse.Namespace) -> Experiment:
    experiment: Experiment = arguments.experiment
    check(experiment)
    _quiet()
    _try_constructors(experiment)
    trainer = experiment.tree.get("trainer") or {}
    if trainer.get("use_distributed_sampler"):
        raise UserError(
            "trainer.use_distributed_sampler: got true",
            where=experiment.where("trainer.use_distributed_sampler"),
            expected="false: the data module divides batches itself, without padding",
        )
    if trainer.get("max_epochs") is not None:
        raise UserError(
            f"trainer.max_epochs: got {trainer['max_epochs']}",
            where=experiment.where("trainer.max_epochs"),
            expected="trainer.max_steps, the steps of the run; 'physml info --measure' says how many make a pass",
        )
    return experiment


def _try_constructors(experiment: Experiment) -> None:
    """Make every object of an experiment once, without memory for weights, so that what it refuses is told plainly."""
    import torch

    from physml.configured import Configured, find, rebuild

    model, data = experiment.tree["model"], experiment.tree["data"]
    for name in ("operator", "normaliser", "objective", "schedule", "assessment"):
        described = model.get(name)
        if isinstance(described, Mapping) and "." in described.get("class_path", ""):
            try:
                with torch.device("meta"):
                    rebuild(described, Configured)
            except ValueError as problem:
                raise UserError(str(problem), where=experiment.where(f"model.{name}.init_args")) from None
    if "." in data.get("class_path", ""):
        try:
            find(data["class_path"], object)(**data.get("init_args") or {})
        except ValueError as problem:
            raise UserError(str(problem), where=experiment.where("data.init_args")) from None


def _quiet() -> None:
    """Keep the chatter of libraries that no user can act on off the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.*",
        ".*args parameter is intended to run from within Python.*",
        ".*isinstance.treespec.*",
        ".*Please use the new API settings to control TF32.*",
        ".*You're resuming from a checkpoint that ended before the epoch ended.*",  # our sampler continues in place
        ".*log_every_n_steps.*",
        ".*callbacks used to create the checkpoint need to be provided.*",  # their names hold max_steps, which may grow
        ".*lr_scheduler.step.*before.*optimizer.step.*",
    ):
        warnings.filterwarnings("ignore", message=text)


def _assemble(experiment: Experiment, *, fitting: bool) -> Any:
    """Trainer, module and data module of an experiment, made by LightningCLI."""
    from jsonargparse import ArgumentError
    from lightning.pytorch import LightningDataModule
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.loggers import CSVLogger

    from physml.callbacks import BUDGETED, RunProgress, WholeCheckpoints, run_callbacks
    from physml.training import Training

    folder = run_folder(experiment)
    tree = json.loads(json.dumps(experiment.tree))
    tree.setdefault("seed_everything", 0)
    trainer = tree["trainer"] = tree.get("trainer") or {}
    trainer.setdefault("use_distributed_sampler", False)
    trainer.setdefault("enable_model_summary", False)
    trainer["default_root_dir"] = str(folder)
    plugins = trainer.get("plugins") or []
    trainer["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), _object(WholeCheckpoints)]
    defaults: dict[str, Any] = {}
    if fitting:
        if (experiment.tree["model"] or {}).get("budget") is not None:
            if trainer.get("max_steps") is not None:
                raise UserError(
                    f"trainer.max_steps: got {trainer['max_steps']} beside model.budget",
                    where=experiment.where("trainer.max_steps"),
                    expected="one of the two: steps, or seconds of training",
                )
            trainer["max_steps"] = BUDGETED
        steps = trainer.get("max_steps")
        if not isinstance(steps, int) or steps < 1:
            raise UserError(
                f"trainer.max_steps: got {steps}",
                where=experiment.where("trainer"),
                expected="the number of optimiser steps, or model.budget, seconds of training",
            )
        defaults["callbacks"] = run_callbacks(folder, steps)
        given = [str(item.get("class_path")) for item in trainer.get("callbacks") or []]
        if trainer.get("enable_progress_bar") is not False and not any("ProgressBar" in name for name in given):
            # into a file goes a line now and then
            defaults["callbacks"].append(RunProgress(refresh_rate=1 if sys.stderr.isatty() else max(1, steps // 20)))
        if trainer.get("logger") is None:
            trainer["logger"] = _object(CSVLogger, save_dir=str(folder), name="logs")
    else:
        trainer["logger"] = False
        trainer["callbacks"] = [
            # averaged weights are what a checkpoint holds already
            item
            for item in trainer.get("callbacks") or []
            if "WeightAveraging" not in str(item.get("class_path"))
        ]
    try:
        cli = LightningCLI(
            Training,
            LightningDataModule,
            subclass_mode_data=True,
            run=False,
            args=tree,
            save_config_callback=None,
            trainer_defaults=defaults,
            parser_kwargs={"exit_on_error": False},
        )
    except ArgumentError as error:
        raise translate(str(error), experiment) from None
    cli.model.config = experiment.tree
    return cli


def _object(kind: type, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def fit(arguments: argparse.Namespace) -> int:
    """Train; continue the run where it stopped if its folder holds one."""
    experiment = _checked(arguments)
    folder = run_folder(experiment)
    held = _lock(folder)
    try:
        return _fit(experiment, folder)
    finally:
        if held is not None:
            held.close()


def _lock(folder: Path) -> IO[str] | None:
    """Hold the folder of a run; a second run there is refused. The system lets go however the process ends."""
    import fcntl

    if int(os.environ.get("LOCAL_RANK", 0)):  # a further process of a run that holds it
        return None
    folder.mkdir(parents=True, exist_ok=True)
    held = open(folder / ".lock", "w")  # noqa: SIM115  # open as long as the run
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise UserError(
            f"{folder} is in use by another 'physml fit'",
            hint="wait for it, or set trainer.default_root_dir to another folder",
        ) from None
    return held


def _fit(experiment: Experiment, folder: Path) -> int:
    last, record = folder / "last.ckpt", folder / "experiment.yaml"
    resume = _resumable(experiment, last, record)
    if record.exists() and not resume:
        print(f"{folder} holds no checkpoint to continue from yet; starting over")
    cli = _assemble(experiment, fitting=True)
    folder.mkdir(parents=True, exist_ok=True)
    cli.datamodule.data  # noqa: B018  # a missing or damaged data set is reported before anything is written
    if cli.trainer.is_global_zero and not resume:
        beside = record.with_name(f".{record.name}.new")
        beside.write_text(yaml.safe_dump(experiment.tree, sort_keys=False))
        os.replace(beside, record)
    if resume:
        done, seconds = _progress(last)
        budget = cli.model.budget
        if done >= cli.trainer.max_steps or (budget is not None and seconds >= budget):
            print(f"{folder} is complete ({done} steps); delete it, or set trainer.default_root_dir, to train anew.")
            return 0
        if cli.trainer.is_global_zero:
            end = f"step {done} of {cli.trainer.max_steps}" if budget is None else f"second {seconds:.0f} of {budget:g}"
            print(f"continuing {folder} at {end}")
    from physml.callbacks import Interrupted
    from physml.training import Diverged

    usable = f"the last usable checkpoint is {last}"
    try:
        cli.trainer.fit(
            cli.model, datamodule=cli.datamodule, ckpt_path=str(last) if resume else None, weights_only=True
        )
    except Interrupted:
        raise UserError(
            f"stopped at step {cli.trainer.global_step} as asked; saved in {last}",
            hint="the same command continues there",
            code=INTERRUPTED,
        ) from None
    except Diverged as problem:
        raise UserError(str(problem), hint=usable if last.exists() else "no checkpoint had been written yet") from None
    except OSError as problem:
        if last.exists():
            raise UserError(
                f"writing failed: {problem.strerror or problem} ({problem.filename or folder})",
                hint=f"{usable}; make room and give the same command again",
            ) from None
        raise
    if cli.trainer.is_global_zero:
        best = folder / "best.ckpt"
        error = cli.trainer.callback_metrics.get("val/rollout")
        told = "" if error is None else f" (val/rollout {float(error):.4g} at the end)"
        print(f"trained {cli.trainer.global_step} steps{told}; best weights: {best if best.exists() else last}")
    return 0


def _resumable(experiment: Experiment, last: Path, record: Path) -> bool:
    """Whether the folder holds this very run, unfinished or finished; another run there is an error."""
    if not last.exists():
        return False
    found = (yaml.safe_load(record.read_text()) if record.exists() else None) or {}
    tree = experiment.tree
    pairs = {key: (found.get(key), tree.get(key)) for key in _SAME}
    if tree["model"].get("schedule"):  # the learning rate of every step depends on the number of all steps
        before, now = ((run.get("trainer") or {}).get("max_steps") for run in (found, tree))
        pairs["trainer.max_steps"] = (before, now)
    for key, (before, now) in pairs.items():
        if before != now:
            where, here, there = _difference(before, now, key)
            raise UserError(
                f"{last.parent} holds a run with another {where}: {there} there, {here} here",
                where=experiment.where(where),
                hint="set trainer.default_root_dir to another folder, or delete this one",
            )
    return True


def _difference(found: Any, wanted: Any, key: str) -> tuple[str, str, str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in [*wanted, *found]:
            if found.get(name) != wanted.get(name):
                return _difference(found.get(name), wanted.get(name), f"{key}.{name}")
    return key, str(wanted)[:40], str(found)[:40]


def _progress(path: Path) -> tuple[int, float]:
    """Optimiser steps and seconds of training behind a checkpoint."""
    from physml.checkpoint import read as read_checkpoint

    found = read_checkpoint(path)
    return int(found["global_step"]), float(found.get("training_seconds", 0.0))


def validate(arguments: argparse.Namespace) -> int:
    """Roll a checkpoint out over the validation split."""
    return _evaluate(arguments, "validate")


def test(arguments: argparse.Namespace) -> int:
    """Roll a checkpoint out over the test split."""
    return _evaluate(arguments, "test")


def _evaluate(arguments: argparse.Namespace, verb: str) -> int:
    experiment = _checked(arguments)
    checkpoint = _checkpoint_of(arguments, experiment)
    cli = _assemble(experiment, fitting=False)
    from physml.checkpoint import read as read_checkpoint

    about, emulator = read_checkpoint(checkpoint)["physml"], cli.model.emulator
    for name, ours in (("operator", emulator.operator.describe()), ("normaliser", emulator.normaliser.describe())):
        if about[name] != ours:
            where, here, there = _difference(about[name], ours, name)
            raise UserError(
                f"{checkpoint} holds another {where}: {there} there, {here} here",
                expected=f"a checkpoint of the {name} that {experiment.path} describes",
            )
    run = getattr(cli.trainer, verb)
    run(cli.model, datamodule=cli.datamodule, ckpt_path=str(checkpoint), weights_only=True)
    return 0


def _checkpoint_of(arguments: argparse.Namespace, experiment: Experiment) -> Path:
    """The checkpoint given, or the best of the run; there is no scoring of random weights."""
    if arguments.checkpoint:
        return Path(arguments.checkpoint)
    folder = run_folder(experiment)
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).exists():
            print(f"using {folder / name}")
            return folder / name
    raise UserError(
        f"no checkpoint given, and {folder} holds none",
        expected=f"physml {arguments.command} -c {experiment.path} CKPT",
        hint="train first: random weights are never scored",
    )


def info(arguments: argparse.Namespace) -> int:
    """Count an experiment: parameters, operations, shapes; with ``--measure`` also memory and time."""
    experiment = _checked(arguments)
    import torch

    from physml import cost
    from physml.configured import rebuild
    from physml.datasets import open_trajectories
    from physml.emulator import Emulator
    from physml.fields import Boundary
    from physml.normalise import Normaliser
    from physml.objectives import Objective
    from physml.operators import Operator

    model, data = experiment.tree["model"], experiment.tree["data"].get("init_args", {})
    shape = tuple(data.get("shape") or ())
    boundaries = tuple(Boundary(kind) for kind in data.get("boundaries") or ["periodic"] * len(shape))
    if not shape:
        try:
            points = open_trajectories(data.get("store", "")).layout.grid
        except FileNotFoundError:
            raise UserError(
                "data.init_args.shape: not given, and the data are not there to tell",
                where=experiment.where("data"),
                expected="points of each axis, or data",
            ) from None
        shape, boundaries = points.shape, boundaries or points.boundaries
    batch = int(data.get("batch_size", 8))
    with torch.device("meta"):
        emulator = Emulator(rebuild(model["operator"], Operator), rebuild(model["normaliser"], Normaliser))
    operator = emulator.operator
    if len(shape) != operator.axes:
        raise UserError(
            f"data.init_args.shape: got {len(shape)} axes, the operator has axes={operator.axes}",
            where=experiment.where("data.init_args.shape" if data.get("shape") else "data.init_args.store"),
        )
    objective = rebuild(model["objective"], Objective)
    objective.check(operator.steps)
    _matches_store(experiment, operator)
    grid = cost.example_grid(shape, boundaries, "meta")
    sizes = [parameter.numel() for parameter in operator.parameters()]
    trainable = sum(parameter.numel() for parameter in operator.parameters() if parameter.requires_grad)
    told: dict[str, Any] = {
        "experiment": str(experiment.path),
        "operator": model["operator"]["class_path"],
        "parameters": {"trainable": trainable, "total": sum(sizes) + sum(b.numel() for b in operator.buffers())},
        "forward_flops": cost.forward_flops(emulator, grid),
        "input_shape": [operator.frames, *shape, operator.channels],
        "output_shape": [operator.steps, *shape, operator.channels],
        "batch_size": batch,
        "window_frames": operator.frames + objective.horizon,
    }
    if arguments.measure:
        told["step"] = _measure(experiment, emulator, objective, grid, batch)
    if arguments.json:
        print(json.dumps(told))
        return 0
    rows = {
        "operator": told["operator"],
        "parameters": f"{trainable:,} trainable, {told['parameters']['total']:,} with fixed entries",
        "forward FLOPs": f"{told['forward_flops']:.4g} for one sample and {operator.steps} frames",
        "input": f"(B, {', '.join(map(str, told['input_shape']))})   frames, {', '.join('xyzw'[: len(shape)])}, fields",
        "output": f"(B, {', '.join(map(str, told['output_shape']))})",
        "training window": f"{told['window_frames']} frames, batch {batch}",
    }
    for key, value in told.get("step", {}).items():
        rows[key.replace("_", " ")] = value if isinstance(value, str) else f"{value:,.4g}"
    for key, value in rows.items():
        print(f"{key:<20} {value}")
    return 0


def _matches_store(experiment: Experiment, operator: Any) -> None:
    """Whether the run fits its data, where they are there."""
    from physml.configured import find

    data = experiment.tree["data"]
    module: Any = find(data["class_path"], object)(**data["init_args"])
    try:
        layout = module.data.layout
    except FileNotFoundError:
        return
    if len(layout.fields) != operator.channels:
        raise UserError(
            f"model.operator.init_args.channels: got {operator.channels}, {module.store} has the fields "
            f"{', '.join(layout.names)}",
            where=experiment.where("model.operator.init_args.channels"),
        )


def _measure(experiment: Experiment, counted: Any, objective: Any, grid: Any, batch: int) -> dict[str, Any]:
    """Memory and time of a step at the largest unroll, from real steps; refused where the estimate does not fit."""
    import psutil
    import torch

    from physml import cost
    from physml.configured import rebuild
    from physml.emulator import Emulator
    from physml.normalise import Normaliser
    from physml.operators import Operator

    model, trainer = experiment.tree["model"], experiment.tree.get("trainer") or {}
    device = (
        "cuda" if torch.cuda.is_available() and trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") else "cpu"
    )
    expected = cost.estimate_memory(counted, objective, grid, batch)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    if expected > free:
        raise UserError(
            f"a training step would need about {expected / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free on {device}",
            where=experiment.where("data.init_args.batch_size"),
            hint=f"reduce data.init_args.batch_size (now {batch}), or let the operator recompute (checkpointing: true)",
        )
    emulator = Emulator(rebuild(model["operator"], Operator), rebuild(model["normaliser"], Normaliser)).to(device)
    shape, boundaries = grid.shape, grid.boundaries
    step = cost.measure_step(
        emulator,
        objective,
        cost.example_grid(shape, boundaries, device),
        batch,
        str(trainer.get("precision") or "32-true"),
    )
    assert step.seconds is not None
    told: dict[str, Any] = {
        "device": step.device,
        "estimated_GiB": expected / 2**30,
        "peak_GiB": step.memory / 2**30,
        "seconds_per_step": step.seconds,
    }
    init = experiment.tree["data"]["init_args"]
    try:
        from physml.datasets import Windows, open_trajectories

        data = open_trajectories(init["store"])
        windows = len(
            Windows(data, data.segments_of("train"), counted.frames + objective.horizon, int(init.get("stride", 1)))
        )
    except (FileNotFoundError, ValueError) as problem:
        told["epoch"] = f"unknown: {str(problem)[:80]}"
        return told
    told["steps_per_epoch"] = windows // batch
    told["seconds_per_epoch"] = windows // batch * step.seconds
    if isinstance(trainer.get("max_steps"), int):
        told["seconds_of_the_run"] = trainer["max_steps"] * step.seconds
    return told
