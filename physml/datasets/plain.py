"""Plain values, which JSON gives back as they were."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any, where: str) -> Any:
    """The same as text, numbers, lists and dictionaries; tuples become lists.

    Args:
        value: as somebody gave it.
        where: file and key, for the message.

    Raises:
        ValueError: where there is something else, such as a date that YAML made of ``2024-01-01``, NaN, or a key that
            is no text; it names the key, with dots.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{at}]") for at, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{where}: got {_short(value)}; expected text, finite numbers, true, false, or lists and keys of these. "
            "Put a date into quotes."
        )
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{where}: got the key {_short(key)}; expected text. Put it into quotes.")
    return {key: plain(item, f"{where}.{key}") for key, item in value.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) < 60 else f'{text[:57]}...'} ({type(value).__name__})"
