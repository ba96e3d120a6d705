"""The command ``data make``."""

from __future__ import annotations

import argparse
import importlib
import inspect as inspection
import sys
from typing import TYPE_CHECKING, Any

from physml.cli.errors import UserError, nearest
from physml.cli.experiment import pairs, parse, read
from physml.cli.main import FORMATS
from physml.cli.progress import bar

if TYPE_CHECKING:
    from physml.datasets.file_writer import FileLayout

_TAKEN = {".zarr", ".hdf5", ".h5", ".npy"}
_OWN = {"out", "format", "batch", "device", "validation", "test"}


def make(arguments: argparse.Namespace) -> int:
    """Solve an equation and store the trajectories; the same command again continues an interrupted one."""
    import torch

    from physml.datasets.generate import generate, plan_of
    from physml.datasets.places import local
    from physml.solvers import Solver

    module = importlib.import_module(f"physml.solvers.{arguments.name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    solvers = [kind for kind in found if issubclass(kind, Solver)]
    options = _options(arguments, solvers[0])
    own = {name: options.pop(name) for name in _OWN & set(options)}
    out = local(arguments.out or own.pop("out", ""), "out")
    own.pop("out", None)
    wanted = own.pop("format", None)
    files = _files(arguments.format or wanted or "zarr")
    endings = (".zarr",) if files is None else files.ending
    if str(out) in ("", "."):
        raise UserError(
            "no --out: where should the store go?",
            hint=f"physml data make {arguments.name} --out data/{arguments.name}/NAME{endings[0]}",
        )
    if out.suffix not in endings and (any(endings) or out.suffix in _TAKEN):
        named = f"a name that ends in {' or '.join(endings)}" if any(endings) else "a folder, without such an ending"
        raise UserError(f"--out {out}", expected=named)
    own.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
    required = [
        name
        for name, parameter in inspection.signature(solvers[0].__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in options
    ]
    if required:
        raise UserError(f"data make {arguments.name}: missing: {', '.join(f'--{name}' for name in required)}")
    solver = solvers[0](**options)
    plan = plan_of(solver, **{name: own[name] for name in ("validation", "test") if name in own})
    with bar(f"solving {solver.name}") as progress:
        store = generate(solver, out, files=files, progress=progress, **own)
    if files is not None and (lost := files.lost(plan)):
        print(f"note: files of this format do not say {'; '.join(lost)}", file=sys.stderr)
    print(f"{store.path}: {store.count} trajectories of {store.frames} frames, fingerprint {store.fingerprint}")
    return 0


def _files(name: str) -> FileLayout | None:
    """The layout of files that a format means; ``None`` for the canonical store."""
    from physml.datasets.write_npy import NpyFiles
    from physml.datasets.write_pdebench import PDEBenchFiles
    from physml.datasets.write_well import WellFiles

    if name not in FORMATS:
        near = nearest(str(name), FORMATS)
        hint = f"did you mean {near!r}?" if near else ""
        raise UserError(f"format {name!r}", expected=f"one of {', '.join(FORMATS)}", hint=hint)
    kinds: dict[str, FileLayout] = {"well": WellFiles(), "pdebench": PDEBenchFiles(), "npy": NpyFiles()}
    return kinds.get(name)


def _options(arguments: argparse.Namespace, solver: type) -> dict[str, Any]:
    """Options of the recipe and of the command line, which wins, checked against the solver's constructor."""
    known = list(inspection.signature(solver.__init__).parameters)[1:] + sorted(_OWN)  # type: ignore[misc]
    given: dict[str, tuple[Any, str]] = {}
    if arguments.config:
        recipe = read(arguments.config)
        given.update({name: (value, recipe.where(name)) for name, value in recipe.tree.items()})
    given.update({name.replace("-", "_"): (parse(text), "command line") for name, text in pairs(arguments.options)})
    for name, (_, where) in given.items():
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"{arguments.name} has no option {name!r}",
                where=where,
                expected=f"one of {', '.join(known)}",
                hint=f"did you mean {near!r}?" if near else "",
            )
    return {name: value for name, (value, _) in given.items()}
