from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from settings import coefficient, make_steady_store, strength
from waves import make_store, wave

from physml.plot.states import overview


def images(figure: object) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]  # type: ignore[attr-defined]


def test_first_middle_and_last_frame_of_a_trajectory(tmp_path: Path) -> None:
    store = make_store(tmp_path / "waves.zarr", frames=9, shape=(8, 6))
    figure = overview(store, 2)
    expected = wave(store.layout, 2, 9)[[0, 4, 8], ..., 0]
    for drawn, frame in zip(images(figure), expected, strict=True):
        np.testing.assert_array_equal(drawn, frame.T)  # the first axis to the right
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["frame 0\nt = 0 s", "frame 4\nt = 1 s", "frame 8\nt = 2 s"]
    assert figure.axes[3].get_ylabel() == "vorticity (1/s)"  # of the colour bar
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert len(limits) == 1 and -min(limits)[0] == min(limits)[1]  # shared, and about zero for both signs


def test_static_fields_come_last(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    response, still = images(overview(store, 3))
    field = coefficient(store.layout, 3)[..., 0]
    np.testing.assert_array_equal(still, field.T)
    np.testing.assert_allclose(response, strength(3) * field.T, rtol=1e-6)  # one product in single precision
    labels = [ax.get_ylabel() for ax in overview(store, 3).axes]
    assert "response" in labels and "coefficient (m)" in labels


@pytest.mark.parametrize("shape", [(16,), (6, 5, 4)])
def test_one_and_three_dimensions(shape: tuple[int, ...], tmp_path: Path) -> None:
    store = make_store(tmp_path / "waves.zarr", frames=5, shape=shape)
    figure = overview(store)
    expected = wave(store.layout, 0, 5)[[0, 2, 4], ..., 0]
    if len(shape) == 1:
        for ax, frame in zip(figure.axes, expected, strict=True):
            np.testing.assert_array_equal(ax.lines[0].get_ydata(), frame)
    else:
        for drawn, frame in zip(images(figure), expected[..., 2], strict=True):  # the middle slice
            np.testing.assert_array_equal(drawn, frame.T)
        assert "slice z" in figure.get_suptitle()
    figure.draw_without_rendering()
