"""Reading in a process of its own, which may crash or hang.

Libraries in C do either on files whose structure is damaged; HDF5 does. What becomes of that process is then what was
found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOOK = 0.5  # seconds between two looks at the other process
_LEAVE = 5.0  # seconds for it to end when it has said the last


class Lost(Exception):
    """The other process did not come back.

    Args:
        what: became of it.
        remedy: what to do.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


def apart(
    function: Callable[..., Any],
    *arguments: Any,
    hear: Callable[..., None] = lambda *said: None,
    patience: float = 60.0,
) -> Any:
    """What a function returns that is called in a process of its own.

    Args:
        function: of a module; its last argument is a function: what it is called with arrives at ``hear``.
        arguments: the others.
        hear: is told what the function says.
        patience: seconds after which the process is ended, where it has neither read nor said anything; infinite where
            others read for it.

    Raises:
        Lost: where the process crashed, or hangs.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments))  # no daemon: it may start others
    process.start()
    theirs.close()
    seen, last = _bytes_read(process.pid), time.monotonic()
    try:
        while True:
            if ours.poll(min(_LOOK, patience / 4)):
                kind, value = ours.recv()
                if kind != "said":
                    process.join(_LEAVE)  # killed, it would leave locks behind, of which Python complains
                if kind == "returned":
                    return value
                if kind == "raised":
                    raise value
                hear(*value)
                last = time.monotonic()
            elif (now := _bytes_read(process.pid)) != seen:
                seen, last = now, time.monotonic()
            elif time.monotonic() - last > patience:
                raise Lost(
                    f"reading hangs: for {patience:g} seconds nothing was read",
                    "its structure may be damaged: fetch or make it again; or disk or network is slow: give more "
                    "--patience",
                )
    except EOFError:
        process.join()
        raise Lost(
            f"the program crashed while it read this (exit code {process.exitcode})",
            "its structure is damaged: fetch or make it again",
        ) from None
    finally:
        process.kill()
        process.join(5)
        ours.close()


def _bytes_read(process: int | None) -> int | None:
    """What a process has read so far, from files and through maps; ``None`` where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/io").read_text("ascii").splitlines()
        counts = dict(line.split(": ") for line in lines)
        return int(counts["rchar"]) + int(counts["read_bytes"])
    except (OSError, ValueError, KeyError):
        return None


def _call(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import pickle
    import signal
    import threading
    import traceback

    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which ends this one
    try:
        pipe.send(("returned", function(*arguments, lambda *said: pipe.send(("said", said)))))
    except BrokenPipeError:  # nobody waits any more
        os._exit(1)
    except Exception as error:
        error.add_note(traceback.format_exc())  # which --debug shows
        try:
            pickle.loads(pickle.dumps(error))  # our own bytes, as the pipe would send them
        except Exception:  # errors of some libraries cannot be sent
            error = ValueError(f"{type(error).__name__}: {error}")
        pipe.send(("raised", error))


def _end_with_parent() -> None:
    """A process that is killed cannot tell the one it waits for, which would go on."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
