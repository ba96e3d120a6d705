"""What is known of a conversion while it is not complete: of which files, which blocks were written, and who is at it.

All of it is in one folder: ``source.json``, the files as they were at the beginning; ``STAGE-PROCESS``, lines of what
was written; ``lock``, which the process that is at it holds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from physml.datasets.remote import Remote, place

try:
    import fcntl
except ImportError:  # a platform without it: nothing then keeps two conversions apart
    fcntl = None  # type: ignore[assignment]

_LOCK, _SOURCE = "lock", "source.json"
_LINES = re.compile(r"(\d+)-\d+")

State = dict[str, list[Any]]
"""Size and time of change of each file; of a remote one, its size and what its server tells versions apart by."""


class Journal:
    """Lines of what was written. Every process has its own files.

    Args:
        folder: of the files.
        stage: its number, one for writing and the next for reading back; lines of a later stage hold against those of
            an earlier one.
    """

    def __init__(self, folder: Path, stage: int) -> None:
        self.folder, self.stage = folder, stage

    def add(self, row: int, start: int, digest: str) -> None:
        """Say that a block was written."""
        self._add(self.stage, f"{row} {start} {digest}")

    def strike(self, row: int, start: int) -> None:
        """Say that a block is to be written again."""
        self._add(self.stage + 1, f"{row} {start} -")

    def _add(self, stage: int, line: str) -> None:
        with open(self.folder / f"{stage}-{os.getpid()}", "a", encoding="ascii") as file:
            file.write(f"\n{line}\n")  # the line before may be torn

    @staticmethod
    def read(folder: Path) -> tuple[dict[tuple[int, int], str], int]:
        """Digests by trajectory and first frame, and the number of the next stage; a torn line is none."""
        found: dict[tuple[int, int], str] = {}
        stages = {file: int(parts[1]) for file in folder.iterdir() if (parts := _LINES.fullmatch(file.name))}
        for file in sorted(stages, key=lambda file: stages[file]):
            for line in file.read_text("ascii", "replace").splitlines():
                if parts := re.fullmatch(r"(\d+) (-?\d+) ([0-9a-f]{64}|-)", line):
                    found[int(parts[1]), int(parts[2])] = parts[3]
        known = {key: digest for key, digest in found.items() if digest != "-"}
        return known, 1 + max(stages.values(), default=0)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a folder, made where it is missing, for this process; one in which nothing was noted is removed again.

    Raises:
        ValueError: where another process, or another call of this one, holds it.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            held = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another one removed the folder just now
            continue
        try:
            _lock(held, folder)
            there = folder / _LOCK
            if there.exists() and os.path.samestat(os.stat(there), os.fstat(held)):
                break
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # another one was done, and removed the folder, before we held it
    try:
        yield
    finally:
        if folder.exists() and {file.name for file in folder.iterdir()} <= {_LOCK, _SOURCE}:
            shutil.rmtree(folder)
        os.close(held)


def _lock(file: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder}: another process is converting to the same place; wait until it ends, or give another name."
        ) from None
    except OSError:
        pass  # a file system without locks


def forget(folder: Path) -> None:
    """Remove all notes: they are of a store that was deleted."""
    for file in folder.iterdir():
        if file.name != _LOCK:
            file.unlink()


def keep(folder: Path, state: State) -> State:
    """Note how the files of the source are, unless that was noted before; returns what was noted first."""
    file = folder / _SOURCE
    if not file.exists():
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(state), "utf-8")
        os.replace(beside, file)
    found: State = json.loads(file.read_text("utf-8"))
    return found


def state_of(files: Sequence[str], besides: Sequence[Path] = ()) -> State:
    """How files are now, by their names below the folder that they share.

    Args:
        files: paths and URLs; those that are not there are left out.
        besides: what is written; files below these are left out.
    """
    parts = [file.replace(os.sep, "/").split("/") for file in files]
    folders = zip(*(part[:-1] for part in parts), strict=False)
    shared = len([*takewhile(lambda names: len(set(names)) == 1, folders)])
    ours = [os.path.join(os.path.realpath(path), "") for path in besides]
    found: State = {}
    for file, part in zip(files, parts, strict=True):
        if ours and os.path.realpath(file).startswith(tuple(ours)):
            continue
        where = place(file)
        try:
            state = where.state() if isinstance(where, Remote) else [(s := os.stat(where)).st_size, s.st_mtime_ns]
        except OSError:
            continue
        found["/".join(part[shared:])] = state
    return found


def change(before: State, now: State) -> str:
    """What differs, in words; empty where every file is as it was. New files are no difference: they are not read."""
    for name, state in before.items():
        if name not in now:
            return f"{name} is gone"
        if now[name] != state:
            return f"{name} had {_told(state)}, and now has {_told(now[name])}"
    return ""


def _told(state: Sequence[Any]) -> str:
    size, mark = state
    if isinstance(mark, int):
        return f"{size} bytes of {datetime.fromtimestamp(mark / 1e9).isoformat(' ', 'milliseconds')}"
    return f"{size} bytes" + (f" of version {mark}" if mark else "")
