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
import torch
import xarray as xr

from physml.datasets.trajectories import Trajectories
from physml.plot import fields, save_animation, spectra, trajectories
from physml.plot.style import DPI, png
from physml.report.page import Drawn, render
from physml.report.sample import Sample
from physml.report.tables import Results, Table, table, tabulate
from physml.results import load

__all__ = ["Sample", "Table", "table", "tabulate", "write_report"]

FORMAT = 1
_FILM_FRAMES, _FILM_FPS = 36, 6
_FIELDS = 4  # fields that are drawn, of states with many


def write_report(
    folder: str | Path,
    evaluations: Mapping[str, xr.Dataset | str | Path],
    *,
    rollouts: Mapping[str, str | Path] | None = None,
    truth: Trajectories | str | Path | None = None,
    title: str = "Rollouts against the truth",
    notes: str | Sequence[str] = (),
    sample: int = 0,
) -> Path:
    """Write the page and what lies beside it.

    Args:
        folder: made if missing; a report that was there is replaced, other files are left alone.
        evaluations: results of :func:`physml.evaluate.evaluate`, or folders that hold them, by the name to show.
        rollouts: rollout stores by the same names; where not given, those that the results name, if still there.
        truth: the data; where not given, those that the rollouts name, if still there.
        title: of the page.
        notes: paragraphs of plain text above the table.
        sample: of the rollouts, to be shown as fields and film.

    Returns:
        The path of ``index.html``.

    Raises:
        OSError: where the folder cannot be written: before anything is computed, as far as that can be known.
        ValueError: where the results do not belong together, or the folder holds the results of an evaluation.
    """
    folder = Path(folder)
    _check(folder)
    results = {name: item if isinstance(item, xr.Dataset) else load(item) for name, item in evaluations.items()}
    made = tabulate(results)
    results = {name: results[name] for name in made.rows}
    stores, remarks = _stores(results, rollouts)
    samples = {name: Sample.open(path, sample, truth) for name, path in stores.items()}
    figures = [*_curves(results), *_states(samples)]
    provenance = _provenance(results, samples)
    created = datetime.now(UTC).isoformat(" ", "seconds")
    paragraphs = [notes] if isinstance(notes, str) else list(notes)
    page = render(
        title=title,
        subtitle=f"{_subject(results)} {created}.",
        paragraphs=paragraphs,
        table=made,
        remarks=remarks,
        definitions=_definitions(made, results),
        figures=figures,
        provenance=provenance,
    )
    metrics = {
        "kind": "report",
        "format": FORMAT,
        "title": title,
        "created": created,
        "columns": [
            {
                "key": column.key,
                "heading": " ".join(filter(None, (column.group, column.part, column.detail))),
                "units": column.units,
                "better": column.better,
                "definition": column.definition,
            }
            for column in made.columns
        ],
        "models": [
            {
                "name": name,
                "row": {
                    key: {"value": cell.value, "low": cell.low, "high": cell.high, "lost": cell.lost, "mark": cell.mark}
                    for key, cell in row.items()
                },
                "summary": made.summaries[name],
            }
            for name, row in made.rows.items()
        ],
        "notes": [*paragraphs, *made.notes, *remarks],
        "provenance": provenance,
    }
    files = {figure.name: figure.content for figure in figures}
    files["metrics.json"] = (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode()
    files["index.html"] = page.encode()
    _write(folder, files)
    return folder / "index.html"


def _stores(results: Results, rollouts: Mapping[str, str | Path] | None) -> tuple[dict[str, Path], list[str]]:
    """Where the rollouts are, and in words which are gone."""
    if rollouts is not None:
        unknown = [name for name in rollouts if name not in results]
        if unknown:
            raise ValueError(f"rollouts: got {', '.join(unknown)}, expected names of results: {', '.join(results)}.")
        return {name: Path(rollouts[name]) for name in results if name in rollouts}, []
    named = {name: Path(results[name].attrs["physml"]["rollout"]) for name in results}
    gone = [name for name, path in named.items() if not path.exists()]
    remarks = [f"The rollout of {name} is no longer at {named[name]}; its states are not shown." for name in gone]
    return {name: path for name, path in named.items() if name not in gone}, remarks


# ----------------------------------------------------------------------------------------------------------- figures


def _curves(results: Results) -> list[Drawn]:
    made = [
        _drawn("errors", trajectories.error_growth(results), "Error over the lead time."),
        _drawn("correlation", trajectories.correlation(results), "Correlation with the truth over the lead time."),
        _drawn("balances", trajectories.conserved(results), "What the states hold, over the lead time."),
    ]
    if all(any(name in table for name in spectra.SPECTRA) for table in results.values()):
        caption = "Spectra at three lead times, averaged over the stable samples."
        if next(iter(results.values())).attrs["physml"].get("shell_limit") is not None:
            caption += " The dashed line marks two thirds of the smallest Nyquist wavenumber."
        made.append(_drawn("spectra", spectra.energy(results), caption))
    return made


def _states(samples: Mapping[str, Sample]) -> list[Drawn]:
    """Each group of samples that have the same truth, and a film of the largest."""
    made = []
    for number, group in enumerate(_groups(samples), 1):
        first = next(iter(group.values()))
        _, trajectory, frame, _ = first.origin
        where = f"One sample (trajectory {trajectory}, first predicted frame {frame})"
        predictions = {name: sample.prediction for name, sample in group.items()}
        for field in first.layout.names[:_FIELDS]:
            figure = fields.compare(first.truth, predictions, first.layout, field=field)
            name = f"fields_{field}" if number == 1 else f"fields_{field}_{number}"
            made.append(_drawn(name, figure, f"{where}: {field.replace('_', ' ')}."))
        if number == 1:
            last = min(map(len, predictions.values()))
            leads = np.unique(np.linspace(1, last, min(last, _FILM_FRAMES)).round().astype(int)).tolist()
            film = trajectories.animate(first.truth, predictions, first.layout, leads=leads)
            with tempfile.TemporaryDirectory() as scratch:
                content = save_animation(film, Path(scratch) / "film.gif", fps=_FILM_FPS, dpi=96).read_bytes()
            caption = f"{where}: {len(leads)} of {last} frames."
            width = int.from_bytes(content[6:8], "little")  # of the GIF, made at 96 pixels an inch
            made.append(Drawn("animation.gif", content, caption, width))
    return made


def _drawn(name: str, figure: Any, caption: str) -> Drawn:
    content = png(figure)
    width = int.from_bytes(content[16:20], "big") * 96 // DPI  # of the PNG, on the page
    return Drawn(f"figures/{name}.png", content, caption, width)


def _groups(samples: Mapping[str, Sample]) -> list[dict[str, Sample]]:
    """Samples with the same truth at the same times, the largest group first."""
    groups: dict[tuple[str, int, int, int], dict[str, Sample]] = {}
    for name, sample in samples.items():
        groups.setdefault(sample.origin, {})[name] = sample
    return sorted(groups.values(), key=len, reverse=True)


# ------------------------------------------------------------------------------------------------------------- words


def _subject(results: Results) -> str:
    first = next(iter(results.values()))
    about = first.attrs["physml"]
    apart = f"{about['dt']:.4g} {about['time_units']}".rstrip()
    return (
        f"{about['source']['name']}, split {about['source']['split']}: {first.sizes['sample']} samples of "
        f"{first.sizes['lead']} frames, {apart} apart."
    )


def _definitions(made: Table, results: Results) -> list[str]:
    """Of every number in the table and every quantity in the figures."""
    first = next(iter(results.values()))
    balances = [name for name in ("kinetic_energy", "enstrophy") if name in first] or ["variance"]
    drawn = ["nrmse", "correlation", *balances, *[name for name in spectra.SPECTRA if name in first][:1]]
    return list(
        dict.fromkeys([*(c.definition for c in made.columns), *(str(first[n].attrs["definition"]) for n in drawn)])
    )


def _provenance(results: Results, samples: Mapping[str, Sample]) -> dict[str, Any]:
    source = dict(next(iter(results.values())).attrs["physml"]["source"])
    data = next((sample.truth.data for sample in samples.values() if sample.truth is not None), None)
    if data is not None:
        source["parameters"] = {
            name: np.unique(np.asarray(values, dtype=np.float64))[:8].tolist()
            for name, values in data.parameters.items()
        }
        source["provenance"] = json.loads(json.dumps(dict(data.provenance), default=str))
    packages = ("physml", "torch", "numpy", "xarray", "zarr", "matplotlib")
    return {
        "data": source,
        "models": {name: table.attrs["physml"]["model"] for name, table in results.items()},
        "rollouts": {name: table.attrs["physml"]["rollout"] for name, table in results.items()},
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": _machine(),
    }


def _machine() -> str:
    parts = [platform.system(), platform.machine(), f"{os.cpu_count()} processors"]
    return ", ".join(parts + ([torch.cuda.get_device_name()] if torch.cuda.is_available() else []))


# ------------------------------------------------------------------------------------------------------------- files


def _check(folder: Path) -> None:
    """Whether a report may be written here, found out without touching anything."""
    if (folder / "results.zarr").exists():
        raise ValueError(
            f"folder: {folder} holds the results of an evaluation, which a report would mix with; give another."
        )
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder, so no report can be written in it", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission to write a report there; choose another folder", str(there))


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
        text = f"cannot write the report ({reason}); choose another folder"
        raise OSError(problem.errno, text, str(folder)) from None
