"""Reading: random windows from files of The Well and from a store, beside the-well's own loader and plain numpy.

``python experiments/speed/run.py loader [--json]`` writes turbulent-looking fields of five channels, opens them in
each way and reads the same random windows of eight frames, four known and four ahead. All of it happens in one process,
as in one worker of a loader. Two questions are kept apart:

* **warm**: batches of eight windows from the page cache, collated: what a worker can do at most;
* **cold**: single windows after the cache of their files was dropped (``posix_fadvise``), all at the same places,
  in random order.

``numpy`` reads the bytes that a source has to read for the window, by a memory map and by ``read``, and does nothing
with them. Phases are timed in a pass of their own: ``open`` opens files, ``read`` fetches bytes, ``decode`` checks and
unpacks chunks, ``place`` puts channels side by side and checks that they are finite, ``collate`` makes the batch.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import psutil
import torch
from torch.utils.data import default_collate

from physml.datasets import Segment, TheWell, Trajectories, TrajectoryStore, Windows, chunk_files, hdf5
from physml.datasets.convert import convert
from physml.datasets.file_writer import FileWriter
from physml.datasets.windows import Collate
from physml.datasets.write_well import WellFiles
from physml.datasets.writing import Plan
from physml.fields import Axis, Field, Grid, Layout

KNOWN, LENGTH, BATCH = 4, 8, 8
NAMES = ("density", "energy", "pressure", "velocity_x", "velocity_y")
BYTES = 256 << 20  # of a data set; large enough that windows seldom overlap, small enough to be written in seconds


def fields(points: int, frames: int, seed: int) -> np.ndarray:
    """``(T, n, n, 5)``: waves of random phase, amplitude ``k^-1.8``, each turning at a rate of its own."""
    rng = np.random.default_rng(seed)
    kx, ky = np.meshgrid(np.fft.fftfreq(points, 1 / points), np.fft.rfftfreq(points, 1 / points), indexing="ij")
    k = np.hypot(kx, ky)
    height = np.divide(points, k**1.8, out=np.zeros_like(k), where=k > 0)
    out = np.empty((frames, points, points, len(NAMES)), np.float32)
    for channel in range(len(NAMES)):
        phase, rate = rng.uniform(0, 2 * np.pi, k.shape), rng.normal(size=k.shape) * np.sqrt(k)
        for frame in range(frames):
            wave = np.exp(1j * (phase + 0.05 * frame * rate))
            out[frame, ..., channel] = np.fft.irfft2(height * wave, s=(points, points))
    return out


def write(folder: Path, points: int, frames: int, count: int) -> None:
    """``well``, a folder of The Well, and ``store.zarr``, what ``physml data convert`` makes of it."""
    axes = tuple(Axis.periodic_uniform(name, points, 1.0) for name in "xy")
    plan = Plan(
        name="turbulence",
        layout=Layout(tuple(Field(name) for name in NAMES), Grid(axes), 0.1),
        count=count,
        frames=frames,
        parameters={},
        segments={"train": [Segment(row, 0, frames) for row in range(count)]},
        provenance={"source": "waves of random phase"},
    )
    writer = FileWriter(folder / "well", files=WellFiles(), plan=plan)
    digests = []
    for row in range(count):
        values, step = fields(points, frames, row), writer.chunk_frames
        digests.append("".join(writer.write(row, at, values[at : at + step]) for at in range(0, frames, step)))
    writer.finish(digests)
    convert(TheWell(folder / "well"), folder / "store.zarr")


Opened = Callable[[], tuple[Callable[[Sequence[int]], Any], Callable[[Any], Any]]]


class Source:
    """A way to read windows.

    Args:
        name: of the row.
        opened: opens the data set, and gives the function that reads windows and the one that makes a batch of them.
        ranges: the bytes of a window: file, first byte, number of bytes.
    """

    def __init__(self, name: str, opened: Opened, ranges: Callable[[int], list[tuple[Path, int, int]]]) -> None:
        self.name, self.opened, self.ranges = name, opened, ranges
        self.read, self.collate = opened()

    def batch(self, indices: Sequence[int]) -> Any:
        return self.collate(self.read(indices))


def ours(kind: type[Trajectories], path: Path) -> Opened:
    """Opens the data set."""

    def opened() -> Any:
        data = kind(path)  # type: ignore[call-arg]
        windows = Windows(data, data.segments_of("train"), LENGTH)
        return windows.__getitems__, Collate(data, KNOWN)

    return opened


def theirs(path: Path) -> Opened:
    """The same of the-well.

    Raises:
        ImportError: where it is not installed.
    """
    from the_well.data import WellDataset

    def opened() -> Any:
        data = WellDataset(path=str(path), well_split_name="train", n_steps_input=KNOWN, n_steps_output=LENGTH - KNOWN)

        def read(indices: Sequence[int]) -> list[Any]:
            return [data[index] for index in indices]

        return read, default_collate

    return opened


def sources(folder: Path, points: int, frames: int) -> list[Source]:
    """All that can be imported here."""
    [file] = (folder / "well" / "data" / "train").glob("*.hdf5")
    room = frames - LENGTH + 1
    with h5py.File(file) as opened:
        arrays = [opened[f"t0_fields/{name}"] for name in NAMES[:3]] + [opened["t1_fields/velocity"]]
        assert all(array.chunks is None for array in arrays)
        begins = [(array.id.get_offset(), 4 * int(np.prod(array.shape[2:]))) for array in arrays]
    store = TrajectoryStore(folder / "store.zarr")
    size = store.storage().chunks[0].frames

    def contiguous(index: int) -> list[tuple[Path, int, int]]:
        row, start = divmod(index, room)
        return [(file, begin + (row * frames + start) * frame, LENGTH * frame) for begin, frame in begins]

    def chunked(index: int) -> list[tuple[Path, int, int]]:
        row, start = divmod(index, room)
        chunks = range(start // size, (start + LENGTH - 1) // size + 1)
        files = [folder / "store.zarr" / "state" / "c" / f"{row}/{chunk}/0/0/0" for chunk in chunks]
        return [(path, 0, path.stat().st_size) for path in files]

    found = [
        Source("physml, The Well", ours(TheWell, folder / "well"), contiguous),
        Source("physml, store", ours(TrajectoryStore, folder / "store.zarr"), chunked),
    ]
    with suppress(ImportError):
        found.append(Source("the-well", theirs(folder / "well"), contiguous))
    return found


# --------------------------------------------------------------------------------------------------------------- timing


def mapped(ranges: Sequence[tuple[Path, int, int]]) -> None:
    for path, begin, size in ranges:
        np.array(np.memmap(path, np.uint8, "r", begin, (size,)))


def plain(ranges: Sequence[tuple[Path, int, int]]) -> None:
    for path, begin, size in ranges:
        np.fromfile(path, np.uint8, size, offset=begin)


def each(work: Callable[[Any], object], items: Sequence[Any]) -> None:
    for item in items:
        work(item)


def first(source: Source) -> None:
    """What a worker does before its second window."""
    read, _ = source.opened()
    read([0])


def dropped(ranges: Sequence[tuple[Path, int, int]]) -> None:
    """Take the files out of the page cache."""
    for path in {path for path, _, _ in ranges}:
        file = os.open(path, os.O_RDONLY)
        with suppress(AttributeError):  # not on every system: then cold is warm
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Phases:
    """Seconds spent in each phase, while :meth:`counting`; what is called inside a phase counts there only."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._inside = False

    def timed(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **named: Any) -> Any:
            if self._inside:
                return work(*given, **named)
            self._inside, begin = True, time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                self._inside = False
                self.spent[phase] = self.spent.get(phase, 0.0) + time.perf_counter() - begin

        return wrapped

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Time what fetches and what decodes, in all sources."""
        with (
            patch.object(h5py.File, "__init__", self.timed("open", h5py.File.__init__)),
            patch.object(h5py.Dataset, "__getitem__", self.timed("read", h5py.Dataset.__getitem__)),
            patch.object(hdf5, "values", self.timed("read", hdf5.values)),
            patch.object(hdf5, "read_into", self.timed("read", hdf5.read_into)),
            patch.object(chunk_files._Files, "__enter__", self.timed("read", chunk_files._Files.__enter__)),
            patch.object(os, "readv", self.timed("read", os.readv)),
            patch.object(chunk_files, "_decode", self.timed("decode", chunk_files._decode)),
        ):
            yield


def warm(source: Source, batches: Sequence[Sequence[int]], passes: int = 5) -> dict[str, float]:
    """Windows and decoded bytes a second, the median of some passes, and milliseconds of each phase of a window."""
    for indices in batches:
        source.batch(indices)
    count = sum(map(len, batches))
    rates = [count / seconds(partial(each, source.batch, batches)) for _ in range(passes)]
    ranges = [source.ranges(index) for indices in batches for index in indices]
    numpy = {
        f"numpy_{name}": count / statistics.median(seconds(partial(each, read, ranges)) for _ in range(passes))
        for name, read in (("map", mapped), ("read", plain))
    }
    phases, reading, collating = Phases(), 0.0, 0.0
    with phases.counting():
        for indices in batches:
            begin = time.perf_counter()
            found = source.read(indices)
            middle = time.perf_counter()
            source.collate(found)
            reading += middle - begin
            collating += time.perf_counter() - middle
    spent = {name: 1e3 * phases.spent.get(name, 0.0) / count for name in ("open", "read", "decode")}
    spent |= {"place": 1e3 * reading / count - sum(spent.values()), "collate": 1e3 * collating / count}
    return {"windows_per_s": statistics.median(rates), **numpy, **spent}


def cold(found: Sequence[Source], indices: Sequence[int]) -> dict[str, dict[str, float]]:
    """Milliseconds of a window whose files are not in the cache, for each source: medians over places.

    Windows touch one chunk or two, so ``of_numpy``, the part of numpy's speed, is the median over the same windows.
    """
    rng = random.Random(3)
    spent: dict[str, dict[str, list[float]]] = {s.name: {"ms": [], "numpy_map": [], "numpy_read": []} for s in found}
    for index in indices:
        works: list[tuple[str, str, list[tuple[Path, int, int]], Callable[[], object]]] = []
        for source in found:
            ranges = source.ranges(index)
            works += [
                (source.name, "ms", ranges, partial(source.read, [index])),
                (source.name, "numpy_map", ranges, partial(mapped, ranges)),
                (source.name, "numpy_read", ranges, partial(plain, ranges)),
            ]
        rng.shuffle(works)  # the disk has a cache of its own: whoever reads a place first waits longest
        for name, kind, ranges, work in works:
            dropped(ranges)
            spent[name][kind].append(1e3 * seconds(work))
    medians = {name: {kind: statistics.median(ms) for kind, ms in kinds.items()} for name, kinds in spent.items()}
    for name, kinds in spent.items():
        parts = [plainly / ms for plainly, ms in zip(kinds["numpy_read"], kinds["ms"], strict=True)]
        medians[name]["of_numpy"] = statistics.median(parts)
    return medians


def memory(source: Source, windows: int, total: int, samples: int = 50) -> dict[str, Any]:
    """Resident memory, MiB, at moments during ``windows`` windows, and its range after the first tenth."""
    process, rng = psutil.Process(), np.random.default_rng(2)
    curve, every = [], max(1, windows // BATCH // samples)
    for step in range(max(1, windows // BATCH)):
        source.batch(rng.integers(total, size=BATCH).tolist())
        if step % every == 0:
            gc.collect()
            curve.append([BATCH * (step + 1), process.memory_info().rss / 2**20])
    later = [size for _, size in curve[len(curve) // 10 :]]
    return {"curve_mib": curve, "spread": (max(later) - min(later)) / min(later)}


def measure(points: int, windows: int, soak: int, folder: Path, most: int = BYTES) -> dict[str, Any]:
    """All rows of one size.

    Args:
        points: of each of two axes.
        windows: read for each figure.
        soak: windows of the memory curve.
        folder: to write in.
        most: bytes of the data set.
    """
    frame = 4 * len(NAMES) * points**2
    frames = min(100, max(2 * LENGTH, most // (4 * frame)))
    count = max(1, most // (frames * frame))
    write(folder, points, frames, count)
    os.sync()  # pages that were not written yet cannot be dropped
    total = count * (frames - LENGTH + 1)
    rng = np.random.default_rng(1)
    found = sources(folder, points, frames)
    chosen = rng.integers(total, size=windows).tolist()
    batches = [chosen[at : at + BATCH] for at in range(0, windows, BATCH)]
    missed = cold(found, chosen[: max(3, windows // 4)])
    rows = []
    for source in found:
        row: dict[str, Any] = {"source": source.name, "points": points, "window_mb": LENGTH * frame / 1e6}
        row["read_mb"] = statistics.mean(sum(size for *_, size in source.ranges(i)) for i in chosen) / 1e6
        row["first_window_ms"] = 1e3 * seconds(partial(first, source))
        row["warm"] = warm(source, batches)
        row["cold"] = missed[source.name]
        row["memory"] = memory(source, soak if source.name.startswith("physml") else soak // 20, total)
        rows.append(row)
    return {"points": points, "frames": frames, "trajectories": count, "rows": rows}


def run(points: Sequence[int], windows: int, soak: int) -> dict[str, Any]:
    """All sizes."""
    torch.set_num_threads(1)  # as in a worker
    sizes = []
    for n in points:
        with TemporaryDirectory() as folder:
            more = windows * min(8, max(1, (256 // n) ** 2))  # small ones are read faster
            sizes.append(measure(n, more, soak, Path(folder), min(BYTES, 2 * more * 4 * len(NAMES) * n**2)))
    versions = {"h5py": h5py.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"cpu": _cpu(), "versions": versions, "sizes": sizes}


def _cpu() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def table(told: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        told["cpu"],
        f"{'source':18} {'grid':>5} {'first ms':>8} {'windows/s':>9} {'MB/s':>6} | {'open':>5} {'read':>5} "
        f"{'decode':>6} {'place':>5} {'collate':>7} | {'cold ms':>7} {'numpy':>6} {'part':>5} | {'RSS':>6}",
    ]
    for size in told["sizes"]:
        for row in size["rows"]:
            hot, missed = row["warm"], row["cold"]
            phases = " ".join(
                f"{hot[name]:{width}.2f}"
                for name, width in (("open", 5), ("read", 5), ("decode", 6), ("place", 5), ("collate", 7))
            )
            lines.append(
                f"{row['source']:18} {row['points']:>4}² {row['first_window_ms']:8.1f} {hot['windows_per_s']:9.0f} "
                f"{hot['windows_per_s'] * row['window_mb']:6.0f} | {phases} | {missed['ms']:7.2f} "
                f"{missed['numpy_read']:6.2f} {missed['of_numpy']:5.0%} | {row['memory']['spread']:6.2%}"
            )
    return "\n".join(lines)
