"""How a data set lies on the disk: files, bytes, and the pieces that are read and decoded whole."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import zarr
from zarr.storage import LocalStore


@dataclass(frozen=True)
class Chunks:
    """The pieces of one array. To read one number of a piece, all of it is read and decoded.

    Args:
        array: name.
        trajectories, frames: of one piece.
        space: points of one piece along each axis.
        pieces: that a frame is cut into.
        frame_bytes: of one frame of one trajectory, decoded.
        compression: and checksums, in words; empty where there are none.
        missing: pieces that are not stored, and are read as ``fill``.
        total: pieces that the whole array should have.
        fill: the value in their place.
    """

    array: str
    trajectories: int
    frames: int
    space: tuple[int, ...]
    pieces: int
    frame_bytes: int
    compression: str = ""
    missing: int = 0
    total: int = 0
    fill: str = ""

    @classmethod
    def of(
        cls, array: str, shape: Sequence[int], chunk: Sequence[int], words: Sequence[str], itemsize: int, **more: Any
    ) -> Chunks:
        """From the shape of an array and of its pieces.

        Args:
            array: name.
            shape, chunk: along each dimension.
            words: what each dimension is: ``trajectory``, ``time``, an axis of space, ``channel``, or nothing of these.
            itemsize: bytes of a number.
            more: the other arguments.
        """
        pieces = [(word, n, min(c, n)) for word, n, c in zip(words, shape, chunk, strict=True)]
        lead = {word: c for word, _, c in pieces if word in ("trajectory", "time")}
        rest = [(word, n, c) for word, n, c in pieces if word not in lead]
        return cls(
            array,
            lead.get("trajectory", 1),
            lead.get("time", 1),
            tuple(c for word, _, c in rest if word not in ("channel", "")),
            math.prod(-(-n // c) for _, n, c in rest),
            itemsize * math.prod(n for _, n, _ in rest),
            **more,
        )

    @property
    def shape(self) -> str:
        """``16 frames of 64×64 points``."""
        rows = f" of {self.trajectories} trajectories" if self.trajectories > 1 else ""
        return f"{self.frames} frame{'s' * (self.frames > 1)}{rows} of {'×'.join(map(str, self.space))} points"

    def amplification(self, window: int, frames: int) -> float:
        """Bytes that are read for each byte of a window of ``w`` frames, averaged over all its starts ``s``.

        With ``c`` frames and ``m`` trajectories in a piece, of trajectories of ``T`` frames,

            A = m / (T - w + 1) sum_{s=0}^{T-w} (min(c ceil((s + w)/c), T) - c floor(s/c)) / w,

        which is about ``m (w + c - 1)/w`` where ``T`` is much larger than ``c``. Nothing is taken to be kept between
        windows; where they follow each other, a cache makes it less.

        Args:
            window: ``w``, cut to ``T``.
            frames: ``T``.
        """
        window = min(window, frames)
        start, c = np.arange(frames - window + 1), self.frames
        read = np.minimum(-(-(start + window) // c) * c, frames) - start // c * c
        return self.trajectories * float(read.mean()) / window

    def reads(self, window: int, frames: int) -> float:
        """Pieces that a window touches, averaged over its starts."""
        window = min(window, frames)
        start = np.arange(frames - window + 1)
        return self.pieces * float(((start + window - 1) // self.frames - start // self.frames + 1).mean())


@dataclass(frozen=True)
class Storage:
    """What lies on the disk.

    Args:
        files: all that are read.
        size: bytes of them; of those that lie on a local disk.
        chunks: of each array that has some; contiguous arrays have none. Of several files, those of the first.
        statistics: whether they are ``measured``, ``stored`` with exactly these data, or ``published`` beside them,
            perhaps for more data than there are here.
    """

    files: tuple[str, ...]
    size: int
    chunks: tuple[Chunks, ...] = ()
    statistics: Literal["measured", "stored", "published"] = "measured"

    @classmethod
    def of(cls, files: Iterable[Path | str], **more: Any) -> Storage:
        """These files; a folder stands for all below it."""
        found, size = list[str](), 0
        for file in files:
            for path in _below(str(file)):
                found.append(path)
                with suppress(OSError):  # not on a local disk
                    size += os.stat(path).st_size
        return cls(tuple(found), size, **more)


def _below(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)


def of_hdf5(array: h5py.Dataset, words: Sequence[str]) -> tuple[Chunks, ...]:
    """The pieces of an HDF5 array; none where it is contiguous."""
    if array.chunks is None:
        return ()
    level = "" if array.compression_opts is None else f" {array.compression_opts}"
    filters = [f"{array.compression}{level}" if array.compression else "", "shuffle" if array.shuffle else ""]
    told = ", ".join(filter(None, [*filters, "fletcher32" if array.fletcher32 else ""]))
    name = array.name.lstrip("/")
    return (Chunks.of(name, array.shape, array.chunks, words, array.dtype.itemsize, compression=told),)


def of_zarr(name: str, array: zarr.Array, words: Sequence[str], *, total: int | None = None) -> tuple[Chunks, ...]:
    """The pieces of a zarr array; inside a shard, which is one file, they are read one by one.

    Args:
        name: of the array.
        array: to look at.
        words: for its dimensions, see :meth:`Chunks.of`.
        total: pieces that it should have, where that is not all of them.
    """
    told = ", ".join(_codec(codec) for codec in array.compressors)
    total = int(array.nchunks) if total is None else total
    listed = isinstance(array.store, LocalStore) and not array.shards
    missing = total - array.nchunks_initialized if listed else 0
    size = array.dtype.itemsize
    more = {
        "compression": told,
        "missing": missing,
        "total": total,
        "fill": "an undefined value" if array.fill_value is None else str(array.fill_value),
    }
    return (Chunks.of(name, array.shape, array.chunks, words, size, **more),)


def _codec(codec: Any) -> str:
    """``blosc lz4``, whatever library defines it."""
    name = type(codec).__name__.removesuffix("Codec").lower()
    kind = getattr(codec, "cname", "")
    return f"{name} {getattr(kind, 'value', kind)}".strip()
