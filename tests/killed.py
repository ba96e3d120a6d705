"""Conversions that are killed at chosen moments and run again, each in a process of its own.

Run as a script, it forks before anything starts threads; what every run wrote is told as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOMENTS = ("block 1", "block 5", "line 4", "static 2", "check 2", "end 1")
"""After which call the process dies: of what writes a block, notes it, writes static fields, reads back, or ends."""


def conversions(source: Path, folder: Path) -> dict[str, Any]:
    """For every moment: what the killed run and the one after it wrote; the stores are ``folder / MOMENT.zarr``."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    line = [sys.executable, "-W", "ignore", __file__, str(source), str(folder)]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=200, env=os.environ | {"PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout)
    return told


def run(source: str, out: Path, moment: str, log: Path) -> None:
    from physml.datasets import convert, journal, open_trajectories, store

    what, _, number = moment.partition(" ")
    counts: dict[str, int] = {}

    def watched(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if kind in ("block", "static"):
                with open(log, "a") as file:
                    file.write(f"{kind} {given[1]} {given[2] if kind == 'block' else 0}\n")
            done = function(*given)
            counts[kind] = counts.get(kind, 0) + 1
            if kind == what and counts[kind] == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    for owner, name, kind in (
        (store.StoreWriter, "_write", "block"),
        (store.StoreWriter, "_write_static", "static"),
        (store.StoreWriter, "read_back", "check"),
        (journal.Journal, "add", "line"),
    ):
        setattr(owner, name, watched(kind, getattr(owner, name)))
    if what == "end":  # complete, but its metadata are not gathered yet
        store.consolidate = watched("end", lambda path: None)
    convert.convert(open_trajectories(source), out)


def main() -> None:
    import physml.datasets.convert  # noqa: F401  # once for all children

    source, folder = sys.argv[1], Path(sys.argv[2])
    told = {}
    for moment in MOMENTS:
        wrote = []
        for attempt in (moment, "never"):
            log = folder / f"{moment} {attempt}.log"
            log.touch()
            if (child := os.fork()) == 0:
                run(source, folder / f"{moment}.zarr", attempt, log)
                os._exit(0)
            wrote.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), log.read_text().splitlines()))
        told[moment] = wrote
    print(json.dumps(told))


if __name__ == "__main__":
    main()
