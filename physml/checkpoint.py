"""Save and load an emulator; refuse what cannot be trusted.

A checkpoint holds tensors, numbers, strings, lists and dictionaries only and is read with ``weights_only=True``. The
classes it names are used only if they come from physml, or from modules that are imported already: opening a checkpoint
from a stranger runs none of his code.
"""

from __future__ import annotations

import os
import pickle
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from physml.configured import rebuild, version_of
from physml.emulator import Emulator, Origin
from physml.fields import Layout
from physml.normalise import Normaliser
from physml.operators.operator import Operator

FORMAT = 1
_PREFIX = "emulator."


def describe(emulator: Emulator, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All but the weights: what :func:`load` needs beside the state dictionary. Plain values."""
    origin = emulator.origin
    return {
        "format": FORMAT,
        "operator": emulator.operator.describe(),
        "normaliser": emulator.normaliser.describe(),
        "origin": None
        if origin is None
        else {
            "layout": origin.layout.to_plain(),
            "statistics": dict(origin.statistics),
            "stride": origin.stride,
            "fingerprint": origin.fingerprint,
        },
        "config": dict(config or {}),
        "versions": {name: version_of(name) for name in ("physml", "torch", "lightning")}
        | {"python": platform.python_version()},
    }


def read(path: str | Path) -> dict[str, Any]:
    """The raw contents of a checkpoint of ours.

    Raises:
        FileNotFoundError, ValueError: with what to do.
    """
    path = Path(path)
    if not path.is_file():
        nearby = sorted(path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        hint = f"; the folder holds {', '.join(p.name for p in nearby)}" if nearby else ""
        raise FileNotFoundError(f"{path}: no such checkpoint{hint}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols; what matters is whether it loads
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as problem:
        raise ValueError(
            f"{path}: not a checkpoint physml can read; it is truncated, corrupt, or holds objects that would "
            "need to run "
            f"code ({' '.join(str(problem).split())[:80] or type(problem).__name__})."
        ) from None
    if not isinstance(content, dict) or "physml" not in content or "state_dict" not in content:
        raise ValueError(f"{path}: a torch file, but not a checkpoint of physml; train one with `physml fit`.")
    if content["physml"]["format"] != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {content['physml']['format']}, this version reads {FORMAT}; "
            f"it was written by physml {content['physml']['versions']['physml']}."
        )
    return content


def origin_of(about: Mapping[str, Any]) -> Origin | None:
    """What the emulator of a checkpoint was trained on, from its entry ``physml``."""
    plain = about.get("origin")
    if plain is None:
        return None
    return Origin(Layout.from_plain(plain["layout"]), plain["statistics"], plain["stride"], plain["fingerprint"])


def load(path: str | Path, device: str | torch.device = "cpu") -> Emulator:
    """The trained emulator of a checkpoint, ready to predict.

    Args:
        path: written by ``physml fit``.
        device: where to put it.

    Returns:
        An emulator in evaluation mode. Where weights were averaged during training, it has the averaged ones.
    """
    content = read(path)
    about = content["physml"]
    emulator = Emulator(rebuild(about["operator"], Operator), rebuild(about["normaliser"], Normaliser))
    weights = {
        name.removeprefix(_PREFIX): value for name, value in content["state_dict"].items() if name.startswith(_PREFIX)
    }
    try:
        emulator.load_state_dict(weights)
    except RuntimeError as problem:
        raise ValueError(
            f"{path}: its weights do not fit the {about['operator']['class_path'].rpartition('.')[2]} it describes "
            f"({' '.join(str(problem).split())[:160]}); it was written by physml {about['versions']['physml']}."
        ) from None
    emulator.origin = origin_of(about)
    return emulator.to(device).eval()


def save(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint so that the file is always either the old one or the new one, whole.

    Raises:
        OSError: as the file system reports it; the old file is intact then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    try:
        with open(beside, "wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except RuntimeError as problem:  # torch reports a failed write as a position it did not expect
        if isinstance(problem.__context__, OSError):
            raise OSError(problem.__context__.errno, problem.__context__.strerror, str(path)) from problem
        raise
    finally:
        beside.unlink(missing_ok=True)
