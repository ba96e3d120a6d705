"""The commands that use what was trained: ``rollout``, ``evaluate``, ``compare``, ``plot``."""

from __future__ import annotations

import argparse
import hashlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from physml import report
from physml.checkpoint import load
from physml.checkpoint import read as read_checkpoint
from physml.cli.errors import UserError
from physml.cli.main import PERSISTENCE, check_writable
from physml.datasets.opening import open_trajectories
from physml.datasets.store import open_group
from physml.datasets.trajectories import Trajectories
from physml.emulator import Emulator, Origin
from physml.evaluate import evaluate as compare_with_truth
from physml.normalise import Standardise
from physml.operators import Persistence
from physml.plot import fields, save, save_animation, spectra, trajectories
from physml.plot.style import ANIMATIONS, FIGURES, check_suffix
from physml.results import load as load_results
from physml.results import save as save_results
from physml.rollout import BLOWUP, write_rollout

_BATCH = 16
_TOLD = 8  # blown-up samples that are listed


def rollout(arguments: argparse.Namespace) -> int:
    """Predict from a checkpoint, or from the word ``persistence``, and say which samples blew up."""
    check_writable(arguments.out)
    data = open_trajectories(arguments.data)
    device = _device()
    emulator, model = _emulator(arguments.checkpoint, data, device, arguments.stride)
    with _progress("rolling out") as progress:
        _in_batches_that_fit(
            lambda batch: write_rollout(
                emulator,
                data,
                arguments.out,
                steps=arguments.steps,
                split=arguments.split,
                starts=arguments.starts,
                start=arguments.start,
                history=arguments.history,
                batch=batch,
                model=model,
                progress=progress,
            )
        )
    group, about = open_group(arguments.out, "rollout")
    blowup = np.asarray(group["blowup"])
    layout = about["layout"]
    end = f"{arguments.steps * layout['dt']:.4g} {layout['time_units']}".rstrip()
    print(f"wrote {arguments.out}: {len(blowup)} samples of {arguments.steps} frames, up to t = {end}, on {device}")
    print(_blowups(blowup, layout))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure a rollout, save the results, print the table and what its numbers mean; make a page if asked."""
    check_writable(arguments.out, folder=True)
    _same_rollout(arguments.out, arguments.rollout)
    device = _device()
    with warnings.catch_warnings(record=True) as caught, _progress("measuring") as progress:
        warnings.simplefilter("always")
        results = compare_with_truth(arguments.rollout, arguments.truth, device=device, progress=progress)
    folder = save_results(results, arguments.out)
    for text in dict.fromkeys(str(item.message) for item in caught):
        print(f"note: {text}", file=sys.stderr)
    name = folder.resolve().name
    print(report.table({name: results}))
    print(f"\nwrote {folder / 'results.zarr'} and {folder / 'metrics.json'}")
    if arguments.report:
        print(f"wrote {report.write_report(folder / 'report', {name: results}, truth=arguments.truth, title=name)}")
    return 0


def _same_rollout(folder: Path, rollout: Path) -> None:
    """Results of another rollout are not replaced: tables know a model by the name of this folder."""
    try:
        before = Path(load_results(folder).attrs["physml"]["rollout"])
    except (FileNotFoundError, ValueError, KeyError):
        return
    if before.resolve() != rollout.resolve():
        raise UserError(f"{folder} holds the results of {before}", hint="give another --out, or delete it")


def compare(arguments: argparse.Namespace) -> int:
    """Set results side by side: the table, and a page with the figures."""
    check_writable(arguments.out, folder=True)
    results = _results(arguments.folders)
    page = report.write_report(arguments.out, results, title=" · ".join(results))
    print(report.table(results))
    print(f"\nwrote {page}, with figures/errors.png and more beside it")
    return 0


def plot(arguments: argparse.Namespace) -> int:
    """Draw what ``arguments.what`` says: ``fields``, ``animation``, ``errors`` or ``spectra``."""
    check_suffix(arguments.out, ANIMATIONS if arguments.what == "animation" else FIGURES)
    check_writable(arguments.out)
    match arguments.what:
        case "fields":
            sample = _sample(arguments)
            figure = fields.compare(
                sample.truth, sample.prediction, sample.layout, field=arguments.field, leads=arguments.leads
            )
            save(figure, arguments.out)
        case "animation":
            sample = _sample(arguments)
            film = trajectories.animate(sample.truth, sample.prediction, sample.layout, field=arguments.field)
            save_animation(film, arguments.out, fps=arguments.fps)
        case "errors":
            save(trajectories.error_growth(_results(arguments.folders)), arguments.out)
        case "spectra":
            save(spectra.energy(_results(arguments.folders)), arguments.out)
        case unknown:
            raise AssertionError(unknown)
    print(arguments.out)
    return 0


# ------------------------------------------------------------------------------------------------------------- models


def _emulator(checkpoint: Path, data: Trajectories, device: str, stride: int | None) -> tuple[Emulator, dict[str, Any]]:
    """The emulator and what is recorded of it."""
    if str(checkpoint) == PERSISTENCE and not checkpoint.exists():
        layout = data.layout
        operator = Persistence(channels=len(layout.fields), axes=len(layout.grid.axes))
        emulator = Emulator(operator, Standardise())
        emulator.learn(Origin(layout, data.statistics.to_plain(), stride or 1, data.fingerprint))
        return emulator.to(device).eval(), {"operator": operator.describe(), "parameters": 0}
    if stride is not None:
        raise UserError("--stride: a checkpoint knows its own", expected=f"--stride with {PERSISTENCE} only")
    content = read_checkpoint(checkpoint)
    about = content["physml"]
    emulator = load(checkpoint, device)
    with open(checkpoint, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return emulator, {
        "operator": about["operator"],
        "normaliser": about["normaliser"],
        "parameters": sum(parameter.numel() for parameter in emulator.operator.parameters()),
        "checkpoint": str(checkpoint),
        "sha256": digest,
        "trained_steps": content.get("global_step"),
        "trained_on": (about["origin"] or {}).get("fingerprint"),
        "config": about["config"],
        "versions": about["versions"],
    }


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _in_batches_that_fit(write: Callable[[int], Any]) -> None:
    """Halve the batch until it fits in memory; what was written already is kept."""
    batch = _BATCH
    while True:
        try:
            write(batch)
            return
        except torch.OutOfMemoryError:
            if batch == 1:
                raise UserError(
                    "out of memory: a single sample does not fit", hint="use a smaller operator, or more memory"
                ) from None
            batch //= 2
        torch.cuda.empty_cache()


def _blowups(blowup: np.ndarray, layout: Mapping[str, Any]) -> str:
    """Which samples blew up, when, and what that means: an evaluation, which knows the truth, is stricter."""
    lost, energy = np.flatnonzero(blowup), f"{BLOWUP:g} times the energy of the training data"
    if not len(lost):
        return f"no sample left {energy}"
    told = [
        f"sample {row} at lead {blowup[row]} (t = {blowup[row] * layout['dt']:.4g} {layout['time_units']}".rstrip()
        + ")"
        for row in lost[:_TOLD]
    ]
    more = f", and {len(lost) - _TOLD} more" if len(lost) > _TOLD else ""
    return f"{len(lost)} of {len(blowup)} samples blew up (not finite, or beyond {energy}): {', '.join(told)}{more}"


# ------------------------------------------------------------------------------------------------------------ results


def _results(folders: Sequence[Path]) -> dict[str, xr.Dataset]:
    """Results by the name of their folder, with as much of the path before it as tells them apart."""
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < len(whole):
        raise UserError("a folder is given twice", expected="different folders that 'physml evaluate' wrote")
    depth = 1
    while len({folder.parts[-depth:] for folder in whole}) < len(whole):
        depth += 1
    return {
        "/".join(path.parts[-depth:]): load_results(folder) for folder, path in zip(folders, whole, strict=True)
    }  # fmt: skip


def _sample(arguments: argparse.Namespace) -> report.Sample:
    sample = report.Sample.open(arguments.rollout, arguments.sample, arguments.truth)
    if sample.truth is None:
        print("note: the data that the rollout started from are not there; give --truth STORE", file=sys.stderr)
    return sample


# ----------------------------------------------------------------------------------------------------------- terminal


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, gone when done; nothing where errors are redirected to a file."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
