"""Where data lie that are given by relative paths, and what can only be on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # one slash, for a Path keeps no more; two letters, for Windows' drives


def data_root() -> Path:
    """The folder that relative data paths are looked up in: ``PHYSML_DATA``, or ``data``.

    Raises:
        ValueError: where it is a URL.
    """
    return local(os.environ.get("PHYSML_DATA") or "data", "PHYSML_DATA")


def local(path: str | Path, what: str) -> Path:
    """A path of this machine, where things are written.

    Args:
        path: as it was given.
        what: it is for, for the message.

    Raises:
        ValueError: where it is a URL, which would become a folder called ``s3:``.
    """
    if _URL.match(str(path)):
        raise ValueError(
            f"{what}: got {str(path)!r}, a URL; expected a path of this machine. Data are read from URLs, nothing is "
            "written there: write here and copy it."
        )
    return Path(path)
