"""Autoregressive rollouts: a generator for Python, and a writer that streams to zarr and survives a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor

from physml.capture import Captured
from physml.configured import version_of
from physml.datasets.places import local
from physml.datasets.remote import is_url
from physml.datasets.store import FORMAT, add_coordinate, consolidate, create_state, open_group, read_state
from physml.datasets.trajectories import Trajectories
from physml.datasets.windows import Windows
from physml.emulator import Emulator
from physml.fields import Field, Grid, Layout

BLOWUP = 10.0
"""A rollout has blown up once its energy exceeds this many times the largest of the training data."""

RECORDED = 64
"""Calls of a rollout from which recording them as a CUDA graph pays."""


def rollout(
    emulator: Emulator,
    initial: Any,
    steps: int,
    grid: Grid | None = None,
    condition: Mapping[str, float | Tensor] | None = None,
    static: Any = None,
) -> Iterator[Tensor]:
    """Predict frame after frame; memory does not grow with ``steps``.

    On a GPU a long rollout records one call as a CUDA graph and replays it: the same numbers, without the time of
    launching. Mixed precision is the caller's choice: ``with torch.autocast("cuda", torch.bfloat16)`` around the loop.

    Args:
        emulator: from :func:`physml.load`.
        initial: the last known states ``(T, *space, C)`` or ``(B, T, *space, C)``, physical units, oldest first: an
            array, a tensor or an ``xarray.DataArray``. Of more frames than the emulator reads, the last are used.
            For a steady problem ``T`` is 0, or ``initial`` is ``None``: a sample for each in ``static``.
        steps: frames to predict; for a steady problem no more than one call gives.
        grid: where the states live; the training grid if not given.
        condition: numbers that hold for a whole trajectory, by name: one each, or ``(B,)``, physical units.
        static: fields that do not change in time, ``(*space, S)`` or ``(B, *space, S)``, physical units.

    Yields:
        The next state ``(B, *space, C)``, physical units, on the emulator's device.

    Raises:
        ValueError: where one of them does not fit the emulator, or is missing.
    """
    static = None if static is None else _tensor(static)
    window = _nothing(emulator, static) if initial is None else _tensor(initial)
    if window.ndim == emulator.operator.axes + 2:
        window = window[None]
    if window.ndim != emulator.operator.axes + 3 or window.shape[1] < emulator.frames:
        raise ValueError(
            f"initial: got shape {tuple(window.shape)}, expected (B, T, {'*, ' * emulator.operator.axes}"
            f"{emulator.operator.channels}) with T >= {emulator.frames} known frames."
        )
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1.")
    _check_steady(emulator, steps)
    if not bool(torch.isfinite(window).all()):
        raise ValueError("initial: holds NaN or infinite values; a rollout needs known states.")
    device = next(emulator.buffers()).device
    window = window[:, window.shape[1] - emulator.frames :].to(device, copy=True)
    static = None if static is None else static.to(device)
    condition = None if condition is None else {name: _tensor(value).to(device) for name, value in condition.items()}
    if grid is not None:
        grid = grid.to(device)
    elif emulator.origin is not None:
        grid = emulator.origin.layout.grid.to(device)

    def call() -> Tensor:
        with torch.no_grad():  # entered anew for each call: the consumer's own gradient mode is not touched
            frames = emulator(window, grid=grid, condition=condition, static=static)
            window.copy_(torch.cat([window, frames], dim=1)[:, frames.shape[1] :])
        return frames

    if device.type == "cuda" and steps >= RECORDED * emulator.steps:
        first = window.clone()
        call = Captured(call, device)  # the recording runs it, so the window is put back
        window.copy_(first)
    done = 0
    while done < steps:
        frames = call()
        yield from frames.clone().unbind(dim=1)[: steps - done]
        done += frames.shape[1]


def _tensor(values: Any) -> Tensor:
    return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values), dtype=torch.float32)


def _nothing(emulator: Emulator, static: Tensor | None) -> Tensor:
    """Windows without a frame, for each of these static fields."""
    if static is None:
        raise ValueError("initial: got none; give the last known states, or the static fields of a steady problem.")
    axes = emulator.operator.axes
    batch = len(static) if static.ndim == axes + 2 else 1
    return torch.zeros(batch, 0, *static.shape[-axes - 1 : -1], emulator.operator.channels)


def _check_steady(emulator: Emulator, steps: int) -> None:
    if not emulator.frames and steps > emulator.steps:
        raise ValueError(
            f"steps: got {steps}; the emulator reads no frames, so all it can predict is the {emulator.steps} of one "
            f"call; ask for at most {emulator.steps}."
        )


def frame_stride(emulator: Emulator, data: Trajectories) -> int:
    """Stored frames of ``data`` from one frame of the emulator to the next.

    Raises:
        ValueError: where fields or units differ, something the operator reads is missing, or no whole number of stored
            frames gives the emulator's interval.
    """
    origin = emulator.origin
    if origin is None:
        raise ValueError("emulator: it has not been trained; load one with physml.load.")
    theirs, ours = _kind(data.layout), _kind(origin.layout)
    if theirs != ours:
        raise ValueError(f"data: {data.path} has {theirs}; the emulator was trained on {ours}.")
    emulator.check_setting(data.layout.static, data.parameters)
    theirs, ours = _fields(data.layout.static), _fields(origin.layout.static)
    if emulator.operator.static and theirs != ours:
        raise ValueError(f"data: {data.path} has the static fields {theirs}; the emulator was trained on {ours}.")
    wanted = origin.layout.dt * origin.stride
    stride = round(wanted / data.layout.dt)
    if stride < 1 or abs(stride * data.layout.dt - wanted) > 1e-6 * wanted:
        raise ValueError(
            f"data: frames of {data.path} are {data.layout.dt:g} apart, the emulator predicts steps of "
            f"{wanted:g}, which is no "
            "whole number of them."
        )
    return stride


def _kind(layout: Layout) -> str:
    """Fields with units and axes with boundaries, in words: what no emulator can bridge."""
    axes = ", ".join(f"{axis.name} ({axis.boundary})" for axis in layout.grid.axes)
    return f"{_fields(layout.fields)} on axes {axes}"


def _fields(fields: Sequence[Field]) -> str:
    return ", ".join(f"{item.name} [{item.units or '1'}]" for item in fields)


def write_rollout(
    emulator: Emulator,
    data: Trajectories,
    out: str | Path,
    *,
    steps: int,
    split: str = "test",
    starts: int | None = None,
    start: Sequence[int] | None = None,
    history: int | None = None,
    batch: int = 16,
    model: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Roll out from many initial states of a data set, streaming to a zarr store.

    The states are ``state[sample, lead, *space, channel]``; lead 1 is the first frame after the known ones. A sample
    whose state is not finite, or whose energy exceeds :data:`BLOWUP` times the largest of the training data, is
    marked in ``blowup`` with the lead at which it happened and is NaN from there on. Interrupted, the same call
    continues where it stopped. Numbers and static fields that the emulator reads are those of each sample's trajectory.

    Args:
        emulator: a trained one.
        data: where initial states come from; the truth for the evaluation later.
        out: folder to write.
        steps: frames to predict for each sample.
        split: of ``data``.
        starts: initial states for each segment of the split, evenly spread and not overlapping while there is room.
        start: instead, first known frames counted from the segment's beginning.
        history: known frames of each sample, at least as many as the emulator reads, which takes the last of them.
            Models that read different numbers of frames start at the same instants if they are given the same
            history; as many as the emulator reads if not given.
        batch: samples advanced at once.
        model: recorded as provenance, plain values.
        progress: called with frames written and frames in total.

    Returns:
        The path written.
    """
    out, stride = local(out, "out"), frame_stride(emulator, data)
    history = emulator.frames if history is None else history
    if history < emulator.frames:
        raise ValueError(f"history: got {history}, the emulator reads {emulator.frames} frames; give at least as many.")
    _check_steady(emulator, steps)
    places = _places(history, data, split, stride, steps, starts, start)
    layout = replace(data.layout, dt=data.layout.dt * stride)
    about = {
        "kind": "rollout",
        "format": FORMAT,
        "complete": False,
        "layout": layout.to_plain(),
        "source": {
            "path": data.path if is_url(data.path) else os.path.abspath(data.path),
            "name": data.name,
            "fingerprint": data.fingerprint,
            "split": split,
        },
        "trained_on": emulator.origin.fingerprint if emulator.origin else "",
        "known_frames": history,
        "frames_per_call": emulator.steps,
        "steps": steps,
        "stride": stride,
        "starts": [list(place) for place in places],
        "model": json.loads(json.dumps(dict(model or {"operator": emulator.operator.describe()}))),
        "weights": _digest(emulator),
    }
    group = _open(out, about, layout, places)
    written: Any = dict(group.attrs)["physml"]
    if written["complete"]:
        progress(steps * len(places), steps * len(places))
        return out
    state: zarr.Array = group["state"]  # type: ignore[assignment]
    done: zarr.Array = group["done"]  # type: ignore[assignment]
    blowup: zarr.Array = group["blowup"]  # type: ignore[assignment]
    grid, device = layout.grid.to(torch.float32), next(emulator.buffers()).device
    total = steps * len(places)
    for first in range(0, len(places), batch):
        rows = range(first, min(first + batch, len(places)))
        finished = int(np.asarray(done[rows.start : rows.stop]).min())
        marks = np.asarray(blowup[rows.start : rows.stop])
        marks[marks > finished] = 0
        progress(rows.start * steps + finished * len(rows), total)
        if finished == steps:
            continue
        begins = [(row, begin + stride * (history - emulator.frames)) for row, begin in places]
        window = np.stack([_known(emulator, data, state, out, row, begins[row], stride, finished) for row in rows])
        window = np.where(np.isfinite(window), window, 0.0)
        condition, static = _setting(emulator, data, [trajectory for trajectory, _ in places[rows.start : rows.stop]])
        frames = rollout(emulator, torch.from_numpy(window).to(device), steps - finished, grid, condition, static)
        block: list[np.ndarray] = []
        for lead, frame in enumerate(frames, start=finished + 1):
            marks[(marks == 0) & _outside(emulator, frame, grid)] = lead
            values = frame.float().cpu().numpy()
            values[marks > 0] = np.nan
            block.append(values)
            if len(block) == state.chunks[1] or lead == steps:
                state[rows.start : rows.stop, lead - len(block) : lead] = np.stack(block, axis=1)
                blowup[rows.start : rows.stop] = marks
                done[rows.start : rows.stop] = lead
                block = []
                progress(rows.start * steps + lead * len(rows), total)
    group.attrs["physml"] = {
        **about,
        "complete": True,
        "versions": _versions(),
        "created": datetime.now(UTC).isoformat("T", "seconds"),
    }
    consolidate(out)
    return out


def _places(
    known: int,
    data: Trajectories,
    split: str,
    stride: int,
    steps: int,
    starts: int | None,
    start: Sequence[int] | None,
) -> list[tuple[int, int]]:
    """Trajectory and first known frame of each sample."""
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1.")
    segments = data.segments_of(split)
    if start is None:
        try:
            windows = Windows(data, segments, known + steps, stride, starts or 1)
        except ValueError as problem:
            raise ValueError(f"{problem} To predict past the end of the data, give start instead.") from None
        return [windows.place(index) for index in range(len(windows))]
    span = max(1, stride * (known - 1) + 1)  # with nothing known, a start is the frame of lead 1 itself
    places = [(s.trajectory, s.start + frame) for s in segments for frame in start if s.start + frame + span <= s.stop]
    fits = {frame for frame in start for s in segments if frame >= 0 and s.start + frame + span <= s.stop}
    if fits != set(start):
        raise ValueError(
            f"start: got {list(start)}; segments of split {split!r} have up to "
            f"{max(s.stop - s.start for s in segments)} frames "
            f"and {span} must be known from the start on."
        )
    return places


def _known(
    emulator: Emulator,
    data: Trajectories,
    state: zarr.Array,
    out: Path,
    row: int,
    place: tuple[int, int],
    stride: int,
    finished: int,
) -> np.ndarray:
    """The last frames before lead ``finished + 1``: initial states, then what was written already."""
    trajectory, begin = place
    if not emulator.frames:
        return np.zeros((0, *data.layout.grid.shape, len(data.layout.fields)), dtype=np.float32)
    initial = data.read(trajectory, begin, begin + stride * (emulator.frames - 1) + 1, stride)
    if not finished:
        return initial
    written = read_state(str(out), state, (row, slice(max(0, finished - emulator.frames), finished)))
    return np.concatenate([initial, written])[-emulator.frames :]


def _setting(
    emulator: Emulator, data: Trajectories, trajectories: Sequence[int]
) -> tuple[dict[str, float | Tensor], np.ndarray | None]:
    """Numbers and static fields that the operator reads, for each of these trajectories."""
    rows = np.asarray(trajectories)
    numbers: dict[str, float | Tensor] = {
        name: torch.from_numpy(np.asarray(data.parameters[name], dtype=np.float32)[rows])
        for name in emulator.operator.condition
    }
    static = np.stack([data.read_static(row) for row in trajectories]) if emulator.operator.static else None
    return numbers, static


def _outside(emulator: Emulator, frame: Tensor, grid: Grid) -> np.ndarray:
    """Which samples of ``(B, *space, C)`` left the physical range."""
    energy = emulator.normaliser.encode(frame.float()).square().mean(dim=-1)
    fluid = torch.ones(grid.shape, dtype=torch.bool) if grid.mask is None else grid.mask
    mean = energy[:, fluid.to(energy.device)].mean(dim=-1)
    assert emulator.origin is not None
    return (~torch.isfinite(mean) | (mean > BLOWUP * emulator.origin.statistics["energy"])).cpu().numpy()


def _open(out: Path, about: Mapping[str, Any], layout: Layout, places: Sequence[tuple[int, int]]) -> zarr.Group:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        _, found = open_group(out, "rollout")
        for key in ("weights", "starts", "steps", "stride", "known_frames", "frames_per_call"):
            if found.get(key) != about[key]:
                raise ValueError(
                    f"{out}: already holds another rollout (its {key} differs); give another --out, or delete it."
                )
        for key in ("fingerprint", "split"):
            if found["source"][key] != about["source"][key]:
                raise ValueError(f"{out}: already holds a rollout of other data; give another --out, or delete it.")
        return zarr.open_group(out, mode="r+", use_consolidated=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.new")
    group = zarr.open_group(beside, mode="w")
    group.attrs["physml"] = dict(about)
    steps, stride, known = about["steps"], about["stride"], about["known_frames"]
    # chunks end where a call of the operator ends, so that a resumed rollout makes the same calls
    create_state(group, ("sample", "lead"), (len(places), steps), layout, multiple=about["frames_per_call"])
    leads = np.arange(1, steps + 1)
    add_coordinate(group, "lead", leads, "lead", long_name="frames after the last known one")
    add_coordinate(group, "lead_time", leads * layout.dt, "lead", units=layout.time_units)
    add_coordinate(group, "trajectory", np.array([t for t, _ in places]), "sample")
    frame = np.array([begin + stride * known for _, begin in places])
    add_coordinate(group, "frame", frame, "sample", long_name="source frame of lead 1")
    add_coordinate(
        group, "blowup", np.zeros(len(places), int), "sample", long_name="lead of the first unphysical frame, 0: none"
    )
    add_coordinate(group, "done", np.zeros(len(places), int), "sample", long_name="leads written")
    os.replace(beside, out)
    return zarr.open_group(out, mode="r+")


def _digest(emulator: Emulator) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(emulator.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if value.ndim
            else repr(value.item()).encode()
        )
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    return {name: version_of(name) for name in ("physml", "torch", "zarr")}
