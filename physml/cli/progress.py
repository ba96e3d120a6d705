"""A bar for commands that take a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """Is called with what is done and what there is to do."""

    def __init__(self, shown: Progress, task: TaskID) -> None:
        self._shown, self._task = shown, task
        self._phase = ""

    def __call__(self, done: int, total: int) -> None:
        self._shown.update(self._task, completed=done, total=total)

    def phase(self, what: str) -> Callable[[int, int], None]:
        """The same for a part of the work, which begins anew and has a name of its own."""

        def tell(done: int, total: int) -> None:
            if self._phase != what:
                self._phase = what
                self._shown.reset(self._task, total=total, description=what)
            self(done, total)

        return tell


@contextmanager
def bar(what: str) -> Iterator[Bar]:
    """A bar on the error stream, so that what is printed can be piped. Where that stream is no terminal there is none.

    Args:
        what: is going on, in a few words.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        yield Bar(shown, shown.add_task(what, total=None))
