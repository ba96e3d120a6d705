"""Functions that another process may be given, and does not survive."""

from __future__ import annotations

import os
from typing import Any


def crash(*ignored: Any) -> Any:
    """End as a fault in a library of C does: no exception, no clean-up."""
    os.abort()


def fail(*ignored: Any) -> Any:
    """Raise what nobody expects."""
    raise ZeroDivisionError("by design")
