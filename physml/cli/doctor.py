"""``physml doctor``: what this machine has, what would fail on it, and the remedy for each.

Nothing is taken on trust that can be tried in a second: a store is written and read back, one of its chunks is damaged
to see that this is noticed, a figure is drawn, a file is written where data go.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

GIB = 2**30

ESSENTIAL = ("torch", "lightning", "zarr", "numcodecs", "xarray", "numpy")
OTHERS = ("h5py", "torch-geometric", "matplotlib", "jsonargparse")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        topic: its heading.
        name: what was looked at.
        found: what there is.
        fails: what would fail because of it; empty where nothing would.
        remedy: what to do.
        essential: whether nothing works without it.
    """

    topic: str
    name: str
    found: str
    fails: str = ""
    remedy: str = ""
    essential: bool = False


def doctor(arguments: argparse.Namespace) -> int:
    """Print the report; 1 where something essential is missing, 0 otherwise."""
    found = list(findings(full=arguments.full))
    broken = [item for item in found if item.fails]
    if arguments.json:
        print(json.dumps({"findings": [asdict(item) for item in found], "fails": len(broken)}, indent=2))
    else:
        print(render(found))
    return int(any(item.essential for item in broken))


def render(found: list[Finding]) -> str:
    """The report as text; it ends with what would fail."""
    text: list[str] = []
    width = max(len(item.name) for item in found)
    for topic in dict.fromkeys(item.topic for item in found):
        text += [topic, *(f"  {i.name:{width}}  {i.found}" for i in found if i.topic == topic), ""]
    broken = [item for item in found if item.fails]
    text.append("what would fail here" if broken else "nothing would fail here that was looked at")
    for item in broken:
        text += [f"  {'!' if item.essential else '-'} {item.fails}", f"      {item.remedy}"]
    return "\n".join(text)


def findings(*, full: bool = False) -> Iterator[Finding]:
    """All that is looked at; a check that fails in an unforeseen way is itself a finding."""
    checks: list[Callable[[], Iterator[Finding]]] = [_versions, _devices, _memory, _disk, _storage, _figures]
    if full:
        checks.append(_compile)
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.strip("_")
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield Finding(name, "check", told, f"the check of {name} stopped: {told}", "see what it names", False)


# ---------------------------------------------------------------------------------------------------------- versions


def _versions() -> Iterator[Finding]:
    topic = "versions"
    old = sys.version_info < (3, 11)
    yield Finding(
        topic, "python", f"{platform.python_version()} on {platform.platform(terse=True)}",
        "physml needs Python 3.11" if old else "", "make an environment with Python 3.11 or later", old,
    )  # fmt: skip
    ranges = _requirements()
    for name in ("physml", *ESSENTIAL, *OTHERS):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name == "physml":
                yield Finding(
                    topic, name, "not installed, run from its source",
                    "saving a checkpoint, which records the version of physml", "pip install -e . in the source folder",
                )  # fmt: skip
            else:
                missing = f"everything that imports {name}"
                yield Finding(topic, name, "missing", missing, f"pip install {name}", name in ESSENTIAL)
            continue
        wanted = ranges.get(name, "")
        if wanted and not _within(version, wanted):
            yield Finding(
                topic, name, f"{version} (wanted {wanted})",
                f"physml was not written for {name} {version}", f"pip install '{name}{wanted}'",
            )  # fmt: skip
        else:
            yield Finding(topic, name, version)


def _requirements() -> dict[str, str]:
    """The versions that the installed package asks for."""
    try:
        lines = metadata.requires("physml") or []
    except metadata.PackageNotFoundError:
        return {}
    plain = [line for line in lines if ";" not in line]
    return {
        re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(): re.sub(r"^[\w.-]+(\[.*?\])?", "", line).strip()
        for line in plain
    }


def _within(version: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet

        return SpecifierSet(wanted).contains(version, prereleases=True)
    except ImportError:
        return True


# ----------------------------------------------------------------------------------------------------------- devices


def _devices() -> Iterator[Finding]:
    topic = "devices"
    allowed, quota = _allowed_cores(), _cgroup_cores()
    try:
        torch = import_module("torch")
    except ImportError:
        yield Finding(topic, "cpu", f"{allowed} cores")
        return
    threads = torch.get_num_threads()
    cores = min(allowed, quota) if quota else allowed
    limited = f", limited to {quota:g} by the container" if quota and quota < allowed else ""
    yield Finding(
        topic, "cpu", f"{allowed} cores{limited}; torch uses {threads} threads",
        f"speed on the CPU: torch starts {threads} threads on {cores:g} cores" if threads > max(1, cores) else "",
        f"export OMP_NUM_THREADS={max(1, int(cores))}",
    )  # fmt: skip
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            bf16 = about.major >= 8
            yield Finding(
                topic, f"cuda:{index}",
                f"{about.name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, bf16 {'yes' if bf16 else 'no'}",
                "" if bf16 else f"trainer.precision: bf16-mixed on {about.name}, which computes it slowly",
                "set trainer.precision to 16-mixed or 32-true",
            )  # fmt: skip
            if free < 0.1 * total:
                yield Finding(
                    topic, f"cuda:{index} memory", "taken",
                    f"training on cuda:{index}: another process holds its memory",
                    "see nvidia-smi; choose another device with CUDA_VISIBLE_DEVICES",
                )  # fmt: skip
    else:
        driver = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
        built = torch.version.cuda
        yield Finding(
            topic, "cuda", f"no device; torch is built {f'for CUDA {built}' if built else 'without CUDA'}",
            "training on the GPU of this machine, which torch does not see" if driver else "",
            "renew the driver, or install a torch for it" if built else "install a torch that is built for CUDA",
        )  # fmt: skip
    mps = getattr(torch.backends, "mps", None)
    if mps is not None and mps.is_available():
        yield Finding(topic, "mps", "Apple GPU; no float64")


def _allowed_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))  # what a batch system grants
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _cgroup_cores() -> float | None:
    """Cores that a container may use."""
    granted = None
    for folder in _cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                granted = min(granted or float("inf"), int(quota) / int(period))
        except (OSError, ValueError):
            pass
    return granted


def _cgroups() -> Iterator[Path]:
    """Folders of the control groups of this process, its own first."""
    root = Path("/sys/fs/cgroup")
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "0::/"
    folder = root / own[3:].strip("/")
    yield folder
    while folder != root and root in folder.parents:
        folder = folder.parent
        yield folder


# ------------------------------------------------------------------------------------------------------------ memory


def _memory() -> Iterator[Finding]:
    topic = "memory"
    total, available = _machine_memory()
    limit, used = _cgroup_memory()
    text = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available" if available else f"{total / GIB:.1f} GiB"
    room = available or total
    if limit is not None and limit < total:
        room = min(room, max(0, limit - used))
        text += f"; the container may use {limit / GIB:.1f} GiB, {used / GIB:.1f} GiB are in use"
    yield Finding(
        topic, "main memory", text,
        "anything but the smallest runs: less than 2 GiB of memory are left" if room < 2 * GIB else "",
        "end other programs, or raise the limit of the container or the job",
    )  # fmt: skip
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).free
        yield Finding(
            topic, "shared memory", f"{size / GIB:.2f} GiB free",
            "data.init_args.workers > 0: batches pass through shared memory" if size < GIB // 2 else "",
            "docker run --shm-size 8g (or --ipc host), or data.init_args.workers: 0",
        )  # fmt: skip
    try:
        resource: Any = import_module("resource")
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except ImportError:
        return
    few = 0 <= files < 1024
    yield Finding(
        topic, "open files", "unlimited" if files < 0 or files > 2**40 else f"at most {files}",
        "stores of many chunks read by several processes: too many open files" if few else "", "ulimit -n 4096",
    )  # fmt: skip


def _machine_memory() -> tuple[int, int]:
    """Bytes in all, and available; 0 where that is not known."""
    try:
        rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, available = (int(rows[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return total, available
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 0


def _cgroup_memory() -> tuple[int | None, int]:
    """The tightest limit of a container and what it uses of it."""
    limit, used = None, 0
    places = [(folder / "memory.max", folder / "memory.current") for folder in _cgroups()]
    old = Path("/sys/fs/cgroup/memory")
    places.append((old / "memory.limit_in_bytes", old / "memory.usage_in_bytes"))
    for most, now in places:
        try:
            found = int(most.read_text())  # "max" where there is none
            if limit is None or found < limit:
                limit, used = found, int(now.read_text())
        except (OSError, ValueError):
            continue
    return limit, used


# -------------------------------------------------------------------------------------------------------------- disk


def _disk() -> Iterator[Finding]:
    topic = "disk"
    root = Path(os.environ.get("PHYSML_DATA") or "data")
    named = "PHYSML_DATA" if os.environ.get("PHYSML_DATA") else "data folder"
    if root.is_dir():
        stores = _stores(root)
        names = ", ".join(stores[:4]) + (f" and {len(stores) - 4} more" if len(stores) > 4 else "")
        yield Finding(topic, named, f"{root}: {names or 'no stores'}")
    else:
        told = f"every relative path of data: PHYSML_DATA names {root}, which is no folder" if named[0] == "P" else ""
        yield Finding(
            topic, named, f"{root}: not there", told, f"mkdir -p {root}, or set PHYSML_DATA to the folder with the data"
        )
    for name, folder in ((f"{named} space", root), ("current folder", Path())):
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
        usage = shutil.disk_usage(there)
        problem = ""
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(4096))
        except OSError as error:
            problem = f"writing below {there}: {error.strerror}"
        tight = usage.free < 5 * GIB
        text = (
            f"{usage.free / GIB:.0f} of {usage.total / GIB:.0f} GiB free, {'not writable' if problem else 'writable'}"
        )
        if tight and not problem:
            problem = f"larger data sets and checkpoints: {usage.free / GIB:.1f} GiB are left at {there}"
        yield Finding(
            topic, name, text, problem, "write elsewhere (--out, PHYSML_DATA, trainer.default_root_dir) or make room"
        )


def _stores(root: Path) -> list[str]:
    """Stores at most two folders down, so that looking is quick."""
    found = (path.relative_to(root) for depth in ("*.zarr", "*/*.zarr", "*/*/*.zarr") for path in root.glob(depth))
    return sorted(map(str, found))


# ----------------------------------------------------------------------------------------------------------- storage


def _storage() -> Iterator[Finding]:
    topic = "storage"
    hint = "pip install --upgrade 'zarr>=3' numcodecs google-crc32c"
    try:
        zarr, numpy = import_module("zarr"), import_module("numpy")
        codecs = import_module("zarr.codecs")
        with tempfile.TemporaryDirectory() as folder:
            values = numpy.linspace(0, 1, 4096, dtype="float32").reshape(64, 64)
            array = zarr.create_array(
                folder, shape=values.shape, chunks=(32, 64), dtype=values.dtype, fill_value=float("nan"),
                overwrite=True,
                compressors=[codecs.BloscCodec(cname="zstd"), codecs.Crc32cCodec()],
            )  # fmt: skip
            array[:] = values
            same = bool((zarr.open_array(folder, mode="r")[:] == values).all())
            noticed = _damage_is_noticed(zarr, Path(folder))
    except Exception as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        yield Finding(topic, "zarr v3, blosc + crc32c", told, "reading and writing stores", hint, True)
        return
    yield Finding(
        topic, "zarr v3, blosc + crc32c", "written and read back" if same else "read back changed",
        "" if same else "reading and writing stores: numbers come back changed", hint, not same,
    )  # fmt: skip
    yield Finding(
        topic, "a damaged chunk", "is noticed" if noticed else "is not noticed",
        "" if noticed else "finding damaged data: a flipped byte in a chunk is read without an error", hint,
    )  # fmt: skip


def _damage_is_noticed(zarr: Any, folder: Path) -> bool:
    chunk = next(path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "zarr.json")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(bytes(content))
    try:
        zarr.open_array(folder, mode="r")[:]
    except Exception:
        return True
    return False


# ----------------------------------------------------------------------------------------------------------- figures


def _figures() -> Iterator[Finding]:
    topic = "figures"
    try:
        canvas = import_module("matplotlib.backends.backend_agg").FigureCanvasAgg
        figure = import_module("matplotlib.figure").Figure(figsize=(1, 1))
        figure.add_subplot().plot([0, 1])
        with tempfile.TemporaryFile() as file:
            canvas(figure).print_png(file)
            drawn = file.tell() > 0
    except ImportError as error:
        yield Finding(topic, "matplotlib", "missing", f"physml plot: {error}", "pip install matplotlib")
        return
    backend = os.environ.get("MPLBACKEND", "chosen by matplotlib")
    screen = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    text = "draws to files" if drawn else "draws nothing"
    yield Finding(
        topic, "matplotlib", f"{text}; backend {backend}; {'a screen' if screen else 'no screen, none needed'}"
    )
    if not screen and backend.lower() in ("tkagg", "qtagg", "qt5agg", "gtk3agg", "gtk4agg", "wxagg", "macosx"):
        yield Finding(
            topic,
            "MPLBACKEND",
            backend,
            f"figures in notebooks and scripts: {backend} needs a screen",
            "unset MPLBACKEND",
        )
    encoder = shutil.which("ffmpeg")
    yield Finding(
        topic, "ffmpeg", encoder or "missing", "" if encoder else "physml plot animation --out X.mp4",
        "install ffmpeg, or write X.gif",
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- compile

_PROGRAM = """
import torch
device = "cuda" if torch.cuda.is_available() else "cpu"
print(float(torch.compile(lambda x: (2 * x + 1).sum())(torch.ones(64, device=device))))
"""


def _compile() -> Iterator[Finding]:
    topic = "torch.compile"
    named = os.environ.get("CXX", "")
    compiler = shutil.which(named) if named else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    remedy = "model.compile: false, or a C++ compiler: apt-get install g++, conda install gxx, xcode-select --install"
    yield Finding(
        topic, "C++ compiler", compiler or "missing", "" if compiler else "model.compile: true on the CPU", remedy
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=180, check=False
        )
        works = done.returncode == 0 and done.stdout.strip() == "192.0"
        said = [
            line for line in done.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception|Failed|Compiler): ", line)
        ]
        last = (said or done.stderr.splitlines() or ["no output"])[-1][:160]
    except subprocess.TimeoutExpired:
        works, last = False, "took longer than three minutes"
    yield Finding(
        topic, "a function", "compiled and ran" if works else last,
        "" if works else f"model.compile: true ({last})", "model.compile: false" if compiler else remedy,
    )  # fmt: skip
