"""The command ``data check``: what is wrong with a data set."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from physml.cli.apart import Lost, apart
from physml.cli.progress import bar

_SHOWN = 8  # findings of one kind, on the screen

Plain = dict[str, Any]


def check(arguments: argparse.Namespace) -> int:
    """Read a data set once and say all that is wrong with it.

    Returns:
        1 where there is an error, otherwise 0.
    """
    with bar(f"reading {arguments.path}") as progress:
        found = _found(arguments.path, arguments.window, arguments.patience, progress)
    counts = Counter(item["severity"] for item in found)
    if arguments.json:
        plain = {
            "path": str(arguments.path),
            "errors": counts["error"],
            "warnings": counts["warning"],
            "notes": counts["note"],
            "findings": found,
        }
        print(json.dumps(plain, indent=2))
    else:
        _tell(found)
        told = [f"{counts[kind]} {kind}{'s' * (counts[kind] != 1)}" for kind in ("error", "warning", "note")]
        whole = ", ".join(told) if found else "nothing is wrong: every frame is readable and finite"
        print(f"{arguments.path}: {whole}")
    return 1 if counts["error"] else 0


def _found(path: Path | str, window: int, patience: float, progress: Callable[[int, int], None]) -> list[Plain]:
    """All findings; that the reading process is lost is one."""
    at: tuple[int, int] | None = None

    def hear(word: str, *numbers: int) -> None:
        nonlocal at
        if word == "reading":
            at = (numbers[0], numbers[1])
        else:
            progress(numbers[0], numbers[1])

    try:
        found: list[Plain] = apart(findings, path, window, hear=hear, patience=patience)
        return found
    except Lost as lost:
        row, frame = (None, None) if at is None else at
        place = str(path) if at is None else f"{path}, trajectory {row}, frame {frame}"
        return [
            {
                "severity": "error",
                "kind": "opening" if at is None else "unreadable",
                "what": lost.what,
                "remedy": lost.remedy,
                "file": str(path),
                "field": "",
                "trajectory": row,
                "frame": frame,
                "place": place,
            }
        ]


def findings(path: Path | str, window: int, say: Callable[..., None]) -> list[Plain]:
    """What :func:`physml.datasets.check.check_path` finds, in plain values."""
    from physml.datasets.check import check_path

    found = check_path(
        path,
        window=window,
        progress=lambda done, total: say("done", done, total),
        reading=lambda row, frame: say("reading", row, frame),
    )
    return [{**asdict(item), "place": item.place} for item in found]


def _tell(found: list[Plain]) -> None:
    """The first findings of each kind, and how many more there are."""
    shown = Counter[tuple[str, str]]()
    total = Counter((item["severity"], item["kind"]) for item in found)
    for item in found:
        key = severity, kind = item["severity"], item["kind"]
        shown[key] += 1
        if shown[key] <= _SHOWN:
            _wrap(f"{severity:<7}  ", f"{item['place']}: {item['what']}")
            _wrap(" " * 9, item["remedy"])
        elif shown[key] == total[key]:
            print(f"{severity:<7}  and {total[key] - _SHOWN} more of this kind ({kind}); --json has them all")


def _wrap(first: str, line: str) -> None:
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    print(textwrap.fill(line, 120, initial_indent=first, subsequent_indent=" " * 9, **how))
