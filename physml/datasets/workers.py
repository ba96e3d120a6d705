"""The same work on many parts of a data set, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Self, TypeVar

Given = TypeVar("Given")
Part = TypeVar("Part")
Result = TypeVar("Result")

_given: Any = None  # of a worker process


class Workers(Generic[Given]):
    """Processes that are all given the same thing once, and then parts of the work; to be used in a ``with``.

    They are started when first needed, and anew, not forked, so that open files and threads are nobody's concern; a
    script that asks for several must therefore guard its lines by ``if __name__ == "__main__"``.

    Args:
        given: what every part of the work needs.
        count: of processes; with 1, all is done in this one.
    """

    def __init__(self, given: Given, count: int) -> None:
        if count < 1:
            raise ValueError(f"workers: got {count}, expected 1 or more.")
        self._given, self._count = given, count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, function: Callable[[Given, Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
        """``function(given, part)`` of every part, in their order.

        Args:
            function: of a module, so that other processes can import it.
            parts: small.

        Raises:
            ValueError: where a process died.
        """
        if min(self._count, len(parts)) <= 1:
            yield from (function(self._given, part) for part in parts)
            return
        if self._pool is None:
            spawned = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, spawned, _begin, (self._given,))
        try:
            for future in [self._pool.submit(_call, function, part) for part in parts]:
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                f"workers: one of {self._count} processes died, perhaps for want of memory; give fewer, and the same "
                "command again."
            ) from None


def _begin(given: Any) -> None:
    global _given
    _given = given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one that was asked answers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process that is killed cannot tell those it started; without this they would go on, or wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _call(function: Callable[[Any, Any], Any], part: Any) -> Any:
    return function(_given, part)
