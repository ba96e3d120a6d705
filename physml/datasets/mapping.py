"""The mapping file ``NAME.physml.yaml``: what the arrays of somebody else's files mean, in words.

It is read by two adapters, :mod:`physml.datasets.arrays` for arrays without labels and :mod:`physml.datasets.labelled`
for netCDF and zarr. What both need is here: reading the file key by key, axes from points, the frame interval from
times, splits, and a fingerprint of what is read.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from physml.datasets.places import data_root
from physml.datasets.trajectories import Segment, Trajectories
from physml.fields import Axis, Boundary

SUFFIX = ".physml.yaml"
LEAST_FOR_TIME = 20
"""Frames from which on a set without a split of its own is split in time."""
_NEEDED: Any = object()
_BLOCK = 32  # frames hashed at once
_MOST = 100_000  # values of a mapping file; anchors of anchors make billions of a few lines


class Section:
    """A part of a mapping file, asked key by key; every error names the file, the key, what was got and expected.

    Args:
        path: of the mapping file.
        key: of this part, with dots; empty for the whole file.
        values: the part.

    Raises:
        ValueError: where it is not a mapping with text keys.
    """

    def __init__(self, path: Path, key: str, values: Any) -> None:
        self.path, self.key, self._asked = path, key, set[str]()
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise ValueError(f"{path}: {key or 'the file'} is {_short(values)}; expected keys with values.")
        self.values: dict[str, Any] = values

    def at(self, name: str) -> str:
        """The dotted key of ``name``."""
        return f"{self.key}.{name}" if self.key else name

    def wrong(self, name: str, expected: str) -> ValueError:
        """The error for a key whose value is not what it should be, or is missing."""
        got = f"got {_short(self.values[name])}" if name in self.values else "is missing"
        others = [key for key in self.values if key not in self._asked]
        if name not in self.values and (near := difflib.get_close_matches(name, others, 1)):
            got += f", but there is {near[0]!r}, which is no key"
        return ValueError(f"{self.path}: {self.at(name)}: {got}; expected {expected}.")

    def take(self, name: str, default: Any = _NEEDED, expected: str = "a value") -> Any:
        self._asked.add(name)
        if self.values.get(name) is None:
            if default is _NEEDED:
                raise self.wrong(name, expected)
            return default
        return self.values[name]

    def text(self, name: str, default: Any = _NEEDED) -> Any:
        value = self.take(name, default, "text")
        if value is not default and not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def number(self, name: str, default: Any = _NEEDED, expected: str = "a number", positive: bool = False) -> Any:
        value = self.take(name, default, expected)
        if value is default:
            return value
        number = number_of(value)
        if number is None or (positive and number <= 0):
            raise self.wrong(name, expected)
        return number

    def whole(self, name: str, default: Any = _NEEDED) -> Any:
        value = self.take(name, default, "a whole number, 0 or more")
        if value is not default and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise self.wrong(name, "a whole number, 0 or more")
        return value

    def flag(self, name: str, default: Any = _NEEDED) -> Any:
        value = self.take(name, default, "true or false")
        if value is not default and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def choice(self, name: str, known: Sequence[str], default: Any = _NEEDED) -> Any:
        value = self.take(name, default, f"one of {', '.join(known)}")
        if value is not default and value not in known:
            raise self.wrong(name, f"one of {', '.join(known)}")
        return value

    def numbers(self, name: str) -> list[float] | None:
        """A number or a list of them; ``None`` where the value is something else."""
        value = self.take(name)
        found = [number_of(item) for item in (value if isinstance(value, list) else [value])]
        return None if any(item is None for item in found) else [float(item) for item in found if item is not None]

    def section(self, name: str, default: Any = _NEEDED) -> Section:
        return Section(self.path, self.at(name), self.take(name, default, "keys with values"))

    def files(self, name: str = "file") -> tuple[Path, ...]:
        """One file, a pattern such as ``run_*.npy`` (in order of names), or a list; none where the key is missing.

        Relative names are looked up beside the mapping file first, then in :func:`~physml.datasets.places.data_root`,
        so that a mapping file may be kept apart from the data.

        Raises:
            FileNotFoundError: naming both places.
            ValueError: where the value is no file name.
        """
        value = self.take(name, default=())
        if not isinstance(value, (str, list, tuple)) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a file name, a pattern or a list of file names, relative to the mapping file")
        found: list[Path] = []
        for item in [value] if isinstance(value, str) else value:
            places = list(dict.fromkeys((self.path.parent / item, data_root() / item)))
            matches = next((match for place in places if (match := _matching(place))), ())
            if not matches:
                raise FileNotFoundError(
                    f"{self.path}: {self.at(name)}: there is no file {', nor '.join(map(str, places))}."
                )
            found += matches
        return tuple(found)

    def finish(self) -> None:
        """Refuse keys that nobody asked for: they are misspelt, or belong elsewhere."""
        unknown = [name for name in self.values if name not in self._asked]
        if unknown:
            raise ValueError(
                f"{self.path}: {self.at(unknown[0])}: unknown key; {self.key or 'the file'} takes "
                f"{', '.join(sorted(self._asked))}."
            )


def _matching(place: Path) -> tuple[Path, ...]:
    """The files that a path or a pattern names; none where there are none."""
    if "*" in place.name:
        return tuple(sorted(place.parent.glob(place.name)))
    return (place,) if place.exists() else ()


def number_of(value: Any) -> float | None:
    """A finite number, or ``None``."""
    if isinstance(value, str):  # YAML 1.1 takes 1e-3, without a point, for text
        try:
            value = float(value)
        except ValueError:
            return None
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if good else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def read_mapping(path: Path, data: Path | None = None) -> Section:
    """The whole file.

    Args:
        path: of the mapping file.
        data: in place of what the key ``file`` names.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is not YAML with keys.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path}: not a YAML file ({' '.join(str(problem).split())[:120]}).") from None
    if _size(values, {}) > _MOST:
        raise ValueError(f"{path}: holds itself, or more than {_MOST} values by its anchors; write them out.")
    whole = Section(path, "", values)
    if data is not None:
        whole.values["file"] = str(data.absolute())
    return whole


def _size(value: Any, known: dict[int, float]) -> float:
    """How many values there are, those of an anchor at each of its places; infinite where one is inside of itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known) for item in inside)
    return known[id(value)]


def placed(
    where: str,
    name: str,
    points: np.ndarray,
    boundary: Boundary,
    *,
    units: str = "",
    length: float | None = None,
    repeated: bool = False,
) -> tuple[Axis, slice]:
    """An axis from its points in the order of the file, and which stored points it keeps, in which order.

    Args:
        where: file and key, for messages.
        name: of the axis.
        points: ``(n,)``; a falling sequence is turned round.
        boundary: at both ends.
        length: of the axis; the spacing times ``n`` of a periodic axis, the extent of the points otherwise.
        repeated: whether the last point is the first one a period on; it is dropped.

    Raises:
        ValueError: where the points neither rise nor fall, naming the place, or the length cannot be told.
    """
    points = np.asarray(points, np.float64)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"{where}: coordinates of {name} are {_short(points.tolist())}; expected finite numbers.")
    falling = len(points) > 1 and points[-1] < points[0]
    points = points[::-1] if falling else points
    steps = np.diff(points)
    if (steps <= 0).any():
        k = int((steps <= 0).argmax())
        # the places of the file, which runs the other way where it falls
        i, j = (len(points) - 1 - k, len(points) - 2 - k) if falling else (k, k + 1)
        raise ValueError(
            f"{where}: coordinates of {name} are out of order: point {i} is at {points[k]:g} and point {j} at "
            f"{points[k + 1]:g}; sort them with their values and drop repeated ones."
        )
    keep = slice(None, None, -1) if falling else slice(None)
    if repeated:
        if boundary is not Boundary.PERIODIC or len(points) < 3:
            raise ValueError(f"{where}: repeated is for a periodic axis of three points and more; {name} is not one.")
        length = float(points[-1] - points[0]) if length is None else length
        points, keep = points[:-1], (slice(None, 0, -1) if falling else slice(None, -1))
    if length is None:
        length = float(points[-1] - points[0]) or 1.0
        if boundary is Boundary.PERIODIC:
            spacing = length / max(1, len(points) - 1)
            # single-precision coordinates of n points are good to about n 6e-8 of a spacing
            if len(points) < 2 or np.abs(steps[: len(points) - 1] - spacing).max() > 1e-2 * spacing:
                raise ValueError(f"{where}: give the length (the period) of {name}; its points are not evenly spaced.")
            length = spacing * len(points)
    try:
        return Axis(name, torch.from_numpy(points.copy()), boundary, length, units), keep
    except ValueError as problem:
        raise ValueError(f"{where}: {problem}") from None


def interval(where: str, times: np.ndarray) -> float:
    """The time between two frames, from the times of all.

    Raises:
        ValueError: naming the place where times are not finite, repeat, fall or are unevenly spaced.
    """
    if times.dtype.kind not in "iuf":
        raise ValueError(f"{where}: times are {times.dtype}; expected numbers.")
    exact = times.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(f"{where}: the time of frame {int((~np.isfinite(exact)).argmax())} is not finite.")
    if len(exact) == 1:
        return 1.0
    steps = np.diff(exact)
    if (steps <= 0).any():
        k = int((steps <= 0).argmax())
        kind = "repeats" if steps[k] == 0 else "is out of order"
        raise ValueError(
            f"{where}: time {kind}: frame {k} is at {exact[k]:g} and frame {k + 1} at {exact[k + 1]:g}; sort the "
            "frames and drop repeated ones."
        )
    usual = float(np.median(steps))
    blur = 4 * np.finfo(times.dtype).eps * np.abs(exact).max() if times.dtype.kind == "f" else 0.0  # of stored times
    off = np.abs(steps - usual)
    if off.max() > 1e-2 * usual + min(blur, 0.4 * usual):
        k = int(off.argmax())
        raise ValueError(
            f"{where}: time is unevenly spaced: from frame {k} to frame {k + 1} it is {steps[k]:g}, elsewhere "
            f"{usual:g}; leave frames out, interpolate, or split the record where it jumps."
        )
    mean = float(exact[-1] - exact[0]) / len(steps)
    return float(np.format_float_positional(mean, precision=7, fractional=False))


def split(section: Section | None, count: int, frames: int) -> dict[str, tuple[Segment, ...]]:
    """Segments of each split.

    Without a section: trajectories in their order, the last two tenths (at least one each) for validation and testing,
    where there are three trajectories or more; otherwise the frames of each in the same parts, with gaps of a twentieth
    between them, where there are at least ``LEAST_FOR_TIME``; otherwise all is for training.

    Args:
        section: with ``along`` (``trajectory`` or ``time``); ``gap``, frames left out between two splits in time; and
            each split by name, all as fractions, which follow each other in the order of the file, or all as
            ``[start, stop]``, ``stop`` excluded.

    Raises:
        ValueError: where they overlap, leave the data or are empty, or ``train`` is missing.
    """
    if section is None:
        if count >= 3:
            held = max(1, round(0.1 * count))
            ends = [0, count - 2 * held, count - held, count]
            spans = {name: (ends[i], ends[i + 1]) for i, name in enumerate(("train", "validation", "test"))}
            return _segments("trajectory", spans, count, frames)
        if frames < LEAST_FOR_TIME:
            return _segments("trajectory", {"train": (0, count)}, count, frames)
        shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
        return _segments("time", _in_turn(shares, frames, max(1, frames // 20)), count, frames)
    along = section.choice("along", ("trajectory", "time"))
    total = count if along == "trajectory" else frames
    gap = section.whole("gap", None)
    names = [name for name in section.values if name not in ("along", "gap")]
    expected = f"a fraction above 0 and up to 1, or [start, stop] within 0 to {total} ({along}); the same for all"
    shares, spans = {}, {}
    for name in names:
        value = section.take(name, expected=expected)
        share = number_of(value)
        if share is not None and 0 < share <= 1:
            shares[name] = share
        elif isinstance(value, list) and len(value) == 2 and all(type(item) is int for item in value):
            spans[name] = (value[0], value[1])
            if not 0 <= value[0] < value[1] <= total:
                raise section.wrong(name, expected)
        else:
            raise section.wrong(name, expected)
        if shares and spans:
            raise section.wrong(name, expected)
    if "train" not in names:
        raise section.wrong("train", expected)
    if gap is not None and (along != "time" or spans):
        raise section.wrong("gap", "no gap but where splits are fractions along time; leave it out")
    if shares:
        if sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"{section.path}: {section.key}: fractions sum to {sum(shares.values()):g}, at most 1.")
        spans = _in_turn(shares, total, gap or 0)
        for name, (start, stop) in spans.items():
            if stop <= start:
                raise ValueError(
                    f"{section.path}: {section.at(name)}: {shares[name]:g} of {total} ({along}) with gaps of "
                    f"{gap or 0} leaves none; give [start, stop] for each split."
                )
    ordered = sorted(spans.items(), key=lambda item: item[1])
    for (one, (_, stop)), (other, (start, _)) in pairwise(ordered):
        if start < stop:
            raise ValueError(f"{section.path}: {section.key}: {one} and {other} overlap; splits must be apart.")
    return _segments(along, spans, count, frames)


def _in_turn(shares: dict[str, float], total: int, gap: int) -> dict[str, tuple[int, int]]:
    """Fractions one after the other, with gaps between them."""
    room = max(0, total - gap * (len(shares) - 1))
    ends = np.round(np.cumsum([0.0, *shares.values()]) * room).astype(int)
    return {name: (int(ends[i]) + gap * i, int(ends[i + 1]) + gap * i) for i, name in enumerate(shares)}


def _segments(along: str, spans: dict[str, tuple[int, int]], count: int, frames: int) -> dict[str, tuple[Segment, ...]]:
    if along == "trajectory":
        return {name: tuple(Segment(row, 0, frames) for row in range(*span)) for name, span in spans.items()}
    return {name: tuple(Segment(row, *span) for row in range(count)) for name, span in spans.items()}


def parts(counts: Sequence[int], wanted: slice) -> Iterator[tuple[int, slice]]:
    """Where the wanted positions lie in files that follow each other: number of the file, positions inside it."""
    first, step = 0, wanted.step or 1
    for index, n in enumerate(counts):
        begin = wanted.start + max(0, -(-(first - wanted.start) // step)) * step
        stop = min(wanted.stop, first + n)
        if begin < stop:
            yield index, slice(begin - first, stop - first, step)
        first += n


def fingerprint(data: Trajectories, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """Changes when layout, splits, parameters or any value that is read change, whatever the format of the files.

    Args:
        data: what is read, all of it.
        progress: called with frames done and to do.
    """
    rows = {name: [(s.trajectory, s.start, s.stop) for s in found] for name, found in data.segments.items()}
    numbers = {name: np.asarray(values).tolist() for name, values in data.parameters.items()}
    digest = hashlib.sha256(json.dumps([data.layout.to_plain(), rows, numbers], sort_keys=True).encode())
    for row in range(data.count):
        for start in range(0, data.frames, _BLOCK):
            stop = min(start + _BLOCK, data.frames)
            digest.update(np.ascontiguousarray(data.read(row, start, stop)).tobytes())
            progress(row * data.frames + stop, data.count * data.frames)
        digest.update(np.ascontiguousarray(data.read_static(row)).tobytes())
    return digest.hexdigest()[:16]
