"""Functions that another process may be given, and does not survive."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def crash(*ignored: Any) -> Any:
    """End as a fault in a library of C does: no exception, no clean-up."""
    os.abort()


def fail(*ignored: Any) -> Any:
    """Raise what nobody expects."""
    raise ZeroDivisionError("by design")


def sleep(*ignored: Any) -> Any:
    """Hang, as a library of C does that follows a circle of pointers."""
    time.sleep(1000)


def name_and_sleep(mark: str, *ignored: Any) -> Any:
    """Write which process this is, whole at once, and hang."""
    Path(f"{mark}.new").write_text(str(os.getpid()))
    os.replace(f"{mark}.new", mark)
    time.sleep(1000)


def read_and_sleep(*given: Any) -> Any:
    """Say what is read, and hang."""
    given[-1]("done", 80, 120)
    given[-1]("reading", 3, 16)
    time.sleep(1000)


def work(kind: str, path: str, say: Callable[..., None]) -> str:
    """Two seconds of work, with or without a sign of life."""
    for _ in range(8):
        time.sleep(0.25)
        if kind == "speaks":
            say("done", 1, 2)
        elif kind == "reads":
            Path(path).read_bytes()
    return kind


def in_this_process(
    function: Callable[..., Any], *arguments: Any, hear: Callable[..., None] = lambda *said: None, **ignored: Any
) -> Any:
    """In place of :func:`physml.cli.apart.apart`."""
    return function(*arguments, hear)
