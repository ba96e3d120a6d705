"""Arrays of numbers out of ``.npy``, ``.npz``, ``.mat``, ``.pt`` and HDF5 files: mapped, stored or in memory.

Nothing is unpickled, whatever the format: object arrays, cells and structures are refused. A damaged file is one clear
error.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from physml.datasets.hdf5 import refuse_elsewhere
from physml.datasets.storage import Chunks, of_hdf5

SUFFIXES = (".npy", ".npz", ".mat", ".pt", ".pth", ".h5", ".hdf5")
BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    SystemError,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""What the reading libraries raise for files that are damaged or something else."""


_PICKLED = ("allow_pickle", "pickled", "unsupported global", "not an allowed global")
"""What numpy and torch say where they would have to unpickle, in small letters."""


class Stored:
    """An HDF5 array that is read by windows.

    Args:
        file: kept open as long as this is.
        array: inside it.
        reverse: whether its dimensions are those of MATLAB, reversed.
    """

    def __init__(self, file: h5py.File, array: h5py.Dataset, reverse: bool) -> None:
        self._file, self._array, self._reverse = file, array, reverse
        self.shape = array.shape[::-1] if reverse else array.shape
        self.ndim, self.dtype = array.ndim, array.dtype

    def chunks(self, words: Sequence[str]) -> tuple[Chunks, ...]:
        """The pieces of it, by the words of its dimensions."""
        return of_hdf5(self._array, words[::-1] if self._reverse else words)

    def __getitem__(self, index: Any) -> np.ndarray:
        if not self._reverse:
            return np.asarray(self._array[index])
        turned = index[::-1] if isinstance(index, tuple) else index
        return np.asarray(self._array[turned]).T


def open_array(file: Path, name: str, where: str) -> Any:
    """An array of numbers out of a file: mapped, stored or in memory; it has shape, dtype and indices."""
    readers: dict[str, Callable[[Path, str, str], Any]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".pt": _torch,
        ".pth": _torch,
        ".h5": _hdf5,
        ".hdf5": _hdf5,
    }
    if file.suffix == ".mat":
        readers[".mat"] = _hdf5 if _is_matlab_hdf5(file) else _matlab
    if file.suffix not in readers:
        raise ValueError(f"{where}: {file.name} ends in {file.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    try:
        array = readers[file.suffix](file, name, where)
    except _Refused as problem:
        raise ValueError(str(problem)) from None
    except MemoryError as problem:
        raise ValueError(
            f"{file}: needs more memory than there is ({brief(problem)}); save it as .npy or HDF5, which are read by "
            "windows."
        ) from None
    except ImportError:
        raise
    except Exception as problem:  # whatever a library makes of bytes that are no such file
        if any(words in str(problem).lower() for words in _PICKLED):
            raise ValueError(
                f"{file}: holds pickled objects, which are never loaded, for they can run code; save numbers only."
            ) from None
        raise ValueError(
            f"{file}: truncated, damaged or not a {file.suffix} file ({brief(problem)}); copy or make it again."
        ) from None
    _check_numbers(file, name, array.dtype)
    return array


class _Refused(Exception):
    """A file that is whole but is not what was expected; its text is the message."""


def brief(problem: BaseException) -> str:
    """What a library said, in one short line."""
    return " ".join(str(problem).split())[:100] or type(problem).__name__


def _check_numbers(file: Path, name: str, dtype: np.dtype) -> None:
    if dtype.kind in "biuf":
        return
    what = f"{file}: array {name or file.name} holds {dtype}"
    if dtype.kind == "c" or set(dtype.names or ()) in ({"real", "imag"}, {"r", "i"}):
        raise ValueError(f"{what}, complex numbers; save their real and imaginary parts as two fields.")
    raise ValueError(f"{what}; expected plain numbers (cells, structures, text, dates and objects are not read).")


def _named(file: Path, name: str, where: str, names: Iterable[str]) -> str:
    """The name to look up: the only one where none was given."""
    known = list(names)
    if name in known:
        return name
    if len(known) == 1 and not name:
        return known[0]
    asked = f"no array {name!r}" if name else "an array must be named"
    raise _Refused(f"{where}: {asked}; {file.name} holds {', '.join(sorted(map(str, known))) or 'none'}.")


def _npy(file: Path, name: str, where: str) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as problem:
        if "dtype" in str(problem) and "object" in str(problem):
            raise _Refused(f"{file}: holds Python objects (allow_pickle), which are never loaded.") from None
        raise


def _npz(file: Path, name: str, where: str) -> np.ndarray:
    with open(file, "rb") as raw, np.load(raw, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise _Refused(f"{file}: holds a single array; it is an .npy file, rename it.")
        return archive[_named(file, name, where, archive.files)]


def _torch(file: Path, name: str, where: str) -> np.ndarray:
    # files of before torch 1.6 are no archives and cannot be mapped
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    values = found if isinstance(found, Tensor) else None
    if isinstance(found, dict):
        tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        values = tensors[_named(file, name, where, tensors)]
    if values is None:
        raise _Refused(f"{file}: holds {type(found).__name__}; expected a tensor or a dictionary of tensors.")
    if values.layout is not torch.strided or values.is_quantized:
        raise _Refused(f"{file}: {name} is sparse or quantised; save it dense.")
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().resolve_conj().numpy()


def _is_matlab_hdf5(file: Path) -> bool:
    with open(file, "rb") as raw:
        head = raw.read(520)
    return head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:])


def _hdf5(file: Path, name: str, where: str) -> Stored:
    opened = h5py.File(file, "r", locking=False)
    found = opened.get(name) if name else None
    if not isinstance(found, h5py.Dataset):
        known: list[str] = []
        opened.visititems(lambda key, item: known.append(key) if isinstance(item, h5py.Dataset) else None)
        found = opened[_named(file, name, where, [key for key in known if not key.startswith("#refs#")])]
    try:
        refuse_elsewhere(found, f"{where}: array {found.name} of {file.name}")
    except ValueError as problem:
        raise _Refused(str(problem)) from None
    if "MATLAB_empty" in found.attrs:
        raise _Refused(f"{where}: array {name} of {file.name} is empty.")
    return Stored(opened, found, file.suffix == ".mat")


def _matlab(file: Path, name: str, where: str) -> np.ndarray:
    from scipy.io import loadmat  # few data sets need it
    from scipy.io.matlab import MatReadError

    try:
        if not name:
            name = _named(file, name, where, [key for key in loadmat(file) if not key.startswith("__")])
        found: Mapping[str, Any] = loadmat(file, variable_names=[name])
        if name not in found:
            _named(file, name, where, [key for key in loadmat(file) if not key.startswith("__")])
    except MatReadError as problem:
        raise ValueError(str(problem)) from None
    if not isinstance(found[name], np.ndarray):
        raise _Refused(f"{file}: {name} is sparse or an object; save it as a full array of numbers.")
    return found[name]
