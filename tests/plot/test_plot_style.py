"""Figures leave nothing behind: no global state, no half-written file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from physml.plot import save, style, trajectories


def test_pyplot_is_never_imported() -> None:
    code = "import sys, physml.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], check=False).returncode == 0


def test_drawing_changes_no_setting_of_matplotlib(results: dict[str, xr.Dataset]) -> None:
    before = dict(matplotlib.rcParams)
    trajectories.error_growth(results)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("suffix", style.FIGURES)
def test_a_figure_is_written_in_each_format(tmp_path: Path, suffix: str) -> None:
    path = save(style.blank(3, 2), tmp_path / "deep" / f"figure{suffix.upper()}")
    begins = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert path.read_bytes().startswith(begins[suffix])
    assert list(path.parent.iterdir()) == [path]


def test_a_picture_has_150_dots_an_inch(tmp_path: Path) -> None:
    figure = style.blank(3, 2)
    figure.subplots()
    with Image.open(save(figure, tmp_path / "figure.png")) as opened:
        assert opened.info["dpi"] == pytest.approx((150, 150), abs=0.1)  # PNG counts dots a metre, in whole numbers
        np.testing.assert_allclose(np.array(opened.size) / 150, (3, 2), atol=0.3)  # white margins are trimmed


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")

    def fail(self: Figure, file: Path, **options: object) -> None:
        Path(file).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        save(style.blank(3, 2), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["figure.jpg", "figure"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"path: .*{name} .*expected .png or .pdf or .svg"):
        save(style.blank(3, 2), tmp_path / name)


def test_a_notebook_shows_the_figure() -> None:
    shown = style.blank(3, 2)._repr_png_()  # type: ignore[attr-defined]
    assert shown.startswith(b"\x89PNG")


def test_names_keep_their_colours() -> None:
    names = [str(index) for index in range(8)]
    looks = style.lines(names)
    assert len({tuple(look.values()) for look in looks.values()}) == 8
    assert looks["6"]["color"] == looks["0"]["color"] and looks["6"]["linestyle"] != looks["0"]["linestyle"]
