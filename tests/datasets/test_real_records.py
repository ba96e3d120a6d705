"""The shipped mapping files of real records: coordinates and times that make each record a solution of its equation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from physml.datasets import Trajectories, open_trajectories

ROOT = Path(__file__).parents[2] / "data"
Terms = Callable[[Callable[[np.ndarray, int], np.ndarray], np.ndarray], list[np.ndarray]]


def coefficients(data: Trajectories, rows: list[int], terms: Terms, most: int) -> tuple[np.ndarray, float]:
    """Least squares of ``u_t = sum_i c_i term_i(u)`` over all frames; coefficients, and what is left, of ``u_t``.

    Derivatives are spectral in space, with waves up to ``most`` (single precision leaves noise in those above), and of
    fourth order in time.
    """
    [axis] = data.layout.grid.axes
    n = len(axis.points)
    k = 2j * np.pi * np.fft.rfftfreq(n, axis.length / n)
    kept = np.arange(len(k)) <= most

    def derivative(u: np.ndarray, order: int) -> np.ndarray:
        return np.fft.irfft(np.where(kept, k**order, 0) * np.fft.rfft(u), n)

    u = np.stack([data.read(row, 0, data.frames)[..., 0].astype(np.float64) for row in rows])
    u_t = (u[:, :-4] - 8 * u[:, 1:-3] + 8 * u[:, 3:-1] - u[:, 4:]) / (12 * data.layout.dt)
    columns = [term[:, 2:-2].ravel() for term in terms(derivative, u)]
    matrix = np.stack(columns, axis=1)
    found = np.linalg.lstsq(matrix, u_t.ravel())[0]
    return found, float(np.linalg.norm(matrix @ found - u_t.ravel()) / np.linalg.norm(u_t))


def test_the_kuramoto_sivashinsky_record_solves_its_equation(real_data: Path) -> None:
    data = open_trajectories(ROOT / "pde1d" / "kuramoto_sivashinsky.physml.yaml")
    found, left = coefficients(data, [0], lambda d, u: [u * d(u, 1), d(u, 2), d(u, 4)], most=32)
    # u_t + 5 (u u_y + u_yy / 3 + u_yyyy / 27) = 0 with y = pi x
    np.testing.assert_allclose(found, [-5 / np.pi, -5 / (3 * np.pi**2), -5 / (27 * np.pi**4)], rtol=1e-5)
    assert left < 1e-3  # rounding to single precision, which u_yyyy amplifies, leaves 2e-4
    first = data.read(0, 0, 1)[0, :, 0]
    np.testing.assert_allclose(first, -np.sin(np.pi * data.layout.grid.axes[0].points.numpy()), atol=1e-6)  # float32


def test_the_allen_cahn_record_solves_its_equation(real_data: Path) -> None:
    data = open_trajectories(ROOT / "pde1d" / "allen_cahn.physml.yaml")
    found, left = coefficients(data, [0], lambda d, u: [d(u, 2), u, u**3], most=200)
    np.testing.assert_allclose(found, [1e-4, 5.0, -5.0], rtol=1e-5)  # Raissi et al. 2019
    assert left < 1e-3  # rounding to single precision leaves 3e-4


def test_the_burgers_frames_are_a_sixteenth_part_of_096_apart(real_data: Path) -> None:
    data = open_trajectories(ROOT / "burgers_neuralop" / "burgers.physml.yaml")
    assert data.parameters["viscosity"][0] == pytest.approx(0.01)

    def roughness(row: int) -> float:
        power = np.abs(np.fft.rfft(data.read(row, 0, data.frames)[..., 0])) ** 2
        return float((power[:, 4:].sum(axis=1) / power.sum(axis=1)).max())

    smooth = sorted(range(data.count), key=roughness)[:40]  # 16 points resolve these well enough to differentiate
    found, left = coefficients(data, smooth, lambda d, u: [u * d(u, 1), d(u, 2)], most=8)
    # with 1/16 between frames, the other reading, the coefficients would be 4 % smaller
    np.testing.assert_allclose(found, [-1.0, 0.01], rtol=2e-3)
    assert left < 2e-3
    assert data.layout.dt == 0.06
