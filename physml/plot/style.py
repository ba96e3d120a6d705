"""How figures look, and how they reach the disk.

Figures are made with the object interface of matplotlib: no window, no global state, no difference between a notebook
and a machine without a screen. Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart; the
truth is black.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.animation import Animation, FFMpegWriter, PillowWriter, writers
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 150
MARGIN = 0.06
"""Inches left around a figure when it is written."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
TRUTH = "black"
OBSTACLE = "0.6"
"""Grey of solid points."""

FIGURES, ANIMATIONS = (".png", ".pdf", ".svg"), (".gif", ".mp4")
"""Kinds of file that can be written."""

STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.title_fontsize": 8.0,
    "figure.titlesize": 9.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.4,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
}

styled = rc_context(STYLE)
"""Decorates a function that draws: the style holds inside and is gone afterwards."""


class Picture(Figure):
    """A figure that a notebook shows as the result of a cell, whatever backend is chosen."""

    def _repr_png_(self) -> bytes:
        return png(self)


def blank(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure, sizes in inches; ``compressed`` is for axes with a fixed aspect."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def lines(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each name, the same in every figure that is given the same names in the same order."""
    dashes = ("-", "--", "-.", ":")
    return {
        name: {"color": PALETTE[index % len(PALETTE)], "linestyle": dashes[index // len(PALETTE) % len(dashes)]}
        for index, name in enumerate(names)
    }


def label(name: str, units: str) -> str:
    """``velocity x (m/s)``."""
    plain = name.replace("_", " ")
    return f"{plain} ({units})" if units else plain


def quantity(value: float, units: str) -> str:
    """A number with its units."""
    return f"{value:.4g} {units}".rstrip()


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file in memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=MARGIN)
    return buffer.getvalue()


def save(figure: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write a figure; a file that was there is replaced whole.

    Args:
        figure: from a function of :mod:`physml.plot`.
        path: ends in ``.png``, ``.pdf`` or ``.svg``.
        dpi: of the pixels in it.

    Raises:
        ValueError: for another ending.
        OSError: where it cannot be written.
    """
    path = check_suffix(path, FIGURES)
    beside = _beside(path)
    try:
        with rc_context(STYLE):
            figure.savefig(beside, dpi=dpi, bbox_inches="tight", pad_inches=MARGIN)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def save_animation(animation: Animation, path: str | Path, fps: int = 12, dpi: int = 100) -> Path:
    """Write an animation; a file that was there is replaced whole.

    Args:
        animation: from :func:`physml.plot.trajectories.animate`.
        path: ends in ``.gif`` (made by Pillow) or ``.mp4`` (needs the program ffmpeg).
        fps: frames a second.
        dpi: of the pixels in it.

    Raises:
        ValueError: for another ending, or ``.mp4`` where there is no ffmpeg.
        OSError: where it cannot be written.
    """
    path = check_suffix(path, ANIMATIONS)
    writer = PillowWriter(fps=fps) if path.suffix.lower() == ".gif" else FFMpegWriter(fps=fps)
    beside = _beside(path)
    try:
        animation.save(beside, writer=writer, dpi=dpi)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def check_suffix(path: str | Path, accepted: tuple[str, ...]) -> Path:
    """The path, where its ending says a kind of file that can be written here."""
    path = Path(path)
    if path.suffix.lower() not in accepted:
        named = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise ValueError(f"path: {path} {named}, expected {' or '.join(accepted)}.")
    if path.suffix.lower() == ".mp4" and not writers.is_available("ffmpeg"):
        raise ValueError(f"path: {path} needs the program ffmpeg, which is not installed; write a .gif instead.")
    return path


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.stem}.{os.getpid()}.new{path.suffix.lower()}")
