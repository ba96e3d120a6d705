"""Find the class that a dotted path of a YAML file names, or the one that was meant."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Iterator
from functools import cache
from typing import Any

from physml.cli.errors import UserError, nearest

_PACKAGES = ("operators", "objectives", "normalise", "training", "callbacks", "datasets")
"""Where the classes of physml that an experiment may name are exported."""


def resolve(path: str, bases: tuple[type, ...] = ()) -> Any:
    """What a class path names. A bare class name is looked for among the subclasses of ``bases`` that are loaded.

    Raises:
        UserError: with the nearest name that exists.
    """
    home, _, name = path.rpartition(".")
    if not home:
        loaded = {kind.__name__: kind for base in bases for kind in _all_subclasses(base)}
        if name in loaded:
            return loaded[name]
        near = nearest(name, [full.rpartition(".")[2] for full in _public()]) or ""
        full = next((full for full in _public() if full.endswith(f".{near}")), "") if near else ""
        raise UserError(
            f"no class {path!r}", expected="package.module.Class", hint=f"did you mean {full!r}?" if full else ""
        )
    module, outer = None, home
    while module is None and outer:
        try:
            module = importlib.import_module(outer)
        except ModuleNotFoundError as error:
            if error.name is None or not (outer == error.name or outer.startswith(f"{error.name}.")):
                raise UserError(
                    f"{outer} needs the package {error.name!r}, which is not installed",
                    hint=f"pip install {error.name}",
                ) from error
            outer = outer.rpartition(".")[0]
        except Exception as error:  # whatever the module of a user does when it is imported
            raise UserError(f"{outer} cannot be imported: {type(error).__name__}: {error}") from error
    found: Any = module
    for part in path.removeprefix(outer).strip(".").split(".") if module else ():
        try:
            found = getattr(found, part)
        except AttributeError:
            found = None
            break
    if module is not None and callable(found):
        return found
    raise _no_class(path, home, module, outer)


def _no_class(path: str, home: str, module: types.ModuleType | None, outer: str) -> UserError:
    if module is not None and outer == home:
        names = _classes(module)
        what, expected = f"{home} has no class {path.rpartition('.')[2]!r}", f"one of {', '.join(sorted(names))}"
        near = nearest(path.rpartition(".")[2], names)
        if near:
            return UserError(what, expected=expected, hint=f"did you mean '{home}.{near}'?")
    else:
        top = path.partition(".")[0]
        what = f"no module {home!r}" if module is not None else f"no package {top!r}"
        expected = "package.module.Class; modules are also looked for in the current folder"
    near = nearest(path, _public())
    if near is None:
        name = path.rpartition(".")[2]
        near = next((full for full in _public() if full.endswith(f".{name}")), None)
    return UserError(what, expected=expected, hint=f"did you mean {near!r}?" if near else "")


def _classes(module: types.ModuleType) -> list[str]:
    """Names of the public classes of a module, also of those it imports when asked."""
    top, found = module.__name__.partition(".")[0], []
    for name in getattr(module, "__all__", None) or dir(module):
        kind = None if name.startswith("_") else getattr(module, name, None)
        if isinstance(kind, type) and kind.__module__.partition(".")[0] == top:
            found.append(name)
    return found


@cache
def _public() -> tuple[str, ...]:
    """Class paths of the public classes of physml."""
    found = []
    for package in _PACKAGES:
        try:
            module = importlib.import_module(f"physml.{package}")
        except ImportError:
            continue
        found += [f"physml.{package}.{name}" for name in _classes(module)]
    return tuple(found)


def _all_subclasses(base: type) -> Iterator[type]:
    yield base
    below: list[type] = type.__subclasses__(base)
    for kind in below:
        yield from _all_subclasses(kind)


def subclasses(bases: tuple[type, ...]) -> list[str]:
    """Class paths of public classes of physml that are of one of these kinds."""
    found = []
    for full in _public():
        home, _, name = full.rpartition(".")
        kind = getattr(importlib.import_module(home), name)
        if issubclass(kind, bases) and not inspect.isabstract(kind):
            found.append(full)
    return found
