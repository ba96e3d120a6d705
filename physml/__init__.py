"""physml learns physics from stored simulations: read a data set, train an operator, roll it out, measure, look.

The names below are imported when they are first used (PEP 562), so that ``import physml`` costs milliseconds and the
command line answers before torch is loaded.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # importing it from typing would double the time that importing physml takes
if TYPE_CHECKING:
    from typing import Any

    from physml import plot as plot
    from physml.checkpoint import load as load
    from physml.datasets.opening import open_trajectories as open_trajectories
    from physml.evaluate import evaluate as evaluate
    from physml.rollout import rollout as rollout

    __version__: str

__all__ = ["__version__", "evaluate", "load", "open_trajectories", "plot", "rollout"]

_HOMES = {
    "evaluate": "physml.evaluate",
    "load": "physml.checkpoint",
    "open_trajectories": "physml.datasets.opening",
    "rollout": "physml.rollout",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version  # 20 ms: only for those who ask

        try:
            value: Any = version("physml")
        except PackageNotFoundError:
            value = "0+source"
    elif name == "plot":
        return import_module("physml.plot")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'physml' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``physml.rollout`` and ``physml.evaluate`` the functions.

    Importing the submodule of the same name would otherwise bind the module over the function, so that
    ``physml.rollout(...)`` worked or failed depending on what had been imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
