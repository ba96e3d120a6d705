"""Chunks of a store, read straight from their files: the bytes, checks and values are those of zarr.

zarr reads every window through an event loop and a pool of threads, which pays for objects far away. A chunk of the
canonical store is one local file: Blosc-compressed single precision, then its CRC32C in four bytes. The windows of a
training run read it in place: the file, the checksum, and the values to where they are wanted. Whatever is stored
otherwise is left to zarr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import zarr
from numcodecs import blosc
from numcodecs.checksum32 import CRC32C
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

_CRC32C = CRC32C(location="end")
_CHECKSUM = 4  # bytes
_TOGETHER = 32  # files that are open, and fetched, at the same time
_HEADER = 16  # bytes of Blosc: versions, flags, size of an item; then sizes whole, of a block and compressed


@dataclass(frozen=True)
class ChunkFiles:
    """The files of an array whose chunks hold whole frames of one trajectory.

    Args:
        folder: of the array.
        shape: of a chunk, ``(T, *space, C)``; ``T = 1`` where the array has no time.
        moving: whether the array has time.
    """

    folder: str
    shape: tuple[int, ...]
    moving: bool

    @classmethod
    def of(cls, array: zarr.Array, moving: bool) -> ChunkFiles | None:
        """``None`` where the array is stored otherwise than :class:`StoreWriter` does, or not in local files."""
        about, store = array.metadata, array.store
        shape = (1, *array.chunks) if not moving else array.chunks
        usual = (
            sys.byteorder == "little"
            and isinstance(store, LocalStore)
            and array.dtype == np.float32
            and isinstance(about, ArrayV3Metadata)
            and [type(codec) for codec in about.codecs] == [BytesCodec, BloscCodec, Crc32cCodec]
            and about.codecs[0].to_dict() == {"name": "bytes", "configuration": {"endian": "little"}}
            and about.chunk_key_encoding.to_dict() == {"name": "default", "configuration": {"separator": "/"}}
            and array.chunks[0] == 1
            and array.chunks[1 + moving :] == array.shape[1 + moving :]
        )
        if not usual:
            return None
        assert isinstance(store, LocalStore)
        return cls(str(Path(store.root) / array.path), tuple(shape[1:]), moving)

    def read(self, trajectory: int, frames: slice, out: np.ndarray) -> None:
        """Put frames in ``out``, ``(T, *space, C)`` and contiguous; NaN where the file of a chunk is missing.

        Raises:
            ValueError, RuntimeError: where a file is truncated or its checksum is wrong.
            OSError: where it cannot be read.
        """
        size, step = self.shape[0], frames.step or 1
        runs = _runs(frames.start, len(out), step, size)
        compressed, whole = np.empty(0, np.uint8), np.empty(0, np.float32)
        for at in range(0, len(runs), _TOGETHER):
            some = runs[at : at + _TOGETHER]
            with _Files([self._file(trajectory, chunk) for chunk, *_ in some]) as files:
                for file, (_, first, begin, end) in zip(files, some, strict=True):
                    target = out[begin:end]
                    if file is None:
                        target[...] = np.nan
                        continue
                    length = os.fstat(file).st_size
                    if length > len(compressed):
                        compressed = np.empty(length, np.uint8)
                    found = compressed[: os.readv(file, [compressed[:length].data])]
                    if step == 1 and end - begin == size:
                        _decode(found, target)
                        continue
                    if not len(whole):
                        whole = np.empty(self.shape, np.float32)
                    _decode(found, whole)
                    target[...] = whole[first : first + step * (end - begin) : step]

    def _file(self, trajectory: int, chunk: int) -> str:
        place = f"{trajectory}/{chunk}" if self.moving else f"{trajectory}"
        return f"{self.folder}/c/{place}{'/0' * (len(self.shape) - 1)}"


class _Files:
    """Files open for reading, ``None`` where one is missing; the system is told to fetch them all."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __enter__(self) -> list[int | None]:
        self._found: list[int | None] = []
        for path in self._paths:
            try:
                file = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                self._found.append(None)
                continue
            except BaseException:
                self.__exit__()
                raise
            self._found.append(file)
            if len(self._paths) > 1 and hasattr(os, "posix_fadvise"):
                with suppress(OSError):  # advice that a file system may not take
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
        return self._found

    def __exit__(self, *_: object) -> None:
        for file in self._found:
            if file is not None:
                os.close(file)


def _runs(start: int, count: int, step: int, size: int) -> list[tuple[int, int, int, int]]:
    """For each chunk with frames ``start + step k``, ``k < count``: its number, the place of its first such frame in
    it, and the first and last ``k``, the last excluded.
    """
    found, begin = [], 0
    while begin < count:
        chunk, first = divmod(start + step * begin, size)
        end = min(count, begin + ceil((size - first) / step))
        found.append((chunk, first, begin, end))
        begin = end
    return found


def _decode(stored: np.ndarray, out: np.ndarray) -> None:
    """Check the bytes of a chunk and put its values in ``out``."""
    if len(stored) < _HEADER + _CHECKSUM:
        raise ValueError(f"the file ends after {len(stored)} bytes")
    inner = _CRC32C.decode(stored)
    values, _, length = np.frombuffer(inner[4:_HEADER], "<u4").tolist()
    if (values, length) != (out.nbytes, len(inner)):
        raise ValueError(f"it holds {values} bytes in {length}, expected {out.nbytes} in {len(inner)}")
    blosc.decompress(inner, out)
