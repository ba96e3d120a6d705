"""What a person sees when a command cannot go on: at most six lines, and what to do next.

Loads the standard library only: errors of torch, zarr, lightning and jsonargparse are recognised by name.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

LINES = 6
"""Most lines of one error."""

USAGE, INTERRUPTED, DEFECT = 2, 130, 1
"""Exit codes: a mistake or an obstacle, Ctrl-C, and a failure that no one foresaw."""


class UserError(Exception):
    """Something the user can put right.

    Args:
        what: what was got and why it cannot be used.
        where: ``file:line`` or ``command line``.
        expected: what would have been accepted; a list of names is cut to fit.
        hint: what to do: the nearest valid name, a command to run.
        code: exit code of the process.
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", hint: str = "", code: int = USAGE) -> None:
        super().__init__(what)
        self.what, self.where, self.expected, self.hint, self.code = what, where, expected, hint, code

    def render(self, width: int | None = None) -> str:
        """The text, at most :data:`LINES` lines of at most ``width`` columns (of the terminal, where not given)."""
        import shutil

        width = max(40, min(width or shutil.get_terminal_size((100, 24)).columns, 120))
        parts = [f"physml: {self.where}: {self.what}" if self.where else f"physml: {self.what}"]
        if self.expected:
            parts.append(f"  expected: {self.expected}")
        if self.hint:
            parts.append(f"  {self.hint}")
        wrapped = [_wrap(part, width) for part in parts]
        for part in (*wrapped[1:], wrapped[0]):  # the list of valid names gives way first, what is wrong last
            least = 1 if part is not wrapped[0] else LINES - len(parts) + 1
            while len(part) > least and sum(map(len, wrapped)) > LINES:
                part.pop()
                part[-1] = part[-1].removesuffix(" …")[: width - 2].rstrip(" ,") + " …"
        return "\n".join(line for part in wrapped for line in part)

    def __str__(self) -> str:
        return self.render()


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    # A path stays in one piece, to be copied; only a word that would fill the screen is shortened.
    words = (word if len(word) <= 2 * width else f"{word[:width]}…{word[-width // 2 :]}" for word in text.split())
    indent, text = ("  ", " ".join(words)) if text.startswith("  ") else ("physml: ", " ".join([*words][1:]))
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [indent.rstrip()]


def distance(a: str, b: str) -> int:
    """Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours that turn a into b."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was probably meant; ``None`` where nothing is near.

    Case, hyphens and underscores do not count; one letter in three may be wrong, or the rest of a name be missing.
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "_")

    wanted, best = plain(name), None
    for candidate in candidates:
        given = plain(candidate)
        apart = 0 if given == wanted else distance(wanted, given)
        begun = len(wanted) >= 3 and given.startswith(wanted)
        longest = max(len(wanted), len(given))
        if apart >= longest or (apart > max(1, longest // 3) and not begun):
            continue
        rank = (apart, -_shared(wanted, given) - _shared(wanted[::-1], given[::-1]))
        if best is None or rank < best[0]:
            best = (rank, candidate)
    return best[1] if best else None


def _shared(a: str, b: str) -> int:
    """Letters that both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``did you mean 'x'?``, or nothing."""
    found = nearest(name, candidates)
    return f"did you mean {found!r}?" if found else ""


def missing(path: Path, kind: str = "file") -> UserError:
    """The error for a path that is not there, with the nearest name that is."""
    if os.path.lexists(path):
        return UserError(f"{path} is a link that leads nowhere", expected=f"a {kind}")
    gone = path
    while not os.path.isdir(gone.parent):
        gone = gone.parent
    try:
        names = sorted(os.listdir(gone.parent))
    except OSError:
        names = []
    found = nearest(gone.name, names)
    if found:
        return UserError(f"no {kind} {path}", hint=f"did you mean {gone.parent / found}?")
    return UserError(f"no {kind} {path}", expected=_listing(gone.parent, path.suffix, names))


def _listing(folder: Path, suffix: str, names: list[str]) -> str:
    """What a folder holds, of the same kind where there are such."""
    shown = [name for name in names if not name.startswith(".")]
    alike = [name for name in shown if suffix and name.endswith(suffix)]
    inside = "the current folder" if folder == Path() else str(folder)
    return f"a path that exists; {inside} holds {', '.join(alike or shown) or 'nothing'}"


def explain(error: BaseException) -> UserError | None:
    """Turn what a command raised into words; ``None`` where it is nobody's mistake but a defect."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return UserError("stopped", code=INTERRUPTED)
    kind, home, text = type(error).__name__, type(error).__module__.partition(".")[0], _message(error)
    if (
        isinstance(error, MemoryError)
        or kind == "OutOfMemoryError"
        or re.search(r"out of memory|can't allocate memory|not enough memory", text)
    ):
        return UserError(
            f"out of memory: {_first_sentence(text)}" if text else "out of memory",
            hint="reduce data.init_args.batch_size, set trainer.precision to bf16-mixed or use a smaller operator; "
            "'physml info -c YAML --measure' tells what a step needs",
        )
    if isinstance(error, OSError) and home != "zarr":
        return _explain_os(error, text)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in ("", "physml"):
            return None
        return UserError(f"the package {package!r} is not installed", hint=f"install it: pip install {package}")
    if isinstance(error, ImportError) and "pip install" in text:  # ours, which say what is missing
        return UserError(text)
    if kind in ("UnpicklingError", "BadZipFile") or "PytorchStreamReader" in text:
        return UserError(
            f"this is no checkpoint, or it is damaged: {_first_sentence(text)}",
            expected="a .ckpt file that 'physml fit' wrote to the end",
        )
    if kind == "JSONDecodeError":
        return UserError(f"broken JSON: {text}", hint="if it belongs to a store: 'physml data check PATH'")
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"not a text file: {text}")
    if kind == "MisconfigurationException":
        return UserError(f"the trainer refuses: {text}")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or "InvalidCxxCompiler" in text:
        return UserError(
            f"torch.compile failed: {_first_sentence(text)}",
            hint="set model.compile to false, or see what is missing with 'physml doctor --full'",
        )
    if "blosc decompression" in text or "checksum" in text.lower():
        return UserError(
            f"a stored chunk is damaged: {text}", hint="'physml data check PATH' tells which; copy or make it again"
        )
    if home in ("zarr", "numcodecs"):
        return UserError(f"the store cannot be used: {text}", hint="'physml data check PATH' says all that is wrong")
    if isinstance(error, ValueError) or home in ("jsonargparse", "argparse", "yaml"):
        return UserError(text or kind)
    return None


def _explain_os(error: OSError, text: str) -> UserError:
    path = str(error.filename) if error.filename is not None else ""
    named = path or "the output"
    match error.errno:
        case errno.ENOENT if path:
            return missing(Path(path))
        case errno.EACCES | errno.EPERM if path:
            return UserError(f"no permission for {path}", hint=f"look at it with 'ls -ld {path}', or use another place")
        case errno.ENOSPC:
            return UserError(
                f"the disk of {named} is full{_free(path) if path else ''}",
                hint="make room or write to another disk (--out, PHYSML_DATA); then give the same command again",
            )
        case errno.EDQUOT:
            return UserError(f"the disk quota at {named} is used up", hint="make room or write elsewhere (--out)")
        case errno.EROFS:
            return UserError(f"{named} is on a read-only disk", hint="write to another place (--out, PHYSML_DATA)")
        case errno.EMFILE | errno.ENFILE:
            return UserError("too many open files", hint="raise the limit (ulimit -n 4096) or use fewer workers")
        case errno.EISDIR if path:
            return UserError(f"{path} is a folder", expected="a file")
        case errno.ENOTDIR if path:
            return UserError(f"{path} lies below something that is a file", expected="a folder")
    return UserError(text or type(error).__name__)


def _free(path: str) -> str:
    import shutil

    for folder in (Path(path or ".").absolute(), *Path(path or ".").absolute().parents):
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
    return ""


def _message(error: BaseException) -> str:
    """The text of an error; of one that a data loader's process passed on, without the traceback inside it."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:
        found = re.findall(r"^[\w.]+(?:Error|Exception|Interrupt): (?:.|\n)*", text, re.MULTILINE)
        text = found[-1].partition(": ")[2] if found else text.splitlines()[-1]
    return " ".join(text.split())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!]) ", text, maxsplit=1)[0]


def report(error: BaseException, *, debug: bool, stream: TextIO | None = None) -> int:
    """Write the error, after its traceback where ``debug`` is on; return the exit code."""
    stream = sys.stderr if stream is None else stream
    if debug:
        import traceback

        traceback.print_exception(error, file=stream)
    told = explain(error)
    if told is None:
        told = UserError(
            f"{type(error).__name__}: {_message(error)}",
            where=_last_place(error),
            hint="" if debug else "this was not foreseen; the same command with --debug shows the traceback",
            code=DEFECT,
        )
    print(told.render(), file=stream)
    return told.code


def _last_place(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{os.path.relpath(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
