"""How long training has taken, without what is not training."""

from __future__ import annotations

import time

import torch


class Clock:
    """Seconds between :meth:`start` and :meth:`stop`, added up.

    Args:
        seconds: already spent.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._spent = seconds
        self._mark: float | None = None

    @property
    def seconds(self) -> float:
        """So far; of work that a GPU has been given but not finished, not all."""
        return self._spent + (0.0 if self._mark is None else time.perf_counter() - self._mark)

    def start(self) -> None:
        """Go on, if it stands."""
        if self._mark is None:
            self._mark = time.perf_counter()

    def stop(self, device: torch.device) -> None:
        """Wait for the device, then stand."""
        if self._mark is None:
            return
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self._spent, self._mark = self.seconds, None

    def drop(self) -> None:
        """Stand, and forget the time since it last went on."""
        self._mark = None
