"""Where half precision is not enough."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """``x`` in single precision, or in double where it is already."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which automatic mixed precision is off where ``x`` lives: nothing is rounded by itself."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
