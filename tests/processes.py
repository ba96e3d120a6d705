"""Reading a data set in another process, as a loader's worker does.

The parent is a fresh interpreter: forking one that runs threads of other tests may hang.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def total(data: Any, trajectory: int, start: int, stop: int) -> float:
    return float(data.read(trajectory, start, stop).sum(dtype="float64"))


def tell(queue: Any, data: Any, place: tuple[int, int, int]) -> None:
    queue.put(total(data, *place))


def totals(data: Any, place: tuple[int, int, int], method: str, folder: Path) -> list[float]:
    """The sum of some frames read before, in the other process, and after."""
    (folder / "sent.pickle").write_bytes(pickle.dumps((data, place)))  # our own bytes
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    line = [sys.executable, "-W", "ignore", __file__, str(folder / "sent.pickle"), method]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=100, env=os.environ | {"PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    return [float(word) for word in ran.stdout.split()]


def main() -> None:
    data, place = pickle.loads(Path(sys.argv[1]).read_bytes())
    before = total(data, *place)
    context: Any = multiprocessing.get_context(sys.argv[2])
    queue = context.Queue()
    child = context.Process(target=tell, args=(queue, data, place))
    child.start()
    there = queue.get(timeout=60)
    child.join(timeout=60)
    print(before, there, total(data, *place))


if __name__ == "__main__":
    main()
