"""One page about one or several rollouts: a table, its figures, what every number means and where it comes from.

``index.html`` is complete in itself: figures and film are inside it, it runs no script and asks nothing of the network.
Beside it lie the same numbers as ``metrics.json``, the figures as ``figures/*.png`` and the film as ``animation.gif``.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from physml.datasets.trajectories import Trajectories
from physml.evaluate import load, summary
from physml.plot import fields, save_animation, spectra, trajectories
from physml.plot.style import png
from physml.report.page import Drawn, render
from physml.report.sample import Sample
from physml.report.tables import table, tabulate



def write_report(
    folder: str | Path,
    evaluations: Mapping[str, xr.Dataset | str | Path],
    *,
    rollouts: Mapping[str, str | Path] | None = None,
    truth: Trajectories | str | Path | None = None,
    title: str = "Rollouts compared",
    notes: str | Sequence[str] = (),
    sample: int = 0,
) -> Path:
    """Write the page and what lies beside it.

    Args:
        folder: made if missing; a report that was there is replaced, other files are left alone.
        evaluations: results of :func:`physml.evaluate.evaluate`, or folders that hold them, by the name to show.
        rollouts: rollout stores by the same names; where not given, the stores that the results name, if they are still there.
        truth: the data; where not given, the data that the rollouts name, if they are still there.
        title: of the page.
        notes: paragraphs of plain text below the table.
        sample: of the rollouts, to be shown as fields and film.

    Returns:
        The path of ``index.html``.

    Raises:
        OSError: where the folder cannot be written, before anything is computed.
        ValueError: where the results do not belong together, or the folder holds results of an evaluation.
    """
    folder = Path(folder)
    _check_folder(folder)
    results = {name: item if isinstance(item, xr.Dataset) else load(item) for name, item in evaluations.items()}
    made = tabulate(results)
    results = {name: results[name] for name in made.rows}
    stores, remarks = _stores(results, rollouts)
    samples = {name: Sample.open(path, sample, truth) for name, path in stores.items()}
    figures = _figures(results, samples)
    film = _film(samples)
    provenance = _provenance(results, samples, truth)
    created = datetime.now(UTC).isoformat(" ", "seconds")
    paragraphs = [notes] if isinstance(notes, str) else list(notes)
    page = _page(title, created, made, results, figures, film, provenance, paragraphs, remarks)
    metrics = {
        "kind": "report",
        "format": FORMAT,
        "title": title,
        "created": created,
        "columns": [
            {"key": c.key, "heading": " ".join(c.heading).strip(), "units": c.units, "better": c.better, "definition": c.definition}
            for c in made.columns
        ],
        "models": [
            {
                "name": name,
                "row": {key: {"value": c.value, "low": c.low, "high": c.high, "lost": c.lost, "mark": c.mark} for key, c in row.items()},
                "summary": summary(results[name]),
            }
            for name, row in made.rows.items()
        ],
        "notes": [*paragraphs, *made.notes, *remarks],
        "provenance": provenance,
    }
    files = {f"figures/{figure.key}.png": figure.png for figure in figures}
    if film:
        files["animation.gif"] = film.png
    files["metrics.json"] = (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
    files["index.html"] = page.encode()
    _write(folder, files)
    return folder / "index.html"


def _stores(results: _Results, rollouts: Mapping[str, str | Path] | None) -> tuple[dict[str, Path], list[str]]:
    """Where the rollouts are; what is not there is said, not passed over."""
    if rollouts is not None:
        unknown = [name for name in rollouts if name not in results]
        if unknown:
            raise ValueError(f"rollouts: got {', '.join(unknown)}, expected names of the results: {', '.join(results)}.")
        return {name: Path(rollouts[name]) for name in results if name in rollouts}, []
    found = {name: Path(table.attrs["physml"]["rollout"]) for name, table in results.items()}
    gone = [f"The rollout of {name} is no longer at {path}; its fields are not shown." for name, path in found.items() if not path.exists()]
    return {name: path for name, path in found.items() if path.exists()}, gone


def _figures(results: _Results, samples: Mapping[str, Sample]) -> list[Drawn]:
    made = [
        Drawn("errors", png(trajectories.error_growth(results)), "Error over the lead time."),
        Drawn("correlation", png(trajectories.correlation(results)), "Correlation with the truth over the lead time."),
        Drawn("balances", png(trajectories.conserved(results)), "What the flow holds, over the lead time."),
    ]
    if all("energy_spectrum" in t or "variance_spectrum" in t for t in results.values()):
        grid = next((item.layout.grid for item in samples.values()), None)
        made.append(
            Drawn(
                "spectra",
                png(spectra.energy(results, grid=grid)),
                "Spectra at three lead times"
                + ("; the dashed line marks two thirds of the smallest Nyquist wavenumber, where the log-spectral error ends." if grid else "."),
            )
        )
    for number, group in enumerate(_groups(samples), 1):
        first = next(iter(group.values()))
        _, trajectory, frame, _ = first.origin
        for index, field in enumerate(first.layout.fields[:4]):
            picture = fields.compare(
                first.truth, {name: item.prediction for name, item in group.items()}, first.layout, field=field.name
            )
            key = "fields" + (f"_{number}" if number > 1 else "") + (f"_{field.name}" if index else "")
            caption = f"One sample (trajectory {trajectory}, first predicted frame {frame}): {field.name.replace('_', ' ')}."
            made.append(Drawn(key, png(picture), caption))
    return made


def _groups(samples: Mapping[str, Sample]) -> list[dict[str, Sample]]:
    """Samples with the same truth at the same times, the largest group first."""
    groups: dict[tuple[str, int, int, int], dict[str, Sample]] = {}
    for name, item in samples.items():
        groups.setdefault(item.origin, {})[name] = item
    return sorted(groups.values(), key=len, reverse=True)


def _film(samples: Mapping[str, Sample]) -> Drawn | None:
    if not samples:
        return None
    group = _groups(samples)[0]
    first = next(iter(group.values()))
    last = min(len(item.prediction) for item in group.values())
    leads = np.unique(np.linspace(1, last, min(last, _FILM_FRAMES)).round().astype(int)).tolist()
    film = trajectories.animate(first.truth, {n: item.prediction for n, item in group.items()}, first.layout, leads=leads)
    with tempfile.TemporaryDirectory() as scratch:
        path = save_animation(film, Path(scratch) / "film.gif", fps=_FILM_FPS, dpi=90)
        return Drawn("animation", path.read_bytes(), f"The same sample, {len(leads)} of {last} frames.")


def _provenance(
    results: _Results, samples: Mapping[str, Sample], truth: Trajectories | str | Path | None
) -> dict[str, Any]:
    source = dict(next(iter(results.values())).attrs["physml"]["source"])
    data = next((item.truth.data for item in samples.values() if isinstance(item.truth, _True)), None)
    if data is not None:
        source["parameters"] = {name: sorted({float(f"{v:.6g}") for v in np.asarray(values).ravel()})[:8] for name, values in data.parameters.items()}
        source["made_by"] = json.loads(json.dumps(dict(data.provenance), default=str))
    return {
        "data": source,
        "models": {name: table.attrs["physml"]["model"] for name, table in results.items()},
        "rollouts": {name: table.attrs["physml"]["rollout"] for name, table in results.items()},
        "versions": {name: version(name) for name in ("physml", "torch", "numpy", "xarray", "zarr", "matplotlib")}
        | {"python": platform.python_version()},
        "machine": _machine(),
    }


def _machine() -> str:
    import torch

    parts = [platform.system(), platform.machine(), f"{os.cpu_count()} processor cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)




def _check_folder(folder: Path) -> None:
    if (folder / "results.zarr").exists():
        raise ValueError(f"folder: {folder} holds the results of an evaluation, whose metrics.json would be lost; give another one.")
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "cannot write a report below a file; choose another folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot write a report there; choose another folder", str(there))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Each file whole or not at all, the page last."""
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{os.getpid()}.new")
            try:
                beside.write_bytes(content)
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise OSError(problem.errno, f"cannot write the report ({reason}); choose another folder", str(folder)) from None
