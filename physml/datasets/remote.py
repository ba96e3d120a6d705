"""Files and folders that a URL names, read through fsspec: object storage, web servers, memory.

:class:`Remote` offers what the adapters need of :class:`pathlib.Path`, so that one code reads both. ``Path`` itself
cannot stand for a URL: it makes one slash of two. Which schemes there are depends on the packages that are installed;
``pip install 'physml[remote]'`` brings those of ``s3://`` and ``https://``.

Nothing is held open here. fsspec keeps its connections for each process, and opens them anew after a fork.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias
from urllib.parse import urlsplit

_BLOCK = 4 << 20  # bytes of one request; smaller ones wait for the network, larger ones fetch what nobody asked for
_BLOCKS = 8  # kept of each open file
_WEB = ("http", "https")
_MARKS = ("ETag", "etag", "LastModified", "last_modified", "mtime", "created")  # names of the file systems of fsspec


def is_url(path: object) -> bool:
    """Whether this is a URL rather than a path of this machine."""
    return isinstance(path, Remote) or (isinstance(path, str) and "://" in path)


@dataclass(frozen=True, order=True)
class Remote:
    """A file or a folder on a file system of fsspec.

    Args:
        url: for instance ``s3://bucket/folder``, ``https://host/file.hdf5``, ``memory://file.hdf5``.

    Raises:
        ImportError: when it is first looked at, where the package for this scheme is missing.
        ValueError: where there is no such scheme.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, rest = self.url.split("://", 1)
        object.__setattr__(self, "url", f"{scheme}://{rest.rstrip('/') or rest[:1]}")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | Path) -> Remote:
        return Remote(f"{self.url.rstrip('/')}/{Path(name).as_posix()}")

    @property
    def _scheme(self) -> str:
        return self.url.split("://", 1)[0]

    @property
    def _parts(self) -> list[str]:
        rest = urlsplit(self.url).path if self._scheme in _WEB else self.url.split("://", 1)[1]
        return [part for part in rest.split("/") if part]

    @property
    def name(self) -> str:
        return self._parts[-1] if self._parts else ""

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> Remote:
        head, slash, _ = self.url.rpartition("/")
        return self if head.endswith(("/", ":")) or not slash else Remote(head)

    @property
    def parents(self) -> Sequence[Remote]:
        found, at = [], self
        while at.parent != at:
            at = at.parent
            found.append(at)
        return found

    def _system(self) -> tuple[Any, str]:
        try:
            import fsspec

            return fsspec.core.url_to_fs(self.url)
        except ImportError as problem:
            raise ImportError(
                f"{self.url}: the package that reads {self._scheme}:// is missing ({problem}); "
                "pip install 'physml[remote]' brings those of s3:// and https://."
            ) from None
        except ValueError as problem:
            raise ValueError(f"{self.url}: cannot be read through fsspec ({problem}).") from None

    @property
    def lists(self) -> bool:
        """Whether a folder can say what it holds; web servers do not, or in no way that can be relied on."""
        return self._scheme not in _WEB

    def exists(self) -> bool:
        system, path = self._system()
        return bool(system.exists(path))

    def is_file(self) -> bool:
        system, path = self._system()
        return bool(system.isfile(path))

    def is_dir(self) -> bool:
        if not self.lists:
            return False
        system, path = self._system()
        return bool(system.isdir(path))

    def iterdir(self) -> Iterator[Remote]:
        system, path = self._system()
        for found in system.ls(path, detail=False):
            yield self / str(found).rstrip("/").rpartition("/")[2]

    def stat(self) -> SimpleNamespace:
        """Only ``st_size``, bytes."""
        system, path = self._system()
        return SimpleNamespace(st_size=int(system.size(path)))

    def state(self) -> list[Any]:
        """Bytes, and what the server tells versions apart by: an entity tag or a time; ``None`` where it tells nothing.

        Raises:
            OSError: where it cannot be asked.
        """
        system, path = self._system()
        system.invalidate_cache()
        about = system.info(path)
        marks = (about[key] for key in _MARKS if about.get(key) is not None)
        return [about.get("size"), next(map(str, marks), None)]

    def open(self) -> io.RawIOBase:
        """For reading, in blocks of 4 MiB, of which the last eight are kept.

        Raises:
            FileNotFoundError: where there is none.
        """
        system, path = self._system()
        more = {"block_size": _BLOCK, "cache_type": "blockcache", "cache_options": {"maxblocks": _BLOCKS}}
        return _Opened(system.open(path, "rb", **more), self.url)

    def pieces(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from ``start`` to ``stop`` of each range, asked for together."""
        system, path = self._system()
        found = system.cat_ranges([path] * len(ranges), [a for a, _ in ranges], [b for _, b in ranges])
        return [bytes(piece) for piece in found]

    def read_text(self) -> str:
        system, path = self._system()
        return str(system.cat_file(path).decode())


class _Opened(io.RawIOBase):
    """A file of fsspec that says where it lies, so that messages of HDF5 do."""

    def __init__(self, file: Any, url: str) -> None:
        self._file, self._url = file, url

    def __repr__(self) -> str:
        return self._url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._file.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


Place: TypeAlias = Path | Remote
"""Where data lie: on this machine or elsewhere."""


def place(path: str | Path | Remote) -> Place:
    """A path, or what a URL names."""
    if isinstance(path, Remote):
        return path
    return Remote(str(path)) if is_url(path) else Path(path)
