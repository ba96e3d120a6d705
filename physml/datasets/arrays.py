"""Plain arrays in ``.npy``, ``.npz``, ``.mat``, ``.pt`` and HDF5 files, with a mapping file that says what they mean.

Such files hold numbers and no meaning. A file ``NAME.physml.yaml`` beside them gives it, and is what one opens:

.. code-block:: yaml

    file: KS.mat                       # relative to this file; a pattern (run_*.npy) or a list is put together
    fields:
      u: {array: uu, units: m/s}       # also: file, dimensions, channel (which entry of the dimension channel)
    dimensions: [x, time]              # words for the dimensions, in the order of the file; any order
    axes:
      x: {array: x, boundary: periodic, repeated: true}   # or start, stop, endpoint; also: length, units
    time: {array: tt, units: s}        # or dt
    split: {along: time, gap: 5, train: 0.8, validation: 0.1, test: 0.1}

======================  ===================================================================================
key                     what
======================  ===================================================================================
``name``                of the data set; that of the file, if not given
``file``                where arrays are looked up that name no file of their own; beside the mapping file, or
                        below ``PHYSML_DATA``
``along``               how several files go together: along ``trajectory`` (default) or ``time``
``dimensions``          words: ``trajectory``, ``time``, ``channel`` and the names of the axes; one that is missing
                        has length one
``fields``              by name, in the order of channels; ``array`` is that name if not given, and ``""`` the only
                        one of its file; ``faces: x`` where values lie on the faces of cells across an axis
                        (staggered grids): the mean of both faces is read
``static``              fields that do not change in time; their dimensions are those of the file without ``time``
``parameters``          by name: a number, a list with one for each trajectory, or an array
``axes``                by name, in the order in which the layout has them
``mask``                an array over the axes; ``marks: fluid`` or ``marks: solid`` says what is not zero in it
``time``, ``split``     see above, and :func:`physml.datasets.mapping.split`
``provenance``          how the data came to be: any keys with plain values, which nothing here reads; ``mapping``
                        and ``source``, the names of the files, unless these are given
======================  ===================================================================================

What is read when: ``.npy`` and ``.pt`` are mapped into memory; HDF5, MATLAB's version 7.3 too, is read by windows.
An array of ``.npz`` and of older ``.mat`` is read whole when first needed and kept in memory, once in every process.
Dimensions of MATLAB files are given in MATLAB's order, also where version 7.3 stores them reversed; a row or a column
may be given one word.

Nothing is unpickled: object arrays, cells and structures are refused. All numbers become single precision.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from physml.datasets import mapping
from physml.datasets.array_files import BROKEN, Stored, brief, open_array
from physml.datasets.mapping import SUFFIX, Section
from physml.datasets.plain import plain
from physml.datasets.storage import Chunks, Storage
from physml.datasets.trajectories import Statistics, Trajectories
from physml.fields import Axis, Boundary, Field, Grid, Layout

_LEAD = ("trajectory", "time", "channel")
_OPEN = 64  # files held open at once


@dataclass(frozen=True)
class _Source:
    """Where an array is and what its dimensions are.

    Args:
        key: of the mapping file, for messages.
        files: one, or several that are put together.
        array: name inside the file; empty where it is the only one.
        words: for its dimensions.
        channel: which entry of the dimension ``channel``.
        faces: axis whose cells have the values on their faces; empty for values at the points.
    """

    key: str
    files: tuple[Path, ...]
    array: str
    words: tuple[str, ...]
    channel: int = 0
    faces: str = ""


class Arrays(Trajectories):
    """Plain arrays, opened by their mapping file; safe to hand to worker processes (each opens the files itself).

    Statistics and fingerprint read all that is needed once, when they are first asked for.

    Args:
        path: the mapping file.
        data: the arrays, in place of what the mapping file names.

    Raises:
        ValueError: where a key is wrong, arrays do not fit together, or a file is damaged; it names the key and says
            what was got and expected.
        FileNotFoundError: where a file is missing.
    """

    def __init__(self, path: str | Path, *, data: Path | None = None) -> None:
        self.path = str(path)
        self._file, self._process = Path(path), os.getpid()
        self._arrays: OrderedDict[tuple[Path, str], Any] = OrderedDict()
        whole = mapping.read_mapping(self._file, data)
        self.name = whole.text("name", self._file.name.removesuffix(SUFFIX))
        self._along = whole.choice("along", ("trajectory", "time"), "trajectory")
        self._shared = whole.files()
        axes = whole.section("axes", {})
        self._names = tuple(axes.values)
        if not self._names:
            raise whole.wrong("axes", "at least one axis of space")
        taken = sorted(set(self._names) & set(_LEAD))
        if taken:
            raise ValueError(f"{path}: axes.{taken[0]}: {taken[0]} is no axis of space; give it another name.")
        self._periodic = {name for name in self._names if axes.section(name).values.get("boundary") == "periodic"}
        self._words = self._dimensions(whole, None)
        self._sizes: dict[str, tuple[int, str]] = {}
        self._counts: list[int] = []
        fields = self._entries(whole, "fields", self._words)
        if not fields:
            raise whole.wrong("fields", "at least one field")
        unchanging = None if self._words is None else tuple(word for word in self._words if word != "time")
        static = self._entries(whole, "static", unchanging)
        self._fields, self._static = ([source for _, source in part] for part in (fields, static))
        for source in self._fields:
            self._measure(source)
        for source in self._static:
            if "time" in source.words:
                raise ValueError(f"{path}: {source.key}.dimensions: has time; what changes in time belongs to fields.")
            self._measure(source, counts=False)
        self.count, self.frames = (self._sizes.get(word, (1, ""))[0] for word in ("trajectory", "time"))
        self._keep: tuple[slice, ...] = tuple(slice(None) for _ in self._names)
        grid = self._grid(axes)
        axes.finish()
        self._fluid: np.ndarray | None = None
        mask = self._mask(whole)
        self._fluid = None if mask is None else mask.numpy()
        dt, time_units = self._time(whole)
        self.layout = Layout(
            tuple(field for field, _ in fields), replace(grid, mask=mask), dt, time_units, tuple(f for f, _ in static)
        )
        self.parameters = self._parameters(whole)
        parted = whole.section("split", None) if whole.take("split", None) is not None else None
        self.segments = mapping.split(parted, self.count, self.frames)
        told = plain(whole.section("provenance", {}).values, f"{path}: provenance")
        whole.finish()
        files = dict.fromkeys(file.name for source in (*self._fields, *self._static) for file in source.files)
        self.provenance = {"mapping": self._file.name, "source": list(files), **told}

    # The mapping file

    def _dimensions(self, section: Section, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = (*_LEAD, *self._names)
        expected = f"a list of different words out of {', '.join(known)} (trajectory, time, channel and the axes)"
        words = section.take("dimensions", default, expected)
        if words is default:
            return default
        if not isinstance(words, list) or len(set(map(str, words))) < len(words) or not {*map(str, words)} <= {*known}:
            raise section.wrong("dimensions", expected)
        return tuple(words)

    def _source(self, section: Section, default: tuple[str, ...] | None, name: str = "") -> _Source:
        array = section.text("array", name)
        files = section.files() or self._shared
        if not files:
            raise section.wrong("file", "a file name here, or a file for all at the top")
        words = self._dimensions(section, default)
        if words is None:
            raise section.wrong("dimensions", "a list of words here, or a list for all at the top")
        channel = section.whole("channel", None)
        if channel is not None and "channel" not in words:
            raise section.wrong("channel", f"none, for the dimensions are {', '.join(words)}")
        source = _Source(section.key, files, array, words, channel or 0)
        if "channel" in words and name:
            size = self._shape(source, files[0])[words.index("channel")]
            if (channel is None and size > 1) or source.channel >= size:
                raise section.wrong("channel", f"a number below {size}, the length of the dimension channel")
        return source

    def _entries(self, whole: Section, part: str, default: tuple[str, ...] | None) -> list[tuple[Field, _Source]]:
        found = []
        entries = whole.section(part, {})
        for name in entries.values:
            value = entries.take(name, {}, "an array name, or keys")
            section = Section(self._file, entries.at(name), {"array": value} if isinstance(value, str) else value)
            units = section.text("units", "")
            source = self._source(section, default, name)
            faces = section.choice("faces", [word for word in source.words if word in self._names], "")
            found.append((Field(name, units), replace(source, faces=faces)))
            section.finish()
        return found

    def _measure(self, source: _Source, counts: bool = True) -> None:
        """Hold the sizes of an array against those of the others."""
        shapes = [dict(zip(source.words, self._shape(source, file), strict=True)) for file in source.files]
        for file, shape in zip(source.files, shapes, strict=True):
            for word, size in shape.items():
                if word not in (self._along, "channel") and size != shapes[0][word]:
                    raise ValueError(
                        f"{self.path}: {source.key}: {file.name} has {size} along {word}, {source.files[0].name} has "
                        f"{shapes[0][word]}; files go together along {self._along} only."
                    )
        here = [shape.get(self._along, 1) for shape in shapes]
        if counts:
            self._counts = self._counts or here
            if here != self._counts:
                raise ValueError(
                    f"{self.path}: {source.key}: its files hold {here} along {self._along}, those of "
                    f"{self._fields[0].key} {self._counts}; expected the same."
                )
        if not counts and len(here) > 1 and len(here) != len(self._counts):
            raise ValueError(
                f"{self.path}: {source.key}: has {len(here)} files, {self._fields[0].key} has {len(self._counts)}; "
                "expected one, or as many."
            )
        sizes = {word: size for word, size in shapes[0].items() if word != "channel"}
        if source.faces and source.faces not in self._periodic:  # a row of cells has one face more
            sizes[source.faces] -= 1
            if not sizes[source.faces]:
                raise ValueError(f"{self.path}: {source.key}.faces: got one face along {source.faces}, expected two.")
        if counts or self._along in sizes:
            sizes[self._along] = sum(here)
        if counts:  # a word that is missing has length one
            sizes = {word: sizes.get(word, 1) for word in ("trajectory", "time", *self._names)}
        else:
            sizes |= {name: 1 for name in self._names if name not in sizes}
            if sizes.get("trajectory") == 1:
                del sizes["trajectory"]  # the same for all
        for word, size in sizes.items():
            other, key = self._sizes.setdefault(word, (size, source.key))
            if size != other:
                raise ValueError(
                    f"{self.path}: {source.key}: has {size} along {word}, {key} has {other}; expected the same."
                )

    def _grid(self, axes: Section) -> Grid:
        made: list[Axis] = []
        keep: list[slice] = []
        for name in self._names:
            section = axes.section(name)
            n = self._sizes[name][0]
            boundary = Boundary(section.choice("boundary", [str(kind) for kind in Boundary]))
            repeated = section.flag("repeated", False)
            length = section.number("length", None, "a number above 0", positive=True)
            if "array" in section.values:
                points = self._vector(section, (name,))
                if len(points) != n:
                    raise section.wrong(
                        "array", f"{n} coordinates, as {self._sizes[name][1]} has; it holds {len(points)}"
                    )
            else:
                start, stop = (section.number(key, expected="a number, or an array") for key in ("start", "stop"))
                endpoint = section.flag("endpoint")
                if boundary is Boundary.PERIODIC and endpoint != repeated:
                    raise section.wrong(
                        "endpoint",
                        "true with repeated: true, where the last point is the first one a period on, and false "
                        "without, for a periodic axis",
                    )
                points = np.linspace(start, stop, n, endpoint=endpoint)
                length = abs(stop - start) if length is None else length
            axis, kept = mapping.placed(
                f"{self.path}: {section.key}",
                name,
                points,
                boundary,
                units=section.text("units", ""),
                length=length,
                repeated=repeated,
            )
            if repeated:
                self._check_repeated(section, name)
            section.finish()
            made.append(axis)
            keep.append(kept)
        self._keep = tuple(keep)
        return Grid(tuple(made))

    def _check_repeated(self, section: Section, name: str) -> None:
        first = np.concatenate([self._take(source, 0, slice(0, 1)) for source in self._fields], axis=-1)
        ends = first.take([0, -1], axis=1 + self._names.index(name))
        apart = np.abs(np.diff(ends, axis=1 + self._names.index(name))).max()
        span = float(first.max() - first.min())
        if apart > 1e-3 * span:
            raise section.wrong(
                "repeated",
                f"last values equal to the first; in the first frame they differ by up to {apart:.3g}, the range of "
                f"values is {span:.3g}",
            )

    def _mask(self, whole: Section) -> Tensor | None:
        if whole.take("mask", None) is None:
            return None
        section = whole.section("mask")
        inside = None if self._words is None else tuple(word for word in self._words if word in self._names)
        source = self._source(section, inside)
        marks = section.choice("marks", ("fluid", "solid"))
        section.finish()
        values = self._take(source, 0, slice(0, 1))[0, ..., 0]
        expected = tuple(self._sizes[name][0] for name in self._names)
        if values.shape != expected:
            raise section.wrong("array", f"a mask of shape {expected}; it has {values.shape}")
        values = values[self._keep] != 0
        return torch.from_numpy(np.ascontiguousarray(values if marks == "fluid" else ~values))

    def _time(self, whole: Section) -> tuple[float, str]:
        if whole.take("time", None) is None:
            if self.frames > 1:
                raise whole.wrong("time", f"dt or an array of times, for there are {self.frames} frames")
            return 1.0, ""
        section = whole.section("time")
        units = section.text("units", "")
        if "array" in section.values:
            times = self._vector(section, ("time",))
            if len(times) != self.frames:
                raise section.wrong("array", f"the times of {self.frames} frames; it holds {len(times)}")
            dt = mapping.interval(f"{self.path}: {section.key}", times)
        else:
            dt = section.number("dt", expected="a number above 0, or an array of times", positive=True)
        section.finish()
        return dt, units

    def _vector(self, section: Section, words: tuple[str, ...]) -> np.ndarray:
        """A one-dimensional array, put together along time where files are."""
        source = self._source(section, words)
        files = source.files if words == ("time",) and self._along == "time" else source.files[:1]
        values = [_values(file, self._array(source, file)) for file in files]
        flat = [item.reshape(-1) if item.size == max(item.shape, default=1) else item for item in values]
        if any(item.ndim != 1 for item in flat):
            raise section.wrong("array", f"one dimension; it has the shape {values[0].shape}")
        return np.concatenate(flat)

    def _parameters(self, whole: Section) -> dict[str, np.ndarray]:
        entries = whole.section("parameters", {})
        return {name: self._parameter(entries, name) for name in entries.values}

    def _parameter(self, entries: Section, name: str) -> np.ndarray:
        expected = f"a number, {self.count} numbers, one for each trajectory, or an array of them"
        value = entries.take(name, expected=expected)
        numbers = entries.numbers(name)
        if numbers is None and isinstance(value, (dict, str)):
            section = Section(self._file, entries.at(name), {"array": value} if isinstance(value, str) else value)
            numbers = self._numbers(self._source(section, (), name))
            section.finish()
        if numbers is not None and len(numbers) == 1:
            numbers = numbers * self.count
        if numbers is None or len(numbers) != self.count or not np.isfinite(numbers).all():
            held = "" if numbers is None else f"; there are {len(numbers)}, or one is not finite"
            raise entries.wrong(name, expected + held)
        return np.array(numbers, np.float64)

    def _numbers(self, source: _Source) -> list[float]:
        if self._along == "time":
            return _values(source.files[0], self._array(source, source.files[0])).reshape(-1).tolist()
        numbers: list[float] = []
        for index, file in enumerate(source.files):
            values = _values(file, self._array(source, file)).reshape(-1).tolist()
            each = self._counts[index] if len(source.files) == len(self._counts) > 1 else 1
            numbers += values * each if len(values) == 1 else values
        return numbers

    # The arrays

    def _array(self, source: _Source, file: Path) -> Any:
        """The array of one file, opened once in every process."""
        if self._process != os.getpid():  # what is in memory may stay, handles may not
            self._process = os.getpid()
            self._arrays = OrderedDict((k, v) for k, v in self._arrays.items() if not isinstance(v, Stored))
        key = (file, source.array)
        if key not in self._arrays:
            made = open_array(file, source.array, f"{self.path}: {source.key}")
            lazy = [k for k, v in self._arrays.items() if isinstance(v, (Stored, np.memmap))]
            if len(lazy) >= _OPEN:
                del self._arrays[lazy[0]]
            self._arrays[key] = made
        return self._arrays[key]

    def _shape(self, source: _Source, file: Path) -> tuple[int, ...]:
        """Sizes along the words of a source."""
        shape = tuple(self._array(source, file).shape)
        if file.suffix == ".mat":  # there are no vectors, and dimensions of length one at the end are lost
            if len(source.words) == 1 and len(shape) == 2 and 1 in shape:
                return (max(shape),)
            shape += (1,) * (len(source.words) - len(shape))
        if len(shape) != len(source.words) or 0 in shape:
            raise ValueError(
                f"{self.path}: {source.key}: array {source.array or file.name} has the shape {shape}, its dimensions "
                f"are {list(source.words)}; expected a word for each and no length of 0."
            )
        return shape

    def _piece(self, source: _Source, file: Path, trajectory: int, frames: slice) -> np.ndarray:
        """``(T, *space, C)`` of one file, as stored along the axes."""
        array, shape = self._array(source, file), self._shape(source, file)
        index: list[Any] = [
            trajectory if word == "trajectory" else frames if word == "time" else slice(None) for word in source.words
        ]
        words, index = source.words[: array.ndim], index[: array.ndim]  # MATLAB loses dimensions of one at the end
        if array.ndim > len(shape):  # and has rows and columns for vectors
            array = _values(file, array).reshape(shape)
        values = _values(file, array, tuple(index))
        left = [word for word in words if word != "trajectory"]
        order = ("time", *self._names, "channel")
        values = values.transpose([left.index(word) for word in order if word in left])
        with np.errstate(over="ignore", invalid="ignore"):  # too large a number becomes infinite, which is refused
            values = values.astype(np.float32)
        return self._centred(source, values[tuple(slice(None) if word in left else None for word in order)])

    def _centred(self, source: _Source, values: np.ndarray) -> np.ndarray:
        """Means of the two faces of each cell; on a periodic axis the last cell ends at the first face."""
        if not source.faces:
            return values
        axis = 1 + self._names.index(source.faces)
        if source.faces in self._periodic:
            values = np.concatenate([values, values.take([0], axis)], axis)
        low, high = (values.take(range(a, values.shape[axis] - 1 + a), axis) for a in (0, 1))
        return np.float32(0.5) * low + np.float32(0.5) * high

    def _take(self, source: _Source, trajectory: int, frames: slice, every: bool = False) -> np.ndarray:
        """``(T, *space, 1)``, or every channel, of a source over all its files."""
        counts = self._counts if len(source.files) > 1 else None
        if counts is None:
            row = trajectory if self._rows(source) > 1 else 0
            values = self._piece(source, source.files[0], row, frames)
        elif self._along == "trajectory":
            [(part, where)] = mapping.parts(counts, slice(trajectory, trajectory + 1))
            values = self._piece(source, source.files[part], where.start, frames)
        else:
            pieces = [
                self._piece(source, source.files[part], trajectory, where)
                for part, where in mapping.parts(counts, frames)
            ]
            values = np.concatenate(pieces)
        return values if every else values[..., source.channel : source.channel + 1]

    def _rows(self, source: _Source) -> int:
        return (
            self._shape(source, source.files[0])[source.words.index("trajectory")]
            if "trajectory" in source.words
            else 1
        )

    def _together(self, sources: list[_Source], trajectory: int, frames: slice) -> np.ndarray:
        """``(T, *space, C)``, a channel for each source; an array that holds several is read once."""
        read: dict[_Source, np.ndarray] = {}
        columns = []
        for source in sources:
            same = replace(source, key="", channel=0)
            if same not in read:
                read[same] = self._take(source, trajectory, frames, every=True)
            columns.append(read[same][..., source.channel])
        whole = next(iter(read.values()))
        in_order = len(read) == 1 and [source.channel for source in sources] == list(range(whole.shape[-1]))
        values = whole if in_order else np.stack(columns, axis=-1)
        return np.ascontiguousarray(values[(slice(None), *self._keep)])

    def storage(self) -> Storage:
        sources, chunks = (*self._fields, *self._static), dict[tuple[str, str], tuple[Chunks, ...]]()
        for source in sources:
            array = self._array(source, source.files[0])
            if isinstance(array, Stored) and len(source.words) == array.ndim:
                chunks[source.files[0].name, source.array] = array.chunks(source.words)
        files = dict.fromkeys(file for source in sources for file in source.files)
        return Storage.of([self._file, *files], chunks=tuple(c for found in chunks.values() for c in found))

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        values = self._together(self._fields, trajectory, frames)
        return values if self._fluid is None else np.where(self._fluid[..., None], values, np.float32(0))

    def _read_static(self, trajectory: int) -> np.ndarray:
        return self._together(self._static, trajectory, slice(0, 1))[0]

    @cached_property
    def statistics(self) -> Statistics:  # type: ignore[override]  # an attribute, filled in when it is asked for
        return self.measured()

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        return mapping.fingerprint(self)

    def identify(self, *, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
        if "fingerprint" not in vars(self):
            self.fingerprint = mapping.fingerprint(self, progress)
        return self.fingerprint

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": OrderedDict(), "_process": -1}


def _values(file: Path, array: Any, index: Any = ...) -> np.ndarray:
    try:
        return np.asarray(array[index])
    except BROKEN as problem:
        raise ValueError(f"{file}: cannot be read ({brief(problem)}); copy or make it again.") from None


EXPECTED = f"a mapping file (NAME{SUFFIX}) beside .npy, .npz, .mat, .pt or HDF5 files"


def recognises(path: Path) -> bool:
    """Mapping files, and files of arrays, which are refused in words: they need one."""
    return path.is_file() and (path.name.endswith(SUFFIX) or path.suffix in (".npy", ".npz", ".mat"))


def opened(path: Path) -> Arrays:
    """What a mapping file describes; arrays alone are refused."""
    if path.name.endswith(SUFFIX):
        return Arrays(path)
    beside = path.with_name(path.stem + SUFFIX)
    if beside.exists():
        raise ValueError(f"{path}: arrays without names of dimensions; open {beside}, which gives them.")
    what = "arrays"
    if path.suffix == ".npy":
        array = open_array(path, "", str(path))
        what = f"an array of shape {array.shape} and type {array.dtype}"
    raise ValueError(
        f"{path}: holds {what}, but nothing says which dimension is which; write {beside.name} beside it, with the "
        "keys file, fields, dimensions, axes and time, and open that."
    )
