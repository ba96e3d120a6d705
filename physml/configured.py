"""Objects that know the arguments they were made with.

The constructor is the configuration: what a YAML file holds under ``class_path`` and ``init_args`` is what a checkpoint
stores, and rebuilding it gives the same object. Constructors are therefore keyword-only and take plain values or other
:class:`Configured` objects.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self


class Configured:
    """Remembers its keyword arguments; :meth:`describe` returns them as plain values."""

    arguments: Mapping[str, Any]

    def __new__(cls, *positional: Any, **arguments: Any) -> Self:
        if positional:
            raise TypeError(f"{cls.__name__} takes keyword arguments only: name each of them.")
        made = super().__new__(cls)
        object.__setattr__(made, "arguments", dict(arguments))
        return made

    def describe(self) -> dict[str, Any]:
        """``{"class_path": ..., "init_args": {...}}`` with plain values all the way down."""
        kind = type(self)
        return {
            "class_path": f"{kind.__module__}.{kind.__qualname__}",
            "init_args": {name: _plain(value) for name, value in self.arguments.items()},
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Configured):
        return value.describe()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"a configuration holds plain values, got {type(value).__name__}: pass a number, a string or an object."
    )


def version_of(package: str) -> str:
    """The installed version of a package, for provenance; ``source`` where it runs without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


def find(class_path: str, kind: type) -> type:
    """The class a dotted path names, which must be a ``kind``; nothing else is ever called."""
    module, _, name = class_path.rpartition(".")
    if not (module.startswith("physml.") or module in sys.modules):
        raise ValueError(
            f"class_path: {class_path!r} is not part of physml, and its module is not imported; if you trust "
            "it, import it "
            f"first, or set PHYSML_IMPORT={module} for the command line."
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(
            f"class_path: no class {class_path!r} can be imported; is the package that defines it installed?"
        ) from None
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"class_path: {class_path!r} is not a {kind.__name__}; name a subclass of it.")
    return found


def rebuild(described: Mapping[str, Any], kind: type) -> Any:
    """Make the object that :meth:`Configured.describe` described; its class must be a ``kind``."""
    arguments = {name: _made(value) for name, value in (described.get("init_args") or {}).items()}
    return find(described["class_path"], kind)(**arguments)


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        return rebuild(value, Configured) if "class_path" in value else {k: _made(item) for k, item in value.items()}
    return [_made(item) for item in value] if isinstance(value, (list, tuple)) else value
